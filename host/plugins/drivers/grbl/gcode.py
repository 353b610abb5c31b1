"""Typed commands as Grbl lines. Each line stands by itself: machine coordinates (G53), all three axes, and its feed.

So no work offset, no G92 and no line before it can shift where a move goes: what the safety envelope admitted is what is sent. Rounding never
takes a number past the owner's limits.
"""

import math
from collections.abc import Iterator

from host.core.commands import AnyCommand, Dwell, Heat, Home, Move, Status, Tool
from host.core.errors import UsageError
from host.core.safety import AXES, SafetyLimits
from host.core.text import safe
from host.plugins.drivers.grbl.settings import Controller, GrblSettings
from host.plugins.drivers.grbl.stream import Line

MODES = "G17G21G90G94"
"""XY plane, mm, absolute, units per minute: sent before the first line after anything that may have changed them."""
SETTLE = "G4P0"
"""A dwell of no time. It is answered when every move before it has ended."""
HOME, UNLOCK = "$H", "$X"
STEP_MM = 0.001
COORDINATE_MAX_MM = 100_000.0  # beyond it Grbl's numbers have no room for micrometres
DWELL_S_MAX = 600  # Grbl counts a dwell in 16 bits of 50 ms; longer ones are sent in pieces


def lines_of(command: AnyCommand, limits: SafetyLimits, settings: GrblSettings, controller: Controller) -> list[Line]:
    """The lines of a command that the envelope admitted. Raises UsageError for what this machine has not got, or Grbl cannot express."""
    match command:
        case Move(moves):
            return [Line(_move(move, limits)) for move in moves]
        case Tool(watts):
            return [Line(_tool(watts, settings, controller))]
        case Dwell(ms):
            return list(_dwell(ms / 1000))
        case Home():
            return [Line(SETTLE, slow_s=settings.answer_s), Line(HOME, alone=True, slow_s=settings.homing_s), Line(MODES)]
        case Heat(heater, _):
            raise UsageError(f"this machine has no heater {safe(heater, 32)}: a Grbl controller drives none")
        case Status():
            return []


def _move(move: tuple[float, float, float, float], limits: SafetyLimits) -> str:
    travel, feed = limits.travel_mm, math.floor(move[3] * 60_000) / 1000
    if not 0 < feed < COORDINATE_MAX_MM:
        raise UsageError(f"a speed of {move[3]:.6g} mm/s is none that Grbl can be told")
    words = (f"{axis.upper()}{_number(_inside(value, *getattr(travel, axis)))}" for axis, value in zip(AXES, move[:3], strict=True))
    return f"G53G1{''.join(words)}F{_number(feed)}"


def _inside(value: float, low: float, high: float) -> float:
    """The value in whole micrometres, on the near side of a limit that lies between two of them."""
    rounded = round(value, 3)
    if rounded > high:
        rounded = round(rounded - STEP_MM, 3)
    elif rounded < low:
        rounded = round(rounded + STEP_MM, 3)
    if not (low <= rounded <= high and abs(rounded) < COORDINATE_MAX_MM):
        raise UsageError(f"{value:.12g} mm is no whole number of micrometres inside [{low:.12g}, {high:.12g}] mm")
    return rounded


def _tool(watts: float, settings: GrblSettings, controller: Controller) -> str:
    if watts == 0:
        return "M5S0"
    if not 0 < watts <= settings.tool_max_w:
        raise UsageError(f"the tool has {settings.tool_max_w:g} W (tool_max_w in [drivers.grbl]); {watts:g} W were asked for")
    return f"{settings.tool_code}S{_number(math.floor(watts / settings.tool_max_w * controller.spindle_max * 1000) / 1000)}"


def _dwell(seconds: float) -> Iterator[Line]:
    while seconds > DWELL_S_MAX:
        yield Line(f"G4P{DWELL_S_MAX}", slow_s=DWELL_S_MAX)
        seconds -= DWELL_S_MAX
    yield Line(f"G4P{_number(seconds)}", slow_s=seconds)


def _number(value: float) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
