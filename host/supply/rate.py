"""A ceiling on bytes per second: a token bucket, and what waits for it."""

import asyncio
from collections.abc import Callable

BURST_S = 1.0
BURST_BYTES_MIN = 1024


class TokenBucket:
    """Lets `rate_bytes_s` through in the long run, and at most `burst_bytes` at once. Time is passed in, in seconds, and may stand still.

    Who takes more than is there goes into debt and waits until it is paid, so those who wait are served in the order in which they came.
    """

    def __init__(self, rate_bytes_s: float, burst_bytes: float, now_s: float) -> None:
        assert rate_bytes_s > 0 and burst_bytes > 0
        self._rate, self._burst = rate_bytes_s, burst_bytes
        self._tokens, self._at_s = burst_bytes, now_s

    def take(self, count: int, now_s: float) -> float:
        """How many seconds to wait before these bytes are let through."""
        self._tokens = min(self._burst, self._tokens + max(now_s - self._at_s, 0.0) * self._rate)
        self._at_s = max(now_s, self._at_s)
        self._tokens -= count
        return max(-self._tokens / self._rate, 0.0)

    def give_back(self, count: int) -> None:
        """Bytes that were taken and never moved."""
        self._tokens = min(self._burst, self._tokens + count)


class RateLimit:
    """A ceiling that everything under it shares, in one event loop; 0 bytes/s is none. It allows bursts of one second's bytes."""

    def __init__(self, bytes_s: int = 0, now: Callable[[], float] | None = None) -> None:
        self._bytes_s, self._now = bytes_s, now
        self._bucket: TokenBucket | None = None

    def piece(self, most: int) -> int:
        """How many bytes to move at a time: what one second lets through, within [1 KiB, `most`]."""
        return min(most, max(BURST_BYTES_MIN, self._bytes_s)) if self._bytes_s else most

    async def take(self, count: int) -> float:
        """Returns when `count` bytes may move; for how many seconds they were held up."""
        if not self._bytes_s:
            return 0.0
        now_s = (self._now or asyncio.get_running_loop().time)()
        if self._bucket is None:
            self._bucket = TokenBucket(self._bytes_s, max(self._bytes_s * BURST_S, BURST_BYTES_MIN), now_s)
        wait_s = self._bucket.take(count, now_s)
        if wait_s > 0:
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                self._bucket.give_back(count)
                raise
        return wait_s
