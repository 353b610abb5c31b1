"""The routes of uploads: OCI Distribution Specification 1.1, "Pushing blobs" and "Mounting a blob from another repository"."""

import asyncio
import re

from aiohttp import web

from host.core import oci
from host.core.limits import Limits
from host.core.text import safe
from registry import bodies
from registry.content import Content
from registry.oci_names import checked_digest, named
from registry.problem import answered, refusal
from registry.tokens import Access, Caller

# The specification writes `START-END`; some clients write it as RFC 9110 does.
CONTENT_RANGE = r"^(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?\Z"


class UploadRoutes:
    """Uploads in one request, in two, or in pieces; their status; and mounts."""

    def __init__(self, content: Content, access: Access, limits: Limits) -> None:
        self._content, self._access, self._limits = content, access, limits
        self._open = content.uploads

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/{name:.+}/blobs/uploads/", answered(self._start)),
            web.get("/v2/{name:.+}/blobs/uploads/{upload}", answered(self._status)),
            web.patch("/v2/{name:.+}/blobs/uploads/{upload}", answered(self._append)),
            web.put("/v2/{name:.+}/blobs/uploads/{upload}", answered(self._finish)),
            web.delete("/v2/{name:.+}/blobs/uploads/{upload}", answered(self._cancel)),
        ]

    async def _start(self, request: web.Request) -> web.Response:
        name = named(request)
        caller = self._access.require(request, "push", name)
        if (mount := request.query.get("mount")) is not None and await self._mounted(request, caller, name, checked_digest(mount)):
            return _created(name, mount)
        digest = request.query.get("digest")
        if digest is not None:
            checked_digest(digest)
        identity = await asyncio.to_thread(self._open.begin, name)
        if digest is None:
            return self._accepted(name, identity, 0)
        try:
            await self._receive(request, name, identity)
            await asyncio.to_thread(self._content.finish, name, identity, digest)
        except BaseException:
            # Nobody was told its identity, so nobody could go on with it.
            self._open.forget(identity)
            raise
        return _created(name, digest)

    async def _mounted(self, request: web.Request, caller: Caller, name: str, digest: str) -> bool:
        """Whether the blob was found where the caller may pull; if not, the request is that for an ordinary upload."""
        source = request.query.get("from")
        sources = [source] if source is not None else await asyncio.to_thread(self._content.index.linked_in, digest)
        for found in sources:
            allowed = oci.is_repository(found) and caller.may("pull", found)
            if allowed and await asyncio.to_thread(self._content.mount, name, found, digest):
                return True
        return False

    async def _status(self, request: web.Request) -> web.Response:
        name, identity = self._named(request)
        size = await asyncio.to_thread(self._open.offset, name, identity)
        return web.Response(status=204, headers=_progress(name, identity, size))

    async def _append(self, request: web.Request) -> web.Response:
        name, identity = self._named(request)
        with self._open.exclusive(identity):
            if (answer := await self._out_of_order(request, name, identity)) is not None:
                return answer
            size = await self._receive(request, name, identity)
        return self._accepted(name, identity, size)

    async def _finish(self, request: web.Request) -> web.Response:
        name, identity = self._named(request)
        digest = checked_digest(request.query.get("digest", ""))
        with self._open.exclusive(identity):
            if (answer := await self._out_of_order(request, name, identity)) is not None:
                return answer
            await self._receive(request, name, identity)
            await asyncio.to_thread(self._content.finish, name, identity, digest)
        return _created(name, digest)

    async def _cancel(self, request: web.Request) -> web.Response:
        name, identity = self._named(request)
        with self._open.exclusive(identity):
            await asyncio.to_thread(self._open.file, name, identity)
            await asyncio.to_thread(self._open.forget, identity)
        return web.Response(status=204)

    def _named(self, request: web.Request) -> tuple[str, str]:
        name = named(request)
        self._access.require(request, "push", name)
        return name, request.match_info["upload"]

    async def _receive(self, request: web.Request, name: str, identity: str) -> int:
        what = "a blob"
        return await self._open.append(name, identity, bodies.pieces(request, self._limits.oci_blob_bytes_max, what, self._limits))

    async def _out_of_order(self, request: web.Request, name: str, identity: str) -> web.Response | None:
        """A 416 for a piece that does not start where the last one ended. Raises OciRefused for a range that is none, or not as long as the body."""
        size = await asyncio.to_thread(self._open.offset, name, identity)
        text = request.headers.get("Content-Range")
        if text is None:
            return None
        match = re.match(CONTENT_RANGE, text)
        if match is None:
            raise refusal("BLOB_UPLOAD_INVALID", f"expected Content-Range as START-END, found {safe(text, 80)!r}")
        start, end = int(match[1]), int(match[2])
        if start != size:
            headers = _progress(name, identity, size)
            message = f"expected a piece that starts at {size}, this one starts at {start}"
            return web.json_response(
                {"errors": [{"code": "BLOB_UPLOAD_INVALID", "message": message, "detail": None}]}, status=416, headers=headers
            )
        length = request.content_length
        if end < start or (length is not None and length != end - start + 1):
            raise refusal("SIZE_INVALID", f"Content-Range says {start}-{end}, Content-Length says {length}")
        return None

    def _accepted(self, name: str, identity: str, size: int) -> web.Response:
        return web.Response(status=202, headers=_progress(name, identity, size))


def _progress(name: str, identity: str, size: int) -> dict[str, str]:
    """Range is inclusive, so that of nothing cannot be told from that of one byte; `0-0` is what clients know for it."""
    return {
        "Location": f"/v2/{name}/blobs/uploads/{identity}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": identity,
    }


def _created(name: str, digest: str) -> web.Response:
    return web.Response(status=201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
