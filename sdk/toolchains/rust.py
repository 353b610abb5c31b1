"""Rust: the distribution's compiler with its WebAssembly target, and a linker. The guest library is compiled with the skill; there are no crates.

Any compiler with the target will do; the same bytes on every machine come from the pinned one, which is Debian 12's.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from host.core.errors import UsageError
from sdk.project import Project
from sdk.toolchains.process import GUEST, probe, run

VERSION = "1.63.0"
LINKER_VERSION = "14.0.6"
TARGET = "wasm32-unknown-unknown"
SYSTEM_RUSTC = "/usr/bin/rustc"  # looked at even where another one comes first on the PATH
STACK_BYTES = 65_536
GET = "apt-get install rustc libstd-rust-dev-wasm32 lld-14 (Debian 12), or `rustup target add wasm32-unknown-unknown`"
# By preference: the one that comes with the compiler is found by the compiler's own folder before any of these.
LINKERS = ("lld-14", "rust-lld", "wasm-ld-14", "wasm-ld", "lld")
# Arithmetic that overflows traps, as it does while testing: a wrong number of machine time is worse than none.
FLAGS = (
    "--edition", "2021", "--target", TARGET, "-C", "panic=abort", "-C", "codegen-units=1", "-C", "overflow-checks=on", "-C", "strip=debuginfo",
    "-C", "target-feature=+bulk-memory,+mutable-globals,+nontrapping-fptoint,+sign-ext",
)  # fmt: skip


@dataclass(frozen=True)
class Toolchain:
    """A compiler that has the target, and the linker that it will use."""

    rustc: Path
    version: str
    linker: Path
    linker_version: str

    @property
    def is_pinned(self) -> bool:
        return (self.version, self.linker_version) == (VERSION, LINKER_VERSION)


def rust(project: Project, scratch: Path, say: Callable[[str], None]) -> bytes:
    """Compiles the guest library, then the root file with it as one unit, so that nothing unused stays."""
    found = find()
    if not found.is_pinned:
        say(
            f"compiled with rustc {found.version} and LLD {found.linker_version}: the bytes differ from those of rustc {VERSION} and LLD {LINKER_VERSION}, which others get"
        )
    flags = [*FLAGS, "-C", f"opt-level={'3' if project.optimize == 'speed' else 's'}"]
    library, made = scratch / "libsnapcount.rlib", scratch / "module.wasm"
    name = project.manifest.name
    source = GUEST / "rust"
    run(
        [found.rustc, *flags, "--crate-type", "rlib", "--crate-name", "snapcount", "--remap-path-prefix", f"{source}=snapcount", "lib.rs", "-o", library],
        source, name, library, find=first_error,
    )  # fmt: skip
    run(
        [
            found.rustc, *flags, "-C", "lto=fat", "-C", f"linker={found.linker}", "-C", "linker-flavor=wasm-ld", "-C", f"link-arg=-zstack-size={STACK_BYTES}",
            "--crate-type", "cdylib", "--crate-name", "skill", "--extern", f"snapcount={library}", "--remap-path-prefix", f"{project.folder.resolve()}=.",
            project.source.relative_to(project.folder.resolve()), "-o", made,
        ],
        project.folder, name, made, find=first_error,
    )  # fmt: skip
    return made.read_bytes()


def describe() -> str:
    """The compiler that builds use, its linker, and their versions. Raises UsageError where one is missing."""
    found = find()
    return f"rustc {found.version}, LLD {found.linker_version}"


def find() -> Toolchain:
    """The pinned compiler, or else the first one that has the target; RUSTC names one. Raises UsageError that says what is missing."""
    found: list[Toolchain] = []
    without: list[str] = []
    for rustc in _candidates():
        sysroot = probe([rustc, "--print", "sysroot"])
        if not sysroot:
            continue
        version = probe([rustc, "--version"]).removeprefix("rustc ").split(" ")[0]
        if not any((Path(sysroot) / "lib" / "rustlib" / TARGET / "lib").glob("libstd-*.rlib")):
            without.append(f"{rustc} ({version})")
            continue
        linker = _linker(Path(sysroot))
        found.append(Toolchain(rustc, version, linker, _linker_version(linker)))
    if not found and without:
        raise UsageError(f"rustc has no target {TARGET}: {', '.join(without)}; get it: {GET}")
    if not found:
        raise UsageError(f"the Rust compiler is missing; get it: {GET}")
    return next((toolchain for toolchain in found if toolchain.is_pinned), found[0])


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("RUSTC"):
        yield Path(named)
        return
    seen = dict.fromkeys(path for path in (shutil.which("rustc"), SYSTEM_RUSTC, str(Path.home() / ".cargo" / "bin" / "rustc")) if path)
    yield from (Path(path) for path in seen if Path(path).exists())


def _linker(sysroot: Path) -> Path:
    own = sorted((sysroot / "lib" / "rustlib").glob("*/bin/rust-lld"))
    paths = own or [Path(path) for path in map(shutil.which, LINKERS) if path]
    if not paths:
        raise UsageError("the linker of WebAssembly modules is missing (rust-lld, lld-14 or wasm-ld); get it: apt-get install lld-14")
    return paths[0]


def _linker_version(linker: Path) -> str:
    said = probe([linker, "-flavor", "wasm", "--version"]) or probe([linker, "--version"])
    match = re.search(r"LLD (\d+\.\d+\.\d+)", said)
    return match[1] if match else "of an unknown version"


def first_error(output: str) -> str:
    """rustc's first error, with the place that stands in the line after it: `src/main.rs:3:5: error[E0308]: mismatched types`."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("error"):
            place = lines[number + 1].strip() if number + 1 < len(lines) else ""
            return f"{place.removeprefix('--> ')}: {line}" if place.startswith("--> ") else line
    return ""
