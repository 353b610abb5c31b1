"""The parts of the fake host that can fail on demand: its state, its safety envelope, and what stands before its driver."""

from collections.abc import Callable, Mapping
from typing import Any

from nacl.signing import VerifyKey

from host.core.commands import AnyCommand
from host.core.errors import UnsafeCommand
from host.core.safety import ORIGIN, Point, Refusal, SafetyEnvelope, SafetyLimits
from host.plugins.driver import Driver
from host.plugins.drivers.virtual_machine import VirtualMachine
from sdk.local import MemoryState
from sdk.testbed import VirtualClock


class Countdown:
    """Strikes when something happens for the `nth` time from now; 0 for never. `seen` counts all of it since the reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seen, self._at = 0, 0

    def strike_at(self, nth: int) -> None:
        self._at = self.seen + nth if nth else 0

    def tick(self) -> bool:
        self.seen += 1
        return self.seen == self._at

    @property
    def past(self) -> bool:
        """Whether it has struck."""
        return 0 < self._at <= self.seen


class FakeState(MemoryState):
    """State whose quota can be reached at a certain write: from that on nothing but a deletion is taken."""

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        super().__init__()
        self.writes = Countdown()
        self._began = dict(values)
        self.reset()

    def reset(self) -> None:
        self.values = dict(self._began)
        self.writes.reset()

    def set(self, key: bytes, value: bytes) -> bool:
        self.writes.tick()
        return False if value and self.writes.past else super().set(key, value)


class FakeEnvelope(SafetyEnvelope):
    """The real envelope, which can be told to refuse a certain command, whatever it says."""

    def __init__(self, limits: SafetyLimits, owner: VerifyKey, *, audit: Callable[[Refusal], None]) -> None:
        super().__init__(limits, owner, audit=audit)
        self.commands = Countdown()

    def admit(
        self, command: AnyCommand, interlocks: Mapping[str, bool], now_ms: int, skill: str, *, home_mm: Point = ORIGIN,
        rate_ms: int | None = None,
    ) -> None:  # fmt: skip
        if self.commands.tick():
            raise self._refuse(UnsafeCommand, f"command {self.commands.seen} is refused, as the test wants", command, now_ms, skill)
        super().admit(command, interlocks, now_ms, skill, home_mm=home_mm, rate_ms=rate_ms)


class FakeDriver:
    """Stands before the driver: can fail, or take its time and fail, at a certain command."""

    def __init__(self, inner: Driver, clock: VirtualClock) -> None:
        self.inner, self._clock = inner, clock
        self.commands = Countdown()
        self.failure: Exception | None = None
        self.takes_ms = 0

    def reset(self) -> None:
        """A virtual machine is made anew; any other driver is reset where it can be."""
        self.commands.reset()
        if type(self.inner) is VirtualMachine:
            self.inner.__init__()  # type: ignore[misc]  # the same object, since tests hold it
        elif hasattr(self.inner, "reset"):
            self.inner.reset()

    @property
    def capability(self) -> str:
        return self.inner.capability

    @property
    def home_mm(self) -> tuple[float, float, float]:
        return self.inner.home_mm

    def interlocks(self) -> Mapping[str, bool]:
        return self.inner.interlocks()

    def execute(self, command: AnyCommand) -> Any:
        if self.commands.tick() and self.failure is not None:
            self._clock.advance(self.takes_ms)
            raise self.failure
        return self.inner.execute(command)

    def status(self) -> dict[str, Any]:
        return self.inner.status()
