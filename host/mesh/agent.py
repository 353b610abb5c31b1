"""The leaf of the mesh: takes messages one after the other, gets ready, says so, holds until T, and acts."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.admission import Complaints
from host.mesh.fleetclock import FleetClock
from host.mesh.frames import CONFLICT, READY
from host.mesh.link import Time
from host.mesh.message import CONTROL, Message, Verified
from host.mesh.profiler import Profiler

UNEXPECTED_STATE, FROZEN = "unexpected_state", "frozen"
ANSWERS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What preparing, or acting, came to: READY or CONFLICT, a code and a line for people, and a payload for the sender."""

    state: int
    code: str = ""
    detail: str = ""
    payload: bytes = b""


class Handler(Protocol):
    """What a message does here. Each call ends in one call of `done`, at once or later, on the mesh's own thread."""

    def prepare(self, message: Message, done: Callable[[Outcome], None]) -> None:
        """Called for a message with an arrival time T, before T."""
        ...

    def act(self, message: Message, done: Callable[[Outcome], None]) -> None:
        """Called at T, or at once for a message that has none."""
        ...

    def state(self) -> str:
        """What a message's `expected` is compared with."""
        ...


class Agent:
    """`answer` sends an Ack: its fields by name. One message is prepared at a time; those with an earlier priority first."""

    def __init__(
        self, time: Time, clock: FleetClock, handler: Handler, profiler: Profiler, complaints: Complaints, answer: Callable[..., None]
    ) -> None:
        self.frozen = False
        """While frozen nothing but control is begun, and nothing is acted on; what waits goes on waiting."""
        self._time, self._clock, self._handler, self._profiler, self._complaints = time, clock, handler, profiler, complaints
        self._answer = answer
        self._waiting: list[tuple[int, int, _Waiting]] = []
        self._count = 0
        self._busy = False
        self._answers: dict[bytes, dict[str, Any]] = {}

    @property
    def queue(self) -> int:
        """How many messages wait, and the one that is being prepared."""
        return len(self._waiting) + self._busy

    def take(self, verified: Verified[Message]) -> None:
        """A message that was let in."""
        waiting = _Waiting(verified, self._clock.now_ms(), self.queue)
        message = verified.value
        if self.frozen and message.priority < CONTROL:
            self._say(waiting, waiting.received_ms, Outcome(CONFLICT, FROZEN))
            return
        if len(self._waiting) >= DEFAULT.inbox_messages_max and not self._make_room(message):
            self._complaints.count(f"dropped_priority_{message.priority}")
            return
        self._push(waiting)
        self._next()

    def wait(self, verified: Verified[Message]) -> None:
        """Puts back what waited when this agent was frozen and ended."""
        self._push(_Waiting(verified, self._clock.now_ms(), self.queue))

    def _push(self, waiting: "_Waiting") -> None:
        self._count += 1
        heapq.heappush(self._waiting, (-waiting.verified.value.priority, self._count, waiting))

    def freeze(self) -> tuple[bytes, ...]:
        """Stops, and returns the messages that wait, as they came."""
        self.frozen = True
        return tuple(waiting.verified.raw for _, _, waiting in sorted(self._waiting))

    def thaw(self) -> None:
        """Goes on with what waited, as far as there is still time for it."""
        self.frozen = False
        now_ms = self._clock.now_ms()
        self._waiting = [item for item in self._waiting if (item[2].verified.value.at_ms or item[2].verified.value.expires_ms) > now_ms]
        heapq.heapify(self._waiting)
        self._next()

    def repeat(self, message_id: bytes) -> None:
        """The parent asks again: the answer was lost."""
        answer = self._answers.get(message_id)
        if answer is not None:
            self._answer(message_id, **answer)

    def _make_room(self, message: Message) -> bool:
        lowest = max(self._waiting, key=lambda item: (item[0], -item[1]))
        if -lowest[0] >= message.priority:
            return False
        self._waiting.remove(lowest)
        heapq.heapify(self._waiting)
        self._complaints.count(f"dropped_priority_{-lowest[0]}")
        return True

    def _next(self) -> None:
        while self._waiting and not self._busy and not (self.frozen and -self._waiting[0][0] < CONTROL):
            _, _, waiting = heapq.heappop(self._waiting)
            message = waiting.verified.value
            if message.expected and message.expected != self._handler.state():
                found = f"expected the state {safe(message.expected, 64)}, it is {safe(self._handler.state(), 64)}"
                self._say(waiting, self._clock.now_ms(), Outcome(CONFLICT, UNEXPECTED_STATE, found))
                continue
            self._busy = True
            begin = self._handler.prepare if message.at_ms else self._handler.act
            begin(message, partial(self._prepared, waiting))

    def _prepared(self, waiting: "_Waiting", outcome: Outcome) -> None:
        self._busy = False
        message, done_ms = waiting.verified.value, self._clock.now_ms()
        self._profiler.processed(done_ms - waiting.received_ms, outcome.state == READY, self._time.now_ms())
        self._say(waiting, done_ms, outcome)
        if message.at_ms and outcome.state == READY:
            self._time.call_at(self._clock.to_own_ms(message.at_ms), self._at_the_snap, waiting)
        self._next()

    def _at_the_snap(self, waiting: "_Waiting") -> None:
        at_ms = self._clock.now_ms()
        if self.frozen:
            self._acted(waiting, at_ms, Outcome(CONFLICT, FROZEN))
        else:
            self._handler.act(waiting.verified.value, partial(self._acted, waiting, at_ms))

    def _acted(self, waiting: "_Waiting", at_ms: float, outcome: Outcome) -> None:
        if outcome.state != READY:
            self._complaints.count("acts_failed")
        if waiting.verified.value.confirm:
            self._say(waiting, at_ms, outcome, acted=True)

    def _say(self, waiting: "_Waiting", done_ms: float, outcome: Outcome, *, acted: bool = False) -> None:
        message_id = waiting.verified.value.id
        answer = {
            "state": outcome.state, "received_ms": waiting.received_ms, "done_ms": done_ms, "queue": min(waiting.queue, 65_535), "acted": acted,
            "code": outcome.code, "detail": outcome.detail, "payload": outcome.payload,
        }  # fmt: skip
        if len(self._answers) >= ANSWERS_KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[message_id] = answer
        # Signing and sending takes longer than getting ready: of many agents in one process, all shall be ready before the first says so.
        self._time.defer(partial(self._answer, message_id, **answer))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A message in the inbox: when it came, and behind how many others."""

    verified: Verified[Message]
    received_ms: float
    queue: int
