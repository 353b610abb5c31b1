"""The mesh over WebSocket (RFC 6455): many links in one process, each with a bounded outbox, so that a slow peer costs no more than that.

A link ends with one reason, given once to `closed`: the one that was passed to `close` here; `closed by the other end: …`; `too_large: …` or
`malformed_data: …` for what a peer may not send; `connection lost` where nobody said goodbye.
"""

import asyncio
import logging
import socket as sockets
import ssl as tls
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.http import HttpProcessingError, WebSocketWriter
from yarl import URL

from host.core.errors import MalformedData, NetworkError, TooLarge
from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.link import Receiver
from host.mesh.outbox import Outbox

PATH = "/v1/mesh"
BACKLOG = 4096
DIALS_AT_ONCE_MAX = 100
GOODBYE_S = 2.0  # to send what is queued, and to hear the other end's goodbye
HANDSHAKE_S_MAX = DEFAULT.handshake_ms_max / 1000
WRITE_BYTES_HIGH = 64 << 10  # what may wait below the outbox, where a frame of priority 3 cannot overtake it
WRITE_BYTES_LOW = 16 << 10
TURN_FRAMES = 16
REASON_BYTES_MAX = 120  # RFC 6455, section 5.5: a control frame has at most 125, two of them the code

Admits = Callable[[str], bool]
_LOG = logging.getLogger(__name__)
_LOG.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))  # strangers' bad HTTP


class _Accepted(web.WebSocketResponse):
    """The listening side's socket. aiohttp also closes it itself, while it receives; to drain a peer that does not read would take forever."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        return await super().close(code=code, message=message, drain=False)


class _Dialled(aiohttp.ClientWebSocketResponse):
    """The dialling side's socket. aiohttp takes no limit for a client's writer, and would have 256 KiB wait for the peer."""

    def __init__(self, reader: Any, writer: WebSocketWriter, *args: Any, **kwargs: Any) -> None:
        super().__init__(reader, WebSocketWriter(writer.protocol, writer.transport, use_mask=True, limit=WRITE_BYTES_HIGH), *args, **kwargs)
        self.transport = writer.transport


class WebSocketLink:
    """Implements `host.mesh.link.Link`."""

    __slots__ = ("_ending", "_flusher", "_outbox", "_reason", "_socket", "_transport", "peer", "task")
    reliable = True

    def __init__(self, socket: _Accepted | _Dialled, transport: asyncio.WriteTransport, peer: str) -> None:
        self.peer, self.task = peer, asyncio.current_task()
        self._socket, self._transport, self._outbox = socket, transport, Outbox()
        self._reason: str | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        transport.set_write_buffer_limits(WRITE_BYTES_HIGH, WRITE_BYTES_LOW)
        if not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, WRITE_BYTES_HIGH)

    @property
    def dropped(self) -> list[int]:
        """How many frames were given up because the peer is slow, by priority."""
        return self._outbox.dropped

    def send(self, frame: bytes, priority: int) -> bool:
        if self._reason is not None:
            return False
        if self._flusher is None and self._transport.get_write_buffer_size() + len(frame) < WRITE_BYTES_LOW:
            return self._send_now(frame)
        kept = self._outbox.push(frame, priority)
        if kept and self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return kept

    def close(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._ending = asyncio.get_running_loop().create_task(self._say_goodbye(WSCloseCode.OK, reason))

    async def serve(self, receiver: Receiver, links: set["WebSocketLink"]) -> None:
        """Until the link has ended: hands frames to `receiver`, and at last the reason. Meanwhile it is in `links`."""
        links.add(self)
        try:
            receiver.opened(self)
            code, reason = await self._receive(receiver)
            if self._reason is None:
                self._reason = reason
                await self._say_goodbye(code, "")
            elif self._ending is not None:
                await self._ending
        except Exception as error:
            self._reason = self._reason or f"defect: {safe(repr(error))}"
            asyncio.get_running_loop().call_exception_handler({"message": f"the receiver of {self.peer} failed", "exception": error})
        finally:
            links.discard(self)
            self._transport.abort()
            for task in filter(None, (self._flusher, self._ending)):
                task.cancel()
            self._outbox.clear()
            self._reason = self._reason or "cancelled"
            receiver.closed(self, self._reason)

    async def _receive(self, receiver: Receiver) -> tuple[int, str]:
        turn = 0
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if self._reason is None:
                    receiver.received(self, message.data)
            elif message.type is WSMsgType.PING:
                with suppress(ConnectionError, aiohttp.ClientError):  # the next receive tells how it ended
                    await self._socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return _ending(message)
            turn += 1
            if turn % TURN_FRAMES == 0:
                await asyncio.sleep(0)  # frames that are already here are received without ever waiting: others want a turn

    def _send_now(self, frame: bytes) -> bool:
        """Spares the task when there is nothing to wait for, which halves what an echo costs: aiohttp waits only above WRITE_BYTES_HIGH."""
        sending = self._socket.send_bytes(frame)
        try:
            sending.send(None)
        except (StopIteration, ConnectionError, aiohttp.ClientError):
            return True  # sent, or lost with the connection
        raise AssertionError("expected a socket that takes this frame at once, found one that waits")

    async def _flush(self) -> None:
        with suppress(ConnectionError, aiohttp.ClientError):  # the receiving side notices too, and tells
            while (frame := self._outbox.pop()) is not None:
                await self._socket.send_bytes(frame)
        self._flusher = None

    async def _say_goodbye(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, ConnectionError, aiohttp.ClientError):
            async with asyncio.timeout(GOODBYE_S):
                if self._flusher is not None:
                    await self._flusher
                # Cut between two characters: a close frame with half of one is itself an error.
                message = reason.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode(errors="ignore").encode()
                await self._socket.close(code=code, message=message)
        self._transport.abort()


def _ending(message: WSMessage) -> tuple[int, str]:
    """What to close with, and what to say of it here."""
    match message.type, message.data:
        case WSMsgType.TEXT, _:
            return WSCloseCode.UNSUPPORTED_DATA, f"{MalformedData.code}: expected binary frames only, found a text frame"
        case WSMsgType.CLOSE, code:
            return WSCloseCode.OK, f"closed by the other end: {safe(message.extra or f'code {code}')}"
        case WSMsgType.ERROR, aiohttp.WebSocketError() as error:
            kind = TooLarge if error.code == WSCloseCode.MESSAGE_TOO_BIG else MalformedData
            return error.code, f"{kind.code}: {safe(str(error))}"
        case _:
            return WSCloseCode.ABNORMAL_CLOSURE, "connection lost"


class Listener:
    """A port, and who receives at which path of it. Another path gets 404, whom `admits` refuses gets 503."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._receivers: dict[str, tuple[Receiver, Admits]] = {}
        self._links: set[WebSocketLink] = set()
        server = web.Server(self._accept, access_log=None, keepalive_timeout=HANDSHAKE_S_MAX, lingering_time=0.0, logger=_LOG)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=GOODBYE_S)
        self.port = 0

    async def start(self, host: str, port: int, ssl: tls.SSLContext | None) -> None:
        """Port 0 takes a free one. Raises NetworkError when the port cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=BACKLOG, ssl_context=ssl).start()
        except OSError as error:
            await self._runner.cleanup()
            raise NetworkError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.port = self._runner.addresses[0][1]

    def add(self, path: str, receiver: Receiver, admits: Admits = lambda peer: True) -> None:
        """Another receiver behind the same port."""
        self._receivers[path] = (receiver, admits)

    async def close(self, reason: str = "the listener was closed") -> None:
        """Accepts no more, says goodbye to all, and waits for a few seconds at most."""
        for site in list(self._runner.sites):
            await site.stop()
        await _close_all(self._links, reason)
        await self._runner.cleanup()

    async def _accept(self, request: web.BaseRequest) -> web.StreamResponse:
        receiver, admits = self._receivers.get(request.path, (None, None))
        if receiver is None or admits is None:
            return _refusal(404, "nobody is here")
        if not admits(request.remote or ""):
            return _refusal(503, "no more connections")
        socket = _Accepted(
            autoclose=False, autoping=False, compress=False, timeout=GOODBYE_S, max_msg_size=self._bytes_max + 1, writer_limit=WRITE_BYTES_HIGH,
        )  # fmt: skip
        try:
            await socket.prepare(request)
        except web.HTTPBadRequest as error:
            return _refusal(400, safe(error.text or "expected a WebSocket upgrade"))
        if (transport := request.transport) is not None:
            host, port, *_ = transport.get_extra_info("peername") or (request.remote, 0)
            await WebSocketLink(socket, transport, f"{host}:{port}").serve(receiver, self._links)
        return socket


class WebSocketTransport:
    """Implements `host.mesh.link.Transport`, and listens. `ssl` is the context for what it dials (`wss://`) and for what it listens on.

    A frame of more than `bytes_max` bytes ends its link before anything of it is kept.
    """

    def __init__(self, ssl: tls.SSLContext | None = None, bytes_max: int = DEFAULT.frame_bytes_max) -> None:
        self._ssl, self._bytes_max, self._open = ssl, bytes_max, True
        self._session: aiohttp.ClientSession | None = None
        self._dialling = asyncio.Semaphore(DIALS_AT_ONCE_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[WebSocketLink] = set()
        self._listeners: list[Listener] = []

    def dial(self, address: str, receiver: Receiver) -> None:
        """`address` is ws://HOST:PORT or wss://HOST:PORT, with a path or without. At most 100 attempts run at once; the others wait."""
        task = asyncio.get_running_loop().create_task(self._dial(address, receiver))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def listen(self, host: str, port: int, receiver: Receiver, path: str = PATH, *, admits: Admits) -> Listener:
        """`admits` is asked with the address of a peer, without its port, before it gets an answer. Raises NetworkError."""
        listener = Listener(self._bytes_max)
        listener.add(path, receiver, admits)
        await listener.start(host, port, self._ssl)
        self._listeners.append(listener)
        return listener

    async def close(self) -> None:
        """Ends every link and listener, with a goodbye to whoever still reads; takes a few seconds at most."""
        self._open = False
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await _close_all(self._links, "the transport was closed")
        await asyncio.sleep(0)  # a task that is cancelled before it began would not tell its receiver
        for task in self._tasks:
            task.cancel("the transport was closed")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _dial(self, address: str, receiver: Receiver) -> None:
        try:
            async with self._dialling, asyncio.timeout(HANDSHAKE_S_MAX):
                socket = await self._connect(address)
        except aiohttp.WSServerHandshakeError as error:
            receiver.closed(None, f"{NetworkError.code}: {safe(address)}: refused with HTTP status {error.status}")
        except (aiohttp.ClientError, NetworkError, OSError, ValueError, asyncio.CancelledError) as error:
            receiver.closed(None, f"{NetworkError.code}: {safe(address)}: {safe(str(error)) or f'no answer in {HANDSHAKE_S_MAX:.0f} s'}")
        else:
            await WebSocketLink(socket, socket.transport, address).serve(receiver, self._links)

    async def _connect(self, address: str) -> _Dialled:
        if not self._open:
            raise NetworkError("the transport was closed")
        url = URL(address)
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._ssl or True)
            jar, timeout = aiohttp.DummyCookieJar(), aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, timeout=timeout, ws_response_class=_Dialled)
        socket = await self._session.ws_connect(
            url if url.path != "/" else url.with_path(PATH), autoclose=False, autoping=False, max_msg_size=self._bytes_max + 1,
            timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE_S),
        )  # fmt: skip
        assert isinstance(socket, _Dialled)
        return socket


async def _close_all(links: set[WebSocketLink], reason: str) -> None:
    for link in links:
        link.close(reason)
    if links:
        await asyncio.wait([link.task for link in links if link.task is not None], timeout=2 * GOODBYE_S)


def _refusal(status: int, text: str) -> web.Response:
    response = web.Response(status=status, text=text)
    response.force_close()
    return response
