"""A skill's project: a folder with `skill.toml`, its sources and its vectors. Lineages of one skill may share a folder of vectors (`[test]`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from host.core import manifest, toml
from host.core.errors import MalformedData, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import (
    Capabilities,
    Description,
    Generations,
    Hooks,
    License,
    Lineage,
    Manifest,
    Messages,
    Name,
    SkillLimits,
    Version,
)
from host.core.text import safe
from host.plugins.comparison import Comparison
from host.plugins.contract import HOOKS, STREAMING

FILE = "skill.toml"


Lang = Literal["zig", "c", "rust", "assemblyscript", "python", "javascript"]


class _Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lang: Lang
    source: str
    optimize: Literal["size", "speed"] = "size"


class _Test(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vectors: str = "vectors"


class _Skill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Name
    version: Version
    hooks: Hooks
    description: Description = ""
    license: License = ""
    lineage: Lineage = "a"
    capabilities: Capabilities = ()
    generations: Generations = ()
    instance: Literal["fresh", "persistent"] = "fresh"
    host_min: Version | msgspec.UnsetType = msgspec.UNSET
    features: Capabilities | msgspec.UnsetType = msgspec.UNSET
    messages: Messages | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    skill: _Skill
    build: _Build
    limits: SkillLimits = SkillLimits()
    test: _Test = _Test()
    compare: Comparison = Comparison()


@dataclass(frozen=True)
class Project:
    """A project's folder and what its skill.toml says."""

    folder: Path
    manifest: Manifest
    lang: Lang
    source: Path
    optimize: Literal["size", "speed"]
    vectors: Path
    compare: Comparison

    @property
    def module(self) -> Path:
        """Where `snapcount skill build` puts the bundle."""
        return self.folder / f"{self.manifest.name}.wasm"


def load(folder: Path) -> Project:
    """Raises UsageError for a folder without a project, MalformedData for a skill.toml that is not sound, naming the field."""
    path = folder / FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; a skill's folder has a {FILE} (make one with `snapcount skill new`)") from error
    parsed = toml.decode(raw, _File, str(path))
    described = msgspec.convert(msgspec.to_builtins(parsed.skill) | {"limits": msgspec.to_builtins(parsed.limits)}, Manifest)
    for place, problem in (*_contradictions(described), *_unsound_paths(folder, parsed)):
        line = toml.line_of(raw.decode(), tuple(place.split(".")))
        raise MalformedData(f"{path}: {place}: {problem} (at line {line})")
    source = (folder / parsed.build.source).resolve()
    return Project(folder, described, parsed.build.lang, source, parsed.build.optimize, folder / parsed.test.vectors, parsed.compare)


def _contradictions(described: Manifest) -> Iterator[tuple[str, str]]:
    """The fields that do not fit together, or not the host, and why."""
    for field, problem in manifest.contradictions(described):
        yield f"skill.{field}", problem
    if unknown := sorted(set(described.hooks) - HOOKS):
        yield "skill.hooks", f"there is no hook {', '.join(unknown)}; there are {', '.join(sorted(HOOKS))}"
    if described.messages and "handle" not in described.hooks:
        yield "skill.messages", "needs the hook handle, which takes the messages"
    if described.instance == "persistent" and (streaming := sorted(STREAMING.keys() & set(described.hooks))):
        yield "skill.instance", f"{', '.join(streaming)} has a fresh instance for each program, so it cannot be persistent"
    capped = described.limits.capped(DEFAULT)
    for field in described.limits.__struct_fields__:
        if getattr(described.limits, field) > getattr(capped, field):
            yield f"limits.{field}", f"a host gives at most {getattr(capped, field)}, got {getattr(described.limits, field)}"


def _unsound_paths(folder: Path, parsed: _File) -> Iterator[tuple[str, str]]:
    for place, named in (("build.source", parsed.build.source), ("test.vectors", parsed.test.vectors)):
        if not named.isprintable():
            yield place, f"expected a path of printable characters, got {safe(repr(named))}"
            return
    source = (folder / parsed.build.source).resolve()
    if not source.is_relative_to(folder.resolve()):
        yield "build.source", f"leaves the project's folder: {parsed.build.source}"
    elif not source.is_file():
        yield "build.source", f"there is no file {source}"
