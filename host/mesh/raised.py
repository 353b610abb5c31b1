"""Conflicts that auditors raise, on their way up: each tier notes them, the lead counts them with its other conflicts, and the orchestrator shows them.

An auditor (host/auditing.py) signs such a message and names itself as its target, so a tier that knows nothing of it sends it to nobody. Any agent of the
fleet can be one, and say what it likes: each has its own pace, its own lines of log and its share of what is kept, and takes nothing from the others.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from host.core import cbor
from host.core.errors import Busy, MalformedData, UnknownSender
from host.core.pace import Paces
from host.mesh.message import Message
from host.plugins.conflict import Conflict

AUDITED_CALL, CONFLICT_RAISED = "audit.call", "audit.conflict"
HOST_TOPICS = frozenset({AUDITED_CALL, CONFLICT_RAISED})
"""What comes under these is for the host itself. It may be confidential: no skill is ever given it."""
RAISED_KEPT = 32
RAISED_MS = 3_600_000
"""How long such a message lives at most: an auditor that is cut off for a while is still heard."""
RAISED_PER_S, RAISED_AT_ONCE = 2.0, 64
"""Of one auditor. As many at once as may have waited for a parent that was away (host/mesh/uplink.py)."""
LOGGED_PER_S = 0.1


class Raised:
    """The last conflicts that came to one tier. Of too many, the oldest of the auditor that has the most goes. `now_s` never runs backwards."""

    def __init__(self, log: Callable[[str, str], None], now_s: Callable[[], float]) -> None:
        self._log = log
        self._taken = Paces(RAISED_PER_S, now_s, RAISED_AT_ONCE)
        self._logged = Paces(LOGGED_PER_S, now_s)
        self._last: list[Conflict] = []

    def take(self, message: Message) -> None:
        """Notes one. Raises MalformedData for what is none, UnknownSender for one in another's name, Busy for too many of one auditor."""
        if not self._taken.go(message.source):
            raise Busy(f"conflict raised by {message.source}: at most {RAISED_PER_S:g} a second are taken of one auditor")
        if message.ttl_ms > RAISED_MS:
            raise MalformedData(f"conflict raised by {message.source}: lives {RAISED_MS} ms at most, this one {message.ttl_ms}")
        conflict = cbor.decode_struct(message.payload, Conflict, f"conflict raised by {message.source}")
        if conflict.auditor != message.source:
            raise UnknownSender(f"conflict raised by {message.source}: it names {conflict.auditor} as its auditor")
        self._last.append(conflict)
        if len(self._last) > RAISED_KEPT:
            ((most, _),) = Counter(one.auditor for one in self._last).most_common(1)
            self._last.remove(next(one for one in self._last if one.auditor == most))
        if self._logged.go(message.source):
            self._log("warning", f"{message.source} raises a conflict: {conflict.words}")

    def rows(self) -> list[dict[str, Any]]:
        """Newest first."""
        return [msgspec.to_builtins(conflict) | {"words": conflict.words} for conflict in reversed(self._last)]
