"""One step of a roll-out while it is being made: a copy of the state, and what is changed and decided in it."""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from host.core.errors import NetworkError
from host.core.fleet import REMOVED
from registry.rollout_document import Release, Rollout, Stage
from registry.rollout_events import Decision, Kind, Observation
from registry.roster import Member, Roster

Status = Literal["pending", "running", "paused", "held", "rolling-back", "done", "aborted", "rolled-back"]
OPEN: tuple[Status, ...] = ("pending", "running", "paused", "held", "rolling-back")
NO_ANSWER = "no_answer"


class Header(msgspec.Struct, frozen=True):
    """What a roll-out knows beside its nodes. `sample` is how many nodes have to decide in this stage,
    `soak_from_ms` is 0 while some are still to; `releases` are the versions to go back to.

    Statuses: pending waits for a second operator; held is paused by the roll-out itself; rolling-back ends as `ends_as`; done, aborted and rolled-back
    are the ends. When done, late nodes still converge as long as `converging` is set.
    """

    status: Status
    started_ms: int
    stage: int = 0
    sample: int = 0
    soak_from_ms: int = 0
    minute: int = 0
    started_in_minute: int = 0
    converging: bool = True
    ends_as: Status = "aborted"
    ended_ms: int = 0
    reason: str = ""
    releases: dict[str, Release] = {}

    @property
    def is_open(self) -> bool:
        """Whether it has not ended: while so, no other roll-out of the same skill may begin."""
        return self.status in OPEN


@dataclass(frozen=True)
class State:
    """A roll-out at one moment. Never changed: `step` makes the next one."""

    document: Rollout
    header: Header
    roster: Roster

    @property
    def stage(self) -> Stage:
        return self.document.stages[self.header.stage]


@dataclass
class Turn:
    """The step in the making."""

    document: Rollout
    header: Header
    roster: Roster
    now_ms: int
    decisions: list[Decision] = field(default_factory=list)
    changed: dict[str, None] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        return self.document.stages[self.header.stage]

    def set(self, **fields: Any) -> None:
        """Changes the header."""
        self.header = msgspec.structs.replace(self.header, **fields)

    def put(self, node: str, **fields: Any) -> Member:
        """Changes a member."""
        member = msgspec.structs.replace(self.roster[node], **fields)
        self.roster.put(node, member)
        self.changed[node] = None
        return member

    def enrol(self, node: str, member: Member) -> None:
        self.roster.put(node, member)
        self.changed[node] = None

    def decide(self, kind: Kind, numbers: dict[str, int] | None = None, *, node: str = "", digest: str = "", reason: str = "") -> None:
        self.decisions.append(Decision(kind, node, digest, reason, numbers or {}))

    def start(self, node: str) -> None:
        """Tells a node to take the version."""
        answer_ms = (self.document.probation_s + self.document.answer_s) * 1000
        self.put(
            node, phase="flight", told_ms=self.now_ms, deadline_ms=self.now_ms + answer_ms, settles_ms=0, decided_ms=0, code="", message=""
        )
        self.decide("start", node=node, digest=self.document.digest)

    def send_back(self, node: str, reason: str) -> None:
        """Tells a node to run what it ran before."""
        self.decide("back", node=node, digest=self.roster[node].before, reason=reason)

    def undo(self) -> None:
        """Sends back every node that has the version or may have it. Those that failed were sent back when they did."""
        deadline_ms = self.now_ms + self.document.answer_s * 1000
        touched = [node for node, member in self.roster.items() if member.chosen and member.phase in ("flight", "active")]
        for node in touched:
            self.put(node, phase="undoing", deadline_ms=deadline_ms, settles_ms=0)
            self.send_back(node, "")

    def fail(self, node: str, code: str, message: str) -> None:
        self.put(node, phase="failed", decided_ms=self.now_ms, code=code, message=message)

    def succeed(self, node: str) -> None:
        self.put(node, phase="active", decided_ms=self.now_ms, settles_ms=0, code="", message="")

    def observe(self, seen: Observation) -> None:
        """Takes what was heard of one node. A node that does not belong here is nobody."""
        member = self.roster.get(seen.node)
        if member is None:
            return
        if seen.seen == "offline":
            if member.online:
                self.put(seen.node, online=False, seen_ms=self.now_ms)
        elif seen.seen == "online":
            self._came(seen, self.put(seen.node, online=True))
        elif seen.digest == self.document.digest:
            self._reported(seen, member)
        elif seen.seen == "active":
            self._runs_another(seen.node, member)

    def _came(self, seen: Observation, member: Member) -> None:
        if seen.digest != self.document.digest:
            if member.phase == "flight":
                self._wait_again(seen.node, member)
            else:
                self._runs_another(seen.node, member)
        elif member.phase == "flight":
            # It may be on probation still; should it fail, it says so.
            self._wait_again(seen.node, member)
            self.put(seen.node, settles_ms=self.now_ms + self.document.probation_s * 1000)
        elif member.phase == "waiting":
            self.succeed(seen.node)

    def _wait_again(self, node: str, member: Member) -> None:
        self.put(node, deadline_ms=max(member.deadline_ms, self.now_ms + (self.document.probation_s + self.document.answer_s) * 1000))

    def _reported(self, seen: Observation, member: Member) -> None:
        match seen.seen:
            case "fetching" | "installing" | "probation" if member.phase == "flight":
                self._wait_again(seen.node, member)
                self.put(seen.node, settles_ms=0)
            case "active" if member.phase in ("flight", "waiting", "declined"):
                self.succeed(seen.node)
            case "rolled-back" if seen.code == REMOVED and member.phase in ("waiting", "flight", "active"):
                self.put(seen.node, phase="declined", decided_ms=self.now_ms, settles_ms=0, code=seen.code, message=seen.message)
            case "failed" if member.phase == "flight" and seen.code == NetworkError.code:
                # Its link is bad, not the version: it tries again by itself, until its time is up.
                self.put(seen.node, code=seen.code, message=seen.message)
            case "failed" | "rolled-back" if member.phase in ("flight", "active"):
                self.fail(seen.node, seen.code or seen.seen, seen.message)
                self.send_back(seen.node, f"{seen.code or seen.seen}: {seen.message}" if seen.message else seen.code or seen.seen)
            case "failed" | "rolled-back" if member.phase == "undoing":
                self.put(seen.node, phase="undone", decided_ms=self.now_ms)

    def _runs_another(self, node: str, member: Member) -> None:
        """It runs something else. One that had the version has lost it, by its owner or with its disk, and is asked for it still."""
        if member.phase == "undoing":
            self.put(node, phase="undone", decided_ms=self.now_ms)
        elif member.phase == "active" and member.chosen:
            self._wait_again(node, self.put(node, phase="flight", told_ms=self.now_ms, decided_ms=0))
        elif member.phase == "active":
            self.put(node, phase="waiting", decided_ms=0)
