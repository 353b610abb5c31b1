"""`snapcount node calls` and `snapcount node audit`: what a node recorded of its calls, and the conflicts that an auditor found."""

import time
from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, emit, say, table

EXAMPLE = "Example: snapcount node calls --skill ore-sorter --state node-1"
AUDIT_EXAMPLE = "Example: snapcount node audit --state auditor-1"
app = typer.Typer(
    help="Show the real calls that a node recorded, and take some away as a file.", invoke_without_command=True, epilog=EXAMPLE
)
State = typer.Option(Path("node"), "--state", help="The node's state directory.")
SHOWN_CHARACTERS = 40


@app.callback()
def calls(
    context: typer.Context,
    skill: str = typer.Option("", "--skill", help="Only calls of this skill."),
    last: int = typer.Option(50, "--last", min=1, max=10_000, help="How many."),
    state: Path = State,
    as_json: bool = Json,
) -> None:
    """List the calls that a node recorded, newest first. It may be running or not."""
    if context.invoked_subcommand is not None:
        return
    from host.core.text import safe
    from host.supply.calls import open_existing

    journal = open_existing(state)
    try:
        rows, status = journal.rows(skill, last), journal.status()
    finally:
        journal.close()
    if as_json:
        emit({"calls": rows} | status)
        return
    table(
        ["call", "at", "skill", "version", "hook", "outcome", "bytes"],
        [(row["id"], _at(row["at_ms"]), row["skill"], safe(row["version"], SHOWN_CHARACTERS), row["hook"], safe(row["outcome"], SHOWN_CHARACTERS), row["bytes"]) for row in rows],
    )  # fmt: skip
    say(f"{len(rows)} shown of {status['kept']} that are kept, {status['kept_bytes'] / 2**20:.1f} MiB")


@app.command(epilog="Example: snapcount node calls export 3f2a9c --state node-1 --out calls.cbor")
def export(
    ids: list[str] = typer.Argument(None, help="Ids of calls, or their beginnings.", show_default="all of --skill"),
    skill: str = typer.Option("", "--skill", help="All calls of this skill that are kept."),
    out: Path | None = typer.Option(None, "--out", help="Where to write the file.", show_default="standard output"),
    state: Path = State,
) -> None:
    """Take recorded calls away as a file, for `snapcount skill replay`. It holds requests and replies as they were."""
    import sys

    from host.core import files
    from host.core.errors import UsageError
    from host.plugins import record
    from host.supply.calls import open_existing

    if bool(ids) == bool(skill):
        raise UsageError("name the calls by their ids, or all of a skill with --skill")
    if out is None and sys.stdout.isatty():
        raise UsageError("a file of calls is binary: name it with --out, or redirect standard output")
    journal = open_existing(state)
    try:
        found = journal.get(ids) if ids else journal.all_of(skill)
        data = record.to_file(found)
    finally:
        journal.close()
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        files.write_atomic(out, data, 0o600)
        say(f"{out}: {len(found)} call(s), {len(data)} bytes")


def audit(
    state: Path = State, last: int = typer.Option(50, "--last", min=1, max=1_000, help="How many conflicts."), as_json: bool = Json
) -> None:
    """Show the conflicts that an auditor found between its lineage and other nodes', and what it compared."""
    import msgspec

    from host.supply.calls import open_existing

    journal = open_existing(state)
    try:
        found = journal.conflicts(last)
    finally:
        journal.close()
    running = _running(state)
    if as_json:
        emit({"conflicts": [msgspec.to_builtins(one) | {"words": one.words} for one in found], "auditor": running})
        return
    for one in found:
        say(f"{_at(one.at_ms)}  {one.words}")
    if not found:
        say("no conflicts")
    if running is not None:
        skipped = "".join(f"; {count} skipped: {reason}" for reason, count in running["skipped"].items())
        say(
            f"since it runs: {running['compared']} compared, {running['conflicts']} in conflict, {running['dropped']} dropped, {running['refused']} refused{skipped}"
        )


def _running(state: Path) -> dict[str, Any] | None:
    """What the running node says of its auditing; None where it does not run, or does not audit."""
    from host.console.client import NodeControl
    from host.core.errors import NetworkError

    try:
        recording = NodeControl(state).get("/v1/status").get("recording") or {}
    except NetworkError:
        return None
    found: dict[str, Any] | None = recording.get("auditor")
    return found


def _at(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
