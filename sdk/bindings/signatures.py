"""The contract as the host's sandbox knows it: `host/sandbox/signatures.py`, from which components are checked and their values carried.

The sandbox may not import the contract, which stands above it, so it gets a table of its own.
"""

from host.plugins import contract
from sdk.bindings.described import Described, Member, enums
from sdk.bindings.wit import LEFT_OUT, hook_types, kebab, type_of, variants

BOUNDS = ("low", "high", "item_low", "item_high")
HEAD = '''"""Records, choices and hooks of the contract, for the component tier. Made by `python -m sdk.bindings`; see sdk/contract/skill.wit."""

from host.sandbox.fields import Field

'''


def signatures(shapes: list[Described]) -> str:
    """The whole of host/sandbox/signatures.py."""
    shapes = [shape for shape in shapes if shape.name not in LEFT_OUT]
    lines = [HEAD + "# fmt: off", "ENUMS: dict[str, tuple[str, ...]] = {"]
    lines += [f'    "{kebab(name)}": {words!r},' for name, words in enums(shapes).items()]
    lines += ["}", "RECORDS: dict[str, tuple[Field, ...]] = {"]
    for shape in shapes:
        members = [member for member in shape.members if member.kind not in ("tag", "constant")]
        if members:
            lines += [f'    "{kebab(shape.name)}": (', *(f"        {_field(member)}," for member in members), "    ),"]
    lines += ["}", "# Keys whose value the record's name says.", "CONSTANTS: dict[str, dict[str, bool]] = {"]
    for shape in shapes:
        constants = {member.name: member.value for member in shape.members if member.kind == "constant"}
        lines += [f'    "{kebab(shape.name)}": {constants},'] if constants else []
    lines += ["}", "# Choices: the case, and its record; None for a case alone.", "CASES: dict[str, dict[str, str | None]] = {"]
    lines += [f'    "{name}": {dict(cases)},' for name, cases in variants(shapes).items()]
    lines += ["}", "# The types of request and reply; None for a request that is nothing.", "HOOKS: dict[str, tuple[str | None, str]] = {"]
    empty = {kebab(shape.name) for shape in shapes if not shape.members}
    for hook in sorted(contract.HOOKS):
        request, reply = hook_types(hook)
        lines.append(f'    "{hook}": ({None if request in empty else request!r}, "{reply}"),')
    return "\n".join(lines).replace("'", '"') + "\n}\n# fmt: on\n"


def _field(member: Member) -> str:
    """The member as a call of Field; what is not said is as always."""
    kind = type_of(member).removeprefix("option<").removesuffix(">") if member.kind == "uint" else member.kind
    of = kebab(member.of) if member.of else ""
    said = {
        "of": of,
        "low": member.low,
        "high": member.high,
        "length": member.length,
        "item_low": member.item_low,
        "item_high": member.item_high,
    }
    said |= {"optional": member.optional}
    return f"Field({', '.join([repr(member.name), repr(kind), *(f'{key}={value!r}' for key, value in said.items() if value or (value is not None and key in BOUNDS))])})"
