"""What has come of blobs that are not whole yet, on disk, so that a process that is killed goes on where it was.

A partial file claims nothing but the digest it is named for. It is never synced and never believed: what it is part of is verified when it is whole. It is a
convenience, so a disk that refuses it costs the resumption and nothing else.
"""

import os
from contextlib import suppress
from pathlib import Path

from host.core.limits import DEFAULT


class Partials:
    """The partial files of one directory, at most `bytes_max` of them together."""

    def __init__(self, directory: Path, bytes_max: int = DEFAULT.partials_bytes_max) -> None:
        self.directory, self._bytes_max = directory, bytes_max
        self.held: set[str] = set()

    def open(self, digest: str) -> "Partial | None":
        """None while another fetch has it: that one keeps what comes."""
        name = digest.removeprefix("sha256:")
        if name in self.held:
            return None
        self.held.add(name)
        return Partial(self, name)

    def make_room(self) -> None:
        """Room for one more blob of the largest size; the longest untouched go first. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        found = [(entry.stat(), entry) for entry in os.scandir(self.directory) if entry.is_file(follow_symlinks=False)]
        used = sum(stat.st_size for stat, _ in found)
        for stat, entry in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
            if used + DEFAULT.bundle_bytes_max <= self._bytes_max:
                return
            if entry.name not in self.held:
                Path(entry.path).unlink(missing_ok=True)
                used -= stat.st_size


class Partial:
    """The file of one blob, held by one fetch at a time. It is made when something is saved first: a fast transfer touches no disk."""

    def __init__(self, partials: Partials, name: str) -> None:
        self._partials, self._name, self._path = partials, name, partials.directory / name
        self._saved = 0

    def load(self, bytes_max: int) -> bytes:
        """What is there; nothing where it is more than can be."""
        try:
            with self._path.open("rb") as file:
                data = file.read(bytes_max + 1)
        except OSError:
            return b""
        self._saved = len(data)
        if len(data) <= bytes_max:
            return data
        self.drop()
        return b""

    def save(self, data: bytes | bytearray) -> None:
        """Adds what is new. Only ever called with the bytes that were saved before, and more."""
        if len(data) == self._saved:
            return
        with suppress(OSError):
            if not self._saved:
                self._partials.make_room()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._saved += os.pwrite(descriptor, memoryview(data)[self._saved :], self._saved)
            finally:
                os.close(descriptor)

    def drop(self) -> None:
        """Forgets it: the blob is whole, or it was wrong."""
        if self._saved:
            self._saved = 0
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Leaves it to the next fetch."""
        self._partials.held.discard(self._name)
