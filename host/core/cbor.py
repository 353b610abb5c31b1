"""Deterministic CBOR, strict both ways: the only decoder for bytes from outside, and the only encoder for bytes that are signed."""

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
    """Decodes into a msgspec struct; an unknown, missing or wrongly typed field is MalformedData that names it."""
    value = decode(data, what, bytes_max=bytes_max)
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise MalformedData(f"{what}: {safe(str(error))}") from error
