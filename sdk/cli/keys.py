"""`snapcount keys`: Ed25519 keys of authors and owners."""

import os
from pathlib import Path

import typer

from sdk.cli.output import Json, tell

app = typer.Typer(help="Make and show Ed25519 keys.", no_args_is_help=True)


@app.command(epilog="Example: snapcount keys new author")
def new(
    name: str = typer.Argument(help="Name of the key; NAME.key and NAME.pub are written."),
    folder: Path = typer.Option(Path(), "--dir", help="Folder to write to."),
    as_json: bool = Json,
) -> None:
    """Make a new key pair. The private half is readable by you only, and is never overwritten."""
    from host.core import keys
    from host.core.errors import UsageError

    if not name or "/" in name or name.startswith("."):
        raise UsageError(f"a key's name is a plain file name, not {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.key"
    public = keys.public_text(keys.create(path, os.urandom(keys.SEED_BYTES)).verify_key)
    tell(
        {"private": str(path), "public": public},
        as_json,
        [f"{path}: the private key; keep it, and keep it secret", f"{path.with_suffix('.pub')}: {public}"],
    )


@app.command(epilog="Example: snapcount keys show author.key")
def show(path: Path = typer.Argument(help="A .key or .pub file."), as_json: bool = Json) -> None:
    """Print the public key that belongs to a file."""
    from host.core import keys

    key = keys.load_public(path) if path.suffix == ".pub" else keys.load(path).verify_key
    tell({"public": keys.public_text(key)}, as_json, [keys.public_text(key)])
