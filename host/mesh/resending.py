"""Again, where a link may lose it: what was not answered in the time that it takes is sent once more, a few times."""

from collections.abc import Callable

from host.core.limits import DEFAULT
from host.mesh.arrival import LEARNED
from host.mesh.children import Child
from host.mesh.fleetclock import FleetClock
from host.mesh.gathering import Gathering, Slot
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.link import Time

RETRY_MS_MIN, RETRY_LEADS = 150.0, 1.5
TIER_RETRY_MS_MIN, TIER_RETRY_ROUND_TRIPS = 30.0, 3.0
"""A tier confirms at once, and its whole subtree waits for what it did not get."""
REPORT_LATE_MS_MIN, REPORT_LATE_ROUND_TRIPS = 10.0, 1.0


class Resending:
    """One tier's. `estimator` is the arrival kernel's; `under_way` says whether a gathering has not ended."""

    def __init__(self, registry: ImpedanceRegistry, time: Time, clock: FleetClock, under_way: Callable[[Gathering], bool]) -> None:
        self.estimator = LEARNED
        self._registry, self._time, self._clock, self._under_way = registry, time, clock, under_way

    def watch(self, gathering: Gathering, slot: Slot, child: Child, again: Callable[[], None]) -> None:
        """Calls `again` when an answer is due and has not come."""
        if slot.attempts > DEFAULT.retransmits_max:
            return
        patience_ms = min(max(TIER_RETRY_MS_MIN, TIER_RETRY_ROUND_TRIPS * self._round_trip_ms(child)), RETRY_MS_MIN)
        if child.role == "agent":
            lead_ms = self._registry.table.lead_ms(child.row, gathering.message.weight, self.estimator)
            patience_ms = max(RETRY_MS_MIN, RETRY_LEADS * lead_ms) if lead_ms < gathering.message.ttl_ms else RETRY_MS_MIN
        self._again_at(self._time.now_ms() + patience_ms * 2 ** (slot.attempts - 1), gathering, slot, again)

    def watch_report(self, gathering: Gathering, slot: Slot, child: Child, again: Callable[[], None]) -> None:
        """A tier has the message; should its report be lost, a copy of the message brings it again."""
        if slot.attempts > DEFAULT.retransmits_max:
            return
        late_ms = max(REPORT_LATE_MS_MIN, REPORT_LATE_ROUND_TRIPS * self._round_trip_ms(child))
        due_ms = max(self._clock.to_own_ms(slot.report_by_ms), self._time.now_ms())
        self._again_at(due_ms + late_ms, gathering, slot, again)

    def answered(self, slot: Slot) -> None:
        """Nothing more has to be sent there for now."""
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None

    def _again_at(self, own_ms: float, gathering: Gathering, slot: Slot, again: Callable[[], None]) -> None:
        stage = slot.stage

        def check() -> None:
            if self._under_way(gathering) and slot.stage == stage and slot.timer is timer:
                again()

        slot.timer = timer = self._time.call_at(own_ms, check)

    def _round_trip_ms(self, child: Child) -> float:
        return float(self._registry.rows.vitals[child.row].rtt_p95_ms)
