"""What must hold of a component before it is called: its functions have the types of sdk/contract/skill.wit, and it imports nothing else.

Checked once, before its compiled code is cached; that capabilities were granted is checked at each load.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wasmtime import Engine
from wasmtime import _ffi as ffi
from wasmtime import component as types

from host.core import wasm
from host.core.capabilities import CLOCK, FLAGS, LOG, RANDOM, STATE, Grant
from host.core.errors import CapabilityDenied, Incompatible, MalformedModule
from host.core.limits import DEFAULT
from host.core.manifest import ABI, Manifest
from host.core.text import safe
from host.sandbox import signatures
from host.sandbox.component_sections import check_sections
from host.sandbox.compounds import ERROR, Optional, Outcome, named
from host.sandbox.values import Bytes, Kind, Scalar, Text, Words

PACKAGE, VERSION = "snapcount:skill", f"{ABI}.0.0"
TYPES = "types"
MOTION, DRIVERS = "motion", "drivers"

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


def contract() -> tuple[object, ...]:
    """All that a component is compared with, as words: what was checked against one contract must not be taken for checked against another."""
    functions = [
        (interface, name, [kind.wit for kind in parameters], result and result.wit)
        for interface, each in IMPORTS.items()
        for name, (parameters, result) in each.items()
    ]
    return PACKAGE, VERSION, functions, signatures.ENUMS, signatures.RECORDS, signatures.CASES, signatures.HOOKS


def check_component_bytes(data: bytes, what: str) -> None:
    """Before compiling: its size, and what it declares."""
    if len(data) > DEFAULT.bundle_bytes_max:
        raise MalformedModule(f"{what}: a component has at most {DEFAULT.bundle_bytes_max} bytes, this one has {len(data)}")
    wasm.sections(data, what)
    check_sections(data, what)


def check_component_types(component: types.Component, engine: Engine, manifest: Manifest) -> None:
    """After compiling: each hook of the manifest, and each import, has exactly the type of skill.wit. Raises MalformedModule or Incompatible."""
    exports = _exports(component, engine, manifest.name)
    for hook in manifest.hooks:
        if hook not in signatures.HOOKS:
            continue  # refused by name, as in every tier
        name = export_name(hook)
        if name not in exports:
            raise MalformedModule(f"{manifest.name}: the export {name} is missing; it exports {_listed(exports)}")
        _expect(f"export {name}", signature_of(hook), exports[name], manifest)
    for name, found in _imports(component, engine, manifest.name).items():
        _check_import(name, found, engine, manifest)


def _check_import(name: str, found: object, engine: Engine, manifest: Manifest) -> None:
    interface = interface_of(name)
    if interface is None or not isinstance(found, types.ComponentInstanceType):
        offered = ", ".join(f"{PACKAGE}/{each}@{VERSION}" for each in IMPORTS)
        hint = "; build it without WASI (its language's library for Snapcount does)" if name.startswith("wasi:") else ""
        raise Incompatible(
            f"{manifest.name}: imports {safe(name, 120)}, which this host does not offer to a component{hint}; it offers {offered}"
        )
    functions = IMPORTS.get(interface, {})  # `types` has none
    for function, kind in _inside(found, engine, manifest.name).items():
        if isinstance(kind, types.ValType):
            continue  # a type that functions use
        if function not in functions:
            offered = ", ".join(functions) or "types only"
            raise Incompatible(
                f"{manifest.name}: imports {safe(function, 64)} of {name}, which this host does not offer; it offers {offered}"
            )
        _expect(f"import {interface}.{function}", functions[function], kind, manifest)


def interface_of(name: str) -> str | None:
    """The interface of skill.wit that an import names; None for any other."""
    path, _, version = name.partition("@")
    package, _, interface = path.partition("/")
    return interface if package == PACKAGE and version == VERSION and (interface in IMPORTS or interface == TYPES) else None


def imported(component: types.Component, engine: Engine) -> Iterator[tuple[str, str]]:
    """Each imported function, by interface and name."""
    for name, kind in _imports(component, engine).items():
        interface = interface_of(name)
        if interface is not None and isinstance(kind, types.ComponentInstanceType):
            yield from ((interface, function) for function, inner in _inside(kind, engine).items() if isinstance(inner, types.FuncType))


def exported(component: types.Component, engine: Engine) -> list[str]:
    """The names of the exported functions."""
    return [name for name, kind in _exports(component, engine).items() if isinstance(kind, types.FuncType)]


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
    if ffi.wasmtime_component_func_type_async(found.ptr()):
        raise MalformedModule(f"{said}, found an async one")
    if len(found.params) != len(parameters):
        raise MalformedModule(f"{said}, found one with {len(found.params)} parameters")
    for kind, (name, inner) in zip(parameters, found.params, strict=True):
        if not kind.same(inner):
            raise MalformedModule(f"{said}; its parameter {safe(name, 64)} has another type (built against another contract?)")
    given = found.result
    if (given is None) != (result is None) or (result is not None and not result.same(given)):
        raise MalformedModule(f"{said}; its result has another type (built against another contract?)")


def _imports(component: types.Component, engine: Engine, what: str = "component") -> dict[str, Any]:
    kind = component.type
    return _counted(ffi.wasmtime_component_type_import_count(kind.ptr(), engine.ptr()), "imports", kind.imports, engine, what)


def _exports(component: types.Component, engine: Engine, what: str = "component") -> dict[str, Any]:
    kind = component.type
    return _counted(ffi.wasmtime_component_type_export_count(kind.ptr(), engine.ptr()), "exports", kind.exports, engine, what)


def _inside(found: types.ComponentInstanceType, engine: Engine, what: str = "component") -> dict[str, Any]:
    count = ffi.wasmtime_component_instance_type_export_count(found.ptr(), engine.ptr())
    return _counted(count, "functions and types in an interface that it imports", found.exports, engine, what)


def _counted(count: int, of: str, listing: Callable[[Engine], Mapping[str, Any]], engine: Engine, what: str) -> dict[str, Any]:
    # To find one, wasmtime goes through all that stand before it: a listing takes time with the square of their number.
    if count > DEFAULT.component_externs_max:
        raise MalformedModule(f"{what}: it has {count} {of}, at most {DEFAULT.component_externs_max} are allowed")
    return {name: extern.ty for name, extern in listing(engine).items()}


def _listed(exports: Mapping[str, object]) -> str:
    return ", ".join(safe(name, 64) for name in list(exports)[:16]) or "nothing"
