"""A whole fleet under virtual time: every peer of a topology in one process, with delays, losses, wrong clocks and deaths, all from one seed.

The peers are the real ones and sign and verify for real; only the time, the network and the handlers of the agents are simulated. For example:

    fleet = VirtualFleet(300, seed=1, delays=True)
    fleet.start()
    fleet.warm_up(10)
    result = fleet.cascade(Request(topic="lights.on"))
    latencies_ms = sorted(fleet.latencies_ms(result))
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

from host.core.certificate import Claims
from host.core.errors import UsageError
from host.mesh.agent import Outcome
from host.mesh.frames import READY, Role
from host.mesh.message import Message
from host.mesh.orchestrator import Done, Orchestrator, Request, Result
from host.mesh.peer import AgentPeer, Peer, World
from host.mesh.tier import TierPeer
from host.mesh.trust import Trust
from host.mesh.virtual import VirtualNetwork, VirtualTime
from sdk.mesh.delays import AgentDelays
from sdk.mesh.topology import ORCHESTRATOR, Topology

START_MS = 1_700_000_000_000.0
TIER_CLASS = 0
"""Tiers are near each other: the frames between them take as long as those of an edge agent."""
TIER_HEARTBEAT_MS_MAX = 5_000
CHECK_MS, START_MS_MAX, OPERATION_MS_MAX = 100.0, 600_000.0, 600_000.0
PAUSE_MS = 200.0
LOSS_MIN = 1e-12
"""While the fleet starts: its links are of the kind that loses frames, and none is lost yet."""
HOME_ATTEMPTS = 3
"""So often an agent dials its own lead before it tries another, lest a lost frame of a handshake moves it."""
MARKS_KEPT, LOG_LINES_KEPT = 64, 1_000
WARM_UP_TOPIC = "fleet.warm-up"


class SeededRandom:
    """Implements `host.core.clock.Random` from a seed: for simulation, where nobody is to be kept from guessing."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._dice.randbytes(size)


class SharedTrust(Trust):
    """One for a whole fleet: a chain is verified once and not by every peer, and nobody is forgotten for another peer's sources.

    What it hides: a source that was introduced to one peer is known to all.
    """

    def __init__(self, topology: Topology, now_s: Callable[[], int]) -> None:
        super().__init__([topology.authority.verify_key], now_s)
        self._sound: dict[tuple[bytes, ...], Claims] = {}

    def verify(self, chain: tuple[bytes, ...], what: str) -> Claims:
        claims = self._sound.get(chain)
        if claims is None:
            claims = self._sound[chain] = super().verify(chain, what)
        return claims

    def introduce(self, chain: tuple[bytes, ...]) -> Claims:
        claims = self.verify(chain, "certificate of a source")
        self._known[claims.key] = (claims, chain)
        return claims


class Marks:
    """What became of one message, by the agent's number, in true time (ms)."""

    __slots__ = ("acted_ms", "prepared", "ready_ms")

    def __init__(self) -> None:
        self.prepared: Counter[int] = Counter()
        """How often a handler was given it: once, if all is well."""
        self.ready_ms: dict[int, float] = {}
        self.acted_ms: dict[int, float] = {}


class SimulatedHandler:
    """Takes as long as `delays` say, then is READY. `mood` is its state, and `answer` the payload of what it acts on without T."""

    __slots__ = ("_agent", "_delays", "_fleet", "answer", "mood")

    def __init__(self, fleet: "VirtualFleet", agent: int, delays: AgentDelays | None) -> None:
        self._fleet, self._agent, self._delays = fleet, agent, delays
        self.mood, self.answer = "idle", b""

    def prepare(self, message: Message, done: Callable[[Outcome], None]) -> None:
        marks = self._fleet.marks_of(message.id)
        marks.prepared[self._agent] += 1
        self._work(message, self._prepared, marks, done)

    def act(self, message: Message, done: Callable[[Outcome], None]) -> None:
        marks = self._fleet.marks_of(message.id)
        if message.at_ms:
            self._acted(marks, done)
        else:
            marks.prepared[self._agent] += 1
            self._work(message, self._acted, marks, done)

    def state(self) -> str:
        return self.mood

    def _work(self, message: Message, then: Callable[..., None], marks: Marks, done: Callable[[Outcome], None]) -> None:
        if self._delays is None:
            then(marks, done)
        else:
            time = self._fleet.time
            time.call_at(time.now_ms() + self._delays.processing_ms(message.weight), then, marks, done)

    def _prepared(self, marks: Marks, done: Callable[[Outcome], None]) -> None:
        marks.ready_ms[self._agent] = self._fleet.time.now_ms()
        done(Outcome(READY))

    def _acted(self, marks: Marks, done: Callable[[Outcome], None]) -> None:
        marks.acted_ms[self._agent] = self._fleet.time.now_ms()
        done(Outcome(READY, payload=self.answer))


class VirtualFleet:
    """`agents` agents, their leads, coordinators and orchestrator. The same arguments and calls give the same `digest`.

    - `loss` is the share of frames that do not arrive once the fleet has started, 0 to 1; above 0, links are not reliable.
    - With `delays`, agents are as slow as sdk/mesh/delays.py says; without, a frame takes 1 ms and work no time.
    - `heartbeat_ms` is for agents; tiers send theirs at least every 5 s.
    - Each peer's own clock, but for the orchestrator's, is wrong by up to `clock_error_ms` either way.
    - `dead` is the share of agents that `start` kills once all have been there.

    An agent whose lead is gone goes to the next lead of its sector; leads and coordinators have one parent.
    """

    def __init__(
        self, agents: int, seed: int, *, loss: float = 0.0, delays: bool = False, heartbeat_ms: int = 5_000, clock_error_ms: float = 0.0,
        dead: float = 0.0,
    ) -> None:  # fmt: skip
        self.topology = Topology(agents, f"virtual-{seed}", int(START_MS / 1000))
        self.time = VirtualTime(START_MS)
        self.network = VirtualNetwork(self.time, seed, delay=self._delay_ms if delays else None, loss=loss and LOSS_MIN)
        self.log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self.killed: list[str] = []
        self.coordinators: list[TierPeer] = []
        self.leads: list[TierPeer] = []
        self.agents: list[AgentPeer] = []
        self.handlers: list[SimulatedHandler] = []
        self._loss, self._dead, self._clock_error_ms = loss, dead, clock_error_ms
        self._heartbeat_ms, self._tier_heartbeat_ms = heartbeat_ms, min(heartbeat_ms, TIER_HEARTBEAT_MS_MAX)
        self._dice = random.Random(f"{seed}/fleet")
        self._tokens = SeededRandom(seed)
        self._trust = SharedTrust(self.topology, lambda: int(self.time.now_ms() / 1000))
        self._delays: dict[str, AgentDelays] = {}
        self._marks: dict[bytes, Marks] = {}
        self._with_delays = delays
        name = ORCHESTRATOR
        self.orchestrator = Orchestrator(
            self.topology.identity(name, "orchestrator"), self._world(name, TIER_CLASS, clock_error_ms=0.0), heartbeat_ms=self._tier_heartbeat_ms,
            children_max=max(256, self.topology.sectors),
        )  # fmt: skip
        self.network.listen(name, self.orchestrator.children, self.orchestrator.children.admits)

    # Its life.

    def start(self) -> None:
        """Starts tier after tier, and runs until all are connected and the orchestrator has heard of every agent; then `dead` of them die."""
        topology = self.topology
        for sector in range(topology.sectors):
            self.coordinators.append(self._tier(topology.sector_name(sector), "coordinator", ORCHESTRATOR, self._tier_heartbeat_ms))
        self._run_until(lambda: all(map(_connected, self.coordinators)), "coordinators connected")
        for cluster in range(topology.clusters):
            sector_name = topology.sector_name(topology.sector_of(cluster))
            self.leads.append(self._tier(topology.cluster_name(cluster), "lead", sector_name, self._heartbeat_ms))
        self._run_until(lambda: all(map(_connected, self.leads)), "leads connected")
        for agent in range(topology.agents):
            self.agents.append(self._agent(agent))
        self._run_until(lambda: all(map(_connected, self.agents)), "agents connected")
        self._run_until(self._all_known, "agents known to the orchestrator")
        count = round(self._dead * topology.agents)
        self.network.loss = self._loss
        self.kill(topology.agent_name(agent) for agent in sorted(self._dice.sample(range(topology.agents), count)))

    def warm_up(self, rounds: int, weight: float = 0.0) -> list[Result]:
        """As many cascades to everybody, from whose answers the estimators learn; then waits until that is known at the top."""
        results = []
        for _ in range(rounds):
            results.append(self.cascade(Request(topic=WARM_UP_TOPIC, weight=weight)))
            self.time.run_for(PAUSE_MS)
        self.time.run_for(2.5 * self._tier_heartbeat_ms)
        return results

    def cascade(self, request: Request) -> Result:
        """Runs until its result is there."""
        return self.run(lambda done: self.orchestrator.broadcast(request, done))

    def run(self, operation: Callable[[Done], None]) -> Result:
        """Any operation of the orchestrator, until it is done: `fleet.run(lambda done: fleet.orchestrator.freeze(("*",), "a drill", done))`."""
        results: list[Result] = []
        operation(results.append)
        if not self.time.run_while(lambda: not results, OPERATION_MS_MAX):
            raise UsageError(f"the operation was not done after {OPERATION_MS_MAX / 1000:.0f} s of virtual time")
        return results[0]

    def kill(self, names: Iterable[str]) -> None:
        """Their processes die: their links break."""
        for name in names:
            self.killed.append(name)
            self.network.kill(name)

    def silence(self, names: Iterable[str]) -> None:
        """They hang: their links stand, and nothing comes back."""
        for name in names:
            self.network.silence(name)

    # What became of it.

    def digest(self) -> str:
        """Of all that went over the network so far."""
        return self.network.digest()

    def marks_of(self, message_id: bytes) -> Marks:
        """Those of one of the last 64 messages."""
        marks = self._marks.get(message_id)
        if marks is None:
            if len(self._marks) >= MARKS_KEPT:
                del self._marks[next(iter(self._marks))]
            marks = self._marks[message_id] = Marks()
        return marks

    def seen(self) -> list[bytes]:
        """The ids of the last 64 messages that reached a handler, in the order in which they first did."""
        return list(self._marks)

    def marks(self, result: Result) -> Marks:
        return self.marks_of(bytes.fromhex(result["id"]))

    def latencies_ms(self, result: Result) -> list[float]:
        """From the orchestrator's start of a cascade to each agent's READY, late ones too, in true time; in no order of use."""
        return [ready_ms - result["created_ms"] for ready_ms in self.marks(result).ready_ms.values()]

    def errors_ms(self, result: Result) -> list[float]:
        """When each agent was READY, less T: negative is early."""
        return [ready_ms - result["at_ms"] for ready_ms in self.marks(result).ready_ms.values()]

    def use_estimator(self, estimator: int) -> None:
        """BASE or LEARNED of the arrival kernel, at every lead. Higher tiers know subtrees, of which the base model knows nothing."""
        for lead in self.leads:
            lead.relay.estimator = estimator

    # Inside.

    def _world(self, name: str, agent_class: int, *, clock_error_ms: float) -> World:
        if self._with_delays:
            self._delays[name] = AgentDelays(agent_class, random.Random(f"{self.topology.seed}/{name}"))
        time = self.time.clock(self._dice.uniform(-clock_error_ms, clock_error_ms)) if clock_error_ms else self.time
        return World(time, self.network.transport(name), self._trust, self._tokens, self._dice, self._note)

    def _tier(self, name: str, role: Role, parent: str, heartbeat_ms: int) -> TierPeer:
        world = self._world(name, TIER_CLASS, clock_error_ms=self._clock_error_ms)
        tier = TierPeer(self.topology.identity(name, role), world, [parent], heartbeat_ms=heartbeat_ms)
        tier.registry.interval_ms = float(heartbeat_ms)
        self.network.listen(name, tier.children, tier.children.admits)
        return tier

    def _agent(self, agent: int) -> AgentPeer:
        topology = self.topology
        name, agent_class, cluster = topology.agent_name(agent), topology.agent_class(agent), topology.cluster_of(agent)
        world = self._world(name, agent_class, clock_error_ms=self._clock_error_ms)
        handler = SimulatedHandler(self, agent, self._delays.get(name))
        self.handlers.append(handler)
        parents = [topology.cluster_name(cluster)] * HOME_ATTEMPTS + [topology.cluster_name(self._next_lead(cluster))]
        return AgentPeer(topology.identity(name, "agent", agent_class), world, handler, parents)

    def _next_lead(self, cluster: int) -> int:
        """The one after it in its sector, and after the last the first; itself where it is alone."""
        sector = self.topology.sector_of(cluster)
        after = cluster + 1
        if after < self.topology.clusters and self.topology.sector_of(after) == sector:
            return after
        while cluster and self.topology.sector_of(cluster - 1) == sector:
            cluster -= 1
        return cluster

    def _all_known(self) -> bool:
        return self.orchestrator.map.totals(self.orchestrator.clock.now_ms()).active == self.topology.agents

    def _run_until(self, condition: Callable[[], bool], what: str) -> None:
        until_ms = self.time.now_ms() + START_MS_MAX
        while not condition():
            if self.time.now_ms() > until_ms:
                raise UsageError(
                    f"expected all {what} within {START_MS_MAX / 1000:.0f} s of virtual time; the last log lines: {list(self.log)[-3:]}"
                )
            self.time.run_for(CHECK_MS)

    def _delay_ms(self, dialler: str, listener: str, dice: random.Random) -> float:
        return self._delays[dialler].network_ms()

    def _note(self, level: str, line: str) -> None:
        self.log.append(f"{level}: {line}")


def _connected(peer: Peer) -> bool:
    return peer.uplink is not None and peer.uplink.connected
