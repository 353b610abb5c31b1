"""Contract files of the guest libraries that are made, not written: `python -m sdk.bindings` writes them anew, a test compares."""

from pathlib import Path

from sdk.bindings.assemblyscript import assemblyscript
from sdk.bindings.described import shapes
from sdk.bindings.rust import rust

GUEST = Path(__file__).resolve().parents[1] / "guest"


def made() -> dict[Path, str]:
    """Each made file and what is to stand in it."""
    described = shapes()
    return {GUEST / "rust" / "contract.rs": rust(described), GUEST / "assemblyscript" / "contract.ts": assemblyscript(described)}
