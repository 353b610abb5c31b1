"""Whether skills can be compiled and called here, and how fast."""

import subprocess
from collections.abc import Iterator

from host.core.errors import SnapcountError
from host.doctor.finding import Finding
from host.doctor.subject import Subject

CHECK = "toolchain"
EXECUTABLE = "see that this is a 64-bit system, that memory may be made executable (MemoryDenyWriteExecute=no), and that the disk has room"


def check(subject: Subject) -> Iterator[Finding]:
    probes = subject.probes
    try:
        probes.compile(subject.state)
    except (SnapcountError, OSError, subprocess.TimeoutExpired) as error:
        yield Finding(CHECK, "fail", f"a skill cannot be compiled and called: {error}", EXECUTABLE)
    else:
        yield Finding(CHECK, "ok", "a small skill was compiled and called")
    slow = probes.slow_path()
    if slow:
        yield Finding(CHECK, "warn", f"calls go the slow way: {slow}", "install the versions that this release pins")
    else:
        yield Finding(CHECK, "ok", "calls go the fast way")
    uncompiled = probes.uncompiled()
    if uncompiled:
        yield Finding(
            CHECK,
            "warn",
            f"not compiled: {', '.join(uncompiled)}; their slower references work instead",
            "reinstall snapcount from a wheel",
        )
    else:
        yield Finding(CHECK, "ok", "the host's extensions are compiled")
    tools = probes.tools()
    here = ", ".join(f"{name} {version}" for name, version in tools.items()) or "none"
    yield Finding(CHECK, "ok", f"compilers to write skills with: {here}; a node needs none")
