"""The contract's shapes, described for the guest languages from the host's structs and the comments of the CDDL.

Names are those of the Zig and C libraries. Fields stand in the order of their encoded keys (RFC 8949, section 4.2.1), as the decoders expect them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import inspect

from host.core import commands, flags
from host.plugins import contract
from sdk.samples import present

CDDL = Path(__file__).resolve().parents[1] / "contract" / "skill.cddl"
NAMES = {
    "Constituent": "ElementAssay", "Impurity": "ImpurityCeiling", "ProductAssessment": "ProductVerdict", "BidderNode": "BidNode",
    **{command.__name__: f"Motion{command.__name__}" for command in (commands.Move, commands.Heat, commands.Tool, commands.Home, commands.Dwell, commands.Status)},
}  # fmt: skip
"""Where the guest libraries call a struct otherwise than the host does."""
WORD_NAMES = {("HandleReply", "state"): "HandleState"}
CONSTANTS = {("PlanProgress", "done"): False, ("PlanReport", "done"): True}


@dataclass(frozen=True)
class Member:
    """One key: its type with the bounds of a number's value, a string's length or a list's count. `words` has those of a Literal."""

    name: str
    kind: str  # bool, uint, float, text, bytes, words, constant, tag, struct, structs, texts, floats, tuple, tuples
    about: str = ""
    optional: bool = False
    of: str = ""  # the struct, the enum, or the tag
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    length: int = 0  # of a tuple
    item_low: float | None = None  # of each of many floats
    item_high: float | None = None
    value: bool = False  # of a constant


@dataclass(frozen=True)
class Described:
    """One map of the contract, its keys in the order of the wire."""

    name: str
    about: str
    members: tuple[Member, ...]


def shapes() -> list[Described]:
    """Every shape that a guest sends or receives, those first that others are made of."""
    about = field_comments(CDDL.read_text())
    found: dict[str, Described] = {}
    roots: list[type] = [contract.ErrorReply]
    roots += [shape for pair in contract.SHAPES.values() for shape in pair] + [
        shape for three in contract.STREAMING.values() for shape in three
    ]
    roots += [*(getattr(commands, name) for name in ("Move", "Heat", "Tool", "Home", "Dwell", "Status")), contract.MotionReply]
    roots += [flags.FlagRequest, flags.FlagReply]
    for root in roots:
        _describe(inspect.type_info(root), about, found)
    return list(found.values())


def field_comments(cddl: str) -> dict[tuple[str, str], str]:
    """What the CDDL says behind a key, by rule and key."""
    found: dict[tuple[str, str], str] = {}
    rule = ""
    for line in cddl.splitlines():
        if match := re.match(r"([a-z][a-z0-9-]*) = ", line):
            rule = match[1]
        if match := re.match(r"\s+(?:\? )?(\w+): .*?;\s*(.+)$", line):
            found[rule, match[1]] = match[2].strip()
    return found


def _describe(kind: Any, about: dict[tuple[str, str], str], found: dict[str, Described]) -> str:
    """Adds a struct and what it is made of; returns its name."""
    struct: str = kind.cls.__name__
    name = NAMES.get(struct, struct)
    if name in found:
        return name
    rule = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    members = [
        _member(struct, field, about.get((rule, field.encode_name), ""), lambda inner: _describe(inner, about, found))
        for field in kind.fields
    ]
    if kind.tag_field:
        members.append(Member(kind.tag_field, "tag", of=kind.tag))
    found[name] = Described(name, " ".join((kind.cls.__doc__ or "").split()), tuple(sorted(members, key=_wire_order)))
    return name


def _wire_order(member: Member) -> tuple[int, str]:
    return len(member.name), member.name


def _member(struct: str, field: Any, about: str, name_of: Callable[[Any], str]) -> Member:
    kind = present(field.type)
    if (struct, field.name) in CONSTANTS:
        facts: dict[str, Any] = {"kind": "constant", "value": CONSTANTS[struct, field.name]}
    elif isinstance(kind, inspect.LiteralType):
        name = WORD_NAMES.get((struct, field.name), field.name.title().replace("_", ""))
        facts = {"kind": "words", "of": name, "words": _declared_order(struct, field.name, kind.values)}
    else:
        facts = _scalar(kind) or _compound(kind, name_of)
    return Member(name=field.encode_name, about=about, optional=not field.required, **facts)


def _scalar(kind: Any) -> dict[str, Any]:
    """The facts of a plain value; none for anything else."""
    match kind:
        case inspect.BoolType():
            return {"kind": "bool"}
        case inspect.IntType(ge=low, le=high):
            return {"kind": "uint", "low": low or None, "high": high}
        case inspect.FloatType(ge=low, le=high):
            return {"kind": "float", "low": low, "high": high}
        case inspect.StrType(min_length=low, max_length=high):
            return {"kind": "text", "low": low, "high": high}
        case inspect.BytesType(min_length=low, max_length=high):
            return {"kind": "bytes", "low": low, "high": high}
    return {}


def _compound(kind: Any, name_of: Callable[[Any], str]) -> dict[str, Any]:
    match kind:
        case inspect.StructType():
            return {"kind": "struct", "of": name_of(kind)}
        case inspect.TupleType(item_types=types):
            return {"kind": "tuple", "length": len(types)}
        case inspect.VarTupleType(item_type=inspect.StructType() as item, min_length=low, max_length=high):
            return {"kind": "structs", "of": name_of(item), "low": low, "high": high}
        case inspect.VarTupleType(item_type=inspect.StrType(max_length=longest), min_length=low, max_length=high):
            return {"kind": "texts", "low": low, "high": high, "length": longest or 0}
        case inspect.VarTupleType(item_type=inspect.FloatType(ge=least, le=most), min_length=low, max_length=high):
            return {"kind": "floats", "low": low, "high": high, "item_low": least, "item_high": most}
        case inspect.VarTupleType(item_type=inspect.TupleType(item_types=types), min_length=low, max_length=high):
            return {"kind": "tuples", "low": low, "high": high, "length": len(types)}
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")


def _declared_order(struct: str, field: str, values: Any) -> tuple[str, ...]:
    """The words as the host's struct has them, in the order that people expect; msgspec sorts them."""
    source = getattr(contract, struct).__annotations__[field]
    return tuple(source.__args__) if hasattr(source, "__args__") else tuple(values)


def enums(described: list[Described]) -> dict[str, tuple[str, ...]]:
    """The lists of words, by name. Two fields with one name have the same words."""
    found: dict[str, tuple[str, ...]] = {}
    for member in (member for shape in described for member in shape.members if member.kind == "words"):
        assert found.setdefault(member.of, member.words) == member.words, (
            f"{member.of} stands for two lists of words: name one in WORD_NAMES"
        )
    return found
