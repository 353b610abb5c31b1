"""Conflicts that auditors raise, on their way up: each tier notes them, the lead counts them with its other conflicts, and the orchestrator shows them.

An auditor (host/auditing.py) signs such a message and names itself as its target, so a tier that knows nothing of it sends it to nobody.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from host.core import cbor
from host.core.errors import UnknownSender
from host.mesh.message import Message
from host.plugins.conflict import Conflict

CONFLICT_RAISED = "audit.conflict"
RAISED_KEPT = 32
RAISED_MS = 3_600_000
"""How long such a message lives: an auditor that is cut off for a while is still heard."""


class Raised:
    """The last conflicts that came to one tier."""

    def __init__(self, log: Callable[[str, str], None]) -> None:
        self._log = log
        self._last: deque[Conflict] = deque(maxlen=RAISED_KEPT)

    def take(self, message: Message) -> None:
        """Notes one. Raises MalformedData for what is none, UnknownSender for one in another's name."""
        conflict = cbor.decode_struct(message.payload, Conflict, f"conflict raised by {message.source}")
        if conflict.auditor != message.source:
            raise UnknownSender(f"conflict raised by {message.source}: it names {conflict.auditor} as its auditor")
        self._last.append(conflict)
        self._log("warning", f"{message.source} raises a conflict: {conflict.words}")

    def rows(self) -> list[dict[str, Any]]:
        """Newest first."""
        return [msgspec.to_builtins(conflict) | {"words": conflict.words} for conflict in reversed(self._last)]
