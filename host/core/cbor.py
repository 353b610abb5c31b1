"""Deterministic CBOR, strict both ways: the only decoder for bytes from outside, and the only encoder for bytes that are signed."""

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import cbor2
import msgspec

from cython_core import strict_reference
from host.core.errors import MalformedData, TooLarge
from host.core.limits import DEFAULT
from host.core.text import safe

try:
    from cython_core.encode import encode as _encode
    from cython_core.strict import check as _check
except ImportError:  # no compiled extensions for this Python: same rules, slower
    from cython_core.encode_reference import encode as _encode
    from cython_core.strict_reference import check as _check

check: Callable[[bytes, int, int, tuple[int, ...]], tuple[int, int]] = _check
encode: Callable[[object], bytes] = _encode
"""Encodes maps, lists, text, bytes, integers, floats, booleans, None and msgspec structs, whose UNSET fields are absent (RFC 8949, section 4.2.1)."""

TAG_COSE_SIGN1 = 18  # RFC 9052, section 2
_NOT_FINITE = re.compile(
    rb"\xf9(\x7c\x00|\x7e\x00|\xfc\x00)"
)  # the only encodings of infinity, NaN and minus infinity; other bytes may look alike

T = TypeVar("T")


def decode(data: bytes, what: str, *, bytes_max: int = DEFAULT.frame_bytes_max, tags: tuple[int, ...] = ()) -> Any:
    """Decodes exactly one deterministic item. `what` names the data in the error.

    Raises TooLarge over `bytes_max`, MalformedData for anything that strict_reference.py refuses and for bad UTF-8.
    """
    if len(data) > bytes_max:
        raise TooLarge(f"{what}: at most {bytes_max} bytes expected, {len(data)} came")
    problem, offset = check(data, DEFAULT.cbor_depth_max, DEFAULT.cbor_items_max, tags)
    if problem:
        raise MalformedData(f"{what}: not deterministic CBOR at byte {offset}: {strict_reference.PROBLEMS[problem]}")
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, ValueError, RecursionError) as error:
        raise MalformedData(f"{what}: not valid CBOR: {safe(str(error))}") from error


def decode_struct(data: bytes, shape: type[T], what: str, *, bytes_max: int = DEFAULT.frame_bytes_max) -> T:
    """Decodes into a msgspec struct; an unknown, missing or wrongly typed field is MalformedData that names it, and so is a number that is not finite."""
    value = decode(data, what, bytes_max=bytes_max)
    if _NOT_FINITE.search(data) and (where := _not_finite(value, "")) is not None:
        raise MalformedData(f"{what}: expected a finite number - at `${safe(where)}`")
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise MalformedData(f"{what}: {safe(str(error))}") from error


def _not_finite(value: Any, where: str) -> str | None:
    """Where the first number is that is infinite or NaN."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    if isinstance(value, dict):
        inner = [(f"{where}.{key}", item) for key, item in value.items()]
    else:
        inner = [(f"{where}[{index}]", item) for index, item in enumerate(value)] if isinstance(value, list) else []
    return next((found for place, item in inner if (found := _not_finite(item, place)) is not None), None)
