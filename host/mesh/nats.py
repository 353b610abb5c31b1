"""The mesh over core NATS, for fleets that outgrow one machine: peers meet at a broker instead of each other's ports.

| subject | carries |
|---|---|
| `PREFIX.listen.NAME` | openings to whoever listens as NAME; the reply subject is the inbox of the dialler |
| `PREFIX.link.PEER.LINK` | what one end of one link receives: an inbox that nobody else knows |

The first byte of a message says what follows: a frame, the inbox of the other end (which is the answer to an opening), or a goodbye and its reason.
Core NATS delivers at most once, so links are not `reliable`. Who leaves without a goodbye is found missing after a minute without a frame.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from host.core.errors import NetworkError, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.link import Receiver
from host.mesh.outbox import Outbox

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

SCHEME = "nats://"
PREFIX = "snapcount.mesh"
NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
IDLE_S_MAX = 60.0  # twelve heartbeats
PING_S = 15  # between this process and the broker
GOODBYE_S = 2.0
HANDSHAKE_S_MAX = DEFAULT.handshake_ms_max / 1000
WRITE_BYTES = 256 << 10  # what waits in the client, for all links together, before their outboxes fill
TURN_FRAMES = 16
_FRAME, _ACCEPT, _BYE = b"\x00", b"\x01", b"\x02"

Admits = Callable[[str], bool]


class NatsLink:
    """Implements `host.mesh.link.Link`. Its frames arrive at `inbox`."""

    reliable = False

    def __init__(self, transport: "NatsTransport", client: "Client", receiver: Receiver, peer: str) -> None:
        self.peer, self.inbox = peer, f"{transport.own}.{secrets.token_hex(16)}"
        self.heard_s = asyncio.get_running_loop().time()
        self._transport, self._client, self._receiver, self._outbox = transport, client, receiver, Outbox()
        self._subscription: Subscription | None = None
        self._remote = ""  # the other end's inbox, once it is known
        self._flusher: asyncio.Task[None] | None = None
        self._reason: str | None = None
        self._ended = False
        self._turn = 0

    @property
    def dropped(self) -> list[int]:
        """How many frames were given up because the broker is slow, by priority."""
        return self._outbox.dropped

    def send(self, frame: bytes, priority: int) -> bool:
        if self._reason is not None or len(frame) >= self._client.max_payload:
            return False
        kept = self._outbox.push(frame, priority)
        if kept and self._flusher is None:
            self._flusher = self._transport.spawn(self._flush())
        return kept

    def close(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._transport.spawn(self._say_goodbye(reason))

    async def subscribe(self) -> None:
        """To its own inbox."""
        messages_max, bytes_max = DEFAULT.inbox_messages_max, DEFAULT.outbox_bytes_max
        self._subscription = await self._client.subscribe(
            self.inbox, cb=self._take, pending_msgs_limit=messages_max, pending_bytes_limit=bytes_max
        )

    async def unsubscribe(self) -> None:
        with suppress(*self._transport.errors):
            if self._subscription is not None:
                await self._subscription.unsubscribe()

    def begin(self, remote: str) -> None:
        """The other end is there."""
        self._remote = remote
        self._receiver.opened(self)

    def end(self, reason: str) -> None:
        """Tells the receiver, once."""
        if not self._ended:
            self._ended, self._reason = True, self._reason or reason
            self._outbox.clear()
            self._transport.forget(self)
            self._receiver.closed(self if self._remote else None, self._reason)

    def give_up(self) -> None:
        """Nobody has answered by now, or somebody has."""
        if not self._remote:
            self.end(f"{NetworkError.code}: {self.peer}: no answer in {HANDSHAKE_S_MAX:.0f} s")

    async def _take(self, message: "Msg") -> None:
        self.heard_s = asyncio.get_running_loop().time()
        kind, rest = message.data[:1], message.data[1:]
        try:
            if kind == _BYE:
                self.end(f"closed by the other end: {safe(rest)}")
            elif not self._remote:
                self._hear_an_answer(message, kind, rest)
            elif kind == _FRAME and self._reason is None:
                self._hear_a_frame(rest)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": f"the receiver of {self.peer} failed", "exception": error})
            self.close(f"defect: {safe(repr(error))}")
        self._turn += 1
        if self._turn % TURN_FRAMES == 0:
            await asyncio.sleep(0)  # messages that are already here are received without ever waiting: others want a turn

    def _hear_a_frame(self, frame: bytes) -> None:
        if len(frame) > DEFAULT.frame_bytes_max:
            self.close(f"{TooLarge.code}: a frame has at most {DEFAULT.frame_bytes_max} bytes, this one has {len(frame)}")
        else:
            self._receiver.received(self, frame)

    def _hear_an_answer(self, message: "Msg", kind: bytes, rest: bytes) -> None:
        remote = rest.decode("ascii", "replace")
        if kind == _ACCEPT and self._transport.is_inbox(remote):
            self.begin(remote)
        elif (message.headers or {}).get("Status") == "503":  # the broker says so itself
            self.end(f"{NetworkError.code}: {self.peer}: nobody listens there")

    async def _flush(self) -> None:
        with suppress(*self._transport.errors):  # the connection is gone, which ends every link
            while (frame := self._outbox.pop()) is not None:
                await self._client.publish(self._remote, _FRAME + frame)
        self._flusher = None

    async def _say_goodbye(self, reason: str) -> None:
        with suppress(TimeoutError, *self._transport.errors):
            async with asyncio.timeout(GOODBYE_S):
                if self._flusher is not None:
                    await self._flusher
                await self._client.publish(self._remote, _BYE + reason.encode("utf-8", "replace"))
        self.end(reason)


class NatsTransport:
    """Implements `host.mesh.link.Transport`, and listens, over one connection to the broker.

    `slow` counts what was dropped on arrival, since more of it waited for a receiver than may.
    """

    def __init__(self, servers: str | Sequence[str], prefix: str = PREFIX) -> None:
        self.own = f"{prefix}.link.{secrets.token_hex(8)}"
        self.slow = 0
        self.errors: tuple[type[Exception], ...] = (OSError,)
        self._servers, self._prefix = [servers] if isinstance(servers, str) else list(servers), prefix
        self._client: Client | None = None
        self._links: set[NatsLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Then stays connected by itself; an interruption ends all links. Raises UsageError without nats-py, NetworkError without a broker."""
        try:
            from nats.aio.client import Client
            from nats.errors import Error
        except ImportError as error:
            raise UsageError('NATS needs one more package: pip install "snapcount[nats]"') from error
        self.errors, client = (OSError, Error), Client()
        try:
            async with asyncio.timeout(HANDSHAKE_S_MAX):
                await client.connect(
                    self._servers, error_cb=self._note, disconnected_cb=self._lose_all, max_reconnect_attempts=-1, reconnect_time_wait=1,
                    pending_size=WRITE_BYTES, ping_interval=PING_S,
                )  # fmt: skip
        except (TimeoutError, *self.errors) as error:
            await client.close()
            raise NetworkError(f"no NATS server at {', '.join(map(safe, self._servers))}: {safe(str(error)) or 'no answer'}") from error
        self._client = client
        self.spawn(self._watch())

    def dial(self, address: str, receiver: Receiver) -> None:
        """`address` is nats://NAME."""
        name, client = address.removeprefix(SCHEME), self._client
        if client is None or not client.is_connected or not address.startswith(SCHEME) or not NAME.fullmatch(name):
            why = f"{NetworkError.code}: {safe(address)}: expected {SCHEME}NAME and a connection to the NATS server"
            asyncio.get_running_loop().call_soon(receiver.closed, None, why)
        else:
            self.spawn(self._open(NatsLink(self, client, receiver, address), client, f"{self._prefix}.listen.{name}"))

    async def listen(self, name: str, receiver: Receiver, *, admits: Admits = lambda peer: True) -> None:
        """`admits` is asked with `nats:PEER`, which is the dialler's transport. Raises UsageError, NetworkError."""
        if not NAME.fullmatch(name):
            raise UsageError(f"expected a name of letters, digits, - and _, in parts with dots between, found {safe(name)!r}")
        if self._client is None:
            raise NetworkError("not connected to the NATS server")
        try:
            accept = partial(self._accept, self._client, receiver, admits)
            await self._client.subscribe(f"{self._prefix}.listen.{name}", cb=accept, pending_msgs_limit=DEFAULT.links_pending_max)
            await self._client.flush()
        except self.errors as error:
            raise NetworkError(f"cannot listen as {name}: {safe(str(error))}") from error

    async def close(self) -> None:
        """Ends every link, with a goodbye; takes a few seconds at most."""
        client, self._client = self._client, None
        for link in list(self._links):
            link.close("the transport was closed")
        deadline = asyncio.get_running_loop().time() + 2 * GOODBYE_S
        while self._links and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self._tasks, timeout=GOODBYE_S / 4, return_when=asyncio.FIRST_COMPLETED)
        if client is not None:
            await client.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_inbox(self, subject: str) -> bool:
        """Whether it is a link's: to no other subject may a stranger make this peer publish."""
        return re.fullmatch(re.escape(self._prefix) + r"\.link\.[0-9a-f]{16}\.[0-9a-f]{32}", subject) is not None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def forget(self, link: NatsLink) -> None:
        self._links.discard(link)
        self.spawn(link.unsubscribe())

    async def _open(self, link: NatsLink, client: "Client", subject: str) -> None:
        self._links.add(link)
        try:
            await link.subscribe()
            await client.publish(subject, b"", reply=link.inbox)
            asyncio.get_running_loop().call_later(HANDSHAKE_S_MAX, link.give_up)
        except self.errors as error:
            link.end(f"{NetworkError.code}: {link.peer}: {safe(str(error))}")

    async def _accept(self, client: "Client", receiver: Receiver, admits: Admits, message: "Msg") -> None:
        if not self.is_inbox(message.reply):
            return
        peer = "nats:" + message.reply.split(".")[-2]
        with suppress(*self.errors):  # the connection is gone, which ends every link
            if not admits(peer):
                await client.publish(message.reply, _BYE + b"refused")
                return
            link = NatsLink(self, client, receiver, peer)
            self._links.add(link)
            await link.subscribe()
            link.begin(message.reply)  # what this sends follows the answer: publish queues before it waits
            await client.publish(message.reply, _ACCEPT + link.inbox.encode())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S_MAX / 12)
            heard_s = asyncio.get_running_loop().time() - IDLE_S_MAX
            for link in [link for link in self._links if link.heard_s < heard_s]:
                link.end(f"{NetworkError.code}: nothing was heard for {IDLE_S_MAX:.0f} s")

    async def _lose_all(self) -> None:
        for link in list(self._links):
            link.end("connection lost: the NATS server is gone")

    async def _note(self, error: Exception) -> None:
        # Of the others, a lost connection is told by _lose_all; a broker that is still away is tried again.
        self.slow += type(error).__name__ == "SlowConsumerError"
