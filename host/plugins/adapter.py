"""Makes skills pluggy plugins. A `SkillVersion` encodes, calls the sandbox and decodes; a `SkillSlot` is what pluggy holds.

A slot is registered once for each skill name and delegates to the version that is active when a call starts. Swapping is one assignment: calls in
flight finish on the version they began with, the next call sees the new one, and none finds neither or both.
"""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from host.core import cbor
from host.core.errors import GuestError, MalformedData, Quarantined, ReplyInvalid, UsageError
from host.core.limits import DEFAULT
from host.core.quarantine import ANY
from host.plugins.contract import (
    HOOKS,
    SHAPES,
    AssessFeedstockReply,
    AssessFeedstockRequest,
    BidReply,
    BidRequest,
    HandleReply,
    HandleRequest,
    InspectPartReply,
    InspectPartRequest,
    PlanReport,
    PlanSettings,
    SelfTestReply,
    SelfTestRequest,
    Shape,
)  # fmt: skip
from host.plugins.hookspecs import hookimpl
from host.plugins.observed import Observers, Sighting
from host.plugins.streaming import plan
from host.plugins.tally import KINDS, Tally, kind_of
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill, SkillInstance

RECENT_CALLS = 512


class SkillVersion:
    """One version of one skill. A fresh skill gets an instance for each hook call, a persistent one keeps its own until a call fails.

    `calls` counts the hook calls that have ended, `faults` those of them that raised; `tally` says how. `services` are those that its instances were
    linked with. `barred` is what a quarantine forbids, as a line for each hook, or for `*`; `on_error` is told of each GuestError while one is looked for;
    `observers` are who may want to know of its calls, None where nobody does.
    """

    def __init__(self, skill: LoadedSkill, digest: str, services: HostServices | None = None) -> None:
        self.skill, self.digest = skill, digest
        self.calls = 0
        self.faults = 0
        self.barred: Mapping[str, str] | None = None
        self.observers: Observers | None = None
        self.on_error: Callable[[SkillVersion, str, GuestError], None] | None = None
        self._services = services
        self._kinds = dict.fromkeys(KINDS, 0)
        self._fresh = skill.manifest.instance == "fresh"
        self._recent_ns: deque[int] = deque(maxlen=RECENT_CALLS)
        self._counting = threading.Lock()
        self._kept: SkillInstance | None = None
        self._closed = False
        self._kept_lock = threading.RLock()  # a driver that calls the skill it serves finds it busy, it does not wait for itself

    @property
    def name(self) -> str:
        return self.skill.manifest.name

    @property
    def tally(self) -> Tally:
        """How its calls ended since it was loaded."""
        with self._counting:
            return Tally(calls=self.calls, **self._kinds)

    def has(self, hook: str) -> bool:
        return hook in self.skill.manifest.hooks

    def bar(self, hooks: Mapping[str, str] | None) -> None:
        """Forbids these hooks from now on, and no others. A call that is running ends when it next asks for a driver or for more of its program."""
        self.barred = hooks
        if self._services is not None:
            self._services.halted = "" if hooks is None else hooks.get(ANY, "")

    def self_test(self) -> SelfTestReply:
        """Asks the skill to test itself. A skill without the hook passes."""
        if not self.has("self_test"):
            return SelfTestReply(detail="the skill has no self_test", ok=True)
        reply = self.call("self_test", SelfTestRequest())
        assert isinstance(reply, SelfTestReply)
        return reply

    def call(self, hook: str, request: Shape) -> Shape:
        """One wasm call with typed values. Raises GuestError of some kind; ReplyInvalid for a reply of another shape; Quarantined."""
        seen = None if self.observers is None else self.observers.begin(self, hook, self._services)
        if self.barred is not None:
            self._require_allowed(hook, seen)
        started = time.perf_counter_ns()
        try:
            reply = self._exchange(hook, cbor.encode(request), seen)
            decoded = cbor.decode_struct(reply, SHAPES[hook][1], self.skill.name, bytes_max=DEFAULT.reply_bytes_max)
        except MalformedData as error:
            invalid = ReplyInvalid(f"reply of {hook}: {error}")
            self._failed(hook, invalid, seen)
            raise invalid from error
        except BaseException as error:
            self._failed(hook, error, seen)
            raise
        self._count("")
        self._recent_ns.append(time.perf_counter_ns() - started)
        if seen is not None:
            seen.replied()
        return decoded

    def plan(self, program: Iterable[bytes], settings: PlanSettings, run: bool) -> PlanReport:
        """The streaming hook: one fresh instance for the whole program. A quarantine ends it before its next chunk. Raises as `call` does."""
        seen = None if self.observers is None else self.observers.begin(self, "plan_job", self._services)
        self._require_allowed("plan_job", seen)
        pieces = self._while_allowed(program if seen is None else seen.pieces(program, settings, run))
        try:
            with self.skill.instance() as instance:
                report = plan(instance if seen is None else seen.metered(instance), pieces, settings, run, self.skill.name)
        except BaseException as error:
            self._failed("plan_job", error, seen)
            raise
        self._count("")
        if seen is not None:
            seen.replied()
        return report

    def call_us_p50(self) -> float | None:
        """The median of the last calls in µs, streaming hooks left out; None before the first."""
        return statistics.median(self._recent_ns) / 1000 if self._recent_ns else None

    def close(self) -> None:
        """Frees the kept instance, after the call that may be in it. A call that comes late still gets an instance, for itself alone."""
        with self._kept_lock:
            self._drop()
            self._closed = True

    def _exchange(self, hook: str, request: bytes, seen: Sighting | None) -> bytes:
        if self._fresh:
            instance = self.skill.instance()
            try:
                return (instance if seen is None else seen.metered(instance)).call(hook, request)
            finally:
                instance.close()
        with self._kept_lock:
            try:
                instance = self._persistent()
                return (instance if seen is None else seen.metered(instance)).call(hook, request)
            finally:
                if self._closed:
                    self._drop()

    def _require_allowed(self, hook: str, seen: Sighting | None = None) -> None:
        barred = self.barred or {}
        line = barred.get(ANY) or barred.get(hook)
        if line is not None:
            refused = Quarantined(line)
            if seen is not None:
                seen.failed(refused)
            raise refused

    def _while_allowed(self, program: Iterable[bytes]) -> Iterator[bytes]:
        for piece in program:
            self._require_allowed("plan_job")
            yield piece

    def _failed(self, hook: str, error: BaseException, seen: Sighting | None) -> None:
        self._count(kind_of(error), faulted=True)
        if seen is not None:
            seen.failed(error)
        on_error = self.on_error
        if on_error is not None and isinstance(error, GuestError):
            on_error(self, hook, error)

    def _count(self, kind: str, *, faulted: bool = False) -> None:
        refused = self._services is not None and self._services.took_refusal()
        with self._counting:
            self.calls += 1
            self.faults += faulted
            self._kinds["refused"] += refused
            if kind:
                self._kinds[kind] += 1

    def _persistent(self) -> SkillInstance:
        if self._kept is None or self._kept.faulted:
            self._drop()  # what a fault left in its memory is not to be trusted
            self._kept = self.skill.instance()
        return self._kept

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


class SkillSlot:
    """The pluggy plugin of one skill name. A hook that the active version does not export answers None."""

    def __init__(self, active: SkillVersion) -> None:
        self.active = active

    @hookimpl
    def plan_job(self, program: Iterable[bytes], settings: PlanSettings, run: bool) -> PlanReport | None:
        active = self.active
        return active.plan(program, settings, run) if active.has("plan_job") else None

    @hookimpl
    def assess_feedstock(self, request: AssessFeedstockRequest) -> AssessFeedstockReply | None:
        return self._single("assess_feedstock", request)  # type: ignore[return-value]  # SHAPES pairs them

    @hookimpl
    def inspect_part(self, request: InspectPartRequest) -> InspectPartReply | None:
        return self._single("inspect_part", request)  # type: ignore[return-value]  # SHAPES pairs them

    @hookimpl
    def bid(self, request: BidRequest) -> BidReply | None:
        return self._single("bid", request)  # type: ignore[return-value]  # SHAPES pairs them

    @hookimpl
    def handle(self, request: HandleRequest) -> HandleReply | None:
        return self._single("handle", request)  # type: ignore[return-value]  # SHAPES pairs them

    def _single(self, hook: str, request: Shape) -> Shape | None:
        active = self.active
        return active.call(hook, request) if active.has(hook) else None


def require_known_hooks(hooks: tuple[str, ...], skill: str) -> None:
    """Raises UsageError for a hook that this host does not call."""
    unknown = sorted(set(hooks) - HOOKS)
    if unknown:
        raise UsageError(f"{skill}: has hooks that this host does not know: {', '.join(unknown)}; it knows {', '.join(sorted(HOOKS))}")
