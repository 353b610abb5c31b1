"""What can go wrong around a skill, as things to put into `FakeHost.fault`. Each is undone when its block ends."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from host.core.errors import FuelExhausted, HostFault, MachineError, SnapcountError, UsageError
from host.core.safety import sign_reset

if TYPE_CHECKING:
    from sdk.testing.host import FakeHost

DAY_MS = 86_400_000


class Fault(Protocol):
    """`may_end` says whether a call that meets the fault may end with this error; a reply and an error reply it may always end with."""

    def arm(self, host: "FakeHost") -> None: ...

    def disarm(self, host: "FakeHost") -> None: ...

    def may_end(self, code: str) -> bool: ...

    @property
    def in_words(self) -> str: ...


@dataclass(frozen=True)
class FuelCut:
    """Calls get only so many `units` of fuel, or a `share` of what the last call used."""

    units: int | None = None
    share: float | None = None

    def arm(self, host: "FakeHost") -> None:
        if (self.units is None) == (self.share is None):
            raise UsageError("FuelCut takes units of fuel or a share of what the last call used, one of the two")
        if self.units is None and not host.calls:
            raise UsageError(
                "FuelCut(share=…) is of the fuel that the last call used, and there was none; make the call once without a fault first"
            )
        host.watch.fuel = self.units if self.units is not None else int(host.calls[-1].fuel * (self.share or 0.0))

    def disarm(self, host: "FakeHost") -> None:
        host.watch.fuel = None

    def may_end(self, code: str) -> bool:
        return code == FuelExhausted.code

    @property
    def in_words(self) -> str:
        return f"with {self.units} units of fuel" if self.share is None else f"with {self.share:.0%} of its fuel"


class _Tolerated:
    """The base of faults after which a skill goes on: no error but its own may end the call."""

    def may_end(self, code: str) -> bool:
        return False


@dataclass(frozen=True)
class RefusedCommand(_Tolerated):
    """The safety envelope refuses the `nth` command from now."""

    nth: int = 1

    def arm(self, host: "FakeHost") -> None:
        host.envelope.commands.strike_at(self.nth)

    def disarm(self, host: "FakeHost") -> None:
        host.envelope.commands.strike_at(0)

    @property
    def in_words(self) -> str:
        return f"with command {self.nth} refused by the envelope"


@dataclass(frozen=True)
class DriverFails(_Tolerated):
    """The driver fails at the `nth` command from now, with `error`, or as a machine that cannot be reached."""

    nth: int = 1
    error: SnapcountError | None = None

    def arm(self, host: "FakeHost") -> None:
        host.driver.failure = self.error or MachineError("the machine cannot be reached")
        host.driver.takes_ms = 0
        host.driver.commands.strike_at(self.nth)

    def disarm(self, host: "FakeHost") -> None:
        host.driver.failure = None
        host.driver.commands.strike_at(0)

    @property
    def in_words(self) -> str:
        return f"with the driver failing at command {self.nth}"


@dataclass(frozen=True)
class DriverTimesOut(DriverFails):
    """The driver does not answer the `nth` command from now; `after_ms` pass on the virtual clock before it gives up."""

    after_ms: int = 10_000

    def arm(self, host: "FakeHost") -> None:
        super().arm(host)
        host.driver.failure = self.error or HostFault(f"the machine did not answer within {self.after_ms} ms")
        host.driver.takes_ms = self.after_ms

    @property
    def in_words(self) -> str:
        return f"with the driver silent at command {self.nth}"


@dataclass(frozen=True)
class SafeMode(_Tolerated):
    """The envelope is in safe mode, and refuses everything; the owner resets it afterwards."""

    def arm(self, host: "FakeHost") -> None:
        host.envelope.trip("the test wants it", host.clock.now_ms())

    def disarm(self, host: "FakeHost") -> None:
        from sdk.testing.host import OWNER

        if host.envelope.tripped is not None:
            host.envelope.reset(sign_reset(OWNER, host.envelope.tripped.id))

    @property
    def in_words(self) -> str:
        return "in safe mode"


@dataclass(frozen=True)
class StateFull(_Tolerated):
    """The state's quota is reached at the `nth` write from now; until the block ends only deletions are taken."""

    nth: int = 1

    def arm(self, host: "FakeHost") -> None:
        host.state.writes.strike_at(self.nth)

    def disarm(self, host: "FakeHost") -> None:
        host.state.writes.strike_at(0)

    @property
    def in_words(self) -> str:
        return f"with the state's quota reached at write {self.nth}"


@dataclass(frozen=True)
class ClockJump(_Tolerated):
    """The clock is set forward or back by `ms`: now, before the next call, or when it is read for the `at_read`th time. It stays so afterwards."""

    ms: int = -DAY_MS
    at_read: int = 0

    def arm(self, host: "FakeHost") -> None:
        if self.at_read:
            host.clock.jump_at(self.at_read, self.ms)
        else:
            host.clock.jump(self.ms)

    def disarm(self, host: "FakeHost") -> None:
        host.clock.jump_at(0, 0)

    @property
    def in_words(self) -> str:
        when = f"when it is read for the {self.at_read}. time" if self.at_read else "before the call"
        return f"with the clock set {'back' if self.ms < 0 else 'forward'} by {abs(self.ms)} ms {when}"
