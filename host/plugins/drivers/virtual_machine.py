"""`virtual_machine`: a three-axis machine that exists in memory, with the capability `motion`. It obeys at once and keeps a log of what it did."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from host.core.commands import AnyCommand, Dwell, Heat, Home, Move, Status, Tool
from host.plugins.contract import MotionReply
from host.plugins.driver import Driver
from host.plugins.hookspecs import hookimpl

LOG_ENTRIES_MAX = 10_000
AMBIENT_C = 20.0


@dataclass(frozen=True)
class Did:
    """One thing that the machine did: `at_s` on its own clock, the command's name, and its numbers."""

    at_s: float
    what: str
    detail: tuple[float | str, ...]


class VirtualMachine:
    """Position in mm, feed in mm/s, temperatures in °C. Its clock advances by the time each move takes at its feed."""

    capability = "motion"
    home_mm = (0.0, 0.0, 0.0)

    def __init__(self) -> None:
        self.position_mm = (0.0, 0.0, 0.0)
        self.feed_mm_s = 0.0
        self.tool_w = 0.0
        self.temperature_c: dict[str, float] = {}
        self.moves = 0
        self.travelled_mm = 0.0
        self.clock_s = 0.0
        self.inputs = {"door": True}
        self.log: deque[Did] = deque(maxlen=LOG_ENTRIES_MAX)

    def interlocks(self) -> Mapping[str, bool]:
        return self.inputs

    def execute(self, command: AnyCommand) -> MotionReply:
        match command:
            case Move(moves):
                for x, y, z, feed in moves:
                    self._move((x, y, z), feed)
            case Heat(heater, celsius):
                self.temperature_c[heater] = celsius
                self._note("heat", heater, celsius)
            case Tool(watts):
                self.tool_w = watts
                self._note("tool", watts)
            case Home():
                self.position_mm = self.home_mm
                self._note("home")
            case Dwell(ms):
                self.clock_s += ms / 1000
                self._note("dwell", ms)
            case Status():
                pass
        return MotionReply(moves=self.moves, position_mm=self.position_mm)

    def status(self) -> dict[str, Any]:
        return {
            "position_mm": list(self.position_mm), "feed_mm_s": self.feed_mm_s, "temperature_c": dict(self.temperature_c), "tool_w": self.tool_w,
            "moves": self.moves, "travelled_mm": round(self.travelled_mm, 6), "clock_s": round(self.clock_s, 6), "interlocks": dict(self.inputs),
        }  # fmt: skip

    def _move(self, target: tuple[float, float, float], feed_mm_s: float) -> None:
        length = math.dist(self.position_mm, target)
        self.position_mm, self.feed_mm_s = target, feed_mm_s
        self.travelled_mm += length
        self.clock_s += length / feed_mm_s
        self.moves += 1
        self._note("move", *target, feed_mm_s)

    def _note(self, what: str, *detail: float | str) -> None:
        self.log.append(Did(self.clock_s, what, detail))


@hookimpl
def offer_drivers() -> list[Driver]:
    return [VirtualMachine()]
