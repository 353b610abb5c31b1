"""Test vectors of a skill: JSON files that a person can read, run against the compiled module.

A vector has `about` (how the numbers were found), `hook`, `request`, and either `reply` (the keys that must match) or `error` (`{"code": …}`).
For `plan_job` the request is `program` (text) or `program_file`, with `settings` and `run`; `limits` may hold the text of a safety.toml for the machine.
A `null` stands for a key that must be absent. Numbers match within `tolerance`, relative (absolute below 1).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from host.core import safety
from host.core.errors import MalformedData, SkillRefused, SnapcountError
from host.plugins.contract import SHAPES, PlanSettings
from sdk.local import LocalSkill

TOLERANCE = 1e-9


class Vector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a skill's `vectors/`."""

    about: str
    hook: str
    request: dict[str, Any] = {}
    program: str = ""
    program_file: str = ""
    settings: dict[str, Any] = {}
    run: bool = False
    limits: str = ""
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
    limits = safety.parse_limits(vector.limits.encode(), str(path)) if vector.limits else None
    skill = LocalSkill(data, path.name, limits=limits, **options)
    try:
        reply = _call(skill, path, vector)
    except SkillRefused as error:
        code = vector.error.get("code")
        problems = [] if code == error.skill_code else [f"expected {f'the error {code}' if code else 'a reply'}, it answered {error}"]
    except SnapcountError as error:
        problems = [str(error)]
    else:
        if vector.error:
            problems = [f"expected the error {vector.error.get('code')}, it replied {json.dumps(reply)[:200]}"]
        else:
            problems = list(differences(vector.reply, reply, vector.tolerance))
    return Outcome(path.stem, vector.about, tuple(problems))


def _call(skill: LocalSkill, path: Path, vector: Vector) -> Any:
    if vector.hook == "plan_job":
        program = (path.parent / vector.program_file).read_bytes() if vector.program_file else vector.program.encode()
        settings = msgspec.convert(vector.settings, PlanSettings)
        return msgspec.to_builtins(skill.version.plan([program], settings, vector.run))
    if vector.hook not in SHAPES:
        raise MalformedData(f"{path.name}: there is no hook {vector.hook}")
    try:
        request = msgspec.convert(vector.request, SHAPES[vector.hook][0])
    except msgspec.ValidationError as error:
        raise MalformedData(f"{path.name}: request: {error}") from error
    return msgspec.to_builtins(skill.version.call(vector.hook, request))


def differences(expected: Any, found: Any, tolerance: float, where: str = "reply") -> list[str]:
    """Where `found` lacks or differs from what is expected; keys that are not expected are not looked at."""
    match expected:
        case dict():
            if not isinstance(found, dict):
                return [f"{where}: expected an object, found {found!r}"]
            return [d for key, value in expected.items() for d in _field(key, value, found, tolerance, where)]
        case list():
            if not isinstance(found, list | tuple) or len(found) != len(expected):
                return [f"{where}: expected {len(expected)} items, found {json.dumps(found)[:200]}"]
            return [d for i, value in enumerate(expected) for d in differences(value, found[i], tolerance, f"{where}[{i}]")]
        case float() | int() if not isinstance(expected, bool) and isinstance(found, float | int):
            near = abs(expected - found) <= tolerance * max(1.0, abs(expected))
            return [] if near else [f"{where}: expected {expected!r}, found {found!r}"]
        case _:
            return [] if expected == found else [f"{where}: expected {expected!r}, found {found!r}"]


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
