"""What a mesh peer answers on a control socket (HTTP on STATE/control.sock, mode 0600), and the socket itself.

| request | answer |
|---|---|
| `GET /v1/mesh/status` | the orchestrator's panel |
| `POST /v1/mesh/broadcast`, `ask`, `pipeline` (JSON: orchestrator.Request, the payload in base64) | the operation's result |
| `POST /v1/mesh/delegate` (JSON: request, capability, count, ceiling) | the result, and who was chosen |
| `POST /v1/mesh/freeze`, `thaw`, `isolate`, `readmit`, `forget` (JSON: targets, reason) | the result |
| `POST /v1/mesh/quarantine` (JSON: the signed policy in base64) | the result |
| `POST /v1/mesh/send` (JSON: Letter) | `{"id": …, "connected": …}`; from an agent, a lead or a coordinator |

An error is `{"code": …, "message": …, "exit_code": …}` with status 422.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from host.console.client import SOCKET
from host.core.errors import SnapcountError, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.frames import TIERS
from host.mesh.message import EVERYONE, RESERVED, Target, Topic, Verb
from host.mesh.orchestrator import Done, Orchestrator, Request
from host.mesh.peer import AgentPeer, Peer
from host.mesh.tier import TierPeer
from host.mesh.trust import may_send

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_MESH = "this node is in no mesh; say which role it has with `role` in [mesh] of its node.toml"
GOODBYE_S = 5.0
"""How long a socket that closes waits for what was asked: a question to the fleet may take a day."""
T = TypeVar("T")


class Delegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A task for the `count` best agents with a capability."""

    request: Request
    capability: Annotated[str, Meta(min_length=1, max_length=64)]
    count: Annotated[int, Meta(ge=1, le=DEFAULT.targets_max)] = 1
    ceiling: Annotated[float, Meta(ge=0, le=1000)] = 1000.0


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to freeze or thaw, whom to isolate, readmit or forget."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=DEFAULT.targets_max)]
    reason: Annotated[str, Meta(max_length=300)] = ""


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A document that an operator signed."""

    document: Annotated[bytes, Meta(max_length=DEFAULT.policy_bytes_max)]


class Letter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message of this node's own, for others in its fleet."""

    topic: Topic
    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=DEFAULT.targets_max)]
    verb: Verb = "observe"
    payload: Annotated[bytes, Meta(max_length=DEFAULT.payload_bytes_max)] = b""
    priority: Annotated[int, Meta(ge=0, le=2)] = 1
    ttl_ms: Annotated[int, Meta(ge=10, le=86_400_000)] = 60_000


def mesh_routes(peer: Peer | None) -> list[web.RouteDef]:
    """The routes for one peer; None is a node that is in no mesh, which says so."""
    operations = _Operations(peer)
    posts = ("broadcast", "ask", "pipeline", "delegate", "freeze", "thaw", "isolate", "readmit", "forget", "quarantine", "send")
    return [web.get("/v1/mesh/status", operations.status), *(web.post(f"/v1/mesh/{name}", getattr(operations, name)) for name in posts)]


async def serve_control(folder: Path, routes: Iterable[web.RouteDef]) -> web.AppRunner:
    """Serves routes on FOLDER/control.sock, for this user only. `stop_control` ends it."""
    app = web.Application(middlewares=[errors], client_max_size=DEFAULT.request_bytes_max)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_S)
    await runner.setup()
    # A socket's path has at most 107 bytes; through the directory's descriptor it is short wherever the folder is.
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    previous = os.umask(0o177)
    try:
        await web.UnixSite(runner, f"/proc/self/fd/{directory}/{SOCKET}").start()
    finally:
        os.umask(previous)
        os.close(directory)
    return runner


async def stop_control(folder: Path, runner: web.AppRunner) -> None:
    await runner.cleanup()
    (folder / SOCKET).unlink(missing_ok=True)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A SnapcountError becomes an answer."""
    try:
        return await handler(request)
    except SnapcountError as error:
        return web.json_response({"code": error.code, "message": str(error), "exit_code": error.exit_code}, status=422)


def send(peer: Peer, letter: Letter) -> bytes:
    """Sends a message of this peer's own; its id. It goes up when a parent is there. Raises UsageError, UntrustedInput of some kind."""
    if isinstance(peer, Orchestrator) or peer.uplink is None:
        raise UsageError(f"{peer.identity.name} is an orchestrator; it speaks with `snapcount fleet broadcast` and `snapcount fleet ask`")
    if letter.topic.startswith(RESERVED):
        raise UsageError(f"topics that start with {RESERVED} are for the mesh itself")
    if EVERYONE in letter.targets and not isinstance(peer, TierPeer):
        raise UsageError("only a tier sends to all below it; name those whom this message is for")
    identity = peer.identity
    message = peer.author.message(
        peer.clock.now_ms(), topic=letter.topic, verb=letter.verb, routing="direct", targets=letter.targets, priority=letter.priority,
        ttl_ms=letter.ttl_ms, payload=letter.payload,
    )  # fmt: skip
    may_send(peer.world.trust.verify(identity.chain, f"certificate of {identity.name}"), message.value)  # as every parent will ask
    if isinstance(peer, TierPeer):
        peer.send_on(message, identity.chain)
    else:
        peer.uplink.submit(message, identity.chain)
    return message.value.id


def describe(peer: Peer) -> dict[str, Any]:
    """A peer's place in the mesh, for a node's status. On the mesh's own thread."""
    uplink, role = peer.uplink, peer.identity.role
    welcome = uplink.welcome if uplink is not None else None
    described: dict[str, Any] = {
        "role": role, "parents": list(uplink.parents) if uplink is not None else [], "connected": welcome is not None,
        "parent": "" if welcome is None else welcome.name,
        "clock": {"offset_ms": round(peer.clock.offset_ms, 3), "uncertainty_ms": round(peer.clock.uncertainty_ms, 3)},
        "frozen": None if peer.frozen is None else {"since_ms": peer.frozen.since_ms, "by": peer.frozen.by, "reason": peer.frozen.reason},
        "refused": dict(sorted(peer.complaints.counts.items())),
    }  # fmt: skip
    if isinstance(peer, AgentPeer):
        described["queue"] = peer.agent.queue
    if isinstance(peer, TierPeer):
        described["children"] = {"connected": len(peer.children.by_row), "known": len(peer.members)}
    return described


class _Operations:
    def __init__(self, peer: Peer | None) -> None:
        self._peer = peer

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(self._orchestrator().status())

    async def broadcast(self, request: web.Request) -> web.Response:
        return await self._operate(await _body(request, Request), self._orchestrator().broadcast)

    async def ask(self, request: web.Request) -> web.Response:
        return await self._operate(await _body(request, Request), self._orchestrator().ask)

    async def pipeline(self, request: web.Request) -> web.Response:
        return await self._operate(await _body(request, Request), self._orchestrator().pipeline)

    async def delegate(self, request: web.Request) -> web.Response:
        orchestrator, asked = self._orchestrator(), await _body(request, Delegation)
        return await self._operate(
            asked.request, lambda one, done: orchestrator.delegate(one, asked.capability, asked.count, asked.ceiling, done)
        )

    async def freeze(self, request: web.Request) -> web.Response:
        orchestrator, asked = self._orchestrator(), await _body(request, Control)
        return await self._operate(asked.targets, lambda targets, done: orchestrator.freeze(targets, asked.reason, done))

    async def thaw(self, request: web.Request) -> web.Response:
        return await self._operate((await _body(request, Control)).targets, self._orchestrator().thaw)

    async def isolate(self, request: web.Request) -> web.Response:
        orchestrator, asked = self._orchestrator(), await _body(request, Control)
        return await self._operate(asked.targets, lambda targets, done: orchestrator.isolate(targets, asked.reason, done))

    async def readmit(self, request: web.Request) -> web.Response:
        return await self._operate((await _body(request, Control)).targets, self._orchestrator().readmit)

    async def forget(self, request: web.Request) -> web.Response:
        return await self._operate((await _body(request, Control)).targets, self._orchestrator().forget_agents)

    async def quarantine(self, request: web.Request) -> web.Response:
        return await self._operate((await _body(request, Signed)).document, self._orchestrator().quarantine)

    async def send(self, request: web.Request) -> web.Response:
        if self._peer is None:
            raise UsageError(NO_MESH)
        message_id = send(self._peer, await _body(request, Letter))
        return web.json_response({"id": message_id.hex(), "connected": self._peer.uplink is not None and self._peer.uplink.connected})

    def _orchestrator(self) -> Orchestrator:
        if self._peer is None:
            raise UsageError(NO_MESH)
        if not isinstance(self._peer, Orchestrator):
            role = self._peer.identity.role
            raise UsageError(
                f"{self._peer.identity.name} is {'an' if role == TIERS[0] else 'a'} {role}; ask the orchestrator, whose state directory --state names"
            )
        return self._peer

    async def _operate(self, asked: T, start: Callable[[T, Done], None]) -> web.Response:
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # Whoever asked may have gone when it ends.
        start(asked, lambda result: None if ended.done() else ended.set_result(result))
        return web.json_response(await ended)


async def _body(request: web.Request, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{request.path.rpartition('/')[2]}: {safe(str(error))}") from error
