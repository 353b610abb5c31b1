"""What every peer of the mesh is made of, and the leaf: an agent with its parent. A tier is in tier.py."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from host.core.clock import Random
from host.core.errors import SnapcountError, UnknownSender
from host.core.text import safe
from host.mesh.admission import Admission, Complaints
from host.mesh.agent import Agent, Handler, Outcome
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import CONFLICT, READY, Deliver, Release, Taken, Welcome
from host.mesh.freeze import FREEZE, THAW, FrozenState, decode, encode
from host.mesh.handshake import Identity
from host.mesh.link import Time, Transport
from host.mesh.message import EVERYONE, RESERVED, Author, Message, Verified
from host.mesh.policing import QUARANTINE, Police, Policies, no_policies, police_nothing
from host.mesh.profiler import Vitals
from host.mesh.summary import Summary
from host.mesh.trust import Trust
from host.mesh.uplink import Uplink

Log = Callable[[str, str], None]
Keep = Callable[[bytes | None], None]
"""Keeps a frozen state on disk; None removes it."""


def keep_nothing(state: bytes | None) -> None:
    """For peers that live in one process and end with it."""


@dataclass
class World:
    """What a peer is given instead of reaching for it. `dice` are for jitter only, `tokens` for whatever must not be guessed."""

    time: Time
    transport: Transport
    trust: Trust
    tokens: Random
    dice: random.Random
    log: Log
    keep: Keep = keep_nothing
    police: Police = police_nothing
    policies: Policies = no_policies


class Peer(ABC):
    """What all four roles share: who it is, fleet time, what it lets in, and whether it is frozen."""

    def __init__(self, identity: Identity, world: World) -> None:
        self.identity, self.world = identity, world
        self.clock = FleetClock(world.time)
        self.complaints = Complaints(world.log)
        self.admission = Admission(world.trust, self.clock.now_ms)
        self.author = Author(identity.name, identity.key, world.tokens)
        self.frozen: FrozenState | None = None
        self.above: frozenset[str] = frozenset({identity.name})
        """The names by which a message means this peer with all that is below it: its own, and its tiers'."""
        self.uplink: Uplink | None = None

    def covered(self, targets: Sequence[str]) -> bool:
        """Whether a message is for this whole peer."""
        return EVERYONE in targets or not self.above.isdisjoint(targets)

    def connect(self, parents: Sequence[str]) -> None:
        world = self.world
        self.uplink = Uplink(
            self.identity, parents, world.transport, world.time, self.clock, world.trust, self, self.complaints, world.tokens, world.dice, world.log
        )  # fmt: skip
        self.uplink.start()

    def restore(self, kept: bytes) -> None:
        """Takes up the frozen state that it was ended in. Raises StateDamaged."""
        self.set_frozen(decode(kept))

    def set_frozen(self, state: FrozenState | None) -> None:
        """Freezes, or thaws with None, and keeps that."""
        self.frozen = state
        self.world.keep(None if state is None else encode(state))

    def freeze_or_thaw(self, message: Message) -> None:
        """Does what a message with one of the two reserved topics says of this peer."""
        if message.topic == FREEZE and self.frozen is None:
            reason = message.payload.decode("utf-8", "replace")[:300]
            self.set_frozen(FrozenState(frozen=True, since_ms=self.clock.now_ms(), by=message.source, reason=reason))
        elif message.topic == THAW and self.frozen is not None:
            self.set_frozen(None)

    def police(self, document: bytes) -> SnapcountError | None:
        """Takes a quarantine policy; why not, where it is not taken."""
        try:
            self.world.police(document)
        except SnapcountError as error:
            self.complaints.note(error, f"{self.identity.name}: from its parent", self.world.time.now_ms())
            return error
        return None

    # What the uplink asks for.

    def joined(self, welcome: Welcome, tiers: frozenset[str]) -> None:
        self.above = tiers | {self.identity.name}
        for document in welcome.policies:
            self.police(document)
        if welcome.frozen and self.frozen is None:
            self.set_frozen(FrozenState(frozen=True, since_ms=self.clock.now_ms(), by=welcome.name, reason="frozen while away"))
        elif not welcome.frozen and self.frozen is not None:
            self.set_frozen(None)

    @abstractmethod
    def deliver(self, frame: Deliver) -> None: ...

    @abstractmethod
    def release(self, frame: Release) -> None: ...

    @abstractmethod
    def vitals(self) -> Vitals: ...

    def summaries(self) -> tuple[Summary, ...]:
        return ()

    def taken(self, frame: Taken) -> None:
        if frame.code:
            self.world.log("warning", f"{self.identity.name}: a message of ours was refused ({frame.code}): {frame.detail}")

    def admit(self, raw: bytes) -> tuple[Verified[Message], bool] | None:
        """A message, and whether it is new; None for one that is refused, which is counted."""
        try:
            verified = self.admission.verify(raw)
            return verified, self.admission.admit(verified)
        except SnapcountError as error:
            self.complaints.note(error, f"{self.identity.name}: from its parent", self.world.time.now_ms())
            return None


class AgentPeer(Peer):
    """A leaf: `handler` is what its messages do."""

    def __init__(self, identity: Identity, world: World, handler: Handler, parents: Sequence[str]) -> None:
        super().__init__(identity, world)
        self.connect(parents)
        assert self.uplink is not None
        self._unrestored: tuple[bytes, ...] = ()
        self.agent = Agent(world.time, self.clock, handler, self.uplink.profiler, self.complaints, self.uplink.ack)

    def deliver(self, frame: Deliver) -> None:
        admitted = self.admit(frame.message)
        if admitted is None:
            return
        verified, fresh = admitted
        if not fresh:
            self.complaints.count("duplicates")
            self.agent.repeat(verified.value.id)
        elif not self.covered(verified.value.targets):
            error = UnknownSender(f"message {verified.value.topic}: it is for others, and came here")
            self.complaints.note(error, f"{self.identity.name}: from its parent", self.world.time.now_ms())
        elif verified.value.topic.startswith(RESERVED):
            self._obey(verified.value)
        else:
            self.agent.take(verified)

    def _obey(self, message: Message) -> None:
        """Does what a message with a reserved topic says, and answers."""
        error = None
        if message.topic == QUARANTINE:
            error = self.police(message.payload)
        else:
            self.freeze_or_thaw(message)
        now_ms = self.clock.now_ms()
        state, code, detail = (READY, "", "") if error is None else (CONFLICT, error.code, safe(str(error), 280))
        assert self.uplink is not None
        self.uplink.ack(message.id, state=state, received_ms=now_ms, done_ms=now_ms, code=code, detail=detail)

    def release(self, frame: Release) -> None:
        """An agent holds until T by its own clock; only a tier holds anything back until it is released."""

    def set_frozen(self, state: FrozenState | None) -> None:
        if state is None:
            super().set_frozen(None)
            self.agent.thaw()
            return
        waiting = self.agent.freeze()
        super().set_frozen(msgspec.structs.replace(state, waiting=waiting) if waiting else state)

    def restore(self, kept: bytes) -> None:
        super().restore(kept)
        assert self.frozen is not None
        self._unrestored = self.frozen.waiting

    def joined(self, welcome: Welcome, tiers: frozenset[str]) -> None:
        # Only now is known who may have sent what was waiting when this agent was ended.
        unrestored, self._unrestored = self._unrestored, ()
        for raw in unrestored:
            admitted = self.admit(raw)
            if admitted is not None and admitted[1]:
                self.agent.wait(admitted[0])
        super().joined(welcome, tiers)

    def vitals(self) -> Vitals:
        assert self.uplink is not None
        return self.uplink.profiler.vitals(self.agent.queue, self.world.time.now_ms())


__all__ = ["AgentPeer", "Handler", "Keep", "Log", "Outcome", "Peer", "World"]
