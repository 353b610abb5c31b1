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
from host.core.errors import DigestMismatch, Incompatible, SnapcountError, StateDamaged, StorageFull, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import ABI, Manifest, version_key
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
        found = digest_of(data)
        if found != digest:
            raise DigestMismatch(f"expected {digest}, the bytes that came have {found}")
        bundle = UnverifiedBundle.parse(data, digest[:19]).verify(self._facts.trusted)
        self._require_compatible(bundle.manifest)
        self._require_newer(bundle)
        self._reach("verified")
        known = self._shop.store.referenced(digest)
        try:
            version = self._bring_in(bundle)
        except SnapcountError as error:
            if not known:
                self._shop.store.discard(digest)
                self._shop.cache.drop(digest)
            self._note(bundle.manifest, digest, "failed", str(error))
            raise
        self._note(bundle.manifest, digest, "active", "")
        self._reach("committed")
        for old in self._shop.store.prune(bundle.manifest.name, DEFAULT.versions_kept):
            self._shop.cache.drop(old)
        return version

    def restore(self) -> list[SnapcountError]:
        """Activates what the disk says is active, or the newest kept version that works; what went wrong on the way."""
        problems: list[SnapcountError] = []
        for name in self._shop.store.names():
            for installed in self._candidates(name, problems):
                try:
                    self._shop.manager.activate(self._load(self._verified(installed)))
                except SnapcountError as error:
                    problems.append(error)
                    continue
                self._shop.store.activate(installed)
                break
        return problems

    def roll_back(self, name: str) -> SkillVersion:
        """Activates the newest kept version that is older than the active one. Raises UsageError when there is none."""
        active = self._shop.store.active(name)
        older = [entry for entry in self._shop.store.versions(name) if active is not None and entry.order < active.order]
        if active is None or not older:
            raise UsageError(f"{name}: no earlier version is kept")
        version = self._load(self._verified(older[0]))
        self._require_self_test(version)
        self._shop.store.activate(older[0])
        self._shop.store.forget(active)
        self._swap(version)
        self._note(version.skill.manifest, older[0].digest, "rolled back", f"from {active.version}")
        return version

    def remove(self, name: str) -> None:
        """Takes a skill off the node, with every kept version. Raises UsageError when it is not active."""
        active = self._shop.store.active(name)
        version = self._shop.manager.skills.get(name)
        if active is None or version is None:
            raise UsageError(f"{name}: no such skill is active on this node")
        gone = self._shop.store.remove(name)
        self._shop.manager.deactivate(name)
        version.close()
        for digest in gone:
            self._shop.cache.drop(digest)
        self._note(version.skill.manifest, active.digest, "removed", "")

    def _bring_in(self, bundle: Bundle) -> SkillVersion:
        self._shop.store.put(bundle.data, bundle.digest)
        self._reach("stored")
        version = self._load(bundle)
        self._reach("compiled")
        self._require_self_test(version)
        self._reach("tested")
        record = self._shop.store.record(bundle.manifest.name, bundle.manifest.version, bundle.digest)
        self._reach("recorded")
        try:
            self._shop.store.activate(record)
        except SnapcountError:
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

    def _candidates(self, name: str, problems: list[SnapcountError]) -> list[Installed]:
        kept = self._shop.store.versions(name)
        try:
            active = self._shop.store.active(name)
        except StateDamaged as error:
            problems.append(error)
            return kept
        if active is None:
            return kept
        return [active, *(entry for entry in kept if entry.order < active.order)]

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
        active = self._shop.store.active(bundle.manifest.name)
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
            raise Incompatible(f"{version.skill.name}: its self-test failed on this node: {result.detail}")

    def _note(self, manifest: Manifest, digest: str, outcome: str, detail: str) -> None:
        # What happened is decided by the pointer; a full disk may cost its line in the journal, not the error or the skill.
        with suppress(StorageFull):
            self._shop.journal.installed(self._shop.clock.now_ms(), manifest.name, manifest.version, digest, outcome, detail)
