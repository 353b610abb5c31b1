from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


# The C API's structures, as wasmtime 50 lays them out; host/sandbox/direct.py compares sizes and offsets at start.
cdef struct Func:
    uint64_t store_id
    void *private

cdef struct MemoryOwner:
    uint64_t store_id
    uint32_t private1

cdef struct Memory:
    MemoryOwner owner
    uint32_t private2

cdef struct Instance:
    uint64_t store_id
    size_t private

cdef union ExternOf:
    Func func
    Memory memory
    uint8_t room[24]

cdef struct Extern:
    uint8_t kind
    ExternOf of

cdef union Raw:
    int32_t i32
    int64_t i64
    uint8_t room[16]


cdef class DirectTemplate:
    cdef void *engine
    cdef void *pre
    cdef object keep
    cdef object host
    cdef tuple hooks
    cdef bint has_reset
    cdef int64_t memory_bytes_max
    cdef int64_t table_elements_max
    cdef uint64_t fuel
    cdef uint64_t ticks
    cdef uint64_t reply_bytes_max
    cdef int64_t host_calls_max
    cdef uint64_t host_call_fuel
    cdef int64_t log_bytes_max


cdef class DirectInstance:
    cdef readonly uint64_t fuel_used
    cdef readonly int64_t host_calls
    cdef DirectTemplate template
    cdef object host
    cdef object pending
    cdef void *store
    cdef void *context
    cdef void *trap
    cdef void *error
    cdef bint busy
    cdef int64_t logged_bytes
    cdef Instance instance
    cdef Memory memory
    cdef Func alloc
    cdef Func reset
    cdef list hooks

    cdef int _find(self, const char *name, size_t length, Func *out) except -1
    cdef object _fault(self, int kind, uint64_t detail)
    cdef tuple _exchange(self, Func *hook, bytes request, uint64_t fuel, uint64_t ticks)
    cdef int _reset_arena(self, uint64_t fuel) except -1
    cdef bint _charge(self, uint64_t price) noexcept
    cdef uint8_t *_span(self, uint32_t pointer, uint32_t length) noexcept
    cdef void *_serve(self, int which, Raw *args) noexcept


cdef class HookFunc:
    cdef Func func
