"""Whether the machine of the driver `grbl` can be reached. Nothing is opened that could reset a controller in motion, unless `deep` says so."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from host.core.errors import MachineError, UsageError
from host.doctor.finding import Finding
from host.doctor.probes import Device, Holder
from host.doctor.subject import Subject
from host.plugins.drivers.grbl.settings import GrblSettings, read_settings

CHECK = "machine"
DRIVER = "grbl"
SOCKET = "socket://"
SEEN = "see that it is plugged in and switched on; `dmesg` names the device, docs/grbl.md gives it a name that stays"


def check(subject: Subject) -> Iterator[Finding]:
    """Nothing for a node without that driver."""
    if DRIVER not in subject.settings.plugins.native:
        return
    try:
        settings = read_settings(subject.settings.drivers.get(DRIVER, {}))
        subject.probes.require_serial()
    except UsageError as error:
        yield Finding(CHECK, "fail", f"the driver {DRIVER} cannot be used: {error}", "correct it; docs/grbl.md tells how to wire a machine")
        return
    remote = settings.port.startswith(SOCKET)
    problems = list(_socket(subject, settings) if remote else _device(subject, Path(settings.port)))
    if problems:
        yield from problems
    elif subject.deep and subject.running is None:
        yield from _greeting(subject, settings)
    elif remote and subject.running is None and subject.offline:
        yield Finding(CHECK, "ok", f"{settings.port} was not asked")
    else:
        held = "the running node holds it" if subject.running else "takes connections" if remote else "is there, free, and may be used"
        yield Finding(CHECK, "ok", f"{settings.port}: {held}")


def _device(subject: Subject, path: Path) -> Iterator[Finding]:
    probes = subject.probes
    uid, pid = (subject.running.uid, subject.running.pid) if subject.running else (probes.owner(subject.state), None)
    try:
        device = probes.device(path)
        usable = probes.may_use(path, uid, pid)
    except OSError as error:
        yield Finding(CHECK, "fail", f"{path}: {error.strerror}", SEEN)
        return
    if not device.is_character:
        yield Finding(CHECK, "fail", f"{path} is no serial device", "name the device in drivers.grbl.port of node.toml")
        return
    if not usable:
        user = probes.user(uid)
        yield Finding(
            CHECK, "fail", f"{user} may not use {path}, which is of the group {device.group}, mode {device.mode:04o}", _permit(device, user)
        )
    yield from _held(subject, path, probes.holders(path))


def _permit(device: Device, user: str) -> str:
    if device.mode & 0o060 != 0o060 or device.group == "root":
        return 'give it to the group dialout by a udev rule: GROUP="dialout", MODE="0660"'
    return f"sudo usermod -aG {device.group} {user}, and start the node anew; a hardened unit needs SupplementaryGroups={device.group}"


def _held(subject: Subject, path: Path, holders: tuple[Holder, ...]) -> Iterator[Finding]:
    own = subject.running.pid if subject.running else None
    for holder in holders:
        if holder.pid != own:
            do = "two senders on one machine is one too many: stop it"
            if holder.name.startswith("ModemManager"):
                do = 'keep it away by ENV{ID_MM_DEVICE_IGNORE}="1" in the udev rule of docs/grbl.md'
            yield Finding(CHECK, "fail", f"{path} is held by {holder.name}, pid {holder.pid}", do)
    if own is not None and not any(holder.pid == own for holder in holders):
        yield Finding(CHECK, "warn", f"the running node does not hold {path}", "`snapcount machine status` says why")


def _socket(subject: Subject, settings: GrblSettings) -> Iterator[Finding]:
    if subject.running is not None or subject.offline:
        return  # most servers of a serial line take one client, which is the node
    parts = urlsplit(settings.port)
    try:
        subject.probes.connect(parts.hostname or "", parts.port or 0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        yield Finding(
            CHECK, "fail", f"{settings.port} cannot be reached: {reason}", "see that its server runs, and that nobody else is connected"
        )


def _greeting(subject: Subject, settings: GrblSettings) -> Iterator[Finding]:
    """Asks the controller who it is, as the driver does when the node starts."""
    try:
        yield Finding(CHECK, "ok", f"{settings.port}: {subject.probes.controller(settings)}")
    except MachineError as error:
        yield Finding(
            CHECK, "fail", f"{settings.port}: {error}", "see docs/grbl.md; `snapcount machine status` tells more once the node runs"
        )
