"""What the mesh needs of the world: time, links to other peers, and ways to make them. A transport implements it; nothing else of the mesh does I/O.

Everything runs on one thread and calls back: a peer is a set of functions from events to frames, so the same code runs over real sockets and,
with a whole fleet in one process, under virtual time.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    def cancel(self) -> None:
        """Afterwards its function is not called. Cancelling twice, or late, does nothing."""
        ...


class Time(Protocol):
    """This peer's own clock, and what is to be done at a later time of it."""

    def now_ms(self) -> float:
        """Unix time in ms, finer than 1 ms, that never runs backwards. It may be wrong by any amount."""
        ...

    def call_at(self, at_ms: float, call: Callable[..., Any], *args: Any) -> Timer:
        """Calls once, at `at_ms` or soon after; a time that has passed means at once, but never before this returns."""
        ...

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Calls soon, once whatever is due by now has had its turn, and in the order asked for: for what may be some milliseconds late."""
        ...


class Link(Protocol):
    """One connection to one peer. Frames arrive whole and in order; on a link that is not `reliable` some may not arrive."""

    peer: str
    """Where the other end is, for logs."""
    reliable: bool

    def send(self, frame: bytes, priority: int) -> bool:
        """Queues a frame; priority 3 leaves before 0. False: the queue was full and this one was dropped. After `close` it does nothing."""
        ...

    def close(self, reason: str) -> None:
        """Closes after what has been queued was sent, or soon. `closed` of the receiver follows."""
        ...


class Receiver(Protocol):
    """What a transport calls. Exceptions from it are defects: it deals with bad frames itself."""

    def opened(self, link: Link) -> None: ...

    def received(self, link: Link, frame: bytes) -> None: ...

    def closed(self, link: Link | None, reason: str) -> None:
        """The link has ended; None when it never stood. Called once for each link."""
        ...


class Transport(Protocol):
    def dial(self, address: str, receiver: Receiver) -> None:
        """One attempt. It ends in `opened`, or in `closed(None, reason)`."""
        ...
