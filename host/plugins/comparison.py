"""Compares two replies to the same request, of two lineages or two builds, within the tolerances that were declared for their fields."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import Meta

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
OUTCOME = "(outcome)"
SHOWN_CHARACTERS = 120


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far two numbers may lie apart: the greater of the two allowances counts, and `relative` is of the larger number."""

    relative: Annotated[float, Meta(ge=0, le=1)] = 0.0
    absolute: Annotated[float, Meta(ge=0)] = 0.0


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of the reply by their path without indices, as `products.yield_kg.sigma`, or a part of its beginning; and what counts for all others."""

    default: Tolerance = Tolerance()
    fields: dict[str, Tolerance] = {}

    def of(self, field: str) -> Tolerance:
        """The allowance of a field: that of its longest beginning that is named, or else the default."""
        parts = field.split(".")
        for count in range(len(parts), 0, -1):
            found = self.fields.get(".".join(parts[:count]))
            if found is not None:
                return found
        return self.default


@dataclass(frozen=True)
class Difference:
    """Where two replies differ by more than is allowed. `field` is the path without indices, `at` the same with them."""

    field: str
    at: str
    one: Any
    other: Any

    def words(self, one: str, other: str) -> str:
        """With what the two are called."""
        return f"{self.at}: {one} {shown(self.one)}, {other} {shown(self.other)}"


ABSENT = "(absent)"
_MISSING = object()


def differences(one: Any, other: Any, rules: Comparison) -> Iterator[Difference]:
    """All of them, in the order of the first reply. Both are decoded CBOR. Sentences may differ in their numbers, as far as their field allows."""
    yield from _walk(one, other, "", "", rules)


def _walk(one: Any, other: Any, field: str, at: str, rules: Comparison) -> Iterator[Difference]:
    match one, other:
        case dict(), dict():
            for key in dict.fromkeys([*one, *other]):
                inner = (f"{field}.{key}", f"{at}.{key}") if field else (str(key), str(key))
                left, right = one.get(key, _MISSING), other.get(key, _MISSING)
                if left is _MISSING or right is _MISSING:
                    yield Difference(*inner, ABSENT if left is _MISSING else left, ABSENT if right is _MISSING else right)
                else:
                    yield from _walk(left, right, *inner, rules)
        case ((list() | tuple()), (list() | tuple())):
            if len(one) != len(other):
                yield Difference(field, at, f"{len(one)} items", f"{len(other)} items")
            for index, (left, right) in enumerate(zip(one, other, strict=False)):
                yield from _walk(left, right, field, f"{at}[{index}]", rules)
        case _ if not _same(one, other, rules.of(field)):
            yield Difference(field, at, one, other)


def _same(one: Any, other: Any, allowed: Tolerance) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other or _same_words(one, other, allowed)
    if _is_number(one) and _is_number(other):
        return near(one, other, allowed)
    return type(one) is type(other) and one == other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same_words(one: str, other: str, allowed: Tolerance) -> bool:
    """Whether two sentences differ in their numbers only, and in those by no more than is allowed."""
    if _NUMBER.split(one) != _NUMBER.split(other):
        return False
    return all(near(float(left), float(right), allowed) for left, right in zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True))


def near(one: float, other: float, allowed: Tolerance) -> bool:
    """Whether two numbers lie within the greater of the two allowances. What is not finite is near its like only, as a NaN is near a NaN."""
    if one == other or (one != one and other != other):
        return True
    return isfinite(one) and isfinite(other) and abs(one - other) <= max(allowed.absolute, allowed.relative * max(abs(one), abs(other)))


def shown(value: Any) -> str:
    """The beginning of a value as JSON, bytes in base64."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
