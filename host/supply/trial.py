"""Versions on trial: what a developer tries on a node, in memory only, for as long as they watch.

A bundle passes the steps of an install up to its self-test, and is refused for the same reasons; then it is swapped in, and nothing on the node's disk says
so. When the trial ends, what ran before runs on, with its counts and its memory; a node that restarts has what was installed. A trial takes pre-releases
only, so that nobody takes one for a version that was approved.
"""

from contextlib import suppress
from dataclasses import dataclass

from host.core.bundle import Bundle
from host.core.errors import HostFault, Refused, SnapcountError, UsageError
from host.core.manifest import Manifest, version_key
from host.core.text import safe
from host.plugins.adapter import SkillVersion
from host.supply.facts import NodeFacts, require_compatible
from host.supply.installer import Installer, ServicesFor, Workshop
from host.supply.watcher import Reach


@dataclass
class _Trial:
    """What runs on trial, and what ran before it: None where the skill was not there."""

    version: SkillVersion
    previous: SkillVersion | None


class TrialInstaller(Installer):
    """An installer that takes versions on trial too. One install or trial at a time; the caller sees to that."""

    def __init__(self, shop: Workshop, facts: NodeFacts, services_for: ServicesFor, reach: Reach = lambda point: None) -> None:
        super().__init__(shop, facts, services_for, reach)
        self._trials: dict[str, _Trial] = {}

    def try_out(self, name: str, data: bytes, digest: str) -> SkillVersion:
        """Verifies, compiles, tests and swaps a version of `name` in, in memory. Raises SnapcountError of some kind; then everything is as it was."""
        proven: Manifest | None = None
        try:
            bundle = self._verify(data, digest)
            proven = bundle.manifest
            self._facts.require_approval(bundle)
            require_compatible(proven, self._facts)
            self._require_not_held_back(bundle, False)
            self._require_newer(bundle, False)
            self._require_fit_for_trial(bundle, name)
            version = self._tested(bundle)
        except SnapcountError as error:
            self._note(proven, digest, "refused on trial", str(error))
            raise
        self._put_on_trial(version)
        self._note(proven, digest, "on trial", "")
        return version

    def on_trial(self, name: str) -> SkillVersion | None:
        """The version of a skill that is on trial, if it runs."""
        trial = self._trials.get(name)
        running = self._shop.manager.skills.get(name)
        return trial.version if trial is not None and running is trial.version else None

    def end_trial(self, name: str) -> SkillVersion | None:
        """Goes back to what ran before, unless something was installed meanwhile. What runs now; None where the skill is gone."""
        trial = self._trials.pop(name, None)
        manager = self._shop.manager
        if trial is None:
            return manager.skills.get(name)
        if manager.skills.get(name) is trial.version:
            if trial.previous is None:
                manager.deactivate(name)
            else:
                manager.activate(trial.previous)
        elif trial.previous is not None:
            trial.previous.close()
        self._discard(trial.version)
        self._note(trial.version.skill.manifest, trial.version.digest, "trial ended", "")
        return manager.skills.get(name)

    def _installed(self, name: str) -> SkillVersion | None:
        return super()._installed(name) if self.on_trial(name) is None else self._trials[name].previous

    def _swap(self, version: SkillVersion) -> None:
        # A registry announces what it misses, so what is installed may come in again during its trial: that ends no trial. Anything else does.
        trial = self._trials.get(version.name)
        if trial is None or trial.previous is None or trial.previous.digest != version.digest or self.on_trial(version.name) is None:
            super()._swap(version)
            return
        self._watcher.came(version, trial.previous)
        trial.previous.close()
        trial.previous = version

    def _put_on_trial(self, version: SkillVersion) -> None:
        replaced = self._shop.manager.activate(version)
        earlier = self._trials.get(version.name)
        if earlier is not None and replaced is earlier.version:
            self._trials[version.name] = _Trial(version, earlier.previous)
            if earlier.version.digest != version.digest:
                self._discard(earlier.version)
            return
        if earlier is not None and earlier.previous is not None:
            earlier.previous.close()  # something was installed over the trial before
        self._trials[version.name] = _Trial(version, replaced)

    def _tested(self, bundle: Bundle) -> SkillVersion:
        try:
            version = self._load(bundle)
            self._require_self_test(version)
        except SnapcountError:
            if not self._shop.store.referenced(bundle.digest):
                with suppress(HostFault, OSError):
                    self._shop.cache.drop(bundle.digest)
            raise
        return version

    def _discard(self, version: SkillVersion) -> None:
        version.close()
        if not self._shop.store.referenced(version.digest):
            self._drop(version.digest)

    def _require_fit_for_trial(self, bundle: Bundle, name: str) -> None:
        version = bundle.manifest.version
        if bundle.manifest.name != name:
            raise UsageError(f"{bundle.label}: this is a trial of {safe(name, 64)}")
        if version_key(version)[3]:
            raise UsageError(f"{bundle.label}: a trial takes pre-releases only, as {version}-dev.1")
        if self.watching(name) is not None:
            raise Refused(f"{safe(name)}: its active version is on probation; try a version out when that is over")
