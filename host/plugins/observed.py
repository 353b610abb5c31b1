"""An observation point for hook calls: what was asked, what came back, what it cost, and what the host was asked meanwhile.

`PluginManager.observe` adds an observer, and gives back what takes it away. Without one a call pays for one comparison with None. An observer is told on the
thread of the call, which waits for it: it must be quick, and take what it has to do elsewhere. What it raises is its own matter, not the call's.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from host.core import cbor
from host.core.errors import HostFault, SkillRefused, SnapcountError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, SkillLimits
from host.core.text import safe
from host.plugins.contract import PlanSettings
from host.sandbox.imports import HOST_CALL_BYTES, HostCall, HostNotes, HostServices

if TYPE_CHECKING:
    from host.plugins.adapter import SkillVersion
    from host.sandbox.skill import SkillInstance


class PlannedJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stands for the request of `plan_job`, whose program may be long: its digest and size, and how it was cut into pieces where it is at hand."""

    program_bytes: int
    program_digest: str
    run: bool
    settings: PlanSettings


@dataclass(frozen=True, slots=True)
class Call:
    """One hook call that has ended, or been refused. `manifest` is the skill's, `limits` those in force.

    `request` and `reply` are CBOR; the request of `plan_job` is a `PlannedJob`, and `program` has the pieces that it was given. `reply` is None where none
    came; then `error` is the code, `skill_code` that of the skill's own error reply, and `detail` the line for people. `began_ms` is Unix time, `fuel` what
    the guest used. `host_calls` are in order. `whole` is false where the host calls or the program were more than is noted.
    """

    skill: str
    version: str
    lineage: str
    digest: str
    hook: str
    began_ms: int
    took_us: int
    request: bytes
    reply: bytes | None
    error: str
    skill_code: str
    detail: str
    fuel: int
    host_calls: tuple[HostCall, ...]
    whole: bool
    program: tuple[bytes, ...]
    manifest: Manifest
    limits: SkillLimits

    @property
    def size(self) -> int:
        """About how many bytes it takes while it waits for somebody: what it holds, and what each host call and each piece of a program takes besides."""
        noted = sum(len(part) for one in self.host_calls for part in (*one.asked, one.answer) if isinstance(part, bytes))
        held = len(self.request) + len(self.reply or b"") + sum(map(len, self.program)) + noted
        return held + HOST_CALL_BYTES * (len(self.host_calls) + len(self.program))


Told = Callable[[Call], None]
Wants = Callable[["SkillVersion", str], bool]


def everything(_version: "SkillVersion", _hook: str) -> bool:
    """For an observer that wants every call."""
    return True


class Observers:
    """Who is told of calls. Bound to the versions that are active; `changed` has them bound anew."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed, self._lock = changed, threading.Lock()
        self._observers: tuple[tuple[Told, Wants], ...] = ()
        self.failures = 0
        """How often an observer raised."""

    def add(self, told: Told, wants: Wants) -> Callable[[], None]:
        """Adds one; what comes back takes it away."""
        one = (told, wants)
        with self._lock:
            self._observers = (*self._observers, one)
        self._changed()
        return lambda: self._remove(one)

    def bind(self, version: "SkillVersion") -> None:
        version.observers = self if self._observers else None

    def begin(self, version: "SkillVersion", hook: str, services: HostServices | None) -> "Sighting | None":
        """None where nobody wants to know of this call."""
        told = []
        for one, wants in self._observers:
            try:
                if wants(version, hook):
                    told.append(one)
            except Exception:  # a defect of an observer costs its observation, never the call
                self.failures += 1
        return Sighting(self, version, hook, services, told) if told else None

    def tell(self, told: list[Told], call: Call) -> None:
        for one in told:
            try:
                one(call)
            except Exception:  # as above
                self.failures += 1

    def _remove(self, one: tuple[Told, Wants]) -> None:
        with self._lock:
            self._observers = tuple(each for each in self._observers if each is not one)
        self._changed()


class Sighting:
    """One call while it is observed. It is made before the call, on its thread, and ended once, with `replied` or `failed`."""

    def __init__(self, observers: Observers, version: "SkillVersion", hook: str, services: HostServices | None, told: list[Told]) -> None:
        self._observers, self._version, self._hook, self._services, self._told = observers, version, hook, services, told
        self._notes = HostNotes(DEFAULT.observed_bytes_max)
        self._outer = None if services is None else services.note(self._notes)
        self._job: _Program | None = None
        self._request, self._reply, self._fuel = b"", b"", 0
        self._began_ms, self._began_ns = time.time_ns() // 1_000_000, time.perf_counter_ns()

    def metered(self, instance: "SkillInstance") -> "_Metered":
        """The instance to call in place of this one: it notes what goes in, what comes out, and the fuel that it took."""
        return _Metered(self, instance)

    def pieces(self, program: Iterable[bytes], settings: PlanSettings, run: bool) -> Iterator[bytes]:
        """The program of `plan_job`, noted while it is read."""
        self._job = _Program(settings, run)
        return self._job.read(program)

    def exchanged(self, request: bytes, reply: bytes, fuel: int) -> None:
        """One wasm call; a streaming hook makes several."""
        self._request, self._reply = request, reply
        self._fuel += fuel

    def replied(self) -> None:
        self._end(self._reply, "", "")

    def failed(self, error: BaseException) -> None:
        code = error.code if isinstance(error, SnapcountError) else HostFault.code
        self._end(None, code, safe(str(error) or repr(error)), error.skill_code if isinstance(error, SkillRefused) else "")

    def _end(self, reply: bytes | None, code: str, detail: str, skill_code: str = "") -> None:
        took_us = (time.perf_counter_ns() - self._began_ns) // 1000
        if self._services is not None:
            self._services.note(self._outer)
        job, manifest = self._job, self._version.skill.manifest
        call = Call(
            manifest.name, manifest.version, manifest.lineage, self._version.digest, self._hook, self._began_ms, took_us,
            self._request if job is None else job.request(), reply, code, skill_code, detail, self._fuel, tuple(self._notes.calls),
            self._notes.whole and (job is None or job.whole), () if job is None else tuple(job.pieces),
            manifest, self._version.skill.limits,
        )  # fmt: skip
        self._observers.tell(self._told, call)


class _Metered:
    """An instance whose calls are noted."""

    def __init__(self, sighting: Sighting, instance: "SkillInstance") -> None:
        self._sighting, self._instance = sighting, instance

    def call(self, hook: str, request: bytes) -> bytes:
        reply = b""
        try:
            reply = self._instance.call(hook, request)
        finally:
            self._sighting.exchanged(request, reply, self._instance.fuel_used)
        return reply


class _Program:
    """A program while it is read: its digest and size, and its pieces up to a bound."""

    def __init__(self, settings: PlanSettings, run: bool) -> None:
        self._settings, self._run = settings, run
        self._hash, self._bytes = hashlib.sha256(), 0
        self._left = DEFAULT.observed_bytes_max
        self.pieces: list[bytes] = []
        self.whole = True

    def read(self, program: Iterable[bytes]) -> Iterator[bytes]:
        for piece in program:
            self._hash.update(piece)
            self._bytes += len(piece)
            self._left -= HOST_CALL_BYTES + len(piece)
            self.whole &= self._left >= 0
            if self.whole:
                self.pieces.append(piece)
            else:
                self.pieces.clear()
            yield piece

    def request(self) -> bytes:
        digest = f"sha256:{self._hash.hexdigest()}"
        return cbor.encode(PlannedJob(program_bytes=self._bytes, program_digest=digest, run=self._run, settings=self._settings))
