"""From signing a quarantine policy to the refused call, at every node of a tree of 300 agents on this machine.

An orchestrator, a coordinator, ten leads and 300 agents in a few processes, over real WebSockets; each has a policy store on disk, and each agent a skill in
the sandbox behind pluggy, which it calls as soon as a policy has been taken. The clock runs from before the policy is signed until that call was refused.
`p50_ms`, `p99_ms` and `worst_ms` are over all agents and rounds; `loaded_*` the same while `load_per_s` messages of 1 KiB go to everybody each second,
which is `deliveries_per_s` at the agents. After each round the policy is lifted, and the call succeeds again.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import uvloop
import wasmtime
from common import report

from host.core import cbor, quarantine
from host.core.bundle import digest_of
from host.core.capabilities import Grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import Quarantined, SnapcountError
from host.core.manifest import Manifest
from host.core.quarantine import Disable, Lift
from host.mesh.peer import World
from host.plugins.adapter import SkillVersion
from host.plugins.contract import BidReply
from host.plugins.manager import PluginManager
from host.sandbox.engine import default_engine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
from host.supply.policies import PolicyStore
from sdk.demo.samples import BID
from sdk.mesh.fleet import CONNECT_S_MAX, LocalMesh, Process
from sdk.mesh.topology import Topology
from sdk.mesh.worker import Spec, Worker, say

NODES = 300
ROUNDS = 20
PAUSE_S = 0.2
LOAD_PER_S, LOAD_BYTES, LOAD_S = 10.0, 1024, 20.0
PROCESSES = 2  # for the leads, and as many for the agents
REPLY = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="1.0.0", reason="bench"))
SKILL = f"""(module (memory (export "memory") 1) (data (i32.const 1024) "{"".join(f"{chr(92)}{byte:02x}" for byte in REPLY)}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_bid") (param i32 i32) (result i64) (i64.const {1024 << 32 | len(REPLY)})))"""
MANIFEST = Manifest(name="bench", version="1.0.0", hooks=("bid",))


def operator(topology: Topology) -> Any:
    return topology.key("/operator")


class Policed:
    """What a node does with policies: holds them, has its calls meet them, and saves them off the event loop."""

    def __init__(self, folder: Path, topology: Topology, module: wasmtime.Module | None, saver: ThreadPoolExecutor) -> None:
        self.manager, self._saver = PluginManager(), saver
        self.refused_ns = 0
        if module is not None:
            clock, random, nothing = SystemClock(), SystemRandom(), Grant(frozenset())
            services = HostServices("bench 1.0.0", nothing, clock, random, log=lambda level, line: None)
            loaded = LoadedSkill(default_engine(), module, MANIFEST, nothing, services)
            self.manager.activate(SkillVersion(loaded, digest_of(REPLY), services))
        key = operator(topology).verify_key
        self.store = PolicyStore(folder, [key], SystemClock(), self.manager.police, lambda level, line: None)

    def take(self, document: bytes) -> bool:
        news = self.store.take(document)
        if news:
            self._call()
            self._saver.submit(self.store.save)
        return news

    def _call(self) -> None:
        try:
            self.manager.hook.bid(request=BID)
            self.refused_ns = 0
        except Quarantined:
            self.refused_ns = time.monotonic_ns()


class PolicedWorker(Worker):
    """A process of a local fleet whose peers hold policies."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.policed: list[Policed] = []
        self.saver = ThreadPoolExecutor(1)  # hundreds of nodes share this machine's disk
        self.module = wasmtime.Module(default_engine().engine, wasmtime.wat2wasm(SKILL)) if spec.kind == "agents" else None

    def _world(self, *arguments: Any, **options: Any) -> World:
        world = super()._world(*arguments, **options)
        folder = Path(os.environ["SNAPCOUNT_BENCH"]) / f"{self.spec.kind}-{self.spec.index}-{len(self.policed)}"
        made = Policed(folder, self.topology, self.module, self.saver)
        self.policed.append(made)
        world.police, world.policies = made.take, made.store.documents
        return world

    async def do(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "quarantine":
                future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self._orchestrator().quarantine(bytes.fromhex(order["document"]), future.set_result)
                return await future
            case "refused":
                return [made.refused_ns for made in self.policed]
            case _:
                return await super().do(order)


class PolicedProcess(Process):
    def __init__(self, spec: Spec) -> None:
        self.name = f"{spec.kind} {spec.index + 1} of {spec.of}"
        self._popen = subprocess.Popen(
            [sys.executable, __file__, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}, start_new_session=True,
        )  # fmt: skip
        self._write(msgspec.to_builtins(spec))


class PolicedMesh(LocalMesh):
    def _spawn(self, kind: str, of: int, ports: tuple[int, ...]) -> list[Process]:
        topology = self.topology
        made: list[Process] = [
            PolicedProcess(Spec(kind, index, of, topology.agents, topology.seed, topology.now_s, int(self.heartbeat_s * 1000), ports))
            for index in range(of)
        ]
        self.processes += made
        return made

    def refused_ns(self) -> list[int]:
        """When each agent's call was refused; 0 where it was answered."""
        return [at_ns for process in self._agents for at_ns in process.ask(do="refused")]


async def serve() -> None:
    """A worker: reads orders until stdin ends, as sdk/mesh/worker.py does."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = PolicedWorker(msgspec.json.decode(await reader.readline(), type=Spec))
    say(await worker.build())
    while line := await reader.readline():
        try:
            say({"result": await worker.do(json.loads(line))})
        except SnapcountError as error:
            say({"error": str(error), "code": error.code})
    await worker.stop()


def rounds(mesh: PolicedMesh, what: str) -> tuple[list[float], int]:
    """How long it took at each agent, in ms, and how many bytes a policy has."""
    took, size = [], 0
    for number in range(ROUNDS):
        started_ns = time.monotonic_ns()
        policy = Disable(id=f"{what}-{number}", issued_ms=SystemClock().now_ms(), skill="bench", versions="<2.0.0", reason="a drill")
        document = quarantine.sign(policy, operator(mesh.topology))
        size = len(document)
        mesh.root.ask(do="quarantine", document=document.hex())
        refused_ns = mesh.refused_ns()
        assert all(refused_ns), f"{refused_ns.count(0)} of {len(refused_ns)} agents did not refuse their call"
        took += [(at_ns - started_ns) / 1e6 for at_ns in refused_ns]
        lift = Lift(id=f"{what}-lift-{number}", issued_ms=SystemClock().now_ms(), lifts=policy.id)
        mesh.root.ask(do="quarantine", document=quarantine.sign(lift, operator(mesh.topology)).hex())
        assert not any(mesh.refused_ns()), "a call was refused after the lift"
        time.sleep(PAUSE_S)
    return took, size


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1)


def figures(took: list[float], prefix: str = "") -> dict[str, float]:
    return {f"{prefix}p50_ms": quantile(took, 0.5), f"{prefix}p99_ms": quantile(took, 0.99), f"{prefix}worst_ms": round(max(took), 1)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SNAPCOUNT_BENCH"] = folder
        mesh = PolicedMesh(NODES, heartbeat_s=5.0, delays=False, folder=None, seed="quarantine", workers=PROCESSES)
        try:
            mesh.start(lambda connected, what: None)
            mesh.wait_for_summaries(CONNECT_S_MAX)
            mesh.all(do="settle")
            quiet, size = rounds(mesh, "quiet")
            mesh.root.ask(do="flood", per_s=LOAD_PER_S, seconds=LOAD_S, payload=LOAD_BYTES)
            time.sleep(1.0)
            loaded, _ = rounds(mesh, "loaded")
            flood = mesh.root.ask(do="flooded")
        finally:
            mesh.end()
    report(
        {"nodes": NODES, "tiers": 3, "rounds": ROUNDS, "policy_bytes": size} | figures(quiet) | figures(loaded, "loaded_")
        | {"load_per_s": LOAD_PER_S, "deliveries_per_s": LOAD_PER_S * NODES, "load_sent": flood["sent"], "load_turned_away": flood["turned_away"]}
    )  # fmt: skip


if sys.argv[1:2] == ["worker"]:
    uvloop.run(serve())
else:
    main()
