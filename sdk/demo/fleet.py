"""A fleet on this machine: a registry and nodes as processes of their own, with real sockets and real files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from host import config, identity
from host.console.client import NodeControl
from host.core import keys
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import NetworkError
from host.daemon import CRASH_AT
from host.installed import measure_host
from host.mesh.frames import Role
from registry.server import operator_key

START_S_MAX = 60.0
STOP_S_MAX = 10.0
POLL_S = 0.05
GENERATIONS = 3
REGISTRY = "registry"
SMALLER_GENERATION, FULL_X_MM, SMALLER_X_MM = 2, 300.0, 220.0
ORCHESTRATOR, CLUSTER_NODES, HEARTBEAT_S = "orchestrator", 6, 0.5
ALLOWED = ("log", "clock", "random", "state", "motion")


class LocalFleet:
    """A folder with a registry and `nodes` nodes. Used with `with`: every process it started has ended afterwards."""

    def __init__(self, folder: Path, nodes: int, author: SigningKey) -> None:
        self.folder = folder
        self.names = [f"node-{i + 1:02d}" for i in range(nodes)]
        self.owner = SigningKey(os.urandom(keys.SEED_BYTES))
        (folder / REGISTRY).mkdir(exist_ok=True)
        self.operator = operator_key(folder / REGISTRY)
        self.url = ""
        self._author = author
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts the registry, the tiers of the mesh and the nodes. Raises NetworkError when one does not come up."""
        self.start_registry()
        root = self._start_tier(ORCHESTRATOR, "orchestrator", ())
        parents = [self._start_tier(f"lead-{i + 1}", "lead", (root,)) for i in range(-(-len(self.names) // CLUSTER_NODES))]
        for i, name in enumerate(self.names):
            mesh = config.Mesh(role="agent", parents=(parents[i // CLUSTER_NODES],), heartbeat_s=HEARTBEAT_S)
            self._create(name, i % GENERATIONS + 1, self.url, ALLOWED, mesh, sector=f"hall-{i // CLUSTER_NODES + 1}")
            self.start_node(name)
        self.wait_for("every node to connect", lambda: all(self.status(name)["registry"]["connected"] for name in self.names))

    def _start_tier(self, name: str, role: Role, parents: tuple[str, ...]) -> str:
        """A tier is a node like the others, with another role; the address that its children dial."""
        self._create(name, 1, "", ALLOWED, config.Mesh(role=role, parents=parents, listen="127.0.0.1:0", heartbeat_s=HEARTBEAT_S))
        self.start_node(name)
        self.wait_for(f"{name} to listen", lambda: bool(self.status(name)["mesh"]["listening"]))
        return f"ws://{self.status(name)['mesh']['listening']}"

    def _create(self, name: str, generation: int, registry: str, allowed: tuple[str, ...], mesh: config.Mesh, sector: str = "") -> None:
        owner, trusted = keys.public_text(self.owner.verify_key), (keys.public_text(self._author.verify_key),)
        # What the registry announces is taken as well: a demo need not roll out in stages what it only wants to be there.
        toml = config.template(
            name, owner, generation, registry, trusted, allowed, ("virtual_machine",), mesh, sector=sector,
            operators=(keys.public_text(self.operator.verify_key),), announcements=True,
        )  # fmt: skip
        identity.create(self.state(name), toml, self.owner, SystemClock(), SystemRandom())
        if generation == SMALLER_GENERATION:
            self._make_smaller(self.state(name))

    def _make_smaller(self, state: Path) -> None:
        """The older machines have a shorter x axis, as their owner signs."""
        path = state / identity.SAFETY
        path.write_text(path.read_text().replace(f"x = [0.0, {FULL_X_MM}]", f"x = [0.0, {SMALLER_X_MM}]"))
        identity.sign_safety(state, self.owner)

    def start_registry(self, port: int = 0) -> None:
        """Starts the registry and waits until it listens."""
        log = self.folder / "registry.log"
        process = self._spawn(
            "registry", log, ["registry", "serve", "--dir", str(self.folder / REGISTRY), "--port", str(port), "--json"], {}
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise NetworkError(f"the registry did not start; see {log}")
        self.url = json.loads(line)["url"]

    def start_node(self, name: str, crash_at: str = "") -> None:
        """Starts a node's process; with `crash_at` it kills itself at that point of an install."""
        development = [] if measure_host().sealed else ["--development"]
        extra = {CRASH_AT: crash_at} if crash_at else {}
        self._spawn(name, self.folder / f"{name}.log", ["node", "run", "--state", str(self.state(name)), *development], extra)

    def stop(self, name: str) -> None:
        """Stops one process, and waits for its end."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def ended(self, name: str) -> int | None:
        """How a process ended, None while it runs."""
        return self._processes[name].poll()

    def state(self, name: str) -> Path:
        return self.folder / name

    def control(self, name: str) -> NodeControl:
        return NodeControl(self.state(name))

    def status(self, name: str) -> dict[str, Any]:
        """The node's own status. Raises NetworkError when it does not run."""
        found: dict[str, Any] = self.control(name).get("/v1/status")
        return found

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = START_S_MAX) -> None:
        """Polls until the condition holds; a node that is not up yet counts as not yet."""
        until = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except NetworkError:
                pass
            for name, process in self._processes.items():
                if process.poll() not in (None, -signal.SIGKILL):
                    raise NetworkError(f"{name} ended while waiting for {what}: {self._last_words(name)}")
            if time.monotonic() > until:
                raise NetworkError(f"waited {seconds:g} s for {what}; the logs are in {self.folder}")
            time.sleep(POLL_S)

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _spawn(self, name: str, log: Path, arguments: list[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sdk.cli.main", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if name == "registry" else sink, stderr=sink,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])} | extra,
            )  # fmt: skip
        self._processes[name] = process
        return process

    def __enter__(self) -> "LocalFleet":
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for name in list(self._processes):
            self.stop(name)
