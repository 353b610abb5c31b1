"""The orchestrator's picture of the whole fleet: the latest summary of each sector, those of its clusters, and which of them to believe."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from host.core.errors import TooLarge, UsageError
from host.core.text import safe
from host.mesh.history import History
from host.mesh.impedance import INTERVAL_MS
from host.mesh.summary import Ranked, Summary, compact, merge, unheard

SECTORS_MAX = 1024
CLUSTERS_MAX = 1024
"""Of one sector."""
UNHEARD_AFTER = 4
"""Intervals without a report, after which what a sector said last is not believed any more."""
ACTIVE_MIN = 0.95
"""The share of its agents that a healthy sector has active."""
_TREND_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class Sector:
    """What a sector said last. The clusters' summaries are without candidates: the sector's own has the best of them."""

    summary: Summary
    clusters: tuple[Summary, ...]
    heard_ms: float


class FleetMap:
    """Sectors by name. Times are in ms on any one clock. UsageError for a sector that is not here."""

    def __init__(self, name: str = "fleet", interval_ms: float = INTERVAL_MS) -> None:
        self.name, self.interval_ms = name, interval_ms
        self._sectors: dict[str, Sector] = {}
        self._history = History()
        self._history.add()
        self._trend_due_ms = 0.0

    def __len__(self) -> int:
        return len(self._sectors)

    def report(self, summary: Summary, clusters: Sequence[Summary], now_ms: float) -> None:
        """A sector's own summary, and those of its clusters. Raises TooLarge for one sector too many, or too many clusters in one."""
        if len(clusters) > CLUSTERS_MAX:
            raise TooLarge(f"sector {summary.name}: at most {CLUSTERS_MAX} clusters expected, {len(clusters)} came")
        if summary.name not in self._sectors and len(self._sectors) >= SECTORS_MAX:
            raise TooLarge(f"sector {summary.name}: the map already has {SECTORS_MAX} sectors; forget those that are gone")
        self._sectors[summary.name] = Sector(summary, tuple(compact(cluster) for cluster in clusters), now_ms)
        if now_ms >= self._trend_due_ms:  # once a minute, for totals take a pass over all sectors
            self._trend_due_ms = now_ms + _TREND_MS
            totals = self.totals(now_ms)
            if totals.reachable:
                self._history.note(0, now_ms, totals.mean)

    def forget(self, name: str) -> None:
        """Takes a sector off the map: it was dissolved. One that is only silent stays, and counts as unhealthy."""
        self.sector(name)
        del self._sectors[name]

    def names(self) -> list[str]:
        return sorted(self._sectors)

    def sector(self, name: str) -> Sector:
        sector = self._sectors.get(name)
        if sector is None:
            raise UsageError(f"no sector {safe(name, 64)!r} is on the map; `snapcount fleet status` shows them")
        return sector

    def heard(self, name: str, now_ms: float) -> bool:
        """Whether the sector reported in the last four intervals."""
        return now_ms - self.sector(name).heard_ms <= UNHEARD_AFTER * self.interval_ms

    def ailment(self, name: str, now_ms: float) -> str:
        """Why the sector is not healthy, in a few words for people; empty when it is."""
        sector = self.sector(name)
        if not self.heard(name, now_ms):
            return f"not heard for {(now_ms - sector.heard_ms) / 1000:.0f} s"
        if sector.summary.frozen:
            return "frozen"
        if not sector.summary.agents:
            return "no agents"
        if sector.summary.active < ACTIVE_MIN * sector.summary.agents:
            return f"{sector.summary.active} of {sector.summary.agents} agents active"
        return ""

    def healthy(self, name: str, now_ms: float) -> bool:
        """Heard lately, not frozen, and at least 95 % of its agents active."""
        return not self.ailment(name, now_ms)

    def sectors_healthy(self, now_ms: float) -> int:
        return sum(self.healthy(name, now_ms) for name in self._sectors)

    def totals(self, now_ms: float) -> Summary:
        """The fleet as one. The agents of a sector that is not heard any more count as offline, whatever it said last."""
        believed = (
            sector.summary if self.heard(name, now_ms) else unheard(sector.summary) for name, sector in sorted(self._sectors.items())
        )
        return merge(self.name, "federation", tuple(believed))

    def best(self, capability: str, count: int, ceiling: float, now_ms: float) -> list[Ranked]:
        """Up to `count` agents with the capability and a score of at most `ceiling`, the best first.

        Only from sectors that are heard and not frozen. Exact up to three: a sector names its best three. Beyond that it is the best of
        those named.
        """
        open_sectors = (sector for name, sector in self._sectors.items() if self.heard(name, now_ms) and not sector.summary.frozen)
        candidates = (group for sector in open_sectors for group in sector.summary.candidates if group.capability == capability)
        ranked = (one for group in candidates for one in group.best if one.score <= ceiling)
        return heapq.nsmallest(count, ranked, key=lambda one: (one.score, one.name))

    def trend(self) -> float:
        """How the mean score changes, in points per hour over the last hour; above 0 the fleet gets slower."""
        return self._history.trend(0)
