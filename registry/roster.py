"""The nodes of one roll-out: how far each has come, and what they add up to.

A roster is copied, never changed behind somebody's back: `copy`, then `put` into the copy. What `put` keeps beside the members (counts, who is in flight,
who is ready) could be counted anew from them at any time; it is kept because thirty thousand nodes report one by one.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

Phase = Literal["waiting", "flight", "active", "failed", "declined", "undoing", "undone"]
"""waiting: not told yet. flight: told, not decided. active, failed: decided. declined: its owner does not want it, so it counts nowhere. undoing, undone:
told to go back, and has gone back."""
Key = tuple[str, int | str]
ALL: Key = ("all", "")
NOT_CHOSEN = -1


class Member(msgspec.Struct, frozen=True):
    """One node. `stage` is that for which it was chosen, `before` the digest to go back to ("": none, the skill is taken off).

    `settles_ms` is set when the node was seen with the version but may still be on probation: then it counts as active, unless it says otherwise.
    `seen_ms` is when one that is away was last heard of.
    """

    generation: int
    sector: str
    before: str
    online: bool
    phase: Phase = "waiting"
    stage: int = NOT_CHOSEN
    told_ms: int = 0
    deadline_ms: int = 0
    settles_ms: int = 0
    decided_ms: int = 0
    seen_ms: int = 0
    code: str = ""
    message: str = ""

    @property
    def chosen(self) -> bool:
        return self.stage != NOT_CHOSEN


class Tally(msgspec.Struct, frozen=True):
    """Counts of chosen nodes: `flight` are told, reachable and not decided. Those that are away and not decided count nowhere."""

    flight: int = 0
    active: int = 0
    failed: int = 0

    @property
    def decided(self) -> int:
        return self.active + self.failed

    @property
    def touched(self) -> int:
        return self.flight + self.active + self.failed


NOTHING = Tally()


class Roster:
    """Members by name, with `tallies` by key, `sizes` by generation (chosen or not), and the names in flight (`flight`) and chosen, reachable and waiting (`ready`)."""

    __slots__ = ("_members", "flight", "ready", "sizes", "tallies")

    def __init__(self, members: dict[str, Member] | None = None) -> None:
        self._members: dict[str, Member] = {}
        self.tallies: dict[Key, Tally] = {}
        self.sizes: dict[int, int] = {}
        self.flight: dict[str, None] = {}
        self.ready: dict[str, None] = {}
        for node, member in (members or {}).items():
            self.put(node, member)

    def copy(self) -> "Roster":
        twin = Roster()
        twin._members, twin.tallies = dict(self._members), dict(self.tallies)
        twin.flight, twin.ready, twin.sizes = dict(self.flight), dict(self.ready), dict(self.sizes)
        return twin

    def put(self, node: str, member: Member) -> None:
        former = self._members.get(node)
        if former is not None:
            self._count(former, -1)
            self.sizes[former.generation] -= 1
        self.sizes[member.generation] = self.sizes.get(member.generation, 0) + 1
        self._members[node] = member
        self._count(member, +1)
        _keep(self.flight, node, member.phase in ("flight", "undoing"))
        _keep(self.ready, node, member.phase == "waiting" and member.chosen and member.online)

    def get(self, node: str) -> Member | None:
        return self._members.get(node)

    def __getitem__(self, node: str) -> Member:
        return self._members[node]

    def __contains__(self, node: str) -> bool:
        return node in self._members

    def __len__(self) -> int:
        return len(self._members)

    def items(self) -> Iterator[tuple[str, Member]]:
        return iter(list(self._members.items()))

    def members(self) -> Iterable[Member]:
        return list(self._members.values())

    def tally(self, key: Key) -> Tally:
        return self.tallies.get(key, NOTHING)

    def _count(self, member: Member, by: int) -> None:
        kind = _counted_as(member)
        if kind is None:
            return
        for key in (ALL, ("generation", member.generation), ("sector", member.sector), ("stage", member.stage)):
            was = self.tallies.get(key, NOTHING)
            self.tallies[key] = Tally(was.flight + by * (kind == 0), was.active + by * (kind == 1), was.failed + by * (kind == 2))


def _counted_as(member: Member) -> int | None:
    if not member.chosen:
        return None
    if member.phase == "flight":
        return 0 if member.online else None
    return {"active": 1, "failed": 2}.get(member.phase)


def _keep(names: dict[str, None], node: str, present: bool) -> None:
    if present:
        names.setdefault(node)
    else:
        names.pop(node, None)
