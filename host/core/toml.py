"""TOML that people write, into typed structs: one line of error that names the file and the field."""

import tomllib
from typing import TypeVar

import msgspec

from host.core.errors import MalformedData
from host.core.text import safe

BYTES_MAX = 64 << 10

T = TypeVar("T")


def decode(raw: bytes, shape: type[T], what: str) -> T:
    """Raises MalformedData for more than 64 KiB, for what is not TOML, and for another shape."""
    if len(raw) > BYTES_MAX:
        raise MalformedData(f"{what}: at most {BYTES_MAX} bytes, {len(raw)} came")
    try:
        return msgspec.convert(tomllib.loads(raw.decode()), shape)
    except (msgspec.ValidationError, ValueError) as error:
        raise MalformedData(f"{what}: {safe(str(error))}") from error
    except RecursionError as error:
        raise MalformedData(f"{what}: nested too deeply") from error
