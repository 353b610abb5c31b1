"""The contract's shapes as JavaScript: tables by which the guest library converts (shapes.js), and types for editors (snapcount.d.ts)."""

from host.plugins import contract
from sdk.bindings.described import NAMES, Described, Member, enums
from sdk.bindings.wit import LEFT_OUT, kebab

TABLES_HEAD = """// The shapes of sdk/contract/skill.cddl as tables. Made by `python -m sdk.bindings` from the host's structs.
// Each field has its name in the contract, its name in the component model, and its kind.

const U8 = 2 ** 8;
const U32 = 2 ** 32;
const U64 = 2 ** 64;

function shape(members, constants = {}) {
  const names = [...members.map((member) => member.name), ...Object.keys(constants)];
  return { members, constants, names: names.join(", ") || "(none)", known: new Set(names) };
}

function field(name, wit, kind, more) {
  return { name, wit, kind, optional: false, of: undefined, words: undefined, length: 0, end: 0, ...more };
}
"""
TYPES_HEAD = """// What a skill in JavaScript imports from "snapcount". Made by `python -m sdk.bindings` from the host's structs and the comments of skill.cddl.

declare module "snapcount" {
  /** Ends the call with an error reply: `code` is lower_snake_case, for programs, `message` one line for people. */
  export function fail(code: string, message: string): never;

  /** What `fail` throws, and what a driver refused. */
  export class Failure extends Error {
    constructor(code: string, message: string);
    code: string;
  }

  /** Writes one line to the host's log (capability `log`). */
  export function log(level: "debug" | "info" | "warning" | "error", line: string): void;

  /** Unix time in milliseconds (capability `clock`). */
  export function nowMs(): number;

  /** So many random bytes (capability `random`). */
  export function random(size: number): Uint8Array;

  /** The skill's own keys and values, which outlive it (capability `state`). */
  export const state: {
    get(key: string): Uint8Array | undefined;
    /** False: the quota is full, or the value too long; nothing was stored. An empty value deletes the key. */
    set(key: string, value: Uint8Array): boolean;
    delete(key: string): void;
  };

  /** Behaviour that the node's operators switch on (capability `flags`). */
  export const flags: {
    /** A flag that nobody named, or that cannot be asked for, is off. */
    isOn(flag: string): boolean;
  };

  /** Gives the machine a command (capability `motion`). One that is refused throws a Failure. */
  export function motion(command: MotionCommand): MotionReply;

  /** Asks the driver of any other capability; request and reply are CBOR. An error reply throws a Failure. */
  export function ask(capability: string, request: Uint8Array): Uint8Array;

  /** A number that `encode` writes as a float although it is whole. */
  export class Float {
    constructor(value: number);
    value: number;
  }

  /** Deterministic CBOR of null, booleans, numbers, strings, bytes, arrays and plain objects. */
  export function encode(value: unknown): Uint8Array;

  /** What deterministic CBOR says; undefined for anything else. */
  export function decode(bytes: Uint8Array): unknown;

  /** The bytes of a text in UTF-8. */
  export function utf8(text: string): Uint8Array;

  /** The text of bytes in UTF-8; undefined for bytes that are none. */
  export function textOf(bytes: Uint8Array): string | undefined;
"""
PLAIN = {
    "bool": "boolean", "uint": "number", "float": "number", "text": "string", "bytes": "Uint8Array", "texts": "string[]", "floats": "number[]",
}  # fmt: skip


def javascript(shapes: list[Described]) -> str:
    """The whole of shapes.js."""
    lines = [TABLES_HEAD]
    for shape in _sent(shapes):
        constants = [f"{member.name}: {str(member.value).lower()}" for member in shape.members if member.kind == "constant"]
        constants += [f'{member.name}: "{member.of}"' for member in shape.members if member.kind == "tag"]
        tail = f", {{ {', '.join(constants)} }}" if constants else ""
        fields = [_field(member) for member in shape.members if member.kind not in ("constant", "tag")]
        body = "".join(f"\n  {field}," for field in fields) + ("\n" if fields else "")
        lines.append(f"export const {shape.name} = shape([{body}]{tail});")
    commands = [f"{member.of}: {shape.name}" for shape, member in _tagged(shapes)]
    lines += [
        "",
        "/** The commands of the capability `motion` by `op`. */",
        "export const COMMANDS = {",
        *(f"  {line}," for line in commands),
        "};",
    ]
    lines += ["", "/** Request and reply of each hook; `plan_job` has two replies. */", "export const HOOKS = {"]
    lines += [f"  {hook}: [{request}, {reply}]," for hook, (request, reply) in sorted(_hooks().items())]
    return "\n".join([*lines, "};"]) + "\n"


def typescript(shapes: list[Described]) -> str:
    """The whole of snapcount.d.ts."""
    lines = [TYPES_HEAD]
    for name, words in enums(shapes).items():
        lines.append(f"  export type {name} = {' | '.join(_quoted(word) for word in words)};")
    for shape in _sent(shapes):
        lines += ["", f"  /** {shape.about} */"] if shape.about else [""]
        lines.append(f"  export interface {shape.name} {{")
        for member in shape.members:
            lines += [f"    /** {member.about} */"] if member.about else []
            lines.append(f"    {member.name}{'?' if member.optional else ''}: {_type(member)};")
        lines.append("  }")
    commands = " | ".join(shape.name for shape, _ in _tagged(shapes))
    lines += ["", f"  export type MotionCommand = {commands};"]
    lines += ["", "  /** The reply of `plan_job`: each but the last is progress, the last is the report. */"]
    return "\n".join([*lines, "  export type PlanJobReply = PlanProgress | PlanReport;", "}"]) + "\n"


def camel(name: str) -> str:
    """A name of the contract as componentize-qjs writes it: `speed_m_s` is `speedMS`."""
    first, *others = kebab(name).split("-")
    return first + "".join(word.capitalize() for word in others)


def _sent(shapes: list[Described]) -> list[Described]:
    return [shape for shape in shapes if shape.name not in LEFT_OUT]


def _tagged(shapes: list[Described]) -> list[tuple[Described, Member]]:
    return [(shape, member) for shape in shapes for member in shape.members if member.kind == "tag"]


def _hooks() -> dict[str, tuple[str, str]]:
    pairs = contract.SHAPES | {hook: (three[0], three[2]) for hook, three in contract.STREAMING.items()}
    named = {hook: [NAMES.get(shape.__name__, shape.__name__) for shape in pair] for hook, pair in pairs.items()}
    return {hook: (request, reply) for hook, (request, reply) in named.items()}


def _field(member: Member) -> str:
    more = {"optional": "true"} if member.optional else {}
    match member.kind:
        case "struct" | "structs":
            more["of"] = member.of
        case "words":
            more["words"] = f"[{', '.join(map(_quoted, member.words))}]"
        case "tuple" | "tuples":
            more["length"] = str(member.length)
        case "uint":
            high = member.high
            more["end"] = "U64" if high is None else "U8" if high < 1 << 8 else "U32" if high < 1 << 32 else "U64"
    facts = f", {{ {', '.join(f'{name}: {value}' for name, value in more.items())} }}" if more else ""
    return f'field("{member.name}", "{camel(member.name)}", "{member.kind}"{facts})'


def _type(member: Member) -> str:
    match member.kind:
        case "constant":
            return str(member.value).lower()
        case "tag":
            return _quoted(member.of)
        case "words" | "struct":
            return member.of
        case "structs":
            return f"{member.of}[]"
        case "tuple":
            return _tuple(member)
        case "tuples":
            return f"{_tuple(member)}[]"
    return PLAIN[member.kind]


def _tuple(member: Member) -> str:
    return f"[{', '.join(['number'] * member.length)}]"


def _quoted(word: str) -> str:
    return f'"{word}"'
