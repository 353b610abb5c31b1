"""The trap behind an error of the component API, which hands out errors only: what wasmtime's Python API would have said of it."""

from ctypes import byref
from dataclasses import dataclass

import wasmtime
from wasmtime import TrapCode
from wasmtime import _ffi as ffi
from wasmtime._trap import FrameList

from host.sandbox.faults import cause_of

# How wasmtime words each trap (crates/environ/src/trap_encoding.rs); those that are not here have a name of their own and are told by their text.
TRAP = "wasm trap: "
SAID = {
    "all fuel consumed by WebAssembly": TrapCode.OUT_OF_FUEL,
    "interrupt": TrapCode.INTERRUPT,
    "call stack exhausted": TrapCode.STACK_OVERFLOW,
    "wasm `unreachable` instruction executed": TrapCode.UNREACHABLE,
    "out of bounds memory access": TrapCode.MEMORY_OUT_OF_BOUNDS,
    "integer divide by zero": TrapCode.INTEGER_DIVISION_BY_ZERO,
    "integer overflow": TrapCode.INTEGER_OVERFLOW,
    "invalid conversion to integer": TrapCode.BAD_CONVERSION_TO_INTEGER,
    "undefined element": TrapCode.TABLE_OUT_OF_BOUNDS,
    "indirect call type mismatch": TrapCode.BAD_SIGNATURE,
}


@dataclass(frozen=True)
class ComponentTrap:
    """What `faults.typed` reads of a `wasmtime.Trap`."""

    trap_code: TrapCode | None
    message: str
    frames: list[wasmtime.Frame]


def trap_of(error: wasmtime.WasmtimeError) -> ComponentTrap | None:
    """The trap; None for an error that ended no code of the guest."""
    said, frames = cause_of(error), _frames(error)
    if not said.startswith(TRAP):
        return ComponentTrap(None, said, frames) if frames else None
    said = said.removeprefix(TRAP)
    code = next((code for words, code in SAID.items() if said.startswith(words)), None)
    return ComponentTrap(code, said, frames)


def _frames(error: wasmtime.WasmtimeError) -> list[wasmtime.Frame]:
    found = FrameList(error)
    ffi.wasmtime_error_wasm_trace(error.ptr(), byref(found.vec))
    return [wasmtime.Frame._from_ptr(found.vec.data[number], found) for number in range(found.vec.size)]
