"""What makes two runs of a skill equal: a clock that stands still, and random bytes from a seed."""

import random

NOW_MS = 1_700_000_000_000


class StillClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_ms(self) -> int:
        return 0


class VirtualClock(StillClock):
    """A clock that moves only when it is told to, and by `step_ms` at each call where that is wanted. A jump moves Unix time alone, as setting a clock does."""

    def __init__(self, now_ms: int = NOW_MS, step_ms: int = 0) -> None:
        self.step_ms, self.began_ms = step_ms, now_ms
        self.reset()

    def reset(self) -> None:
        """As it was made."""
        self._now_ms, self._monotonic_ms = self.began_ms, 0
        self.reads, self._jump_at, self._jump_ms = 0, 0, 0

    def now_ms(self) -> int:
        self.reads += 1
        if self.reads == self._jump_at:
            self.jump(self._jump_ms)
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    def advance(self, ms: int) -> None:
        """Lets time pass."""
        self._now_ms += ms
        self._monotonic_ms += ms

    def jump(self, ms: int) -> None:
        """Sets the clock forward or back."""
        self._now_ms += ms

    def jump_at(self, read: int, ms: int) -> None:
        """Has it jump when it is read for the `read`th time from now; 0 for not at all."""
        self._jump_at, self._jump_ms = self.reads + read if read else 0, ms


class SeededRandom:
    """The same bytes each time it is made, and after each reset."""

    def __init__(self, seed: int = NOW_MS) -> None:
        self.seed = seed
        self.reset()

    def reset(self) -> None:
        self._rng = random.Random(self.seed)

    def token(self, size: int) -> bytes:
        return self._rng.randbytes(size)
