"""The last hour of many scores, one a minute, in 124 bytes each: enough for a trend."""

from array import array

MINUTES = 60
_MINUTE_MS = 60_000.0
_STEPS = 60.0
"""A score is kept in sixtieths, plus one: 0 is a minute that nothing is known of, and 1000 points are 60,001, which 16 bits hold."""
_EMPTY = bytes(2 * MINUTES)


class History:
    """Rows are numbered from 0 and added one by one. Times are in ms on any one clock; one that is set back changes nothing."""

    __slots__ = ("_minute", "_scores")

    def __init__(self) -> None:
        self._scores, self._minute = array("H"), array("I")

    def __len__(self) -> int:
        return len(self._minute)

    def add(self) -> None:
        """One row more, with nothing known."""
        self._scores.frombytes(_EMPTY)
        self._minute.append(0)

    def clear(self, row: int) -> None:
        self._scores[row * MINUTES : (row + 1) * MINUTES] = array("H", _EMPTY)
        self._minute[row] = 0

    def note(self, row: int, now_ms: float, score: float) -> bool:
        """Keeps the score if it is the first in its minute, and says whether it did. Scores are 0 to 1000."""
        minute = int(now_ms / _MINUTE_MS)
        passed = minute - self._minute[row]
        if passed <= 0:
            return False
        first = row * MINUTES
        for gone in range(1, min(passed, MINUTES)):
            self._scores[first + (minute - gone) % MINUTES] = 0
        self._scores[first + minute % MINUTES] = round(score * _STEPS) + 1
        self._minute[row] = minute
        return True

    def points(self, row: int) -> list[tuple[int, float]]:
        """What is known, oldest first: minutes before the newest one (0, -1, …), and scores."""
        first, minute = row * MINUTES, self._minute[row]
        kept = ((-ago, self._scores[first + (minute - ago) % MINUTES]) for ago in reversed(range(MINUTES)))
        return [(at, (value - 1) / _STEPS) for at, value in kept if value]

    def trend(self, row: int) -> float:
        """Points per hour, by least squares over what is known of the last hour; 0.0 with less than two minutes known."""
        points = self.points(row)
        if len(points) < 2:
            return 0.0
        mean_at = sum(at for at, _ in points) / len(points)
        mean_score = sum(score for _, score in points) / len(points)
        spread = sum((at - mean_at) ** 2 for at, _ in points)
        return 60.0 * sum((at - mean_at) * (score - mean_score) for at, score in points) / spread

    def columns(self) -> "tuple[array[int], array[int]]":
        """The scores (MINUTES a row) and each row's newest minute, for a snapshot. Not copies."""
        return self._scores, self._minute

    @classmethod
    def of(cls, scores: "array[int]", minutes: "array[int]") -> "History":
        """The history whose columns these are; it keeps them. ValueError where they do not fit each other or hold what is no score."""
        if len(scores) != MINUTES * len(minutes) or max(scores, default=0) > 1000 * _STEPS + 1:
            raise ValueError("the history's columns do not fit each other, or hold a score over 1000")
        made = cls()
        made._scores, made._minute = scores, minutes
        return made
