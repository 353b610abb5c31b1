"""Quarantine policies on their way through the mesh: ahead of all other traffic, to everybody, and to those who come later in their welcome.

A policy is a document that an operator signed (host/core/quarantine.py); the mesh carries it and believes nothing of it. Each peer hands it to its node.
"""

from collections.abc import Callable

QUARANTINE = "mesh.quarantine"
"""The reserved topic; the payload is the signed document."""
SPREAD_MS = 10_000
"""How long a tier that learned of a policy waits for its children to have taken it. Who is away finds it in its welcome."""

Police = Callable[[bytes], bool]
"""Acts on a signed policy at once; False for one that it had. Raises SnapcountError for one that it does not take."""
Policies = Callable[[], tuple[bytes, ...]]
"""The documents that somebody who was away must be told; together they fit into a welcome."""


def police_nothing(_: bytes) -> bool:
    """For peers that run no skills and hold no policies."""
    return False


def no_policies() -> tuple[bytes, ...]:
    return ()
