"""The registry's columns: one row per agent, numbered as in its arrival table. They hold no rules; host/mesh/impedance.py has those."""

import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from cython_core.arrival_reference import OFFLINE
from host.core.errors import TooLarge, UsageError
from host.core.manifest import HOOK, NAME
from host.core.text import safe
from host.mesh.history import History
from host.mesh.profiler import Vitals

NAME_CHARACTERS_MAX = 64
CAPABILITIES_MAX = 64
"""Of one agent, as in its hello."""
NEVER = math.inf
"""When a free row was last heard, so that no sweep finds it late."""
UNMEASURED = Vitals()

_NAME, _CAPABILITY = re.compile(NAME), re.compile(HOOK)


@dataclass(slots=True)
class Rows:
    """A free row has no name, is OFFLINE and was last heard NEVER. `baseline_ms` is 0 until known; `reasons` are of the quarantined."""

    names: list[str] = field(default_factory=list)
    capabilities: list[tuple[str, ...]] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    agent_class: "array[int]" = field(default_factory=lambda: array("B"))
    generation: "array[int]" = field(default_factory=lambda: array("B"))
    state: "array[int]" = field(default_factory=lambda: array("B"))
    flags: "array[int]" = field(default_factory=lambda: array("B"))
    score: "array[float]" = field(default_factory=lambda: array("d"))
    baseline_ms: "array[float]" = field(default_factory=lambda: array("d"))
    heard_ms: "array[float]" = field(default_factory=lambda: array("d"))
    history: History = field(default_factory=History)
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def add(self) -> int:
        """One free row more; its number."""
        self.names.append("")
        self.capabilities.append(())
        self.vitals.append(UNMEASURED)
        for column in (self.agent_class, self.generation, self.flags):
            column.append(0)
        self.state.append(OFFLINE)
        self.score.append(0.0)
        self.baseline_ms.append(0.0)
        self.heard_ms.append(NEVER)
        self.history.add()
        return len(self.names) - 1

    def start_over(self, row: int) -> None:
        """Drops all that was measured in a row, as when other hardware takes the agent's place."""
        self.vitals[row], self.baseline_ms[row], self.flags[row] = UNMEASURED, 0.0, 0
        self.history.clear(row)

    def free(self, row: int) -> None:
        """Empties a row for another agent. Its state and score are the owner's affair: an index may know them."""
        self.start_over(row)
        self.names[row], self.capabilities[row], self.heard_ms[row] = "", (), NEVER
        self.agent_class[row] = self.generation[row] = 0
        self.reasons.pop(row, None)


def checked_name(name: str) -> str:
    """Raises UsageError for what is no name: a summary that held one would be refused above."""
    if len(name) > NAME_CHARACTERS_MAX or not _NAME.match(name):
        raise UsageError(
            f"an agent's name is lower-case words joined by hyphens, at most {NAME_CHARACTERS_MAX} characters, not {safe(name, 80)!r}"
        )
    return name


def checked_capabilities(capabilities: Iterable[str]) -> tuple[str, ...]:
    """In order, each once. Raises TooLarge, UsageError."""
    each = tuple(sorted(set(capabilities)))
    if len(each) > CAPABILITIES_MAX:
        raise TooLarge(f"an agent has at most {CAPABILITIES_MAX} capabilities, {len(each)} came")
    for capability in each:
        if len(capability) > NAME_CHARACTERS_MAX or not _CAPABILITY.match(capability):
            raise UsageError(f"a capability is a lower-case word of at most {NAME_CHARACTERS_MAX} characters, not {safe(capability, 80)!r}")
    return each
