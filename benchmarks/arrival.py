"""What an arrival schedule costs per agent, beside the best NumPy and plain Python, measured in the same run.

Every peer gives all that a sender needs: each agent's lead time, who is skipped, the agents in send order, and where each 10 ms bucket begins.
The fleet is mixed: 30 % edge, 25 % serverless, 20 % persistent, 10 % GPU, 14 % local, 1 % human; one in 200 is quarantined; the payload has weight 1
and T is 2 s ahead, so humans are skipped. `*_120s` is the same with T 120 s ahead: everybody else is scheduled, over a range of 9,000 buckets.

`ns_per_agent_*` is the default estimator (learned from 16 observations an agent at 30,000; at 1,000,000 from none, so that it holds the base model's
figures: the pass is the same). NumPy gets the kernel's own prepared columns (what a lead is at weight 0, what a unit of weight adds), which is the best
case for it; plain Python computes from what heartbeats say, as one would write it, and `python_prepared_ns_30k` from the prepared columns.
`plain_ns_30k` is the pass that an x86-64 processor without AVX2 gets. Preparing is paid at each heartbeat and each acknowledgement: `update_ns`, `observe_ns`. Confidence is a pass of its own: `confidence_ns_30k`.
`memory_floor_ns` reads the columns and writes the outputs once, at 30,000; `memory_floor_1m_ns` at 1,000,000.
"""

import random
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from common import median_ns, report

from cython_core.arrival import ACTIVE, BASE, BUCKETS_MAX, LEARNED, QUARANTINED, SKIP, Schedule, Table, use_plain

SMALL, LARGE = 30_000, 1_000_000
NOW_MS, AHEAD_MS, FAR_MS, BUCKET_MS, WEIGHT = 1_700_000_000_000.0, 2_000.0, 120_000.0, 10.0, 1.0
BASE_MS = (10.0, 50.0, 200.0, 100.0, 150.0, 60_000.0)
ROUNDS = 25


class Fleet:
    """The same agents for every peer."""

    def __init__(self, size: int) -> None:
        chance = random.Random(size)
        self.rtt_ms = array("f", (chance.uniform(2, 100) for _ in range(size)))
        self.queue = array("H", (chance.choice((0, 0, 0, 1, 3, 5)) for _ in range(size)))
        self.drift = array("f", (chance.uniform(0, 0.1) for _ in range(size)))
        self.reliability = array("f", (chance.uniform(0.9, 1) for _ in range(size)))
        self.agent_class = array("B", chance.choices(range(6), (30, 25, 20, 10, 14, 1), k=size))
        self.heartbeat_ms = array("d", (NOW_MS - chance.uniform(0, 12_000) for _ in range(size)))
        self.state = array("B", (QUARANTINED if chance.random() < 1 / 200 else ACTIVE for _ in range(size)))

    def columns(self) -> tuple[Any, ...]:
        return (self.rtt_ms, self.queue, self.drift, self.reliability, self.agent_class, self.heartbeat_ms, self.state)

    def table(self) -> Table:
        table = Table(len(self.queue))
        table.load(0, *self.columns())
        return table

    def prepared(self) -> tuple[Any, Any]:
        """The base model's leads at weight 0 and per unit of weight, as the kernel's columns hold them."""
        processing = np.array(BASE_MS)[np.array(self.agent_class)] * (1 + np.float64(np.float32(0.1)) * np.array(self.queue))
        weightless = (0.5 * np.array(self.rtt_ms, np.float64) + 50 * np.array(self.drift, np.float64)) + processing
        weightless[np.array(self.state) == QUARANTINED] = np.inf
        return weightless.astype(np.float32), (processing * 0.5).astype(np.float32)


def numpy_peer(fleet: Fleet) -> Callable[[], tuple[Any, ...]]:
    """Preallocated where NumPy lets one; a stable argsort of uint16 is a radix sort."""
    weightless, per_weight = fleet.prepared()
    lead, scaled, keys = np.empty_like(weightless), np.empty_like(weightless), np.empty(len(weightless), np.uint16)
    late = np.empty(len(weightless), np.bool_)
    weight, available, per_ms, last = np.float32(WEIGHT), np.float32(AHEAD_MS), np.float32(1 / BUCKET_MS), np.float32(BUCKETS_MAX - 1)

    def schedule() -> tuple[Any, ...]:
        np.multiply(per_weight, weight, out=lead)
        np.add(weightless, lead, out=lead)
        np.multiply(lead, per_ms, out=scaled)
        np.minimum(scaled, last, out=scaled)
        np.copyto(keys, scaled, casting="unsafe")
        np.subtract(np.uint16(BUCKETS_MAX - 1), keys, out=keys)
        np.greater(lead, available, out=late)
        np.putmask(keys, late, np.uint16(SKIP))
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
        return lead, keys, order, np.flatnonzero(in_order[1:] != in_order[:-1])

    return schedule


def python_peer(fleet: Fleet) -> Callable[[], tuple[Any, ...]]:
    rows = list(zip(fleet.rtt_ms, fleet.queue, fleet.drift, fleet.agent_class, fleet.state, strict=True))

    def schedule() -> tuple[Any, ...]:
        leads: list[float] = []
        skipped: list[int] = []
        buckets: dict[int, list[int]] = {}
        for agent, (rtt_ms, queue, drift, agent_class, state) in enumerate(rows):
            lead = rtt_ms / 2 + 50 * drift + BASE_MS[agent_class] * (1 + 0.5 * WEIGHT) * (1 + 0.1 * queue)
            leads.append(lead)
            if state <= 1 and lead <= AHEAD_MS:
                buckets.setdefault(int(lead / BUCKET_MS), []).append(agent)
            else:
                skipped.append(agent)
        return leads, skipped, [(AHEAD_MS - (bucket + 1) * BUCKET_MS, buckets[bucket]) for bucket in sorted(buckets, reverse=True)]

    return schedule


def python_prepared_peer(fleet: Fleet) -> Callable[[], tuple[Any, ...]]:
    weightless, per_weight = (column.tolist() for column in fleet.prepared())

    def schedule() -> tuple[Any, ...]:
        leads = [a + b * WEIGHT for a, b in zip(weightless, per_weight, strict=True)]
        skipped: list[int] = []
        buckets: dict[int, list[int]] = {}
        for agent, lead in enumerate(leads):
            if lead <= AHEAD_MS:
                buckets.setdefault(int(lead / BUCKET_MS), []).append(agent)
            else:
                skipped.append(agent)
        return leads, skipped, [(AHEAD_MS - (bucket + 1) * BUCKET_MS, buckets[bucket]) for bucket in sorted(buckets, reverse=True)]

    return schedule


def memory_floor(size: int) -> float:
    """Two columns of singles in; singles, uint16 and uint32 out: 8 bytes read and 10 written an agent."""
    one, two, lead = (np.ones(size, np.float32) for _ in range(3))
    bucket, order = np.ones(size, np.uint16), np.ones(size, np.uint32)

    def touch() -> None:
        np.add(one, two, out=lead)
        bucket.fill(1)
        order.fill(1)

    return per_agent(touch, size)


def per_agent(call: Callable[[], object], size: int) -> float:
    return median_ns(call, max(1, 3_000_000 // size), ROUNDS) / size


def ours(table: Table, schedule: Schedule, estimator: int, ahead_ms: float = AHEAD_MS, selection: Any = None) -> float:
    count = len(table) if selection is None else len(selection)
    return per_agent(lambda: schedule.compute(table, NOW_MS + ahead_ms, NOW_MS, WEIGHT, selection, estimator), count)


def check(fleet: Fleet, table: Table, schedule: Schedule) -> None:
    """The peers do the same job: same leads, same order."""
    schedule.compute(table, NOW_MS + AHEAD_MS, NOW_MS, WEIGHT, None, BASE)
    lead, _, order, ends = numpy_peer(fleet)()
    assert order.tolist() == [*schedule.order, *schedule.skipped]
    assert lead.tobytes() == schedule.lead_ms.tobytes()
    assert [0, *(ends + 1).tolist()] == schedule.offsets.tolist()
    assert sum(len(agents) for _, agents in python_peer(fleet)()[2]) == schedule.scheduled


def small() -> dict[str, float]:
    fleet = Fleet(SMALL)
    table, schedule, chance = fleet.table(), Schedule(SMALL), random.Random(1)
    check(fleet, table, schedule)
    for agent in range(SMALL):
        one_way_ms, work_ms = fleet.rtt_ms[agent] / 2, BASE_MS[fleet.agent_class[agent]]
        for _ in range(16):
            table.observe(agent, one_way_ms * chance.uniform(0.8, 1.3), work_ms * 1.5 * chance.uniform(0.7, 1.2), 1.0, 0)
    row = (20.0, 3, 0.05, 0.99, 1, NOW_MS, ACTIVE)
    half = array("I", range(0, SMALL, 2))
    # Ours and its peers take turns, so that other load on the machine meets them alike.
    learned, numpy_ns, base = ours(table, schedule, LEARNED), per_agent(numpy_peer(fleet), SMALL), ours(table, schedule, BASE)
    use_plain(True)
    plain = ours(table, schedule, LEARNED)
    use_plain(False)
    return {
        "ns_per_agent_30k": learned, "base_ns_30k": base, "plain_ns_30k": plain, "numpy_ns_30k": numpy_ns, "python_ns_30k": per_agent(python_peer(fleet), SMALL),
        "python_prepared_ns_30k": per_agent(python_prepared_peer(fleet), SMALL), "ns_per_agent_30k_120s": ours(table, schedule, LEARNED, FAR_MS),
        "selection_ns_15k": ours(table, schedule, LEARNED, selection=half),
        "confidence_ns_30k": per_agent(lambda: schedule.assess(table, NOW_MS), SMALL), "memory_floor_ns": memory_floor(SMALL),
        "update_ns": median_ns(lambda: table.update(7, *row), 20_000), "observe_ns": median_ns(lambda: table.observe(9, 8.0, 70.0, 1.0, 2), 20_000),
    }  # fmt: skip


def large() -> dict[str, float]:
    fleet = Fleet(LARGE)
    table, schedule = fleet.table(), Schedule(LARGE)
    learned, numpy_ns, base = ours(table, schedule, LEARNED), per_agent(numpy_peer(fleet), LARGE), ours(table, schedule, BASE)
    return {"ns_per_agent_1m": learned, "base_ns_1m": base, "numpy_ns_1m": numpy_ns, "memory_floor_1m_ns": memory_floor(LARGE)}


def main() -> None:
    result = small() | large()
    ratios = {
        "ratio_numpy_30k": result["numpy_ns_30k"] / result["ns_per_agent_30k"],
        "ratio_numpy_1m": result["numpy_ns_1m"] / result["ns_per_agent_1m"],
        "ratio_python_30k": result["python_ns_30k"] / result["ns_per_agent_30k"],
        "ratio_python_prepared_30k": result["python_prepared_ns_30k"] / result["ns_per_agent_30k"],
    }
    report({key: round(value, 2) for key, value in (result | ratios).items()})


if __name__ == "__main__":
    main()
