"""What peers on an asyncio event loop, uvloop's or asyncio's own, need of their process: time, and files for their connections."""

import asyncio
import math
import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class LoopTime:
    """Implements `host.mesh.link.Time`. The wall clock is read once: when somebody sets it later, this one goes on evenly."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._offset_ms = time.time() * 1000 - time.perf_counter() * 1000
        self._deferred: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def now_ms(self) -> float:
        # Not loop.time(): uvloop's has a resolution of 1 ms and stands still during a callback.
        return self._offset_ms + time.perf_counter() * 1000

    def call_at(self, at_ms: float, call: Callable[..., Any], *args: Any) -> asyncio.Handle:
        """Late by at most 2 ms on an idle loop, never early."""
        delay_ms = at_ms - self.now_ms()
        if delay_ms <= 0:
            return self._loop.call_soon(call, *args)
        # uvloop rounds a delay to whole ms and counts them from the start of the current one, so it would be up to 1.5 ms early.
        return self._loop.call_later((math.ceil(delay_ms) + 1) / 1000, call, *args)

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """One in each turn of the loop, so that timers and sockets are looked after in between."""
        if not self._deferred:
            self._loop.call_soon(self._call_deferred)
        self._deferred.append((call, args))

    def _call_deferred(self) -> None:
        call, args = self._deferred[0]
        try:
            call(*args)
        finally:
            self._deferred.popleft()
            if self._deferred:
                self._loop.call_soon(self._call_deferred)


def raise_file_limit(wanted: int) -> int:
    """Lets this process open `wanted` files at once, a connection being one, or as many as it may; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    for limits in ((wanted, max(hard, wanted)), (min(hard, wanted), hard)):
        with suppress(ValueError, OSError):  # only root may raise the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return limits[0]
    return soft
