# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Encodes plain Python values as deterministic CBOR (RFC 8949, section 4.2.1). The readable reference of the same behaviour is encode_reference.py."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from operator import itemgetter

from msgspec import UNSET

cdef enum:
    UNSIGNED = 0, NEGATIVE = 1, BYTES = 2, TEXT = 3, ARRAY = 4, MAP = 5
    DEPTH_MAX = 64, START_BYTES = 512

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef struct Out:
    uint8_t *data
    size_t size
    size_t room


cdef struct Key:
    size_t start
    size_t end


cdef int reserve(Out *out, size_t more) except -1:
    cdef uint8_t *grown
    if out.size + more > out.room:
        out.room = 2 * out.room + more
        grown = <uint8_t *>realloc(out.data, out.room)
        if grown == NULL:
            raise MemoryError
        out.data = grown
    return 0


cdef int put_raw(Out *out, const void *data, size_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef int put_big_endian(Out *out, uint8_t first, uint64_t value, int width) except -1:
    cdef int i
    reserve(out, 9)
    out.data[out.size] = first
    for i in range(width):
        out.data[out.size + 1 + i] = <uint8_t>(value >> (8 * (width - 1 - i)))
    out.size += 1 + width
    return 0


cdef int put_head(Out *out, int major, uint64_t argument) except -1:
    cdef uint8_t top = <uint8_t>(major << 5)
    if argument < 24:
        return put_big_endian(out, top | <uint8_t>argument, 0, 0)
    if argument <= 0xFF:
        return put_big_endian(out, top | 24, argument, 1)
    if argument <= 0xFFFF:
        return put_big_endian(out, top | 25, argument, 2)
    if argument <= 0xFFFFFFFF:
        return put_big_endian(out, top | 26, argument, 4)
    return put_big_endian(out, top | 27, argument, 8)


cdef int half(uint32_t bits) noexcept nogil:
    # The binary16 with the same value as a binary32, or -1. Infinities and zeros included, NaN not.
    cdef uint32_t sign = (bits >> 16) & 0x8000, fraction = bits & 0x7FFFFF
    cdef int exponent = <int>((bits >> 23) & 0xFF) - 127
    cdef int shift
    if exponent == 128:
        return <int>(sign | 0x7C00)
    if (bits & 0x7FFFFFFF) == 0:
        return <int>sign
    if -14 <= exponent <= 15 and (fraction & 0x1FFF) == 0:
        return <int>(sign | <uint32_t>((exponent + 15) << 10) | (fraction >> 13))
    if -24 <= exponent < -14:
        shift = -1 - exponent
        fraction |= 0x800000
        if fraction & ((<uint32_t>1 << shift) - 1) == 0:
            return <int>(sign | (fraction >> shift))
    return -1


cdef int put_float(Out *out, double value) except -1:
    cdef float single = <float>value
    cdef uint32_t bits32
    cdef uint64_t bits64
    cdef int bits16
    if value != value:
        return put_big_endian(out, 0xF9, 0x7E00, 2)
    if <double>single == value:
        memcpy(&bits32, &single, 4)
        bits16 = half(bits32)
        if bits16 >= 0:
            return put_big_endian(out, 0xF9, <uint64_t>bits16, 2)
        return put_big_endian(out, 0xFA, bits32, 4)
    memcpy(&bits64, &value, 8)
    return put_big_endian(out, 0xFB, bits64, 8)


cdef int put_int(Out *out, object value) except -1:
    try:
        if value >= 0:
            return put_head(out, UNSIGNED, <uint64_t>value)
        return put_head(out, NEGATIVE, <uint64_t>(-1 - value))
    except OverflowError:
        raise ValueError("an integer of more than 64 bits") from None


cdef int put_text(Out *out, str value) except -1:
    cdef Py_ssize_t size
    cdef const char *data = PyUnicode_AsUTF8AndSize(value, &size)
    put_head(out, TEXT, <uint64_t>size)
    return put_raw(out, data, size)


cdef bint before(const uint8_t *data, Key a, Key b) noexcept nogil:
    cdef size_t left = a.end - a.start, right = b.end - b.start
    cdef int order = memcmp(data + a.start, data + b.start, left if left < right else right)
    return order < 0 or (order == 0 and left < right)


cdef int put_map(Out *out, dict value, int depth) except -1:
    # Keys go into a scratch buffer, are sorted by their encodings, and then out with their values.
    cdef Py_ssize_t count = len(value), i, j
    cdef Out scratch
    cdef Key *keys
    cdef Key key
    cdef list values = [None] * count
    put_head(out, MAP, <uint64_t>count)
    if count == 0:
        return 0
    keys = <Key *>malloc(count * sizeof(Key))
    scratch.room = START_BYTES
    scratch.size = 0
    scratch.data = <uint8_t *>malloc(scratch.room)
    try:
        if keys == NULL or scratch.data == NULL:
            raise MemoryError
        i = 0
        for name, item in value.items():
            if type(name) is str:
                key.start = scratch.size
                put_text(&scratch, <str>name)
            elif type(name) is int or type(name) is bytes:
                key.start = scratch.size
                put(&scratch, name, depth + 1)
            else:
                raise TypeError(f"a map key must be text, bytes or an integer, not {type(name).__name__}")
            key.end = scratch.size
            j = i
            while j > 0 and before(scratch.data, key, keys[j - 1]):
                keys[j] = keys[j - 1]
                values[j] = values[j - 1]
                j -= 1
            keys[j] = key
            values[j] = item
            i += 1
        for i in range(count):
            put_raw(out, scratch.data + keys[i].start, keys[i].end - keys[i].start)
            put(out, values[i], depth + 1)
    finally:
        free(keys)
        free(scratch.data)
    return 0


cdef int put(Out *out, object value, int depth) except -1:
    kind = type(value)
    if depth > DEPTH_MAX:
        raise ValueError("nested too deeply to encode")
    if kind is str:
        return put_text(out, <str>value)
    if kind is float:
        return put_float(out, <double>value)
    if kind is int:
        return put_int(out, value)
    if kind is dict:
        return put_map(out, <dict>value, depth)
    if kind is list or kind is tuple:
        put_head(out, ARRAY, <uint64_t>len(value))
        for item in value:
            put(out, item, depth + 1)
        return 0
    if kind is bytes:
        put_head(out, BYTES, <uint64_t>PyBytes_GET_SIZE(value))
        return put_raw(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if value is None:
        return put_big_endian(out, 0xF6, 0, 0)
    if value is True:
        return put_big_endian(out, 0xF5, 0, 0)
    if value is False:
        return put_big_endian(out, 0xF4, 0, 0)
    plan = PLANS.get(kind)
    if plan is None:
        plan = plan_of(kind)
    return put_struct(out, value, <Plan>plan, depth)


cdef class Plan:
    """How a msgspec struct is encoded: its fields in the order of their encoded keys. The tag has its encoded value instead of a name."""

    cdef list keys
    cdef list names
    cdef bytes tag
    cdef bint may_lack

cdef dict PLANS = {}


cdef Plan plan_of(object kind):
    cdef Plan plan = Plan.__new__(Plan)
    if not hasattr(kind, "__struct_fields__"):
        raise TypeError(f"cannot be encoded: {kind.__name__}")
    fields = [(encode(key), name) for key, name in zip(kind.__struct_encode_fields__, kind.__struct_fields__)]
    config = kind.__struct_config__
    if config.tag is not None:
        fields.append((encode(config.tag_field), None))
        plan.tag = encode(config.tag)
    fields.sort(key=itemgetter(0))
    plan.keys = [key for key, _ in fields]
    plan.names = [name for _, name in fields]
    plan.may_lack = UNSET in kind.__struct_defaults__
    PLANS[kind] = plan
    return plan


cdef int put_struct(Out *out, object value, Plan plan, int depth) except -1:
    cdef Py_ssize_t i, count = len(plan.names)
    cdef Py_ssize_t present = count
    cdef bytes key
    if plan.may_lack:
        for name in plan.names:
            if name is not None and getattr(value, name) is UNSET:
                present -= 1
    put_head(out, MAP, <uint64_t>present)
    for i in range(count):
        name = plan.names[i]
        if name is None:
            item = plan.tag
        else:
            item = getattr(value, name)
            if item is UNSET:
                continue
        key = <bytes>plan.keys[i]
        put_raw(out, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        if name is None:
            put_raw(out, PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item))
        else:
            put(out, item, depth + 1)
    return 0


def encode(object value):
    """The encoding of dicts, lists, tuples, str, bytes, int (64 bits), float, bool, None and msgspec structs, whose UNSET fields are absent.

    Raises TypeError or ValueError for anything else.
    """
    cdef Out out
    out.size = 0
    out.room = START_BYTES
    out.data = <uint8_t *>malloc(out.room)
    if out.data == NULL:
        raise MemoryError
    try:
        put(&out, value, 1)
        return PyBytes_FromStringAndSize(<const char *>out.data, out.size)
    finally:
        free(out.data)
