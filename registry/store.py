"""What a registry keeps of skills: bundles, each as an OCI artifact `skills/NAME:VERSION`, and the newest announcement of each skill."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from host.core import files, oci
from host.core.bundle import UnverifiedBundle, digest_of
from host.core.clock import Clock
from host.core.errors import StateDamaged, TooLarge, UntrustedInput, UsageError
from host.core.fleet import Announcement
from host.core.limits import DEFAULT
from host.core.text import safe
from registry.content import Content

ANNOUNCED = "announced.json"
SKILLS = "skills/"
Permit = Callable[[str], object]


def repository_of(name: str) -> str:
    """Where the bundles of a skill are."""
    return f"{SKILLS}{name}"


class BundleStore:
    """Bundles in a content store, and `announced.json` beside it. `permit` is asked with a repository's name before anything is kept, and raises to refuse."""

    def __init__(self, directory: Path, clock: Clock | None = None, *, sweep: bool = True) -> None:
        self.content = Content(directory, clock, sweep=sweep)
        self._announced_path = directory / ANNOUNCED
        self._announcing = threading.Lock()
        if sweep:
            for left in directory.glob(f"{files.TEMPORARY}*"):
                left.unlink(missing_ok=True)
        self.announced = self._load()

    def add(self, data: bytes, permit: Permit | None = None) -> Announcement:
        """Keeps a bundle. Raises UntrustedInput for bytes that have not its form; whether to trust it is each node's own decision."""
        bundle = UnverifiedBundle.parse(data, "upload").manifest
        repository = repository_of(bundle.name)
        if permit is not None:
            permit(repository)
        artifact = oci.wasm_artifact(data, bundle.name, bundle.version)
        self.content.put(repository, data)
        self.content.put(repository, artifact.config)
        self.content.put_manifest(repository, bundle.version, oci.MANIFEST, artifact.manifest)
        return Announcement(name=bundle.name, version=bundle.version, digest=artifact.layer, size=len(data))

    def announce(self, digest: str, permit: Permit | None = None) -> Announcement:
        """Makes a kept bundle the one that nodes are told of: by its own digest, or by that of a manifest. Raises UsageError when it is not here."""
        announcement = self._described(self._bundle_of(digest), permit)
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

    def collect(self, grace_s: int) -> tuple[int, int]:
        """Removes what nothing refers to and nobody was told of; how many files, and their bytes."""
        return self.content.collect({announcement.digest for announcement in self.announced.values()}, grace_s)

    def path(self, digest: str) -> Path:
        """Where the blob with this digest is, or would be."""
        return self.content.path(digest)

    def _described(self, digest: str, permit: Permit | None) -> Announcement:
        path = self.path(digest)
        if not path.exists():
            raise UsageError(f"{digest}: not in this registry; upload it first")
        if (size := path.stat().st_size) > DEFAULT.bundle_bytes_max:
            raise TooLarge(f"{digest}: a bundle has at most {DEFAULT.bundle_bytes_max} bytes, this one has {size}")
        data = path.read_bytes()
        if digest_of(data) != digest:
            raise StateDamaged(f"{digest}: its bytes in this registry were altered; upload it again")
        found = UnverifiedBundle.parse(data, "upload").manifest
        repository = repository_of(found.name)
        if permit is not None:
            permit(repository)
        # Any client may have pushed it, with annotations of its own; a manifest that stands for it already is left alone.
        if not any(holder == repository for holder, _ in self.content.index.made_of(digest)):
            return self.add(data)
        return Announcement(name=found.name, version=found.version, digest=digest, size=len(data))

    def _bundle_of(self, digest: str) -> str:
        """The digest itself, or that of the layer where it is a manifest's: some clients show only the latter."""
        row = self.content.index.anywhere(digest)
        if row is None:
            return digest
        try:
            return oci.wasm_layer(self.path(digest).read_bytes(), row.media_type, digest).digest
        except OSError as error:
            raise StateDamaged(f"{digest}: cannot be read: {error.strerror}; push it again") from error
        except UntrustedInput as error:
            raise UsageError(f"expected the digest of a bundle, or of its manifest: {error}") from error

    def _keep(self, announced: dict[str, Announcement]) -> None:
        files.write_atomic(self._announced_path, msgspec.json.encode(announced))
        self.announced = announced

    def _load(self) -> dict[str, Announcement]:
        try:
            return msgspec.json.decode(self._announced_path.read_bytes(), type=dict[str, Announcement])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateDamaged(
                f"{self._announced_path}: not a list of announcements ({safe(str(error))}); remove it and push again"
            ) from error
