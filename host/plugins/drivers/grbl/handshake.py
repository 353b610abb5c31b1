"""Finding out what is at the other end of a link that was opened, without disturbing what it does.

1. `?` until the controller rests, seen in several reports. One that runs, holds or jogs is left alone: this node did not start that.
2. `:` and an end of line: should half a line of a sender before us stand in its buffer, the colon makes it one that Grbl refuses whole.
3. `$I`: its answer is unmistakable, so from its `ok` on every answer belongs to a line of ours.
4. `$$`: its settings.
"""

from enum import Enum

from host.plugins.drivers.grbl import protocol
from host.plugins.drivers.grbl.protocol import Feedback, Message, Ok, Setting, Status
from host.plugins.drivers.grbl.settings import Controller

RESTING = frozenset({"Idle", "Alarm"})
RESTING_REPORTS = 3  # a dwell reports Idle too; more than one report does not rule it out, the answer to `$I` does
STEP_S_MAX = 3.0
BREAK_LINE = b":\n"


class Step(Enum):
    ASKING = "waiting for a report"
    BUSY = "a job is running that this node did not start"
    INFO = "asking for its version"
    SETTINGS = "reading its settings"
    DONE = "ready"


class Handshake:
    """`heard` and `tick` return what to send. `asking` says when status reports are wanted though nothing runs."""

    def __init__(self) -> None:
        self.step = Step.ASKING
        self.busy = ""
        self.controller = Controller("", "", {})
        self._rests = 0
        self._version = self._options = ""
        self._values: dict[int, float] = {}
        self._since_s = 0.0

    def begin(self) -> None:
        """Starts over: the link is new, or the controller was reset."""
        self.step, self._rests, self.busy = Step.ASKING, 0, ""

    @property
    def done(self) -> bool:
        return self.step is Step.DONE

    def heard(self, message: Message, now_s: float) -> bytes:
        match self.step, message:
            case ((Step.ASKING | Step.BUSY), Status()):
                return self._reported(message, now_s)
            case Step.INFO, Feedback("VER", text):
                self._version = text.partition(":")[0] or "unknown"
            case Step.INFO, Feedback("OPT", text):
                self._options = text
            case Step.INFO, Ok() if self._version:
                return self._go(Step.SETTINGS, b"$$\n", now_s)
            case Step.SETTINGS, Setting(number, value):
                self._values[number] = value
            case Step.SETTINGS, Ok():
                self.controller = Controller(self._version, self._options, dict(self._values))
                return self._go(Step.DONE, protocol.FEED_FULL + protocol.RAPID_FULL + protocol.SPINDLE_FULL, now_s)
            case Step.SETTINGS, protocol.Failed():
                self.begin()
        return b""

    def tick(self, now_s: float) -> None:
        """A step that takes too long starts over: its answer was lost, or the controller had something else to do."""
        if self.step in (Step.INFO, Step.SETTINGS) and now_s - self._since_s > STEP_S_MAX:
            self.begin()

    def _reported(self, status: Status, now_s: float) -> bytes:
        if status.state not in RESTING:
            self.step, self.busy, self._rests = Step.BUSY, status.label, 0
            return b""
        self._rests += 1
        if self._rests < RESTING_REPORTS:
            return b""
        self._version, self._options, self._values = "", "", {}
        return self._go(Step.INFO, BREAK_LINE + b"$I\n", now_s)

    def _go(self, step: Step, out: bytes, now_s: float) -> bytes:
        self.step, self._since_s = step, now_s
        return out
