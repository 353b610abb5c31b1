"""Requests made up from the contract's types: at random, and by changing one that is known to be sound. The same seed gives the same requests.

A request is plain data here, as `msgspec.to_builtins` gives it. What `fresh` and `changed` make may break a bound of the type; `made_up` sorts that out.
`snapcount skill test`, `compare` and the contract's own cases all draw from here.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from host.plugins.contract import Shape

CHANGES_MAX = 4
DECADES = 3.0  # a number is scaled by up to ten to the power of this
UINT_LARGE = 1 << 40
UINT_MAX = (1 << 64) - 1
LETTERS = "abcdexyzABé"
ODD_LETTERS = '\0\n\x7f"\\ ß中\u200b\ufeff\U0001f600'
FROM_TYPES_SHARE = 0.1  # of the requests that are made up; the rest are changes of ones that are known
ATTEMPTS_MAX = 50  # to make one that is sound
EXTREME_SHARE = 0.25
NUMBERS = (0.0, -0.0, 5e-324, 1e-300, 1e-12, 0.1, 1e9, 2.0**53, 1e100, 1.7976931348623157e308)
"""Zero, the smallest and the greatest number, and some at which sums and products lose or break something."""


@dataclass(frozen=True)
class Style:
    """How large the lists, texts and bytes of a request become at most; whether it goes to the edges of what its types allow; and how often it is a known one
    with all its lists as long as may be.
    """

    list_max: int = 3
    text_max: int = 6
    bytes_max: int = 8
    extremes: bool = False
    grown_share: float = 0.0


MODEST = Style()
LONG = Style(grown_share=0.03)
BOLD = Style(list_max=64, text_max=64, bytes_max=4096, extremes=True, grown_share=0.1)
"""For finding out what a skill does at the edges: long lists where the type allows them, odd characters, the greatest numbers."""


def plain(request: Shape) -> dict[str, Any]:
    """A request as plain data: dicts and lists."""
    return listed(msgspec.to_builtins(request, builtin_types=(bytes,)))  # type: ignore[no-any-return]  # a struct becomes a dict


def listed(value: Any) -> Any:
    """The value with each tuple as a list, so that it can be changed in place."""
    match value:
        case dict():
            return {key: listed(inner) for key, inner in value.items()}
        case list() | tuple():
            return [listed(inner) for inner in value]
        case _:
            return value


def sound(shape: type[Shape], request: dict[str, Any]) -> Shape | None:
    """The request as the host's struct, or None for one that the host would never send."""
    try:
        return msgspec.convert(request, shape)
    except msgspec.ValidationError:
        return None


def made_up(
    shape: type[Shape], corpus: Sequence[dict[str, Any]], rng: random.Random, style: Style = MODEST
) -> tuple[int | None, dict[str, Any]] | None:  # fmt: skip
    """A sound request: one of the corpus changed, with its index there, or one made of its type alone. None where the attempts are used up."""
    for _ in range(ATTEMPTS_MAX):
        at = None if not corpus or rng.random() < FROM_TYPES_SHARE else rng.choice(range(len(corpus)))
        if at is None:
            request = fresh(shape, rng, style)
        elif style.grown_share and rng.random() < style.grown_share:
            request = grown(corpus[at], shape, rng)
        else:
            request = changed(corpus[at], shape, rng, style)
        if sound(shape, request) is not None:
            return at, request
    return None


def fresh(shape: type[Shape], rng: random.Random, style: Style = MODEST) -> dict[str, Any]:
    """A request made of nothing but its type."""
    return _value(inspect.type_info(shape), rng, style)  # type: ignore[no-any-return]  # a struct becomes a dict


def changed(request: dict[str, Any], shape: type[Shape], rng: random.Random, style: Style = MODEST) -> dict[str, Any]:
    """A copy of a request with a few of its values, items or optional keys changed."""
    made = copy.deepcopy(request)
    for _ in range(rng.randint(1, CHANGES_MAX)):
        places = list(_places(made, inspect.type_info(shape)))
        if not places:
            break
        place = rng.choice(places)
        others = [other.value for other in places if type(other.value) is type(place.value) and other.key == place.key]
        _change(place, others, rng, style)
    return made


def grown(request: dict[str, Any], shape: type[Shape], rng: random.Random) -> dict[str, Any]:
    """A copy of a sound request with its lists as long as their types allow, up to those of BOLD, the items repeated under other names: what limits have to be
    enough for, and a host's largest messages.
    """
    made = copy.deepcopy(request)
    _grow(made, inspect.type_info(shape), rng, BOLD.list_max)
    return made


def _grow(value: Any, kind: Any, rng: random.Random, most: int) -> None:
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                if field.encode_name in value:
                    _grow(value[field.encode_name], present(field.type), rng, most)
        case inspect.VarTupleType(item_type=item, max_length=high) if value:
            for one in value:
                _grow(one, item, rng, most)
            known = list(value)
            while len(value) < min(high or most, most):
                value.append(_named_anew(rng.choice(known), item, len(value)))


def _named_anew(value: Any, kind: Any, number: int) -> Any:
    """A copy with a number behind each text, so that items which must differ do."""
    match kind:
        case inspect.StructType(fields=fields):
            kinds = {field.encode_name: present(field.type) for field in fields}
            return {key: _named_anew(inner, kinds[key], number) for key, inner in value.items()}
        case inspect.VarTupleType(item_type=item):
            return [_named_anew(inner, item, number) for inner in value]
        case inspect.StrType(max_length=high):
            end = f"-{number}"
            return value[: (high or len(value) + len(end)) - len(end)] + end
        case _:
            return copy.deepcopy(value)


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


def _change(place: _Place, others: list[Any], rng: random.Random, style: Style) -> None:
    if place.optional and rng.random() < 0.5:
        if place.key in place.holder:
            del place.holder[place.key]
        else:
            place.holder[place.key] = _value(place.kind, rng, style)
        return
    value = place.value
    if value is None:
        return
    if rng.random() < 0.15 and others:
        place.holder[place.key] = copy.deepcopy(rng.choice(others))
        return
    match place.kind:
        case inspect.FloatType():
            place.holder[place.key] = _number(value, place.kind, rng, style)
        case inspect.VarTupleType(item_type=item):
            _change_list(place, item, rng, style)
        case inspect.StructType():
            pass  # its own fields are places too
        case kind:
            place.holder[place.key] = _value(kind, rng, style)


def _change_list(place: _Place, item: Any, rng: random.Random, style: Style) -> None:
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
            items.insert(at, _value(item, rng, style))


def _number(value: float, kind: Any, rng: random.Random, style: Style) -> float:
    """A number near the given one, far from it, or one of those where things change."""
    if style.extremes and rng.random() < EXTREME_SHARE:
        return _drawn(kind.ge, kind.le, rng, style)
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


def _drawn(low: float | None, high: float | None, rng: random.Random, style: Style) -> float:
    """A number between bounds, where there are any: often a round one, else of any size."""
    if style.extremes and rng.random() < EXTREME_SHARE:
        drawn = rng.choice(NUMBERS)
    else:
        drawn = rng.choice((0.0, 1.0, rng.random(), 10 ** rng.uniform(-DECADES, DECADES)))
    if low is None and rng.random() < 0.5:
        drawn = -drawn
    return float(min(max(drawn, drawn if low is None else low), drawn if high is None else high))


def _whole(low: int | None, high: int | None, rng: random.Random, style: Style) -> int:
    least = low or 0
    if style.extremes and rng.random() < EXTREME_SHARE:
        return min(max(rng.choice((0, 1, 255, 1 << 31, 1 << 32, 1 << 53, 1 << 63, UINT_MAX)), least), UINT_MAX if high is None else high)
    return rng.choice(
        (least, rng.randint(least, 10 if high is None else high), rng.randint(least, UINT_LARGE if high is None else high))
    )  # fmt: skip


def _text(low: int, high: int | None, rng: random.Random, style: Style) -> str:
    odd = style.extremes and rng.random() < EXTREME_SHARE
    return "".join(rng.choices(ODD_LETTERS if odd else LETTERS, k=_length(low, high, style.text_max, rng, style)))


def _length(low: int, high: int | None, most: int, rng: random.Random, style: Style) -> int:
    """A length within the bounds, `most` at most; at the edges now and then, small otherwise."""
    top = max(low, min(high or most, most))
    if not style.extremes:
        return rng.randint(low, top)
    return rng.choice((low, top)) if rng.random() < EXTREME_SHARE else rng.randint(low, max(low, min(top, low + MODEST.list_max)))


def _value(kind: Any, rng: random.Random, style: Style) -> Any:
    match kind:
        case inspect.StructType(fields=fields):
            return {field.encode_name: _value(present(field.type), rng, style) for field in fields if field.required or rng.random() < 0.5}
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.IntType(ge=low, le=high):
            return _whole(low, high, rng, style)
        case inspect.FloatType(ge=low, le=high):
            return _drawn(low, high, rng, style)
        case inspect.StrType(min_length=low, max_length=high):
            return _text(low or 0, high, rng, style)
        case inspect.BytesType(min_length=low, max_length=high):
            return rng.randbytes(_length(low or 0, high, style.bytes_max, rng, style))
        case inspect.LiteralType(values=values):
            return rng.choice(values)
        case inspect.TupleType(item_types=kinds):
            return [_value(inner, rng, style) for inner in kinds]
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return [_value(item, rng, style) for _ in range(_length(low or 0, high, style.list_max, rng, style))]
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")
