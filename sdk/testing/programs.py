"""G-code programs made up at random: from nothing, and by changing lines of ones that are known. Cut into pieces anywhere, also in the middle of a line."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from host.plugins.contract import PlanSettings
from sdk import samples
from sdk.samples import BOLD, MODEST
from sdk.testing.host import Job
from sdk.vectors import pieces

LINES_MAX = 60
CUTS_MAX = 6
FROM_KNOWN_SHARE = 0.5
ODD_SHARE = 0.1
G_CODES = ("0", "1", "1", "1", "2", "3", "4", "17", "18", "19", "20", "21", "28", "80", "81", "82", "83", "90", "91", "92", "93", "99.9")
M_CODES = ("0", "2", "3", "4", "5", "30", "82", "83", "104", "109", "140", "190", "201", "203", "204", "205", "400", "999")
WORDS = "XYZEIJKRFSPTQABC"
ODD_LINES = (
    b"", b";", b"( a comment", b"G1 X1 (a) Y2 ; b", b"N3 G1 X1*57", b"N3 G1 X1*0", b"G", b"X", b"G1X1Y", b"G1 X1e5", b"G1 X--1", b"G1 X1 X2", b"%", b"\xff\x00\x80",
    b"; estimated printing time = 1m", b"; thumbnail begin 16x16 4", b"M117 hello; world", b"G1 X" + b"9" * 300, b" \t ", b"g1 x1.5 y-.5f100", b"O100", b"#1=2",
)  # fmt: skip


def made_up(known: Sequence[Job], rng: random.Random) -> Iterator[Job]:
    """Jobs without end, each in pieces."""
    while True:
        if known and rng.random() < FROM_KNOWN_SHARE:
            source = rng.choice(known)
            lines, settings = _changed(b"".join(source.program).split(b"\n"), rng), source.settings
        else:
            lines, settings = [_line(rng) for _ in range(rng.randint(0, LINES_MAX))], PlanSettings()
        if rng.random() < 0.3:
            made = samples.sound(PlanSettings, samples.fresh(PlanSettings, rng, rng.choice((BOLD, MODEST))))
            assert isinstance(made, PlanSettings)
            settings = made
        program = (b"\r\n" if rng.random() < ODD_SHARE else b"\n").join(lines)
        cuts = [rng.randint(0, len(program)) for _ in range(rng.randint(1, CUTS_MAX))]
        yield Job(program=pieces(program, cuts), settings=settings, run=rng.random() < 0.5)


def _changed(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Some lines of a program, a few of them changed, moved or gone."""
    start = rng.randrange(len(lines)) if len(lines) > LINES_MAX else 0
    made = lines[start : start + LINES_MAX]
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(made)) if made else 0
        match rng.randrange(4):
            case 0 if made:
                del made[at]
            case 1 if made:
                made[at] = made[at][: rng.randint(0, len(made[at]))]
            case 2 if made:
                made.insert(at, rng.choice(made))
            case _:
                made.insert(at, _line(rng))
    return made


def _line(rng: random.Random) -> bytes:
    if rng.random() < ODD_SHARE:
        return rng.choice(ODD_LINES)
    letter, codes = rng.choice((("G", G_CODES), ("G", G_CODES), ("M", M_CODES)))
    words = [f"{letter}{rng.choice(codes)}", *(f"{rng.choice(WORDS)}{_number(rng)}" for _ in range(rng.randint(0, 5)))]
    return (" " if rng.random() < 0.8 else "").join(words).encode()


def _number(rng: random.Random) -> str:
    drawn = rng.uniform(-200, 200)
    return rng.choice((f"{drawn:.3f}", f"{abs(drawn):.0f}", f"{drawn:.1f}", "0", "1e9" if rng.random() < ODD_SHARE else "10"))


def plain(job: Job) -> dict[str, Any]:
    """A job as plain data that can shrink: its lines, as text in which each character is a byte."""
    program, cuts, at = b"".join(job.program), [], 0
    for piece in job.program[:-1]:
        at += len(piece)
        cuts.append(at)
    settings = msgspec.to_builtins(job.settings, builtin_types=(bytes,))
    return {"lines": program.decode("latin-1").split("\n"), "settings": samples.listed(settings), "run": job.run, "cuts": cuts}


def job_of(value: dict[str, Any]) -> Job | None:
    """The job that plain data stands for; None where there is none."""
    settings = samples.sound(PlanSettings, value.get("settings", {}))
    if settings is None or not all(type(value.get(key)) is kind for key, kind in (("lines", list), ("run", bool), ("cuts", list))):
        return None
    assert isinstance(settings, PlanSettings)
    program = "\n".join(value["lines"]).encode("latin-1", "replace")
    return Job(program=pieces(program, value["cuts"]), settings=settings, run=value["run"])
