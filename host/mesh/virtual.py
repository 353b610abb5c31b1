"""Virtual time, and a network in memory under it: a whole fleet in one process, without waiting, and the same for the same seed.

Nothing happens between two events; an event takes no time. What two runs do alike is compared by `VirtualNetwork.digest`.
"""

from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from math import inf, nextafter
from random import Random
from struct import Struct
from typing import Any

from host.core.errors import NetworkError, UsageError
from host.core.limits import DEFAULT
from host.mesh.link import Receiver
from host.mesh.outbox import Outbox

LIMIT_MS = 3_600_000.0
Delay = Callable[[str, str, Random], float]
"""From the dialler, the listener and the network's randomness: how long one frame takes one way, in ms."""
Admits = Callable[[str], bool]
_STAMP = Struct("<dI").pack


class VirtualTimer:
    """One call to come."""

    __slots__ = ("_args", "_call")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._call, self._args = call, args

    def cancel(self) -> None:
        self._call, self._args = lambda: None, ()

    def arrive(self, frame: bytes) -> None:
        self._call(*self._args)


class VirtualTime:
    """True time, which moves only while it is run. Implements `host.mesh.link.Time` itself, for a peer whose clock is right."""

    def __init__(self, start_ms: float = 0.0) -> None:
        self.events, self._made, self._now_ms = 0, 0, start_ms
        self._heap: list[tuple[float, int, VirtualTimer | VirtualLink, bytes]] = []

    def now_ms(self) -> float:
        return self._now_ms

    def call_at(self, at_ms: float, call: Callable[..., Any], *args: Any) -> VirtualTimer:
        """Of calls for the same time, the one that was asked for first comes first."""
        timer = VirtualTimer(call, args)
        self.post(at_ms, timer)
        return timer

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """At this very moment, after what was asked for it before."""
        self.call_at(self._now_ms, call, *args)

    def post(self, at_ms: float, to: "VirtualTimer | VirtualLink", frame: bytes = b"") -> None:
        """Without a timer of its own, a frame costs half."""
        self._made += 1
        heappush(self._heap, (at_ms if at_ms > self._now_ms else self._now_ms, self._made, to, frame))

    def clock(self, offset_ms: float = 0.0, rate: float = 1.0) -> "VirtualClock":
        """A peer's own clock: now `offset_ms` ahead of true time, and running at `rate` times its speed (1.0001 gains 0.1 ms a second)."""
        return VirtualClock(self, offset_ms, rate)

    def run_until(self, at_ms: float) -> None:
        """Up to and with what is due at `at_ms` of true time, where time then stands."""
        while self._heap and self._heap[0][0] <= at_ms:
            self._step()
        self._now_ms = max(self._now_ms, at_ms)

    def run_for(self, ms: float) -> None:
        self.run_until(self._now_ms + ms)

    def run_while(self, predicate: Callable[[], bool], limit_ms: float = LIMIT_MS) -> bool:
        """Event by event while `predicate()` holds; True once it does not, False when that took more than `limit_ms` or nothing is to come."""
        heap, ends_ms = self._heap, self._now_ms + limit_ms
        while predicate():
            if not heap or heap[0][0] > ends_ms:
                return False
            self._step()
        return True

    def _step(self) -> None:
        self._now_ms, _, to, frame = heappop(self._heap)
        self.events += 1
        to.arrive(frame)


class VirtualClock:
    """Implements `host.mesh.link.Time` as a peer sees it whose clock is wrong."""

    __slots__ = ("_offset_ms", "_rate", "_start_ms", "_time")

    def __init__(self, time: VirtualTime, offset_ms: float, rate: float) -> None:
        if rate <= 0:
            raise UsageError(f"expected a clock that runs forward, found the rate {rate}")
        self._time, self._offset_ms, self._rate, self._start_ms = time, offset_ms, rate, time.now_ms()

    def now_ms(self) -> float:
        return self._shown_ms(self._time.now_ms())

    def call_at(self, at_ms: float, call: Callable[..., Any], *args: Any) -> VirtualTimer:
        true_ms = self._start_ms + (at_ms - self._offset_ms - self._start_ms) / self._rate
        while self._shown_ms(true_ms) < at_ms:  # rounded down: whoever then waits for the rest would wait for ever, at one moment
            true_ms = nextafter(true_ms, inf)
        return self._time.call_at(true_ms, call, *args)

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        self._time.defer(call, *args)

    def _shown_ms(self, true_ms: float) -> float:
        return self._start_ms + self._offset_ms + (true_ms - self._start_ms) * self._rate


class VirtualLink:
    """One end of a connection; implements `host.mesh.link.Link`."""

    __slots__ = ("_arrival_ms", "_ends", "_held", "_network", "_open", "_receiver", "_stood", "_wire", "here", "other", "peer", "reliable")
    other: "VirtualLink"

    def __init__(self, network: "VirtualNetwork", receiver: Receiver, ends: tuple[str, str], here: str, peer: str) -> None:
        self.here, self.peer, self.reliable = here, peer, network.loss == 0
        self._network, self._receiver, self._ends = network, receiver, ends
        self._wire = f"{peer}>{here};".encode()
        self._arrival_ms = 0.0  # of what was sent last from here: nothing overtakes it
        self._open, self._stood, self._held = True, False, Outbox()
        network.links.setdefault(here, {})[self] = None

    def send(self, frame: bytes, priority: int) -> bool:
        """False only while a partition holds back more than an outbox takes; otherwise nothing queues, and priorities make no difference."""
        if not self._open:
            return False
        network = self._network
        if (network.silent or network.apart) and (self.here in network.silent or self._ends in network.apart):
            return self._hold(frame, priority)
        if not self.reliable and network.random.random() < network.loss:
            network.lost += 1
            return True
        network.time.post(self.arrival_ms(), self.other, frame)
        return True

    @property
    def dropped(self) -> list[int]:
        """How many frames were given up during a partition, by priority."""
        return self._held.dropped

    def _hold(self, frame: bytes, priority: int) -> bool:
        if self.reliable and self.here not in self._network.silent:
            return self._held.push(frame, priority)
        self._network.lost += 1
        return True

    def close(self, reason: str) -> None:
        if self._open:
            self._open = False
            self._network.time.call_at(0.0, self.end, reason)
            self.other.hear_of_the_end(f"closed by the other end: {reason}")

    def arrival_ms(self) -> float:
        """When what leaves from here now will arrive."""
        self._arrival_ms = max(self._network.in_a_while_ms(*self._ends), self._arrival_ms)
        return self._arrival_ms

    def begin(self) -> None:
        if self._open:
            self._stood = True
            self._network.note(b"open;" + self._wire, b"")
            self._receiver.opened(self)

    def arrive(self, frame: bytes) -> None:
        network = self._network
        if self._open and self.here not in network.silent:
            network.frames += 1
            network.bytes += len(frame)
            network.note(self._wire, frame)
            self._receiver.received(self, frame)

    def hear_of_the_end(self, reason: str) -> None:
        """The other end is no more, which a partition hides for as long as it lasts, or the other end while it hangs."""
        hidden = self._network.silent.get(self.peer, self._network.apart.get(self._ends))
        if hidden is not None:
            hidden.append((self, reason))
        else:
            self._network.time.call_at(self.other.arrival_ms(), self.end, reason)

    def end(self, reason: str) -> None:
        if self in self._network.links[self.here]:
            del self._network.links[self.here][self]
            self._open = False
            self._network.note(b"end;" + self._wire, reason.encode())
            self._receiver.closed(self if self._stood else None, reason)

    def release(self) -> None:
        """Sends what a partition held back."""
        while (frame := self._held.pop()) is not None:
            self.send(frame, 0)


class VirtualTransport:
    """Implements `host.mesh.link.Transport` for one peer of a virtual network."""

    def __init__(self, network: "VirtualNetwork", name: str) -> None:
        self._network, self._name = network, name

    def dial(self, address: str, receiver: Receiver) -> None:
        self._network.dial(self._name, address, receiver)


class VirtualNetwork:
    """Every connection of a fleet. An endpoint is the name of a transport or the address of a listener; a peer may use one text for both.

    `delay` is asked for each frame and each way; frames of one link never overtake each other. With a `loss` above 0 that share of the frames
    does not arrive, and links are not `reliable`. Both may be changed during a run: the loss is for links that are opened afterwards too.
    """

    def __init__(self, time: VirtualTime, seed: int = 0, *, delay: Delay | None = None, loss: float = 0.0) -> None:
        self.time, self.random, self.loss = time, Random(seed), loss
        self.delay: Delay = delay or (lambda dialler, listener, random: 1.0)
        self.frames = self.bytes = self.lost = 0  # frames and bytes that arrived, and frames that were dropped on the way
        self._digest = blake2b(digest_size=16)
        self._listeners: dict[str, tuple[Receiver, Admits]] = {}
        self._dead: set[str] = set()
        self.links: dict[str, dict[VirtualLink, None]] = {}  # by endpoint; not in sets, which have no order that a seed determines
        self.silent: dict[str, list[tuple[VirtualLink, str]]] = {}  # with the ends of links that nobody hears of meanwhile
        self.apart: dict[tuple[str, str], list[tuple[VirtualLink, str]]] = {}

    def transport(self, name: str) -> VirtualTransport:
        return VirtualTransport(self, name)

    def listen(self, address: str, receiver: Receiver, admits: Admits = lambda peer: True) -> None:
        self._listeners[address] = (receiver, admits)

    def digest(self) -> str:
        """Of every opening, frame and end so far: when, between whom, and its bytes."""
        return self._digest.hexdigest()

    def partition(self, a: str, b: str) -> None:
        """Between two endpoints nothing passes. A reliable link holds its frames until `heal`, as TCP does; one that is not loses them."""
        for ends in ((a, b), (b, a)):
            self.apart.setdefault(ends, [])

    def heal(self, a: str, b: str) -> None:
        ended = [*self.apart.pop((a, b), ()), *self.apart.pop((b, a), ())]
        for link in [link for end in (a, b) for link in self.links.get(end, ()) if {link.here, link.peer} == {a, b}]:
            link.release()
        for link, reason in ended:
            link.hear_of_the_end(reason)

    def silence(self, endpoint: str) -> None:
        """A peer that hangs: its connections stand, it takes whatever is sent, and nothing comes back."""
        self.silent.setdefault(endpoint, [])

    def wake(self, endpoint: str) -> None:
        """Ends `silence`. What was sent meanwhile is lost."""
        for link, reason in self.silent.pop(endpoint, ()):
            link.hear_of_the_end(reason)

    def kill(self, endpoint: str) -> None:
        """A process that dies: its connections break, and whoever dials it is refused."""
        self.wake(endpoint)
        self._dead.add(endpoint)
        for link in list(self.links.get(endpoint, ())):
            link.other.hear_of_the_end("connection lost")
            link.end("killed")

    def revive(self, endpoint: str) -> None:
        """It listens again, and may dial."""
        self._dead.discard(endpoint)

    def dial(self, name: str, address: str, receiver: Receiver) -> None:
        if name in self._dead:
            self._fail(0.0, name, address, receiver, "the dialler was killed")
        elif name in self.silent or address in self.silent or (name, address) in self.apart:
            self._fail(
                self.time.now_ms() + DEFAULT.handshake_ms_max, name, address, receiver, f"no answer in {DEFAULT.handshake_ms_max // 1000} s"
            )
        else:
            self.time.call_at(self.in_a_while_ms(name, address), self._knock, name, address, receiver)

    def _knock(self, name: str, address: str, receiver: Receiver) -> None:
        back_ms = self.in_a_while_ms(name, address)
        listener, admits = self._listeners.get(address, (None, None))
        if listener is None or admits is None or address in self._dead or name in self._dead:
            self._fail(back_ms, name, address, receiver, "nobody listens there")
        elif not admits(name):
            self._fail(back_ms, name, address, receiver, "refused")
        else:
            here = VirtualLink(self, receiver, (name, address), name, address)
            there = VirtualLink(self, listener, (name, address), address, name)
            here.other, there.other = there, here
            self.time.call_at(there.arrival_ms(), here.begin)
            there.begin()

    def _fail(self, at_ms: float, name: str, address: str, receiver: Receiver, why: str) -> None:
        self.note(f"fail;{name}>{address};".encode(), why.encode())
        self.time.call_at(at_ms, receiver.closed, None, f"{NetworkError.code}: {address}: {why}")

    def in_a_while_ms(self, dialler: str, listener: str) -> float:
        return self.time.now_ms() + max(0.0, self.delay(dialler, listener, self.random))

    def note(self, what: bytes, frame: bytes) -> None:
        self._digest.update(_STAMP(self.time.now_ms(), len(frame)) + what + frame)
