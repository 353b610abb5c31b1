"""Freezing a part of the fleet: what is under way stops where it is, nothing but control passes, and what was waiting is kept on disk until the thaw."""

from typing import Annotated

import msgspec
from msgspec import Meta

from host.core import cbor
from host.core.errors import MalformedData, StateDamaged
from host.core.limits import DEFAULT
from host.mesh.message import Ms

FREEZE, THAW = "mesh.freeze", "mesh.thaw"
STATE_BYTES_MAX = 64 << 20


class FrozenState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a peer keeps. `members` are children frozen on their own, `isolated` those that an operator took out, with the reason; `waiting` are messages as
    they came, `registry` is a tier's snapshot."""

    frozen: bool
    since_ms: Ms
    by: Annotated[str, Meta(max_length=64)] = ""
    reason: Annotated[str, Meta(max_length=300)] = ""
    members: Annotated[tuple[str, ...], Meta(max_length=DEFAULT.children_max)] = ()
    isolated: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=300)]], Meta(max_length=DEFAULT.children_max)
    ] = {}
    waiting: Annotated[tuple[bytes, ...], Meta(max_length=DEFAULT.inbox_messages_max)] = ()
    registry: bytes = b""


def encode(state: FrozenState) -> bytes:
    return cbor.encode(state)


def decode(data: bytes) -> FrozenState:
    """Raises StateDamaged."""
    try:
        return cbor.decode_struct(data, FrozenState, "frozen state", bytes_max=STATE_BYTES_MAX)
    except MalformedData as error:
        raise StateDamaged(f"{error}; remove the file, and the peer starts thawed") from error
