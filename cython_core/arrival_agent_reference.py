"""One agent of the table: what a heartbeat says, what is learned or assigned, and the lead that follows. The rules: arrival_reference.py.

The readable reference of cython_core/arrival_fit.pxi and of a row in arrival.pyx. `update` and `checked` test their ranges (ValueError
also for NaN and infinity) and round to single precision, so whatever stands in an agent is in range.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

EDGE, SERVERLESS, PERSISTENT, GPU, LOCAL, HUMAN = range(6)
ACTIVE, DEGRADED, OFFLINE, QUARANTINED = range(4)
BASE, LEARNED = range(2)
OBSERVATIONS, OBSERVATIONS_MIN = 32, 8
MS_MAX, WEIGHT_MAX, QUEUE_MAX = 1e8, 16.0, 65_535

_BASE_MS = (10.0, 50.0, 200.0, 100.0, 150.0, 60_000.0)
_BASE_PER_WEIGHT, _BASE_PER_ITEM, _SLOPE_MAX, _BUFFER_MS = 0.5, 0.1, 10.0, 50.0
_PRIOR_WEIGHT, _PRIOR_ITEM, _OUTLIER = 1.0, 9.0, 3.0
_RECENT_MS = 10_000.0

_SINGLE = struct.Struct("f")


def single(value: float) -> float:
    """`value` rounded to single precision. Of one operation on singles in double precision, this gives what single precision gives."""
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])


_HALF, _THIRD, _FIFTH = single(0.5), single(0.3), single(0.2)


def within(value: float, low: float, high: float, name: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value}")


@dataclass(frozen=True)
class Observation:
    delay_ms: float
    processing_ms: float
    weight: float
    queue: int

    @classmethod
    def checked(cls, delay_ms: float, processing_ms: float, weight: float, queue: int) -> Self:
        within(delay_ms, 0, MS_MAX, "delay_ms")
        within(processing_ms, 0, MS_MAX, "processing_ms")
        within(weight, 0, WEIGHT_MAX, "weight")
        within(queue, 0, QUEUE_MAX, "queue")
        return cls(single(delay_ms), single(processing_ms), single(weight), queue)


@dataclass(frozen=True)
class Estimate:
    one_way_ms: float
    work_ms: float
    per_weight: float
    per_item: float

    @classmethod
    def checked(cls, one_way_ms: float, work_ms: float, per_weight: float, per_item: float) -> Self:
        within(one_way_ms, 0, MS_MAX, "one_way_ms")
        within(work_ms, 0, MS_MAX, "work_ms")
        within(per_weight, 0, _SLOPE_MAX, "per_weight")
        within(per_item, 0, _SLOPE_MAX, "per_item")
        return cls(single(one_way_ms), single(work_ms), single(per_weight), single(per_item))


@dataclass
class Agent:
    rtt_ms: float = 0.0
    queue: int = 0
    drift: float = 0.0
    reliability: float = 0.0
    agent_class: int = EDGE
    heartbeat_ms: float = -math.inf
    state: int = OFFLINE
    ring: list[Observation] = field(default_factory=list)
    next_slot: int = 0
    learned: Estimate | None = None
    assigned: Estimate | None = None

    def update(
        self, rtt_ms: float, queue: int, drift: float, reliability: float, agent_class: int, heartbeat_ms: float, state: int
    ) -> None:
        within(rtt_ms, 0, MS_MAX, "rtt_ms")
        within(queue, 0, QUEUE_MAX, "queue")
        within(drift, 0, 1, "drift")
        within(reliability, 0, 1, "reliability")
        within(agent_class, 0, len(_BASE_MS) - 1, "agent_class")
        within(state, 0, QUARANTINED, "state")
        if not math.isfinite(heartbeat_ms):
            raise ValueError(f"heartbeat_ms must be finite, not {heartbeat_ms}")
        self.rtt_ms, self.queue, self.drift, self.reliability = single(rtt_ms), queue, single(drift), single(reliability)
        self.agent_class, self.heartbeat_ms, self.state = agent_class, heartbeat_ms, state

    def observe(self, seen: Observation, quantile: float) -> None:
        if len(self.ring) < OBSERVATIONS:
            self.ring.append(seen)
        else:
            self.ring[self.next_slot] = seen
        self.next_slot = (self.next_slot + 1) % OBSERVATIONS
        self.learn(quantile)

    def learn(self, quantile: float) -> None:
        self.learned = fit(self.ring, quantile) if len(self.ring) >= OBSERVATIONS_MIN else None

    def forget(self) -> None:
        self.ring, self.next_slot, self.learned, self.assigned = [], 0, None, None

    def estimate(self, estimator: int) -> Estimate:
        found = self.assigned or self.learned
        if estimator == LEARNED and found is not None:
            return found
        return Estimate(single(0.5 * self.rtt_ms), _BASE_MS[self.agent_class], single(_BASE_PER_WEIGHT), single(_BASE_PER_ITEM))

    def prepared(self, estimator: int) -> tuple[float, float]:
        """The lead for weight 0, and what each unit of weight adds."""
        estimate = self.estimate(estimator)
        processing_ms = estimate.work_ms * (1.0 + estimate.per_item * self.queue)
        weightless_ms = single((estimate.one_way_ms + _BUFFER_MS * self.drift) + processing_ms)
        never = self.state in (OFFLINE, QUARANTINED)
        return math.inf if never else weightless_ms, single(processing_ms * estimate.per_weight)

    def lead_ms(self, weight: float, estimator: int) -> float:
        weightless_ms, per_weight_ms = self.prepared(estimator)
        return single(weightless_ms + single(per_weight_ms * weight))

    def confidence(self, now_ms: float) -> float:
        recent = _FIFTH if now_ms - self.heartbeat_ms <= _RECENT_MS else 0.0
        value = single(single(single(_HALF * self.reliability) - single(_THIRD * self.drift)) + recent)
        return min(max(value, 0.0), 1.0)


def _relative_slope(slope: float, mean: float, at: float) -> float:
    """The slope per unit, relative to the value at 0, of a line that has `slope` and passes `mean` at `at`."""
    if mean <= 0.0 or slope <= 0.0:
        return 0.0
    relative = slope / mean
    if relative * at >= 1.0:
        return _SLOPE_MAX
    return single(min(relative / (1.0 - relative * at), _SLOPE_MAX))


def _sum(values: Sequence[float]) -> float:
    # Not sum(): it compensates for rounding from Python 3.12 on, and the compiled loop does not.
    total = 0.0
    for value in values:
        total += value
    return total


def _slopes(ring: list[Observation]) -> tuple[float, float]:
    """How much processing grows per unit of weight and per queued item, relative to none. Ridge regression, centred; two unknowns."""
    limit = _OUTLIER * sorted(seen.processing_ms for seen in ring)[len(ring) // 2]
    ys = [min(seen.processing_ms, limit) for seen in ring]
    mean_y = _sum(ys) / len(ring)
    mean_w = _sum([seen.weight for seen in ring]) / len(ring)
    mean_q = _sum([seen.queue for seen in ring]) / len(ring)
    work = mean_y / ((1.0 + _BASE_PER_WEIGHT * mean_w) * (1.0 + _BASE_PER_ITEM * mean_q))
    ww, qq, wq = _PRIOR_WEIGHT, _PRIOR_ITEM, 0.0
    wy = _PRIOR_WEIGHT * (_BASE_PER_WEIGHT * work * (1.0 + _BASE_PER_ITEM * mean_q))
    qy = _PRIOR_ITEM * (_BASE_PER_ITEM * work * (1.0 + _BASE_PER_WEIGHT * mean_w))
    for seen, clipped in zip(ring, ys, strict=True):
        y, w, q = clipped - mean_y, seen.weight - mean_w, seen.queue - mean_q
        ww, qq, wq, wy, qy = ww + w * w, qq + q * q, wq + w * q, wy + w * y, qy + q * y
    determinant = ww * qq - wq * wq
    by_weight, by_item = (wy * qq - qy * wq) / determinant, (qy * ww - wy * wq) / determinant
    return _relative_slope(by_weight, mean_y, mean_w), _relative_slope(by_item, mean_y, mean_q)


def fit(ring: list[Observation], quantile: float) -> Estimate:
    """The quantile of delay and work together, as they came: those of each alone would add up to a higher one."""
    per_weight, per_item = _slopes(ring)
    works = [seen.processing_ms / ((1.0 + per_weight * seen.weight) * (1.0 + per_item * seen.queue)) for seen in ring]
    rank = math.ceil(quantile * len(ring)) - 1
    whole_ms = sorted(seen.delay_ms + work for seen, work in zip(ring, works, strict=True))[rank]
    work_ms = sorted(works)[rank]
    return Estimate(single(whole_ms - work_ms), single(work_ms), per_weight, per_item)
