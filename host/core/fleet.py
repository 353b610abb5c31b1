"""What nodes and a registry say to each other over the fleet's WebSocket: CBOR maps, and from a node each in a COSE_Sign1 by its identity key."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import MalformedData
from host.core.limits import DEFAULT
from host.core.manifest import SEMVER, HookName, Name
from host.core.text import safe

AAD = b"snapcount fleet 1"
DIGEST = r"^sha256:[0-9a-f]{64}\Z"
NONCE_BYTES = 16
REMOVED = "removed"
"""The code of a report that the node's owner took the skill off or went back from it: it says nothing of how the version does."""

Digest = Annotated[str, Meta(pattern=DIGEST)]
Version = Annotated[str, Meta(pattern=SEMVER)]
State = Literal["fetching", "installing", "probation", "active", "failed", "rolled-back"]


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """The root of the frames; `type` on the wire tells them apart."""


class Challenge(Frame, frozen=True, tag="challenge"):
    """Registry to node, first: a nonce, so that a recorded hello is worth nothing."""

    nonce: Annotated[bytes, Meta(max_length=64)]


class SkillState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    version: Version
    digest: Digest


class Hello(Frame, frozen=True, tag="hello"):
    """Node to registry: who it is, what it runs, and what it can run. `announcements` says whether it takes them, `operated`
    whether it takes desired states; `serial` is that of the one it holds, 0 for none."""

    node: Name
    nonce: Annotated[bytes, Meta(max_length=64)]
    generation: Annotated[int, Meta(ge=1, le=255)]
    certificate: Annotated[bytes, Meta(max_length=DEFAULT.certificate_bytes_max)]
    host: Annotated[str, Meta(max_length=80)]
    skills: Annotated[tuple[SkillState, ...], Meta(max_length=256)]
    sector: Annotated[str, Meta(max_length=64)] = ""
    host_version: Annotated[str, Meta(max_length=64)] = ""
    abi: Annotated[tuple[int, ...], Meta(max_length=8)] = (1,)
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=64)] = ()
    features: Annotated[tuple[HookName, ...], Meta(max_length=64)] = ()
    announcements: bool = True
    operated: bool = True
    serial: Annotated[int, Meta(ge=0)] = 0


class Announcement(Frame, frozen=True, tag="announce"):
    """Registry to node: a bundle that is to be fetched, verified and installed."""

    name: Name
    version: Version
    digest: Digest
    size: Annotated[int, Meta(ge=8)]


class Desired(Frame, frozen=True, tag="desired"):
    """Registry to node: its signed desired state (host/core/desired.py)."""

    document: Annotated[bytes, Meta(max_length=DEFAULT.frame_bytes_max)]


class Policy(Frame, frozen=True, tag="policy"):
    """Registry to node: a signed quarantine policy (host/core/quarantine.py). It goes before everything else."""

    document: Annotated[bytes, Meta(max_length=DEFAULT.policy_bytes_max)]


class Progress(Frame, frozen=True, tag="progress"):
    """Node to registry: how far an announced bundle has come. `code` and `message` say why it failed."""

    node: Name
    name: Name
    version: Version
    digest: Digest
    state: State
    at_ms: int
    code: str = ""
    message: Annotated[str, Meta(max_length=1024)] = ""


FromNode = Hello | Progress
FromRegistry = Challenge | Announcement | Desired | Policy


def seal(frame: FromNode, key: SigningKey) -> bytes:
    """A node's frame, signed."""
    return cose.sign(key, cbor.encode(frame), kid=bytes(key.verify_key), aad=AAD)


def open_sealed(data: bytes) -> tuple[FromNode, VerifyKey]:
    """The frame and the key that signed it. Whether that key is the node's is for the caller to check."""
    message = cose.parse(data, "frame from a node")
    if len(message.kid) != 32:
        raise MalformedData("frame from a node: kid must be the 32 bytes of its public key")
    key = VerifyKey(message.kid)
    frame: FromNode = _typed(cose.verify(message, key, "frame from a node", aad=AAD), FromNode)
    return frame, key


def open_plain(data: bytes) -> FromRegistry:
    """A frame from a registry. It is not signed: what it announces proves itself."""
    frame: FromRegistry = _typed(data, FromRegistry)
    return frame


def _typed(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.convert(cbor.decode(data, "frame"), kind)
    except msgspec.ValidationError as error:
        raise MalformedData(f"frame: {safe(str(error))}") from error
