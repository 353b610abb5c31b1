"""The node's journal of calls: a sample of real ones, as records (host/plugins/record.py), and the conflicts that an auditor found.

It is a file of its own beside the journal: what is written here never holds up a skill's state or the audit, and an owner can delete it by itself, since requests
may be confidential. At most so many bytes and rows are kept; the oldest go first, and what was deleted is overwritten. Records of other nodes have a share of the
room only, so that none of them can push out the node's own.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from host.core import files
from host.core.database import Database
from host.core.errors import StateDamaged, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins.conflict import Conflict
from host.plugins.record import CallRecord, decode, id_of

FILE = "calls.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, skill TEXT NOT NULL, version TEXT NOT NULL,
  digest TEXT NOT NULL, hook TEXT NOT NULL, outcome TEXT NOT NULL, node TEXT NOT NULL, bytes INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS conflicts (row INTEGER PRIMARY KEY, conflict TEXT NOT NULL, at_ms INTEGER NOT NULL);
"""
OTHERS_SHARE = 4
"""Records of other nodes have one part in so many of the bytes and rows."""
_COLUMNS = ("id", "at_ms", "skill", "version", "digest", "hook", "outcome", "node", "bytes")


@dataclass
class _Room:
    """What records take, and how much they may."""

    bytes_max: int
    rows_max: int
    bytes: int = 0
    rows: int = 0

    def add(self, size: int) -> None:
        self.bytes, self.rows = self.bytes + size, self.rows + (1 if size > 0 else -1)

    def is_full(self) -> bool:
        return self.bytes > self.bytes_max or self.rows > self.rows_max


class CallJournal:
    """Used under a lock from any thread. `bytes_max` bounds the records together; `own` is the node's name, without which all records are its own."""

    def __init__(self, state: Path, bytes_max: int, own: str = "", rows_max: int = DEFAULT.calls_kept_max) -> None:
        self._bytes_max, self._rows_max, self._own = bytes_max, rows_max, own
        self._adding = threading.Lock()
        path = state / FILE
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise files.storage_error(error, f"{path}: cannot be used") from error
        self._database = Database(path, _SCHEMA, "a journal of calls", "delete it: only recorded calls are lost")
        with self._database.reading() as db:
            db.execute("PRAGMA secure_delete=ON")
        self._all = self._room(1, "", ())
        self._others = self._room(OTHERS_SHARE, "WHERE node <> ?", (own,)) if own else _Room(bytes_max, rows_max)

    def add(self, records: Sequence[bytes]) -> None:
        """Writes encoded records down, all of them or none. One that is here already is not written again. Raises StorageFull, HostFault."""
        with self._adding:
            everything, others = replace(self._all), replace(self._others)
            with self._database.transaction() as db:
                for data in records:
                    record = decode(data, "record")
                    row = (
                        id_of(data),
                        record.began_ms,
                        record.skill,
                        record.version,
                        record.digest,
                        record.hook,
                        record.outcome,
                        record.node,
                        len(data),
                        data,
                    )
                    query = f"INSERT OR IGNORE INTO calls ({', '.join(_COLUMNS)}, record) VALUES ({', '.join('?' * len(row))})"
                    if db.execute(query, row).rowcount == 1:
                        everything.add(len(data))
                        if self._is_others(record.node):
                            others.add(len(data))
                self._drop_oldest(db, others, everything, others, "WHERE node <> ?", (self._own,))
                self._drop_oldest(db, everything, everything, others, "", ())
            self._all, self._others = everything, others  # nothing was written otherwise

    def conflict(self, conflict: Conflict) -> None:
        """Writes a conflict down."""
        with self._database.transaction() as db:
            db.execute("INSERT INTO conflicts (conflict, at_ms) VALUES (?, ?)", (msgspec.json.encode(conflict).decode(), conflict.at_ms))
            db.execute("DELETE FROM conflicts WHERE row <= (SELECT max(row) FROM conflicts) - ?", (DEFAULT.conflicts_kept_max,))

    def rows(self, skill: str = "", last: int = 50) -> list[dict[str, Any]]:
        """The last records, newest first, without their content; of one skill where it is named."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM calls WHERE ? IN ('', skill) ORDER BY row DESC LIMIT ?"
        with self._database.reading() as db:
            return [dict(zip(_COLUMNS, row, strict=True)) for row in db.execute(query, (skill, last))]

    def get(self, ids: Iterable[str]) -> list[bytes]:
        """Encoded records by their ids, or the beginnings of those.

        Raises UsageError for one that is not here, or could be several; StateDamaged for one that is not as it was written.
        """
        return [self._get(id_) for id_ in ids]

    def all_of(self, skill: str) -> list[bytes]:
        """All encoded records of a skill, oldest first. Raises StateDamaged."""
        with self._database.reading() as db:
            rows = db.execute("SELECT id, record FROM calls WHERE skill = ? ORDER BY row", (skill,)).fetchall()
        return [_sound(id_, bytes(data)) for id_, data in rows]

    def of_skill(self, skill: str) -> list[tuple[str, CallRecord]]:
        """All records of a skill with their ids, oldest first. Raises StateDamaged."""
        return [(id_, decode(data, f"call {id_}")) for data in self.all_of(skill) for id_ in [id_of(data)]]

    def conflicts(self, last: int = 50) -> list[Conflict]:
        """The last conflicts, newest first. Raises StateDamaged for one that is not as it was written."""
        with self._database.reading() as db:
            rows = db.execute("SELECT conflict FROM conflicts ORDER BY row DESC LIMIT ?", (last,)).fetchall()
        try:
            return [msgspec.json.decode(text, type=Conflict) for (text,) in rows]
        except msgspec.DecodeError as error:
            raise StateDamaged(
                f"a conflict in {FILE} is not as it was written ({safe(str(error))}); delete {FILE} while the node is stopped"
            ) from error

    def status(self) -> dict[str, int]:
        """How much is kept."""
        return {"kept": self._all.rows, "kept_bytes": self._all.bytes}

    def close(self) -> None:
        self._database.close()

    def _get(self, id_: str) -> bytes:
        with self._database.reading() as db:
            # The ids that begin so, by their index: they are hexadecimal, and `g` comes after all that can follow.
            found = db.execute("SELECT id, record FROM calls WHERE id >= ? AND id < ? || 'g' LIMIT 2", (id_, id_)).fetchall()
        if len(found) != 1 or not id_:
            raise UsageError(
                f"{safe(id_, 64) or 'an empty id'}: {'more than one' if found else 'no'} recorded call has this id; `snapcount node calls` lists them"
            )
        return _sound(found[0][0], bytes(found[0][1]))

    def _is_others(self, node: str) -> bool:
        return bool(self._own) and node != self._own

    def _drop_oldest(
        self, db: sqlite3.Connection, room: _Room, everything: _Room, others: _Room, where: str, values: tuple[str, ...]
    ) -> None:
        """Drops the oldest of these records until there is room for those that are left."""
        if not room.is_full():
            return
        dropped = []
        for row, size, node in db.execute(f"SELECT row, bytes, node FROM calls {where} ORDER BY row", values):
            dropped.append((row,))
            everything.add(-size)
            if self._is_others(node):
                others.add(-size)
            if not room.is_full():
                break
        db.executemany("DELETE FROM calls WHERE row = ?", dropped)

    def _room(self, parts: int, where: str, values: tuple[str, ...]) -> _Room:
        """What these records take now, of one part of the room in so many."""
        with self._database.reading() as db:
            total, rows = db.execute(f"SELECT coalesce(sum(bytes), 0), count(*) FROM calls {where}", values).fetchone()
        return _Room(self._bytes_max // parts, self._rows_max // parts, int(total), int(rows))


def _sound(id_: str, data: bytes) -> bytes:
    if id_of(data) != id_:
        raise StateDamaged(f"call {safe(id_, 64)}: its record is not as it was written; it is not used")
    return data


def open_existing(state: Path) -> CallJournal:
    """The journal of a node, running or not, to read. Raises UsageError where there is none."""
    if not (state / FILE).exists():
        raise UsageError(f"{state}: no call was ever recorded there; its owner allows it with `sample` under [record] in node.toml")
    return CallJournal(state, DEFAULT.calls_file_bytes_max)
