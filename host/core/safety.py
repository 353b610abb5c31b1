"""The safety envelope: the limits that a machine's owner signed, which no skill and no operator can widen.

`admit` sees every command before a driver does. Rules:

- a point outside the travel of an axis (homing too), a speed, temperature or power above its limit, or any number that is not finite, is refused;
  between two points inside the box a straight move stays inside it, so checking the points is enough;
- a heater or tool that the owner did not name has no limit to be under, and is refused;
- more moves per second than the rate are refused;
- an interlock that is not closed trips safe mode, and so do too many refusals without a command admitted between them;
- in safe mode everything but `Status` is refused, until the owner signs a reset for this very trip.

A command is admitted whole or refused whole. Every refusal goes to the audit. Time comes with the call.
"""

import math
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.commands import AnyCommand, Heat, Home, Move, Status, Tool
from host.core.errors import MalformedData, SafeMode, SignatureInvalid, UnsafeCommand
from host.core.limits import DEFAULT
from host.core.text import safe
from host.core.toml import decode as decode_toml

AAD_LIMITS = b"snapcount safety 1"
AAD_RESET = b"snapcount safety reset 1"
AXES = ("x", "y", "z")

Range = tuple[float, float]
Point = tuple[float, float, float]
ORIGIN: Point = (0.0, 0.0, 0.0)
NotNegative = Annotated[float, Meta(ge=0)]


class Travel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    x: Range
    y: Range
    z: Range


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max: NotNegative


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    moves_per_s: Annotated[float, Meta(gt=0)]
    burst: Annotated[int, Meta(ge=1)] = DEFAULT.moves_per_command_max


class Interlocks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    required: tuple[str, ...] = ()


class SafeModeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    refusals: Annotated[int, Meta(ge=1)] = DEFAULT.refusals_before_safe_mode


class SafetyLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """safety.toml. Travel in mm, speed in mm/s, temperature in °C by heater, power in W by tool, rate in moves per second."""

    travel_mm: Travel
    speed_mm_s: Speed
    rate: Rate
    temperature_c: dict[str, float] = {}
    power_w: dict[str, NotNegative] = {}
    interlocks: Interlocks = Interlocks()
    safe_mode: SafeModeRule = SafeModeRule()


@dataclass(frozen=True)
class Refusal:
    """One refused command, for the audit log."""

    at_ms: int
    skill: str
    command: str
    reason: str


@dataclass(frozen=True)
class Trip:
    """Why and when safe mode was entered. `id` is what the owner signs to reset it."""

    id: str
    at_ms: int
    reason: str


def sign_limits(owner: SigningKey, toml: bytes) -> bytes:
    """The owner's detached signature over safety.toml."""
    parse_limits(toml, "safety.toml")
    return cose.sign(owner, toml, kid=bytes(owner.verify_key), detached=True, aad=AAD_LIMITS)


def verify_limits(toml: bytes, signature: bytes, owner: VerifyKey, what: str) -> SafetyLimits:
    """Raises SignatureInvalid unless the owner signed these bytes."""
    cose.verify(cose.parse(signature, f"{what}: owner's signature"), owner, what, payload=toml, aad=AAD_LIMITS)
    return parse_limits(toml, what)


def parse_limits(toml: bytes, what: str) -> SafetyLimits:
    """Raises MalformedData that names the field."""
    limits = decode_toml(toml, SafetyLimits, what)
    for axis in AXES:
        low, high = getattr(limits.travel_mm, axis)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise MalformedData(f"{what}: travel_mm.{axis}: expected [low, high], found [{low}, {high}]")
    numbers = [limits.speed_mm_s.max, limits.rate.moves_per_s, *limits.temperature_c.values(), *limits.power_w.values()]
    if not all(math.isfinite(number) for number in numbers):
        raise MalformedData(f"{what}: a limit must be a finite number")
    return limits


def sign_reset(owner: SigningKey, trip_id: str) -> bytes:
    """The owner's word that the machine is safe again after the trip `trip_id`."""
    return cose.sign(owner, cbor.encode({"reset": trip_id}), kid=bytes(owner.verify_key), aad=AAD_RESET)


class SafetyEnvelope:
    """Stands before a machine's driver. `audit` gets every refusal, `on_trip` every entry into safe mode (None: it was reset)."""

    def __init__(
        self,
        limits: SafetyLimits,
        owner: VerifyKey,
        *,
        audit: Callable[[Refusal], None],
        on_trip: Callable[[Trip | None], None] = lambda trip: None,
        tripped: Trip | None = None,
        node: str = "",
    ) -> None:
        self._lock = threading.RLock()  # several machines may stand behind one envelope
        self._node = node
        self.limits = limits
        self.tripped = tripped
        self._owner = owner
        self._audit = audit
        self._on_trip = on_trip
        self._refusals = 0
        self._trips = 0
        self._tokens = float(limits.rate.burst)
        self._filled_ms: int | None = None

    def admit(
        self,
        command: AnyCommand,
        interlocks: Mapping[str, bool],
        now_ms: int,
        skill: str,
        *,
        home_mm: Point = ORIGIN,
        rate_ms: int | None = None,
    ) -> None:
        """Returns when the driver may have the command. Raises UnsafeCommand or SafeMode otherwise, after the audit has it.

        `home_mm` is where homing takes the machine. `rate_ms` is a time that never jumps, for the rate; `now_ms` where there is none.
        """
        if isinstance(command, Status):
            return
        with self._lock:
            self._admit(command, interlocks, now_ms, skill, home_mm, now_ms if rate_ms is None else rate_ms)

    def _admit(self, command: AnyCommand, interlocks: Mapping[str, bool], now_ms: int, skill: str, home_mm: Point, rate_ms: int) -> None:
        if self.tripped is not None:
            raise self._refuse(
                SafeMode, f"safe mode since {self.tripped.at_ms}: {self.tripped.reason}; the owner must reset it", command, now_ms, skill
            )
        opened = [name for name in self.limits.interlocks.required if interlocks.get(name) is not True]
        if opened:
            try:
                raise self._refuse(SafeMode, f"interlock {opened[0]} is not closed: safe mode", command, now_ms, skill)
            finally:
                self.trip(f"interlock {opened[0]} is not closed", now_ms)
        problem = self._problem(command, home_mm) or self._over_rate(command, rate_ms)
        if problem is None:
            self._refusals = 0
            return
        self._refusals += 1
        try:
            raise self._refuse(UnsafeCommand, problem, command, now_ms, skill)
        finally:  # an audit that cannot be written does not keep safe mode away
            if self._refusals >= self.limits.safe_mode.refusals:
                self.trip(f"{self._refusals} commands refused in a row, the last: {problem}", now_ms)

    def trip(self, reason: str, now_ms: int) -> None:
        """Enters safe mode. A second trip keeps the first reason."""
        with self._lock:
            if self.tripped is None:
                # The count keeps apart two trips at one time, so that the reset of the first is worth nothing to the second.
                self._trips += 1
                self.tripped = Trip(f"{self._node}{now_ms}-{self._trips}-{zlib.crc32(reason.encode()):08x}", now_ms, reason)
                self._on_trip(self.tripped)

    def reset(self, signed: bytes) -> None:
        """Leaves safe mode. Raises SignatureInvalid unless the owner signed a reset of this trip."""
        payload = cose.verify(cose.parse(signed, "safety reset"), self._owner, "safety reset", aad=AAD_RESET)
        with self._lock:
            if self.tripped is None:
                return
            if cbor.decode(payload, "safety reset") != {"reset": self.tripped.id}:
                raise SignatureInvalid(f"safety reset: signed for another trip than {self.tripped.id}")
            self._on_trip(None)  # first: what cannot be written down has not happened
            self.tripped = None
            self._refusals = 0

    def refuse_malformed(self, problem: str, now_ms: int, skill: str) -> None:
        """Writes a command that could not be read into the audit."""
        self._audit(Refusal(now_ms, skill, "malformed", problem))

    def _refuse(self, kind: type[UnsafeCommand], reason: str, command: AnyCommand, now_ms: int, skill: str) -> UnsafeCommand:
        self._audit(Refusal(now_ms, skill, type(command).__name__.lower(), reason))
        return kind(reason)

    def _problem(self, command: AnyCommand, home_mm: Point) -> str | None:
        match command:
            case Move(moves):
                return next((problem for move in moves if (problem := self._move_problem(move))), None)
            case Heat(heater, celsius):
                return _over(f"temperature of {safe(heater)}", celsius, self.limits.temperature_c.get(heater), "°C")
            case Tool(watts):
                return _over("power of the tool", watts, self.limits.power_w.get("tool"), "W", low=0.0)
            case Home():
                return self._outside(home_mm, "homing goes to ")
            case _:
                return None

    def _move_problem(self, move: tuple[float, float, float, float]) -> str | None:
        outside = self._outside(move[:3])
        if outside:
            return outside
        if not 0 < move[3] <= self.limits.speed_mm_s.max:
            return f"speed {move[3]:.12g} mm/s is outside (0, {self.limits.speed_mm_s.max:.12g}] mm/s"
        return None

    def _outside(self, point: Point, how: str = "") -> str | None:
        travel = self.limits.travel_mm
        for axis, value, (low, high) in zip(AXES, point, (travel.x, travel.y, travel.z), strict=True):
            if not low <= value <= high:  # also refuses NaN
                return f"{how}{axis} = {value:.12g} mm is outside the travel [{low:.12g}, {high:.12g}] mm"
        return None

    def require_box(self, low: Point, high: Point, what: str) -> None:
        """Raises UnsafeCommand when a box, as a plan states it, leaves the travel: said before anything moves."""
        problem = self._outside(low) or self._outside(high)
        if problem:
            raise UnsafeCommand(f"{what} leaves the machine's limits, so nothing was moved: {problem}")

    def _over_rate(self, command: AnyCommand, now_ms: int) -> str | None:
        rate = self.limits.rate
        if self._filled_ms is not None:
            elapsed_ms = max(0, now_ms - self._filled_ms)  # a clock set back gives no tokens
            self._tokens = min(float(rate.burst), self._tokens + elapsed_ms * rate.moves_per_s / 1000)
        self._filled_ms = now_ms
        wanted = len(command.moves) if isinstance(command, Move) else 1
        if wanted > self._tokens:
            return f"more than {rate.moves_per_s:.12g} moves per second (burst {rate.burst})"
        self._tokens -= wanted
        return None


def _over(what: str, value: float, limit: float | None, unit: str, low: float = -math.inf) -> str | None:
    if limit is None:
        return f"{what}: the owner set no limit for it in safety.toml"
    if not (math.isfinite(value) and low <= value):
        return f"{what}: {value:.12g} {unit} is no {what.partition(' ')[0]} to set"
    if value > limit:
        return f"{what}: {value:.12g} {unit} is above the limit of {limit:.12g} {unit}"
    return None


def default_toml() -> bytes:
    """A commented safety.toml for a small machine, as `snapcount node init` writes it."""
    return _DEFAULT_TOML.encode()


def as_dict(limits: SafetyLimits) -> dict[str, Any]:
    """For `--json`."""
    value: dict[str, Any] = msgspec.to_builtins(limits)
    return value


_DEFAULT_TOML = """\
# What this machine may do. The owner signs this file; no skill and no operator can widen it.
# After a change: snapcount node sign-safety --owner-key owner.key

[travel_mm]             # the box that no move leaves, machine coordinates
x = [0.0, 300.0]
y = [0.0, 300.0]
z = [0.0, 300.0]

[speed_mm_s]
max = 250.0

[temperature_c]         # a heater that is not named here cannot be used
nozzle = 260.0
bed = 110.0

[power_w]               # spindle or laser
tool = 500.0

[rate]
moves_per_s = 2000000.0   # a real machine takes some thousand; the virtual one is as fast as its processor
burst = 2000000

[interlocks]            # inputs that must be closed; an open one trips safe mode
required = ["door"]

[safe_mode]
refusals = 100          # this many refusals in a row trip it
"""
