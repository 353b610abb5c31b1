"""What a registry keeps: bundles by digest, and the newest announcement of each skill."""

import threading
from pathlib import Path

import msgspec

from host.core import files
from host.core.bundle import UnverifiedBundle, digest_of
from host.core.errors import StateDamaged, TooLarge, UsageError
from host.core.fleet import Announcement
from host.core.limits import DEFAULT
from host.core.text import safe

ANNOUNCED = "announced.json"


class BundleStore:
    """Files below one directory: `blobs/sha256/HEX` and `announced.json`."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._announced_path = directory / ANNOUNCED
        self._announcing = threading.Lock()
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            files.sweep(directory)
        except OSError as error:
            raise files.storage_error(error, f"{directory}: cannot be used for bundles") from error
        self.announced = self._load()

    def add(self, data: bytes) -> Announcement:
        """Keeps a bundle. Raises UntrustedInput for bytes that have not its form; whether to trust it is each node's own decision."""
        bundle = UnverifiedBundle.parse(data, "upload")
        digest = digest_of(data)
        path = self.path(digest)
        if not path.exists() or digest_of(path.read_bytes()) != digest:  # uploading again mends a blob
            files.write_atomic(path, data)
        return Announcement(name=bundle.manifest.name, version=bundle.manifest.version, digest=digest, size=len(data))

    def announce(self, digest: str) -> Announcement:
        """Makes a kept bundle the one that nodes are told of. Raises UsageError when it is not here."""
        path = self.path(digest)
        if not path.exists():
            raise UsageError(f"{digest}: not in this registry; upload it first")
        data = path.read_bytes()
        if digest_of(data) != digest:
            raise StateDamaged(f"{digest}: its bytes in this registry were altered; upload it again")
        announcement = self.add(data)
        with self._announcing:
            if announcement.name not in self.announced and len(self.announced) >= DEFAULT.announcements_max:
                raise TooLarge(
                    f"{announcement.name}: {len(self.announced)} skills are announced, and a node takes no more; withdraw one first"
                )
            self._keep(self.announced | {announcement.name: announcement})
        return announcement

    def withdraw(self, name: str) -> None:
        """Announces a skill no more. Nodes that run it go on. Raises UsageError when it is not announced."""
        with self._announcing:
            if name not in self.announced:
                raise UsageError(f"{safe(name, 64)}: is not announced here")
            self._keep({key: value for key, value in self.announced.items() if key != name})

    def _keep(self, announced: dict[str, Announcement]) -> None:
        files.write_atomic(self._announced_path, msgspec.json.encode(announced))
        self.announced = announced

    def path(self, digest: str) -> Path:
        """Where the blob with this digest is, or would be."""
        return self._blobs / digest.removeprefix("sha256:")

    def _load(self) -> dict[str, Announcement]:
        try:
            return msgspec.json.decode(self._announced_path.read_bytes(), type=dict[str, Announcement])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateDamaged(
                f"{self._announced_path}: not a list of announcements ({safe(str(error))}); remove it and push again"
            ) from error
