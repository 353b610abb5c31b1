"""From bytes to an active skill, in steps that a kill cannot split; and back to what was active when the node starts.

The steps, each followed by a point that tests kill a process at: `verified`, `stored`, `compiled`, `tested`, `recorded`, `activated`, `committed`.
Until `activated` the former version is the active one, from then on the new one is.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from nacl.signing import VerifyKey

from host.core.bundle import Bundle, UnverifiedBundle, digest_of
from host.core.capabilities import grant
from host.core.clock import Clock
from host.core.errors import DigestMismatch, HostFault, Incompatible, SnapcountError, StateDamaged, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import ABI, Manifest, version_key
from host.core.text import safe
from host.plugins.adapter import SkillVersion, require_known_hooks
from host.plugins.manager import PluginManager
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import SkillEngine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
from host.supply.journal import Journal
from host.supply.store import Installed, SkillStore

Reach = Callable[[str], None]
CRASH_POINTS = ("verified", "stored", "compiled", "tested", "recorded", "activated", "committed")


@dataclass(frozen=True)
class NodeFacts:
    """What decides whether this node can run a bundle."""

    generation: int
    allowed: frozenset[str]
    trusted: tuple[VerifyKey, ...]


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

    def install(self, data: bytes, digest: str) -> SkillVersion:
        """Verifies, compiles, tests and activates. Raises SnapcountError of some kind; then everything is as it was."""
        proven: Manifest | None = None  # what an unsigned manifest says of itself is not written down
        try:
            bundle = self._verify(data, digest)
            proven = bundle.manifest
            self._require_compatible(proven)
            self._require_newer(bundle)
            self._reach("verified")
            version = self._bring_in_whole(bundle)
        except SnapcountError as error:
            self._note(proven, digest, "failed", str(error))
            raise
        self._note(proven, digest, "active", "")
        self._reach("committed")
        with suppress(HostFault):  # it is active; an old version that cannot be pruned only takes room
            for old in self._shop.store.prune(proven.name, DEFAULT.versions_kept):
                self._drop(old)
        return version

    def restore(self) -> list[SnapcountError]:
        """Activates what the disk says is active, or the newest kept version that works; what went wrong on the way."""
        problems: list[SnapcountError] = []
        for name in self._shop.store.names():
            pointed = self._pointed(name, problems)
            transient = False
            for installed in self._candidates(name, pointed):
                try:
                    self._shop.manager.activate(self._load(self._verified(installed)))
                except SnapcountError as error:
                    problems.append(error)
                    # A full disk or a busy host passes: this start uses an older version, the next one tries again.
                    transient |= isinstance(error, HostFault) and not isinstance(error, StateDamaged)
                    continue
                if installed != pointed and not transient:
                    self._repoint(installed, problems)
                break
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
        gone = self._shop.store.remove(name)
        self._shop.manager.deactivate(name)
        version.close()
        for digest in gone:
            self._drop(digest)
        self._note(version.skill.manifest, active.digest, "removed", "")

    def _verify(self, data: bytes, digest: str) -> Bundle:
        found = digest_of(data)
        if found != digest:
            raise DigestMismatch(f"expected {digest}, the bytes that came have {found}")
        return UnverifiedBundle.parse(data, digest[:19]).verify(self._facts.trusted)

    def _bring_in_whole(self, bundle: Bundle) -> SkillVersion:
        known = self._shop.store.referenced(bundle.digest)
        try:
            return self._bring_in(bundle)
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

    def _bring_in(self, bundle: Bundle) -> SkillVersion:
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
            self._shop.store.activate(record)
        except SnapcountError:
            if not known:
                self._shop.store.forget(record)
            raise
        self._reach("activated")
        self._swap(version)
        return version

    def _swap(self, version: SkillVersion) -> None:
        previous = self._shop.manager.activate(version)
        if previous is not None:
            previous.close()

    def _load(self, bundle: Bundle) -> SkillVersion:
        manifest = bundle.manifest
        granted = grant(bundle.label, manifest.capabilities, self._facts.allowed)
        module = self._shop.cache.module(self._shop.engine, bundle.data, bundle.digest, manifest)
        return SkillVersion(LoadedSkill(self._shop.engine, module, manifest, granted, self._services_for(manifest)), bundle.digest)

    def _verified(self, installed: Installed) -> Bundle:
        bundle = UnverifiedBundle.parse(self._shop.store.get(installed.digest), f"{installed.name} {installed.version}").verify(
            self._facts.trusted
        )
        self._require_compatible(bundle.manifest)
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

    def _require_compatible(self, manifest: Manifest) -> None:
        what = f"{manifest.name} {manifest.version}"
        if manifest.abi != ABI:
            raise Incompatible(f"{what}: made for ABI {manifest.abi}, this host runs ABI {ABI}")
        if manifest.generations and self._facts.generation not in manifest.generations:
            runs_on = ", ".join(map(str, manifest.generations))
            raise Incompatible(f"{what}: runs on hardware generations {runs_on}, this node is generation {self._facts.generation}")
        try:
            require_known_hooks(manifest.hooks, what)
        except UsageError as error:
            raise Incompatible(str(error)) from error
        grant(what, manifest.capabilities, self._facts.allowed)

    def _require_newer(self, bundle: Bundle) -> None:
        if bundle.content_digest in self._shop.store.held_back(bundle.manifest.name):
            raise Incompatible(f"{bundle.label}: the owner of this node went back from it; push a newer version")
        try:
            active = self._shop.store.active(bundle.manifest.name)
        except StateDamaged:
            return  # pushing a skill again is what mends it
        if active is None or active.digest == bundle.digest:
            return
        if version_key(bundle.manifest.version) < version_key(active.version):
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
