"""The peer's controller: receive buffer, lines, real-time commands, states, alarms. Bytes and times in, bytes out.

As in the firmware: a real-time command is picked out on arrival; a line is answered when it is planned, not when it is done; a line that waits for
room in the planner, or for a dwell, holds up those behind it; and a line that a reset interrupts is answered `ok` before the welcome.
"""

import math
from collections import Counter, deque

from sdk.grbl_peer import parser
from sdk.grbl_peer.parser import Modes, Point, Refused
from sdk.grbl_peer.planner import BLOCKS, Planner
from sdk.grbl_peer.status import status_line

RX_BYTES = 128
HOLD_S = 0.02
HOMING_S = 0.1
LOCKED, NOT_IDLE, NO_HOMING, UNKNOWN_DOLLAR, DOOR_OPEN = 9, 8, 5, 3, 13
HARD_LIMIT, SOFT_LIMIT, RESET_IN_MOTION, RESET_IN_HOMING = 1, 2, 3, 6
SETTINGS: dict[int, float] = {
    0: 10, 1: 25, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 10: 1, 11: 0.010, 12: 0.002, 13: 0, 20: 1, 21: 0, 22: 1, 23: 7, 24: 25, 25: 500, 26: 250, 27: 1,
    30: 1000, 31: 0, 32: 0, 100: 250, 101: 250, 102: 250, 110: 5000, 111: 5000, 112: 5000, 120: 100, 121: 100, 122: 100, 130: 300, 131: 300, 132: 300,
}  # fmt: skip


class Firmware:
    """One controller. It homes to the negative ends (with a forced origin, so that its travel is 0 … $130), and is locked at power-up."""

    def __init__(
        self, *, speed: float = 1.0, settings: dict[int, float] | None = None, version: str = "1.1h", rx_bytes: int = RX_BYTES
    ) -> None:
        self.settings = SETTINGS | (settings or {})
        self.version, self.speed, self._rx_bytes = version, speed, rx_bytes
        self.out = bytearray()
        self.planner = Planner(speed)
        self.modes = Modes()
        self.startup: tuple[str, ...] = ()
        self.door_ajar = False
        self.state, self.sub = "Idle", -1
        # What a test looks at.
        self.lines: deque[str] = deque(maxlen=100_000)
        self.targets: deque[Point] = deque(maxlen=100_000)
        self.realtime: Counter[int] = Counter()
        self.lost_bytes = self.rx_peak = self.unanswered_bytes = self.unanswered_peak = self.welcomes = 0
        self.oks_to_swallow = 0
        self._rx, self._line = bytearray(), bytearray()
        self._waiting: parser.Block | None = None
        self._blocked = self._critical = self._report = False
        self._until_s = 0.0
        self._reports = 0
        self.power_on(0.0)

    # ---- What happens to it

    def power_on(self, now_s: float) -> None:
        """Power came, or came back: wherever it stands is 0, and only homing says where that is."""
        self.planner.flush(now_s)
        self.planner.place((0.0, 0.0, 0.0))
        self.state = "Alarm" if self.settings[22] else "Idle"
        self._start()

    def hit_limit(self, now_s: float) -> None:
        """A limit switch closes."""
        self._critical_alarm(HARD_LIMIT, now_s)

    def door(self, ajar: bool, now_s: float) -> None:
        """The safety door is opened or closed."""
        self.door_ajar = ajar
        if ajar:
            self._open_door(now_s)
        elif self.state == "Door":
            self.sub = 0

    def receive(self, data: bytes, now_s: float) -> None:
        """Bytes arrive, as in the receive interrupt."""
        for byte in data:
            if byte in b"?!~\x18" or byte > 0x7F:
                self.realtime[byte] += 1
                self._act(byte, now_s)
            else:
                self.unanswered_bytes += 1
                self.unanswered_peak = max(self.unanswered_peak, self.unanswered_bytes)
                if len(self._rx) >= self._rx_bytes:
                    self.lost_bytes += 1
                else:
                    self._rx.append(byte)
                    self.rx_peak = max(self.rx_peak, len(self._rx))

    def run(self, now_s: float) -> None:
        """Carries on until nothing more can be done at this time."""
        self.planner.advance(now_s)
        if self.state == "Run" and not self.planner.running:
            self.state = "Idle"
        if self.state in ("Hold", "Door") and self.sub in (1, 2) and now_s >= self._until_s:
            self.sub = (1 if self.door_ajar else 0) if self.state == "Door" else 0
        while not self._critical and self.state not in ("Hold", "Door", "Sleep"):
            if self._blocked:
                if not self._unblock(now_s):
                    break
            elif not self._read_line(now_s):
                break
        if self.planner.moves and self.state == "Idle":
            self.state = "Run"
            self.planner.start(now_s)
        if self._report and not self._critical and self.state != "Home":
            self._report = False
            self._say(self._status())

    def next_s(self, now_s: float) -> float:
        """In how many seconds something happens by itself."""
        timed = (self._blocked and self._until_s > now_s) or self.sub in (1, 2)
        return min(self.planner.next_s(), max(self._until_s - now_s, 0.001) if timed else math.inf)

    # ---- Real-time commands

    def _act(self, byte: int, now_s: float) -> None:
        match byte:
            case 0x18:
                self._reset(now_s)
            case 0x3F:
                self._report = True
            case 0x21 if self.state in ("Idle", "Run") and not self._critical:
                self.state, self.sub, self._until_s = "Hold", 1 if self.state == "Run" else 0, now_s + HOLD_S
                self.planner.hold(now_s)
            case 0x7E if (self.state in ("Hold", "Door")) and self.sub == 0:
                self.state, self.sub = ("Run" if self.planner.moves else "Idle"), -1
                if self.planner.moves:
                    self.planner.start(now_s)
            case 0x84:
                self._open_door(now_s)

    def _open_door(self, now_s: float) -> None:
        self._say("[MSG:Check Door]")
        if self.state in ("Idle", "Run", "Hold"):
            self.state, self.sub, self._until_s = "Door", 2 if self.planner.running else 1, now_s + HOLD_S
            self.planner.hold(now_s)
            self.modes.spindle = "M5"

    def _reset(self, now_s: float) -> None:
        moving = self.state in ("Run", "Home") or (self.state in ("Hold", "Door") and self.sub in (1, 2))
        if moving and not self._critical:
            self._say(f"ALARM:{RESET_IN_HOMING if self.state == 'Home' else RESET_IN_MOTION}")
        if self._blocked:
            self._answer(0)
        self.planner.flush(now_s)
        self.state = "Alarm" if moving or self._critical or self.state in ("Alarm", "Sleep") else "Idle"
        self._start()

    def _start(self) -> None:
        self.unanswered_bytes = 0
        self._rx.clear()
        self._line.clear()
        self.modes = Modes(offset_mm=self.modes.offset_mm)
        self._waiting = None
        self._blocked = self._critical = self._report = False
        self._until_s, self._reports, self.sub = 0.0, 0, -1
        self.welcomes += 1
        self._say(f"\r\nGrbl {self.version} ['$' for help]")
        if self.state == "Alarm":
            self._say("[MSG:'$H'|'$X' to unlock]")
        else:
            self._run_startup()

    def _run_startup(self) -> None:
        for line in self.startup:
            parser.parse(line, self.modes, self.planner.planned_mm, self._rapid())
            self._say(f">{line}:ok")

    # ---- Lines

    def _read_line(self, now_s: float) -> bool:
        end = self._rx.find(b"\n")
        taken = self._rx[: end + 1] if end >= 0 else self._rx[:]
        del self._rx[: len(taken)]
        self._line += taken
        if end < 0:
            return False
        text = parser.clean(self._line.decode("latin-1"))
        if len(text) > parser.LINE_CHARACTERS_MAX:
            self._answer(parser.TOO_LONG)
        elif not text:
            self._answer(0)
        elif text[0] == "$":
            self._system(text, now_s)
        elif self.state == "Alarm":
            self._answer(LOCKED)
        else:
            self._gcode(text, now_s)
        return True

    def _gcode(self, text: str, now_s: float) -> None:
        try:
            block = parser.parse(text, self.modes, self.planner.planned_mm, self._rapid())
        except Refused as refused:
            self._answer(refused.code)
            return
        self.lines.append(text)
        if (
            block.target_mm is not None
            and self.settings[20]
            and not all(0 <= v <= self.settings[130 + i] for i, v in enumerate(block.target_mm))
        ):
            self._blocked = True  # this line is answered when the reset comes
            self._critical_alarm(SOFT_LIMIT, now_s)
            return
        self._waiting, self._blocked, self._until_s = block, True, math.inf

    def _unblock(self, now_s: float) -> bool:
        """Whether the line that waits could be answered."""
        if self.state == "Home":
            return self._homed(now_s)
        block = self._waiting
        assert block is not None, "only a line blocks"
        if block.target_mm is not None:
            if self.planner.full:
                return False
            self.planner.add(block.target_mm, block.feed_mm_min)
            self.targets.append(block.target_mm)
        elif block.dwell_s is not None or block.spindle:
            if self.planner.moves:
                return False
            if self._until_s == math.inf:
                self._until_s = now_s + (block.dwell_s or 0.0) / self.speed
            if now_s < self._until_s:
                return False
        self._answer(0)
        return True

    def _homed(self, now_s: float) -> bool:
        if now_s < self._until_s:
            return False
        self.planner.place((0.0, 0.0, 0.0))
        self.state = "Idle"
        self._run_startup()
        self._answer(0)
        return True

    def _system(self, text: str, now_s: float) -> None:
        resting = self.state in ("Idle", "Alarm") and not self.planner.moves
        match text:
            case "$$" if self.state != "Run":
                for number, value in self.settings.items():
                    self._say(f"${number}={value:.3f}" if number in (11, 12, 24, 25, 27) or number >= 100 else f"${number}={value:g}")
            case "$I" if resting:
                self._say(f"[VER:{self.version}.20190825:]")
                self._say(f"[OPT:VZ,{BLOCKS},{self._rx_bytes}]")
            case "$X":
                if self.state == "Alarm":
                    self._say("[MSG:Caution: Unlocked]")
                    self.state = "Idle"
            case "$H" if resting and not self.settings[22]:
                return self._answer(NO_HOMING)
            case "$H" if resting and self.door_ajar:
                return self._answer(DOOR_OPEN)
            case "$H" if resting:
                self.lines.append(text)
                self.state, self._blocked, self._until_s = "Home", True, now_s + HOMING_S
                return None
            case "$SLP" if resting:
                self.state = "Sleep"
                self._say("[MSG:Sleeping]")
            case "$$" | "$I" | "$H" | "$SLP":
                return self._answer(NOT_IDLE)
            case _:
                return self._answer(UNKNOWN_DOLLAR)
        return self._answer(0)

    # ---- What it says

    def _answer(self, code: int) -> None:
        self.unanswered_bytes -= len(self._line)
        self._line.clear()
        self._waiting, self._blocked = None, False
        if code == 0 and self.oks_to_swallow:
            self.oks_to_swallow -= 1
        else:
            self._say(f"error:{code}" if code else "ok")

    def _critical_alarm(self, code: int, now_s: float) -> None:
        self.planner.flush(now_s)
        self.state, self.sub, self._critical = "Alarm", -1, True
        self._say(f"ALARM:{code}")
        self._say("[MSG:Reset to continue]")

    def _status(self) -> str:
        free = (BLOCKS - len(self.planner.moves), self._rx_bytes - len(self._rx)) if int(self.settings[10]) & 2 else None
        text = status_line(
            self.state if self.sub < 0 else f"{self.state}:{self.sub}", self.planner.position_mm, self.modes,
            unit_mm=parser.MM_PER_INCH if self.settings[13] else 1.0, work=not int(self.settings[10]) & 1, free=free,
            moving=self.planner.running, pins="D" if self.door_ajar else "", number=self._reports,
        )  # fmt: skip
        self._reports += 1
        return text

    def _say(self, line: str) -> None:
        self.out += line.encode() + b"\r\n"

    def _rapid(self) -> float:
        return min(self.settings[number] for number in (110, 111, 112))
