"""When to send to each agent so that all are ready at T: the readable reference of cython_core/arrival.pyx, bit for bit.

- An agent's **lead** is one-way delay + processing + buffer, in ms, where buffer = 50 ms · drift and
  processing = work · (1 + per_weight · weight) · (1 + per_item · queue).
- The **base** estimator: one-way = RTT / 2; work by class (10, 50, 200, 100, 150, 60,000 ms); per_weight 0.5; per_item 0.1.
- The **learned** one, which is the default: upper quantiles of the agent's own last 32 observations. The slopes come first, by a ridge
  regression of processing on weight and queue whose prior is the base model (an observation above three medians counts as three medians);
  then work is the quantile of processing divided by both factors. With fewer than 8 observations an agent has the base model's lead.
- An agent is scheduled when its lead is at most the time available, T - now; otherwise it is skipped: `lead_ms` is what it needs,
  `available_ms` what there is. One that is offline or quarantined needs an infinite lead, so it is always skipped.
- **Buckets** count back from T: bucket b holds leads from b to b + 1 widths and is sent at T - (b + 1) · width, or now if that has passed;
  so a message leaves up to one width early and never late. There are 16,384 of them (164 s at 10 ms). Whatever needs longer is in the
  last one, which is coarse: it is sent when the slowest of its agents needs it.
- **Confidence** = clamp(0.5 · reliability - 0.3 · drift + 0.2 if heard from in the last 10 s), from 0 to 1.

Arithmetic: estimates are made in double precision and rounded once, to single; what is computed per call is in single precision,
each operation rounded. Times (T, now, heartbeats) are doubles in milliseconds on any one clock; nothing here reads a clock.
"""

import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

EDGE, SERVERLESS, PERSISTENT, GPU, LOCAL, HUMAN = range(6)
ACTIVE, DEGRADED, OFFLINE, QUARANTINED = range(4)
BASE, LEARNED = range(2)

BUCKETS_MAX = SKIP = 16_384
AGENTS_MAX = 1 << 24
OBSERVATIONS, OBSERVATIONS_MIN = 32, 8

_BASE_MS = (10.0, 50.0, 200.0, 100.0, 150.0, 60_000.0)
_BASE_PER_WEIGHT, _BASE_PER_ITEM, _SLOPE_MAX, _BUFFER_MS = 0.5, 0.1, 10.0, 50.0
_PRIOR_WEIGHT, _PRIOR_ITEM, _OUTLIER = 1.0, 9.0, 3.0
_MS_MAX, _WEIGHT_MAX, _RECENT_MS = 1e8, 16.0, 10_000.0
_SINGLE = struct.Struct("f")


def _single(value: float) -> float:
    """`value` rounded to single precision. Of one operation on singles in double precision, this gives what single precision gives."""
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])


_HALF, _THIRD, _FIFTH = _single(0.5), _single(0.3), _single(0.2)


def _within(value: float, low: float, high: float, name: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value}")


@dataclass(frozen=True)
class _Observation:
    delay_ms: float
    processing_ms: float
    weight: float
    queue: int


@dataclass(frozen=True)
class _Estimate:
    one_way_ms: float
    work_ms: float
    per_weight: float
    per_item: float


@dataclass
class _Agent:
    rtt_ms: float = 0.0
    queue: int = 0
    drift: float = 0.0
    reliability: float = 0.0
    agent_class: int = EDGE
    heartbeat_ms: float = -math.inf
    state: int = OFFLINE
    ring: list[_Observation] = field(default_factory=list)
    observed: int = 0
    learned: _Estimate | None = None

    def estimate(self, estimator: int) -> _Estimate:
        if estimator == LEARNED and self.learned is not None:
            return self.learned
        return _Estimate(_single(0.5 * self.rtt_ms), _BASE_MS[self.agent_class], _single(_BASE_PER_WEIGHT), _single(_BASE_PER_ITEM))

    def prepared(self, estimator: int) -> tuple[float, float]:
        """The lead for weight 0, and what each unit of weight adds."""
        estimate = self.estimate(estimator)
        processing_ms = estimate.work_ms * (1.0 + estimate.per_item * self.queue)
        weightless_ms = _single((estimate.one_way_ms + _BUFFER_MS * self.drift) + processing_ms)
        never = self.state in (OFFLINE, QUARANTINED)
        return math.inf if never else weightless_ms, _single(processing_ms * estimate.per_weight)

    def lead_ms(self, weight: float, estimator: int) -> float:
        weightless_ms, per_weight_ms = self.prepared(estimator)
        return _single(weightless_ms + _single(per_weight_ms * weight))

    def confidence(self, now_ms: float) -> float:
        recent = _FIFTH if now_ms - self.heartbeat_ms <= _RECENT_MS else 0.0
        value = _single(_single(_single(_HALF * self.reliability) - _single(_THIRD * self.drift)) + recent)
        return min(max(value, 0.0), 1.0)


def _relative_slope(slope: float, mean: float, at: float) -> float:
    """The slope per unit, relative to the value at 0, of a line that has `slope` and passes `mean` at `at`."""
    if mean <= 0.0 or slope <= 0.0:
        return 0.0
    relative = slope / mean
    if relative * at >= 1.0:
        return _SLOPE_MAX
    return _single(min(relative / (1.0 - relative * at), _SLOPE_MAX))


def _sum(values: Sequence[float]) -> float:
    # Not sum(): it compensates for rounding from Python 3.12 on, and the compiled loop does not.
    total = 0.0
    for value in values:
        total += value
    return total


def _slopes(ring: list[_Observation]) -> tuple[float, float]:
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


def _fit(ring: list[_Observation], quantile: float) -> _Estimate:
    per_weight, per_item = _slopes(ring)
    works = [seen.processing_ms / ((1.0 + per_weight * seen.weight) * (1.0 + per_item * seen.queue)) for seen in ring]
    rank = math.ceil(quantile * len(ring)) - 1
    return _Estimate(sorted(seen.delay_ms for seen in ring)[rank], _single(sorted(works)[rank]), per_weight, per_item)


class Table:
    """`size` agents, numbered from 0, in columns. All start OFFLINE; the size never changes, so a pass without the GIL is safe.

    Another thread may update rows during a pass: each lead is then from before or after that update. ValueError for a value out of range
    (also NaN and infinity), IndexError for an agent that is not there.
    """

    def __init__(self, size: int, quantile: float = 0.95) -> None:
        if not 0 <= size <= AGENTS_MAX:
            raise ValueError(f"size must be from 0 to {AGENTS_MAX}, not {size}")
        _within(quantile, 0.5, 1.0, "quantile")
        self.size, self.quantile = size, quantile
        self._agents = [_Agent() for _ in range(size)]

    def __len__(self) -> int:
        return self.size

    def _agent(self, agent: int) -> _Agent:
        if not 0 <= agent < self.size:
            raise IndexError(f"the table has {self.size} agents, numbered from 0; there is no agent {agent}")
        return self._agents[agent]

    def update(
        self, agent: int, rtt_ms: float, queue: int, drift: float, reliability: float, agent_class: int, heartbeat_ms: float, state: int
    ) -> None:
        """Sets what a heartbeat says. What was learned stays."""
        known = self._agent(agent)
        _within(rtt_ms, 0, _MS_MAX, "rtt_ms")
        _within(queue, 0, 65_535, "queue")
        _within(drift, 0, 1, "drift")
        _within(reliability, 0, 1, "reliability")
        _within(agent_class, 0, len(_BASE_MS) - 1, "agent_class")
        _within(state, 0, QUARANTINED, "state")
        if not math.isfinite(heartbeat_ms):
            raise ValueError(f"heartbeat_ms must be finite, not {heartbeat_ms}")
        known.rtt_ms, known.queue, known.drift, known.reliability = _single(rtt_ms), queue, _single(drift), _single(reliability)
        known.agent_class, known.heartbeat_ms, known.state = agent_class, heartbeat_ms, state

    def load(
        self,
        first: int,
        rtt_ms: Sequence[float],
        queue: Sequence[int],
        drift: Sequence[float],
        reliability: Sequence[float],
        agent_class: Sequence[int],
        heartbeat_ms: Sequence[float],
        state: Sequence[int],
    ) -> None:
        """`update` for consecutive agents from `first`, from columns of equal length: all rows or, where one is out of range, none."""
        columns = (rtt_ms, queue, drift, reliability, agent_class, heartbeat_ms, state)
        for column in columns[1:]:
            if len(column) != len(rtt_ms):
                raise ValueError(f"all columns must have {len(rtt_ms)} rows, as the first one has; one has {len(column)}")
        if not 0 <= first <= self.size or len(rtt_ms) > self.size - first:
            raise IndexError(f"{len(rtt_ms)} rows from {first} do not fit a table of {self.size} agents")
        rows = list(zip(rtt_ms, queue, drift, reliability, agent_class, heartbeat_ms, state, strict=True))
        for at, row in enumerate(rows):
            try:
                Table(1).update(0, *row)
            except ValueError as error:
                raise ValueError(f"row {at} of the columns has a value out of range; nothing was loaded") from error
        for at, row in enumerate(rows):
            self.update(first + at, *row)

    def set_state(self, agent: int, state: int) -> None:
        known = self._agent(agent)
        _within(state, 0, QUARANTINED, "state")
        known.state = state

    def set_queue(self, agent: int, queue: int) -> None:
        known = self._agent(agent)
        _within(queue, 0, 65_535, "queue")
        known.queue = queue

    def observe(self, agent: int, delay_ms: float, processing_ms: float, weight: float, queue: int) -> None:
        """Learns from an acknowledgement: the one-way delay, and the processing of a payload of `weight` behind `queue` items."""
        known = self._agent(agent)
        _within(delay_ms, 0, _MS_MAX, "delay_ms")
        _within(processing_ms, 0, _MS_MAX, "processing_ms")
        _within(weight, 0, _WEIGHT_MAX, "weight")
        _within(queue, 0, 65_535, "queue")
        seen = _Observation(_single(delay_ms), _single(processing_ms), _single(weight), queue)
        if len(known.ring) < OBSERVATIONS:
            known.ring.append(seen)
        else:
            known.ring[known.observed % OBSERVATIONS] = seen
        known.observed += 1
        if len(known.ring) >= OBSERVATIONS_MIN:
            known.learned = _fit(known.ring, self.quantile)

    def forget(self, agent: int) -> None:
        """Drops what was learned, as when another node takes the agent's place."""
        known = self._agent(agent)
        known.ring, known.observed, known.learned = [], 0, None

    def lead_ms(self, agent: int, weight: float = 0.0, estimator: int = LEARNED) -> float:
        """The lead of one agent, which a tier needs for its own report upward."""
        known = self._agent(agent)
        _within(weight, 0, _WEIGHT_MAX, "weight")
        _within(estimator, 0, LEARNED, "estimator")
        return known.lead_ms(_single(weight), estimator)

    def estimate(self, agent: int, estimator: int = LEARNED) -> tuple[float, float, float, float]:
        """One-way delay in ms, work in ms, and the slopes per unit of weight and per queued item, relative to the work."""
        known = self._agent(agent)
        _within(estimator, 0, LEARNED, "estimator")
        found = known.estimate(estimator)
        return found.one_way_ms, found.work_ms, found.per_weight, found.per_item

    def row(self, agent: int) -> tuple[float, int, float, float, int, float, int]:
        """What `update` set, in its order, floats rounded to single precision."""
        known = self._agent(agent)
        return known.rtt_ms, known.queue, known.drift, known.reliability, known.agent_class, known.heartbeat_ms, known.state

    def observations(self, agent: int) -> int:
        """How many observations the estimate stands on, 0 to 32."""
        return len(self._agent(agent).ring)


class Schedule:
    """Room for the schedule of up to `size` agents. `compute` fills it anew; the views that were taken before then show the new content.

    After `compute`, position i of `lead_ms` (single) and `bucket` (SKIP: skipped) belongs to the i-th agent selected. `order` holds the
    scheduled agents in send order; `order[offsets[g]:offsets[g + 1]]` are to be sent at `starts_ms[g]`, ascending by number.
    `skipped` holds the others, ascending.
    """

    def __init__(self, size: int) -> None:
        if not 0 <= size <= AGENTS_MAX:
            raise ValueError(f"size must be from 0 to {AGENTS_MAX}, not {size}")
        self.size = size
        self.selected = self.scheduled = self.groups = 0
        self.available_ms = 0.0
        self._lead_ms, self._bucket = array("f"), array("H")
        self._order, self._skipped = array("I"), array("I")
        self._starts_ms, self._offsets = array("d"), array("I", [0])

    def _select(self, table: Table, selection: Sequence[int] | None) -> Sequence[int]:
        chosen = range(table.size) if selection is None else selection
        if len(chosen) > self.size:
            raise ValueError(f"this schedule has room for {self.size} agents, not {len(chosen)}")
        for before, after in pairwise(chosen):
            if after <= before:
                raise ValueError(f"a selection must be in strictly ascending order; {after} follows {before}")
        if chosen and chosen[-1] >= table.size:
            raise IndexError(f"the table has {table.size} agents, numbered from 0; there is no agent {chosen[-1]}")
        return chosen

    def compute(
        self,
        table: Table,
        at_ms: float,
        now_ms: float,
        weight: float = 0.0,
        selection: Sequence[int] | None = None,
        estimator: int = LEARNED,
        bucket_ms: float = 10.0,
    ) -> int:
        """Schedules a payload for T = `at_ms` to all agents or to a selection; returns how many are scheduled.

        A selection is a buffer of uint32 in strictly ascending order, which must not change during the call: no lock is held.
        ValueError for a number out of range or T further than 1e8 ms (28 hours) away, RuntimeError while another thread is in this call.
        """
        ahead_ms = at_ms - now_ms
        if not -_MS_MAX <= ahead_ms <= _MS_MAX:
            raise ValueError(f"at_ms must be within {_MS_MAX:g} ms of now_ms, not {ahead_ms} ms away")
        _within(weight, 0, _WEIGHT_MAX, "weight")
        _within(estimator, 0, LEARNED, "estimator")
        _within(bucket_ms, 0.1, 60_000, "bucket_ms")
        chosen = self._select(table, selection)
        self.available_ms, buckets_per_ms = _single(ahead_ms), _single(1.0 / bucket_ms)
        leads = [table._agent(agent).lead_ms(_single(weight), estimator) for agent in chosen]
        buckets = [self._bucket_of(lead, buckets_per_ms) for lead in leads]
        self._lead_ms, self._bucket = array("f", leads), array("H", buckets)
        self._arrange(list(zip(chosen, buckets, leads, strict=True)), at_ms, now_ms, bucket_ms)
        self.selected, self.scheduled, self.groups = len(chosen), len(self._order), len(self._starts_ms)
        return self.scheduled

    def _bucket_of(self, lead_ms: float, buckets_per_ms: float) -> int:
        if not lead_ms <= self.available_ms:
            return SKIP
        return int(min(_single(lead_ms * buckets_per_ms), BUCKETS_MAX - 1))

    def _arrange(self, rows: list[tuple[int, int, float]], at_ms: float, now_ms: float, bucket_ms: float) -> None:
        piles: dict[int, list[int]] = {}
        for agent, bucket, _ in rows:
            piles.setdefault(bucket, []).append(agent)
        self._skipped = array("I", piles.pop(SKIP, []))
        self._order, self._starts_ms, self._offsets = array("I"), array("d"), array("I", [0])
        for bucket in sorted(piles, reverse=True):
            before_ms = (bucket + 1) * bucket_ms
            if bucket == BUCKETS_MAX - 1:
                before_ms = max(lead for _, of, lead in rows if of == bucket)
            self._starts_ms.append(max(at_ms - before_ms, now_ms))
            self._order.extend(piles[bucket])
            self._offsets.append(len(self._order))

    def assess(self, table: Table, now_ms: float, selection: Sequence[int] | None = None) -> memoryview:
        """The confidence in each selected agent. A pass of its own: most senders want only the schedule."""
        if not math.isfinite(now_ms):
            raise ValueError(f"now_ms must be finite, not {now_ms}")
        return memoryview(array("f", [table._agent(agent).confidence(now_ms) for agent in self._select(table, selection)])).toreadonly()

    @property
    def lead_ms(self) -> memoryview:
        return memoryview(self._lead_ms).toreadonly()

    @property
    def bucket(self) -> memoryview:
        return memoryview(self._bucket).toreadonly()

    @property
    def order(self) -> memoryview:
        return memoryview(self._order).toreadonly()

    @property
    def skipped(self) -> memoryview:
        return memoryview(self._skipped).toreadonly()

    @property
    def starts_ms(self) -> memoryview:
        return memoryview(self._starts_ms).toreadonly()

    @property
    def offsets(self) -> memoryview:
        return memoryview(self._offsets).toreadonly()
