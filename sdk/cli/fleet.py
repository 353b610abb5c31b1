"""`snapcount fleet`: push skills to every node, and watch."""

from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, emit, progress, say

app = typer.Typer(help="Push skills to a fleet and watch it.", no_args_is_help=True)

Registry = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY")


@app.command(epilog="Example: snapcount fleet push toolpath-planner.wasm")
def push(
    bundle: Path = typer.Argument(help="A signed bundle."),
    registry: str = Registry,
    wait: float = typer.Option(120.0, help="How long to wait for the nodes, in seconds."),
    as_json: bool = Json,
) -> None:
    """Upload a bundle, announce it, and wait until every connected node runs it or says why not."""
    from host.core.text import safe
    from registry.client import RegistryHttp
    from sdk.local import read_bundle

    http = RegistryHttp(registry)
    kept = http.upload(read_bundle(bundle))
    http.announce(kept["digest"])
    states: dict[str, dict[str, Any]] = {}
    with progress(f"{kept['name']} {kept['version']}", len(http.fleet()["nodes"])) as advance:
        for states in http.follow(kept["digest"], wait):
            advance(sum(state["state"] == "active" for state in states.values()))
    counts = {name: sum(state["state"] == name for state in states.values()) for name in ("active", "failed")}
    waiting = len(states) - sum(counts.values())
    failed = {name: state for name, state in states.items() if state["state"] == "failed"}
    if as_json:
        emit(
            {
                **{key: kept[key] for key in ("name", "version", "digest")},
                "nodes": len(states),
                **counts,
                "pending": waiting,
                "failures": failed,
            }
        )
    else:
        say(f"{kept['name']} {kept['version']} {kept['digest'][:19]}…: active on {counts['active']} of {len(states)} nodes")
        for name, state in failed.items():
            say(f"  {name} refused it: {safe(state['message'])}")
        if waiting:
            say(f"  {waiting} node(s) are away or have not answered in {wait:g} s; they are told again when they connect")
        if not states:
            say("  no node is connected; each is told when it connects")
    if failed:
        raise typer.Exit(20)
    if waiting:
        raise typer.Exit(50)


@app.command(epilog="Example: snapcount fleet withdraw ore-sorter")
def withdraw(name: str = typer.Argument(help="Name of the skill."), registry: str = Registry) -> None:
    """Announce a skill no more. Nodes that run it go on; `snapcount node remove` takes it off one."""
    from registry.client import RegistryHttp

    RegistryHttp(registry).withdraw(name)
    say(f"{name}: no longer announced; nodes that run it go on")


@app.command(epilog="Example: snapcount fleet status")
def status(registry: str = Registry, as_json: bool = Json) -> None:
    """Show the nodes of a fleet and what they run."""
    from host.console import panel
    from registry.client import RegistryHttp

    fleet = RegistryHttp(registry).fleet()
    if as_json:
        emit(fleet)
    else:
        for line in panel.fleet_lines(fleet):
            say(line)
