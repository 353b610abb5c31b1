"""What the owner says of a machine (`[drivers.grbl]` in node.toml), and what its controller says of itself (`$$` and `$I`)."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from host.core.errors import UsageError
from host.core.safety import AXES, SafetyLimits
from host.core.text import safe
from host.plugins.drivers.grbl.protocol import RX_BYTES, Point, Status

INCH_MM = 25.4
_PORT = re.compile(r"/\S+\Z|socket://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}\Z")
_VERSION = re.compile(r"v?1\.1[a-z]?(\.\d+)?\Z")


class GrblSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[drivers.grbl]`. `tool_max_w` is the tool's power at the controller's greatest spindle speed ($30); 0 is a machine without one.

    `door`: a safety door is wired to the controller, which was built to watch it. Without `needs_homing` the owner answers for where the machine is.
    """

    port: str
    baud: Annotated[int, Meta(ge=1_200, le=4_000_000)] = 115_200
    needs_homing: bool = True
    door: bool = False
    tool_max_w: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    tool_code: Literal["M3", "M4"] = "M3"
    status_ms: Annotated[int, Meta(ge=10, le=2_000)] = 200
    silence_s: Annotated[float, Meta(ge=0.1, le=60)] = 3.0
    answer_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    homing_s: Annotated[float, Meta(ge=1, le=3_600)] = 180.0

    def __post_init__(self) -> None:
        if not _PORT.match(self.port):
            raise ValueError(f"port: expected a device such as /dev/ttyACM0, or socket://HOST:PORT, found {self.port!r}")


def read_settings(table: Mapping[str, Any]) -> GrblSettings:
    """Raises UsageError that names the field."""
    try:
        return msgspec.convert(dict(table), GrblSettings)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"node.toml: [drivers.grbl]: {safe(str(error))}; docs/grbl.md shows one") from error


class Controller:
    """What one controller said: version, build options, and its settings by number."""

    def __init__(self, version: str, options: str, values: Mapping[int, float]) -> None:
        self.version = version
        letters, *sizes = options.split(",")
        self._letters, self._values = letters, values
        told = int(sizes[1]) if len(sizes) > 1 and sizes[1].isdigit() else RX_BYTES
        self.rx_bytes = min(RX_BYTES, told) if told > 0 else RX_BYTES
        """How many bytes may be in flight: what `$I` states, and never more than Grbl 1.1's own 128."""

    @property
    def unit_mm(self) -> float:
        """What one unit of its reports is, in mm."""
        return INCH_MM if self._on(13) else 1.0

    @property
    def homes(self) -> bool:
        return self._on(22)

    @property
    def spindle_max(self) -> float:
        """The greatest S, which is the tool's full power."""
        return self._values.get(30, 1000.0)

    @property
    def home_mm(self) -> Point:
        """Where homing ends, in machine coordinates: one pull-off away from the switches, which stand at 0 or at the far end of the travel."""
        x, y, z = (self._home(axis) for axis in range(3))
        return x, y, z

    def machine_mm(self, status: Status, offset: Point | None) -> Point | None:
        """The machine position of a report, mm. One of a work position needs the offset, which comes in some reports only: None before the first."""
        at = status.machine
        if at is None and status.work is not None and offset is not None:
            at = (status.work[0] + offset[0], status.work[1] + offset[1], status.work[2] + offset[2])
        unit = self.unit_mm
        return None if at is None else (at[0] * unit, at[1] * unit, at[2] * unit)

    def problems(self, needs_homing: bool) -> Iterator[str]:
        """What keeps this controller from being driven at all."""
        if not _VERSION.match(self.version):
            yield f"the controller says version {safe(self.version, 32) or 'nothing'}; this driver speaks Grbl 1.1"
        if needs_homing and not self.homes:
            yield "homing is switched off in the controller ($22=0), so its position can never be known; switch it on, or say needs_homing = false"
        for axis, number in zip(AXES, range(130, 133), strict=True):
            if self._values.get(number, 0.0) <= 0:
                yield f"the controller states no travel for {axis} (${number})"

    def notes(self, limits: SafetyLimits) -> Iterator[str]:
        """What its owner should know; nothing of it keeps the machine from moving."""
        for number, what in (
            (20, "soft limits are off: only the safety envelope keeps moves inside the travel"),
            (21, "hard limits are off"),
        ):
            if not self._on(number):
                yield f"${number}=0: {what}"
        if self._on(13):
            yield "$13=1: it reports in inches; they are converted"
        if not int(self._values.get(10, 1)) & 1:
            yield "$10: it reports work positions; machine positions follow from its offsets"
        for index, axis in enumerate(AXES):
            low, high = self._travel(index)
            allowed = getattr(limits.travel_mm, axis)
            if allowed[0] < low or allowed[1] > high:
                yield f"{axis}: the safety envelope allows [{allowed[0]:g}, {allowed[1]:g}] mm, the controller has [{low:g}, {high:g}] mm"

    def _on(self, number: int) -> bool:
        return bool(self._values.get(number, 0.0))

    def _at_far_end(self, axis: int) -> bool:
        return bool(int(self._values.get(23, 0)) >> axis & 1)

    def _travel(self, axis: int) -> tuple[float, float]:
        length = self._values.get(130 + axis, 0.0)
        return (0.0, length) if "Z" in self._letters and self._at_far_end(axis) else (-length, 0.0)

    def _home(self, axis: int) -> float:
        if "Z" in self._letters:  # built with a forced origin: homing ends at 0
            return 0.0
        pull_off = self._values.get(27, 1.0)
        return -self._values.get(130 + axis, 0.0) + pull_off if self._at_far_end(axis) else -pull_off
