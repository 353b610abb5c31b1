"""Puts the messages of a link that is not reliable back into their order, and waits a little for one that is missing: it is sent again."""

from collections.abc import Callable

from host.mesh.frames import Deliver
from host.mesh.link import Time, Timer

GAP_MS_MAX = 400.0
HELD_MAX = 64


class Ordering:
    """One link's. A frame that is older than what was passed on is passed on too: it is one sent again, and is known by its id."""

    def __init__(self, time: Time, pass_on: Callable[[Deliver], None]) -> None:
        self._time, self._pass_on = time, pass_on
        self._next = 1
        self._held: dict[int, Deliver] = {}
        self._gap: Timer | None = None

    def take(self, frame: Deliver) -> None:
        if frame.order < self._next:
            self._pass_on(frame)
            return
        self._held[frame.order] = frame
        self._drain()
        if len(self._held) > HELD_MAX:
            self._give_up()
        elif self._held and self._gap is None:
            self._gap = self._time.call_at(self._time.now_ms() + GAP_MS_MAX, self._give_up)

    def _drain(self) -> None:
        while self._next in self._held:
            frame = self._held.pop(self._next)
            self._next += 1
            self._pass_on(frame)
        if not self._held and self._gap is not None:
            self._gap.cancel()
            self._gap = None

    def _give_up(self) -> None:
        """What is missing may come later, out of order; what waits behind it goes on."""
        self._gap = None
        if self._held:
            self._next = min(self._held)
            self._drain()
            if self._held:
                self._gap = self._time.call_at(self._time.now_ms() + GAP_MS_MAX, self._give_up)
