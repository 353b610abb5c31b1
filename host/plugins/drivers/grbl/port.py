"""The thread that owns the serial port, or the TCP connection in its place. It carries bytes; what they mean is the session's business.

Opening must not reset the controller. Linux raises DTR when a port is opened, and boards in the manner of the Arduino reset on that edge. So DTR is
left raised for good: HUPCL is cleared at the first opening, the kernel then keeps the line up when the last descriptor closes, however the process
ends, and the next opening makes no edge. The first opening after the board was plugged in does make one, before which no job of ours can run.
"""

import os
import select
import socket
import termios
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from host.core.errors import MachineError, UsageError
from host.core.text import safe
from host.plugins.drivers.grbl.session import Session

READ_BYTES = 4096
WRITE_S_MAX = 2.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Port:
    """Connects, carries, and connects again. `changed` is the session's lock; it is notified of whatever happens."""

    def __init__(self, session: Session, changed: threading.Condition) -> None:
        self._session, self._changed = session, changed
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapcount-grbl", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to send. With the lock held."""
        if not self._stopping.is_set():
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Ends the thread and closes the port; nothing more is sent. The controller goes on with what it holds."""
        with self._changed:
            if self._stopping.is_set():
                return
            self._stopping.set()
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            try:
                serial = open_port(self._session.settings.port, self._session.settings.baud)
            except OSError as error:
                self._closed(safe(str(error)))
            else:
                tries = 0 if self._serve(serial) else tries
            self._stopping.wait(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1

    def _serve(self, serial: Any) -> bool:
        """Until the link ends; whether a controller spoke over it."""
        why = "the node closed it"
        with self._changed:
            self._session.opened(time.monotonic())
            self._changed.notify_all()
        try:
            while not self._stopping.is_set():
                self._turn(serial)
        except (OSError, MachineError) as error:  # SerialException is an OSError
            why = safe(str(error))
        except Exception as error:  # a defect ends this link, and is shown; the thread goes on
            why = f"defect: {safe(repr(error))}"
        finally:
            spoke = self._session.watch.heard_any
            with suppress(OSError):
                close_port(serial)
            self._closed(why)
        return spoke

    def _turn(self, serial: Any) -> None:
        with self._changed:
            self._session.tick(time.monotonic())
            out = self._session.take()
            wait_s = self._session.watch.next_s(time.monotonic())
        if out:
            serial.write(out)
        readable, _, _ = select.select((serial.fileno(), self._wake), (), (), wait_s)
        if self._wake in readable:
            os.eventfd_read(self._wake)
        data = serial.read(READ_BYTES) if len(readable) > (self._wake in readable) else b""
        with self._changed:
            if data:
                self._session.received(data, time.monotonic())
            else:
                self._session.quiet(time.monotonic())
            self._changed.notify_all()

    def _closed(self, why: str) -> None:
        with self._changed:
            self._session.closed(why, time.monotonic())
            self._changed.notify_all()


def open_port(url: str, baud: int) -> Any:
    """A pyserial port without waiting reads. Raises OSError."""
    import serial

    port = serial.serial_for_url(url, baudrate=baud, timeout=0, write_timeout=WRITE_S_MAX, do_not_open=True)
    local = not url.startswith("socket:")
    if local:
        port.exclusive = True  # two senders on one machine is one too many
    try:
        port.open()
        if local:
            _keep_dtr(port.fileno())
        else:
            port._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a line must not wait for the answer to the one before
    except termios.error as error:
        port.close()
        raise OSError(f"{url}: {error}") from error
    return port


def require_pyserial() -> None:
    """Raises UsageError where it is not installed."""
    if find_spec("serial") is None:
        raise UsageError("it needs pyserial: pip install 'snapcount[grbl]'")


def _keep_dtr(descriptor: int) -> None:
    attributes = termios.tcgetattr(descriptor)
    attributes[2] &= ~termios.HUPCL
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def close_port(port: Any) -> None:
    """Closes a port. pyserial leaves a socket open whose other end has gone first."""
    inner = getattr(port, "_socket", None)
    try:
        port.close()
    finally:
        if inner is not None:
            inner.close()
