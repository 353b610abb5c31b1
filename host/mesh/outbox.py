"""What a link still has to send: a bounded queue by priority, in which what matters least makes room for what matters more."""

from collections import deque

from host.core.limits import DEFAULT

PRIORITIES = 4


class Outbox:
    """Priority 3 leaves first; within one priority the oldest does.

    A full outbox drops the oldest frame of the lowest priority below that of a new one, until the new one fits. Where it could not fit even so,
    it is the new one that is dropped, and nothing else.
    """

    # A process may hold 30,000 of these, nearly all of them empty: a deque alone takes 600 bytes, so there is one only while it holds something.
    __slots__ = ("_bytes", "_dropped", "_frames", "_queues", "bytes_max", "frames_max")

    def __init__(self, frames_max: int = DEFAULT.outbox_frames_max, bytes_max: int = DEFAULT.outbox_bytes_max) -> None:
        self.frames_max, self.bytes_max = frames_max, bytes_max
        self._queues: list[deque[bytes] | None] | None = None
        self._dropped: list[int] | None = None
        self._frames = self._bytes = 0

    def __len__(self) -> int:
        """In frames."""
        return self._frames

    @property
    def size(self) -> int:
        """In bytes."""
        return self._bytes

    @property
    def dropped(self) -> list[int]:
        """How many frames were given up so far, by priority."""
        return list(self._dropped or (0,) * PRIORITIES)

    def push(self, frame: bytes, priority: int) -> bool:
        """False: there was no room, and this frame was dropped. `priority` is 0 to 3."""
        assert 0 <= priority < PRIORITIES
        size = len(frame)
        if (self._frames >= self.frames_max or self._bytes + size > self.bytes_max) and not self._make_room(size, priority):
            self._count(priority)
            return False
        if self._queues is None:
            self._queues = [None] * PRIORITIES
        queue = self._queues[priority]
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.append(frame)
        self._frames += 1
        self._bytes += size
        return True

    def pop(self) -> bytes | None:
        """The next frame to send; None when there is none."""
        if self._queues is None:
            return None
        for priority in range(PRIORITIES - 1, -1, -1):
            if self._queues[priority] is not None:
                return self._take(priority)
        self._queues = None
        return None

    def clear(self) -> None:
        """Forgets what is queued, without counting it as dropped."""
        self._queues, self._frames, self._bytes = None, 0, 0

    def _take(self, priority: int) -> bytes:
        assert self._queues is not None
        queue = self._queues[priority]
        assert queue is not None
        frame = queue.popleft()
        if not queue:
            self._queues[priority] = None
        self._frames -= 1
        self._bytes -= len(frame)
        return frame

    def _make_room(self, size: int, priority: int) -> bool:
        lower = [queue for queue in (self._queues or ())[:priority] if queue is not None]
        excess = self._bytes + size - self.bytes_max
        if not lower or sum(len(frame) for queue in lower for frame in queue) < excess:
            return False
        while self._frames >= self.frames_max or self._bytes + size > self.bytes_max:
            self._drop_lowest()
        return True

    def _drop_lowest(self) -> None:
        assert self._queues is not None
        lowest = next(priority for priority, queue in enumerate(self._queues) if queue is not None)
        self._take(lowest)
        self._count(lowest)

    def _count(self, priority: int) -> None:
        if self._dropped is None:
            self._dropped = [0] * PRIORITIES
        self._dropped[priority] += 1
