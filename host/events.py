"""What happens on a node, as it happens: calls of skills, their logs and refused commands, for who watches at the control socket.

| request | answer |
|---|---|
| `GET /v1/events` | one JSON object a line for as long as the connection lasts |
| `GET /v1/events?trial=NAME` | the same, with the calls of NAME alone; and while it lasts, versions of NAME may be tried out |
| `POST /v1/trials/NAME` (a signed bundle) | `{"version": …, "digest": …}`: it runs now, in memory, until that connection ends |

Events are `watching` (first; the active skills), `call`, `skills` (others are active now), `dropped` (so many calls were not told, because the watcher was
slow) and `alive` (once a second, so that both ends notice when the other is gone). A watcher costs the calls a few microseconds each; without one nothing.
One that does not read is cut off, and its trial ends.
"""

import asyncio
import base64
import json
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from aiohttp import web

from host.core import cbor
from host.core.bundle import digest_of
from host.core.errors import Busy, Refused, SnapcountError, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.node import Node
from host.plugins.observed import Call
from host.sandbox.imports import LEVELS

ALIVE_S = 1.0
WRITE_S_MAX = 5.0
CALLS_A_TURN = 16
"""So many are put into words before the event loop gets on: some milliseconds."""
LOG, ASK = "log", "call"


class Events:
    """The watchers of one node, and the trials that last as long as they do."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watchers: dict[_Watcher, web.Request] = {}
        self._trying: set[str] = set()
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/events", self._watch), web.post("/v1/trials/{name}", self._try_out)]

    def close(self) -> None:
        """Ends every stream: the node stops."""
        self._closing.set()
        for watcher, request in self._watchers.items():
            watcher.wake()
            if request.transport is not None and request.transport.get_write_buffer_size():
                request.transport.abort()  # it does not read: its end would be waited for

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if len(self._watchers) >= DEFAULT.watchers_max:
            raise Busy(f"{self._node.name}: {len(self._watchers)} are watching already, no more can")
        name = request.query.get("trial", "")
        if name:
            self._claim(name)
        watcher = _Watcher(asyncio.get_running_loop())
        self._watchers[watcher] = request
        unobserve = self._node.manager.observe(watcher.told, lambda version, hook: name in ("", version.name))
        try:
            return await self._stream(request, watcher)
        finally:
            unobserve()
            del self._watchers[watcher]
            if name:
                # Whoever waits for this may be gone: the trial ends all the same.
                await asyncio.shield(self._end(name))

    async def _stream(self, request: web.Request, watcher: "_Watcher") -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        active = self._active()
        with suppress(ConnectionError):
            await _write(request, response, _line({"event": "watching", "node": self._node.name, "skills": active}))
            while not self._closing.is_set():
                calls, dropped = await watcher.next(ALIVE_S)
                lines = [_line(described(call)) for call in calls]
                if dropped:
                    lines.append(_line({"event": "dropped", "count": dropped}))
                now = self._active()
                if now != active:
                    active = now
                    lines.append(_line({"event": "skills", "skills": active}))
                await _write(request, response, b"".join(lines) or _line({"event": "alive"}))
                await asyncio.sleep(0)  # nothing above waits where there is more to tell, and room for it
        return response

    async def _try_out(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._trying:
            raise UsageError(f"{safe(name, 64)}: nobody watches its trial; open /v1/events?trial={safe(name, 64)} first, and keep it open")
        data = await _body(request)
        try:
            version = await self._node.try_out(name, data, digest_of(data))
        finally:
            if name not in self._trying:  # whoever watched has gone meanwhile
                await self._end(name)
        for watcher in self._watchers:
            watcher.wake()
        return web.json_response({"version": version.skill.manifest.version, "digest": version.digest})

    def _claim(self, name: str) -> None:
        self._node.require_trials()
        if name in self._trying:
            raise Refused(f"{safe(name, 64)}: somebody tries versions of it out on {self._node.name} already")
        self._trying.add(name)

    async def _end(self, name: str) -> None:
        self._trying.discard(name)  # at once: what is sent from now on is refused, and what was sent before finds that nobody watches
        try:
            await self._node.end_trial(name)
        except SnapcountError as error:
            self._node.log("error", f"the trial of {name} could not be ended: {error}")

    def _active(self) -> list[dict[str, str]]:
        return [{"name": skill.name, "version": skill.version, "digest": skill.digest} for skill in self._node.skills()]


class _Watcher:
    """A bounded queue between the threads of calls and one stream. What does not fit is counted, and the oldest is kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._woken = loop, asyncio.Event()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Call, int]] = deque()
        self._bytes, self._dropped = 0, 0

    def told(self, call: Call) -> None:
        """A call ended; on its thread."""
        size = call.size
        with self._lock:
            if len(self._calls) >= DEFAULT.watched_calls_max or self._bytes + size > DEFAULT.watched_bytes_max:
                self._dropped += 1
                return
            first = not self._calls
            self._calls.append((call, size))
            self._bytes += size
        if first:
            with suppress(RuntimeError):  # the loop is closed: nobody watches any more
                self._loop.call_soon_threadsafe(self._woken.set)

    def wake(self) -> None:
        """Has `next` return now; on the loop's thread."""
        self._woken.set()

    async def next(self, timeout_s: float) -> tuple[list[Call], int]:
        """Calls that have ended since, the oldest `CALLS_A_TURN`, at the latest after a while, and how many were dropped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        self._woken.clear()
        with self._lock:
            taken = [self._calls.popleft() for _ in range(min(len(self._calls), CALLS_A_TURN))]
            self._bytes -= sum(size for _, size in taken)
            dropped, self._dropped = self._dropped, 0
            if self._calls:
                self._woken.set()
        return [call for call, _ in taken], dropped


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Raises ConnectionError, also where the other end does not read."""
    try:
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError("who watches does not read") from None


def described(call: Call) -> dict[str, Any]:
    """A call as JSON: its request and reply as values, bytes in base64; what is long only by its size."""
    return {
        "event": "call", "at_ms": call.began_ms, "skill": call.skill, "version": call.version, "hook": call.hook,
        "request": _shown(call.request), "reply": None if call.reply is None else _shown(call.reply), "error": call.skill_code or call.error,
        "detail": call.detail, "took_us": call.took_us, "fuel": call.fuel, "host_calls": len(call.host_calls), "whole": call.whole,
        "logs": [_log(*one.asked) for one in call.host_calls if one.name == LOG], "refusals": _refusals(call),
    }  # fmt: skip


def _log(level: Any, line: Any) -> dict[str, str]:
    return {"level": LEVELS[level] if 0 <= level < len(LEVELS) else LEVELS[-1], "line": safe(line, DEFAULT.log_line_bytes_max)}


def _refusals(call: Call) -> list[dict[str, Any]]:
    """Commands that came back with an error: the safety envelope's reason, or the driver's."""
    found = []
    for one in call.host_calls:
        if one.name == ASK and one.failed and isinstance(one.answer, bytes):
            answer = _shown(one.answer)
            said = answer if isinstance(answer, dict) else {}
            found.append({
                "capability": safe(one.asked[0] if isinstance(one.asked[0], bytes) else "", 64), "code": str(said.get("code", "")),
                "message": str(said.get("message", "")),
            })  # fmt: skip
    return found


def _shown(raw: bytes) -> Any:
    if len(raw) > DEFAULT.watched_value_bytes_max:
        return {"bytes": len(raw)}
    try:
        return cbor.decode(raw, "event")
    except SnapcountError:
        return {"bytes": len(raw)}


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, default=_plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


async def _body(request: web.Request) -> bytes:
    """A bundle: longer than what the socket takes otherwise."""
    data = bytearray()
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > DEFAULT.bundle_bytes_max:
            raise UsageError(f"a bundle has at most {DEFAULT.bundle_bytes_max} bytes")
    return bytes(data)
