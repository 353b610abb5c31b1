"""The gate of a wave: the tiers below get a message first, make themselves ready and say so; when enough of them are, all are released at once."""

from typing import Any, Protocol

from host.mesh.children import Children
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import READY, Ack, Release
from host.mesh.gathering import GATE, GATED, SENT, Gathering, Slot
from host.mesh.quorum import COORDINATORS
from host.mesh.resending import Resending

HOP_MS_MIN = 20.0
GATE_SHARE = 0.5
GATE_MS_EXPECTED = 100.0
LEADS_READY_MIN = 0.9  # of ten leads one may be gone, or a dead lead would hold up its whole sector


class Sending(Protocol):
    """What a gate asks of the relay that it is a part of."""

    def send(self, gathering: Gathering, slot: Slot, *, gated: bool = False) -> None: ...

    def stop(self, message_id: bytes, reason: str) -> None: ...

    def finish_when_done(self, gathering: Gathering) -> None: ...

    def timer_at(self, gathering: Gathering, fleet_ms: float, call: Any, *args: Any) -> None:
        """Calls at a fleet time, unless the gathering has ended by then."""
        ...


class Gate:
    """One tier's."""

    def __init__(self, sending: Sending, children: Children, clock: FleetClock, resending: Resending) -> None:
        self.took_ms = GATE_MS_EXPECTED
        """How long the last gate took to open."""
        self._sending, self._children, self._clock, self._resending = sending, children, clock, resending

    def open(self, gathering: Gathering, tiers: list[Slot]) -> None:
        """Sends to the tiers, which wait for each other."""
        now_ms = gathering.gate_ms = self._clock.now_ms()
        until_ms = gathering.message.at_ms or gathering.report_by_ms
        for slot in tiers:
            slot.stage = GATE
            self._sending.send(gathering, slot, gated=True)
        self._sending.timer_at(gathering, now_ms + max(GATE_SHARE * (until_ms - now_ms), HOP_MS_MIN), self._is_late, gathering, tiers)

    def reached(self, gathering: Gathering, slot: Slot, ack: Ack) -> None:
        """A tier has the message, and is ready or not."""
        if slot.stage != GATE:
            return
        if ack.state != READY:
            gathering.exclude(slot, ack.code)
            self._sending.finish_when_done(gathering)
            return
        slot.stage = GATED
        tiers = [other for other in gathering.slots.values() if other.stage in (GATE, GATED, SENT) and other.member.role != "agent"]
        if any(other.stage == SENT for other in tiers):
            self._release(gathering, slot, go=True)  # the others have gone already
        elif all(other.stage == GATED for other in tiers):
            self._through(gathering, tiers)
        elif not gathering.gate_closing and _enough(tiers):
            # As long again as these took, and no longer: one that is silent must not cost the others the time that their agents need.
            gathering.gate_closing = True
            now_ms = self._clock.now_ms()
            self._sending.timer_at(gathering, now_ms + max(now_ms - gathering.gate_ms, HOP_MS_MIN), self._is_late, gathering, tiers)

    def _is_late(self, gathering: Gathering, tiers: list[Slot]) -> None:
        if not any(slot.stage == SENT for slot in tiers):
            self._through(gathering, tiers)

    def _through(self, gathering: Gathering, tiers: list[Slot]) -> None:
        ready = [slot for slot in tiers if slot.stage == GATED]
        self.took_ms = self._clock.now_ms() - gathering.gate_ms
        if _enough(tiers):
            for slot in ready:
                self._release(gathering, slot, go=True)
            return
        for slot in ready:
            self._release(gathering, slot, go=False)
        self._sending.stop(
            gathering.message.id, f"{len(ready)} of {len(tiers)} {tiers[0].member.role}s were ready, {_needed(tiers):.0%} are needed"
        )

    def _release(self, gathering: Gathering, slot: Slot, *, go: bool) -> None:
        child = self._children.by_row.get(slot.member.row)
        slot.stage = SENT if go else GATED
        if child is not None:
            slot.attempts += 1
            gathering.messages += 1
            child.send(Release, id=gathering.message.id, go=go)
            if go and not child.link.reliable:
                self._resending.watch(gathering, slot, child, lambda: self._release(gathering, slot, go=True))


def _needed(tiers: list[Slot]) -> float:
    return COORDINATORS.ready_min if any(slot.member.role == "coordinator" for slot in tiers) else LEADS_READY_MIN


def _enough(tiers: list[Slot]) -> bool:
    return sum(slot.stage == GATED for slot in tiers) >= _needed(tiers) * len(tiers)
