"""The plain path: the same calls through wasmtime's Python API. The readable reference of cython_core/direct.pyx, and its fallback.

wasmtime's Python package keeps a callback's exception in one global, so two threads could take each other's; calls here are serialised by a lock.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import FuncType, Linker, Module, Store

from host.core.limits import Limits
from host.core.manifest import Manifest, SkillLimits
from host.sandbox.checks import IMPORT_TYPES, NAMESPACE, value_type
from host.sandbox.engine import SkillEngine
from host.sandbox.faults import CallFault, Fault
from host.sandbox.imports import OVER_CALLS, OVER_FUEL, HostServices

_CALLS = threading.RLock()
ERROR_BIT = 0x8000_0000


class _Ended(Exception):
    """Leaves the guest; the reason is in the instance's `_pending`."""


class PlainInstance:
    """One instance of a skill in its own store. The interface is that of `cython_core.direct.DirectInstance`."""

    def __init__(
        self,
        engine: SkillEngine,
        module: Module,
        manifest: Manifest,
        services: HostServices,
        imports: frozenset[str],
        limits: SkillLimits,
        host: Limits,
    ) -> None:
        self.fuel_used, self.host_calls, self._logged_bytes = 0, 0, 0
        self._services, self._limits, self._host = services, limits, host
        self._hooks = manifest.hooks
        self._pending: BaseException | None = None
        self._entered = threading.Lock()
        self._store: Store | None = Store(engine.engine)
        self._store.set_limits(limits.memory_bytes, host.table_elements_max, 1, 4, 1)
        self._store.set_fuel(limits.fuel)
        self._store.set_epoch_deadline(engine.ticks(limits.deadline_ms))
        linker = Linker(engine.engine)
        for name in imports:
            params, results = (list(map(value_type, types)) for types in IMPORT_TYPES[name])
            linker.define_func(NAMESPACE, name, FuncType(params, results), _guarded(weakref.ref(self), name))
        self._exports: Any = self._run(Fault.INSTANTIATE, lambda: linker.instantiate(self._open(), module)).exports(self._store)
        self._memory = self._exports["memory"]

    def call(self, hook: int, request: bytes, fuel: int, ticks: int) -> tuple[bytes, bool]:
        """See DirectInstance.call. Raises CallFault."""
        store = self._open()
        if not self._entered.acquire(blocking=False):
            raise CallFault(Fault.BUSY)
        try:
            self.host_calls = self._logged_bytes = 0
            store.set_fuel(fuel)
            store.set_epoch_deadline(ticks)
            return self._exchange(store, self._exports[f"hook_{self._hooks[hook]}"], request)
        finally:
            self.fuel_used = fuel - store.get_fuel()
            self._entered.release()

    def _exchange(self, store: Store, hook: Callable[..., int], request: bytes) -> tuple[bytes, bool]:
        pointer = self._run(Fault.FAILED, lambda: self._exports["sc_alloc"](store, len(request))) & 0xFFFF_FFFF
        if pointer == 0:
            raise CallFault(Fault.NO_ROOM, len(request))
        if pointer + len(request) > self._memory.data_len(store):
            raise CallFault(Fault.BAD_POINTER, pointer)
        self._memory.write(store, request, pointer)
        packed = self._run(Fault.FAILED, lambda: hook(store, _signed(pointer), len(request))) & 0xFFFF_FFFF_FFFF_FFFF
        pointer, length = packed >> 32, packed & 0x7FFF_FFFF
        if length > self._limits.reply_bytes:
            raise CallFault(Fault.REPLY_SIZE, length)
        if pointer + length > self._memory.data_len(store):
            raise CallFault(Fault.BAD_POINTER, pointer)
        reply = bytes(self._memory.read(store, pointer, pointer + length)) if length else b""
        if "sc_reset" in self._exports:
            self._run(Fault.FAILED, lambda: self._exports["sc_reset"](store))
        return reply, bool(packed & ERROR_BIT)

    def close(self) -> None:
        """Gives the store's memory back to the pool. A second close does nothing."""
        if not self._entered.acquire(blocking=False):
            raise CallFault(Fault.BUSY)
        try:
            if self._store is not None:
                self._store.close()
                self._store = None
        finally:
            self._entered.release()

    def memory_bytes(self) -> int:
        """The size of the linear memory now, in bytes."""
        return 0 if self._store is None else int(self._memory.data_len(self._store))

    def _open(self) -> Store:
        if self._store is None:
            raise CallFault(Fault.CLOSED)
        return self._store

    def _run(self, kind: Fault, enter: Callable[[], Any]) -> Any:
        try:
            with _CALLS:
                return enter()
        except _Ended as error:
            pending, self._pending = self._pending, None
            raise CallFault(kind, pending=pending) from error
        except wasmtime.Trap as error:
            raise CallFault(Fault.TRAPPED, trap=error) from error
        except wasmtime.WasmtimeError as error:
            raise CallFault(kind, error=error) from error

    def serve(self, name: str, args: tuple[int, ...]) -> Any:
        """Answers the host import `name`."""
        try:
            self._enter()
            return getattr(self, f"_on_{name}")(*args)
        except BaseException as error:
            self._pending = error
            raise _Ended from error

    def _enter(self) -> None:
        self.host_calls += 1
        if self.host_calls > self._limits.host_calls:
            self._services.over_budget(OVER_CALLS, self._limits.host_calls)
        self._pay(self._host.host_call_fuel)

    def _pay(self, price: int) -> None:
        # The guest's own instructions cost fuel; a host call would cost nearly none.
        store = self._open()
        left = store.get_fuel()
        store.set_fuel(max(0, left - price))
        if left < price:
            self._services.over_budget(OVER_FUEL, self._limits.host_calls)

    def _room(self, pointer: int, length: int) -> None:
        if pointer + length > self._memory.data_len(self._store):
            self._services.bad_span(pointer, length)

    def _read(self, pointer: int, length: int) -> bytes:
        pointer, length = pointer & 0xFFFF_FFFF, length & 0xFFFF_FFFF
        self._pay(length)
        self._room(pointer, length)
        return bytes(self._memory.read(self._store, pointer, pointer + length)) if length else b""

    def _write(self, pointer: int, answer: bytes) -> None:
        pointer &= 0xFFFF_FFFF
        self._room(pointer, len(answer))
        self._memory.write(self._store, answer, pointer)

    def _on_log(self, level: int, pointer: int, length: int) -> None:
        text = self._read(pointer, length)
        self._logged_bytes += len(text)
        if self._logged_bytes > self._limits.log_bytes:
            self._services.over_log(self._limits.log_bytes)
        self._services.log(level, text)

    def _on_now_ms(self) -> int:
        return self._services.now_ms()

    def _on_random(self, pointer: int, length: int) -> None:
        length &= 0xFFFF_FFFF
        self._pay(length)
        self._room(pointer & 0xFFFF_FFFF, length)
        self._write(pointer, self._services.random(length))

    def _on_state_get(self, key: int, key_length: int, out: int, room: int) -> int:
        found = self._services.state_get(self._read(key, key_length))
        if found is None:
            return -1
        if len(found) <= room & 0xFFFF_FFFF:
            self._pay(len(found))
            self._write(out, found)
        return len(found)

    def _on_state_set(self, key: int, key_length: int, value: int, value_length: int) -> int:
        name = self._read(key, key_length)
        return self._services.state_set(name, self._read(value, value_length))

    def _on_call(self, name: int, name_length: int, request: int, request_length: int, out: int, room: int) -> int:
        capability, body = self._read(name, name_length), self._read(request, request_length)
        self._room(out & 0xFFFF_FFFF, room & 0xFFFF_FFFF)
        failed, answer = self._services.call(capability, body, room & 0xFFFF_FFFF)
        self._pay(len(answer))
        self._write(out, answer)
        return _signed(len(answer) | (ERROR_BIT if failed else 0))


def _guarded(instance: "weakref.ref[PlainInstance]", name: str) -> Callable[..., Any]:
    # wasmtime's Python package keeps callbacks in a global table: a strong reference would keep an instance, and its slot, for ever.
    def guarded(*args: int) -> Any:
        serving = instance()
        assert serving is not None, "an instance that is in a call is alive"
        return serving.serve(name, args)

    return guarded


def _signed(value: int) -> int:
    return value - (1 << 32) if value & ERROR_BIT else value
