"""Drivers: native plugins that offer a capability, such as a machine. And the gate that every command to one passes."""

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from host.core import cbor
from host.core.clock import Clock
from host.core.commands import AnyCommand
from host.core.errors import HostFault, MalformedData, SnapcountError
from host.core.limits import DEFAULT
from host.core.safety import SafetyEnvelope
from host.core.text import safe


class Driver(Protocol):
    """One machine behind one capability."""

    @property
    def capability(self) -> str:
        """The capability's name, as skills ask for it: `motion`."""
        ...

    @property
    def home_mm(self) -> tuple[float, float, float]:
        """Where homing takes the machine, in machine coordinates."""
        ...

    def interlocks(self) -> Mapping[str, bool]:
        """The inputs that are wired to this machine; True is closed (safe)."""
        ...

    def execute(self, command: AnyCommand) -> Any:
        """Does what the envelope has admitted, and returns a struct of the contract. Raises SnapcountError where the machine fails."""
        ...

    def status(self) -> dict[str, Any]:
        """For people: position, temperature and so on."""
        ...


class DriverGate:
    """Decodes a skill's command, has the safety envelope admit it, and only then hands it to the driver. One command at a time."""

    def __init__(self, driver: Driver, envelope: SafetyEnvelope, clock: Clock) -> None:
        self._driver, self._envelope, self._clock = driver, envelope, clock
        self._lock = threading.Lock()

    def ask(self, skill: str, request: bytes) -> bytes:
        """Raises MalformedData, UnsafeCommand, SafeMode, or HostFault for a driver that failed."""
        try:
            command = self._decode(request)
        except MalformedData as error:
            self._envelope.refuse_malformed(str(error), self._clock.now_ms(), skill)
            raise
        with self._lock:
            try:
                clock, driver = self._clock, self._driver
                self._envelope.admit(
                    command, driver.interlocks(), clock.now_ms(), skill, home_mm=driver.home_mm, rate_ms=clock.monotonic_ms()
                )  # fmt: skip
                return cbor.encode(self._driver.execute(command))
            except SnapcountError:
                raise
            except Exception as error:
                raise HostFault(f"the driver of {self._driver.capability} failed: {safe(repr(error))}") from error

    def _decode(self, request: bytes) -> AnyCommand:
        value = cbor.decode(request, f"command for {self._driver.capability}", bytes_max=DEFAULT.frame_bytes_max)
        try:
            command: AnyCommand = msgspec.convert(value, AnyCommand)
        except msgspec.ValidationError as error:
            raise MalformedData(f"command for {self._driver.capability}: {safe(str(error))}") from error
        return command
