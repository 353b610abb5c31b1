"""`snapcount skill bench`: what a skill's calls need, beside what it asks for, and limits that fit."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, emit, progress, say, table

if TYPE_CHECKING:
    from sdk.benchmark import Measured
    from sdk.suggestion import Judged

EXAMPLE = "Example: snapcount skill bench ore-sorter --slowdown 20 --write"
SHARES = 100


def bench(
    folder: Path = typer.Argument(Path(), help="The skill's folder.", show_default="this folder"),
    seconds: float = typer.Option(1.0, min=0.0, help="How long to measure each vector, in seconds."),
    examples: int = typer.Option(200, min=0, max=100_000, help="How many requests to make up for each hook, beside the vectors."),
    margin: float = typer.Option(2.0, min=1.0, max=100.0, help="What is seen at most, times this, is what is suggested."),
    slowdown: float = typer.Option(
        20.0,
        "--slowdown",
        "--oldest",
        min=1.0,
        max=1_000.0,
        help="How many times longer a call takes on the oldest node of the fleet than here.",
    ),
    write: bool = typer.Option(False, "--write", help="Put the suggested limits into skill.toml; nothing else in it changes."),
    as_json: bool = Json,
) -> None:
    """Measure fuel, time, memory, reply, host calls and log of each call, judge the limits that the skill asks for, and suggest others."""
    from sdk import benchmark, limits_table, project, scripts, suggestion
    from sdk.local import read_bundle

    loaded = project.load(folder)
    with progress("measuring", SHARES) as advance:
        found = benchmark.measure(
            read_bundle(folder), scripts.of_project(loaded), seconds, examples=examples, step=lambda share: advance(int(share * SHARES))
        )
    judged = suggestion.judge(found, margin, slowdown)
    if write and judged and not found.breached:
        limits_table.write(folder, suggestion.limits(judged))
    if as_json:
        emit({
            "vectors": benchmark.vector_rows(found), "times_us": found.times_us(), "calls": len(found.needs), "endings": dict(benchmark.endings(found)),
            "limits": suggestion.as_json(judged), "margin": margin, "slowdown": slowdown,
        })  # fmt: skip
    else:
        _show(found, judged, margin, slowdown, write)
    if found.breached or any(one.fails for one in judged):
        raise typer.Exit(1)


def _show(found: "Measured", judged: list["Judged"], margin: float, slowdown: float, written: bool) -> None:
    from sdk import benchmark, suggestion

    table(
        ["vector", "call µs", "fuel", "of limit", "memory KiB", "of limit", "MB/s"],
        [
            (r["name"], r["call_us"], r["fuel"], f"{r['fuel_share']:.1%}", r["memory_kib"], f"{r['memory_share']:.1%}", r["mb_per_s"] or "")
            for r in benchmark.vector_rows(found)
        ],
    )  # fmt: skip
    made_up = sum(one.made_up for one in found.needs)
    say(f"\nwith {made_up} requests made up beside them:")
    table(["hook", "p50 µs", "p99 µs", "max µs"], [(hook, *spread.values()) for hook, spread in found.times_us().items()])
    for ended, times in benchmark.endings(found).most_common(5):
        say(f"{times} call(s) got no reply, and do not count: {ended}")
    if not judged:
        say("no call ended with a reply, so there is nothing to suggest limits from")
        return
    say("")
    for one in judged:
        if one.in_words:
            say(one.in_words)
    if found.breached:
        say("some calls need more than can be measured, so these limits are too low for them; see above")
    say("written to skill.toml; build it again:" if written and not found.breached else "suggested for skill.toml (--write puts it in):")
    say("")
    for line in suggestion.table(judged, margin, slowdown):
        say(line)
