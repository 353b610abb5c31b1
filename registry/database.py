"""The registry's database of roll-outs: one file for documents, states, desired states, inventory, feature flags and audit.

They share a file so that they change together: what was decided, what follows from it for a node, and the row that says so are one transaction.
"""

from pathlib import Path

from host.core import database, files
from host.core.database import MEMORY

FILE = "rollouts.db"
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


class Database(database.Database):
    """Made where it is not yet. Raises StorageFull, StateDamaged, HostFault."""

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise files.storage_error(error, f"{path.parent}: cannot be made") from error
        super().__init__(path, _SCHEMA, "a database of roll-outs", "restore it from a backup")


__all__ = ["FILE", "MEMORY", "Database"]
