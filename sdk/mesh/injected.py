"""Delays put on a real link, as a far-away agent's network would: frames of each direction wait, and stay in order."""

from typing import Any

from host.mesh.link import Link, Receiver, Time, Transport
from sdk.mesh.delays import AgentDelays


class DelayedTransport:
    """Implements `host.mesh.link.Transport` for one agent."""

    def __init__(self, inner: Transport, time: Time, delays: AgentDelays) -> None:
        self._inner, self._time, self._delays = inner, time, delays

    def dial(self, address: str, receiver: Receiver) -> None:
        self._inner.dial(address, _Delayed(receiver, self._time, self._delays))


class _Line:
    """One direction: a frame is never earlier than the one before it."""

    def __init__(self, time: Time, delays: AgentDelays) -> None:
        self._time, self._delays = time, delays
        self._last_ms = 0.0

    def after(self, call: Any, *args: Any) -> None:
        self._last_ms = max(self._last_ms, self._time.now_ms() + self._delays.network_ms())
        self._time.call_at(self._last_ms, call, *args)


class _Delayed:
    """The receiver that the real transport sees, and the link that the real receiver sees."""

    def __init__(self, receiver: Receiver, time: Time, delays: AgentDelays) -> None:
        self._receiver = receiver
        self._down, self._up = _Line(time, delays), _Line(time, delays)
        self._link: Link | None = None
        self.peer, self.reliable = "", True

    def opened(self, link: Link) -> None:
        self._link, self.peer, self.reliable = link, link.peer, link.reliable
        self._receiver.opened(self)

    def received(self, link: Link, frame: bytes) -> None:
        self._down.after(self._receiver.received, self, frame)

    def closed(self, link: Link | None, reason: str) -> None:
        self._receiver.closed(None if link is None else self, reason)

    def send(self, frame: bytes, priority: int) -> bool:
        assert self._link is not None
        self._up.after(self._link.send, frame, priority)
        return True

    def close(self, reason: str) -> None:
        assert self._link is not None
        self._up.after(self._link.close, reason)
