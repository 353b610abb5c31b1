"""Runs a page's commands as its reader would: one shell for the page, in a home of its own, on a network of its own that reaches nobody.

The shell stands in new namespaces of Linux (network, mounts, processes), so that the page's ports are free whatever else runs on the machine, nothing can
be fetched, and everything that the page started ends with it. What a page does in `/var/lib` and the like goes into its home.
"""

import os
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from guide_blocks import BadPage, Block, commands, shows, uncommented

import host
from host.installed import measure_host

COMMAND_S_MAX = 240.0
READY_S_MAX = 60.0
PORTS_BUSY = re.compile(r"\baddress already in use\b|cannot listen", re.IGNORECASE)
# Where pages write as root does: the same paths, below the page's home.
ROOTED = ("/var/lib/snapcount", "/media/stick", "/etc/snapcount")
NAMES = ("registry.example", "site.example", "lead-1.example", "coordinator.example")
# What a server prints when it serves; a command in the background is waited for until then.
READY = re.compile(r"^registry at |: ready, |^\s*port = |^listening|agents are connected|watching ", re.MULTILINE)
_LOOPBACK = """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
"""
_NOTHING_DONE = "nothing was printed"


def available() -> bool:
    """Whether this machine lets us make namespaces."""
    if shutil.which("unshare") is None or shutil.which("bash") is None:
        return False
    return subprocess.run([*_unshare(), "true"], capture_output=True, check=False).returncode == 0


def _unshare() -> list[str]:
    return [
        "unshare",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]


@dataclass
class Ended:
    code: int
    output: str


class Shell:
    """One bash. Use it as a context manager: at the end everything that was started in it is gone."""

    def __init__(self, home: Path, root: Path) -> None:
        self.home, self.root = home, root
        self._step = 0
        self._ends, given = os.pipe()
        self._given = given

    def __enter__(self) -> "Shell":
        (self.home / "bin").mkdir(parents=True)
        (self.home / "steps").mkdir()
        work = self.home / "work"
        work.mkdir()
        _executable(self.home / "bin/snapcount", _snapcount())
        _executable(self.home / "bin/sudo", 'exec "$@"\n')
        _executable(self.home / "bin/nano", ":\n")  # an editor in which nobody types
        for name in ("python", "python3"):
            _executable(self.home / f"bin/{name}", f'exec {sys.executable} -P "$@"\n')
        hosts = self.home / "hosts"
        hosts.write_text("127.0.0.1 localhost " + " ".join(NAMES) + "\n")
        for name in ("skills", "benchmarks"):
            (work / name).symlink_to(self.root / name)
        start = f"{sys.executable} -c '{_LOOPBACK}' && mount --bind {hosts} /etc/hosts && cd {work} && exec bash --noprofile --norc -s"
        self._bash = subprocess.Popen(
            [*_unshare(), "bash", "-c", start], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self._environment(), pass_fds=[self._given], start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.kill()
        self._bash.wait()
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        os.close(self._ends)
        os.close(self._given)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "CI", "RUSTC", "ZIG_GLOBAL_CACHE_DIR") if name in os.environ}
        kept_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapcount"
        cache = self.home / ".cache" / "snapcount"
        cache.mkdir(parents=True)
        for name in (
            "toolchains",
            "zig",
        ):  # what npm has fetched before, since there is no network in here, and the compiler's own library, compiled
            (kept_cache / name).mkdir(parents=True, exist_ok=True)
            (cache / name).symlink_to(kept_cache / name)
        user = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / ".cache"), "XDG_CONFIG_HOME": str(self.home / ".config")}
        path = f"{self.home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        rust = {name: str(Path.home() / folder) for name, folder in (("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo"))}
        return (
            kept
            | rust
            | user
            | {
                "PATH": path,
                "GUIDE": str(Path(__file__).resolve().parent),
                "COLUMNS": "200",
                "NO_COLOR": "1",
                "TERM": "dumb",
                "PYTHONWARNINGS": "ignore",
            }
            | _tree()
        )

    def run(self, command: str, answers: str = "", timeout_s: float = COMMAND_S_MAX) -> Ended:
        """One command, in the page's shell. One that ends with `&` is waited for until it serves. `answers` are lines on its standard input."""
        self._step += 1
        script, output = self.home / f"steps/{self._step}.sh", self.home / f"steps/{self._step}.out"
        script.write_text(self._inside(command) + "\n")
        asked = self.home / "steps/answers"
        asked.write_text("".join(f"{answer}\n" for answer in answers.split()))
        background = uncommented(command).rstrip().endswith("&")
        assert self._bash.stdin is not None
        self._bash.stdin.write(f'source "{script}" >"{output}" 2>&1 <"{asked}"; echo {self._step} $? >&{self._given}\n'.encode())
        self._bash.stdin.flush()
        code = self._code(timeout_s, command)
        if background:
            self._wait_ready(output, command)
        return Ended(
            code, output.read_text(errors="replace").replace(str(self.home / "work"), "/home/you").replace(str(self.home), "/home/you")
        )

    def _inside(self, command: str) -> str:
        for path in ROOTED:
            command = command.replace(path, f"{self.home}{path}")
        return command

    def write(self, path: str, text: str) -> None:
        """A file of the page, relative to where its shell began, or rooted."""
        place = Path(self._inside(path)) if path.startswith("/") else self.home / "work" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def _code(self, timeout_s: float, command: str) -> int:
        until, said = time.monotonic() + timeout_s, b""
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or self._bash.poll() is not None:
                raise BadPage(f"`{command}` did not end within {timeout_s:g} s" if left <= 0 else f"`{command}` ended the shell")
            if select.select([self._ends], [], [], min(left, 1.0))[0]:
                said += os.read(self._ends, 100)
        step, code = said.split()
        assert int(step) == self._step
        return int(code)

    def _wait_ready(self, output: Path, command: str) -> None:
        until = time.monotonic() + READY_S_MAX
        while not READY.search(printed := output.read_text(errors="replace")):
            if time.monotonic() > until or PORTS_BUSY.search(printed) or "\nerror: " in f"\n{printed}":
                raise BadPage(f"`{command}` does not serve: {printed[-2000:] or _NOTHING_DONE}")
            time.sleep(0.05)


def _executable(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def _tree() -> dict[str, str]:
    """Where the host was imported from, which commands import it from too."""
    return {"PYTHONPATH": str(Path(host.__file__).resolve().parents[1])}


def _snapcount() -> str:
    """The command. A node of a source tree, whose files no installation vouches for, has to be told that this is meant."""
    run = f'exec {sys.executable} -P -m sdk.cli.main "$@"'
    if measure_host().sealed:
        return run + "\n"
    return f'if [ "$1 $2" = "node run" ]; then set -- "$@" --development; fi\n{run}\n'


def run_block(shell: Shell, block: Block) -> None:
    """Runs a block, or writes the file that it is. Raises BadPage that says what was expected and what came."""
    if path := block.said.get("file"):
        shell.write(path, block.text)
    elif block.kind == "python":
        shell.write(".snippet.py", block.text)
        _expect(shell, block, "python .snippet.py", "", 0)
    elif block.kind in ("sh", "console", "before"):
        asked = commands(block)
        for number, (command, expected) in enumerate(asked, start=1):
            _expect(shell, block, command, expected, int(block.said.get("exit", "0")) if number == len(asked) else 0)


def _expect(shell: Shell, block: Block, command: str, expected: str, code: int) -> None:
    until = time.monotonic() + float(block.said.get("within", "0 s").removesuffix(" s"))
    while True:
        ended = shell.run(command, block.said.get("answers", ""))
        right = ended.code == code and (not expected or shows(expected, ended.output))
        if right:
            return
        if time.monotonic() > until:
            break
        time.sleep(0.25)
    shown = f"\n-- the page shows\n{expected}" if expected else ""
    raise BadPage(f"{block.where}: `{command}` ended with {ended.code}, expected {code}\n-- it printed\n{ended.output[-4000:]}{shown}")
