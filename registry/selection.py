"""Who is meant by a selection, and a sample of them that is stratified over generation and sector.

The sample of `choose`, given the nodes that are chosen already:

- every generation and every sector that has an active node is covered by one that can answer, even where this takes more than the target;
- beyond that, each stratum (generation and sector together) gives nodes in proportion to its size;
- nodes that can be reached go before those that cannot; among equals the order comes from the seed, so it is always the same;
- what was chosen stays chosen: a later, wider sample contains the earlier one.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil

from registry.rollout_document import Selection, Stage

Stratum = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as a sample sees it. `chosen`: it is in the sample already. `answers`: it is reachable, or has decided already."""

    node: str
    generation: int
    sector: str
    chosen: bool
    answers: bool
    active: bool = True

    @property
    def stratum(self) -> Stratum:
        return self.generation, self.sector


def selects(selection: Selection, node: str, generation: int, sector: str, capabilities: Collection[str]) -> bool:
    """Whether a node is meant: every field that is not empty must fit."""
    return (
        (not selection.generations or generation in selection.generations)
        and (not selection.sectors or sector in selection.sectors)
        and (not selection.nodes or any(fnmatchcase(node, glob) for glob in selection.nodes))
        and set(selection.capabilities) <= set(capabilities)
    )


def target(stage: Stage, nodes: int) -> int:
    """How many of `nodes` are to be chosen at the end of this stage."""
    wanted = stage.count if stage.share is None else ceil(round(stage.share * nodes, 6))
    return min(wanted or 0, nodes)


def choose(candidates: Sequence[Candidate], wanted: int, seed: str) -> list[str]:
    """The names to add to the sample, in the order in which they are to be started: those that cover something first."""
    ordered = sorted((c for c in candidates if not c.chosen), key=lambda c: (not c.answers, _rank(seed, c.node)))
    cover = _cover(candidates, ordered)
    sizes = Counter(c.stratum for c in candidates)
    taken = Counter(c.stratum for c in candidates if c.chosen)
    taken.update(c.stratum for c in cover)
    missing = wanted - sum(taken.values())
    names = [c.node for c in cover]
    if missing > 0:
        covering = set(names)
        rest = _in_proportion([c for c in ordered if c.node not in covering], sizes, taken)
        names += [c.node for c in rest[:missing]]
    return names


def _cover(candidates: Iterable[Candidate], ordered: Sequence[Candidate]) -> list[Candidate]:
    """One for each generation and sector that nobody who can answer stands for yet; first those who stand for both."""
    generations = {c.generation for c in candidates if c.active}
    sectors = {c.sector for c in candidates if c.active}
    for c in candidates:
        if c.chosen and c.answers:
            generations.discard(c.generation)
            sectors.discard(c.sector)
    reachable = {c.generation for c in ordered if c.answers}, {c.sector for c in ordered if c.answers}
    # Where nobody can be reached, one that was chosen already stands for its generation when it comes back.
    for c in candidates:
        if c.chosen and c.generation not in reachable[0]:
            generations.discard(c.generation)
        if c.chosen and c.sector not in reachable[1]:
            sectors.discard(c.sector)
    picked: list[Candidate] = []
    for both in (True, False):
        for c in ordered:
            # Who cannot answer stands only for what nobody who can answer could stand for.
            for_generation = c.generation in generations and (c.answers or c.generation not in reachable[0])
            for_sector = c.sector in sectors and (c.answers or c.sector not in reachable[1])
            if c.active and for_generation + for_sector > both:
                picked.append(c)
                generations -= {c.generation} if for_generation else set()
                sectors -= {c.sector} if for_sector else set()
    return picked


def _in_proportion(rest: Iterable[Candidate], sizes: Mapping[Stratum, int], taken: Mapping[Stratum, int]) -> list[Candidate]:
    """By how large a part of its stratum is in the sample with it: so whatever prefix is taken, the strata are in proportion."""
    position: dict[Stratum, int] = defaultdict(int, taken)
    keyed: list[tuple[float, int, Candidate]] = []
    for index, c in enumerate(rest):
        keyed.append(((position[c.stratum] + 0.5) / sizes[c.stratum], index, c))
        position[c.stratum] += 1
    keyed.sort(key=lambda item: item[:2])
    return [c for _, _, c in keyed]


def _rank(seed: str, node: str) -> bytes:
    return hashlib.sha256(f"{seed}/{node}".encode()).digest()[:8]
