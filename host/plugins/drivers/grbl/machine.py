"""The driver: what the node asks of the machine, on any thread. Commands are queued; the port's thread streams them and hears how they go."""

import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from host.core.commands import AnyCommand, Home, Move, Status, Tool
from host.core.errors import Busy, MachineError, UsageError
from host.core.limits import DEFAULT
from host.core.safety import AXES, SafetyLimits
from host.plugins.contract import MotionReply
from host.plugins.drivers.grbl import protocol, report
from host.plugins.drivers.grbl.gcode import lines_of
from host.plugins.drivers.grbl.port import Port
from host.plugins.drivers.grbl.protocol import Point
from host.plugins.drivers.grbl.session import Session
from host.plugins.drivers.grbl.settings import GrblSettings

ROOM_LINES = 256
"""A program is read on while fewer lines than this wait to be sent."""
ANSWER_S_MAX = 8.0
REALTIME = {
    "hold": protocol.HOLD, "resume": protocol.RESUME, "cancel-jog": protocol.JOG_CANCEL, "slower": protocol.FEED_LESS,
    "full-speed": protocol.FEED_FULL, "rapids-25": protocol.RAPID_QUARTER, "rapids-50": protocol.RAPID_HALF, "rapids-100": protocol.RAPID_FULL,
}  # fmt: skip
"""What a person may ask at any time. Nothing here makes the machine faster than its program, which is what the safety envelope admitted."""
ACTIONS = (*REALTIME, "reset", "unlock", "clear")


class GrblMachine:
    """A Grbl 1.1 controller behind the capability `motion`; an AttendedDriver (host/plugins/attended.py). Positions in mm, machine coordinates."""

    capability = "motion"

    def __init__(self, settings: GrblSettings, limits: SafetyLimits) -> None:
        self._settings, self._limits = settings, limits
        self._changed = threading.Condition()
        self._session = Session(settings)
        self._port = Port(self._session, self._changed)
        self._told_home: Point = _low_corner(limits)
        self._target: Point | None = None
        self._moves = 0
        self._travelled_mm = self._tool_w = 0.0
        self._port.start()

    # ---- What skills reach, through the safety envelope

    @property
    def home_mm(self) -> Point:
        """Where the controller's settings say that homing ends. Before they are known, a point in the envelope, and homing is refused here."""
        with self._changed:
            self._told_home = self._session.handshake.controller.home_mm if self._session.ready else _low_corner(self._limits)
            return self._told_home

    def interlocks(self) -> Mapping[str, bool]:
        """The door, where the owner says that one is wired. While nothing is known of it, `execute` refuses to move."""
        with self._changed:
            return {"door": not self._session.door_open} if self._settings.door else {}

    def execute(self, command: AnyCommand) -> MotionReply:
        """Queues the command. Raises MachineError, MachineAlarm when the machine cannot have it; UsageError for what it has not got."""
        with self._changed:
            if not isinstance(command, Status):
                self._give(command)
            at = self._session.seen_mm
            if at is None:
                raise MachineError(
                    f"where the machine is, is not known: {report.why_not_ready(self._session) or 'it sent no position yet'}"
                )
            return MotionReply(moves=self._moves, position_mm=at)

    def status(self) -> dict[str, Any]:
        """For people."""
        with self._changed:
            session, controller = self._session, self._session.handshake.controller
            status = session.status
            known = session.handshake.done
            return {
                "position_mm": list(session.seen_mm or (0.0, 0.0, 0.0)), "moves": self._moves, "travelled_mm": round(self._travelled_mm, 6),
                "feed_mm_s": (status.feed or 0.0) * controller.unit_mm / 60 if status else 0.0, "tool_w": self._tool_w, "port": self._settings.port,
                "interlocks": {"door": not session.door_open} if self._settings.door else {},
                "problems": list(controller.problems(self._settings.needs_homing)) if known else [],
                "notes": list(controller.notes(self._limits)) if known else [],
            } | report.as_dict(session)  # fmt: skip

    # ---- What the node asks (AttendedDriver)

    def begin(self) -> None:
        """A job begins. Raises MachineError where a person has to see to something first, or no controller is ready; Busy while lines are under way."""
        with self._changed:
            session = self._session
            if session.failure is not None:
                raise session.error()
            problem = report.why_not_ready(session)
            if problem:
                raise MachineError(problem)
            if session.stream:
                raise Busy(f"{self._settings.port}: the machine is still doing what it was told before")
            session.begin_job()

    def wait_room(self, timeout_s: float) -> bool:
        """Whether more of a program may be read: the lines that wait are few, or the work has ended anyway."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._session.failure is not None or len(self._session.stream.waiting) < ROOM_LINES, timeout_s
            )

    def settle(self, timeout_s: float) -> bool:
        """Whether all that was given has been carried out. Raises what ended the work instead, once the machine stands still."""
        with self._changed:
            session = self._session
            session.settle()
            self._port.wake()
            self._changed.wait_for(lambda: session.stands_still(time.monotonic()) if session.failure else session.settled, timeout_s)
            if session.failure is not None:
                if not session.stands_still(time.monotonic()):
                    return False
                error = session.error()
                session.end_job()
                raise error
            if session.settled:
                session.end_job()
            return session.settled

    def stop(self, why: str) -> None:
        """Holds the feed and ends the work, if there is any; a person goes on from there."""
        with self._changed:
            self._session.stop(why, time.monotonic())
            self._port.wake()
            self._changed.notify_all()

    def operate(self, action: str) -> dict[str, Any]:
        """What a person asks, past every line that waits; the status after it. Raises UsageError for an unknown action, MachineError without a link."""
        with self._changed:
            session = self._session
            if action not in ACTIONS:
                raise UsageError(f"a Grbl machine knows {', '.join(ACTIONS)}, not {action!r}")
            if action == "clear":
                session.attended()
            elif not session.is_open:
                raise MachineError(report.why_not_ready(session))
            elif action == "reset":
                session.reset(time.monotonic())
                self._tool_w = 0.0
            elif action == "unlock":
                self._unlock()
            else:
                session.urgent(REALTIME[action])
            self._port.wake()
            self._changed.notify_all()
            if action in ("reset", "unlock"):
                self._changed.wait_for(lambda: (session.ready and not session.stream) or not session.is_open, ANSWER_S_MAX)
        return self.status()

    def close(self) -> None:
        """Lets go of the port. The controller goes on with the lines that it holds, and is not reset."""
        self._port.close()

    # ---- Within

    def _unlock(self) -> None:
        problem = report.why_not_ready(self._session)
        if problem:
            raise MachineError(problem)
        self._session.unlock()

    def _give(self, command: AnyCommand) -> None:
        session = self._session
        if session.failure is not None:
            raise session.error()
        problem = report.why_not_ready(session)
        homing = isinstance(command, Home)
        if not problem:
            problem = self._why_not_home() if homing else report.why_not_move(session)
        if problem:
            raise MachineError(problem)
        lines = lines_of(command, self._limits, self._settings, session.handshake.controller)
        if len(session.stream.waiting) + len(lines) > DEFAULT.machine_lines_waiting_max:
            raise MachineError(
                f"{DEFAULT.machine_lines_waiting_max} lines wait already; the machine is not as fast as what asks it to move"
            )
        session.give(lines)
        self._count(command)
        self._port.wake()

    def _why_not_home(self) -> str:
        controller = self._session.handshake.controller
        if not controller.homes:
            return "homing is switched off in the controller ($22=0)"
        if controller.home_mm != self._told_home:
            return "the controller's settings changed while homing was being asked for; ask again"
        return "the safety door is open" if self._settings.door and self._session.door_open else ""

    def _count(self, command: AnyCommand) -> None:
        match command:
            case Move(moves):
                self._moves += len(moves)
                for x, y, z, _ in moves:
                    self._travelled_mm += math.dist(self._target or self._session.seen_mm or (x, y, z), (x, y, z))
                    self._target = (x, y, z)
            case Tool(watts):
                self._tool_w = watts
            case Home():
                self._target = self._told_home


def _low_corner(limits: SafetyLimits) -> Point:
    x, y, z = (getattr(limits.travel_mm, axis)[0] for axis in AXES)
    return x, y, z
