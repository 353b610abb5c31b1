"""Binds the direct call path: hands the addresses of wasmtime's C functions to cython_core.direct, if this is the library it was written for."""

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import FuncType, Linker, Module
from wasmtime import _ffi as ffi

from host.core.limits import Limits
from host.core.manifest import Manifest, SkillLimits
from host.sandbox.checks import IMPORT_TYPES, NAMESPACE, value_type
from host.sandbox.engine import SkillEngine, wasmtime_version
from host.sandbox.faults import CallFault, Fault
from host.sandbox.imports import HostServices

if TYPE_CHECKING:
    from cython_core.direct import DirectTemplate

WRITTEN_FOR = "50.0.1"


@cache
def unavailable() -> str | None:
    """Why the direct path cannot be used here, in words; None when it can."""
    try:
        from cython_core import direct
    except ImportError as error:
        return f"the extension cython_core.direct is not built for this Python ({error})"
    if wasmtime_version() != WRITTEN_FOR:
        return f"written for wasmtime {WRITTEN_FOR}, found {wasmtime_version()}"
    for name, (size, *offsets) in direct.LAYOUT.items():
        found = layout(getattr(ffi, f"{name}_t"))
        if found != (size, *offsets):
            return f"the layout of {name}_t is {found}, expected {(size, *offsets)}"
    try:
        direct.bind({name: _address(getattr(ffi.dll, name)) for name in direct.FUNCTIONS})
    except AttributeError as error:
        return f"the library lacks a function: {error}"
    return None


def layout(kind: Any) -> tuple[int, ...]:
    offsets = {getattr(kind, name).offset for name, _ in kind._fields_}
    return (ctypes.sizeof(kind), *sorted(offsets))


def _address(thing: Any) -> int:
    return ctypes.cast(thing, ctypes.c_void_p).value or 0


def template(
    engine: SkillEngine,
    module: Module,
    manifest: Manifest,
    imports: frozenset[str],
    services: HostServices,
    limits: SkillLimits,
    host: Limits,
) -> "DirectTemplate":
    """The module with its granted imports resolved once; `DirectInstance(template)` then takes microseconds, or raises DirectFault."""
    from cython_core import direct

    linker = Linker(engine.engine)
    callback = ffi.wasmtime_func_unchecked_callback_t(direct.import_callback())
    no_finalizer = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
    for name in imports:
        params, results = (list(map(value_type, types)) for types in IMPORT_TYPES[name])
        kind = FuncType(params, results)  # owns what its pointer points to
        error = ffi.wasmtime_linker_define_func_unchecked(
            linker.ptr(), NAMESPACE.encode(), len(NAMESPACE), name.encode(), len(name), kind.ptr(),
            callback, int(direct.Import[name.upper()]), no_finalizer,
        )  # fmt: skip
        assert not error, "nothing is defined twice"
    pre = linker.instantiate_pre(module)
    return direct.DirectTemplate(
        _address(engine.engine.ptr()), _address(pre.ptr()), (engine, linker, module, pre, callback), services,
        tuple(f"hook_{hook}" for hook in manifest.hooks), any(export.name == "sc_reset" for export in module.exports),
        limits.memory_bytes, host.table_elements_max, limits.fuel, engine.ticks(limits.deadline_ms),
        limits.reply_bytes, limits.host_calls, host.host_call_fuel, limits.log_bytes,
    )  # fmt: skip


def call_fault(fault: Any) -> CallFault:
    """Takes over the trap or error that a DirectFault points at."""
    trap = wasmtime.Trap._from_ptr(ctypes.cast(fault.trap, ctypes.POINTER(ffi.wasm_trap_t))) if fault.trap else None
    error = wasmtime.WasmtimeError._from_ptr(ctypes.cast(fault.error, ctypes.POINTER(ffi.wasmtime_error_t))) if fault.error else None
    return CallFault(Fault(fault.kind), fault.detail, trap, error, fault.__cause__)
