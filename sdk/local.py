"""Runs a bundle in this process, against a virtual machine: for tests, benchmarks and `snapcount job plan`. Nothing is installed."""

import os
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from nacl.signing import SigningKey

from host.core import files, safety
from host.core.bundle import UnverifiedBundle, digest_of
from host.core.capabilities import grant
from host.core.clock import Clock, Random, SystemClock, SystemRandom
from host.core.errors import UsageError
from host.core.limits import DEFAULT
from host.core.safety import Refusal, SafetyEnvelope, SafetyLimits
from host.plugins.adapter import SkillVersion
from host.plugins.driver import Driver, DriverGate
from host.plugins.drivers.virtual_machine import VirtualMachine
from host.sandbox.cache import KEY_BYTES, CompiledCache
from host.sandbox.engine import default_engine
from host.sandbox.imports import HostServices, StateStore
from host.sandbox.skill import LoadedSkill

# A machine so large that only a skill's own mistakes meet its limits.
WIDE_OPEN = b"""
travel_mm = {x = [-1e6, 1e6], y = [-1e6, 1e6], z = [-1e6, 1e6]}
speed_mm_s = {max = 1e5}
temperature_c = {nozzle = 500.0, bed = 200.0}
power_w = {tool = 1e6}
rate = {moves_per_s = 1e9, burst = 1000000000}
"""


class MemoryState:
    """The `state` capability in memory, with the quota that a node has."""

    def __init__(self, bytes_max: int = DEFAULT.state_bytes_max) -> None:
        self.values: dict[bytes, bytes] = {}
        self._bytes_max = bytes_max

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def set(self, key: bytes, value: bytes) -> bool:
        if not value:
            self.values.pop(key, None)
            return True
        used = sum(len(other) + len(kept) for other, kept in self.values.items() if other != key)
        if used + len(key) + len(value) > self._bytes_max:
            return False
        self.values[key] = value
        return True


class LocalSkill:
    """A bundle loaded with everything it asks for granted. `machine` is what its `motion` commands moved, `logged` what it said.

    A `driver` stands in the machine's place. The fake host of sdk.testing is one of these in which more can be set, and go wrong.
    """

    def __init__(
        self, data: bytes, what: str, *, limits: SafetyLimits | None = None, clock: Clock | None = None, random: Random | None = None,
        force_plain: bool = False, cache: CompiledCache | None = None, driver: Driver | None = None, state: StateStore | None = None,
        flags: Callable[[], Collection[str]] = frozenset,
    ) -> None:  # fmt: skip
        bundle = UnverifiedBundle.parse(data, what)
        self.manifest = bundle.manifest
        self.machine = VirtualMachine()
        self.logged: list[tuple[str, str]] = []
        self.refusals: list[Refusal] = []
        self._clock, self._random = clock or SystemClock(), random or SystemRandom()
        self._state, self._flags = state or MemoryState(), flags
        self._limits, self._driver = limits or safety.parse_limits(WIDE_OPEN, "local"), driver or self.machine
        self._gate = DriverGate(self._driver, self._envelope(), self._clock)
        self._grant = grant(self.manifest.name, self.manifest.capabilities, self.manifest.capabilities)
        engine, digest = default_engine(), digest_of(data)
        module = (cache or user_cache()).module(engine, data, digest, self.manifest)
        self.loaded = LoadedSkill(engine, module, self.manifest, self._grant, self._services(), force_plain=force_plain)
        self.version = SkillVersion(self.loaded, digest)

    def _envelope(self) -> SafetyEnvelope:
        return SafetyEnvelope(self._limits, SigningKey.generate().verify_key, audit=self.refusals.append)

    def _services(self) -> HostServices:
        return HostServices(
            f"{self.manifest.name} {self.manifest.version}", self._grant, self._clock, self._random, log=lambda level, line: self.logged.append((level, line)),
            state=self._state, ask=self._ask(), flags=self._flags,
        )  # fmt: skip

    def _ask(self) -> Callable[[str, bytes], bytes]:
        def ask(capability: str, request: bytes) -> bytes:
            if capability != self._driver.capability:
                raise UsageError(f"there is no driver for {capability} here; the virtual machine offers {self._driver.capability}")
            return self._gate.ask(f"{self.manifest.name} {self.manifest.version}", request)

        return ask


def user_cache() -> CompiledCache:
    """This user's cache of compiled modules, below XDG_CACHE_HOME; its key is made at first use and readable by the user only."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapcount"
    key = folder / "cache.key"
    try:
        if not key.exists() or key.stat().st_size != KEY_BYTES:
            files.write_atomic(key, secrets.token_bytes(KEY_BYTES), 0o600)
        _prune(folder / "compiled")
        return CompiledCache(folder / "compiled", key.read_bytes())
    except OSError as error:
        raise files.storage_error(error, f"{folder}: cannot be used as cache") from error


def _prune(folder: Path) -> None:
    """Removes the oldest compiled code above the bound: each build of a component leaves tens of megabytes. Code in use stays mapped."""
    found: list[tuple[int, int, str]] = []
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another process prunes, too
            if entry.name.endswith(".cwasm"):
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.name))
    over = sum(size for _, size, _ in found) - DEFAULT.user_cache_bytes_max
    for _, size, name in sorted(found):
        if over <= 0:
            return
        over -= size
        for path in (folder / name, (folder / name).with_suffix(".tag")):
            path.unlink(missing_ok=True)


def read_bundle(path: Path) -> bytes:
    """Reads a bundle file, or the module of a project's folder. Raises UsageError where there is none."""
    if path.is_dir():
        from sdk.project import load

        path = load(path).module
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "; build it with `snapcount skill build`" if isinstance(error, FileNotFoundError) and path.suffix == ".wasm" else ""
        raise UsageError(f"{path}: {error.strerror}{hint}") from error
