"""A loaded skill: its module linked with what it was granted, and instances of it that raise typed errors only."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec
import wasmtime
from msgspec import Meta

from host.core import cbor
from host.core.capabilities import IMPORT_NEEDS, Grant
from host.core.errors import Busy, CapabilityDenied, MalformedData, ReplyInvalid, SkillRefused, TooLarge, UsageError
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest
from host.core.text import safe
from host.sandbox import direct
from host.sandbox.engine import SkillEngine
from host.sandbox.faults import CallFault, typed
from host.sandbox.imports import HostServices
from host.sandbox.plain import PlainInstance

if TYPE_CHECKING:
    from wasmtime.component import Component

REQUEST_BYTES_MAX = DEFAULT.request_bytes_max


class LoadedSkill:
    """A module or a component ready to be instantiated. `path` is "direct", "plain" or "component" (see ARCHITECTURE.md, Sandbox)."""

    def __init__(
        self,
        engine: SkillEngine,
        module: "wasmtime.Module | Component",
        manifest: Manifest,
        grant: Grant,
        services: HostServices,
        *,
        limits: Limits = DEFAULT,
        force_plain: bool = False,
    ) -> None:
        self.manifest = manifest
        self.limits = manifest.limits.capped(limits)
        self.name = f"{manifest.name} {manifest.version}"
        self.ticks = engine.ticks(self.limits.deadline_ms)
        self._indices = {hook: index for index, hook in enumerate(manifest.hooks)}
        self._make: Callable[[], Any]
        imports = require_granted(module, manifest, grant, engine)
        if not isinstance(module, wasmtime.Module):
            from host.sandbox.component import ComponentInstance, ComponentTemplate

            self.path = "component"
            self._make = partial(
                ComponentInstance, ComponentTemplate(engine.components, module, manifest, services, self.limits, limits, self.ticks)
            )
            return
        self.path = "plain" if force_plain or direct.unavailable() else "direct"
        if self.path == "direct":
            from cython_core.direct import DirectInstance

            self._make = partial(DirectInstance, direct.template(engine, module, manifest, imports, services, self.limits, limits))
        else:
            self._make = partial(PlainInstance, engine, module, manifest, services, imports, self.limits, limits)

    def instance(self) -> "SkillInstance":
        """A new instance with its own memory. Raises Busy, MemoryExceeded, or what instantiation trapped with."""
        try:
            return SkillInstance(self, self._make())
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

    __slots__ = ("_call", "_fuel", "_raw", "_skill", "_ticks", "faulted")

    def __init__(self, skill: LoadedSkill, raw: Any) -> None:
        self._skill, self._raw = skill, raw
        self._fuel, self._ticks, self._call = skill.limits.fuel, skill.ticks, raw.call
        self.faulted = False

    def call(self, hook: str, request: bytes) -> bytes:
        """Runs one hook on CBOR bytes and returns the reply's bytes.

        Raises GuestError of some kind, SkillRefused when the reply is an error reply, TooLarge for the request.
        """
        if len(request) > REQUEST_BYTES_MAX:
            raise TooLarge(f"{self._skill.name}: a request has at most {REQUEST_BYTES_MAX} bytes, this one has {len(request)}")
        index = self._skill.index(hook)
        reply: bytes
        try:
            reply, refused = self._call(index, request, self._fuel, self._ticks)
        except Exception as error:
            ended = self._skill.error(error, self._raw.memory_bytes())
            self.faulted |= not isinstance(ended, Busy)  # the call that it is in is another one, and may end well
            try:
                raise ended from error
            finally:
                del ended  # it holds this frame, and the frame it: an instance would wait for the collector to give its memory back
        if refused:
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
        """Gives the memory back. A call after it raises HostFault. Raises Busy during a call."""
        try:
            self._raw.close()
        except Exception as error:
            raise self._skill.error(error, 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _ErrorReply(msgspec.Struct, forbid_unknown_fields=True):
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(max_length=1024)]


def refusal(reply: bytes, skill: str) -> SkillRefused:
    """The error behind an error reply. Raises ReplyInvalid when it is not one."""
    try:
        answer = cbor.decode_struct(reply, _ErrorReply, f"{skill}: error reply")
    except (MalformedData, TooLarge) as error:
        raise ReplyInvalid(str(error)) from error
    code = safe(answer.code, 64)
    return SkillRefused(f"{skill}: {code}: {safe(answer.message)}", code)


def require_granted(module: "wasmtime.Module | Component", manifest: Manifest, grant: Grant, engine: SkillEngine) -> frozenset[str]:
    """The imports to link: those the module has. Raises CapabilityDenied for one that was not granted."""
    if not isinstance(module, wasmtime.Module):
        from host.sandbox.component_checks import imported, require_interfaces

        require_interfaces(module, engine.components.engine, manifest, grant)
        return frozenset(interface for interface, _ in imported(module, engine.components.engine))
    wanted = frozenset(imported.name or "" for imported in module.imports)
    missing = sorted(wanted - grant.imports())
    if missing:
        have = ", ".join(sorted(grant.names)) or "none"
        needs = ", ".join(f"{name} (capability {IMPORT_NEEDS.get(name, 'of a driver')})" for name in missing)
        raise CapabilityDenied(
            f"{manifest.name}: imports {needs} without the grant for it (granted: {have}); name it in the manifest, and have the owner allow it"
        )
    return wanted
