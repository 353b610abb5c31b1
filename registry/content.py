"""What a registry keeps, as content: files named by their digests below one directory, and an index of what belongs to which repository.

`blobs/sha256/HEX` and `blobs/sha512/HEX` hold blobs and manifests alike, each verified before it is renamed in. `uploads/ID` holds what has come of an open
upload. `registry.db` is the index. A kill at any instant leaves at worst a file that nothing refers to; `collect` removes those.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from host.core import files, oci
from host.core.clock import Clock, SystemClock
from host.core.errors import OciRefused, StateDamaged, TooLarge, UntrustedInput
from host.core.limits import DEFAULT, Limits
from host.core.oci import Descriptor, Document
from host.core.text import safe
from registry.index import Index, Manifest
from registry.problem import refusal
from registry.uploads import Uploads

INDEX = "registry.db"


class Content:
    """The files and the index. Blocking: the routes call it in threads. `sweep=False` where a running registry has the same directory open."""

    def __init__(self, directory: Path, clock: Clock | None = None, limits: Limits = DEFAULT, *, sweep: bool = True) -> None:
        self._directory, self._limits = directory, limits
        self._clock = clock or SystemClock()
        try:
            for algorithm in ("sha256", "sha512"):
                (directory / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)
            (directory / "uploads").mkdir(exist_ok=True)
            if sweep:
                files.sweep(directory / "blobs")
        except OSError as error:
            raise files.storage_error(error, f"{directory}: cannot be used for bundles") from error
        self.index = Index(directory / INDEX, limits)
        self.uploads = Uploads(directory / "uploads", self.index, self._clock, limits)
        if sweep:
            self.uploads.sweep()

    # Blobs.

    def path(self, digest: str) -> Path:
        """Where the content with this digest is, or would be."""
        algorithm, _, name = digest.partition(":")
        return self._directory / "blobs" / algorithm / name

    def blob(self, repository: str, digest: str) -> Path:
        """A blob of this repository. Raises OciRefused where it has none with this digest."""
        if not self.index.is_linked(repository, digest) or not self.path(digest).is_file():
            raise refusal("BLOB_UNKNOWN", f"{repository}: has no blob {digest}")
        return self.path(digest)

    def put(self, repository: str, data: bytes) -> str:
        """Keeps a blob; its digest. One that is there already is made sound again, if it was altered."""
        digest = oci.digest_of(data)
        self._write(digest, data)
        self._link(repository, digest)
        return digest

    def finish(self, repository: str, identity: str, digest: str) -> None:
        """Makes an upload a blob. Raises OciRefused when its bytes have another digest; then the upload is gone.

        What is hashed is what is on the disk: an upload may have outlived a power cut.
        """
        file = self.uploads.file(repository, identity)
        try:
            self.keep(repository, file, digest)
        except OciRefused:
            self.uploads.forget(identity)
            raise
        self.uploads.forget(identity)

    def keep(self, repository: str, file: Path, digest: str) -> None:
        """Renames a file on this disk to its digest. Raises OciRefused when its bytes have another one."""
        found = digest_of_file(file, oci.algorithm_of(digest))
        if found != digest:
            raise refusal("DIGEST_INVALID", f"expected {digest}, the bytes have {found}; nothing was kept")
        target = self.path(digest)
        try:
            with file.open("rb+") as synced:
                os.fsync(synced.fileno())
            os.utime(file)  # young again, so that a collection between here and the link leaves it
            os.replace(file, target)
            files.sync_directory(target.parent)
        except OSError as error:
            raise files.storage_error(error, f"{digest[:19]}…: cannot be kept") from error
        self._link(repository, digest)

    def mount(self, repository: str, source: str, digest: str) -> bool:
        """Makes a blob of another repository one of this, without moving a byte; False where the other has none."""
        if not self.index.is_linked(source, digest) or not self.path(digest).is_file():
            return False
        self._link(repository, digest)
        return True

    def unlink(self, repository: str, digest: str) -> None:
        """Takes a blob out of a repository. Raises OciRefused where it is not in it. The file goes with the next collection."""
        with self.index.writing() as db:
            gone = db.execute("DELETE FROM links WHERE repository = ? AND digest = ?", (repository, digest)).rowcount
        if not gone:
            raise refusal("BLOB_UNKNOWN", f"{repository}: has no blob {digest}")

    # Manifests.

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> Manifest:
        """Keeps a manifest under a tag or its digest. Raises OciRefused where it does not fit what is here, and TooLarge."""
        what = f"{repository}:{reference[:80]}"
        if len(data) > self._limits.oci_manifest_bytes_max:
            raise TooLarge(f"{what}: a manifest has at most {self._limits.oci_manifest_bytes_max} bytes, this one has {len(data)}")
        try:
            document = oci.read_manifest(data, media_type, what)
        except UntrustedInput as error:
            raise refusal("MANIFEST_INVALID", str(error)) from error
        named = oci.is_digest(reference)
        digest = oci.digest_of(data, oci.algorithm_of(reference) if named else "sha256")
        if named and digest != reference:
            raise refusal("DIGEST_INVALID", f"{what}: the manifest's bytes have {digest}; nothing was kept")
        row = Manifest(digest, media_type, document.kind, document.subject.digest if document.subject else "")
        self._check_parts(repository, document, what)
        self._write(digest, data)
        parts = {part.digest for part in (*document.blobs, *(document.manifests or ())) if not part.urls}
        with self.index.writing() as db:
            self._touch(digest)
            for part in parts:
                self._touch(part)  # fails where a collection was faster
            self.index.add_manifest(db, repository, row, parts, "" if named else reference)
        return row

    def manifest(self, repository: str, reference: str) -> tuple[Manifest, bytes]:
        """A manifest by tag or digest, and its bytes. Raises OciRefused."""
        row = self._find(repository, reference)
        try:
            data = self.path(row.digest).read_bytes()
        except OSError as error:
            raise StateDamaged(f"{repository}@{row.digest}: cannot be read: {error.strerror}; push it again") from error
        if oci.digest_of(data, oci.algorithm_of(row.digest)) != row.digest:
            raise StateDamaged(f"{repository}@{row.digest}: its bytes in this registry were altered; push it again")
        return row, data

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Removes a tag, or a manifest with all its tags. Raises OciRefused where it is not here."""
        row = self._find(repository, reference)
        with self.index.writing() as db:
            if not oci.is_digest(reference):
                db.execute("DELETE FROM tags WHERE repository = ? AND tag = ?", (repository, reference))
                return
            for table, column in (("tags", "digest"), ("parts", "manifest"), ("manifests", "digest")):
                db.execute(f"DELETE FROM {table} WHERE repository = ? AND {column} = ?", (repository, row.digest))

    def referrers(self, repository: str, subject: str) -> list[Descriptor]:
        """What refers to a digest: by the manifests' own subjects, and by what older clients listed under the tag `sha256-HEX` ("Referrers Tag Schema")."""
        algorithm, _, name = subject.partition(":")
        listed = self.index.tagged(repository, f"{algorithm}-{name[:64]}")
        found = {row.digest: row for row in self.index.referrers(repository, subject)}
        if listed:
            document = self._document(repository, listed)
            rows = (self.index.manifest(repository, child.digest) for child in document.manifests or ())
            found |= {row.digest: row for row in rows if row is not None}
        return [self._descriptor(repository, row) for _, row in sorted(found.items())]

    def _descriptor(self, repository: str, row: Manifest) -> Descriptor:
        document = self._document(repository, row.digest)
        return Descriptor(
            media_type=row.media_type, digest=row.digest, size=self.path(row.digest).stat().st_size, artifact_type=row.kind or None,
            annotations=document.annotations,
        )  # fmt: skip

    def _document(self, repository: str, digest: str) -> Document:
        row, data = self.manifest(repository, digest)
        return oci.read_manifest(data, row.media_type, digest)

    def _find(self, repository: str, reference: str) -> Manifest:
        digest = reference if oci.is_digest(reference) else self.index.tagged(repository, reference)
        row = self.index.manifest(repository, digest) if digest else None
        if row is None:
            if not self.index.has_repository(repository):
                raise refusal("NAME_UNKNOWN", f"{repository}: no such repository")
            raise refusal("MANIFEST_UNKNOWN", f"{repository}: has no manifest {safe(reference, 160)}")
        return row

    def _check_parts(self, repository: str, document: Document, what: str) -> None:
        for part in document.blobs:
            if part.urls:
                continue  # "Pushing Manifests": what is fetched from elsewhere need not be here
            if not self.index.is_linked(repository, part.digest):
                raise refusal("MANIFEST_BLOB_UNKNOWN", f"{what}: refers to {part.digest}, which this repository does not have")
            self._check_size(part, what)
        for part in document.manifests or ():
            if self.index.manifest(repository, part.digest) is None:
                raise refusal("MANIFEST_BLOB_UNKNOWN", f"{what}: refers to manifest {part.digest}, which this repository does not have")
            self._check_size(part, what)

    def _check_size(self, part: Descriptor, what: str) -> None:
        try:
            size = self.path(part.digest).stat().st_size
        except OSError as error:
            raise refusal("MANIFEST_BLOB_UNKNOWN", f"{what}: refers to {part.digest}, which is gone; push it again") from error
        if size != part.size:
            raise refusal("SIZE_INVALID", f"{what}: says that {part.digest} has {part.size} bytes, it has {size}")

    # Files.

    def _write(self, digest: str, data: bytes) -> None:
        path = self.path(digest)
        if not path.exists() or digest_of_file(path, oci.algorithm_of(digest)) != digest:
            files.write_atomic(path, data)

    def _link(self, repository: str, digest: str) -> None:
        with self.index.writing() as db:
            self._touch(digest)
            self.index.add_repository(db, repository)
            db.execute("INSERT OR IGNORE INTO links VALUES (?, ?)", (repository, digest))

    def _touch(self, digest: str) -> None:
        """Marks a file as wanted now. Within a transaction, so that a collection either sees it or was before it."""
        try:
            os.utime(self.path(digest))
        except OSError as error:
            raise refusal("BLOB_UNKNOWN", f"{digest} was removed at the same moment; push it again") from error

    def collect(self, roots: Collection[str], grace_s: int) -> tuple[int, int]:
        """Removes the files that no manifest and none of `roots` refers to, once they are older than `grace_s`; how many, and their bytes."""
        self.uploads.expire()
        youngest, files_gone, bytes_gone = self._clock.now_ms() / 1000 - grace_s, 0, 0
        for path in [*(self._directory / "blobs").glob("*/*")]:
            digest = f"{path.parent.name}:{path.name}"
            if not oci.is_digest(digest) or digest in roots:
                continue
            with suppress(FileNotFoundError), self.index.writing() as db:
                status = path.stat()
                used = db.execute(
                    "SELECT 1 FROM parts WHERE digest = ?1 UNION SELECT 1 FROM manifests WHERE digest = ?1", (digest,)
                ).fetchone()
                if used or status.st_mtime > youngest:
                    continue
                db.execute("DELETE FROM links WHERE digest = ?", (digest,))
                path.unlink()
                files_gone, bytes_gone = files_gone + 1, bytes_gone + status.st_size
        with self.index.writing() as db:
            used_by = " UNION ".join(f"SELECT repository FROM {table}" for table in ("links", "manifests", "uploads"))
            db.execute(f"DELETE FROM repositories WHERE name NOT IN ({used_by})")
        return files_gone, bytes_gone


def digest_of_file(path: Path, algorithm: str) -> str:
    """The digest of a file's bytes, read in pieces."""
    try:
        with path.open("rb") as file:
            return oci.digest_of_stream(file, algorithm)
    except OSError as error:
        raise files.storage_error(error, f"{path.name}: cannot be read") from error


def as_index(descriptors: list[Descriptor]) -> bytes:
    """An image index of these manifests."""
    return msgspec.json.encode(Document(schema_version=2, media_type=oci.INDEX, manifests=tuple(descriptors)))
