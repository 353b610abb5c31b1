"""What a registry keeps: bundles by digest, and the newest announcement of each skill."""

from pathlib import Path

import msgspec

from host.core import files
from host.core.bundle import UnverifiedBundle, digest_of
from host.core.errors import StateDamaged, UsageError
from host.core.fleet import Announcement

ANNOUNCED = "announced.json"


class BundleStore:
    """Files below one directory: `blobs/sha256/HEX` and `announced.json`."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._announced_path = directory / ANNOUNCED
        self._blobs.mkdir(parents=True, exist_ok=True)
        files.sweep(directory)
        self.announced = self._load()

    def add(self, data: bytes) -> Announcement:
        """Keeps a bundle. Raises UntrustedInput for bytes that have not its form; whether to trust it is each node's own decision."""
        bundle = UnverifiedBundle.parse(data, "upload")
        digest = digest_of(data)
        path = self.path(digest)
        if not path.exists():
            files.write_atomic(path, data)
        return Announcement(name=bundle.manifest.name, version=bundle.manifest.version, digest=digest, size=len(data))

    def announce(self, digest: str) -> Announcement:
        """Makes a kept bundle the one that nodes are told of. Raises UsageError when it is not here."""
        path = self.path(digest)
        if not path.exists():
            raise UsageError(f"{digest}: not in this registry; upload it first")
        announcement = self.add(path.read_bytes())
        announced = self.announced | {announcement.name: announcement}
        files.write_atomic(self._announced_path, msgspec.json.encode(announced))
        self.announced = announced
        return announcement

    def path(self, digest: str) -> Path:
        """Where the blob with this digest is, or would be."""
        return self._blobs / digest.removeprefix("sha256:")

    def _load(self) -> dict[str, Announcement]:
        try:
            return msgspec.json.decode(self._announced_path.read_bytes(), type=dict[str, Announcement])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise StateDamaged(f"{self._announced_path}: not a list of announcements ({error}); remove it and push again") from error
