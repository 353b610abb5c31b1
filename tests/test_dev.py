"""`snapcount skill dev`, as a developer meets it: real compilers, a real daemon, edits, mistakes, Ctrl-C and kill -9."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

import host
from host import config
from host.console.client import NodeControl
from host.core import keys
from host.core.attestation import Measurement
from host.core.bundle import digest_of
from host.core.clock import SystemClock
from host.core.errors import NetworkError
from host.core.manifest import version_key
from host.daemon import LOCK
from host.node import Node
from sdk import vectors
from sdk.demo.samples import BOUNTY
from sdk.dev import own_node, session
from sdk.dev.sources import Sources
from sdk.dev.step import numbered
from sdk.project import load
from sdk.scaffold import create

ROOT = Path(host.__file__).resolve().parents[1]
WAIT_S = 40.0
NAME, VECTOR = "ore-sorter", "01-an-hour-of-work"


class Dev:
    """A running `snapcount skill dev --json`, and what it told."""

    def __init__(self, folder: Path, home: Path, *arguments: object) -> None:
        self.told: list[dict[str, Any]] = []
        self.home = home
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk.cli.main", "skill", "dev", str(folder), "--json", *map(str, arguments)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def wait(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is this, from now on or before; those up to it are forgotten."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            for number, event in enumerate(list(self.told)):
                if what(event):
                    del self.told[: number + 1]
                    return event
            assert self.process.poll() is None or self._reader.is_alive(), self.process.stderr.read()  # type: ignore[union-attr]
            time.sleep(0.02)
        raise AssertionError(f"not told within {WAIT_S:g} s; told: {self.told}")

    def swapped(self) -> str:
        return str(self.wait(lambda event: event["event"] == "swapped")["version"])

    def call(self) -> dict[str, Any]:
        return self.wait(lambda event: event["event"] == "call")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        said = self.process.stderr.read()  # type: ignore[union-attr]
        code = self.process.wait(WAIT_S)
        self._reader.join(5)
        return code, said

    def nodes(self) -> list[int]:
        """Processes of nodes that it started."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"{self.home}/{own_node.PREFIX}".encode() in _read(path)
        ]

    def folders(self) -> list[Path]:
        return list(self.home.glob(f"{own_node.PREFIX}*"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def dev(folder: Path, home: Path, *arguments: object) -> Iterator[Dev]:
    home.mkdir(exist_ok=True)
    made = Dev(folder, home, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        for stream in (made.process.stdin, made.process.stdout, made.process.stderr):
            if stream is not None:
                stream.close()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s"
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path: Path, require: Callable[[str], None]) -> Path:
    require("zig")
    return create(tmp_path, NAME, "zig")


def edit(project: Path, old: str, new: str) -> None:
    path = project / "src" / "main.zig"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
def test_an_edit_answers_a_mistake_changes_nothing_and_ctrl_c_leaves_nothing(project: Path, tmp_path: Path) -> None:
    before = sorted(path for path in project.rglob("*"))
    with dev(project, tmp_path / "home", "--call", VECTOR) as running:
        assert running.swapped() == "0.1.0-dev.1"
        first = running.call()
        assert (first["skill"], first["hook"], first["reply"]["reason"]) == (NAME, "bid", "cost plus margin")
        assert first["took_us"] > 0
        assert first["fuel"] > 0

        edit(project, "cost plus margin", "a better reason")
        assert running.swapped() == "0.1.0-dev.2"
        assert running.call()["reply"]["reason"] == "a better reason"

        edit(project, "const price", "const prise")
        refused = running.wait(lambda event: event["event"] == "refused")
        assert "src/main.zig:" in refused["said"]
        assert "price" in refused["said"]
        running.type(VECTOR)
        still = running.call()
        assert (still["version"], still["reply"]["reason"]) == ("0.1.0-dev.2", "a better reason")

        running.type("no-such-vector")
        assert "no-such-vector" in running.wait(lambda event: event["event"] == "note")["said"]

        edit(project, "const prise", "const price")
        edit(project, "a better reason", "cost plus margin")
        assert running.swapped().startswith("0.1.0-dev.")
        running.type("")
        assert running.call()["version"] != "0.1.0-dev.2"

        (folder,), (node,) = running.folders(), running.nodes()
        assert folder.stat().st_mode & 0o077 == 0
        code, said = running.end()
        assert code == 0, said
        assert "Traceback" not in said
        assert not Path(f"/proc/{node}").exists()
        assert running.folders() == []
    assert sorted(path for path in project.rglob("*")) == before


@pytest.fixture
def owners_node(tmp_path: Path, make_state: Callable[..., Path], make_skill: Callable[..., bytes]) -> Iterator[Path]:
    """A node of somebody, with the same skill in version 0.1.0."""
    state = make_state(tmp_path / "node", SystemClock(), native=("virtual_machine",))
    node = Node.open(state, Measurement(f"sha256:{'0' * 64}", sealed=False, files=1), log=lambda level, line: None)
    data = make_skill(NAME, "0.1.0")
    asyncio.run(node.install(data, digest_of(data)))
    node.close()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--state", str(state), "--development"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        until(lambda: _active(state) == "0.1.0")
        yield state
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0


def _active(state: Path) -> str:
    try:
        return next((str(skill["version"]) for skill in NodeControl(state).get("/v1/status")["skills"] if skill["name"] == NAME), "")
    except NetworkError:
        return ""


def _reason(state: Path) -> str:
    return str(NodeControl(state).post("/v1/hooks/bid", BOUNTY)[0]["reason"])


@pytest.fixture
def author_key(tmp_path: Path) -> Path:
    path = tmp_path / "author.key"
    keys.create(path, b"a" * 32)  # the author of conftest.py, whom its nodes trust
    return path


@pytest.mark.ci
def test_an_owners_node_is_as_it_was_after_a_session_and_after_one_that_was_killed(
    project: Path, owners_node: Path, author_key: Path, tmp_path: Path
) -> None:
    with dev(project, tmp_path / "home", "--node", owners_node, "--key", author_key) as running:
        assert running.swapped() == "0.1.1-dev.1"  # the node has 0.1.0
        assert _active(owners_node) == "0.1.1-dev.1"
        assert _reason(owners_node) != NAME
        # What the node refuses leaves what runs.
        manifest = project / "skill.toml"
        text = manifest.read_text()
        manifest.write_text(text.replace("capabilities = []", 'capabilities = ["laser"]'))
        assert "laser" in running.wait(lambda event: event["event"] == "refused")["said"]
        assert _active(owners_node) == "0.1.1-dev.1"
        manifest.write_text(text)
        running.swapped()
        code, said = running.end(signal.SIGTERM)
        assert code == 0
        assert said.startswith("watching ")
        assert said.count("\n") == 1
        assert running.wait(lambda event: event["event"] == "ended")["version"] == "0.1.0"
        assert _active(owners_node) == "0.1.0"
        assert _reason(owners_node) == NAME
    with dev(project, tmp_path / "home", "--node", owners_node, "--key", author_key) as running:
        assert running.swapped() == "0.1.1-dev.1"
        running.process.kill()
        until(lambda: _active(owners_node) == "0.1.0")
        assert _reason(owners_node) == NAME


@pytest.mark.slow
def test_a_node_that_does_not_trust_the_author_says_so_and_keeps_what_it_has(project: Path, owners_node: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.key"
    keys.create(stranger, b"x" * 32)
    with dev(project, tmp_path / "home", "--node", owners_node, "--key", stranger) as running:
        refused = running.wait(lambda event: event["event"] == "refused")
        assert "not trusted here" in refused["said"]
        assert refused["error"] == "signature_invalid"
        assert _reason(owners_node) == NAME
        with dev(project, tmp_path / "other", "--node", owners_node, "--key", stranger) as second:
            code, said = second.ended()
            assert code == 30
            assert "tries versions of it out" in said
        assert running.end()[0] == 0


@pytest.mark.ci
def test_a_session_that_is_killed_takes_its_node_with_it_and_the_next_one_clears_up(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    with dev(project, home) as running:
        running.swapped()
        (folder,) = running.folders()
        running.process.kill()
        until(lambda: running.nodes() == [])
        assert running.folders() == [folder]
    monkeypatch.setattr(own_node.tempfile, "gettempdir", lambda: str(home))
    own_node.sweep()
    assert running.folders() == [folder]  # one that was made just now may belong to a session that begins
    os.utime(folder, (0, 0))
    own_node.sweep()
    assert running.folders() == []


@pytest.mark.slow
def test_node_watch_shows_the_calls_of_a_running_node(owners_node: Path) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdk.cli.main", "node", "watch", "--state", str(owners_node), "--calls", "1"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert watching.stdout is not None
    assert watching.stdout.readline() == f"active on the node: {NAME} 0.1.0\n"
    _reason(owners_node)
    shown, _ = watching.communicate(timeout=WAIT_S)
    assert watching.returncode == 0
    assert f"{NAME} 0.1.0 bid(" in shown
    assert " µs, " in shown


@pytest.mark.slow
def test_a_folder_without_a_project_and_a_node_that_does_not_run_are_said_in_one_line(tmp_path: Path, project: Path) -> None:
    for arguments, code, said in (((tmp_path,), 2, "skill.toml"), ((project, "--node", tmp_path / "nowhere"), 50, "no node")):
        with dev(arguments[0], tmp_path / "home", *arguments[1:]) as running:
            found, line = running.ended()
            assert found == code
            assert line.count("error: ") == 1
            assert said in line
            assert "Traceback" not in line
            assert running.folders() == []


class Recorded:
    """A node's control that notes what it is asked."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def get(self, path: str) -> dict[str, Any]:
        return {"skills": []}

    def job(self, program: object, settings: object, run: bool) -> None:
        self._asked.append(f"job, run {run}")

    def post(self, path: str, body: bytes) -> None:
        self._asked.append(path)


def test_all_vectors_move_no_machine_of_somebodys_node_and_one_by_its_name_does(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = Path(__file__).resolve().parents[1] / "skills/toolpath-planner"
    asked: list[str] = []
    told: list[str] = []
    monkeypatch.setattr(session, "NodeControl", lambda state: Recorded(asked))
    for stays in (True, False):
        asked.clear()
        made = session.Session(planner, planner, SigningKey(b"a" * 32), (), lambda event, lines: told.extend(lines), stays=stays)
        made._call("all")
        assert "job, run False" in asked
        assert ("job, run True" in asked) is not stays
        asked.clear()
        made._call("22-driven")
        assert asked == ["job, run True"]
    assert sum("may move the node's machine" in line for line in told) == 1


def test_a_message_to_a_skill_with_a_machine_may_move_it_and_a_bid_of_one_without_may_not() -> None:
    skills = Path(__file__).resolve().parents[1] / "skills"
    for name, moves in (("cell-start", True), ("bounty-bidder", False)):
        loaded = load(skills / name)
        assert {session.may_move(vector, loaded.manifest) for _, vector in vectors.load(loaded.vectors)} == {moves}


def test_the_version_on_trial_is_newer_than_what_a_node_has_and_older_than_what_comes_of_it():
    assert numbered("0.2.0", "", 3) == "0.2.0-dev.3"
    assert numbered("0.2.0", "0.1.9", 1) == "0.2.0-dev.1"
    assert numbered("0.2.0", "0.2.0", 1) == "0.2.1-dev.1"
    assert numbered("0.1.0", "0.9.7-rc.1", 2) == "0.9.8-dev.2"
    for version, active in (("0.2.0", "0.2.0"), ("0.2.0-alpha", "0.2.0-dev.9"), ("1.0.0", "0.9.9"), ("0.1.0", "2.3.4")):
        assert version_key(numbered(version, active, 1)) > version_key(active)


@pytest.mark.slow
def test_what_a_build_makes_and_what_an_editor_keeps_is_no_change(tmp_path: Path) -> None:
    folder = create(tmp_path, NAME, "c")
    sources = Sources(folder)
    for name in ("ore-sorter.wasm", ".main.c.swp", "src/main.c~", ".git/index", "node_modules/a/b.js"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert not sources.changed()
    for change in (  # each a function, as `changed` is asked after each of them
        lambda: (folder / "src/main.c").write_text("int x;"), lambda: (folder / "vectors/03.json").write_text("{}"),
        (folder / "skill.toml").unlink, (folder / "src/new.c").touch,
    ):  # fmt: skip
        change()
        assert sources.changed()
        assert not sources.changed()


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    folder = create(tmp_path, NAME, "c")
    path = folder / "src/main.c"
    sources = Sources(folder)
    other = folder / ".new"
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert sources.changed()


def test_a_node_of_ones_own_trusts_the_author_alone_and_offers_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = SigningKey(b"a" * 32).verify_key
    made = own_node.OwnNode(author, 4)
    made.folder = tmp_path
    made._create()
    found = config.load(made.state)
    assert [bytes(key) for key in found.authors] == [bytes(author)]
    assert {"log", "clock", "random", "state", "flags", "motion"} <= set(found.capabilities.allowed)
    assert (found.node.generation, found.node.registry, found.plugins.native) == (4, "", ("virtual_machine",))


def test_folders_of_sessions_that_are_gone_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_node.tempfile, "gettempdir", lambda: str(tmp_path))
    never, ran, runs, young, elsewhere = (tmp_path / f"{own_node.PREFIX}{name}" for name in ("never", "ran", "runs", "young", "elsewhere"))
    for folder in (never, ran, runs, young):
        (folder / own_node.STATE).mkdir(parents=True)
    for folder in (ran, runs):
        (folder / own_node.STATE / LOCK).touch()
    (tmp_path / "other").mkdir()
    elsewhere.symlink_to(tmp_path / "other")
    for folder in (never, ran, runs, tmp_path / "other"):
        os.utime(folder, (0, 0))
    with (runs / own_node.STATE / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own_node.sweep()
    assert sorted(tmp_path.iterdir()) == sorted([runs, young, elsewhere, tmp_path / "other"])
