"""A node in the mesh: its peer, its links, and its skills as what a message does."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from host import tls
from host.config import CLASSES, NATS_SCHEME, Mesh
from host.core import files
from host.core.certificate import Claims
from host.core.errors import CertificateInvalid, MalformedData, NetworkError, SnapcountError, StateDamaged
from host.core.text import safe
from host.mesh.agent import Outcome
from host.mesh.frames import CONFLICT, READY, TIERS, Role
from host.mesh.handshake import Identity
from host.mesh.link import Receiver, Transport
from host.mesh.looptime import LoopTime, raise_file_limit
from host.mesh.message import COMMANDS, Message
from host.mesh.nats import NatsTransport
from host.mesh.orchestrator import Orchestrator
from host.mesh.peer import AgentPeer, Peer, World
from host.mesh.raised import HOST_TOPICS
from host.mesh.tier import TierPeer
from host.mesh.trust import Trust, role_of
from host.mesh.websocket import WebSocketTransport
from host.mesh_routes import describe
from host.node import CERTIFICATE_RENEWAL, Node
from host.plugins.contract import HandleReply, HandleRequest

FROZEN = Path("mesh/frozen.cbor")
DETAIL_CHARACTERS = 299  # safe() adds an ellipsis; an answer's detail has at most 300
NATS_AGAIN_S = 5.0
FILES_BESIDES = 256
UNHANDLED, CONFLICT_CODE, BUSY, DEFECT = "unhandled", "conflict", "busy", "host_fault"
Done = Callable[[Outcome], None]

assert set(get_args(Mesh.__annotations__["role"])) == {"", *TIERS}


class NodeHandler:
    """Implements `host.mesh.agent.Handler` with the node's `handle` hook: off the event loop, one message at a time.

    What has a topic of the host's own is for its taker in `takes`, which answers at once. No skill sees it, whether there is a taker or not.
    """

    def __init__(self, node: Node, frozen: Callable[[], bool], takes: Mapping[str, Callable[[Message], Outcome]] | None = None) -> None:
        self._node, self._frozen, self._takes = node, frozen, {} if takes is None else takes
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def prepare(self, message: Message, done: Done) -> None:
        if message.topic in HOST_TOPICS:
            done(Outcome(CONFLICT, UNHANDLED, f"{message.topic} has no arrival time"))
            return
        self._begin(message, done, lambda: self._ask(message, "prepare"))

    def act(self, message: Message, done: Done) -> None:
        if message.topic in HOST_TOPICS:
            take = self._takes.get(message.topic)
            outcome = Outcome(CONFLICT, UNHANDLED, f"{self._node.name} takes no {message.topic}") if take is None else take(message)
            asyncio.get_running_loop().call_soon(done, outcome)
            return
        self._begin(message, done, lambda: self._drive(message) if message.verb in COMMANDS else self._ask(message, "act"))

    def state(self) -> str:
        if self._node.envelope.tripped is not None:
            return "safe-mode"
        if self._frozen():
            return "frozen"
        return "busy" if self._node.machine.locked() else "idle"

    async def stop(self) -> None:
        """Waits for what is under way; `Node.interrupt` ends that soon."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, message: Message, done: Done, work: Callable[[], Awaitable[Outcome]]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(message, done, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, message: Message, done: Done, work: Callable[[], Awaitable[Outcome]]) -> None:
        try:
            async with self._turn:
                outcome = await work()
        except SnapcountError as error:
            outcome = Outcome(CONFLICT, error.code, safe(str(error), DETAIL_CHARACTERS))
        except Exception as error:
            # A defect of a native plugin, say: the sender learns that nothing came of it, and the next message has its turn.
            self._node.log("error", f"message {message.topic} of {message.source}: {error!r}")
            outcome = Outcome(CONFLICT, DEFECT, safe(repr(error), DETAIL_CHARACTERS))
        done(outcome)

    async def _drive(self, message: Message) -> Outcome:
        """A command may move the machine, which a job may have: neither waits for the other."""
        if self._node.machine.locked():
            return Outcome(CONFLICT, BUSY, f"{self._node.name}: a job is running on its machine")
        async with self._node.machine:
            return await self._ask(message, "act")

    async def _ask(self, message: Message, phase: Any) -> Outcome:
        request = HandleRequest(
            at_ms=int(message.at_ms), correlation=message.correlation, id=message.id, payload=message.payload, phase=phase, priority=message.priority,
            source=message.source, topic=message.topic, verb=message.verb, weight=message.weight,
        )  # fmt: skip
        return outcome_of(await self._node.handle(request))


def outcome_of(replies: list[HandleReply]) -> Outcome:
    """One answer of all that a node's plugins said. One conflict is the node's; nobody's message is a conflict too."""
    handled = [reply for reply in replies if reply.handled]
    if not handled:
        return Outcome(CONFLICT, UNHANDLED, "no skill of this node handles this message")
    against = next((reply for reply in handled if reply.state == "conflict"), None)
    chosen = against or next((reply for reply in handled if reply.payload), handled[0])
    state, code = (CONFLICT, CONFLICT_CODE) if against else (READY, "")
    return Outcome(state, code, safe(chosen.detail, DETAIL_CHARACTERS), chosen.payload)


class Links:
    """Implements `host.mesh.link.Transport` over those that a node's configuration names: WebSocket, and NATS for addresses at nats://."""

    def __init__(self, settings: Mesh, state: Path, log: Callable[[str, str], None]) -> None:
        self._settings, self._log = settings, log
        self._dialling = WebSocketTransport(tls.client(settings, state))
        self._listening = WebSocketTransport(tls.server(settings, state))
        self._nats = NatsTransport(settings.nats) if settings.nats else None
        self._waiting: asyncio.Task[None] | None = None
        self.listening = ""

    def dial(self, address: str, receiver: Receiver) -> None:
        to_nats = self._nats if address.startswith(NATS_SCHEME) else None
        transport: Transport = to_nats or self._dialling
        transport.dial(address, receiver)

    async def start(self, peer: Peer) -> None:
        """Raises NetworkError for a port that cannot be had. A NATS server that is away is tried again."""
        children = peer.children if isinstance(peer, TierPeer) else None
        name = self._settings.listen.removeprefix(NATS_SCHEME) if self._settings.listen.startswith(NATS_SCHEME) else ""
        if children is not None and not name:
            host, port = self._settings.listens_on
            listener = await self._listening.listen(host, port, children, admits=children.admits)
            self.listening = f"{host}:{listener.port}"
        if self._nats is not None:
            listen = partial(self._nats.listen, name, children, admits=children.admits) if children is not None and name else None
            self._waiting = asyncio.get_running_loop().create_task(self._meet(self._nats, name, listen))

    async def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError):
                await self._waiting
        await asyncio.gather(*(transport.close() for transport in (self._dialling, self._listening, self._nats) if transport is not None))

    async def _meet(self, nats: NatsTransport, name: str, listen: Callable[[], Awaitable[None]] | None) -> None:
        said = False
        while True:
            try:
                await nats.connect()
                if listen is not None:
                    await listen()
                    self.listening = NATS_SCHEME + name
                return
            except NetworkError as error:
                if not said:
                    self._log("warning", f"{error}; it is tried again every {NATS_AGAIN_S:g} s")
                said = True
            except SnapcountError as error:
                self._log("error", str(error))
                return
            await asyncio.sleep(NATS_AGAIN_S)


class MeshLink:
    """A node's place in its mesh. `peer` is None where it has none, or cannot take it: then `problem` says why."""

    def __init__(self, node: Node, state: Path) -> None:
        self._node, self._state, self._settings = node, state, node.config.mesh
        self.peer: Peer | None = None
        self.problem = ""
        self.takes: dict[str, Callable[[Message], Outcome]] = {}
        """What the host itself does with messages of a topic."""
        self._links: Links | None = None
        self._handler: NodeHandler | None = None

    async def start(self) -> None:
        """Raises NetworkError, StateDamaged and UsageError for what is wrong here. Never fails for what others do: an absent parent is dialled again."""
        if not self._settings.role:
            return
        kept = self._kept()
        trust = Trust(self._node.config.authorities, lambda: self._node.clock.now_ms() // 1000)
        try:
            identity = self._identity(trust)
        except (CertificateInvalid, MalformedData) as error:
            # The node goes on without a mesh, as it does without its registry: its machine may be needed.
            self.problem = f"{error}; {CERTIFICATE_RENEWAL}"
            self._node.log("error", f"{self._node.name}: in no mesh: {self.problem}")
            return
        links = self._links = Links(self._settings, self._state, self._node.log)
        node = self._node
        world = World(
            LoopTime(), links, trust, node.random, random.Random(), node.log, self._keep, node.take_policy, node.policies.documents
        )
        self.peer = self._make(identity, world)
        try:
            if kept is not None:
                self._restore(self.peer, kept)
            await links.start(self.peer)
        except SnapcountError:
            await self.stop()
            raise

    async def stop(self) -> None:
        peer, self.peer = self.peer, None
        if isinstance(peer, TierPeer):
            peer.stop()
        elif peer is not None and peer.uplink is not None:
            peer.uplink.stop()
        if self._handler is not None:
            await self._handler.stop()
        if self._links is not None:
            await self._links.close()

    def spread(self, document: bytes) -> None:
        """Passes a quarantine policy that came another way, and is news, on to all below this node. On the event loop's thread."""
        if isinstance(self.peer, TierPeer):
            self.peer.spread(document)

    def status(self) -> dict[str, Any] | None:
        """None for a node that is to be in no mesh."""
        if self.peer is None or self._links is None:
            return {"role": self._settings.role, "problem": self.problem or "stopping"} if self._settings.role else None
        return describe(self.peer) | {"listening": self._links.listening}

    def _make(self, identity: Identity, world: World) -> Peer:
        parents, heartbeat_ms = self._settings.parents, int(self._settings.heartbeat_s * 1000)
        if identity.role == "agent":
            self._handler = NodeHandler(self._node, self._is_frozen, self.takes)
            return AgentPeer(identity, world, self._handler, parents)
        raise_file_limit(2 * self._settings.children_max + FILES_BESIDES)
        if identity.role == "orchestrator":
            return Orchestrator(identity, world, heartbeat_ms=heartbeat_ms, children_max=self._settings.children_max)
        return TierPeer(identity, world, parents, heartbeat_ms=heartbeat_ms, children_max=self._settings.children_max)

    def _identity(self, trust: Trust) -> Identity:
        node, role = self._node, cast(Role, self._settings.role)
        if not node.certificate:
            raise CertificateInvalid(f"{node.name} has no certificate")
        claims: Claims = trust.verify((node.certificate,), f"certificate of {node.name}")
        if TIERS.index(role_of(claims)) < TIERS.index(role):
            raise CertificateInvalid(f"the certificate of {node.name} does not allow the role {role}")
        capabilities = tuple(sorted(node.allowed & set(claims.capabilities)))[:16]
        return Identity(node.name, role, node.key, (node.certificate,), CLASSES.index(self._settings.agent_class), capabilities)

    def _is_frozen(self) -> bool:
        return self.peer is not None and self.peer.frozen is not None

    def _kept(self) -> bytes | None:
        path = self._state / FROZEN
        try:
            return path.read_bytes() if path.exists() else None
        except OSError as error:
            raise StateDamaged(f"{path}: cannot be read: {error.strerror}") from error

    def _restore(self, peer: Peer, kept: bytes) -> None:
        try:
            peer.restore(kept)
        except StateDamaged as error:
            raise StateDamaged(f"{self._state / FROZEN}: {error}") from error
        self._node.log("warning", f"{self._node.name}: still frozen, as when it was ended; `snapcount fleet thaw` ends that")

    def _keep(self, frozen: bytes | None) -> None:
        # A full disk must not keep a node from freezing: it is frozen then, and not so after a restart.
        try:
            if frozen is None:
                (self._state / FROZEN).unlink(missing_ok=True)
            else:
                files.write_atomic(self._state / FROZEN, frozen, 0o600)
        except (SnapcountError, OSError) as error:
            self._node.log("error", f"{self._node.name}: whether it is frozen cannot be kept: {error}")
