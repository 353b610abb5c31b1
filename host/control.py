"""The node's control socket: HTTP on STATE/control.sock, mode 0600, for the console and for scripts of the same user.

| request | answer |
|---|---|
| `GET /v1/status` | the node's state |
| `POST /v1/hooks/NAME` (JSON request, bytes in base64) | the hook's answer: one reply, or a list from every plugin that answered |
| `POST /v1/jobs?run=0|1&settings=JSON` (G-code) | the report of `plan_job` |
| `POST /v1/attest` (nonce bytes) | the signed attestation |
| `POST /v1/safety/trip` (reason) | enters safe mode |
| `POST /v1/safety/reset` (signed reset) | leaves it |
| `POST /v1/pull` (JSON: reference, login) | the skill that was fetched from an OCI registry and installed |
| `POST /v1/rollback/NAME` | `{"version": …}` |
| `POST /v1/remove/NAME` | `{"removed": …}` |

What happens, as it happens, and trials are in host/events.py; those of the machine are in host/machine_routes.py; those of the mesh, and what an error looks
like, in host/mesh_routes.py.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from aiohttp import web

from host.core import files
from host.core.errors import TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.events import Events
from host.machine_routes import machine_routes
from host.mesh_routes import mesh_routes, serve_control, stop_control
from host.meshlink import MeshLink
from host.node import Node, request_of
from host.plugins.contract import PlanSettings
from host.plugins.streaming import with_tail
from host.recording import Recording

PIECE_BYTES = 256 << 10


class _Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reference: str
    login: str = ""


class ControlServer:
    """Serves one node. `start` and `stop` bracket it."""

    def __init__(self, node: Node, state: Path, mesh: MeshLink | None = None, recorded: Recording | None = None) -> None:
        self._node, self._state, self._mesh, self._recorded = node, state, mesh, recorded
        self._events = Events(node)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        routes = [
            web.get("/v1/status", self._status), web.post("/v1/hooks/{name}", self._hook), web.post("/v1/jobs", self._job),
            web.post("/v1/attest", self._attest), web.post("/v1/safety/trip", self._trip), web.post("/v1/safety/reset", self._reset),
            web.post("/v1/pull", self._pull), web.post("/v1/rollback/{name}", self._rollback), web.post("/v1/remove/{name}", self._remove),
        ]  # fmt: skip
        routes += self._events.routes() + machine_routes(self._node) + mesh_routes(self._mesh.peer if self._mesh else None)
        self._runner = await serve_control(self._state, routes)

    async def stop(self) -> None:
        self._events.close()
        if self._runner is not None:
            await stop_control(self._state, self._runner)

    async def _status(self, request: web.Request) -> web.Response:
        status = await asyncio.to_thread(self._node.status)
        recorded = self._recorded.status() if self._recorded else None
        return web.json_response(status | {"mesh": self._mesh.status() if self._mesh else None, "recording": recorded})

    async def _hook(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _json(await self._node.call(name, request_of(name, await request.read())))

    async def _job(self, request: web.Request) -> web.Response:
        settings = _settings(request.query.get("settings", "{}"))
        with _spool(self._state) as spooled:
            size = 0
            async for piece in request.content.iter_chunked(PIECE_BYTES):
                size += len(piece)
                if size > DEFAULT.program_bytes_max:
                    raise TooLarge(f"a program has at most {DEFAULT.program_bytes_max} bytes")
                spooled.write(piece)

            settings = with_tail(settings, spooled)

            def program() -> Iterator[bytes]:
                spooled.seek(0)
                return iter(lambda: spooled.read(PIECE_BYTES), b"")

            if request.query.get("run") == "1":
                return _json(await self._node.run_job(program, settings))
            return _json(await self._node.plan(program(), settings))

    async def _attest(self, request: web.Request) -> web.Response:
        nonce = await request.read()
        if not 8 <= len(nonce) <= 64:
            raise UsageError(f"a nonce has 8 to 64 bytes, not {len(nonce)}")
        return web.Response(body=await asyncio.to_thread(self._node.attest, nonce))

    async def _trip(self, request: web.Request) -> web.Response:
        reason = safe(await request.read()) or "asked for by a person"
        await asyncio.to_thread(self._node.envelope.trip, reason, self._node.clock.now_ms())
        return web.json_response({"safe_mode": reason})

    async def _reset(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(self._node.envelope.reset, await request.read())
        return web.json_response({"safe_mode": None})

    async def _pull(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Pull)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"expected reference and login as JSON: {safe(str(error))}") from error
        return _json(await self._node.pull(asked.reference, asked.login))

    async def _rollback(self, request: web.Request) -> web.Response:
        return web.json_response({"version": await self._node.roll_back(request.match_info["name"])})

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        await self._node.take_off(name)
        return web.json_response({"removed": name})


@contextmanager
def _spool(state: Path) -> Iterator[BinaryIO]:
    """A file for a program. Closing it writes what is left, so a full disk may show only then."""
    try:
        with tempfile.TemporaryFile(dir=state) as spooled:
            yield spooled
    except ConnectionError:
        raise
    except OSError as error:
        raise files.storage_error(error, f"the program cannot be spooled to {state}") from error


def _settings(text: str) -> PlanSettings:
    try:
        return msgspec.json.decode(text, type=PlanSettings)
    except msgspec.DecodeError as error:
        raise UsageError(f"settings: {safe(str(error))}") from error


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
