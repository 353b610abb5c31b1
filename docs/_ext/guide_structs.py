"""msgspec structs as tables: name, type with its bounds, default, and the comment that stands beside the key where people read it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect as typed

from host.core.manifest import SEMVER


@dataclass(frozen=True)
class Key:
    """A key of a map, and the field that says what may stand there."""

    name: str
    field: msgspec.structs.FieldInfo


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. A bar within a cell is escaped, a line break becomes a space."""
    cells = [[re.sub(r"(?<!\\)\|", r"\\|", str(cell)).replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers), *("| " + " | ".join(row) + " |" for row in cells)]
    return "\n".join(lines)


def struct_table(struct: type, comments: dict[str, str], keys: Sequence[Key] | None = None) -> str:
    """`comments` are by `Struct.key`, or by the key alone."""
    found = keys if keys is not None else [Key(field.encode_name, field) for field in msgspec.structs.fields(struct)]
    if not found:
        return "An empty map."
    rows = [
        (
            f"`{key.name}`",
            in_words(key.field.type, keys is None),
            _default(key.field),
            comments.get(f"{struct.__name__}.{key.name}", comments.get(key.name, "")),
        )
        for key in found
    ]
    if tag := struct.__struct_config__.tag:
        rows.insert(0, (f"`{struct.__struct_config__.tag_field}`", f"`{tag!r}`".replace("'", '"'), "required", ""))
    return table(("key", "value", "default", "meaning"), rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        made = field.default_factory()
        return "empty" if made in ({}, [], ()) else f"`{made}`"
    value = field.default
    if value is msgspec.NODEFAULT:
        return "required"
    if value is msgspec.UNSET or value is None:
        return "absent"
    if isinstance(value, msgspec.Struct):
        return "of each key"
    if value in ("", ()) and not isinstance(value, bool | int | float):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def structs_below(kind: Any) -> list[type]:
    """The struct that a type is, if it is one."""
    info = typed.type_info(kind)
    return [info.cls] if isinstance(info, typed.StructType) else []


def in_words(kind: Any, linked: bool = True) -> str:
    """A type with its bounds, as `integer, 1 to 255`. A struct is a link to its heading on the page where it is `linked`, else its keys."""
    return _words(typed.type_info(kind), linked)


def _words(info: typed.Type, linked: bool) -> str:
    match info:
        case typed.Metadata(type=inner):
            return _words(inner, linked)
        case typed.StructType(cls=cls):
            return f"[`{cls.__name__}`](#{cls.__name__.lower()})" if linked else f"a table ({', '.join(_keys(cls))})"
        case typed.LiteralType(values=values):
            return ", ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in sorted(values, key=str))
        case typed.UnionType(types=types):
            return " or ".join(_words(each, linked) for each in types if not isinstance(each, typed.NoneType))
        case typed.VarTupleType() | typed.ListType() | typed.CollectionType():
            return f"list of {_words(info.item_type, linked)}{_lengths(info, 'items')}"
        case typed.TupleType(item_types=items):
            return f"[{', '.join(_words(each, linked) for each in items)}]"
        case typed.DictType(key_type=key, value_type=value):
            return f"map from {_words(key, linked)} to {_words(value, linked)}{_lengths(info, 'keys')}"
        case typed.IntType() | typed.FloatType():
            return ("integer" if isinstance(info, typed.IntType) else "number") + _range(info)
        case typed.StrType():
            return "text" + _lengths(info, "characters") + _shape_of(info.pattern)
        case typed.BytesType():
            return "bytes" + _lengths(info, "bytes")
        case typed.BoolType():
            return "true or false"
        case _:
            return "anything"


_PATTERNS = {
    r"^[a-z][a-z0-9]*(-[a-z0-9]+)*\Z": ", lower case, digits and single dashes",
    r"^[a-z][a-z0-9_]*\Z": ", lower case, digits and underscores",
    r"^[a-z][a-z0-9-]*\Z": ", lower case, digits and dashes",
    SEMVER: ", a semantic version",
}


def _shape_of(pattern: str | None) -> str:
    return "" if pattern is None else _PATTERNS.get(pattern) or f", `{pattern}`"


def _keys(cls: type) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(cls)]


def _range(info: Any) -> str:
    low, high = (info.ge, info.gt), (info.le, info.lt)
    words = []
    if low[0] is not None and high[0] is not None:
        return f", {low[0]:,} to {high[0]:,}"
    words += [f"at least {low[0]:,}"] if low[0] is not None else []
    words += [f"above {low[1]:,}"] if low[1] is not None else []
    words += [f"at most {high[0]:,}"] if high[0] is not None else []
    words += [f"below {high[1]:,}"] if high[1] is not None else []
    return "".join(f", {word}" for word in words)


def _lengths(info: Any, what: str) -> str:
    low, high = info.min_length, info.max_length
    if low and low == high:
        return f", exactly {low:,} {what}"
    if low and high is not None:
        return f", {low:,} to {high:,} {what}"
    if high is not None:
        return f", at most {high:,} {what}"
    return f", at least {low:,} {what}" if low else ""


_RULE = re.compile(r"^([a-z][a-z-]*) = ")
_KEY = re.compile(r"(?:^|[{,])\s*\??\s*(\w+):")


def comments_of_cddl(text: str) -> dict[str, str]:
    """Comments at the ends of the CDDL's lines: by `StructName.key` for the rule's own struct, and by key where only one comment in the file is of it."""
    by_key: dict[str, set[str]] = {}
    found: dict[str, str] = {}
    rule = ""
    for line in text.splitlines():
        if named := _RULE.match(line):
            rule = "".join(part.capitalize() for part in named[1].split("-"))
        code, mark, comment = line.partition(";")
        keys = _KEY.findall(code.partition("=")[2] if named else code)
        if mark and keys and comment.strip():
            found[f"{rule}.{keys[0]}"] = comment.strip()
        for key in keys:
            by_key.setdefault(key, set()).add(comment.strip() if mark and key == keys[0] else "")
    return {key: said.copy().pop() for key, said in by_key.items() if len(said) == 1 and any(said)} | found


def comments_of_toml(text: str) -> dict[str, str]:
    """Comments at the ends of a TOML file's lines, by `table.key`. A key whose comment has a default of its own, `# key = value   # words`, counts too."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if heading := re.match(r"\[([\w.]+)\]", line):
            name = heading[1]
        elif entry := re.match(r"(?:# )?([a-z_]+) = .*?\s+# (.*)$", line):
            found[f"{name}.{entry[1]}"] = entry[2]
    return found
