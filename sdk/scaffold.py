"""`snapcount skill new`: copies a template, and puts the skill's name in."""

import shutil
from pathlib import Path

import msgspec

from host.core.errors import UsageError
from host.core.manifest import Name

TEMPLATES = Path(__file__).resolve().parent / "templates"
PLACE = "SKILL_NAME"


def create(parent: Path, name: str, lang: str) -> Path:
    """Makes `parent/name`. Raises UsageError for a name that is a path or no name, and where the folder exists; then nothing was written."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(f"a skill's name is lower case letters, digits and single dashes, 64 at most, not {name!r}") from error
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name, or remove it")
    source = TEMPLATES / lang
    if not source.is_dir():
        raise UsageError(f"there is no template for {lang}; there are {', '.join(sorted(path.name for path in TEMPLATES.iterdir()))}")
    partial = folder.with_name(f".{name}.new")
    try:
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("__pycache__"))
        for path in partial.rglob("*"):
            if path.is_file():
                path.write_text(path.read_text().replace(PLACE, name))
        partial.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
