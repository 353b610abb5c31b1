"""Capabilities: named things a skill may touch. Granted = requested ∩ allowed by the node's owner. And features: what this host can do at all."""

from collections.abc import Iterable
from dataclasses import dataclass

from host.core.errors import CapabilityDenied

LOG, CLOCK, RANDOM, STATE, FLAGS = "log", "clock", "random", "state", "flags"
BUILT_IN = frozenset({LOG, CLOCK, RANDOM, STATE, FLAGS})

COMPONENTS = "components"
FEATURES = frozenset({COMPONENTS, "desired_state", "flags", "messages", "probation", "quarantine", "streaming"})
"""What a manifest may ask of its host under `features` (docs/abi.md says what each means). A host announces them; one that lacks a feature refuses the skill."""

# Which capability stands behind which import of `snapcount:host/1`; `call` needs `flags`, or any capability that a driver offers.
IMPORT_NEEDS = {"log": LOG, "now_ms": CLOCK, "random": RANDOM, "state_get": STATE, "state_set": STATE}
IMPORT_CALL = "call"


@dataclass(frozen=True)
class Grant:
    """What one skill may touch on this node. Made by `grant` only."""

    names: frozenset[str]

    @property
    def drivers(self) -> frozenset[str]:
        """The granted capabilities that a driver offers."""
        return self.names - BUILT_IN

    def imports(self) -> frozenset[str]:
        """The host imports that are linked for this grant."""
        names = {name for name, need in IMPORT_NEEDS.items() if need in self.names}
        return frozenset(names | {IMPORT_CALL} if self.drivers or FLAGS in self.names else names)


def grant(skill: str, requested: Iterable[str], allowed: Iterable[str]) -> Grant:
    """Raises CapabilityDenied that names every capability which the owner does not allow: a skill is not run with fewer than it asks for."""
    wanted, permitted = frozenset(requested), frozenset(allowed)
    refused = sorted(wanted - permitted)
    if refused:
        may = ", ".join(sorted(permitted)) or "none"
        raise CapabilityDenied(
            f"{skill}: asks for {', '.join(refused)}, which this node's owner does not allow (allowed: {may}; see [capabilities] in node.toml)"
        )
    return Grant(wanted)
