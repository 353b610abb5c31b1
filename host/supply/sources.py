"""Where blobs come from: the sources in order of preference, those that are avoided for a while, and whose turn it is in one fetch."""

import random
from collections.abc import Callable, Sequence

from host.core.errors import DigestMismatch, NetworkError, NotServed

AVOID_S = 600.0
RETRY_S_MAX = 30.0


class Sources:
    """Base URLs, the preferred first. One that served wrong bytes comes last for `AVOID_S`: where there is no other, it is asked again."""

    def __init__(self, urls: Sequence[str], now: Callable[[], float]) -> None:
        self.urls = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._now = now
        self._avoided: dict[str, float] = {}

    def in_order(self) -> list[str]:
        """All of them, those that are avoided last."""
        now_s = self._now()
        self._avoided = {url: until_s for url, until_s in self._avoided.items() if until_s > now_s}
        return sorted(self.urls, key=lambda url: url in self._avoided)  # stable: otherwise the preferred first

    def avoid(self, url: str) -> None:
        """Puts it last from now on, for a while."""
        self._avoided[url] = self._now() + AVOID_S


class Turn:
    """Whose turn it is in one fetch, and when it is over: after `attempts_max` attempts in a row without progress, or when nobody is left to ask."""

    def __init__(self, what: str, sources: Sequence[str], attempts_max: int) -> None:
        self._what, self._left, self._attempts_max = what, list(sources), attempts_max
        self._failures = 0
        self._lied = False
        self._problem = "there is no source to fetch it from"
        self._cause: BaseException | None = None

    @property
    def source(self) -> str:
        """Who is asked now. Raises DigestMismatch or NotServed when there is nobody left."""
        if self._left:
            return self._left[0]
        raise (DigestMismatch if self._lied else NotServed)(f"{self._what}: {self._problem}") from self._cause

    @property
    def alternatives(self) -> bool:
        """Whether somebody else could be asked."""
        return len(self._left) > 1

    def rule_out(self, source: str, problem: str, cause: BaseException | None = None, *, lied: bool = False) -> None:
        """Asks this one no more in this fetch."""
        self._left = [other for other in self._left if other != source]
        self._lied = lied or self._lied
        if lied or not self._lied:  # where somebody lied, that is what is told in the end
            self._problem, self._cause = problem, cause
        self._failures = 0

    def postpone(self, source: str) -> None:
        """Asks the others first."""
        self._left = [*(other for other in self._left if other != source), source]

    def failed(self, source: str, how_far: str, problem: str, cause: BaseException, *, progress: bool, alone: bool) -> None:
        """An attempt ended too early. Raises NetworkError after too many without progress in a row; one with progress is followed by another at the same.

        `alone`: nothing may be put together from several sources, so each is asked until it has failed too often by itself.
        """
        self._failures = 0 if progress else self._failures + 1
        if progress:
            return
        attempts = self._attempts_max if alone else max(self._attempts_max, len(self._left))
        if self._failures < attempts:
            if not alone:
                self.postpone(source)
            return
        told = f"{how_far} in {attempts} attempts; the last failed with: {problem}"
        if not (alone and self.alternatives):
            raise NetworkError(f"{self._what}: {told}") from cause
        self.rule_out(source, told, cause)

    def pause_s(self, retry_s: float) -> float:
        """How long to wait before the next attempt: not at all where another source was not asked yet, then longer from round to round."""
        rounds, asked = divmod(self._failures, max(len(self._left), 1))
        if asked:
            return 0.0
        return float(min(retry_s * 2 ** max(rounds - 1, 0), RETRY_S_MAX) * random.uniform(0.5, 1.0))
