"""Roll-outs on disk: document, header and members of each, what the nodes were asked to run, and the nonces of actions. Writes go into the caller's transaction."""

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from host.core import cose, documents
from host.core.errors import StateDamaged
from host.core.limits import DEFAULT
from registry.database import Database
from registry.rollout_document import AAD, Rollout
from registry.rollout_turn import Header, State
from registry.roster import Member, Roster

KEPT_MS_MIN = 2 * 86_400_000
"""Longer than a document may be old (registry/controller.py): so none that was taken can come again after it was forgotten."""


@dataclass(frozen=True)
class Live:
    """A roll-out that is kept in memory: `signed` is its document as it came, `summary` the compatibility report of its start."""

    state: State
    signed: bytes
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def signer(self) -> bytes:
        return cose.parse(self.signed, "roll-out document").kid


class RolloutStore:
    """Reads are for the start of a controller, and for roll-outs that have been superseded."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._encode = msgspec.msgpack.Encoder().encode

    def live(self) -> list[Live]:
        """Those that were in memory when the process ended, in the order of their start."""
        with self._database.reading() as db:
            rows = db.execute("SELECT id, document, header, summary FROM rollouts WHERE live = 1 ORDER BY number").fetchall()
            try:
                return [self._load(db, *row) for row in rows]
            except msgspec.DecodeError as error:
                raise StateDamaged(f"roll-outs: a row cannot be read ({error}); restore the database from a backup") from error

    def ended(self) -> list[tuple[Header, Rollout]]:
        """Those that were superseded, the newest first."""
        with self._database.reading() as db:
            rows = db.execute("SELECT document, header FROM rollouts WHERE live = 0 ORDER BY number DESC").fetchall()
        return [(msgspec.msgpack.decode(header, type=Header), _document(document)) for document, header in rows]

    def exists(self, rollout: str) -> bool:
        with self._database.reading() as db:
            return db.execute("SELECT 1 FROM rollouts WHERE id = ?", (rollout,)).fetchone() is not None

    def add(self, db: sqlite3.Connection, live: Live) -> None:
        (number,) = db.execute("SELECT coalesce(max(number), 0) + 1 FROM rollouts").fetchone()
        document = live.state.document
        db.execute(
            "INSERT INTO rollouts (id, number, name, document, header, summary, live) VALUES (?, ?, ?, ?, ?, ?, 1)",
            (document.id, number, document.name, live.signed, self._encode(live.state.header), msgspec.json.encode(live.summary)),
        )

    def save(self, db: sqlite3.Connection, state: State, changed: Iterable[str]) -> None:
        """The header, and the members that changed."""
        db.execute("UPDATE rollouts SET header = ? WHERE id = ?", (self._encode(state.header), state.document.id))
        rows = [(state.document.id, node, self._encode(state.roster[node])) for node in changed]
        db.executemany("INSERT OR REPLACE INTO members (rollout, node, row) VALUES (?, ?, ?)", rows)

    def retire(self, db: sqlite3.Connection, rollouts: Collection[str], now_ms: int) -> None:
        """They have been superseded: header and document stay for the record, the oldest of them go."""
        for rollout in rollouts:
            db.execute("UPDATE rollouts SET live = 0 WHERE id = ?", (rollout,))
            db.execute("DELETE FROM members WHERE rollout = ?", (rollout,))
        old = db.execute(
            "SELECT id, header FROM rollouts WHERE live = 0 ORDER BY number DESC LIMIT -1 OFFSET ?", (DEFAULT.rollouts_kept_max,)
        ).fetchall()
        for rollout, header in old:
            if now_ms - msgspec.msgpack.decode(header, type=Header).started_ms > KEPT_MS_MIN:
                db.execute("DELETE FROM rollouts WHERE id = ?", (rollout,))

    def nonce_is_known(self, nonce: bytes) -> bool:
        with self._database.reading() as db:
            return db.execute("SELECT 1 FROM nonces WHERE nonce = ?", (nonce,)).fetchone() is not None

    def remember(self, db: sqlite3.Connection, nonce: bytes, at_ms: int) -> None:
        """Nonces older than two ages are forgotten: an action as old is refused for its age."""
        db.execute("DELETE FROM nonces WHERE at_ms < ?", (at_ms - 2 * DEFAULT.action_age_s_max * 1000,))
        db.execute("INSERT INTO nonces (nonce, at_ms) VALUES (?, ?)", (nonce, at_ms))

    def _load(self, db: sqlite3.Connection, rollout: str, signed: bytes, header: bytes, summary: bytes) -> Live:
        decoder = msgspec.msgpack.Decoder(Member)
        members = {node: decoder.decode(row) for node, row in db.execute("SELECT node, row FROM members WHERE rollout = ?", (rollout,))}
        state = State(_document(signed), msgspec.msgpack.decode(header, type=Header), Roster(members))
        return Live(state, signed, msgspec.json.decode(summary))


def _document(signed: bytes) -> Rollout:
    """It was verified when it was taken; its signer may have been dismissed since."""
    message = cose.parse(signed, "roll-out document")
    return documents.verify(signed, Rollout, [cose.public_key(message.kid, "roll-out document")], AAD, "roll-out document")
