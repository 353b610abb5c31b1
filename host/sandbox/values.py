"""Values of components: from plain data, as CBOR gives it, to what wasmtime's C API takes, and back.

A value of the C API is 32 bytes (`wasmtime/component/val.h`): its kind, and 24 bytes with the value itself or where it is. `Kind.lower` makes those bytes; what
they point at is kept alive in `Kept`. Bytes and floats go at once, not one by one. Bounds of the contract are checked on the way in: a request that breaks one
is answered as a skill of the fast tier answers it, `bad_request`, and the guest never sees it.
"""

import struct
import sys
from ctypes import c_char_p, c_void_p, cast, string_at
from math import isfinite
from typing import Any, ClassVar

from wasmtime import _ffi as ffi
from wasmtime import component as types

from host.core.errors import HostFault
from host.core.limits import DEFAULT
from host.sandbox import direct
from host.sandbox.engine import wasmtime_version

SIZE = 32
ENTRY = 48  # of a record: a name and a value
LAYOUT = {
    "wasmtime_component_val": (32, 0, 8), "wasmtime_component_valunion": (24, 0), "wasmtime_component_valrecord_entry": (48, 0, 16),
    "wasmtime_component_valrecord": (16, 0, 8), "wasmtime_component_vallist": (16, 0, 8), "wasmtime_component_valtuple": (16, 0, 8),
    "wasmtime_component_valvariant": (24, 0, 16), "wasmtime_component_valresult": (16, 0, 8), "wasm_byte_vec": (16, 0, 8),
}  # fmt: skip
"""The size of each of the library's structs, and where its members begin."""

BOOL, U8, U32, U64, F64, STRING, LIST, RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT = (
    getattr(ffi, f"WASMTIME_COMPONENT_{name}").value
    for name in ("BOOL", "U8", "U32", "U64", "F64", "STRING", "LIST", "RECORD", "TUPLE", "VARIANT", "ENUM", "OPTION", "RESULT")
)
Kept = list[bytes]
"""What values point at, for as long as they are used."""


def require_known_library() -> None:
    """Raises HostFault where what is read and written here is not what this library means: there is no slower way to fall back to."""
    found = {name: direct.layout(getattr(ffi, f"{name}_t")) for name in LAYOUT}
    other = next(
        (f"the layout of {name}_t is {found[name]}, expected {LAYOUT[name]}" for name in LAYOUT if found[name] != LAYOUT[name]), ""
    )
    if wasmtime_version() != direct.WRITTEN_FOR:
        other = f"written for wasmtime {direct.WRITTEN_FOR}, found {wasmtime_version()}"
    if sys.byteorder != "little":
        other = "written for little-endian machines"
    if other:
        raise HostFault(f"components cannot be run here: {other}; install the pinned version of wasmtime")


class Overfull(Exception):
    """More than there is room for; `str` says of whom."""


class Room:
    """What may still be read of the values of one call. Nothing of the guest's limits covers reading, so each size is taken off before what it is of is read."""

    __slots__ = ("_bytes", "_bytes_max", "_items", "_whose")

    def __init__(self, bytes_max: int, whose: str) -> None:
        self._bytes = self._bytes_max = bytes_max
        self._items, self._whose = DEFAULT.cbor_items_max, whose

    def take(self, count: int, items: int = 0) -> None:
        """For `count` bytes, or items, each of which takes a byte or more as CBOR. Raises Overfull."""
        self._bytes -= count
        self._items -= items
        if self._bytes < 0:
            raise Overfull(f"{self._whose} with more than {self._bytes_max} bytes, which is the most")
        if self._items < 0:
            raise Overfull(f"{self._whose} with more than {DEFAULT.cbor_items_max} items, which is the most")


class Unfit(Exception):
    """A value that the contract does not allow; `str` is where and why."""

    def inside(self, step: str) -> "Unfit":
        said = str(self)
        return Unfit(f"{step}{'' if said.startswith(('[', ':')) else '.'}{said}")


def unfit(expected: str, found: object) -> Unfit:
    shown = f"{len(found)} bytes" if isinstance(found, bytes) else repr(found)[:64]
    return Unfit(f": expected {expected}, got {shown}")


def address(data: bytes) -> int:
    return cast(c_char_p(data), c_void_p).value or 0


def span(kind: int, count: int, data: bytes, kept: Kept) -> bytes:
    kept.append(data)
    return struct.pack("<B7xQQ8x", kind, count, address(data))


class Kind:
    """One type of the contract. `wit` is its name in words."""

    wit: str

    def lower(self, value: Any, kept: Kept) -> bytes:
        """The 32 bytes of a value. Raises Unfit."""
        raise NotImplementedError

    def lift(self, raw: bytes, room: Room) -> Any:
        """The plain data behind 32 bytes that wasmtime wrote for this type."""
        raise NotImplementedError

    def same(self, found: Any) -> bool:
        """Whether wasmtime's type is this one, field by field."""
        raise NotImplementedError


class Scalar(Kind):
    """A boolean or a number within bounds."""

    FORMS: ClassVar[dict[str, tuple[int, str, type]]] = {"bool": (BOOL, "?23x", types.Bool), "u8": (U8, "B23x", types.U8), "u32": (U32, "I20x", types.U32), "u64": (U64, "Q16x", types.U64), "f64": (F64, "d16x", types.F64)}  # fmt: skip

    def __init__(self, wit: str, low: float | None = None, high: float | None = None) -> None:
        self.wit = wit
        self._kind, form, self._type = self.FORMS[wit]
        self._form = struct.Struct(f"<B7x{form}")
        self._whole = wit[0] == "u"
        self._low = low if low is not None else 0 if self._whole else None
        self._high = high if high is not None else (1 << int(wit[1:])) - 1 if self._whole else None

    def lower(self, value: Any, kept: Kept) -> bytes:
        wanted = bool if self._kind == BOOL else int if self._whole else float
        if type(value) is not wanted:
            raise unfit({bool: "a boolean", int: "a whole number", float: "a float"}[wanted], value)
        if wanted is float and not isfinite(value):
            raise unfit("a finite number", value)
        if self._low is not None and value < self._low:
            raise unfit(f"at least {self._low:g}", value)
        if self._high is not None and value > self._high:
            raise unfit(f"at most {self._high:g}", value)
        return self._form.pack(self._kind, value)

    def lift(self, raw: bytes, room: Room) -> Any:
        return self._form.unpack(raw)[1]

    def same(self, found: Any) -> bool:
        return isinstance(found, self._type)


class Text(Kind):
    wit = "string"

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        self._low, self._high = low or 0, high

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, str):
            raise unfit("text", value)
        if len(value) < self._low:
            raise Unfit(f": expected at least {self._low:g} characters, got {len(value)}")
        if self._high is not None and len(value) > self._high:
            raise Unfit(f": expected at most {self._high:g} characters, got {len(value)}")
        data = value.encode()
        return span(STRING, len(data), data, kept)

    def lift(self, raw: bytes, room: Room) -> str:
        return bytes_at(raw, room).decode()

    def same(self, found: Any) -> bool:
        return isinstance(found, types.String)


class Bytes(Kind):
    """A list of bytes, each of which takes 32 in the C API."""

    wit = "list<u8>"

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        self._low, self._high = low or 0, high

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, bytes):
            raise unfit("bytes", value)
        if len(value) < self._low:
            raise Unfit(f": expected at least {self._low:g} bytes, got {len(value)}")
        if self._high is not None and len(value) > self._high:
            raise Unfit(f": expected at most {self._high:g} bytes, got {len(value)}")
        spread = bytearray(len(value) * SIZE)
        spread[::SIZE] = bytes([U8]) * len(value)
        spread[8::SIZE] = value
        return span(LIST, len(value), bytes(spread), kept)

    def lift(self, raw: bytes, room: Room) -> bytes:
        _, count, at = struct.unpack("<B7xQQ8x", raw)
        room.take(count)
        return string_at(at, count * SIZE)[8::SIZE] if count else b""

    def same(self, found: Any) -> bool:
        return isinstance(found, types.ListType) and isinstance(found.element, types.U8)


class Words(Kind):
    """One word of several."""

    def __init__(self, name: str, words: tuple[str, ...]) -> None:
        self.wit, self._words = name, words
        self._names = {word: word.replace("_", "-").encode() for word in words}
        self._back = {name: word for word, name in self._names.items()}

    def lower(self, value: Any, kept: Kept) -> bytes:
        if not isinstance(value, str) or value not in self._names:
            raise unfit(f"one of {', '.join(self._words)}", value)
        name = self._names[value]
        return span(ENUM, len(name), name, kept)

    def lift(self, raw: bytes, room: Room) -> str:
        return self._back[bytes_at(raw, room)]

    def same(self, found: Any) -> bool:
        return isinstance(found, types.EnumType) and [name.encode() for name in found.names] == list(self._names.values())


def bytes_at(raw: bytes, room: Room) -> bytes:
    _, size, at = struct.unpack("<B7xQQ8x", raw)
    room.take(size)
    return string_at(at, size) if size else b""
