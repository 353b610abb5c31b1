"""The answers to one message at one tier: where each child stands, and what to report of them."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from host.core.limits import DEFAULT
from host.mesh.agent import FROZEN
from host.mesh.frames import CONFLICT, HISTOGRAM_MS, READY, TRANSIT, Ack, Reply, Report
from host.mesh.link import Timer
from host.mesh.message import Message, Verified

# Where one child stands. All from ANSWERED on are final.
WAITING, GATE, GATED, SENT, PREPARED, ANSWERED, REPORTED, UNFIT = range(8)
AGENTS_MAX = {"agent": 1, "lead": DEFAULT.children_max, "coordinator": 32 * DEFAULT.children_max}
"""How many agents may stand behind a child, by its role: what it says of its subtree is not proven, so it is bounded."""
COUNT_PER_AGENT_MAX = 32
"""Of what a report counts beside agents: messages, replies that were dropped, names that did not fit."""
INCAPABLE, TOO_LATE, AWAY = "incapable", "too_late", "away"


class Member:
    """Someone who belongs to this tier, connected or not. `names` are those in its subtree, `agents` how many of them are agents."""

    __slots__ = ("agents", "capabilities", "name", "names", "role", "row")

    def __init__(self, name: str, row: int, role: str, capabilities: frozenset[str]) -> None:
        self.name, self.row, self.role, self.capabilities = name, row, role, capabilities
        self.agents = 1 if role == "agent" else 0
        self.names: set[str] = set()


class Slot:
    """One child's place in a gathering. Times are fleet time: `sent_ms` of the first copy, `resent_ms` of the second."""

    __slots__ = ("ack", "attempts", "code", "member", "order", "report", "report_by_ms", "resent_ms", "sent_ms", "stage", "timer")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.stage = WAITING
        self.sent_ms = self.resent_ms = self.report_by_ms = 0.0
        self.order = 0
        self.attempts = 0
        self.code = ""
        self.ack: Ack | None = None
        self.report: Report | None = None
        self.timer: Timer | None = None


class Gathering:
    """`errors_ms` holds when each agent was READY, less T; for a message without T, less when it was sent."""

    def __init__(self, message: Verified[Message], members: Iterable[Member], report_by_ms: float, reply_bytes: int) -> None:
        self.verified, self.message = message, message.value
        self.report_by_ms, self.reply_bytes = report_by_ms, reply_bytes
        self.slots = {member.row: Slot(member) for member in members}
        self.open = len(self.slots)
        self.agents = max(sum(slot.member.agents for slot in self.slots.values()), 1)
        self.errors_ms, self.acted_errors_ms = array("f"), array("f")
        self.messages = 0
        self.gate_ms = 0.0
        """When its gate was opened, in fleet time."""
        self.gate_closing = False
        """Enough are at the gate, and the last are waited for."""
        self.stopped = ""
        """Why the message went no further than this tier; empty when it did."""

    def exclude(self, slot: Slot, code: str) -> None:
        """This child is not sent to."""
        if slot.stage < ANSWERED:
            slot.stage, slot.code = UNFIT, code
            self.open -= 1

    def acknowledged(self, slot: Slot, ack: Ack) -> bool:
        """Takes an agent's answer; False for one that tells nothing new."""
        if slot.stage >= ANSWERED or (ack.acted and slot.stage != PREPARED) or (not ack.acted and slot.stage == PREPARED):
            return False
        at_ms = self.message.at_ms
        if ack.acted:
            slot.ack = ack
            self.acted_errors_ms.append(ack.done_ms - (at_ms or slot.sent_ms))
            self._close(slot, ANSWERED)
            return True
        slot.ack = ack
        if ack.state == READY:
            self.errors_ms.append(ack.done_ms - (at_ms or slot.sent_ms))
        if ack.state == READY and self.message.confirm and at_ms:
            slot.stage = PREPARED
        else:
            self._close(slot, ANSWERED)
        return True

    def reported(self, slot: Slot, report: Report) -> bool:
        if slot.stage >= ANSWERED:
            return False
        slot.report = report
        self._close(slot, REPORTED)
        return True

    def cancel_timers(self) -> None:
        for slot in self.slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
                slot.timer = None

    def _close(self, slot: Slot, stage: int) -> None:
        slot.stage = stage
        self.open -= 1

    def _state(self, slot: Slot) -> int | None:
        """READY, TRANSIT or CONFLICT of an agent; None for one that was never sent to. READY counts until half a window after T."""
        ack = slot.ack
        if ack is None:
            return TRANSIT if slot.stage in (GATE, GATED, SENT) else (CONFLICT if slot.code == FROZEN else None)
        late = self.message.at_ms and not ack.acted and ack.done_ms > self.message.at_ms + self.message.window_ms / 2
        return TRANSIT if ack.state == READY and late else ack.state

    def report(self) -> dict[str, Any]:
        """The fields of a Report, but for `n`."""
        total = _Total(self.reply_bytes)
        total.count(messages=self.messages)
        for slot in self.slots.values():
            if slot.report is not None:
                total.add(slot.report)
            elif slot.member.role == "agent":
                total.agent(slot, self._state(slot))
            else:
                total.silent(slot, sent=slot.stage in (GATE, GATED, SENT))
        fields = total.fields()
        fields["ready_errors"] = _summed(fields.pop("ready_errors"), histogram(self.errors_ms))
        fields["acted_errors"] = _summed(fields.pop("acted_errors"), histogram(self.acted_errors_ms))
        return fields | {"id": self.message.id}


class _Total:
    """Sums up slots, within the bounds of a report."""

    def __init__(self, reply_bytes: int) -> None:
        self._counts = dict.fromkeys(
            ("expected", "ready", "transit", "conflict", "skipped", "acted", "failed", "missing_more", "replies_dropped", "messages"), 0
        )
        self._subtrees: list[str] = []
        """Who stands for many is named before any single agent."""
        self._missing: list[str] = []
        self._replies: list[Reply] = []
        self._reply_bytes = reply_bytes
        self._ready_errors: tuple[int, ...] = ()
        self._acted_errors: tuple[int, ...] = ()

    def count(self, **counts: int) -> None:
        for name, count in counts.items():
            self._counts[name] += count

    def miss(self, name: str) -> None:
        (self._subtrees if name.endswith(")") else self._missing).append(name)

    def reply(self, reply: Reply) -> None:
        size = len(reply.payload) + len(reply.detail) + len(reply.name) + len(reply.code) + 40
        if size > self._reply_bytes:
            self._counts["replies_dropped"] += 1
            return
        self._reply_bytes -= size
        self._replies.append(reply)

    def add(self, report: Report) -> None:
        most = COUNT_PER_AGENT_MAX * (report.expected + DEFAULT.children_max)
        self.count(**{name: min(getattr(report, name), most) for name in self._counts})
        for name in report.missing:
            self.miss(name)
        for reply in report.replies:
            self.reply(reply)
        self._ready_errors = _summed(self._ready_errors, report.ready_errors)
        self._acted_errors = _summed(self._acted_errors, report.acted_errors)

    def agent(self, slot: Slot, state: int | None) -> None:
        names = {READY: "ready", TRANSIT: "transit", CONFLICT: "conflict"}
        self.count(expected=1, **{"skipped" if state is None else names[state]: 1})
        ack = slot.ack
        if ack is not None and ack.acted:
            self.count(acted=1, failed=int(ack.state != READY))
        if state is None or state == TRANSIT:
            self.miss(slot.member.name)
        if ack is not None and (ack.payload or ack.detail or ack.state == CONFLICT):
            self.reply(Reply(name=slot.member.name, state=ack.state, code=ack.code, detail=ack.detail, payload=ack.payload))
        elif slot.code:
            self.reply(Reply(name=slot.member.name, state=TRANSIT if state is None else state, code=slot.code))

    def silent(self, slot: Slot, *, sent: bool) -> None:
        """A whole subtree of which nothing is known."""
        agents = slot.member.agents
        self.count(expected=agents, **{"transit" if sent else "skipped": agents})
        self._subtrees.insert(0, f"{slot.member.name[:40]} (all {agents})")
        if slot.code:
            self.reply(Reply(name=slot.member.name, state=TRANSIT, code=slot.code))

    def fields(self) -> dict[str, Any]:
        names = [*self._subtrees, *self._missing]
        self.count(missing_more=max(len(names) - DEFAULT.stragglers_max, 0))
        return {
            **self._counts, "missing": tuple(names[: DEFAULT.stragglers_max]), "replies": tuple(self._replies), "ready_errors": self._ready_errors,
            "acted_errors": self._acted_errors,
        }  # fmt: skip


def histogram(errors_ms: Sequence[float]) -> tuple[int, ...]:
    """Counts for the bins of HISTOGRAM_MS; empty for no errors."""
    if not errors_ms:
        return ()
    counts = [0] * (len(HISTOGRAM_MS) + 1)
    for error_ms in errors_ms:
        counts[bisect_right(HISTOGRAM_MS, error_ms)] += 1
    return tuple(counts)


def _summed(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    if not one or not other:
        return tuple(one or other)
    return tuple(a + b for a, b in zip(one, other, strict=True))
