"""Mesh messages: what one peer says to others through the tiers, signed once by its source and forwarded byte for byte.

A message names its targets, not its way: each tier finds out which of its children it concerns. Times are fleet time (host/mesh/fleetclock.py), Unix ms.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey

from host.core import cbor, cose
from host.core.clock import Random
from host.core.errors import MalformedData, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import HookName, Name

AAD = b"snapcount message 1"
EVERYONE = "*"
ID_BYTES = 16
SEQUENCES_PER_MS = 4096  # a source that restarts goes on above every sequence that it can have used before

Routing = Literal["direct", "broadcast", "scatter_gather", "pipeline"]
Strategy = Literal["parallel", "wave"]
Verb = Literal["observe", "orient", "decide", "act", "record", "sync"]
COMMANDS = frozenset({"decide", "act", "sync"})
"""Verbs that only a tier may send, not a plain agent."""
RESERVED = "mesh."
"""Topics that start so are for the peers themselves and never reach a skill."""
CONTROL = 3
"""The highest priority: what keeps the fleet in hand. It is never dropped to make room, and passes a freeze."""

Identity = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Ms = Annotated[float, Meta(ge=0, le=1e14)]
Target = Annotated[str, Meta(min_length=1, max_length=64)]
Topic = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\Z", max_length=64)]
T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`at_ms` is the arrival time T, 0 for at once, and `window_ms` the arrival window around it: READY counts until half of it after T. `weight` is the payload's, as in the arrival kernel; `expected` the state a receiver must be in.

    With `confirm`, a receiver that was READY answers once more when it has acted at T.
    """

    id: Identity
    correlation: Identity
    causation: Annotated[bytes, Meta(max_length=ID_BYTES)] = b""
    source: Name
    sequence: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=DEFAULT.targets_max)]
    excluded: Annotated[tuple[Target, ...], Meta(max_length=DEFAULT.targets_max)] = ()
    routing: Routing
    strategy: Strategy = "parallel"
    created_ms: Ms
    at_ms: Ms = 0.0
    ttl_ms: Annotated[int, Meta(ge=1, le=DEFAULT.ttl_ms_max)]
    window_ms: Annotated[float, Meta(ge=0, le=1e7)] = 100.0
    priority: Annotated[int, Meta(ge=0, le=CONTROL)] = 1
    weight: Annotated[float, Meta(ge=0, le=16)] = 0.0
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=16)] = ()
    verb: Verb
    topic: Topic
    payload: Annotated[bytes, Meta(max_length=DEFAULT.payload_bytes_max)] = b""
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expected: Annotated[str, Meta(max_length=64)] = ""
    confirm: bool = False

    def __post_init__(self) -> None:
        if self.at_ms and not self.created_ms <= self.at_ms <= self.created_ms + self.ttl_ms:
            raise ValueError("expected `at_ms` between `created_ms` and the end of the message's life")

    @property
    def expires_ms(self) -> float:
        return self.created_ms + self.ttl_ms


@dataclass(frozen=True, slots=True)
class Verified(Generic[T]):
    """A value whose signature was checked. `raw` is what was signed, ready to be forwarded; `key` the 32 bytes of who signed it."""

    value: T
    raw: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class UnverifiedMessage:
    """A message as it came: its signature is well-formed, and nothing is known about it."""

    envelope: cose.Sign1
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "UnverifiedMessage":
        """Raises MalformedData, TooLarge."""
        envelope = cose.parse(raw, "message")
        if len(envelope.kid) != 32:
            raise MalformedData("message: kid must be the 32 bytes of its source's public key")
        return cls(envelope, raw)

    def verify(self) -> Verified[Message]:
        """Checks the signature by the key that it names, and the payload's digest. Whose key that is, is for the caller to check.

        Raises SignatureInvalid, MalformedData.
        """
        signed = cose.verify(self.envelope, cose.public_key(self.envelope.kid, "message"), "message", aad=AAD)
        message = cbor.decode_struct(signed, Message, "message")
        if hashlib.sha256(message.payload).digest() != message.digest:
            raise MalformedData("message: its digest is not that of its payload")
        return Verified(message, self.raw, self.envelope.kid)


class Author:
    """Makes and signs the messages of one peer."""

    def __init__(self, name: str, key: SigningKey, random: Random) -> None:
        self.name, self._key, self._random = name, key, random
        self._sequence = 0

    def identity(self) -> bytes:
        return self._random.token(ID_BYTES)

    def message(self, now_ms: float, *, payload: bytes = b"", **fields: object) -> Verified[Message]:
        """A new message, created now and signed. `fields` are those of Message that are not made here; Raises UsageError that names a bad one."""
        if len(payload) > DEFAULT.payload_bytes_max:
            raise UsageError(f"a payload has at most {DEFAULT.payload_bytes_max} bytes, this one has {len(payload)}")
        # One after the other, so that a receiver's window of them spans as many messages: those with a later T may leave after younger ones.
        self._sequence = self._sequence + 1 if self._sequence else int(now_ms * SEQUENCES_PER_MS)
        made = {
            "id": self.identity(), "correlation": self.identity(), "source": self.name, "sequence": self._sequence, "created_ms": now_ms,
            "payload": payload, "digest": hashlib.sha256(payload).digest(),
        } | fields  # fmt: skip
        try:
            message = msgspec.convert(made, Message)
        except msgspec.ValidationError as error:
            raise UsageError(f"message: {error}") from error
        public = bytes(self._key.verify_key)
        return Verified(message, cose.sign(self._key, cbor.encode(message), kid=public, aad=AAD), public)
