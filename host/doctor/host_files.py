"""Whether the host's files are those that were installed."""

from collections.abc import Iterator

from host.core.errors import HostAltered
from host.doctor.finding import Finding
from host.doctor.probes import Probes

CHECK = "host"


def check(probes: Probes) -> Iterator[Finding]:
    try:
        measured = probes.measure()
    except HostAltered as error:
        yield Finding(CHECK, "fail", str(error), "a node does not run with it")
        return
    if measured.sealed:
        yield Finding(CHECK, "ok", f"{measured.files} files are as they were installed, {measured.digest[:19]}")
    else:
        yield Finding(
            CHECK,
            "warn",
            f"{measured.files} files of a development tree, which no installation vouches for",
            "install snapcount to run a fleet",
        )
