"""The compilers, one module for each family of languages. Each compiles a project into one core module, or, for the slow tier, one component.

A compiler never writes into the project, and names sources relative to it, so that the bytes do not depend on where the project is.
"""

from collections.abc import Callable
from pathlib import Path

from sdk.project import Project
from sdk.toolchains import assemblyscript, javascript, python, rust, zig

Say = Callable[[str], None]
"""Gets a line for people, as that another compiler than the pinned one is used."""

Compiler = Callable[[Project, Path, Say], bytes]
"""Compiles a project with `scratch`, an empty folder, to work in. Raises BuildFailed, and UsageError that says which toolchain is missing and how to get it."""

COMPILERS: dict[str, Compiler] = {
    "zig": zig.zig,
    "c": zig.c,
    "rust": rust.rust,
    "assemblyscript": assemblyscript.assemblyscript,
    "python": python.python,
    "javascript": javascript.javascript,
}

TOOLCHAINS: dict[str, Callable[[], str]] = {
    "zig": zig.describe,
    "c": zig.describe,
    "rust": rust.describe,
    "assemblyscript": assemblyscript.describe,
    "python": python.describe,
    "javascript": javascript.describe,
}
"""Names the toolchain of a language and its versions. Raises UsageError that says which is missing and how to get it."""
