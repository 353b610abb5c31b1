"""What makes two runs of a skill equal: a clock that stands still, and random bytes from a seed."""

import random

NOW_MS = 1_700_000_000_000


class StillClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_ms(self) -> int:
        return 0


class SeededRandom:
    """The same bytes each time it is made."""

    def __init__(self, seed: int = NOW_MS) -> None:
        self._rng = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._rng.randbytes(size)
