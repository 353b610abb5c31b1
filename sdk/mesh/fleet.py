"""A local fleet of any size, as processes: starts them, shows how far they are, and passes orders on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from host.core.errors import HostFault, NetworkError, SnapcountError, UsageError
from host.mesh.looptime import raise_file_limit
from sdk.mesh.topology import Topology
from sdk.mesh.worker import Spec

LINKS_PER_PROCESS = 15_000
SMALL = 1_000
FILES_SPARE = 1_500
CONNECT_S_MAX = 300.0
STOP_S_MAX = 20.0
POLL_S = 0.25
HEARTBEAT_S_LARGE, LARGE = 120.0, 10_000


class Process:
    """One worker."""

    def __init__(self, spec: Spec) -> None:
        self.name = f"{spec.kind} {spec.index + 1} of {spec.of}"
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk.mesh.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}, start_new_session=True,
        )  # fmt: skip
        self._write(msgspec.to_builtins(spec))

    def port(self) -> int:
        port: int = self._read()["port"]
        return port

    def tell(self, **order: Any) -> None:
        self._write(order)

    def answer(self) -> Any:
        """Raises the worker's own error as NetworkError."""
        said = self._read()
        if "error" in said:
            raise UsageError(said["error"]) if said["code"] == UsageError.code else NetworkError(said["error"])
        return said["result"]

    def ask(self, **order: Any) -> Any:
        self.tell(**order)
        return self.answer()

    def end(self) -> None:
        assert self._popen.stdin is not None and self._popen.stdout is not None
        try:
            self._popen.stdin.close()
            self._popen.wait(STOP_S_MAX)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._popen.kill()
            self._popen.wait()
        self._popen.stdout.close()

    def _write(self, value: Any) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(value).encode() + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError as error:
            raise HostFault(f"the process of {self.name} has ended; what it said stands above") from error

    def _read(self) -> Any:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise HostFault(f"the process of {self.name} has ended; what it said stands above")
        return json.loads(line)


class LocalMesh:
    """Made with `local_mesh`. `root` has the orchestrator and the coordinators."""

    def __init__(self, agents: int, *, heartbeat_s: float, delays: bool, folder: Path | None, seed: str, workers: int) -> None:
        self.topology = Topology(agents, seed, int(time.time()))
        self.heartbeat_s = heartbeat_s
        self._delays, self._folder = delays, folder
        self._workers = workers or (1 if agents <= SMALL else max(2, -(-agents // LINKS_PER_PROCESS)))
        self.processes: list[Process] = []
        self.root: Process
        self.leads: list[Process] = []
        self._agents: list[Process] = []

    def start(self, progress: Callable[[int, str], None]) -> None:
        """Starts all processes, and waits until every peer is connected. Raises NetworkError, HostFault."""
        workers = self._workers
        self._check_files(-(-self.topology.agents // workers))
        (self.root,) = self._spawn("root", 1, ())
        root_port = self.root.port()
        self.leads = self._spawn("leads", workers, (root_port,))
        ports = tuple(process.port() for process in self.leads)
        self._await(self.leads, self.topology.clusters, "leads", progress)
        self._agents = self._spawn("agents", workers, ports)
        for process in self._agents:
            process.port()
        self._await(self._agents, self.topology.agents, "agents", progress)

    def connected(self) -> int:
        return sum(process.ask(do="connected") for process in self._agents)

    def all(self, **order: Any) -> list[Any]:
        """The answers of every process."""
        for process in self.processes:
            process.tell(**order)
        return [process.answer() for process in self.processes]

    def wait_for_summaries(self, seconds_max: float) -> int:
        """Waits until the orchestrator's map knows every agent; how many it knows."""
        until = time.monotonic() + seconds_max
        while True:
            known: int = self.root.ask(do="status")["agents"]["active"]
            if known >= self.topology.agents or time.monotonic() > until:
                return known
            time.sleep(POLL_S)

    def end(self) -> None:
        for process in reversed(self.processes):
            process.end()

    def _spawn(self, kind: str, of: int, ports: tuple[int, ...]) -> list[Process]:
        made = []
        for index in range(of):
            spec = Spec(
                kind, index, of, self.topology.agents, self.topology.seed, self.topology.now_s, int(self.heartbeat_s * 1000), ports, self._delays,
                str(self._folder) if self._folder is not None and kind == "root" else "",
            )  # fmt: skip
            made.append(Process(spec))
            self.processes.append(made[-1])
        return made

    def _await(self, processes: list[Process], wanted: int, what: str, progress: Callable[[int, str], None]) -> None:
        until = time.monotonic() + CONNECT_S_MAX
        while (connected := sum(process.ask(do="connected") for process in processes)) < wanted:
            progress(connected, what)
            if time.monotonic() > until:
                raise NetworkError(f"only {connected} of {wanted} {what} connected in {CONNECT_S_MAX:.0f} s")
            time.sleep(POLL_S)
        progress(connected, what)

    def _check_files(self, links: int) -> None:
        wanted = links + FILES_SPARE
        found = raise_file_limit(wanted)
        if found < wanted:
            raise HostFault(
                f"each process needs {wanted} open files, and may have {found}; raise the limit (`ulimit -n {wanted}`, or `nofile` in "
                "/etc/security/limits.conf), or take fewer agents"
            )


@contextmanager
def local_mesh(
    agents: int, progress: Callable[[int, str], None], *, heartbeat_s: float | None = None, delays: bool = False, folder: Path | None = None,
    seed: str = "snapcount", workers: int = 0,
) -> Iterator[LocalMesh]:  # fmt: skip
    """A running fleet; every process of it has ended afterwards. Heartbeats every 5 s, in large fleets every 120: it all shares one machine."""
    mesh = LocalMesh(
        agents,
        heartbeat_s=heartbeat_s or (HEARTBEAT_S_LARGE if agents > LARGE else 5.0),
        delays=delays,
        folder=folder,
        seed=seed,
        workers=workers,
    )
    try:
        mesh.start(progress)
        yield mesh
    finally:
        try:
            mesh.end()
        except SnapcountError:
            pass
