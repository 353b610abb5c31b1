"""Grbl's G-code, as far as the peer carries it out: one line to what it asks for, or the number of the error that it is answered with."""

import re
from dataclasses import dataclass, field

Point = tuple[float, float, float]
AXES = "XYZ"
MM_PER_INCH = 25.4
LINE_CHARACTERS_MAX = 79

BAD_LETTER, BAD_NUMBER, TOO_LONG, UNSUPPORTED, NO_FEED, NEEDS_VALUE = 1, 2, 11, 20, 22, 28
REPEATED, NO_AXES, UNUSED = 25, 26, 36
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_GROUPS = {"G4", "G17", "G18", "G19", "G53", "G54", "G94", "M7", "M8", "M9"}


class Refused(Exception):
    """A line that is answered with error:`code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Modes:
    """What holds from line to line. `offset_mm` is the work coordinates' origin in machine coordinates."""

    motion: str = "G0"
    inches: bool = False
    relative: bool = False
    feed_mm_min: float = 0.0
    speed: float = 0.0
    spindle: str = "M5"
    offset_mm: Point = (0.0, 0.0, 0.0)


@dataclass
class Block:
    """What a line asks for. `target_mm` is in machine coordinates; None is no move."""

    target_mm: Point | None = None
    feed_mm_min: float = 0.0
    dwell_s: float | None = None
    spindle: str = ""
    words: dict[str, float] = field(default_factory=dict)


def clean(line: str) -> str:
    """A line as the controller keeps it: no spaces, no comments, capitals."""
    without = re.sub(r"\([^)]*\)?|;.*|[\x00-\x20/]", "", line)
    return without.upper()


def parse(line: str, modes: Modes, at_mm: Point, rapid_mm_min: float) -> Block:
    """Reads a cleaned line and changes the modes. Raises Refused; then nothing has changed."""
    codes, values = _words(line)
    new = Modes(**vars(modes))
    for code in codes:
        _set_mode(new, code)
    if "G4" in codes and "P" not in values:
        raise Refused(NEEDS_VALUE)
    machine, dwell = "G53" in codes, values.pop("P") if "G4" in codes else None
    unit = MM_PER_INCH if new.inches else 1.0
    new.feed_mm_min = values.pop("F") * unit if "F" in values else new.feed_mm_min
    new.speed = values.pop("S", new.speed)
    block = Block(dwell_s=dwell, spindle=new.spindle if new.spindle != modes.spindle or new.speed != modes.speed else "")
    axes = {axis: values.pop(axis) * unit for axis in AXES if axis in values}
    if values:
        raise Refused(UNUSED)
    if axes:
        if new.motion == "G1" and new.feed_mm_min <= 0:
            raise Refused(NO_FEED)
        block.target_mm = _target(axes, new, at_mm, machine)
        block.feed_mm_min = new.feed_mm_min if new.motion == "G1" else rapid_mm_min
    elif machine:
        raise Refused(NO_AXES)
    vars(modes).update(vars(new))
    return block


def _set_mode(modes: Modes, code: str) -> None:
    match code:
        case "G0" | "G1":
            modes.motion = code
        case "G20" | "G21":
            modes.inches = code == "G20"
        case "G90" | "G91":
            modes.relative = code == "G91"
        case "M3" | "M4" | "M5":
            modes.spindle = code
        case _ if code not in _GROUPS:
            raise Refused(UNSUPPORTED)


def _words(line: str) -> tuple[list[str], dict[str, float]]:
    codes: list[str] = []
    values: dict[str, float] = {}
    at = 0
    while at < len(line):
        letter = line[at]
        if not "A" <= letter <= "Z":
            raise Refused(BAD_LETTER)
        found = _NUMBER.match(line, at + 1)
        if found is None:
            raise Refused(BAD_NUMBER)
        at = found.end()
        number = float(found[0])
        if letter in "GM":
            codes.append(f"{letter}{number:g}")
        elif letter in values:
            raise Refused(REPEATED)
        else:
            values[letter] = number
    return codes, values


def _target(axes: dict[str, float], modes: Modes, at_mm: Point, machine: bool) -> Point:
    target = list(at_mm)
    for index, axis in enumerate(AXES):
        if axis in axes:
            if machine:
                target[index] = axes[axis]
            elif modes.relative:
                target[index] += axes[axis]
            else:
                target[index] = axes[axis] + modes.offset_mm[index]
    x, y, z = target
    return x, y, z
