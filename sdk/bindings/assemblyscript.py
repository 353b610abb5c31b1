"""The contract's shapes as AssemblyScript: classes that read and write themselves with the library's Reader and Writer."""

from sdk.bindings.described import Described, Member, enums

HEAD = """// The shapes of sdk/contract/skill.cddl. Made by `python -m sdk.bindings` from the host's structs; fields stand in the order of the wire.
// A key that may be absent is null, or, where it is a number, has a `has_…` beside it.

import { Reader } from "./reader";
import { Writer } from "./writer";
"""
# A choice between two maps is no map itself, so it is written by hand.
PLAN_JOB_REPLY = """
/** The reply of `plan_job`: each but the last is progress, the last is the report. */
export class PlanJobReply {
  progress: PlanProgress | null = null;
  report: PlanReport | null = null;

  static ofProgress(lines: u64): PlanJobReply {
    const reply = new PlanJobReply();
    reply.progress = new PlanProgress();
    reply.progress!.lines = lines;
    return reply;
  }

  static ofReport(report: PlanReport): PlanJobReply {
    const reply = new PlanJobReply();
    reply.report = report;
    return reply;
  }

  write(out: Writer): void {
    const report = this.report;
    if (report) report.write(out);
    else this.progress!.write(out);
  }
}
"""
NUMBERS = ("bool", "uint", "float")
SCALARS = {"bool": ("bool", "false"), "uint": ("u64", "0"), "float": ("f64", "0"), "text": ("string", '""')}


def assemblyscript(shapes: list[Described]) -> str:
    """The whole of contract.ts."""
    lines = [HEAD]
    for name, words in enums(shapes).items():
        lines += [
            f"export enum {name} {{ {', '.join(word.title() for word in words)} }}",
            f'const {_words(name)} = "{" ".join(words)}";',
            "",
        ]
    for shape in shapes:
        lines += _class(shape)
    return "\n".join(lines).rstrip() + "\n" + PLAN_JOB_REPLY


def _words(name: str) -> str:
    return f"{name.upper()}_WORDS"


def _class(shape: Described) -> list[str]:
    keys = f'"{" ".join(member.name for member in shape.members)}"'
    lines = [f"/** {shape.about} */"] if shape.about else []
    lines.append(f"export class {shape.name} {{")
    for member in shape.members:
        lines += _declaration(member)
    lines += ["", "  read(input: Reader): void {", "    const outer = input.map();"]
    for member in shape.members:
        key = f'input.optional("{member.name}")' if member.optional else f'input.key("{member.name}", {keys})'
        lines += [f"    if ({key}) {_read(member)}", f'    if (input.failed) return input.inside("{member.name}");']
    lines += [f"    input.endMap(outer, {keys});", "  }", "", "  write(out: Writer): void {"]
    optional = [f"i32({_present(member)})" for member in shape.members if member.optional]
    lines.append(f"    out.map({' + '.join([str(len(shape.members) - len(optional)), *optional])});")
    for member in shape.members:
        lines += _write(member)
    return [*lines, "  }", "}", ""]


def _declaration(member: Member) -> list[str]:
    about = [f"  /** {member.about} */"] if member.about else []
    if member.kind in ("constant", "tag"):
        return []
    if member.optional and member.kind in NUMBERS:
        about.append(f"  has_{member.name}: bool = false;")
    kind, empty = _type(member)
    return [
        *about,
        f"  {member.name}: {kind} | null = null;"
        if member.optional and member.kind not in NUMBERS
        else f"  {member.name}: {kind} = {empty};",
    ]


def _type(member: Member) -> tuple[str, str]:
    match member.kind:
        case "bytes":
            return "Uint8Array", "new Uint8Array(0)"
        case "words":
            return member.of, "0"
        case "struct":
            return member.of, f"new {member.of}()"
        case "structs":
            return f"Array<{member.of}>", "[]"
        case "texts":
            return "Array<string>", "[]"
        case "floats":
            return "Array<f64>", "[]"
        case "tuple":
            return "StaticArray<f64>", f"new StaticArray<f64>({member.length})"
        case "tuples":
            return "Array<StaticArray<f64>>", "[]"
        case plain:
            return SCALARS[plain]


def _read(member: Member) -> str:
    low = "-F64.MAX_VALUE" if member.low is None and member.kind == "float" else f"{member.low or 0:g}"
    high = "F64.MAX_VALUE" if member.high is None else str(int(member.high))
    name = f"this.{member.name}"
    match member.kind:
        case "constant":
            return f"input.constant({str(member.value).lower()});"
        case "tag":
            return f'input.word("{member.of}");'
        case "bool":
            return f"{name} = input.bool();"
        case "words":
            return f"{name} = input.word({_words(member.of)});"
        case "struct":
            return (
                f"{{ const {member.name} = new {member.of}(); {member.name}.read(input); {name} = {member.name}; }}"
                if member.optional
                else f"{name}.read(input);"
            )
        case "structs":
            return f"{name} = input.items<{member.of}>({low}, {high});"
        case "texts":
            return f"{name} = input.texts({low}, {high}, {member.length});"
        case "floats":
            least, most = (
                f"{sign}F64.MAX_VALUE" if bound is None else f"{bound:g}"
                for sign, bound in (("-", member.item_low), ("", member.item_high))
            )
            return f"{name} = input.floats({low}, {high}, {least}, {most});"
        case "tuple":
            return f"{name} = input.tuple({member.length});" if member.optional else f"input.fill({name});"
        case "tuples":
            return f"{name} = input.tuples({low}, {high}, {member.length});"
    value = f"{name} = input.{member.kind}({low}, {high});"
    return f"{{ this.has_{member.name} = true; {value} }}" if member.optional and member.kind in NUMBERS else value


def _present(member: Member) -> str:
    return f"this.has_{member.name}" if member.kind in NUMBERS else f"this.{member.name} != null"


def _write(member: Member) -> list[str]:
    name = f"this.{member.name}" + ("!" if member.optional and member.kind not in NUMBERS else "")
    match member.kind:
        case "constant":
            value = f"out.bool({str(member.value).lower()});"
        case "tag":
            value = f'out.text("{member.of}");'
        case "bytes":
            value = f"out.bytesOf({name});"
        case "words":
            value = f"out.word({_words(member.of)}, {name});"
        case "struct":
            value = f"{name}.write(out);"
        case "structs":
            value = f"out.items<{member.of}>({name});"
        case kind:
            value = f"out.{kind}({name});"
    body = [f'out.text("{member.name}");', value]
    if not member.optional:
        return [f"    {line}" for line in body]
    return [f"    if ({_present(member)}) {{", *(f"      {line}" for line in body), "    }"]
