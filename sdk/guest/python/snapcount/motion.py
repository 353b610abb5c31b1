"""The capability `motion`: a machine. Each command returns where it stands after it; one that is refused raises Failure with the host's code."""

from collections.abc import Sequence

from componentize_py_types import Err

from snapcount import Failure, types

try:
    from wit_world.imports import motion as _host
except ImportError:
    raise ImportError("snapcount.motion needs the capability `motion`: name it in skill.toml") from None


def move(moves: Sequence[tuple[float, float, float, float]]) -> types.MotionReply:
    """Straight moves: x, y, z in mm and the speed in mm/s. At most 256."""
    return _execute(types.MotionCommand_Move(types.MotionMove(moves=list(moves))))


def heat(heater: str, celsius: float) -> types.MotionReply:
    return _execute(types.MotionCommand_Heat(types.MotionHeat(heater=heater, celsius=celsius)))


def tool(watts: float) -> types.MotionReply:
    return _execute(types.MotionCommand_Tool(types.MotionTool(watts=watts)))


def home() -> types.MotionReply:
    return _execute(types.MotionCommand_Home())


def dwell(ms: int) -> types.MotionReply:
    return _execute(types.MotionCommand_Dwell(types.MotionDwell(ms=ms)))


def status() -> types.MotionReply:
    return _execute(types.MotionCommand_Status())


def _execute(command: types.MotionCommand) -> types.MotionReply:
    try:
        return _host.execute(command)
    except Err as error:
        raise Failure(error.value.code, error.value.message) from None
