"""The section level of a WebAssembly binary, core module (core specification, section 5.5) or component (component model, Binary.md): enough to carry a
manifest and signatures.

A bundle is read before it is trusted, so this reader allocates nothing by what the bytes claim and looks into no section but custom ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from host.core.errors import MalformedModule
from host.core.limits import DEFAULT

MAGIC = b"\0asm"
VERSION_1 = b"\x01\0\0\0"
COMPONENT = b"\x0d\0\x01\0"  # version 13 of layer 1
CUSTOM = 0
START = 8
CORE_MODULE, NESTED_COMPONENT = 1, 4  # in a component
NESTED = {CORE_MODULE: VERSION_1, NESTED_COMPONENT: COMPONENT}


@dataclass(frozen=True)
class Section:
    """One section: its id, the offsets of its first byte and of the first byte after it, and, for a custom section, name and content."""

    id: int
    start: int
    end: int
    name: str = ""
    content: bytes = b""


def is_component(data: bytes) -> bool:
    """Whether this is a component, by its header: the slow tier."""
    return data[:8] == MAGIC + COMPONENT


def sections(module: bytes, what: str) -> list[Section]:
    """All sections in order, of a component those of its outermost level. Raises MalformedModule for anything that is neither a version 1 core module nor a
    component.
    """
    if module[:4] != MAGIC:
        raise MalformedModule(
            f"{what}: not a WebAssembly binary: expected it to begin with 00 61 73 6d, found {module[:4].hex(' ') or 'nothing'}"
        )
    if module[4:8] not in (VERSION_1, COMPONENT):
        raise MalformedModule(
            f"{what}: expected WebAssembly core version 1 (01 00 00 00) or a component (0d 00 01 00), found {module[4:8].hex(' ')}"
        )
    return list(_walk(module, what, DEFAULT.component_sections_max if is_component(module) else DEFAULT.sections_max))


@dataclass(frozen=True)
class Inner:
    """A section anywhere in a component. `component`: whether it stands in a component, not in a core module. `count`: how many things it declares."""

    component: bool
    id: int
    count: int


def everywhere(component: bytes, what: str) -> Iterator[Inner]:
    """The sections of a component, of every component in it, and of every core module in those, as they stand. What is in no section is skipped.

    Raises MalformedModule where lengths or headers are wrong, and over `component_sections_max` in all.
    """
    inside = [(8, len(component), True)]  # begin and end of what is not read yet, and whether it is a component's
    for _ in range(DEFAULT.component_sections_max + 1):
        while inside and inside[-1][0] == inside[-1][1]:
            inside.pop()
        if not inside:
            return
        at, end, in_component = inside.pop()
        size, body = read_u32(component, at + 1, what)
        after, kind = body + size, component[at]
        if after > end:
            raise MalformedModule(f"{what}: section {kind} at byte {at} is longer than what it stands in")
        inside.append((after, end, in_component))
        if in_component and kind in NESTED:
            if component[body : min(body + 8, after)] != MAGIC + NESTED[kind]:
                raise MalformedModule(f"{what}: section {kind} at byte {at} is not what it says")
            inside.append((body + 8, after, kind != CORE_MODULE))
            yield Inner(in_component, kind, 1)
        else:
            yield Inner(in_component, kind, read_u32(component, body, what)[0] if kind != CUSTOM and size else 0)
    raise MalformedModule(f"{what}: more than {DEFAULT.component_sections_max} sections, those of what is inside it counted in")


def _walk(module: bytes, what: str, sections_max: int) -> Iterator[Section]:
    at, count = 8, 0
    while at < len(module):
        count += 1
        if count > sections_max:
            raise MalformedModule(f"{what}: more than {sections_max} sections")
        start, kind = at, module[at]
        size, body = read_u32(module, at + 1, what)
        at = body + size
        if at > len(module):
            raise MalformedModule(f"{what}: section {kind} at byte {start} claims {size} bytes, {len(module) - body} are left (truncated?)")
        if kind != CUSTOM:
            yield Section(kind, start, at)
            continue
        length, name_at = read_u32(module, body, what)
        if name_at + length > at:
            raise MalformedModule(f"{what}: the custom section at byte {start} has a name longer than itself")
        name = module[name_at : name_at + length].decode("utf-8", "replace")
        yield Section(kind, start, at, name, module[name_at + length : at])


def read_u32(data: bytes, at: int, what: str) -> tuple[int, int]:
    """A LEB128 u32 at `at`, and the offset after it."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise MalformedModule(f"{what}: the module ends inside a number (truncated?)")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if value > 0xFFFFFFFF:
                break
            return value, at
    raise MalformedModule(f"{what}: a number at byte {at} is longer than 32 bits")


def write_u32(value: int) -> bytes:
    """`value` as LEB128 in its shortest form."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def custom_section(name: str, content: bytes) -> bytes:
    """A whole custom section, to be appended to a module."""
    body = write_u32(len(name.encode())) + name.encode() + content
    return bytes([CUSTOM]) + write_u32(len(body)) + body


def without_custom(module: bytes, what: str, drop: tuple[str, ...]) -> bytes:
    """The module or component less its custom sections whose name begins with one of `drop`."""
    kept = [module[s.start : s.end] for s in sections(module, what) if not (s.id == CUSTOM and s.name.startswith(drop))]
    return module[:8] + b"".join(kept)
