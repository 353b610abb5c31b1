"""What has come of one blob: the bytes, their digest so far, from whom they came, and how much of them is on disk."""

import asyncio
import hashlib

from host.core.limits import DEFAULT
from host.supply.partial import Partial

SAVE_S = 5.0
DISK = ""  # the owner of bytes from an earlier life of this process: nobody can be blamed for them


class Overrun(Exception):
    """More came than there can be."""


class Whole:
    """`size` is None until somebody says it. `owners` are the sources that the bytes are from, `furthest` the most bytes there ever were.

    `alone` says that it may not be put together from several sources any more.
    """

    def __init__(self, digest: str, size: int | None, partial: Partial | None) -> None:
        self.digest, self.size, self.announced = digest, size, size is not None
        self._announced_size, self._partial = size, partial
        self.data = bytearray(partial.load(self.bytes_max) if partial else b"")
        self._hash = hashlib.sha256(self.data)
        self.owners: set[str] = {DISK} if self.data else set()
        self.furthest = len(self.data)
        self.alone = False
        self._saving: asyncio.TimerHandle | None = None

    @property
    def bytes_max(self) -> int:
        return DEFAULT.bundle_bytes_max if self.size is None else self.size

    @property
    def complete(self) -> bool:
        """Whether no more bytes can come. It says nothing of what they are."""
        return self.size is not None and len(self.data) == self.size

    @property
    def found(self) -> str:
        """The digest of what is there."""
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def sound(self) -> bool:
        """Whether this is the blob."""
        return self.found == self.digest

    @property
    def how_far(self) -> str:
        return f"{self.furthest} of {'an unknown number of' if self.size is None else self.size} bytes came"

    def take(self, piece: bytes, source: str) -> None:
        """Adds what came. Raises Overrun."""
        self.owners.add(source)
        if len(self.data) + len(piece) > self.bytes_max:
            raise Overrun
        self.data += piece
        self._hash.update(piece)
        self.furthest = max(self.furthest, len(self.data))
        if self._partial is not None and self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self.save)

    def drop(self) -> None:
        """Begins anew."""
        self.data, self._hash, self.owners, self.size = bytearray(), hashlib.sha256(), set(), self._announced_size
        if self._partial is not None:
            self._partial.drop()

    def save(self) -> None:
        """Writes down what has come, at most `SAVE_S` after it did: a fast transfer never gets there."""
        self._unschedule()
        if self._partial is not None:
            self._partial.save(self.data)

    def close(self) -> None:
        """Leaves on disk what is not whole, and nothing of what is."""
        self._unschedule()
        if self._partial is not None:
            if self.sound:
                self._partial.drop()
            else:
                self._partial.save(self.data)
            self._partial.release()

    def _unschedule(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
