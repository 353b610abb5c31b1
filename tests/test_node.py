"""The node as a process of its own: killed, stopped, damaged and asked; and what it decides about jobs, clocks and safe mode."""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

import host
from host import config, identity
from host.console.client import SOCKET, NodeControl
from host.console.panel import fleet_lines, node_lines
from host.control import ControlServer
from host.core import attestation, cbor, files, safety
from host.core.attestation import Measurement
from host.core.bundle import with_signature
from host.core.clock import Clock, SystemClock
from host.core.errors import Busy, CertificateInvalid, GuestTrap, NetworkError, SignatureInvalid, SnapcountError, UnsafeCommand, UsageError
from host.core.manifest import SkillLimits
from host.daemon import CRASH_AT
from host.installed import measure_host
from host.node import Node
from host.plugins.contract import HandleReply, HandleRequest, PlanReport, PlanSettings
from host.supply.installer import INSTALL_POINTS
from host.supply.store import SkillStore
from sdk.demo.samples import ASSAY, BID, BOUNTY
from skills import module_path

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
WAIT_S = 30.0
PLANNER = "toolpath-planner"
SHIPPED = (PLANNER, "feedstock-assessor", "bounty-bidder", "cell-start")
RESIDENT_MIB_MAX = 80
IDLE_S = 3.0
GOOD = b"G21\nG90\nG1 X10 Y10 F1200\nG1 X20 Y20\n"
MakeSkill = Callable[..., bytes]
MakeState = Callable[..., Path]
OneLine = Callable[..., str]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def shipped(name: str, author: SigningKey) -> bytes:
    path = module_path(name)
    if not path.exists():
        pytest.skip(f"{path} was not built")
    return with_signature(path.read_bytes(), author, name)


def open_node(state: Path, clock: Clock, log: list[tuple[str, str]] | None = None) -> Node:
    return Node.open(state, MEASURED, clock=clock, log=lambda level, line: (log if log is not None else []).append((level, line)))


def preinstall(state: Path, clock: Clock, *bundles: bytes) -> None:
    """Installs in this process what the node's process then finds."""
    node = open_node(state, clock)
    for data in bundles:
        asyncio.run(node.install(data, digest_of(data)))
    node.close()


def until(condition: Callable[[], Any], what: str) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.01)


class Daemon:
    """`snapcount node run` on one state directory."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state, self.control = state, NodeControl(state)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--state", str(state), "--development"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip

    def ready(self) -> "Daemon":
        until(lambda: self.answers() or self.process.poll() is not None, "the node to answer")
        assert self.process.poll() is None, self.ended()[1]
        return self

    def answers(self) -> bool:
        try:
            return bool(self.control.get("/v1/status"))
        except NetworkError:
            return False

    def ended(self) -> tuple[int, str]:
        """The exit code, and what it said on stderr."""
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said.decode()

    def bids(self) -> list[str]:
        return [reply["id"] for reply in self.control.post("/v1/hooks/bid", BOUNTY)]

    def cpu_s(self) -> float:
        """Processor time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.terminate()
        return self.ended()


@contextmanager
def daemon(state: Path, **environment: str) -> Iterator[Daemon]:
    made = Daemon(state, **environment)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        if made.process.stdout and not made.process.stdout.closed:
            made.process.communicate()


@pytest.fixture
def state(tmp_path: Path, make_state: MakeState) -> Path:
    return make_state(tmp_path / "node", SystemClock(), native=("virtual_machine",))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, make_state: MakeState, make_skill: MakeSkill, author: SigningKey) -> Iterator[Daemon]:
    """One node for the tests that only ask; its path is longer than a socket's may be."""
    folder = tmp_path_factory.mktemp("running") / ("long-" * 20) / ("path-" * 20)
    folder.mkdir(parents=True)
    state = make_state(folder / "node", SystemClock(), native=("virtual_machine",))
    preinstall(state, SystemClock(), make_skill(), make_skill(version="1.1.0"), shipped(PLANNER, author))
    with daemon(state) as node:
        yield node.ready()
        code, _ = node.stop()
        assert code == 0


# Killed.


@pytest.mark.slow
@pytest.mark.parametrize("point", INSTALL_POINTS)
def test_a_kill_at_any_point_of_an_install_leaves_the_old_skill_or_the_new_one(
    point: str, tmp_path: Path, make_state: MakeState, make_skill: MakeSkill
) -> None:
    from registry.client import RegistryHttp

    folder = tmp_path / "registry"
    old, new = make_skill(), make_skill(version="1.1.0")
    with registry(folder) as url:
        state = make_state(tmp_path / "node", SystemClock(), registry=url)
        preinstall(state, SystemClock(), old)
        with daemon(state, **{CRASH_AT: point}) as node:
            node.ready()
            http = RegistryHttp(url)
            http.announce(http.upload(new)["digest"])
            assert node.ended()[0] == -signal.SIGKILL
        active = SkillStore(state).active("greeter")
        assert active is not None
        assert active.version == ("1.1.0" if point in ("activated", "committed") else "1.0.0")
        half = state / "blobs" / "sha256" / f"{files.TEMPORARY}0123456789abcdef"
        half.write_bytes(b"half")
    with daemon(state) as node:  # the registry is gone: the node stands on its own
        node.ready()
        assert node.bids() == [active.version]
        assert list(state.rglob(f"{files.TEMPORARY}*")) == []
        assert node.stop()[0] == 0
    with registry(folder) as url:
        toml = state / config.FILE
        lines = [f'registry = "{url}"' if line.startswith("registry") else line for line in toml.read_text().splitlines()]
        toml.write_text("\n".join(lines))
        with daemon(state) as node:
            node.ready()
            until(lambda: node.bids() == ["1.1.0"], "the push to be made good")


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdk.cli.main", "registry", "serve", "--dir", str(folder), "--port", "0", "--json"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0


@pytest.mark.slow
def test_an_unknown_crash_point_is_named(state: Path, one_line: OneLine) -> None:
    with daemon(state, **{CRASH_AT: "lunch"}) as node:
        code, said = node.ended()
    assert code == 40
    one_line(said.strip(), "error:", CRASH_AT, "lunch")


# Stopped.


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_within_a_second_and_removes_the_socket(state: Path, number: signal.Signals) -> None:
    with daemon(state) as node:
        node.ready()
        idle = http.client.HTTPConnection("node")  # a console that stays connected holds nothing up
        idle.sock = connect(state)
        idle.request("GET", "/v1/status")
        idle.getresponse().read()
        began = time.monotonic()
        node.process.send_signal(number)
        code, said = node.ended()
        assert time.monotonic() - began < 1.0
        idle.close()
    assert code == 0
    assert "stopping" in said and "Traceback" not in said
    assert not (state / SOCKET).exists()


@pytest.mark.slow
def test_a_signal_ends_a_runaway_call_too_and_its_caller_is_told(state: Path, make_skill: MakeSkill, one_line: OneLine) -> None:
    endless = make_skill(body="(loop $for_ever (br $for_ever)) (i64.const 0)", limits=SkillLimits(fuel=1 << 40, deadline_ms=60_000))
    preinstall(state, SystemClock(), endless)
    told: list[str] = []
    with daemon(state) as node:
        node.ready()

        def ask() -> None:
            try:
                node.bids()
            except SnapcountError as error:
                told.append(str(error))

        started_s = node.cpu_s()
        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: node.cpu_s() > started_s + 0.5, "the call to burn")
        began = time.monotonic()
        node.process.terminate()
        code, said = node.ended()
        took_s = time.monotonic() - began
        asking.join()
    assert (code, "Traceback" in said) == (0, False)
    assert took_s < 2.0
    one_line(told[0], "the node is stopping")


def connect(state: Path) -> socket.socket:
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made = socket.socket(socket.AF_UNIX)
        made.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        return made
    finally:
        os.close(directory)


@pytest.mark.slow
def test_a_node_that_was_killed_starts_again_over_its_old_socket(state: Path) -> None:
    with daemon(state) as node:
        node.ready().process.kill()
        node.ended()
        assert (state / SOCKET).exists()
    with daemon(state) as node:
        node.ready()


@pytest.mark.slow
def test_a_second_node_on_the_same_state_is_refused_and_harms_nothing(running: Daemon, one_line: OneLine) -> None:
    with daemon(running.state) as second:
        code, said = second.ended()
    assert code == 40
    one_line(said.strip(), running.state, "a node runs here already")
    assert running.answers()


# Damaged.


def readable_key(state: Path) -> Path:
    (state / identity.KEY).chmod(0o644)
    return state / identity.KEY


def no_key(state: Path) -> Path:
    (state / identity.KEY).unlink()
    return state / identity.KEY


def damaged_key(state: Path) -> Path:
    (state / identity.KEY).write_bytes(b"\xff" * 64)
    return state / identity.KEY


def not_toml(state: Path) -> Path:
    (state / config.FILE).write_bytes(b"[node\n\xff")
    return state / config.FILE


def unknown_field(state: Path) -> Path:
    with (state / config.FILE).open("a") as file:
        file.write("\n[surprise]\n")
    return state / config.FILE


def no_toml(state: Path) -> Path:
    (state / config.FILE).unlink()
    return state / config.FILE


def not_a_database(state: Path) -> Path:
    (state / "journal.db").write_bytes(b"not SQLite" * 1000)
    return state / "journal.db"


def altered_safety(state: Path) -> Path:
    path = state / identity.SAFETY
    path.write_text(path.read_text().replace("max = 250.0", "max = 2500.0"))
    return path


def no_safety_signature(state: Path) -> Path:
    (state / identity.SAFETY_SIGNATURE).unlink()
    return state / identity.SAFETY_SIGNATURE


def short_cache_key(state: Path) -> Path:
    (state / identity.CACHE_KEY).write_bytes(b"short")
    return state / identity.CACHE_KEY


DAMAGES = (
    readable_key, no_key, damaged_key, not_toml, unknown_field, no_toml, not_a_database, altered_safety, no_safety_signature, short_cache_key,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_one_line_that_names_the_file(
    damage: Callable[[Path], Path], state: Path, clock: Clock, one_line: OneLine
) -> None:
    named = damage(state)
    with pytest.raises(SnapcountError) as caught:
        open_node(state, clock).close()
    one_line(caught.value, named)
    assert caught.value.exit_code == (20 if damage is altered_safety else 40)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [readable_key, not_toml, not_a_database, altered_safety])
def test_a_process_with_a_damaged_state_ends_with_one_line_and_an_exit_code(
    damage: Callable[[Path], Path], state: Path, one_line: OneLine
) -> None:
    named = damage(state)
    with daemon(state) as node:
        code, said = node.ended()
    assert code == (20 if damage is altered_safety else 40)
    one_line(said.strip(), "error:", named)
    assert not (state / SOCKET).exists()


@pytest.mark.slow
def test_a_directory_that_is_no_node_is_named(tmp_path: Path, one_line: OneLine) -> None:
    with daemon(tmp_path / "nothing") as node:
        code, said = node.ended()
    assert code == 40
    one_line(said.strip(), tmp_path / "nothing", "snapcount node init")


def test_where_no_node_runs_the_console_says_how_to_start_one(tmp_path: Path, state: Path, one_line: OneLine) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (state, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(NetworkError) as caught:
            NodeControl(path).get("/v1/status")
        one_line(caught.value, path, "no node is running", "snapcount node run")


# The control socket.


@pytest.mark.slow
def test_the_control_socket_is_its_users_only_and_works_at_any_path_length(running: Daemon) -> None:
    path = running.state / SOCKET
    assert len(str(path)) > 108
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.control.get("/v1/status")["pid"] == running.process.pid


@pytest.mark.slow
def test_the_status_says_what_runs_and_the_panel_prints_it(running: Daemon) -> None:
    status = running.control.get("/v1/status")
    assert (status["node"], status["generation"], status["sealed"], status["safe_mode"]) == ("node-01", 1, measure_host().sealed, None)
    assert status["host"] == measure_host().digest
    assert {skill["name"]: skill["version"] for skill in status["skills"]} == {"greeter": "1.1.0", PLANNER: "1.0.0"}
    assert set(status["machines"]) == {"motion"}
    lines = list(node_lines(status))
    assert all(line.isprintable() for line in lines)
    assert any("greeter 1.1.0" in line for line in lines)


@pytest.mark.slow
def test_a_hook_answers_and_a_bad_request_is_one_line(running: Daemon, one_line: OneLine) -> None:
    assert running.bids() == ["1.1.0"]
    for hook, body, names in (
        ("bid", b"{}", ("bid", "bounty")), ("bid", b"\xff\xfe", ("bid",)), ("bid", b'{"two\\nlines": 1}', ("bid",)), ("bid", b"", ("bid",)),
        ("bid", b"[" * 100_000, ("bid",)), ("assess_feedstock", ASSAY, ("assess_feedstock",)), ("plan_job", b"{}", ("plan_job",)),
        ("dance", b"{}", ("dance",)), ("self_test", b"{}", ("self_test",)), ("offer_drivers", b"{}", ("offer_drivers",)), ("%0a", b"{}", ("\\n",)),
    ):  # fmt: skip
        with pytest.raises(SnapcountError) as caught:
            running.control.post(f"/v1/hooks/{hook}", body)
        one_line(caught.value, *names)
        assert (caught.value.code, caught.value.exit_code) == ("usage_error", 2), hook


MESSAGE = HandleRequest(
    at_ms=1_795_000_000_000, correlation=b"c" * 16, id=b"i" * 16, payload=cbor.encode({"feed_mm_min": 600.0, "job": "frame-7", "to_mm": [10.0, 20.0, 5.0]}),
    phase="prepare", priority=2, source="lead-1", topic="cell.start", verb="act", weight=0.0,
)  # fmt: skip


def deaf(make_skill: MakeSkill, body: str = "") -> bytes:
    """A skill for which no message is meant, or whose `handle` does `body`."""
    reply = cbor.encode(HandleReply(detail="", handled=False, payload=b"", state="ready"))
    data = "".join(f"\\{byte:02x}" for byte in reply)
    hook = f"""(data (i32.const 2048) "{data}")
      (func (export "hook_handle") (param i32 i32) (result i64) {body or f"(i64.const {2048 << 32 | len(reply)})"})"""
    return make_skill("deaf", imports=hook, hooks=("bid", "handle", "self_test"))


@pytest.mark.slow
def test_a_message_is_handled_through_the_command_line_with_its_bytes_in_base64(
    state: Path, tmp_path: Path, author: SigningKey, make_skill: MakeSkill, one_line: OneLine
) -> None:
    preinstall(state, SystemClock(), shipped("cell-start", author), deaf(make_skill))
    source = tmp_path / "request.json"

    def call(request: bytes) -> subprocess.CompletedProcess[str]:
        source.write_bytes(request)
        command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "call", "handle", "--state", str(state), "--input", str(source)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)

    with daemon(state) as node:
        node.ready()
        for phase, payload in (("prepare", b""), ("act", cbor.encode({"moves": 1, "position_mm": [10.0, 20.0, 5.0]}))):
            ended = call(msgspec.json.encode(msgspec.structs.replace(MESSAGE, phase=phase)))
            assert ended.returncode == 0, ended.stderr
            replies = msgspec.json.decode(ended.stdout, type=list[HandleReply])
            said = sorted((reply.handled, reply.state, reply.payload) for reply in replies)
            assert said == [(False, "ready", b""), (True, "ready", payload)]
        refused = call(msgspec.json.encode(msgspec.structs.replace(MESSAGE, payload=b"\xff")))
        assert refused.returncode == 10
        one_line(refused.stderr.strip(), "cell-start", "bad_request")
        good = msgspec.json.decode(msgspec.json.encode(MESSAGE))
        for wrong, why in (({"id": "AAAA"}, ">= 16"), ({"id": "no base64!"}, "base64"), ({"priority": 4}, "<= 3")):
            bad = call(msgspec.json.encode(good | wrong))
            assert bad.returncode == 2
            one_line(bad.stderr.strip(), "request for handle", *wrong, why)
        assert node.stop()[0] == 0


@pytest.mark.slow
def test_a_job_is_planned_and_driven_and_bad_settings_are_one_line(running: Daemon, one_line: OneLine) -> None:
    def moves() -> int:
        return int(running.control.get("/v1/status")["machines"]["motion"]["moves"])

    before = moves()
    planned = running.control.job([GOOD[:20], GOOD[20:]], {}, run=False)
    assert planned["complete"] and planned["driven"] == 0 and moves() == before
    driven = running.control.job([GOOD], {"feed_max_mm_min": 3000.0}, run=True)
    assert driven["complete"] and driven["driven"] == moves() - before > 0
    for settings in ({"start_mm": 1}, {"two\nlines": 1}):
        with pytest.raises(SnapcountError) as caught:
            running.control.job([GOOD], settings, run=True)
        one_line(caught.value, "settings")
        assert caught.value.code == "usage_error"
    after = moves()
    with pytest.raises(SnapcountError) as caught:
        running.control.job([b"G21\nG90\nG1 X1 F100\nG999 oops\n"], {}, run=True)
    one_line(caught.value, "not understood whole", "nothing was moved", "line 4")
    assert moves() == after


@pytest.mark.slow
def test_an_attestation_verifies_and_a_replay_does_not(running: Daemon, one_line: OneLine) -> None:
    key = identity.load_key(running.state).verify_key
    nonce = b"n" * 16
    signed = running.control.post_raw("/v1/attest", nonce)
    report = attestation.verify(signed, key, nonce)
    assert (report.node, report.sealed, report.host) == ("node-01", measure_host().sealed, measure_host().digest)
    assert [(skill.name, skill.version) for skill in report.skills] == [("greeter", "1.1.0"), (PLANNER, "1.0.0")]
    assert report.config == identity.config_digest(running.state)
    with pytest.raises(SignatureInvalid) as replayed:
        attestation.verify(signed, key, b"m" * 16)
    one_line(replayed.value, "attestation", "another nonce")
    for size in (0, 7, 65):
        with pytest.raises(SnapcountError) as caught:
            running.control.post_raw("/v1/attest", bytes(size))
        one_line(caught.value, "a nonce has 8 to 64 bytes", size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/status"),
        ("POST", "/v2/attest"),
        ("GET", "/v1/../v1/secrets"),
        ("POST", "/v1/rollback/"),
    ],
)
def test_a_route_that_is_none_is_one_line(method: str, path: str, running: Daemon, one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        (running.control.get if method == "GET" else running.control.post)(path)
    one_line(caught.value, "the node answered 40")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e%2f%2e%2e%2fidentity", "%00", "%0a", "x" * 300])
def test_roll_back_and_remove_of_what_is_not_there_are_one_line(name: str, running: Daemon, one_line: OneLine) -> None:
    for route in ("rollback", "remove"):
        with pytest.raises(SnapcountError) as caught:
            running.control.post(f"/v1/{route}/{name}")
        one_line(caught.value)
        assert caught.value.exit_code == 2
    assert running.answers()


@pytest.mark.slow
def test_a_body_over_the_bound_is_refused_in_one_line(running: Daemon, one_line: OneLine) -> None:
    with pytest.raises((UsageError, NetworkError)) as caught:
        running.control.post("/v1/hooks/bid", b" " * (5 << 20))
    one_line(caught.value, "413")


@pytest.mark.slow
def test_roll_back_and_remove_through_the_socket(state: Path, make_skill: MakeSkill, one_line: OneLine) -> None:
    preinstall(state, SystemClock(), make_skill(), make_skill(version="1.1.0"))
    with daemon(state) as node:
        node.ready()
        assert node.control.post("/v1/rollback/greeter") == {"version": "1.0.0"}
        assert node.bids() == ["1.0.0"]
        assert node.control.post("/v1/remove/greeter") == {"removed": "greeter"}
        with pytest.raises(SnapcountError) as caught:
            node.bids()
        one_line(caught.value, "no active skill has the hook bid")
        code, said = node.stop()
    assert code == 0 and "Traceback" not in said


# Safe mode.


@pytest.mark.slow
def test_safe_mode_survives_a_restart_and_only_the_owner_resets_it(
    state: Path, owner: SigningKey, author: SigningKey, one_line: OneLine
) -> None:
    preinstall(state, SystemClock(), shipped(PLANNER, author))
    with daemon(state) as node:
        node.ready().control.post("/v1/safety/trip", b"smoke\nand fire")
        first = node.control.get("/v1/status")["safe_mode"]
        assert first["reason"] == "smoke\\nand fire"
        node.process.kill()
        node.ended()
    with daemon(state) as node:
        control = node.ready().control
        assert control.get("/v1/status")["safe_mode"] == first
        report = control.job([GOOD], {}, run=True)
        assert report["driven"] == 0
        assert any("safe mode" in row["reason"] for row in control.get("/v1/status")["audit"])
        for reset in (b"", b"please", safety.sign_reset(author, first["id"]), safety.sign_reset(owner, "another trip")):
            with pytest.raises(SnapcountError) as caught:
                control.post("/v1/safety/reset", reset)
            one_line(caught.value, "safety reset")
            assert caught.value.exit_code == 20
        assert control.get("/v1/status")["safe_mode"] == first
        assert control.post("/v1/safety/reset", safety.sign_reset(owner, first["id"])) == {"safe_mode": None}
        assert control.job([GOOD], {}, run=True)["complete"]
        node.stop()
    assert not (state / identity.TRIP).exists()


# In one process: clocks and jobs.


@pytest.mark.slow
def test_a_clock_set_wrong_warns_of_the_certificate_and_the_node_works(
    tmp_path: Path, clock: Any, make_state: MakeState, make_skill: MakeSkill, one_line: OneLine
) -> None:
    state = make_state(tmp_path / "node", clock)
    preinstall(state, clock, make_skill())
    issued = clock.now
    for now in (issued + 60 * 86_400_000, issued - 86_400_000, 0):
        clock.now = now
        log: list[tuple[str, str]] = []
        node = open_node(state, clock, log)
        ((level, line),) = log
        assert level == "warning"
        one_line(line, "certificate of node-01", "expired" if now > issued else "valid from", "snapcount node certify")
        assert [reply.id for reply in asyncio.run(node.call("bid", BID))] == ["1.0.0"]
        newer = make_skill(version=f"1.{now % 97 + 1}.0")
        asyncio.run(node.install(newer, digest_of(newer)))
        asyncio.run(node.roll_back("greeter"))
        node.close()


def test_a_certificate_for_another_key_keeps_the_node_from_starting(
    tmp_path: Path, clock: Clock, make_state: MakeState, one_line: OneLine
) -> None:
    state, other = make_state(tmp_path / "node", clock), make_state(tmp_path / "other", clock)
    (state / identity.CERTIFICATE).write_bytes((other / identity.CERTIFICATE).read_bytes())
    with pytest.raises(CertificateInvalid) as caught:
        open_node(state, clock)
    one_line(caught.value, state, "another key", "snapcount node certify")


@pytest.fixture
def machine(tmp_path: Path, make_state: MakeState, author: SigningKey) -> Iterator[Node]:
    """A node in this process, with a virtual machine and the planner."""
    state = make_state(tmp_path / "node", SystemClock(), native=("virtual_machine",))
    node = open_node(state, SystemClock())
    data = shipped(PLANNER, author)
    asyncio.run(node.install(data, digest_of(data)))
    yield node
    node.close()


@pytest.mark.slow
def test_a_program_that_is_not_understood_whole_moves_nothing(machine: Node, one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        asyncio.run(machine.run_job(lambda: [b"G21\nG90\nG1 X1 F100\nG1 X2\nG999\n"], PlanSettings()))
    one_line(caught.value, "nothing was moved", "line 5")
    assert machine.drivers["motion"].status()["moves"] == 0


@pytest.mark.slow
def test_two_jobs_at_once_on_one_machine_are_one_job_and_busy(machine: Node, one_line: OneLine) -> None:
    async def scenario() -> PlanReport:
        first = asyncio.create_task(machine.run_job(lambda: [GOOD], PlanSettings()))
        await asyncio.sleep(0)  # the first has the machine
        with pytest.raises(Busy) as caught:
            await machine.run_job(lambda: [GOOD], PlanSettings())
        one_line(caught.value, "node-01", "another job is running")
        planned = await machine.plan([GOOD], PlanSettings())  # planning needs no machine
        assert planned.complete
        return await first

    report = asyncio.run(scenario())
    assert report.complete
    assert machine.drivers["motion"].status()["moves"] == report.driven
    assert asyncio.run(machine.run_job(lambda: [GOOD], PlanSettings())).complete  # and it is free again


@pytest.mark.slow
def test_an_unsafe_move_is_refused_audited_and_not_made(machine: Node, one_line: OneLine) -> None:
    program = b"G21\nG90\nG1 X10 Y10 F1200\nG1 X999\nG1 X20\n"
    with pytest.raises(UnsafeCommand) as caught:  # the plan's box gives it away before anything moves
        asyncio.run(machine.run_job(lambda: [program], PlanSettings()))
    one_line(caught.value, "999", "outside the travel", "nothing was moved")
    assert machine.drivers["motion"].status()["moves"] == 0
    report = machine.manager.hook.plan_job(program=[program], settings=PlanSettings(), run=True)  # and here the envelope does
    refused = [problem for problem in report.problems if problem.code == "motion_refused"]
    assert report.driven == machine.drivers["motion"].status()["moves"]
    one_line(refused[0].message, "999", "outside the travel")
    row = machine.journal.audit()[0]
    assert (row["skill"], row["command"]) == (f"{PLANNER} 1.0.0", "move")
    one_line(row["reason"], "x = 999 mm is outside the travel")
    assert machine.drivers["motion"].status()["position_mm"][0] <= 300.0


def test_a_job_where_no_skill_plans_says_what_to_push(state: Path, clock: Clock, one_line: OneLine) -> None:
    node = open_node(state, clock)
    with pytest.raises(UsageError) as caught:
        asyncio.run(node.plan([GOOD], PlanSettings()))
    one_line(caught.value, "plan_job", PLANNER)
    node.close()


@pytest.mark.slow
def test_a_disk_too_full_to_spool_a_program_is_one_line(machine: Node, tmp_path: Path, one_line: OneLine) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")

    async def scenario() -> None:
        server = ControlServer(machine, disk)
        await server.start()
        try:
            for size in (66_000, 70_000, 300_000):
                with pytest.raises(SnapcountError) as caught:
                    await asyncio.to_thread(NodeControl(disk).job, [b";" * 999 + b"\n"] * (size // 1000), {}, False)
                one_line(caught.value, "program", "No space left on device")
                assert (caught.value.code, caught.value.exit_code) == ("storage_full", 40)
                assert (await asyncio.to_thread(NodeControl(disk).job, [GOOD], {}, False))["complete"]
        finally:
            await server.stop()

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_nodes_say_of_themselves_cannot_forge_the_fleets_lines() -> None:
    digest = digest_of(b"")
    failed = {"name": "x", "version": "1.0.0", "digest": digest, "state": "failed", "message": "no\n\x1b[2Jnode-99 connected"}
    row = {"node": "node-1", "generation": 1, "connected": True, "skills": [], "progress": [failed]}
    announced = {"name": "x", "version": "1.0.0", "digest": digest}
    lines = list(fleet_lines({"nodes": [row], "announced": [announced]}))
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines), lines


# Messages, in one process.


@pytest.mark.slow
def test_a_cell_that_got_ready_before_a_restart_begins_at_t_and_a_trap_beside_it_reaches_the_caller(
    tmp_path: Path, make_state: MakeState, author: SigningKey, make_skill: MakeSkill, one_line: OneLine
) -> None:
    state = make_state(tmp_path / "node", SystemClock(), native=("virtual_machine",))
    preinstall(state, SystemClock(), shipped("cell-start", author))
    node = open_node(state, SystemClock())
    assert [reply.state for reply in asyncio.run(node.call("handle", MESSAGE))] == ["ready"]
    node.close()
    node = open_node(state, SystemClock())
    (reply,) = asyncio.run(node.call("handle", msgspec.structs.replace(MESSAGE, phase="act")))
    assert (reply.state, node.status()["machines"]["motion"]["position_mm"]) == ("ready", [10.0, 20.0, 5.0])
    broken = deaf(make_skill, "unreachable")
    asyncio.run(node.install(broken, digest_of(broken)))
    with pytest.raises(GuestTrap) as caught:
        asyncio.run(node.call("handle", MESSAGE))
    one_line(caught.value, "deaf", "unreachable")
    node.close()


@pytest.mark.slow
def test_a_start_that_the_envelope_refuses_is_a_conflict_and_is_audited(tmp_path: Path, make_state: MakeState, author: SigningKey) -> None:
    state = make_state(tmp_path / "node", SystemClock(), native=("virtual_machine",))
    preinstall(state, SystemClock(), shipped("cell-start", author))
    node = open_node(state, SystemClock())
    far = msgspec.structs.replace(MESSAGE, payload=cbor.encode({"feed_mm_min": 600.0, "job": "frame-7", "to_mm": [9_999.0, 0.0, 0.0]}))
    assert [reply.state for reply in asyncio.run(node.call("handle", far))] == ["ready"]
    (reply,) = asyncio.run(node.call("handle", msgspec.structs.replace(far, phase="act")))
    assert (reply.state, node.drivers["motion"].status()["moves"]) == ("conflict", 0)
    assert "unsafe_command" in reply.detail
    assert len(node.status()["audit"]) == 1
    node.close()


# How much it takes.


@pytest.mark.slow
def test_an_idle_node_with_the_shipped_skills_stays_within_its_memory(
    state: Path, author: SigningKey, record_property: Callable[[str, object], None]
) -> None:
    preinstall(state, SystemClock(), *(shipped(name, author) for name in SHIPPED))
    with daemon(state) as node:
        node.ready()
        time.sleep(IDLE_S)
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines())
        resident_mib = int(fields["VmRSS"].split()[0]) / 1024
        record_property("resident_mib", round(resident_mib, 1))
        print(f"resident: {resident_mib:.1f} MiB")
        assert {skill["name"] for skill in node.control.get("/v1/status")["skills"]} == set(SHIPPED)
        assert resident_mib <= RESIDENT_MIB_MAX
        assert node.stop()[0] == 0
