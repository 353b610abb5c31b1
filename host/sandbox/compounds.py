"""Values that are made of others: tuples, lists, records, choices, and what may be absent or fail. And the types of the contract by name."""

import struct
from collections.abc import Callable
from ctypes import string_at
from functools import cache
from typing import Any

from wasmtime import component as types

from host.sandbox import signatures
from host.sandbox.fields import Field
from host.sandbox.values import (
    ENTRY,
    LIST,
    OPTION,
    RECORD,
    RESULT,
    SIZE,
    TUPLE,
    Bytes,
    Kept,
    Kind,
    Room,
    Scalar,
    Text,
    Unfit,
    Words,
    address,
    span,
    unfit,
)


class Fixed(Kind):
    """A tuple of so many floats."""

    def __init__(self, length: int) -> None:
        self.wit, self._length = f"tuple<{', '.join(['f64'] * length)}>", length
        self._item = Scalar("f64")

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, list | tuple) or len(value) != self._length:
            raise unfit(f"{self._length} numbers", value)
        return span(TUPLE, self._length, _items(self._item, value, kept), kept)

    def lift(self, raw: bytes, room: Room) -> list[float]:
        return _lifted(self._item, raw, room)

    def same(self, found: Any) -> bool:
        return isinstance(found, types.TupleType) and len(found.elements) == self._length and all(map(self._item.same, found.elements))


class Many(Kind):
    """A list of anything."""

    def __init__(self, item: Kind, low: float | None = None, high: float | None = None) -> None:
        self.wit, self._item, self._low, self._high = f"list<{item.wit}>", item, low or 0, high

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, list | tuple):
            raise unfit("a list", value)
        if len(value) < self._low:
            raise Unfit(f": expected at least {self._low:g} items, got {len(value)}")
        if self._high is not None and len(value) > self._high:
            raise Unfit(f": expected at most {self._high:g} items, got {len(value)}")
        return span(LIST, len(value), _items(self._item, value, kept), kept)

    def lift(self, raw: bytes, room: Room) -> list[Any]:
        return _lifted(self._item, raw, room)

    def same(self, found: Any) -> bool:
        return isinstance(found, types.ListType) and self._item.same(found.element)


class Record(Kind):
    """A map with the keys of one record. Keys that the record's name says (`CONSTANTS`) are not in the value itself."""

    def __init__(self, name: str, fields: tuple[Field, ...], constants: dict[str, bool]) -> None:
        self.wit, self._constants = name, constants
        self._fields = [(field.name, field.optional, kind_of(field), field.name.replace("_", "-").encode()) for field in fields]
        self._heads = [struct.pack("<QQ", len(name), address(name)) for _, _, _, name in self._fields]
        self._names = frozenset(field.name for field in fields) | constants.keys()

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, dict):
            raise unfit("a map", value)
        strange = next((key for key in value if key not in self._names), None)
        if strange is not None:
            raise Unfit(f"{str(strange)[:64]}: an unknown key")
        parts: list[bytes] = []
        for (name, optional, kind, _), head in zip(self._fields, self._heads, strict=True):
            if name not in value and not optional:
                raise Unfit(f"{name}: missing")
            try:
                lowered = kind.lower(value[name], kept) if not optional else _option(kind, value.get(name, _ABSENT), kept)
            except Unfit as error:
                raise error.inside(name) from None
            parts += (head, lowered)
        return span(RECORD, len(self._fields), b"".join(parts), kept)

    def lift(self, raw: bytes, room: Room) -> dict[str, Any]:
        _, count, at = struct.unpack("<B7xQQ8x", raw)
        body = string_at(at, count * ENTRY)
        made: dict[str, Any] = dict(self._constants)
        for number, (name, optional, kind, _) in enumerate(self._fields):
            item = body[number * ENTRY + 16 : (number + 1) * ENTRY]
            if not optional:
                made[name] = kind.lift(item, room)
            elif (inner := _pointed(item)) is not None:
                made[name] = kind.lift(inner, room)
        return made

    def same(self, found: Any) -> bool:
        if not isinstance(found, types.RecordType) or [name.encode() for name, _ in found.fields] != [
            name for _, _, _, name in self._fields
        ]:
            return False
        return all(
            (Optional(kind) if optional else kind).same(inner)
            for (_, optional, kind, _), (_, inner) in zip(self._fields, found.fields, strict=True)
        )


class Choice(Kind):
    """One case of several. `tag` is the key that tells them apart; without one, the case's constants do."""

    def __init__(self, name: str, cases: dict[str, str | None], tag: str) -> None:
        self.wit, self._tag = name, tag
        self._cases = {case: None if of is None else named(of) for case, of in cases.items()}

    def lower(self, value: Any, kept: Kept) -> bytes:
        raise AssertionError("no host gives a guest a choice")

    def lift(self, raw: bytes, room: Room) -> dict[str, Any]:
        _, size, at, pointer = struct.unpack("<B7xQQQ", raw)
        case = string_at(at, size).decode()
        kind = self._cases[case]
        made = {} if kind is None else kind.lift(string_at(pointer, SIZE), room)
        return {self._tag: case, **made} if self._tag else made

    def same(self, found: Any) -> bool:
        if not isinstance(found, types.VariantType) or [name for name, _ in found.cases] != list(self._cases):
            return False
        return all(
            inner is None if kind is None else inner is not None and kind.same(inner)
            for (_, inner), kind in zip(found.cases, self._cases.values(), strict=True)
        )


class Optional(Kind):
    """A value, or none."""

    def __init__(self, inner: Kind) -> None:
        self.wit, self._inner = f"option<{inner.wit}>", inner

    def lower(self, value: Any, kept: Kept) -> bytes:
        return _option(self._inner, _ABSENT if value is None else value, kept)

    def same(self, found: Any) -> bool:
        return isinstance(found, types.OptionType) and self._inner.same(found.payload)


class Outcome(Kind):
    """A result: (True, what it gives) or (False, the error). A side without a type has None."""

    def __init__(self, good: Kind | None, bad: Kind) -> None:
        self.wit, self._good, self._bad = f"result<{'_' if good is None else good.wit}, {bad.wit}>", good, bad

    def lower(self, value: tuple[bool, Any], kept: Kept) -> bytes:
        good, inner = value
        kind = self._good if good else self._bad
        pointer = 0 if kind is None else _kept_at(kind.lower(inner, kept), kept)
        return struct.pack("<B7x?7xQ8x", RESULT, good, pointer)

    def lift(self, raw: bytes, room: Room) -> tuple[bool, Any]:
        _, good, pointer = struct.unpack("<B7x?7xQ8x", raw)
        kind = self._good if good else self._bad
        return good, None if kind is None else kind.lift(string_at(pointer, SIZE), room)

    def same(self, found: Any) -> bool:
        if not isinstance(found, types.ResultType) or (found.ok is None) != (self._good is None) or found.err is None:
            return False
        return (self._good is None or self._good.same(found.ok)) and self._bad.same(found.err)


_ABSENT = object()


def _option(kind: Kind, value: Any, kept: Kept) -> bytes:
    pointer = 0 if value is _ABSENT else _kept_at(kind.lower(value, kept), kept)
    return struct.pack("<B7xQ16x", OPTION, pointer)


def _pointed(raw: bytes) -> bytes | None:
    (pointer,) = struct.unpack("<8xQ16x", raw)
    return string_at(pointer, SIZE) if pointer else None


def _kept_at(data: bytes, kept: Kept) -> int:
    kept.append(data)
    return address(data)


def _items(item: Kind, values: Any, kept: Kept) -> bytes:
    parts = []
    for number, value in enumerate(values):
        try:
            parts.append(item.lower(value, kept))
        except Unfit as error:
            raise error.inside(f"[{number}]") from None
    return b"".join(parts)


def _lifted(item: Kind, raw: bytes, room: Room) -> list[Any]:
    _, count, at = struct.unpack("<B7xQQ8x", raw)
    room.take(count, count)
    body = string_at(at, count * SIZE) if count else b""
    return [item.lift(body[start : start + SIZE], room) for start in range(0, len(body), SIZE)]


@cache
def named(name: str) -> Kind:
    """The record, choice or list of words of this name."""
    if name in signatures.ENUMS:
        return Words(name, signatures.ENUMS[name])
    if name in signatures.CASES:
        return Choice(name, signatures.CASES[name], "op" if name == "motion-command" else "")
    return Record(name, signatures.RECORDS[name], signatures.CONSTANTS.get(name, {}))


def kind_of(field: Field) -> Kind:
    """The type of a key, an optional one's without its option."""
    bounds = (field.low, field.high)
    makers: dict[str, Callable[[], Kind]] = {
        "float": lambda: Scalar("f64", *bounds),
        "text": lambda: Text(*bounds),
        "bytes": lambda: Bytes(*bounds),
        "words": lambda: named(field.of),
        "struct": lambda: named(field.of),
        "structs": lambda: Many(named(field.of), *bounds),
        "texts": lambda: Many(Text(None, field.length or None), *bounds),
        "floats": lambda: Many(Scalar("f64", field.item_low, field.item_high), *bounds),
        "tuple": lambda: Fixed(field.length),
        "tuples": lambda: Many(Fixed(field.length), *bounds),
    }
    return makers[field.kind]() if field.kind in makers else Scalar(field.kind, *bounds)


ERROR = named("error-reply")
