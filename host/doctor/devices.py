"""What the kernel says of a device without opening it: an opening raises DTR, which resets many a controller."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from host.core.text import safe
from host.doctor.probes import Device, Holder

ROOT = 0
PROCESSES = Path("/proc")


def device(path: Path) -> Device:
    """Raises OSError for a path that leads nowhere."""
    found = path.stat()
    return Device(path.resolve(), stat.S_ISCHR(found.st_mode), _group_name(found.st_gid), stat.S_IMODE(found.st_mode))


def may_use(path: Path, uid: int, pid: int | None) -> bool:
    """Whether a user may read and write it; with `pid`, whether that process may, which has the groups it was started with."""
    if uid == os.geteuid() and pid in (None, os.getpid()):
        return os.access(path, os.R_OK | os.W_OK, effective_ids=True)  # which knows of access lists too
    found = path.stat()
    if uid == ROOT:
        return True
    if found.st_uid == uid:
        return found.st_mode & 0o600 == 0o600
    if found.st_gid in (_groups_of_user(uid) if pid is None else _groups_of_process(pid)):
        return found.st_mode & 0o060 == 0o060
    return found.st_mode & 0o006 == 0o006


def holders(path: Path) -> tuple[Holder, ...]:
    """The processes that have it open, as far as this user may see: those of others only root does."""
    target = str(path.resolve())
    found = []
    for process in PROCESSES.iterdir():
        if process.name.isdecimal() and target in _open_files(process):
            with suppress(OSError):  # it has just ended
                found.append(Holder(int(process.name), safe((process / "comm").read_text().strip(), 64)))
    return tuple(sorted(found, key=lambda holder: holder.pid))


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group {gid}"


def _groups_of_user(uid: int) -> set[int]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return set()
    return set(os.getgrouplist(user.pw_name, user.pw_gid))


def _groups_of_process(pid: int) -> set[int]:
    """Real, effective, saved and supplementary ones (proc(5)). Raises OSError."""
    lines = (PROCESSES / str(pid) / "status").read_text().splitlines()
    return {int(gid) for line in lines if line.startswith(("Gid:", "Groups:")) for gid in line.split()[1:]}
