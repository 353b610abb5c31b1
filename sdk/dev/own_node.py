"""A node of the developer's own: a real daemon with a virtual machine in a temporary folder, which ends and goes when the session does."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nacl.signing import SigningKey, VerifyKey

from host import config, identity
from host.console.client import NodeControl
from host.core import keys
from host.core.capabilities import BUILT_IN
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import HostFault, NetworkError
from host.daemon import LOCK

PREFIX = "snapcount-dev-"
STATE, LOG = "node", "node.log"
NAME = "dev-node"
START_S_MAX, STOP_S_MAX, POLL_S = 60.0, 15.0, 0.05
ROOT = Path(__file__).resolve().parents[2]


class OwnNode:
    """Trusts one author, and lets a skill have every capability that it can offer. Used with `with`: afterwards neither process nor folder is there."""

    def __init__(self, author: VerifyKey, generation: int) -> None:
        self._author, self._generation = author, generation
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path()

    @property
    def state(self) -> Path:
        return self.folder / STATE

    def __enter__(self) -> Self:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._create()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _create(self) -> None:
        owner = SigningKey(os.urandom(keys.SEED_BYTES))
        toml = config.template(
            NAME, keys.public_text(owner.verify_key), self._generation, "", (keys.public_text(self._author),), (*sorted(BUILT_IN), "motion"),
            ("virtual_machine",),
        )  # fmt: skip
        identity.create(self.state, toml, owner, SystemClock(), SystemRandom())

    def _start(self) -> None:
        with (self.folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sdk.dev.node_process", str(self.state), str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)}, process_group=0,
            )  # fmt: skip
        until = time.monotonic() + START_S_MAX
        while not self._answers():
            if self._process.poll() is not None:
                said = (self.folder / LOG).read_text(errors="replace").strip().splitlines()
                raise HostFault(f"the node did not start: {said[-1] if said else 'it said nothing'}")
            if time.monotonic() > until:
                raise HostFault(f"the node did not start within {START_S_MAX:g} s")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            return bool(NodeControl(self.state).get("/v1/status"))
        except NetworkError:
            return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep() -> None:
    """Removes folders of sessions that were killed: those of this user in which no node runs, and none is being made."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if (
                stat.S_ISDIR(found.st_mode)
                and found.st_uid == os.getuid()
                and time.time() - found.st_mtime > START_S_MAX
                and not _runs(folder)
            ):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(folder: Path) -> bool:
    """Whether a node holds its lock there."""
    try:
        descriptor = os.open(folder / STATE / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False  # it never started
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
