"""`snapcount machine`: what a person asks of a node's machine, past any job: hold, resume, reset, unlock, home, clear."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, tell

app = typer.Typer(help="Look after a node's machine: hold, resume, reset, unlock, home.", no_args_is_help=True)

State = typer.Option(Path("node"), "--state", help="State directory of the running node.")
Capability = typer.Option("motion", "--capability", help="The capability that the machine's driver offers.")
PLAIN = {
    "hold": "Stop moving, with the position kept. `snapcount machine resume` goes on.",
    "resume": "Go on after a hold, or after the safety door was closed.",
    "reset": "Reset the controller and end its job. In motion that loses the position.",
    "unlock": "Leave an alarm without homing, because you have looked and the position is right.",
    "home": "Move every axis to its switch: after it, the position is known.",
    "clear": "Say that you have seen why the last job ended. Nothing is sent to the machine.",
}
"""What is asked for most, each a command of its own."""
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


def _plain(action: str) -> Callable[..., None]:
    def asked(state: Path = State, capability: str = Capability, as_json: bool = Json) -> None:
        _ask(action, state, capability, as_json)

    return asked


for _action, _about in PLAIN.items():
    app.command(_action, help=_about, epilog=f"Example: snapcount machine {_action} --state node-1")(_plain(_action))


def _ask(action: str, state: Path, capability: str, as_json: bool) -> None:
    from urllib.parse import quote

    from host.console.client import NodeControl

    _show(NodeControl(state).post(f"/v1/machines/{quote(capability, safe='')}/{quote(action, safe='')}"), as_json)


def _show(machine: dict[str, Any], as_json: bool) -> None:
    tell(machine, as_json, _lines(machine))


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
