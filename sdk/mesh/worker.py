"""One process of a local fleet: the root with its coordinators, some of the leads, or some of the agents, each with its own links over WebSocket.

The parent process speaks to it in lines of JSON: the specification first, then `{"do": …}`; every line gets one line back, and `{"progress": n}`
lines may come before. `python -m sdk.mesh.worker` starts it.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from host.core.clock import SystemRandom
from host.core.errors import Busy, SnapcountError
from host.mesh.agent import Handler, Outcome
from host.mesh.frames import READY
from host.mesh.gathering import Gathering
from host.mesh.link import Transport
from host.mesh.looptime import LoopTime, raise_file_limit
from host.mesh.message import Message
from host.mesh.orchestrator import Orchestrator, Request
from host.mesh.peer import AgentPeer, Peer, World
from host.mesh.tier import TierPeer
from host.mesh.trust import Trust
from host.mesh.websocket import Listener, WebSocketTransport
from sdk.mesh.delays import AgentDelays
from sdk.mesh.injected import DelayedTransport
from sdk.mesh.topology import ORCHESTRATOR, Topology

HOST = "127.0.0.1"
PROGRESS_S = 0.5
GATHERINGS_KEPT = 4


class Spec(msgspec.Struct, frozen=True):
    """What a worker is to be. `ports` are those of the processes that its peers dial: the root's for leads, the leads' for agents."""

    kind: str
    index: int
    of: int
    agents: int
    seed: str
    now_s: int
    heartbeat_ms: int
    ports: tuple[int, ...] = ()
    delays: bool = False
    folder: str = ""


class Ready(Handler):
    """An agent of a trial: ready at once, or after its class's processing time, and it answers a question with its name."""

    def __init__(self, name: str, time: LoopTime, delays: AgentDelays | None) -> None:
        self._name, self._time, self._delays = name.encode(), time, delays

    def prepare(self, message: Message, done: Callable[[Outcome], None]) -> None:
        if self._delays is None:
            done(Outcome(READY))
        else:
            self._time.call_at(self._time.now_ms() + self._delays.processing_ms(message.weight), done, Outcome(READY))

    def act(self, message: Message, done: Callable[[Outcome], None]) -> None:
        done(Outcome(READY, payload=b"" if message.routing == "broadcast" else self._name))

    def state(self) -> str:
        return "idle"


class Worker:
    """The peers of one process."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.topology = Topology(spec.agents, spec.seed, spec.now_s)
        self.time = LoopTime()
        self.transport = WebSocketTransport()
        self.dice = random.Random(f"{spec.seed}/{spec.kind}/{spec.index}")
        self.peers: list[Peer] = []
        self.listener: Listener | None = None
        self.gatherings: dict[bytes, list[Gathering]] = {}
        self.control: Any = None
        self._flooding: asyncio.Task[dict[str, int]]

    async def build(self) -> dict[str, Any]:
        """Makes the peers, which dial at once; the port that their children dial."""
        raise_file_limit(65_536)
        self._settle_on_a_core()
        match self.spec.kind:
            case "root":
                await self._root()
            case "leads":
                for cluster in range(self.spec.index, self.topology.clusters, self.spec.of):
                    parent = f"ws://{HOST}:{self.spec.ports[0]}/{self.topology.sector_name(self.topology.sector_of(cluster))}"
                    await self._tier(self.topology.cluster_name(cluster), "lead", parent)
            case _:
                self._agents()
        return {"port": self.listener.port if self.listener else 0}

    def _settle_on_a_core(self) -> None:
        """Leads and their agents share one: they hand each other every frame. The root goes wherever there is room."""
        cores = sorted(os.sched_getaffinity(0))
        if self.spec.kind != "root" and self.spec.of == len(cores) and not self.spec.delays:
            os.sched_setaffinity(0, {cores[self.spec.index]})

    def connected(self) -> int:
        return sum(peer.uplink is not None and peer.uplink.connected for peer in self.peers)

    async def stop(self) -> None:
        for peer in self.peers:
            if isinstance(peer, TierPeer):
                peer.stop()
            elif peer.uplink is not None:
                peer.uplink.stop()
        await self.transport.close()
        if self.control is not None:
            from host.mesh_routes import stop_control

            await stop_control(Path(self.spec.folder), self.control)

    def _trust(self) -> Trust:
        return Trust([self.topology.authority.verify_key], lambda: int(time.time()))

    def _world(self, trust: Trust | None = None, transport: Transport | None = None) -> World:
        return World(self.time, transport or self.transport, trust or self._trust(), SystemRandom(), self.dice, self._log)

    def _log(self, level: str, line: str) -> None:
        if level == "error" or os.environ.get("SNAPCOUNT_MESH_LOG"):
            print(f"{level} {line}", file=sys.stderr, flush=True)

    async def _root(self) -> None:
        identity = self.topology.identity(ORCHESTRATOR, "orchestrator")
        orchestrator = Orchestrator(identity, self._world(), heartbeat_ms=self.spec.heartbeat_ms, children_max=1024)
        self.peers.append(orchestrator)
        await self._listen(orchestrator)
        assert self.listener is not None
        for sector in range(self.topology.sectors):
            await self._tier(self.topology.sector_name(sector), "coordinator", f"ws://{HOST}:{self.listener.port}/{ORCHESTRATOR}")
        if self.spec.folder:
            from host.mesh_routes import mesh_routes, serve_control

            self.control = await serve_control(Path(self.spec.folder), mesh_routes(orchestrator))

    async def _tier(self, name: str, role: Any, parent: str) -> None:
        peer = TierPeer(self.topology.identity(name, role), self._world(), [parent], heartbeat_ms=self.spec.heartbeat_ms)
        peer.relay.watch = self._watch
        self.peers.append(peer)
        await self._listen(peer)

    async def _listen(self, peer: TierPeer) -> None:
        path = f"/{peer.identity.name}"
        if self.listener is None:
            self.listener = await self.transport.listen(HOST, 0, peer.children, path, admits=peer.children.admits)
        else:
            self.listener.add(path, peer.children, peer.children.admits)

    def _agents(self) -> None:
        leads = len(self.spec.ports)
        trusts: dict[int, Trust] = {}  # the agents of one lead hear of the same few tiers
        # Whole clusters, so that every lead's children are spread over few processes; the next lead's are another process's.
        for agent in range(self.spec.agents):
            cluster = self.topology.cluster_of(agent)
            if cluster % self.spec.of != self.spec.index:
                continue
            name, agent_class = self.topology.agent_name(agent), self.topology.agent_class(agent)
            delays = AgentDelays(agent_class, random.Random(f"{self.spec.seed}/{name}")) if self.spec.delays else None
            transport: Transport = self.transport if delays is None else DelayedTransport(self.transport, self.time, delays)
            address = f"ws://{HOST}:{self.spec.ports[cluster % leads]}/{self.topology.cluster_name(cluster)}"
            handler = Ready(name, self.time, delays)
            self.peers.append(
                AgentPeer(
                    self.topology.identity(name, "agent", agent_class),
                    self._world(trusts.setdefault(cluster, self._trust()), transport),
                    handler,
                    [address],
                )
            )

    def _watch(self, gathering: Gathering) -> None:
        self.gatherings.setdefault(gathering.message.id, []).append(gathering)
        while len(self.gatherings) > GATHERINGS_KEPT:
            del self.gatherings[next(iter(self.gatherings))]

    # What the parent process asks for.

    async def do(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "connected":
                return self.connected()
            case "settle":
                gc.collect()
                gc.freeze()  # what lives as long as the process is not looked at again
                return resident_bytes()
            case "stats":
                return self._stats()
            case "errors":
                return self._errors(bytes.fromhex(order["id"]))
            case "estimator":
                for peer in self.peers:
                    if isinstance(peer, TierPeer):
                        peer.relay.estimator = order["value"]
                return None
            case "flood":
                self._flooding = asyncio.create_task(self._flood(order["per_s"], order["seconds"], bytes(order["payload"])))
                return None
            case "flooded":
                return await self._flooding
            case "status":
                return self._orchestrator().status()
            case "broadcast" | "ask" as kind:
                return await self._operate(kind, msgspec.convert(order["request"], Request))
            case _:
                raise AssertionError(f"unknown order {order}")

    async def _flood(self, per_s: float, seconds: float, payload: bytes) -> dict[str, int]:
        """Messages of priority 0 to everybody, whatever becomes of them."""
        request = Request(topic="bench.noise", verb="observe", payload=payload, priority=0, in_ms=0.0, timeout_ms=2_000.0)
        started, sent, turned_away = self.time.now_ms(), 0, 0
        while (now_ms := self.time.now_ms()) - started < seconds * 1000:
            for _ in range(int((now_ms - started) * per_s / 1000) - sent - turned_away):
                try:
                    self._orchestrator().broadcast(request, lambda result: None)
                    sent += 1
                except Busy:
                    turned_away += 1
            await asyncio.sleep(0.01)
        return {"sent": sent, "turned_away": turned_away}

    def _orchestrator(self) -> Orchestrator:
        root = self.peers[0]
        assert isinstance(root, Orchestrator)
        return root

    async def _operate(self, kind: str, request: Request) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        getattr(self._orchestrator(), kind)(request, future.set_result)
        return await future

    def _stats(self) -> dict[str, Any]:
        refused: dict[str, int] = {}
        for peer in self.peers:
            for reason, count in peer.complaints.counts.items():
                refused[reason] = refused.get(reason, 0) + count
        heartbeats = sum(peer.children.heartbeats for peer in self.peers if isinstance(peer, TierPeer))
        return {
            "resident_bytes": resident_bytes(), "cpu_s": time.process_time(), "at_s": time.monotonic(), "refused": refused,
            "connected": self.connected(), "heartbeats": heartbeats,
        }  # fmt: skip

    def _errors(self, message_id: bytes) -> list[float]:
        """When each agent here was ready, less T, in ms; those that were too late to count are among them."""
        found = []
        for gathering in self.gatherings.get(message_id, ()):
            for slot in gathering.slots.values():
                if slot.member.role == "agent" and slot.ack is not None and slot.ack.state == READY and not slot.ack.acted:
                    found.append(round(slot.ack.done_ms - gathering.message.at_ms, 3))
        return found


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def serve() -> None:
    """Reads orders until stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = Worker(msgspec.json.decode(await reader.readline(), type=Spec))
    say(await worker.build())
    while line := await reader.readline():
        order = json.loads(line)
        try:
            say({"result": await worker.do(order)})
        except SnapcountError as error:
            say({"error": str(error), "code": error.code})
    await worker.stop()


if __name__ == "__main__":
    gc.set_threshold(50_000, 50, 100)  # thousands of peers make many short-lived objects, and hardly any cycles
    uvloop.run(serve())
