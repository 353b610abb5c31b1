"""The roll-out document: what an operator signs to bring one version of a skill to a fleet. And the actions on it, signed too.

Signing is that of host/core/documents.py. A field that is not known, a value out of bounds or two values that contradict each other is MalformedData that
names it. What a document says about itself is checked here; whether the fleet can take it is for registry/compat.py.
"""

from collections.abc import Collection
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import documents
from host.core.desired import Lane, Size
from host.core.fleet import Digest, Version
from host.core.limits import DEFAULT
from host.core.manifest import HookName, Name

AAD = b"snapcount roll-out 1"
ACTION_AAD = b"snapcount roll-out action 1"
DAY_S = 86_400
MINUTES_PER_DAY = 1_440
EMERGENCY_SOAK_S_MAX = 600
EMERGENCY_CANARY_SHARE_MAX = 0.05
GLOB = r"^[a-z0-9*?-]+\Z"
NONCE_BYTES = 16

Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z", min_length=4, max_length=64)]
Share = Annotated[float, Meta(ge=0, le=1)]
Reason = Annotated[str, Meta(max_length=500)]
Seconds = Annotated[int, Meta(ge=0, le=90 * DAY_S)]
ActionName = Literal["pause", "resume", "abort", "retry", "approve"]


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which nodes are meant; an empty field means every one. `nodes` are names, in which * and ? stand for any characters and any one."""

    generations: Annotated[tuple[Annotated[int, Meta(ge=1, le=255)], ...], Meta(max_length=255)] = ()
    sectors: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=1024)] = ()
    nodes: Annotated[tuple[Annotated[str, Meta(pattern=GLOB, max_length=64)], ...], Meta(max_length=256)] = ()
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=64)] = ()


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One wave. Either `share` (of all selected nodes, 0 to 1) or `count` says how many nodes have the version at its end, those of earlier stages included.

    After the last reachable node of the stage has decided, the stage soaks for `soak_s`. At least `min_sample` nodes must have decided (fewer where
    there are not so many), `success_min` of them for good. More failures than `error_max` stop the roll-out at once. A single generation or sector stops
    it where of at least `stratum_min_sample` of its nodes more than `stratum_error_max` fail.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*\Z", max_length=32)]
    share: Share | None = None
    count: Annotated[int, Meta(ge=1, le=DEFAULT.inventory_nodes_max)] | None = None
    soak_s: Seconds = DAY_S
    min_sample: Annotated[int, Meta(ge=1, le=DEFAULT.inventory_nodes_max)] = 50
    success_min: Share = 0.95
    error_max: Share = 0.05
    stratum_min_sample: Annotated[int, Meta(ge=1, le=1_000)] = 3
    stratum_error_max: Share = 0.4

    def __post_init__(self) -> None:
        if (self.share is None) == (self.count is None):
            raise ValueError(f"stage {self.name}: needs either a share or a count, not both and not neither")
        if self.share == 0:
            raise ValueError(f"stage {self.name}: a share of 0 reaches nobody")
        if self.error_max >= 1 or self.stratum_error_max >= 1:
            raise ValueError(f"stage {self.name}: an error_max of 1 can never be crossed; expected less")


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When nodes may be started, in UTC: on `days` (0 is Monday) from minute `start_min` to before `end_min` of the day. Where the end is smaller, it is on the next day."""

    days: Annotated[tuple[Annotated[int, Meta(ge=0, le=6)], ...], Meta(min_length=1, max_length=7)] = (0, 1, 2, 3, 4, 5, 6)
    start_min: Annotated[int, Meta(ge=0, lt=MINUTES_PER_DAY)]
    end_min: Annotated[int, Meta(ge=0, le=MINUTES_PER_DAY)]

    def __post_init__(self) -> None:
        if self.start_min == self.end_min:
            raise ValueError(
                f"window: it starts and ends at minute {self.start_min}, so it is never open; leave the window out to have none"
            )
        if len(set(self.days)) != len(self.days):
            raise ValueError("window: days names one twice")


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many nodes are started in one minute of the clock, and how many may be in between: started, reachable and not decided."""

    nodes_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 500
    in_flight_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version of the skill, as a node can fetch it."""

    version: Version
    digest: Digest
    size: Size
    lane: Lane = "productivity"


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The document. `previous` is what a node goes back to whose own last version the registry does not hold. `answer_s` is how long a reachable node may
    be silent beyond its probation until it counts as failed. An emergency skips soak and window, and says why.
    """

    id: Id
    name: Name
    version: Version
    digest: Digest
    size: Size
    lane: Lane = "productivity"
    issued_ms: Annotated[int, Meta(ge=0)]
    previous: Release | None = None
    selection: Selection = Selection()
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=16)]
    window: Window | None = None
    rate: Rate = Rate()
    probation_s: Annotated[int, Meta(ge=0, le=30 * DAY_S)] = 600
    answer_s: Annotated[int, Meta(ge=1, le=7 * DAY_S)] = 14_400
    emergency: bool = False
    reason: Reason = ""

    def __post_init__(self) -> None:
        _check_stages(self.stages)
        if self.previous is not None and self.previous.digest == self.digest:
            raise ValueError("previous: it is the very bundle that is rolled out")
        if self.emergency:
            _check_emergency(self)

    @property
    def release(self) -> Release:
        """What this roll-out brings."""
        return Release(version=self.version, digest=self.digest, size=self.size, lane=self.lane)


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator asks of a running roll-out, once: the nonce makes a second use of the same document a replay."""

    id: Id
    action: ActionName
    at_ms: Annotated[int, Meta(ge=0)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    reason: Reason = ""


def default_stages() -> tuple[Stage, ...]:
    """A canary of 2 % over every generation and sector that soaks for a week, then waves of 10, 30 and 100 % a day apart."""
    return (
        Stage(name="canary", share=0.02, soak_s=7 * DAY_S),
        Stage(name="early", share=0.1, soak_s=DAY_S),
        Stage(name="broad", share=0.3, soak_s=DAY_S),
        Stage(name="all", share=1.0, soak_s=0),
    )


def emergency_stages() -> tuple[Stage, ...]:
    """Still a canary first, and no soak."""
    return (
        Stage(name="canary", share=0.02, soak_s=0),
        Stage(name="half", share=0.5, soak_s=0),
        Stage(name="all", share=1.0, soak_s=0),
    )


def sign(rollout: Rollout, operator: SigningKey) -> bytes:
    return documents.sign(rollout, operator, AAD)


def verify(data: bytes, operators: Collection[VerifyKey]) -> Rollout:
    """Raises SignatureInvalid, MalformedData, TooLarge."""
    return documents.verify(data, Rollout, operators, AAD, "roll-out document")


def sign_action(action: Action, operator: SigningKey) -> bytes:
    return documents.sign(action, operator, ACTION_AAD)


def verify_action(data: bytes, operators: Collection[VerifyKey]) -> Action:
    """Raises SignatureInvalid, MalformedData, TooLarge. Whether it came before is for the caller to check."""
    return documents.verify(data, Action, operators, ACTION_AAD, "roll-out action")


def _check_stages(stages: tuple[Stage, ...]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError("stages: two have the same name")
    for earlier, later in pairwise(stages):
        shrinks = earlier.share is not None and later.share is not None and later.share <= earlier.share
        shrinks |= earlier.count is not None and later.count is not None and later.count <= earlier.count
        if shrinks:
            raise ValueError(f"stage {later.name}: is not wider than stage {earlier.name} before it")
    if stages[-1].share != 1:
        raise ValueError(f"stage {stages[-1].name}: the last stage has a share of 1; for fewer nodes narrow the selection")


def _check_emergency(rollout: Rollout) -> None:
    first = rollout.stages[0]
    if not rollout.reason.strip():
        raise ValueError("emergency: needs a reason; it goes into the audit log")
    if rollout.window is not None:
        raise ValueError("emergency: contradicts a window, which it would skip")
    if len(rollout.stages) < 2 or first.share is None or first.share > EMERGENCY_CANARY_SHARE_MAX:
        raise ValueError(f"emergency: it still begins with a canary: a first stage with a share of at most {EMERGENCY_CANARY_SHARE_MAX}")
    for stage in rollout.stages:
        if stage.soak_s > EMERGENCY_SOAK_S_MAX:
            raise ValueError(
                f"emergency: contradicts the soak of {stage.soak_s} s in stage {stage.name}; expected at most {EMERGENCY_SOAK_S_MAX}"
            )
