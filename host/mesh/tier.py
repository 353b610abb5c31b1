"""A lead, a coordinator or the orchestrator: has children, passes messages on to them, and answers for all of them upward."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from host.core.errors import Busy, Flooded, Replayed, SnapcountError, StateDamaged, UnknownSender
from host.core.limits import DEFAULT
from host.mesh.children import Child, Children
from host.mesh.frames import READY, Ack, Deliver, Heartbeat, Release, Report, Roster, Submit, Welcome
from host.mesh.freeze import FREEZE, FrozenState, decode, encode
from host.mesh.gathering import Gathering, Member
from host.mesh.handshake import Identity
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.isolation import FORGET, TOPICS, Isolation
from host.mesh.membership import Membership
from host.mesh.message import CONTROL, EVERYONE, RESERVED, Message, UnverifiedMessage, Verified
from host.mesh.peer import Peer, World
from host.mesh.policing import QUARANTINE, SPREAD_MS
from host.mesh.profiler import Vitals
from host.mesh.raised import CONFLICT_RAISED, Raised
from host.mesh.relay import Relay
from host.mesh.standing import Standing, checked
from host.mesh.summary import HEAVY_WEIGHT, LEAD_SHARE, Summary

REPORTS_KEPT = 64
CHILDREN_DEFAULT = 64
LEAD_QUANTILE = 0.8
"""Of an agent's delay and work together: four messages in five are ready by T, and the window covers what is left."""
FROM_ONE_SOURCE_MAX = 64
"""How many messages of one source below may be under way at once."""


class TierPeer(Peer):
    """`children_max` rows are kept. A name that came once belongs to this tier until `forget`, connected or not."""

    def __init__(
        self,
        identity: Identity,
        world: World,
        parents: Sequence[str] = (),
        *,
        heartbeat_ms: int = 5_000,
        children_max: int = CHILDREN_DEFAULT,
    ) -> None:
        super().__init__(identity, world)
        self.registry = ImpedanceRegistry(children_max, LEAD_QUANTILE, float(heartbeat_ms))
        self.members = Membership(world.time, self._tell_roster if parents else None, self._moved)
        self.children = Children(
            identity, self.registry, world.time, self.clock, world.trust, self, self.complaints, world.tokens, world.log,
            heartbeat_ms=heartbeat_ms, introductions=self._introductions, frozen=self._is_frozen, policies=world.policies,
        )  # fmt: skip
        self.relay = Relay(self.children, self.registry, world.time, self.clock, world.trust)
        self.isolation = Isolation(self.members, self.registry, self.children)
        self.raised = Raised(world.log, lambda: world.time.now_ms() / 1000)
        self._reports: dict[bytes, dict[str, Any] | None] = {}
        self._gated: dict[bytes, tuple[Verified[Message], float, int]] = {}
        self._under_way: dict[bytes, int] = {}
        self._chains: tuple[tuple[bytes, ...], ...] = ()
        self._standing = Standing(identity.name, identity.role, self.registry, self.members, self.children, self.clock)
        self._frozen_names: set[str] = set()
        self._sweeping = world.time.call_at(world.time.now_ms() + heartbeat_ms, self._sweep)
        world.trust.introduce(identity.chain)
        if parents:
            self.connect(parents)

    def stop(self) -> None:
        """Closes every link, and ends the timers."""
        self._sweeping.cancel()
        if self.uplink is not None:
            self.uplink.stop()
        self.children.close("stopping")

    # Who is here.

    def resolve(self, targets: Sequence[str], excluded: Sequence[str] = ()) -> list[Member]:
        """The members that a message concerns: all, or those that are named or have a named one below them; none that is excluded whole."""
        if excluded and self.covered(excluded):
            return []
        found = self.members.by_row.values() if self.covered(targets) else self.members.named(targets)
        return [member for member in found if member.name not in excluded]

    def _introductions(self) -> tuple[tuple[bytes, ...], ...]:
        """The certificates of the tiers above, whose messages come through here. This tier's own is in the welcome."""
        return self._chains

    def _is_frozen(self, name: str) -> bool:
        return self.frozen is not None or name in self._frozen_names

    def joined(self, welcome: Welcome, tiers: frozenset[str]) -> None:
        self._chains = (welcome.chain, *welcome.introductions)[:8]
        before, known = self.frozen is not None, set(self.world.policies())
        super().joined(welcome, tiers)
        for document in welcome.policies:
            if document not in known and document in self.world.policies():
                self.spread(document)
        if before != (self.frozen is not None):
            self.children.close("frozen" if welcome.frozen else "thawed")  # they dial anew, and are told
        self.members.tell_all()

    # What children say.

    def child_joined(self, child: Child) -> None:
        member = self.members.by_row.get(child.row)
        if member is None or member.name != child.name:
            member = self.members.by_row[child.row] = Member(child.name, child.row, child.role, child.capabilities)
        member.capabilities = child.capabilities
        self.members.came(member, {child.name})
        self.isolation.came(member)
        self.relay.returned(child)

    def child_left(self, child: Child) -> None:
        self.world.log("info", f"{self.identity.name}: {child.name} has gone")

    def heartbeat(self, child: Child, frame: Heartbeat) -> None:
        if frame.summaries:
            frame = checked(child, frame)
            own = frame.summaries[0]
            self.members.by_row[child.row].agents = own.agents
            self._assign(child, own.lead_ms, own.lead_heavy_ms)
        child.summaries = frame.summaries

    def roster(self, child: Child, frame: Roster) -> None:
        if child.role == "agent":
            raise UnknownSender(f"{child.name}: an agent has no roster")
        self.members.took(self.members.by_row[child.row], frame, self.children.by_name.keys() | self.above)

    def acknowledged(self, child: Child, frame: Ack) -> None:
        if not self.relay.acknowledged(child, frame):
            self.complaints.count("unasked_answers")

    def reported(self, child: Child, frame: Report) -> None:
        if not self.relay.reported(child, frame):
            self.complaints.count("unasked_answers")
        elif frame.lead_ms > 0:
            self._assign(child, frame.lead_ms, frame.lead_heavy_ms)

    def _assign(self, child: Child, lead_ms: float, lead_heavy_ms: float) -> None:
        """A child that is a tier needs what its subtree needs, and the way to it."""
        slope = max(lead_heavy_ms / lead_ms - 1.0, 0.0) if lead_ms > 0 else 0.5
        one_way_ms = self.registry.read(child.name).vitals.rtt_ms / 2
        self.registry.table.assign(child.row, one_way_ms, lead_ms, min(slope, 10.0), 0.0)

    def submitted(self, child: Child, frame: Submit) -> None:
        """A message from below: checked here before it goes anywhere. Raises UntrustedInput or Refused of some kind."""
        unverified = UnverifiedMessage.parse(frame.message)
        try:
            if not self.world.trust.knows(unverified.envelope.kid):
                self.world.trust.introduce(frame.chain)
            verified = self.admission.verify(frame.message)
            member = self.members.above(verified.value.source)
            if member is None or member.row != child.row or verified.value.topic.startswith(RESERVED):
                raise UnknownSender(f"message of {verified.value.source}: it is not below {child.name}, or may not use such a topic")
            if self.relay.from_below >= DEFAULT.gatherings_max or self._under_way.get(verified.key, 0) >= FROM_ONE_SOURCE_MAX:
                raise Busy(f"{self.identity.name}: too many messages of {verified.value.source} are under way; send later")
            fresh = self.admission.admit(verified)
            if fresh and self.relay.gathering(verified.value.id) is not None:
                raise Replayed(f"message {verified.value.topic} of {verified.value.source}: its id is that of one that is under way")
        except SnapcountError as error:
            self.children.taken(child, _id_of(unverified), error)
            raise
        self.children.taken(child, verified.value.id, None)
        if fresh:
            self.send_on(verified, frame.chain)

    def send_on(self, verified: Verified[Message], chain: tuple[bytes, ...]) -> None:
        """Sends a message of somebody here to whom it concerns: below, and above when some are not below. `*` is this cluster, not the fleet."""
        message = verified.value
        if message.topic == CONFLICT_RAISED:
            self._raise(verified, chain)
            return
        below = [member for member in self.resolve(message.targets, message.excluded) if member.name != message.source]
        if below:
            self.relay.from_below += 1
            self._under_way[verified.key] = self._under_way.get(verified.key, 0) + 1
            self.relay.start(verified, below, min(message.expires_ms, self.clock.now_ms() + message.ttl_ms), 0, self._came_to_an_end)
        elsewhere = [target for target in message.targets if target not in self.members and target not in self.above]
        if elsewhere and "*" not in message.targets:
            self._submit(verified, chain)

    def _raise(self, verified: Verified[Message], chain: tuple[bytes, ...]) -> None:
        """A conflict that an auditor found goes to the top, and to nobody below."""
        try:
            self.raised.take(verified.value)
        except SnapcountError as error:  # not the fault of the child that passed it on
            self.complaints.note(error, self.identity.name, self.world.time.now_ms())
            return
        if self.identity.role == "lead":
            self._standing.note_conflicts(1)
        self._submit(verified, chain)

    def _submit(self, verified: Verified[Message], chain: tuple[bytes, ...]) -> None:
        if self.uplink is not None:
            try:
                self.uplink.submit(verified, chain)
            except Flooded as error:  # not the child's fault
                self.complaints.note(error, f"{self.identity.name}: to its parent", self.world.time.now_ms())

    def _came_to_an_end(self, gathering: Gathering) -> None:
        key = gathering.verified.key
        self.relay.from_below -= 1
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]

    # What the parent says.

    def deliver(self, frame: Deliver) -> None:
        admitted = self.admit(frame.message)
        if admitted is None:
            return
        verified, fresh = admitted
        assert self.uplink is not None
        if frame.gated or not self.uplink.reliable:
            self._receipt(verified.value.id)
        if not fresh:
            self.complaints.count("duplicates")
            report = self._reports.get(verified.value.id)
            if report is not None:
                self.uplink.answer(Report, **report)
        elif frame.gated:
            self._gated[verified.value.id] = (verified, frame.report_by_ms, frame.reply_bytes)
            self._forget_oldest(self._gated)
        else:
            self._pass_on_or_drop(verified, frame.report_by_ms, frame.reply_bytes)

    def _pass_on_or_drop(self, verified: Verified[Message], report_by_ms: float, reply_bytes: int) -> None:
        with suppress(Busy):  # counted, and the sender sees that nobody answered
            self.pass_on(verified, report_by_ms, reply_bytes, self._report_up)

    def release(self, frame: Release) -> None:
        assert self.uplink is not None
        if not self.uplink.reliable:
            self._receipt(frame.id)
        gated = self._gated.pop(frame.id, None)
        if gated is not None and frame.go:
            self._pass_on_or_drop(*gated)

    def pass_on(
        self, verified: Verified[Message], report_by_ms: float, reply_bytes: int, finished: Callable[[Gathering], None]
    ) -> Gathering:
        """Starts a message on its way to the members it concerns. A freeze or thaw is obeyed here first."""
        message = verified.value
        members = self.resolve(message.targets, message.excluded)
        if message.topic == QUARANTINE:
            self._police_on(message)
        elif message.topic in TOPICS:
            if self.isolation.obey(message.topic, message.targets, message.payload.decode("utf-8", "replace")[:300]):
                self._keep_frozen()
            members = self.resolve(message.targets, message.excluded)  # who was forgotten is not waited for
        elif message.topic.startswith(RESERVED):
            self._freeze_or_thaw_members(message, members)
        if not self.relay.room_for(message.priority):
            self.complaints.count(f"dropped_priority_{message.priority}")
            raise Busy(f"{self.identity.name}: too many messages are under way for one more of priority {message.priority}")
        return self.relay.start(verified, members, report_by_ms, reply_bytes, finished)

    def spread(self, document: bytes) -> None:
        """Sends a signed quarantine policy to all below, ahead of everything else; this tier has it from elsewhere than a message."""
        now_ms = self.clock.now_ms()
        message = self.author.message(
            now_ms, topic=QUARANTINE, verb="sync", routing="broadcast", targets=(EVERYONE,), priority=CONTROL, ttl_ms=SPREAD_MS, payload=document,
        )  # fmt: skip
        self.relay.start(message, list(self.members.by_row.values()), now_ms + SPREAD_MS, 0, lambda gathering: None)

    def set_frozen(self, state: FrozenState | None) -> None:
        self.frozen = state
        self.relay.frozen = state is not None
        self._keep_frozen()

    def restore(self, kept: bytes) -> None:
        state = decode(kept)
        self._frozen_names = set(state.members)
        self.isolation.names.update(state.isolated)
        if state.registry:
            try:
                self.registry.restore(state.registry)
            except StateDamaged as error:  # of another size, after a change of the configuration: it is measured anew
                self.world.log("warning", f"{self.identity.name}: {error}")
        if state.frozen:
            self.set_frozen(state)

    def _keep_frozen(self) -> None:
        """What is frozen here, this peer or some of its children, outlives a restart."""
        own, names = self.frozen, tuple(sorted(self._frozen_names))
        isolated = dict(self.isolation.names)
        if own is None and not names and not isolated:
            self.world.keep(None)
            return
        state = own or FrozenState(frozen=False, since_ms=self.clock.now_ms())
        registry = self.registry.snapshot() if own is not None else b""
        self.world.keep(encode(msgspec.structs.replace(state, members=names, isolated=isolated, registry=registry, waiting=())))

    def vitals(self) -> Vitals:
        assert self.uplink is not None
        return self.uplink.profiler.vitals(0, self.world.time.now_ms())

    def summaries(self) -> tuple[Summary, ...]:
        """This subtree's summary first, then those of the tiers below it."""
        return self._standing.summaries(frozen=self.frozen is not None)

    def summary(self) -> Summary:
        """This subtree's."""
        return self._standing.summary(frozen=self.frozen is not None)

    # Inside.

    def _freeze_or_thaw_members(self, message: Message, members: Iterable[Member]) -> None:
        """All of this peer, or some of its children, who are told so too when they come back from being away."""
        freezes = message.topic == FREEZE
        if self.covered(message.targets):
            if not freezes:
                self._frozen_names.clear()
            self.freeze_or_thaw(message)
            return
        named = {member.name for member in members} & set(message.targets)
        self._frozen_names = self._frozen_names | named if freezes else self._frozen_names - named
        self._keep_frozen()

    def _police_on(self, message: Message) -> None:
        """It goes on to the children whether this tier takes it or not: they judge for themselves."""
        if self.covered(message.targets):
            self.police(message.payload)

    def _moved(self, member: Member, names: set[str]) -> None:
        """Agents that went from one lead to another: the first is told to expect them no more."""
        if member.role != "agent":
            now_ms = self.clock.now_ms()
            message = self.author.message(
                now_ms, topic=FORGET, verb="sync", routing="direct", targets=tuple(sorted(names)[: DEFAULT.targets_max]), priority=CONTROL, ttl_ms=SPREAD_MS,
            )  # fmt: skip
            self.relay.start(message, [member], now_ms + SPREAD_MS, 0, lambda gathering: None)

    def _tell_roster(self, added: Sequence[str], removed: Sequence[str], first: bool) -> None:
        assert self.uplink is not None
        self.uplink.roster(added, removed, first=first)

    def _receipt(self, message_id: bytes) -> None:
        assert self.uplink is not None
        now_ms = self.clock.now_ms()
        self.uplink.ack(message_id, state=READY, received_ms=now_ms, done_ms=now_ms)

    def _report_up(self, gathering: Gathering) -> None:
        assert self.uplink is not None
        report = gathering.report()
        if self.identity.role == "lead":
            self._standing.note_conflicts(report["conflict"])
        self._reports[gathering.message.id] = report
        self._forget_oldest(self._reports)
        table = self.registry.table
        leads = {"lead_ms": table.quantile_lead_ms(LEAD_SHARE), "lead_heavy_ms": table.quantile_lead_ms(LEAD_SHARE, HEAVY_WEIGHT)}
        self.uplink.answer(Report, **report, **leads)

    def _forget_oldest(self, kept: dict[bytes, Any]) -> None:
        while len(kept) > REPORTS_KEPT:
            del kept[next(iter(kept))]

    def _sweep(self) -> None:
        self.registry.sweep(self.clock.now_ms())
        now_ms = self.world.time.now_ms()
        self._sweeping = self.world.time.call_at(now_ms + self.children.heartbeat_ms, self._sweep)


def _id_of(unverified: UnverifiedMessage) -> bytes:
    """For telling the child which message was refused: the id that it claims."""
    try:
        return unverified.verify().value.id
    except SnapcountError:
        return bytes(16)
