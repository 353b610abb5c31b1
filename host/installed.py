"""Finds the host's own files and the digests they were installed with: the RECORD of the installed distribution (PEP 376, PEP 627)."""

import base64
import csv
import marshal
from collections.abc import Mapping
from importlib import metadata
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

import host
from host.core.attestation import Measurement, measure
from host.core.errors import HostAltered

DISTRIBUTION = "snapcount"
MEASURED = (".py", ".so", ".pyi")
PYC_HEADER_BYTES = 16  # PEP 552


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
        _require_honest_bytecode(root, recorded)
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


def _require_honest_bytecode(root: Path, recorded: Mapping[str, str | None]) -> None:
    # Python runs __pycache__/safety.cpython-311.pyc when its header fits safety.py, whatever its code says, and no RECORD has its digest.
    for name in sorted(name for name in recorded if name.endswith(".py")):
        source = root / name
        cached = Path(cache_from_source(str(source)))
        if cached.exists() and source.exists() and not _is_compiled_from(cached.read_bytes(), source):
            raise HostAltered(f"{cached.relative_to(root)}: this bytecode is not that of {name}; remove it, or reinstall snapcount")


def _is_compiled_from(bytecode: bytes, source: Path) -> bool:
    try:
        found = marshal.loads(bytecode[PYC_HEADER_BYTES:])
        return bytecode[: len(MAGIC_NUMBER)] != MAGIC_NUMBER or found == compile(
            source.read_bytes(), str(source), "exec", dont_inherit=True
        )
    except (ValueError, EOFError, TypeError, SyntaxError):
        return False


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
