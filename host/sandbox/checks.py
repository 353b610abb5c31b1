"""What must hold of a module before an unchecked call may enter it. Run once, before its compiled code is cached."""

from collections.abc import Iterable, Mapping

from wasmtime import FuncType, MemoryType, Module, ValType

from host.core import wasm
from host.core.capabilities import IMPORT_CALL, IMPORT_NEEDS
from host.core.errors import Incompatible, MalformedModule
from host.core.manifest import ABI, Manifest
from host.core.text import safe

NAMESPACE = f"snapcount:host/{ABI}"
IMPORTS_MAX = 64
EXPORTS_MAX = 1024
SECTION_IMPORT, SECTION_EXPORT = 2, 7

HOOK_PREFIX = "hook_"
HOOKS_SHOWN = 8
WASI_HINT = "; a core module has no WASI: compile for a target without an operating system (docs/languages.md), or make it a component"

HOOK_TYPE = (("i32", "i32"), ("i64",))
ALLOC_TYPE = (("i32",), ("i32",))
RESET_TYPE: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
IMPORT_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "log": (("i32",) * 3, ()),
    "now_ms": ((), ("i64",)),
    "random": (("i32",) * 2, ()),
    "state_get": (("i32",) * 4, ("i32",)),
    "state_set": (("i32",) * 4, ("i32",)),
    "call": (("i32",) * 6, ("i32",)),
}
KNOWN_IMPORTS = frozenset(IMPORT_NEEDS) | {IMPORT_CALL}
assert frozenset(IMPORT_TYPES) == KNOWN_IMPORTS


def check_bytes(data: bytes, what: str) -> None:
    """Before compiling: a core module, binary not text, no start function, no flood of imports or exports."""
    if wasm.is_component(data):
        raise MalformedModule(f"{what}: expected a core module, found a component")
    for section in wasm.sections(data, what):
        if section.id == wasm.START:
            raise MalformedModule(f"{what}: it has a start function, which would run before any limit of a call; remove it")
        bound = {SECTION_IMPORT: IMPORTS_MAX, SECTION_EXPORT: EXPORTS_MAX}.get(section.id)
        if bound is not None:
            _, body = wasm.read_u32(data, section.start + 1, what)
            count, _ = wasm.read_u32(data, body, what)
            if count > bound:
                raise MalformedModule(
                    f"{what}: {count} {'imports' if section.id == SECTION_IMPORT else 'exports'}, at most {bound} are allowed"
                )


def check_types(module: Module, manifest: Manifest) -> None:
    """After compiling: every export and import has exactly the type of ABI 1 (docs/abi.md). Raises MalformedModule or Incompatible."""
    exports = {export.name: export.type for export in module.exports}
    if not isinstance(exports.get("memory"), MemoryType):
        raise MalformedModule(f"{manifest.name}: exports no memory named `memory`")
    _expect(exports, "sc_alloc", ALLOC_TYPE, manifest)
    if "sc_reset" in exports:
        _expect(exports, "sc_reset", RESET_TYPE, manifest)
    for hook in manifest.hooks:
        _expect(exports, f"hook_{hook}", HOOK_TYPE, manifest)
    for imported in module.imports:
        if imported.module != NAMESPACE or imported.name not in IMPORT_TYPES:
            hint = WASI_HINT if imported.module.startswith("wasi") else ""
            raise Incompatible(
                f"{manifest.name}: imports {safe(imported.module, 64)}.{safe(imported.name or '', 64)}, which this host does not offer; "
                f"it offers {NAMESPACE}: {', '.join(sorted(IMPORT_TYPES))}{hint}"
            )
        found = _shape(imported.type)
        if found != IMPORT_TYPES[imported.name]:
            raise MalformedModule(
                f"{manifest.name}: import {imported.name}: expected {_words(IMPORT_TYPES[imported.name])}, found {_words(found)}"
            )


def require_every_hook_named(module: Module, manifest: Manifest) -> None:
    """Raises MalformedModule for a hook that the module exports and the manifest does not list: nobody would ever call it."""
    surplus = sorted(set(_hooks(export.name for export in module.exports)) - set(manifest.hooks))
    if surplus:
        raise MalformedModule(
            f"{manifest.name}: the module exports {', '.join(f'hook_{safe(hook, 64)}' for hook in surplus)}, which the manifest does not list under hooks: "
            "add it there, or remove the function"
        )


def value_type(name: str) -> ValType:
    """wasmtime's type for a name in `IMPORT_TYPES`."""
    return ValType.i64() if name == "i64" else ValType.i32()


def _expect(exports: Mapping[str, object], name: str, wanted: tuple[tuple[str, ...], tuple[str, ...]], manifest: Manifest) -> None:
    if name not in exports:
        hint = ""
        if name.startswith(HOOK_PREFIX):
            there = ", ".join(f"{HOOK_PREFIX}{safe(hook, 64)}" for hook in sorted(_hooks(exports))[:HOOKS_SHOWN]) or "no hook"
            hint = f", though the manifest lists the hook {name.removeprefix(HOOK_PREFIX)}; it exports {there}"
        raise MalformedModule(f"{manifest.name}: the export {name} is missing{hint}")
    found = _shape(exports[name])
    if found != wanted:
        raise MalformedModule(f"{manifest.name}: export {name}: expected {_words(wanted)}, found {_words(found)}")


def _hooks(exports: Iterable[str]) -> list[str]:
    """The names of the hooks among the exports."""
    return [name.removeprefix(HOOK_PREFIX) for name in exports if name.startswith(HOOK_PREFIX)]


def _shape(kind: object) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    if not isinstance(kind, FuncType):
        return None
    return tuple(str(p) for p in kind.params), tuple(str(r) for r in kind.results)


def _words(shape: tuple[tuple[str, ...], tuple[str, ...]] | None) -> str:
    return "something that is not a function" if shape is None else f"({', '.join(shape[0])}) -> ({', '.join(shape[1])})"
