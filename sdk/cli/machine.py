"""`snapcount machine`: what a person asks of a node's machine, past any job: hold, resume, reset, unlock, home, clear."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, emit, say

app = typer.Typer(help="Look after a node's machine: hold, resume, reset, unlock, home.", no_args_is_help=True)

State = typer.Option(Path("node"), "--state", help="State directory of the running node.")
Capability = typer.Option("motion", "--capability", help="The capability that the machine's driver offers.")
SHOWN = ("link", "state", "position", "port", "controller", "failure")


@app.command(epilog="Example: snapcount machine status --state node-1")
def status(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Where the machine is, what it does, how far its job came, and what it waits for."""
    from host.console.client import NodeControl
    from host.core.errors import UsageError

    machines = NodeControl(state).get("/v1/machines")
    if capability not in machines:
        raise UsageError(f"no machine offers {capability}; there is {', '.join(sorted(machines)) or 'none'}")
    _show(machines[capability], as_json)


@app.command(epilog="Example: snapcount machine ask hold --state node-1")
def ask(
    action: str = typer.Argument(
        ..., help="hold, resume, slower, full-speed, rapids-25, rapids-50, rapids-100, cancel-jog, reset, unlock, home or clear."
    ),
    state: Path = State,
    capability: str = Capability,
    as_json: bool = Json,
) -> None:
    """Ask the machine for something, now. In motion a reset loses the position; hold first."""
    _ask(action, state, capability, as_json)


@app.command(epilog="Example: snapcount machine hold --state node-1")
def hold(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Stop moving, with the position kept. `snapcount machine resume` goes on."""
    _ask("hold", state, capability, as_json)


@app.command(epilog="Example: snapcount machine resume --state node-1")
def resume(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Go on after a hold, or after the safety door was closed."""
    _ask("resume", state, capability, as_json)


@app.command(epilog="Example: snapcount machine reset --state node-1")
def reset(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Reset the controller and end its job. In motion that loses the position."""
    _ask("reset", state, capability, as_json)


@app.command(epilog="Example: snapcount machine unlock --state node-1")
def unlock(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Leave an alarm without homing, because you have looked and the position is right."""
    _ask("unlock", state, capability, as_json)


@app.command(epilog="Example: snapcount machine home --state node-1")
def home(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Move every axis to its switch: after it, the position is known."""
    _ask("home", state, capability, as_json)


@app.command(epilog="Example: snapcount machine clear --state node-1")
def clear(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
    """Say that you have seen why the last job ended. Nothing is sent to the machine."""
    _ask("clear", state, capability, as_json)


def _ask(action: str, state: Path, capability: str, as_json: bool) -> None:
    from urllib.parse import quote

    from host.console.client import NodeControl

    _show(NodeControl(state).post(f"/v1/machines/{quote(capability, safe='')}/{quote(action, safe='')}"), as_json)


def _show(machine: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(machine)
        return
    for line in _lines(machine):
        say(line)


def _lines(machine: dict[str, Any]) -> Iterator[str]:
    yield f"at         ({', '.join(f'{value:.3f}' for value in machine['position_mm'])}) mm, {machine['moves']} moves asked for"
    for key in SHOWN:
        if machine.get(key):
            yield f"{key:10} {machine[key]}"
    job = machine.get("job")
    if job and job["given"]:
        yield f"job        {job['state']}, {job['acknowledged']} of {job['given']} lines acknowledged"
    for key in ("problems", "notes", "messages"):
        for text in machine.get(key, ()):
            yield f"{key[:-1]:10} {text}"
