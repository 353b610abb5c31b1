"""CBOR that need not be sound: plain values, in which any item can be replaced by bytes of its own."""

from dataclasses import dataclass
from typing import Any

from host.core import cbor

MAP, ARRAY = 5, 4


@dataclass(frozen=True)
class Raw:
    """An item that is written as it is."""

    data: bytes


def head(major: int, argument: int) -> bytes:
    """A head in its shortest form (RFC 8949, section 3)."""
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 24:
            return bytes([major << 5 | argument])
        if argument < 1 << (8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size)
    raise AssertionError(f"{argument} has more than 64 bits")


def encode(value: Any) -> bytes:
    """Deterministic CBOR but for what is Raw. A map can be a dict, whose keys are sorted, or a list of pairs in `Pairs`."""
    match value:
        case Raw(data=data):
            return data
        case Pairs(entries=entries):
            return head(MAP, len(entries)) + b"".join(encode(key) + encode(item) for key, item in entries)
        case dict():
            return encode(Pairs(sorted_pairs(value)))
        case list() | tuple():
            return head(ARRAY, len(value)) + b"".join(map(encode, value))
        case _:
            return cbor.encode(value)


@dataclass(frozen=True)
class Pairs:
    """The entries of a map in this very order."""

    entries: tuple[tuple[Any, Any], ...]


def sorted_pairs(value: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The entries in the bytewise order of their encoded keys."""
    return tuple(sorted(value.items(), key=lambda entry: cbor.encode(entry[0])))
