"""Everything that one turn of the controller changes, gathered so that it can be written in one transaction, and thrown away when that fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from host.core.desired import Wanted
from registry import rollout
from registry.assignments import PatchesFor
from registry.audit import Entry
from registry.inventory import Known
from registry.rollout import Outcome
from registry.rollout_document import Selection
from registry.rollout_events import Decision, Event
from registry.rollout_store import Live
from registry.rollout_turn import State

CONTROLLER = "controller"
OF_OPERATORS = ("started", "approved", "paused", "resumed", "aborted", "retried")


@dataclass
class Batch:
    """States as they will be, over those that are."""

    now_ms: int
    live: Mapping[str, Live]
    known: Mapping[str, Known]
    patches: PatchesFor
    states: dict[str, State] = field(default_factory=dict)
    changed: dict[str, dict[str, None]] = field(default_factory=dict)
    wanted: dict[tuple[str, str], Wanted | None] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    again: dict[str, None] = field(default_factory=dict)
    """Nodes that hold an older desired state than they were given."""
    above: dict[str, int] = field(default_factory=dict)
    """Serials that nodes hold, higher than any this registry remembers: it was restored from a backup."""
    flags: dict[str, Selection] | None = None
    """The feature flags after a change; None: they are as they were."""
    flagged: dict[str, None] = field(default_factory=dict)
    """Nodes for whom others are on than they were told."""
    new: Live | None = None
    retired: tuple[str, ...] = ()
    nonce: bytes = b""

    def state(self, name: str) -> State:
        return self.states.get(name) or self.live[name].state

    def step(self, id: str, event: Event, who: str = CONTROLLER) -> None:
        """Raises UsageError for a command that does not fit; then nothing is in the batch."""
        self.take(rollout.step(self.state(id), event, self.now_ms), who)

    def take(self, outcome: Outcome, who: str) -> None:
        document = outcome.state.document
        self.states[document.id] = outcome.state
        self.changed.setdefault(document.id, {}).update(dict.fromkeys(outcome.changed))
        for decision in outcome.decisions:
            self._assign(outcome.state, decision)
            self.entries.append(_entry(document.id, decision, who))

    def _assign(self, state: State, decision: Decision) -> None:
        document = state.document
        if decision.kind == "start":
            runs = self.known[decision.node].skills.get(document.name) if decision.node in self.known else None
            self.wanted[decision.node, document.name] = Wanted(
                name=document.name, version=document.version, digest=document.digest, size=document.size, lane=document.lane,
                patches=self.patches(document.digest, runs[1] if runs else ""), probation_s=document.probation_s, rollout=document.id,
            )  # fmt: skip
        elif decision.kind == "back":
            self.wanted[decision.node, document.name] = _before(state, decision.digest)


def _before(state: State, digest: str) -> Wanted | None:
    """The version to go back to, None where there was none. It has been on probation already."""
    if not digest:
        return None
    release, document = state.header.releases[digest], state.document
    return Wanted(name=document.name, version=release.version, digest=digest, size=release.size, lane=release.lane, rollout=document.id)


def _entry(id: str, decision: Decision, who: str) -> Entry:
    detail: dict[str, Any] = {"rollout": id, "node": decision.node, "digest": decision.digest, "reason": decision.reason} | decision.numbers
    author = who if decision.kind in OF_OPERATORS else CONTROLLER
    return Entry(decision.kind, author, {name: value for name, value in detail.items() if value != ""})
