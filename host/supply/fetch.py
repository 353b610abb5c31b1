"""Fetches one blob over HTTP: bounded, resumed by range after a broken connection, and believed only by its digest."""

import asyncio
import hashlib

import aiohttp

from host.core.errors import DigestMismatch, NetworkError, TooLarge
from host.core.limits import DEFAULT
from host.core.text import safe

RETRY_S = 0.2
PIECE_BYTES = 64 << 10


async def fetch_blob(session: aiohttp.ClientSession, base_url: str, digest: str, size: int) -> bytes:
    """The bytes with this digest. Raises TooLarge, DigestMismatch, or NetworkError after `fetch_attempts_max` broken attempts."""
    if size > DEFAULT.bundle_bytes_max:
        raise TooLarge(f"{digest[:19]}…: announced with {size} bytes, at most {DEFAULT.bundle_bytes_max} are fetched")
    data = bytearray()
    problem = "no attempt was made"
    for attempt in range(DEFAULT.fetch_attempts_max):
        try:
            await _receive(session, f"{base_url}/v1/blobs/{digest}", data, size)
            break
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            problem = safe(str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_S * 2**attempt)
    else:
        raise NetworkError(
            f"{digest[:19]}…: {len(data)} of {size} bytes came in {DEFAULT.fetch_attempts_max} attempts; the last failed with: {problem}"
        )
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise DigestMismatch(f"{base_url} sent other bytes than were announced: expected {digest}, found {found}")
    return bytes(data)


async def _receive(session: aiohttp.ClientSession, url: str, data: bytearray, size: int) -> None:
    headers = {"Range": f"bytes={len(data)}-"} if data else {}
    timeout = aiohttp.ClientTimeout(
        total=DEFAULT.fetch_total_s_max, sock_connect=DEFAULT.fetch_idle_s_max, sock_read=DEFAULT.fetch_idle_s_max
    )
    async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
        if response.status not in (200, 206):
            raise NetworkError(f"{url}: expected the blob, the registry answered {response.status}")
        if response.status == 200:
            data.clear()  # the range was not honoured
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            data += piece
            if len(data) > size:
                raise DigestMismatch(f"{url}: more than the announced {size} bytes came")
    if len(data) < size:
        raise aiohttp.ClientPayloadError(f"the connection ended after {len(data)} of {size} bytes")
