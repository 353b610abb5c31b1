"""The child's side of a link: dials its parent again and again, proves who it is, sends heartbeats, and follows the parent's clock."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nacl.signing import VerifyKey

from host.core.clock import Random
from host.core.errors import Flooded, MalformedData, SnapcountError, TooLarge, UnknownSender
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
    FromParent,
    Heartbeat,
    Hello,
    Introduce,
    Opener,
    Release,
    Roster,
    Sealer,
    Submit,
    Taken,
    Welcome,
    plain,
)  # fmt: skip
from host.mesh.handshake import Identity, open_welcome
from host.mesh.link import Link, Time, Timer, Transport
from host.mesh.message import CONTROL, Message, Verified
from host.mesh.ordering import Ordering
from host.mesh.profiler import Profiler, Vitals
from host.mesh.summary import Summary
from host.mesh.trust import Trust, role_of

RECONNECT_MS_MIN, RECONNECT_MS_MAX = 250.0, 30_000.0
SILENT_INTERVALS = 3
"""A parent that answered no heartbeat for so many intervals is dialled anew."""
SUBMITTED_MAX = 64
UNCERTAINTY_MS_MAX, BURST_MAX, BURST_MS = 10.0, 4, 2_000.0
BEATS_AWAITED_MAX = 8
BEAT_ROUNDING_MS = 1.0
FIRST_HEARTBEAT_MS = 10_000.0
HEARTBEAT_PRIORITY, ANSWER_PRIORITY = 2, CONTROL


class Household(Protocol):
    """What a peer does with what comes from above."""

    def joined(self, welcome: Welcome, tiers: frozenset[str]) -> None:
        """`tiers` are the names of all that stand above, the parent's among them."""
        ...

    def deliver(self, frame: Deliver) -> None: ...

    def release(self, frame: Release) -> None: ...

    def vitals(self) -> Vitals: ...

    def summaries(self) -> tuple[Summary, ...]: ...

    def taken(self, frame: Taken) -> None: ...


class Uplink:
    """One link at a time, to the first of `parents` that answers. A Receiver for the transport."""

    def __init__(
        self, identity: Identity, parents: Sequence[str], transport: Transport, time: Time, clock: FleetClock, trust: Trust,
        household: Household, complaints: Complaints, tokens: Random, dice: random.Random, log: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.identity, self.parents, self.profiler = identity, tuple(parents), Profiler()
        self.welcome: Welcome | None = None
        self._transport, self._time, self._clock, self._trust = transport, time, clock, trust
        self._household, self._complaints, self._tokens, self._dice, self._log = household, complaints, tokens, dice, log
        self._attempts = 0
        self._link: Link | None = None
        self._sealer: Sealer | None = None
        self._opener = Opener(FromParent, None, b"")
        self._mine, self._hello_ms = b"", 0.0
        self._heard_ms = 0.0
        self._beat: Timer | None = None
        self._awaited: deque[float] = deque(maxlen=BEATS_AWAITED_MAX)
        """When the heartbeats left that no Beat has answered yet."""
        self._ordering: Ordering | None = None
        self._submitted: dict[bytes, tuple[Verified[Message], tuple[bytes, ...]]] = {}
        self._bursts = 0
        self._stopped = False

    @property
    def connected(self) -> bool:
        return self.welcome is not None

    @property
    def reliable(self) -> bool:
        return self._link is None or self._link.reliable

    def start(self) -> None:
        self._transport.dial(self.parents[self._attempts % len(self.parents)], self)

    def stop(self) -> None:
        self._stopped = True
        if self._beat is not None:
            self._beat.cancel()
        if self._link is not None:
            self._link.close("stopping")

    def answer(self, kind: type[Frame], **fields: Any) -> None:
        """Sends a signed answer. Without a link it is lost: the parent asks again when the link stands."""
        if self._sealer is not None and self._link is not None:
            self._link.send(self._sealer.seal(kind, **fields), ANSWER_PRIORITY)

    def ack(self, message_id: bytes, **fields: Any) -> None:
        self.answer(Ack, id=message_id, **fields)

    def roster(self, added: Sequence[str], removed: Sequence[str], *, first: bool = False) -> None:
        self.answer(Roster, added=tuple(added), removed=tuple(removed), first=first)

    def submit(self, message: Verified[Message], chain: tuple[bytes, ...]) -> None:
        """Sends a message upward, again after each reconnection until it was taken. Raises Flooded while too many are under way."""
        if len(self._submitted) >= SUBMITTED_MAX:
            now_ms = self._clock.now_ms()
            self._submitted = {id_: kept for id_, kept in self._submitted.items() if kept[0].value.expires_ms > now_ms}
            if len(self._submitted) >= SUBMITTED_MAX:
                raise Flooded(f"{self.identity.name}: {SUBMITTED_MAX} messages wait for the parent to take them; send later")
        self._submitted[message.value.id] = (message, chain)
        self._send_submitted(message, chain)

    # The transport's side.

    def opened(self, link: Link) -> None:
        self._link = link
        self._heard_ms = self._time.now_ms()
        self._opener = Opener(FromParent, None, b"")
        # The parent gives up on a stranger too, but not on a child whose welcome was lost.
        self._beat = self._time.call_at(self._heard_ms + DEFAULT.handshake_ms_max, link.close, "was not welcomed in time")

    def received(self, link: Link, frame: bytes) -> None:
        if link is not self._link:
            return
        try:
            if self._mine and self.welcome is None:
                self._welcomed(link, frame)
            else:
                self._take(link, self._opener.open(frame))
        except SnapcountError as error:
            self._complaints.note(error, f"parent at {safe(link.peer, 80)}", self._time.now_ms())
            link.close(error.code)

    def closed(self, link: Link | None, reason: str) -> None:
        if link is not None and link is not self._link:
            return
        for kind in (TooLarge, MalformedData):
            if link is not None and reason.startswith(f"{kind.code}: "):  # the transport refused it
                self._complaints.note(kind(safe(reason)), f"parent at {safe(link.peer, 80)}", self._time.now_ms())
        if self.welcome is not None:
            self._log("warning", f"{self.identity.name}: link to {self.welcome.name} lost: {safe(reason)}")
            self._attempts = 0
        self._link = self._sealer = self.welcome = None
        self._mine = b""
        if self._beat is not None:
            self._beat.cancel()
        if not self._stopped:
            self._attempts += 1
            self._time.call_at(self._time.now_ms() + self._back_off_ms(), self._again)

    def _again(self) -> None:
        if not self._stopped:
            self.start()

    def _back_off_ms(self) -> float:
        # Full jitter: a thousand children that lost one parent come back spread over the whole interval.
        ceiling_ms = min(RECONNECT_MS_MIN * 2.0 ** min(self._attempts, 16), RECONNECT_MS_MAX)
        return self._dice.uniform(RECONNECT_MS_MIN / 2, ceiling_ms)

    # What the parent says.

    def _take(self, link: Link, frame: Any) -> None:
        if self.welcome is None and not isinstance(frame, Challenge | Dismiss):
            raise MalformedData(f"frame: a {type(frame).__name__.lower()} came before the parent has said who it is")
        match frame:
            case Deliver():
                self._heard_ms = self._time.now_ms()
                if self._ordering is None:
                    self._household.deliver(frame)
                else:
                    self._ordering.take(frame)
            case Beat(sent_ms=sent_ms, received_ms=received_ms, replied_ms=replied_ms) if sent_ms in self._awaited:
                self._awaited.remove(sent_ms)
                self._heard_ms = now_ms = self._time.now_ms()
                self._measure(sent_ms, received_ms, replied_ms, now_ms)
            case Release():
                self._household.release(frame)
            case Introduce(chain=chain):
                self._trust.introduce(chain)
            case Taken(id=id_):
                self._submitted.pop(id_, None)
                self._household.taken(frame)
            case Challenge(nonce=nonce) if not self._mine:
                self._say_hello(link, nonce)
            case Dismiss(code=code, detail=detail):
                self._log("warning", f"{self.identity.name}: the parent at {safe(link.peer, 80)} says {safe(code, 64)}: {safe(detail)}")
                link.close("dismissed")
            case _:
                raise MalformedData(f"frame: a {type(frame).__name__.lower()} is not expected now")

    def _say_hello(self, link: Link, nonce: bytes) -> None:
        who = self.identity
        self._mine, self._hello_ms = self._tokens.token(NONCE_BYTES), self._time.now_ms()
        hello = Sealer(who.key, nonce).seal(
            Hello, name=who.name, role=who.role, nonce=nonce, mine=self._mine, chain=who.chain, agent_class=who.agent_class,
            capabilities=who.capabilities, sent_ms=self._hello_ms,
        )  # fmt: skip
        link.send(hello, CONTROL)

    def _welcomed(self, link: Link, data: bytes) -> None:
        if self._opener.is_plain(data):  # a dismissal, most likely
            self._take(link, self._opener.open(data))
            return
        welcome, claims = open_welcome(data, self._mine, self._trust, self.identity.role)
        tiers = {welcome.name}
        for chain in welcome.introductions:
            claims_above = self._trust.introduce(chain)
            tiers.add(claims_above.subject)
            if role_of(claims_above) == "agent":
                raise UnknownSender(f"welcome of {welcome.name}: introduces {claims_above.subject} as a tier above, which is an agent")
        now_ms = self._time.now_ms()
        self._opener = Opener(FromParent, VerifyKey(claims.key), welcome.session)
        self._sealer = Sealer(self.identity.key, welcome.session)
        self._ordering = None if link.reliable else Ordering(self._time, self._household.deliver)
        self.welcome, self._heard_ms, self._attempts = welcome, now_ms, 0
        if self._beat is not None:
            self._beat.cancel()
        self._clock.forget()
        self._bursts = 0
        self._awaited.clear()
        self._measure(self._hello_ms, welcome.received_ms, welcome.replied_ms, now_ms)
        self._household.joined(welcome, frozenset(tiers))
        for message, source_chain in list(self._submitted.values()):
            self._send_submitted(message, source_chain)
        # The first one soon, for the parent knows nothing of this child yet, but not all children at once.
        self._beat = self._time.call_at(
            now_ms + self._dice.uniform(0.05, 0.5) * min(welcome.heartbeat_ms, FIRST_HEARTBEAT_MS), self._send_heartbeat
        )

    def _measure(self, sent_ms: float, received_ms: float, replied_ms: float, now_ms: float) -> None:
        round_trip_ms = self._clock.sample(sent_ms, received_ms, replied_ms, now_ms)
        if round_trip_ms > 0:
            self.profiler.rtt(round_trip_ms)
        elif replied_ms < received_ms or replied_ms - received_ms > now_ms - sent_ms + BEAT_ROUNDING_MS:
            self._complaints.count("impossible_beats")

    def _send_heartbeat(self) -> None:
        link, welcome, sealer = self._link, self.welcome, self._sealer
        if link is None or welcome is None or sealer is None:
            return
        now_ms = self._time.now_ms()
        if now_ms - self._heard_ms > SILENT_INTERVALS * welcome.heartbeat_ms:
            link.close("the parent is silent")
            return
        frame = sealer.seal(Heartbeat, sent_ms=now_ms, vitals=self._household.vitals(), summaries=self._household.summaries())
        self._awaited.append(now_ms)
        link.send(frame, HEARTBEAT_PRIORITY)
        interval_ms = float(welcome.heartbeat_ms)
        if self._clock.uncertainty_ms > UNCERTAINTY_MS_MAX and self._bursts < BURST_MAX:
            self._bursts += 1  # the first samples come while everybody else is connecting too: some more, until one was not held up
            interval_ms = min(interval_ms, BURST_MS)
        self._beat = self._time.call_at(now_ms + self._dice.uniform(0.9, 1.1) * interval_ms, self._send_heartbeat)

    def _send_submitted(self, message: Verified[Message], chain: tuple[bytes, ...]) -> None:
        if self._link is not None and self.welcome is not None:
            self._link.send(plain(Submit(chain=chain, message=message.raw)), message.value.priority)
