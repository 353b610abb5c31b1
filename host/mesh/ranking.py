"""Finds the best agents for a capability without looking at all of them: per capability, agents lie in piles of nearly equal score."""

from collections.abc import Iterable, Sequence

PILE_POINTS = 5.0
"""Narrow enough that the best few of 30,000 agents lie with some hundreds, wide enough that a heartbeat seldom moves its agent."""


def pile_of(score: float) -> int:
    return int(score / PILE_POINTS)


class Ranking:
    """Which rows have a capability, by score. Only what is added is known: the owner keeps away those that must not be chosen."""

    __slots__ = ("_piles",)

    def __init__(self) -> None:
        self._piles: dict[str, dict[int, set[int]]] = {}

    def add(self, row: int, capabilities: Iterable[str], pile: int) -> None:
        for capability in capabilities:
            self._piles.setdefault(capability, {}).setdefault(pile, set()).add(row)

    def remove(self, row: int, capabilities: Iterable[str], pile: int) -> None:
        for capability in capabilities:
            piles = self._piles[capability]
            piles[pile].discard(row)
            if not piles[pile]:  # an empty set takes 216 bytes, and a process may hold a thousand leads
                del piles[pile]
                if not piles:
                    del self._piles[capability]

    def best(self, capability: str, count: int, ceiling: float, scores: Sequence[float], names: Sequence[str]) -> list[int]:
        """Up to `count` rows with a score of at most `ceiling`, lowest first, equals by name."""
        piles, found = self._piles.get(capability, {}), list[int]()
        for pile in sorted(piles):
            if len(found) >= count or pile * PILE_POINTS > ceiling:
                break
            found += sorted((row for row in piles[pile] if scores[row] <= ceiling), key=lambda row: (scores[row], names[row]))
        return found[: max(count, 0)]

    def holders(self) -> dict[str, int]:
        """How many rows have each capability."""
        return {capability: sum(map(len, piles.values())) for capability, piles in self._piles.items()}
