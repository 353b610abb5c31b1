"""What the registry knows of the bundles it holds: manifest and size, by digest."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from host.core.bundle import UnverifiedBundle
from host.core.errors import UntrustedInput
from host.core.limits import DEFAULT
from host.core.manifest import Manifest

ReadBlob = Callable[[str], bytes | None]
"""The bytes of a digest, None when they are not here."""


@dataclass(frozen=True)
class Held:
    manifest: Manifest
    size: int


class Releases:
    """Reads a bundle once, and keeps what it says. What is not here is asked for again: it may be uploaded later."""

    def __init__(self, read: ReadBlob) -> None:
        self._read = read
        self._held: OrderedDict[str, Held] = OrderedDict()

    def get(self, digest: str) -> Held | None:
        held = self._held.get(digest)
        if held is None:
            held = self._parse(digest)
            if held is None:
                return None
            self._held[digest] = held
            if len(self._held) > DEFAULT.releases_cached_max:
                self._held.popitem(last=False)
        return held

    def manifest(self, digest: str) -> Manifest | None:
        held = self.get(digest)
        return held.manifest if held else None

    def _parse(self, digest: str) -> Held | None:
        data = self._read(digest)
        if data is None:
            return None
        try:
            return Held(UnverifiedBundle.parse(data, digest[:19]).manifest, len(data))
        except UntrustedInput:
            return None  # some other file: no skill
