"""Probation: whether a version that was just activated is kept for good. Pure: what was seen of it goes in, a verdict comes out.

Rules:

- a version is watched for its window, counted in time that this node ran it. No wall clock counts, so one that jumps neither ends nor prolongs it;
- it goes back at once when, for any kind of fault, it has at least `FAULTS_MIN` in at least `CALLS_MIN` calls, and their rate is above that of the version
  before it by more than `MARGIN`, beyond chance: the lower bound of Wilson's interval (E. B. Wilson, JASA 22, 1927) at `Z` standard errors is compared,
  for the question is asked again every second. Where there was no version before, its rate is 0;
- it goes back when the node was killed `CRASHES_MAX` times in a row, each time within `CRASH_MS` of starting with it;
- it is kept when the window is over and nothing spoke against it. With few calls, or none, nothing can: then the self-test is what it has passed;
- the version that it goes back to is the last one that was kept for good. Where there was none, the skill is taken off.

What it went back from is held back: no plain push brings it again, and a desired state only one that asks anew (host/supply/desired.py).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from host.core.fleet import DIGEST, Digest, Version
from host.core.manifest import Name
from host.plugins.tally import KINDS, Tally

CALLS_MIN, FAULTS_MIN = 5, 3
MARGIN = 0.05
Z = 3.0
CRASHES_MAX, CRASH_MS = 3, 60_000
IN_WORDS = {
    "traps": "calls trapped or gave no sound reply", "deadlines": "calls passed their deadline",
    "exhausted": "calls used up their fuel, memory or host calls", "refused": "calls gave commands that were refused",
}  # fmt: skip
Natural = Annotated[int, Meta(ge=0)]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version on probation, as it is kept on disk.

    `content` is the digest of what its author signed, `previous` the version to go back to (empty: none). `watched_ms` is over all runs of the node,
    `run_ms` of this one; `running` says that no orderly end was written down since. `since` is what was counted of this version before, `baseline` what
    was counted of the previous one. `cause` is why it goes back; empty while it does not.
    """

    name: Name
    version: Version
    digest: Digest
    content: Digest
    previous: Annotated[str, Meta(pattern=rf"{DIGEST}|^\Z")]
    window_s: Natural
    watched_ms: Natural = 0
    run_ms: Natural = 0
    running: bool = True
    crashes: Natural = 0
    since: Tally = Tally()
    baseline: Tally = Tally()
    cause: str = ""

    @property
    def over(self) -> bool:
        return self.watched_ms >= self.window_s * 1000


@dataclass(frozen=True)
class Ended:
    """How a probation ended: `active` (kept for good) or `rolled-back`, and why. `now` is the version that is active after it; empty for none.

    `by_owner`: no probation ended, but the node's owner took the skill off.
    """

    name: str
    version: str
    digest: str
    state: Literal["active", "rolled-back"]
    cause: str
    now: str
    by_owner: bool = False


def advanced(watch: Watch, elapsed_ms: int) -> Watch:
    """After so much more time with it."""
    return msgspec.structs.replace(watch, watched_ms=watch.watched_ms + elapsed_ms, run_ms=watch.run_ms + elapsed_ms)


def stopped(watch: Watch) -> Watch:
    """After an orderly end of the node."""
    return msgspec.structs.replace(watch, running=False, crashes=0)


def started(watch: Watch) -> Watch:
    """After a start of the node; it goes back after too many that ended in a kill."""
    killed_soon = watch.running and watch.run_ms < CRASH_MS
    crashes = watch.crashes + 1 if killed_soon else 0
    cause = watch.cause
    if crashes >= CRASHES_MAX and not cause:
        cause = f"the node was killed {crashes} times in a row within {CRASH_MS // 1000} s of starting with it"
    return msgspec.structs.replace(watch, running=True, run_ms=0, crashes=crashes, cause=cause)


def cause(watch: Watch, counted: Tally) -> str:
    """What speaks against a version, from all that was counted of it; empty where nothing does."""
    if watch.cause:
        return watch.cause
    seen = counted - watch.since
    for kind in KINDS:
        faults, before = getattr(seen, kind), rate(watch.baseline, kind)
        if seen.calls >= CALLS_MIN and faults >= FAULTS_MIN and wilson_lower(faults, seen.calls) > before + MARGIN:
            earlier = f"{before:.1%} with the version before" if watch.previous else "no version before"
            return f"{faults} of {seen.calls} {IN_WORDS[kind]} ({earlier})"
    return ""


def rate(tally: Tally, kind: str) -> float:
    """Faults of a kind for each call; 0 before the first."""
    return min(getattr(tally, kind) / tally.calls, 1.0) if tally.calls else 0.0


def wilson_lower(hits: int, of: int, z: float = Z) -> float:
    """The lower bound of Wilson's interval for a rate of `hits` in `of` trials."""
    hits = min(hits, of)
    share, squared = hits / of, z * z
    spread = z * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    return max((share + squared / (2 * of) - spread) / (1 + squared / of), 0.0)
