# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Calls a skill through wasmtime's C API without ctypes: the hot path of the sandbox.

The readable reference of the same behaviour is host/sandbox/plain.py; one test suite runs over both. There are no headers and
no linking: `bind` takes the addresses of the C functions from the library that wasmtime's Python package has loaded. Types were
checked once, when the module was loaded (host/sandbox/checks.py): an unchecked call reads garbage otherwise.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.string cimport memcpy

ctypedef void *(*store_new_t)(void *engine, void *data, void *finalizer) noexcept nogil
ctypedef void (*delete_t)(void *thing) noexcept nogil
ctypedef void *(*pointer_of_t)(void *thing) noexcept nogil
ctypedef void (*limiter_t)(void *store, int64_t memory, int64_t table, int64_t instances, int64_t tables, int64_t memories) noexcept nogil
ctypedef void *(*set_fuel_t)(void *context, uint64_t fuel) noexcept nogil
ctypedef void *(*get_fuel_t)(void *context, uint64_t *fuel) noexcept nogil
ctypedef void (*set_deadline_t)(void *context, uint64_t ticks) noexcept nogil
ctypedef void *(*instantiate_t)(void *pre, void *context, Instance *instance, void **trap) noexcept nogil
ctypedef uint8_t (*export_get_t)(void *context, Instance *instance, const char *name, size_t length, Extern *item) noexcept nogil
ctypedef void *(*call_t)(void *context, Func *func, Raw *values, size_t count, void **trap) noexcept nogil
ctypedef uint8_t *(*memory_data_t)(void *context, Memory *memory) noexcept nogil
ctypedef size_t (*memory_size_t)(void *context, Memory *memory) noexcept nogil
ctypedef void *(*trap_new_t)(const char *message, size_t length) noexcept nogil

cdef store_new_t store_new
cdef delete_t store_delete
cdef pointer_of_t store_context
cdef limiter_t store_limiter
cdef set_fuel_t set_fuel
cdef get_fuel_t get_fuel
cdef set_deadline_t set_deadline
cdef pointer_of_t context_data
cdef instantiate_t pre_instantiate
cdef export_get_t export_get
cdef call_t func_call
cdef memory_data_t memory_data
cdef memory_size_t memory_size
cdef pointer_of_t caller_context
cdef trap_new_t trap_new

FUNCTIONS = (
    "wasmtime_store_new", "wasmtime_store_delete", "wasmtime_store_context", "wasmtime_store_limiter",
    "wasmtime_context_set_fuel", "wasmtime_context_get_fuel", "wasmtime_context_set_epoch_deadline",
    "wasmtime_context_get_data", "wasmtime_instance_pre_instantiate", "wasmtime_instance_export_get",
    "wasmtime_func_call_unchecked", "wasmtime_memory_data", "wasmtime_memory_data_size",
    "wasmtime_caller_context", "wasmtime_trap_new",
)

LAYOUT = {
    "wasmtime_func": (sizeof(Func), 0, 8),
    "wasmtime_memory": (sizeof(Memory), 0, sizeof(MemoryOwner)),
    "wasmtime_instance": (sizeof(Instance), 0, 8),
    "wasmtime_extern": (sizeof(Extern), 0, 8),
    "wasmtime_val_raw": (sizeof(Raw), 0),
}

cdef uint64_t _address(dict addresses, str name) except? 0:
    return addresses[name]


def bind(dict addresses):
    """Takes the address of each function in `FUNCTIONS`. Raises KeyError for one that is missing."""
    global store_new, store_delete, store_context, store_limiter, set_fuel, get_fuel, set_deadline, context_data
    global pre_instantiate, export_get, func_call, memory_data, memory_size, caller_context, trap_new
    store_new = <store_new_t>_address(addresses, "wasmtime_store_new")
    store_delete = <delete_t>_address(addresses, "wasmtime_store_delete")
    store_context = <pointer_of_t>_address(addresses, "wasmtime_store_context")
    store_limiter = <limiter_t>_address(addresses, "wasmtime_store_limiter")
    set_fuel = <set_fuel_t>_address(addresses, "wasmtime_context_set_fuel")
    get_fuel = <get_fuel_t>_address(addresses, "wasmtime_context_get_fuel")
    set_deadline = <set_deadline_t>_address(addresses, "wasmtime_context_set_epoch_deadline")
    context_data = <pointer_of_t>_address(addresses, "wasmtime_context_get_data")
    pre_instantiate = <instantiate_t>_address(addresses, "wasmtime_instance_pre_instantiate")
    export_get = <export_get_t>_address(addresses, "wasmtime_instance_export_get")
    func_call = <call_t>_address(addresses, "wasmtime_func_call_unchecked")
    memory_data = <memory_data_t>_address(addresses, "wasmtime_memory_data")
    memory_size = <memory_size_t>_address(addresses, "wasmtime_memory_data_size")
    caller_context = <pointer_of_t>_address(addresses, "wasmtime_caller_context")
    trap_new = <trap_new_t>_address(addresses, "wasmtime_trap_new")


cpdef enum Fault:
    INSTANTIATE = 1   # the module could not be instantiated; detail: address of an error, or of a trap
    MISSING = 2       # an export that was there at load is not; detail: index of the hook
    BUSY = 3          # the instance is in a call already
    TRAPPED = 4       # detail: address of the trap
    FAILED = 5        # detail: address of an error that is not a trap
    NO_ROOM = 6       # sc_alloc answered 0; detail: bytes wanted
    BAD_POINTER = 7   # sc_alloc or the hook gave a span outside the memory; detail: the pointer
    REPLY_SIZE = 8    # detail: bytes that the hook wanted to reply
    CLOSED = 9


class DirectFault(Exception):
    """Why a call ended without a reply: `kind` (a `Fault`), `detail`, `trap` and `error` (addresses that the receiver owns, or 0)."""

    def __init__(self, kind, detail, trap, error):
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.trap = trap
        self.error = error


cpdef enum Import:
    LOG = 0
    NOW_MS = 1
    RANDOM = 2
    STATE_GET = 3
    STATE_SET = 4
    CALL = 5


cdef enum Over:
    OVER_CALLS = 1   # the numbers of host/sandbox/imports.py
    OVER_FUEL = 2


cdef const char *HOST_ENDED = b"the host ended the call"


cdef void *_on_import(void *env, void *caller, Raw *args, size_t count) noexcept with gil:
    cdef DirectInstance self = <DirectInstance><PyObject *>context_data(caller_context(caller))
    return self._serve(<int><size_t>env, args)


def import_callback():
    """The address of the C function that serves every host import; the import's number (`Import`) is its `env`."""
    return <size_t><void *>_on_import


cdef object _busy():
    # Made of nothing of the instance: its trap and error belong to the call that it is in.
    return DirectFault(Fault(BUSY), 0, 0, 0)


cdef class HookFunc:
    pass


cdef enum:
    INSTANCES_MAX = 1
    TABLES_MAX = 4
    MEMORIES_MAX = 1


cdef class DirectTemplate:
    """What all instances of a linked module have in common, checked and converted once.

    `engine` and `pre` are addresses; `keep` is held so that they stay valid. `host` serves the imports (see host/sandbox/imports.py).
    `hooks` are the names of the exported functions, by index. `fuel` and `ticks` bound the instantiation.
    """

    def __init__(self, size_t engine, size_t pre, object keep, object host, tuple hooks, bint has_reset,
                 int64_t memory_bytes_max, int64_t table_elements_max, uint64_t fuel, uint64_t ticks,
                 uint64_t reply_bytes_max, int64_t host_calls_max, uint64_t host_call_fuel, int64_t log_bytes_max):
        self.engine = <void *>engine
        self.pre = <void *>pre
        self.keep = keep
        self.host = host
        self.hooks = hooks
        self.has_reset = has_reset
        self.memory_bytes_max = memory_bytes_max
        self.table_elements_max = table_elements_max
        self.fuel = fuel
        self.ticks = ticks
        self.reply_bytes_max = reply_bytes_max
        self.host_calls_max = host_calls_max
        self.host_call_fuel = host_call_fuel
        self.log_bytes_max = log_bytes_max


cdef class DirectInstance:
    """One instance of a skill in its own store. Not for use from two threads at once: `BUSY` says so."""

    def __init__(self, DirectTemplate template):
        cdef Extern item
        self.template = template
        self.host = template.host
        self.hooks = list(template.hooks)
        self.store = store_new(template.engine, <void *>self, NULL)
        self.context = store_context(self.store)
        store_limiter(self.store, template.memory_bytes_max, template.table_elements_max, INSTANCES_MAX, TABLES_MAX, MEMORIES_MAX)
        set_fuel(self.context, template.fuel)
        set_deadline(self.context, template.ticks)
        self.busy = True
        with nogil:
            self.error = pre_instantiate(template.pre, self.context, &self.instance, &self.trap)
        self.busy = False
        if self.error != NULL or self.trap != NULL:
            raise self._fault(INSTANTIATE, 0)
        if not export_get(self.context, &self.instance, b"memory", 6, &item):
            raise self._fault(MISSING, 0)
        self.memory = item.of.memory
        self._find(b"sc_alloc", 8, &self.alloc)
        if template.has_reset:
            self._find(b"sc_reset", 8, &self.reset)

    def __dealloc__(self):
        if self.store != NULL:
            store_delete(self.store)

    def close(self):
        """Gives the store's memory back to the pool. A call after it raises `DirectFault` (`CLOSED`); a second close does nothing."""
        if self.busy:
            raise _busy()
        if self.store != NULL:
            store_delete(self.store)
            self.store = NULL
            self.context = NULL

    cdef int _find(self, const char *name, size_t length, Func *out) except -1:
        cdef Extern item
        if not export_get(self.context, &self.instance, name, length, &item):
            raise self._fault(MISSING, 0)
        out[0] = item.of.func
        return 0

    cdef object _fault(self, int kind, uint64_t detail):
        fault = DirectFault(Fault(kind), detail, <size_t>self.trap, <size_t>self.error)
        self.trap = NULL
        self.error = NULL
        if self.pending is not None:
            fault.__cause__ = self.pending
            self.pending = None
        return fault

    def call(self, int hook, bytes request, uint64_t fuel, uint64_t ticks):
        """Runs hook number `hook` on `request` and returns its reply, and whether bit 31 marked it as an error reply.

        `fuel` is for the whole call, `ticks` the deadline in epochs from now. Raises DirectFault; a host import's own error is its cause.
        """
        cdef HookFunc target
        if self.store == NULL:
            raise self._fault(CLOSED, 0)
        if self.busy:
            raise _busy()
        entry = self.hooks[hook]
        if type(entry) is not HookFunc:
            target = HookFunc.__new__(HookFunc)
            name = (<str>entry).encode()
            self._find(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), &target.func)
            self.hooks[hook] = target
        else:
            target = <HookFunc>entry
        self.busy = True
        try:
            self.host_calls = 0
            self.logged_bytes = 0
            return self._exchange(&target.func, request, fuel, ticks)
        finally:
            self.busy = False

    cdef tuple _exchange(self, Func *hook, bytes request, uint64_t fuel, uint64_t ticks):
        cdef Raw values[2]
        cdef uint64_t reply_bytes_max = self.template.reply_bytes_max
        cdef bint refused
        cdef int kind = 0
        cdef uint64_t detail = 0, left = 0
        cdef uint32_t pointer = 0, length = 0
        cdef size_t size
        cdef uint8_t *base
        cdef const char *source = PyBytes_AS_STRING(request)
        cdef Py_ssize_t wanted = PyBytes_GET_SIZE(request)
        with nogil:
            set_fuel(self.context, fuel)
            set_deadline(self.context, ticks)
            values[0].i32 = <int32_t>wanted
            self.error = func_call(self.context, &self.alloc, values, 1, &self.trap)
            if self.error == NULL and self.trap == NULL:
                pointer = <uint32_t>values[0].i32
                size = memory_size(self.context, &self.memory)
                if pointer == 0:
                    kind = NO_ROOM
                    detail = <uint64_t>wanted
                elif <uint64_t>pointer + <uint64_t>wanted > size:
                    kind = BAD_POINTER
                    detail = pointer
                else:
                    base = memory_data(self.context, &self.memory)
                    memcpy(base + pointer, source, wanted)
                    values[0].i32 = <int32_t>pointer
                    values[1].i32 = <int32_t>wanted
                    self.error = func_call(self.context, hook, values, 2, &self.trap)
                    if self.error == NULL and self.trap == NULL:
                        pointer = <uint32_t>(<uint64_t>values[0].i64 >> 32)
                        length = <uint32_t>(<uint64_t>values[0].i64 & 0x7FFFFFFF)
                        size = memory_size(self.context, &self.memory)
                        if <uint64_t>length > reply_bytes_max:
                            kind = REPLY_SIZE
                            detail = length
                        elif <uint64_t>pointer + length > size:
                            kind = BAD_POINTER
                            detail = pointer
            get_fuel(self.context, &left)
        self.fuel_used = fuel - left
        if self.trap != NULL:
            raise self._fault(TRAPPED, 0)
        if self.error != NULL:
            raise self._fault(FAILED, 0)
        if kind != 0:
            raise self._fault(kind, detail)
        refused = (<uint64_t>values[0].i64 >> 31) & 1
        reply = PyBytes_FromStringAndSize(<const char *>memory_data(self.context, &self.memory) + pointer, length)
        if self.template.has_reset:
            self._reset_arena(fuel)
        return reply, refused

    cdef int _reset_arena(self, uint64_t fuel) except -1:
        cdef Raw value
        cdef uint64_t left = 0
        with nogil:
            self.error = func_call(self.context, &self.reset, &value, 0, &self.trap)
            get_fuel(self.context, &left)
        self.fuel_used = fuel - left
        if self.trap != NULL:
            raise self._fault(TRAPPED, 0)
        if self.error != NULL:
            raise self._fault(FAILED, 0)
        return 0

    def memory_bytes(self):
        """The size of the linear memory now, in bytes; 0 when it is closed or in a call."""
        return 0 if self.store == NULL or self.busy else memory_size(self.context, &self.memory)

    cdef bint _charge(self, uint64_t price) noexcept:
        # The guest's own instructions cost fuel, a host call would cost nearly none. False: that was more than it had.
        cdef uint64_t left = 0
        get_fuel(self.context, &left)
        set_fuel(self.context, left - price if left >= price else 0)
        return left >= price

    cdef uint8_t *_span(self, uint32_t pointer, uint32_t length) noexcept:
        if <uint64_t>pointer + length > memory_size(self.context, &self.memory):
            return NULL
        return memory_data(self.context, &self.memory) + pointer

    cdef void *_serve(self, int which, Raw *args) noexcept:
        try:
            self._import(which, <size_t>args)
            return NULL
        except BaseException as error:
            self.pending = error
            return trap_new(HOST_ENDED, 23)

    def _import(self, int which, size_t address):
        cdef Raw *args = <Raw *>address
        cdef uint8_t *out
        cdef bytes answer
        self._enter()
        if which == NOW_MS:
            args[0].i64 = self.host.now_ms()
        elif which == LOG:
            text = self._read(args[1].i32, args[2].i32)
            self.logged_bytes += len(text)
            if self.logged_bytes > self.template.log_bytes_max:
                self.host.over_log(self.template.log_bytes_max)
            self.host.log(args[0].i32, text)
        elif which == RANDOM:
            self._pay(<uint32_t>args[1].i32)
            self._room(args[0].i32, args[1].i32)
            answer = self.host.random(<uint32_t>args[1].i32)
            self._write(args[0].i32, args[1].i32, answer)
        elif which == STATE_GET:
            key = self._read(args[0].i32, args[1].i32)
            found = self.host.state_get(key)
            args[0].i32 = self._answer(found, args[2].i32, args[3].i32)
        elif which == STATE_SET:
            key = self._read(args[0].i32, args[1].i32)
            value = self._read(args[2].i32, args[3].i32)
            args[0].i32 = self.host.state_set(key, value)
        else:
            capability = self._read(args[0].i32, args[1].i32)
            request = self._read(args[2].i32, args[3].i32)
            self._room(args[4].i32, args[5].i32)
            failed, answer = self.host.call(capability, request, <uint32_t>args[5].i32)
            self._pay(len(answer))
            self._write(args[4].i32, args[5].i32, answer)
            args[0].i32 = <int32_t>(<uint32_t>len(answer) | (<uint32_t>0x80000000 if failed else 0))

    def _enter(self):
        self.host_calls += 1
        if self.host_calls > self.template.host_calls_max:
            self.host.over_budget(OVER_CALLS, self.template.host_calls_max)
        self._pay(self.template.host_call_fuel)

    def _pay(self, uint64_t price):
        if not self._charge(price):
            self.host.over_budget(OVER_FUEL, self.template.host_calls_max)

    def _room(self, int32_t pointer, int32_t length):
        if self._span(<uint32_t>pointer, <uint32_t>length) == NULL:
            self.host.bad_span(<uint32_t>pointer, <uint32_t>length)

    def _read(self, int32_t pointer, int32_t length):
        self._pay(<uint32_t>length)
        self._room(pointer, length)
        return PyBytes_FromStringAndSize(<const char *>self._span(<uint32_t>pointer, <uint32_t>length), <uint32_t>length)

    def _write(self, int32_t pointer, int32_t capacity, bytes answer):
        if PyBytes_GET_SIZE(answer) > <Py_ssize_t><uint32_t>capacity:
            raise ValueError("the host's answer is longer than the room the guest gave")
        self._room(pointer, PyBytes_GET_SIZE(answer))
        memcpy(self._span(<uint32_t>pointer, <uint32_t>PyBytes_GET_SIZE(answer)), PyBytes_AS_STRING(answer), PyBytes_GET_SIZE(answer))

    def _answer(self, object found, int32_t pointer, int32_t capacity):
        if found is None:
            return -1
        if len(found) <= <uint32_t>capacity:
            self._pay(len(found))
            self._write(pointer, capacity, found)
        return len(found)
