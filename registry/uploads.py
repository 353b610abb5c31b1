"""Open uploads: a file for each, and a row in the index. They survive a restart, and expire."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from host.core import files
from host.core.clock import Clock
from host.core.errors import TooLarge
from host.core.limits import Limits
from registry.index import Index
from registry.problem import refusal

ID_BYTES = 16
WRITE_BYTES = 1 << 20


class Uploads:
    """How much has come is the size of the file: there is no second account of it that could differ."""

    def __init__(self, directory: Path, index: Index, clock: Clock, limits: Limits) -> None:
        self._directory, self._index, self._clock, self._limits = directory, index, clock, limits
        self._writing: set[str] = set()

    def begin(self, repository: str) -> str:
        """A new upload's identity. Raises OciRefused when too many are open."""
        self.expire()
        identity = secrets.token_hex(ID_BYTES)
        with self._index.writing() as db:
            (count,) = db.execute("SELECT count(*) FROM uploads").fetchone()
            if count >= self._limits.uploads_open_max:
                raise refusal("TOOMANYREQUESTS", f"{count} uploads are open, and no more are taken; finish or cancel one")
            self._index.add_repository(db, repository)
            db.execute("INSERT INTO uploads VALUES (?, ?, ?)", (identity, repository, self._clock.now_ms()))
            try:
                (self._directory / identity).touch(exist_ok=False)
            except OSError as error:
                raise files.storage_error(error, "an upload cannot be started") from error
        return identity

    def file(self, repository: str, identity: str) -> Path:
        """An open upload's file. Raises OciRefused where this repository has none of this identity."""
        # The index knows only identities that were made here, so none of them is a path.
        if self._index.upload(identity) != repository or not (self._directory / identity).is_file():
            raise refusal("BLOB_UPLOAD_UNKNOWN", f"{repository}: no such upload; it was finished, cancelled, or has expired")
        return self._directory / identity

    def offset(self, repository: str, identity: str) -> int:
        """How many bytes have come. Raises OciRefused."""
        return self.file(repository, identity).stat().st_size

    @contextmanager
    def exclusive(self, identity: str) -> Iterator[None]:
        """One request at a time. Raises OciRefused for a second."""
        if identity in self._writing:
            raise refusal("BLOB_UPLOAD_INVALID", "another request is writing to this upload", 409)
        self._writing.add(identity)
        try:
            yield
        finally:
            self._writing.discard(identity)

    async def append(self, repository: str, identity: str, pieces: AsyncIterator[bytes]) -> int:
        """Adds what comes; how much there is now. What came before the pieces broke off stays, to be resumed; an upload that grew too large goes."""
        file = self.file(repository, identity)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "ab", buffering=0) as target:
                return await self._write(target, pieces, file.stat().st_size)
        except TooLarge:
            self.forget(identity)
            raise
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise files.storage_error(error, "an upload cannot be written") from error

    async def _write(self, target: BinaryIO, pieces: AsyncIterator[bytes], size: int) -> int:
        waiting = bytearray()
        try:
            async for piece in pieces:
                waiting += piece
                if size + len(waiting) > self._limits.oci_blob_bytes_max:
                    raise TooLarge(f"a blob has at most {self._limits.oci_blob_bytes_max} bytes, more came")
                if len(waiting) >= WRITE_BYTES:
                    size += await asyncio.to_thread(_write_all, target, waiting)
        finally:
            size += await asyncio.to_thread(_write_all, target, waiting)
        return size

    def forget(self, identity: str) -> None:
        """Ends an upload and removes what came of it."""
        with self._index.writing() as db:
            db.execute("DELETE FROM uploads WHERE id = ?", (identity,))
        try:
            (self._directory / identity).unlink(missing_ok=True)
        except OSError as error:
            raise files.storage_error(error, "an upload cannot be removed") from error

    def expire(self) -> int:
        """Forgets the uploads that were started too long ago, unless one is being written; how many."""
        old = self._index.uploads(self._clock.now_ms() - self._limits.upload_age_s_max * 1000)
        gone = [identity for identity in old if identity not in self._writing]
        for identity in gone:
            self.forget(identity)
        return len(gone)

    def sweep(self) -> None:
        """At start: forgets what has expired, files without a row, and rows without a file."""
        self.expire()
        known = set(self._index.uploads())
        found = {path.name for path in self._directory.iterdir()}
        for identity in known ^ found:
            self.forget(identity)


def _write_all(target: BinaryIO, waiting: bytearray) -> int:
    """Writes and empties the buffer; how much it was. What a full disk took of it is not in it any more."""
    size, done = len(waiting), 0
    try:
        with memoryview(waiting) as view:
            while done < size:
                done += target.write(view[done:])
    finally:
        del waiting[:done]
    return size
