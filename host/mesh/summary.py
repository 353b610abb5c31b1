"""What a tier tells the one above of its whole subtree, in a few hundred bytes however many agents that has.

A cluster's summary is made from its registry (`summarise`), a sector's from those of its clusters (`merge`), the federation's from those of
its sectors. Scores, leads and flags are those of agents that can be sent to: active or degraded. Counts, means and the histogram add up
exactly; the 95th percentile of a merged summary comes from the histogram and is off by at most one bin, 50 points.
"""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cython_core.arrival_reference import ACTIVE, DEGRADED, OFFLINE, QUARANTINED
from host.core.manifest import HookName, Name
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.profiler import MS_MAX, Delay, nearest_rank
from host.mesh.scoring import SCORE_MAX, SLOW, SPIKING, UNSTABLE

LEAD_SHARE = 0.95
"""The share of a subtree's agents that must be ready in the lead time which it reports; the slowest few must not hold up all others."""
HEAVY_WEIGHT = 1.0
BIN_POINTS = 50
BINS = 21
"""Bin b counts scores from 50 b up to 50 (b + 1); the last one 1000 alone."""
CAPABILITIES_MAX = 16
CANDIDATES_MAX = 3
GENERATIONS_MAX = 255
_UPPER = 0.95

Tier = Literal["cluster", "sector", "federation"]
Points = Annotated[float, Meta(ge=0, le=SCORE_MAX)]
Count = Annotated[int, Meta(ge=0, lt=1 << 32)]


class Ranked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An agent and its score."""

    name: Name
    score: Points


class Candidates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many active agents have a capability, and the best of them, best first."""

    capability: HookName
    agents: Count
    best: Annotated[tuple[Ranked, ...], Meta(min_length=1, max_length=CANDIDATES_MAX)]


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A subtree. `agents` = active + degraded + offline + quarantined; `histogram` counts the scores of the first two, BINS of them.

    `lead_ms` is how early before T a message of weight 0 must be with the tier itself so that `LEAD_SHARE` of those agents are ready,
    `lead_heavy_ms` one of weight 1; 0 when there are none. `conflicts_hour` counts the answers in conflict of the last hour. `candidates`
    are of the capabilities that most agents have, by name. `frozen` means that all of the subtree is.
    """

    name: Name
    tier: Tier
    agents: Count = 0
    active: Count = 0
    degraded: Count = 0
    offline: Count = 0
    quarantined: Count = 0
    mean: Points = 0.0
    p95: Points = 0.0
    slowest: Ranked | None = None
    fastest: Ranked | None = None
    histogram: Annotated[tuple[Count, ...], Meta(min_length=BINS, max_length=BINS)] = (0,) * BINS
    slow: Count = 0
    unstable: Count = 0
    spiking: Count = 0
    lead_ms: Delay = 0.0
    lead_heavy_ms: Delay = 0.0
    conflicts_hour: Count = 0
    frozen: bool = False
    generations: Annotated[tuple[Annotated[int, Meta(ge=1, le=255)], ...], Meta(max_length=GENERATIONS_MAX)] = ()
    candidates: Annotated[tuple[Candidates, ...], Meta(max_length=CAPABILITIES_MAX)] = ()

    def __post_init__(self) -> None:
        if self.active + self.degraded + self.offline + self.quarantined != self.agents:
            raise ValueError(f"expected the agents of all states to be {self.agents} together")
        if sum(self.histogram) != self.reachable:
            raise ValueError(f"expected a histogram of {self.reachable} agents")
        if (self.slowest is None) != (self.reachable == 0) or (self.fastest is None) != (self.reachable == 0):
            raise ValueError("expected a slowest and a fastest agent exactly where some can be sent to")

    @property
    def reachable(self) -> int:
        """How many can be sent to."""
        return self.active + self.degraded


def compact(summary: Summary) -> Summary:
    """Without its candidates: a tier passes its children's summaries on like this, for its own already has the best of their candidates."""
    return msgspec.structs.replace(summary, candidates=()) if summary.candidates else summary


def unheard(summary: Summary) -> Summary:
    """The same subtree when nothing more is known of it: whoever is not quarantined counts as offline."""
    return Summary(
        name=summary.name,
        tier=summary.tier,
        agents=summary.agents,
        offline=summary.agents - summary.quarantined,
        quarantined=summary.quarantined,
        conflicts_hour=summary.conflicts_hour,
        frozen=summary.frozen,
        generations=summary.generations,
    )


def summarise(
    registry: ImpedanceRegistry, name: str, *, share: float = LEAD_SHARE, conflicts_hour: int = 0, frozen: bool = False
) -> Summary:
    """A cluster's summary, of all agents in its lead's registry. `share` is above 0 and at most 1."""
    rows = registry.rows
    here = [row for row, agent in enumerate(rows.names) if agent]
    reachable = array("I", (row for row in here if rows.state[row] in (ACTIVE, DEGRADED)))
    ordered = sorted((rows.score[row], rows.names[row]) for row in reachable)
    scores = [score for score, _ in ordered]
    states = [rows.state[row] for row in here]
    flags = [rows.flags[row] for row in reachable]
    return Summary(
        name=name,
        tier="cluster",
        agents=len(here),
        active=states.count(ACTIVE),
        degraded=states.count(DEGRADED),
        offline=states.count(OFFLINE),
        quarantined=states.count(QUARANTINED),
        mean=math.fsum(scores) / len(scores) if scores else 0.0,
        p95=nearest_rank(scores, _UPPER),
        slowest=_ranked(ordered[-1:]),
        fastest=_ranked(ordered[:1]),
        histogram=histogram(scores),
        slow=sum(flag & SLOW != 0 for flag in flags),
        unstable=sum(flag & UNSTABLE != 0 for flag in flags),
        spiking=sum(flag & SPIKING != 0 for flag in flags),
        lead_ms=min(registry.table.quantile_lead_ms(share, 0.0, reachable), MS_MAX),
        lead_heavy_ms=min(registry.table.quantile_lead_ms(share, HEAVY_WEIGHT, reachable), MS_MAX),
        conflicts_hour=conflicts_hour,
        frozen=frozen,
        generations=tuple(sorted({rows.generation[row] for row in here})),
        candidates=_candidates(registry),
    )


def merge(
    name: str,
    tier: Tier,
    summaries: Sequence[Summary],
    *,
    hops_ms: Mapping[str, float] | None = None,
    share: float = LEAD_SHARE,
    conflicts_hour: int = 0,
    frozen: bool = False,
) -> Summary:
    """The summary of a tier whose children sent these.

    `hops_ms` is the one-way delay in ms to each child by name, added to the lead that the child needs; 0 for a child that is not named. The
    lead is the smallest that covers children with `share` of the agents that can be sent to. `conflicts_hour` are the tier's own, beside
    its children's; it is frozen when that is said or when all its children are.
    """
    hops = hops_ms or {}
    bins = tuple(map(sum, zip(*(summary.histogram for summary in summaries), strict=True))) or (0,) * BINS
    reachable = sum(bins)
    slowest = max((summary.slowest for summary in summaries if summary.slowest), key=_by_score, default=None)
    return Summary(
        name=name,
        tier=tier,
        agents=sum(summary.agents for summary in summaries),
        active=sum(summary.active for summary in summaries),
        degraded=sum(summary.degraded for summary in summaries),
        offline=sum(summary.offline for summary in summaries),
        quarantined=sum(summary.quarantined for summary in summaries),
        mean=min(math.fsum(summary.mean * summary.reachable for summary in summaries) / reachable, SCORE_MAX) if reachable else 0.0,
        p95=min(quantile_of(bins, _UPPER), slowest.score) if slowest else 0.0,
        slowest=slowest,
        fastest=min((summary.fastest for summary in summaries if summary.fastest), key=_by_score, default=None),
        histogram=bins,
        slow=sum(summary.slow for summary in summaries),
        unstable=sum(summary.unstable for summary in summaries),
        spiking=sum(summary.spiking for summary in summaries),
        lead_ms=_covering([(summary.lead_ms + hops.get(summary.name, 0.0), summary.reachable) for summary in summaries], share),
        lead_heavy_ms=_covering([(summary.lead_heavy_ms + hops.get(summary.name, 0.0), summary.reachable) for summary in summaries], share),
        conflicts_hour=conflicts_hour + sum(summary.conflicts_hour for summary in summaries),
        frozen=frozen or (bool(summaries) and all(summary.frozen for summary in summaries)),
        generations=tuple(sorted({generation for summary in summaries for generation in summary.generations})),
        candidates=merge_candidates(summary.candidates for summary in summaries),
    )


def histogram(scores: Iterable[float]) -> tuple[int, ...]:
    """Counts of scores from 0 to 1000 in BINS bins."""
    counts = [0] * BINS
    for score in scores:
        counts[int(score) // BIN_POINTS] += 1
    return tuple(counts)


def quantile_of(bins: Sequence[int], quantile: float) -> float:
    """The nearest-rank quantile of a histogram, within its bin by rank: off by at most one bin. 0.0 of an empty one."""
    rank = max(math.ceil(quantile * sum(bins) - 1e-9), 1)
    for at, count in enumerate(bins):
        if rank <= count:
            return min(BIN_POINTS * (at + rank / count), SCORE_MAX)
        rank -= count
    return 0.0


def merge_candidates(subtrees: Iterable[Sequence[Candidates]]) -> tuple[Candidates, ...]:
    """The candidates of several subtrees as those of one. The best three of each capability are exact where every subtree named it."""
    agents: dict[str, int] = {}
    best: dict[str, list[Ranked]] = {}
    for candidates in subtrees:
        for group in candidates:
            agents[group.capability] = agents.get(group.capability, 0) + group.agents
            best.setdefault(group.capability, []).extend(group.best)
    return tuple(Candidates(capability, agents[capability], _first(best[capability])) for capability in _most_common(agents))


def _candidates(registry: ImpedanceRegistry) -> tuple[Candidates, ...]:
    agents, rows = registry.holders(), registry.rows
    return tuple(
        Candidates(
            capability,
            agents[capability],
            tuple(Ranked(rows.names[row], rows.score[row]) for row in registry.best_rows(capability, CANDIDATES_MAX)),
        )
        for capability in _most_common(agents)
    )


def _most_common(agents: Mapping[str, int]) -> list[str]:
    # By how many have it, not by name alone: a few odd capabilities must not push out the common ones.
    return sorted(sorted(agents, key=lambda capability: (-agents[capability], capability))[:CAPABILITIES_MAX])


def _first(ranked: Iterable[Ranked]) -> tuple[Ranked, ...]:
    return tuple(sorted(ranked, key=_by_score)[:CANDIDATES_MAX])


def _by_score(ranked: Ranked) -> tuple[float, str]:
    return ranked.score, ranked.name


def _ranked(one: Sequence[tuple[float, str]]) -> Ranked | None:
    return Ranked(one[0][1], one[0][0]) if one else None


def _covering(leads: Iterable[tuple[float, int]], share: float) -> float:
    """The smallest lead in ms such that children who need at most that have `share` of the agents. Leads come with numbers of agents."""
    ordered = sorted((lead_ms, agents) for lead_ms, agents in leads if agents)
    needed = share * sum(agents for _, agents in ordered) - 1e-9
    covered = 0
    for lead_ms, agents in ordered:
        covered += agents
        if covered >= needed:
            return min(lead_ms, MS_MAX)
    return 0.0
