"""The probes of the machine that this runs on."""

import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

import host
from host.console.client import NodeControl
from host.core import files
from host.core.attestation import Measurement
from host.core.errors import HostFault, MachineError, NetworkError, SnapcountError
from host.core.text import safe
from host.doctor import devices
from host.doctor.probes import Bounds, Device, Disk, Holder, HttpAnswer, Running
from host.installed import measure_host
from host.plugins.drivers.grbl.machine import GrblMachine
from host.plugins.drivers.grbl.port import require_pyserial
from host.plugins.drivers.grbl.settings import GrblSettings
from host.plugins.manager import NOTHING_ALLOWED
from host.sandbox import direct
from host.sandbox.compiler import PACKAGES

TIMEOUT_S = 5.0
TIMEX_BYTES = 512  # struct timex (adjtimex(2)) and room for newer fields; modes, its first one, stays 0: nothing is changed
TIME_ERROR = 5  # what adjtimex(2) returns for a clock that is not synchronised
EXTENSIONS = ("strict", "encode", "direct", "arrival")
CGROUPS = Path("/sys/fs/cgroup")
TRIAL_S = 60.0
CONTROLLER_S = 10.0  # an Arduino takes two seconds to start
POLL_S = 0.05


class SystemProbes:
    """Implements `Probes`."""

    def now_s(self) -> float:
        return time.time()

    def built_s(self) -> float:
        return Path(host.__file__).stat().st_mtime

    def clock_synchronised(self) -> bool | None:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
        return None if state < 0 else state != TIME_ERROR

    def running(self, state: Path) -> Running | None:
        try:
            pid = int(NodeControl(state, TIMEOUT_S).get("/v1/status")["pid"])
            return Running(pid, Path(f"/proc/{pid}").stat().st_uid)
        except (SnapcountError, OSError):
            return None

    def uid(self) -> int:
        return os.geteuid()

    def owner(self, path: Path) -> int:
        return path.stat().st_uid

    def user(self, uid: int) -> str:
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return f"user {uid}"

    def disk(self, path: Path) -> Disk:
        found = os.statvfs(path)
        number = path.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        return Disk(
            found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None, device.resolve().name if device.exists() else ""
        )

    def sync_s(self, directory: Path) -> float:
        began = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=directory, prefix=files.TEMPORARY) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return time.monotonic() - began

    def bounds(self, pid: int | None) -> Bounds:
        # Not prlimit(2), which asks for a privilege where the process is another user's.
        hard = _hard_limits(Path(f"/proc/{pid or 'self'}/limits").read_text())
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        groups = _groups(Path(f"/proc/{pid or 'self'}/cgroup").read_text())
        controllers = CGROUPS / "cgroup.controllers"
        return Bounds(
            open_files=hard.get("Max open files", 1 << 30),
            address_bytes=hard.get("Max address space"),
            memory_bytes=min([total, *_bounds(groups, "memory.max")]),
            tasks=min(_bounds(groups, "pids.max"), default=None),
            memory_controlled="memory" in controllers.read_text().split() if controllers.exists() else None,
        )

    def http(self, url: str) -> HttpAnswer:
        asked_s = time.time()
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                status, date = answer.status, answer.headers.get("Date", "")
        except urllib.error.HTTPError as error:
            with error:
                status, date = error.code, error.headers.get("Date", "")
        except (OSError, ValueError) as error:
            raise NetworkError(f"{safe(url)}: {safe(str(getattr(error, 'reason', error)))}") from error
        return HttpAnswer(status, _date(date), (asked_s + time.time()) / 2)

    def connect(self, host: str, port: int) -> None:
        socket.create_connection((host, port), TIMEOUT_S).close()

    def listen(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass

    def require_serial(self) -> None:
        require_pyserial()

    def device(self, path: Path) -> Device:
        return devices.device(path)

    def may_use(self, path: Path, uid: int, pid: int | None) -> bool:
        return devices.may_use(path, uid, pid)

    def holders(self, path: Path) -> tuple[Holder, ...]:
        return devices.holders(path)

    def controller(self, settings: GrblSettings) -> str:
        machine = GrblMachine(settings, NOTHING_ALLOWED)
        try:
            until_s = time.monotonic() + CONTROLLER_S
            while (status := machine.status())["link"] != "ready" and not status["problems"] and time.monotonic() < until_s:
                time.sleep(POLL_S)
        finally:
            machine.close()
        if status["problems"] or status["link"] != "ready":
            raise MachineError("; ".join(status["problems"]) or status["link"])
        return f"Grbl {status['controller']} answers, state {status['state']}"

    def measure(self) -> Measurement:
        return measure_host()

    def slow_path(self) -> str | None:
        return direct.unavailable()

    def uncompiled(self) -> tuple[str, ...]:
        specs = {name: importlib.util.find_spec(f"cython_core.{name}") for name in EXTENSIONS}
        return tuple(name for name, spec in specs.items() if spec is None or not (spec.origin or "").endswith(".so"))

    def compile(self, directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory, prefix=files.TEMPORARY) as scratch:
            # Isolated as the compiling child is: it must run the same code.
            command = [sys.executable, "-P", "-m", "host.doctor.trial", scratch]
            ended = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": str(PACKAGES)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TRIAL_S,
                check=False,
            )
        if ended.returncode != 0:
            said = " ".join(ended.stderr.decode("utf-8", "replace").split())
            raise HostFault(safe(said) or f"the trial ended with {ended.returncode}")

    def tools(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in ("ziglang", "componentize-py"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return found | {name: place for name in ("rustc", "npm") if (place := shutil.which(name))}


def _hard_limits(text: str) -> dict[str, int]:
    """The hard limits of /proc/PID/limits, by its names for them; those that are no limit are left out."""
    found = re.findall(r"^(Max [a-z ]+?) {2,}\S+ +(\d+) ", text, re.MULTILINE)
    return {name: int(hard) for name, hard in found}


def _groups(text: str) -> list[Path]:
    """The control groups that a process is in (cgroups(7), version 2), innermost first."""
    path = next((line.removeprefix("0::").strip() for line in text.splitlines() if line.startswith("0::")), "")
    inner = CGROUPS / path.lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(CGROUPS))]


def _bounds(groups: list[Path], name: str) -> list[int]:
    texts = [(group / name).read_text().strip() for group in groups if (group / name).exists()]
    return [int(text) for text in texts if text.isdecimal()]


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
