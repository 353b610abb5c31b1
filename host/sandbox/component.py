"""Instances of components: the interface of `cython_core.direct.DirectInstance`, requests and replies as CBOR, and typed values in between.

A component gets what it was granted, and nothing else: no files, no network, no environment, no WASI. wasmtime is called without the interpreter's lock, so
calls of several instances run side by side; a host import finds the instance that it serves by its thread.
"""

import ctypes
import threading
from ctypes import POINTER, byref, c_void_p, cast
from functools import partial
from queue import Empty
from typing import Any

import wasmtime
from wasmtime import Store
from wasmtime import _ffi as ffi
from wasmtime import component as types

from host.core import cbor
from host.core.errors import Busy, GuestTrap, HostCallsExceeded, MalformedData, MemoryExceeded, ReplyInvalid, TooLarge
from host.core.limits import Limits
from host.core.manifest import Manifest, SkillLimits
from host.core.text import safe
from host.sandbox.component_checks import IMPORTS, PACKAGE, VERSION, Signature, export_name, imported, signature_of
from host.sandbox.component_engine import ComponentEngine
from host.sandbox.component_imports import SERVED, Serving
from host.sandbox.component_traps import ComponentTrap, trap_of
from host.sandbox.faults import CallFault, Fault
from host.sandbox.imports import HostServices
from host.sandbox.values import SIZE, Kept, Kind, Overfull, Room, Unfit

BAD_REQUEST = "bad_request"
TRAP = "trap"
"""The code of an error reply with which a guest library says that the skill itself failed: an exception that nobody caught."""

OUT_OF_MEMORY = "trap_memory"
"""The same, where it was memory that the skill did not get."""

REPLY_READ_BYTES = 4096
"""So much of a reply is read even where less is allowed: the message of a trap is one."""

_NOTHING = cast(0, ctypes.CFUNCTYPE(None, c_void_p))


class ComponentTemplate:
    """A component with its granted imports resolved once, for any number of instances."""

    def __init__(
        self, engine: ComponentEngine, component: types.Component, manifest: Manifest, services: HostServices, limits: SkillLimits, host: Limits, ticks: int
    ) -> None:  # fmt: skip
        self.engine, self.component, self.services, self.limits, self.host, self.ticks = engine, component, services, limits, host, ticks
        self.name = f"{manifest.name} {manifest.version}"
        self.hooks: list[tuple[types.ExportIndex, Kind | None, Kind]] = []
        for hook in manifest.hooks:
            index = component.get_export_index(export_name(hook))
            assert index is not None, "exports were checked at load"
            parameters, reply = signature_of(hook)
            assert reply is not None
            self.hooks.append((index, parameters[0] if parameters else None, reply))
        self.running = threading.local()
        self._callbacks: list[Any] = []
        self.linker = types.Linker(engine.engine)
        self._link(sorted(imported(component, engine.engine)))

    def _link(self, functions: list[tuple[str, str]]) -> None:
        with self.linker.root() as root:
            for interface in dict.fromkeys(interface for interface, _ in functions):
                with root.add_instance(f"{PACKAGE}/{interface}@{VERSION}") as instance:
                    for name in (function for each, function in functions if each == interface):
                        self._define(instance, interface, name)

    def _define(self, instance: types.LinkerInstance, interface: str, name: str) -> None:
        # Not through the Python package, which keeps an exception in one global for all threads.
        callback = ffi.wasmtime_component_func_callback_t(partial(self._serve, SERVED[interface, name], IMPORTS[interface][name]))
        self._callbacks.append(callback)
        error = ffi.wasmtime_component_linker_instance_add_func(instance.ptr(), name.encode(), len(name), callback, None, _NOTHING)
        assert not error, "nothing is defined twice"

    def _serve(
        self, serve: Any, signature: Signature, _data: Any, _context: Any, _type: Any, args: Any, count: int, results: Any, _results: int
    ) -> int:
        # An exception that leaves a callback is lost, and one may come between any two lines: Ctrl-C. So there is one on record until all is well.
        try:
            instance: ComponentInstance = self.running.instance
            instance.pending = KeyboardInterrupt()
            parameters, result = signature
            answer = serve(instance.serving, *self._given(parameters, ctypes.string_at(args, count * SIZE) if count else b""))
            if result is not None:
                kept: Kept = []
                lowered = result.lower(answer, kept)
                ffi.wasmtime_component_val_clone(_values(lowered), results)
            instance.pending = None
            return 0
        except BaseException as error:
            self.running.instance.pending = error
            return cast(ffi.wasmtime_error_new(b"ended by the host"), c_void_p).value or 0

    def _given(self, parameters: tuple[Kind, ...], raw: bytes) -> list[Any]:
        room = Room(self.host.request_bytes_max, f"{self.name}: made a host call")
        try:
            return [kind.lift(raw[SIZE * number : SIZE * (number + 1)], room) for number, kind in enumerate(parameters)]
        except Overfull as error:
            raise HostCallsExceeded(str(error)) from error


class ComponentInstance:
    """One instance of a component in its own store. See `cython_core.direct.DirectInstance` for its methods."""

    def __init__(self, template: ComponentTemplate) -> None:
        self.pending: BaseException | None = None
        self.fuel_used = 0
        self._template, self._limits = template, template.limits
        self._entered = threading.Lock()
        self._store: Store | None = None
        self._held = False
        try:
            template.engine.slots.get_nowait()
        except Empty:
            raise Busy(
                f"{template.name}: {template.host.component_instances_max} components are running on this host, which is the most"
            ) from None
        self._held = True
        try:
            self._open_store()
        except BaseException:
            self.close()
            raise

    def _open_store(self) -> None:
        template, host = self._template, self._template.host
        self._store = store = Store(template.engine.engine)
        store.set_limits(
            self._limits.memory_bytes, host.component_table_elements_max, host.component_core_instances_max, host.component_tables_max, host.component_memories_max
        )  # fmt: skip
        store.set_fuel(self._limits.fuel)
        store.set_epoch_deadline(template.ticks)
        self.serving = Serving(template.name, template.services, store, self._limits, host)
        self._instance = ffi.wasmtime_component_instance_t()
        with _Running(self):
            self._raise(
                Fault.INSTANTIATE,
                ffi.wasmtime_component_linker_instantiate(
                    template.linker.ptr(), store._context(), template.component.ptr(), byref(self._instance)
                ),
            )

    def call(self, hook: int, request: bytes, fuel: int, ticks: int) -> tuple[bytes, bool]:
        """See DirectInstance.call. Raises CallFault. A request that is not of the contract's shape is refused here, as guests of the fast tier do it."""
        if not self._entered.acquire(blocking=False):
            raise CallFault(Fault.BUSY)
        try:
            store = self._store
            if store is None:
                raise CallFault(Fault.CLOSED)
            index, kind, reply = self._template.hooks[hook]
            kept: Kept = []
            try:
                given = self._lowered(kind, request, kept)
            except (Unfit, MalformedData, TooLarge) as error:
                self.fuel_used = 0
                return cbor.encode({"code": BAD_REQUEST, "message": safe(str(error).removeprefix(":").strip(), 1000)}), True
            self.serving.begin()
            store.set_fuel(fuel)
            store.set_epoch_deadline(ticks)
            try:
                return self._reply(*self._enter(store, index, given, reply))
            finally:
                self.fuel_used = fuel - store.get_fuel()
        finally:
            self._entered.release()

    def _lowered(self, kind: Kind | None, request: bytes, kept: Kept) -> bytes:
        value = cbor.decode(request, "request", bytes_max=self._template.host.request_bytes_max)
        if kind is not None:
            lowered = kind.lower(value, kept)
            kept.append(lowered)
            return lowered
        if value != {}:
            raise Unfit("expected an empty map")
        return b""

    def _enter(self, store: Store, index: types.ExportIndex, given: bytes, reply: Kind) -> tuple[bool, Any]:
        function, result = ffi.wasmtime_component_func_t(), ffi.wasmtime_component_val_t()
        found = ffi.wasmtime_component_instance_get_func(byref(self._instance), store._context(), index.ptr(), byref(function))
        if not found:
            raise CallFault(Fault.MISSING)
        room = Room(max(self._limits.reply_bytes, REPLY_READ_BYTES), f"{self._template.name}: replied")
        try:
            with _Running(self):
                ended = ffi.wasmtime_component_func_call(
                    byref(function), store._context(), _values(given), len(given) // SIZE, byref(result), 1
                )
                self._raise(Fault.FAILED, ended)
            return reply.lift(ctypes.string_at(byref(result), SIZE), room)  # type: ignore[no-any-return]  # an Outcome
        except Overfull as error:
            raise CallFault(Fault.FAILED, pending=ReplyInvalid(str(error))) from error
        finally:
            ffi.wasmtime_component_val_delete(byref(result))

    def _reply(self, good: bool, value: Any) -> tuple[bytes, bool]:
        if not good and value["code"] in (TRAP, OUT_OF_MEMORY):
            kind = GuestTrap if value["code"] == TRAP else MemoryExceeded
            raise CallFault(Fault.TRAPPED, pending=kind(f"{self._template.name}: trapped: {safe(value['message'])}"))
        encoded = cbor.encode(value)
        if len(encoded) > self._limits.reply_bytes:
            raise CallFault(Fault.REPLY_SIZE, len(encoded))
        return encoded, not good

    def _raise(self, kind: Fault, pointer: Any) -> None:
        error = wasmtime.WasmtimeError._from_ptr(pointer) if pointer else None
        if self.pending is not None:
            pending, self.pending = self.pending, None
            raise CallFault(kind, pending=pending)
        if error is None:
            return
        trap: ComponentTrap | None = trap_of(error)
        if trap is None and kind is Fault.FAILED:
            raise CallFault(kind, pending=ReplyInvalid(f"{self._template.name}: its reply cannot be read: {safe(str(error))}"))
        raise CallFault(Fault.TRAPPED if trap else kind, trap=trap, error=error)

    @property
    def host_calls(self) -> int:
        return self.serving.host_calls

    def memory_bytes(self) -> int:
        """0: wasmtime does not say how much memory a component has. Its ceiling holds all the same."""
        return 0

    def close(self) -> None:
        """Frees the store's memory. A second close does nothing."""
        if not self._entered.acquire(blocking=False):
            raise CallFault(Fault.BUSY)
        try:
            if self._store is not None:
                self._store.close()
                self._store = None
            if self._held:
                self._held = False
                self._template.engine.slots.put(None)
        finally:
            self._entered.release()

    def __del__(self) -> None:
        if self._held:
            self.close()


class _Running:
    """Says which instance runs on this thread; a driver may call another skill, or the same one, in between."""

    def __init__(self, instance: ComponentInstance) -> None:
        self._instance, self._local = instance, instance._template.running

    def __enter__(self) -> None:
        self._before = getattr(self._local, "instance", None)
        self._local.instance = self._instance

    def __exit__(self, *_: object) -> None:
        self._local.instance = self._before


def _values(data: bytes) -> Any:
    return cast(ctypes.c_char_p(data), POINTER(ffi.wasmtime_component_val_t))
