"""One telling of the demo: its fleet, its author, what came of it, and what every chapter needs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
from nacl.signing import SigningKey

from host.core.bundle import UnverifiedBundle, with_manifest, with_signature
from host.core.errors import SnapcountError
from host.core.manifest import Manifest
from registry.client import RegistryHttp
from sdk.demo.fleet import LocalFleet
from sdk.local import read_bundle
from skills import module_path

PLANNER = "toolpath-planner"
PUSH_S_MAX = 60.0


@dataclass
class Story:
    """One run. `result` grows chapter by chapter."""

    fleet: LocalFleet
    author: SigningKey
    say: Callable[[str], None]
    result: dict[str, Any] = field(default_factory=dict)
    calls: int = 0

    @property
    def http(self) -> RegistryHttp:
        return RegistryHttp(self.fleet.url)

    def signed(self, data: bytes, name: str) -> bytes:
        return with_signature(data, self.author, name)

    def push(self, data: bytes) -> dict[str, dict[str, Any]]:
        """Pushes to the whole fleet and waits for every node's word."""
        http = self.http
        kept = http.upload(data)
        http.announce(kept["digest"])
        return list(http.follow(kept["digest"], PUSH_S_MAX))[-1]


def on_every_node(story: Story, ask: Callable[[str], Any]) -> dict[str, Any]:
    """Asks every node at once; a node's error stands in place of its answer."""

    def guarded(name: str) -> Any:
        try:
            return ask(name)
        except SnapcountError as error:
            return str(error)

    with ThreadPoolExecutor(len(story.fleet.names)) as pool:
        return dict(zip(story.fleet.names, pool.map(guarded, story.fleet.names), strict=True))


def planner(version: str) -> bytes:
    """The shipped planner, unsigned, as another version."""
    data = read_bundle(module_path(PLANNER))
    manifest: Manifest = UnverifiedBundle.parse(data, PLANNER).manifest
    return with_manifest(data, msgspec.structs.replace(manifest, version=version), PLANNER)
