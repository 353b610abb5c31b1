"""Keeps the probations of one node: counts how calls end, over restarts too, and has a version kept for good or taken back (host/supply/probation.py).

A probation is a file beside the skill's versions, `skills/NAME/probation-HEX.json`, written before its version becomes active. Its end, step by step, each
followed by a point at which tests kill the process:

- kept: the file is removed (`kept`);
- taken back: the cause is written into it (`condemned`), the pointer moves (`returned`), the version is held back (`held`), the file is removed (`cleared`).

A node that was killed in between goes on where it was. Where the disk is full the pointer moves all the same, and the rest is tried again.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from host.core import files
from host.core.clock import Clock
from host.core.errors import HostFault, SnapcountError, StateDamaged
from host.plugins.adapter import SkillVersion
from host.plugins.manager import PluginManager
from host.plugins.tally import Tally
from host.supply import probation
from host.supply.journal import Journal
from host.supply.probation import Ended, Watch
from host.supply.store import RETURNED, Installed, SkillStore

Reach = Callable[[str], None]
POINTS = ("watching", "kept", "condemned", "returned", "held", "cleared")
PREFIX, SUFFIX = "probation-", ".json"
SAVE_MS = 30_000
"""So often what was counted is written down: a power cut costs that much of a window."""
ELAPSED_MS_MAX = 60_000
"""More time than this between two looks was not spent watching."""
RETRY_MS = 60_000


class Watcher:
    """One at a time, like installs; the caller sees to that. `bring_back` activates the version to go back to and returns its number, empty where the skill
    was taken off; it raises SnapcountError where that failed. `drop` removes what belongs to a digest that nothing refers to any more.
    """

    def __init__(
        self, store: SkillStore, journal: Journal, manager: PluginManager, clock: Clock, reach: Reach, bring_back: Callable[[Watch], str],
        drop: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._journal, self._manager, self._clock = store, journal, manager, clock
        self._reach, self._bring_back, self._drop = reach, bring_back, drop
        self._watches: dict[str, Watch] = {}
        self._earlier: dict[str, Tally] = {}
        self._written: dict[str, Tally] = {}
        self._unfinished: list[Watch] = []
        self._again_ms: dict[str, int] = {}
        self._ended: list[Ended] = []
        self._final: dict[str, Tally] | None = None
        self._looked_ms = self._saved_ms = clock.monotonic_ms()

    # Counting.

    def came(self, version: SkillVersion, previous: SkillVersion | None) -> None:
        """A version became active in the place of another, whose counts are written down."""
        if previous is not None:
            with suppress(HostFault):  # then its rates are those of an earlier time
                self._journal.keep_health([(previous.digest, self.counted(previous))])
        with suppress(HostFault):
            self._earlier[version.digest] = self._journal.health(version.digest)

    def counted(self, version: SkillVersion) -> Tally:
        """How its calls ended over all runs of the node."""
        if self._final is not None and version.digest in self._final:
            return self._final[version.digest]
        return self._earlier.get(version.digest, Tally()) + version.tally

    def close_books(self) -> None:
        """What is counted from now on counts no more: the node stops, and ends calls itself."""
        self._final = {version.digest: self.counted(version) for version in self._manager.skills.values()}

    # Probations.

    def watching(self, name: str) -> Watch | None:
        """The probation that a skill's active version is on."""
        return self._watches.get(name)

    def begin(
        self, made: Installed, content: str, window_s: int, active: Installed | None, running: SkillVersion | None, self_tests: Tally
    ) -> None:
        """Puts a version on probation that is about to become active in place of `running`; its self-test was no use of it. Raises StorageFull, HostFault."""
        before = self._watches.get(made.name)
        if before is not None and before.digest == made.digest:
            return  # it is pushed again; that proves nothing, and begins nothing anew
        baseline = Tally()
        if before is not None:  # one that was never kept is not gone back to
            previous, baseline = before.previous, before.baseline
        else:
            previous = "" if active is None or active.digest == made.digest else active.digest
            if running is not None and running.digest == previous:
                baseline = self.counted(running)
        watch = Watch(
            name=made.name, version=made.version, digest=made.digest, content=content, previous=previous, window_s=window_s,
            since=self._journal.health(made.digest) + self_tests, baseline=baseline,
        )  # fmt: skip
        self._write(watch)
        self._reach("watching")

    def activated(self, name: str, digest: str) -> None:
        """A version became active: its probation counts, should it have one, and one of another version does no more."""
        for path in self._files(name):
            if path != self._path(name, digest):
                _unlink(path)
        if name not in self._watches or self._watches[name].digest != digest:
            self._watches.pop(name, None)
            with suppress(FileNotFoundError, StateDamaged):
                self._watches[name] = _read(self._path(name, digest))

    def forget(self, name: str) -> None:
        """The skill was taken off."""
        self._watches.pop(name, None)
        for path in self._files(name):
            _unlink(path)

    def abandon(self, made: Installed) -> None:
        """A version did not become active after all."""
        watch = self._watches.get(made.name)
        if watch is None or watch.digest != made.digest:
            _unlink(self._path(made.name, made.digest))

    def tick(self) -> list[Ended]:
        """Looks at all of them, once a second or so; those that have ended since the last time."""
        now_ms = self._clock.monotonic_ms()
        elapsed_ms, self._looked_ms = min(max(now_ms - self._looked_ms, 0), ELAPSED_MS_MAX), now_ms
        for watch in list(self._watches.values()):
            version = self._manager.skills.get(watch.name)
            if version is not None and version.digest == watch.digest:
                self._look(probation.advanced(watch, elapsed_ms), version, now_ms)
        self._finish_all()
        if now_ms - self._saved_ms >= SAVE_MS:
            self.save()
        ended, self._ended = self._ended, []
        return ended

    def save(self) -> None:
        """Writes down what was counted and watched. A full disk costs that much of it, no more."""
        self._saved_ms = self._clock.monotonic_ms()
        counts = {version.digest: self.counted(version) for version in self._manager.skills.values()}
        changed = {digest: tally for digest, tally in counts.items() if self._written.get(digest) != tally}
        with suppress(HostFault):
            if changed:
                self._journal.keep_health(changed.items())
                self._written.update(changed)
            for watch in self._watches.values():
                self._write(watch)

    def stop(self) -> None:
        """The node ends in good order."""
        self._watches = {name: probation.stopped(watch) for name, watch in self._watches.items()}
        self.save()

    # After a start of the node.

    def resume(self, problems: list[SnapcountError]) -> None:
        """Takes up what the last run left: goes on watching, and finishes what was not finished."""
        for path in self._store.folder("").glob(f"*/{PREFIX}*{SUFFIX}"):
            try:
                watch = _read(path)
                active = self._active(watch.name)
                if watch.name not in self._store.names() or (active is not None and active.digest != watch.digest):
                    self._left_over(watch, path, active)
                    continue
                self._watches[watch.name] = watch = probation.started(watch)
                self._write(watch)
            except StateDamaged as error:
                problems.append(error)
                _unlink(path)
            except SnapcountError as error:
                problems.append(error)

    def went_back(self, name: str, problems: list[SnapcountError]) -> bool:
        """Takes a version back that was condemned, or crashed the node again and again, without loading it. False where there is none to take back."""
        watch = self._watches.get(name)
        if watch is None or not watch.cause:
            return False
        try:
            self._go_back(watch)
        except SnapcountError as error:  # it is started with, then, and the next look tries again
            problems.append(error)
            return False
        return True

    def settle(self) -> None:
        """Drops what is about versions that the pointer does not name."""
        for watch in list(self._watches.values()):
            active = self._active(watch.name)
            if active is not None and active.digest != watch.digest:
                self._watches.pop(watch.name)
                _unlink(self._path(watch.name, watch.digest))
        self._finish_all()

    # Inside.

    def _look(self, watch: Watch, version: SkillVersion, now_ms: int) -> None:
        self._watches[watch.name] = watch
        cause = probation.cause(watch, self.counted(version))
        if cause:
            self._try_to_go_back(msgspec.structs.replace(watch, cause=cause), now_ms)
        elif watch.over:
            self._keep(watch, self.counted(version) - watch.since)

    def _keep(self, watch: Watch, seen: Tally) -> None:
        with suppress(OSError):  # it is tried again at the next look
            self._path(watch.name, watch.digest).unlink(missing_ok=True)
            self._reach("kept")
            del self._watches[watch.name]
            said = f"nothing spoke against it in {seen.calls} calls and {watch.window_s} s"
            self._note(watch, "kept", said)
            self._ended.append(Ended(watch.name, watch.version, watch.digest, "active", said, watch.version))

    def _try_to_go_back(self, watch: Watch, now_ms: int) -> None:
        if now_ms < self._again_ms.get(watch.name, now_ms):
            return
        self._again_ms[watch.name] = now_ms + RETRY_MS
        try:
            self._go_back(watch)
        except SnapcountError as error:
            self._note(watch, "failed", f"it is to be taken back ({watch.cause}), and that failed: {error}")
        else:
            del self._again_ms[watch.name]

    def _go_back(self, watch: Watch) -> None:
        self._watches[watch.name] = watch
        with suppress(HostFault):  # a full disk does not keep it from going back
            self._write(watch)
        self._reach("condemned")
        now = self._bring_back(watch)
        self._watches.pop(watch.name, None)
        self._reach("returned")
        self._note(watch, "rolled back", f"from {watch.version}, which was on probation: {watch.cause}")
        self._ended.append(Ended(watch.name, watch.version, watch.digest, "rolled-back", watch.cause, now))
        self._unfinished.append(watch)
        self._finish_all()

    def _finish_all(self) -> None:
        left = []
        for watch in self._unfinished:
            try:
                self._finish(watch)
            except (HostFault, OSError):
                left.append(watch)
        self._unfinished = left

    def _finish(self, watch: Watch) -> None:
        self._store.hold_back(watch.name, watch.content, RETURNED)
        self._reach("held")
        self._store.forget(Installed(watch.name, watch.version, watch.digest, 0))
        self._drop(watch.digest)
        self._path(watch.name, watch.digest).unlink(missing_ok=True)
        self._reach("cleared")

    def _left_over(self, watch: Watch, path: Path, active: Installed | None) -> None:
        """A file about a version that is not active: the node was killed before it was, or while it went back."""
        if not watch.cause:
            _unlink(path)
            return
        now = "" if active is None else active.version
        self._ended.append(Ended(watch.name, watch.version, watch.digest, "rolled-back", watch.cause, now))
        self._unfinished.append(watch)

    def _active(self, name: str) -> Installed | None:
        try:
            return self._store.active(name)
        except StateDamaged:
            return None

    def _note(self, watch: Watch, outcome: str, detail: str) -> None:
        with suppress(HostFault):
            self._journal.installed(self._clock.now_ms(), watch.name, watch.version, watch.digest, outcome, detail)

    def _write(self, watch: Watch) -> None:
        files.write_atomic(self._path(watch.name, watch.digest), msgspec.json.encode(watch))

    def _files(self, name: str) -> list[Path]:
        return list(self._store.folder(name).glob(f"{PREFIX}*{SUFFIX}"))

    def _path(self, name: str, digest: str) -> Path:
        return self._store.folder(name) / f"{PREFIX}{digest.removeprefix('sha256:')}{SUFFIX}"


def _read(path: Path) -> Watch:
    what = f"skills/{path.parent.name}/{path.name[:26]}…: not a probation that was kept; its version counts as kept for good"
    try:
        watch = msgspec.json.decode(path.read_bytes(), type=Watch)
    except FileNotFoundError:
        raise
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateDamaged(what) from error
    if (watch.name, f"{PREFIX}{watch.digest.removeprefix('sha256:')}{SUFFIX}") != (path.parent.name, path.name):
        raise StateDamaged(what)
    return watch


def _unlink(path: Path) -> None:
    with suppress(OSError):  # it is about nothing that is active, and looked at again at the next start
        path.unlink(missing_ok=True)
