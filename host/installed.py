"""Finds the host's own files and the digests they were installed with: the RECORD of the installed distribution (PEP 376, PEP 627)."""

import base64
from importlib import metadata
from pathlib import Path

import host
from host.core.attestation import Measurement, measure
from host.core.errors import HostAltered

DISTRIBUTION = "snapcount"
MEASURED = (".py", ".so", ".pyi")


def measure_host() -> Measurement:
    """Measures the running host. Raises HostAltered that names the file which is missing or altered.

    Sealed means that every file was compared with RECORD. A development tree has no such record: its files are hashed, and it is not sealed.
    """
    root = Path(host.__file__).resolve().parent.parent
    recorded = _recorded(root)
    if recorded is None:
        rooms = [path.resolve().relative_to(root) for room in ("host", "cython_core") for path in (root / room).rglob("*.py")]
        recorded = {str(path): None for path in rooms}
    return measure(recorded, lambda name: (root / name).read_bytes())


def _recorded(root: Path) -> dict[str, str | None] | None:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    if Path(str(distribution.locate_file("host"))).resolve() != root / "host":
        return None
    recorded: dict[str, str | None] = {}
    for file in distribution.files or []:
        if file.hash is not None and file.suffix in MEASURED and not file.parts[0].startswith(".."):
            recorded[str(file)] = _hexadecimal(file.hash.value)
    return recorded if any(name.startswith("host/") for name in recorded) else None


def require_sealed(measured: Measurement) -> None:
    """Raises HostAltered for a host that no installation vouches for."""
    if not measured.sealed:
        raise HostAltered(
            "this host runs from a development tree, so its files cannot be compared with an installation; install it, or start with --development"
        )


def _hexadecimal(value: str) -> str:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
