"""`snapcount registry`: the operator's store of bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from sdk.cli import audit, ceremony, registry_oci, registry_tokens
from sdk.cli.output import Json, tell

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

app = typer.Typer(help="Keep bundles and announce them to a fleet.", no_args_is_help=True)
app.add_typer(registry_tokens.app, name="token")
app.add_typer(audit.app, name="audit")
registry_oci.register(app)
ceremony.add_to_registry(app)


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


def _tls(certificate: Path | None, key: Path | None) -> "ssl.SSLContext | None":
    import ssl

    from host.core.errors import UsageError

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-certificate and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{certificate}, {key}: not a certificate and its key: {error.strerror or error}") from error
    return context


@app.command(epilog="Example: snapcount registry serve --dir bundles --port 8470")
def serve(
    folder: Path = typer.Option(Path("bundles"), "--dir", help="Where bundles are kept."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8470, min=0, max=65535, help="Port; 0 takes a free one."),
    authority: list[Path] = typer.Option(
        [], "--authority", help="Public key (.pub) of an owner; then nodes need a certificate by one of them."
    ),
    operator: list[Path] = typer.Option(
        [],
        "--operator",
        help="Public key (.pub) of who may sign roll-outs and quarantine policies; repeat it. The registry's own key may, too.",
    ),
    revoked: Path | None = typer.Option(None, "--revoked", help="File with the ids of revoked certificates, one a line in hexadecimal."),
    anonymous: Literal["none", "pull", "push"] | None = typer.Option(
        None, help="What is allowed without a token: none, pull or push. By default push on loopback while there is no token, else pull."
    ),
    certificate: Path | None = typer.Option(None, "--tls-certificate", help="Certificate chain (PEM); then the registry speaks TLS only."),
    tls_key: Path | None = typer.Option(None, "--tls-key", help="The certificate's private key (PEM)."),
    as_json: bool = typer.Option(False, "--json", help="Print the address as JSON once it listens."),
) -> None:
    """Serve bundles and the OCI Distribution API over HTTP, and nodes over WebSocket, until told to stop."""
    from host.core import keys
    from host.core.clock import SystemClock
    from host.node import log_line
    from registry import server

    authorities, operators = (tuple(keys.load_public(path) for path in paths) for paths in (authority, operator))
    tls = _tls(certificate, tls_key)
    made = server.RegistryServer(folder, SystemClock(), log_line, authorities, _revoked(revoked), anonymous, operators)

    def ready(url: str) -> None:
        tell(
            {"url": url, "operator": keys.public_text(made.key)},
            as_json,
            [
                f"registry at {url}, bundles in {folder}",
                f"its own key, for the operators of nodes: {folder / server.OPERATOR_KEY} ({keys.public_text(made.key)})",
            ],
        )

    _until_stopped(server.serve(made, host, port, ready, tls), f"{host}:{port}")


def _until_stopped(serving: "Coroutine[object, object, None]", where: str) -> None:
    import asyncio
    import signal

    from host.core.errors import UsageError
    from host.node import log_line

    async def until_stopped() -> None:
        task = asyncio.ensure_future(serving)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log_line("info", "registry: stopping")

    try:
        asyncio.run(until_stopped())
    except OSError as error:
        raise UsageError(f"cannot listen on {where}: {error.strerror}") from error


@app.command(epilog="Example: snapcount registry nodes --registry http://127.0.0.1:8470")
def nodes(
    registry: str = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY"),
    as_json: bool = Json,
) -> None:
    """Show the nodes that a registry knows, and what they run."""
    from host.console import panel
    from registry.client import RegistryHttp

    fleet = RegistryHttp(registry).fleet()
    tell(fleet, as_json, panel.fleet_lines(fleet))
