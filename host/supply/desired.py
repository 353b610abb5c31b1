"""What this node's operators want it to run: the newest signed desired state, on disk, and what is to be done about it.

Rules, beside those of host/core/desired.py:

- the serial that was taken is kept beside the document, so that no older one is taken even where the document itself is lost or no longer trusted;
- what failed is tried again, later each time; what cannot work until somebody changes something, once an hour;
- a version that probation went back from is not tried again for the same wish. It is again when a later state asks anew: its roll-out is another one, or
  a state between the two, which this node held, did not name the version. So a state that is issued for the sake of another skill, and goes on naming the
  bad version, does not bring it back, and an operator's retry does;
- nothing brings back what the node's owner went back from (`snapcount node rollback`). A skill that the owner took off (`snapcount node remove`) stays off
  until its version is asked for anew: what the same roll-out sends the node back to then is not taken either.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta
from nacl.signing import VerifyKey

from host.core import desired, files
from host.core.bundle import UnverifiedBundle
from host.core.clock import Clock
from host.core.desired import DesiredState, Wanted
from host.core.errors import HostFault, Incompatible, MalformedData, NetworkError, Replayed, SnapcountError
from host.core.fleet import REMOVED, Digest, SkillState, State, Version
from host.core.manifest import Name
from host.core.text import safe
from host.supply.probation import Ended

DOCUMENT, NOTES = "desired.cbor", "desired.json"
AGAIN_MS, AGAIN_MS_MAX = 5_000, 3_600_000
ROLLED_BACK_MAX = 64


@dataclass(frozen=True)
class Step:
    """One thing to do: install `wanted`, or remove the skill `name` where it is None. `again`: probation went back from it before."""

    name: str
    wanted: Wanted | None = None
    again: bool = False


class RolledBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that probation went back from, and the wish that had brought it. `dropped`: a later state did not name it.

    `by_owner`: it was no probation, the owner took the skill off or went back.
    """

    name: Name
    version: Version
    digest: Digest
    rollout: str
    cause: str
    dropped: bool = False
    by_owner: bool = False

    @property
    def code(self) -> str:
        """For a report."""
        return REMOVED if self.by_owner else "probation"


class _Notes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    serial: Annotated[int, Meta(ge=0)] = 0
    rolled_back: tuple[RolledBack, ...] = ()


def plan(
    state: DesiredState, active: Mapping[str, str], rolled_back: Mapping[str, RolledBack], waiting: Collection[str] = frozenset()
) -> list[Step]:
    """What is to be done now, removals first. `active` are digests by skill; `rolled_back` by digest; `waiting` are digests and names that are not due yet."""
    steps = [Step(name) for name in state.remove if name in active and name not in waiting]
    for wanted in state.skills:
        before = rolled_back.get(wanted.digest)
        if active.get(wanted.name) == wanted.digest or wanted.digest in waiting:
            continue
        if wanted.name not in active and _taken_off(wanted, rolled_back):
            continue
        if before is None or asks_anew(wanted, before):
            steps.append(Step(wanted.name, wanted, again=before is not None))
    return steps


def asks_anew(wanted: Wanted, before: RolledBack) -> bool:
    return before.dropped or wanted.rollout != before.rollout


def _taken_off(wanted: Wanted, rolled_back: Mapping[str, RolledBack]) -> bool:
    """Whether this is only what a roll-out goes back to after the owner took its version off."""
    entries = (entry for entry in rolled_back.values() if entry.by_owner and entry.name == wanted.name)
    return any(entry.digest != wanted.digest and entry.rollout == wanted.rollout for entry in entries)


class Keeper:
    """Holds the desired state of one node. `dice` spread the attempts of a fleet."""

    def __init__(
        self, state: Path, node: str, operators: Collection[VerifyKey], clock: Clock, dice: random.Random, log: Callable[[str, str], None]
    ) -> None:
        self._folder, self._node, self._operators = state, node, tuple(operators)
        self._clock, self._dice, self._log = clock, dice, log
        self._document = b""
        self._failures: dict[str, tuple[int, int]] = {}
        self.state: DesiredState | None = None
        self._notes = self._read_notes()
        self._restore()

    @property
    def serial(self) -> int:
        """Of the newest state that was taken; 0 for none."""
        return self._notes.serial

    @property
    def flags(self) -> frozenset[str]:
        """The feature flags that are on."""
        return frozenset() if self.state is None else frozenset(self.state.flags)

    def take(self, document: bytes) -> bool:
        """Takes a newer state; False for the one that it holds.

        Raises SignatureInvalid, MalformedData, TooLarge, Incompatible for another node's, Replayed for an older one, StorageFull, HostFault.
        """
        if document == self._document:
            return False
        state = desired.verify(document, self._operators)
        _check(state)
        if state.node != self._node:
            raise Incompatible(f"desired state {state.serial}: it is for {state.node}, this node is {self._node}")
        if state.serial <= self.serial:
            raise Replayed(f"desired state {state.serial}: this node has taken {self.serial}; issue one with a higher serial")
        files.write_atomic(self._folder / DOCUMENT, document, 0o600)
        self._document, self.state = document, state
        self._failures.clear()
        self._write_notes(_after(self._notes, state))
        return True

    def steps(self, active: Iterable[SkillState]) -> list[Step]:
        """What is to be done now."""
        if self.state is None:
            return []
        now_ms = self._clock.monotonic_ms()
        waiting = {key for key, (_, due_ms) in self._failures.items() if now_ms < due_ms}
        return plan(self.state, {skill.name: skill.digest for skill in active}, self._rolled_back(), waiting)

    def wanted(self, digest: str) -> Wanted | None:
        """What the state that is held says of a digest."""
        return next((wanted for wanted in (self.state.skills if self.state else ()) if wanted.digest == digest), None)

    def wish(self, skill: str) -> Wanted | None:
        """What the state that is held wants of a skill."""
        return next((wanted for wanted in (self.state.skills if self.state else ()) if wanted.name == skill), None)

    def wants(self, digest: str) -> bool:
        """Whether a digest is wanted still, and not given up."""
        return self.wanted(digest) is not None and all(wanted.digest != digest for wanted, _ in self.given_up())

    def names(self, skill: str) -> bool:
        """Whether the state that is held says anything of a skill."""
        return self.state is not None and (skill in self.state.remove or any(wanted.name == skill for wanted in self.state.skills))

    def given_up(self) -> list[tuple[Wanted, RolledBack]]:
        """What is wanted and not tried again, for a report."""
        before = self._rolled_back()
        found = [(wanted, before[wanted.digest]) for wanted in (self.state.skills if self.state else ()) if wanted.digest in before]
        return [(wanted, entry) for wanted, entry in found if not asks_anew(wanted, entry)]

    def done(self, step: Step) -> None:
        self._failures.pop(_key(step), None)

    def failed(self, step: Step, error: SnapcountError) -> None:
        """It is tried again, after 5 s at first and twice as long each time; what time alone does not mend, after an hour."""
        count, _ = self._failures.get(_key(step), (0, 0))
        mends = isinstance(error, NetworkError | HostFault)
        delay_ms = min(AGAIN_MS * 2 ** min(count, 16), AGAIN_MS_MAX) if mends else AGAIN_MS_MAX
        self._failures[_key(step)] = (count + 1, self._clock.monotonic_ms() + int(delay_ms * self._dice.uniform(0.75, 1.0)))

    def ended(self, ended: Ended) -> None:
        """A probation ended: what was rolled back is not tried again for the same wish."""
        others = tuple(entry for entry in self._notes.rolled_back if entry.digest != ended.digest)
        if ended.state == "rolled-back":
            wanted = self.wanted(ended.digest)
            rollout = "" if wanted is None else wanted.rollout
            entry = RolledBack(
                ended.name, ended.version, ended.digest, rollout, safe(ended.cause, 900), dropped=wanted is None, by_owner=ended.by_owner
            )
            others = (*others, entry)[-ROLLED_BACK_MAX:]
        if others != self._notes.rolled_back:
            self._write_notes(_Notes(self.serial, others))

    def _rolled_back(self) -> dict[str, RolledBack]:
        return {entry.digest: entry for entry in self._notes.rolled_back}

    # On disk.

    def _write_notes(self, notes: _Notes) -> None:
        self._notes = notes
        try:
            files.write_atomic(self._folder / NOTES, msgspec.json.encode(notes), 0o600)
        except HostFault as error:  # it holds for this run; the document has its serial too
            self._log("error", f"desired state {notes.serial}: what came of it cannot be kept: {error}")

    def _read_notes(self) -> _Notes:
        try:
            return msgspec.json.decode((self._folder / NOTES).read_bytes(), type=_Notes)
        except FileNotFoundError:
            return _Notes()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log(
                "error",
                f"{self._folder / NOTES}: not what was written there ({safe(str(error))}); what was rolled back may be tried once more",
            )
            return _Notes()

    def _restore(self) -> None:
        path = self._folder / DOCUMENT
        try:
            document = path.read_bytes()
            state = desired.verify(document, self._operators)
            _check(state)
        except FileNotFoundError:
            return
        except (OSError, SnapcountError) as error:
            self._log("error", f"{path}: not a desired state that this node takes ({safe(str(error))}); it waits for the next one")
            return
        if state.node == self._node and state.serial >= self.serial:
            self._document, self.state = document, state
            self._notes = _after(self._notes, state)


class Shop(Protocol):
    """What converging needs of the node."""

    def skills(self) -> list[SkillState]: ...

    async def install(self, data: bytes, digest: str, *, probation_s: int, downgrade: bool, again: bool) -> None: ...

    async def remove(self, name: str) -> None: ...


Fetch = Callable[[Wanted], Awaitable[bytes]]
Report = Callable[[Wanted, State, str, str], Awaitable[None]]
"""Tells the registry how far a wish has come: its state, and the code and message of an error."""


async def converge(keeper: Keeper, shop: Shop, fetch: Fetch, report: Report) -> int:
    """Does what is due, one after the other; how many steps were tried. A step that fails costs only itself."""
    steps = keeper.steps(shop.skills())
    for step in steps:
        try:
            if step.wanted is None:
                await shop.remove(step.name)
            else:
                await _install(step.wanted, shop, fetch, report, again=step.again)
        except Exception as caught:  # one that nobody foresaw costs this step, not the others
            error = caught if isinstance(caught, SnapcountError) else HostFault(f"{step.name}: {safe(repr(caught))}")
            keeper.failed(step, error)
            if step.wanted is not None:
                await report(step.wanted, "failed", error.code, str(error))
        else:
            keeper.done(step)
    return len(steps)


async def _install(wanted: Wanted, shop: Shop, fetch: Fetch, report: Report, *, again: bool) -> None:
    await report(wanted, "fetching", "", "")
    data = await fetch(wanted)
    manifest = UnverifiedBundle.parse(data, wanted.digest[:19]).manifest
    if (manifest.name, manifest.version) != (wanted.name, wanted.version):
        raise Incompatible(f"{wanted.name} {wanted.version}: the bundle {wanted.digest[:19]}… is {manifest.name} {manifest.version}")
    await report(wanted, "installing", "", "")
    await shop.install(data, wanted.digest, probation_s=wanted.probation_s, downgrade=True, again=again)
    await report(wanted, "probation" if wanted.probation_s else "active", "", "")


async def report_held(keeper: Keeper, shop: Shop, report: Report, on_probation: Callable[[str], bool]) -> None:
    """After a new state, or a new link: tells how each wish stands that needs no step. `on_probation` says so of a skill's active version."""
    active = {skill.name: skill.digest for skill in shop.skills()}
    for wanted in keeper.state.skills if keeper.state else ():
        if active.get(wanted.name) == wanted.digest:
            await report(wanted, "probation" if on_probation(wanted.name) else "active", "", "")
    for wanted, entry in keeper.given_up():
        await report(wanted, "rolled-back", entry.code, entry.cause)


def _after(notes: _Notes, state: DesiredState) -> _Notes:
    """The notes once a state was taken: what it does not name may be asked for anew by the next one."""
    named = {wanted.digest for wanted in state.skills}
    entries = (entry if entry.digest in named else msgspec.structs.replace(entry, dropped=True) for entry in notes.rolled_back)
    return _Notes(state.serial, tuple(entries))


def _key(step: Step) -> str:
    return step.name if step.wanted is None else step.wanted.digest


def _check(state: DesiredState) -> None:
    names = [wanted.name for wanted in state.skills]
    twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(state.remove)))
    if twice:
        raise MalformedData(f"desired state {state.serial}: says two things about {', '.join(twice)}")
