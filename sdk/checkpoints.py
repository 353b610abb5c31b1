"""Rewrites a module so that a call which runs out of fuel stops in the function that used the fuel, not in the next one.

wasmtime looks at the fuel at function entries and loop headers only, so straight code is noticed late: in whatever function comes next. An empty loop
(`loop end`) is such a place, costs no fuel and does nothing. One before each call, before each `return` and at the end of each function makes every stretch
of code between two looks belong to the function in which the second stands; only the one unit of a `call` instruction falls to the function that it calls.

The binary format is that of the core specification, section 5; the instructions are those that ABI 1 allows (docs/abi.md).
"""

from host.core import wasm
from host.core.errors import MalformedModule

TYPE, FUNCTION, CODE = 1, 3, 10
LOOK = b"\x03\x40\x0b"  # loop, no result, end
BLOCK, END, RETURN, CALL, CALL_INDIRECT = 0x02, 0x0B, 0x0F, 0x10, 0x11
FUNC_FORM, NO_RESULT = 0x60, b"\x40"
BR_TABLE, SELECT_TYPED, PREFIX = 0x0E, 0x1C, 0xFC
# Immediates by opcode: "i" is a LEB128 number, "4" and "8" are so many bytes. What is in none of these has no immediates.
IMMEDIATES: dict[int, str] = {
    **dict.fromkeys((0x02, 0x03, 0x04, 0x0C, 0x0D, 0x10, *range(0x20, 0x27), 0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2), "i"),
    **dict.fromkeys((0x11, *range(0x28, 0x3F)), "ii"),
    0x43: "4", 0x44: "8",
}  # fmt: skip
PLAIN = frozenset((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, *range(0x45, 0xC5), 0xD1))
# After the prefix 0xFC: saturating conversions 0 to 7, then bulk memory and tables.
PREFIXED = (*[0] * 8, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1)


def with_checkpoints(module: bytes, what: str) -> bytes:
    """The module with a look at the fuel wherever code passes from one function to another. Raises MalformedModule for what ABI 1 does not allow."""
    try:
        return _rewritten(module, what)
    except IndexError as error:
        raise MalformedModule(f"{what}: the module ends inside a function (truncated?)") from error


def _rewritten(module: bytes, what: str) -> bytes:
    sections = wasm.sections(module, what)
    bodies = {section.id: section for section in sections if section.id in (TYPE, FUNCTION, CODE)}
    if CODE not in bodies or FUNCTION not in bodies:
        return module
    rewriter = _Rewriter(module, what, bodies)
    pieces = [module[:8]]
    for section in sections:
        if section.id == TYPE:
            pieces.append(b"")  # written last: functions may have needed more types
            place = len(pieces) - 1
        elif section.id == CODE:
            pieces.append(rewriter.code())
        else:
            pieces.append(module[section.start : section.end])
    pieces[place] = rewriter.types()
    return b"".join(pieces)


class _Rewriter:
    def __init__(self, module: bytes, what: str, bodies: dict[int, wasm.Section]) -> None:
        self._module, self._what, self._bodies = module, what, bodies
        self._results = self._read_types()
        self._added: list[bytes] = []

    def types(self) -> bytes:
        """The type section, with what was added."""
        start, count = self._vector(TYPE)
        rest = self._module[start : self._bodies[TYPE].end]
        return _section(TYPE, wasm.write_u32(count + len(self._added)) + rest + b"".join(self._added))

    def code(self) -> bytes:
        """The code section, each body with its looks."""
        at, count = self._vector(FUNCTION)
        kinds = []
        for _ in range(count):
            kind, at = wasm.read_u32(self._module, at, self._what)
            kinds.append(kind)
        at, count = self._vector(CODE)
        made = [wasm.write_u32(count)]
        for kind in kinds:
            size, at = wasm.read_u32(self._module, at, self._what)
            body = self._body(at, at + size, kind)
            made.append(wasm.write_u32(len(body)) + body)
            at += size
        return _section(CODE, b"".join(made))

    def _body(self, at: int, end: int, kind: int) -> bytes:
        """locals, then a block around all of the code: what branches out of the function now branches to its end, before the last look."""
        start = at
        groups, at = wasm.read_u32(self._module, at, self._what)
        for _ in range(groups):
            at = self._skip(self._skip(at))
        made = [self._module[start:at], bytes([BLOCK]), self._block_type(kind)]
        kept = at
        while at < end:
            if self._module[at] in (RETURN, CALL, CALL_INDIRECT):
                made += [self._module[kept:at], LOOK]
                kept = at
            at = self._instruction(at)
        return b"".join((*made, self._module[kept:end], LOOK, bytes([END])))

    def _instruction(self, at: int) -> int:
        """The offset after an instruction."""
        opcode, at = self._module[at], at + 1
        if opcode in PLAIN:
            return at
        if opcode in (BR_TABLE, SELECT_TYPED):
            count, at = wasm.read_u32(self._module, at, self._what)
            for _ in range(count + (opcode == BR_TABLE)):
                at = self._skip(at)
            return at
        if opcode == PREFIX:
            number, at = wasm.read_u32(self._module, at, self._what)
            immediates = "i" * PREFIXED[number] if number < len(PREFIXED) else None
        else:
            immediates = IMMEDIATES.get(opcode)
        if immediates is None:
            raise MalformedModule(f"{self._what}: byte {at - 1} is an instruction that ABI 1 does not allow (0x{opcode:02x})")
        for one in immediates:
            at = self._skip(at) if one == "i" else at + int(one)
        return at

    def _skip(self, at: int) -> int:
        while self._module[at] & 0x80:
            at += 1
        return at + 1

    def _vector(self, section: int) -> tuple[int, int]:
        """Where the items of a section begin, and how many there are."""
        _, body = wasm.read_u32(self._module, self._bodies[section].start + 1, self._what)
        count, at = wasm.read_u32(self._module, body, self._what)
        return at, count

    def _read_types(self) -> list[bytes]:
        """The results of each function type, as the binary has them: count and value types."""
        at, count = self._vector(TYPE)
        found = []
        for _ in range(count):
            if self._module[at] != FUNC_FORM:
                raise MalformedModule(f"{self._what}: byte {at} begins a type that is no function's")
            size, at = wasm.read_u32(self._module, at + 1, self._what)
            results = at + size
            size, at = wasm.read_u32(self._module, results, self._what)
            at += size
            found.append(self._module[results:at])
        return found

    def _block_type(self, kind: int) -> bytes:
        results = self._results[kind]
        if results == b"\0":
            return NO_RESULT
        if results[0] == 1:
            return results[1:]
        made = bytes([FUNC_FORM, 0]) + results
        if made not in self._added:
            self._added.append(made)
        return _signed(len(self._results) + self._added.index(made))


def _signed(value: int) -> bytes:
    """A LEB128 number that reads the same as a signed one: its last byte keeps bit 6 clear."""
    out = bytearray(wasm.write_u32(value))
    if out[-1] & 0x40:
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def _section(number: int, body: bytes) -> bytes:
    return bytes([number]) + wasm.write_u32(len(body)) + body
