"""An SQLite file (WAL, synced at each commit) that one process uses from any thread, and what can go wrong with it in words."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host.core.errors import HostFault, StateDamaged, StorageFull

MEMORY = ":memory:"
BUSY_S = 30.0  # a command line that uses the same file has its turn meanwhile


class Database:
    """One connection, used under a lock. `what` names the file's content, and `remedy` says what to do about one that cannot be read."""

    def __init__(self, path: Path | str, schema: str, what: str, remedy: str) -> None:
        self._path, self._what, self._remedy = path, what, remedy
        self._lock = threading.RLock()
        try:
            self._db = _open(path, schema)
        except sqlite3.DatabaseError as error:
            raise self._full(error) or self._damaged(error) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Raises StorageFull, HostFault, StateDamaged."""
        try:
            with self._lock:
                yield self._db
        except sqlite3.DatabaseError as error:
            raise self._fault(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; on disk when it returns. Raises as `reading`."""
        with self.reading() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def _fault(self, error: sqlite3.DatabaseError) -> HostFault:
        if isinstance(error, sqlite3.OperationalError):
            return self._full(error) or HostFault(f"{self._path}: cannot be used: {error}")
        return self._damaged(error)

    def _full(self, error: sqlite3.DatabaseError) -> StorageFull | None:
        # On a full disk, the shared memory of the WAL is the first that cannot be made.
        full = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
        return StorageFull(f"{self._path}: cannot be used: {error}") if full else None

    def _damaged(self, error: sqlite3.DatabaseError) -> StateDamaged:
        return StateDamaged(f"{self._path}: not {self._what} that can be used ({error}); {self._remedy}")


def _open(path: Path | str, schema: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_S)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(schema)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
