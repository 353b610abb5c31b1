"""The skill manifest: what a skill says of itself, in the custom section `snapcount.manifest`."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from host.core import cbor
from host.core.errors import MalformedData
from host.core.limits import DEFAULT, Limits

ABI = 1
SECTION = "snapcount.manifest"
# \Z, not $: $ also matches before a newline at the end.
NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*\Z"
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
# Semantic Versioning 2.0.0, sections 2 and 9, with numbers of at most 9 digits and a pre-release of at most 64 characters, without build metadata.
SEMVER = rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(?=.{{1,64}}\Z)({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?\Z"
HOOK = r"^[a-z][a-z0-9_]*\Z"
LINEAGE = r"^[a-z][a-z0-9-]*\Z"
MESSAGE = r"^[a-z][a-z0-9._-]*\Z"
PATTERNS = {
    NAME: "lower case letters, digits and single dashes, a letter first",
    SEMVER: "a version as 1.0.0 or 1.0.0-rc.1",
    HOOK: "lower case letters, digits and underscores, a letter first",
    LINEAGE: "lower case letters, digits and dashes, a letter first",
    MESSAGE: "lower case letters, digits, dots, dashes and underscores, a letter first",
}
"""The patterns above in words, for messages."""
MIN_MEMORY_BYTES = 65_536

Name = Annotated[str, Meta(pattern=NAME, max_length=64)]
HookName = Annotated[str, Meta(pattern=HOOK, max_length=64)]
Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Version = Annotated[str, Meta(pattern=SEMVER)]
Description = Annotated[str, Meta(max_length=500)]
License = Annotated[str, Meta(max_length=64)]
Lineage = Annotated[str, Meta(pattern=LINEAGE, max_length=16)]
Hooks = Annotated[tuple[HookName, ...], Meta(min_length=1, max_length=32)]
Capabilities = Annotated[tuple[HookName, ...], Meta(max_length=32)]
Generations = Annotated[tuple[Annotated[int, Meta(ge=1, le=255)], ...], Meta(max_length=64)]


class SkillLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one wasm call of the skill needs. The host grants the smaller of this and its own bound (host/core/limits.py)."""

    fuel: Positive = 100_000_000
    deadline_ms: Positive = 1_000
    memory_bytes: Annotated[int, Meta(ge=MIN_MEMORY_BYTES)] = 16 << 20
    reply_bytes: Positive = 64 << 10
    host_calls: Natural = 1_000
    log_bytes: Natural = 4_096

    def capped(self, limits: Limits) -> "SkillLimits":
        """The smaller of each bound."""
        return SkillLimits(
            fuel=min(self.fuel, limits.fuel_max),
            deadline_ms=min(self.deadline_ms, limits.deadline_ms_max),
            memory_bytes=min(self.memory_bytes, limits.memory_bytes_max),
            reply_bytes=min(self.reply_bytes, limits.reply_bytes_max),
            host_calls=min(self.host_calls, limits.host_calls_max),
            log_bytes=min(self.log_bytes, limits.log_bytes_max),
        )


class MessageRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The versions of one kind of message that a skill speaks, from `min` to `max`: nodes with other versions of it are talked to in one that both know."""

    name: Annotated[str, Meta(pattern=MESSAGE, max_length=64)]
    min: Annotated[int, Meta(ge=1, le=65_535)]
    max: Annotated[int, Meta(ge=1, le=65_535)]

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"message {self.name}: min {self.min} is above max {self.max}")


Messages = Annotated[tuple[MessageRange, ...], Meta(max_length=32)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name, version and needs of a skill. `generations` are the hardware generations it runs on; empty means every one.

    `host_min` is the oldest host that it runs on, `features` are the host features that it needs (host/core/capabilities.py), `messages` what it speaks.
    """

    abi: Annotated[int, Meta(ge=1)] = ABI
    name: Name
    version: Version
    description: Description = ""
    license: License = ""
    lineage: Lineage = "a"
    hooks: Hooks
    capabilities: Capabilities = ()
    generations: Generations = ()
    instance: Literal["fresh", "persistent"] = "fresh"
    limits: SkillLimits = SkillLimits()
    # Absent rather than empty, so that a manifest without them has the bytes it always had.
    host_min: Version | msgspec.UnsetType = msgspec.UNSET
    features: Capabilities | msgspec.UnsetType = msgspec.UNSET
    messages: Messages | msgspec.UnsetType = msgspec.UNSET

    def encode(self) -> bytes:
        return cbor.encode(msgspec.to_builtins(self))


def decode(content: bytes, what: str) -> Manifest:
    """Raises MalformedData for a manifest that is not sound."""
    manifest = cbor.decode_struct(content, Manifest, f"{what}: manifest", bytes_max=DEFAULT.manifest_bytes_max)
    check(manifest, what)
    return manifest


def check(manifest: Manifest, what: str) -> None:
    """What the types cannot say. Raises MalformedData."""
    for field, problem in contradictions(manifest):
        raise MalformedData(f"{what}: manifest: {field} {problem}")


def contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """A field that names something twice, and what."""
    named: dict[str, tuple[object, ...]] = {
        "hooks": manifest.hooks, "capabilities": manifest.capabilities, "generations": manifest.generations, "features": manifest.features or (),
        "messages": tuple(message.name for message in manifest.messages or ()),
    }  # fmt: skip
    for field, values in named.items():
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            yield field, f"names something twice: {', '.join(twice)}"


def version_key(version: str) -> tuple[int, int, int, bool, tuple[tuple[int, int, str], ...]]:
    """Orders versions as Semantic Versioning 2.0.0, section 11, does."""
    match = re.match(SEMVER, version)
    if not match:
        raise MalformedData(f"not a semantic version: {version[:64]!r}")
    major, minor, patch, pre = match.groups()
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (pre or "").split(".") if p)
    return int(major), int(minor), int(patch), pre is None, parts
