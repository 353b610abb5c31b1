"""Who is below a tier: its members, the names below each of them, and what of that changed and has to be told upward."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from host.core.errors import TooLarge, UnknownSender
from host.core.limits import DEFAULT
from host.core.manifest import NAME
from host.core.text import safe
from host.mesh.frames import Roster
from host.mesh.gathering import AGENTS_MAX, Member
from host.mesh.link import Time, Timer

ROSTER_MS = 200.0
"""How long changes of a roster are collected: thirty agents that come at once are one frame."""
NAMES_PER_AGENT_MAX = 2  # the tiers between have names as well
_NAME = re.compile(NAME)

Tell = Callable[[Sequence[str], Sequence[str], bool], None]
"""Tells the parent of names that were added, of names that were removed, and whether these are all there are (the first of a link)."""


class Membership:
    """`by_row` are the members. A name that came once belongs to this tier until it is forgotten, connected or not. Without `tell` there is no parent.

    `moved(member, names)` hears of names that were below that member, and have come below another one.
    """

    def __init__(self, time: Time, tell: Tell | None, moved: Callable[[Member, set[str]], None]) -> None:
        self.by_row: dict[int, Member] = {}
        self._time, self._tell, self._moved = time, tell, moved
        self._where: dict[str, Member] = {}
        self._changes: tuple[set[str], set[str]] = (set(), set())
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self.by_row)

    def __contains__(self, name: str) -> bool:
        """Whether it is below this tier, at whatever depth."""
        return name in self._where

    def named(self, names: Iterable[str]) -> list[Member]:
        """The members that have one of these names, or have it below them; each once."""
        return list({id(member): member for member in map(self._where.get, names) if member is not None}.values())

    def above(self, name: str) -> Member | None:
        """The member that has this name, or has it below it."""
        return self._where.get(name)

    def names_of(self, member: Member) -> set[str]:
        return {member.name, *member.names}

    def all_names(self) -> list[str]:
        return [name for member in self.by_row.values() for name in (member.name, *member.names)]

    def came(self, member: Member, names: set[str]) -> None:
        """These names are below this member, or its own."""
        new = {name for name in names if self._where.get(name) is not member}
        for before in self.named(new):
            self._moved(before, {name for name in new if self._where.get(name) is before})
        self._where.update(dict.fromkeys(new, member))
        self._changed(added=new, removed=set())

    def took(self, member: Member, frame: Roster, taken: Collection[str]) -> None:
        """What a child says of those below it. Raises UnknownSender for a name that is no name, or that is among `taken`; TooLarge for too many."""
        _check_added(member, frame, taken)
        if frame.first:
            self._gone(member, member.names - set(frame.added))
            member.names.clear()
        member.names.update(frame.added)
        member.names.difference_update(frame.removed)
        self._gone(member, set(frame.removed))
        self.came(member, set(frame.added))

    def forget(self, member: Member) -> None:
        """Lets a member go, with all below it."""
        del self.by_row[member.row]
        self._gone(member, self.names_of(member))

    def tell_all(self) -> None:
        """To a parent that has just welcomed this tier."""
        self._send(self.all_names(), (), first=True)

    def _gone(self, member: Member, names: set[str]) -> None:
        old = {name for name in names if self._where.get(name) is member}
        for name in old:
            del self._where[name]
        self._changed(added=set(), removed=old)

    def _changed(self, *, added: set[str], removed: set[str]) -> None:
        if self._tell is None or not (added or removed):
            return
        self._changes = (self._changes[0] - removed | added, self._changes[1] - added | removed)
        if self._timer is None:
            self._timer = self._time.call_at(self._time.now_ms() + ROSTER_MS, self._send_changes)

    def _send_changes(self) -> None:
        self._timer = None
        (added, removed), self._changes = self._changes, (set(), set())
        self._send(sorted(added), sorted(removed), first=False)

    def _send(self, added: Sequence[str], removed: Sequence[str], *, first: bool) -> None:
        assert self._tell is not None
        size = DEFAULT.names_per_frame_max
        pieces = max((len(added) + size - 1) // size, (len(removed) + size - 1) // size, int(first))
        for piece in range(pieces):
            part = slice(piece * size, (piece + 1) * size)
            self._tell(added[part], removed[part], first and piece == 0)


def _check_added(member: Member, frame: Roster, taken: Collection[str]) -> None:
    for name in frame.added:
        if not _NAME.match(name) or name in taken:
            raise UnknownSender(f"roster of {member.name}: {safe(name, 64)!r} is not below it")
    known = len(member.names.union(frame.added) if not frame.first else frame.added)
    most = NAMES_PER_AGENT_MAX * AGENTS_MAX[member.role]
    if known > most:
        raise TooLarge(f"roster of {member.name}: {known} names, at most {most} may be below a {member.role}")
