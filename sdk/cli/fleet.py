"""`snapcount fleet`: push skills to every node; and of a mesh, its panel and what an operator asks of it."""

import base64
from pathlib import Path
from typing import Any

import typer

from sdk.cli import flags, quarantine, rollout
from sdk.cli.output import Json, emit, progress, say, tell, working

app = typer.Typer(help="Push skills to a fleet, watch it, and have it move on the snap count.", no_args_is_help=True)

app.command("quarantine", epilog=quarantine.QUARANTINE_EXAMPLE)(quarantine.quarantine)
app.command("lift", epilog=quarantine.LIFT_EXAMPLE)(quarantine.lift)
app.command("flag", epilog=flags.FLAG_EXAMPLE)(flags.flag)
app.command("flags", epilog=flags.FLAGS_EXAMPLE)(flags.flags)

Registry = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY")
State = typer.Option(Path("orchestrator"), "--state", help="The orchestrator's state directory.", envvar="SNAPCOUNT_ORCHESTRATOR")
Topic = typer.Argument(help="What the message is about, such as cell.start.")
Payload = typer.Option("", "--payload", help="The payload, as text.")
JsonPayload = typer.Option("", "--json-payload", help="The payload as JSON; skills read it as CBOR. Write 600.0 where a float must stand.")
Input = typer.Option(None, "--input", help="A file with the payload; - for standard input.")
To = typer.Option([], "--to", help="An agent, cluster or sector that it is for; repeat it. Default: all.")
Verb = typer.Option("act", "--verb", help="observe, orient, decide, act, record or sync.")
Priority = typer.Option(2, "--priority", min=0, max=3, help="0 to 3; what is lower is dropped first.")
ReadyMin = typer.Option(0.95, "--ready-min", help="The share that must be ready, 0 to 1.")
Timeout = typer.Option(10.0, "--timeout", help="How long to wait for answers without an arrival time, in seconds.")
Names = typer.Argument(None, metavar="NAME...", help="Clusters, sectors or agents.")
Agents = typer.Argument(metavar="NAME...", help="Agents.")
Everyone = typer.Option(False, "--all", help="The whole fleet.")


@app.command(epilog="Example: snapcount fleet push toolpath-planner.wasm --key operator.key")
def push(
    bundle: Path = typer.Argument(help="A signed bundle."),
    registry: str = Registry,
    key: Path | None = typer.Option(
        None, "--key", help="Your operator key: then it is a roll-out, in the default stages, which is followed."
    ),
    at_once: bool = typer.Option(False, "--at-once", help="With --key: one stage for everybody, and no soak."),
    wait: float = typer.Option(120.0, help="Without --key: how long to wait for the nodes, in seconds."),
    as_json: bool = Json,
) -> None:
    """Bring a bundle to the fleet and watch it arrive: as a roll-out with --key, else announced to every connected node at once.

    Stop watching with Ctrl-C: a roll-out goes on, and `snapcount rollout status` shows it. For stages of your own there is `snapcount rollout start`.
    """
    if key is not None:
        rollout.push(bundle, key, registry, at_once=at_once, as_json=as_json)
        return
    if at_once:
        from host.core.errors import UsageError

        raise UsageError("--at-once is for a roll-out: sign it with --key operator.key")
    from host.core.text import safe
    from registry.client import OPERATED, RegistryHttp
    from sdk.local import read_bundle

    http = RegistryHttp(registry)
    kept = http.upload(read_bundle(bundle))
    http.announce(kept["digest"])
    states: dict[str, dict[str, Any]] = {}
    with progress(f"{kept['name']} {kept['version']}", len(http.fleet()["nodes"])) as advance:
        for states in http.follow(kept["digest"], wait):
            advance(sum(state["state"] == "active" for state in states.values()))
    counts = {name: sum(state["state"] == name for state in states.values()) for name in ("active", "failed", OPERATED)}
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
        if counts[OPERATED]:
            say(f"  {counts[OPERATED]} node(s) take bundles from their operators only: push with --key operator.key")
        if waiting:
            say(f"  {waiting} node(s) are away or have not answered in {wait:g} s; they are told again when they connect")
        if not states:
            say("  no node is connected; each is told when it connects")
    if failed or counts[OPERATED]:
        raise typer.Exit(20)
    if waiting:
        raise typer.Exit(50)


@app.command(epilog="Example: snapcount fleet withdraw ore-sorter")
def withdraw(name: str = typer.Argument(help="Name of the skill."), registry: str = Registry) -> None:
    """Announce a skill no more. Nodes that run it go on; `snapcount node remove` takes it off one."""
    from registry.client import RegistryHttp

    RegistryHttp(registry).withdraw(name)
    say(f"{name}: no longer announced; nodes that run it go on")


@app.command(epilog="Example: snapcount fleet status --state orchestrator")
def status(state: Path = State, as_json: bool = Json) -> None:
    """Show how the fleet does: agents, sectors, impedance, conflicts, mode and the last cascade."""
    from host.console import mesh
    from host.console.client import NodeControl

    found = NodeControl(state).get("/v1/mesh/status")
    tell(found, as_json, mesh.status_lines(found))


@app.command(
    epilog="""Example: snapcount fleet broadcast cell.start --in 2 --json-payload '{"feed_mm_min": 600.0, "job": "a", "to_mm": [1.0, 2.0, 3.0]}'"""
)
def broadcast(
    topic: str = Topic, state: Path = State, payload: str = Payload, json_payload: str = JsonPayload, source: Path | None = Input, to: list[str] = To,
    strategy: str = typer.Option("parallel", help="parallel, wave (tier by tier) or priority_first."),
    first: list[str] = typer.Option([], "--first", help="Who must be ready before the others are asked, for priority_first; repeat it."),
    in_s: float | None = typer.Option(None, "--in", help="Arrive in so many seconds; 0: at once. Default: as soon as the fleet can be ready."),
    window_ms: float = typer.Option(100.0, help="The arrival window around that time, in ms."),
    weight: float = typer.Option(0.0, help="How heavy the payload is to work on, 0 to 16."),
    verb: str = Verb, priority: int = Priority,
    capability: list[str] = typer.Option([], "--capability", help="Only for agents with this capability; repeat it."),
    expected: str = typer.Option("", help="Only for agents in this state: idle, busy, safe-mode; others are in conflict."),
    confirm: bool | None = typer.Option(None, "--confirm/--no-confirm", help="Hear from each when it acted. Default: where there is an arrival time."),
    ready_min: float = ReadyMin, timeout: float = Timeout, as_json: bool = Json,
) -> None:  # fmt: skip
    """Send a message to the fleet so that everybody is ready at the same moment."""
    confirmed = in_s != 0 if confirm is None else confirm
    request = _request(topic, payload, json_payload, source, to, verb, priority, ready_min, timeout) | {
        "strategy": strategy, "first": first, "in_ms": None if in_s is None else in_s * 1000, "window_ms": window_ms, "weight": weight,
        "capabilities": capability, "expected": expected, "confirm": confirmed,
    }  # fmt: skip
    _operate(state, "broadcast", request, as_json)


@app.command(epilog="Example: snapcount fleet ask cell.inventory --to cluster-1")
def ask(
    topic: str = Topic, state: Path = State, payload: str = Payload, json_payload: str = JsonPayload, source: Path | None = Input, to: list[str] = To,
    pipeline: str = typer.Option("", help="Names, comma separated: each is given what the one before it answered."),
    verb: str = typer.Option("observe", help="observe, orient, decide, act, record or sync."), priority: int = Priority,
    ready_min: float = ReadyMin, timeout: float = Timeout, as_json: bool = Json,
) -> None:  # fmt: skip
    """Ask agents, and print what they answer."""
    names = [name.strip() for name in pipeline.split(",") if name.strip()]
    request = _request(topic, payload, json_payload, source, names or to, verb, priority, ready_min, timeout)
    _operate(state, "pipeline" if names else "ask", request, as_json, replies=True)


@app.command(epilog="Example: snapcount fleet delegate cell.inventory --capability motion --count 2 --ceiling 600")
def delegate(
    topic: str = Topic, state: Path = State, payload: str = Payload, json_payload: str = JsonPayload, source: Path | None = Input,
    capability: str = typer.Option(..., help="What they must be able to do."),
    count: int = typer.Option(1, min=1, help="How many agents."),
    ceiling: float = typer.Option(1000.0, help="The highest impedance that will do, 0 to 1000."),
    verb: str = Verb, priority: int = Priority, ready_min: float = ReadyMin, timeout: float = Timeout, as_json: bool = Json,
) -> None:  # fmt: skip
    """Give a task to the best agents with a capability."""
    request = _request(topic, payload, json_payload, source, [], verb, priority, ready_min, timeout)
    _operate(state, "delegate", {"request": request, "capability": capability, "count": count, "ceiling": ceiling}, as_json, replies=True)


@app.command(epilog="Example: snapcount fleet freeze sector-003 --reason 'coolant leak'")
def freeze(
    names: list[str] = Names, everyone: bool = Everyone, state: Path = State,
    reason: str = typer.Option("", help="Why; those that are frozen keep it."), as_json: bool = Json,
) -> None:  # fmt: skip
    """Stop clusters, sectors or the whole fleet where they are. They stay so, over restarts too, until the thaw."""
    _operate(state, "freeze", {"targets": _targets(names, everyone), "reason": reason}, as_json)


@app.command(epilog="Example: snapcount fleet thaw sector-003")
def thaw(names: list[str] = Names, everyone: bool = Everyone, state: Path = State, as_json: bool = Json) -> None:
    """Let what was frozen go on."""
    _operate(state, "thaw", {"targets": _targets(names, everyone)}, as_json)


@app.command(epilog="Example: snapcount fleet isolate cell-7 --reason 'spindle noise'")
def isolate(
    names: list[str] = Agents, state: Path = State, reason: str = typer.Option("", help="Why; its lead keeps it."), as_json: bool = Json,
) -> None:  # fmt: skip
    """Take agents out: nothing but control is sent to them, over restarts too, until they are readmitted."""
    _operate(state, "isolate", {"targets": names, "reason": reason}, as_json)


@app.command(epilog="Example: snapcount fleet readmit cell-7")
def readmit(names: list[str] = Agents, state: Path = State, as_json: bool = Json) -> None:
    """Let agents take part again that were isolated."""
    _operate(state, "readmit", {"targets": names}, as_json)


@app.command(epilog="Example: snapcount fleet forget cell-7")
def forget(names: list[str] = Agents, state: Path = State, as_json: bool = Json) -> None:
    """Expect agents no more that have gone for good. One that is connected or isolated is not forgotten."""
    _operate(state, "forget", {"targets": names}, as_json)


def _targets(names: list[str], everyone: bool) -> list[str]:
    from host.core.errors import UsageError

    if bool(names) == everyone:
        raise UsageError("name clusters or sectors, or use --all for the whole fleet")
    return ["*"] if everyone else names


def _request(
    topic: str, text: str, json_text: str, source: Path | None, to: list[str], verb: str, priority: int, ready_min: float, timeout_s: float
) -> dict[str, Any]:
    """The part of an orchestrator.Request that all operations have, as JSON has it."""
    payload = base64.b64encode(read_payload(text, json_text, source)).decode()
    return {
        "topic": topic, "payload": payload, "targets": to or ["*"], "verb": verb, "priority": priority, "ready_min": ready_min,
        "timeout_ms": timeout_s * 1000,
    }  # fmt: skip


def read_payload(text: str, json_text: str, source: Path | None) -> bytes:
    """A message's payload from the three options that can give it."""
    import json
    import sys

    from host.core import cbor
    from host.core.errors import UsageError
    from host.core.text import safe

    if sum((bool(text), bool(json_text), source is not None)) > 1:
        raise UsageError("one payload: --payload, --json-payload or --input")
    if source is not None:
        try:
            return sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
        except OSError as error:
            raise UsageError(f"{source}: {error.strerror}") from error
    if not json_text:
        return text.encode()
    try:
        return cbor.encode(json.loads(json_text))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"--json-payload: {safe(str(error))}") from error


def _operate(state: Path, operation: str, body: dict[str, Any], as_json: bool, *, replies: bool = False) -> None:
    """Asks the orchestrator, prints what came of it, and exits with 50 unless it was a success."""
    import json

    from host.console import mesh
    from host.console.client import TIMEOUT_S, NodeControl
    from host.core.errors import NetworkError

    asked = body.get("request", body)
    # The answer comes half a window and a quarter of the time until T after T, or after the timeout, once for each step of a pipeline.
    steps = len(asked["targets"]) if operation == "pipeline" else 1
    wait_s = (1.25 * (asked.get("in_ms") or 0) + asked.get("window_ms", 0) + steps * asked.get("timeout_ms", 0)) / 1000
    with working(operation):
        result = NodeControl(state, TIMEOUT_S + wait_s).post(f"/v1/mesh/{operation}", json.dumps(body).encode())
    tell(result, as_json, mesh.result_lines(result, replies=replies))
    if result["outcome"] != "SUCCESS":
        raise typer.Exit(NetworkError.exit_code)
