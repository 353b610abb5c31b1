"""node.toml: what the owner of a node decided about it."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from nacl.signing import VerifyKey

from host.core import toml
from host.core.errors import MalformedData, StateDamaged
from host.core.keys import parse_public
from host.core.manifest import HookName, Name

FILE = "node.toml"


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    owner: str
    generation: Annotated[int, Meta(ge=1, le=255)] = 1
    registry: str = ""


class _Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    authors: Annotated[tuple[str, ...], Meta(max_length=64)] = ()


class _Capabilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allowed: tuple[HookName, ...] = ()


class _Plugins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    native: tuple[str, ...] = ()


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parsed file. Keys are texts `ed25519:…`, as in the file."""

    node: _Node
    trust: _Trust = _Trust()
    capabilities: _Capabilities = _Capabilities()
    plugins: _Plugins = _Plugins()

    @property
    def owner(self) -> VerifyKey:
        return parse_public(self.node.owner, f"{FILE}: node.owner")

    @property
    def authors(self) -> tuple[VerifyKey, ...]:
        return tuple(parse_public(text, f"{FILE}: trust.authors") for text in self.trust.authors)


def load(state: Path) -> NodeConfig:
    """Raises StateDamaged that names the file and the field."""
    path = state / FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateDamaged(
            f"{path}: cannot be read: {error.strerror}; is this a node's state directory? `snapcount node init` makes one"
        ) from error
    try:
        return toml.decode(raw, NodeConfig, str(path))
    except MalformedData as error:
        raise StateDamaged(str(error)) from error


def digest(*parts: bytes) -> str:
    """The configuration's digest, for attestation: over the parts with their lengths."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{whole.hexdigest()}"


def template(
    name: str, owner: str, generation: int, registry: str, authors: tuple[str, ...], allowed: tuple[str, ...], native: tuple[str, ...]
) -> str:
    """A commented node.toml."""

    def texts(values: tuple[str, ...]) -> str:
        return "[" + ", ".join(map(json.dumps, values)) + "]"

    return f"""\
# What the owner of this node decided. No push changes this file.

[node]
name = "{name}"
generation = {generation}          # hardware generation; a bundle may name those it runs on
owner = "{owner}"
registry = {json.dumps(registry)}       # where skills come from; empty: from nowhere

[trust]
authors = {texts(authors)}    # whose signature makes a skill acceptable

[capabilities]
allowed = {texts(allowed)}    # what skills may ask for at all

[plugins]
native = {texts(native)}    # drivers, by entry point of the group snapcount.plugins
"""
