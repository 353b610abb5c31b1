"""What the demo tells: a fleet comes up, does its job, is upgraded while it works, and withstands what is thrown at it."""

import base64
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from nacl.signing import SigningKey

from host.console import histogram
from host.core import cbor, keys
from host.core.errors import SnapcountError
from sdk.demo import defences, rollouts, warmer
from sdk.demo.fleet import ORCHESTRATOR, LocalFleet
from sdk.demo.gcode import vase
from sdk.demo.samples import ASSAY
from sdk.demo.telling import PLANNER, Story, on_every_node, planner
from sdk.local import read_bundle
from skills import module_path

ASSESSOR, STARTER = "feedstock-assessor", "cell-start"
LAYERS = 32  # 5,325 lines
ASSESSMENTS = 20  # of the same lot, by each node
UPGRADE_TAIL_S = 1.0
CASCADES = 10  # the arrival kernel learns from the eighth answer of a node on


ROLLOUTS = ("bad_rollout_stopped", "fix_reached_all")
DELTA_RATIO_MAX = 0.15


def run(nodes: int, keep: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Tells the whole story; the result has the keys that `snapcount demo --json` prints."""
    started = time.monotonic()
    author = SigningKey(os.urandom(keys.SEED_BYTES))
    with _folder(keep) as folder, LocalFleet(folder, nodes, author) as fleet:
        story = Story(fleet, author, say)
        say(f"1. A registry and {nodes} nodes of 3 hardware generations, each a process of its own")
        fleet.start()
        say(f"   {nodes} nodes connected to {fleet.url} after {time.monotonic() - started:.1f} s")
        story.result |= {"nodes": nodes}
        _push_skills(story)
        _jobs(story)
        _cascade(story)
        _upgrade(story)
        _rollouts(story)
        defences.tell(story)
        story.result |= {"calls": story.calls, "hook_us_p50": _hook_us(story), "seconds": round(time.monotonic() - started, 1)}
    say(f"done in {story.result['seconds']:.1f} s: " + ("everything held" if succeeded(story.result) else "SOMETHING DID NOT HOLD"))
    return {
        key: story.result[key]
        for key in (
            "nodes",
            "nodes_active",
            "jobs_done",
            "cascade_ready",
            "cascade_acted",
            "calls",
            "hook_us_p50",
            "calls_lost_in_upgrade",
            *ROLLOUTS,
            "delta_ratio",
            *defences.DEFENCES,
            "seconds",
        )
    }


def succeeded(result: dict[str, Any]) -> bool:
    """Whether everything held."""
    whole = result["nodes_active"] == result["nodes"] and result["jobs_done"] == result["nodes"] and result["calls_lost_in_upgrade"] == 0
    together = result["cascade_ready"] == result["cascade_acted"] == result["nodes"]
    supplied = result["delta_ratio"] <= DELTA_RATIO_MAX and all(result[name] is True for name in ROLLOUTS)
    return whole and together and supplied and all(result[name] is True for name in defences.DEFENCES)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="snapcount-demo-") as folder:
        yield Path(folder)


def _push_skills(story: Story) -> None:
    story.say("2. Two skills are signed by their author and pushed")
    active: set[str] = set(story.fleet.names)
    for name in (PLANNER, ASSESSOR):
        started = time.monotonic()
        states = story.push(story.signed(read_bundle(module_path(name)), name))
        good = {node for node, state in states.items() if state["state"] == "active"}
        active &= good
        story.say(
            f"   {name}: active on {len(good)} of {len(states)} nodes after {time.monotonic() - started:.1f} s (fetched, verified, compiled, self-tested)"
        )
    story.result |= {"nodes_active": len(active)}


def _jobs(story: Story) -> None:
    program = vase(LAYERS).encode()
    story.say(f"3. A G-code program of {len(program.splitlines()):,} lines runs on every node's machine")
    reports = on_every_node(story, lambda name: story.fleet.control(name).job([program], {}, run=True))
    done = [name for name, report in reports.items() if isinstance(report, dict) and report["complete"] and report["driven"] > 0]
    for name in story.fleet.names:
        if name not in done:
            story.say(f"   {name}: {reports[name]}")
    if done:
        report, machine = reports[done[0]], story.fleet.status(done[0])["machines"]["motion"]
        low, high = report["bbox_mm"]["min"], report["bbox_mm"]["max"]
        story.say(
            f"   box {low} … {high} mm, path {report['path_mm']['total']:,.0f} mm, {report['extruded_mm']:,.1f} mm extruded, estimated {report['time_s'] / 60:.1f} min"
        )
        story.say(
            f"   {done[0]}'s machine made {machine['moves']:,} moves, {machine['travelled_mm']:,.0f} mm, each admitted by its safety envelope"
        )
    assessments = on_every_node(
        story, lambda name: [story.fleet.control(name).post("/v1/hooks/assess_feedstock", ASSAY) for _ in range(ASSESSMENTS)]
    )
    best = {answer["best"] for answers in assessments.values() for answer in answers if isinstance(answer, dict)}
    story.calls += 2 * len(done) + sum(len(answers) for answers in assessments.values() if isinstance(answers, list))
    story.say(f"   {len(done)} jobs done; every node assesses the same lot of feedstock alike: {', '.join(sorted(best))}")
    story.result |= {"jobs_done": len(done)}


def _cascade(story: Story) -> None:
    """Every machine begins a move at the same T; some cascades before, so that the tiers have learned what each node needs."""
    story.say("4. On the snap count: every machine begins a move at the same moment, through an orchestrator and its leads")
    names, control = story.fleet.names, story.fleet.control(ORCHESTRATOR)
    story.push(story.signed(read_bundle(module_path(STARTER)), STARTER))
    story.fleet.wait_for("the mesh", lambda: control.get("/v1/mesh/status")["agents"]["active"] == len(names))
    for turn in range(CASCADES):
        start = {"feed_mm_min": 1200.0, "job": f"line-{turn}", "to_mm": [20.0 + turn, 20.0, 5.0]}
        payload = base64.b64encode(cbor.encode(start)).decode()
        request = {"topic": "cell.start", "payload": payload, "capabilities": ["motion"], "confirm": True, "window_ms": 200.0}
        result = control.post("/v1/mesh/broadcast", json.dumps(request).encode())
        if result["outcome"] != "SUCCESS":
            story.say(f"   {result['reason']}: {result['missing'] or result['replies'][:1]}")
    story.say(
        f"   cascade {CASCADES} of {CASCADES}: {result['ready']} of {result['expected']} ready and {result['acted'] - result['failed']} moved, "
        f"T was {result['at_ms'] - result['created_ms']:.0f} ms ahead, {result['messages']} messages, each signed and verified"
    )
    story.say("   how far from T each machine began (it was ready before, and held):")
    for line in histogram.lines(result["acted_errors"]):
        story.say(f"   {line}")
    story.calls += 2 * CASCADES * len(names)
    story.result |= {"cascade_ready": result["ready"], "cascade_acted": result["acted"] - result["failed"]}


def _upgrade(story: Story) -> None:
    story.say("5. An upgrade is pushed while every node is at work")
    new = story.signed(planner("1.0.1"), PLANNER)
    program = vase(6).encode()
    stop = threading.Event()
    answered, lost = [], []

    def work(name: str) -> None:
        control = story.fleet.control(name)
        while not stop.is_set():
            try:
                answered.append(control.job([program], {}, run=False)["complete"])
            except SnapcountError as error:
                lost.append(f"{name}: {error}")

    workers = [threading.Thread(target=work, args=(name,), daemon=True) for name in story.fleet.names]
    for worker in workers:
        worker.start()
    try:
        before = len(answered)
        states = story.push(new)
        during = len(answered) - before
        time.sleep(UPGRADE_TAIL_S)
    finally:  # an interrupted demo must not wait for its own workers
        stop.set()
    for worker in workers:
        worker.join()
    lost += ["incomplete"] * answered.count(False)
    active = sum(state["state"] == "active" for state in states.values())
    story.calls += len(answered)
    story.say(f"   version 1.0.1 active on {active} of {len(states)} nodes; {during} calls were answered during the swap, {len(lost)} lost")
    for line in lost[:3]:
        story.say(f"   {line}")
    story.result |= {"calls_lost_in_upgrade": len(lost) if active == len(story.fleet.names) else -1}


def _rollouts(story: Story) -> None:
    story.say("6. A roll-out that goes wrong on one hardware generation, and the one that mends it")
    fleet = story.fleet
    bundles = [story.signed(warmer.bundle(version, x_mm), warmer.NAME) for version, x_mm in (rollouts.FIRST, rollouts.BAD, rollouts.FIXED)]
    first = rollouts.roll_out(fleet, bundles[0], 1, probation_s=0)
    story.say(f"   {warmer.NAME} {first['version']}: {first['status']}, {first['counts']['active']} of {first['counts']['nodes']} nodes")
    with rollouts.busy(fleet):
        bad = rollouts.roll_out(fleet, bundles[1], 2)
        back = rollouts.settled(fleet, first["version"])
        story.say(f"   {warmer.NAME} {bad['version']}: {bad['status']}: {bad['reason']}")
        for failure in bad["failures"][:1]:
            story.say(f"   {failure['node']} (generation {failure['generation']}): {failure['message']}")
        story.say(
            f"   {'every node runs' if back else 'NOT every node runs'} {first['version']} again; {bad['stage']['nodes']} canaries had tried the other"
        )
        before = rollouts.received(fleet)
        fixed = rollouts.roll_out(fleet, bundles[2], 3)
        reached = rollouts.settled(fleet, fixed["version"])
    moved, whole = rollouts.received(fleet) - before, len(bundles[2]) * len(fleet.names)
    story.say(
        f"   {warmer.NAME} {fixed['version']}: {fixed['status']}, {fixed['counts']['active']} of {fixed['counts']['nodes']} nodes, as a patch: "
        f"{moved:,} bytes moved instead of {whole:,}"
    )
    story.result |= {
        "bad_rollout_stopped": bad["status"] == "rolled-back" and back,
        "fix_reached_all": fixed["status"] == "done" and reached,
        "delta_ratio": round(moved / whole, 4),
    }
    for name in fleet.names:
        fleet.control(name).post(f"/v1/remove/{warmer.NAME}")  # its bids are not those of the chapters to come


def _hook_us(story: Story) -> float:
    """The median over the nodes of their own median hook call, in µs."""
    medians = [skill["call_us_p50"] for name in story.fleet.names for skill in story.fleet.status(name)["skills"] if skill["call_us_p50"]]
    return float(round(median(medians), 1)) if medians else 0.0
