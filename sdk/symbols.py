"""Names of functions as people write them: Rust's are mangled in the name section, those of Zig, C and AssemblyScript stand there as they are."""

import re

from host.core import wasm
from host.core.text import safe

NAME_SECTION = "name"
HASH = re.compile(r"h[0-9a-f]{16}\Z")
ESCAPES = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
LENGTH_MAX = 120


def has_names(module: bytes, what: str) -> bool:
    """Whether the module carries the names of its functions."""
    return any(section.name == NAME_SECTION for section in wasm.sections(module, what))


def readable(name: str) -> str:
    """A function's name, safe to print: Rust's legacy mangling (`_ZN…17h…E`) undone and without its hash, any other as it is."""
    return safe(_rust(name) or name, LENGTH_MAX)


def _rust(name: str) -> str:
    """The path that a name of rustc's legacy scheme stands for; empty for any other."""
    match = re.match(r"_?_?ZN(.*)E(?:\.llvm\.\w+)?\Z", name)
    if not match:
        return ""
    rest, parts = match[1], []
    while rest:
        digits = re.match(r"[1-9][0-9]*", rest)
        if not digits or digits.end() + int(digits[0]) > len(rest):
            return ""
        end = digits.end() + int(digits[0])
        parts.append(rest[digits.end() : end])
        rest = rest[end:]
    if len(parts) > 1 and HASH.match(parts[-1]):
        parts.pop()
    return "::".join(map(_unescaped, parts))


def _unescaped(part: str) -> str:
    """`$LT$` and its like, `..` for `::`, and the underscore that keeps a part from beginning with a sign."""
    if part.startswith("_$"):
        part = part[1:]

    def sign(match: re.Match[str]) -> str:
        code = match[1]
        if code in ESCAPES:
            return ESCAPES[code]
        return chr(int(code[1:], 16)) if re.fullmatch(r"u[0-9a-f]{1,5}", code) else match[0]

    return re.sub(r"\$(\w+)\$", sign, part.replace("..", "::"))
