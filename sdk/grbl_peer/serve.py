"""Puts a controller behind a pseudo-terminal or a TCP port, on a thread of its own; and pulls its cable."""

import os
import select
import socket
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from sdk.grbl_peer.firmware import Firmware

READ_BYTES = 4096
IDLE_S = 0.5
READER_S = 0.2


class Cable(Protocol):
    """How the other end reaches the controller. `plug` and `pull` may come again and again."""

    url: str

    def plug(self) -> None: ...

    def pull(self) -> None: ...

    def read(self, wait_s: float, wake: int) -> bytes:
        """What came; after `wait_s` seconds, or when `wake` becomes readable, nothing."""
        ...

    def write(self, data: bytes) -> None: ...


class PtyCable:
    """A pseudo-terminal, under a name that stays when its device changes, as udev gives one."""

    def __init__(self, link: Path) -> None:
        self.url = str(link)
        self._link = link
        self._master = self.slave = -1

    def plug(self) -> None:
        self._master, self.slave = os.openpty()
        tty.setraw(self.slave)  # else the terminal would echo the controller's own words to it
        os.set_blocking(self._master, False)
        fresh = self._link.with_name(f"{self._link.name}.new")
        fresh.symlink_to(os.ttyname(self.slave))
        fresh.replace(self._link)

    def pull(self) -> None:
        for descriptor in (self._master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self.slave = -1
        self._link.unlink(missing_ok=True)

    def read(self, wait_s: float, wake: int) -> bytes:
        ready, _, _ = select.select([d for d in (self._master, wake) if d >= 0], (), (), wait_s)
        if self._master not in ready:
            return b""
        with suppress(OSError):
            return os.read(self._master, READ_BYTES)
        return b""

    def write(self, data: bytes) -> None:
        while data and self._master >= 0:
            _, writable, _ = select.select((), (self._master,), (), READER_S)
            if not writable:
                return  # nobody reads, and a serial line does not wait for anybody
            data = data[os.write(self._master, data) :]


class TcpCable:
    """A TCP port in the place of a serial line, for one client at a time."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self.url = ""

    def plug(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(1)
        self._listener, self._port = listener, listener.getsockname()[1]
        self.url = f"socket://127.0.0.1:{self._port}"

    def pull(self) -> None:
        for end in (self._client, self._listener):
            if end is not None:
                end.close()
        self._client = self._listener = None

    def read(self, wait_s: float, wake: int) -> bytes:
        end = self._client or self._listener
        ready, _, _ = select.select([wake] if end is None else [end.fileno(), wake], (), (), wait_s)
        if end is None or end.fileno() not in ready:
            return b""
        if self._client is not None:
            with suppress(OSError):
                data = self._client.recv(READ_BYTES)
                if data:
                    return data
            self._client.close()
            self._client = None
        elif self._listener is not None:
            self._client, _ = self._listener.accept()
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return b""

    def write(self, data: bytes) -> None:
        if self._client is not None:
            with suppress(OSError):
                self._client.sendall(data)


class Peer:
    """A running controller; `with Peer(...)` ends it. `firmware` is to be touched through `do` only."""

    def __init__(self, firmware: Firmware, cable: Cable) -> None:
        self.firmware, self.cable = firmware, cable
        self.silent = False
        """Whether the line is dead though nobody hung up: what comes is lost, and nothing is said."""
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ending = False
        cable.plug()
        self._thread = threading.Thread(target=self._serve, name="grbl-peer", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self.cable.pull()
        os.close(self._wake)

    def do(self, act: Callable[[Firmware, float], None]) -> None:
        """Has something happen to the controller, now."""
        with self._lock:
            act(self.firmware, time.monotonic())
        os.eventfd_write(self._wake, 1)

    def say(self, data: bytes) -> None:
        """Puts bytes on the line that no controller would send."""
        self.do(lambda firmware, _: firmware.out.extend(data))

    def unplug(self) -> None:
        """Pulls the cable."""
        with self._lock:
            self.cable.pull()
        os.eventfd_write(self._wake, 1)

    def plug(self, *, powered: bool) -> None:
        """Puts the cable back. A board that gets its power over it starts anew."""
        with self._lock:
            self.cable.plug()
            if not powered:
                self.firmware.power_on(time.monotonic())
        os.eventfd_write(self._wake, 1)

    def _serve(self) -> None:
        while not self._ending:
            with self._lock:
                now_s = time.monotonic()
                self.firmware.run(now_s)
                out = b"" if self.silent else bytes(self.firmware.out)
                self.firmware.out.clear()
                wait_s = min(self.firmware.next_s(now_s), IDLE_S)
                if out:
                    self.cable.write(out)
            data = self._read(wait_s)
            if data and not self.silent:
                with self._lock:
                    self.firmware.receive(data, time.monotonic())

    def _read(self, wait_s: float) -> bytes:
        try:
            data = self.cable.read(wait_s, self._wake)
        except (OSError, ValueError):  # the cable was pulled while it was waited for
            return b""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return data
