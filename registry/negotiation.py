"""Which versions of its messages a skill speaks while a fleet is mixed: for each kind, the highest that all its versions know.

The promise is N-2: versions of the last two majors keep talking to each other. A version that declares no messages is not negotiated with. A kind that the new
version no longer speaks, though an active one does, has no version in common; a kind that is new is not used until every node knows it.
"""

from collections.abc import Sequence

import msgspec

from host.core.manifest import Manifest, MessageRange

MAJORS_BEHIND_MAX = 2


class Agreed(msgspec.Struct, frozen=True):
    """One kind of message. `version` is what all speak; 0 where none is common, or where only the new version knows the kind."""

    name: str
    version: int
    only_new: bool = False
    without: tuple[str, ...] = ()
    """The skill versions with which nothing is common."""


def major(version: str) -> int:
    return int(version.split(".", 1)[0])


def negotiate(new: Manifest, active: Sequence[Manifest]) -> tuple[Agreed, ...]:
    """For each kind of message of the new version and of those that are active beside it."""
    if new.messages is msgspec.UNSET:
        return ()
    speaking = [(manifest.version, _ranges(manifest)) for manifest in active if manifest.messages is not msgspec.UNSET]
    ours = _ranges(new)
    names = sorted(set(ours).union(*(ranges for _, ranges in speaking)))
    return tuple(_agree(name, ours.get(name), [(version, ranges.get(name)) for version, ranges in speaking]) for name in names)


def _agree(name: str, ours: MessageRange | None, theirs: list[tuple[str, MessageRange | None]]) -> Agreed:
    known = [(version, span) for version, span in theirs if span is not None]
    if ours is None:
        return Agreed(name, 0, without=tuple(version for version, _ in known))
    if theirs and not known:
        return Agreed(name, 0, only_new=True)
    apart = tuple(version for version, span in known if span.min > ours.max or span.max < ours.min)
    low, high = max([ours.min, *(span.min for _, span in known)]), min([ours.max, *(span.max for _, span in known)])
    if low > high:
        # Each may meet the new one, and yet no single version suits all: then it is the oldest that does not fit.
        return Agreed(name, 0, without=apart or tuple(version for version, span in known if span.max < low))
    return Agreed(name, high)


def _ranges(manifest: Manifest) -> dict[str, MessageRange]:
    return {message.name: message for message in manifest.messages or ()}
