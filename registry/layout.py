"""A registry on a stick: an OCI image layout directory (OCI Image Specification 1.1, "Image Layout"), with TUF metadata beside it.

    DIR/oci-layout   DIR/index.json   DIR/blobs/sha256/HEX   DIR/trust/metadata/…   DIR/trust/targets/…

Nothing of a stick is believed. Import opens no symbolic link, takes no path from a file, and checks every digest and size before anything is kept.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import msgspec

from host.core import files, oci
from host.core.errors import DigestMismatch, MalformedData, TooLarge, UntrustedInput, UsageError
from host.core.limits import DEFAULT
from host.core.oci import Descriptor, Document, Local
from host.core.text import safe
from registry.content import Content, as_index, digest_of_file

MARKER = b'{"imageLayoutVersion":"1.0.0"}'
TRUST = ("metadata", "targets")


@dataclass(frozen=True)
class _Entry:
    """One manifest of a layout, read and checked: where it belongs, its bytes, and the blobs that it is made of."""

    local: Local
    digest: str
    media_type: str
    data: bytes
    document: Document


def export(content: Content, registry: Path, target: Path) -> tuple[int, int]:
    """Writes every manifest and blob of the registry's folder, and its trust directory; how many manifests and trust files. Raises UsageError where files are."""
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target}: expected an empty or new folder")
    entries: list[Descriptor] = []
    for repository in content.index.repositories():
        for row in content.index.manifests(repository):
            _, data = content.manifest(repository, row.digest)
            document = oci.read_manifest(data, row.media_type, f"{repository}@{row.digest}")
            for part in (*document.blobs, Descriptor(media_type=row.media_type, digest=row.digest, size=len(data))):
                if not part.urls:
                    _copy_out(content, part.digest, target)
            names = content.index.tags_of(repository, row.digest) or [""]
            entries += [
                Descriptor(
                    media_type=row.media_type, digest=row.digest, size=len(data),
                    annotations={oci.REF_NAME: str(Local(repository, tag, "" if tag else row.digest))},
                )
                for tag in names
            ]  # fmt: skip
    trusted = _trust_files(registry)
    for path, name in trusted:
        files.write_atomic(target / name, path.read_bytes())
    files.write_atomic(target / "index.json", as_index(entries))
    files.write_atomic(target / "oci-layout", MARKER)  # last: without it, it is none
    return len(entries), len(trusted)


def load(content: Content, registry: Path, source: Path) -> tuple[int, int]:
    """Takes a layout into the registry's folder; how many manifests and trust files. Raises UntrustedInput, and then nothing was kept."""
    stick = _Stick(source)
    if stick.read("oci-layout", 4096).replace(b" ", b"").strip() != MARKER:
        raise MalformedData(f"{source}/oci-layout: expected an OCI image layout of version 1.0.0")
    entries = [*_entries(stick)]
    for entry in entries:
        for part in entry.document.blobs:
            if not part.urls:
                stick.check(part)
    trusted = [name for _, name in _trust_files(source)]
    for name in trusted:
        stick.size(str(name), DEFAULT.bundle_bytes_max)
    for entry in _children_first(entries):
        _keep(content, stick, entry)
    for name in trusted:
        files.write_atomic(registry / name, stick.read(str(name), DEFAULT.bundle_bytes_max))
    return len(entries), len(trusted)


def _copy_out(content: Content, digest: str, target: Path) -> None:
    path = target / "blobs" / digest.replace(":", "/", 1)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
    try:
        shutil.copyfile(content.path(digest), temporary)
        if digest_of_file(temporary, oci.algorithm_of(digest)) != digest:
            raise DigestMismatch(f"{digest}: its bytes in this registry were altered; push it again")
        os.replace(temporary, path)
    except OSError as error:
        raise files.storage_error(error, f"{digest[:19]}…: cannot be copied to {target}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _trust_files(root: Path) -> list[tuple[Path, Path]]:
    """The files of `trust/metadata` and `trust/targets`, and their names below the root. Raises UsageError for anything but plain files and folders.

    The timestamp comes last: whoever reads along sees the old state or the new one whole.
    """
    found: list[tuple[Path, Path]] = []
    for part in TRUST:
        for folder, folders, names in os.walk(root / "trust" / part, followlinks=False):
            for name in (*folders, *names):
                path = Path(folder) / name
                mode = path.lstat().st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    raise UntrustedInput(f"{safe(str(path))}: expected plain files and folders only")
                if stat.S_ISREG(mode) and not name.startswith(files.TEMPORARY):
                    found.append((path, path.relative_to(root)))
            if len(found) > DEFAULT.layout_files_max:
                raise TooLarge(f"{safe(str(root))}: more than {DEFAULT.layout_files_max} trust files")
    return sorted(found, key=lambda pair: (pair[1].name == "timestamp.json", pair[1]))


def _entries(stick: "_Stick") -> Iterator[_Entry]:
    what = f"{stick.root}/index.json"
    raw = stick.read("index.json", DEFAULT.oci_manifest_bytes_max)
    try:
        listed = msgspec.json.decode(raw, type=Document).manifests or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedData(f"{what}: not an image index: {safe(str(error))}") from error
    seen: dict[str, tuple[bytes, Document]] = {}
    total = 0
    for found in listed:
        name = (found.annotations or {}).get(oci.REF_NAME, "")
        try:
            local = oci.parse_local(name)
        except UsageError as error:
            raise MalformedData(f"{what}: {error}, as the annotation {oci.REF_NAME}") from error
        if found.size > DEFAULT.oci_manifest_bytes_max:
            raise TooLarge(f"{what}: {local} has {found.size} bytes, a manifest has at most {DEFAULT.oci_manifest_bytes_max}")
        if (known := seen.get(found.digest)) is None:  # a manifest may be listed once for each of its tags
            data = stick.read(stick.name(found.digest), found.size)
            oci.check_digest(data, found.digest, str(local))
            known = seen[found.digest] = data, oci.read_manifest(data, found.media_type, str(local))
            if (total := total + len(data)) > DEFAULT.layout_manifests_bytes_max:
                raise TooLarge(f"{what}: its manifests have more than {DEFAULT.layout_manifests_bytes_max} bytes")
        if len(known[0]) != found.size or known[1].media_type not in ("", found.media_type):
            raise MalformedData(f"{what}: says of {local} what is not so")
        yield _Entry(local, found.digest, found.media_type, *known)


def _children_first(entries: list[_Entry]) -> Iterator[_Entry]:
    """A manifest before the indexes that list it: a registry takes no index of what it does not have."""
    waiting = entries
    while waiting:
        missing = {(entry.local.repository, entry.digest) for entry in waiting}
        ready = [e for e in waiting if all((e.local.repository, child.digest) not in missing for child in e.document.manifests or ())]
        if not ready:
            raise MalformedData(f"{waiting[0].local}: an index that lists itself")
        yield from ready
        waiting = [entry for entry in waiting if entry not in ready]


def _keep(content: Content, stick: "_Stick", entry: _Entry) -> None:
    repository = entry.local.repository
    for part in entry.document.blobs:
        if part.urls or _held(content, repository, part.digest):
            continue
        identity = content.uploads.begin(repository)
        try:
            with stick.open(stick.name(part.digest)) as source, content.uploads.file(repository, identity).open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            content.finish(repository, identity, part.digest)  # hashed once more: a stick may say two things
        finally:
            content.uploads.forget(identity)
    content.put_manifest(repository, entry.local.tag or entry.digest, entry.media_type, entry.data)


def _held(content: Content, repository: str, digest: str) -> bool:
    """Whether the registry has it already, in this repository or one to mount it from."""
    return any(content.mount(repository, source, digest) for source in content.index.linked_in(digest))


class _Stick:
    """Files below a folder, opened without following a symbolic link anywhere below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: set[Descriptor] = set()
        if not root.is_dir():
            raise UsageError(f"{root}: is no folder")

    def name(self, digest: str) -> str:
        """Where a digest is. It was checked to be one, so it is no path elsewhere."""
        return f"blobs/{digest.replace(':', '/', 1)}"

    def open(self, name: str) -> BufferedReader:
        """Raises UntrustedInput for what is missing, or no plain file reached through plain folders."""
        path = self.root
        try:
            for part in Path(name).parts[:-1]:
                path = path / part
                if not stat.S_ISDIR(path.lstat().st_mode):
                    raise UntrustedInput(f"{self.root}/{safe(name)}: expected plain folders, {safe(path.name)} is none")
            # O_NONBLOCK: a pipe with this name would otherwise be waited for.
            descriptor = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise UntrustedInput(f"{self.root}/{safe(name)}: cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UntrustedInput(f"{self.root}/{safe(name)}: expected a plain file")
        return os.fdopen(descriptor, "rb")

    def read(self, name: str, bytes_max: int) -> bytes:
        """A file's bytes. Raises TooLarge, UntrustedInput."""
        with self.open(name) as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise TooLarge(f"{self.root}/{safe(name)}: expected at most {bytes_max} bytes")
        return data

    def size(self, name: str, bytes_max: int) -> int:
        """A file's size. Raises TooLarge, UntrustedInput."""
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
        if size > bytes_max:
            raise TooLarge(f"{self.root}/{safe(name)}: expected at most {bytes_max} bytes, found {size}")
        return size

    def check(self, part: Descriptor) -> None:
        """Raises unless the file of this digest has the size and the bytes that it should."""
        part = Descriptor(media_type="", digest=part.digest, size=part.size)
        if part in self._checked:
            return
        self._checked.add(part)
        name = self.name(part.digest)
        if part.size > DEFAULT.oci_blob_bytes_max:
            raise TooLarge(
                f"{self.root}/{name}: a blob has at most {DEFAULT.oci_blob_bytes_max} bytes, this one is said to have {part.size}"
            )
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != part.size:
                raise DigestMismatch(f"{self.root}/{name}: expected {part.size} bytes, found {size}")
            found = oci.digest_of_stream(file, oci.algorithm_of(part.digest))
        if found != part.digest:
            raise DigestMismatch(f"{self.root}/{name}: expected {part.digest}, the bytes have {found}")
