"""What stands between the host and a skill's functions."""

import sys
import time
from collections.abc import Callable
from typing import Any

from componentize_py_types import Err

from snapcount import Failure, types

LINE_MAX = 1024
TRAP, OUT_OF_MEMORY = "trap", "trap_memory"
"""The codes by which the host knows that the skill failed, where it did not refuse."""


def answer(reply: type, hook: Callable[..., Any], *request: Any) -> Any:
    """Calls a hook, which is to return such a reply. An exception that nobody caught ends the call as a trap does, with where it came from."""
    try:
        found = hook(*request)
    except Failure as failure:
        raise Err(types.ErrorReply(code=failure.code, message=failure.message[:LINE_MAX])) from None
    except BaseException as error:
        code = OUT_OF_MEMORY if isinstance(error, MemoryError) else TRAP
        raise Err(types.ErrorReply(code=code, message=described(error)[:LINE_MAX])) from None
    if not isinstance(found, reply):
        said = f"{hook.__name__} returned {type(found).__name__}, not {getattr(reply, '__name__', reply)}"
        raise Err(types.ErrorReply(code=TRAP, message=said[:LINE_MAX]))
    return found


def streamed(hook: Callable[[Any], Any], request: Any) -> Any:
    """Calls `plan_job`, which returns its progress, or, for the last chunk, its report."""
    found = answer(types.PlanProgress | types.PlanReport, hook, request)  # type: ignore[arg-type]
    return types.PlanJobReply_Report(found) if isinstance(found, types.PlanReport) else types.PlanJobReply_Progress(found)


def described(error: BaseException) -> str:
    """`ZeroDivisionError: division by zero (main.py, line 12, in bid)`. Sources are not looked at: there are no files."""
    last, where = error.__traceback__, ""
    while last is not None:
        code = last.tb_frame.f_code
        if not code.co_filename.endswith("snapcount/entry.py"):
            where = f" ({code.co_filename.rpartition('/')[2]}, line {last.tb_lineno}, in {code.co_name})"
        last = last.tb_next
    return f"{type(error).__name__}: {error}".rstrip(": ") + where


class _Log:
    """Takes what is printed, line by line; without the capability `log` it goes nowhere."""

    def __init__(self, level: str) -> None:
        self._line = ""
        try:
            from wit_world.imports import log
        except ImportError:
            self._write: Callable[[str], None] = lambda line: None
        else:
            self._write = lambda line: log.write(log.Level[level], line)

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._write(line)
        return len(text)

    def flush(self) -> None:
        if self._line:
            self._write(self._line)
            self._line = ""


def _now() -> float:
    try:
        from wit_world.imports import clock
    except ImportError:
        raise RuntimeError("the time of day needs the capability `clock`: name it in skill.toml") from None
    return clock.now_ms() / 1000


def built() -> None:
    """The skill is imported: from now on what is printed goes to the log, and the time comes from the host."""
    sys.stdout, sys.stderr = _Log("INFO"), _Log("WARNING")  # type: ignore[assignment]
    time.time = _now
