"""Requests that are none: a sound one, damaged. A host refuses them before it sends them; a skill that gets one all the same answers `bad_request`."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import inspect

from host.core import cbor
from host.core.errors import MalformedData, TooLarge
from host.plugins.contract import Shape
from sdk import samples

BAD_REQUEST = "bad_request"
WRONG: dict[type, tuple[Any, ...]] = {
    dict: (None, "x", []), list: (None, "x", {}), str: (None, 7, b"x", []), bytes: (None, 7, "x", []), bool: (None, 7, "x"), int: (None, "x", []),
    float: (None, "x", []),
}  # fmt: skip
BEYOND: dict[type, tuple[Any, ...]] = {
    str: ("x" * 5_000, ""), bytes: (b"x" * 70_000, b""), int: (-1, (1 << 64) - 1), float: (-1.0, float("inf"), float("nan"), 1.7976931348623157e308),
}  # fmt: skip


@dataclass(frozen=True)
class Damaged:
    """Bytes in place of a request, and how the call may end: `refused` with bad_request alone; where a value is only out of bounds, in any way `but_traps`;
    `sound` ones, since a flipped bit may leave a request, as any request.
    """

    about: str
    data: bytes
    ends: Literal["refused", "but_traps", "sound"]


def damaged(shape: type[Shape], request: dict[str, Any], rng: random.Random) -> Damaged:
    """The request, sound before, with one thing wrong."""
    made = copy.deepcopy(request)
    encoded = cbor.encode(made)
    match rng.randrange(7):
        case 0:
            at = rng.randrange(len(encoded))
            return Damaged(f"cut off after {at} bytes", encoded[:at], "refused")
        case 1:
            return _too_long(made)
        case 2:
            return _flipped(encoded, shape, rng)
        case 3:
            return _without_a_key(made, shape, rng)
        case 4:
            holder, _ = rng.choice(list(_maps(made, inspect.type_info(shape))))
            holder["zz_unknown"] = 1
            return Damaged("an unknown key", cbor.encode(made), "refused")
        case 5:
            return _replaced(made, WRONG, "a value of another type", rng, "refused")
        case _:
            return _replaced(made, BEYOND, "a value beyond its bounds", rng, "but_traps")


def _too_long(made: dict[str, Any]) -> Damaged:
    return Damaged("a byte after its end", cbor.encode(made) + b"\x00", "refused")


def _flipped(encoded: bytes, shape: type[Shape], rng: random.Random) -> Damaged:
    made = bytearray(encoded)
    at = rng.randrange(len(made))
    made[at] ^= 1 << rng.randrange(8)
    try:
        value = cbor.decode(bytes(made), "request")
    except (MalformedData, TooLarge):
        return Damaged(f"a bit of byte {at} flipped, which is no deterministic CBOR", bytes(made), "refused")
    sound = samples.sound(shape, value) is not None
    return Damaged(f"a bit of byte {at} flipped", bytes(made), "sound" if sound else "but_traps")


def _without_a_key(made: dict[str, Any], shape: type[Shape], rng: random.Random) -> Damaged:
    needed = [
        (value, field.encode_name) for value, kind in _maps(made, inspect.type_info(shape)) for field in kind.fields if field.required
    ]
    if not needed:
        return _too_long(made)
    holder, key = rng.choice(needed)
    del holder[key]
    return Damaged(f"without the key {key}", cbor.encode(made), "refused")


def _replaced(
    made: dict[str, Any], by: dict[type, tuple[Any, ...]], about: str, rng: random.Random, ends: Literal["refused", "but_traps"]
) -> Damaged:  # fmt: skip
    places = [(holder, key) for holder, key, value in _values(made) if type(value) in by]
    if not places:
        return _too_long(made)
    holder, key = rng.choice(places)
    holder[key] = rng.choice(by[type(holder[key])])
    return Damaged(f"{about} at {key}", cbor.encode(made), ends)


def _maps(value: Any, kind: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """The maps of a request that are structs, each with its type."""
    match kind:
        case inspect.StructType(fields=fields):
            yield value, kind
            for field in fields:
                if field.encode_name in value:
                    yield from _maps(value[field.encode_name], samples.present(field.type))
        case inspect.VarTupleType(item_type=item):
            for one in value:
                yield from _maps(one, item)


def _values(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each value in a request: what holds it, its key or index, and itself."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key, inner
        yield from _values(inner)
