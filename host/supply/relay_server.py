"""A relay over HTTP, for the children of a tier: `GET /v1/blobs/DIGEST` with ranges, the same as at a registry.

| status | when |
|---|---|
| 200, 206 | the blob, or a part of it (RFC 9110, section 14) |
| 400 | that is no digest |
| 404 | no source has it |
| 416 | the range begins behind the end |
| 502, 504 | the sources broke off or lied; they did not answer in time |
| 503 | too many ask at once; or, with `Blob-Progress`, the blob is still on its way here |
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from host.core.errors import Busy, MalformedData, NetworkError, NotServed, SnapcountError
from host.core.fleet import DIGEST
from host.core.limits import DEFAULT
from host.core.text import safe
from host.supply.cache import Blob
from host.supply.fetch import PROGRESS_HEADER
from host.supply.rate import RateLimit
from host.supply.relay import Relay, Underway

HOLD_S = 20.0  # less than the silence after which a child gives up (fetch_idle_s_max)
RETRY_AFTER_S = 2
PIECE_BYTES = 64 << 10
# A child that takes not one piece in this time is gone: at 1 kbit/s a piece takes 524 s.
PIECE_S_MAX = 900.0
GOODBYE_S_MAX = 2.0


class RelayServer:
    """Answers for one relay. `up` is the ceiling for all children together. `routes` can be added to any application; `start` serves them alone."""

    def __init__(self, relay: Relay, *, up: RateLimit | None = None, transfers_max: int = DEFAULT.relay_transfers_max) -> None:
        self._relay, self._up = relay, up or RateLimit()
        self._slots = asyncio.Semaphore(transfers_max)  # first come, first served
        self._asking = 0
        self._runner: web.AppRunner | None = None
        self.bytes_sent = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/blobs/{digest}", self._get)]

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listens, and returns the port (0 takes a free one). Raises OSError."""
        app = web.Application()
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_S_MAX)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=1024).start()
        except OSError:
            await self.stop()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self._asking += 1
        try:
            if self._asking > DEFAULT.relay_waiting_max:
                raise Busy(f"{DEFAULT.relay_waiting_max} children ask already; ask again")
            return await self._answer(request)
        except SnapcountError as error:
            return _problem(_status_of(error), error)
        finally:
            self._asking -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if not re.match(DIGEST, digest):
            raise MalformedData(f"expected sha256: and 64 hexadecimal digits, found {safe(digest, 80)}")
        found = await self._relay.blob(digest, HOLD_S)
        if isinstance(found, Underway):
            return _problem(
                503, Busy(f"{digest[:19]}…: on its way, {found.have} bytes are here; ask again"), {PROGRESS_HEADER: str(found.have)}
            )
        async with self._slot():
            return await self._send(request, found)

    async def _send(self, request: web.Request, blob: Blob) -> web.StreamResponse:
        size = len(blob.data)
        etag = f'"{blob.digest}"'
        headers = {
            "Content-Type": "application/octet-stream", "Docker-Content-Digest": blob.digest, "ETag": etag, "Accept-Ranges": "bytes",
        }  # fmt: skip
        part = _range(request, size, etag)
        if part is None:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        start, stop, status = part
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await self._stream(response, memoryview(blob.data)[start:stop])
            await response.write_eof()
        except (ConnectionError, TimeoutError):  # the child went away, or stopped reading
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _stream(self, response: web.StreamResponse, data: memoryview) -> None:
        piece_bytes = self._up.piece(PIECE_BYTES)
        for at in range(0, len(data), piece_bytes):
            piece = data[at : at + piece_bytes]
            await self._up.take(len(piece))
            async with asyncio.timeout(PIECE_S_MAX):
                await response.write(piece)
            self.bytes_sent += len(piece)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(HOLD_S):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Busy("too many children are being served; ask again") from error
        try:
            yield
        finally:
            self._slots.release()


def _range(request: web.Request, size: int, etag: str) -> tuple[int, int, int] | None:
    """Start, stop and status; None for a range that begins behind the end. What is no range of bytes is ignored, as RFC 9110, section 14.2, has it."""
    if request.headers.get("If-Range", etag) != etag:
        return 0, size, 200
    try:
        asked = request.http_range
    except ValueError:
        return 0, size, 200
    if asked.start is None and asked.stop is None:
        return 0, size, 200
    start, stop, _ = asked.indices(size)
    return (start, stop, 206) if start < stop else None


def _status_of(error: SnapcountError) -> int:
    if isinstance(error, MalformedData):
        return 400
    if isinstance(error, NotServed):
        return 404
    if isinstance(error, Busy):
        return 503
    return 504 if isinstance(error, NetworkError) and isinstance(error.__cause__, TimeoutError) else 502


def _problem(status: int, error: SnapcountError, headers: dict[str, str] | None = None) -> web.Response:
    retry = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return web.json_response({"code": error.code, "message": str(error)}, status=status, headers=retry | (headers or {}))
