"""Grbl 1.1's serial protocol: what a controller says, line by line, as typed values; and its one-byte commands.

A controller answers each line that it was sent with one `ok` or `error:N`, in order. Everything else that it says is pushed: at any time, and
belonging to no line. Parsing never fails: what cannot be read is `Garbled`, and says nothing of the machine.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from host.core.limits import DEFAULT

RX_BYTES = 128
"""The controller's receive buffer. What comes when it is full is lost without a word."""
LINE_CHARACTERS_MAX = 79
"""The controller's line buffer, without its end."""

STATUS, HOLD, RESUME, RESET = b"?", b"!", b"~", b"\x18"
JOG_CANCEL = b"\x85"
FEED_FULL, FEED_LESS = b"\x90", b"\x92"
RAPID_FULL, RAPID_HALF, RAPID_QUARTER = b"\x95", b"\x96", b"\x97"
SPINDLE_FULL = b"\x99"
"""Real-time commands: one byte each, picked out of the stream on arrival. They take no room in the buffer and get no answer."""

Point = tuple[float, float, float]


class Ok(NamedTuple):
    """The oldest unanswered line was accepted: parsed, and planned where it moves. Not that it was carried out."""


class Failed(NamedTuple):
    """The oldest unanswered line was refused. 0 is a refusal without a number."""

    code: int


class Alarm(NamedTuple):
    code: int


class Welcome(NamedTuple):
    """The controller has started anew: its buffers are empty, its modes are the defaults."""

    version: str


class Status(NamedTuple):
    """A report. `sub` is the number behind the state (Hold:1), -1 without one. Lengths are in the controller's reporting unit."""

    state: str
    sub: int = -1
    machine: Point | None = None
    work: Point | None = None
    offset: Point | None = None
    free: tuple[int, int] | None = None
    feed: float | None = None
    pins: str = ""
    overrides: tuple[int, int, int] | None = None

    @property
    def label(self) -> str:
        """The state as the controller writes it."""
        return self.state if self.sub < 0 else f"{self.state}:{self.sub}"

    @property
    def door_open(self) -> bool:
        """Whether the safety door is open, or was and nobody said since that the work may go on."""
        return self.state == "Door" or "D" in self.pins


class Setting(NamedTuple):
    """One line of the answer to `$$`."""

    number: int
    value: float


class Feedback(NamedTuple):
    """A line in brackets: `kind` is what stands before the colon (MSG, VER, OPT, GC, G54, PRB, echo …)."""

    kind: str
    text: str


class Started(NamedTuple):
    """A start-up line that the controller ran by itself. It answers no line of ours."""

    text: str


class Garbled(NamedTuple):
    """Nothing that Grbl 1.1 says. `text` may hold any byte as a character."""

    text: str


Message = Ok | Failed | Alarm | Welcome | Status | Setting | Feedback | Started | Garbled

STATES = frozenset({"Idle", "Run", "Hold", "Jog", "Alarm", "Door", "Check", "Home", "Sleep"})
_FAILED = re.compile(r"error: ?(?:(\d{1,3})\Z)?")
_ALARM = re.compile(r"ALARM:(\d{1,3})\Z")
_WELCOME = re.compile(r"Grbl (\S{1,16}) \['\$' for help\]\Z")  # noise of a line that is switched on may stand before it
_SETTING = re.compile(r"\$(\d{1,3})=(-?\d{1,12}(?:\.\d{0,9})?)(?: .*)?\Z")
_STARTUP_SETTING = re.compile(r"\$N\d=")
_FEEDBACK = re.compile(r"\[([A-Za-z0-9.]{1,8}):?(.*)\]\Z")


class LineReader:
    """Cuts what comes into lines. A line that does not end is cut off at its bound and counts as garbled, once."""

    def __init__(self) -> None:
        self._part = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._keep(end)
            line, overlong = bytes(self._part), self._overlong
            self._part.clear()
            self._overlong = False
            text = line.decode("latin-1").strip("\r \0")
            if overlong:
                yield Garbled(text)
            elif text:
                yield parse(text)
        self._keep(rest)

    def _keep(self, data: bytes) -> None:
        room = DEFAULT.machine_line_bytes_max - len(self._part)
        self._overlong = self._overlong or len(data) > room
        self._part += data[: max(room, 0)]


def parse(line: str) -> Message:
    """One line without its end."""
    if line == "ok":
        return Ok()
    if found := _WELCOME.search(line):
        return Welcome(found[1])
    if not (line.isascii() and line.isprintable()):
        return Garbled(line)
    match line[0]:
        case "<":
            return _status(line) or Garbled(line)
        case "[":
            found = _FEEDBACK.match(line)
            return Feedback(found[1], found[2]) if found else Garbled(line)
        case ">":
            return Started(line[1:])
        case "$":
            return _setting(line)
    if found := _FAILED.match(line):
        return Failed(int(found[1] or 0))
    if found := _ALARM.match(line):
        return Alarm(int(found[1]))
    return Garbled(line)


def _setting(line: str) -> Message:
    if found := _SETTING.match(line):
        return Setting(int(found[1]), float(found[2]))
    return Started(line) if _STARTUP_SETTING.match(line) else Garbled(line)


def _status(line: str) -> Status | None:
    if not line.endswith(">"):
        return None
    head, *fields = line[1:-1].split("|")
    state, _, sub = head.partition(":")
    if state not in STATES or not (sub == "" or (sub.isdigit() and len(sub) <= 2)):
        return None
    said = dict(field.partition(":")[::2] for field in fields)
    try:
        feeds = _numbers(said, "FS") or _numbers(said, "F")
        status = Status(
            state, int(sub) if sub else -1, machine=_point(said, "MPos"), work=_point(said, "WPos"), offset=_point(said, "WCO"),
            free=_pair(_numbers(said, "Bf")), feed=feeds[0] if feeds else None, pins=said.get("Pn", ""), overrides=_overrides(_numbers(said, "Ov")),
        )  # fmt: skip
    except ValueError:
        return None
    return status if status.machine or status.work else None  # a report always has one of them; without it, its end was lost


def _numbers(said: dict[str, str], name: str) -> list[float] | None:
    if name not in said:
        return None
    values = [float(text) for text in said[name].split(",")[:8]]
    if not all(map(math.isfinite, values)):
        raise ValueError(name)
    return values


def _point(said: dict[str, str], name: str) -> Point | None:
    values = _numbers(said, name)
    if values is None:
        return None
    x, y, z, *_ = values  # more axes may follow; three are driven
    return x, y, z


def _pair(values: list[float] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    blocks, size = values
    return int(blocks), int(size)


def _overrides(values: list[float] | None) -> tuple[int, int, int] | None:
    if values is None:
        return None
    feed, rapid, spindle = values
    return int(feed), int(rapid), int(spindle)
