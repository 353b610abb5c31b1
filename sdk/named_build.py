"""Builds a skill once more with the names of its functions, for a profile: Zig leaves them out of a module that is to be small.

The code is nearly, not always exactly, the same, so what is made here is measured and thrown away, never signed.
"""

import sys
import tempfile
from pathlib import Path

from host.core.bundle import with_manifest
from sdk.build import strip
from sdk.project import Project
from sdk.toolchains import zig
from sdk.toolchains.process import GUEST, cache_folder, run


def with_names(project: Project) -> bytes | None:
    """The unsigned bundle of a project in Zig with the names of its functions; None for another language. Raises BuildFailed, UsageError."""
    if project.lang != "zig":
        return None
    zig.describe()
    name = project.manifest.name
    optimize = "ReleaseFast" if project.optimize == "speed" else "ReleaseSmall"
    with tempfile.TemporaryDirectory(prefix="snapcount-names-") as scratch:
        made = Path(scratch) / "module.wasm"
        command = [
            sys.executable, "-P", "-m", "ziglang", "build-exe", *zig.TARGET, "-O", optimize, "-fno-entry", "-rdynamic", "--stack", zig.STACK_BYTES, "-j1",
            "-fno-strip", "--dep", "snapcount", f"-Mroot={project.source.relative_to(project.folder.resolve())}",
            *zig.TARGET, "-O", optimize, "-fno-strip", f"-Msnapcount={GUEST / 'zig' / 'snapcount.zig'}", f"-femit-bin={made}",
        ]  # fmt: skip
        caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"), "ZIG_LOCAL_CACHE_DIR": str(Path(scratch) / "zig")}
        run(list(map(str, command)), project.folder, name, made, environment=caches)
        return with_manifest(strip(made.read_bytes(), name), project.manifest, name)
