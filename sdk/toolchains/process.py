"""Runs a compiler: its time is bounded, its error becomes one line with file and place, and nothing of it is left running."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from host.core.errors import UsageError
from host.core.text import safe

COMPILE_S_MAX = 300
PROBE_S_MAX = 30
GUEST = Path(__file__).resolve().parents[1] / "guest"


class BuildFailed(UsageError):
    """The compiler refused the sources. `output` is what it said, for the terminal."""

    code = "build_failed"

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def first_error(output: str) -> str:
    """The first line of a compiler that speaks of an error."""
    return next((line for line in output.splitlines() if "error" in line.lower()), "")


def run(
    command: Sequence[str | Path],
    folder: Path,
    name: str,
    made: Path,
    *,
    environment: Mapping[str, str] = {},
    find: Callable[[str], str] = first_error,
) -> None:
    """Runs a compiler of the skill `name` in `folder`. `find` picks what is wrong from its output. Raises BuildFailed unless it `made` the file."""
    code, output = bounded(command, folder, name, environment)
    if code != 0 or not made.exists():
        raise BuildFailed(f"{name}: does not compile: {safe(find(output) or f'the compiler ended with {code}')}", output)


def bounded(command: Sequence[str | Path], folder: Path, name: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit code of a tool, and all that it said. Its whole group of processes ends with it. Raises BuildFailed when it takes too long."""
    with subprocess.Popen(
        list(map(str, command)), cwd=folder, env=os.environ | environment | {"NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=COMPILE_S_MAX)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildFailed(f"{name}: the compiler took more than {COMPILE_S_MAX} s and was stopped", "") from error
            raise
    return process.returncode, err + out


def probe(command: Sequence[str | Path]) -> str:
    """What a tool answers, as to `--version`; empty where it cannot be run or fails."""
    try:
        ended = subprocess.run(
            list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def cache_folder() -> Path:
    """Where the SDK keeps what it can make again, below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapcount"
