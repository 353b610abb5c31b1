"""The JavaScript engine that every skill in JavaScript has inside, without what it would take from the machine.

componentize-qjs runs QuickJS, a core module, over the sources and keeps what its memory then holds. As it comes, the engine asks WASI for the time and for
random numbers, so that no two builds are alike, and a component imports clocks, files and standard streams. Here the engine is read out of the npm package,
known by its digest, and its imports of WASI become functions of its own: clocks stand at 0, seeds are 0, all others trap. A component then imports nothing
but what its manifest asks for, and its bytes are the same wherever it is built: the packages for all machines hold the same engine.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from host.core import wasm
from host.core.wasm import read_u32, write_u32

# Length and SHA-256 of the engines without async functions in componentize-qjs 0.4.5, small and fast.
ENGINES = {
    "size": (956_298, "51bced91769e0a3cb8bc288d230675b03fca8f97b42723b9f9f1702e6903b6f7"),
    "speed": (1_497_910, "25703f010b80efb806f9c35daf9ee6524ad60320c9781b0bae4e234264f8dac5"),
}
IMPORTS, FUNCTIONS, EXPORTS, CODE = 2, 3, 7, 10
FUNCTION, TABLE, MEMORY, GLOBAL = 0, 1, 2, 3
# Of a component (component model, Binary.md). The compiler writes a section for each alias and each export.
COMPONENT_ALIAS, COMPONENT_EXPORT = 6, 11
INIT = b"\x04init"
# Function bodies: no locals, the instructions, end (core specification, section 5.4). The results of `now` and `insecure-seed` go to where a pointer says.
NOTHING, TRAP, ZERO = b"\x00\x0b", b"\x00\x00\x0b", b"\x00\x42\x00\x0b"
TWO_ZEROS = b"\x00\x20\x00\x42\x00\x37\x03\x00\x20\x00\x42\x00\x37\x03\x08\x0b"
BODIES = {
    ("wasi_snapshot_preview1", "reset_adapter_state"): NOTHING,
    ("wasi:random/insecure-seed", "insecure-seed"): TWO_ZEROS,
    ("wasi:clocks/wall-clock", "now"): TWO_ZEROS,
    ("wasi:clocks/monotonic-clock", "now"): ZERO,
}
WHAT = "QuickJS"


def engine(package: bytes, optimize: str) -> bytes | None:
    """The engine out of the file that holds it; None for a file that does not hold it."""
    length, digest = ENGINES[optimize]
    at = package.find(wasm.MAGIC + wasm.VERSION_1)
    while at >= 0:
        found = package[at : at + length]
        if hashlib.sha256(found).hexdigest() == digest:
            return found
        at = package.find(wasm.MAGIC + wasm.VERSION_1, at + 1)
    return None


@dataclass(frozen=True)
class _Import:
    module: str
    name: str
    kind: int
    described: bytes
    """The kind and what follows it."""


def alone(module: bytes) -> bytes:
    """The module with functions of its own in place of what it imports from WASI.

    The imports stay, under the names of functions that the module itself exports; who links it joins the two. So no function changes its number.
    """
    parts = [(section, module[section.start : section.end]) for section in wasm.sections(module, WHAT)]
    imports = next(list(_imports(module, section.start)) for section, _ in parts if section.id == IMPORTS)
    functions = [found for found in imports if found.kind == FUNCTION]
    bodies = {found: body for found in functions if (body := _body(found))}
    replaced = {found: (f"snapcount_{number}", body) for number, (found, body) in enumerate(bodies.items())}
    first = len(functions) + next(_count(module, section.start)[0] for section, _ in parts if section.id == FUNCTIONS)
    added = {
        FUNCTIONS: [found.described[1:] for found in replaced],
        EXPORTS: [_name(name) + bytes([FUNCTION]) + write_u32(first + number) for number, (name, _) in enumerate(replaced.values())],
        CODE: [write_u32(len(body)) + body for _, body in replaced.values()],
    }
    made = [module[:8]]
    for section, data in parts:
        if section.id == IMPORTS:
            entries = [_import(found, replaced[found][0] if found in replaced else "") for found in imports]
            made.append(_section(IMPORTS, len(entries), b"".join(entries)))
        elif section.id in added:
            count, at = _count(module, section.start)
            more = added[section.id]
            made.append(_section(section.id, count + len(more), module[at : section.end] + b"".join(more)))
        else:
            made.append(data)
    return b"".join(made)


def _body(found: _Import) -> bytes:
    """What stands for an import of WASI; empty for any other."""
    if not found.module.startswith("wasi"):
        return b""
    return BODIES.get((found.module.partition("@")[0], found.name), TRAP)


def _imports(module: bytes, start: int) -> Iterator[_Import]:
    count, at = _count(module, start)
    for _ in range(count):
        names = []
        for _ in range(2):
            length, at = read_u32(module, at, WHAT)
            names.append(module[at : at + length].decode())
            at += length
        end = _after(module, at)
        yield _Import(names[0], names[1], module[at], module[at:end])
        at = end


def _after(module: bytes, at: int) -> int:
    """The offset after what an import says behind its names (core specification, section 5.5.5)."""
    kind, at = module[at], at + 1
    if kind == FUNCTION:
        return read_u32(module, at, WHAT)[1]
    if kind == GLOBAL:
        return at + 2
    at += kind == TABLE  # the type of its elements
    has_maximum = module[at] & 1
    _, at = read_u32(module, at + 1, WHAT)
    return read_u32(module, at, WHAT)[1] if has_maximum else at


def _count(module: bytes, start: int) -> tuple[int, int]:
    """How many entries a section has, and the offset of the first."""
    _, at = read_u32(module, start + 1, WHAT)
    return read_u32(module, at, WHAT)


def _name(name: str) -> bytes:
    return write_u32(len(name.encode())) + name.encode()


def _import(found: _Import, own: str) -> bytes:
    return (_name("env") + _name(own) if own else _name(found.module) + _name(found.name)) + found.described


def _section(number: int, count: int, entries: bytes) -> bytes:
    body = write_u32(count) + entries
    return bytes([number]) + write_u32(len(body)) + body


def hooks_only(component: bytes) -> bytes:
    """The component without its exported function `init`, which filled its memory when it was built: a host is to call its hooks only.

    Each alias and each export makes a number for a function, so those after them are smaller by as many as were left out.
    """
    made, gone = [component[:8]], 0
    for section in wasm.sections(component, WHAT):
        data, body = component[section.start : section.end], read_u32(component, section.start + 1, WHAT)[1]
        if section.id == COMPONENT_ALIAS and data.endswith(INIT):
            gone += 1
        elif section.id == COMPONENT_EXPORT and gone:
            length, name = read_u32(component, body + 2, WHAT)  # behind the count, 1, and the kind of name, 0
            if component[name - 1 : name + length] == INIT:
                gone += 1
                continue
            at = name + length + 1  # behind the sort, function
            number, end = read_u32(component, at, WHAT)
            kept = component[body:at] + write_u32(number - gone) + component[end : section.end]
            made.append(bytes([COMPONENT_EXPORT]) + write_u32(len(kept)) + kept)
        else:
            made.append(data)
    return b"".join(made)
