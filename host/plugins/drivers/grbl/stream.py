"""Character counting: how many bytes are on their way to the controller or in its buffer, and which line the next answer belongs to.

A line is *waiting* until it is sent, *in flight* until the controller answers it. It leaves the controller's buffer before it is answered, so the
bytes in flight are never fewer than those in the buffer. Real-time commands take no room there and are no business of this module.
"""

from collections import deque
from typing import NamedTuple

from host.plugins.drivers.grbl.protocol import LINE_CHARACTERS_MAX, RX_BYTES


class Line(NamedTuple):
    """`number` counts a job's lines from 1; 0 is a line of the driver's own. With `alone` nothing else is in flight beside it.

    `slow_s` is how long the controller may take for it while it reports to be idle.
    """

    text: str
    number: int = 0
    alone: bool = False
    slow_s: float = 0.0

    @property
    def size(self) -> int:
        return len(self.text) + 1


class Stream:
    """Lines in order. `bytes_in_flight` never exceeds `capacity`; `peak` is the most that it has been."""

    def __init__(self, capacity: int = RX_BYTES) -> None:
        self.capacity = capacity
        self.waiting: deque[Line] = deque()
        self.in_flight: deque[Line] = deque()
        self.bytes_in_flight = 0
        self.peak = 0

    def __bool__(self) -> bool:
        """Whether any line is not answered yet."""
        return bool(self.waiting or self.in_flight)

    @property
    def last(self) -> Line | None:
        """The youngest line that is not answered yet."""
        return self.waiting[-1] if self.waiting else self.in_flight[-1] if self.in_flight else None

    def add(self, line: Line) -> None:
        assert line.text.isascii() and line.text.isprintable() and 0 < len(line.text) <= LINE_CHARACTERS_MAX, line
        assert not set("?!~") & set(line.text), "a real-time command in a line would act at once"
        self.waiting.append(line)

    def take(self) -> bytes:
        """The lines that the controller has room for now. They are in flight from here on."""
        out = bytearray()
        while self.waiting and self._may_go(self.waiting[0]):
            line = self.waiting.popleft()
            self.in_flight.append(line)
            self.bytes_in_flight += line.size
            out += line.text.encode() + b"\n"
        self.peak = max(self.peak, self.bytes_in_flight)
        return bytes(out)

    def answered(self) -> Line | None:
        """The line that an answer which came belongs to; None where no line waits for one."""
        if not self.in_flight:
            return None
        line = self.in_flight.popleft()
        self.bytes_in_flight -= line.size
        return line

    def drop_waiting(self) -> None:
        """Forgets the lines that were not sent."""
        self.waiting.clear()

    def drop(self) -> None:
        """Forgets all lines: the controller was reset, or is gone."""
        self.waiting.clear()
        self.in_flight.clear()
        self.bytes_in_flight = 0

    def _may_go(self, line: Line) -> bool:
        if self.in_flight and (line.alone or self.in_flight[-1].alone):
            return False
        return self.bytes_in_flight + line.size <= self.capacity
