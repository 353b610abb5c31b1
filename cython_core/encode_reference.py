"""Encodes plain Python values as deterministic CBOR: the readable reference of cython_core/encode.pyx, on cbor2.

One suite (tests/test_strict.py) compares the two byte for byte. The compiled one is five times faster; a hook call encodes its request each time.
"""

from operator import itemgetter
from typing import Any

import cbor2
import msgspec

MAP = 5


def encode(value: object) -> bytes:
    """The encoding of dicts, lists, tuples, str, bytes, int (64 bits), float, bool, None and msgspec structs, whose UNSET fields are absent."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value, builtin_types=(bytes,))
    return cbor2.dumps(value, canonical=True, encoders={dict: _encode_map})


def _encode_map(encoder: cbor2.CBOREncoder, value: dict[Any, Any]) -> None:
    # cbor2 sorts shorter keys first (RFC 7049, section 3.9), RFC 8949 bytewise; for text keys alone the two agree.
    encoder.encode_length(MAP, len(value))
    for key, item in sorted(((cbor2.dumps(key, canonical=True), item) for key, item in value.items()), key=itemgetter(0)):
        encoder.write(key)
        encoder.encode(item)
