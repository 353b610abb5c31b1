"""The commands that a skill may give a machine, as typed values. Lengths in mm, machine coordinates; speeds in mm/s."""

from typing import Annotated

import msgspec
from msgspec import Meta

from host.core.limits import DEFAULT

MovePoint = tuple[float, float, float, float]
Text = Annotated[str, Meta(min_length=1, max_length=64)]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """The root of all commands; `op` on the wire tells them apart."""


class Move(Command, frozen=True, tag="move"):
    """Straight moves, one after the other: x, y, z in mm and the speed in mm/s."""

    moves: Annotated[tuple[MovePoint, ...], Meta(min_length=1, max_length=DEFAULT.moves_per_command_max)]


class Heat(Command, frozen=True, tag="heat"):
    """Sets a heater's target, in °C."""

    heater: Text
    celsius: float


class Tool(Command, frozen=True, tag="tool"):
    """Sets the power of the spindle or laser, in watts; 0 is off."""

    watts: float


class Home(Command, frozen=True, tag="home"):
    """Moves every axis to its reference."""


class Dwell(Command, frozen=True, tag="dwell"):
    """Waits, in ms."""

    ms: Annotated[int, Meta(ge=0, le=86_400_000)]


class Status(Command, frozen=True, tag="status"):
    """Asks where the machine is. Changes nothing, so it passes in safe mode too."""


AnyCommand = Move | Heat | Tool | Home | Dwell | Status
