"""A bounded cache of blobs: those in demand in memory, the rest on disk, the longest unused go first.

`DIRECTORY/HEX` is verified before it is renamed in, and again whenever it is read. The order of use survives a restart as the files' times.
"""

import hashlib
import os
import re
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from host.core import files
from host.core.errors import DigestMismatch

_HEX = re.compile(r"[0-9a-f]{64}\Z")
MEMORY_SHARE = 2  # of the bytes on disk, one in so many may be in memory too


class Blob:
    """Verified bytes. Made by `Blob.verified` only."""

    __slots__ = ("__weakref__", "data", "digest")

    def __init__(self, digest: str, data: bytes) -> None:
        self.digest, self.data = digest, data

    @classmethod
    def verified(cls, digest: str, data: bytes) -> "Blob":
        """Raises DigestMismatch."""
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise DigestMismatch(f"expected {digest}, the bytes have {found}")
        return cls(digest, data)


class BlobCache:
    """At most `bytes_max` on disk, and half of that in memory. `hot` is for the event loop, `load` and `keep` for a thread.

    A blob that somebody still sends is found in memory whatever the bound says: it is there once, not once for each who asks.
    """

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory, self._bytes_max, self._memory_bytes_max = directory, bytes_max, bytes_max // MEMORY_SHARE
        self._live: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._memory: OrderedDict[str, Blob] = OrderedDict()
        self._disk: OrderedDict[str, int] = OrderedDict()
        self._memory_bytes = self._disk_bytes = 0
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            files.sweep(directory)
            self._take_stock()
        except OSError as error:
            raise files.storage_error(error, f"{directory}: cannot be used as a cache") from error

    @property
    def disk_bytes(self) -> int:
        return self._disk_bytes

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    def hot(self, digest: str) -> Blob | None:
        """The blob, where it is in memory."""
        with self._lock:
            blob = self._live.get(digest)
            if blob is not None:
                self._use(digest)
            return blob

    def load(self, digest: str) -> Blob | None:
        """The blob, where it is on disk and sound; it is in memory from then on."""
        if digest not in self._disk:
            return None
        try:
            blob = Blob.verified(digest, self._path(digest).read_bytes())
        except (OSError, DigestMismatch):
            with self._lock:
                self._forget(digest)
            return None
        with self._lock:
            self._remember(blob)
            self._use(digest)
        return blob

    def lend(self, blob: Blob) -> Blob:
        """Keeps in memory only what is on disk elsewhere."""
        with self._lock:
            self._remember(blob)
        return blob

    def keep(self, blob: Blob) -> None:
        """Keeps it in memory, and on disk where it fits. Raises StorageFull or HostFault; then it is in memory only."""
        size = len(blob.data)
        with self._lock:
            self._remember(blob)
            if size > self._bytes_max or blob.digest in self._disk:
                return
            while self._disk_bytes + size > self._bytes_max:
                self._forget(next(iter(self._disk)))
            self._disk[blob.digest] = size  # it takes its room before it is written, so that the bound holds all the while
            self._disk_bytes += size
        try:
            files.write_atomic(self._path(blob.digest), blob.data)
        except BaseException:
            with self._lock:
                self._forget(blob.digest)
            raise

    def _take_stock(self) -> None:
        found = [(entry.stat(), f"sha256:{entry.name}") for entry in os.scandir(self._directory) if _HEX.match(entry.name)]
        for stat, digest in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
            self._disk[digest] = stat.st_size
            self._disk_bytes += stat.st_size
        while self._disk_bytes > self._bytes_max:
            self._forget(next(iter(self._disk)))

    def _remember(self, blob: Blob) -> None:
        self._live[blob.digest] = blob
        if len(blob.data) > self._memory_bytes_max or blob.digest in self._memory:
            return
        self._memory[blob.digest] = blob
        self._memory_bytes += len(blob.data)
        while self._memory_bytes > self._memory_bytes_max:
            _, gone = self._memory.popitem(last=False)
            self._memory_bytes -= len(gone.data)

    def _use(self, digest: str) -> None:
        if digest in self._memory:
            self._memory.move_to_end(digest)
        if digest in self._disk:
            self._disk.move_to_end(digest)
            with suppress(OSError):
                os.utime(self._path(digest))

    def _forget(self, digest: str) -> None:
        self._disk_bytes -= self._disk.pop(digest, 0)
        with suppress(OSError):
            self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._directory / digest.removeprefix("sha256:")
