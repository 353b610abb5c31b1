"""Builds a skill: compiles with the one pinned compiler, strips what differs between machines, and adds the manifest.

The same sources give the same bytes wherever they are built: sources are named relative to their folder, and debug sections, the only ones that hold
paths, are dropped. Names of functions stay, for backtraces.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from host.core import files
from host.core.bundle import UnverifiedBundle, digest_of, with_manifest
from host.core.errors import UsageError
from host.core.text import safe
from host.plugins.adapter import require_known_hooks
from host.sandbox.engine import default_engine
from sdk.local import user_cache
from sdk.project import Project

ZIG_VERSION = "0.17.0"
GUEST = Path(__file__).resolve().parent / "guest"
# One job: with several, the numbers in the names of functions differ from build to build.
# `-g -g0` keeps the names of functions and drops DWARF. Zig puts the stack first by itself, so an overflow traps.
# What docs/abi.md allows, feature by feature.
CPU = "-mcpu=mvp+bulk_memory+sign_ext+nontrapping_fptoint+multivalue+mutable_globals"
TARGET = ("-target", "wasm32-freestanding", CPU)
STACK_BYTES = 65_536
DROPPED_SECTIONS = (".debug", "producers", "target_features", "sourceMappingURL")
COMPILE_S_MAX = 300


class BuildFailed(UsageError):
    """The compiler refused the sources. `output` is what it said, for the terminal."""

    code = "build_failed"

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def build(project: Project, target: Path | None = None) -> Path:
    """Compiles, and writes the unsigned bundle to `target` (the project's own place by default). Nothing is written when it fails."""
    _require_compiler()
    with tempfile.TemporaryDirectory(prefix="snapcount-build-") as scratch:
        compiled = Path(scratch) / "module.wasm"
        command = _zig(project, compiled) if project.lang == "zig" else _c(project, compiled)
        _run(project, command, compiled)
        module = compiled.read_bytes()
    what = project.manifest.name
    bundle = with_manifest(strip(module, what), project.manifest, what)
    require_known_hooks(UnverifiedBundle.parse(bundle, what).manifest.hooks, what)
    user_cache().module(default_engine(), bundle, digest_of(bundle), project.manifest)  # what a node would refuse is refused here
    files.write_atomic(target or project.module, bundle)
    return target or project.module


def strip(module: bytes, what: str) -> bytes:
    """The module without debug information and tool names."""
    from host.core.wasm import without_custom

    return without_custom(module, what, DROPPED_SECTIONS)


def _zig(project: Project, compiled: Path) -> list[str]:
    return [
        "build-exe", *TARGET, "-O", "ReleaseFast" if project.optimize == "speed" else "ReleaseSmall", "-fno-entry", "-rdynamic", "--stack", str(STACK_BYTES), "-j1",
        "--dep", "snapcount", f"-Mroot={project.source.relative_to(project.folder.resolve())}", f"-Msnapcount={GUEST / 'zig' / 'snapcount.zig'}",
        f"-femit-bin={compiled}",
    ]  # fmt: skip


def _c(project: Project, compiled: Path) -> list[str]:
    sources = sorted(project.source.parent.glob("*.c"))
    return [
        "cc", *TARGET, "-O2" if project.optimize == "speed" else "-Os", "-std=c11", "-ffreestanding", "-nostdlib", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-g", "-g0",
        "-Wl,--no-entry", "-Wl,--gc-sections", f"-Wl,-z,stack-size={STACK_BYTES}",
        f"-I{GUEST / 'c'}", f"-I{project.source.parent}",
        *(str(path.relative_to(project.folder.resolve())) for path in sources), *map(str, sorted((GUEST / "c").glob("*.c"))), "-o", str(compiled),
    ]  # fmt: skip


def _run(project: Project, command: list[str], compiled: Path) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapcount" / "zig"
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(compiled.parent / "zig"), "NO_COLOR": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "ziglang", *command], cwd=project.folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=COMPILE_S_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{project.manifest.name}: the compiler took more than {COMPILE_S_MAX} s and was stopped", "") from error
    if ended.returncode != 0 or not compiled.exists():
        first = next((line for line in ended.stderr.splitlines() if "error" in line), f"the compiler ended with {ended.returncode}")
        raise BuildFailed(f"{project.manifest.name}: does not compile: {safe(first)}", ended.stderr)


def _require_compiler() -> None:
    if importlib.util.find_spec("ziglang") is None:
        raise UsageError(f"the guest compiler is missing: install it with `pip install ziglang=={ZIG_VERSION}` (it unpacks to 400 MB)")
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        found = "an unknown version"
    if found != ZIG_VERSION:
        raise UsageError(f"builds are reproducible with ziglang {ZIG_VERSION} only, found {found}: pip install ziglang=={ZIG_VERSION}")
