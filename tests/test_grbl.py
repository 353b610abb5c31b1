"""A machine with a Grbl controller: its protocol, character counting, and what happens when a line, a machine or a cable fails in the middle of a job."""

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from typer.testing import CliRunner

import host
from host import config
from host.core import cbor, safety
from host.core.attestation import Measurement
from host.core.bundle import with_signature
from host.core.clock import SystemClock
from host.core.commands import AnyCommand, Dwell, Heat, Home, Move, Status, Tool
from host.core.errors import Busy, HostFault, MachineAlarm, MachineError, SafeMode, StateDamaged, UnsafeCommand, UsageError
from host.core.limits import DEFAULT
from host.core.safety import Refusal, SafetyEnvelope, SafetyLimits
from host.machine_routes import machine_routes
from host.mesh_routes import serve_control, stop_control
from host.node import Node
from host.plugins.attended import Attended, AttendedDriver
from host.plugins.contract import PlanSettings
from host.plugins.driver import DriverGate
from host.plugins.drivers.grbl import codes, gcode, port, protocol, report
from host.plugins.drivers.grbl.machine import ACTIONS, GrblMachine
from host.plugins.drivers.grbl.protocol import (
    Alarm,
    Failed,
    Feedback,
    Garbled,
    LineReader,
    Message,
    Ok,
    Setting,
    Started,
    Welcome,
    parse,
)  # fmt: skip
from host.plugins.drivers.grbl.protocol import Status as Report
from host.plugins.drivers.grbl.session import Session
from host.plugins.drivers.grbl.settings import Controller, GrblSettings, read_settings
from host.plugins.drivers.grbl.stream import Line, Stream
from host.plugins.manager import PluginManager
from sdk.cli import machine as cli
from sdk.grbl_peer.firmware import Firmware
from sdk.grbl_peer.planner import Planner
from sdk.grbl_peer.serve import Cable, Peer, PtyCable, TcpCable
from skills import module_path

WAIT_S = 20.0
ROOT = Path(host.__file__).resolve().parent.parent
SEED = int(os.environ.get("GRBL_SEED", "0")) or random.randrange(1 << 32)
OneLine = Callable[..., str]

LIMITS = safety.parse_limits(b"""
travel_mm = {x = [0.0, 300.0], y = [0.0, 300.0], z = [0.0, 100.0]}
speed_mm_s = {max = 250.0}
power_w = {tool = 100.0}
rate = {moves_per_s = 1e9, burst = 1000000000}
safe_mode = {refusals = 5}
""", "safety.toml")  # fmt: skip
WELCOME = b"\r\nGrbl 1.1h ['$' for help]\r\n"
INTRODUCTION = b"error:1\r\n[VER:1.1h.20190825:]\r\n[OPT:VZ,15,128]\r\nok\r\n"
SETTINGS = b"$10=1\r\n$13=0\r\n$20=1\r\n$21=1\r\n$22=1\r\n$23=7\r\n$30=1000.\r\n$130=300.000\r\n$131=300.000\r\n$132=100.000\r\nok\r\n"
IDLE = b"<Idle|MPos:1.000,2.000,3.000|FS:0,0>\r\n"
RUN = b"<Run|MPos:4.000,5.000,6.000|FS:500,0>\r\n"


def until(condition: Callable[[], Any], what: str) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.005)


# ---- What a controller says ------------------------------------------------------------------------

SAID: list[tuple[str, Message]] = [
    ("ok", Ok()),
    ("error:20", Failed(20)),
    ("error: Bad number format", Failed(0)),
    ("ALARM:2", Alarm(2)),
    ("Grbl 1.1h ['$' for help]", Welcome("1.1h")),
    ("\xfe\x00\x07Grbl 1.1f ['$' for help]", Welcome("1.1f")),  # noise of a line that is switched on
    ("$130=200.000", Setting(130, 200.0)),
    ("$23=3", Setting(23, 3.0)),
    ("$30=1000.", Setting(30, 1000.0)),
    ("$N0=G20", Started("$N0=G20")),
    (">G54G20:ok", Started("G54G20:ok")),
    (">:error:7", Started(":error:7")),
    ("[MSG:Reset to continue]", Feedback("MSG", "Reset to continue")),
    ("[MSG:'$H'|'$X' to unlock]", Feedback("MSG", "'$H'|'$X' to unlock")),
    ("[VER:1.1h.20190825:mill]", Feedback("VER", "1.1h.20190825:mill")),
    ("[OPT:VL,15,128]", Feedback("OPT", "VL,15,128")),
    ("[GC:G0 G54 G17 G21 G90 G94 M5 M9 T0 F0 S0]", Feedback("GC", "G0 G54 G17 G21 G90 G94 M5 M9 T0 F0 S0")),
    ("[G54:0.000,-1.500,0.000]", Feedback("G54", "0.000,-1.500,0.000")),
    ("[PRB:0.000,0.000,1.492:1]", Feedback("PRB", "0.000,0.000,1.492:1")),
    ("[echo:G1X0.540Y10.4F100]", Feedback("echo", "G1X0.540Y10.4F100")),
    ("<Idle|MPos:0.000,-10.000,5.000|FS:0,0>", Report("Idle", machine=(0.0, -10.0, 5.0), feed=0.0)),
    ("<Run|WPos:1.000,2.000,3.000|Bf:12,87|F:500>", Report("Run", work=(1.0, 2.0, 3.0), free=(12, 87), feed=500.0)),
    ("<Hold:1|MPos:1.0,2.0,3.0|FS:0,0|Pn:PZ>", Report("Hold", 1, machine=(1.0, 2.0, 3.0), feed=0.0, pins="PZ")),
    ("<Door:2|MPos:1.0,2.0,3.0|FS:0,0|Pn:D>", Report("Door", 2, machine=(1.0, 2.0, 3.0), feed=0.0, pins="D")),
    ("<Alarm|MPos:1.0,2.0,3.0,4.0|WCO:0.1,0.2,0.3,0.4>", Report("Alarm", machine=(1.0, 2.0, 3.0), offset=(0.1, 0.2, 0.3))),
    ("<Jog|MPos:1.0,2.0,3.0|FS:9,0|Ov:120,100,90|A:SF>", Report("Jog", machine=(1.0, 2.0, 3.0), feed=9.0, overrides=(120, 100, 90))),
    ("<Sleep|MPos:1.0,2.0,3.0|Ln:99999|New:1,2>", Report("Sleep", machine=(1.0, 2.0, 3.0))),  # fields that come later are passed over
]  # fmt: skip
BAD = [
    "OK", "ok ok", "okay", "o", "error", "error20", "ALARM:", "ALARM:1234", "ALARM:x", "<Idle|MPos:1,2,3", "<Dancing|MPos:1,2,3>", "<Idle>", "<>",
    "<Idle|MPos:1,2>", "<Idle|MPos:nan,1,2>", "<Idle|MPos:inf,1,2>", "<Idle|MPos:a,b,c>", "<Idle|MPos:1,2,3|Bf:1>", "<Hold:x|MPos:1,2,3>",
    "<Hold:123|MPos:1,2,3>", "<Idle|MPos:1,2,3|Ov:1>", "[]", "[MSG:no end", "$", "$=1", "$13", "$13=", "$1e9=1", "$13=nan", "$13=" + "9" * 40,
    "Grbl 1.1h", "ok\xff", "\x1b[31mok", "?", "echo", "\u2028",
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), SAID, ids=[line for line, _ in SAID])
def test_every_message_of_grbl_is_understood(line: str, message: Message) -> None:
    assert parse(line) == message
    assert list(LineReader().feed(line.encode("latin-1") + b"\r\n")) == [message]


@pytest.mark.parametrize("line", BAD)
def test_what_grbl_does_not_say_is_garbled_and_answers_nothing(line: str) -> None:
    assert parse(line) == Garbled(line)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=8))
def test_any_bytes_in_any_pieces_give_the_same_messages(data: bytes, cuts: list[int]) -> None:
    whole = list(LineReader().feed(data))
    reader, messages, at = LineReader(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        messages += list(reader.feed(data[at:cut]))
        at = max(at, min(cut, len(data)))
    assert messages == whole


def test_a_line_without_end_is_bounded_and_the_one_behind_it_is_read() -> None:
    reader = LineReader()
    for _ in range(1000):
        assert list(reader.feed(b"x" * 1000)) == []
    assert len(reader._part) == DEFAULT.machine_line_bytes_max
    overlong, after = reader.feed(b"ok\nok\n")
    assert isinstance(overlong, Garbled)
    assert after == Ok()


def test_every_documented_code_has_a_text_of_its_own() -> None:
    assert set(codes.ERRORS) == {*range(1, 18), *range(20, 39)}
    assert set(codes.ALARMS) == set(range(1, 10))
    texts = [*codes.ERRORS.values(), *(meaning.text for meaning in codes.ALARMS.values())]
    assert len(set(texts)) == len(texts)
    assert codes.error_text(250) == codes.error_text(0) != ""
    assert codes.alarm_meaning(250).needs_reset
    assert {code for code, meaning in codes.ALARMS.items() if meaning.keeps_position} == {2, 4, 5}
    assert {code for code, meaning in codes.ALARMS.items() if meaning.needs_reset} == {1, 2}


# ---- Character counting ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 79), st.integers(0, 3), st.booleans()), max_size=200), st.integers(80, 128))
def test_the_buffer_is_never_overfilled_and_no_line_is_lost_or_overtaken(plan: list[tuple[int, int, bool]], capacity: int) -> None:
    stream = Stream(capacity)
    sent, answered = bytearray(), []
    for number, (length, answers, alone) in enumerate(plan, 1):
        stream.add(Line("X" * length, number, alone))
        sent += stream.take()
        assert stream.bytes_in_flight == sum(line.size for line in stream.in_flight) <= capacity
        assert len(stream.in_flight) == 1 or not any(line.alone for line in stream.in_flight)
        answered += [line for _ in range(answers) if (line := stream.answered())]
    while stream:
        sent += stream.take()
        line = stream.answered()
        assert line is not None, "something that waits can always be sent once all is answered"
        answered.append(line)
    assert [line.number for line in answered] == list(range(1, len(plan) + 1))
    assert sent.decode().split("\n")[:-1] == ["X" * length for length, _, _ in plan]
    assert stream.peak <= capacity
    assert stream.answered() is None


@pytest.mark.parametrize("text", ["", "X" * 80, "G1?", "G1!", "G1~", "G1\n", "G1é"])
def test_a_line_that_the_controller_would_not_take_whole_is_a_defect(text: str) -> None:
    with pytest.raises(AssertionError):
        Stream().add(Line(text))


# ---- Commands as lines -----------------------------------------------------------------------------

MILL = GrblSettings(port="/dev/null", tool_max_w=50.0)
CONTROLLER = Controller("1.1h", "VZ,15,128", {30: 1000.0, 130: 300.0, 131: 300.0, 132: 100.0, 22: 1.0, 20: 1.0, 21: 1.0, 10: 1.0, 23: 7.0})


def texts(command: AnyCommand, limits: SafetyLimits = LIMITS) -> list[str]:
    return [line.text for line in gcode.lines_of(command, limits, MILL, CONTROLLER)]


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (Move(((10.0, 20.5, 0.125, 50.0), (0.0, -0.0, 1e-5, 0.5))), ["G53G1X10Y20.5Z0.125F3000", "G53G1X0Y0Z0F30"]),
        (Tool(0.0), ["M5S0"]),
        (Tool(25.0), ["M3S500"]),
        (Tool(50.0), ["M3S1000"]),
        (Home(), ["G4P0", "$H", "G17G21G90G94"]),
        (Dwell(0), ["G4P0"]),
        (Dwell(1500), ["G4P1.5"]),
        (Dwell(1_500_000), ["G4P600", "G4P600", "G4P300"]),
        (Status(), []),
    ],
)
def test_commands_become_lines_that_stand_by_themselves(command: AnyCommand, lines: list[str]) -> None:
    assert texts(command) == lines


@given(st.floats(0, 300), st.floats(0, 300), st.floats(0.0, 0.0004), st.floats(0.001, 250))
def test_rounding_never_takes_a_move_past_the_envelope(x: float, y: float, z: float, feed: float) -> None:
    limits = msgspec.structs.replace(LIMITS, travel_mm=safety.Travel((0.0, x), (y, 300.0), (z, 100.0)))
    try:
        (line,) = texts(Move(((x, y, max(z, 0.5), feed),)), limits)
    except UsageError:
        return  # a box that holds no whole micrometre there
    words = {
        word[0]: float(word[1:]) for word in line.removeprefix("G53G1").replace("Y", " Y").replace("Z", " Z").replace("F", " F").split()
    }
    assert 0 <= words["X"] <= x
    assert y <= words["Y"] <= 300
    assert 0 < words["F"] <= feed * 60
    assert max(abs(words["X"] - x), abs(words["Y"] - y)) <= 0.001


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (Heat("nozzle\x1b", 200.0), ("no heater", "\\x1b")),
        (Tool(50.1), ("tool_max_w", "50.1 W")),
        (Move(((1.0, 1.0, 1.0, 1e-9),)), ("1e-09 mm/s",)),
        (Move(((1.0, 1.0, 1.0, 1e6),)), ("mm/s",)),
    ],
)
def test_what_the_machine_has_not_got_is_refused_by_name(command: AnyCommand, named: tuple[str, ...], one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        texts(command)
    one_line(caught.value, *named)


# ---- Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({}, ("port",)),
        ({"port": "ttyACM0"}, ("port", "ttyACM0")),
        ({"port": "spy:///dev/ttyACM0"}, ("port", "spy")),
        ({"port": "socket://host"}, ("socket://HOST:PORT",)),
        ({"port": "/dev/tty ACM0"}, ("port",)),
        ({"port": "/dev/x", "baud": 7}, ("baud",)),
        ({"port": "/dev/x", "tool_code": "M6"}, ("tool_code",)),
        ({"port": "/dev/x", "silence_s": "long"}, ("silence_s",)),
        ({"port": "/dev/x", "sped": 1}, ("sped",)),
    ],
)
def test_settings_that_are_wrong_are_named(table: dict[str, Any], named: tuple[str, ...], one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(table)
    one_line(caught.value, "[drivers.grbl]", *named)


def test_the_nodes_file_carries_the_settings_of_plugins_that_it_names(tmp_path: Path, one_line: OneLine) -> None:
    key = "ed25519:" + "00" * 32
    text = config.template("node-01", key, 1, "", (), ("motion",), ("grbl",)) + '\n[drivers.grbl]\nport = "/dev/ttyACM0"\n'
    (tmp_path / config.FILE).write_text(text)
    assert config.load(tmp_path).drivers == {"grbl": {"port": "/dev/ttyACM0"}}
    (tmp_path / config.FILE).write_text(text.replace("[drivers.grbl]", "[drivers.gerbil]"))
    with pytest.raises(StateDamaged) as caught:
        config.load(tmp_path)
    one_line(caught.value, "drivers.gerbil", "plugins.native", "grbl")


def test_a_plugin_gets_its_own_table_and_the_owners_limits(tmp_path: Path, one_line: OneLine) -> None:
    manager = PluginManager()
    manager.load_native(("grbl",))
    drivers = manager.drivers({"grbl": {"port": str(tmp_path / "none")}}, LIMITS)
    machine = drivers["motion"]
    assert isinstance(machine, GrblMachine)
    assert isinstance(machine, AttendedDriver)
    assert machine.home_mm == (0.0, 0.0, 0.0)
    machine.close()
    with pytest.raises(HostFault) as caught:
        manager.drivers({}, LIMITS)
    one_line(caught.value, "plugin grbl", "port")


def test_the_plugin_without_pyserial_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, one_line: OneLine) -> None:
    manager = PluginManager()
    manager.load_native(("grbl",))
    monkeypatch.setattr(port, "find_spec", lambda name: None)
    with pytest.raises(HostFault) as caught:
        manager.drivers({"grbl": {"port": "/dev/ttyACM0"}}, LIMITS)
    one_line(caught.value, "plugin grbl", "pip install 'snapcount[grbl]'")


@pytest.mark.parametrize(
    ("values", "options", "home"),
    [
        ({23: 0}, "V,15,128", (-2.0, -2.0, -2.0)),
        ({23: 3}, "V,15,128", (-298.0, -198.0, -2.0)),
        ({23: 7}, "VZ,15,128", (0.0, 0.0, 0.0)),
    ],
)
def test_where_homing_ends_follows_from_the_settings(values: dict[int, float], options: str, home: protocol.Point) -> None:
    assert Controller("1.1h", options, {27: 2.0, 130: 300.0, 131: 200.0, 132: 100.0} | values).home_mm == home


@pytest.mark.parametrize(
    ("options", "room"), [("V,15,128", 128), ("V,15,100", 100), ("V,35,1024", 128), ("V", 128), ("V,x,y", 128), ("V,15,0", 128)]
)
def test_no_more_is_in_flight_than_the_controller_states_and_never_more_than_128(options: str, room: int) -> None:
    assert Controller("1.1h", options, {}).rx_bytes == room


def test_what_speaks_against_a_controller_is_said() -> None:
    assert list(CONTROLLER.problems(True)) == []
    assert list(CONTROLLER.notes(LIMITS)) == []
    bad = Controller("0.9j", "", {22: 0.0, 10: 0.0, 13: 1.0, 130: 100.0, 131: 300.0})
    problems, notes = " | ".join(bad.problems(True)), " | ".join(bad.notes(LIMITS))
    assert all(name in problems for name in ("0.9j", "Grbl 1.1", "$22=0", "$132"))
    assert all(
        name in notes
        for name in ("$20=0", "$21=0", "$13=1", "$10", "x: the safety envelope allows [0, 300] mm, the controller has [-100, 0]")
    )


# ---- One controller, scripted ----------------------------------------------------------------------


class Script:
    """A session and what it sends; the test is the controller. Time passes only as it says."""

    def __init__(self, *, ready: bool = True, homed: bool = True, **settings: Any) -> None:
        self.session = Session(GrblSettings(port="/dev/mill", status_ms=100, **settings))
        self.now_s = 1000.0
        self.session.opened(self.now_s)
        if ready:
            self.introduce()
            self.session.homed = homed

    def say(self, data: bytes) -> bytes:
        """The controller says something; what the driver sends then, without its questions for a report."""
        self.session.received(data, self.now_s)
        return self.sent()

    def sent(self, after_s: float = 0.0) -> bytes:
        self.now_s += after_s
        self.session.tick(self.now_s)
        self.session.quiet(self.now_s)
        return self.session.take().replace(protocol.STATUS, b"")

    def introduce(self, settings: bytes = SETTINGS, report_line: bytes = IDLE) -> None:
        assert self.say(report_line * 3) == b":\n$I\n"
        assert self.say(INTRODUCTION) == b"$$\n"
        assert self.say(settings) == b"\x90\x95\x99"
        assert self.session.ready

    def give(self, *commands: AnyCommand) -> bytes:
        for command in commands:
            self.session.give(gcode.lines_of(command, LIMITS, MILL, CONTROLLER))
        return self.sent()

    @property
    def failure(self) -> str:
        return str(self.session.error()) if self.session.failure else ""


def moves(count: int, first: int = 1) -> Move:
    return Move(tuple((float(first + n), 0.0, 0.0, 10.0) for n in range(count)))


def test_a_controller_that_rests_is_introduced_before_any_line_is_sent() -> None:
    script = Script(ready=False)
    script.session.give([Line("G1X1")])
    assert script.sent() == b""
    assert script.say(WELCOME) == b""
    script.introduce()
    assert script.session.handshake.controller.version == "1.1h.20190825"


@pytest.mark.parametrize("state", [b"Run", b"Hold:0", b"Hold:1", b"Jog", b"Door:1", b"Home", b"Check", b"Sleep"])
def test_a_controller_that_is_busy_with_what_this_node_did_not_start_is_only_watched(state: bytes) -> None:
    script = Script(ready=False)
    for _ in range(50):
        assert script.say(b"<" + state + b"|MPos:1.0,2.0,3.0|FS:0,0>\r\nok\r\n") == b""
        assert script.sent(0.2) == b""
    reason = report.why_not_ready(script.session)
    assert "a job is running that this node did not start" in reason
    assert state.decode() in reason
    assert script.session.strays == 0
    script.introduce()  # and taken over once it rests


def test_what_is_left_of_a_sender_before_us_gets_no_line_confused() -> None:
    script = Script(ready=False)
    assert script.say(IDLE * 3) == b":\n$I\n"
    assert script.say(b"ok\r\nok\r\nerror:20\r\nok\r\n") == b""  # answers to lines of somebody else
    assert script.say(INTRODUCTION) == b"$$\n"
    assert script.say(SETTINGS) != b""
    assert script.session.strays == 0


def test_an_introduction_that_is_not_answered_starts_over() -> None:
    script = Script(ready=False)
    assert script.say(IDLE * 3) == b":\n$I\n"
    assert script.say(b"error:1\r\nerror:8\r\n") == b""
    assert script.sent(2.0) + script.say(IDLE) + script.sent(2.0) == b""
    assert script.say(IDLE * 3) == b":\n$I\n"


def test_a_refused_line_is_named_holds_the_feed_and_nothing_is_sent_after_it(one_line: OneLine) -> None:
    script = Script()
    assert script.give(moves(20)).startswith(b"G17G21G90G94\nG53G1X1Y0Z0F600\n")
    assert script.say(b"ok\r\nok\r\nok\r\n") != b""
    assert script.say(b"error:22\r\n") == b"!"
    error = script.session.error()
    assert (type(error), error.machine_code, error.line, error.text) == (MachineError, 22, 3, "G53G1X3Y0Z0F600")
    one_line(
        error,
        "line 3 `G53G1X3Y0Z0F600`",
        "error:22",
        "no feed rate",
        "line 2 of 20 was the last",
        "(1.000, 2.000, 3.000) mm",
        "a person decides",
    )
    assert script.say(b"ok\r\n" * 20) == b""
    assert script.sent(1.0) == b""


def test_a_soft_limit_belongs_to_the_oldest_line_in_flight_and_the_ok_of_the_reset_counts_for_nothing(one_line: OneLine) -> None:
    script = Script()
    script.give(moves(20))
    assert script.say(b"ok\r\nok\r\n") != b""
    assert script.say(b"ALARM:2\r\n[MSG:Reset to continue]\r\n") == b""
    error = script.session.error()
    assert (type(error), error.machine_code, error.line, error.text) == (MachineAlarm, 2, 2, "G53G1X2Y0Z0F600")
    one_line(error, "ALARM:2 at line 2", "position is kept", "nothing but a reset", "line 1 of 20")
    for _ in range(100):
        assert script.sent(10.0) == b""  # mute, and no reason to give the link up
    script.session.reset(script.now_s)
    assert script.sent() == b"\x18"
    script.say(b"ok\r\n" + WELCOME + b"[MSG:'$H'|'$X' to unlock]\r\n")
    assert script.session.job.acknowledged == 1
    script.introduce(report_line=b"<Alarm|MPos:1.000,2.000,3.000|FS:0,0>\r\n")
    assert (script.session.homed, script.session.locked, script.failure) == (True, True, "")
    assert "unlock" in report.why_not_move(script.session)
    script.session.unlock()
    assert script.sent() == b"$X\n"
    script.say(b"[MSG:Caution: Unlocked]\r\nok\r\n" + IDLE)
    assert report.why_not_move(script.session) == ""


def test_a_reset_in_motion_says_that_the_position_is_lost(one_line: OneLine) -> None:
    script = Script()
    script.session.begin_job()
    script.give(moves(20))
    script.say(b"ok\r\nok\r\n" + RUN)
    script.session.reset(script.now_s)
    script.say(b"ALARM:3\r\nok\r\n" + WELCOME)
    error = script.session.error()
    assert (type(error), error.machine_code) == (MachineAlarm, 3)
    one_line(
        error,
        "a person reset the controller",
        "ALARM:3",
        "lost its position",
        "line 1 of 20",
        "(4.000, 5.000, 6.000) mm, which is not certain",
    )
    script.introduce(report_line=b"<Alarm|MPos:4.000,5.000,6.000|FS:0,0>\r\n")
    assert not script.session.position_known
    script.session.unlock()
    script.sent()
    script.say(b"ok\r\n" + IDLE)
    assert "position is unknown: it was reset while it moved" in report.why_not_move(script.session)
    script.session.end_job()
    assert script.give(Home()).startswith(b"G17G21G90G94\n")
    script.say(b"ok\r\nok\r\n")
    script.say(b"ok\r\n")
    assert script.session.homed


def test_a_controller_that_resets_by_itself_ends_the_job(one_line: OneLine) -> None:
    script = Script()
    script.give(moves(20))
    script.say(b"ok\r\n" + WELCOME)
    one_line(script.failure, "the controller was reset", "button", "power", "a person decides")
    assert (script.session.homed, script.session.ready, script.session.needs_person) == (False, False, True)
    assert script.say(IDLE * 3) == b":\n$I\n"  # and not one line of the job


@pytest.mark.parametrize("surplus", [1, 7])
def test_more_answers_than_lines_end_the_work(surplus: int, one_line: OneLine) -> None:
    script = Script()
    script.session.begin_job()
    assert script.give(moves(2)) != b""
    assert script.say(b"ok\r\n" * (3 + surplus)) == b"!"
    one_line(script.failure, "answers more lines than it was sent")


def test_a_stray_answer_while_nothing_runs_is_counted_and_a_flood_of_them_is_too_much() -> None:
    script = Script()
    script.say(b"ok\r\n" * DEFAULT.machine_strays_max)
    assert (script.session.strays, script.failure) == (DEFAULT.machine_strays_max, "")
    script.say(b"ok\r\n")
    assert "answers more lines" in script.failure


def test_an_answer_that_was_lost_on_the_way_is_noticed(one_line: OneLine) -> None:
    script = Script(answer_s=5.0)
    script.give(moves(2))
    script.say(b"ok\r\no\xff\r\nok\r\n" + RUN)
    for _ in range(10):
        script.say(RUN)
        script.sent(3.0)
    assert script.failure == ""  # it moves, so it may yet answer
    for _ in range(3):
        script.say(IDLE)
        script.sent(2.0)
    assert script.session.failure is not None
    one_line(script.failure, "the controller rests", "an answer was lost")


def test_a_dwell_is_not_taken_for_a_lost_answer() -> None:
    script = Script(answer_s=5.0)
    script.give(Dwell(60_000))
    script.say(b"ok\r\n")
    for _ in range(30):
        script.say(IDLE)
        script.sent(2.0)
    assert script.failure == ""
    for _ in range(5):
        script.say(IDLE)
        script.sent(2.0)
    assert "an answer was lost" in script.failure


def test_a_silent_controller_ends_the_link_but_not_while_it_homes(one_line: OneLine) -> None:
    script = Script(silence_s=1.0, homing_s=30.0)
    script.give(Home())
    script.say(b"ok\r\nok\r\n")
    for _ in range(28):
        script.sent(1.0)
    with pytest.raises(MachineError) as caught:
        script.sent(5.0)
    one_line(caught.value, "said nothing for")
    script.session.closed(str(caught.value), script.now_s)
    one_line(script.failure, "the link to /dev/mill was lost", "said nothing for")
    assert not script.session.homed


def test_bytes_that_are_no_grbl_end_the_link_soon(one_line: OneLine) -> None:
    script = Script()
    noise = random.Random(SEED)
    with pytest.raises(MachineError) as caught:
        for _ in range(1_000):
            script.say(bytes(noise.randrange(128, 256) for _ in range(50)) + b"\n")
    one_line(caught.value, "no Grbl", "115200 baud")
    assert script.session.watch.garbled == DEFAULT.machine_garbled_max + 1


@given(st.lists(st.one_of(st.sampled_from([line.encode("latin-1") + b"\r\n" for line, _ in SAID]), st.binary(max_size=40)), max_size=60))
def test_no_words_of_a_controller_make_the_driver_send_what_it_was_not_given(said: list[bytes]) -> None:
    script = Script()
    script.give(moves(30))
    known = {b"", b"$I", b"$$", b"G4P0", b"G17G21G90G94", *(f"G53G1X{n}Y0Z0F600".encode() for n in range(1, 31))}
    for words in said:
        with suppress(MachineError):
            sent = script.say(words)
            assert set(sent.translate(None, b"!:\x90\x95\x99").split(b"\n")) <= known
            assert script.session.stream.bytes_in_flight <= 128
        script.now_s += 0.01


def test_reports_of_work_positions_in_inches_are_converted() -> None:
    script = Script(ready=False)
    script.introduce(SETTINGS.replace(b"$13=0", b"$13=1").replace(b"$10=1", b"$10=0"))
    script.session.seen_mm = None
    script.say(b"<Idle|WPos:1.000,2.000,3.000|FS:0,0>\r\n")
    assert script.session.seen_mm is None  # its offset is not known yet
    script.say(b"<Idle|WPos:1.000,2.000,3.000|FS:0,0|WCO:1.000,0.000,-1.000>\r\n")
    assert script.session.seen_mm == pytest.approx((50.8, 50.8, 50.8))
    script.say(b"<Idle|WPos:0.000,0.000,0.000|FS:0,0>\r\n")
    assert script.session.seen_mm == pytest.approx((25.4, 0.0, -25.4))


def test_sleep_and_a_lost_link_lose_the_position() -> None:
    script = Script()
    script.say(b"<Sleep|MPos:1.0,2.0,3.0|FS:0,0>\r\n")
    assert "slept" in script.session.lost_position
    script = Script()
    script.session.closed("gone", script.now_s)
    assert not script.session.position_known
    assert script.failure == ""  # nothing was under way, so nobody has to see to it


# ---- A machine behind a cable ----------------------------------------------------------------------


class Mill:
    """A peer, the driver, and the envelope before it."""

    def __init__(self, cable: Cable, firmware: Firmware, **settings: Any) -> None:
        self.peer = Peer(firmware, cable)
        self.firmware = firmware
        self.refused: list[Refusal] = []
        self.settings = {"port": cable.url, "status_ms": 20, "silence_s": 2.0, "tool_max_w": 50.0} | settings
        self.envelope = SafetyEnvelope(LIMITS, SigningKey(b"o" * 32).verify_key, audit=self.refused.append)
        self.connect()

    def connect(self) -> None:
        self.machine = GrblMachine(read_settings(self.settings), LIMITS)
        self.gate = DriverGate(self.machine, self.envelope, SystemClock())

    def ask(self, command: AnyCommand) -> dict[str, Any]:
        reply: dict[str, Any] = cbor.decode(self.gate.ask("test", cbor.encode(command)), "reply")
        return reply

    def ready(self) -> "Mill":
        self.until("link", "ready")
        return self

    def until(self, key: str, value: Any) -> None:
        until(lambda: value in str(self.machine.status()[key]), f"{key} to be {value}: {self.machine.status()}")

    def homed(self) -> "Mill":
        self.ready()
        self.ask(Home())
        self.settle()
        return self

    def settle(self) -> None:
        ends = time.monotonic() + WAIT_S
        while not self.machine.settle(0.2):
            assert time.monotonic() < ends, self.machine.status()

    def fails(self, kind: type[MachineError] = MachineError) -> MachineError:
        with pytest.raises(MachineError) as caught:
            self.settle()
        assert type(caught.value) is kind, caught.value
        return caught.value

    def close(self) -> None:
        self.machine.close()
        self.peer.__exit__(None, None, None)


@pytest.fixture
def make_mill(tmp_path: Path) -> Iterator[Callable[..., Mill]]:
    made: list[Mill] = []

    def make(*, tcp: bool = False, speed: float = 1000.0, firmware: Firmware | None = None, **settings: Any) -> Mill:
        cable = TcpCable() if tcp else PtyCable(tmp_path / "mill")
        if tcp:
            cable.plug()
            cable.pull()  # it has its port now
        made.append(Mill(cable, firmware or Firmware(speed=speed), **settings))
        return made[-1]

    yield make
    for mill in made:
        mill.close()


def program(count: int, seed: int) -> list[tuple[float, float, float, float]]:
    """Moves with long and short lines, within the envelope."""
    dice = random.Random(seed)
    return [
        (
            round(dice.uniform(0, 300), dice.choice((0, 1, 3))),
            round(dice.uniform(0, 300), dice.choice((0, 3))),
            dice.choice((0.0, 5.125)),
            250.0,
        )
        for _ in range(count)
    ]


def stream(mill: Mill, wanted: list[tuple[float, float, float, float]], batch: int = 64) -> None:
    for start in range(0, len(wanted), batch):
        assert mill.machine.wait_room(WAIT_S)
        mill.ask(Move(tuple(wanted[start : start + batch])))


@pytest.mark.slow
@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
def test_five_thousand_lines_arrive_whole_in_order_and_with_the_buffer_full(make_mill: Callable[..., Mill], tcp: bool) -> None:
    print(f"GRBL_SEED={SEED}")
    mill = make_mill(tcp=tcp, speed=200_000.0).homed()
    wanted = program(5_000, SEED)
    mill.machine.begin()
    stream(mill, wanted)
    mill.settle()
    status = mill.machine.status()
    firmware = mill.firmware
    assert status["job"] == {
        "state": "done",
        "given": 5_000,
        "acknowledged": 5_000,
        "last_acknowledged": status["job"]["last_acknowledged"],
    }
    assert [tuple(round(v, 3) for v in target) for target in firmware.targets] == [(x, y, z) for x, y, z, _ in wanted]
    assert firmware.lost_bytes == 0
    assert 120 <= status["bytes_in_flight_peak"] <= 128
    assert 120 <= firmware.unanswered_peak <= 128
    assert firmware.rx_peak <= 128
    assert status["position_mm"] == pytest.approx(wanted[-1][:3], abs=0.001)
    assert (status["moves"], status["strays"], status["garbled"]) == (5_000, 0, 0)


@pytest.mark.slow
def test_a_small_buffer_is_respected_too(make_mill: Callable[..., Mill]) -> None:
    mill = make_mill(firmware=Firmware(speed=200_000.0, rx_bytes=60)).homed()
    stream(mill, program(300, 7))
    mill.settle()
    assert mill.firmware.lost_bytes == 0
    assert 40 <= mill.firmware.unanswered_peak <= 60


@pytest.mark.slow
def test_a_soft_limit_in_the_middle_of_a_job_names_its_line_and_needs_a_person(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=20_000.0, firmware=Firmware(speed=20_000.0, settings={131: 200})).homed()
    mill.machine.begin()
    wanted = [(float(n % 100), 10.0, 0.0, 250.0) for n in range(400)]
    wanted[300] = (50.0, 250.0, 0.0, 250.0)  # inside the envelope, beyond the controller's own travel
    stream(mill, wanted)
    error = mill.fails(MachineAlarm)
    assert (error.machine_code, error.line, error.text) == (2, 301, "G53G1X50Y250Z0F15000")
    one_line(error, "ALARM:2 at line 301", "line 300 of 400", "position is kept", "snapcount machine reset")
    assert mill.firmware.targets[-1] == (99.0, 10.0, 0.0)
    for attempt in (lambda: mill.ask(Move(((1.0, 1.0, 1.0, 10.0),))), lambda: mill.ask(Home()), mill.machine.begin):
        with pytest.raises(MachineAlarm):
            attempt()
    mill.machine.operate("reset")
    mill.ready()
    with pytest.raises(MachineError) as caught:
        mill.ask(Move(((1.0, 1.0, 1.0, 10.0),)))
    one_line(caught.value, "locked", "snapcount machine unlock")
    assert mill.machine.operate("unlock")["position"] == "known"
    mill.machine.begin()
    mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    mill.settle()
    assert mill.firmware.targets[-1] == (1.0, 1.0, 1.0)
    assert len(mill.firmware.targets) == 301  # not one line of the first job came after the alarm


@pytest.mark.slow
def test_a_reset_in_motion_ends_the_job_and_motion_waits_for_homing(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=20.0).homed()
    mill.machine.begin()
    stream(mill, program(100, 3))
    mill.until("state", "Run")
    mill.machine.operate("reset")
    error = mill.fails(MachineAlarm)
    one_line(error, "a person reset the controller", "ALARM:3", "lost its position", "not certain")
    assert mill.machine.status()["locked"]
    mill.machine.operate("unlock")
    with pytest.raises(MachineError) as caught:
        mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    one_line(caught.value, "position is unknown", "home it first")
    mill.homed()
    mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    mill.settle()
    assert mill.firmware.targets[-1] == (1.0, 1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("tcp", "powered"), [(False, False), (False, True), (True, True)], ids=["pty, powered by it", "pty", "tcp"])
def test_a_cable_pulled_in_the_middle_ends_the_job_which_is_never_resumed(
    make_mill: Callable[..., Mill], one_line: OneLine, tcp: bool, powered: bool
) -> None:
    mill = make_mill(tcp=tcp, speed=100.0).homed()
    mill.machine.begin()
    stream(mill, program(200, 5))
    until(lambda: mill.machine.status()["job"]["acknowledged"] > 20, "some lines to be acknowledged")
    mill.peer.unplug()
    error = mill.fails()
    acknowledged = mill.machine.status()["job"]["acknowledged"]
    one_line(
        error,
        "the link to",
        mill.settings["port"],
        "was lost",
        f"line {acknowledged} of 200",
        "not completed",
        "not certain",
        "a person decides",
    )
    with pytest.raises(MachineError):
        mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    mill.peer.plug(powered=powered)
    mill.ready()
    planned = len(mill.firmware.targets)
    assert planned <= acknowledged + 6  # what was on its way, and no more
    with pytest.raises(MachineError):
        mill.machine.begin()
    mill.machine.operate("clear")
    with pytest.raises(MachineError) as caught:
        mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    one_line(caught.value, "locked" if not powered else "position is unknown")
    mill.homed()
    assert len(mill.firmware.targets) == planned
    mill.ask(Move(((1.0, 1.0, 1.0, 100.0),)))
    mill.settle()
    assert len(mill.firmware.targets) == planned + 1


@pytest.mark.slow
def test_a_line_that_goes_dead_without_hanging_up_is_noticed(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(tcp=True, speed=100.0, silence_s=0.3).homed()
    mill.machine.begin()
    stream(mill, program(200, 5))
    mill.peer.silent = True
    one_line(mill.fails(), "was lost", "said nothing")
    mill.peer.silent = False
    mill.ready()


@pytest.mark.slow
def test_what_the_envelope_refused_never_reaches_the_controller(make_mill: Callable[..., Mill]) -> None:
    mill = make_mill(speed=10_000.0).homed()
    dice = random.Random(SEED)
    print(f"GRBL_SEED={SEED}")
    admitted: list[tuple[float, float, float, float]] = []
    for _ in range(200):
        move = (dice.uniform(-50, 350), dice.uniform(-50, 350), dice.uniform(0, 100), dice.choice((10.0, 250.0, 251.0, 0.0)))
        try:
            mill.ask(Move((move,)))
            admitted.append(move)
        except SafeMode:
            mill.envelope.reset(safety.sign_reset(SigningKey(b"o" * 32), mill.envelope.tripped.id if mill.envelope.tripped else ""))
        except UnsafeCommand:
            pass
    mill.settle()
    assert mill.refused
    assert len(mill.firmware.targets) == len(admitted)
    for target, move in zip(mill.firmware.targets, admitted, strict=True):
        assert target == pytest.approx(move[:3], abs=0.001)
        assert all(0 <= v <= limit for v, limit in zip(target, (300, 300, 100), strict=True))
    feeds = [float(line.partition("F")[2]) for line in mill.firmware.lines if line.startswith("G53")]
    assert max(feeds) <= 250 * 60


@pytest.mark.slow
def test_work_offsets_and_modes_of_the_controller_shift_nothing(make_mill: Callable[..., Mill]) -> None:
    firmware = Firmware(speed=10_000.0)
    firmware.modes.offset_mm = (10.0, 20.0, 30.0)
    firmware.startup = ("G20G91",)  # inches and relative, after each start and each homing
    mill = make_mill(firmware=firmware).homed()
    wanted = program(50, 11)
    stream(mill, wanted)
    mill.settle()
    assert [tuple(round(v, 3) for v in target) for target in firmware.targets] == [(x, y, z) for x, y, z, _ in wanted]
    mill.machine.operate("reset")
    mill.ready()
    mill.ask(Move(((1.0, 2.0, 3.0, 100.0),)))
    mill.settle()
    assert firmware.targets[-1] == (1.0, 2.0, 3.0)


@pytest.mark.slow
def test_tool_dwell_and_homing_keep_their_place_among_the_moves(make_mill: Callable[..., Mill]) -> None:
    mill = make_mill(speed=100.0).ready()
    for command in (Home(), moves(3), Tool(25.0), moves(2, 4), Dwell(300), Tool(0.0), Home(), moves(1)):
        mill.ask(command)
    mill.settle()
    assert list(mill.firmware.lines) == [
        "$H", gcode.MODES, "G53G1X1Y0Z0F600", "G53G1X2Y0Z0F600", "G53G1X3Y0Z0F600", "M3S500", "G53G1X4Y0Z0F600", "G53G1X5Y0Z0F600", "G4P0.3", "M5S0",
        "G4P0", "$H", gcode.MODES, "G53G1X1Y0Z0F600", "G4P0",
    ]  # fmt: skip
    assert mill.machine.status()["position"] == "known"


@pytest.mark.slow
def test_a_hold_stops_the_machine_and_a_resume_goes_on_without_losing_a_line(make_mill: Callable[..., Mill]) -> None:
    mill = make_mill(speed=100.0).homed()
    mill.machine.begin()
    wanted = program(60, 13)
    stream(mill, wanted)
    mill.machine.operate("hold")
    mill.until("state", "Hold:0")
    held = mill.machine.status()["position_mm"]
    time.sleep(0.1)
    assert not mill.machine.settle(0.05)
    assert mill.machine.status()["position_mm"] == held
    for action in ("slower", "full-speed", "rapids-25", "cancel-jog"):
        mill.machine.operate(action)
    mill.machine.operate("resume")
    mill.settle()
    assert [tuple(round(v, 3) for v in target) for target in mill.firmware.targets] == [(x, y, z) for x, y, z, _ in wanted]
    assert mill.firmware.lost_bytes == 0
    assert all(mill.firmware.realtime[byte] for byte in (0x21, 0x7E, 0x92, 0x90, 0x97, 0x85))


def test_a_person_is_told_what_can_be_asked(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill()
    with pytest.raises(UsageError) as caught:
        mill.machine.operate("faster")  # what makes it faster than its program is not there
    one_line(caught.value, *ACTIONS)


@pytest.mark.slow
def test_an_open_door_holds_the_machine_and_is_an_interlock(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=100.0, door=True).homed()
    assert mill.machine.interlocks() == {"door": True}
    stream(mill, program(60, 17))
    mill.peer.do(lambda firmware, now_s: firmware.door(True, now_s))
    mill.until("state", "Door")
    assert mill.machine.interlocks() == {"door": False}
    with pytest.raises(MachineError) as caught:
        mill.ask(moves(1))
    one_line(caught.value, "door is open")
    mill.peer.do(lambda firmware, now_s: firmware.door(False, now_s))
    mill.until("state", "Door:0")
    mill.machine.operate("resume")
    mill.settle()
    assert len(mill.firmware.targets) == 60


@pytest.mark.slow
def test_a_hard_limit_loses_the_position(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=100.0).homed()
    stream(mill, program(60, 19))
    mill.peer.do(lambda firmware, now_s: firmware.hit_limit(now_s))
    error = mill.fails(MachineAlarm)
    one_line(error, "ALARM:1", "limit switch", "lost its position")
    assert mill.machine.operate("reset")["position"].startswith("unknown: a limit switch was hit")
    mill.homed()


@pytest.mark.slow
def test_safe_mode_stops_a_machine_at_its_work(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=50.0).homed()
    mill.machine.begin()
    stream(mill, program(100, 23))
    Attended({"motion": mill.machine}, lambda: False).stop("safe mode: smoke")
    one_line(mill.fails(), "safe mode: smoke")
    assert mill.machine.status()["state"] == "Hold:0"
    mill.machine.operate("reset")
    assert mill.machine.status()["position"] == "known"  # it stood still already


@pytest.mark.slow
def test_bad_bytes_between_the_answers_of_a_job_harm_nothing(make_mill: Callable[..., Mill]) -> None:
    dice = random.Random(SEED)
    print(f"GRBL_SEED={SEED}")
    harmless = [b"\x00\xff\xfe\r\n", b"x" * 5_000 + b"\n", b"[MSG:hello]\r\n", b">G54:ok\r\n", b"<Idle|MPos:\r\n", b"\r\n\r\n"]
    mill = make_mill(speed=200_000.0, silence_s=5.0).homed()
    mill.machine.begin()
    wanted = program(500, SEED)
    for start in range(0, 500, 50):
        stream(mill, wanted[start : start + 50])
        mill.peer.say(dice.choice(harmless))
    mill.settle()
    assert mill.firmware.lost_bytes == 0
    assert mill.firmware.unanswered_peak <= 128
    targets = [tuple(round(v, 3) for v in target) for target in mill.firmware.targets]
    assert targets == [(x, y, z) for x, y, z, _ in wanted]


@pytest.mark.slow
def test_a_swallowed_ok_ends_the_job_in_seconds(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=10_000.0, answer_s=0.3).homed()
    mill.machine.begin()
    mill.peer.do(lambda firmware, _: setattr(firmware, "oks_to_swallow", 1))
    stream(mill, program(10, 29))
    one_line(mill.fails(), "an answer was lost")


@pytest.mark.slow
def test_a_node_that_restarts_leaves_a_running_machine_alone(make_mill: Callable[..., Mill]) -> None:
    mill = make_mill(speed=4.0).homed()
    welcomes = mill.firmware.welcomes
    mill.machine.begin()
    mill.ask(Move(((300.0, 0.0, 0.0, 250.0), (300.0, 200.0, 0.0, 250.0))))
    mill.until("state", "Run")
    mill.machine.close()
    mill.connect()
    mill.until("link", "a job is running that this node did not start")
    before = len(mill.firmware.lines)
    mill.ready()
    assert list(mill.firmware.lines)[before:] in ([], [":"])
    assert mill.firmware.welcomes == welcomes  # it was not reset
    assert mill.firmware.planner.position_mm == (300.0, 200.0, 0.0)  # and finished what it held
    assert "position is unknown" in report.why_not_move(mill.machine._session)


@pytest.mark.slow
def test_half_a_line_of_a_sender_that_died_is_never_carried_out(make_mill: Callable[..., Mill]) -> None:
    firmware = Firmware(speed=1000.0, settings={22: 0})  # not locked: it would move at once
    firmware.receive(b"G21G90\nG53G1F600X1", 0.0)
    mill = make_mill(firmware=firmware, needs_homing=False).ready()
    assert list(firmware.targets) == []
    assert mill.machine.status()["strays"] == 0


@pytest.mark.slow
def test_the_modem_lines_stay_up_when_the_port_is_closed_and_nobody_else_gets_it(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill().ready()
    cable = mill.peer.cable
    assert isinstance(cable, PtyCable)
    assert not termios.tcgetattr(cable.slave)[2] & termios.HUPCL
    second = GrblMachine(read_settings(mill.settings), LIMITS)
    until(lambda: "lock" in second.status()["link"], "the second sender to be refused")
    with pytest.raises(MachineError) as caught:
        second.begin()
    one_line(caught.value, mill.settings["port"], "lock")
    second.close()
    mill.machine.close()
    assert not termios.tcgetattr(cable.slave)[2] & termios.HUPCL


def test_a_port_that_is_not_there_keeps_no_node_from_starting(tmp_path: Path, one_line: OneLine) -> None:
    machine = GrblMachine(read_settings({"port": str(tmp_path / "none")}), LIMITS)
    until(lambda: "none" in machine.status()["link"], "the port to be missed")
    for command in (Home(), moves(1), Status(), Tool(0.0)):
        with pytest.raises(MachineError) as caught:
            machine.execute(command)
        one_line(caught.value, "no link to", tmp_path / "none")
    with pytest.raises(MachineError):
        machine.operate("hold")
    machine.close()
    machine.close()


@pytest.mark.slow
def test_a_controller_of_another_kind_moves_nothing(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(firmware=Firmware(version="0.9j"))
    mill.until("link", "0.9j")
    with pytest.raises(MachineError) as caught:
        mill.ask(Home())
    one_line(caught.value, "Grbl 1.1")
    assert list(mill.firmware.lines) == []


@pytest.mark.slow
def test_a_machine_without_switches_moves_where_its_owner_answers_for_it(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    firmware = Firmware(speed=1000.0, settings={22: 0, 20: 0})
    mill = make_mill(firmware=firmware, needs_homing=False).ready()
    mill.ask(moves(1))
    mill.settle()
    with pytest.raises(MachineError) as caught:
        mill.ask(Home())
    one_line(caught.value, "$22=0")


@pytest.mark.slow
def test_too_many_lines_at_once_are_refused(make_mill: Callable[..., Mill], one_line: OneLine) -> None:
    mill = make_mill(speed=0.001).homed()
    batch = moves(DEFAULT.moves_per_command_max)
    with pytest.raises(MachineError) as caught:
        for _ in range(1 + DEFAULT.machine_lines_waiting_max // len(batch.moves)):
            mill.ask(batch)
    one_line(caught.value, DEFAULT.machine_lines_waiting_max, "lines wait already")
    with pytest.raises(Busy):
        mill.machine.begin()


# ---- A node with such a machine --------------------------------------------------------------------


def open_node(path: Path, make_state: Callable[..., Path], url: str, author: SigningKey) -> Node:
    state = make_state(path, SystemClock(), native=("grbl",))
    node_toml = state / config.FILE
    node_toml.write_text(node_toml.read_text() + f'\n[drivers.grbl]\nport = "{url}"\nstatus_ms = 20\ndoor = true\n')
    node = Node.open(state, Measurement(f"sha256:{'0' * 64}", sealed=False, files=1), log=lambda level, line: None)
    data = with_signature(module_path("toolpath-planner").read_bytes(), author, "toolpath-planner")
    asyncio.run(node.install(data, f"sha256:{hashlib.sha256(data).hexdigest()}"))
    return node


@pytest.fixture
def shop(tmp_path: Path, make_state: Callable[..., Path], author: SigningKey) -> Iterator[tuple[Node, Peer]]:
    if not module_path("toolpath-planner").exists():
        pytest.skip("toolpath-planner was not built")
    with Peer(Firmware(speed=2_000.0), PtyCable(tmp_path / "mill")) as peer:
        node = open_node(tmp_path / "node", make_state, peer.cable.url, author)
        until(lambda: node.drivers["motion"].status()["link"] == "ready", "the controller")
        yield node, peer
        node.close()


def spiral(turns: int) -> bytes:
    return b"$H\nG21\nG90\n" + b"".join(b"G1 X%d Y%d F6000\nG2 X%d Y%d I5 J0\n" % (20 + n, 20, 30 + n, 20) for n in range(turns)) + b"M5\n"


@pytest.mark.slow
def test_a_whole_job_runs_through_the_node_and_its_planner(shop: tuple[Node, Peer]) -> None:
    node, peer = shop
    report_of = asyncio.run(node.run_job(lambda: [spiral(100)], PlanSettings()))
    status = node.drivers["motion"].status()
    assert report_of.complete
    assert report_of.driven == len(peer.firmware.targets) == status["moves"] > 1_000
    assert status["job"]["state"] == "done"
    assert status["job"]["acknowledged"] == status["job"]["given"] == report_of.driven + 2  # homing, and the tool's switching off
    assert status["position_mm"] == pytest.approx((129.0, 20.0, 0.0), abs=0.001)
    assert (peer.firmware.lost_bytes, peer.firmware.unanswered_peak <= 128) == (0, True)


@pytest.mark.slow
def test_a_job_that_the_machine_ends_ends_with_the_machines_words(shop: tuple[Node, Peer], one_line: OneLine) -> None:
    node, peer = shop
    peer.do(lambda firmware, _: firmware.settings.update({130: 100}))  # the machine is smaller than its owner's envelope
    with pytest.raises(MachineAlarm) as caught:
        asyncio.run(node.run_job(lambda: [spiral(200)], PlanSettings()))
    one_line(caught.value, "ALARM:2 at line", "nothing but a reset", "a person decides")
    assert caught.value.line > 0
    with pytest.raises(MachineAlarm):
        asyncio.run(node.run_job(lambda: [spiral(1)], PlanSettings()))
    with pytest.raises(MachineError) as muted:
        asyncio.run(node.operate("motion", "home"))
    one_line(muted.value, "snapcount machine reset")
    asyncio.run(node.operate("motion", "reset"))
    assert asyncio.run(node.operate("motion", "home"))["position"] == "known"


@pytest.mark.slow
def test_a_person_who_homes_has_seen_what_happened(shop: tuple[Node, Peer], one_line: OneLine) -> None:
    node, peer = shop

    async def scenario() -> None:
        job = asyncio.create_task(node.run_job(lambda: [spiral(200)], PlanSettings()))
        while not node.drivers["motion"].status()["moves"]:
            await asyncio.to_thread(time.sleep, 0.01)
        peer.do(lambda firmware, now_s: firmware.power_on(now_s))
        with pytest.raises(MachineError) as caught:
            await job
        one_line(caught.value, "the controller was reset")
        until(lambda: node.drivers["motion"].status()["link"] == "ready", "the controller")
        assert (await node.operate("motion", "home"))["failure"] is None

    asyncio.run(scenario())


def snapcount_machine(state: Path, *arguments: str) -> dict[str, Any]:
    """`snapcount machine …`, on a thread of its own; what it says with --json."""
    said = CliRunner().invoke(cli.app, [*arguments, "--state", str(state), "--json"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    answer: dict[str, Any] = json.loads(said.output.splitlines()[-1])
    return answer


@pytest.mark.slow
def test_a_person_looks_after_the_machine_while_a_job_runs(shop: tuple[Node, Peer], tmp_path: Path, one_line: OneLine) -> None:
    node, peer = shop
    peer.do(lambda firmware, _: setattr(firmware, "planner", Planner(4.0)))
    state = tmp_path / "node"

    async def ask(*arguments: str) -> dict[str, Any]:
        return await asyncio.to_thread(snapcount_machine, state, *arguments)

    async def reports(label: str) -> None:
        until_there = await ask("status")
        while until_there["state"] != label:
            until_there = await ask("status")

    async def scenario() -> None:
        job = asyncio.create_task(node.run_job(lambda: [spiral(200)], PlanSettings()))
        await reports("Run")
        with pytest.raises(Busy):
            await node.operate("motion", "home")
        await ask("hold")
        await reports("Hold:0")
        await ask("resume")
        await reports("Run")
        await ask("ask", "slower")
        node.envelope.trip("smoke", node.clock.now_ms())
        await node.tick()
        with pytest.raises(MachineError) as caught:
            await job
        one_line(caught.value, "safe mode: smoke")
        tripped = node.envelope.tripped
        assert tripped is not None
        node.envelope.reset(safety.sign_reset(SigningKey(b"o" * 32), tripped.id))
        assert (await ask("reset"))["failure"] is None
        assert (await ask("home"))["position"] == "known"
        with pytest.raises(UsageError) as unknown:
            await node.operate("laser", "home")
        one_line(unknown.value, "laser", "motion")
        with pytest.raises(UsageError):
            await node.operate("laser", "hold")

    with asyncio.Runner() as runner:
        serving = runner.run(serve_control(state, machine_routes(node)))
        try:
            runner.run(asyncio.wait_for(scenario(), WAIT_S))
        finally:
            node.interrupt()
            runner.run(stop_control(state, serving))


def test_people_read_a_machine_in_lines() -> None:
    machine = GrblMachine(GrblSettings(port="/nonexistent/mill"), LIMITS)
    until(lambda: "mill" in machine.status()["link"], "the port to be missed")
    text = "\n".join(cli._lines(machine.status()))
    machine.close()
    assert all(word in text for word in ("/nonexistent/mill", "no link to", "unknown: it was not homed"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["pty", "tcp"])
def test_the_peer_runs_by_itself_and_says_which_port_it_has(tmp_path: Path, way: str) -> None:
    chosen = ["--pty", "mill"] if way == "pty" else ["--tcp", "0"]
    command = [sys.executable, "-P", "-m", "sdk.grbl_peer", "--speed", "1000", *chosen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        port = tomllib.loads(process.stdout.readline())["port"]
        machine = GrblMachine(read_settings({"port": port, "status_ms": 20}), LIMITS)
        until(lambda: machine.status()["link"] == "ready", "the peer to answer")
        machine.close()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
