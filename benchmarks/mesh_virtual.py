"""A cascade to 30,000 agents under virtual time, with what goes wrong in a real fleet: slow classes, lost frames, dead agents, a coordinator that hangs.

Every peer is a real one and signs and verifies; the network, the time and the work of the agents are simulated (sdk/mesh/delays.py). First come
`warm_up_rounds` cascades, from which the estimators learn. Then one coordinator falls silent, and the cascade that is measured begins at once.

`latency_*_ms` is from the orchestrator's start of the cascade to each agent's READY, `error_*_ms` how far that is from T, both in true time and of
all agents that became ready, late ones too; `hit_rate` is the share of those that were READY by half a window after T. `outcome` is the whole fleet's,
and `rest_ready_share` the share of the agents that are neither dead nor behind the silent coordinator.
The target is `latency_p95_ms` of at most 1000.
"""

import argparse
import gc
import math
import time
from typing import Any

from common import report

from host.mesh.orchestrator import Request
from sdk.mesh.virtual_fleet import VirtualFleet

DEAD, LOSS = 0.001, 0.01
WARM_UP_ROUNDS = 9
HEARTBEAT_MS = 60_000
WINDOW_MS = 100.0


def quantile(values: list[float], share: float) -> float | None:
    """By nearest rank; None of nothing."""
    return round(sorted(values)[max(math.ceil(share * len(values)), 1) - 1], 1) if values else None


def measure(agents: int, seed: int, strategy: str) -> dict[str, Any]:
    began_s = time.perf_counter()
    gc.disable()  # hundreds of thousands of objects that all live to the end
    fleet = VirtualFleet(agents, seed, loss=LOSS, delays=True, heartbeat_ms=HEARTBEAT_MS, dead=DEAD)
    fleet.start()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()
    started_s = time.perf_counter()
    fleet.warm_up(WARM_UP_ROUNDS)
    sector = fleet.topology.sectors // 2
    silent = fleet.topology.sector_name(sector)
    if fleet.topology.sectors > 1:
        fleet.silence([silent])
    warm_s = time.perf_counter()
    result = fleet.cascade(Request(topic="bench.cascade", strategy=strategy, window_ms=WINDOW_MS))  # type: ignore[arg-type]
    latencies_ms = fleet.latencies_ms(result)
    errors_ms = fleet.errors_ms(result)
    behind = sum(fleet.topology.sector_of(fleet.topology.cluster_of(agent)) == sector for agent in range(agents))
    rest = agents - len(fleet.killed) - behind
    return {
        "agents": agents, "seed": seed, "strategy": strategy, "dead": len(fleet.killed), "loss": LOSS, "silent": silent, "warm_up_rounds": WARM_UP_ROUNDS,
        "outcome": result["outcome"], "verdict": result["verdict"], "expected": result["expected"], "ready": result["ready"],
        "rest_ready_share": round(result["ready"] / rest, 4) if rest else 0.0, "missing": result["expected"] - result["ready"],
        "names": result["missing"], "silent_named": any(name.startswith(silent) for name in result["missing"]),
        "at_after_ms": round(result["at_ms"] - result["created_ms"], 1), "gate_ms": result["gate_ms"],
        "latency_p50_ms": quantile(latencies_ms, 0.5), "latency_p95_ms": quantile(latencies_ms, 0.95), "latency_p99_ms": quantile(latencies_ms, 0.99),
        "cascade_wall_ms": result["wall_ms"],
        "error_p50_ms": quantile([abs(error_ms) for error_ms in errors_ms], 0.5), "error_p90_ms": quantile([abs(error_ms) for error_ms in errors_ms], 0.9),
        "hit_rate": round(sum(error_ms <= WINDOW_MS / 2 for error_ms in errors_ms) / max(len(errors_ms), 1), 4), "messages": result["messages"],
        "frames": fleet.network.frames, "frames_lost": fleet.network.lost, "digest": fleet.digest(),
        "start_s": round(started_s - began_s, 1), "warm_up_s": round(warm_s - started_s, 1), "run_s": round(time.perf_counter() - began_s, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strategy", choices=("parallel", "wave"), default="parallel")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report(measure(options.agents, options.seed, options.strategy))


if __name__ == "__main__":
    main()
