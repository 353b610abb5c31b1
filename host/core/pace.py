"""How often something may happen: so many times a second, of everybody together or of each source by itself."""

import threading
from collections.abc import Callable

from host.core.limits import DEFAULT


class Pace:
    """At most `per_s` a second, and `burst` or as many as in one second at once after a pause; at least one. `now_s` never runs backwards."""

    def __init__(self, per_s: float, now_s: Callable[[], float], burst: float = 1.0) -> None:
        self._per_s, self._now_s, self._most = per_s, now_s, max(per_s, burst, 1.0)
        self._tokens, self._at_s = self._most, now_s()
        self._lock = threading.Lock()

    def go(self) -> bool:
        with self._lock:
            now_s = self._now_s()
            self._tokens = min(self._tokens + (now_s - self._at_s) * self._per_s, self._most)
            self._at_s = now_s
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Paces:
    """A pace for each source, so that none can use up what the others need. Of more than `sources_max`, who was heard least recently is forgotten.

    For one thread.
    """

    def __init__(self, per_s: float, now_s: Callable[[], float], burst: float = 1.0, sources_max: int = DEFAULT.sources_known_max) -> None:
        self._per_s, self._now_s, self._burst, self._sources_max = per_s, now_s, burst, sources_max
        self._of: dict[str, Pace] = {}

    def go(self, source: str) -> bool:
        pace = self._of.pop(source, None) or Pace(self._per_s, self._now_s, self._burst)
        while len(self._of) >= self._sources_max:
            del self._of[next(iter(self._of))]
        self._of[source] = pace
        return pace.go()
