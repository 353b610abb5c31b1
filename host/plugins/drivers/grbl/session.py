"""One controller: what it is doing, what it may be sent, and what each thing that it says means. Bytes and times in, bytes out; no clock, no port.

- Motion needs a known position: homed since the link came up and since anything that loses steps.
- A refused line holds the feed at once: the lines behind it are in the controller already, and were written for a place that it never reached.
- After an alarm or during a reset no `ok` counts. The line that a reset interrupts gets one too, before the welcome, though it was never carried out.
- What ended the work stays until a person has seen to it. Nothing is sent again.
"""

from collections import deque
from dataclasses import replace

from host.core.errors import MachineError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins.drivers.grbl import gcode, protocol
from host.plugins.drivers.grbl.codes import alarm_meaning
from host.plugins.drivers.grbl.handshake import RESTING, Handshake
from host.plugins.drivers.grbl.job import Failure, Job
from host.plugins.drivers.grbl.protocol import Alarm, Failed, Feedback, Garbled, LineReader, Message, Ok, Point, Status, Welcome
from host.plugins.drivers.grbl.settings import GrblSettings
from host.plugins.drivers.grbl.stream import Line, Stream
from host.plugins.drivers.grbl.watch import LinkWatch

MESSAGES_KEPT = 8
RESET_S_MAX = 5.0
STILL_S_MAX = 2.0
STILL = frozenset({"Idle", "Alarm", "Hold:0", "Door:0", "Door:1"})
OWN = frozenset({gcode.SETTLE, gcode.MODES, gcode.UNLOCK})


class Session:
    """See the module. The caller serialises all calls and sends what `take` returns, in order."""

    def __init__(self, settings: GrblSettings) -> None:
        self.settings = settings
        self.stream, self.handshake, self.job, self.watch = Stream(), Handshake(), Job(), LinkWatch(settings)
        self.link = "not opened yet"
        self.is_open = self.homed = self.locked = self.deaf = self.needs_person = self.job_open = False
        self.lost_position = "it was not homed since this node connected"
        self.status: Status | None = None
        self.seen_mm: Point | None = None
        self.failure: Failure | None = None
        self.messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self.strays = 0
        self._reader, self._urgent = LineReader(), bytearray()
        self._offset: Point | None = None
        self._modal = self._unsettled = self._unreported = False
        self._reset_s: float | None = None
        self._quiet_s = self._failed_s = self._reported_s = 0.0

    # ---- The link

    def opened(self, now_s: float) -> None:
        """A port was opened. Whatever runs behind it goes on: only `?` is sent until the controller is known to rest."""
        self._forget()
        self._reader, self.is_open, self.link = LineReader(), True, "open"
        self.watch.opened(now_s)

    def closed(self, why: str, now_s: float) -> None:
        """The port is gone. What was in flight may or may not have arrived."""
        if self.is_open:
            if self.at_work:
                self._fail(Failure(f"the link to {self.settings.port} was lost: {why}"), now_s)
            self._lose_position("the link to the controller was lost")
        self._forget()
        self._urgent.clear()
        self.is_open, self.link = False, why

    def received(self, data: bytes, now_s: float) -> None:
        """Raises MachineError where what comes is no Grbl at all."""
        for message in self._reader.feed(data):
            self._heard(message, now_s)

    def tick(self, now_s: float) -> None:
        """What time brings, before `take`."""
        if not self.is_open:
            return
        self.handshake.tick(now_s)
        if self._reset_s is not None and now_s - self._reset_s > RESET_S_MAX:
            self._reset_s = None  # it did not answer; what follows is a silence like any other
            self.watch.excuse()
        if not self.job_open and not self.stream:
            self.settle()
        lively = self.at_work or (self.watch.heard_any and not self.handshake.done)
        if self.watch.due(lively, now_s):
            self._urgent += protocol.STATUS
        if not self.stream.in_flight:
            self._quiet_s = now_s

    def quiet(self, now_s: float) -> None:
        """Nothing came, though it was looked for. Raises MachineError for a link that is to be opened anew."""
        if self.is_open and not (self.deaf or self.resetting):  # some alarms make a controller mute, and nothing but a person ends them
            homing = self.stream.in_flight and self.stream.in_flight[0].text == gcode.HOME
            self.watch.check(self.settings.homing_s if homing else self.settings.silence_s, now_s)
            self._check_answers(now_s)

    def take(self) -> bytes:
        """What is to be sent now."""
        out = bytes(self._urgent)
        self._urgent.clear()
        return out + (self.stream.take() if self.ready else b"")

    # ---- What others ask

    @property
    def resetting(self) -> bool:
        return self._reset_s is not None

    @property
    def ready(self) -> bool:
        """Whether lines of ours are answered to us."""
        return self.is_open and self.handshake.done and not (self.deaf or self.resetting)

    @property
    def at_work(self) -> bool:
        return bool(self.stream) or self._unsettled or self.job_open

    @property
    def settled(self) -> bool:
        """Whether all that was given has been carried out, and a report says where that ended."""
        return not (self.stream or self._unsettled or self._unreported)

    @property
    def position_known(self) -> bool:
        return self.homed or not (self.settings.needs_homing or self.needs_person)

    @property
    def door_open(self) -> bool:
        return self.is_open and self.status is not None and self.status.door_open

    def error(self) -> MachineError:
        """What ended the work, and how far it came."""
        assert self.failure is not None, "there is an error only after a failure"
        return self.failure.error(self.job.where(self.seen_mm))

    def stands_still(self, now_s: float) -> bool:
        """Whether there is nothing more to learn of where a failure left the machine."""
        still = self.status is not None and self.status.label in STILL and self._reported_s > self._failed_s
        return still or not self.is_open or self.deaf or now_s - self._failed_s > STILL_S_MAX

    def begin_job(self) -> None:
        self.job_open, self.job, self.failure, self.stream.peak = True, Job(), None, self.stream.bytes_in_flight

    def end_job(self) -> None:
        self.job_open = False
        if not self.needs_person:
            self.failure = None

    def give(self, lines: list[Line]) -> None:
        """Takes the lines of one command. The caller has made sure that they may be sent (report.py)."""
        if self.locked and not self.stream:  # so this is a homing: G-code is locked out, and nothing moves that it would have to wait for
            lines = [line for line in lines if line.text != gcode.SETTLE]
        elif not self._modal and lines:
            self.stream.add(Line(gcode.MODES))
        for line in lines:
            self.stream.add(line if line.text in OWN else self.job.number(line))
            self._modal = self._unsettled = True

    def settle(self) -> None:
        """Asks to be told when all moves have ended. Does nothing where that was asked already, or nothing moved."""
        asked = self.stream.last is not None and self.stream.last.text == gcode.SETTLE
        if self._unsettled and self.ready and not (asked or self.locked or self.failure):
            self.stream.add(Line(gcode.SETTLE, slow_s=self.settings.answer_s))

    def urgent(self, command: bytes) -> None:
        """Sends a real-time command, past every line that waits."""
        self._urgent += command

    def stop(self, why: str, now_s: float) -> None:
        """Holds the feed and ends the work; a person goes on from there."""
        if self.at_work and self.failure is None:
            self._fail(Failure(why), now_s, hold=True)

    def reset(self, now_s: float) -> None:
        """A person resets the controller. In motion that stops it at once, and loses its position."""
        if self.at_work and self.failure is None:
            self._fail(Failure("a person reset the controller"), now_s)
        self.stream.drop()
        self.handshake.begin()
        self.urgent(protocol.RESET)
        self._reset_s, self._unsettled = now_s, False
        self.attended()

    def unlock(self) -> None:
        """A person says that the machine may move as it stands."""
        if self.locked:
            self.stream.add(Line(gcode.UNLOCK, alone=True))
        self.attended()

    def attended(self) -> None:
        """A person has seen what happened."""
        self.needs_person = False
        if not self.job_open:
            self.failure = None

    # ---- What the controller says

    def _heard(self, message: Message, now_s: float) -> None:
        if isinstance(message, Garbled):
            self.watch.garble(message)
            return
        self.watch.heard()
        ours = self.ready
        if not (self.handshake.done or self.resetting or self.deaf):
            self._urgent += self.handshake.heard(message, now_s)
            self.stream.capacity = self.handshake.controller.rx_bytes
        match message:
            case Status():
                self._reported(message, now_s)
            case Ok() if ours:
                self._answered(None, now_s)
            case Failed(code) if ours:
                self._answered(code, now_s)
            case Alarm(code):
                self._alarmed(code, now_s)
            case Welcome():
                self._restarted(now_s)
            case Feedback("MSG", text):
                self.messages.append(safe(text, 80))

    def _reported(self, status: Status, now_s: float) -> None:
        self.status, self._reported_s, self._unreported = status, now_s, False
        self._offset = status.offset or self._offset
        self.seen_mm = self.handshake.controller.machine_mm(status, self._offset) or self.seen_mm
        if not (self.deaf or self.resetting):
            self.locked = status.state == "Alarm"
        if status.state == "Sleep":
            self._lose_position("the controller slept, with its motors off")
        if status.state not in RESTING:
            self._quiet_s = now_s

    def _answered(self, code: int | None, now_s: float) -> None:
        line, self._quiet_s = self.stream.answered(), now_s
        if line is None:
            self.strays += 1
            if self.failure is None and (self.at_work or self.strays > DEFAULT.machine_strays_max):
                self._fail(Failure("the controller answers more lines than it was sent, so no answer can be trusted"), now_s, hold=True)
        elif code is not None:
            self._fail(Failure.refused(line, code), now_s, hold=True)
        else:
            self._acknowledged(line)

    def _acknowledged(self, line: Line) -> None:
        self.job.acknowledge(line)
        match line.text:
            case gcode.HOME:
                self.homed, self.locked = True, False
            case gcode.UNLOCK:
                self.locked = False
            case gcode.SETTLE if not self.stream:
                self._unsettled, self._unreported = False, True
                self.watch.ask_soon()

    def _alarmed(self, code: int, now_s: float) -> None:
        meaning = alarm_meaning(code)
        if not meaning.keeps_position:
            self._lose_position(meaning.text)
        alarm = Failure.alarmed(code, self.stream.in_flight[0] if self.stream.in_flight else None)
        if not self.resetting:
            self._fail(alarm, now_s)
        elif self.failure is not None:  # the person who asked for the reset is told what it did
            self.failure = replace(alarm, what=f"{self.failure.what}; {alarm.what}")
        self.stream.drop()
        self.locked = self.deaf = True
        self._unsettled = False

    def _restarted(self, now_s: float) -> None:
        if not (self.resetting or self.deaf):
            if self.at_work:
                self._fail(Failure("the controller was reset: by its button, its power or its cable"), now_s)
            self._lose_position("the controller was reset")
        self._forget()

    def _fail(self, failure: Failure, now_s: float, *, hold: bool = False) -> None:
        if self.failure is None:
            self.failure, self._failed_s, self.needs_person = failure, now_s, True
            self.watch.ask_soon()
        self.stream.drop_waiting()
        self._unsettled = False
        if hold:
            self.urgent(protocol.HOLD)

    def _forget(self) -> None:
        """What a new start of the controller, or of the link, leaves of the one before: nothing that is in flight."""
        self.stream.drop()
        self.handshake.begin()
        self.locked = self.deaf = self._modal = self._unsettled = self._unreported = False
        self._reset_s = self._offset = None

    def _lose_position(self, why: str) -> None:
        self.homed, self.lost_position = False, why

    def _check_answers(self, now_s: float) -> None:
        """A controller that rests has answered all it was sent."""
        if not self.stream.in_flight or self.failure is not None or self.status is None or self.status.state not in RESTING:
            return
        line = self.stream.in_flight[0]
        if now_s - self._quiet_s > self.settings.answer_s + line.slow_s:
            self._fail(Failure.unanswered(line), now_s, hold=True)
