"""Whether the disk takes what a node writes, and keeps it over a power cut."""

from collections.abc import Iterator

from host.doctor.finding import Finding
from host.doctor.subject import Subject

CHECK = "disk"
# A bundle has at most 16 MiB, three versions of a skill are kept, and compiled code takes a multiple.
BYTES_FREE_MIN = 64 << 20
BYTES_FREE_LOW = 512 << 20
FILES_FREE_MIN = 1_000
SYNC_S_SLOW = 1.0
ROOM = "make room, or move the state directory"


def check(subject: Subject) -> Iterator[Finding]:
    try:
        disk = subject.probes.disk(subject.state)
        seconds = subject.probes.sync_s(subject.state)
    except OSError as error:
        yield Finding(
            CHECK,
            "fail",
            f"{subject.state} cannot be written: {error.strerror}",
            "see that the disk is mounted for writing, and who you are",
        )
        return
    yield _free(disk.bytes_free)
    if disk.files_free is not None and disk.files_free < FILES_FREE_MIN:
        yield Finding(CHECK, "fail", f"room for {disk.files_free} more files only (inodes)", "remove small files")
    if seconds > SYNC_S_SLOW:
        yield Finding(
            CHECK, "warn", f"a small write takes {seconds:.1f} s to reach the disk", "installs will be slow; replace a worn SD card"
        )
    else:
        yield Finding(CHECK, "ok", f"a small write reaches the disk in {seconds * 1000:.0f} ms")
    if disk.device.startswith("mmcblk"):
        yield Finding(
            CHECK, "ok", f"{disk.device} is an SD card or eMMC, whose wear cannot be measured; keep a copy of identity/ elsewhere"
        )


def _free(size: int) -> Finding:
    shown = f"{size / (1 << 30):.1f} GiB free" if size >= 1 << 30 else f"{size >> 20} MiB free"
    if size < BYTES_FREE_MIN:
        return Finding(CHECK, "fail", f"{shown}, at least {BYTES_FREE_MIN >> 20} MiB are needed", ROOM)
    if size < BYTES_FREE_LOW:
        return Finding(CHECK, "warn", f"{shown}, less than {BYTES_FREE_LOW >> 20} MiB", ROOM)
    return Finding(CHECK, "ok", shown)
