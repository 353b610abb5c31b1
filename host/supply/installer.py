"""From bytes to an active skill, in steps that a kill cannot split; and back to what was active when the node starts.

The steps, each followed by a point that tests kill a process at: `verified`, `stored`, `compiled`, `tested`, `recorded`, `activated`, `committed`.
Until `activated` the former version is the active one, from then on the new one is. With a probation (host/supply/watcher.py), `watching` comes before
`activated`, and how it ends has points of its own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from host.core.bundle import Bundle, UnverifiedBundle, digest_of
from host.core.capabilities import grant
from host.core.clock import Clock
from host.core.errors import DigestMismatch, HostFault, Incompatible, SnapcountError, StateDamaged, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, version_key
from host.core.text import safe
from host.plugins.adapter import SkillVersion
from host.plugins.manager import PluginManager
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import SkillEngine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
from host.supply import watcher
from host.supply.facts import NodeFacts, require_compatible
from host.supply.journal import Journal
from host.supply.probation import Ended, Watch
from host.supply.store import RETURNED, Installed, SkillStore
from host.supply.watcher import Reach, Watcher

INSTALL_POINTS = ("verified", "stored", "compiled", "tested", "recorded", "activated", "committed")
CRASH_POINTS = INSTALL_POINTS + watcher.POINTS


@dataclass(frozen=True)
class Workshop:
    """What an installer works with."""

    engine: SkillEngine
    cache: CompiledCache
    store: SkillStore
    journal: Journal
    manager: PluginManager
    clock: Clock


ServicesFor = Callable[[Manifest], HostServices]


class Installer:
    """Installs, restores and rolls back. One install at a time; the caller sees to that."""

    def __init__(self, shop: Workshop, facts: NodeFacts, services_for: ServicesFor, reach: Reach = lambda point: None) -> None:
        self._shop, self._facts, self._services_for, self._reach = shop, facts, services_for, reach
        self._watcher = Watcher(shop.store, shop.journal, shop.manager, shop.clock, reach, self._bring_back, self._drop)

    def install(self, data: bytes, digest: str, *, probation_s: int = 0, downgrade: bool = False, again: bool = False) -> SkillVersion:
        """Verifies, compiles, tests and activates. Raises SnapcountError of some kind; then everything is as it was.

        With `probation_s` the version is watched for so long, and taken back if it does badly. `downgrade` and `again` are for a signed desired state: it may
        name an earlier version, and one that probation went back from. Neither brings what the owner went back from.
        """
        proven: Manifest | None = None  # what an unsigned manifest says of itself is not written down
        try:
            bundle = self._verify(data, digest)
            proven = bundle.manifest
            self._facts.require_approval(bundle)
            require_compatible(proven, self._facts)
            self._require_not_held_back(bundle, again)
            self._require_newer(bundle, downgrade)
            self._reach("verified")
            version = self._bring_in_whole(bundle, probation_s)
        except SnapcountError as error:
            self._note(proven, digest, "failed", str(error))
            raise
        watch = self._watcher.watching(proven.name)
        self._note(proven, digest, "active", f"on probation for {watch.window_s} s" if watch else "")
        self._reach("committed")
        with suppress(HostFault):  # it is active; an old version that cannot be pruned only takes room
            for old in self._shop.store.prune(proven.name, DEFAULT.versions_kept, watch.previous if watch else ""):
                self._drop(old)
        return version

    def tick(self) -> list[Ended]:
        """Looks at the versions on probation, once a second or so: keeps them, or goes back. Those that have ended since the last time."""
        return self._watcher.tick()

    def watching(self, name: str) -> Watch | None:
        """The probation that a skill's active version is on."""
        return self._watcher.watching(name)

    def close_books(self) -> None:
        """Before the node ends what is running: how that ends is not the skills' doing."""
        self._watcher.close_books()

    def stop(self) -> None:
        """The node ends in good order."""
        self._watcher.stop()

    def restore(self) -> list[SnapcountError]:
        """Activates what the disk says is active, or the newest kept version that works; what went wrong on the way."""
        problems: list[SnapcountError] = []
        self._watcher.resume(problems)
        for name in self._shop.store.names():
            if self._watcher.went_back(name, problems):
                continue
            pointed = self._pointed(name, problems)
            transient = False
            for installed in self._candidates(name, pointed):
                try:
                    self._swap(self._load(self._verified(installed)))
                except SnapcountError as error:
                    problems.append(error)
                    # A full disk or a busy host passes: this start uses an older version, the next one tries again.
                    transient |= isinstance(error, HostFault) and not isinstance(error, StateDamaged)
                    continue
                if installed != pointed and not transient:
                    self._repoint(installed, problems)
                break
        self._watcher.settle()
        with suppress(HostFault):  # they only take room
            for digest in self._shop.store.orphans():
                self._drop(digest)
        return problems

    def roll_back(self, name: str) -> SkillVersion:
        """Activates the newest kept version that is older than the active one, and takes that one by no push again.

        Raises UsageError when there is none.
        """
        active = self._shop.store.active(name) if name in self._shop.store.names() else None
        older = [] if active is None else [entry for entry in self._shop.store.versions(name) if entry.order < active.order]
        if active is None or not older:
            raise UsageError(f"{safe(name)}: no earlier version is kept")
        version = self._load(self._verified(older[0]))
        self._require_self_test(version)
        self._shop.store.hold_back(name, self._verified(active).content_digest)
        self._shop.store.activate(older[0])
        self._watcher.activated(name, older[0].digest)
        self._swap(version)
        with suppress(HostFault):
            self._shop.store.forget(active)
            self._drop(active.digest)
        self._note(version.skill.manifest, older[0].digest, "rolled back", f"from {active.version}")
        return version

    def remove(self, name: str) -> None:
        """Takes a skill off the node, with every kept version. Raises UsageError when it is not active."""
        version = self._shop.manager.skills.get(name)
        active = None if version is None else self._shop.store.active(name)
        if active is None or version is None:
            raise UsageError(f"{safe(name)}: no such skill is active on this node")
        self._take_off(name, version)
        self._note(version.skill.manifest, active.digest, "removed", "")

    def _verify(self, data: bytes, digest: str) -> Bundle:
        found = digest_of(data)
        if found != digest:
            raise DigestMismatch(f"expected {digest}, the bytes that came have {found}")
        return UnverifiedBundle.parse(data, digest[:19]).verify(self._facts.trusted)

    def _take_off(self, name: str, version: SkillVersion | None) -> None:
        gone = self._shop.store.remove(name)
        self._watcher.forget(name)
        self._shop.manager.deactivate(name)
        if version is not None:
            version.close()
        for digest in gone:
            self._drop(digest)

    def _bring_back(self, watch: Watch) -> str:
        """For the watcher: the version before, or an earlier one that still loads. Raises SnapcountError; then nothing has changed."""
        if not watch.previous:
            self._take_off(watch.name, self._shop.manager.skills.get(watch.name))
            return ""
        kept = [entry for entry in self._shop.store.versions(watch.name) if entry.digest != watch.digest]
        problem: SnapcountError = HostFault(f"{watch.name}: no earlier version is kept")
        for installed in sorted(kept, key=lambda entry: entry.digest != watch.previous):
            try:
                version = self._load(self._verified(installed))
                self._shop.store.activate(installed)
            except SnapcountError as error:
                problem = error
                continue
            self._swap(version)
            return installed.version
        raise problem

    def _bring_in_whole(self, bundle: Bundle, probation_s: int) -> SkillVersion:
        known = self._shop.store.referenced(bundle.digest)
        try:
            return self._bring_in(bundle, probation_s)
        except SnapcountError:
            if not known:
                self._drop(bundle.digest)
            raise

    def _drop(self, digest: str) -> None:
        # Nothing refers to it any more: where it cannot be removed, it only takes room.
        with suppress(HostFault, OSError):
            self._shop.store.discard(digest)
        with suppress(OSError):
            self._shop.cache.drop(digest)
        with suppress(HostFault):
            self._shop.journal.forget_health(digest)

    def _bring_in(self, bundle: Bundle, probation_s: int) -> SkillVersion:
        self._shop.store.put(bundle.data, bundle.digest)
        self._reach("stored")
        version = self._load(bundle)
        self._reach("compiled")
        self._require_self_test(version)
        self._reach("tested")
        known = self._shop.store.referenced(bundle.digest)
        record = self._shop.store.record(bundle.manifest.name, bundle.manifest.version, bundle.digest)
        self._reach("recorded")
        try:
            if probation_s:
                self._watcher.begin(
                    record, bundle.content_digest, probation_s, self._pointed(record.name, []), self._installed(record.name), version.tally
                )
            self._shop.store.activate(record)
        except SnapcountError:
            self._watcher.abandon(record)
            if not known:
                self._shop.store.forget(record)
            raise
        self._reach("activated")
        self._watcher.activated(record.name, record.digest)
        self._swap(version)
        return version

    def _installed(self, name: str) -> SkillVersion | None:
        """What runs of a skill, as it was installed."""
        return self._shop.manager.skills.get(name)

    def _swap(self, version: SkillVersion) -> None:
        previous = self._shop.manager.activate(version)
        self._watcher.came(version, previous)
        if previous is not None:
            previous.close()

    def _load(self, bundle: Bundle) -> SkillVersion:
        manifest = bundle.manifest
        granted = grant(bundle.label, manifest.capabilities, self._facts.allowed)
        module = self._shop.cache.module(self._shop.engine, bundle.data, bundle.digest, manifest)
        services = self._services_for(manifest)
        version = SkillVersion(LoadedSkill(self._shop.engine, module, manifest, granted, services), bundle.digest, services)
        self._shop.manager.quarantine.bind(version)  # a self-test is a call too
        return version

    def _verified(self, installed: Installed) -> Bundle:
        bundle = UnverifiedBundle.parse(self._shop.store.get(installed.digest), f"{installed.name} {installed.version}").verify(
            self._facts.trusted
        )
        require_compatible(bundle.manifest, self._facts)
        return bundle

    def _pointed(self, name: str, problems: list[SnapcountError]) -> Installed | None:
        try:
            return self._shop.store.active(name)
        except StateDamaged as error:
            problems.append(error)
            return None

    def _candidates(self, name: str, pointed: Installed | None) -> list[Installed]:
        kept = self._shop.store.versions(name)
        return kept if pointed is None else [pointed, *(entry for entry in kept if entry.order < pointed.order)]

    def _repoint(self, installed: Installed, problems: list[SnapcountError]) -> None:
        try:
            self._shop.store.activate(installed)
        except HostFault as error:  # it runs; the next start finds the same
            problems.append(error)

    def _require_not_held_back(self, bundle: Bundle, again: bool) -> None:
        store, name, content = self._shop.store, bundle.manifest.name, bundle.content_digest
        if content in store.held_back(name):
            raise Incompatible(f"{bundle.label}: the owner of this node went back from it; push a newer version")
        if not again and content in store.held_back(name, RETURNED):
            raise Incompatible(f"{bundle.label}: it did badly on probation here, and this node went back from it; push a newer version")

    def _require_newer(self, bundle: Bundle, downgrade: bool) -> None:
        try:
            active = self._shop.store.active(bundle.manifest.name)
        except StateDamaged:
            return  # pushing a skill again is what mends it
        if active is None or active.digest == bundle.digest:
            return
        if not downgrade and version_key(bundle.manifest.version) < version_key(active.version):
            raise Incompatible(
                f"{bundle.label}: older than the active version {active.version}; an earlier version comes back with `snapcount node rollback`"
            )
        if bundle.manifest.version == active.version:
            raise Incompatible(
                f"{bundle.label}: this version is active with other bytes ({active.digest[:19]}…); a version is never changed: give it a new number"
            )

    def _require_self_test(self, version: SkillVersion) -> None:
        result = version.self_test()
        if not result.ok:
            raise Incompatible(f"{version.skill.name}: its self-test failed on this node: {safe(result.detail)}")

    def _note(self, manifest: Manifest | None, digest: str, outcome: str, detail: str) -> None:
        # What happened is decided by the pointer; a full disk may cost its line in the journal, not the error or the skill.
        name, version = ("", "") if manifest is None else (manifest.name, manifest.version)
        with suppress(HostFault):
            self._shop.journal.installed(self._shop.clock.now_ms(), name, version, digest, outcome, detail)
