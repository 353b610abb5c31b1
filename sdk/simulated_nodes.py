"""Nodes as a roll-out sees them, under virtual time: they come and go, fetch and try what they are asked to run, and report. From one seed.

A node keeps the rules of host/core/desired.py: it verifies what it is given, takes only a higher serial, and goes on with it when it comes back.
"""

import heapq
import itertools
import random
from dataclasses import dataclass

from nacl.signing import VerifyKey

from host.core import desired
from host.core.fleet import Hello, Progress, SkillState, State
from registry.controller import Gone, Heard, Joined, Tell

DAY_MS = 86_400_000
AWAY_DAYS_MEAN, AWAY_DAYS_MAX = 6.0, 21.0
FETCH_MS_MIN, FETCH_MS_MAX = 5_000, 240_000
NODES_PER_SECTOR = 300
NOT_ALLOWED, OLD_HOST = 0.01, 0.005
BAD_SHARE, BACKGROUND_SHARE = 0.95, 0.001
"""How often the bad version fails on its generation, and any version on any node."""


@dataclass(slots=True)
class SimulatedNode:
    """`runs` is the active digest, `wants` what it was asked to run. `visit` grows when it comes or goes: what was under way is void then."""

    name: str
    generation: int
    sector: str
    host_version: str
    capabilities: tuple[str, ...]
    version: str
    runs: str
    online: bool = True
    serial: int = 0
    wants: desired.Wanted | None = None
    visit: int = 0
    ran_bad: bool = False


class FleetOfNodes:
    """`bad` is the digest that fails on `bad_generation`. `advance` gives what the controller hears, `told` is what it says."""

    def __init__(
        self,
        count: int,
        generations: int,
        offline: float,
        seed: int,
        skill: tuple[str, str, str],
        bad: str,
        operator: VerifyKey,
        now_ms: int,
    ) -> None:
        self._dice, self._operator, self._bad, self._offline = random.Random(seed), operator, bad, offline
        self.bad_generation = self._dice.randint(1, generations)
        self._name, self._versions = skill[0], {skill[2]: skill[1]}
        self._events: list[tuple[int, int, str, str, int]] = []
        self._order = itertools.count()
        self._heard: list[Heard] = []
        self.nodes: dict[str, SimulatedNode] = {}
        # Generations of very different sizes: the oldest has the most nodes.
        weights = [0.7**generation for generation in range(generations)]
        for number in range(count):
            generation = self._dice.choices(range(1, generations + 1), weights)[0]
            self._add(f"node-{number:05}", generation, f"sector-{number // NODES_PER_SECTOR:03}", skill, now_ms)

    def next_ms(self) -> int | None:
        return self._events[0][0] if self._events else None

    def away_without(self, digest: str) -> set[str]:
        """Those that cannot be reached now and do not run this bundle."""
        return {node.name for node in self.nodes.values() if not node.online and node.runs != digest}

    def advance(self, now_ms: int) -> list[Heard]:
        """Lets everything happen until now."""
        while self._events and self._events[0][0] <= now_ms:
            at_ms, _, kind, name, visit = heapq.heappop(self._events)
            node = self.nodes[name]
            match kind:
                case "come":
                    self._come(node, at_ms)
                case "go":
                    self._go(node, at_ms)
                case "fetched" if visit == node.visit and node.wants is not None:
                    self._fetched(node, node.wants, at_ms)
                case "tried" if visit == node.visit and node.wants is not None:
                    self._tried(node, node.wants, at_ms)
        heard, self._heard = self._heard, []
        return heard

    def told(self, tells: list[Tell], now_ms: int) -> None:
        """Desired states reach their nodes; one that has just left gets it when it is back."""
        for name, document in tells:
            node = self.nodes[name]
            if not node.online:
                continue
            state = desired.verify(document, [self._operator])
            if state.node == name and state.serial > node.serial:
                node.serial = state.serial
                node.wants = next((wanted for wanted in state.skills if wanted.name == self._name), None)
                node.visit += 1
                self._converge(node, now_ms)

    def _add(self, name: str, generation: int, sector: str, skill: tuple[str, str, str], now_ms: int) -> None:
        capabilities = ("log", "state") if self._dice.random() < NOT_ALLOWED else ("log", "motion", "state")
        host_version = "0.0.9" if self._dice.random() < OLD_HOST else "0.1.0"
        node = self.nodes[name] = SimulatedNode(name, generation, sector, host_version, capabilities, skill[1], skill[2])
        self._heard.append(Joined(self._hello(node)))
        if self._dice.random() < self._offline:
            self._go(node, now_ms)
        else:
            self._later(now_ms + self._stays_ms(), "go", node)

    def _come(self, node: SimulatedNode, now_ms: int) -> None:
        node.online, node.visit = True, node.visit + 1
        self._heard.append(Joined(self._hello(node)))
        self._later(now_ms + self._stays_ms(), "go", node)
        self._converge(node, now_ms)

    def _go(self, node: SimulatedNode, now_ms: int) -> None:
        node.online, node.visit = False, node.visit + 1
        self._heard.append(Gone(node.name))
        away_days = min(self._dice.expovariate(1 / AWAY_DAYS_MEAN), AWAY_DAYS_MAX)
        self._later(now_ms + int(away_days * DAY_MS), "come", node)

    def _stays_ms(self) -> int:
        """So long that the share of nodes that are away stays as it is."""
        mean_days = AWAY_DAYS_MEAN * (1 - self._offline) / self._offline if self._offline else 10_000.0
        return int(self._dice.expovariate(1 / mean_days) * DAY_MS)

    def _converge(self, node: SimulatedNode, now_ms: int) -> None:
        if node.wants is None:
            return
        if node.wants.digest == node.runs:
            self._report(node, node.wants, "active", now_ms)
            return
        self._report(node, node.wants, "fetching", now_ms)
        self._later(now_ms + self._dice.randint(FETCH_MS_MIN, FETCH_MS_MAX), "fetched", node)

    def _fetched(self, node: SimulatedNode, wants: desired.Wanted, now_ms: int) -> None:
        node.ran_bad |= wants.digest == self._bad
        if not wants.probation_s:
            self._activate(node, wants, now_ms)
            return
        self._report(node, wants, "probation", now_ms)
        self._later(now_ms + wants.probation_s * 1000, "tried", node)

    def _tried(self, node: SimulatedNode, wants: desired.Wanted, now_ms: int) -> None:
        fails = BAD_SHARE if wants.digest == self._bad and node.generation == self.bad_generation else BACKGROUND_SHARE
        if self._dice.random() < fails:
            self._report(node, wants, "rolled-back", now_ms, "guest_trap", "plan_job trapped more often than the version before")
            node.wants = None
        else:
            self._activate(node, wants, now_ms)

    def _activate(self, node: SimulatedNode, wants: desired.Wanted, now_ms: int) -> None:
        node.runs, node.version = wants.digest, wants.version
        self._report(node, wants, "active", now_ms)

    def _report(self, node: SimulatedNode, about: desired.Wanted, state: State, now_ms: int, code: str = "", message: str = "") -> None:
        self._heard.append(Progress(
            node=node.name, name=about.name, version=about.version, digest=about.digest, state=state, at_ms=now_ms, code=code, message=message
        ))  # fmt: skip

    def _hello(self, node: SimulatedNode) -> Hello:
        return Hello(
            node=node.name, nonce=b"", generation=node.generation, certificate=b"", host="", skills=(SkillState(self._name, node.version, node.runs),),
            sector=node.sector, host_version=node.host_version, capabilities=node.capabilities, serial=node.serial,
        )  # fmt: skip

    def _later(self, at_ms: int, kind: str, node: SimulatedNode) -> None:
        heapq.heappush(self._events, (at_ms, next(self._order), kind, node.name, node.visit))
