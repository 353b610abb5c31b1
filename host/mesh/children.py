"""The parent's side of its links: challenges whoever dials, keeps one session for each child, and bounds what a child may send."""

from collections.abc import Callable
from typing import Any, Protocol

from nacl.signing import VerifyKey

from host.core.clock import Random
from host.core.errors import Busy, Flooded, MalformedData, SnapcountError, TooLarge, UnknownSender
from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.admission import Complaints
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import (
    NONCE_BYTES,
    Ack,
    Beat,
    Challenge,
    Deliver,
    Dismiss,
    Frame,
    FromChild,
    Heartbeat,
    Hello,
    Introduce,
    Opener,
    Report,
    Roster,
    Sealer,
    Submit,
    Taken,
    Welcome,
    plain,
)  # fmt: skip
from host.mesh.handshake import Identity, open_hello
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.link import Link, Time, Timer
from host.mesh.message import CONTROL, Message, Verified
from host.mesh.policing import Policies, no_policies
from host.mesh.summary import Summary
from host.mesh.trust import Trust

MINUTE_MS = 60_000.0
TIER_HEARTBEAT_MS = 15_000
"""At least so often a tier tells how its subtree does, however seldom agents are heard: there are few tiers, and much depends on what they say."""


class Child:
    """One child that has proved who it is."""

    __slots__ = (
        "capabilities", "dropped", "introduced", "key", "link", "name", "opener", "order", "role", "row", "sealer", "strikes", "summaries",
        "tokens", "tokens_ms",
    )  # fmt: skip

    def __init__(self, link: Link, hello: Hello, key: bytes, row: int, session: bytes, identity: Identity, now_ms: float) -> None:
        self.link, self.name, self.role, self.key, self.row = link, hello.name, hello.role, key, row
        self.capabilities = frozenset(hello.capabilities)
        self.opener = Opener(FromChild, VerifyKey(key), session)
        self.sealer = Sealer(identity.key, session)
        self.order = 0
        self.introduced: set[bytes] | None = None
        self.summaries: tuple[Summary, ...] = ()
        self.strikes = 0
        self.tokens, self.tokens_ms, self.dropped = float(DEFAULT.frames_per_s_max), now_ms, 0

    def send(self, kind: type[Frame], priority: int = CONTROL, **fields: Any) -> None:
        self.link.send(self.sealer.seal(kind, **fields), priority)

    def deliver(
        self, message: Verified[Message], chain: tuple[bytes, ...] | None, order: int, report_by_ms: float, reply_bytes: int, *, gated: bool
    ) -> None:
        """Sends a message, and before the first of a source the certificate that vouches for it."""
        priority = message.value.priority
        if chain is not None and (self.introduced is None or message.key not in self.introduced):
            self.introduced = (self.introduced or set()) | {message.key}
            self.link.send(plain(Introduce(chain=chain)), priority)
        self.link.send(
            plain(Deliver(order=order, report_by_ms=report_by_ms, reply_bytes=reply_bytes, gated=gated, message=message.raw)), priority
        )


class Family(Protocol):
    """What a peer does with what its children say. `received_ms` is fleet time."""

    def child_joined(self, child: Child) -> None: ...

    def child_left(self, child: Child) -> None: ...

    def heartbeat(self, child: Child, frame: Heartbeat) -> None: ...

    def roster(self, child: Child, frame: Roster) -> None: ...

    def acknowledged(self, child: Child, frame: Ack) -> None: ...

    def reported(self, child: Child, frame: Report) -> None: ...

    def submitted(self, child: Child, frame: Submit) -> None: ...


class Children:
    """A Receiver for a listener. `by_row` is who is connected now, by the row in the registry."""

    def __init__(
        self, identity: Identity, registry: ImpedanceRegistry, time: Time, clock: FleetClock, trust: Trust, family: Family,
        complaints: Complaints, tokens: Random, log: Callable[[str, str], None], *, heartbeat_ms: int, introductions: Callable[[], tuple[tuple[bytes, ...], ...]],
        frozen: Callable[[str], bool], policies: Policies = no_policies,
    ) -> None:  # fmt: skip
        self.identity, self.registry, self.heartbeat_ms = identity, registry, heartbeat_ms
        self.by_row: dict[int, Child] = {}
        self.by_name: dict[str, Child] = {}
        self.heartbeats = 0
        """How many were verified."""
        self._time, self._clock, self._trust, self._family = time, clock, trust, family
        self._complaints, self._tokens, self._log, self._introductions = complaints, tokens, log, introductions
        self._frozen, self._policies = frozen, policies
        self._children: dict[Link, Child] = {}
        self._strangers: dict[Link, tuple[bytes, Timer]] = {}
        self._connects: dict[str, list[float]] = {}

    def admits(self, peer: str) -> bool:
        """Whether another connection may try at all: for a listener, before it answers."""
        if len(self._strangers) < DEFAULT.links_pending_max and len(self._children) < DEFAULT.children_max:
            return True
        self._complaints.note(
            Flooded(f"{len(self._strangers)} connections have not said who they are, {len(self._children)} children are here"),
            f"{self.identity.name}: connection from {safe(peer, 80)}", self._time.now_ms(),
        )  # fmt: skip
        return False

    def close(self, reason: str) -> None:
        for link in (*self._children, *self._strangers):
            link.close(reason)

    # The transport's side.

    def opened(self, link: Link) -> None:
        if not self.admits(link.peer):
            link.close(Flooded.code)
            return
        nonce = self._tokens.token(NONCE_BYTES)
        late = self._time.call_at(self._time.now_ms() + DEFAULT.handshake_ms_max, link.close, "said no hello in time")
        self._strangers[link] = (nonce, late)
        link.send(plain(Challenge(nonce=nonce)), CONTROL)

    def received(self, link: Link, frame: bytes) -> None:
        child = self._children.get(link)
        try:
            if child is None:
                stranger = self._strangers.pop(link, None)
                if stranger is not None:
                    stranger[1].cancel()
                    self._greet(link, frame, stranger[0])
            elif self._within_rate(child):
                self._take(child, child.opener.open(frame))
        except SnapcountError as error:
            self._refuse(link, child, error)

    def closed(self, link: Link | None, reason: str) -> None:
        if link is None:
            return
        for kind in (TooLarge, MalformedData):
            if reason.startswith(f"{kind.code}: "):  # the transport refused it; what was refused here ends with the code alone
                self._complaints.note(kind(safe(reason)), self._who(link, self._children.get(link)), self._time.now_ms())
        stranger = self._strangers.pop(link, None)
        if stranger is not None:
            stranger[1].cancel()
        child = self._children.pop(link, None)
        if child is not None and self.by_row.get(child.row) is child:
            del self.by_row[child.row]
            del self.by_name[child.name]
            self._family.child_left(child)

    # A new child.

    def _greet(self, link: Link, data: bytes, nonce: bytes) -> None:
        received_ms = self._clock.now_ms()
        hello, claims = open_hello(data, nonce, self._trust, self.identity.role)
        self._check_connects(hello.name)
        row = self.registry.join(hello.name, hello.agent_class, claims.generation, hello.capabilities, received_ms)
        session = self._tokens.token(NONCE_BYTES)
        child = Child(link, hello, claims.key, row, session, self.identity, self._time.now_ms())
        before = self.by_name.get(hello.name)
        if before is not None:
            self._children.pop(before.link, None)
            before.link.close("the same node has dialled anew")
        self._children[link] = self.by_row[row] = self.by_name[child.name] = child
        self._trust.introduce(hello.chain)
        heartbeat_ms = self.heartbeat_ms if hello.role == "agent" else min(self.heartbeat_ms, TIER_HEARTBEAT_MS)
        welcome = Sealer(self.identity.key, hello.mine).seal(
            Welcome, name=self.identity.name, role=self.identity.role, mine=hello.mine, session=session, chain=self.identity.chain,
            introductions=self._introductions(), heartbeat_ms=heartbeat_ms, frozen=self._frozen(hello.name),
            policies=self._policies(), sent_ms=hello.sent_ms, received_ms=received_ms, replied_ms=self._clock.now_ms(),
        )  # fmt: skip
        link.send(welcome, CONTROL)
        self._family.child_joined(child)

    def _check_connects(self, name: str) -> None:
        now_ms = self._time.now_ms()
        recent = [at_ms for at_ms in self._connects.get(name, ()) if now_ms - at_ms < MINUTE_MS]
        if len(recent) >= DEFAULT.connects_per_minute_max:
            self._connects[name] = recent
            raise Flooded(f"{name}: connected {len(recent)} times in a minute, {DEFAULT.connects_per_minute_max} are allowed")
        recent.append(now_ms)
        if len(self._connects) > 2 * DEFAULT.children_max:
            self._connects = {known: times for known, times in self._connects.items() if now_ms - times[-1] < MINUTE_MS}
        self._connects[name] = recent

    # What children say.

    def _within_rate(self, child: Child) -> bool:
        rate, now_ms = DEFAULT.frames_per_s_max, self._time.now_ms()
        child.tokens = min(child.tokens + (now_ms - child.tokens_ms) * rate / 1000.0, rate)
        child.tokens_ms = now_ms
        if child.tokens >= 1.0:
            child.tokens -= 1.0
            return True
        child.dropped += 1
        if child.dropped > DEFAULT.strikes_max * rate:
            raise Flooded(f"{child.name}: sends more than {rate} frames a second, and has not stopped")
        self._complaints.note(Flooded(f"{child.name}: sends more than {rate} frames a second"), self.identity.name, now_ms)
        return False

    def _take(self, child: Child, frame: Any) -> None:
        match frame:
            case Ack():
                self._forgivingly(child, self._family.acknowledged, frame)
            case Report():
                self._forgivingly(child, self._family.reported, frame)
            case Heartbeat():
                received_ms = self._clock.now_ms()
                self.heartbeats += 1
                self.registry.heartbeat(child.row, frame.vitals, received_ms)
                self._family.heartbeat(child, frame)
                child.send(Beat, 2, sent_ms=frame.sent_ms, received_ms=received_ms, replied_ms=self._clock.now_ms())
            case Roster():
                self._family.roster(child, frame)
            case Submit():
                self._forgivingly(child, self._family.submitted, frame)
            case Dismiss():
                child.link.close("dismissed")
            case _:
                raise MalformedData(f"frame: a {type(frame).__name__.lower()} is not expected from a child")

    def _forgivingly(self, child: Child, take: Callable[[Child, Any], None], frame: Submit | Ack | Report) -> None:
        """A bad message need not be the fault of the child that passes it on, nor an answer nobody waits for, so it takes several to close its link."""
        try:
            take(child, frame)
        except SnapcountError as error:
            if not isinstance(frame, Submit) and not isinstance(error, UnknownSender):
                raise
            self._complaints.note(error, self._who(child.link, child), self._time.now_ms())
            if isinstance(error, Busy):
                return
            child.strikes += 1
            if child.strikes >= DEFAULT.strikes_max:
                raise Flooded(f"{child.name}: {child.strikes} messages or answers had to be refused") from error

    def taken(self, child: Child, message_id: bytes, error: SnapcountError | None) -> None:
        child.send(Taken, id=message_id, code="" if error is None else error.code, detail="" if error is None else safe(str(error), 280))

    def _refuse(self, link: Link, child: Child | None, error: SnapcountError) -> None:
        """One bad frame ends the link: an honest peer sends none."""
        self._complaints.note(error, self._who(link, child), self._time.now_ms())
        link.send(plain(Dismiss(code=error.code, detail=safe(str(error), 280))), CONTROL)
        link.close(error.code)

    def _who(self, link: Link, child: Child | None) -> str:
        return f"{self.identity.name}: {'stranger' if child is None else child.name} at {safe(link.peer, 80)}"
