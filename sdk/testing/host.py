"""A fake host for one skill: everything that a skill can see of a node, under a test's control. The sandbox, the driver gate and the envelope are real."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from nacl.signing import SigningKey

from host.core import safety
from host.core.bundle import UnverifiedBundle
from host.core.capabilities import FEATURES
from host.core.errors import SnapcountError, UsageError
from host.core.manifest import Manifest
from host.core.safety import SafetyEnvelope, SafetyLimits
from host.plugins.adapter import SkillVersion
from host.plugins.contract import SHAPES, PlanReport, PlanSettings, Shape
from host.plugins.driver import Driver, DriverGate
from host.sandbox.skill import LoadedSkill
from host.supply.facts import NodeFacts, host_version, require_compatible
from sdk import vectors
from sdk.local import LocalSkill, read_bundle
from sdk.testbed import NOW_MS, SeededRandom, VirtualClock
from sdk.testing.outcome import Outcome, outcome_of
from sdk.testing.script import ScriptedDriver
from sdk.testing.watched import Peaks, WasmCall, Watch, WatchedSkill
from sdk.testing.world import FakeDriver, FakeEnvelope, FakeState

if TYPE_CHECKING:
    from sdk.testing.faults import Fault

OWNER = SigningKey(b"sdk.testing: the owner of nothing"[:32])


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What `plan_job` is asked: a program in the pieces in which it comes."""

    program: tuple[bytes, ...]
    settings: PlanSettings = PlanSettings()
    run: bool = False


Request = Shape | Job


@dataclass
class Asked:
    """One hook call that a test made, and how it ended: with a `reply` or an `error`."""

    hook: str
    request: Request
    reply: Any = None
    error: SnapcountError | None = None


class FakeHost(LocalSkill):
    """Loads a skill as a node does, and calls it as a node does; what a node would refuse is refused, with the same error.

    `source` is a bundle's bytes, a .wasm file or a skill's folder. `now_ms`, `step_ms` (time that each call takes), `seed`, `flags` (those that are on),
    `state` (what it holds already), `limits` (the text of a safety.toml; without one the envelope is as wide as can be) and `driver` are what the skill
    finds there. `generation`, `host`, `features` and `allowed` are what the node is: Incompatible or CapabilityDenied where that does not do.
    """

    def __init__(
        self, source: bytes | str | Path, *, now_ms: int = NOW_MS, step_ms: int = 0, seed: int = NOW_MS, flags: Iterable[str] = (),
        state: Mapping[bytes, bytes] | None = None, limits: str | SafetyLimits | None = None, driver: Driver | None = None,
        generation: int | None = None, host: str | None = None, features: Collection[str] = FEATURES, allowed: Collection[str] | None = None,
        force_plain: bool = False, peaks: Peaks | None = None,
    ) -> None:  # fmt: skip
        data = source if isinstance(source, bytes) else read_bundle(Path(source))
        self._data = data
        what = "bundle" if isinstance(source, bytes) else str(source)
        manifest = UnverifiedBundle.parse(data, what).manifest
        require_loadable(manifest, generation, host, features, allowed)
        self._watch = Watch(peaks or Peaks())
        self.asked: list[Asked] = []
        self.clock, self.random = VirtualClock(now_ms, step_ms), SeededRandom(seed)
        self.state, self.flags = FakeState(state or {}), set(flags)
        self._flags_began = frozenset(self.flags)
        self._limits_text = limits if isinstance(limits, str) else ""
        parsed = safety.parse_limits(limits.encode(), "limits") if isinstance(limits, str) else limits
        super().__init__(
            data, what, limits=parsed, clock=self.clock, random=self.random, force_plain=force_plain, driver=driver, state=self.state,
            flags=lambda: self.flags,
        )  # fmt: skip
        self._stand()

    def _envelope(self) -> SafetyEnvelope:
        return FakeEnvelope(self._limits, OWNER.verify_key, audit=self.refusals.append)

    def _stand(self) -> None:
        """Puts a new envelope and gate before the driver, and a new version of the skill behind everything."""
        if not isinstance(self._driver, FakeDriver):
            self._driver = FakeDriver(self._driver, self.clock)
        self.envelope = cast(FakeEnvelope, self._envelope())
        self._gate = DriverGate(self._driver, self.envelope, self.clock)
        self.version = SkillVersion(cast(LoadedSkill, WatchedSkill(self.loaded, self._watch)), self.version.digest)

    def reset(self) -> None:
        """Everything as it was when this host was made; the skill is loaded as new, and so is the machine."""
        self.version.close()
        for part in (self.clock, self.random, self.state, self.driver):
            part.reset()
        self.flags.clear()
        self.flags.update(self._flags_began)
        for noted in (self.logged, self.refusals, self.asked, self._watch.calls):
            noted.clear()
        self._stand()

    def close(self) -> None:
        """Gives the instance of a persistent skill back."""
        self.version.close()

    @property
    def driver(self) -> FakeDriver:
        """What stands before the driver; `driver.inner` is the driver itself."""
        assert isinstance(self._driver, FakeDriver)
        return self._driver

    def raw(self, hook: str, request: bytes) -> Outcome:
        """A new instance asked with bytes that need not be a request; a reply is not decoded."""
        with cast(LoadedSkill, WatchedSkill(self.loaded, self._watch)).instance() as instance:
            return outcome_of(lambda: instance.call(hook, request))

    @property
    def watch(self) -> Watch:
        return self._watch

    @property
    def calls(self) -> list[WasmCall]:
        """The WebAssembly calls since the reset, in order: one for a hook call, one for each chunk of `plan_job`."""
        return self._watch.calls

    def call(self, hook: str, request: Shape | dict[str, Any] | None = None) -> Any:
        """One hook call; the reply as the contract's struct. A request may be written as in a vector.

        Raises SkillRefused for an error reply, GuestError for a call that ended without a reply, ScriptMismatch where a scripted driver was not followed.
        """
        typed = self.typed(hook, request or {})
        return self._noted(Asked(hook, typed), lambda: self.version.call(hook, typed))

    def plan(
        self, program: bytes | str | Iterable[bytes], settings: PlanSettings | dict[str, Any] | None = None, run: bool = False
    ) -> PlanReport:
        """The streaming hook; a program in several pieces comes in these pieces. Raises as `call` does."""
        pieces = (program.encode(),) if isinstance(program, str) else (program,) if isinstance(program, bytes) else tuple(program)
        job = Job(program=pieces, settings=_settings(settings), run=run)
        return cast(PlanReport, self._noted(Asked("plan_job", job), lambda: self.version.plan(job.program, job.settings, job.run)))

    def ask(self, hook: str, request: Request) -> Any:
        """`call` or `plan`, as the request wants."""
        return self.plan(request.program, request.settings, request.run) if isinstance(request, Job) else self.call(hook, request)

    def typed(self, hook: str, request: Shape | dict[str, Any]) -> Shape:
        """A request as the host's struct. Raises UsageError where it is none."""
        if isinstance(request, Shape):
            return request
        if hook not in SHAPES:
            raise UsageError(
                f"there is no hook {hook} that takes one request; there are {', '.join(sorted(SHAPES))}, and plan() for plan_job"
            )
        try:
            return msgspec.convert(vectors.with_bytes(request), SHAPES[hook][0])
        except msgspec.ValidationError as error:
            raise UsageError(f"request of {hook}: {error}; a node never sends such a one") from error

    @contextmanager
    def fault(self, *faults: "Fault") -> Iterator[None]:
        """Within it, calls meet these faults."""
        for fault in faults:
            fault.arm(self)
        try:
            yield
        finally:
            for fault in faults:
                fault.disarm(self)

    def save_vector(self, path: Path | str, about: str) -> str:
        """Writes the last call as a vector, with what became of it, and the calls since the reset as what comes before it.

        Gives back how that differs from the file that was there, as a diff; empty for no difference. Raises UsageError where a vector cannot say it.
        """
        from sdk.testing import golden

        told: dict[str, Any] = {"limits": self._limits_text, "flags": sorted(self._flags_began)}
        if self.clock.began_ms != NOW_MS:
            told["now_ms"] = self.clock.began_ms
        made = golden.of_calls(self.asked, about, **told)
        golden.require_repeatable(self._data, made)
        return golden.save(Path(path), made)

    def _noted(self, asked: Asked, call: Callable[[], Any]) -> Any:
        said = len(self.logged)
        self.asked.append(asked)
        try:
            asked.reply = call()
            return asked.reply
        except SnapcountError as error:
            asked.error = error
            raise
        finally:
            self.clock.advance(self.clock.step_ms)
            peaks = self._watch.peaks
            peaks.log_bytes = max(peaks.log_bytes, sum(len(line.encode()) for _, line in self.logged[said:]))
            if isinstance(self.driver.inner, ScriptedDriver):
                self.driver.inner.require_on_script()


def _settings(told: PlanSettings | dict[str, Any] | None) -> PlanSettings:
    try:
        return told if isinstance(told, PlanSettings) else msgspec.convert(told or {}, PlanSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"settings of plan_job: {error}; a node never sends such ones") from error


def require_loadable(
    manifest: Manifest, generation: int | None, host: str | None, features: Collection[str], allowed: Collection[str] | None
) -> None:  # fmt: skip
    """Raises Incompatible or CapabilityDenied where a node like this would. None stands for what fits: a generation that the skill names, this host."""
    fitting = (manifest.generations or (1,))[0] if generation is None else generation
    granted = frozenset(manifest.capabilities if allowed is None else allowed)
    require_compatible(manifest, NodeFacts(fitting, granted, (), host or host_version(), features=frozenset(features)))
