"""What the contract says of one key of a record, for the component tier."""

from typing import NamedTuple


class Field(NamedTuple):
    """A key and its type. Bounds are those of a number's value, a text's length in characters, the length of bytes, or the count of a list."""

    name: str
    kind: str
    """bool, u8, u32, u64, float, text, bytes, words, struct, structs, texts, floats, tuple or tuples."""

    of: str = ""
    """The record or the list of words."""

    low: float | None = None
    high: float | None = None
    length: int = 0
    """Of a tuple; of each of many texts, the most; 0 for no bound."""

    item_low: float | None = None
    item_high: float | None = None
    """Bounds of each of many floats."""

    optional: bool = False
