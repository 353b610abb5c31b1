"""Test vectors of a skill: JSON files that a person can read, run against the compiled module.

A vector has `about` (how the numbers were found), `hook`, `request`, and either `reply` (the keys that must match) or `error` (`{"code": …}`).
`before` holds requests of the same hook that are made first, on the same host: what they leave in the skill's state, the request meets. Bytes are base64,
or an object with the one key `cbor`, whose value stands for its encoding; numbers with a point are floats.
For `plan_job` the request is `program` (text) or `program_file`, with `settings` and `run`, in pieces that end at the bytes in `cuts`; `limits` may hold the
text of a safety.toml for the machine.
A `null` stands for a key that must be absent. Numbers match within `tolerance`, relative (absolute below 1). The host's clock stands still at `now_ms`, its
random bytes come from a seed, and the flags in `flags` are on.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from host.core import cbor, safety
from host.core.errors import MalformedData, SkillRefused, SnapcountError, UsageError
from host.plugins.contract import SHAPES, PlanSettings, Shape
from sdk.local import LocalSkill
from sdk.testbed import NOW_MS, SeededRandom, VirtualClock

TOLERANCE = 1e-9


class Vector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a skill's `vectors/`."""

    about: str
    hook: str
    before: tuple[dict[str, Any], ...] = ()
    request: dict[str, Any] = {}
    program: str = ""
    program_file: str = ""
    cuts: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    settings: dict[str, Any] = {}
    run: bool = False
    limits: str = ""
    now_ms: int = NOW_MS
    flags: tuple[str, ...] = ()
    reply: dict[str, Any] = {}
    error: dict[str, str] = {}
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Outcome:
    """What became of one vector; `problems` is empty when it passed."""

    name: str
    about: str
    problems: tuple[str, ...]


def load(folder: Path) -> list[tuple[Path, Vector]]:
    """The vectors of a folder, by name. Raises MalformedData that names the file and the field."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Vector)))
        except msgspec.DecodeError as error:
            raise MalformedData(f"{path}: {error}") from error
    return found


def run(data: bytes, path: Path, vector: Vector, **options: Any) -> Outcome:
    """Runs one vector on a fresh host. Never raises for what the skill does wrong."""
    skill = host_for(data, path, vector, **options)
    try:
        found = reply(skill, path, vector)
    except SkillRefused as error:
        code = vector.error.get("code")
        problems = [] if code == error.skill_code else [f"expected {f'the error {code}' if code else 'a reply'}, it answered {error}"]
    except SnapcountError as error:
        problems = [str(error)]
    else:
        if vector.error:
            problems = [f"expected the error {vector.error.get('code')}, it replied {_shown(found)}"]
        else:
            problems = list(differences(vector.reply, found, vector.tolerance))
    return Outcome(path.stem, vector.about, tuple(problems))


def host_for(data: bytes, path: Path, vector: Vector, **options: Any) -> LocalSkill:
    """The skill on a host as the vector wants it."""
    limits = safety.parse_limits(vector.limits.encode(), str(path)) if vector.limits else None
    told: dict[str, Any] = {"clock": VirtualClock(vector.now_ms), "random": SeededRandom(), "flags": lambda: vector.flags}
    return LocalSkill(data, path.name, limits=limits, **(told | options))


def reply(skill: LocalSkill, path: Path, vector: Vector) -> Any:
    """What a skill replies to a vector, as plain data. Raises whatever the call does."""
    if vector.hook == "plan_job":
        program = program_of(path, vector)
        return msgspec.to_builtins(skill.version.plan(pieces(program, vector.cuts), settings_of(vector, path.name), vector.run))
    *before, request = requests(vector, path.name)
    for number, earlier in enumerate(before):
        try:
            skill.version.call(vector.hook, earlier)
        except SkillRefused as error:  # not the error that the vector may expect of its request
            raise UsageError(f"{path.name}: before[{number}] must be answered: {error}") from error
    return msgspec.to_builtins(skill.version.call(vector.hook, request), builtin_types=(bytes,))


def pieces(program: bytes, cuts: Sequence[int]) -> tuple[bytes, ...]:
    """A program in pieces that end at these bytes, and at its end."""
    ends = [0, *sorted(min(cut, len(program)) for cut in cuts), len(program)]
    return tuple(program[start:end] for start, end in pairwise(ends))


def settings_of(vector: Vector, what: str) -> PlanSettings:
    """The settings of a vector for `plan_job`. Raises MalformedData that names the field."""
    try:
        return msgspec.convert(vector.settings, PlanSettings)
    except msgspec.ValidationError as error:
        raise MalformedData(f"{what}: settings: {error}") from error


def program_of(path: Path, vector: Vector) -> bytes:
    """The program of a vector for `plan_job`. Raises UsageError where its file cannot be read."""
    if not vector.program_file:
        return vector.program.encode()
    try:
        return (path.parent / vector.program_file).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: program_file: {vector.program_file}: {error.strerror}") from error


def requests(vector: Vector, what: str) -> list[Shape]:
    """The typed requests of a vector, those of `before` first. Raises MalformedData that names the field."""
    if vector.hook not in SHAPES:
        raise MalformedData(f"{what}: there is no hook {vector.hook}")
    made: list[Shape] = []
    for number, request in enumerate((*vector.before, vector.request)):
        try:
            made.append(msgspec.convert(with_bytes(request), SHAPES[vector.hook][0]))
        except msgspec.ValidationError as error:
            where = f"before[{number}]" if number < len(vector.before) else "request"
            raise MalformedData(f"{what}: {where}: {error}") from error
    return made


def with_bytes(value: Any) -> Any:
    """The value with each `{"cbor": …}` replaced by its encoding."""
    match value:
        case {"cbor": item, **others} if not others:
            return cbor.encode(item)
        case dict():
            return {key: with_bytes(item) for key, item in value.items()}
        case list():
            return [with_bytes(item) for item in value]
        case _:
            return value


def differences(expected: Any, found: Any, tolerance: float, where: str = "reply") -> list[str]:
    """Where `found` lacks or differs from what is expected; keys that are not expected are not looked at."""
    match expected:
        case {"cbor": item, **others} if isinstance(found, bytes) and not others:
            return _in_cbor(item, found, tolerance, where)
        case str() if isinstance(found, bytes):
            return differences(expected, b64encode(found).decode(), tolerance, where)
        case dict():
            if not isinstance(found, dict):
                return [f"{where}: expected an object, found {found!r}"]
            return [d for key, value in expected.items() for d in _field(key, value, found, tolerance, where)]
        case list():
            if not isinstance(found, list | tuple) or len(found) != len(expected):
                return [f"{where}: expected {len(expected)} items, found {_shown(found)}"]
            return [d for i, value in enumerate(expected) for d in differences(value, found[i], tolerance, f"{where}[{i}]")]
        case float() | int() if not isinstance(expected, bool) and isinstance(found, float | int):
            near = abs(expected - found) <= tolerance * max(1.0, abs(expected))
            return [] if near else [f"{where}: expected {expected!r}, found {found!r}"]
        case _:
            return [] if expected == found else [f"{where}: expected {expected!r}, found {found!r}"]


def _shown(value: Any) -> str:
    """The beginning of a value as JSON, bytes in base64."""
    return msgspec.json.encode(value).decode()[:200]


def _in_cbor(expected: Any, found: bytes, tolerance: float, where: str) -> list[str]:
    try:
        return differences(expected, cbor.decode(found, where), tolerance, where)
    except MalformedData as error:
        return [str(error)]


def _field(key: str, value: Any, found: dict[str, Any], tolerance: float, where: str) -> list[str]:
    if value is None:
        return [] if found.get(key) is None else [f"{where}.{key}: expected to be absent, found {found[key]!r}"]
    if key not in found:
        return [f"{where}.{key}: expected {value!r}, it is absent"]
    return differences(value, found[key], tolerance, f"{where}.{key}")


def run_all(data: bytes, folder: Path, step: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """Runs every vector of a folder; `step` is told of each as it ends."""
    outcomes = []
    for path, vector in load(folder):
        outcomes.append(run(data, path, vector))
        step(outcomes[-1])
    return outcomes
