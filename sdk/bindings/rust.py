"""The contract's shapes as Rust, in the words of guest/rust/shape.rs."""

from sdk.bindings.described import Described, Member, enums

HEAD = """//! The shapes of sdk/contract/skill.cddl. Made by `python -m sdk.bindings` from the host's structs; fields stand in the order of the wire.

use crate::shape::constants;
use crate::{shape, words, Bytes};

constants! {
    /// A key that is always true.
    Yes = true;
    /// A key that is always false.
    No = false;
}
"""
# A choice between two maps is no map itself, so it is written by hand.
PLAN_JOB_REPLY = """
/// The reply of `plan_job`: each but the last is progress, the last is the report.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanJobReply {
    Progress(PlanProgress),
    Report(PlanReport),
}

impl crate::Encode for PlanJobReply {
    fn encode(&self, out: &mut crate::Writer) {
        match self {
            PlanJobReply::Progress(progress) => progress.encode(out),
            PlanJobReply::Report(report) => report.encode(out),
        }
    }
}
"""
PLAIN = {"bool": "bool", "uint": "u64", "float": "f64", "text": "String", "bytes": "Bytes", "texts": "Vec<String>", "floats": "Vec<f64>"}


def rust(shapes: list[Described]) -> str:
    """The whole of contract.rs."""
    lines = [HEAD, "words! {"]
    for name, words in enums(shapes).items():
        variants = [f'{word.title()} = "{word}"' for word in words]
        lines.append(f"    pub enum {name} {{ {', '.join(variants)} }}")
    for tag in (member.of for shape in shapes for member in shape.members if member.kind == "tag"):
        lines.append(f'    pub enum Op{tag.title()} {{ {tag.title()} = "{tag}" }}')
    lines += ["}", "", "shape! {"]
    for shape in shapes:
        lines += [f"    /// {shape.about}"] if shape.about else []
        lines.append(f"    pub struct {shape.name} {{" + ("" if shape.members else "}"))
        for member in shape.members:
            lines += [f"        /// {member.about}"] if member.about else []
            lines.append(f"        {member.name}: {_type(member)}{_bounds(member)},")
        lines += ["    }"] if shape.members else []
    lines += ["}", PLAN_JOB_REPLY.rstrip()]
    return "\n".join(lines) + "\n"


def _type(member: Member) -> str:
    match member.kind:
        case "constant":
            kind = "Yes" if member.value else "No"
        case "tag":
            kind = f"Op{member.of.title()}"
        case "words" | "struct":
            kind = member.of
        case "structs":
            kind = f"Vec<{member.of}>"
        case "tuple":
            kind = f"[f64; {member.length}]"
        case "tuples":
            kind = f"Vec<[f64; {member.length}]>"
        case plain:
            kind = PLAIN[plain]
    return f"Option<{kind}>" if member.optional else kind


def _bounds(member: Member) -> str:
    if member.low is None and member.high is None:
        return ""
    low = "f64::MIN" if member.low is None and member.kind == "float" else f"{member.low or 0:g}"
    return f" [{low}, {'f64::MAX' if member.high is None else int(member.high)}]" + _item_bounds(member)


def _item_bounds(member: Member) -> str:
    if member.item_low is None and member.item_high is None:
        return ""
    least, most = (
        ("f64::MIN" if member.item_low is None else f"{member.item_low:g}"),
        ("f64::MAX" if member.item_high is None else f"{member.item_high:g}"),
    )
    return f" of [{least}, {most}]"
