"""The HTTP side of roll-outs. What changes something is a document signed by an operator; a token, where the registry asks for one, only lets it in.

| request | answer |
|---|---|
| `POST /v1/rollouts` (signed document) | 201 and the roll-out |
| `GET /v1/rollouts` | `{"rollouts": […]}`, the newest first |
| `GET /v1/rollouts/ID` | stage, soak left, counts by generation and sector, excluded with reasons, last decisions |
| `POST /v1/rollouts/ID/ACTION` (signed action) | 202 and the roll-out; ACTION is pause, resume, abort, retry or approve |
| `GET /v1/rollouts/ID/events` | server-sent events: the roll-out at each change, and every quarter of a minute, until it ends |
| `POST /v1/compat` `{"digest": …, "selection": {…}, "previous": …}` | the compatibility report |
| `POST /v1/flags` (signed change), `GET /v1/flags` | the feature flags that are on, and for which nodes |
| `GET /v1/audit?after=N` | rows of the audit log and its signed head |
"""

import asyncio
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta
from nacl.signing import SigningKey

from host.core.errors import HostFault, UsageError
from host.core.fleet import Digest
from host.core.limits import DEFAULT
from host.core.text import safe
from registry import audit, bodies
from registry.compat import lines
from registry.rollout_document import Release, Selection
from registry.rollout_service import RolloutService
from registry.rollout_status import brief, describe
from registry.tokens import Access

EVENT_S_MIN = 0.5
"""A watcher is told at most so often, however fast the fleet reports."""
ALIVE_S = 15.0
DECISIONS_SHOWN = 20


class CompatQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who can take this bundle."""

    digest: Digest
    selection: Selection = Selection()
    previous: Release | None = None


class _Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    count: Annotated[int, Meta(ge=1, le=audit.ROWS_READ_MAX)] = audit.ROWS_READ_MAX


class RolloutRoutes:
    """`key` signs the head of the audit log. Errors are SnapcountError and web.HTTPException, for the server's own middleware."""

    def __init__(self, service: RolloutService, access: Access, key: SigningKey) -> None:
        self._service, self._access, self._key = service, access, key
        self._watchers = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/rollouts", self._start), web.get("/v1/rollouts", self._list), web.get("/v1/rollouts/{id}", self._show),
            web.get("/v1/rollouts/{id}/events", self._events), web.post("/v1/rollouts/{id}/{action:pause|resume|abort|retry|approve}", self._act),
            web.post("/v1/compat", self._compat), web.get("/v1/audit", self._audit), web.post("/v1/flags", self._flag), web.get("/v1/flags", self._flags),
        ]  # fmt: skip

    async def _start(self, request: web.Request) -> web.Response:
        self._access.require(request, "push")
        live = await self._service.start(await bodies.read(request, DEFAULT.frame_bytes_max, "a roll-out document"))
        return web.json_response(await self._described(live.state.document.id), status=201)

    async def _act(self, request: web.Request) -> web.Response:
        self._access.require(request, "push")
        document = await bodies.read(request, DEFAULT.frame_bytes_max, "a roll-out action")
        action = await self._service.act(document, request.match_info["id"], request.match_info["action"])
        return web.json_response(await self._described(action.id), status=202)

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        controller = self._service.controller
        live = [brief(live.state.document, live.state.header) for live in reversed(controller.live.values())]
        ended = await asyncio.to_thread(controller.ended)
        return web.json_response({"rollouts": live + [brief(document, header) for header, document in ended]})

    async def _show(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        return web.json_response(await self._described(request.match_info["id"]))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._access.require(request, "pull")
        if self._watchers >= DEFAULT.rollout_watchers_max:
            raise HostFault(f"{self._watchers} watchers are connected, and there are no more; ask without /events")
        id = request.match_info["id"]
        await self._described(id)  # says in words that there is none
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        self._watchers += 1
        try:
            await self._stream(response, id)
        finally:
            self._watchers -= 1
        return response

    async def _stream(self, response: web.StreamResponse, id: str) -> None:
        while True:
            since = self._service.changes
            described = await self._described(id)
            await response.write(b"data: " + msgspec.json.encode(described) + b"\n\n")
            if described["ended_ms"] or self._service.closed:
                return
            await asyncio.sleep(EVENT_S_MIN)
            await self._service.changed(since, ALIVE_S)

    async def _compat(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        try:
            question = msgspec.json.decode(await bodies.read(request, DEFAULT.frame_bytes_max, "a question"), type=CompatQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"expected digest, selection and previous as JSON: {safe(str(error))}") from error
        report = await asyncio.to_thread(self._service.controller.report, question.digest, question.selection, question.previous)
        return web.json_response(report.as_dict() | {"lines": lines(report)})

    async def _flag(self, request: web.Request) -> web.Response:
        self._access.require(request, "push")
        await self._service.flag(await bodies.read(request, DEFAULT.frame_bytes_max, "a feature flag"))
        return web.json_response(self._flags_on(), status=202)

    async def _flags(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        return web.json_response(self._flags_on())

    def _flags_on(self) -> dict[str, Any]:
        return {"flags": {flag: msgspec.to_builtins(chosen) for flag, chosen in sorted(self._service.controller.flags.items())}}

    async def _audit(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        try:
            page = msgspec.convert(dict(request.query), _Page, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"expected after and count as numbers: {safe(str(error))}") from error
        log = self._service.controller.audit
        head = await asyncio.to_thread(log.head, self._service.clock.now_ms())
        rows = await asyncio.to_thread(log.rows, page.after, page.count)
        return web.json_response({"rows": [_row(row) for row in rows], "head": audit.sign_head(head, self._key).hex()})

    async def _described(self, id: str) -> dict[str, Any]:
        controller = self._service.controller
        live = controller.live.get(id)
        if live is None:
            for header, document in await asyncio.to_thread(controller.ended):
                if document.id == id:
                    return brief(document, header)
            raise web.HTTPNotFound(text=f"{safe(id, 64)}: no roll-out of this registry has this id")
        decisions = await asyncio.to_thread(controller.audit.last, DECISIONS_SHOWN, id)
        return describe(live, self._service.clock.now_ms(), decisions)


def _row(row: audit.Row) -> dict[str, Any]:
    return {"seq": row.seq, "at_ms": row.at_ms, "kind": row.kind, "who": row.who, "detail": row.detail, "hash": row.hash.hex()}
