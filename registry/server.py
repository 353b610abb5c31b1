"""The registry as an HTTP server: keeps bundles, serves them by digest, announces them to the nodes that are connected.

| request | answer |
|---|---|
| `POST /v1/bundles` (bytes) | 201 and the announcement as JSON; the bundle is kept, nobody is told |
| `POST /v1/announcements` `{"digest": …}` | 202 and `{"announced": …, "nodes": n}`; every connected node is told, and every node that connects later |
| `DELETE /v1/announcements/NAME` | `{"withdrawn": …}`; no node is told of that skill any more, and those that run it go on |
| `GET /v1/blobs/DIGEST` | the bytes, with ranges |
| `GET /v1/fleet` | the nodes and what they last reported |
| `GET /v1/nodes` (WebSocket) | a node's link: see host/core/fleet.py |

An error is `{"code": …, "message": …}` with a status of 4xx or 5xx.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from nacl.signing import VerifyKey

from host.core import cbor, fleet
from host.core.clock import Clock
from host.core.errors import HostFault, SnapcountError, StorageFull, TooLarge, UsageError
from host.core.fleet import Announcement, Challenge, Hello
from host.core.limits import DEFAULT
from host.core.text import safe
from registry.fleet import Fleet
from registry.store import BundleStore

HELLO_S_MAX = 10.0
HEARTBEAT_S = 20.0
SEND_S_MAX = 10.0
GOODBYE_S_MAX = 2.0  # how long a registry that stops waits for its nodes to close
REASON_BYTES_MAX = 120  # RFC 6455, section 5.5: a control frame has at most 125, two of them the code
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Announce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: fleet.Digest


@dataclass(frozen=True)
class _Link:
    """A node's socket, and the transport under it."""

    socket: web.WebSocketResponse
    transport: asyncio.WriteTransport | None

    async def tell(self, announcement: Announcement) -> None:
        """Cuts off a node that does not read; it is told again when it comes back."""
        try:
            async with asyncio.timeout(SEND_S_MAX):
                await self.socket.send_bytes(cbor.encode(announcement))
        except (TimeoutError, ConnectionError):
            if self.transport is not None:
                self.transport.abort()  # a close frame would wait behind what the node does not read


class RegistryServer:
    """The application and its state; `app` goes to an aiohttp runner."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        log: Callable[[str, str], None],
        authorities: tuple[VerifyKey, ...] = (),
        revoked: frozenset[bytes] = frozenset(),
    ) -> None:
        self._store = BundleStore(directory)
        self._fleet = Fleet(authorities, revoked)
        self._links: dict[str, _Link] = {}
        self._open: set[web.WebSocketResponse] = set()  # those that have not said hello are among them
        self._clock, self._log = clock, log
        self.app = web.Application(middlewares=[_errors], client_max_size=DEFAULT.bundle_bytes_max)
        self.app.add_routes([
            web.post("/v1/bundles", self._upload), web.post("/v1/announcements", self._announce), web.delete("/v1/announcements/{name}", self._withdraw), web.get("/v1/blobs/{digest}", self._blob),
            web.get("/v1/fleet", self._status), web.get("/v1/nodes", self._node),
        ])  # fmt: skip
        self.app.on_shutdown.append(self._hang_up)

    async def _upload(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > DEFAULT.bundle_bytes_max:
            raise TooLarge(f"a bundle has at most {DEFAULT.bundle_bytes_max} bytes, this one has {request.content_length}")
        data = await request.read()
        kept = await asyncio.to_thread(self._store.add, data)
        self._log("info", f"kept {kept.name} {kept.version} {kept.digest[:19]}")
        return web.json_response(msgspec.to_builtins(kept), status=201)

    async def _announce(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=_Announce)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f'expected {{"digest": "sha256:…"}}: {safe(str(error))}') from error
        announcement = await asyncio.to_thread(self._store.announce, wanted.digest)
        links = [
            self._links[name]
            for name, row in self._fleet.rows.items()
            if name in self._links and self._fleet.wants(row, announcement.name, announcement.digest)
        ]
        await asyncio.gather(*(link.tell(announcement) for link in links))
        self._log("info", f"announced {announcement.name} {announcement.version} to {len(links)} nodes")
        return web.json_response({"announced": msgspec.to_builtins(announcement), "nodes": len(self._links)}, status=202)

    async def _withdraw(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        await asyncio.to_thread(self._store.withdraw, name)
        self._log("info", f"withdrew {name}")
        return web.json_response({"withdrawn": name})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if not re.match(fleet.DIGEST, digest):
            raise UsageError(f"expected sha256: and 64 hexadecimal digits, found {digest[:80]!r}")
        path = self._store.path(digest)
        if not path.exists():
            raise web.HTTPNotFound(text=f"{digest} is not here")
        return web.FileResponse(path, headers={"Content-Type": "application/wasm", "Docker-Content-Digest": digest})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response({
            "nodes": [row.as_dict() for _, row in sorted(self._fleet.rows.items())],
            "announced": [msgspec.to_builtins(a) for _, a in sorted(self._store.announced.items())],
        })  # fmt: skip

    async def _node(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._open) >= DEFAULT.nodes_connected_max:
            raise HostFault(f"{DEFAULT.nodes_connected_max} nodes are connected; this registry takes no more")
        socket = web.WebSocketResponse(max_msg_size=DEFAULT.frame_bytes_max, heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        self._open.add(socket)
        try:
            await self._serve(_Link(socket, request.transport))
        except SnapcountError as error:
            self._log("warning", f"a node was sent away: {error}")
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=_reason(str(error)))
        except (TimeoutError, ConnectionError):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"no hello in time")
        finally:
            self._open.discard(socket)
        return socket

    async def _serve(self, link: _Link) -> None:
        socket = link.socket
        nonce = secrets.token_bytes(fleet.NONCE_BYTES)
        await socket.send_bytes(cbor.encode(Challenge(nonce=nonce)))
        first = await socket.receive(timeout=HELLO_S_MAX)
        if first.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
            return
        frame, key = fleet.open_sealed(_binary(first))
        if not isinstance(frame, Hello):
            raise UsageError("expected a hello as the first frame")
        row = self._fleet.hello(frame, key, nonce, self._clock.now_ms() // 1000)
        self._links[frame.node] = link
        self._log("info", f"{frame.node} connected")
        try:
            for announcement in self._store.announced.values():
                if self._fleet.wants(row, announcement.name, announcement.digest):
                    await link.tell(announcement)
            async for message in socket:
                self._fleet.report(row, *fleet.open_sealed(_binary(message)))
        finally:
            if self._links.get(frame.node) is link:
                del self._links[frame.node]
                row.connected = False
                self._log("info", f"{frame.node} disconnected")

    async def _hang_up(self, app: web.Application) -> None:
        closing = [asyncio.ensure_future(socket.close(code=WSCloseCode.GOING_AWAY)) for socket in self._open]
        if closing:
            await asyncio.wait(closing, timeout=GOODBYE_S_MAX)


def _binary(message: WSMessage) -> bytes:
    if message.type is not WSMsgType.BINARY:
        raise UsageError(f"expected binary frames of at most {DEFAULT.frame_bytes_max} bytes only")
    return bytes(message.data)


def _reason(message: str) -> bytes:
    # Cut between two characters: a close frame with half of one is itself an error.
    return message.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _problem(error.status, "http_error", error.text or error.reason)
    except SnapcountError as error:
        return _problem(_status_of(error), error.code, str(error))
    except ConnectionError:
        return _problem(400, "network_error", "the request broke off")  # nobody reads it, but it ends here


def _status_of(error: SnapcountError) -> int:
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, StorageFull):
        return 507
    return 503 if isinstance(error, HostFault) else 400


def _problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


async def serve(server: RegistryServer, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until cancelled; `ready` gets the address once it listens (port 0 takes a free one)."""
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=GOODBYE_S_MAX)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        address = runner.addresses[0]
        ready(f"http://{address[0]}:{address[1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
