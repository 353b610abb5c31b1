"""A node's link to its registry: dials, says who it is, takes what it is told, brings it in step by step, and reports.

A node whose owner named operators holds the desired state that they signed (desired.py) and converges on it, and acts on their quarantine policies at once.
One without, or whose owner says so, takes announcements: the newest bundle of each skill, whoever announced it, if its author is trusted.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

import aiohttp
from nacl.signing import SigningKey

from host.core import fleet
from host.core.capabilities import FEATURES
from host.core.clock import Clock
from host.core.desired import Wanted
from host.core.errors import HostFault, NetworkError, SnapcountError, Untimely
from host.core.fleet import Announcement, Challenge, Desired, FromRegistry, Hello, Policy, Progress, SkillState
from host.core.limits import DEFAULT
from host.core.text import safe
from host.supply.desired import Keeper, converge, report_held
from host.supply.facts import host_version
from host.supply.line import SupplyLine
from host.supply.probation import Ended

RECONNECT_S_MIN = 0.25
RECONNECT_S_MAX = 15.0
HEARTBEAT_S = 20.0
LOOK_S = 5.0
"""So often what failed is looked at again; when it is due, the keeper knows."""


class Node(Protocol):
    """What the client needs of the node it serves."""

    name: str
    generation: int
    sector: str
    certificate: bytes
    host_digest: str
    allowed: frozenset[str]
    key: SigningKey
    clock: Clock
    spread_policy: Callable[[bytes], object]
    """Hands a policy on to those below this node in its mesh."""

    def skills(self) -> list[SkillState]:
        """The active skills."""
        ...

    async def install(self, data: bytes, digest: str, *, probation_s: int = 0, downgrade: bool = False, again: bool = False) -> None:
        """Raises SnapcountError when the bundle did not become active."""
        ...

    async def remove(self, name: str) -> None:
        """Raises UsageError when it is not active."""
        ...

    def on_probation(self, name: str) -> bool: ...

    def take_policy(self, document: bytes) -> bool:
        """Raises SnapcountError of some kind where it is refused."""
        ...


class RegistryClient:
    """Keeps one connection. `connected` says whether it stands; `keeper` is None where the owner named no operators,
    `announcements` says whether they are taken."""

    def __init__(
        self, url: str, node: Node, log: Callable[[str, str], None], keeper: Keeper | None = None, *, announcements: bool = True
    ) -> None:
        self._url, self._node, self._log, self._keeper = url.rstrip("/"), node, log, keeper
        self._announcements = announcements
        self._pending: asyncio.Queue[Announcement] = asyncio.Queue(DEFAULT.announcements_max)
        self._queued: set[str] = set()
        self._wanted = asyncio.Event()
        self._fetching: tuple[str, asyncio.Task[bytes]] | None = None
        self._nonce = b""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.connected = False

    async def refresh(self) -> None:
        """Says hello anew on the same link, for what runs here has changed by no push."""
        if self._socket is not None and self.connected:
            with suppress(aiohttp.ClientError, ConnectionError):  # a broken link says hello when it stands again
                await self._socket.send_bytes(self._hello())

    async def ended(self, probations: Iterable[Ended]) -> None:
        """Probations have ended: the desired state is held against that, and the registry is told."""
        for one in probations:
            wanted = None
            if self._keeper is not None:
                wanted = self._keeper.wanted(one.digest)
                self._keeper.ended(one)
                self._stop_fetching(self._keeper)
            code = "" if one.state == "active" else fleet.REMOVED if one.by_owner else "probation"
            about = wanted or Wanted(name=one.name, version=one.version, digest=one.digest, size=8)
            await self._report(about, one.state, code, "" if one.state == "active" else one.cause)

    async def run(self, session: aiohttp.ClientSession, line: SupplyLine) -> None:
        """Dials until cancelled, with jittered back-off that starts anew after a link that stood for a while."""
        delay, loop = RECONNECT_S_MIN, asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._install_announced(line))
            if self._keeper is not None:
                tasks.create_task(self._converge(self._keeper, line))
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

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, frame: FromRegistry) -> None:
        match frame:
            case Challenge(nonce=nonce):
                self._nonce = nonce
                await socket.send_bytes(self._hello())
                self._socket, self.connected = socket, True
                self._log("info", f"connected to registry {self._url}")
                if self._keeper is not None:
                    await report_held(self._keeper, self._node, self._report, self._node.on_probation)
                    self._wanted.set()
            case Announcement():
                self._announced(frame)
            case Desired(document=document):
                await self._desired(document)
            case Policy(document=document):
                try:
                    if self._node.take_policy(document):
                        self._node.spread_policy(document)
                except SnapcountError as error:  # that one is not taken; the link is sound
                    self._log("warning", f"registry {self._url}: {error}")

    def _announced(self, frame: Announcement) -> None:
        if not self._announcements or (self._keeper is not None and self._keeper.names(frame.name)):
            self._log("info", f"{frame.name} {frame.version}: announced; this node takes it from its operators only")
            return
        if frame.digest in self._queued:
            return
        if self._pending.full():
            raise NetworkError(f"the registry announced more than {DEFAULT.announcements_max} bundles at once")
        self._pending.put_nowait(frame)
        self._queued.add(frame.digest)

    async def _desired(self, document: bytes) -> None:
        if self._keeper is None:
            self._log(
                "warning", f"registry {self._url}: sent a desired state, and this node's owner names no operators ([trust] in node.toml)"
            )
            return
        try:
            if not self._keeper.take(document):
                return
        except SnapcountError as error:
            self._log("warning", f"registry {self._url}: {error}")
            return
        self._log("info", f"desired state {self._keeper.serial}")
        self._stop_fetching(self._keeper)
        await report_held(self._keeper, self._node, self._report, self._node.on_probation)
        self._wanted.set()

    def _hello(self) -> bytes:
        node = self._node
        hello = Hello(
            node=node.name, nonce=self._nonce, generation=node.generation, certificate=node.certificate, host=node.host_digest,
            skills=tuple(node.skills()), sector=node.sector, host_version=host_version(), capabilities=tuple(sorted(node.allowed)),
            features=tuple(sorted(FEATURES)), announcements=self._announcements, operated=self._keeper is not None, serial=self._keeper.serial if self._keeper else 0,
        )  # fmt: skip
        return fleet.seal(hello, node.key)

    async def _converge(self, keeper: Keeper, line: SupplyLine) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wanted.wait()
            self._wanted.clear()
            await converge(keeper, self._node, lambda wanted: self._obtain(keeper, line, wanted), self._tell)

    async def _obtain(self, keeper: Keeper, line: SupplyLine, wanted: Wanted) -> bytes:
        """Ends when it is not wanted any more: on a slow link a fetch takes hours, and what was aborted meanwhile must not be installed after all."""
        task = asyncio.create_task(line.obtain(wanted))
        self._fetching = wanted.digest, task
        try:
            await asyncio.wait([task])
        finally:
            self._fetching = None
            task.cancel()
        if task.cancelled() or not keeper.wants(wanted.digest):
            raise Untimely(f"{wanted.name} {wanted.version}: it is not wanted any more")
        return task.result()

    def _stop_fetching(self, keeper: Keeper) -> None:
        if self._fetching is not None and not keeper.wants(self._fetching[0]):
            self._fetching[1].cancel()

    async def _install_announced(self, line: SupplyLine) -> None:
        while True:
            announcement = await self._pending.get()
            self._queued.discard(announcement.digest)
            about = Wanted(name=announcement.name, version=announcement.version, digest=announcement.digest, size=announcement.size)
            if any(skill.digest == announcement.digest for skill in self._node.skills()):
                await self._tell(about, "active")
                continue
            try:
                await self._tell(about, "fetching")
                data = await line.fetch(announcement.digest, announcement.size)
                await self._tell(about, "installing")
                await self._node.install(data, announcement.digest)
                await self._tell(about, "active")
            except Exception as caught:  # one that nobody foresaw costs this install, not the link
                error = caught if isinstance(caught, SnapcountError) else HostFault(f"{announcement.digest[:19]}…: {safe(repr(caught))}")
                await self._tell(about, "failed", error.code, str(error))

    async def _tell(self, about: Wanted, state: fleet.State, code: str = "", message: str = "") -> None:
        """News, for the log and for the registry."""
        if state in ("active", "probation"):
            self._log("info", f"{about.name} {about.version} is {'active' if state == 'active' else 'on probation'}")
        elif state == "failed":
            self._log("error", f"{about.name} {about.version}: not installed: {message}")
        await self._report(about, state, code, message)

    async def _report(self, about: Wanted, state: fleet.State, code: str = "", message: str = "") -> None:
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
