"""`snapcount rollout`: bring a version of a skill to a fleet in stages, watch it, and stop it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, emit, say, table, working

app = typer.Typer(
    help="Bring a skill to a fleet in stages: canary, soak, waves, and back by itself when it goes wrong.", no_args_is_help=True
)

Registry = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY")
Bundle = typer.Argument(help="A signed bundle.")
Key = typer.Option(Path("operator.key"), "--key", help="Your operator key.", envvar="SNAPCOUNT_OPERATOR_KEY")
Id = typer.Argument(metavar="ID", help="Id of the roll-out; `snapcount rollout list` shows them.")
Reason = typer.Option("", "--reason", help="Why, for the audit log.")
Generations = typer.Option([], "--generation", help="Only nodes of this hardware generation; repeat it.")
Sectors = typer.Option([], "--sector", help="Only nodes of this sector; repeat it.")
Nodes = typer.Option([], "--node", help="Only nodes whose name fits, such as 'hall-3-*'; repeat it.")
Capabilities = typer.Option([], "--capability", help="Only nodes whose owner allows this; repeat it.")
Waves = typer.Option(
    [], "--wave", help="A stage: 2%, 0.02, or a number of nodes; repeat it, widening, the last is 100%. Default: 2%, 10%, 30%, 100%."
)
Soak = typer.Option("", "--soak", help="How long the canary soaks, such as 30m, 12h or 7d.")
WaveSoak = typer.Option("", "--wave-soak", help="How long each later stage soaks.")
MinSample = typer.Option(None, "--min-sample", min=1, help="So many nodes must have decided, where there are so many.")
SuccessMin = typer.Option(None, "--success-min", min=0, max=1, help="At the end of a soak, so large a share must have succeeded.")
ErrorMax = typer.Option(None, "--error-max", min=0, max=1, help="A larger share of failures stops it and rolls it back.")
Emergency = typer.Option(False, "--emergency", help="No soak, no window, canary first; needs --reason.")
Previous = typer.Option(None, "--previous", help="The bundle to go back to, for nodes whose own version the registry does not hold.")
SECTORS_SHOWN = 20
ACTIONS = {
    "pause": (
        "Start nobody more. Nodes that were told go on, and failures still stop it.",
        "toolpath-planner-2-0-0-6553f100 --reason 'audit week'",
    ),
    "resume": ("Go on with one that is paused, or that holds because too few succeeded.", "toolpath-planner-2-0-0-6553f100"),
    "abort": (
        "Undo what was done: every node goes back to what it ran. Also for one that is done.",
        "toolpath-planner-2-0-0-6553f100 --reason 'wrong release'",
    ),
    "retry": ("Start the nodes that failed once more.", "toolpath-planner-2-0-0-6553f100"),
    "approve": ("Consent, as a second operator, to a roll-out in the lane safety.", "interlock-2-0-0-6553f100 --key second-operator.key"),
}
"""What an operator may ask of a roll-out: what it does, and an example."""


@app.command(epilog="Example: snapcount rollout plan toolpath-planner.wasm --generation 3")
def plan(
    bundle: Path = Bundle, registry: str = Registry, generation: list[int] = Generations, sector: list[str] = Sectors, node: list[str] = Nodes,
    capability: list[str] = Capabilities, wave: list[str] = Waves, soak: str = Soak, wave_soak: str = WaveSoak, min_sample: int | None = MinSample,
    success_min: float | None = SuccessMin, error_max: float | None = ErrorMax, emergency: bool = Emergency, previous: Path | None = Previous, as_json: bool = Json,
) -> None:  # fmt: skip
    """Show who can take a bundle, who is excluded and why, and the stages. The bundle is uploaded, and nobody is told."""
    from registry.rollout_client import RolloutHttp
    from sdk import rollout_request

    http = RolloutHttp(registry)
    stages = rollout_request.stages(
        wave, soak, wave_soak, emergency=emergency, min_sample=min_sample, success_min=success_min, error_max=error_max
    )
    kept = _upload(http, bundle)
    selection = selection_of(generation, sector, node, capability)
    report = http.compat({"digest": kept["digest"], "selection": selection, "previous": previous and _release(http, previous)})
    if as_json:
        import msgspec

        emit(report | {"stages": msgspec.to_builtins(stages)})
    else:
        _say_report(report)
        for stage in stages:
            wide = f"{stage.share:.1%}" if stage.share is not None else f"{stage.count} nodes"
            say(f"stage {stage.name}: {wide}, soak {_time(stage.soak_s)}, stops at more than {stage.error_max:.0%} failures")
    if not report["possible"]:
        raise typer.Exit(20)


@app.command(epilog="Example: snapcount rollout start toolpath-planner.wasm --key operator.key --window 'mon-fri 22:00-04:00'")
def start(
    bundle: Path = Bundle, key: Path = Key, registry: str = Registry, generation: list[int] = Generations, sector: list[str] = Sectors, node: list[str] = Nodes,
    capability: list[str] = Capabilities, wave: list[str] = Waves, soak: str = Soak, wave_soak: str = WaveSoak, min_sample: int | None = MinSample,
    success_min: float | None = SuccessMin, error_max: float | None = ErrorMax,
    window: str = typer.Option("", "--window", help="Start nodes only then, in UTC: 'mon-fri 22:00-04:00'."),
    per_minute: int = typer.Option(500, "--per-minute", min=1, help="Nodes started in a minute."),
    in_flight: int = typer.Option(1000, "--in-flight", min=1, help="Nodes that may be in between at once."),
    probation: str = typer.Option("10m", "--probation", help="How long each node watches the version before it keeps it."),
    answer: str = typer.Option("4h", "--answer", help="A reachable node that is silent for longer has failed."),
    lane: str = typer.Option("productivity", "--lane", help="productivity, or safety: then a second operator must approve."),
    previous: Path | None = Previous, emergency: bool = Emergency, reason: str = Reason,
    rollout_id: str = typer.Option("", "--id", help="Id of the roll-out. Default: made from name, version and time."), as_json: bool = Json,
) -> None:  # fmt: skip
    """Upload a bundle and begin to roll it out. It goes on by itself; `status --watch` shows it."""
    from host.core import keys
    from host.core.clock import SystemClock
    from registry import rollout_document
    from registry.rollout_client import RolloutHttp
    from sdk import rollout_request

    operator, http, now_ms = keys.load(key), RolloutHttp(registry), SystemClock().now_ms()
    kept = _upload(http, bundle)
    made = rollout_request.document({
        "id": rollout_id or _id(kept, now_ms),
        "name": kept["name"], "version": kept["version"], "digest": kept["digest"], "size": kept["size"], "lane": lane, "issued_ms": now_ms,
        "previous": previous and _release(http, previous), "selection": selection_of(generation, sector, node, capability),
        "stages": rollout_request.stages(wave, soak, wave_soak, emergency=emergency, min_sample=min_sample, success_min=success_min, error_max=error_max),
        "window": rollout_request.window(window) if window else None, "rate": {"nodes_per_minute": per_minute, "in_flight_max": in_flight},
        "probation_s": rollout_request.seconds(probation), "answer_s": rollout_request.seconds(answer), "emergency": emergency, "reason": reason,
    })  # fmt: skip
    started = http.start(rollout_document.sign(made, operator))
    if as_json:
        emit(started)
    else:
        say(f"{made.id}: {started['status']}; watch it: snapcount rollout status {made.id} --watch")
        _say_counts(started)


@app.command(epilog="Example: snapcount rollout status toolpath-planner-2-0-0-6553f100 --watch")
def status(
    id: str = Id,
    registry: str = Registry,
    watch: bool = typer.Option(False, "--watch", help="Follow it until it ends."),
    as_json: bool = Json,
) -> None:
    """Show how far a roll-out is, by generation and sector."""
    from registry.rollout_client import RolloutHttp
    from sdk.cli import rollout_view

    http = RolloutHttp(registry)
    found = _follow(http, id, as_json) if watch else http.rollout(id)
    if as_json and not watch:
        emit(found)
    elif not as_json and found:
        for shown in rollout_view.lines(found, SECTORS_SHOWN):
            say(shown)


@app.command(name="list", epilog="Example: snapcount rollout list")
def listed(registry: str = Registry, as_json: bool = Json) -> None:
    """List the roll-outs, the newest first."""
    from registry.rollout_client import RolloutHttp

    found = RolloutHttp(registry).rollouts()
    if as_json:
        emit({"rollouts": found})
    else:
        fields = ("id", "name", "version", "status", "stage")
        table(fields, ([row.get(field, "") for field in fields] for row in found))


def _action(action: str) -> Callable[..., None]:
    def act(id: str = Id, key: Path = Key, registry: str = Registry, reason: str = Reason, as_json: bool = Json) -> None:
        _act(action, id, key, registry, reason, as_json)

    return act


for _name, (_about, _more) in ACTIONS.items():
    app.command(_name, help=_about, epilog=f"Example: snapcount rollout {_name} {_more}")(_action(_name))


@app.command(epilog="Example: snapcount rollout simulate --nodes 30000 --generations 6 --offline 0.1 --json")
def simulate(
    nodes: int = typer.Option(30_000, min=1, max=100_000, help="How many nodes, 300 to a sector."),
    generations: int = typer.Option(6, min=1, max=255, help="How many hardware generations."),
    offline: float = typer.Option(0.1, min=0, max=0.9, help="The share of nodes that are away at any time, for days."),
    seed: int = typer.Option(1, min=0, help="The same seed gives the same run."),
    as_json: bool = Json,
) -> None:
    """Roll out a version that fails on one generation, then the fixed one, in virtual time through the real controller."""
    from sdk.rollout_simulation import Simulation

    found = Simulation(nodes, generations, offline, seed, lambda line: print(line, file=sys.stderr, flush=True)).run()
    if as_json:
        emit(found)
    else:
        for name, value in found.items():
            say(f"{name:24} {value}")
    if not found["done"]:
        raise typer.Exit(1)


def push(bundle: Path, key: Path, registry: str, *, at_once: bool, as_json: bool) -> None:
    """`snapcount fleet push --key`: starts a roll-out and follows it. Exits with 20 where it was taken back."""
    from registry.rollout_client import RolloutHttp
    from sdk.cli import rollout_view

    http = RolloutHttp(registry)
    waves, soak, probation = (["100%"], "0s", "0s") if at_once else ([], "", "10m")
    id = _begin(http, bundle, key, waves, soak, probation)
    found = _follow(http, id, as_json)
    if not as_json:
        for shown in rollout_view.lines(found, SECTORS_SHOWN):
            say(shown)
    if found.get("status") != "done":
        raise typer.Exit(20)


def _follow(http: Any, id: str, as_json: bool) -> dict[str, Any]:
    """Shows a roll-out as it goes on, until it ends; its last standing."""
    from sdk.cli import rollout_view

    if as_json or not sys.stdout.isatty():
        return rollout_view.follow_lines(http.watch(id), emit if as_json else lambda shown: say(rollout_view.line(shown)))
    return rollout_view.follow_live(http.watch(id), SECTORS_SHOWN)


def _begin(http: Any, bundle: Path, key: Path, waves: list[str], soak: str, probation: str) -> str:
    from host.core import keys
    from host.core.clock import SystemClock
    from registry import rollout_document
    from sdk import rollout_request

    operator, now_ms = keys.load(key), SystemClock().now_ms()
    kept = _upload(http, bundle)
    made = rollout_request.document({
        "id": _id(kept, now_ms), "name": kept["name"], "version": kept["version"], "digest": kept["digest"], "size": kept["size"], "issued_ms": now_ms,
        "stages": rollout_request.stages(waves, soak, "", emergency=False, min_sample=None, success_min=None, error_max=None),
        "probation_s": rollout_request.seconds(probation),
    })  # fmt: skip
    http.start(rollout_document.sign(made, operator))
    return made.id


def _id(kept: dict[str, Any], now_ms: int) -> str:
    return f"{kept['name'][:40]}-{kept['version'].split('-')[0].replace('.', '-')}-{now_ms // 1000:x}"


def _act(action: str, id: str, key: Path, registry: str, reason: str, as_json: bool) -> None:
    import os

    from host.core import keys
    from host.core.clock import SystemClock
    from registry import rollout_document
    from registry.rollout_client import RolloutHttp
    from sdk import rollout_request

    asked = rollout_request.action(id, action, SystemClock().now_ms(), os.urandom(rollout_document.NONCE_BYTES), reason)
    found = RolloutHttp(registry).act(id, action, rollout_document.sign_action(asked, keys.load(key)))
    if as_json:
        emit(found)
    else:
        say(f"{id}: {found['status']}")
        _say_counts(found)


def _upload(http: Any, bundle: Path) -> dict[str, Any]:
    from sdk.local import read_bundle

    with working(f"uploading {bundle.name} …"):
        kept: dict[str, Any] = http.upload(read_bundle(bundle))
    return kept


def _release(http: Any, bundle: Path) -> dict[str, Any]:
    kept = _upload(http, bundle)
    return {field: kept[field] for field in ("version", "digest", "size")}


def selection_of(generations: list[int], sectors: list[str], nodes: list[str], capabilities: list[str]) -> dict[str, Any]:
    return {"generations": generations, "sectors": sectors, "nodes": nodes, "capabilities": capabilities}


def _say_report(report: dict[str, Any]) -> None:
    from host.core.text import safe

    for line in report["lines"]:
        say(safe(line, 500))


def _say_counts(found: dict[str, Any]) -> None:
    say("  " + ", ".join(f"{count} {standing}" for standing, count in found["counts"].items()))


def _time(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
