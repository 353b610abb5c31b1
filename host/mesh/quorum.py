"""The trinary quorum: whether enough receivers are READY, none of the many in CONFLICT, and few enough still in TRANSIT."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["PROCEED", "WAIT", "RESOLVE_CONFLICTS", "RETRY"]


@dataclass(frozen=True)
class Thresholds:
    """Shares of those expected, 0 to 1."""

    ready_min: float = 0.95
    conflict_max: float = 0.05
    transit_max: float = 0.10


COORDINATORS = Thresholds(ready_min=0.98)
"""A coordinator that is not ready takes its whole sector with it."""


@dataclass(frozen=True)
class Tally:
    """Who was expected, and where they are. The four add up to `expected`."""

    expected: int
    ready: int
    transit: int = 0
    conflict: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        assert self.ready + self.transit + self.conflict + self.skipped == self.expected, "every receiver is in one state"


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reason: str
    recommendation: str


def decide(tally: Tally, thresholds: Thresholds, time_left: bool) -> Decision:
    """The first rule that holds: too many conflicts; enough ready and few in transit; too many in transit while there is time; else retry."""
    if tally.expected == 0:
        return Decision("RETRY", "nobody was expected", "name targets that exist; `snapcount fleet status` shows them")
    ready, conflict, transit = (count / tally.expected for count in (tally.ready, tally.conflict, tally.transit))
    if conflict > thresholds.conflict_max:
        return Decision(
            "RESOLVE_CONFLICTS",
            f"{tally.conflict} of {tally.expected} in conflict, at most {thresholds.conflict_max:.0%} may be",
            "look at the conflicts' details, bring those agents to the expected state, and send again",
        )
    if ready >= thresholds.ready_min and transit <= thresholds.transit_max:
        return Decision(
            "PROCEED", f"{tally.ready} of {tally.expected} ready, {thresholds.ready_min:.0%} needed", "go on; send to the missing later"
        )
    if time_left:
        return Decision(
            "WAIT", f"{tally.ready} of {tally.expected} ready, {tally.transit} on their way, and there is time", "wait for the rest"
        )
    reason = f"{tally.ready} of {tally.expected} ready, {thresholds.ready_min:.0%} needed; {tally.transit} did not answer, {tally.skipped} were not sent to"
    if tally.skipped > tally.transit:
        return Decision("RETRY", reason, "give them more time: choose a later arrival time, and look after those that are offline")
    return Decision("RETRY", reason, "send again to the missing; if they stay silent, look at their lead or coordinator")
