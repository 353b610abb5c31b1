"""Skills on a node's disk: blobs by digest, and for each skill its kept versions and one atomic pointer to the active one.

`blobs/sha256/HEX` is verified before it is renamed in. `skills/NAME/HEX` is a small record of an installed version, `skills/NAME/active` a symbolic link to
one of them, replaced by rename: a kill at any instant leaves the old skill or the new one.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from host.core import files
from host.core.errors import DigestMismatch, StateDamaged
from host.core.fleet import Digest, Version
from host.core.manifest import Name
from host.core.text import safe

ACTIVE = "active"
HELD, RETURNED = "held-back.json", "returned.json"
"""Bundles that the owner went back from, and those that probation did."""
HELD_MAX = 16


class Installed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One installed version. `order` grows with each install of the skill, so that the newest before this one is the one to go back to."""

    name: Name
    version: Version
    digest: Digest
    order: int


class SkillStore:
    """The blobs and pointers below one state directory."""

    def __init__(self, state: Path) -> None:
        self._blobs = state / "blobs" / "sha256"
        self._skills = state / "skills"
        self._compiled = state / "compiled"
        for directory in (self._blobs, self._skills):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise files.storage_error(error, f"{directory}: cannot be made") from error

    def put(self, data: bytes, digest: str) -> bool:
        """Keeps a blob; False when it was there already, sound. Raises DigestMismatch, StorageFull."""
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise DigestMismatch(f"expected {digest}, the bytes have {found}; nothing was kept")
        path = self._blob(digest)
        if path.exists():
            try:
                self.get(digest)
                return False
            except StateDamaged:  # pushing a skill again mends its blob
                pass
        files.write_atomic(path, data)
        return True

    def get(self, digest: str) -> bytes:
        """The blob's bytes, verified. Raises StateDamaged when it is missing or was altered."""
        path = self._blob(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateDamaged(f"blob {path.name[:16]}…: cannot be read: {error.strerror}") from error
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise StateDamaged(f"blob {path.name[:16]}…: its bytes are not those it is named for; remove {path} and push the skill again")
        return data

    def discard(self, digest: str) -> None:
        """Removes a blob that nothing refers to."""
        _unlink(self._blob(digest))

    def names(self) -> list[str]:
        """The skills that have an active version."""
        return sorted(path.name for path in self._skills.iterdir() if os.path.lexists(path / ACTIVE))

    def active(self, name: str) -> Installed | None:
        """The record that the pointer names. Raises StateDamaged when it cannot be read."""
        pointer = self._skills / name / ACTIVE
        if not os.path.lexists(pointer):
            return None
        if not pointer.is_symlink():
            raise StateDamaged(f"skills/{name}/{ACTIVE}: expected a symbolic link to a version; push the skill again")
        return self._record(name, os.readlink(pointer))

    def versions(self, name: str) -> list[Installed]:
        """The kept versions, newest first; a damaged record is left out."""
        found = []
        for path in (self._skills / name).glob("[0-9a-f]*"):
            if len(path.name) == 64:
                try:
                    found.append(self._record(name, path.name))
                except StateDamaged:
                    continue
        return sorted(found, key=lambda record: -record.order)

    def record(self, name: str, version: str, digest: str) -> Installed:
        """Writes down that a version is installed; it is not active yet."""
        kept = self.versions(name)
        order = 1 + max((entry.order for entry in kept), default=0)
        installed = Installed(name, version, digest, order)
        files.write_atomic(self._skills / name / digest.removeprefix("sha256:"), msgspec.json.encode(installed))
        return installed

    def activate(self, installed: Installed) -> None:
        """Moves the pointer, atomically."""
        directory = self._skills / installed.name
        temporary = directory / f"{files.TEMPORARY}{secrets.token_hex(8)}"
        try:
            os.symlink(installed.digest.removeprefix("sha256:"), temporary)
            os.replace(temporary, directory / ACTIVE)
            files.sync_directory(directory)
        except OSError as error:
            raise files.storage_error(error, f"{installed.name}: the active version cannot be changed") from error
        finally:
            with suppress(OSError):  # it was renamed, never made, or the sweep takes it
                temporary.unlink()

    def folder(self, name: str) -> Path:
        """Where what is kept of one skill stands."""
        return self._skills / name

    def prune(self, name: str, keep: int, spare: str = "") -> list[str]:
        """Forgets the oldest versions beyond `keep`, never the active one or the digest `spare`; the digests that nothing refers to any more."""
        active = self.active(name)
        spared = {spare, "" if active is None else active.digest}
        gone = [entry for entry in self.versions(name)[keep:] if entry.digest not in spared]
        for entry in gone:
            self.forget(entry)
            self.discard(entry.digest)
        return [entry.digest for entry in gone]

    def remove(self, name: str) -> list[str]:
        """Forgets a skill: the pointer first, then its versions; the digests that nothing refers to any more."""
        kept = self.versions(name)
        _unlink(self._skills / name / ACTIVE)
        files.sync_directory(self._skills / name)
        for entry in kept:
            self.forget(entry)
            self.discard(entry.digest)
        return [entry.digest for entry in kept]

    def hold_back(self, name: str, digest: str, file: str = HELD) -> None:
        """Writes down that the owner (`RETURNED`: probation) went back from a bundle with this content digest, so that no push brings it again.

        The last `HELD_MAX` are kept. It is the digest of what was signed: another signature behind it makes no other bundle.
        """
        held = [*(entry for entry in self.held_back(name, file) if entry != digest), digest]
        files.write_atomic(self._skills / name / file, msgspec.json.encode(held[-HELD_MAX:]))

    def held_back(self, name: str, file: str = HELD) -> list[str]:
        """The bundles that the owner (`RETURNED`: probation) went back from. Raises StateDamaged."""
        try:
            return msgspec.json.decode((self._skills / name / file).read_bytes(), type=list[Digest])
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateDamaged(f"skills/{name}/{file}: not a list of digests; remove it, and decide on roll-backs again") from error

    def orphans(self) -> list[str]:
        """Digests of blobs and of compiled code that no kept version refers to: what a kill left, of an install or a trial."""
        names = {path.name for path in self._blobs.iterdir()} | {path.name.partition("-")[0] for path in self._compiled.glob("[0-9a-f]*-*")}
        return [digest for name in sorted(names) if not self.referenced(digest := f"sha256:{name}")]

    def referenced(self, digest: str) -> bool:
        """Whether any kept version of any skill has this digest."""
        return any((path / digest.removeprefix("sha256:")).exists() for path in self._skills.iterdir())

    def forget(self, installed: Installed) -> None:
        """Removes the record of a version that is not active."""
        _unlink(self._skills / installed.name / installed.digest.removeprefix("sha256:"))

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _record(self, name: str, target: str) -> Installed:
        what = f"skills/{name}/{safe(target[:16])}…: not a record of an installed skill; push the skill again"
        try:
            found = msgspec.json.decode((self._skills / name / target).read_bytes(), type=Installed)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateDamaged(what) from error
        if (found.name, found.digest) != (name, f"sha256:{target}"):
            raise StateDamaged(what)
        return found


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise files.storage_error(error, f"{path.parent.name}/{path.name[:16]}: cannot be removed") from error
