"""Is there a controller at the other end, and does it still speak? When to ask it, and when to give the link up."""

from host.core.errors import MachineError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins.drivers.grbl.protocol import Garbled
from host.plugins.drivers.grbl.settings import GrblSettings

SLOW_POLL = 5
"""A machine that rests is asked this many times less often."""
NO_ANSWER = 3
"""A controller that never answered gets this many times the silence before its port is opened anew."""


class LinkWatch:
    """Times of one link. `heard_any` is whether anything of Grbl came over it."""

    def __init__(self, settings: GrblSettings) -> None:
        self._settings = settings
        self.heard_any = False
        self.garbled = 0
        self._in_a_row = 0
        self._poll_s = 0.0
        self._asked_s: float | None = None

    def opened(self, now_s: float) -> None:
        self.heard_any, self._in_a_row = False, 0
        self._poll_s, self._asked_s = now_s, None

    def heard(self) -> None:
        self.heard_any, self._asked_s, self._in_a_row = True, None, 0

    def excuse(self) -> None:
        """The silence until now had a reason."""
        self._asked_s = None

    def ask_soon(self) -> None:
        self._poll_s = 0.0

    def due(self, lively: bool, now_s: float) -> bool:
        """Whether a report is to be asked for now."""
        if now_s < self._poll_s:
            return False
        self._poll_s = now_s + self._settings.status_ms / 1000 * (1 if lively else SLOW_POLL)
        if self._asked_s is None:
            self._asked_s = now_s
        return True

    def next_s(self, now_s: float) -> float:
        """In how many seconds the next one is due."""
        return max(0.0, self._poll_s - now_s)

    def check(self, allowed_s: float, now_s: float) -> None:
        """Raises MachineError when a question has been open for longer than allowed. To be asked only after reading all that came."""
        if self._asked_s is None:
            return
        silent_s = now_s - self._asked_s
        if silent_s > allowed_s * (1 if self.heard_any else NO_ANSWER):
            raise MachineError(f"the controller said nothing for {silent_s:.1f} s")

    def garble(self, message: Garbled) -> None:
        """Counts a line that is not Grbl's. Raises MachineError when nothing else comes."""
        self.garbled += 1
        self._in_a_row += 1
        if self._in_a_row > DEFAULT.machine_garbled_max:
            raise MachineError(
                f"what comes is no Grbl, such as `{safe(message.text, 40)}`; is the speed of {self._settings.baud} baud right?"
            )
