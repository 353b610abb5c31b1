"""`snapcount demo`: a whole fleet on this machine, its main job, and every defence at work."""

from pathlib import Path

import typer

from sdk.cli.output import Json, emit, say

EXAMPLE = "Example: snapcount demo --nodes 12"


def demo(
    nodes: int = typer.Option(12, min=2, max=64, help="How many nodes, each a process of its own."),
    keep: Path | None = typer.Option(None, help="Keep everything in this folder, to look at it afterwards."),
    as_json: bool = Json,
) -> None:
    """Start a registry and a fleet on this machine, push skills, run a job on every node, upgrade while jobs run, and try to break it."""
    import signal
    import sys

    from sdk.demo import story

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that no process and no file is left
    result = story.run(nodes, keep, say)
    if as_json:
        emit(result)
    if not story.succeeded(result):
        raise typer.Exit(1)
