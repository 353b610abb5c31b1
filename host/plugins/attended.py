"""Drivers of machines that take their time. A command is only queued there: the machine moves later, may fail later, and then waits for a person.

So a job on such a machine is not over when its skill is: the node waits until all is carried out, and reads a program on only as fast as the
machine follows. Nothing waits inside a hook call, which has a deadline of a second or two.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from host.core.errors import HostFault, SnapcountError, UsageError
from host.plugins.driver import Driver

WAIT_S = 0.2
PIECE_BYTES = 1024
"""A program is read in pieces this small, so that what one hook call queues stays little, even where each line is an arc."""


@runtime_checkable
class AttendedDriver(Protocol):
    """What such a driver has beside `Driver`. Each method may be called from any thread."""

    def begin(self) -> None:
        """A job begins. Raises MachineError, or Busy."""
        ...

    def wait_room(self, timeout_s: float) -> bool:
        """Whether more of the program may be read now, after waiting for it. True too when the work has failed: the next command says so."""
        ...

    def settle(self, timeout_s: float) -> bool:
        """Whether all that was queued is carried out, after waiting for it; that ends the job. Raises MachineError for what ended it instead."""
        ...

    def stop(self, why: str) -> None:
        """Stops the machine where it is, and ends the work; nothing where there is none."""
        ...

    def operate(self, action: str) -> dict[str, Any]:
        """What a person asks of the machine; its status after it. `clear` says that what ended the work was seen. Raises UsageError, MachineError."""
        ...

    def close(self) -> None:
        """Lets go of the machine, which is left as it is."""
        ...


class Attended:
    """The attended drivers of one node. `stopped` says that the node is stopping."""

    def __init__(self, drivers: dict[str, Driver], stopped: Callable[[], bool]) -> None:
        self._drivers: dict[str, AttendedDriver] = {
            capability: driver for capability, driver in drivers.items() if isinstance(driver, AttendedDriver)
        }
        self._stopped = stopped

    def begin(self) -> None:
        """Before a job. Raises MachineError, Busy."""
        begun: list[AttendedDriver] = []
        try:
            for driver in self._drivers.values():
                driver.begin()
                begun.append(driver)
        except SnapcountError:
            for other in begun:
                other.settle(0.0)
            raise

    def pieces(self, program: Iterable[bytes]) -> Iterator[bytes]:
        """The program, as fast as the machines follow."""
        if not self._drivers:
            yield from program
            return
        for piece in program:
            for start in range(0, len(piece), PIECE_BYTES):
                self._wait(lambda driver: driver.wait_room(WAIT_S))
                yield piece[start : start + PIECE_BYTES]

    def settle(self) -> None:
        """After a job: returns when all is carried out. Raises MachineError, and HostFault when the node stops first."""
        self._wait(lambda driver: driver.settle(WAIT_S))

    def stop(self, why: str) -> None:
        """Stops every machine at its work."""
        for driver in self._drivers.values():
            driver.stop(why)

    def operate(self, capability: str, action: str) -> dict[str, Any]:
        """Raises UsageError where the capability has no machine that a person attends, and what the driver raises."""
        driver = self._drivers.get(capability)
        if driver is None:
            raise UsageError(
                f"no machine behind {capability!r} is attended by a person; there is {', '.join(sorted(self._drivers)) or 'none'}"
            )
        return driver.operate(action)

    def clear(self, capability: str) -> None:
        """A person acts on this machine, and so has seen what happened to it. Nothing where nobody attends it."""
        if capability in self._drivers:
            self._drivers[capability].operate("clear")

    def close(self) -> None:
        for driver in self._drivers.values():
            driver.close()

    def _wait(self, ready: Callable[[AttendedDriver], bool]) -> None:
        for driver in self._drivers.values():
            while not ready(driver):
                if self._stopped():
                    raise HostFault("the node is stopping: its machine goes on with the lines that its controller holds, and no further")
