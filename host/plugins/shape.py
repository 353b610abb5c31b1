"""What the contract's structs are made of: their root, and types with bounds. Units are in the names of keys."""

from typing import Annotated

import msgspec
from msgspec import Meta

Natural = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Size = Annotated[float, Meta(ge=-100_000, le=100_000)]
"""A size or a deviation in mm: up to 100 m, of which a double still resolves a hundredth of a nanometre."""
Spread = Annotated[float, Meta(ge=0, le=100_000)]
ShortText = Annotated[str, Meta(max_length=64)]
Line = Annotated[str, Meta(max_length=1024)]
Identity = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The root of the contract's shapes."""
