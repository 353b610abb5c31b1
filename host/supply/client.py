"""A node's link to its registry: dials, says who it is, takes announcements, fetches and installs them one after the other, and reports."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import aiohttp
from nacl.signing import SigningKey

from host.core import fleet
from host.core.clock import Clock
from host.core.errors import HostFault, NetworkError, SnapcountError
from host.core.fleet import Announcement, Challenge, Hello, Progress, SkillState
from host.core.limits import DEFAULT
from host.core.text import safe
from host.supply.fetch import fetch_blob

RECONNECT_S_MIN = 0.25
RECONNECT_S_MAX = 15.0
HEARTBEAT_S = 20.0


class Node(Protocol):
    """What the client needs of the node it serves."""

    name: str
    generation: int
    certificate: bytes
    host_digest: str
    key: SigningKey
    clock: Clock

    def skills(self) -> list[SkillState]:
        """The active skills."""
        ...

    async def install(self, data: bytes, digest: str) -> None:
        """Raises SnapcountError when the bundle did not become active."""
        ...


class RegistryClient:
    """Keeps one connection. `connected` says whether it stands."""

    def __init__(self, url: str, node: Node, log: Callable[[str, str], None]) -> None:
        self._url, self._node, self._log = url.rstrip("/"), node, log
        self._pending: asyncio.Queue[Announcement] = asyncio.Queue(DEFAULT.announcements_max)
        self._queued: set[str] = set()
        self._nonce = b""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.connected = False

    async def refresh(self) -> None:
        """Says hello anew on the same link, for what runs here has changed by no push."""
        if self._socket is not None and self.connected:
            with suppress(aiohttp.ClientError, ConnectionError):  # a broken link says hello when it stands again
                await self._socket.send_bytes(self._hello())

    async def run(self) -> None:
        """Dials until cancelled, with jittered back-off that starts anew after a link that stood for a while."""
        delay, loop = RECONNECT_S_MIN, asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work(session))
            while True:
                dialled = loop.time()
                try:
                    await self._stay_connected(session)
                except (aiohttp.ClientError, TimeoutError, OSError, SnapcountError) as error:
                    self._log("warning", f"registry {self._url}: {safe(str(error) or type(error).__name__)}; trying again")
                if self.connected and loop.time() - dialled > RECONNECT_S_MAX:
                    delay = RECONNECT_S_MIN
                self.connected = False
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, RECONNECT_S_MAX)

    async def _stay_connected(self, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{self._url}/v1/nodes", max_msg_size=DEFAULT.frame_bytes_max, heartbeat=HEARTBEAT_S) as socket:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise NetworkError("expected binary frames only")
                await self._take(socket, fleet.open_plain(message.data))
            raise NetworkError("the connection was closed")

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, frame: Challenge | Announcement) -> None:
        match frame:
            case Challenge(nonce=nonce):
                self._nonce = nonce
                await socket.send_bytes(self._hello())
                self._socket, self.connected = socket, True
                self._log("info", f"connected to registry {self._url}")
            case Announcement():
                if frame.digest in self._queued:
                    return
                if self._pending.full():
                    raise NetworkError(f"the registry announced more than {DEFAULT.announcements_max} bundles at once")
                self._pending.put_nowait(frame)
                self._queued.add(frame.digest)

    def _hello(self) -> bytes:
        node = self._node
        hello = Hello(
            node=node.name, nonce=self._nonce, generation=node.generation, certificate=node.certificate, host=node.host_digest,
            skills=tuple(node.skills()),
        )  # fmt: skip
        return fleet.seal(hello, node.key)

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            announcement = await self._pending.get()
            self._queued.discard(announcement.digest)
            if any(skill.digest == announcement.digest for skill in self._node.skills()):
                await self._report(announcement, "active")
                continue
            try:
                await self._report(announcement, "fetching")
                data = await fetch_blob(session, self._url, announcement.digest, announcement.size)
                await self._report(announcement, "installing")
                await self._node.install(data, announcement.digest)
                await self._report(announcement, "active")
                self._log("info", f"{announcement.name} {announcement.version} is active")
            except Exception as caught:  # one that nobody foresaw costs this install, not the link
                error = caught if isinstance(caught, SnapcountError) else HostFault(f"{announcement.digest[:19]}…: {safe(repr(caught))}")
                self._log("error", f"{announcement.name} {announcement.version}: not installed: {error}")
                await self._report(announcement, "failed", error.code, str(error))

    async def _report(self, about: Announcement, state: fleet.State, code: str = "", message: str = "") -> None:
        progress = Progress(
            node=self._node.name, name=about.name, version=about.version, digest=about.digest, state=state,
            at_ms=self._node.clock.now_ms(), code=code, message=safe(message, 1000),
        )  # fmt: skip
        try:
            if self._socket is not None:
                await self._socket.send_bytes(fleet.seal(progress, self._node.key))
        except (aiohttp.ClientError, ConnectionError) as error:
            # Nothing is lost: the next hello says what is active, and what is missing is announced again.
            self._log("warning", f"registry {self._url}: a report could not be sent: {safe(str(error))}")
