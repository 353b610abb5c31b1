"""One step of a session: from the sources as they are now to a signed bundle with a version that a trial takes."""

import dataclasses
import re
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from host.core.bundle import with_signature
from host.core.errors import SnapcountError
from host.core.manifest import version_key
from sdk import build, project, vectors
from sdk.project import Project
from sdk.toolchains import Say
from sdk.vectors import Outcome

TRIED = "-dev."
"""In the version of what is tried out."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A signed bundle, and what became of the skill's own tests."""

    project: Project
    version: str
    data: bytes
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.problems]


def make(folder: Path, active: str, number: int, key: SigningKey, say: Say) -> Made:
    """Builds in memory, runs the vectors, and signs; nothing is written into the folder.

    `active` is the version that the node has of it, empty for none. Raises BuildFailed, and whatever a node would refuse the bundle with.
    """
    loaded = project.load(folder)
    version = numbered(loaded.manifest.version, active, number)
    loaded = dataclasses.replace(loaded, manifest=msgspec.structs.replace(loaded.manifest, version=version))
    bundle = build.compiled(loaded, say)
    outcomes = []
    for path, vector in vectors.load(loaded.vectors):
        try:
            outcomes.append(vectors.run(bundle, path, vector))
        except SnapcountError as error:  # a vector that is not sound is its own problem
            outcomes.append(Outcome(path.stem, vector.about, (str(error),)))
    return Made(loaded, version, with_signature(bundle, key, f"{loaded.manifest.name} {version}"), tuple(outcomes))


def numbered(version: str, active: str, number: int) -> str:
    """The pre-release that is tried out: `0.2.0-dev.3` of 0.2.0, or, where a node has that or a newer one, of the one after what it has."""
    core = _core(version)
    if active and version_key(f"{core}{TRIED}{number}") <= version_key(active):
        major, minor, patch = _core(active).split(".")
        core = f"{major}.{minor}.{int(patch) + 1}"
    return f"{core}{TRIED}{number}"


def _core(version: str) -> str:
    match = re.match(r"\d+\.\d+\.\d+", version)
    return match[0] if match else version
