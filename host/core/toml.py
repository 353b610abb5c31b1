"""TOML that people write, into typed structs: one line of error that names the file, the field and its line, and says what was expected."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from host.core.errors import MalformedData
from host.core.manifest import PATTERNS
from host.core.text import safe

BYTES_MAX = 64 << 10
VALUE_SHOWN = 64

KINDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list", "object": "a table"}

T = TypeVar("T")
Path = tuple[str, ...]
"""Keys from the root down; the place in an array is a key of digits."""


def decode(raw: bytes, shape: type[T], what: str) -> T:
    """Raises MalformedData for more than 64 KiB, for what is not TOML, and for another shape."""
    if len(raw) > BYTES_MAX:
        raise MalformedData(f"{what}: at most {BYTES_MAX} bytes, {len(raw)} came")
    try:
        text = raw.decode()
        read = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise MalformedData(f"{what}: is not text in UTF-8, from byte {error.start} on") from error
    except ValueError as error:
        raise MalformedData(f"{what}: {safe(str(error))}") from error
    except RecursionError as error:
        raise MalformedData(f"{what}: nested too deeply") from error
    try:
        return msgspec.convert(read, shape)
    except msgspec.ValidationError as error:
        raise MalformedData(f"{what}: {safe(_explained(str(error), read, shape), 400)}{_at_line(str(error), text)}") from error


def line_of(text: str, path: Path) -> int | None:
    """Where a key stands, or else the nearest one above it that is written down; None for the root."""
    lines = dict(_written(text))
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)


def _explained(message: str, read: Any, shape: Any) -> str:
    """msgspec's message in the words of whoever wrote the file."""
    problem, path = _split(message)
    place = ".".join(path) + ": " if path else ""
    value = _value(read, path)
    shown = f", got {str(value)[:VALUE_SHOWN]!r}" if isinstance(value, str) else f", got {value}" if isinstance(value, int | float) else ""
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        return f"{place}unknown field `{match[1]}`; there are {', '.join(_names(shape, path))}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{place}the field `{match[1]}` is missing"
    if match := re.fullmatch(r"Expected `str` matching regex '(.*)'", problem, re.DOTALL):
        pattern = match[1].encode().decode("unicode_escape")
        return f"{place}expected {PATTERNS.get(pattern, f'a text that matches {pattern}')}{shown}"
    if problem.startswith("Invalid enum value"):
        return f"{place}expected one of {', '.join(map(str, _words(shape, path)))}{shown}"
    if problem.startswith("Expected"):
        if " of length " in problem:
            shown = f", got {len(value)}"
        words = re.sub(r"`([\w |]+)`", _kinds, problem[len("Expected") :])
        return f"{place}expected{words}{'' if ', got' in problem else shown}"
    return f"{place}{problem}"


def _kinds(named: re.Match[str]) -> str:
    return " or ".join(KINDS.get(kind, kind) for kind in named[1].split(" | ") if kind != "null")


def _at_line(message: str, text: str) -> str:
    problem, path = _split(message)
    match = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    line = line_of(text, (*path, match[1]) if match else path)
    return f" (at line {line})" if line else ""


def _split(message: str) -> tuple[str, Path]:
    """The problem and its place: ``… - at `$.skill.hooks[1]` `` is at skill, hooks, 1. Where msgspec does not name a key, the place ends."""
    problem, _, place = message.rpartition(" - at ") if " - at " in message else (message, "", "")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", place.rpartition("$")[2])
    path = [name or index for name, index in steps]
    return problem, tuple(path[: path.index("...")] if "..." in path else path)


def _value(read: Any, path: Path) -> Any:
    for key in path:
        read = read[int(key)] if isinstance(read, list) else read.get(key)
    return read


def _written(text: str) -> Iterator[tuple[Path, int]]:
    """Each key and table header, and its line. A key that is written in one line with its table has the line of that."""
    section: Path = ()
    tables: dict[Path, int] = {}
    found: set[Path] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)([^\[\]]+)\]", line):
            section = _keys(header[2])
            if header[1] == "[[":
                tables[section] = tables.get(section, -1) + 1
                section = (*section, str(tables[section]))
            path = section
        elif key := re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""", line):
            path = section + _keys(key[1])
        else:
            continue
        if path not in found:
            found.add(path)
            yield path, number


def _keys(written: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", written))


def _type_at(shape: Any, path: Path) -> Any:
    """msgspec's description of the type at a place."""
    from msgspec import inspect  # only an error needs it

    kind: Any = inspect.type_info(shape)
    for key in path:
        match kind:
            case inspect.StructType(fields=fields):
                kind = next(field.type for field in fields if field.encode_name == key)
            case inspect.DictType(value_type=inner) | inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner):
                kind = inner
        if isinstance(kind, inspect.UnionType):
            kind = next(part for part in kind.types if not isinstance(part, inspect.UnsetType | inspect.NoneType))  # type: ignore[attr-defined]  # msgspec's stubs lack it
    return kind


def _names(shape: Any, path: Path) -> list[str]:
    return [field.encode_name for field in getattr(_type_at(shape, path), "fields", ())]


def _words(shape: Any, path: Path) -> list[Any]:
    return list(getattr(_type_at(shape, path), "values", ()))
