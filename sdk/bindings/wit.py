"""The contract as WIT (WebAssembly Interface Types) for the component tier: one record for each map, one function for each hook, one interface for each
capability. Bounds are not in it: the host checks them, both ways.

`sdk/contract/skill.wit` has everything; `document` with a skill's own hooks and capabilities gives the world that this skill is compiled against, so that
a component cannot even name what its manifest does not ask for.
"""

import re
from collections.abc import Collection

from host.core.capabilities import BUILT_IN
from host.plugins import contract
from sdk.bindings.described import NAMES, Described, Member, enums

PACKAGE = "snapcount:skill@1.0.0"
HEAD = f"""// The skill contract for WebAssembly components. Made by `python -m sdk.bindings` from the host's structs, in the words of skill.cddl.
// Every name of the CDDL stands here with dashes. A key that may be absent is an option. `done` of plan-progress and plan-report follows from the case.

package {PACKAGE};
"""
COMMAND = "motion-command"
DRIVERS = "drivers"
# What a flag is asked with stands in the interface itself.
LEFT_OUT = frozenset({"FlagRequest", "FlagReply"})
# Interfaces by capability; a driver without one of its own is asked through `drivers`.
INTERFACES = {
    "log": """/// The capability `log`: one line of text, for the node's owner.
interface log {
  enum level { debug, info, warning, error }
  write: func(level: level, line: string);
}""",
    "clock": """/// The capability `clock`.
interface clock {
  /// Unix time in milliseconds.
  now-ms: func() -> u64;
}""",
    "random": """/// The capability `random`.
interface random {
  /// At most 65536 bytes.
  get-bytes: func(size: u32) -> list<u8>;
}""",
    "state": """/// The capability `state`: the skill's own keys and values, which outlive it.
interface state {
  /// The quota is full, or the value too long; nothing was stored.
  enum state-error { full }
  get: func(key: string) -> option<list<u8>>;
  /// An empty value deletes the key.
  set: func(key: string, value: list<u8>) -> result<_, state-error>;
}""",
    "flags": """/// The capability `flags`: behaviour that the node's operators switch on.
interface feature-flags {
  use types.{error-reply};
  /// A flag that nobody named is off.
  is-on: func(name: string) -> result<bool, error-reply>;
}""",
    "motion": """/// The capability `motion`: a machine. Every command passes the owner's safety envelope first; one that is refused comes back as an error with the
/// code `unsafe_command`, or `safe_mode` until a person resets.
interface motion {
  use types.{motion-command, motion-reply, error-reply};
  execute: func(command: motion-command) -> result<motion-reply, error-reply>;
}""",
    DRIVERS: """/// Any other capability that a driver offers: request and reply are CBOR.
interface drivers {
  use types.{error-reply};
  ask: func(capability: string, request: list<u8>) -> result<list<u8>, error-reply>;
}""",
}
KEYWORDS = frozenset(
    [
        "as",
        "async",
        "bool",
        "borrow",
        "char",
        "constructor",
        "enum",
        "export",
        "f32",
        "f64",
        "flags",
        "from",
        "func",
        "future",
        "import",
        "include",
        "interface",
        "list",
        "map",
        "option",
        "own",
        "package",
        "record",
        "resource",
        "result",
        "s16",
        "s32",
        "s64",
        "s8",
        "static",
        "stream",
        "string",
        "tuple",
        "type",
        "u16",
        "u32",
        "u64",
        "u8",
        "use",
        "variant",
        "with",
        "world",
    ]
)


def kebab(name: str) -> str:
    """A name of the host's as WIT writes it: `BidRequest` and `bid_request` are `bid-request`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


def escaped(name: str) -> str:
    """The name in a WIT text: a word of the language itself has a % before it."""
    return f"%{name}" if name in KEYWORDS else name


def hook_types(hook: str) -> tuple[str, str]:
    """Names of the request and of the reply."""
    if hook in contract.STREAMING:
        return kebab(contract.STREAMING[hook][0].__name__), kebab(f"{hook}-reply")
    request, reply = (kebab(NAMES.get(shape.__name__, shape.__name__)) for shape in contract.SHAPES[hook])
    return request, reply


def is_empty(hook: str) -> bool:
    """Whether a hook's request is nothing, so that it is no parameter."""
    return hook in contract.SHAPES and not contract.SHAPES[hook][0].__struct_fields__


def reply_of(hook: str) -> str:
    """The name of a hook's reply as bindings have it: `BidReply`."""
    return "".join(word.title() for word in hook_types(hook)[1].split("-"))


def interface_of(capability: str) -> str:
    """The capability in whose interface it is asked for: its own, or `drivers`."""
    return capability if capability in INTERFACES and capability != DRIVERS else DRIVERS


def everything() -> tuple[list[str], list[str]]:
    """All hooks, and all capabilities that have an interface."""
    return sorted(contract.HOOKS), [*sorted(BUILT_IN), "motion", DRIVERS]


def document(shapes: list[Described], hooks: Collection[str], capabilities: Collection[str]) -> str:
    """A package with the world `skill`, which exports these hooks and imports what these capabilities stand for."""
    shapes = [shape for shape in shapes if shape.name not in LEFT_OUT]
    wanted = {interface_of(capability) for capability in capabilities}
    parts = [HEAD, _types(shapes), *(text for name, text in INTERFACES.items() if name in wanted), _world(shapes, hooks, wanted)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _world(shapes: list[Described], hooks: Collection[str], wanted: Collection[str]) -> str:
    empty = {kebab(shape.name) for shape in shapes if not _fields(shape)}
    functions, used = [], {"error-reply"}
    for hook in sorted(hooks):
        request, reply = hook_types(hook)
        used |= {reply} if request in empty else {request, reply}
        parameter = "" if request in empty else f"request: {request}"
        functions.append(f"  export {escaped(kebab(hook))}: func({parameter}) -> result<{reply}, error-reply>;")
    names = [INTERFACES[capability].partition("\ninterface ")[2].split(" ")[0] for capability in INTERFACES if capability in wanted]
    about = "/// What a skill may import, by its capabilities, and what it exports, by its hooks."
    lines = [about, "world skill {", f"  use types.{{{', '.join(sorted(used))}}};"]
    return "\n".join([*lines, *(f"  import {name};" for name in names), *functions, "}"])


def _types(shapes: list[Described]) -> str:
    lines = ["/// The shapes of skill.cddl.", "interface types {"]
    for name, words in enums(shapes).items():
        lines.append(f"  enum {kebab(name)} {{ {', '.join(escaped(kebab(word)) for word in words)} }}")
    for shape in shapes:
        if _fields(shape):
            lines += [f"  /// {shape.about}"] if shape.about else []
            lines.append(f"  record {kebab(shape.name)} {{")
            for member in _fields(shape):
                lines += [f"    /// {member.about}"] if member.about else []
                lines.append(f"    {escaped(kebab(member.name))}: {type_of(member)},")
            lines.append("  }")
    for name, cases in variants(shapes).items():
        texts = [escaped(case) if of is None else f"{escaped(case)}({of})" for case, of in cases]
        lines.append(f"  variant {name} {{ {', '.join(texts)} }}")
    return "\n".join([*lines, "}"])


def variants(shapes: list[Described]) -> dict[str, list[tuple[str, str | None]]]:
    """The choices between maps: cases with the record of each, None for a map of which only the tag is left."""
    commands = [(shape, member.of) for shape in shapes for member in shape.members if member.kind == "tag"]
    found: dict[str, list[tuple[str, str | None]]] = {
        COMMAND: [(kebab(tag), kebab(shape.name) if _fields(shape) else None) for shape, tag in commands]
    }
    for hook, (_, progress, report) in contract.STREAMING.items():
        found[kebab(f"{hook}-reply")] = [("progress", kebab(progress.__name__)), ("report", kebab(report.__name__))]
    return found


def _fields(shape: Described) -> list[Member]:
    """The keys that a record has: neither a tag, which the case says, nor a constant."""
    return [member for member in shape.members if member.kind not in ("tag", "constant")]


def type_of(member: Member) -> str:
    """A member's type in WIT."""
    match member.kind:
        case "uint":
            kind = (
                "u8"
                if member.high is not None and member.high < 1 << 8
                else "u32"
                if member.high is not None and member.high < 1 << 32
                else "u64"
            )
        case "float":
            kind = "f64"
        case "bool":
            kind = "bool"
        case "text":
            kind = "string"
        case "bytes":
            kind = "list<u8>"
        case "words" | "struct":
            kind = kebab(member.of)
        case "structs":
            kind = f"list<{kebab(member.of)}>"
        case "texts":
            kind = "list<string>"
        case "floats":
            kind = "list<f64>"
        case "tuple":
            kind = _tuple(member)
        case "tuples":
            kind = f"list<{_tuple(member)}>"
        case other:
            raise AssertionError(f"no WIT type for {other}, of {member.name}")
    return f"option<{kind}>" if member.optional else kind


def _tuple(member: Member) -> str:
    return f"tuple<{', '.join(['f64'] * member.length)}>"
