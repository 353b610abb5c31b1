"""Files that are either the old ones or the new ones, whatever happens in between."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from host.core.errors import HostFault, StorageFull

TEMPORARY = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes beside `path`, syncs, renames into place and syncs the directory. Raises StorageFull or HostFault; then `path` is as it was."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, f"{path.name}: cannot be written to {path.parent}") from error
    finally:
        with suppress(OSError):  # it was renamed, never made, or the sweep takes it
            temporary.unlink()


def sync_directory(directory: Path) -> None:
    """Makes renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path, what: str, name: str = "") -> Iterator[None]:
    """One process at a time; waits for the others. The lock is on the directory, which is made, or on a file `name` in it. Raises StorageFull or HostFault."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        opened = (directory / name, os.O_RDWR | os.O_CREAT) if name else (directory, os.O_RDONLY | os.O_DIRECTORY)
        descriptor = os.open(*opened, 0o600)
    except OSError as error:
        raise storage_error(error, f"{directory}: cannot be used for {what}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> int:
    """Removes what a killed process left half-written; the number of files removed."""
    leftovers = [path for path in directory.rglob(f"{TEMPORARY}*") if path.is_file() or path.is_symlink()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def storage_error(error: OSError, what: str) -> HostFault:
    """StorageFull for a full disk or quota, HostFault for anything else."""
    kind = StorageFull if error.errno in FULL else HostFault
    return kind(f"{what}: {error.strerror}")
