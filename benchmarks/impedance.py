"""What the impedance registry costs at 30,000 agents, beside a plain dictionary of dataclasses in the same run.

The fleet has six classes and delays from 2 ms to 20 s, spread as their logarithms; every agent has the capability `state`, half have
`motion`. `read_us` is one agent by name; `heartbeat_us` one heartbeat, half of which move the agent in the index; `best_us` the ten best of
those with `motion` under a ceiling of 800. `peer_*` is the plain way: a heartbeat only replaces the dataclass (no table, history, baseline
or flags), and the best come from a full sort. `profiler_us` is a sample of each kind and the vitals of them, which an agent pays for each
heartbeat, and `profiler_bytes` what it holds when full. `bytes_per_row` is the memory of the registry with its table and vitals but without
the names, all rows having learned; `snapshot_bytes_per_row` is what is kept on disk.
"""

import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from common import median_ns, report

from host.mesh.fleetmap import FleetMap
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.profiler import Profiler, Vitals
from host.mesh.scoring import delay_ms, score
from host.mesh.summary import merge, summarise

AGENTS, CLUSTER, CLUSTERS_PER_SECTOR = 30_000, 30, 10
NOW_MS, COUNT, CEILING = 1_700_000_000_000.0, 10, 800.0
ROUNDS = 5


@dataclass
class Plain:
    """An agent, as one would write it."""

    name: str
    capabilities: tuple[str, ...]
    active: bool
    score: float
    vitals: Vitals


def vitals_of(chance: random.Random) -> Vitals:
    delay = 2.0 * 10 ** chance.uniform(0, 4)
    return Vitals(
        rtt_ms=chance.uniform(1, 5), rtt_p95_ms=chance.uniform(5, 20), processing_ms=delay, processing_p95_ms=delay,
        queue=chance.choice((0, 0, 0, 1, 3)), success=chance.uniform(0.95, 1), drift=chance.uniform(0, 0.1), samples=100,
    )  # fmt: skip


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def built(names: list[str], chance: random.Random) -> ImpedanceRegistry:
    registry = ImpedanceRegistry(len(names))
    for number, name in enumerate(names):
        row = registry.join(name, number % 6, 1 + number % 3, ("motion", "state") if number % 2 else ("state",), NOW_MS)
        registry.heartbeat(row, vitals_of(chance), NOW_MS)
        for _ in range(32):
            registry.table.observe(row, 5.0, 50.0, 0.0, 0)
    return registry


def plain_best(agents: dict[str, Plain]) -> list[Plain]:
    able = [agent for agent in agents.values() if agent.active and "motion" in agent.capabilities and agent.score <= CEILING]
    return sorted(able, key=lambda agent: (agent.score, agent.name))[:COUNT]


def plain_heartbeat(agents: dict[str, Plain], name: str, vitals: Vitals) -> None:
    agent = agents[name]
    points = score(delay_ms(vitals.rtt_p95_ms, vitals.processing_p95_ms, vitals.queue), vitals.success, vitals.drift)
    agents[name] = Plain(agent.name, agent.capabilities, True, points, vitals)


def took_ms(call: Callable[[], object]) -> float:
    return median_ns(call, 1, ROUNDS) / 1e6


def registry_figures(registry: ImpedanceRegistry, names: list[str], beats: list[Vitals]) -> dict[str, float]:
    """Half of the heartbeats are the same as the last one, half another agent's."""
    chance = random.Random(2)
    rows, each = cycle(chance.sample(range(AGENTS), AGENTS)), cycle(chance.choices(names, k=10_000))
    told = cycle(beats[1:])

    def beat() -> None:
        row = next(rows)
        registry.heartbeat(row, registry.rows.vitals[row] if row % 2 else next(told), NOW_MS + 1_000)

    return {
        "read_us": median_ns(lambda: registry.read(next(each)), 10_000) / 1e3,
        "heartbeat_us": median_ns(beat, 10_000) / 1e3,
        "seen_us": median_ns(lambda: registry.seen(next(rows), NOW_MS), 10_000) / 1e3,
        "best_us": median_ns(lambda: registry.best("motion", COUNT, CEILING), 200) / 1e3,
        "sweep_ms": took_ms(lambda: registry.sweep(NOW_MS)),
        "trend_us": median_ns(lambda: registry.trend(next(each)), 1_000) / 1e3,
    }


def peer_figures(registry: ImpedanceRegistry, names: list[str], beats: list[Vitals]) -> dict[str, float]:
    rows = registry.rows
    agents = {name: Plain(name, rows.capabilities[row], True, rows.score[row], rows.vitals[row]) for row, name in enumerate(names)}
    same = [agent.name for agent in plain_best(agents)] == [row.name for row in registry.best("motion", COUNT, CEILING)]
    assert same, "the registry and its peer disagree on the best"
    each, told = cycle(random.Random(2).choices(names, k=10_000)), cycle(beats)
    return {
        "peer_best_us": median_ns(lambda: plain_best(agents), 1, ROUNDS) / 1e3,
        "peer_heartbeat_us": median_ns(lambda: plain_heartbeat(agents, next(each), next(told)), 10_000) / 1e3,
    }


def tier_figures(names: list[str], beats: list[Vitals]) -> dict[str, float]:
    """One lead's summary, one coordinator's, and the map of a fleet of 100 sectors."""
    cluster = ImpedanceRegistry(CLUSTER)
    for name, vitals in zip(names[:CLUSTER], beats, strict=False):
        cluster.heartbeat(cluster.join(name, 0, 1, ("motion", "state"), NOW_MS), vitals, NOW_MS)
    summary = summarise(cluster, "cluster-1")
    sector = merge("sector-1", "sector", [summary] * CLUSTERS_PER_SECTOR)
    fleet = FleetMap()
    for number in range(AGENTS // CLUSTER // CLUSTERS_PER_SECTOR):
        named = merge(f"sector-{number}", "sector", [summary] * CLUSTERS_PER_SECTOR)
        fleet.report(named, [summary] * CLUSTERS_PER_SECTOR, NOW_MS)
    return {
        "summarise_us": median_ns(lambda: summarise(cluster, "cluster-1"), 200) / 1e3,
        "merge_us": median_ns(lambda: merge("sector-1", "sector", [summary] * CLUSTERS_PER_SECTOR), 200) / 1e3,
        "report_us": median_ns(lambda: fleet.report(sector, [summary] * CLUSTERS_PER_SECTOR, NOW_MS), 1_000) / 1e3,
        "totals_us": median_ns(lambda: fleet.totals(NOW_MS), 50) / 1e3,
    }


def profiler_figures() -> dict[str, float]:
    chance, profiler = random.Random(4), Profiler()
    samples = cycle([chance.lognormvariate(3, 1) for _ in range(997)])

    def heartbeat() -> None:
        profiler.rtt(next(samples))
        profiler.processed(next(samples), True, NOW_MS)
        profiler.vitals(0, NOW_MS)

    took_us = median_ns(heartbeat, 1_000) / 1e3
    held = [profiler, *(getattr(profiler, slot) for slot in Profiler.__slots__)]
    return {"profiler_us": took_us, "profiler_bytes": sum(map(sys.getsizeof, held))}


def main() -> None:
    chance = random.Random(1)
    names = [f"agent-{number:05}" for number in range(AGENTS)]
    gc.collect()
    before, start = resident_bytes(), time.perf_counter()
    registry = built(names, chance)
    build_s, held = time.perf_counter() - start, resident_bytes() - before
    beats = list(registry.rows.vitals)
    figures = registry_figures(registry, names, beats) | peer_figures(registry, names, beats)
    data, other = registry.snapshot(), ImpedanceRegistry(AGENTS)
    figures |= {
        "snapshot_ms": took_ms(registry.snapshot),
        "restore_ms": took_ms(lambda: other.restore(data)),
        "ratio_best": figures["peer_best_us"] / figures["best_us"],
    }
    result: dict[str, Any] = {key: round(value, 2) for key, value in (figures | tier_figures(names, beats) | profiler_figures()).items()}
    sizes = {"bytes_per_row": round(held / AGENTS), "snapshot_bytes_per_row": round(len(data) / AGENTS)}
    report({"agents": AGENTS} | result | sizes | {"build_s": round(build_s, 2)})


main()
