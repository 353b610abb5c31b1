"""Compilers that are npm packages: Node.js is looked for, and npm fills a folder of the cache once, by the digests of a lock file, without running scripts."""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host.core import files
from host.core.errors import UsageError
from host.core.text import safe
from sdk.toolchains.process import BuildFailed, bounded, cache_folder, probe

NODE_MAJOR_MIN = 20
GET_NODE = f"install Node.js {NODE_MAJOR_MIN} or newer with npm (nodejs.org, or the distribution's packages nodejs and npm)"


def _nothing(_folder: Path) -> None:
    """Nothing has to be made from what npm installed."""


@dataclass(frozen=True)
class Package:
    """One version of a compiler. `pins` holds package.json and package-lock.json; `program` is what runs, in the folder that npm filled.

    `by_hand` says how to get it where npm is missing. `finish` makes what is needed beside it, before the folder gets its name; it raises BuildFailed.
    """

    name: str
    version: str
    pins: Path
    program: Path
    by_hand: str = ""
    finish: Callable[[Path], None] = _nothing


def node_for(compiler: str) -> str:
    """The version of Node.js, as v20.1.0. Raises UsageError where it is missing or too old for `compiler`, a name for people."""
    if shutil.which("node") is None:
        raise UsageError(f"the {compiler} compiler needs Node.js, which is missing: {GET_NODE}")
    node = probe(["node", "--version"])
    if int((re.match(r"v(\d+)", node) or ["", "0"])[1]) < NODE_MAJOR_MIN:
        raise UsageError(
            f"the {compiler} compiler needs Node.js {NODE_MAJOR_MIN} or newer, found {node or 'one that does not start'}: {GET_NODE}"
        )
    return node


def installed(package: Package, say: Callable[[str], None]) -> Path:
    """The folder with the package, which npm fills at first use. Raises UsageError without npm, BuildFailed when it fails."""
    kept = cache_folder() / "toolchains" / f"{package.name}-{package.version}"
    if not (kept / package.program).is_file():
        _install(package, kept, say)
    return kept


def _install(package: Package, kept: Path, say: Callable[[str], None]) -> None:
    """Fills a folder beside `kept`, which it becomes at the end."""
    named = f"{package.name} {package.version}"
    if shutil.which("npm") is None:
        raise UsageError(f"{named} is missing: {package.by_hand}npm, which installs it, is missing too: {GET_NODE}")
    say(f"installing {named} into {kept}, once")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{kept.name}-", dir=kept.parent) as scratch:
        partial = Path(scratch) / "made"
        shutil.copytree(package.pins, partial)
        code, output = bounded(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], partial, "npm", {})
        if code != 0 or not (partial / package.program).is_file():
            raise BuildFailed(f"npm could not install {named}: {safe(_error(output))}; is there a network?", output)
        package.finish(partial)
        try:
            partial.rename(kept)
        except OSError as error:  # another build was faster
            if not (kept / package.program).is_file():
                raise files.storage_error(error, f"{kept}: cannot be made") from error


def _error(output: str) -> str:
    return next((line for line in output.splitlines() if re.match(r"npm (error|ERR!)", line)), "it failed")
