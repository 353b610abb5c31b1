"""Finds the host's own files and the digests they were installed with: the RECORD of the installed distribution (PEP 376, PEP 627)."""

import base64
import csv
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import host
from host.core.attestation import Measurement, measure
from host.core.errors import HostAltered

DISTRIBUTION = "snapcount"
MEASURED = (".py", ".so", ".pyi")


def measure_host() -> Measurement:
    """Measures the running host. Raises HostAltered that names the file which is missing, altered or added.

    Sealed means that every file was compared with RECORD. A development tree has no such record: its files are hashed, and it is not sealed.
    """
    root = Path(host.__file__).resolve().parent.parent
    recorded = _recorded(root)
    if recorded is None:
        rooms = [path.resolve().relative_to(root) for room in ("host", "cython_core") for path in (root / room).rglob("*.py")]
        recorded = {str(path): None for path in rooms}
    else:
        _require_nothing_added(root, recorded)
    return measure(recorded, lambda name: (root / name).read_bytes())


def _recorded(root: Path) -> dict[str, str | None] | None:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    if Path(str(distribution.locate_file("host"))).resolve() != root / "host":
        return None
    recorded: dict[str, str | None] = {}
    # Not `distribution.files`: since Python 3.12 it leaves out files that are missing.
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        name, digest = [*row, "", ""][:2]
        kind, _, value = digest.partition("=")
        if kind == "sha256" and name.endswith(MEASURED) and not name.startswith(("..", "/")):
            recorded[name] = _hexadecimal(value, name)
    return recorded if any(name.startswith("host/") for name in recorded) else None


def _require_nothing_added(root: Path, recorded: Mapping[str, str | None]) -> None:
    # Python prefers safety.cpython-311-….so to the safety.py beside it, so a file that no RECORD names can stand in for one that it does.
    for package in sorted({name.partition("/")[0] for name in recorded if "/" in name}):
        for path in sorted((root / package).rglob("*")):
            name = str(path.relative_to(root))
            if path.suffix in MEASURED and name not in recorded:
                raise HostAltered(f"{name}: this file was not installed with the host; reinstall snapcount")


def require_sealed(measured: Measurement) -> None:
    """Raises HostAltered for a host that no installation vouches for."""
    if not measured.sealed:
        raise HostAltered(
            "this host runs from a development tree, so its files cannot be compared with an installation; install it, or start with --development"
        )


def _hexadecimal(value: str, name: str) -> str:
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except ValueError as error:
        raise HostAltered(f"{name}: its digest in RECORD is not base64; reinstall snapcount") from error
