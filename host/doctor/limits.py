"""Whether the system lets a node have what it needs."""

from collections.abc import Iterator

from host.doctor.finding import Finding
from host.doctor.probes import Bounds
from host.doctor.subject import Subject
from host.meshlink import FILES_BESIDES

CHECK = "limits"
# A node of one skill takes 75 MiB; compiling a large skill takes some hundred more.
MEMORY_BYTES_MIN = 192 << 20
MEMORY_BYTES_LOW = 448 << 20
TASKS_MIN = 64
CONTROLLER = "on a Raspberry Pi add cgroup_enable=memory to /boot/firmware/cmdline.txt and reboot"


def check(subject: Subject) -> Iterator[Finding]:
    try:
        bounds = subject.probes.bounds(subject.running.pid if subject.running else None)
    except OSError as error:
        yield Finding(CHECK, "fail", f"the limits of the node cannot be read: {error.strerror}", "run this as the node's user or as root")
        return
    whose = "of the running node" if subject.running else "of this session; a unit may set others"
    problems = [*_files(subject, bounds), *_memory(bounds), *_tasks(bounds)]
    yield from problems
    if not problems:
        yield Finding(CHECK, "ok", f"{bounds.open_files} open files, {bounds.memory_bytes >> 20} MiB of memory ({whose})")


def _files(subject: Subject, bounds: Bounds) -> Iterator[Finding]:
    needed = (2 * subject.settings.mesh.children_max if subject.is_tier else 0) + FILES_BESIDES
    if bounds.open_files < needed:
        yield Finding(
            CHECK, "fail", f"{bounds.open_files} open files, {needed} are needed", f"ulimit -Hn {needed}, or LimitNOFILE= of the unit"
        )


def _memory(bounds: Bounds) -> Iterator[Finding]:
    if bounds.address_bytes is not None:
        # The sandbox reserves some 130 GiB of addresses, and uses what its skills use.
        yield Finding(
            CHECK, "fail", f"addresses are limited to {bounds.address_bytes >> 20} MiB", "ulimit -v unlimited, or no LimitAS= in the unit"
        )
    shown = f"{bounds.memory_bytes >> 20} MiB of memory"
    if bounds.memory_bytes < MEMORY_BYTES_MIN:
        yield Finding(
            CHECK,
            "fail",
            f"{shown}, at least {MEMORY_BYTES_MIN >> 20} MiB are needed",
            "raise MemoryMax= of the unit, or take a larger machine",
        )
    elif bounds.memory_bytes < MEMORY_BYTES_LOW:
        yield Finding(CHECK, "warn", shown, f"large skills may not compile with less than {MEMORY_BYTES_LOW >> 20} MiB")
    if bounds.memory_controlled is False:
        yield Finding(CHECK, "warn", "this kernel limits the memory of no service, so MemoryMax= of the unit has no effect", CONTROLLER)


def _tasks(bounds: Bounds) -> Iterator[Finding]:
    if bounds.tasks is not None and bounds.tasks < TASKS_MIN:
        yield Finding(CHECK, "fail", f"{bounds.tasks} tasks, at least {TASKS_MIN} are needed", "raise TasksMax= of the unit, or ulimit -u")
