"""When to send to each agent so that all are ready at T: the readable reference of cython_core/arrival.pyx, bit for bit.

- An agent's **lead** is one-way delay + processing + buffer, in ms, where buffer = 50 ms · drift and
  processing = work · (1 + per_weight · weight) · (1 + per_item · queue).
- The **base** estimator: one-way = RTT / 2; work by class (10, 50, 200, 100, 150, 60,000 ms); per_weight 0.5; per_item 0.1.
- The **learned** one, which is the default: upper quantiles of the agent's own last 32 observations. The slopes come first, by a ridge
  regression of processing on weight and queue whose prior is the base model (an observation above three medians counts as three medians);
  then work is the quantile of processing divided by both factors, and one-way is what is missing from it to the quantile of delay and work together,
  so that a lead covers that share and no more. With fewer than 8 observations an agent has the base model's lead.
  An estimate can also be **assigned**, for a row that stands for a subtree; it then takes the learned one's place.
- An agent is scheduled when its lead is at most the time available, T - now; otherwise it is skipped: `lead_ms` is what it needs,
  `available_ms` what there is. One that is offline or quarantined needs an infinite lead, so it is always skipped.
- **Buckets** count back from T: bucket b holds leads from b to b + 1 widths and is sent at T - (b + 1) · width, or now if that has passed;
  so a message leaves up to one width early and never late. There are 16,384 of them (164 s at 10 ms). Whatever needs longer is in the
  last one, which is coarse: it is sent when the slowest of its agents needs it.
- **Confidence** = clamp(0.5 · reliability - 0.3 · drift + 0.2 if heard from in the last 10 s), from 0 to 1.

Arithmetic: estimates are made in double precision and rounded once, to single; what is computed per call is in single precision,
each operation rounded. Times (T, now, heartbeats) are doubles in milliseconds on any one clock; nothing here reads a clock.
One agent's part of this is in arrival_agent_reference.py, the bytes of a snapshot are in arrival_snapshot_reference.py.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise

from cython_core.arrival_agent_reference import (
    ACTIVE,
    BASE,
    DEGRADED,
    EDGE,
    GPU,
    HUMAN,
    LEARNED,
    LOCAL,
    OBSERVATIONS,
    OBSERVATIONS_MIN,
    OFFLINE,
    PERSISTENT,
    QUARANTINED,
    SERVERLESS,
    Agent,
    Estimate,
    Observation,
    single,
    within,
)
from cython_core.arrival_agent_reference import MS_MAX as _MS_MAX
from cython_core.arrival_agent_reference import QUEUE_MAX as _QUEUE_MAX
from cython_core.arrival_agent_reference import WEIGHT_MAX as _WEIGHT_MAX
from cython_core.arrival_snapshot_reference import read, write

BUCKETS_MAX = SKIP = 16_384
AGENTS_MAX = 1 << 24

# The names of arrival.pyx, wherever they are written down here.
__all__ = [
    "ACTIVE", "AGENTS_MAX", "BASE", "BUCKETS_MAX", "DEGRADED", "EDGE", "GPU", "HUMAN", "LEARNED", "LOCAL",
    "OBSERVATIONS", "OBSERVATIONS_MIN", "OFFLINE", "PERSISTENT", "QUARANTINED", "SERVERLESS", "SKIP", "Schedule", "Table",
]  # fmt: skip


class Table:
    """`size` agents, numbered from 0, in columns. All start OFFLINE; the size never changes, so a pass without the GIL is safe.

    Another thread may update rows during a pass: each lead is then from before or after that update. ValueError for a value out of range
    (also NaN and infinity), IndexError for an agent that is not there.
    """

    def __init__(self, size: int, quantile: float = 0.95) -> None:
        if not 0 <= size <= AGENTS_MAX:
            raise ValueError(f"size must be from 0 to {AGENTS_MAX}, not {size}")
        within(quantile, 0.5, 1.0, "quantile")
        self.size, self.quantile = size, quantile
        self._agents = [Agent() for _ in range(size)]

    def __len__(self) -> int:
        return self.size

    def _agent(self, agent: int) -> Agent:
        if not 0 <= agent < self.size:
            raise IndexError(f"the table has {self.size} agents, numbered from 0; there is no agent {agent}")
        return self._agents[agent]

    def update(
        self, agent: int, rtt_ms: float, queue: int, drift: float, reliability: float, agent_class: int, heartbeat_ms: float, state: int
    ) -> None:
        """Sets what a heartbeat says. What was learned stays."""
        self._agent(agent).update(rtt_ms, queue, drift, reliability, agent_class, heartbeat_ms, state)

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
                Agent().update(*row)
            except ValueError as error:
                raise ValueError(f"row {at} of the columns has a value out of range; nothing was loaded") from error
        for at, row in enumerate(rows):
            self.update(first + at, *row)

    def set_state(self, agent: int, state: int) -> None:
        known = self._agent(agent)
        within(state, 0, QUARANTINED, "state")
        known.state = state

    def set_queue(self, agent: int, queue: int) -> None:
        known = self._agent(agent)
        within(queue, 0, _QUEUE_MAX, "queue")
        known.queue = queue

    def observe(self, agent: int, delay_ms: float, processing_ms: float, weight: float, queue: int) -> None:
        """Learns from an acknowledgement: the one-way delay, and the processing of a payload of `weight` behind `queue` items.

        In a row whose estimate is assigned it is only recorded.
        """
        self._agent(agent).observe(Observation.checked(delay_ms, processing_ms, weight, queue), self.quantile)

    def assign(self, agent: int, one_way_ms: float, work_ms: float, per_weight: float, per_item: float) -> None:
        """Sets the learned estimate itself, for a row that stands for a whole subtree, which reports its own need upward.

        Two times up to 1e8 ms and two slopes up to 10, relative to the work, as `estimate` gives them. It counts at once under LEARNED, in
        place of what observations gave; BASE does not know it. Only `forget`, or another `assign`, ends it: later observations are recorded
        in the ring, but the estimate stays, and `forget` drops both.
        """
        self._agent(agent).assigned = Estimate.checked(one_way_ms, work_ms, per_weight, per_item)

    def forget(self, agent: int) -> None:
        """Drops what was learned and what was assigned, as when another node takes the agent's place."""
        self._agent(agent).forget()

    def lead_ms(self, agent: int, weight: float = 0.0, estimator: int = LEARNED) -> float:
        """The lead of one agent, which a tier needs for its own report upward."""
        known = self._agent(agent)
        within(weight, 0, _WEIGHT_MAX, "weight")
        within(estimator, 0, LEARNED, "estimator")
        return known.lead_ms(single(weight), estimator)

    def quantile_lead_ms(
        self, share: float, weight: float = 0.0, selection: Sequence[int] | None = None, estimator: int = LEARNED
    ) -> float:
        """The lead in ms within which `share` (above 0, at most 1) of the agents, all or a selection, are ready: the nearest-rank quantile.

        Agents that are offline or quarantined do not count; where nobody else is there, it is 0. A selection is as for `Schedule.compute`.
        ValueError for a number out of range or a selection out of order, IndexError for an agent that is not there.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        within(weight, 0, _WEIGHT_MAX, "weight")
        within(estimator, 0, LEARNED, "estimator")
        all_leads = (self._agents[agent].lead_ms(single(weight), estimator) for agent in self._chosen(selection))
        leads = sorted(lead for lead in all_leads if lead < math.inf)
        # abs() only clears the sign of a zero, whose place among zeros is the sort's affair.
        return abs(leads[math.ceil(share * len(leads)) - 1]) if leads else 0.0

    def estimate(self, agent: int, estimator: int = LEARNED) -> tuple[float, float, float, float]:
        """One-way delay in ms, work in ms, and the slopes per unit of weight and per queued item, relative to the work."""
        known = self._agent(agent)
        within(estimator, 0, LEARNED, "estimator")
        found = known.estimate(estimator)
        return found.one_way_ms, found.work_ms, found.per_weight, found.per_item

    def row(self, agent: int) -> tuple[float, int, float, float, int, float, int]:
        """What `update` set, in its order, floats rounded to single precision."""
        known = self._agent(agent)
        return known.rtt_ms, known.queue, known.drift, known.reliability, known.agent_class, known.heartbeat_ms, known.state

    def observations(self, agent: int) -> int:
        """How many observations the ring holds, 0 to 32: those that a learned estimate stands on; an assigned one stands on none."""
        return len(self._agent(agent).ring)

    def snapshot(self) -> bytes:
        """All that the table holds, in the format of arrival_snapshot_reference.py: 26 to 490 bytes an agent, the same on every machine."""
        return write(self._agents, self.quantile)

    def restore(self, data: bytes) -> None:
        """Takes over all that the snapshot of a table of the same size and quantile holds, in place of what stands here.

        ValueError, and nothing is changed, for a snapshot that is damaged, cut short, of another format, size or quantile, or that has a
        value out of range.
        """
        self._agents = read(data, self.size, self.quantile)

    def _chosen(self, selection: Sequence[int] | None) -> Sequence[int]:
        if selection is None:
            return range(self.size)
        for before, after in pairwise(selection):
            if after <= before:
                raise ValueError(f"a selection must be in strictly ascending order; {after} follows {before}")
        if selection:
            self._agent(selection[-1])
        return selection


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
        count = table.size if selection is None else len(selection)
        if count > self.size:
            raise ValueError(f"this schedule has room for {self.size} agents, not {count}")
        return table._chosen(selection)

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
        within(weight, 0, _WEIGHT_MAX, "weight")
        within(estimator, 0, LEARNED, "estimator")
        within(bucket_ms, 0.1, 60_000, "bucket_ms")
        chosen = self._select(table, selection)
        self.available_ms, buckets_per_ms = single(ahead_ms), single(1.0 / bucket_ms)
        leads = [table._agent(agent).lead_ms(single(weight), estimator) for agent in chosen]
        buckets = [self._bucket_of(lead, buckets_per_ms) for lead in leads]
        self._lead_ms, self._bucket = array("f", leads), array("H", buckets)
        self._arrange(list(zip(chosen, buckets, leads, strict=True)), at_ms, now_ms, bucket_ms)
        self.selected, self.scheduled, self.groups = len(chosen), len(self._order), len(self._starts_ms)
        return self.scheduled

    def _bucket_of(self, lead_ms: float, buckets_per_ms: float) -> int:
        if not lead_ms <= self.available_ms:
            return SKIP
        return int(min(single(lead_ms * buckets_per_ms), BUCKETS_MAX - 1))

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
