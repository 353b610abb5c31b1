"""What goes into a roll-out's state machine (events) and what comes out (decisions)."""

from typing import Literal

import msgspec

from registry.rollout_document import Release
from registry.roster import Member

Seen = Literal["online", "offline", "fetching", "installing", "probation", "active", "failed", "rolled-back"]
Kind = Literal[
    "started", "approved", "stage", "start", "back", "soak", "held", "stopped", "converging-stopped", "paused", "resumed", "aborted", "retried", "ended",
    "superseded", "enrolled",
]  # fmt: skip


class Observation(msgspec.Struct, frozen=True):
    """What was heard of one node. `digest` is the bundle that it reports on or, when it comes online, the one that it runs of this skill ("" for none)."""

    node: str
    seen: Seen
    digest: str = ""
    code: str = ""
    message: str = ""


class Observed(msgspec.Struct, frozen=True):
    """Several at once, in their order: one step for them all."""

    observations: tuple[Observation, ...]


class Enrol(msgspec.Struct, frozen=True):
    """Nodes that have come to belong to the roll-out since it began: new ones, or ones that can run the version now. `releases` is what they go back to."""

    members: dict[str, Member]
    releases: dict[str, Release] = {}


class Tick(msgspec.Struct, frozen=True):
    """Nothing but that time has passed."""


class Pause(msgspec.Struct, frozen=True):
    """Starts nobody more. Thresholds go on being watched."""

    reason: str = ""


class Resume(msgspec.Struct, frozen=True):
    """Goes on. After a hold the stage soaks anew."""

    reason: str = ""


class Abort(msgspec.Struct, frozen=True):
    """Undoes what was done, and ends."""

    reason: str = ""


class Retry(msgspec.Struct, frozen=True):
    """Starts the nodes that failed once more."""

    reason: str = ""


class Approve(msgspec.Struct, frozen=True):
    """The second operator's consent to a roll-out in the lane `safety`."""

    reason: str = ""


class Supersede(msgspec.Struct, frozen=True):
    """Another roll-out of the same skill begins: this one, which has ended, starts no late node any more."""

    reason: str = ""


Command = Pause | Resume | Abort | Retry | Approve | Supersede
Event = Observed | Enrol | Tick | Command


class Decision(msgspec.Struct, frozen=True):
    """One row of the audit log. `start` and `back` also change what `node` shall run: the roll-out's version, or the one of `digest` ("": none)."""

    kind: Kind
    node: str = ""
    digest: str = ""
    reason: str = ""
    numbers: dict[str, int] = {}
