"""The skills that ship with the host, one folder each: source, manifest, vectors, and the compiled `.wasm`."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def module_path(name: str) -> Path:
    """Where the compiled module of a shipped skill is."""
    return FOLDER / name / f"{name}.wasm"
