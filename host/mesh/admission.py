"""What a peer lets in: each message once, in its time, from whom it says, and each refusal counted by reason and logged once an interval."""

from collections.abc import Callable

from host.core.errors import Replayed, SnapcountError, Untimely
from host.core.limits import DEFAULT
from host.mesh.message import Message, UnverifiedMessage, Verified
from host.mesh.trust import Trust, may_send

COMPLAINT_MS = 60_000.0


class Complaints:
    """Counts by reason, and logs the first of each reason in each minute, with how many there were since the last."""

    def __init__(self, log: Callable[[str, str], None]) -> None:
        self.counts: dict[str, int] = {}
        self._log = log
        self._logged: dict[str, tuple[float, int]] = {}

    def note(self, error: SnapcountError, who: str, now_ms: float) -> None:
        """`now_ms` is on any clock of this peer that does not run backwards."""
        self.count(error.code)
        count = self.counts[error.code]
        at_ms, before = self._logged.get(error.code, (-COMPLAINT_MS, 0))
        if now_ms - at_ms < COMPLAINT_MS:
            return
        self._logged[error.code] = (now_ms, count)
        more = count - before - 1
        self._log("warning", f"{who}: refused ({error.code}): {error}{f'; {more} more of this kind before' if more else ''}")

    def count(self, reason: str, times: int = 1) -> None:
        """For what is no error of a peer: a message that was dropped to make room, say."""
        self.counts[reason] = self.counts.get(reason, 0) + times


class Window:
    """The sequences of one source: the highest taken, and which of the last `sequence_window` were."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest, self._seen = -1, 0

    def take(self, sequence: int) -> bool:
        """False for one that was taken before, or is too old to tell."""
        size = DEFAULT.sequence_window
        ahead = sequence - self._highest
        if ahead > 0:
            self._seen = 1 if ahead >= size else (self._seen << ahead | 1) & ((1 << size) - 1)
            self._highest = sequence
            return True
        if -ahead >= size or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class Admission:
    """Verifies messages, and knows which it has had. `admit` returns None for one that came before: at least once is for links, once is for us."""

    def __init__(self, trust: Trust, now_ms: Callable[[], float]) -> None:
        self._trust, self._now_ms = trust, now_ms
        self._windows: dict[bytes, Window] = {}
        self._ids: dict[bytes, float] = {}

    def verify(self, raw: bytes) -> Verified[Message]:
        """A message by a source that may send it. Raises UntrustedInput or Refused of some kind; no state changes."""
        unverified = UnverifiedMessage.parse(raw)
        claims = self._trust.source(unverified.envelope.kid)
        verified = unverified.verify()
        may_send(claims, verified.value)
        return verified

    def admit(self, verified: Verified[Message]) -> bool:
        """Whether to act on it; False for one whose id came before. Raises Untimely, Replayed."""
        message, now_ms = verified.value, self._now_ms()
        if now_ms > message.expires_ms:
            raise Untimely(f"message {message.topic} of {message.source}: expired {now_ms - message.expires_ms:.0f} ms ago")
        if message.created_ms > now_ms + DEFAULT.early_ms_max:
            raise Untimely(
                f"message {message.topic} of {message.source}: created {message.created_ms - now_ms:.0f} ms from now; whose clock is wrong?"
            )
        if message.id in self._ids:
            return False
        window = self._windows.get(verified.key)
        if window is None:
            self._make_room_for_a_source()
            window = self._windows[verified.key] = Window()
        if not window.take(message.sequence):
            raise Replayed(
                f"message {message.topic} of {message.source}: its sequence {message.sequence} came before, or is too old to tell"
            )
        self._remember(message, now_ms)
        return True

    def _remember(self, message: Message, now_ms: float) -> None:
        if len(self._ids) >= DEFAULT.ids_remembered_max:
            for id_ in [known for known, expires_ms in self._ids.items() if expires_ms < now_ms] or [next(iter(self._ids))]:
                del self._ids[id_]  # should one of them come again, the window of its source knows it
        self._ids[message.id] = message.expires_ms

    def _make_room_for_a_source(self) -> None:
        if len(self._windows) >= DEFAULT.sources_known_max:
            del self._windows[next(iter(self._windows))]
