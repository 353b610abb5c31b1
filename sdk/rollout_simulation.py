"""A fleet under virtual time that takes a version which fails on one generation only, and then the fixed one. All from one seed.

The controller is the real one: documents are signed and verified, compatibility is computed, the state machine steps, every decision is hashed into the log,
and each node verifies the desired state that it is given. Simulated are the nodes (sdk/simulated_nodes.py) and the time; the disk is SQLite in memory.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

from nacl.signing import SigningKey

from host.core.bundle import digest_of, with_manifest
from host.core.manifest import Manifest, MessageRange
from registry import audit, rollout_document
from registry.controller import Controller
from registry.database import MEMORY, Database
from registry.releases import Releases
from registry.rollout_document import DAY_S, Rollout
from registry.rollout_status import counts
from registry.rollout_turn import State
from registry.roster import ALL
from sdk.simulated_nodes import FleetOfNodes

START_MS = 1_700_000_000_000
DAY_MS = DAY_S * 1000
QUANTUM_MS = 60_000
"""What happens within a minute reaches the controller as one batch."""
DAYS_MAX = 120
PAUSE_BETWEEN_MS = DAY_MS
SKILL = "toolpath-planner"
MODULE = b"\0asm\1\0\0\0"
VERSIONS = {"old": "1.4.0", "bad": "2.0.0", "fixed": "2.0.1"}
TOLD = ("started", "stage", "soak", "stopped", "held", "ended", "converging-stopped")


class Simulation:
    """One run. `tell` gets a line for people at each stage."""

    def __init__(self, nodes: int, generations: int, offline: float, seed: int, tell: Callable[[str], None]) -> None:
        self._operator, self._tell, self._seed = SigningKey(b"s" * 32), tell, seed
        self._bundles = {name: _bundle(version) for name, version in VERSIONS.items()}
        blobs = {digest_of(data): data for data in self._bundles.values()}
        digests = {name: digest_of(data) for name, data in self._bundles.items()}
        self.now_ms = START_MS
        self._database = Database(MEMORY)
        self._controller = Controller(self._database, [self._operator.verify_key], self._operator, Releases(blobs.get))
        skill = (SKILL, VERSIONS["old"], digests["old"])
        self.fleet = FleetOfNodes(nodes, generations, offline, seed, skill, digests["bad"], self._operator.verify_key, START_MS)
        self._shown = 0

    def run(self) -> dict[str, Any]:
        """Both roll-outs, until nobody is left who could converge."""
        began_s = time.perf_counter()
        gc.disable()  # hundreds of thousands of objects that live to the end, and none in a cycle
        try:
            return self._run() | {"seed": self._seed, "wall_s": round(time.perf_counter() - began_s, 2)}
        finally:
            gc.enable()

    def _run(self) -> dict[str, Any]:
        self._turn()
        bad = self._roll_out("bad")
        self._until(lambda: not self._live(bad).header.is_open)
        self._until(lambda: False, self.now_ms + PAUSE_BETWEEN_MS)
        fixed = self._roll_out("fixed")
        excluded = self._controller.live[fixed].summary["excluded"]
        self._until(lambda: not self._live(fixed).header.is_open)
        away = self.fleet.away_without(digest_of(self._bundles["fixed"])) & {node for node, _ in self._live(fixed).roster.items()}
        self._until(lambda: self._is_converged(fixed))
        found = self._found(bad_id=bad, fixed_id=fixed, away=away)
        rows = audit.verify(self._controller.audit.every())
        self._database.close()
        return found | {
            "excluded": excluded,
            "decisions_logged": rows,
        }

    def _found(self, bad_id: str, fixed_id: str, away: set[str]) -> dict[str, Any]:
        fixed = digest_of(self._bundles["fixed"])
        state, nodes = self._live(fixed_id), len(self.fleet.nodes)
        ran_bad = sum(node.ran_bad for node in self.fleet.nodes.values())
        return {
            "nodes": nodes, "done": state.header.status == "done" and self._is_converged(fixed_id), "converged": counts(state)["active"], "failed": counts(state)["failed"],
            "offline_at_done": len(away),
            "offline_converged_later": sum(self.fleet.nodes[node].runs == fixed for node in away),
            "bad_version_nodes": ran_bad, "bad_version_reach": round(ran_bad / nodes, 5),
            "bad_version_left": sum(node.runs == digest_of(self._bundles["bad"]) for node in self.fleet.nodes.values()),
            "days": round((self.now_ms - START_MS) / DAY_MS, 1),
        }  # fmt: skip

    def _roll_out(self, name: str) -> str:
        data = self._bundles[name]
        document = Rollout(
            id=f"{name}-{self._seed}", name=SKILL, version=VERSIONS[name], digest=digest_of(data), size=len(data), issued_ms=self.now_ms,
            stages=rollout_document.default_stages(),
        )  # fmt: skip
        live, tells = self._controller.start(rollout_document.sign(document, self._operator), self.now_ms)
        report = live.summary
        self._tell(
            f"day {self._day:5.1f}  {document.id}: {report['eligible']} nodes can take {document.version}, {report['excluded']} are excluded"
        )
        for group in report["groups"]:
            self._tell(f"            excluded: {group['nodes']} nodes: {group['reason']}")
        self.fleet.told(tells, self.now_ms)
        return document.id

    def _until(self, reached: Callable[[], bool], until_ms: int | None = None) -> None:
        """Lets time pass from event to event."""
        end_ms = START_MS + DAYS_MAX * DAY_MS if until_ms is None else until_ms
        while self.now_ms < end_ms and not reached():
            times = [time for time in (self._controller.due_ms(), self.fleet.next_ms()) if time is not None]
            if not times:
                return
            # Up to the next mark of the quantum, so that what happens close together is one batch.
            self.now_ms = min(max(-(-min(times) // QUANTUM_MS) * QUANTUM_MS, self.now_ms), end_ms)
            self._turn()

    def _turn(self) -> None:
        for heard in self.fleet.advance(self.now_ms):
            self._controller.hear(heard)
        self.fleet.told(self._controller.turn(self.now_ms), self.now_ms)
        self._show()

    def _show(self) -> None:
        for row in self._controller.audit.rows(self._shown):
            self._shown = row.seq
            if row.kind in TOLD:
                self._tell(f"day {self._day:5.1f}  {row.kind:8} {row.detail}")

    def _is_converged(self, id: str) -> bool:
        roster = self._live(id).roster
        return roster.tally(ALL).decided == len(roster)

    def _live(self, id: str) -> State:
        return self._controller.live[id].state

    @property
    def _day(self) -> float:
        return (self.now_ms - START_MS) / DAY_MS


def _bundle(version: str) -> bytes:
    """A module that does nothing, with a manifest: nobody runs it here. 2.x speaks one version of its messages more than 1.x."""
    newest = 3 if version.startswith("2") else 2
    described = Manifest(
        name=SKILL,
        version=version,
        hooks=("plan_job",),
        capabilities=("motion",),
        host_min="0.1.0",
        messages=(MessageRange(name="job", min=1, max=newest),),
    )
    return with_manifest(MODULE, described, SKILL)
