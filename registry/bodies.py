"""Request bodies: bounded in size, in how long nothing may come, and in how long the whole may take."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from host.core.errors import TooLarge
from host.core.limits import DEFAULT, Limits
from registry.problem import refusal


async def pieces(request: web.Request, bytes_max: int, what: str, limits: Limits = DEFAULT) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TooLarge, and OciRefused with 408 for one that stops or never ends, and with 415 for one that is compressed."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        # What it expands to would be known only after it was expanded, and its digest is that of the bytes themselves.
        raise refusal("UNSUPPORTED", f"{what}: send it as it is, without Content-Encoding", 415)
    if (request.content_length or 0) > bytes_max:
        raise TooLarge(f"{what} has at most {bytes_max} bytes, this one has {request.content_length}")
    loop = asyncio.get_running_loop()
    until, received = loop.time() + limits.upload_total_s_max, 0
    while True:
        try:
            async with asyncio.timeout_at(min(until, loop.time() + limits.upload_idle_s_max)):
                piece = await request.content.readany()
        except TimeoutError as error:
            late = f"nothing came for {limits.upload_idle_s_max} s" if loop.time() < until else f"not done in {limits.upload_total_s_max} s"
            raise refusal("BLOB_UPLOAD_INVALID", f"{what}: {late}; {received} bytes came", 408) from error
        if not piece:
            return
        received += len(piece)
        if received > bytes_max:
            raise TooLarge(f"{what} has at most {bytes_max} bytes, more came")
        yield piece


async def read(request: web.Request, bytes_max: int, what: str, limits: Limits = DEFAULT) -> bytes:
    """The whole body. Raises as `pieces` does."""
    data = bytearray()
    async for piece in pieces(request, bytes_max, what, limits):
        data += piece
    return bytes(data)
