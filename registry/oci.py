"""The routes of the OCI Distribution API 1.1 below `/v2/`: blobs, manifests, tags, referrers. Uploads are in registry/oci_uploads.py.

Names are checked against the specification's grammar before anything else looks at them; a file is only ever named by a digest or by an identity made here.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlencode

import msgspec
from aiohttp import hdrs, web

from host.core import oci
from host.core.limits import DEFAULT, Limits
from host.core.oci import Descriptor
from host.core.text import safe
from registry import bodies
from registry.content import Content, as_index
from registry.oci_names import digested, named, referred
from registry.oci_uploads import UploadRoutes
from registry.problem import answered, problem, refusal
from registry.tokens import Access

METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")


class OciRoutes:
    """`routes()` goes to an aiohttp application. `log` is told of what was pushed and deleted."""

    def __init__(self, content: Content, access: Access, log: Callable[[str, str], None], limits: Limits = DEFAULT) -> None:
        self._content, self._access, self._log, self._limits = content, access, log, limits
        self._uploads = UploadRoutes(content, access, limits)

    def routes(self) -> list[web.RouteDef]:
        """Every route, the uploads' among them. Those that match none of them answer in the specification's shape, too."""
        made = [
            *self._uploads.routes(),
            web.get("/v2/", answered(self._base)),
            web.get("/v2/_catalog", answered(self._catalog)),
            web.get("/v2/{name:.+}/tags/list", answered(self._tags)),
            web.get("/v2/{name:.+}/referrers/{digest}", answered(self._referrers)),
            web.get("/v2/{name:.+}/blobs/{digest}", answered(self._blob)),
            web.delete("/v2/{name:.+}/blobs/{digest}", answered(self._delete_blob)),
            web.get("/v2/{name:.+}/manifests/{reference}", answered(self._manifest)),
            web.put("/v2/{name:.+}/manifests/{reference}", answered(self._put_manifest)),
            web.delete("/v2/{name:.+}/manifests/{reference}", answered(self._delete_manifest)),
        ]
        return [*made, web.route("*", r"/v2/{rest:[\s\S]*}", answered(self._nothing))]

    async def _base(self, request: web.Request) -> web.Response:
        caller = self._access.caller(request)
        if caller.token is None and self._access.wants_login:
            # Clients ask this first, and log in only if they are told to; whatever is allowed without a token still is.
            return problem(401, "UNAUTHORIZED", "log in with a token, or go on without for what is allowed to everybody")
        return web.json_response({})

    async def _nothing(self, request: web.Request) -> web.Response:
        if request.method not in METHODS:
            raise refusal("UNSUPPORTED", f"{safe(request.method, 16)} is not supported")
        raise refusal("UNSUPPORTED", f"{request.method} {safe(request.path, 160)}: no such endpoint of the OCI Distribution API", 404)

    # Listings.

    async def _catalog(self, request: web.Request) -> web.Response:
        caller = self._access.require(request, "pull")
        count, last = _page(request, self._limits.oci_page_max)
        names = [name for name in await asyncio.to_thread(self._content.index.repositories, last) if caller.may("pull", name)]
        return _listing(request, {"repositories": names[:count]}, names, count)

    async def _tags(self, request: web.Request) -> web.Response:
        name = named(request)
        self._access.require(request, "pull", name)
        count, last = _page(request, self._limits.oci_page_max)
        if not await asyncio.to_thread(self._content.index.has_repository, name):
            raise refusal("NAME_UNKNOWN", f"{name}: no such repository")
        tags = await asyncio.to_thread(self._content.index.tags, name, last, count + 1)
        return _listing(request, {"name": name, "tags": tags[:count]}, tags, count)

    async def _referrers(self, request: web.Request) -> web.Response:
        name, digest = named(request), digested(request)
        self._access.require(request, "pull", name)
        found = await asyncio.to_thread(self._content.referrers, name, digest)
        headers = {}
        if (wanted := request.query.get("artifactType")) is not None:
            found = [descriptor for descriptor in found if descriptor.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        last = request.query.get("last", "")
        rest = [descriptor for descriptor in found if descriptor.digest > last]
        page = _fitting(rest, self._limits)
        if len(page) < len(rest):
            headers[hdrs.LINK] = _next(request, {"last": page[-1].digest} | ({"artifactType": wanted} if wanted is not None else {}))
        return web.Response(body=as_index(page), content_type=oci.INDEX, headers=headers)

    # Blobs.

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        name, digest = named(request), digested(request)
        self._access.require(request, "pull", name)
        path = await asyncio.to_thread(self._content.blob, name, digest)
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest})

    async def _delete_blob(self, request: web.Request) -> web.Response:
        name, digest = named(request), digested(request)
        self._access.require(request, "delete", name)
        await asyncio.to_thread(self._content.unlink, name, digest)
        self._log("info", f"deleted blob {digest[:19]} of {name}")
        return web.Response(status=202)

    # Manifests.

    async def _manifest(self, request: web.Request) -> web.Response:
        name, reference = named(request), referred(request)
        self._access.require(request, "pull", name)
        row, data = await asyncio.to_thread(self._content.manifest, name, reference)
        headers = {"Docker-Content-Digest": row.digest, "Content-Type": row.media_type, "ETag": f'"{row.digest}"'}
        return web.Response(body=data, headers=headers)

    async def _put_manifest(self, request: web.Request) -> web.Response:
        name, reference = named(request), referred(request)
        self._access.require(request, "push", name)
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
        data = await bodies.read(request, self._limits.oci_manifest_bytes_max, "a manifest", self._limits)
        row = await asyncio.to_thread(self._content.put_manifest, name, reference, media_type, data)
        self._log("info", f"kept {name}:{reference} {row.digest[:19]}")
        headers = {"Location": f"/v2/{name}/manifests/{row.digest}", "Docker-Content-Digest": row.digest}
        if row.subject:
            headers["OCI-Subject"] = row.subject
        return web.Response(status=201, headers=headers)

    async def _delete_manifest(self, request: web.Request) -> web.Response:
        name, reference = named(request), referred(request)
        self._access.require(request, "delete", name)
        await asyncio.to_thread(self._content.delete_manifest, name, reference)
        self._log("info", f"deleted {name}:{reference}")
        return web.Response(status=202)


def _page(request: web.Request, count_max: int) -> tuple[int, str]:
    """How many entries are wanted, and after which. Raises OciRefused."""
    text = request.query.get("n", str(count_max))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise refusal("UNSUPPORTED", f"expected n to be a number, found {safe(text, 40)!r}", 400)
    return min(int(text), count_max), request.query.get("last", "")[:512]


def _listing(request: web.Request, answer: dict[str, object], entries: list[str], count: int) -> web.Response:
    more = len(entries) > count > 0
    headers = {hdrs.LINK: _next(request, {"n": str(count), "last": entries[count - 1]})} if more else {}
    return web.json_response(answer, headers=headers)


def _next(request: web.Request, query: dict[str, str]) -> str:
    """A Link header (RFC 8288) to the next page."""
    return f'<{request.path}?{urlencode(query)}>; rel="next"'


def _fitting(found: list[Descriptor], limits: Limits) -> list[Descriptor]:
    """As many as one answer may hold: a client takes an index of at most the size of a manifest."""
    page: list[Descriptor] = []
    size = 0
    for descriptor in found[: limits.oci_page_max]:
        size += len(msgspec.json.encode(descriptor)) + 1
        if page and size > limits.oci_manifest_bytes_max - 1024:
            break
        page.append(descriptor)
    return page
