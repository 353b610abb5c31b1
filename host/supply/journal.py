"""The node's journal: installs, how each version's calls ended, the audit of refused commands, and the skills' own state, in one SQLite file (WAL)."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from host.core.database import Database
from host.core.limits import DEFAULT, Limits
from host.core.safety import Refusal
from host.plugins.tally import Tally

_SCHEMA = """
CREATE TABLE IF NOT EXISTS installs (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, skill TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL,
  outcome TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, skill TEXT NOT NULL, command TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS health (digest TEXT PRIMARY KEY, calls INTEGER NOT NULL, traps INTEGER NOT NULL, deadlines INTEGER NOT NULL,
  exhausted INTEGER NOT NULL, refused INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (skill TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (skill, key)) WITHOUT ROWID;
"""


class Journal:
    """One connection, used under a lock from any thread."""

    def __init__(self, path: Path, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._database = Database(path, _SCHEMA, "a journal", "move it away to start with an empty one, and its audit is lost")

    def installed(self, at_ms: int, skill: str, version: str, digest: str, outcome: str, detail: str) -> None:
        """Writes down how an install ended: `active`, `failed` or `rolled back`."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO installs (at_ms, skill, version, digest, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (at_ms, skill, version, digest, outcome, detail),
            )
            self._bound(db, "installs")

    def refused(self, refusal: Refusal) -> None:
        """Writes down a command that the safety envelope refused."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO audit (at_ms, skill, command, reason) VALUES (?, ?, ?, ?)",
                (refusal.at_ms, refusal.skill, refusal.command, refusal.reason),
            )
            self._bound(db, "audit")

    def audit(self, last: int = 100) -> list[dict[str, Any]]:
        """The last refusals, newest first."""
        return self._rows("SELECT at_ms, skill, command, reason FROM audit ORDER BY id DESC LIMIT ?", last)

    def installs(self, last: int = 100) -> list[dict[str, Any]]:
        """How the last installs ended, newest first."""
        return self._rows("SELECT at_ms, skill, version, digest, outcome, detail FROM installs ORDER BY id DESC LIMIT ?", last)

    def health(self, digest: str) -> Tally:
        """How the calls of a version ended, over all runs of the node, as it was last written down."""
        with self._database.reading() as db:
            row = db.execute("SELECT calls, traps, deadlines, exhausted, refused FROM health WHERE digest = ?", (digest,)).fetchone()
        return Tally() if row is None else Tally(*row)

    def keep_health(self, tallies: Iterable[tuple[str, Tally]]) -> None:
        """Writes that down, by digest."""
        rows = [(digest, *(getattr(tally, name) for name in Tally.__struct_fields__)) for digest, tally in tallies]
        with self._database.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO health (digest, calls, traps, deadlines, exhausted, refused) VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    def forget_health(self, digest: str) -> None:
        with self._database.transaction() as db:
            db.execute("DELETE FROM health WHERE digest = ?", (digest,))

    def state(self, skill: str) -> "SkillState":
        """The keys and values of one skill."""
        return SkillState(self._database, skill, self._limits.state_bytes_max)

    def close(self) -> None:
        self._database.close()

    def _rows(self, query: str, last: int) -> list[dict[str, Any]]:
        with self._database.reading() as db:
            cursor = db.execute(query, (last,))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _bound(self, db: sqlite3.Connection, table: str) -> None:
        db.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (self._limits.audit_rows_max,))


class SkillState:
    """The `state` capability of one skill: at most `bytes_max` of keys and values together."""

    def __init__(self, database: Database, skill: str, bytes_max: int) -> None:
        self._database, self._skill, self._bytes_max = database, skill, bytes_max

    def get(self, key: bytes) -> bytes | None:
        with self._database.reading() as db:
            row = db.execute("SELECT value FROM state WHERE skill = ? AND key = ?", (self._skill, key)).fetchone()
        return None if row is None else bytes(row[0])

    def set(self, key: bytes, value: bytes) -> bool:
        """False when the quota is full; an empty value deletes the key."""
        with self._database.transaction() as db:
            if not value:
                db.execute("DELETE FROM state WHERE skill = ? AND key = ?", (self._skill, key))
                return True
            (used,) = db.execute(
                "SELECT coalesce(sum(length(key) + length(value)), 0) FROM state WHERE skill = ? AND key <> ?", (self._skill, key)
            ).fetchone()
            if used + len(key) + len(value) > self._bytes_max:
                return False
            db.execute("INSERT OR REPLACE INTO state (skill, key, value) VALUES (?, ?, ?)", (self._skill, key, value))
            return True
