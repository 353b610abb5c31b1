"""The frames on one link between a parent and a child: deterministic CBOR, one map each, told apart by `type`.

| from | frame | signed | meaning |
|---|---|---|---|
| parent | Challenge | no | first of all: a nonce, so that a recorded hello is worth nothing |
| child | Hello | yes | who it is, its certificates, its class |
| parent | Welcome | yes | who answers, its certificates, the session |
| child | Heartbeat | yes | that it lives, how it does, and what its subtree needs |
| parent | Beat | yes | the heartbeat's four timestamps, without the last |
| child | Roster | yes | the names in its subtree |
| parent | Introduce | no | a certificate of someone whose message follows; it proves itself |
| parent | Deliver | no | a message, signed by its source, and when to report on it |
| parent | Release | yes | a gated message may go on, or may not |
| child | Ack | yes | one agent's answer to one message |
| child | Report | yes | a subtree's answers to one message |
| child | Submit | no | a message that this child or one below it sends |
| parent | Taken | yes | a submitted message was let in, or why not |
| either | Dismiss | no | why the link is being closed |

A signed frame is a COSE_Sign1 by the identity key of its sender, over the session (as external AAD, RFC 9052 section 4.4), so that it is worth
nothing on another link; `n` counts them, so that none counts twice.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import MalformedData, Replayed
from host.core.limits import DEFAULT
from host.core.manifest import HookName, Name
from host.core.text import safe
from host.mesh.message import Identity, Ms
from host.mesh.profiler import Delay, Vitals
from host.mesh.summary import Summary

AAD = b"snapcount mesh 1"
NONCE_BYTES = 16
SIGNED_MAJOR_TYPE = 6  # a COSE_Sign1 is tagged, a plain frame is a map
REPLAY_WINDOW = 64
CERTIFICATES_MAX = 8
SUMMARIES_MAX = 256
HISTOGRAM_MS = (-5000, -2000, -1000, -500, -200, -100, -50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Edges of the bins of arrival errors: bin i counts from edge i - 1 to edge i. Negative is early."""

Role = Literal["agent", "lead", "coordinator", "orchestrator"]
TIERS: tuple[Role, ...] = ("agent", "lead", "coordinator", "orchestrator")
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Chain = Annotated[
    tuple[Annotated[bytes, Meta(max_length=DEFAULT.certificate_bytes_max)], ...], Meta(min_length=1, max_length=DEFAULT.chain_length_max)
]
Natural = Annotated[int, Meta(ge=0, lt=1 << 53)]
Detail = Annotated[str, Meta(max_length=300)]
Code = Annotated[str, Meta(max_length=64)]
Names = Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=DEFAULT.names_per_frame_max)]
State = Annotated[int, Meta(ge=-1, le=1)]
Policy = Annotated[bytes, Meta(max_length=DEFAULT.policy_bytes_max)]
Histogram = Annotated[tuple[Natural, ...], Meta(max_length=len(HISTOGRAM_MS) + 1)]

READY, TRANSIT, CONFLICT = 1, 0, -1


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """The root of the frames."""


class Challenge(Frame, frozen=True, tag="challenge"):
    nonce: Nonce


class Hello(Frame, frozen=True, tag="hello"):
    """`nonce` is the parent's; `mine` the child's own, which the parent signs."""

    n: Natural
    name: Name
    role: Role
    nonce: Nonce
    mine: Nonce
    chain: Chain
    agent_class: Annotated[int, Meta(ge=0, le=5)]
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=64)]
    sent_ms: Ms


class Welcome(Frame, frozen=True, tag="welcome"):
    """`introductions` are certificates of the tiers above, whose messages will come; `policies` the signed quarantine policies that hold. Timestamps as in Beat."""

    n: Natural
    name: Name
    role: Role
    mine: Nonce
    session: Nonce
    chain: Chain
    introductions: Annotated[tuple[Chain, ...], Meta(max_length=CERTIFICATES_MAX)]
    heartbeat_ms: Annotated[int, Meta(ge=10, le=3_600_000)]
    frozen: bool
    sent_ms: Ms
    received_ms: Ms
    replied_ms: Ms
    policies: Annotated[tuple[Policy, ...], Meta(max_length=2 * DEFAULT.policies_max)] = ()


class Heartbeat(Frame, frozen=True, tag="heartbeat"):
    n: Natural
    sent_ms: Ms
    vitals: Vitals
    summaries: Annotated[tuple[Summary, ...], Meta(max_length=SUMMARIES_MAX)] = ()


class Beat(Frame, frozen=True, tag="beat"):
    """`sent_ms` is the child's own, `received_ms` and `replied_ms` are fleet time as the parent knows it."""

    n: Natural
    sent_ms: Ms
    received_ms: Ms
    replied_ms: Ms


class Roster(Frame, frozen=True, tag="roster"):
    """Names that have come into the subtree, or left it. With `first`, all that were there before have left."""

    n: Natural
    added: Names = ()
    removed: Names = ()
    first: bool = False


class Introduce(Frame, frozen=True, tag="introduce"):
    chain: Chain


class Deliver(Frame, frozen=True, tag="deliver"):
    """`order` counts the messages on this link. With `gated` the child gets ready, says so, and waits for a Release before it forwards anything."""

    order: Natural
    report_by_ms: Ms
    reply_bytes: Natural
    gated: bool
    message: bytes


class Release(Frame, frozen=True, tag="release"):
    n: Natural
    id: Identity
    go: bool


class Ack(Frame, frozen=True, tag="ack"):
    """`received_ms` and `done_ms` in fleet time. With `acted` it is the second answer: done_ms is when the agent acted."""

    n: Natural
    id: Identity
    state: State
    received_ms: Ms
    done_ms: Ms
    queue: Annotated[int, Meta(ge=0, le=65_535)] = 0
    acted: bool = False
    code: Code = ""
    detail: Detail = ""
    payload: Annotated[bytes, Meta(max_length=DEFAULT.reply_payload_bytes_max)] = b""


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One agent's answer, as it stands in a report."""

    name: Name
    state: State
    code: Code = ""
    detail: Detail = ""
    payload: Annotated[bytes, Meta(max_length=DEFAULT.reply_payload_bytes_max)] = b""


class Report(Frame, frozen=True, tag="report"):
    """Counts of agents. `expected` = ready + transit + conflict + skipped. `missing` names who is in transit or skipped, a whole subtree by its own name.
    The leads are those of a Summary, as what was just learned made them; 0 where nothing is known.

    `failed` are among `acted`, and a histogram is empty or has all its bins; it counts no more than are `expected`, or have `acted`.
    """

    n: Natural
    id: Identity
    expected: Natural
    ready: Natural
    transit: Natural
    conflict: Natural
    skipped: Natural
    acted: Natural = 0
    failed: Natural = 0
    missing: Names = ()
    missing_more: Natural = 0
    replies: Annotated[tuple[Reply, ...], Meta(max_length=DEFAULT.cbor_items_max)] = ()
    replies_dropped: Natural = 0
    ready_errors: Histogram = ()
    acted_errors: Histogram = ()
    messages: Natural = 0
    lead_ms: Delay = 0.0
    lead_heavy_ms: Delay = 0.0

    def __post_init__(self) -> None:
        if self.ready + self.transit + self.conflict + self.skipped != self.expected:
            raise ValueError(f"expected the agents of all states to be {self.expected} together")
        if not self.failed <= self.acted <= self.expected:
            raise ValueError("expected as many that acted as agents at most, and as many that failed as acted at most")
        for bins, most in ((self.ready_errors, self.expected), (self.acted_errors, self.acted)):
            if len(bins) not in (0, len(HISTOGRAM_MS) + 1) or sum(bins) > most:
                raise ValueError(f"expected a histogram of {len(HISTOGRAM_MS) + 1} bins and {most} agents at most, or none")


class Submit(Frame, frozen=True, tag="submit"):
    """`chain` is the source's, so that those above can check it."""

    chain: Chain
    message: bytes


class Taken(Frame, frozen=True, tag="taken"):
    """`code` is empty when the message was let in."""

    n: Natural
    id: Identity
    code: Code = ""
    detail: Detail = ""


class Dismiss(Frame, frozen=True, tag="dismiss"):
    code: Code
    detail: Detail


FromChild = Hello | Heartbeat | Roster | Ack | Report | Submit | Dismiss
FromParent = Challenge | Welcome | Beat | Introduce | Deliver | Release | Taken | Dismiss
SIGNED = (Hello, Heartbeat, Roster, Ack, Report, Welcome, Beat, Release, Taken)


def plain(frame: Frame) -> bytes:
    return cbor.encode(frame)


class Sealer:
    """Signs the frames of one end of one session, and counts them."""

    def __init__(self, key: SigningKey, session: bytes) -> None:
        self._key, self._aad = key, AAD + session
        self.n = 0

    def seal(self, kind: type[Frame], **fields: Any) -> bytes:
        self.n += 1
        return cose.sign(self._key, cbor.encode(kind(n=self.n, **fields)), kid=b"", aad=self._aad)


class Opener:
    """Opens the frames of the other end: parses, verifies, decodes, and refuses what came before."""

    __slots__ = ("_aad", "_highest", "_key", "_kinds", "_seen")

    def __init__(self, kinds: Any, key: VerifyKey | None, session: bytes) -> None:
        self._kinds, self._key, self._aad = kinds, key, AAD + session
        self._highest, self._seen = 0, 0

    def is_plain(self, data: bytes) -> bool:
        return not data or data[0] >> 5 != SIGNED_MAJOR_TYPE

    def open(self, data: bytes) -> Any:
        """One frame. Raises MalformedData, TooLarge, SignatureInvalid, Replayed."""
        if self.is_plain(data):
            frame = typed(data, self._kinds)
            if isinstance(frame, SIGNED):
                raise MalformedData(f"frame: expected a signed {type(frame).__name__.lower()}, a plain one came")
            return frame
        if self._key is None:
            raise MalformedData("frame: a signed frame before it is known who speaks")
        frame = typed(cose.verify(cose.parse(data, "frame"), self._key, "frame", aad=self._aad), self._kinds)
        if not isinstance(frame, SIGNED):
            raise MalformedData(f"frame: expected a plain {type(frame).__name__.lower()}, a signed one came")
        self._count(frame.n)
        return frame

    def _count(self, n: int) -> None:
        # A window, not a counter: a link that is not reliable may deliver out of order.
        ahead = n - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, REPLAY_WINDOW) | 1) & ((1 << REPLAY_WINDOW) - 1)
            self._highest = n
            return
        if -ahead >= REPLAY_WINDOW or self._seen >> -ahead & 1:
            raise Replayed(f"frame: number {n} of this session came before")
        self._seen |= 1 << -ahead


def typed(data: bytes, kinds: Any) -> Any:
    """Raises MalformedData, TooLarge."""
    try:
        return msgspec.convert(cbor.decode(data, "frame"), kinds)
    except msgspec.ValidationError as error:
        raise MalformedData(f"frame: {safe(str(error))}") from error
