"""The audit log of roll-outs: every decision is a row, and each row's hash covers the row and the hash before it.

So a row that is changed, taken out or put in later shows, and so do all after it. That rows were cut off at the end does not show in the rows themselves:
for that there is the signed head, to be kept elsewhere. hash = SHA-256(hash before ‖ deterministic CBOR of [seq, at_ms, kind, who, detail]).
"""

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, documents
from host.core.errors import StateDamaged
from registry.database import Database

AAD = b"snapcount audit head 1"
HASH_BYTES = 32
START = bytes(HASH_BYTES)
ROWS_READ_MAX = 1_000
SEQ_MIN = -(1 << 63)
"""Below every number that SQLite keeps: a row that was put in before the first shows as well."""
Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class Entry(msgspec.Struct, frozen=True):
    """What is to be written: `who` is a key's name or `controller`, `detail` fits into JSON."""

    kind: str
    who: str
    detail: dict[str, Any]


class Row(msgspec.Struct, frozen=True):
    """One row as it is kept. `detail` is JSON text, exactly as it was hashed."""

    seq: int
    at_ms: int
    kind: str
    who: str
    detail: str
    hash: bytes


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the log ended at some time: rows 1 to `seq` lead to `hash`."""

    seq: Annotated[int, Meta(ge=0)]
    hash: Hash
    at_ms: int


class AuditLog:
    """Appends within the caller's transaction, so that a decision and its row are written together or not at all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, db: sqlite3.Connection, at_ms: int, entries: Iterable[Entry]) -> None:
        last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, START)
        seq, before = int(last[0]), bytes(last[1])
        rows: list[tuple[int, int, str, str, str, bytes]] = []
        for entry in entries:
            seq += 1
            detail = json.dumps(entry.detail, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            before = hash_of(before, seq, at_ms, entry.kind, entry.who, detail)
            rows.append((seq, at_ms, entry.kind, entry.who, detail, before))
        db.executemany("INSERT INTO audit (seq, at_ms, kind, who, detail, hash) VALUES (?, ?, ?, ?, ?, ?)", rows)

    def head(self, at_ms: int) -> Head:
        with self._database.reading() as db:
            last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, START)
        return Head(seq=last[0], hash=last[1], at_ms=at_ms)

    def rows(self, after: int = 0, count: int = ROWS_READ_MAX) -> list[Row]:
        """Rows `after + 1` and on."""
        with self._database.reading() as db:
            found = db.execute(
                "SELECT seq, at_ms, kind, who, detail, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, count)
            ).fetchall()
        return [Row(*row) for row in found]

    def last(self, count: int, rollout: str = "") -> list[Row]:
        """The newest rows, newest first; of one roll-out, where it is given, without those that start a node."""
        # The words of the index in registry/database.py: without them SQLite reads every row.
        where, what = ("WHERE json_extract(detail, '$.rollout') = ? AND kind <> 'start'", (rollout, count)) if rollout else ("", (count,))
        with self._database.reading() as db:
            found = db.execute(f"SELECT seq, at_ms, kind, who, detail, hash FROM audit {where} ORDER BY seq DESC LIMIT ?", what).fetchall()
        return [Row(*row) for row in found]

    def every(self) -> Iterator[Row]:
        """All rows, in pages: appending goes on meanwhile."""
        after = SEQ_MIN
        while page := self.rows(after):
            yield from page
            after = page[-1].seq


def hash_of(before: bytes, seq: int, at_ms: int, kind: str, who: str, detail: str) -> bytes:
    return hashlib.sha256(before + cbor.encode([seq, at_ms, kind, who, detail])).digest()


def verify(rows: Iterable[Row], expected: Head | None = None) -> int:
    """The number of rows. Raises StateDamaged that names the first row which does not follow from those before it, or the head that is not met."""
    before, seq = START, 0
    met = expected is None or expected.seq == 0
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise StateDamaged(f"audit log: row {seq} is missing: row {row.seq} stands in its place")
        if row.hash != hash_of(before, row.seq, row.at_ms, row.kind, row.who, row.detail):
            raise StateDamaged(f"audit log: row {seq} was altered, or one before it: its hash does not follow")
        before = row.hash
        if expected is not None and seq == expected.seq:
            if before != expected.hash:
                raise StateDamaged(f"audit log: row {seq} is not the one that was signed as its head: the log was rewritten")
            met = True
    if expected is not None and not met:
        raise StateDamaged(f"audit log: it ends at row {seq}, and was signed with {expected.seq}: rows were cut off")
    return seq


def sign_head(head: Head, operator: SigningKey) -> bytes:
    return documents.sign(head, operator, AAD)


def verify_head(data: bytes, operators: Collection[VerifyKey]) -> Head:
    """Raises SignatureInvalid, MalformedData."""
    return documents.verify(data, Head, operators, AAD, "head of the audit log")
