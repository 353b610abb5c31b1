"""`snapcount skill new`: copies a template, and puts the skill's name in."""

import shutil
import tempfile
from pathlib import Path

import msgspec

from host.core import files
from host.core.errors import UsageError
from host.core.manifest import Name
from sdk.toolchains.process import GUEST

TEMPLATES = Path(__file__).resolve().parent / "templates"
PLACE = "SKILL_NAME"
FROM_GUEST = {"javascript": ("types/snapcount.d.ts", "snapcount.d.ts")}
"""What a new skill of a language has of its guest library, for editors: where, and the library's file."""


def create(parent: Path, name: str, lang: str) -> Path:
    """Makes `parent/name`, whole or not at all.

    Raises UsageError for a name that is a path or no name, for a language without a template and where the folder exists, StorageFull or HostFault
    where it cannot be written.
    """
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(f"a skill's name is lower case letters, digits and single dashes, 64 at most, not {name!r}") from error
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name, or remove it")
    templates = {path.name: path for path in TEMPLATES.iterdir()}  # by name, so that a path is none
    if lang not in templates:
        raise UsageError(f"there is no template for {lang!r}; there are {', '.join(sorted(templates))}")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as scratch:
            partial = Path(scratch) / name
            _copy(templates[lang], partial, name)
            if lang in FROM_GUEST:
                place, file = FROM_GUEST[lang]
                (partial / place).parent.mkdir()
                shutil.copyfile(GUEST / lang / file, partial / place)
            partial.rename(folder)
    except OSError as error:
        raise files.storage_error(error, f"{folder}: cannot be made") from error
    return folder


def _copy(source: Path, target: Path, name: str) -> None:
    """The template's files with the skill's name in them."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            copy.write_text(path.read_text().replace(PLACE, name))
