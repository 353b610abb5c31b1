"""The plugin manager: native plugins by entry point, skills by activation, and the swap from one version of a skill to the next."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pluggy

from host.core.clock import Clock
from host.core.errors import HostFault, UsageError
from host.core.quarantine import Disable
from host.core.safety import Rate, SafetyEnvelope, SafetyLimits, Speed, Travel
from host.core.text import safe
from host.plugins import hookspecs
from host.plugins.adapter import SkillSlot, SkillVersion
from host.plugins.driver import Driver, DriverGate
from host.plugins.observed import Observers, Told, Wants, everything
from host.plugins.quarantine import Quarantine

NOTHING_ALLOWED = SafetyLimits(Travel((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)), Speed(0.0), Rate(1.0))


class PluginManager:
    """What runs on this node. Calls may come from any thread."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._slots: dict[str, SkillSlot] = {}
        self._swap = threading.Lock()
        self.quarantine = Quarantine()
        self.quarantine.rebind = self._bind_all
        self.observers = Observers(self._bind_all)

    @property
    def hook(self) -> Any:
        """pluggy's caller: `manager.hook.bid(request=…)`. A call takes the plugins of the moment it starts."""
        return self._pluggy.hook

    @property
    def skills(self) -> dict[str, SkillVersion]:
        """The active version of each skill, by name."""
        return {name: slot.active for name, slot in list(self._slots.items())}

    def load_native(self, names: tuple[str, ...]) -> None:
        """Loads the native plugins that the owner named, from the entry point group `snapcount.plugins`. Raises HostFault."""
        for name in names:
            try:
                found = self._pluggy.load_setuptools_entrypoints(hookspecs.ENTRY_POINT_GROUP, name=name)
                self._pluggy.check_pending()
            except Exception as error:
                raise HostFault(f"plugin {name}: could not be loaded: {safe(str(error) or repr(error))}") from error
            if not found and not self._pluggy.has_plugin(name):
                raise UsageError(f"plugin {name}: no installed package offers it (entry point group {hookspecs.ENTRY_POINT_GROUP})")

    def register(self, plugin: object, name: str) -> None:
        """Adds a native plugin that is at hand."""
        self._pluggy.register(plugin, name)

    def drivers(self, settings: Mapping[str, Mapping[str, Any]] | None = None, limits: SafetyLimits = NOTHING_ALLOWED) -> dict[str, Driver]:
        """The drivers that the native plugins offer, by capability. Raises HostFault that names the plugin, or both of one capability.

        `settings` has a table for each plugin's name; `limits` are the owner's.
        """
        offered: dict[str, Driver] = {}
        plugins: dict[str, str] = {}
        for impl in self.hook.offer_drivers.get_hookimpls():
            given = {"settings": (settings or {}).get(impl.plugin_name, {}), "limits": limits}
            for capability, driver in _offered(impl, given):
                if capability in offered:
                    both = f"{plugins[capability]} and {impl.plugin_name}"
                    raise HostFault(f"two drivers offer the capability {capability}, of the plugins {both}: name only one in node.toml")
                offered[capability], plugins[capability] = driver, impl.plugin_name
        return offered

    def activate(self, version: SkillVersion) -> SkillVersion | None:
        """Swaps a skill in and returns the version that it replaces."""
        with self._swap:
            self._bind(version)
            slot = self._slots.get(version.name)
            if slot is None:
                self._slots[version.name] = slot = SkillSlot(version)
                self._pluggy.register(slot, f"skill:{version.name}")
                return None
            previous, slot.active = slot.active, version
            return previous

    def police(self, policies: Sequence[Disable], shown: Collection[str]) -> None:
        """Has these quarantine policies, and no others, met by every call from now on. `shown` are those whose anomaly has shown already."""
        self.quarantine.enforce(policies, shown)
        self._bind_all()

    def observe(self, told: Told, wants: Wants = everything) -> Callable[[], None]:
        """Has `told` given every call that `wants` says yes to before it is made, from now on (see host/plugins/observed.py). What comes back ends that."""
        return self.observers.add(told, wants)

    def _bind(self, version: SkillVersion) -> None:
        self.quarantine.bind(version)
        self.observers.bind(version)

    def _bind_all(self) -> None:
        with self._swap:
            for slot in self._slots.values():
                self._bind(slot.active)

    def deactivate(self, name: str) -> None:
        """Takes a skill out."""
        with self._swap:
            slot = self._slots.pop(name, None)
            if slot is not None:
                self._pluggy.unregister(slot)


def _offered(impl: pluggy.HookImpl, given: Mapping[str, Any]) -> list[tuple[str, Driver]]:
    # Called one by one, so that an error can name its plugin.
    try:
        answer: Any = impl.function(*(given[name] for name in impl.argnames))
        return [(driver.capability, driver) for driver in answer or ()]
    except Exception as error:
        raise HostFault(f"plugin {impl.plugin_name}: its drivers failed to start: {safe(str(error) or repr(error))}") from error


def gates(drivers: dict[str, Driver], envelope: SafetyEnvelope, clock: Clock) -> dict[str, DriverGate]:
    """Puts the safety envelope before every driver."""
    return {capability: DriverGate(driver, envelope, clock) for capability, driver in drivers.items()}
