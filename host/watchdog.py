"""Tells the service manager how this node does: datagrams to the socket in $NOTIFY_SOCKET, as sd_notify(3) describes. Elsewhere it does nothing."""

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

SOCKET, USEC, PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
BEATS_PER_PERIOD = 4  # three may be lost or late


class Watchdog:
    """Takes its variables out of `environment`, so that no child speaks in this process's name. `beat` is cheap: call it as often as you like."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address, period_us, meant = (environment.pop(name, "") for name in (SOCKET, USEC, PID))
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @ is how an abstract socket is written
        # Absent WATCHDOG_PID means whoever reads it (sd_watchdog_enabled(3)).
        watched = period_us.isdecimal() and meant in ("", str(os.getpid()))
        self._every_s = int(period_us) / 1e6 / BEATS_PER_PERIOD if watched else None
        self._last_s = float("-inf")

    def ready(self, status: str) -> None:
        """The node has started; `status` is one line for `systemctl status`."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def beat(self) -> None:
        """This process does its work. The manager that hears none for its whole period (WatchdogSec) kills and restarts it."""
        now_s = time.monotonic()
        if self._every_s is not None and now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason for a node to stop, nor to wait.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sending:
            sending.sendto(state.encode(), self._address)
