"""`snapcount trust`: a TUF client for any TUF repository (specification 1.0.31), in three steps.

Every failure ends with exit code 1, as the conformance suite of the TUF project asks of a client.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sdk.cli.output import Json, emit, say

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from host.supply.trust_fetch import HttpFetcher

EXIT_FAILED = 1
HISTORY = "root_history"

app = typer.Typer(help="Use any TUF repository: take a root, refresh, download.", no_args_is_help=True)

MetadataDir = typer.Option(None, "--metadata-dir", help="Where trusted metadata is kept.")
MetadataUrl = typer.Option(None, "--metadata-url", help="Address of the repository's metadata.")
TargetName = typer.Option(None, "--target-name", help="Path of the target in the repository.")
TargetBaseUrl = typer.Option(None, "--target-base-url", help="Address of the repository's targets.")
TargetDir = typer.Option(None, "--target-dir", help="Where downloaded targets go.")


@app.callback()
def trust(
    context: typer.Context,
    metadata_dir: Path | None = MetadataDir,
    metadata_url: str | None = MetadataUrl,
    target_name: str | None = TargetName,
    target_base_url: str | None = TargetBaseUrl,
    target_dir: Path | None = TargetDir,
) -> None:
    """Use any TUF repository: take a root, refresh, download. Options may stand before or after the step."""
    context.obj = {
        "--metadata-dir": metadata_dir, "--metadata-url": metadata_url, "--target-name": target_name,
        "--target-base-url": target_base_url, "--target-dir": target_dir,
    }  # fmt: skip


@app.command(epilog="Example: snapcount trust init root.json --metadata-dir trusted")
def init(
    context: typer.Context,
    root: Path = typer.Argument(help="A root.json that came by a way you trust."),
    metadata_dir: Path | None = MetadataDir,
    as_json: bool = Json,
) -> None:
    """Take a root, from which everything else is checked. It is never replaced by this step."""
    with _failures():
        from host.core import files
        from host.core.errors import UsageError
        from host.supply.trust import check_root

        directory = _option(context, "--metadata-dir", metadata_dir)
        data = root.read_bytes()
        check_root(data, str(root))
        if (directory / "root.json").exists() and _trusted_root(directory) != data:
            raise UsageError(f"{directory}: another root is trusted there already; remove the directory to begin anew")
        files.write_atomic(directory / "root.json", data)
        _report(as_json, {"metadata_dir": str(directory)}, f"{directory}: trusts {root} from now on")


@app.command(epilog="Example: snapcount trust refresh --metadata-dir trusted --metadata-url http://127.0.0.1:8470/trust/metadata")
def refresh(
    context: typer.Context, metadata_dir: Path | None = MetadataDir, metadata_url: str | None = MetadataUrl, as_json: bool = Json
) -> None:
    """Bring the metadata up to date."""
    with _failures():
        directory = _option(context, "--metadata-dir", metadata_dir)
        with _updater(directory, _option(context, "--metadata-url", metadata_url)) as (updater, _):
            updater.refresh()
        _report(as_json, {"metadata_dir": str(directory)}, f"{directory}: is up to date")


@app.command(
    epilog="Example: snapcount trust download --metadata-dir trusted --metadata-url URL --target-name a.bin --target-base-url URL --target-dir ."
)
def download(
    context: typer.Context,
    metadata_dir: Path | None = MetadataDir,
    metadata_url: str | None = MetadataUrl,
    target_name: str | None = TargetName,
    target_base_url: str | None = TargetBaseUrl,
    target_dir: Path | None = TargetDir,
    as_json: bool = Json,
) -> None:
    """Bring the metadata up to date, and download a target that it names. A target that is here already is not fetched again."""
    with _failures():
        folder = _option(context, "--target-dir", target_dir)
        name = _option(context, "--target-name", target_name)
        base = _option(context, "--target-base-url", target_base_url)
        metadata = _option(context, "--metadata-dir", metadata_dir)
        with _updater(metadata, _option(context, "--metadata-url", metadata_url)) as (updater, fetcher):
            path = _download(updater, fetcher, name, base, folder)
        _report(as_json, {"path": str(path)}, str(path))


def add_to_node(node: typer.Typer) -> None:
    """Registers `snapcount node trust-root`."""
    node.command("trust-root", epilog="Example: snapcount node trust-root 1.root.json --state node-1")(trust_root)


def trust_root(
    root: Path = typer.Argument(help="The operators' root (1.root.json), which came by a way you trust."),
    state: Path = typer.Option(Path("node"), "--state", help="The node's state directory."),
    as_json: bool = Json,
) -> None:
    """Give a node the root from which it checks the operators' approvals. Once only: newer roots come by themselves."""
    from host import config
    from host.core.clock import SystemClock
    from host.supply.trust import TrustClient

    trusted = config.load(state).trust
    TrustClient(state / "trust", trusted.metadata, SystemClock()).init(root.read_bytes())
    used = "" if trusted.metadata else "; set trust.metadata in node.toml, approvals are not asked for until then"
    _report(as_json, {"state": str(state)}, f"{state}: takes approvals by {root}{used}")


def _download(updater: "Updater", fetcher: "HttpFetcher", name: str, base: str, folder: Path) -> Path:
    import os
    import secrets
    from urllib.parse import quote

    from host.core.errors import NotApproved, UsageError
    from host.core.files import TEMPORARY
    from host.core.text import safe

    path = folder / quote(name, safe="")
    if path.name in ("", ".", "..") or path.parent != folder:
        raise UsageError(f"{safe(name)!r}: cannot be the name of a target")
    target = updater.get_targetinfo(name)
    if target is None:
        raise NotApproved(f"{safe(name)}: the repository names no such target")
    if updater.find_cached_target(target, str(path)) is None:
        fetcher.allow(target.length)
        temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            updater.download_target(target, str(temporary), base)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextmanager
def _updater(directory: Path, url: str) -> "Iterator[tuple[Updater, HttpFetcher]]":
    from tuf.ngclient import Updater, UpdaterConfig

    from host.core.limits import DEFAULT
    from host.supply.trust_errors import translated
    from host.supply.trust_fetch import HttpFetcher

    root = _trusted_root(directory)
    with HttpFetcher(DEFAULT.trust_total_bytes_max) as fetcher, translated("trust metadata"):
        yield Updater(str(directory), url, fetcher=fetcher, config=UpdaterConfig(), bootstrap=root), fetcher


def _trusted_root(directory: Path) -> bytes:
    """The root that is trusted now. tuf replaces its link in two steps; where a kill came in between, the newest kept root is it."""
    from host.core.errors import UsageError

    try:
        return (directory / "root.json").read_bytes()
    except OSError as error:
        kept = [path for path in (directory / HISTORY).glob("*.root.json") if path.name.partition(".")[0].isdigit()]
        if not kept:
            raise UsageError(f"{directory}: no root is trusted there; `snapcount trust init ROOT` takes one") from error
        return max(kept, key=lambda path: int(path.name.partition(".")[0])).read_bytes()


def _option(context: typer.Context, name: str, value: Any) -> Any:
    """The option from behind the step, or from before it."""
    from host.core.errors import UsageError

    found = context.obj[name] if value is None else value
    if found is None:
        raise UsageError(f"{name} is missing")
    return found


@contextmanager
def _failures() -> Iterator[None]:
    import sys

    from host.core.errors import SnapcountError

    try:
        yield
    except SnapcountError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from error
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from error


def _report(as_json: bool, found: dict[str, str], line: str) -> None:
    if as_json:
        emit(found)
    else:
        say(line)
