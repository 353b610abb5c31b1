"""Limits for a skill, from what its calls were seen to need: the worst case times a margin, rounded up to a number that is easy to read.

Fuel, memory, reply, host calls and log are the same on every machine. Time is not: what was measured here counts `slowdown` times, so that the deadline
holds on the oldest node of the fleet. A call that runs wild should end by its fuel, which is the same everywhere, rather than by the clock.
"""

import math
from dataclasses import dataclass
from typing import Any

from host.core.limits import DEFAULT
from host.core.manifest import MIN_MEMORY_BYTES, SkillLimits
from sdk.benchmark import Measured

MARGIN = 2.0
SLOWDOWN = 20.0
"""The oldest boards that the host runs on, of the class of a Raspberry Pi 3 (Cortex-A53, 1.2 GHz), take about ten times as long as a desktop's core;
twice that for one that is hot and throttles. Who knows their fleet says what holds there."""
WIDE = 20
"""A limit of more than so many times what was needed limits nothing."""
TIGHT = 1.25
STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
FUEL_MIN = 10_000
DEADLINE_MIN_MS = 100  # a busy node may not get to a call for this long, whatever the call does
REPLY_MIN_BYTES = 2_048  # an error reply has up to 1,024 characters, and nobody may have seen one
HOST_CALLS_MIN, LOG_MIN_BYTES = 10, 1_024
LOG, MEMORY = "log", "memory_bytes"
UNITS = {"fuel": "units", "deadline_ms": "ms", "memory_bytes": "bytes", "reply_bytes": "bytes", "host_calls": "calls", "log_bytes": "bytes"}
NEEDED_NS = {"deadline_ms": "call_ns"}  # what a limit is compared with, where it has another name


@dataclass(frozen=True)
class Judged:
    """One limit: what was asked for, what was needed at most and by which script, what is suggested, and what is to be said of it."""

    name: str
    asked: int
    needed: float
    by: str
    suggested: int
    verdict: str

    @property
    def fails(self) -> bool:
        """Whether a call needs more than was asked for."""
        return self.asked < self.needed

    @property
    def in_words(self) -> str:
        if self.fails:
            return f"{self.name}: too tight: {self.by} needs {math.ceil(self.needed)}, {self.asked} are asked for"
        if self.verdict == "tight":
            return f"{self.name}: tight: {self.by} needs {math.ceil(self.needed)} of {self.asked}, less than {TIGHT:g} times that"
        if self.verdict == "wide":
            return f"{self.name}: far too wide: {self.asked} are asked for, at most {math.ceil(self.needed)} were needed ({self.by or 'by none'})"
        return ""


def judge(found: Measured, margin: float = MARGIN, slowdown: float = SLOWDOWN) -> list[Judged]:
    """Every limit that a skill asks for, judged. Without a call that ended well nothing can be said: then the list is empty."""
    if not found.sound:
        return []
    return [_judge(found, name, margin, slowdown) for name in SkillLimits.__struct_fields__]


def _judge(found: Measured, name: str, margin: float, slowdown: float) -> Judged:
    measured = NEEDED_NS.get(name, name)
    worst = found.worst(measured)
    assert worst is not None, "there is a script that ended well"
    needed = float(getattr(worst, measured)) * (slowdown if name in NEEDED_NS else 1.0) / (1e6 if name in NEEDED_NS else 1.0)
    asked = int(getattr(found.asked, name))
    if name == MEMORY and not needed:
        return Judged(name, asked, needed, "", asked, "")  # a component does not say how much it has
    suggested = _suggest(name, needed * margin, found.capabilities)
    if asked < needed:
        verdict = "too tight"
    elif needed and asked < needed * TIGHT:
        verdict = "tight"
    else:
        verdict = "wide" if asked > suggested and asked > WIDE * max(needed, suggested / margin) else ""
    return Judged(name, asked, needed, worst.name if needed else "", suggested, verdict)


def _suggest(name: str, wanted: float, capabilities: tuple[str, ...]) -> int:
    match name:
        case "fuel":
            return min(_readable(max(wanted, FUEL_MIN)), DEFAULT.fuel_max)
        case "deadline_ms":
            return min(_readable(max(wanted, DEADLINE_MIN_MS)), DEFAULT.deadline_ms_max)
        case "memory_bytes":
            return min(_pages(wanted) * MIN_MEMORY_BYTES, DEFAULT.memory_bytes_max)
        case "reply_bytes":
            return min(_power(max(wanted, REPLY_MIN_BYTES)), DEFAULT.reply_bytes_max)
        case "host_calls":
            return min(_readable(max(wanted, HOST_CALLS_MIN)), DEFAULT.host_calls_max) if capabilities else 0
        case _:
            return min(_power(max(wanted, LOG_MIN_BYTES)), DEFAULT.log_bytes_max) if LOG in capabilities else 0


def _readable(wanted: float) -> int:
    """The next of 1, 1.2, 1.5, 2 … 8, and ten, hundred … times those."""
    decade = 10.0 ** math.floor(math.log10(wanted))
    return next(math.ceil(step * decade) for step in STEPS if step * decade >= wanted * (1 - 1e-12))


def _power(wanted: float) -> int:
    return 1 << max(0, math.ceil(math.log2(wanted)))


def _pages(wanted: float) -> int:
    """Pages of 64 KiB: 1, 2, 3, 4, 6, 8, 12, 16 … A margin on whole pages is seldom less than one."""
    pages = max(1, math.ceil(wanted / MIN_MEMORY_BYTES))
    power = _power(pages)
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= pages else power


def limits(judged: list[Judged]) -> SkillLimits:
    """The suggested limits."""
    return SkillLimits(**{one.name: one.suggested for one in judged})


def table(judged: list[Judged], margin: float, slowdown: float) -> list[str]:
    """A `[limits]` table for skill.toml, each line with where its number comes from."""
    lines = ["[limits]"]
    for one in judged:
        unseen = "as it was: a component does not say what it needs" if one.name == MEMORY else "none seen"
        seen = f"{math.ceil(one.needed)} {UNITS[one.name]} seen ({one.by}) × {margin:g}" if one.needed else unseen
        if one.name == "deadline_ms" and one.needed:
            seen = f"{one.needed / slowdown:.3g} ms seen here ({one.by}) × {slowdown:g} on the oldest node × {margin:g}"
        lines.append(f"{f'{one.name} = {one.suggested}':29} # {seen}")
    return lines


def as_json(judged: list[Judged]) -> list[dict[str, Any]]:
    return [{**vars(one), "needed": math.ceil(one.needed), "fails": one.fails} for one in judged]
