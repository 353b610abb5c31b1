"""What a check may ask the machine. A test answers in its place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from host.core.attestation import Measurement
from host.plugins.drivers.grbl.settings import GrblSettings


@dataclass(frozen=True)
class HttpAnswer:
    """`date_s` is the server's clock by its Date header (RFC 9110, section 6.6.1) in Unix seconds, None without one; `asked_s` is ours at that time."""

    status: int
    date_s: float | None
    asked_s: float


@dataclass(frozen=True)
class Disk:
    """The file system of a path. `files_free` is None where it does not count files; `device` is the name of its block device, empty if it has none."""

    bytes_free: int
    files_free: int | None
    device: str


@dataclass(frozen=True)
class Bounds:
    """What bounds a process. None is no bound; `memory_controlled` is None where that cannot be known."""

    open_files: int
    address_bytes: int | None
    memory_bytes: int
    tasks: int | None
    memory_controlled: bool | None


@dataclass(frozen=True)
class Running:
    """The node that runs in the state directory."""

    pid: int
    uid: int


@dataclass(frozen=True)
class Device:
    """What a path to a device leads to. `mode` has its permission bits."""

    target: Path
    is_character: bool
    group: str
    mode: int


@dataclass(frozen=True)
class Holder:
    """A process that has a device open."""

    pid: int
    name: str


class Probes(Protocol):
    """Answers at once or after a few seconds, and leaves everything as it was."""

    def now_s(self) -> float:
        """Unix time."""
        ...

    def built_s(self) -> float:
        """When this host's files were made, in Unix seconds: no right clock is earlier."""
        ...

    def clock_synchronised(self) -> bool | None:
        """Whether something keeps the kernel's clock right; None where the kernel does not say."""
        ...

    def running(self, state: Path) -> Running | None:
        """The node that answers at the control socket."""
        ...

    def uid(self) -> int:
        """Who is asking."""
        ...

    def owner(self, path: Path) -> int:
        """Raises OSError."""
        ...

    def user(self, uid: int) -> str:
        """The name of a user."""
        ...

    def disk(self, path: Path) -> Disk:
        """Raises OSError."""
        ...

    def sync_s(self, directory: Path) -> float:
        """How long writing and syncing a small file in `directory` takes. Raises OSError."""
        ...

    def bounds(self, pid: int | None) -> Bounds:
        """Those of a process, or of this one. Raises OSError."""
        ...

    def http(self, url: str) -> HttpAnswer:
        """Any answer to a GET. Raises NetworkError."""
        ...

    def connect(self, host: str, port: int) -> None:
        """Raises OSError where nothing takes a TCP connection."""
        ...

    def listen(self, host: str, port: int) -> None:
        """Raises OSError where a TCP port cannot be listened on."""
        ...

    def require_serial(self) -> None:
        """Raises UsageError where nothing is installed that speaks to a serial line."""
        ...

    def device(self, path: Path) -> Device:
        """Opens nothing. Raises OSError."""
        ...

    def may_use(self, path: Path, uid: int, pid: int | None) -> bool:
        """Whether a user, or the process of one, may read and write a device. Raises OSError."""
        ...

    def holders(self, path: Path) -> tuple[Holder, ...]:
        """The processes that have a device open, as far as the asking user may see."""
        ...

    def controller(self, settings: GrblSettings) -> str:
        """What a machine's controller says of itself; opens its port. Raises MachineError where none answers within a few seconds."""
        ...

    def measure(self) -> Measurement:
        """Raises HostAltered."""
        ...

    def slow_path(self) -> str | None:
        """Why the fast call path cannot be used; None when it can."""
        ...

    def uncompiled(self) -> tuple[str, ...]:
        """Those of the host's extensions that are not compiled."""
        ...

    def compile(self, directory: Path) -> None:
        """Compiles a module as a skill is, in `directory`, and calls it. Raises SnapcountError, OSError, subprocess.TimeoutExpired."""
        ...

    def tools(self) -> dict[str, str]:
        """The compilers for skills that are here, and their versions or places."""
        ...
