"""What a node tells its service manager: a real datagram socket stands in for it. tests/test_deb.py has the real manager."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import host
from host import daemon
from host.core.clock import SystemClock
from host.watchdog import BEATS_PER_PERIOD, Watchdog

ROOT = Path(host.__file__).resolve().parents[1]
UNIT = Path(__file__).resolve().parents[1] / "packaging/systemd/snapcount-node@.service"
DEADLINE_S = 30.0
EXPOSURE_MAX = 20  # systemd-analyze's tenths: below 2.0 of 10


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def hear(self, seconds: float = 0.0) -> str | None:
        """The next message, None when none comes in time."""
        self._socket.settimeout(seconds or 0.001)
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return None

    def hear_until(self, wanted: str) -> list[str]:
        heard: list[str] = []
        deadline = time.monotonic() + DEADLINE_S
        while not heard or not heard[-1].startswith(wanted):
            message = self.hear(max(0.001, deadline - time.monotonic()))
            assert message is not None, f"{wanted} never came; heard {heard}"
            heard.append(message)
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def environment(tmp_path: Path, period_us: int = 40_000, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(period_us)} | more


def test_it_says_when_the_node_is_ready_beats_and_stops(tmp_path, manager):
    watchdog = Watchdog(environment(tmp_path))
    watchdog.ready("press-7: ready")
    watchdog.beat()
    watchdog.stopping()
    assert [manager.hear() for _ in range(4)] == ["READY=1\nSTATUS=press-7: ready", "WATCHDOG=1", "STOPPING=1", None]


def test_it_beats_at_most_so_often_as_the_period_needs(tmp_path, manager):
    watchdog = Watchdog(environment(tmp_path, 3_600_000_000))
    for _ in range(100):
        watchdog.beat()
    assert manager.hear() == "WATCHDOG=1"
    assert manager.hear() is None
    quick = Watchdog(environment(tmp_path, 20_000))
    quick.beat()
    time.sleep(0.020 / BEATS_PER_PERIOD * 1.5)
    quick.beat()
    assert [manager.hear(), manager.hear()] == ["WATCHDOG=1", "WATCHDOG=1"]


def test_an_abstract_socket_is_a_manager_too():
    name = f"snapcount-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    try:
        Watchdog({"NOTIFY_SOCKET": f"@{name}"}).ready("here")
        assert manager.hear() == "READY=1\nSTATUS=here"
    finally:
        manager.close()


def test_no_child_inherits_the_right_to_speak(tmp_path, manager):
    inherited = environment(tmp_path, WATCHDOG_PID=str(os.getpid()), HOME="/")
    Watchdog(inherited).beat()
    assert inherited == {"HOME": "/"}
    assert manager.hear() == "WATCHDOG=1"


@pytest.mark.parametrize("more", [{"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_PID": "1"}])
def test_without_a_period_for_this_process_it_does_not_beat(tmp_path, manager, more):
    Watchdog(environment(tmp_path) | more).beat()
    assert manager.hear() is None


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path):
    for variables in ({}, environment(tmp_path), {"NOTIFY_SOCKET": "/" + "x" * 200}):
        watchdog = Watchdog(variables)
        watchdog.ready("alone")
        watchdog.beat()
        assert variables == {}, "a child of this process would speak to nobody"
    assert list(tmp_path.iterdir()) == []


class Looking:
    """A node that can only look at itself; `looks` says what becomes of each."""

    name = "press-7"

    def __init__(self, *looks: object) -> None:
        self._looks = list(looks)

    async def tick(self) -> None:
        look = self._looks.pop(0) if self._looks else None
        if isinstance(look, Exception):
            raise look
        if look == "stuck":
            await asyncio.Event().wait()


async def looks(monkeypatch: pytest.MonkeyPatch, watchdog: Watchdog, node: Looking, seconds: float) -> None:
    monkeypatch.setattr(daemon, "TICK_S", 0.005)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await daemon._tick(node, asyncio.Event(), watchdog)  # type: ignore[arg-type]


def test_only_a_look_that_ends_well_beats(tmp_path, manager, monkeypatch, capsys):
    watchdog = Watchdog(environment(tmp_path, 4))
    asyncio.run(looks(monkeypatch, watchdog, Looking(*[RuntimeError("a defect")] * 1_000), 0.05))
    assert manager.hear() is None
    assert "a defect" in capsys.readouterr().err
    asyncio.run(looks(monkeypatch, watchdog, Looking("stuck"), 0.05))
    assert manager.hear() is None
    asyncio.run(looks(monkeypatch, watchdog, Looking(RuntimeError("once"), None, "stuck"), 0.05))
    assert [manager.hear(), manager.hear()] == ["WATCHDOG=1", None]


@pytest.mark.slow
@pytest.mark.parametrize("place", [{}, {"role": "agent"}], ids=["asyncio", "uvloop"])
def test_a_real_node_is_ready_beats_while_it_lives_is_silent_while_it_hangs_and_says_that_it_stops(tmp_path, manager, make_state, place):
    state = make_state(tmp_path / "node", SystemClock())
    if place:
        path = state / "node.toml"
        path.write_text(
            path.read_text()
            .replace('role = ""', 'role = "agent"')
            .replace("parents = []              # ws", 'parents = ["ws://127.0.0.1:9"] # ws')
        )
    command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--development", "--state", str(state)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment(tmp_path, 400_000)
    process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
    try:
        assert manager.hear_until("READY=1") == ["READY=1\nSTATUS=node-01: ready"]
        assert manager.hear_until("WATCHDOG=1") == ["WATCHDOG=1"]
        assert manager.hear(5.0) == "WATCHDOG=1"
        process.send_signal(signal.SIGSTOP)  # as if its loop hung
        while manager.hear():
            pass
        assert manager.hear(1.5) is None
        process.send_signal(signal.SIGCONT)
        assert manager.hear(5.0) == "WATCHDOG=1"
        process.terminate()
        assert manager.hear_until("STOPPING=1")
        assert process.wait(DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_as_it_is_and_finds_it_hardened(tmp_path):
    unit = tmp_path / "snapcount-node@.service"
    unit.write_text(UNIT.read_text().replace("ExecStart=/usr/bin/snapcount ", "ExecStart=/bin/true "))
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "snapcount-node@press-7.service"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "snapcount" in line]) == (0, [])
    audited = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_the_unit_allows_what_the_sandbox_needs():
    said = [line.partition("=")[::2] for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    assert ("MemoryDenyWriteExecute", "no") in said
    assert ("Type", "notify") in said
    assert not [value for key, value in said if key == "SystemCallFilter" and "@resources" in value]
    assert ("ExecStart", "/usr/bin/snapcount node run --state /var/lib/snapcount/%i") in said
    assert ("StateDirectory", "snapcount/%i") in said
    assert not any(key in ("LimitAS", "PrivateDevices", "PrivateNetwork") for key, _ in said)
