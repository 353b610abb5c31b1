"""All checks, in the order in which one would look."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from host.core.errors import SnapcountError
from host.doctor import clock, disk, host_files, limits, machine, network, permissions, subject, toolchain, trust
from host.doctor.finding import Finding
from host.doctor.probes import Probes
from host.doctor.subject import Subject

Check = Callable[[Subject], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (clock.check, disk.check, permissions.check, limits.check, trust.check, toolchain.check, machine.check)
NETWORK_CHECKS: tuple[Check, ...] = (network.check,)


def examine(state: Path, probes: Probes, *, offline: bool = False, deep: bool = False) -> Iterator[Finding]:
    """Everything that is found, as it is found. `offline` asks nobody but this machine; `deep` asks the controller of a machine too, while no node runs."""
    try:
        found: Subject | SnapcountError = subject.load(state, probes, offline=offline, deep=deep)
    except SnapcountError as error:
        found = error
    yield from host_files.check(probes)
    yield from subject.check(state, found)
    if isinstance(found, Subject):
        for check in (*CHECKS, *(() if offline else NETWORK_CHECKS)):
            yield from check(found)
