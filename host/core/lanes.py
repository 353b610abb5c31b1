"""Lanes: the two ways by which operators approve a skill, and the name that an approval has in TUF metadata."""

from host.core.desired import Lane

SAFETY: Lane = "safety"
PRODUCTIVITY: Lane = "productivity"
LANES: tuple[Lane, ...] = (SAFETY, PRODUCTIVITY)


def target_path(lane: Lane, name: str, version: str) -> str:
    """The TUF target path of one version of a skill: `LANE/NAME/VERSION.wasm`."""
    return f"{lane}/{name}/{version}.wasm"
