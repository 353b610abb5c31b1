"""How a wasm call can end without a reply, and the typed error for each way. Both paths, direct and plain, end here."""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import wasmtime

from host.core.errors import (
    Busy,
    DeadlineExceeded,
    FuelExhausted,
    GuestTrap,
    HostFault,
    MalformedModule,
    MemoryExceeded,
    ReplyInvalid,
    SnapcountError,
)  # fmt: skip
from host.core.limits import DEFAULT
from host.core.manifest import SkillLimits
from host.core.text import safe

UNKNOWN_OFFSET = 1 << 32
_NUMBERED = re.compile(r"^\s*\d+: ")  # of several causes
NEARLY_FULL_BYTES = 65_536  # a page: memory this close to the limit could not grow any more


class Fault(IntEnum):
    """The numbers of cython_core.direct.Fault; tests/test_sandbox.py compares the two."""

    INSTANTIATE = 1
    MISSING = 2
    BUSY = 3
    TRAPPED = 4
    FAILED = 5
    NO_ROOM = 6
    BAD_POINTER = 7
    REPLY_SIZE = 8
    CLOSED = 9


class Trapped(Protocol):
    """What is read of a trap: `wasmtime.Trap`, or what stands for one of a component."""

    @property
    def trap_code(self) -> wasmtime.TrapCode | None: ...

    @property
    def message(self) -> str: ...

    @property
    def frames(self) -> list[wasmtime.Frame]: ...


@dataclass
class CallFault(Exception):
    """The raw facts: what happened, a number, and the trap, error or host exception behind it."""

    kind: Fault
    detail: int = 0
    trap: Trapped | None = None
    error: wasmtime.WasmtimeError | None = None
    pending: BaseException | None = None


def typed(fault: CallFault, skill: str, limits: SkillLimits, memory_bytes: int) -> BaseException:
    """The error to raise for `fault`. A host import's own error is passed on as it is."""
    if fault.pending is not None:
        if isinstance(fault.pending, SnapcountError) or not isinstance(fault.pending, Exception):
            return fault.pending
        return HostFault(f"{skill}: a host import failed: {safe(repr(fault.pending))}")
    if fault.trap is not None:
        return _trap(fault.trap, skill, limits, memory_bytes)
    match fault.kind:
        case Fault.INSTANTIATE | Fault.FAILED:
            return _refused(safe(cause_of(fault.error) if fault.error is not None else "no reason given"), skill, limits)
        case Fault.NO_ROOM:
            return MemoryExceeded(f"{skill}: sc_alloc has no room for a request of {fault.detail} bytes")
        case Fault.BAD_POINTER:
            return ReplyInvalid(f"{skill}: gave a span at {fault.detail} that is not in its memory of {memory_bytes} bytes")
        case Fault.REPLY_SIZE:
            return ReplyInvalid(f"{skill}: replied with {fault.detail} bytes, at most {limits.reply_bytes} are allowed")
        case Fault.BUSY:
            return Busy(f"{skill}: this instance is in a call already")
        case Fault.CLOSED:
            return HostFault(f"{skill}: this instance was closed")
        case _:
            return HostFault(f"{skill}: an export that was checked at load is missing")


def cause_of(error: wasmtime.WasmtimeError) -> str:
    """The last cause that wasmtime gives, on one line. What stands before it names functions, and those names are the guest's words."""
    cause = str(error).rpartition("\nCaused by:\n")[2].strip()
    last = cause.splitlines()[-1] if cause else ""
    return " ".join(_NUMBERED.sub("", last).split())


def _refused(said: str, skill: str, limits: SkillLimits) -> SnapcountError:
    if "maximum concurrent" in said:
        return Busy(f"{skill}: every instance slot of this host is in use ({said})")
    if "exceeds" in said or "limit" in said:
        return MemoryExceeded(f"{skill}: needs more than its limits ({limits.memory_bytes} bytes of memory): {said}")
    return MalformedModule(f"{skill}: could not be instantiated: {said}")


def _trap(trap: Trapped, skill: str, limits: SkillLimits, memory_bytes: int) -> SnapcountError:
    code = trap.trap_code
    frames = tuple(_where(frame) for frame in trap.frames[: DEFAULT.backtrace_frames_max])
    at = f" in {frames[0]}" if frames else ""
    if code is wasmtime.TrapCode.OUT_OF_FUEL:
        return FuelExhausted(f"{skill}: used up its {limits.fuel} units of fuel{at}", frames)
    if code is wasmtime.TrapCode.INTERRUPT:
        return DeadlineExceeded(f"{skill}: ran longer than its {limits.deadline_ms} ms{at}", frames)
    name = code.name.lower().replace("_", " ") if code is not None else safe(trap.message.splitlines()[0])
    if memory_bytes + NEARLY_FULL_BYTES > limits.memory_bytes:
        return MemoryExceeded(f"{skill}: trapped ({name}) with its memory at the limit of {limits.memory_bytes} bytes{at}")
    return GuestTrap(f"{skill}: trapped: {name}{at}", frames)


def _where(frame: wasmtime.Frame) -> str:
    # A stack overflow has no offset in its innermost frame; wasmtime then gives the largest number.
    at = f", byte {frame.module_offset}" if frame.module_offset < UNKNOWN_OFFSET else ""
    return f"{safe(frame.func_name or '?', 120)} (function {frame.func_index}{at})"
