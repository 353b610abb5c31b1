"""How the calls of one version of a skill ended, counted by kind: what probation compares, and what an operator sees."""

from typing import Annotated

import msgspec
from msgspec import Meta

from host.core.errors import DeadlineExceeded, FuelExhausted, GuestTrap, HostCallsExceeded, MemoryExceeded, ReplyInvalid

KINDS = ("traps", "deadlines", "exhausted", "refused")
Natural = Annotated[int, Meta(ge=0)]


class Tally(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hook calls that ended, and of those: which trapped or gave back no reply, which passed their deadline, which used up fuel, memory or host calls, and
    in which the safety envelope or a driver refused a command. A skill's own error reply, and what is the host's fault, is none of these.
    """

    calls: Natural = 0
    traps: Natural = 0
    deadlines: Natural = 0
    exhausted: Natural = 0
    refused: Natural = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, name) + getattr(other, name) for name in Tally.__struct_fields__))

    def __sub__(self, other: "Tally") -> "Tally":
        """What has come since `other`; nothing below 0, should `other` not have been before."""
        return Tally(*(max(getattr(self, name) - getattr(other, name), 0) for name in Tally.__struct_fields__))


def kind_of(error: BaseException) -> str:
    """The kind that an error counts as; empty for one that is not the skill's malfunction."""
    match error:
        case DeadlineExceeded():
            return "deadlines"
        case FuelExhausted() | MemoryExceeded() | HostCallsExceeded():
            return "exhausted"
        case GuestTrap() | ReplyInvalid():
            return "traps"
        case _:
            return ""
