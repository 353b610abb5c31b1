"""The console's side of a node's control socket: plain HTTP over STATE/control.sock, blocking, for a command line."""

import http.client
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from host.core.errors import NetworkError, SnapcountError, UsageError
from host.core.text import safe

SOCKET = "control.sock"
TIMEOUT_S = 600.0
JOB_S_MAX = 14 * 86_400.0  # a machine takes as long as it takes
ANSWER_BYTES_MAX = 64 << 20
EVENT_S_MAX = 15.0
"""A node that is alive says so once a second."""


class ControlRefused(SnapcountError):
    """The node answered with an error; `code` and `exit_code` are the node's."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(safe(str(answer.get("message", "the node refused"))))
        self.code = str(answer.get("code", "refused"))
        self.exit_code = int(answer.get("exit_code", 1))


class NodeControl:
    """Speaks to the node that runs in `state`."""

    def __init__(self, state: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._state, self._timeout_s = state, timeout_s

    def get(self, path: str) -> Any:
        """A JSON answer."""
        return json.loads(self._ask("GET", path, None))

    def post(self, path: str, body: bytes | Iterable[bytes] = b"") -> Any:
        """Sends a body, and returns the JSON answer."""
        return json.loads(self._ask("POST", path, body))

    def post_raw(self, path: str, body: bytes) -> bytes:
        """Sends a body, and returns the answer's bytes."""
        return self._ask("POST", path, body)

    def job(self, program: Iterable[bytes], settings: dict[str, Any], run: bool) -> dict[str, Any]:
        """Plans a program, and with `run` drives the machine; the report."""
        patient = NodeControl(self._state, JOB_S_MAX) if run else self
        report: dict[str, Any] = patient.post(f"/v1/jobs?run={int(run)}&settings={quote(json.dumps(settings))}", program)
        return report

    def events(self, path: str) -> "EventStream":
        """Watches a stream of events until it is closed. Raises NetworkError, and what the node refuses with."""
        return EventStream(self._state, path)

    def _ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None) -> bytes:
        connection = _UnixConnection(self._state, self._timeout_s)
        try:
            connection.request(method, path, body=body, encode_chunked=not isinstance(body, bytes | None))
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES_MAX)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NetworkError(
                f"{self._state}: no node is running there; start it with `snapcount node run --state {self._state}`"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{self._state}: the node broke off: {safe(str(error) or type(error).__name__)}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, answer)
        return answer


def _refusal(status: int, answer: bytes) -> SnapcountError:
    try:
        said = json.loads(answer)
    except ValueError:
        return UsageError(f"the node answered {status}: {safe(answer[:200])}")
    return ControlRefused(said)


class EventStream:
    """One JSON object a line, as the node tells them; those that only say that it is alive are left out. `close` may come from another thread."""

    def __init__(self, state: Path, path: str) -> None:
        self._state, self._connection, self._closed = state, _UnixConnection(state, EVENT_S_MAX), False
        try:
            self._connection.request("GET", path)
            self._response = self._connection.getresponse()
            if self._response.status >= 400:
                raise _refusal(self._response.status, self._response.read(ANSWER_BYTES_MAX))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NetworkError(f"{state}: no node answers there; start it with `snapcount node run --state {state}`") from error
        except SnapcountError:
            self._connection.close()
            raise

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Ends when it is closed. Raises NetworkError when the node ends it, or says nothing for too long."""
        while True:
            try:
                line = self._response.readline(ANSWER_BYTES_MAX)
                event = json.loads(line)
            except (OSError, ValueError, AttributeError, http.client.HTTPException):  # nothing, or a line that breaks off
                event = None
            if self._closed:
                return
            if event is None:
                self.close()
                raise NetworkError(f"{self._state}: the node ended what was watched; it stops, or has stopped")
            if event.get("event") != "alive":
                yield event

    def close(self) -> None:
        """Ends the stream, also while another thread waits for it."""
        self._closed = True
        if self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._response.close()
        self._connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, state: Path, timeout_s: float) -> None:
        super().__init__("node", timeout=timeout_s)
        self._directory, self._timeout_s = state, timeout_s

    def connect(self) -> None:
        # A socket's path has at most 107 bytes; through the directory's descriptor it is short wherever STATE is.
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self._timeout_s)
            self.sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
