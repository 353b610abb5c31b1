"""What decides whether a node can run a bundle: its generation, its host, and what its owner allows."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from nacl.signing import VerifyKey

from host.core.bundle import Bundle
from host.core.capabilities import FEATURES, grant
from host.core.errors import Incompatible, UsageError
from host.core.manifest import ABI, Manifest, version_key
from host.plugins.adapter import require_known_hooks


@dataclass(frozen=True)
class NodeFacts:
    """`allowed` are the capabilities that skills may ask for, `trusted` the authors' keys, `host` is the version of the host.

    `require_approval` is asked before a bundle comes in, from a thread, and raises where the operators have not approved it.
    """

    generation: int
    allowed: frozenset[str]
    trusted: tuple[VerifyKey, ...]
    host: str
    require_approval: Callable[[Bundle], object] = lambda bundle: None
    features: frozenset[str] = FEATURES


def require_compatible(manifest: Manifest, facts: NodeFacts) -> None:
    """Raises Incompatible or CapabilityDenied, with what is needed and what is there."""
    what = f"{manifest.name} {manifest.version}"
    if manifest.abi != ABI:
        raise Incompatible(f"{what}: made for ABI {manifest.abi}, this host runs ABI {ABI}")
    if manifest.generations and facts.generation not in manifest.generations:
        runs_on = ", ".join(map(str, manifest.generations))
        raise Incompatible(f"{what}: runs on hardware generations {runs_on}, this node is generation {facts.generation}")
    require_host(manifest, facts.host, facts.features)
    try:
        require_known_hooks(manifest.hooks, what)
    except UsageError as error:
        raise Incompatible(str(error)) from error
    grant(what, manifest.capabilities, facts.allowed)


def require_host(manifest: Manifest, host: str, features: frozenset[str] = FEATURES) -> None:
    """Raises Incompatible for a skill that needs a newer host, or features that this one has not."""
    what = f"{manifest.name} {manifest.version}"
    if manifest.host_min and version_key(host) < version_key(manifest.host_min):
        raise Incompatible(f"{what}: needs host {manifest.host_min} or newer, this is host {host}")
    lacking = ", ".join(sorted(set(manifest.features or ()) - features))
    if lacking:
        raise Incompatible(f"{what}: needs the host features {lacking}; host {host} has {', '.join(sorted(features)) or 'none'}")


def host_version() -> str:
    """The version of the host that is installed, as Semantic Versioning has it; 0.0.0 for a tree that nobody installed."""
    try:
        found = re.match(r"\d+\.\d+\.\d+", metadata.version("snapcount"))
    except metadata.PackageNotFoundError:
        found = None
    return found[0] if found else "0.0.0"
