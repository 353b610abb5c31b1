"""What `snapcount mesh bench` measures, on a local fleet over real WebSockets. Every function returns a flat dictionary, ready for JSON."""

import time
from collections.abc import Callable
from typing import Any

from host.mesh.arrival import BASE, LEARNED
from sdk.mesh.fleet import LocalMesh, local_mesh

TOPIC = "bench.go"
WARM_UP_ROUNDS = 9  # the kernel's estimator needs eight observations of each agent
PAUSE_S = 0.5
THROUGHPUT_WARM_UP_ROUNDS = 3
CLASS_LEAD_MS = 1_500.0
CLASS_ROUNDS = 3
CLASS_HEARTBEAT_S = 15.0  # three thousand agents share this machine with their leads: what their heartbeats take is missing at T
CLASS_WARM_UP_ROUNDS = 40  # more than the kernel remembers, so that nothing of the start is left
HEARTBEAT_AGENTS, HEARTBEATS_PER_S, HEARTBEAT_S = 6_000, 6_200, 30.0  # a little more than the 6,000 that are to be sustained
REFUSALS = ("signature_invalid", "certificate_invalid", "malformed_data", "unknown_sender", "replayed")

Say = Callable[[str], None]
Progress = Callable[[int, str], None]


def throughput(agents: int, strategy: str, say: Say, progress: Progress, *, window_ms: float = 1_000.0) -> dict[str, Any]:
    """One cascade to every agent, as fast as this machine can: from the send to the last acknowledgement at the orchestrator.

    It has no arrival time: thirty thousand agents on one machine delay each other, and what they would learn is that machine's load. `classes`
    and benchmarks/mesh_virtual.py measure arrivals.
    """
    with local_mesh(agents, progress) as mesh:
        connected = mesh.connected()
        mesh.wait_for_summaries(30.0)
        resident = sum(mesh.all(do="settle"))
        say(f"{connected} of {agents} agents connected, {resident / agents / 1024:.1f} KiB an agent over all processes; warming up")
        for done in range(THROUGHPUT_WARM_UP_ROUNDS):
            result = _cascade(mesh, strategy=strategy, in_ms=0.0, window_ms=window_ms)
            say(
                f"  warm-up {done + 1}: {result['ready']} ready, {result['transit']} late, {result['skipped']} skipped, {result['wall_ms']:.0f} ms"
            )
            time.sleep(PAUSE_S)
        before = mesh.all(do="stats")
        result = _cascade(mesh, strategy=strategy, in_ms=0.0, window_ms=window_ms)
        stats = mesh.all(do="stats")
        return {
            "agents": agents, "connected": connected, **{name: result[name] for name in ("ready", "conflict", "transit", "skipped", "wall_ms")},
            "messages": result["messages"], "messages_per_s": round(result["messages"] / result["wall_ms"] * 1000),
            "verify_failures": _refused(stats), "refused": _sum(stats), "strategy": strategy, "outcome": result["outcome"],
            "kib_per_agent": round(resident / agents / 1024, 1), "processes": len(stats), "warm_up_rounds": THROUGHPUT_WARM_UP_ROUNDS,
            "heartbeat_s": mesh.heartbeat_s,
            "cpu_s": round(sum(after["cpu_s"] - then["cpu_s"] for after, then in zip(stats, before, strict=True)), 2),
        }  # fmt: skip


def classes(agents: int, window_ms: float, say: Say, progress: Progress) -> dict[str, Any]:
    """Arrival errors under injected delays by class (sdk/mesh/delays.py), for the learned estimator and the base model in the same run."""
    with local_mesh(agents, progress, delays=True, heartbeat_s=CLASS_HEARTBEAT_S) as mesh:
        mesh.wait_for_summaries(30.0)
        mesh.all(do="settle")
        for done in range(CLASS_WARM_UP_ROUNDS):
            result = _cascade(mesh, in_ms=CLASS_LEAD_MS, window_ms=window_ms)
            say(f"  warm-up {done + 1}: {result['ready']} of {agents} ready in time, {result['transit']} late")
        errors: dict[int, list[float]] = {LEARNED: [], BASE: []}
        asked = 0
        for _ in range(CLASS_ROUNDS):
            for estimator in (LEARNED, BASE):
                for process in mesh.leads:  # only they send to agents; what a tier needs, it says itself
                    process.ask(do="estimator", value=estimator)
                result = _cascade(mesh, in_ms=CLASS_LEAD_MS, window_ms=window_ms)
                time.sleep(window_ms / 1000)  # the late ones count too
                for found in (process.ask(do="errors", id=result["id"]) for process in mesh.leads):
                    errors[estimator] += found
            asked += agents
        learned, base = ([abs(error) for error in errors[which]] for which in (LEARNED, BASE))
        acting = [max(error, 0.0) for error in errors[LEARNED]]
        return {
            "agents": agents, "window_ms": window_ms, "hit_rate": _share(learned, window_ms / 2, asked), "error_p50_ms": _quantile(learned, 0.5),
            "error_p90_ms": _quantile(learned, 0.9), "late_p90_ms": _quantile(acting, 0.9), "ready_by_t": _share(acting, 0.0, asked),
            "base_hit_rate": _share(base, window_ms / 2, asked), "base_error_p90_ms": _quantile(base, 0.9),
            "answers": len(learned), "base_answers": len(base), "warm_up_rounds": CLASS_WARM_UP_ROUNDS, "rounds": CLASS_ROUNDS,
            "verify_failures": _refused(mesh.all(do="stats")),
        }  # fmt: skip


def heartbeats(say: Say, progress: Progress) -> dict[str, Any]:
    """6,000 heartbeats a second, verified and answered by one process for 30 s."""
    with local_mesh(HEARTBEAT_AGENTS, progress, heartbeat_s=HEARTBEAT_AGENTS / HEARTBEATS_PER_S, workers=1) as mesh:
        mesh.all(do="settle")
        time.sleep(2.0)
        before = mesh.leads[0].ask(do="stats")
        say(f"{before['connected']} leads have {HEARTBEAT_AGENTS} agents; counting for {HEARTBEAT_S:.0f} s")
        time.sleep(HEARTBEAT_S)
        after = mesh.leads[0].ask(do="stats")
        seconds, verified = after["at_s"] - before["at_s"], after["heartbeats"] - before["heartbeats"]
        return {
            "agents": HEARTBEAT_AGENTS, "seconds": round(seconds, 2), "heartbeats": verified, "heartbeats_per_s": round(verified / seconds),
            "core_share": round((after["cpu_s"] - before["cpu_s"]) / seconds, 3), "verify_failures": _refused([after]),
        }  # fmt: skip


def flood(
    agents: int, say: Say, progress: Progress, *, normal_per_s: float = 20.0, seconds: float = 10.0, window_ms: float = 500.0
) -> dict[str, Any]:
    """Ten times the normal rate of priority-0 messages to everybody, and once a second a control message with an arrival time."""
    with local_mesh(agents, progress) as mesh:
        mesh.wait_for_summaries(30.0)
        for _ in range(WARM_UP_ROUNDS):
            _cascade(mesh, in_ms=None, window_ms=window_ms)
        before = mesh.all(do="settle")
        ready = expected = sent = turned_away = 0
        worst_ms, peak = 0.0, before
        started = time.monotonic()
        mesh.root.ask(do="flood", per_s=10 * normal_per_s, seconds=seconds, payload=1024)
        while time.monotonic() - started < seconds:
            result = _cascade(mesh, in_ms=None, window_ms=window_ms, priority=3)
            ready, expected, worst_ms = ready + result["ready"], expected + result["expected"], max(worst_ms, result["wall_ms"])
            peak = [max(pair) for pair in zip(peak, (stat["resident_bytes"] for stat in mesh.all(do="stats")), strict=True)]
            time.sleep(1.0)
        flooded = mesh.root.ask(do="flooded")
        sent, turned_away = flooded["sent"], flooded["turned_away"]
        stats = mesh.all(do="stats")
        dropped = sum(count for stat in stats for reason, count in stat["refused"].items() if reason.startswith("dropped"))
        say(f"{sent} messages of priority 0 sent, {turned_away} turned away at once, {dropped} dropped on the way")
        return {
            "agents": agents, "flood_per_s": 10 * normal_per_s, "flood_sent": sent, "flood_turned_away": turned_away, "dropped": dropped,
            "control_ready_share": round(ready / max(expected, 1), 4), "control_worst_ms": worst_ms, "window_ms": window_ms,
            "grown_mib": [round((after - then) / 2**20, 1) for after, then in zip(peak, before, strict=True)],
        }  # fmt: skip


def _cascade(mesh: LocalMesh, *, in_ms: float | None, window_ms: float, strategy: str = "parallel", priority: int = 2) -> dict[str, Any]:
    request: dict[str, Any] = {
        "topic": TOPIC,
        "strategy": strategy,
        "in_ms": in_ms,
        "window_ms": window_ms,
        "priority": priority,
        "timeout_ms": 60_000.0,
    }
    result: dict[str, Any] = mesh.root.ask(do="broadcast", request=request)
    return result


def _refused(stats: list[dict[str, Any]]) -> int:
    return sum(stat["refused"].get(reason, 0) for stat in stats for reason in REFUSALS)


def _sum(stats: list[dict[str, Any]]) -> dict[str, int]:
    reasons = sorted({reason for stat in stats for reason in stat["refused"]})
    return {reason: sum(stat["refused"].get(reason, 0) for stat in stats) for reason in reasons}


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2) if ordered else float("nan")


def _share(values: list[float], at_most: float, of: int) -> float:
    return round(sum(value <= at_most for value in values) / of, 4)
