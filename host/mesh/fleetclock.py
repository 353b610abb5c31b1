"""Fleet time: the orchestrator's clock, as every other peer estimates it from the four timestamps of its heartbeats.

A child sends at t1 by its own clock; the parent receives at t2 and replies at t3 by fleet time; the child receives at t4. Then offset =
((t2 - t1) + (t3 - t4)) / 2 and delay = (t4 - t1) - (t3 - t2), as in RFC 5905, section 8. Queues only ever add delay, mostly on one side, so the
sample with the least delay is the truest: the offset in force is that one's (the minimum filter of RFC 5905, section 10).
"""

from collections import deque

from host.mesh.link import Time

SAMPLES = 8


class FleetClock:
    """Fleet time at one peer. The root's own clock is fleet time; everybody else follows a parent."""

    __slots__ = ("_own", "_samples", "offset_ms", "uncertainty_ms")

    def __init__(self, own: Time) -> None:
        self._own = own
        self._samples: deque[tuple[float, float]] | None = None
        self.offset_ms = 0.0
        self.uncertainty_ms = 0.0
        """At most so far is `offset_ms` from the truth (half the least delay), the parents' own uncertainty left out."""

    def now_ms(self) -> float:
        return self._own.now_ms() + self.offset_ms

    def to_own_ms(self, fleet_ms: float) -> float:
        """When a fleet time is on this peer's own clock."""
        return fleet_ms - self.offset_ms

    def sample(self, sent_ms: float, received_ms: float, replied_ms: float, arrived_ms: float) -> float:
        """Takes t1 to t4, and returns the round trip without the parent's part, in ms. Impossible ones (a negative delay) are ignored and give 0."""
        delay_ms = (arrived_ms - sent_ms) - (replied_ms - received_ms)
        if delay_ms < 0 or replied_ms < received_ms:
            return 0.0
        if self._samples is None:
            self._samples = deque(maxlen=SAMPLES)
        self._samples.append((delay_ms, ((received_ms - sent_ms) + (replied_ms - arrived_ms)) / 2))
        least, self.offset_ms = min(self._samples)
        self.uncertainty_ms = least / 2
        return delay_ms

    def forget(self) -> None:
        """Another parent: its samples are not comparable. The offset stays until there is a better one."""
        self._samples = None
