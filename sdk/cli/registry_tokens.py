"""`snapcount registry token`: who may pull, push and delete."""

import time
from pathlib import Path

import typer

from sdk.cli.output import Json, emit, table, tell

EXAMPLE = "Example: snapcount registry token new ci --scope push"
app = typer.Typer(help="Make, show and revoke the tokens of a registry.", epilog=EXAMPLE, no_args_is_help=True)
Folder = typer.Option(Path("bundles"), "--dir", help="The registry's folder.")
DAY_S = 86_400


@app.command(epilog="Example: snapcount registry token new ci --scope pull --scope push --repository 'skills/*' --days 90")
def new(
    name: str = typer.Argument(help="Name of the token; clients log in with it."),
    scope: list[str] = typer.Option(["pull"], "--scope", help="pull, push or delete; may be given several times."),
    repository: str = typer.Option("*", help="Pattern of repositories, * stands for anything."),
    days: float = typer.Option(365.0, min=0.0, help="How long it is valid; 0 for ever."),
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Make a token. Its secret is shown once and kept nowhere. A running registry knows it at once."""
    from registry.tokens import Tokens

    expires = int(time.time() + days * DAY_S) if days else 0
    secret = Tokens(folder).new(name, scope, repository, expires)
    tell(
        {"name": name, "secret": secret, "token": f"{name}:{secret}", "expires_s": expires},
        as_json,
        [
            f"{name}:{secret}",
            f"keep it; it is not shown again. Commands take it from SNAPCOUNT_TOKEN, OCI clients as user {name} with the rest as password",
        ],
    )


@app.command("list", epilog="Example: snapcount registry token list")
def show(folder: Path = Folder, as_json: bool = Json) -> None:
    """Show the tokens, without their secrets."""
    from registry.tokens import Tokens

    tokens = Tokens(folder).all()
    if as_json:
        emit({"tokens": [{"name": t.name, "scopes": t.scopes, "repository": t.repository, "expires_s": t.expires_s} for t in tokens]})
        return
    rows = [(t.name, " ".join(t.scopes), t.repository, _until(t.expires_s)) for t in tokens]
    table(("name", "scopes", "repositories", "until"), rows)


@app.command(epilog="Example: snapcount registry token revoke ci")
def revoke(name: str = typer.Argument(help="Name of the token."), folder: Path = Folder, as_json: bool = Json) -> None:
    """End a token. A running registry refuses it at once."""
    from registry.tokens import Tokens

    Tokens(folder).revoke(name)
    tell({"revoked": name}, as_json, [f"revoked {name}"])


def _until(expires_s: int) -> str:
    if not expires_s:
        return "for ever"
    return time.strftime("%Y-%m-%d", time.gmtime(expires_s)) + (" (expired)" if expires_s < time.time() else "")
