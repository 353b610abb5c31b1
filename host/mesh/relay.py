"""Sends one message on to the children it concerns, each early by what it needs, and gathers their answers.

With the strategy `parallel` everybody is sent to when it is time. With `wave` the tiers go first, through a gate (gate.py), and do the same with their own
children; the agents come last. On a link that is not reliable, what was not answered is sent again (resending.py).
"""

from array import array
from collections.abc import Callable, Iterable
from typing import Any

from host.core.errors import MalformedData, UnknownSender
from host.core.limits import DEFAULT
from host.mesh.agent import FROZEN
from host.mesh.arrival import OFFLINE, Schedule
from host.mesh.children import Child, Children
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import READY, Ack, Report
from host.mesh.gate import HOP_MS_MIN, Gate
from host.mesh.gathering import (
    AGENTS_MAX,
    ANSWERED,
    AWAY,
    GATE,
    INCAPABLE,
    SENT,
    TOO_LATE,
    UNFIT,
    WAITING,
    Gathering,
    Member,
    Slot,
)  # fmt: skip
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.link import Time, Timer
from host.mesh.message import CONTROL, Message, Verified
from host.mesh.resending import Resending
from host.mesh.trust import Trust

HOP_SHARE = 0.1
"""A child reports while so much of the time is left that its own report can still come in."""
TIER_SLACK_MS = 1_000.0
"""So much earlier than most of its subtree needs it a tier gets a message whose T is far enough: for the slowest, and for frames sent again."""
FINISHED_KEPT = 8
UNDER_WAY_MAX = (8, 64, 128, DEFAULT.gatherings_max)
"""How many messages may be under way before one of each priority is turned away."""

Finished = Callable[[Gathering], None]


class Relay:
    """One tier's."""

    def __init__(self, children: Children, registry: ImpedanceRegistry, time: Time, clock: FleetClock, trust: Trust) -> None:
        self.children, self.registry = children, registry
        self.frozen = False
        self.watch: Callable[[Gathering], None] = lambda gathering: None
        """Called with each gathering that has ended, for whoever measures."""
        self._time, self._clock, self._trust = time, clock, trust
        self.from_below = 0
        """How many of the messages under way are by somebody below. They have a bound of their own, so that they cannot keep out what comes from above."""
        self._active: dict[bytes, tuple[Gathering, Finished, list[Timer]]] = {}
        self._finished: dict[bytes, Gathering] = {}
        self._schedule = Schedule(len(registry.table))
        self._resending = Resending(registry, time, clock, lambda gathering: gathering.message.id in self._active)
        self._gate = Gate(self, children, clock, self._resending)

    @property
    def estimator(self) -> int:
        """The arrival kernel's."""
        return self._resending.estimator

    @estimator.setter
    def estimator(self, estimator: int) -> None:
        self._resending.estimator = estimator

    @property
    def gate_ms(self) -> float:
        """How long the last gate of a wave took to open."""
        return self._gate.took_ms

    def room_for(self, priority: int) -> bool:
        """Whether another message of this priority may get under way: what matters least is turned away first, so that the rest is not delayed."""
        return len(self._active) - self.from_below < UNDER_WAY_MAX[priority]

    def gathering(self, message_id: bytes) -> Gathering | None:
        """One that is under way."""
        active = self._active.get(message_id)
        return None if active is None else active[0]

    def start(
        self, message: Verified[Message], members: Iterable[Member], report_by_ms: float, reply_bytes: int, finished: Finished
    ) -> Gathering:
        """Sends to `members` and calls `finished` once, at `report_by_ms` (fleet time) at the latest."""
        gathering = Gathering(message, members, report_by_ms, reply_bytes)
        self._active[gathering.message.id] = (gathering, finished, [])
        self._exclude_unfit(gathering)
        self.timer_at(gathering, report_by_ms, self._finish, gathering)
        tiers = [slot for slot in gathering.slots.values() if slot.member.role != "agent" and slot.stage == WAITING]
        if gathering.message.strategy == "wave" and tiers:
            self._gate.open(gathering, tiers)
        self._dispatch(gathering, [slot for slot in gathering.slots.values() if slot.stage == WAITING])
        self.finish_when_done(gathering)
        return gathering

    def returned(self, child: Child) -> None:
        """A child is connected again: whatever it did not answer is sent now."""
        for gathering, _, _ in list(self._active.values()):
            slot = gathering.slots.get(child.row)
            if slot is not None and slot.sent_ms > 0 and slot.stage < ANSWERED:
                self.send(gathering, slot)

    def acknowledged(self, child: Child, ack: Ack) -> bool:
        """An agent's answer, or a tier's to a gate. False for one to a message of which nothing is known any more.

        Raises UnknownSender for one to a message that this child was not sent.
        """
        active = self._active.get(ack.id)
        gathering = active[0] if active is not None else self._finished.get(ack.id)
        if gathering is None:
            return False
        slot = self._slot_of(gathering, child)
        self._resending.answered(slot)
        gathering.messages += 1
        if child.role != "agent":
            self._gate.reached(gathering, slot, ack)
            if active is not None and slot.stage == SENT:
                self._resending.watch_report(gathering, slot, child, lambda: self.send(gathering, slot))
            return True
        if not ack.acted and ack.state == READY and slot.ack is None:
            self._learn(gathering.message, slot, ack)
        if active is None:
            slot.ack = ack  # too late to count, and still worth knowing how late
        elif gathering.acknowledged(slot, ack):
            self.finish_when_done(gathering)
        return True

    def reported(self, child: Child, report: Report) -> bool:
        """A tier's answer for its subtree. False as above; raises UnknownSender as above, MalformedData for one that cannot be."""
        if child.role == "agent" or report.expected > AGENTS_MAX[child.role]:
            raise MalformedData(f"report of {child.name}: counts {report.expected} agents, which no {child.role} has below it")
        active = self._active.get(report.id)
        if active is None:
            return False
        slot = self._slot_of(active[0], child)
        self._resending.answered(slot)
        active[0].messages += 1
        if active[0].reported(slot, report):
            self.finish_when_done(active[0])
        return True

    def _slot_of(self, gathering: Gathering, child: Child) -> Slot:
        slot = gathering.slots.get(child.row)
        if slot is None or slot.attempts == 0:
            raise UnknownSender(f"answer of {child.name}: to a message that it was not sent from here")
        return slot

    def stop(self, message_id: bytes, reason: str) -> None:
        """Ends a gathering now, as it stands."""
        active = self._active.get(message_id)
        if active is not None:
            active[0].stopped = reason
            self._finish(active[0])

    # Who, and when.

    def _exclude_unfit(self, gathering: Gathering) -> None:
        """The lead's check: a message that needs a capability does not reach an agent without it."""
        needed = frozenset(gathering.message.capabilities)
        frozen = self.frozen and gathering.message.priority < CONTROL
        for slot in gathering.slots.values():
            if frozen:
                gathering.exclude(slot, FROZEN)
            elif slot.member.role == "agent" and not needed <= slot.member.capabilities:
                gathering.exclude(slot, INCAPABLE)

    def _dispatch(self, gathering: Gathering, slots: list[Slot]) -> None:
        message, now_ms = gathering.message, self._clock.now_ms()
        if not message.at_ms:
            for slot in slots:
                self.send(gathering, slot)
            return
        by_row = {slot.member.row: slot for slot in slots}
        schedule, selection = self._schedule, array("I", sorted(by_row))
        schedule.compute(self.registry.table, message.at_ms, now_ms, message.weight, selection, self.estimator)
        for row in schedule.skipped:
            away = self.registry.table.row(row)[6] >= OFFLINE
            if not away and (by_row[row].member.role != "agent" or message.priority == CONTROL):
                # Too late for the slowest of that subtree, which knows itself for whom it is not; and what controls passes the queue that makes
                # it seem too late.
                self.send(gathering, by_row[row])
            else:
                gathering.exclude(by_row[row], AWAY if away else TOO_LATE)
        order, offsets = schedule.order.tolist(), schedule.offsets.tolist()
        for group, start_ms in enumerate(schedule.starts_ms):
            due = [by_row[row] for row in order[offsets[group] : offsets[group + 1]]]
            self._send_all_at(start_ms, gathering, [slot for slot in due if slot.member.role == "agent"])
            self._send_all_at(start_ms - TIER_SLACK_MS, gathering, [slot for slot in due if slot.member.role != "agent"])

    def _send_all_at(self, start_ms: float, gathering: Gathering, slots: list[Slot]) -> None:
        now_ms = self._clock.now_ms()
        if slots and start_ms <= now_ms:
            self._send_all(gathering, slots, now_ms)
        elif slots:
            self.timer_at(gathering, start_ms, self._send_all, gathering, slots, start_ms)

    def _send_all(self, gathering: Gathering, slots: list[Slot], start_ms: float) -> None:
        if self.gathering(gathering.message.id) is not None:
            for slot in slots:
                slot.sent_ms = start_ms  # when it was to leave: what this tier itself adds is part of the delay to allow for
                self.send(gathering, slot)

    def send(self, gathering: Gathering, slot: Slot, *, gated: bool = False) -> None:
        """Sends to one child, or keeps it for when the child comes back."""
        child = self.children.by_row.get(slot.member.row)
        now_ms = self._clock.now_ms()
        if slot.sent_ms == 0.0:
            slot.sent_ms = now_ms
        if child is None:
            return  # if it comes back in time, `returned` sends it
        slot.stage = GATE if gated or slot.stage == GATE else SENT
        if slot.attempts == 0 or child.order < slot.order:
            child.order += 1
            slot.order = child.order
        slot.attempts += 1
        if slot.attempts == 2:
            slot.resent_ms = now_ms
        gathering.messages += 1
        left_ms = gathering.report_by_ms - now_ms
        slot.report_by_ms = report_by_ms = gathering.report_by_ms - max(HOP_SHARE * left_ms, HOP_MS_MIN)
        share = gathering.reply_bytes * max(slot.member.agents, 1) // gathering.agents
        chain = self._trust.chain_of(gathering.verified.key)
        child.deliver(gathering.verified, chain, slot.order, report_by_ms, share, gated=slot.stage == GATE)
        if not child.link.reliable:
            self._resending.watch(gathering, slot, child, lambda: self.send(gathering, slot))

    # The end.

    def _learn(self, message: Message, slot: Slot, ack: Ack) -> None:
        if slot.sent_ms == 0.0 or (slot.attempts > 1 and ack.received_ms >= slot.resent_ms):
            # Karn's rule: which of the copies came first is not known. What came before the second one left is the first copy; without those,
            # whoever is slower than was thought would be asked twice each time, and never be known better.
            return
        delay_ms, processing_ms = max(ack.received_ms - slot.sent_ms, 0.0), max(ack.done_ms - ack.received_ms, 0.0)
        if max(delay_ms, processing_ms) < message.ttl_ms:
            self.registry.table.observe(slot.member.row, delay_ms, processing_ms, message.weight, ack.queue)

    def finish_when_done(self, gathering: Gathering) -> None:
        """Ends it where everybody has answered."""
        if gathering.open == 0:
            self._finish(gathering)

    def _finish(self, gathering: Gathering) -> None:
        active = self._active.pop(gathering.message.id, None)
        if active is None:
            return
        for timer in active[2]:
            timer.cancel()
        gathering.cancel_timers()
        if gathering.open and not gathering.stopped:
            self._finished[gathering.message.id] = gathering
            while len(self._finished) > FINISHED_KEPT:
                del self._finished[next(iter(self._finished))]
        for slot in gathering.slots.values():
            if slot.stage == WAITING or (slot.stage == SENT and slot.attempts == 0):
                slot.stage, slot.code = UNFIT, AWAY
        self.watch(gathering)
        active[1](gathering)

    def timer_at(self, gathering: Gathering, fleet_ms: float, call: Callable[..., Any], *args: Any) -> None:
        """Calls at a fleet time, unless the gathering has ended by then."""
        active = self._active.get(gathering.message.id)
        if active is not None:
            active[2].append(self._time.call_at(self._clock.to_own_ms(fleet_ms), call, *args))
