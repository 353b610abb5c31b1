"""The desired state of one node: what its operators want it to run, signed. A node holds the newest it was given, and converges on it when it can.

Rules of a node that takes one:

- it is signed by one of the node's operators, and names this node;
- its serial is higher than that of the one it holds: an old one that is played again changes nothing;
- a skill that it does not name is left alone; one in `remove` is taken off;
- each bundle still proves itself: by its authors' signatures, and by its lane where the node asks for approval.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import documents
from host.core.fleet import Digest, Version
from host.core.limits import DEFAULT
from host.core.manifest import HookName, Name

AAD = b"snapcount desired state 1"
Lane = Literal["safety", "productivity"]
Size = Annotated[int, Meta(ge=8, le=DEFAULT.bundle_bytes_max)]


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A delta, a blob like any other: for a node that has `base`, the `size` bytes of `digest` make the whole."""

    base: Digest
    digest: Digest
    size: Size


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One skill as it shall be. `rollout` is the id of the roll-out that asks for it, `probation_s` how long it is watched before it is kept for good."""

    name: Name
    version: Version
    digest: Digest
    size: Size
    lane: Lane = "productivity"
    patches: Annotated[tuple[Patch, ...], Meta(max_length=8)] = ()
    probation_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 0
    rollout: Annotated[str, Meta(max_length=64)] = ""


class DesiredState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one node shall run. `flags` are the feature flags that are on."""

    node: Name
    serial: Annotated[int, Meta(ge=1)]
    issued_ms: int
    skills: Annotated[tuple[Wanted, ...], Meta(max_length=DEFAULT.announcements_max)] = ()
    remove: Annotated[tuple[Name, ...], Meta(max_length=DEFAULT.announcements_max)] = ()
    flags: Annotated[tuple[HookName, ...], Meta(max_length=64)] = ()


def sign(state: DesiredState, operator: SigningKey) -> bytes:
    return documents.sign(state, operator, AAD)


def verify(data: bytes, operators: Collection[VerifyKey]) -> DesiredState:
    """Raises SignatureInvalid, MalformedData, TooLarge. Whom it is for, and whether it is newer, is for the node to check."""
    return documents.verify(data, DesiredState, operators, AAD, "desired state")
