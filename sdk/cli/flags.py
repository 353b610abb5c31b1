"""`snapcount fleet flag` and `snapcount fleet flags`: the feature flags of a fleet, which nodes get with their desired state."""

from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import Json, emit, say
from sdk.cli.rollout import Capabilities, Generations, Key, Nodes, Reason, Registry, Sectors, selection_of

FLAG_EXAMPLE = "Example: snapcount fleet flag fast_feed on --key operator.key --generation 3"
FLAGS_EXAMPLE = "Example: snapcount fleet flags"


def flag(
    name: str = typer.Argument(help="Name of the flag, as skills ask for it."),
    state: str = typer.Argument(metavar="on|off", help="on, for the nodes that are chosen and no others; or off, for all."),
    key: Path = Key, registry: str = Registry, generation: list[int] = Generations, sector: list[str] = Sectors, node: list[str] = Nodes,
    capability: list[str] = Capabilities, reason: str = Reason, as_json: bool = Json,
) -> None:  # fmt: skip
    """Turn a feature flag on or off. Skills with the capability `flags` see it as soon as their node is told."""
    import os

    import msgspec

    from host.core import keys
    from host.core.clock import SystemClock
    from host.core.errors import UsageError
    from host.core.text import safe
    from registry import flags as flags_
    from registry.rollout_client import RolloutHttp
    from registry.rollout_document import NONCE_BYTES

    if state not in ("on", "off"):
        raise UsageError(f"expected on or off, found {safe(state, 20)!r}")
    fields = {
        "flag": name, "on": state == "on", "selection": selection_of(generation, sector, node, capability), "at_ms": SystemClock().now_ms(),
        "nonce": os.urandom(NONCE_BYTES), "reason": reason,
    }  # fmt: skip
    try:
        change = msgspec.convert(fields, flags_.FlagChange)
    except msgspec.ValidationError as error:
        raise UsageError(f"flag: {safe(str(error))}") from error
    _say_flags(RolloutHttp(registry).flag(flags_.sign(change, keys.load(key))), as_json)


def flags(registry: str = Registry, as_json: bool = Json) -> None:
    """List the feature flags that are on, and for which nodes."""
    from registry.rollout_client import RolloutHttp

    _say_flags(RolloutHttp(registry).flags(), as_json)


def _say_flags(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    for name, chosen in found["flags"].items():
        parts = (f"{field}: {', '.join(map(str, values))}" for field, values in chosen.items() if values)
        say(f"{name} is on for {'; '.join(parts) or 'every node'}")
    if not found["flags"]:
        say("no feature flag is on")
