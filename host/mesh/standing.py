"""What a tier says of its subtree, upward in each heartbeat: made of what it measured itself, and of what its children said, as far as that can be."""

import msgspec

from host.core.errors import MalformedData
from host.mesh.children import Child, Children
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import SUMMARIES_MAX, Heartbeat
from host.mesh.gathering import AGENTS_MAX
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.membership import Membership
from host.mesh.summary import Summary, compact, merge, summarise

HOUR_MS = 3_600_000.0
CONFLICTS_HOUR_MAX = 1_000_000


class Standing:
    """Of the tier `name`; a lead measures its agents, every other adds up."""

    def __init__(
        self, name: str, role: str, registry: ImpedanceRegistry, members: Membership, children: Children, clock: FleetClock
    ) -> None:
        self._name, self._role = name, role
        self._registry, self._members, self._children, self._clock = registry, members, children, clock
        self._conflicts: list[tuple[float, int]] = []

    def note_conflicts(self, count: int) -> None:
        """So many answers in conflict, now."""
        if count:
            self._conflicts.append((self._clock.now_ms(), count))

    def summaries(self, *, frozen: bool) -> tuple[Summary, ...]:
        """This subtree's summary first, then those of the tiers below it."""
        below = [summary for child in self._children.by_row.values() for summary in child.summaries]
        return (self.summary(frozen=frozen), *map(compact, below[: SUMMARIES_MAX - 1]))

    def summary(self, *, frozen: bool) -> Summary:
        """This subtree's."""
        if self._role == "lead":
            return summarise(self._registry, self._name, conflicts_hour=self._conflicts_hour(), frozen=frozen)
        children, members = self._children.by_row, self._members.by_row
        below = {child.row: child.summaries[0] for child in children.values() if child.summaries}
        away = [
            Summary(name=member.name, tier="cluster", agents=member.agents, offline=member.agents)
            for row, member in members.items()
            if row not in below
        ]
        hops_ms = {below[row].name: self._registry.read(members[row].name).vitals.rtt_ms / 2 for row in below}
        return merge(self._name, "sector", (*below.values(), *away), hops_ms=hops_ms, frozen=frozen)

    def _conflicts_hour(self) -> int:
        since_ms = self._clock.now_ms() - HOUR_MS
        self._conflicts = [(at_ms, count) for at_ms, count in self._conflicts if at_ms > since_ms]
        return sum(count for _, count in self._conflicts)


def checked(child: Child, frame: Heartbeat) -> Heartbeat:
    """A child's summaries, as far as they can be: what it says of its subtree goes into sums that must stay within bounds themselves.

    Raises MalformedData.
    """
    own, most = frame.summaries[0], AGENTS_MAX[child.role]
    if child.role == "agent" or own.name != child.name or (child.role == "lead" and len(frame.summaries) > 1):
        raise MalformedData(f"heartbeat of {child.name}: its summaries are not those of a {child.role} and what is below it")
    for summary in frame.summaries:
        parts = (summary.slow, summary.unstable, summary.spiking, *(group.agents for group in summary.candidates))
        if summary.agents > most or max(parts) > summary.agents:
            raise MalformedData(f"heartbeat of {child.name}: counts more agents than a {child.role} has below it")
    if all(summary.conflicts_hour <= CONFLICTS_HOUR_MAX for summary in frame.summaries):
        return frame
    bounded = [msgspec.structs.replace(each, conflicts_hour=min(each.conflicts_hour, CONFLICTS_HOUR_MAX)) for each in frame.summaries]
    return msgspec.structs.replace(frame, summaries=tuple(bounded))
