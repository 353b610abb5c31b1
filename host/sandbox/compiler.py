"""Runs the compiling child and says in words how it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from host.core.errors import HostFault, MalformedModule, StorageFull, TooLarge
from host.core.limits import DEFAULT, Limits
from host.core.text import safe
from host.sandbox.compile_child import EXIT_INVALID, EXIT_LARGE

PANIC = b" panicked at "

# Where this very host was imported from; the child must run the same code.
PACKAGES = Path(__file__).resolve().parents[2]


def compile_module(source: Path, target: Path, what: str, limits: Limits = DEFAULT, *, component: bool = False) -> None:
    """Compiles the wasm file `source` into `target`, a component under limits of its own. Raises MalformedModule for an invalid or too costly module; then there is no target."""
    memory_bytes_max, cpu_s_max, wall_s_max = _bounds(limits, component)
    command = [
        sys.executable, "-P", "-m", "host.sandbox.compile_child", str(source), str(target),
        str(memory_bytes_max), str(cpu_s_max), str(limits.compiled_bytes_max),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=wall_s_max,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        target.unlink(missing_ok=True)
        raise MalformedModule(f"{what}: compiling it took more than {wall_s_max} s and was stopped") from error
    except OSError as error:
        raise HostFault(f"{what}: the compiling process could not be started: {error.strerror}") from error
    if ended.returncode == 0:
        return
    target.unlink(missing_ok=True)
    said = _said(ended.stderr)
    if ended.returncode == EXIT_INVALID:
        raise MalformedModule(f"{what}: not a {'component' if component else 'module'} that ABI 1 allows: {said}")
    if ended.returncode == EXIT_LARGE:
        raise TooLarge(f"{what}: {said}, at most {limits.compiled_bytes_max} are kept")
    if PANIC in ended.stderr and b"allocate memory" not in ended.stderr:
        raise MalformedModule(f"{what}: the compiler failed on it: {said}")
    if ended.returncode == -signal.SIGXCPU:
        raise MalformedModule(f"{what}: compiling it took more than {cpu_s_max} s of processor time and was stopped")
    if b"No space left" in ended.stderr:
        raise StorageFull(f"{what}: no space left on the disk for the compiled module")
    if ended.returncode in (-signal.SIGABRT, -signal.SIGKILL) or b"memory" in ended.stderr.lower():
        raise MalformedModule(f"{what}: compiling it needs more than {memory_bytes_max >> 20} MiB of memory and was stopped")
    if ended.returncode < 0:
        raise MalformedModule(f"{what}: compiling it ended the compiler with signal {-ended.returncode}")
    raise HostFault(f"{what}: the compiling process ended with {ended.returncode}: {said}")


def _said(stderr: bytes) -> str:
    """What a panic says, which is the line after the one with its place; otherwise the last line."""
    _, _, panic = stderr.partition(PANIC)
    lines = (panic.partition(b"\n")[2] or stderr).decode("utf-8", "replace").strip().splitlines() or [""]
    return safe(lines[0] if panic else lines[-1])


def _bounds(limits: Limits, component: bool) -> tuple[int, int, int]:
    """Bytes of memory, seconds of processor time, and seconds."""
    if component:
        return limits.component_compile_memory_bytes_max, limits.component_compile_cpu_s_max, limits.component_compile_wall_s_max
    return limits.compile_memory_bytes_max, limits.compile_cpu_s_max, limits.compile_wall_s_max
