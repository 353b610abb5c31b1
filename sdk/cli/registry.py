"""`snapcount registry`: the operator's store of bundles."""

from pathlib import Path

import typer

from sdk.cli.output import Json, emit, say

app = typer.Typer(help="Keep bundles and announce them to a fleet.", no_args_is_help=True)


@app.callback()
def registry() -> None:
    """Keep bundles and announce them to a fleet."""


def _revoked(path: Path | None) -> frozenset[bytes]:
    from host.core.errors import UsageError

    if path is None:
        return frozenset()
    try:
        return frozenset(bytes.fromhex(line) for line in path.read_text().split())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: expected one hexadecimal certificate id a line (`snapcount node certify` prints it)") from error


@app.command(epilog="Example: snapcount registry serve --dir bundles --port 8470")
def serve(
    folder: Path = typer.Option(Path("bundles"), "--dir", help="Where bundles are kept."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on. There is no login yet: anything but loopback lets others push."),
    port: int = typer.Option(8470, min=0, max=65535, help="Port; 0 takes a free one."),
    authority: list[Path] = typer.Option(
        [], "--authority", help="Public key (.pub) of an owner; then nodes need a certificate by one of them."
    ),
    revoked: Path | None = typer.Option(None, "--revoked", help="File with the ids of revoked certificates, one a line in hexadecimal."),
    as_json: bool = typer.Option(False, "--json", help="Print the address as JSON once it listens."),
) -> None:
    """Serve bundles over HTTP, and nodes over WebSocket, until told to stop."""
    import asyncio
    import signal

    from host.core import keys
    from host.core.clock import SystemClock
    from host.core.errors import UsageError
    from host.node import log_line
    from registry import server

    made = server.RegistryServer(folder, SystemClock(), log_line, tuple(keys.load_public(path) for path in authority), _revoked(revoked))

    def ready(url: str) -> None:
        if as_json:
            emit({"url": url})
        else:
            say(f"registry at {url}, bundles in {folder}")

    async def until_stopped() -> None:
        task = asyncio.ensure_future(server.serve(made, host, port, ready))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log_line("info", "registry: stopping")

    try:
        asyncio.run(until_stopped())
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error


@app.command(epilog="Example: snapcount registry nodes --registry http://127.0.0.1:8470")
def nodes(
    registry: str = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY"),
    as_json: bool = Json,
) -> None:
    """Show the nodes that a registry knows, and what they run."""
    from host.console import panel
    from registry.client import RegistryHttp

    fleet = RegistryHttp(registry).fleet()
    if as_json:
        emit(fleet)
    else:
        for line in panel.fleet_lines(fleet):
            say(line)
