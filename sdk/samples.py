"""Requests made up from the contract's types: at random, and by changing one that is known to be sound. The same seed gives the same requests.

A request is plain data here, as `msgspec.to_builtins` gives it: what is made up may break a bound of the type, and the caller sorts that out.
"""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from host.plugins.contract import Shape

LIST_MAX = 3
TEXT_MAX = 6
BYTES_MAX = 8
CHANGES_MAX = 4
DECADES = 3.0  # a number is scaled by up to ten to the power of this
UINT_LARGE = 1 << 40
LETTERS = "abcdexyzABé"


def plain(request: Shape) -> dict[str, Any]:
    """A request as plain data: dicts and lists."""
    return _listed(msgspec.to_builtins(request, builtin_types=(bytes,)))  # type: ignore[no-any-return]  # a struct becomes a dict


def _listed(value: Any) -> Any:
    match value:
        case dict():
            return {key: _listed(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_listed(inner) for inner in value]
        case _:
            return value


def fresh(shape: type[Shape], rng: random.Random) -> dict[str, Any]:
    """A request made of nothing but its type."""
    return _value(inspect.type_info(shape), rng)  # type: ignore[no-any-return]  # a struct becomes a dict


def changed(request: dict[str, Any], shape: type[Shape], rng: random.Random) -> dict[str, Any]:
    """A copy of a request with a few of its values, items or optional keys changed."""
    made = copy.deepcopy(request)
    for _ in range(rng.randint(1, CHANGES_MAX)):
        places = list(_places(made, inspect.type_info(shape)))
        if not places:
            break
        place = rng.choice(places)
        others = [other.value for other in places if type(other.value) is type(place.value) and other.key == place.key]
        _change(place, others, rng)
    return made


@dataclass(frozen=True)
class _Place:
    """A value in a request: what holds it, its key or index there, and its type."""

    holder: Any
    key: str | int
    kind: Any
    optional: bool = False

    @property
    def value(self) -> Any:
        return self.holder.get(self.key) if isinstance(self.holder, dict) else self.holder[self.key]


def _places(value: Any, kind: Any) -> Iterator[_Place]:
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                inner = present(field.type)
                yield _Place(value, field.encode_name, inner, optional=not field.required)
                if field.encode_name in value:
                    yield from _places(value[field.encode_name], inner)
        case inspect.VarTupleType(item_type=item):
            for index, one in enumerate(value):
                yield _Place(value, index, item)
                yield from _places(one, item)
        case inspect.TupleType(item_types=kinds):
            for index, (one, inner) in enumerate(zip(value, kinds, strict=True)):
                yield _Place(value, index, inner)
                yield from _places(one, inner)


def present(kind: Any) -> Any:
    """The type of a key when it is there: UNSET stands for absent."""
    if isinstance(kind, inspect.UnionType):
        (only,) = [part for part in kind.types if not isinstance(part, inspect.UnsetType)]  # type: ignore[attr-defined]  # msgspec's stubs lack it
        return only
    return kind


def _change(place: _Place, others: list[Any], rng: random.Random) -> None:
    if place.optional and rng.random() < 0.5:
        if place.key in place.holder:
            del place.holder[place.key]
        else:
            place.holder[place.key] = _value(place.kind, rng)
        return
    value = place.value
    if value is None:
        return
    if rng.random() < 0.15 and others:
        place.holder[place.key] = copy.deepcopy(rng.choice(others))
        return
    match place.kind:
        case inspect.FloatType():
            place.holder[place.key] = _number(value, rng)
        case inspect.VarTupleType(item_type=item):
            _change_list(place, item, rng)
        case inspect.StructType():
            pass  # its own fields are places too
        case kind:
            place.holder[place.key] = _value(kind, rng)


def _change_list(place: _Place, item: Any, rng: random.Random) -> None:
    """Removes, repeats, swaps or adds an item."""
    items = place.holder[place.key] = list(place.value)
    at = rng.randrange(len(items)) if items else 0
    match rng.randrange(4):
        case 0 if items:
            del items[at]
        case 1 if items:
            items.insert(at, copy.deepcopy(items[at]))
        case 2 if len(items) > 1:
            items[at - 1], items[at] = items[at], items[at - 1]
        case _:
            items.insert(at, _value(item, rng))


def _number(value: float, rng: random.Random) -> float:
    """A number near the given one, far from it, or one of those where things change."""
    match rng.randrange(6):
        case 0:
            return rng.choice((0.0, 1.0, -1.0, 0.5, 100.0, 1e-9))
        case 1:
            return -value
        case 2:
            return float(f"{value:.1g}")
        case 3:
            return value * 10 ** rng.uniform(-DECADES, DECADES)
        case _:
            return value * rng.uniform(0.5, 1.5)


def _drawn(low: float | None, high: float | None, rng: random.Random) -> float:
    """A number between bounds, where there are any: often a round one, else of any size."""
    drawn = rng.choice((0.0, 1.0, rng.random(), 10 ** rng.uniform(-DECADES, DECADES)))
    if low is None and rng.random() < 0.5:
        drawn = -drawn
    return float(min(max(drawn, drawn if low is None else low), drawn if high is None else high))


def _value(kind: Any, rng: random.Random) -> Any:
    match kind:
        case inspect.StructType(fields=fields):
            return {field.encode_name: _value(present(field.type), rng) for field in fields if field.required or rng.random() < 0.5}
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.IntType(ge=low, le=high):
            return rng.choice(
                (low or 0, rng.randint(low or 0, 10 if high is None else high), rng.randint(low or 0, UINT_LARGE if high is None else high))
            )
        case inspect.FloatType(ge=low, le=high):
            return _drawn(low, high, rng)
        case inspect.StrType(min_length=low, max_length=high):
            return "".join(rng.choices(LETTERS, k=rng.randint(low or 0, min(high or TEXT_MAX, TEXT_MAX))))
        case inspect.BytesType(min_length=low, max_length=high):
            return rng.randbytes(rng.randint(low or 0, max(low or 0, min(high or BYTES_MAX, BYTES_MAX))))
        case inspect.LiteralType(values=values):
            return rng.choice(values)
        case inspect.TupleType(item_types=kinds):
            return [_value(inner, rng) for inner in kinds]
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return [_value(item, rng) for _ in range(rng.randint(low or 0, min(high or LIST_MAX, LIST_MAX)))]
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")
