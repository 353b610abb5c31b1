"""`snapcount job`: read a G-code program, and run it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import typer

from sdk.cli.output import Advance, Json, emit, progress, say

app = typer.Typer(help="Plan and run G-code programs.", no_args_is_help=True)

PIECE_BYTES = 256 << 10
KEYS = ("dialect", "units", "bbox_mm", "moves", "path_mm", "extruded_mm", "time_s", "complete", "problems")
PROBLEMS_SHOWN = 20
STOPPED = ("motion_refused", "safe_mode", "motion_stopped")

File = typer.Argument(help="A G-code program.")
Accel = typer.Option(None, "--accel", min=1e-3, help="Acceleration in mm/s², until the program states its own.")
FeedMax = typer.Option(None, "--feed-max", min=1e-3, help="Ceiling for every move, in mm/min.")
Deviation = typer.Option(
    None, "--junction-deviation", min=0, help="Junction deviation in mm, in place of the dialect's own cornering rule."
)


@app.command(epilog="Example: snapcount job plan part.gcode --accel 500 --json")
def plan(
    file: Path = File,
    accel: float | None = Accel,
    feed_max: float | None = FeedMax,
    junction_deviation: float | None = Deviation,
    skill: Path | None = typer.Option(
        None, "--skill", help="The planner's bundle.", show_default="the toolpath-planner that ships with snapcount"
    ),
    as_json: bool = Json,
) -> None:
    """Read a program without moving anything: what it does, how long it takes, and what is wrong with it."""
    import msgspec

    from host.plugins.contract import PlanSettings
    from host.plugins.streaming import with_tail
    from sdk.local import LocalSkill, read_bundle
    from skills import module_path

    path = skill or module_path("toolpath-planner")
    settings = msgspec.convert(_settings(accel, feed_max, junction_deviation), PlanSettings)
    with _opened(file) as program:
        if program.seekable():
            settings = with_tail(settings, program)
        loaded = LocalSkill(read_bundle(path), path.name)
        with progress("reading", _count(file)) as advance:
            report = msgspec.to_builtins(loaded.version.plan(_pieces(program, advance), settings, False))
    _show(report, as_json)


@app.command(epilog="Example: snapcount job run part.gcode --state node-1")
def run(
    file: Path = File,
    state: Path = typer.Option(Path("node"), "--state", help="State directory of the running node whose machine does the job."),
    accel: float | None = Accel,
    feed_max: float | None = FeedMax,
    junction_deviation: float | None = Deviation,
    as_json: bool = Json,
) -> None:
    """Run a program on a node's machine. It is read whole first; nothing moves unless all of it was understood."""
    from host.console.client import NodeControl

    with _opened(file) as program, progress("sending", _count(file)) as advance:
        report = NodeControl(state).job(_pieces(program, advance), _settings(accel, feed_max, junction_deviation), run=True)
    _show(report, as_json, "driven")
    if any(problem["code"] in STOPPED for problem in report["problems"]):
        raise typer.Exit(30)


def _settings(accel: float | None, feed_max: float | None, junction_deviation: float | None) -> dict[str, Any]:
    given = {"accel_mm_s2": accel, "feed_max_mm_min": feed_max, "junction_deviation_mm": junction_deviation}
    return {key: value for key, value in given.items() if value is not None}


def _opened(file: Path) -> BinaryIO:
    from host.core.errors import UsageError

    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _pieces(program: BinaryIO, advance: Advance) -> Iterator[bytes]:
    for read, piece in enumerate(iter(lambda: program.read(PIECE_BYTES), b"")):
        advance(read + 1)
        yield piece


def _count(file: Path) -> int:
    return max(1, -(-file.stat().st_size // PIECE_BYTES))


def _show(report: dict[str, Any], as_json: bool, *more: str) -> None:
    if as_json:
        emit({key: report[key] for key in (*KEYS, *more)})
        return
    low, high = report["bbox_mm"]["min"], report["bbox_mm"]["max"]
    moves, path = report["moves"], report["path_mm"]
    say(f"dialect    {report['dialect']}, {report['units']}, {report['lines']} lines")
    say("box        " + ", ".join(f"{axis} {a:.3f} … {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True)) + " mm")
    say(f"moves      {moves['rapid']} rapid, {moves['linear']} linear, {moves['arc']} arcs")
    say(f"path       {path['total']:.1f} mm ({path['rapid']:.1f} rapid, {path['linear']:.1f} linear, {path['arc']:.1f} arcs)")
    if report["extruded_mm"]:
        say(f"extruded   {report['extruded_mm']:.1f} mm")
    say(f"time       {_duration(report['time_s'])}")
    for key in more:
        say(f"{key:10} {report[key]}")
    stopped = next((problem for problem in report["problems"] if problem["code"] in STOPPED), None)
    if stopped:
        say(f"stopped    at or after line {stopped['line']}, after {report['driven']} moves: {stopped['message']}")
    say("understood yes, all of it" if report["complete"] else f"understood NOT all: {report['problems_total']} problem(s)")
    for problem in report["problems"][:PROBLEMS_SHOWN]:
        say(f"  line {problem['line']}: {problem['message']} [{problem['code']}]")
    if report["problems_total"] > PROBLEMS_SHOWN:
        say(f"  … and {report['problems_total'] - PROBLEMS_SHOWN} more")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min {rest:.1f} s" if hours else f"{minutes} min {rest:.1f} s" if minutes else f"{rest:.2f} s"
