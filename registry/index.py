"""The registry's index: which blobs and manifests belong to which repository, tags, referrers, open uploads; one SQLite file (WAL).

What it says is there, is there: a file is renamed in before its row is written, and its row goes before the file does.
"""

import sqlite3
import weakref
from pathlib import Path
from typing import NamedTuple

from host.core.database import Database
from host.core.limits import DEFAULT, Limits
from registry.problem import refusal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS repositories (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (repository TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS manifests_by_subject ON manifests (repository, subject, digest) WHERE subject <> '';
CREATE INDEX IF NOT EXISTS manifests_by_digest ON manifests (digest);
CREATE TABLE IF NOT EXISTS parts (repository TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY (repository, manifest, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parts_by_digest ON parts (digest);
CREATE TABLE IF NOT EXISTS tags (repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, tag)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_in_order ON tags (repository, lower(tag), tag);
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, repository TEXT NOT NULL, started_ms INTEGER NOT NULL) WITHOUT ROWID;
"""


class Manifest(NamedTuple):
    """A row: `kind` is the artifact type, `subject` the digest of what it refers to, or nothing."""

    digest: str
    media_type: str
    kind: str
    subject: str


class Index:
    """One connection, used under a lock from any thread. `writing` is a transaction that no other process interrupts."""

    def __init__(self, path: Path, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._database = Database(path, _SCHEMA, "an index", "move it away and push again what is to be found by name")
        self.writing = self._database.transaction
        weakref.finalize(self, self._database.close)

    def add_repository(self, db: sqlite3.Connection, name: str) -> None:
        """Makes a repository known. Raises OciRefused for one too many."""
        if db.execute("SELECT 1 FROM repositories WHERE name = ?", (name,)).fetchone():
            return
        (count,) = db.execute("SELECT count(*) FROM repositories").fetchone()
        if count >= self._limits.oci_repositories_max:
            raise refusal("TOOMANYREQUESTS", f"{name}: there are {count} repositories, and no more are made; remove what is not needed")
        db.execute("INSERT INTO repositories VALUES (?)", (name,))

    def add_manifest(self, db: sqlite3.Connection, repository: str, row: Manifest, parts: set[str], tag: str) -> None:
        """Writes down a manifest and what it is made of."""
        self.add_repository(db, repository)
        db.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?)", (repository, *row))
        db.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?, ?)", [(repository, row.digest, part) for part in parts])
        if tag:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (repository, tag, row.digest))

    def has_repository(self, name: str) -> bool:
        return bool(self._rows("SELECT 1 FROM repositories WHERE name = ?", name))

    def is_linked(self, repository: str, digest: str) -> bool:
        """Whether this blob belongs to this repository."""
        return bool(self._rows("SELECT 1 FROM links WHERE repository = ? AND digest = ?", repository, digest))

    def linked_in(self, digest: str) -> list[str]:
        """The repositories that have this blob."""
        return [name for (name,) in self._rows("SELECT repository FROM links WHERE digest = ? ORDER BY repository", digest)]

    def tagged(self, repository: str, tag: str) -> str:
        """The digest that a tag stands for, or nothing."""
        rows = self._rows("SELECT digest FROM tags WHERE repository = ? AND tag = ?", repository, tag)
        return str(rows[0][0]) if rows else ""

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        rows = self._rows("SELECT digest, media_type, kind, subject FROM manifests WHERE repository = ? AND digest = ?", repository, digest)
        return Manifest(*rows[0]) if rows else None

    def manifests(self, repository: str) -> list[Manifest]:
        rows = self._rows("SELECT digest, media_type, kind, subject FROM manifests WHERE repository = ? ORDER BY digest", repository)
        return [Manifest(*row) for row in rows]

    def made_of(self, digest: str) -> list[tuple[str, str]]:
        """The manifests with this blob among their parts: repository and digest."""
        return [
            (a, b) for a, b in self._rows("SELECT repository, manifest FROM parts WHERE digest = ? ORDER BY repository, manifest", digest)
        ]

    def anywhere(self, digest: str) -> Manifest | None:
        """A manifest by its digest, in whatever repository it is."""
        rows = self._rows("SELECT digest, media_type, kind, subject FROM manifests WHERE digest = ? LIMIT 1", digest)
        return Manifest(*rows[0]) if rows else None

    def referrers(self, repository: str, subject: str) -> list[Manifest]:
        """The manifests whose subject this is, in the order of their digests."""
        query = (
            "SELECT digest, media_type, kind, subject FROM manifests WHERE repository = ? AND subject = ? AND subject <> '' ORDER BY digest"
        )
        return [Manifest(*row) for row in self._rows(query, repository, subject)]

    def tags(self, repository: str, after: str, count: int) -> list[str]:
        """Tags in lexical order without regard to case, as "Listing Tags" demands, at most `count` of those after `after`."""
        query = "SELECT tag FROM tags WHERE repository = ? AND (lower(tag), tag) > (lower(?), ?) ORDER BY lower(tag), tag LIMIT ?"
        return [tag for (tag,) in self._rows(query, repository, after, after, count)]

    def tags_of(self, repository: str, digest: str) -> list[str]:
        """The tags that stand for a manifest."""
        return [tag for (tag,) in self._rows("SELECT tag FROM tags WHERE repository = ? AND digest = ? ORDER BY tag", repository, digest)]

    def repositories(self, after: str = "", count: int = -1) -> list[str]:
        """Names in order, at most `count` (all for -1) of those after `after`."""
        return [name for (name,) in self._rows("SELECT name FROM repositories WHERE name > ? ORDER BY name LIMIT ?", after, count)]

    def upload(self, identity: str) -> str:
        """The repository that an open upload is for, or nothing."""
        rows = self._rows("SELECT repository FROM uploads WHERE id = ?", identity)
        return str(rows[0][0]) if rows else ""

    def uploads(self, started_ms_max: int | None = None) -> list[str]:
        """The open uploads, or those that were started no later than this."""
        query, values = "SELECT id FROM uploads", []
        if started_ms_max is not None:
            query, values = f"{query} WHERE started_ms <= ?", [started_ms_max]
        return [identity for (identity,) in self._rows(query, *values)]

    def _rows(self, query: str, *values: object) -> list[tuple[str, ...]]:
        with self._database.reading() as db:
            return db.execute(query, values).fetchall()
