"""`grbl`: a machine with a Grbl 1.1 controller, on a serial line or behind TCP, with the capability `motion`. docs/grbl.md tells how to wire it.

| module | concept |
|---|---|
| `machine.py` | the driver that the node has |
| `port.py` | the thread that owns the port |
| `session.py`, `report.py`, `job.py` | one controller: its states, why it may not move, how far the work came |
| `handshake.py`, `watch.py` | what is at the other end; whether it still speaks |
| `stream.py` | character counting |
| `gcode.py` | commands as lines |
| `protocol.py`, `codes.py` | what a controller says |
| `settings.py` | the owner's settings, and the controller's |
"""

from collections.abc import Mapping
from typing import Any

from host.core.safety import SafetyLimits
from host.plugins.driver import Driver
from host.plugins.drivers.grbl.machine import GrblMachine
from host.plugins.drivers.grbl.port import require_pyserial
from host.plugins.drivers.grbl.settings import read_settings
from host.plugins.hookspecs import hookimpl


@hookimpl
def offer_drivers(settings: Mapping[str, Any], limits: SafetyLimits) -> list[Driver]:
    """The machine connects by itself, now or when it is switched on; the node does not wait for it."""
    require_pyserial()
    return [GrblMachine(read_settings(settings), limits)]
