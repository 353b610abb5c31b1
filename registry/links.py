"""The links of nodes to a registry (WebSocket): who is connected, what each is told, and what each says. The frames are in host/core/fleet.py."""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from host.core import cbor, fleet
from host.core.clock import Clock
from host.core.errors import HostFault, SnapcountError, UsageError
from host.core.fleet import Announcement, Challenge, Desired, FromRegistry, Hello, Policy
from host.core.limits import DEFAULT
from registry.fleet import Fleet, NodeRow
from registry.rollout_service import RolloutService

HELLO_S_MAX = 10.0
HEARTBEAT_S = 20.0
SEND_S_MAX = 10.0
GOODBYE_S_MAX = 2.0  # how long a registry that stops waits for its nodes to close
REASON_BYTES_MAX = 120  # RFC 6455, section 5.5: a control frame has at most 125, two of them the code


@dataclass(frozen=True)
class _Link:
    """A node's socket, and the transport under it."""

    socket: web.WebSocketResponse
    transport: asyncio.WriteTransport | None

    async def tell(self, frame: FromRegistry) -> None:
        """Cuts off a node that does not read; it is told again when it comes back."""
        try:
            async with asyncio.timeout(SEND_S_MAX):
                await self.socket.send_bytes(cbor.encode(frame))
        except (TimeoutError, ConnectionError):
            if self.transport is not None:
                self.transport.abort()  # a close frame would wait behind what the node does not read


class NodeLinks:
    """`policies` and `announced` give what a node that connects is told of: the policies ahead of everything else."""

    def __init__(
        self, fleet: Fleet, clock: Clock, log: Callable[[str, str], None], policies: Callable[[], Iterable[bytes]],
        announced: Callable[[], Iterable[Announcement]],
    ) -> None:  # fmt: skip
        self.fleet = fleet
        self._clock, self._log, self._policies, self._announced = clock, log, policies, announced
        self._links: dict[str, _Link] = {}
        self._open: set[web.WebSocketResponse] = set()  # those that have not said hello are among them
        self._telling: set[asyncio.Task[None]] = set()
        self._greeting: set[str] = set()
        """Nodes that are being told of the policies: what else there is they are told after those, when their hello is heard."""
        self._rollouts: RolloutService | None = None

    def __len__(self) -> int:
        return len(self._links)

    def report_to(self, rollouts: RolloutService) -> None:
        """Whom to tell what nodes say. Once, before the first of them."""
        self._rollouts = rollouts

    def desire(self, node: str, document: bytes) -> None:
        """Sends a node its desired state. It does not wait; who is not there is told when it says hello."""
        if node not in self._greeting:
            self._begin(node, Desired(document=document))

    def police(self, document: bytes) -> int:
        """Sends a quarantine policy to every node, ahead of what comes later; how many are connected."""
        for node in list(self._links):
            self._begin(node, Policy(document=document))
        return len(self._links)

    async def announce(self, announcement: Announcement) -> int:
        """Tells those who take announcements and run something else; how many."""
        rows = self.fleet.rows
        links = [link for name, link in self._links.items() if name not in self._greeting and self._wants(rows[name], announcement)]
        await asyncio.gather(*(link.tell(announcement) for link in links))
        return len(links)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """`GET /v1/nodes`: a node's link, until it ends."""
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

    async def hang_up(self) -> None:
        """Closes every link."""
        closing = [asyncio.ensure_future(socket.close(code=WSCloseCode.GOING_AWAY)) for socket in self._open]
        if closing:
            await asyncio.wait(closing, timeout=GOODBYE_S_MAX)

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
        row = self.fleet.hello(frame, key, nonce, self._clock.now_ms() // 1000)
        self._links[frame.node] = link
        self._log("info", f"{frame.node} connected")
        try:
            await self._greet(link, row, bytes(key))
            async for message in socket:
                frame, key = fleet.open_sealed(_binary(message))
                self.fleet.report(row, frame, key)
                self._hear(frame, bytes(key))
        finally:
            if self._links.get(row.hello.node) is link:
                self._leave(row)

    async def _greet(self, link: _Link, row: NodeRow, key: bytes) -> None:
        self._greeting.add(row.hello.node)
        try:
            for document in self._policies():
                await link.tell(Policy(document=document))
        finally:
            self._greeting.discard(row.hello.node)
        self._hear(row.hello, key)
        for announcement in self._announced():
            if self._wants(row, announcement):
                await link.tell(announcement)

    def _hear(self, frame: fleet.FromNode, key: bytes) -> None:
        if self._rollouts is None:
            return
        if isinstance(frame, Hello):
            self._rollouts.seen(frame, key)
        else:
            self._rollouts.report(frame)

    def _leave(self, row: NodeRow) -> None:
        del self._links[row.hello.node]
        row.connected = False
        self._log("info", f"{row.hello.node} disconnected")
        if self._rollouts is not None:
            self._rollouts.gone(row.hello.node)

    def _wants(self, row: NodeRow, announcement: Announcement) -> bool:
        return row.hello.announcements and self.fleet.wants(row, announcement.name, announcement.digest)

    def _begin(self, node: str, frame: FromRegistry) -> None:
        link = self._links.get(node)
        if link is not None:
            task = asyncio.ensure_future(link.tell(frame))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)


def _binary(message: WSMessage) -> bytes:
    if message.type is not WSMsgType.BINARY:
        raise UsageError(f"expected binary frames of at most {DEFAULT.frame_bytes_max} bytes only")
    return bytes(message.data)


def _reason(message: str) -> bytes:
    # Cut between two characters: a close frame with half of one is itself an error.
    return message.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()
