"""Checks that bytes are one item of deterministic CBOR: the readable reference of cython_core/strict.pyx, rule for rule.

The profile (RFC 8949, section 4.2.1, narrowed to what Snapcount speaks):

- one item, and nothing after it;
- definite lengths, and every integer, length and tag number in its shortest form;
- floats in the shortest form that keeps the value, NaN as f9 7e00;
- map keys are integers, byte strings or text, in bytewise order of their encodings, none twice;
- of the simple values false, true and null; of the tags those that the caller names;
- depth and number of items within the caller's bounds.

UTF-8 is checked by the decoder that runs afterwards. One suite (tests/test_strict.py) runs over both implementations.
"""

import struct

OK, TRUNCATED, TRAILING, INDEFINITE, NOT_SHORTEST, TAG, SIMPLE, KEY_TYPE, KEY_ORDER, DEPTH, ITEMS = range(11)

PROBLEMS = (
    "",
    "the data ends inside an item",
    "bytes follow the item",
    "an indefinite length or a reserved head",
    "a number or a length is not in its shortest form",
    "a tag that is not allowed here",
    "a simple value that is not allowed",
    "a map key is not an integer, bytes or text",
    "map keys are out of order or repeated",
    "nested too deeply",
    "too many items",
)


class _Refused(Exception):
    def __init__(self, problem: int, offset: int) -> None:
        self.problem, self.offset = problem, offset


class _Reader:
    def __init__(self, data: bytes, depth_max: int, items_max: int, tags: tuple[int, ...]) -> None:
        self.data, self.depth_max, self.items_left, self.tags, self.at = data, depth_max, items_max, tags, 0

    def item(self, depth: int) -> int:
        """Reads one item and returns its major type."""
        start = self.at
        if depth > self.depth_max:
            raise _Refused(DEPTH, start)
        self.items_left -= 1
        if self.items_left < 0:
            raise _Refused(ITEMS, start)
        major, argument = self.head()
        if major in (2, 3):
            if argument > len(self.data) - self.at:
                raise _Refused(TRUNCATED, start)
            self.at += argument
        elif major == 4:
            for _ in range(self.count(argument, start)):
                self.item(depth + 1)
        elif major == 5:
            self.map(self.count(2 * argument, start) // 2, depth)
        elif major == 6:
            if argument not in self.tags:
                raise _Refused(TAG, start)
            self.item(depth + 1)
        return major

    def count(self, items: int, start: int) -> int:
        # Every item takes a byte, so a longer claim is false; refusing it here bounds the work by the input's size.
        if items > len(self.data) - self.at:
            raise _Refused(TRUNCATED, start)
        return items

    def map(self, pairs: int, depth: int) -> None:
        last = b""
        for _ in range(pairs):
            start = self.at
            if self.item(depth + 1) > 3:
                raise _Refused(KEY_TYPE, start)
            key = self.data[start : self.at]
            if last and key <= last:
                raise _Refused(KEY_ORDER, start)
            last = key
            self.item(depth + 1)

    def head(self) -> tuple[int, int]:
        """Reads a head and returns major type and argument; a float or simple value is read whole."""
        start = self.at
        if start >= len(self.data):
            raise _Refused(TRUNCATED, start)
        major, info = self.data[start] >> 5, self.data[start] & 31
        self.at += 1
        if info > 27:
            raise _Refused(INDEFINITE, start)
        width = 0 if info < 24 else 1 << (info - 24)
        if width > len(self.data) - self.at:
            raise _Refused(TRUNCATED, start)
        raw = self.data[self.at : self.at + width]
        self.at += width
        argument = int.from_bytes(raw, "big") if width else info
        if major == 7:
            self.simple(info, raw, start)
        elif width and argument < (24 if width == 1 else 1 << (4 * width)):
            raise _Refused(NOT_SHORTEST, start)
        return major, argument

    def simple(self, info: int, raw: bytes, start: int) -> None:
        if info < 25:
            if info not in (20, 21, 22):
                raise _Refused(SIMPLE, start)
        elif raw != _shortest(struct.unpack((">e", ">f", ">d")[info - 25], raw)[0]):
            raise _Refused(NOT_SHORTEST, start)


def _shortest(value: float) -> bytes:
    if value != value:
        return b"\x7e\x00"
    for form in (">e", ">f"):
        try:
            raw = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, raw)[0] == value:
            return raw
    return struct.pack(">d", value)


def check(data: bytes, depth_max: int, items_max: int, tags: tuple[int, ...]) -> tuple[int, int]:
    """Returns (OK, 0), or the problem (an index into `PROBLEMS`) and the offset of the item that has it."""
    reader = _Reader(data, depth_max, items_max, tags)
    try:
        reader.item(1)
    except _Refused as refused:
        return refused.problem, refused.offset
    return (OK, 0) if reader.at == len(data) else (TRAILING, reader.at)
