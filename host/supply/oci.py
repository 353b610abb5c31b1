"""How a node gets a bundle from any OCI registry: a reference is resolved to the digest of its one layer, and the layer is fetched by that digest.

Nothing that the registry says is believed: manifests are bounded and checked against the digest they were asked for by, sizes against what comes, and the
layer against its digest. What a bundle may do is decided by its signatures, later.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from yarl import URL

from host.core import oci
from host.core.errors import DigestMismatch, NetworkError, OciRefused, TooLarge
from host.core.limits import DEFAULT
from host.core.oci import Reference
from host.core.oci_auth import Authorizer, Credentials
from host.core.text import safe

RETRY_S = 0.2
PIECE_BYTES = 64 << 10
REDIRECTS = (301, 302, 303, 307, 308)


class Resolved(NamedTuple):
    """A bundle that a registry has: its digest and size, and the digest of the manifest that says so."""

    digest: str
    size: int
    manifest: str


async def resolve(session: aiohttp.ClientSession, reference: Reference, credentials: Credentials | None = None) -> Resolved:
    """What a reference stands for now. Raises UntrustedInput (OciRefused where the registry refuses) or NetworkError."""
    ask = _Registry(session, reference, credentials)
    what = str(reference)
    path = f"manifests/{reference.local.manifest}"
    async with _bounded(what), ask.get(path, {"Accept": ", ".join(oci.MANIFEST_TYPES)}) as response:
        data = await _read(response, DEFAULT.oci_manifest_bytes_max, what)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        claimed = response.headers.get("Docker-Content-Digest", "")
    digest = reference.local.digest or (claimed if oci.is_digest(claimed) else oci.digest_of(data))
    oci.check_digest(data, digest, what)
    layer = oci.wasm_layer(data, media_type, what)
    return Resolved(layer.digest, layer.size, digest)


async def fetch(session: aiohttp.ClientSession, reference: Reference, found: Resolved, credentials: Credentials | None = None) -> bytes:
    """The bundle's bytes, resumed by range after a broken connection. Raises DigestMismatch, OciRefused, or NetworkError after some attempts."""
    ask = _Registry(session, reference, credentials)
    what, data, problem = f"{reference.local.repository}@{found.digest[:19]}…", bytearray(), "no attempt was made"
    for attempt in range(DEFAULT.fetch_attempts_max):
        try:
            await _receive(ask, found, data, what)
            break
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            problem = safe(str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_S * 2**attempt)
    else:
        raise NetworkError(
            f"{what}: {len(data)} of {found.size} bytes came in {DEFAULT.fetch_attempts_max} attempts; the last failed with: {problem}"
        )
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != found.digest:
        raise DigestMismatch(f"{what}: the registry sent other bytes than were asked for")
    return bytes(data)


async def _receive(ask: "_Registry", found: Resolved, data: bytearray, what: str) -> None:
    headers = {"Range": f"bytes={len(data)}-"} if data else {}
    async with ask.get(f"blobs/{found.digest}", headers) as response:
        if response.status == 200:
            data.clear()  # the range was not honoured
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            data += piece
            if len(data) > found.size:
                raise DigestMismatch(f"{what}: more than the {found.size} bytes came that its manifest says")
    if len(data) < found.size:
        raise aiohttp.ClientPayloadError(f"the connection ended after {len(data)} of {found.size} bytes")


class _Registry:
    """Requests to one repository, logged in when the registry asks for it."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, credentials: Credentials | None) -> None:
        self._session, self._what = session, str(reference)
        self._url = f"{reference.base}/v2/{reference.local.repository}/"
        self._authorizer = Authorizer(reference.base, reference.local.repository, "pull", credentials)

    @asynccontextmanager
    async def get(self, path: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, of status 200 or 206. Raises OciRefused for an error of the registry's."""
        url = URL(self._url + path, encoded=True)
        for _ in range(2 + DEFAULT.oci_redirects_max):
            async with self._ask(url, headers) as response:
                if response.status in (200, 206):
                    self._authorizer.accepted()
                    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                        raise NetworkError(f"{self._what}: came compressed, which nobody asked for")
                    yield response
                    return
                if response.status in REDIRECTS:
                    url = _elsewhere(url, response.headers.get("Location", ""), self._what)
                    continue
                await self._refused(response)
        raise NetworkError(f"{self._what}: the registry sends from one address to the next without end")

    @asynccontextmanager
    async def _ask(self, url: URL, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=DEFAULT.oci_pull_s_max, sock_connect=DEFAULT.fetch_idle_s_max, sock_read=DEFAULT.fetch_idle_s_max
        )
        sent = headers | {"Accept-Encoding": "identity"}
        if self._authorizer.header and url.origin() == URL(self._url).origin():
            sent["Authorization"] = self._authorizer.header
        async with self._session.get(url, headers=sent, timeout=timeout, allow_redirects=False) as response:
            yield response

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        """Logs in after a 401; raises for everything else."""
        if response.status != 401:
            code, message = oci.read_problem(await _read(response, DEFAULT.oci_answer_bytes_max, self._what))
            raise OciRefused(f"{self._what}: the registry answered {response.status} {code}: {message}", code, response.status)
        wanted = self._authorizer.challenged(", ".join(response.headers.getall("WWW-Authenticate", [])), self._what)
        if wanted is None:
            return
        headers = {"Authorization": wanted.authorization} if wanted.authorization else {}
        async with self._session.get(URL(wanted.url, encoded=True), headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                raise OciRefused(f"{self._what}: the token service answered {answer.status}", "UNAUTHORIZED", 401)
            self._authorizer.take(await _read(answer, DEFAULT.oci_answer_bytes_max, self._what), self._what)


def _elsewhere(url: URL, location: str, what: str) -> URL:
    """Where a redirect leads. Never from TLS to none: a digest protects the bytes, but not who learns of them."""
    try:
        target = url.join(URL(location, encoded=True))
    except ValueError as error:
        raise NetworkError(f"{what}: is redirected to something that is no address") from error
    if target.scheme not in ("https", url.scheme) or not target.host:
        raise NetworkError(f"{what}: is redirected to {safe(str(target))}, which is not followed")
    return target


async def _read(response: aiohttp.ClientResponse, bytes_max: int, what: str) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        data += piece
        if len(data) > bytes_max:
            raise TooLarge(f"{what}: the registry answered with more than {bytes_max} bytes")
    return bytes(data)


@asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError, OSError) as error:
        raise NetworkError(f"{what}: {safe(str(error) or type(error).__name__)}") from error
