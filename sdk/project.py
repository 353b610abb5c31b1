"""A skill's project: a folder with `skill.toml`, its sources and its vectors. Lineages of one skill may share a folder of vectors (`[test]`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from host.core import manifest, toml
from host.core.errors import MalformedData, UsageError
from host.core.manifest import HookName, Manifest, MessageRange, Name, SkillLimits
from host.core.text import safe

FILE = "skill.toml"


Lang = Literal["zig", "c", "rust", "assemblyscript"]


class _Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lang: Lang
    source: str
    optimize: Literal["size", "speed"] = "size"


class _Test(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vectors: str = "vectors"


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far two numbers may lie apart: the greater of the two allowances counts, and `relative` is of the larger number."""

    relative: Annotated[float, Meta(ge=0, le=1)] = 0.0
    absolute: Annotated[float, Meta(ge=0)] = 0.0


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How lineages are compared: fields of the reply by their path without indices, as `products.yield_kg.sigma`, or a part of its beginning."""

    default: Tolerance = Tolerance()
    fields: dict[str, Tolerance] = {}


class _Skill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Name
    version: str
    hooks: tuple[HookName, ...]
    description: str = ""
    license: str = ""
    lineage: str = "a"
    capabilities: tuple[HookName, ...] = ()
    generations: tuple[int, ...] = ()
    instance: Literal["fresh", "persistent"] = "fresh"
    host_min: str | msgspec.UnsetType = msgspec.UNSET
    features: tuple[HookName, ...] | msgspec.UnsetType = msgspec.UNSET
    messages: tuple[MessageRange, ...] | msgspec.UnsetType = msgspec.UNSET


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
    try:
        described = msgspec.convert(msgspec.to_builtins(parsed.skill) | {"limits": msgspec.to_builtins(parsed.limits)}, Manifest)
    except msgspec.ValidationError as error:
        raise MalformedData(f"{path}: skill: {safe(str(error))}") from error
    manifest.check(described, str(path))
    source = (folder / parsed.build.source).resolve()
    if not source.is_relative_to(folder.resolve()):
        raise MalformedData(f"{path}: build.source leaves the project's folder: {parsed.build.source}")
    if not source.is_file():
        raise MalformedData(f"{path}: build.source: there is no file {source}")
    return Project(folder, described, parsed.build.lang, source, parsed.build.optimize, folder / parsed.test.vectors, parsed.compare)
