"""Zig and C: one compiler from the package index, of one version. It gives the same bytes everywhere, and refuses to run in another version."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from host.core.errors import UsageError
from sdk.project import Project
from sdk.toolchains.process import GUEST, cache_folder, run

VERSION = "0.17.0"
# One job: with several, the numbers in the names of functions differ from build to build.
# `-g -g0` keeps the names of functions and drops DWARF. Zig puts the stack first by itself, so an overflow traps.
# What docs/abi.md allows, feature by feature.
CPU = "-mcpu=mvp+bulk_memory+sign_ext+nontrapping_fptoint+multivalue+mutable_globals"
TARGET = ("-target", "wasm32-freestanding", CPU)
STACK_BYTES = 65_536


def zig(project: Project, scratch: Path, _say: Callable[[str], None]) -> bytes:
    """Compiles the one root file, which imports the others."""
    command = [
        "build-exe", *TARGET, "-O", "ReleaseFast" if project.optimize == "speed" else "ReleaseSmall", "-fno-entry", "-rdynamic", "--stack", str(STACK_BYTES), "-j1",
        "--dep", "snapcount", f"-Mroot={project.source.relative_to(project.folder.resolve())}", f"-Msnapcount={GUEST / 'zig' / 'snapcount.zig'}",
    ]  # fmt: skip
    return _compile(project, scratch, command, "-femit-bin={}")


def c(project: Project, scratch: Path, _say: Callable[[str], None]) -> bytes:
    """Compiles every .c file beside the source, together with the guest library."""
    sources = sorted(project.source.parent.glob("*.c"))
    command = [
        "cc", *TARGET, "-O2" if project.optimize == "speed" else "-Os", "-std=c11", "-ffreestanding", "-nostdlib", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-g", "-g0",
        "-Wl,--no-entry", "-Wl,--gc-sections", f"-Wl,-z,stack-size={STACK_BYTES}",
        f"-I{GUEST / 'c'}", f"-I{project.source.parent}",
        *(str(path.relative_to(project.folder.resolve())) for path in sources), *map(str, sorted((GUEST / "c").glob("*.c"))),
    ]  # fmt: skip
    return _compile(project, scratch, command, "-o{}")


def _compile(project: Project, scratch: Path, command: list[str], output: str) -> bytes:
    _require_compiler()
    made = scratch / "module.wasm"
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"), "ZIG_LOCAL_CACHE_DIR": str(scratch / "zig")}
    run(
        [sys.executable, "-P", "-m", "ziglang", *command, output.format(made)],
        project.folder,
        project.manifest.name,
        made,
        environment=caches,
    )
    return made.read_bytes()


def describe() -> str:
    """The compiler and its version. Raises UsageError where it is missing, or another than the pinned one."""
    _require_compiler()
    return f"ziglang {VERSION}"


def _require_compiler() -> None:
    if importlib.util.find_spec("ziglang") is None:
        raise UsageError(f"the guest compiler is missing: install it with `pip install ziglang=={VERSION}` (it unpacks to 400 MB)")
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        found = "an unknown version"
    if found != VERSION:
        raise UsageError(f"builds are reproducible with ziglang {VERSION} only, found {found}: pip install ziglang=={VERSION}")
