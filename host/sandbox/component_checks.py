"""What must hold of a component before it is called: its functions have the types of sdk/contract/skill.wit, and it imports nothing else.

Checked once, before its compiled code is cached; that capabilities were granted is checked at each load.
"""

from collections.abc import Iterator, Mapping

from wasmtime import Engine
from wasmtime import component as types

from host.core import wasm
from host.core.capabilities import CLOCK, FLAGS, LOG, RANDOM, STATE, Grant
from host.core.errors import CapabilityDenied, Incompatible, MalformedModule
from host.core.limits import DEFAULT
from host.core.manifest import ABI, Manifest
from host.core.text import safe
from host.sandbox import signatures
from host.sandbox.compounds import ERROR, Optional, Outcome, named
from host.sandbox.values import Bytes, Kind, Scalar, Text, Words

PACKAGE, VERSION = "snapcount:skill", f"{ABI}.0.0"
TYPES = "types"
MOTION, DRIVERS = "motion", "drivers"
CORE_INSTANCE, COMPONENT_START = 2, 9

Signature = tuple[tuple[Kind, ...], Kind | None]
"""Parameters and result."""

STATE_ERROR = Words("state-error", ("full",))
IMPORTS: dict[str, dict[str, Signature]] = {
    "log": {"write": ((Words("level", ("debug", "info", "warning", "error")), Text()), None)},
    "clock": {"now-ms": ((), Scalar("u64"))},
    "random": {"get-bytes": ((Scalar("u32"),), Bytes())},
    "state": {"get": ((Text(),), Optional(Bytes())), "set": ((Text(), Bytes()), Outcome(None, STATE_ERROR))},
    "feature-flags": {"is-on": ((Text(),), Outcome(Scalar("bool"), ERROR))},
    MOTION: {"execute": ((named("motion-command"),), Outcome(named("motion-reply"), ERROR))},
    DRIVERS: {"ask": ((Text(), Bytes()), Outcome(Bytes(), ERROR))},
}
"""What a component may import: the functions of each interface of skill.wit."""

NEEDS = {"log": LOG, "clock": CLOCK, "random": RANDOM, "state": STATE, "feature-flags": FLAGS, MOTION: MOTION}
"""The capability behind each interface; `drivers` needs any that a driver offers."""


def export_name(hook: str) -> str:
    """A hook's name as a component exports it."""
    return hook.replace("_", "-")


def signature_of(hook: str) -> Signature:
    """What a component exports for a hook."""
    request, reply = signatures.HOOKS[hook]
    return (() if request is None else (named(request),)), Outcome(named(reply), ERROR)


def check_component_bytes(data: bytes, what: str) -> None:
    """Before compiling: nothing runs when it is loaded."""
    if any(section.id == COMPONENT_START for section in wasm.sections(data, what)):
        raise MalformedModule(f"{what}: the component has a start function; remove it")
    if len(data) > DEFAULT.bundle_bytes_max:
        raise MalformedModule(f"{what}: a component has at most {DEFAULT.bundle_bytes_max} bytes, this one has {len(data)}")


def check_component_types(component: types.Component, engine: Engine, manifest: Manifest) -> None:
    """After compiling: each hook of the manifest, and each import, has exactly the type of skill.wit. Raises MalformedModule or Incompatible."""
    kind = component.type
    exports = {name: export.ty for name, export in kind.exports(engine).items()}
    for hook in manifest.hooks:
        if hook not in signatures.HOOKS:
            continue  # refused by name, as in every tier
        name = export_name(hook)
        if name not in exports:
            raise MalformedModule(f"{manifest.name}: the export {name} is missing; it exports {_listed(exports)}")
        _expect(f"export {name}", signature_of(hook), exports[name], manifest)
    for name, found in kind.imports(engine).items():
        _check_import(name, found.ty, engine, manifest)


def _check_import(name: str, found: object, engine: Engine, manifest: Manifest) -> None:
    interface = interface_of(name)
    if interface is None or not isinstance(found, types.ComponentInstanceType):
        offered = ", ".join(f"{PACKAGE}/{each}@{VERSION}" for each in IMPORTS)
        hint = "; build it without WASI (its language's library for Snapcount does)" if name.startswith("wasi:") else ""
        raise Incompatible(
            f"{manifest.name}: imports {safe(name, 120)}, which this host does not offer to a component{hint}; it offers {offered}"
        )
    if interface == TYPES:
        return
    for function, extern in found.exports(engine).items():
        kind = extern.ty
        if not isinstance(kind, types.FuncType):
            continue  # a type that its functions use
        if function not in IMPORTS[interface]:
            raise Incompatible(
                f"{manifest.name}: imports {safe(function, 64)} of {name}, which this host does not offer; it offers {', '.join(IMPORTS[interface])}"
            )
        _expect(f"import {interface}.{function}", IMPORTS[interface][function], kind, manifest)


def interface_of(name: str) -> str | None:
    """The interface of skill.wit that an import names; None for any other."""
    path, _, version = name.partition("@")
    package, _, interface = path.partition("/")
    return interface if package == PACKAGE and version == VERSION and (interface in IMPORTS or interface == TYPES) else None


def imported(component: types.Component, engine: Engine) -> Iterator[tuple[str, str]]:
    """Each imported function, by interface and name."""
    for name, extern in component.type.imports(engine).items():
        interface, kind = interface_of(name), extern.ty
        if interface is not None and interface != TYPES and isinstance(kind, types.ComponentInstanceType):
            yield from ((interface, function) for function, inner in kind.exports(engine).items() if isinstance(inner.ty, types.FuncType))


def exported(component: types.Component, engine: Engine) -> list[str]:
    """The names of the exported functions."""
    return [name for name, extern in component.type.exports(engine).items() if isinstance(extern.ty, types.FuncType)]


def require_exports_named(component: types.Component, engine: Engine, manifest: Manifest) -> None:
    """Raises MalformedModule for a function that is exported and no hook of the manifest: nobody would ever call it."""
    surplus = sorted(set(exported(component, engine)) - {export_name(hook) for hook in manifest.hooks})
    if surplus:
        raise MalformedModule(
            f"{manifest.name}: the component exports {', '.join(safe(name, 64) for name in surplus)}, which the manifest does not list under hooks: "
            "add it there, or remove the function"
        )


def need_of(interface: str, grant: Grant) -> str:
    """The capability that an interface needs and that was not granted; empty where it was."""
    if interface == DRIVERS:
        return "" if grant.drivers - {MOTION} else "of a driver"
    return "" if NEEDS[interface] in grant.names else NEEDS[interface]


def require_interfaces(component: types.Component, engine: Engine, manifest: Manifest, grant: Grant) -> None:
    """Raises CapabilityDenied for an import whose capability was not granted."""
    found = sorted({interface for interface, _ in imported(component, engine)})
    missing = [f"{interface} (capability {need})" for interface in found if (need := need_of(interface, grant))]
    if missing:
        have = ", ".join(sorted(grant.names)) or "none"
        raise CapabilityDenied(
            f"{manifest.name}: imports {', '.join(missing)} without the grant for it (granted: {have}); name it in the manifest, and have the owner allow it"
        )


def _expect(where: str, wanted: Signature, found: object, manifest: Manifest) -> None:
    parameters, result = wanted
    said = f"{manifest.name}: {where}: expected func({', '.join(kind.wit for kind in parameters)}){f' -> {result.wit}' if result else ''} of {PACKAGE}@{VERSION}"
    if not isinstance(found, types.FuncType):
        raise MalformedModule(f"{said}, found something that is not a function")
    if len(found.params) != len(parameters):
        raise MalformedModule(f"{said}, found one with {len(found.params)} parameters")
    for kind, (name, inner) in zip(parameters, found.params, strict=True):
        if not kind.same(inner):
            raise MalformedModule(f"{said}; its parameter {safe(name, 64)} has another type (built against another contract?)")
    given = found.result
    if (given is None) != (result is None) or (result is not None and not result.same(given)):
        raise MalformedModule(f"{said}; its result has another type (built against another contract?)")


def _listed(exports: Mapping[str, object]) -> str:
    return ", ".join(safe(name, 64) for name in list(exports)[:16]) or "nothing"
