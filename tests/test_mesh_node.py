"""Nodes in a mesh, as processes of their own with real sockets: skills that answer, freezes that outlive a kill, and what is refused."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey
from typer.testing import CliRunner, Result

import host
from host import config, identity
from host.console import histogram, mesh
from host.console.client import NodeControl
from host.console.panel import node_lines
from host.core import cbor, files, keys, toml
from host.core.attestation import Measurement
from host.core.bundle import with_signature
from host.core.certificate import verify_chain
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import MalformedData, NetworkError, SnapcountError, StateDamaged, StorageFull, UnknownSender, UsageError
from host.mesh.frames import CONFLICT, HISTOGRAM_MS, READY
from host.mesh.freeze import FrozenState, encode
from host.mesh.message import Author
from host.mesh.orchestrator import Orchestrator
from host.mesh_routes import mesh_routes, serve_control, stop_control
from host.meshlink import FROZEN, MeshLink, NodeHandler, outcome_of
from host.node import Node
from host.plugins.contract import HandleReply
from sdk.cli.main import app
from skills import module_path

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
WAIT_S = 30.0
HEARTBEAT_S = 0.3
JOB = {"feed_mm_min": 600.0, "job": "frame-7", "to_mm": [10.0, 20.0, 5.0]}
SKILL = "cell-start"
OneLine = Callable[..., str]


def until(condition: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def place(role: str, **more: Any) -> config.Mesh:
    return msgspec.convert({"role": role, "heartbeat_s": HEARTBEAT_S, "class": "A"} | more, config.Mesh)


def make(path: Path, name: str, owner: SigningKey, author: SigningKey, settings: config.Mesh) -> Path:
    """A node's state directory; agents have the skill cell-start already."""
    allowed = ("log", "clock", "random", "state", "motion")
    public = keys.public_text(owner.verify_key)
    text = config.template(name, public, 1, "", (keys.public_text(author.verify_key),), allowed, ("virtual_machine",), settings)
    identity.create(path, text, owner, SystemClock(), SystemRandom())
    if settings.role == "agent":
        data = with_signature(module_path(SKILL).read_bytes(), author, SKILL)
        node = Node.open(path, MEASURED, log=lambda level, line: None)
        asyncio.run(node.install(data, f"sha256:{hashlib.sha256(data).hexdigest()}"))
        node.close()
    return path


class Daemon:
    """`snapcount node run` on one state directory."""

    def __init__(self, state: Path) -> None:
        self.state, self.control = state, NodeControl(state)
        self.start()

    def start(self) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--state", str(self.state), "--development"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)

    def mesh(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.control.get("/v1/status")["mesh"] or {}
        except NetworkError:
            assert self.process.poll() is None, self.said
            return {}
        return found

    def connected(self) -> bool:
        return bool(self.mesh().get("connected"))

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = 0) -> None:
        """Waits for its end, after a signal if there is to be one."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(WAIT_S)
        self.reader.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@dataclass
class Fleet:
    """An orchestrator, a lead and two agents."""

    orchestrator: Daemon
    lead: Daemon
    agents: tuple[Daemon, Daemon]
    folder: Path

    @property
    def all(self) -> tuple[Daemon, ...]:
        return (self.orchestrator, self.lead, *self.agents)

    def settled(self) -> None:
        """Both agents are there, and the orchestrator knows."""
        until(lambda: all(daemon.connected() for daemon in (self.lead, *self.agents)), "all to be connected")
        until(lambda: self.status()["agents"]["active"] == 2, "two active agents")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.orchestrator.control.get("/v1/mesh/status")
        return status

    def cli(self, command: str, *arguments: object, code: int = 0, state: Path | None = None) -> str:
        ended: Result = CliRunner().invoke(app, ["fleet", command, *map(str, arguments), "--state", str(state or self.orchestrator.state)])
        assert ended.exit_code == code, f"{ended.exit_code}: {ended.output} {ended.exception!r}"
        return ended.output

    def asked(self, command: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.cli(command, *arguments, "--json", code=code).strip().splitlines()[-1])
        return result


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, owner: SigningKey, author: SigningKey) -> Iterator[Fleet]:
    if not module_path(SKILL).exists():
        pytest.skip(f"{SKILL} was not built")
    folder = tmp_path_factory.mktemp("fleet")
    root, tier = (f"127.0.0.1:{free_port()}" for _ in range(2))
    states = [
        make(folder / "orchestrator", "orchestrator", owner, author, place("orchestrator", listen=root)),
        make(folder / "lead-1", "lead-1", owner, author, place("lead", parents=[f"ws://{root}"], listen=tier)),
        *(make(folder / name, name, owner, author, place("agent", parents=[f"ws://{tier}"])) for name in ("cell-1", "cell-2")),
    ]
    daemons = [Daemon(state) for state in reversed(states)]  # the agents first: their parents come later
    fleet = Fleet(daemons[3], daemons[2], (daemons[1], daemons[0]), folder)
    try:
        fleet.settled()
        yield fleet
    finally:
        for daemon in fleet.all:
            daemon.process.send_signal(signal.SIGTERM)
        for daemon in fleet.all:
            daemon.end()
    assert all(daemon.process.returncode == 0 for daemon in fleet.all), [daemon.said for daemon in fleet.all]


def moves(daemon: Daemon) -> int:
    count: int = daemon.control.get("/v1/status")["machines"]["motion"]["moves"]
    return count


# ---- a fleet of processes ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cascade_starts_every_cell_at_the_same_moment_and_shows_how_exactly(fleet):
    before = [moves(agent) for agent in fleet.agents]
    shown = fleet.cli("broadcast", "cell.start", "--json-payload", json.dumps(JOB), "--in", "1.5", "--window-ms", "400")
    assert shown.startswith("SUCCESS: 2 of 2 ready")
    assert "2 acted" in shown
    assert "acted, before or after T:" in shown
    assert "█" in shown
    assert [moves(agent) for agent in fleet.agents] == [count + 1 for count in before]


@pytest.mark.slow
def test_a_cell_in_conflict_is_named_with_what_its_skill_said(fleet):
    payload = cbor.encode(JOB | {"job": "in-the-way"})
    agent = fleet.agents[0]
    in_the_way = {
        "at_ms": int(time.time() * 1000) + 60_000, "correlation": _base64(b"j" * 16), "id": _base64(b"j" * 16), "payload": _base64(payload), "phase": "prepare",
        "priority": 2, "source": "lead-1", "topic": "cell.start", "verb": "act", "weight": 0.0,
    }  # fmt: skip
    agent.control.post("/v1/hooks/handle", json.dumps(in_the_way).encode())
    shown = fleet.cli("broadcast", "cell.start", "--json-payload", json.dumps(JOB), "--in", "1.5", "--window-ms", "400", code=50)
    assert shown.startswith("PARTIAL: 1 of 2 in conflict")
    assert "conflict at cell-1: conflict: " in shown
    assert "in-the-way" in shown
    assert fleet.cli("broadcast", "cell.clear", "--in", "0").startswith("SUCCESS")
    until(lambda: fleet.status()["conflicts_hour"] >= 1, "the conflict to be reported")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.slow
def test_asking_gives_each_agents_answer_decoded(fleet):
    shown = fleet.cli("ask", "cell.inventory")
    assert 'cell-1: {"job": "", "started": ' in shown
    assert 'cell-2: {"job": "", "started": ' in shown
    chain = fleet.asked("ask", "cell.inventory", "--pipeline", "cell-1,cell-2")
    assert [step["target"] for step in chain["steps"]] == ["cell-1", "cell-2"]
    one = fleet.asked("delegate", "cell.inventory", "--capability", "motion", "--count", "1", "--verb", "observe")
    assert len(one["delegated"]) == 1
    assert one["ready"] == 1
    nobody = fleet.asked("ask", "cell.nonsense", code=50)
    assert {reply["code"] for reply in nobody["replies"]} == {"unhandled"}


@pytest.mark.slow
def test_the_panel_shows_what_an_operator_wants(fleet):
    fleet.cli("broadcast", "cell.clear", "--in", "0")
    lines = until(lambda: _healthy(fleet), "a healthy sector").splitlines()
    words = [line.split()[0] for line in lines]
    assert words[:8] == ["orchestrator", "agents", "sectors", "impedance", "lead", "conflicts", "mode", "cascade"]
    assert "2 active of 2" in lines[1]
    assert "cell.clear: SUCCESS, 2 of 2 ready" in lines[7]
    place_of_an_agent = "\n".join(node_lines(fleet.agents[0].control.get("/v1/status")))
    assert "agent, child of lead-1" in place_of_an_agent
    assert "ms to fleet time, ±" in place_of_an_agent
    assert "1 of 1 children connected" in "\n".join(node_lines(fleet.orchestrator.control.get("/v1/status")))


def _healthy(fleet: Fleet) -> str:
    shown = fleet.cli("status")
    return shown if "1 healthy of 1" in shown else ""


@pytest.mark.slow
def test_a_freeze_outlives_the_kill_of_whoever_is_frozen_until_the_thaw(fleet):
    agent = fleet.agents[1]
    assert fleet.cli("freeze", "lead-1", "--reason", "coolant leak").startswith("SUCCESS")
    assert (agent.state / FROZEN).exists()
    for daemon in (fleet.lead, agent):
        daemon.kill()
        daemon.start()
    until(lambda: all(daemon.connected() for daemon in (fleet.lead, *fleet.agents)), "all to be back")
    assert agent.mesh()["frozen"]["reason"] == "coolant leak"
    assert fleet.lead.mesh()["frozen"]["reason"] == "coolant leak"
    shown = fleet.cli("broadcast", "cell.clear", "--in", "0", code=50)
    assert "conflict" in shown
    until(lambda: "lead-1: frozen" in fleet.cli("status"), "the panel to show the freeze")
    assert fleet.cli("thaw", "lead-1").startswith("SUCCESS")
    until(lambda: not agent.mesh()["frozen"] and not (agent.state / FROZEN).exists(), "the thaw")
    fleet.settled()
    assert fleet.cli("broadcast", "cell.clear", "--in", "0").startswith("SUCCESS")


@pytest.mark.slow
def test_an_agent_sends_to_another_and_may_not_command(fleet):
    state = ["--state", str(fleet.agents[0].state)]
    sent = CliRunner().invoke(app, ["node", "send", "--to", "cell-2", "--topic", "cell.inventory", *state])
    assert sent.exit_code == 0, sent.output
    assert "cell.inventory for cell-2: sent" in sent.output
    commanded = CliRunner().invoke(app, ["node", "send", "--to", "cell-2", "--topic", "cell.clear", "--verb", "act", *state])
    assert "may not send the verb act" in str(commanded.exception)
    assert "children" in fleet.lead.mesh()


@pytest.mark.slow
def test_who_does_not_answer_is_named_and_the_command_says_so_to_its_shell(fleet):
    silent = fleet.agents[1]
    silent.process.send_signal(signal.SIGSTOP)
    try:
        shown = fleet.cli("ask", "cell.inventory", "--timeout", "3", code=50)
    finally:
        silent.process.send_signal(signal.SIGCONT)
    assert shown.startswith("PARTIAL: 1 of 2 ready")
    assert "  missing: cell-2\n" in shown
    fleet.settled()
    assert fleet.cli("ask", "cell.inventory", "--ready-min", "0.5").startswith("SUCCESS")


@pytest.mark.slow
def test_an_orchestrator_that_is_told_to_stop_does_not_wait_for_the_fleet(fleet):
    silent, ended = fleet.agents[1], []
    silent.process.send_signal(signal.SIGSTOP)
    try:
        asking = threading.Thread(
            target=lambda: ended.append(CliRunner().invoke(app, [*question, "--state", str(fleet.orchestrator.state)]))
        )
        question = ["fleet", "ask", "cell.inventory", "--timeout", "60"]
        asking.start()
        until(fleet.agents[0].mesh, "a moment to pass")
        began = time.monotonic()
        fleet.orchestrator.end(signal.SIGTERM)
        assert time.monotonic() - began < 15
        asking.join(WAIT_S)
    finally:
        silent.process.send_signal(signal.SIGCONT)
        fleet.orchestrator.start()
    assert isinstance(ended[0].exception, SnapcountError)
    fleet.settled()


@pytest.mark.slow
def test_what_cannot_be_asked_is_one_line(fleet, one_line):
    for command, arguments, code, said in [
        ("broadcast", ["cell.start", "--to", "nobody"], 2, "nobody here is called nobody"),
        ("broadcast", ["Not a topic"], 2, "topic"),
        ("broadcast", ["x.go", "--strategy", "sideways"], 2, "strategy"),
        ("broadcast", ["x.go", "--strategy", "priority_first"], 2, "who is first"),
        ("broadcast", ["x.go", "--json-payload", "{"], 2, "--json-payload"),
        ("broadcast", ["x.go", "--payload", "a", "--json-payload", "{}"], 2, "one payload"),
        ("delegate", ["x.go", "--capability", "teleport"], 20, "0 found"),
        ("freeze", [], 2, "--all"),
    ]:  # fmt: skip
        ended = CliRunner().invoke(app, ["fleet", command, *arguments, "--state", str(fleet.orchestrator.state)])
        assert isinstance(ended.exception, SnapcountError), (command, arguments, ended.output, ended.exception)
        assert ended.exception.exit_code == code
        one_line(ended.exception, said)
    with pytest.raises(SnapcountError, match="ask the orchestrator"):
        fleet.agents[0].control.get("/v1/mesh/status")
    with pytest.raises(SnapcountError, match="is an orchestrator; it speaks with"):
        fleet.orchestrator.control.post("/v1/mesh/send", b'{"topic": "x.note", "targets": ["cell-1"]}')


@pytest.mark.slow
def test_a_node_with_a_certificate_by_another_owner_is_refused_and_counted(fleet, author):
    stranger = SigningKey(b"x" * 32)
    parent = config.load(fleet.agents[0].state).mesh.parents[0]
    mine = keys.public_text(stranger.verify_key)
    daemon = Daemon(make(fleet.folder / "cell-9", "cell-9", stranger, author, place("agent", parents=[parent], authorities=[mine])))
    try:
        until(lambda: fleet.lead.mesh()["refused"].get("certificate_invalid"), "the lead to refuse it")
        assert not daemon.connected()
        assert daemon.control.get("/v1/status")["node"] == "cell-9", "the node itself goes on"
    finally:
        daemon.end(signal.SIGTERM)


@pytest.mark.slow
def test_a_port_that_is_taken_and_a_damaged_frozen_state_are_one_line_each(tmp_path, owner, author):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        state = make(tmp_path / "root", "root", owner, author, place("orchestrator", listen=f"127.0.0.1:{port}"))
        daemon = Daemon(state)
        assert daemon.process.wait(WAIT_S) == NetworkError.exit_code
    daemon.kill()
    (line,) = (line for line in daemon.said if line.startswith("error: "))
    assert line.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert line.endswith("address already in use\n")
    files.write_atomic(state / FROZEN, b"nonsense")
    daemon.start()
    assert daemon.process.wait(WAIT_S) == StateDamaged.exit_code
    daemon.kill()
    assert any("frozen.cbor" in line and "remove the file" in line for line in daemon.said)


@pytest.fixture
def broker() -> Iterator[str]:
    """The address of a NATS server of this test's own."""
    program, port = shutil.which("nats-server"), free_port()
    if program is None:
        pytest.skip("no nats-server to start")
    process = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    yield f"nats://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_lead_dials_its_parent_over_nats_and_is_dialled_over_tls(tmp_path, owner, author, broker):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    certificate, key, port = str(tmp_path / "tls.pem"), str(tmp_path / "tls.key"), free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    settings = {
        "cell-1": place("agent", parents=["ws://127.0.0.1:1", f"wss://localhost:{port}"], tls_authority=certificate),
        "lead-1": place("lead", parents=["nats://root"], nats=broker, listen=f"0.0.0.0:{port}", tls_certificate=certificate, tls_key=key),
        "root": place("orchestrator", listen="nats://root", nats=broker),
    }
    agent, lead, root = daemons = [Daemon(make(tmp_path / name, name, owner, author, one)) for name, one in settings.items()]
    try:
        until(lambda: agent.connected() and lead.connected(), "the links")
        until(lambda: root.control.get("/v1/mesh/status")["agents"]["active"] == 1, "the agent on the map")
        wave = [
            "fleet",
            "broadcast",
            "cell.start",
            "--json-payload",
            json.dumps(JOB),
            "--strategy",
            "wave",
            "--in",
            "1.5",
            "--window-ms",
            "400",
        ]
        shown = CliRunner().invoke(app, [*wave, "--state", str(root.state)])
        assert shown.output.startswith("SUCCESS: 1 of 1 ready"), shown.output
        assert root.mesh()["listening"] == "nats://root"
    finally:
        for daemon in daemons:
            daemon.end(signal.SIGTERM)


# ---- node.toml -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"role": "captain"}, ["role", "captain"]),
        ({"role": "agent"}, ["mesh.parents", "agent needs one"]),
        ({"role": "agent", "parents": ["ws://h:1"], "listen": "127.0.0.1:1"}, ["mesh.listen", "no children"]),
        ({"role": "lead", "parents": ["ws://h:1"]}, ["mesh.listen", "lead needs one"]),
        ({"role": "lead", "listen": "127.0.0.1:1"}, ["mesh.parents", "lead needs one"]),
        ({"role": "orchestrator", "parents": ["ws://h:1"], "listen": "127.0.0.1:1"}, ["mesh.parents", "root"]),
        ({"role": "orchestrator"}, ["mesh.listen"]),
        ({"role": "orchestrator", "listen": "8480"}, ["mesh.listen", "HOST:PORT", "8480"]),
        ({"role": "orchestrator", "listen": "127.0.0.1:99999"}, ["mesh.listen", "99999"]),
        ({"role": "orchestrator", "listen": "0.0.0.0:8480"}, ["mesh.listen", "0.0.0.0:8480", "TLS", "insecure = true"]),
        ({"role": "orchestrator", "listen": "nats://root"}, ["mesh.nats"]),
        ({"role": "agent", "parents": ["http://h:1"]}, ["mesh.parents", "http://h:1"]),
        ({"role": "agent", "parents": ["nats://lead"]}, ["mesh.nats", "nats://lead"]),
        ({"role": "agent", "parents": ["nats://lead"], "nats": "4222"}, ["mesh.nats", "4222"]),
        ({"role": "orchestrator", "listen": "0.0.0.0:1", "tls_certificate": "a.pem"}, ["tls_certificate", "tls_key"]),
        ({"class": "G"}, ["class", "G"]),
        ({"heartbeat_s": 0}, ["heartbeat_s"]),
        ({"children_max": 5000}, ["children_max"]),
        ({"colour": "red"}, ["colour"]),
    ],
)  # fmt: skip
def test_a_place_in_the_mesh_that_cannot_be_is_refused_with_its_field(settings, names, tmp_path, owner, clock, make_state, one_line):
    state = make_state(tmp_path / "n", clock)
    text = (state / config.FILE).read_text()
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    (state / config.FILE).write_text(f"{text[: text.index('[mesh]')]}[mesh]\n{lines}\n")
    with pytest.raises(StateDamaged) as caught:
        config.load(state)
    one_line(caught.value, config.FILE, *names)


def test_beyond_this_machine_a_tier_listens_with_tls_or_when_it_is_told_to(tmp_path):
    assert place("orchestrator", listen="0.0.0.0:8480", insecure=True).listens_on == ("0.0.0.0", 8480)
    assert place("orchestrator", listen="[::]:1", tls_certificate="a", tls_key="b").listens_on == ("::", 1)
    assert place("orchestrator", listen="localhost:8480").listens_on == ("localhost", 8480)
    assert place("orchestrator", listen="[::1]:8480").listens_on == ("::1", 8480)


def test_a_certificate_names_the_tier_that_a_node_is_and_no_other(tmp_path, owner, author, clock):
    for role, more, expected in [
        ("agent", {"parents": ["ws://h:1"]}, ("node",)),
        ("lead", {"parents": ["ws://h:1"], "listen": "127.0.0.1:0"}, ("node", "lead")),
    ]:  # fmt: skip
        settings = place(role, **more)
        text = config.template(role, keys.public_text(owner.verify_key), 1, "", (), ("motion",), (), settings)
        identity.create(tmp_path / role, text, owner, clock, SystemRandom())
        chain = (identity.load_certificate(tmp_path / role),)
        claims = verify_chain(chain, [owner.verify_key], clock.now_ms() // 1000)
        assert (claims.roles, claims.capabilities) == (expected, ("motion",))
        assert config.load(tmp_path / role).mesh == settings


def test_node_init_writes_the_place_that_was_asked_for(tmp_path, monkeypatch, owner):
    monkeypatch.chdir(tmp_path)
    keys.create(tmp_path / "owner.key", b"o" * 32)
    made = CliRunner().invoke(
        app,
        ["node", "init", "--state", "n", "--role", "lead", "--parent", "ws://10.0.0.1:8480", "--listen", "127.0.0.1:8481", "--class", "A"],
    )
    assert made.exit_code == 0, made.output
    found = config.load(tmp_path / "n").mesh
    assert (found.role, found.parents, found.listen, found.agent_class) == ("lead", ("ws://10.0.0.1:8480",), "127.0.0.1:8481", "A")
    bad = CliRunner().invoke(app, ["node", "init", "--state", "m", "--role", "lead", "--listen", "127.0.0.1:8481"])
    assert isinstance(bad.exception, UsageError)
    assert "mesh.parents" in str(bad.exception)
    assert not (tmp_path / "m").exists()


# ---- inside one process --------------------------------------------------------------------------


def reply(state: str = "ready", payload: bytes = b"", detail: str = "", *, handled: bool = True) -> HandleReply:
    return HandleReply(detail=detail, handled=handled, payload=payload, state=state)  # type: ignore[arg-type]


def test_one_conflict_among_a_nodes_skills_is_the_nodes_and_silence_is_one_too():
    assert outcome_of([]).code == "unhandled"
    assert outcome_of([reply(handled=False)]).state == CONFLICT
    against = outcome_of([reply(payload=b"a"), reply("conflict", detail="no room")])
    assert (against.state, against.code, against.detail) == (CONFLICT, "conflict", "no room")
    good = outcome_of([reply(handled=False, payload=b"x"), reply(), reply(payload=b"a"), reply(payload=b"b")])
    assert (good.state, good.payload) == (READY, b"a")
    assert len(outcome_of([reply(detail="é" * 300)]).detail) <= 300


class SlowNode:
    """The four things that a handler asks of a node."""

    def __init__(self) -> None:
        self.name, self.machine = "cell-1", asyncio.Lock()
        self.envelope = type("Envelope", (), {"tripped": None})()
        self.running = self.at_once = 0
        self.logged: list[str] = []
        self.fails: Exception | None = None

    def log(self, level: str, line: str) -> None:
        self.logged.append(line)

    async def handle(self, request: Any) -> list[HandleReply]:
        self.running += 1
        self.at_once = max(self.at_once, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1
        if self.fails is not None:
            raise self.fails
        return [reply(payload=request.phase.encode())]


def message(verb: str = "act", **more: Any) -> Any:
    author = Author("lead-1", SigningKey(b"l" * 32), SystemRandom())
    return author.message(1000.0, topic="cell.start", verb=verb, routing="direct", targets=("*",), ttl_ms=1000, **more).value


async def outcomes(handler: NodeHandler, *asked: Any) -> list[Any]:
    ended: list[Any] = []
    for one in asked:
        handler.act(one, ended.append)
    await handler.stop()
    return ended


def test_messages_reach_the_skills_one_at_a_time_and_a_command_is_refused_while_a_job_runs():
    async def run() -> None:
        node = SlowNode()
        handler = NodeHandler(node, lambda: False)  # type: ignore[arg-type]
        assert [outcome.payload for outcome in await outcomes(handler, *(message() for _ in range(4)))] == [b"act"] * 4
        assert node.at_once == 1
        async with node.machine:
            assert handler.state() == "busy"
            command, question = await outcomes(handler, message(), message("observe"))
        assert (command.state, command.code) == (CONFLICT, "busy")
        assert question.state == READY
        assert handler.state() == "idle"
        node.envelope.tripped = object()
        assert handler.state() == "safe-mode"

    asyncio.run(run())


def test_what_goes_wrong_in_a_skill_is_a_conflict_with_one_line_and_the_next_message_has_its_turn():
    async def run() -> None:
        node = SlowNode()
        handler = NodeHandler(node, lambda: True)  # type: ignore[arg-type]
        node.fails = UnknownSender("a\nb" + "x" * 400)
        (refused,) = await outcomes(handler, message())
        assert (refused.state, refused.code) == (CONFLICT, "unknown_sender")
        assert refused.detail.isprintable()
        assert len(refused.detail) <= 300
        node.fails = ZeroDivisionError("defect")
        (defect,) = await outcomes(handler, message())
        assert (defect.state, defect.code) == (CONFLICT, "host_fault")
        assert "ZeroDivisionError" in node.logged[0]
        assert handler.state() == "frozen"

    asyncio.run(run())


def opened(state: Path, log: list[tuple[str, str]]) -> Node:
    return Node.open(state, MEASURED, clock=SystemClock(), log=lambda level, line: log.append((level, line)))


def test_a_node_whose_certificate_does_not_allow_its_role_goes_on_without_a_mesh(tmp_path, owner, author):
    state = make(tmp_path / "n", "n", owner, author, place(""))
    text = (state / config.FILE).read_text()
    asked = text.replace('role = ""', 'role = "orchestrator"').replace('listen = ""', 'listen = "127.0.0.1:0"')
    (state / config.FILE).write_text(asked)
    log: list[tuple[str, str]] = []
    node = opened(state, log)

    async def run() -> dict[str, Any] | None:
        link = MeshLink(node, state)
        await link.start()
        assert link.peer is None
        return link.status()

    status = asyncio.run(run())
    node.close()
    assert status is not None
    assert "does not allow the role orchestrator" in status["problem"]
    assert "snapcount node certify" in status["problem"]
    assert any(level == "error" and "in no mesh" in line for level, line in log)
    assert next(iter(mesh.place_lines(status))).startswith("  mesh      orchestrator, in no mesh")


def test_a_frozen_orchestrator_is_frozen_after_a_restart_and_a_full_disk_does_not_keep_it_from_freezing(
    tmp_path, owner, author, monkeypatch
):
    state = make(tmp_path / "root", "root", owner, author, place("orchestrator", listen="127.0.0.1:0"))
    files.write_atomic(state / FROZEN, encode(FrozenState(frozen=True, since_ms=1.0, by="root", reason="storm")))
    log: list[tuple[str, str]] = []
    node = opened(state, log)

    def full(*arguments: Any) -> None:
        raise StorageFull("the disk is full")

    async def run() -> None:
        link = MeshLink(node, state)
        await link.start()
        assert isinstance(link.peer, Orchestrator)
        status = link.status()
        assert status is not None
        assert status["frozen"]["reason"] == "storm"
        assert not status["listening"].endswith(":0")
        assert "root" in next(iter(mesh.status_lines(link.peer.status())))
        link.peer.set_frozen(None)
        assert not (state / FROZEN).exists()
        monkeypatch.setattr(files, "write_atomic", full)
        link.peer.set_frozen(FrozenState(frozen=True, since_ms=1.0))
        assert link.peer.frozen is not None
        await link.stop()

    asyncio.run(run())
    node.close()
    assert any("cannot be kept: the disk is full" in line for _, line in log)


def test_a_node_in_no_mesh_says_so(tmp_path, owner, author, one_line):
    async def run() -> SnapcountError:
        runner = await serve_control(tmp_path, mesh_routes(None))
        try:
            return await asyncio.to_thread(refusal)
        finally:
            await stop_control(tmp_path, runner)

    def refusal() -> SnapcountError:
        with pytest.raises(SnapcountError) as caught:
            NodeControl(tmp_path).get("/v1/mesh/status")
        return caught.value

    error = asyncio.run(run())
    one_line(error, "in no mesh", "[mesh]")
    assert error.exit_code == UsageError.exit_code


# ---- what is printed -----------------------------------------------------------------------------


def test_a_histogram_has_a_line_for_each_bin_from_the_first_to_the_last_that_is_filled():
    counts = [0] * (len(HISTOGRAM_MS) + 1)
    assert list(histogram.lines(counts)) == list(histogram.lines(())) == []
    counts[HISTOGRAM_MS.index(0)] = 1
    counts[HISTOGRAM_MS.index(0) + 2] = 2000
    lines = list(histogram.lines(counts))
    assert [line.split("ms")[0].strip() for line in lines] == ["-1 … 0", "0 … +1", "+1 … +2"]
    assert lines[0].endswith("▏")
    assert lines[1].endswith(" 0")
    assert lines[2].count("█") == histogram.WIDTH
    assert "2,000" in lines[2]
    ends = list(histogram.lines([1] + [0] * (len(HISTOGRAM_MS) - 1) + [1]))
    assert "before -5000 ms" in ends[0]
    assert "from +5000 ms" in ends[-1]


def test_a_payload_is_shown_as_json_text_or_hexadecimal():
    assert mesh.payload_text(cbor.encode({"a": [1.5, b"\x01"]})) == '{"a": [1.5, "01"]}'
    assert mesh.payload_text(b"blade worn\x1b[31m") == "blade worn\\x1b[31m"
    assert mesh.payload_text(b"\xff\xfe\x00") == "fffe00"


def test_many_conflicts_are_cut_and_counted():
    replies = [{"name": f"cell-{n}", "state": -1, "code": "conflict", "detail": "x" * (n % 2), "payload": ""} for n in range(12)]
    result = dict.fromkeys(("ready", "conflict", "transit", "skipped", "acted", "failed", "expected", "messages", "at_ms", "missing_more"), 12) | {
        "outcome": "PARTIAL", "reason": "why", "recommendation": "do this", "wall_ms": 1.0, "missing": ["cell-x"], "replies": replies, "replies_dropped": 0,
        "ready_errors": [], "acted_errors": [],
    }  # fmt: skip
    shown = list(mesh.result_lines(result, replies=True))
    assert sum("conflict at" in line for line in shown) == 10
    assert "  and 2 more; --json has them" in shown
    assert "  missing: cell-x and 12 more" in shown
    assert shown[-1] == "  do this"


def test_a_request_that_is_no_toml_shape_names_its_field():
    with pytest.raises(MalformedData, match="heartbeat_s"):
        toml.decode(b'[node]\nname = "n"\nowner = "o"\n[mesh]\nheartbeat_s = "five"\n', config.NodeConfig, config.FILE)
