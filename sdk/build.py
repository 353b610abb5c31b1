"""Builds a skill: compiles with the language's pinned compiler, strips what differs between machines, and adds the manifest.

The same sources give the same bytes wherever they are built: sources are named relative to their folder, and debug sections, the only ones that hold
paths, are dropped. Names of functions stay, for backtraces. `verify` proves it for one project.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from host.core import files, wasm
from host.core.bundle import SIGNATURE_SECTION, UnverifiedBundle, digest_of, with_manifest
from host.core.capabilities import COMPONENTS
from host.core.manifest import Manifest
from host.plugins.adapter import require_known_hooks
from host.sandbox.engine import default_engine
from host.sandbox.tiers import tier_of
from sdk import project as projects
from sdk.local import user_cache
from sdk.project import Project
from sdk.toolchains import COMPILERS, Say
from sdk.toolchains.process import GUEST, BuildFailed

__all__ = ["BuildFailed", "Verification", "build", "compiled", "verify"]

DROPPED_SECTIONS = (".debug", "producers", "target_features", "sourceMappingURL", "component-name")
# Interpreters come compiled, with the paths of those who compiled them, who may have had this machine's home folder.
PREBUILT = b"/root/.cargo/"


def _silent(line: str) -> None:
    """Says nothing."""


def build(project: Project, target: Path | None = None, say: Say = _silent) -> Path:
    """Compiles, and writes the unsigned bundle to `target` (the project's own place by default). Nothing is written when it fails.

    Raises BuildFailed for what the compiler refuses, UsageError where a toolchain is missing, and whatever a node would refuse the bundle with.
    """
    bundle = compiled(project, say)
    files.write_atomic(target or project.module, bundle)
    return target or project.module


def compiled(project: Project, say: Say = _silent) -> bytes:
    """The unsigned bundle of a project."""
    what = project.manifest.name
    with tempfile.TemporaryDirectory(prefix="snapcount-build-") as scratch:
        module = COMPILERS[project.lang](project, Path(scratch), say)
    bundle = with_manifest(strip(module, what), _described(project.manifest, module), what)
    require_known_hooks(UnverifiedBundle.parse(bundle, what).manifest.hooks, what)
    loaded = user_cache().module(default_engine(), bundle, digest_of(bundle), project.manifest)  # what a node would refuse is refused here
    tier_of(bundle).require_every_hook_named(default_engine(), loaded, project.manifest)
    return bundle


def _described(manifest: Manifest, module: bytes) -> Manifest:
    """The manifest, which for a component names the feature that a host needs for it, so that a roll-out leaves out hosts without it."""
    features = manifest.features or ()
    if not wasm.is_component(module) or COMPONENTS in features:
        return manifest
    return msgspec.structs.replace(manifest, features=(*features, COMPONENTS))


def strip(module: bytes, what: str) -> bytes:
    """The module without debug information and tool names."""
    return wasm.without_custom(module, what, DROPPED_SECTIONS)


@dataclass(frozen=True)
class Verification:
    """What became of two builds of one project in two other places. `in_place` is None where the project has no bundle yet."""

    first: str
    second: str
    in_place: str | None
    leaks: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        found = [f"the module names {path}, a path of this machine" for path in self.leaks]
        if self.first != self.second:
            found.append(f"two builds in two folders differ: {self.first[:19]}… and {self.second[:19]}…")
        elif self.in_place not in (None, self.first):
            found.append(
                f"the bundle in place is {str(self.in_place)[:19]}…, not what its sources give, {self.first[:19]}…: build it again"
            )
        return tuple(found)


def verify(project: Project, say: Say = _silent) -> Verification:
    """Builds copies of the project in two new folders, and compares them with each other and with the bundle in place, signatures aside."""
    with tempfile.TemporaryDirectory(prefix="snapcount-verify-") as scratch:
        folders = [Path(scratch) / "a", Path(scratch) / "another" / "place"]
        built = [_elsewhere(project, folder, say) for folder in folders]
        places = {scratch, str(project.folder.resolve()), str(GUEST), str(Path.home())} - {"/"}
    leaks = tuple(sorted(path for path in places if any(path.encode() in bundle.replace(PREBUILT, b"") for bundle in built)))
    first, second = map(digest_of, built)
    return Verification(first, second, _in_place(project), leaks)


def _elsewhere(project: Project, folder: Path, say: Callable[[str], None]) -> bytes:
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("*.wasm", ".*"), symlinks=True)
    return compiled(projects.load(folder), say)


def _in_place(project: Project) -> str | None:
    if not project.module.is_file():
        return None
    return digest_of(wasm.without_custom(project.module.read_bytes(), str(project.module), (SIGNATURE_SECTION,)))
