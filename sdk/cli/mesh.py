"""`snapcount mesh`: a whole fleet on this machine, to try and to measure."""

from enum import StrEnum
from pathlib import Path

import typer

from sdk.cli.output import Json, emit, say

app = typer.Typer(help="Run a fleet of any size on this machine, and measure it.", no_args_is_help=True)


class Strategy(StrEnum):
    WAVE = "wave"
    PARALLEL = "parallel"


class Profile(StrEnum):
    THROUGHPUT = "throughput"
    CLASSES = "classes"
    HEARTBEATS = "heartbeats"
    FLOOD = "flood"


class _Progress:
    """How far a start has come: a line on stderr at each tenth, as a fleet of thousands takes its time."""

    def __init__(self, agents: int) -> None:
        self._step, self._next, self._what = max(agents // 10, 1), 0, ""

    def __call__(self, connected: int, what: str) -> None:
        import sys

        if what != self._what:
            self._what, self._next = what, 0
        if connected >= self._next:
            print(f"  {connected} {what} connected", file=sys.stderr, flush=True)
            self._next = connected - connected % self._step + self._step


@app.command(epilog="Example: snapcount mesh run --agents 300 --state fleet")
def run(
    agents: int = typer.Option(300, min=1, help="How many agents, 30 to a lead, ten leads to a coordinator."),
    state: Path = typer.Option(Path("fleet"), "--state", help="Folder for the orchestrator's control socket."),
    delays: bool = typer.Option(False, "--delays", help="Give every agent the delays of its class."),
    heartbeat: float = typer.Option(5.0, "--heartbeat", min=0.1, help="Seconds between heartbeats."),
) -> None:
    """Run a local fleet until told to stop; `snapcount fleet … --state FOLDER` then speaks to its orchestrator. Its agents run no skills."""
    import signal
    import sys
    import threading

    from sdk.mesh.fleet import local_mesh

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    state.mkdir(parents=True, exist_ok=True)
    try:
        with local_mesh(agents, _Progress(agents), heartbeat_s=heartbeat, delays=delays, folder=state):
            say(f"{agents} agents are connected; try: snapcount fleet status --state {state}")
            threading.Event().wait()
    except KeyboardInterrupt:
        say("stopped")


@app.command(epilog="Example: snapcount mesh bench --agents 3000 --strategy wave --json")
def bench(
    agents: int = typer.Option(3_000, min=1, help="How many agents, each with a WebSocket of its own."),
    strategy: Strategy = typer.Option(Strategy.PARALLEL, help="How the cascade goes down the tiers."),
    profile: Profile = typer.Option(
        Profile.THROUGHPUT,
        help="throughput: one cascade to all; classes: arrival errors under delays by class; heartbeats: 6,000 a second; flood: ten times the normal rate.",
    ),
    window_ms: float = typer.Option(1_000.0, min=1, help="Arrival window around T."),
    as_json: bool = Json,
) -> None:
    """Start a local fleet, warm it up, and measure. Every message is signed and verified."""
    import sys

    from sdk.mesh import bench as benches

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    progress = _Progress(agents)
    match profile:
        case Profile.CLASSES:
            found = benches.classes(agents, window_ms, tell, progress)
        case Profile.HEARTBEATS:
            found = benches.heartbeats(tell, progress)
        case Profile.FLOOD:
            found = benches.flood(agents, tell, progress, window_ms=window_ms)
        case _:
            found = benches.throughput(agents, strategy.value, tell, progress, window_ms=window_ms)
    if as_json:
        emit(found)
    else:
        for name, value in found.items():
            say(f"{name:20} {value}")
