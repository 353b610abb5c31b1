"""What an agent measures of itself: how long its link and its work take, how often it succeeds, and how far that drifts."""

import math
from array import array
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

SAMPLES_MAX = 100
RECENT_SAMPLES = 10
"""What is compared with all samples to see drift, and what an agent's delay now is read from."""
UPPER_QUANTILE = 0.95
MS_MAX = 1e8
"""28 hours, the arrival kernel's bound: whatever takes longer counts as this."""
JITTER = 0.1
"""The share by which a heartbeat comes early or late, so that a thousand children that started together do not stay together."""

# Success over the last hour, in 12 periods: a period is forgotten as a whole, so "an hour" is 55 to 60 minutes.
_PERIOD_MS, _PERIODS = 300_000.0, 12
_OUTCOMES_MAX = 0xFFFF_FFFF

Delay = Annotated[float, Meta(ge=0, le=MS_MAX)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Vitals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What a heartbeat says of an agent, in ms and shares.

    `rtt_ms` and `processing_ms` are medians of the last 10 samples: how it is now. `*_p95_ms` are of the last 100: how bad it gets.
    `samples` counts the processing samples behind them; 0 means that processing was never measured. `success` is over the last hour.
    """

    rtt_ms: Delay = 0.0
    rtt_p95_ms: Delay = 0.0
    processing_ms: Delay = 0.0
    processing_p95_ms: Delay = 0.0
    queue: Annotated[int, Meta(ge=0, le=65_535)] = 0
    success: Share = 1.0
    drift: Share = 0.0
    samples: Annotated[int, Meta(ge=0, le=SAMPLES_MAX)] = 0


def nearest_rank(ordered: Sequence[float], quantile: float) -> float:
    """The smallest value that at least the share `quantile` of `ordered` does not exceed; 0.0 of nothing."""
    if not ordered:
        return 0.0
    # 0.07 * 100 is a little more than 7; without the allowance the rank would be 8.
    return ordered[max(math.ceil(quantile * len(ordered) - 1e-9), 1) - 1]


def heartbeat_delay_ms(interval_ms: float, uniform: float) -> float:
    """How long to wait until the next heartbeat, within 10 % of the interval. `uniform` is a random number from 0 to 1."""
    return interval_ms * (1.0 + JITTER * (2.0 * uniform - 1.0))


class Profiler:
    """Holds the last 100 samples of each kind in single precision, less than 1.5 KiB when full: one process may hold a whole fleet's.

    A sample that is negative or no number counts as 0 ms, one over 1e8 ms as that: two clocks were compared that do not agree.
    """

    __slots__ = ("_outcomes", "_period", "_processing", "_rtt")

    def __init__(self) -> None:
        self._rtt: array[float] | None = None
        self._processing: array[float] | None = None
        self._outcomes: array[int] | None = None  # per period: all, then failed
        self._period = 0

    def rtt(self, ms: float) -> None:
        """A round trip to the parent and back, in ms."""
        self._rtt = _pushed(self._rtt, ms)

    def processed(self, ms: float, ok: bool, now_ms: float) -> None:
        """A message was processed in `ms`, successfully or not."""
        self._processing = _pushed(self._processing, ms)
        self._turn_to(now_ms)
        if self._outcomes is None:
            self._outcomes = array("I", bytes(4 * 2 * _PERIODS))
        at = 2 * (self._period % _PERIODS)
        if self._outcomes[at] < _OUTCOMES_MAX:
            self._outcomes[at] += 1
            self._outcomes[at + 1] += not ok

    def success(self, now_ms: float) -> float:
        """The share that succeeded in the last hour, 1.0 when nothing was tried."""
        self._turn_to(now_ms)
        if self._outcomes is None:
            return 1.0
        tried, failed = sum(self._outcomes[::2]), sum(self._outcomes[1::2])
        return 1.0 - failed / tried if tried else 1.0

    def vitals(self, queue: int, now_ms: float) -> Vitals:
        """`queue` counts the messages that wait; more than 65,535 are given as that."""
        rtt_ms, rtt_p95_ms, rtt_drift = _figures(self._rtt)
        processing_ms, processing_p95_ms, processing_drift = _figures(self._processing)
        return Vitals(
            rtt_ms=rtt_ms,
            rtt_p95_ms=rtt_p95_ms,
            processing_ms=processing_ms,
            processing_p95_ms=processing_p95_ms,
            queue=min(max(queue, 0), 65_535),
            success=self.success(now_ms),
            drift=max(rtt_drift, processing_drift),
            samples=len(self._processing or ()),
        )

    def _turn_to(self, now_ms: float) -> None:
        period = int(now_ms // _PERIOD_MS)
        passed = period - self._period
        if passed <= 0:  # the same one, or a clock that was set back
            return
        self._period = period
        if self._outcomes is None:
            return
        for gone in range(min(passed, _PERIODS)):
            at = 2 * ((period - gone) % _PERIODS)
            self._outcomes[at] = self._outcomes[at + 1] = 0


def _pushed(ring: "array[float] | None", ms: float) -> "array[float]":
    """The ring with one sample more, oldest first. Moving 400 bytes is cheaper than keeping a cursor, and leaves the last 10 in a row."""
    if ring is None:
        ring = array("f")
    elif len(ring) == SAMPLES_MAX:
        del ring[0]
    ring.append(min(max(0.0, ms), MS_MAX))  # max(0.0, NaN) is 0.0
    return ring


def _figures(ring: "array[float] | None") -> tuple[float, float, float]:
    """The median of the last 10, the upper quantile of all, and the drift: how far apart the two medians are, as a share, from 0 to 1."""
    if ring is None:
        return 0.0, 0.0, 0.0
    ordered = sorted(ring)
    recent = nearest_rank(sorted(ring[-RECENT_SAMPLES:]), 0.5)
    usual = nearest_rank(ordered, 0.5)
    return recent, nearest_rank(ordered, UPPER_QUANTILE), min(abs(recent - usual) / max(usual, 1.0), 1.0)
