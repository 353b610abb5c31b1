"""`snapcount node watch`: what a running node does, as it does it."""

from pathlib import Path

import typer

from sdk.cli.output import emit, say, warn

EXAMPLE = "Example: snapcount node watch --state node-1 --skill ore-sorter"


def watch(
    state: Path = typer.Option(Path("node"), "--state", help="The node's state directory."),
    skill: str = typer.Option("", "--skill", help="Only calls of this skill."),
    calls: int = typer.Option(0, "--calls", min=0, help="End after so many calls.", show_default="at Ctrl-C"),
    as_json: bool = typer.Option(False, "--json", help="Print each event as one line of JSON."),
) -> None:
    """Show calls of skills, their logs and what the safety envelope refused them, as they happen. Ctrl-C ends it."""
    from host.console.client import NodeControl
    from sdk.dev import shown

    warn(f"watching {state}; Ctrl-C ends it")
    stream = NodeControl(state).events("/v1/events")
    seen = 0
    try:
        for event in stream:
            told = event.get("event") != "call" or not skill or event["skill"] == skill
            if as_json and told:
                emit(event)
            for line in () if as_json else shown.lines(event, skill):
                say(line)
            seen += told and event.get("event") == "call"
            if calls and seen >= calls:
                return
    except KeyboardInterrupt:
        return
    finally:
        stream.close()
