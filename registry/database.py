"""The registry's database of roll-outs: one SQLite file (WAL, synced at each commit) for documents, states, desired states, inventory and audit.

They share a file so that they change together: what was decided, what follows from it for a node, and the row that says so are one transaction.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host.core.errors import HostFault, StateDamaged, StorageFull

FILE = "rollouts.db"
MEMORY = ":memory:"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS audit_rollout ON audit (json_extract(detail, '$.rollout'), seq) WHERE kind <> 'start';
CREATE TABLE IF NOT EXISTS inventory (node TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollouts (id TEXT PRIMARY KEY, number INTEGER NOT NULL, name TEXT NOT NULL, document BLOB NOT NULL, header BLOB NOT NULL,
  summary BLOB NOT NULL, live INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (rollout TEXT NOT NULL, node TEXT NOT NULL, row BLOB NOT NULL, PRIMARY KEY (rollout, node)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (node TEXT NOT NULL, name TEXT NOT NULL, row BLOB, PRIMARY KEY (node, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS wanted_name ON wanted (name);
CREATE TABLE IF NOT EXISTS desired (node TEXT PRIMARY KEY, serial INTEGER NOT NULL, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flags (flag TEXT PRIMARY KEY, selection BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonces (nonce BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
"""


class Database:
    """One connection, used under a lock from any thread."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(path)
        except (sqlite3.DatabaseError, OSError) as error:
            raise _fault(path, error) from error

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
            raise _fault(self._path, error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; on disk when it returns."""
        with self.reading() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db


def _open(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _fault(path: Path | str, error: sqlite3.DatabaseError | OSError) -> HostFault:
    if isinstance(error, OSError):
        return HostFault(f"{path}: cannot be used: {error.strerror}")
    # On a full disk, the shared memory of the WAL is the first that cannot be made.
    if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return StorageFull(f"{path}: {error}")
    if isinstance(error, sqlite3.OperationalError):
        return HostFault(f"{path}: cannot be used: {error}")
    return StateDamaged(f"{path}: not a usable database of roll-outs ({error}); restore it from a backup")
