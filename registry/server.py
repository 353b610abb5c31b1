"""The registry as an HTTP server: keeps bundles, serves them by digest, announces them to the nodes that are connected.

| request | answer |
|---|---|
| `POST /v1/bundles` (bytes) | 201 and the announcement as JSON; the bundle is kept, nobody is told |
| `POST /v1/announcements` `{"digest": …}` | 202 and `{"announced": …, "nodes": n}`; every connected node is told, and every node that connects later |
| `DELETE /v1/announcements/NAME` | `{"withdrawn": …}`; no node is told of that skill any more, and those that run it go on |
| `GET /v1/blobs/DIGEST` | the bytes, with ranges |
| `GET /v1/fleet` | the nodes and what they last reported |
| `GET /v1/nodes` (WebSocket) | a node's link: see host/core/fleet.py |
| `GET /v1/key` | `{"operator": "ed25519:…"}`, the key that signs desired states |
| `/v1/policies` | quarantine policies: see registry/policies.py |
| `/v1/rollouts`, `/v1/compat`, `/v1/audit` | roll-outs: see registry/rollout_routes.py |
| `/v2/…` | the OCI Distribution API 1.1: see registry/oci.py |
| `/trust/…` | TUF metadata and targets: see registry/trust/routes.py |

An error is `{"code": …, "message": …}` with a status of 4xx or 5xx.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from aiohttp import web
from nacl.signing import SigningKey, VerifyKey

from host.core import fleet, keys
from host.core.clock import Clock
from host.core.desired import Patch
from host.core.errors import HostFault, OciRefused, SnapcountError, StorageFull, TooLarge, UsageError
from host.core.fleet import Announcement
from host.core.limits import DEFAULT
from host.core.text import safe
from registry import bodies, database
from registry.audit import Entry
from registry.controller import Controller
from registry.database import Database
from registry.deltas import DeltaMaker
from registry.fleet import Fleet
from registry.links import GOODBYE_S_MAX, NodeLinks
from registry.oci import OciRoutes
from registry.policies import PolicyBook, PolicyRoutes
from registry.problem import CHALLENGE, refusal
from registry.releases import Releases
from registry.rollout_routes import RolloutRoutes
from registry.rollout_service import RolloutService
from registry.store import BundleStore, repository_of
from registry.tokens import Access, Anonymous
from registry.trust import routes as trust_routes
from registry.trust.roles import FOLDER, METADATA

OPERATOR_KEY = "operator.key"
RENEW_S = 3_600.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Announce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: fleet.Digest


class RegistryServer:
    """The application and its state; `app` goes to an aiohttp runner.

    `operators` may sign roll-outs and quarantine policies, and so may the registry's own key, `operator.key` in its folder, which is made at first use: it signs
    what each node shall run, so nodes name it among their operators. `key` is that one's public half.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        log: Callable[[str, str], None],
        authorities: tuple[VerifyKey, ...] = (),
        revoked: frozenset[bytes] = frozenset(),
        anonymous: Anonymous | None = None,
        operators: tuple[VerifyKey, ...] = (),
    ) -> None:
        self._directory, self._clock, self._log = directory, clock, log
        self._store = BundleStore(directory, clock)
        self.access = Access(directory, clock, anonymous)
        own = operator_key(directory)
        self.key = own.verify_key
        trusted = (*operators, own.verify_key)
        self._policies = PolicyBook(directory, trusted, clock)
        self._links = NodeLinks(Fleet(authorities, revoked), clock, log, self._policies.documents, self._announced)
        self._database = Database(directory / database.FILE)
        self._deltas = DeltaMaker(self._store.path, self._keep_patch)
        self._controller = Controller(self._database, trusted, own, Releases(self._bundle), patches=self._patches_for, log=log)
        self._rollouts = RolloutService(self._controller, clock, self._links.desire, log)
        self._links.report_to(self._rollouts)
        self.app = web.Application(middlewares=[_errors], client_max_size=DEFAULT.bundle_bytes_max)
        self.app.add_routes([
            web.post("/v1/bundles", self._upload), web.post("/v1/announcements", self._announce), web.delete("/v1/announcements/{name}", self._withdraw), web.get("/v1/blobs/{digest}", self._blob),
            web.get("/v1/fleet", self._status), web.get("/v1/nodes", self._links.handle), web.get("/v1/key", self._own_key),
        ])  # fmt: skip
        self.app.add_routes(OciRoutes(self._store.content, self.access, log).routes())
        self.app.add_routes(RolloutRoutes(self._rollouts, self.access, own).routes())
        self.app.add_routes(PolicyRoutes(self._policies, self.access, self._links.police, self._record).routes())
        self.app.cleanup_ctx.append(self._background)
        self.app.on_shutdown.append(self._hang_up)
        self.app.add_routes(trust_routes.routes(directory, self._store.path, self._require_pull))

    async def _upload(self, request: web.Request) -> web.Response:
        caller = self.access.require(request, "push")
        data = await bodies.read(request, DEFAULT.bundle_bytes_max, "a bundle")
        kept = await asyncio.to_thread(self._store.add, data, lambda repository: caller.check("push", repository))
        self._log("info", f"kept {kept.name} {kept.version} {kept.digest[:19]}")
        return web.json_response(msgspec.to_builtins(kept), status=201)

    async def _announce(self, request: web.Request) -> web.Response:
        caller = self.access.require(request, "push")
        try:
            wanted = msgspec.json.decode(await bodies.read(request, DEFAULT.frame_bytes_max, "an announcement"), type=_Announce)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f'expected {{"digest": "sha256:…"}}: {safe(str(error))}') from error
        announcement = await asyncio.to_thread(self._store.announce, wanted.digest, lambda repository: caller.check("push", repository))
        told = await self._links.announce(announcement)
        self._log("info", f"announced {announcement.name} {announcement.version} to {told} nodes")
        return web.json_response({"announced": msgspec.to_builtins(announcement), "nodes": len(self._links)}, status=202)

    async def _withdraw(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.access.require(request, "push", repository_of(name))
        await asyncio.to_thread(self._store.withdraw, name)
        self._log("info", f"withdrew {name}")
        return web.json_response({"withdrawn": name})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        self.access.require(request, "pull")
        digest = request.match_info["digest"]
        if not re.match(fleet.DIGEST, digest):
            raise UsageError(f"expected sha256: and 64 hexadecimal digits, found {digest[:80]!r}")
        path = self._store.path(digest)
        if not path.exists():
            raise web.HTTPNotFound(text=f"{digest} is not here")
        self._require_pull(request, digest)
        return web.FileResponse(path, headers={"Content-Type": "application/wasm", "Docker-Content-Digest": digest})

    def _require_pull(self, request: web.Request, digest: str) -> None:
        """Raises OciRefused unless whoever asks may pull this bundle."""
        caller = self.access.require(request, "pull")
        if caller.token is not None and not any(caller.may("pull", name) for name in self._store.content.index.linked_in(digest)):
            raise refusal("DENIED", f"token {caller.token.name} does not allow to pull {digest[:19]}…")

    async def _status(self, request: web.Request) -> web.Response:
        self.access.require(request, "pull")
        return web.json_response({
            "nodes": [row.as_dict() for _, row in sorted(self._links.fleet.rows.items())],
            "announced": [msgspec.to_builtins(a) for _, a in sorted(self._store.announced.items())],
        })  # fmt: skip

    def _announced(self) -> Iterable[Announcement]:
        return self._store.announced.values()

    async def _own_key(self, request: web.Request) -> web.Response:
        return web.json_response({"operator": keys.public_text(self.key)})

    def _bundle(self, digest: str) -> bytes | None:
        try:
            return self._store.path(digest).read_bytes() if re.match(fleet.DIGEST, digest) else None
        except OSError:
            return None

    def _patches_for(self, digest: str, base: str) -> tuple[Patch, ...]:
        """What a node with `base` can fetch instead of the whole. A roll-out goes on without."""
        try:
            return self._deltas.make((base,), digest) if base and base != digest else ()
        except HostFault as error:
            self._log("warning", f"no patch for {digest[:19]}…: {error}")
            return ()

    def _keep_patch(self, patch: bytes, bundle: str) -> None:
        """Where the bundle is, so that whoever may pull the one may pull the other."""
        for repository in self._store.content.index.linked_in(bundle)[:1]:
            self._store.content.put(repository, patch)

    def _record(self, entry: Entry) -> None:
        with self._database.transaction() as db:
            self._controller.audit.append(db, self._clock.now_ms(), [entry])

    async def _background(self, app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (self._rollouts.run(), self._renew_trust())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._database.close()

    async def _renew_trust(self) -> None:
        """Signs the timestamp anew before it expires, where this registry holds the online keys (docs/trust.md)."""
        while True:
            if (self._directory / FOLDER / METADATA).is_dir():
                from registry.trust.publishing import renew  # TUF's library takes a tenth of a second and memory

                try:
                    await asyncio.to_thread(renew, self._directory, datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC))
                except SnapcountError as error:
                    self._log("warning", f"trust metadata: not renewed: {error}")
            await asyncio.sleep(RENEW_S)

    async def _hang_up(self, app: web.Application) -> None:
        self._rollouts.close()
        await self._links.hang_up()


def operator_key(directory: Path) -> SigningKey:
    """The registry's own key, made at first use. Raises StateDamaged, StorageFull, HostFault."""
    path = directory / OPERATOR_KEY
    return keys.load(path) if path.exists() else keys.create(path, os.urandom(keys.SEED_BYTES))


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _problem(error.status, "http_error", error.text or error.reason)
    except OciRefused as error:
        response = _problem(error.status, error.code, str(error))
        if error.status == 401:
            response.headers.update(CHALLENGE)
        return response
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


async def serve(server: RegistryServer, host: str, port: int, ready: Callable[[str], None], tls: ssl.SSLContext | None = None) -> None:
    """Serves until cancelled; `ready` gets the address once it listens (port 0 takes a free one)."""
    server.access.listens_on(host)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=GOODBYE_S_MAX)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        address = runner.addresses[0]
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        ready(f"{'https' if tls else 'http'}://{name}:{address[1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
