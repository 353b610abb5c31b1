"""What the core is handed instead of reaching for it: time and randomness."""

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Unix time and a time that never runs backwards, both in milliseconds."""

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class Random(Protocol):
    def token(self, size: int) -> bytes:
        """`size` random bytes."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class SystemRandom:
    """The kernel's random source."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)
