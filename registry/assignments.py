"""What each node was asked to run, of all skills: composed into one desired state for each node, signed by the registry's operator key, with a serial that grows.

A desired state is kept until the next one, so that it can be told again to a node that was away or was cut off: a push is never lost.
"""

import sqlite3
from collections.abc import Callable

import msgspec
from nacl.signing import SigningKey

from host.core import desired
from host.core.desired import DesiredState, Patch, Wanted
from host.core.errors import TooLarge
from host.core.limits import DEFAULT
from registry.database import Database
from registry.rollout_document import Release

PatchesFor = Callable[[str, str], tuple[Patch, ...]]
"""The deltas to the bundle of one digest, for a node that has the other one ("": none). Called for each node: it answers from memory."""
NO_PATCHES: PatchesFor = lambda digest, base: ()  # noqa: E731 - a constant of this type, for a registry that makes no deltas


class Assignments:
    """Changes go into the caller's transaction; `serials` follows when the caller says that it has committed."""

    def __init__(self, database: Database, key: SigningKey) -> None:
        self._database, self._key = database, key
        self._encode, self._decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Wanted).decode
        with database.reading() as db:
            self.serials: dict[str, int] = dict(db.execute("SELECT node, serial FROM desired"))

    def wanted_of(self, name: str) -> dict[str, Release | None]:
        """What every node was last asked to run of one skill; None for those who were asked to take it off."""
        with self._database.reading() as db:
            rows = db.execute("SELECT node, row FROM wanted WHERE name = ?", (name,)).fetchall()
        return {node: None if row is None else _release(self._decode(row)) for node, row in rows}

    def asked_of(self, node: str, name: str) -> tuple[bool, Release | None]:
        """Whether a node was ever asked to run or take off a skill, and which version."""
        with self._database.reading() as db:
            row = db.execute("SELECT row FROM wanted WHERE node = ? AND name = ?", (node, name)).fetchone()
        return (False, None) if row is None else (True, None if row[0] is None else _release(self._decode(row[0])))

    def names(self) -> set[str]:
        """Every skill that any node was ever asked to run or take off."""
        with self._database.reading() as db:
            return {name for (name,) in db.execute("SELECT DISTINCT name FROM wanted")}

    def check_room(self, name: str) -> None:
        """Raises TooLarge where one skill more would not fit into a desired state."""
        names = self.names()
        if name not in names and len(names) >= DEFAULT.announcements_max:
            raise TooLarge(
                f"{name}: a desired state names at most {DEFAULT.announcements_max} skills, and so many have been rolled out here"
            )

    def change(self, db: sqlite3.Connection, node: str, name: str, wanted: Wanted | None) -> None:
        """What a node shall run of one skill; None: take it off."""
        db.execute(
            "INSERT OR REPLACE INTO wanted (node, name, row) VALUES (?, ?, ?)",
            (node, name, None if wanted is None else self._encode(wanted)),
        )

    def issue(self, db: sqlite3.Connection, node: str, now_ms: int, above: int = 0, flags: tuple[str, ...] = ()) -> tuple[int, bytes]:
        """Serial and document of a new desired state, its serial higher than `above` and than the one before. `flags` are the feature flags that are on."""
        rows = db.execute("SELECT name, row FROM wanted WHERE node = ? ORDER BY name", (node,)).fetchall()
        serial = max(self.serials.get(node, 0), above) + 1
        state = DesiredState(
            node=node, serial=serial, issued_ms=now_ms,
            skills=tuple(self._decode(row) for _, row in rows if row is not None), remove=tuple(name for name, row in rows if row is None),
            flags=flags,
        )  # fmt: skip
        document = desired.sign(state, self._key)
        db.execute("INSERT OR REPLACE INTO desired (node, serial, document) VALUES (?, ?, ?)", (node, serial, document))
        return serial, document

    def current(self, node: str) -> bytes | None:
        """The desired state as it was last signed for this node."""
        with self._database.reading() as db:
            row = db.execute("SELECT document FROM desired WHERE node = ?", (node,)).fetchone()
        return None if row is None else bytes(row[0])


def _release(wanted: Wanted) -> Release:
    return Release(version=wanted.version, digest=wanted.digest, size=wanted.size, lane=wanted.lane)
