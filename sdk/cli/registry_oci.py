"""`snapcount registry push | pull | delete | export | import | gc`: bundles as OCI artifacts, in this registry or any other."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, tell, working

if TYPE_CHECKING:
    from host.core.oci import Reference
    from host.core.oci_auth import Credentials
    from registry.store import BundleStore

Registry = typer.Option("http://127.0.0.1:8470", "--registry", help="Registry for a reference without a host.", envvar="SNAPCOUNT_REGISTRY")
Folder = typer.Option(Path("bundles"), "--dir", help="The registry's folder.")
Token = typer.Option("", "--token", help="NAME:SECRET; better in the environment than on a command line.", envvar="SNAPCOUNT_TOKEN")


def register(app: typer.Typer) -> None:
    """Adds the commands to those of `snapcount registry`."""
    app.command(epilog="Example: snapcount registry push greeter.wasm registry.example/skills/greeter:1.0.0")(push)
    app.command(epilog="Example: snapcount registry pull registry.example/skills/greeter:1.0.0 -o greeter.wasm")(pull)
    app.command(epilog="Example: snapcount registry delete 127.0.0.1:8470/skills/greeter:1.0.0")(delete)
    app.command(epilog="Example: snapcount registry export /media/stick")(export)
    app.command("import", epilog="Example: snapcount registry import /media/stick")(load)
    app.command(epilog="Example: snapcount registry gc --grace-hours 24")(gc)


def push(
    bundle: Path = typer.Argument(help="The bundle (.wasm)."),
    reference: str = typer.Argument("", help="HOST:PORT/REPOSITORY:TAG; without it, skills/NAME:VERSION in --registry."),
    registry: str = Registry,
    token: str = Token,
    as_json: bool = Json,
) -> None:
    """Push a bundle to any OCI registry. Nobody is told of it: `snapcount fleet push` does that."""
    from host.core.bundle import UnverifiedBundle, digest_of
    from host.core.errors import UsageError
    from host.core.oci import Local, parse_reference
    from registry.oci_client import OciRepository, registry_reference

    try:
        data = bundle.read_bytes()
    except OSError as error:
        raise UsageError(f"{bundle}: {error.strerror}") from error
    described = UnverifiedBundle.parse(data, str(bundle)).manifest
    target = parse_reference(reference) if reference else registry_reference(registry, Local(f"skills/{described.name}", described.version))
    with working(f"pushing {target}"):
        manifest = OciRepository(target, _credentials(token), "pull,push").push(data)
    tell(
        {"reference": str(target), "manifest": manifest, "digest": digest_of(data), "size": len(data)},
        as_json,
        [f"pushed {target}", f"manifest {manifest}, bundle {digest_of(data)}"],
    )


def pull(
    reference: str = typer.Argument(help="HOST:PORT/REPOSITORY:TAG or …@sha256:DIGEST; without a host, in --registry."),
    output: Path = typer.Option(..., "--output", "-o", help="File to write."),
    registry: str = Registry,
    token: str = Token,
    as_json: bool = Json,
) -> None:
    """Pull a bundle from any OCI registry. Its digest is checked; whose signatures it bears is checked by each node."""
    from host.core.bundle import UnverifiedBundle, digest_of
    from host.core.files import write_atomic
    from registry.oci_client import OciRepository

    target = _reference(registry, reference)
    with working(f"pulling {target}"):
        data = OciRepository(target, _credentials(token)).pull()
    described = UnverifiedBundle.parse(data, str(target)).manifest
    write_atomic(output, data)
    tell(
        {"file": str(output), "name": described.name, "version": described.version, "digest": digest_of(data), "size": len(data)},
        as_json,
        [f"{output}: {described.name} {described.version}, {len(data)} bytes, {digest_of(data)}"],
    )


def delete(
    reference: str = typer.Argument(help="HOST:PORT/REPOSITORY:TAG, or …@sha256:DIGEST for a manifest with all its tags."),
    registry: str = Registry,
    token: str = Token,
    as_json: bool = Json,
) -> None:
    """Delete a tag or a manifest. Nodes that run the skill go on; the bytes go with the next `snapcount registry gc`."""
    from registry.oci_client import OciRepository

    target = _reference(registry, reference)
    OciRepository(target, _credentials(token), "delete").delete()
    tell({"deleted": str(target)}, as_json, [f"deleted {target}"])


def export(target: Path = typer.Argument(help="A new or empty folder."), folder: Path = Folder, as_json: bool = Json) -> None:
    """Write everything that the registry has as an OCI image layout, with its trust metadata, for where no network goes."""
    from registry import layout

    with working(f"writing {target}"):
        manifests, trusted = layout.export(_store(folder).content, folder, target)
    tell(
        {"folder": str(target), "manifests": manifests, "trust_files": trusted},
        as_json,
        [f"{target}: {manifests} manifests, {trusted} trust files"],
    )


def load(source: Path = typer.Argument(help="The folder that `export` wrote."), folder: Path = Folder, as_json: bool = Json) -> None:
    """Take in what `export` wrote. Every digest and size is checked first; if one is wrong, nothing is kept."""
    from registry import layout

    with working(f"reading {source}"):
        manifests, trusted = layout.load(_store(folder, new=True).content, folder, source)
    tell(
        {"folder": str(folder), "manifests": manifests, "trust_files": trusted},
        as_json,
        [f"{folder}: {manifests} manifests and {trusted} trust files taken in"],
    )


def gc(
    folder: Path = Folder,
    grace_hours: float = typer.Option(24.0, min=0.0, help="Leave what is younger than this: it may belong to a push that goes on."),
    as_json: bool = Json,
) -> None:
    """Remove the bytes that no manifest and no announcement refers to. The registry may run meanwhile."""
    files, size = _store(folder).collect(int(grace_hours * 3600))
    tell({"files": files, "bytes": size}, as_json, [f"removed {files} files, {size} bytes"])


def _store(folder: Path, *, new: bool = False) -> "BundleStore":
    from host.core.errors import UsageError
    from registry.store import BundleStore

    if not new and not (folder / "blobs").is_dir():
        raise UsageError(f"{folder}: is no registry's folder; name it with --dir")
    return BundleStore(folder, sweep=False)


def _reference(registry: str, text: str) -> "Reference":
    from host.core import oci
    from registry.oci_client import registry_reference

    first = text.partition("/")[0]
    if "://" not in text and "." not in first and ":" not in first and first != "localhost":
        return registry_reference(registry, oci.parse_local(text))
    return oci.parse_reference(text)


def _credentials(token: str) -> "Credentials | None":
    from host.core.oci_auth import Credentials

    return Credentials.parse(token) if token else None
