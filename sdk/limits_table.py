"""Puts limits into a skill.toml and leaves the rest of the file as it is, byte for byte: numbers are exchanged where they stand, comments stay."""

import re
import tomllib
from pathlib import Path

from host.core import files
from host.core.errors import UsageError
from host.core.manifest import SkillLimits
from sdk.project import FILE, load

HEADER = re.compile(rb"^[ \t]*\[[ \t]*limits[ \t]*\][ \t]*(#.*)?\r?\n?\Z")
ANY_HEADER = re.compile(rb"^[ \t]*\[")
ENTRY = re.compile(rb"^(?P<before>[ \t]*(?P<key>[a-z_]+)[ \t]*=[ \t]*)(?P<value>[0-9_]+)(?P<space>[ \t]*)(?P<after>(#.*)?\r?\n?)\Z")


def write(folder: Path, limits: SkillLimits) -> None:
    """Writes the limits into FOLDER/skill.toml. Raises UsageError for a file whose limits stand in another form than a `[limits]` table; nothing is written then."""
    path = folder / FILE
    load(folder)  # what is not sound is said before anything is changed
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    made = with_limits(raw, limits, str(path))
    files.write_atomic(path, made, path.stat().st_mode & 0o777)


def with_limits(raw: bytes, limits: SkillLimits, what: str) -> bytes:
    """The file with these limits. Raises UsageError where they cannot be put in without touching anything else."""
    wanted = {name: getattr(limits, name) for name in SkillLimits.__struct_fields__}
    lines = raw.splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if HEADER.match(line)), None)
    made = b"".join(_appended(lines, wanted) if start is None else _exchanged(lines, start, wanted))
    before, after = tomllib.loads(raw.decode()), tomllib.loads(_decoded(made))
    if after.get("limits") != wanted or {**before, "limits": 0} != {**after, "limits": 0}:
        raise UsageError(f"{what}: its limits do not stand in a plain [limits] table, one number a line; put these in yourself")
    return made


def _decoded(made: bytes) -> str:
    try:
        tomllib.loads(made.decode())
    except tomllib.TOMLDecodeError:
        return ""  # a key stood there twice, in another form: what came is refused above
    return made.decode()


def _exchanged(lines: list[bytes], start: int, wanted: dict[str, int]) -> list[bytes]:
    end = next((number for number in range(start + 1, len(lines)) if ANY_HEADER.match(lines[number])), len(lines))
    missing, last = dict(wanted), start
    made = list(lines)
    for number in range(start + 1, end):
        entry = ENTRY.match(lines[number])
        if entry and (key := entry["key"].decode()) in missing:
            made[number] = entry["before"] + _padded(str(missing.pop(key)).encode(), entry) + entry["after"]
        if lines[number].strip() and not lines[number].lstrip().startswith(b"#"):
            last = number
    ending = _ending(lines)
    if missing and not made[last].endswith(b"\n"):
        made[last] += ending
    added = [f"{key} = {value}".encode() + ending for key, value in missing.items()]
    return [*made[: last + 1], *added, *made[last + 1 :]]


def _padded(value: bytes, entry: "re.Match[bytes]") -> bytes:
    """The number, and blanks that keep a comment after it in its column."""
    if not entry["after"].startswith(b"#"):
        return value
    room = len(entry["value"]) + len(entry["space"])
    return value.ljust(room) if len(value) < room else value + b" "


def _appended(lines: list[bytes], wanted: dict[str, int]) -> list[bytes]:
    ending = _ending(lines)
    kept = [*lines[:-1], lines[-1] if lines[-1].endswith(b"\n") else lines[-1] + ending] if lines else []
    return [*kept, ending, b"[limits]" + ending, *(f"{key} = {value}".encode() + ending for key, value in wanted.items())]


def _ending(lines: list[bytes]) -> bytes:
    return b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
