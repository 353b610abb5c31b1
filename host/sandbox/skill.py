"""A loaded skill: its module linked with what it was granted, and instances of it that raise typed errors only."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import wasmtime

from host.core import cbor
from host.core.capabilities import Grant
from host.core.errors import CapabilityDenied, SkillRefused, TooLarge, UsageError
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest
from host.core.text import safe
from host.sandbox import direct
from host.sandbox.engine import SkillEngine
from host.sandbox.faults import CallFault, typed
from host.sandbox.imports import HostServices
from host.sandbox.plain import PlainInstance

REQUEST_BYTES_MAX = DEFAULT.request_bytes_max

MakeServices = Callable[[], HostServices]


class LoadedSkill:
    """A module ready to be instantiated. `path` is "direct" or "plain" (see docs/explanation in ARCHITECTURE.md, Sandbox)."""

    def __init__(
        self,
        engine: SkillEngine,
        module: wasmtime.Module,
        manifest: Manifest,
        grant: Grant,
        services: MakeServices,
        *,
        limits: Limits = DEFAULT,
        force_plain: bool = False,
    ) -> None:
        self.manifest = manifest
        self.limits = manifest.limits.capped(limits)
        self.name = f"{manifest.name} {manifest.version}"
        self._engine, self._module, self._host, self._services = engine, module, limits, services
        self._imports = _linked(module, manifest, grant)
        self._direct = None if force_plain or direct.unavailable() else direct.DirectModule(engine, module, manifest, self._imports)
        self._indices = {hook: index for index, hook in enumerate(manifest.hooks)}
        self.ticks = engine.ticks(self.limits.deadline_ms)

    @property
    def path(self) -> str:
        return "plain" if self._direct is None else "direct"

    def instance(self) -> "SkillInstance":
        """A new instance with its own memory. Raises Busy, MemoryExceeded, or what instantiation trapped with."""
        services = self._services()
        try:
            if self._direct is not None:
                return SkillInstance(self, self._direct.instance(services, self.limits, self._host), services)
            raw = PlainInstance(self._engine, self._module, self.manifest, services, self._imports, self.limits, self._host)
            return SkillInstance(self, raw, services)
        except Exception as error:
            raise self.error(error, 0) from error

    def index(self, hook: str) -> int:
        """Raises UsageError for a hook that the skill does not have."""
        try:
            return self._indices[hook]
        except KeyError:
            raise UsageError(f"{self.name}: has no hook {hook}; it has {', '.join(self.manifest.hooks)}") from None

    def error(self, error: Exception, memory_bytes: int) -> BaseException:
        """The typed error behind a raw one; anything else is passed on."""
        if type(error).__name__ == "DirectFault":
            error = direct.call_fault(error)
        return typed(error, self.name, self.limits, memory_bytes) if isinstance(error, CallFault) else error


class SkillInstance:
    """One instance: a memory and its globals. For one caller at a time: a second one gets Busy.

    `faulted` is true after a call that ended without a reply: its memory is then not to be trusted.
    """

    def __init__(self, skill: LoadedSkill, raw: Any, services: HostServices) -> None:
        self._skill, self._raw, self._services = skill, raw, services
        self._fuel, self._ticks, self._call = skill.limits.fuel, skill.ticks, raw.call
        self.faulted = False

    def call(self, hook: str, request: bytes) -> bytes:
        """Runs one hook on CBOR bytes and returns the reply's bytes.

        Raises GuestError of some kind, SkillRefused when the reply is an error reply, TooLarge for the request.
        """
        if len(request) > REQUEST_BYTES_MAX:
            raise TooLarge(f"{self._skill.name}: a request has at most {REQUEST_BYTES_MAX} bytes, this one has {len(request)}")
        self._services.logged = 0
        try:
            reply: bytes = self._call(self._skill.index(hook), request, self._fuel, self._ticks)
        except UsageError:
            raise
        except Exception as error:
            self.faulted = True
            raise self._skill.error(error, self._raw.memory_bytes()) from error
        if self._raw.error_reply:
            raise refusal(reply, self._skill.name)
        return reply

    @property
    def fuel_used(self) -> int:
        """Fuel that the last call used."""
        return int(self._raw.fuel_used)

    @property
    def host_calls(self) -> int:
        """Host calls that the last call made."""
        return int(self._raw.host_calls)

    def memory_bytes(self) -> int:
        return int(self._raw.memory_bytes())

    def close(self) -> None:
        """Gives the memory back. A call after it raises HostFault."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def refusal(reply: bytes, skill: str) -> SkillRefused:
    """The error behind an error reply. Raises ReplyInvalid-like MalformedData when it is not one."""
    value = cbor.decode(reply, f"{skill}: error reply", bytes_max=DEFAULT.frame_bytes_max)
    code = safe(str(value.get("code", "")), 64) if isinstance(value, dict) else ""
    message = safe(str(value.get("message", ""))) if isinstance(value, dict) else ""
    return SkillRefused(f"{skill}: {code or 'error'}: {message}", code)


def _linked(module: wasmtime.Module, manifest: Manifest, grant: Grant) -> frozenset[str]:
    """The imports to link: those the module has, each of which must have been granted."""
    wanted = frozenset(imported.name or "" for imported in module.imports)
    missing = sorted(wanted - grant.imports())
    if missing:
        have = ", ".join(sorted(grant.names)) or "none"
        raise CapabilityDenied(
            f"{manifest.name}: imports {', '.join(missing)} without the capability for it (granted: {have}); name it in the manifest, and have the owner allow it"
        )
    return wanted
