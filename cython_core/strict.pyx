# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Checks that bytes are one item of deterministic CBOR. The rules and their reasons stand in strict_reference.py."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef enum:
    OK, TRUNCATED, TRAILING, INDEFINITE, NOT_SHORTEST, TAG, SIMPLE, KEY_TYPE, KEY_ORDER, DEPTH, ITEMS

cdef enum:
    TAGS_MAX = 8

cdef struct Reader:
    const uint8_t *data
    uint64_t size
    uint64_t at
    uint64_t problem_at
    int depth_max
    long long items_left
    int tag_count
    uint64_t tags[TAGS_MAX]



cdef int refuse(Reader *r, int problem, uint64_t at) noexcept nogil:
    r.problem_at = at
    return -problem


cdef bint shortest_float(int info, uint64_t raw) noexcept nogil:
    cdef uint32_t bits32
    cdef uint64_t lost
    cdef int exponent
    cdef float single
    cdef double double_
    if info == 25:
        return (raw & 0x7C00) != 0x7C00 or (raw & 0x3FF) == 0 or raw == 0x7E00
    if info == 27:
        memcpy(&double_, &raw, 8)
        single = <float>double_
        return double_ == double_ and <double>single != double_
    bits32 = <uint32_t>raw
    exponent = <int>((bits32 >> 23) & 0xFF) - 127
    if exponent == 128 or (bits32 & 0x7FFFFFFF) == 0:
        return False
    if -14 <= exponent <= 15:
        return (bits32 & 0x1FFF) != 0
    if -24 <= exponent < -14:
        lost = (1 << (-1 - exponent)) - 1
        return ((bits32 & 0x7FFFFF | 0x800000) & lost) != 0
    return True


cdef int head(Reader *r, uint64_t *argument) noexcept nogil:
    # The major type, or the negated problem.
    cdef uint64_t start = r.at, value = 0
    cdef int major, info, width, i
    if start >= r.size:
        return refuse(r, TRUNCATED, start)
    major = r.data[start] >> 5
    info = r.data[start] & 31
    r.at += 1
    if info > 27:
        return refuse(r, INDEFINITE, start)
    width = 0 if info < 24 else 1 << (info - 24)
    if <uint64_t>width > r.size - r.at:
        return refuse(r, TRUNCATED, start)
    if width == 0:
        value = info
    for i in range(width):
        value = value << 8 | r.data[r.at + i]
    r.at += width
    if major == 7:
        if info < 25:
            if info < 20 or info > 22:
                return refuse(r, SIMPLE, start)
        elif not shortest_float(info, value):
            return refuse(r, NOT_SHORTEST, start)
    elif width != 0 and value < (<uint64_t>24 if width == 1 else <uint64_t>1 << (4 * width)):
        return refuse(r, NOT_SHORTEST, start)
    argument[0] = value
    return major


cdef int item(Reader *r, int depth) noexcept nogil:
    # The major type, or the negated problem. Recursion is bounded by depth_max.
    cdef uint64_t start = r.at, argument = 0, i
    cdef int major, result
    if depth > r.depth_max:
        return refuse(r, DEPTH, start)
    r.items_left -= 1
    if r.items_left < 0:
        return refuse(r, ITEMS, start)
    major = head(r, &argument)
    if major < 2 or major == 7:
        return major
    if major == 6:
        for i in range(<uint64_t>r.tag_count):
            if r.tags[i] == argument:
                result = item(r, depth + 1)
                return result if result < 0 else major
        return refuse(r, TAG, start)
    if argument > r.size - r.at:
        return refuse(r, TRUNCATED, start)
    if major < 4:
        r.at += argument
        return major
    if major == 5:
        return pairs(r, argument, depth, start)
    for i in range(argument):
        result = item(r, depth + 1)
        if result < 0:
            return result
    return major


cdef int pairs(Reader *r, uint64_t count, int depth, uint64_t begin) noexcept nogil:
    cdef uint64_t i, start, length, last = 0, last_length = 0
    cdef int result, order
    if 2 * count > r.size - r.at:
        return refuse(r, TRUNCATED, begin)
    for i in range(count):
        start = r.at
        result = item(r, depth + 1)
        if result < 0:
            return result
        if result > 3:
            return refuse(r, KEY_TYPE, start)
        length = r.at - start
        if i > 0:
            order = memcmp(r.data + start, r.data + last, length if length < last_length else last_length)
            if order < 0 or (order == 0 and length <= last_length):
                return refuse(r, KEY_ORDER, start)
        last = start
        last_length = length
        result = item(r, depth + 1)
        if result < 0:
            return result
    return 5


def check(bytes data, int depth_max, long long items_max, tuple tags):
    """Returns (OK, 0), or the problem (an index into `strict_reference.PROBLEMS`) and the offset of the item that has it."""
    cdef Reader r
    cdef int result, i
    if len(tags) > TAGS_MAX:
        raise ValueError(f"at most {TAGS_MAX} tags, not {len(tags)}")
    r.data = <const uint8_t *>PyBytes_AS_STRING(data)
    r.size = PyBytes_GET_SIZE(data)
    r.at = 0
    r.problem_at = 0
    r.depth_max = depth_max
    r.items_left = items_max
    r.tag_count = len(tags)
    for i in range(r.tag_count):
        r.tags[i] = tags[i]
    result = item(&r, 1)
    if result < 0:
        return -result, r.problem_at
    if r.at != r.size:
        return TRAILING, r.at
    return OK, 0
