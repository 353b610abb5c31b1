"""What a call costs, seen from outside: stands between a skill's version and its instances, and can cut a call's fuel."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

from host.core.manifest import Manifest, SkillLimits
from host.sandbox.skill import LoadedSkill, SkillInstance


@dataclass(frozen=True)
class WasmCall:
    """One WebAssembly call that has ended. `request` and `reply` are CBOR; `reply` is None where none came, or an error reply did."""

    hook: str
    request: bytes
    reply: bytes | None
    fuel: int
    host_calls: int
    memory_bytes: int
    took_ns: int


@dataclass
class Peaks:
    """The most that any call used of what its manifest asks for."""

    calls: int = 0
    fuel: int = 0
    memory_bytes: int = 0
    reply_bytes: int = 0
    host_calls: int = 0
    log_bytes: int = 0
    took_ns: int = 0

    def add(self, call: WasmCall) -> None:
        self.calls += 1
        self.fuel = max(self.fuel, call.fuel)
        self.memory_bytes = max(self.memory_bytes, call.memory_bytes)
        self.reply_bytes = max(self.reply_bytes, len(call.reply or b""))
        self.host_calls = max(self.host_calls, call.host_calls)
        self.took_ns = max(self.took_ns, call.took_ns)


class Watch:
    """The calls of one host since it was reset. `fuel`, where it is set, is all that a call gets; such calls do not count for the peaks."""

    def __init__(self, peaks: Peaks) -> None:
        self.calls: list[WasmCall] = []
        self.peaks = peaks
        self.fuel: int | None = None

    def ended(self, call: WasmCall) -> None:
        self.calls.append(call)
        if self.fuel is None:
            self.peaks.add(call)


class WatchedSkill:
    """In place of a `LoadedSkill`, for a `SkillVersion`."""

    def __init__(self, loaded: LoadedSkill, watch: Watch) -> None:
        self._loaded, self._watch = loaded, watch

    @property
    def manifest(self) -> Manifest:
        return self._loaded.manifest

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def limits(self) -> SkillLimits:
        return self._loaded.limits

    def instance(self) -> SkillInstance:
        return cast(SkillInstance, _WatchedInstance(self._loaded.instance(), self._watch, self._loaded.limits.fuel))


class _WatchedInstance:
    def __init__(self, inner: SkillInstance, watch: Watch, fuel: int) -> None:
        self._inner, self._watch, self._whole = inner, watch, fuel

    @property
    def faulted(self) -> bool:
        return self._inner.faulted

    @property
    def fuel_used(self) -> int:
        return self._inner.fuel_used

    def call(self, hook: str, request: bytes) -> bytes:
        inner, cut = self._inner, self._watch.fuel
        inner._fuel = self._whole if cut is None else min(cut, self._whole)  # what a fault takes, the next call has again
        reply, began_ns = None, time.perf_counter_ns()
        try:
            reply = inner.call(hook, request)
        finally:
            took_ns = time.perf_counter_ns() - began_ns
            self._watch.ended(WasmCall(hook, request, reply, inner.fuel_used, inner.host_calls, inner.memory_bytes(), took_ns))
        return reply

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
