"""What the TUF client reads through: HTTP by aiohttp, streaming and bounded, or the files that are here already."""

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient import FetcherInterface
from yarl import URL

from host.core.limits import DEFAULT
from host.core.text import safe

REDIRECTS_MAX = 5
# RFC 3986, section 2: what stands in a URL as it is. Everything else is percent-encoded, so that no target name can break a request line.
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=-._~"
_VERSION = re.compile(r"^\d+\.")
T = TypeVar("T")


class HttpFetcher(FetcherInterface):
    """Fetches for one thread that runs no event loop of its own. `close` it, or use it in a `with`.

    Bounds, besides the one that tuf sets for each file: `bytes_max` over all files, `total_s` from the first request on, `idle_s` for each
    wait. `authority` knows certificates that the system does not. Compressed bodies are not unpacked. `stop` may be called from another thread.
    """

    def __init__(
        self, bytes_max: int, *, idle_s: float = DEFAULT.fetch_idle_s_max, total_s: float = DEFAULT.trust_total_s_max,
        authority: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._authority = authority
        self._bytes_left, self._idle_s, self._total_s = bytes_max, idle_s, total_s
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._until: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> "HttpFetcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def allow(self, size: int) -> None:
        """Lets `size` more bytes through: the length of a target that signed metadata names."""
        self._bytes_left += size

    def stop(self) -> None:
        """Ends what is being fetched, and refuses what comes later."""
        self._stopped.set()
        if (task := self._task) is not None:
            with suppress(RuntimeError):  # its loop has been closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        self._stopped.set()
        if self._session is not None:
            self._drop_response()
            self._runner.run(self._session.close())
            self._session = None
        self._runner.close()

    def _fetch(self, url: str) -> Iterator[bytes]:
        address = quote(url, safe=_URL_CHARACTERS)
        if urlsplit(address).scheme not in ("http", "https"):
            raise DownloadError(f"expected an address http://… or https://…, found {safe(url)!r}")
        self._drop_response()
        self._response = self._run(self._open(address), url)
        if self._response.status != 200:
            status = self._response.status
            self._drop_response()
            raise DownloadHTTPError(f"{safe(url)}: answered {status}", status)
        return self._pieces(self._response, url)

    def _pieces(self, response: aiohttp.ClientResponse, url: str) -> Iterator[bytes]:
        while piece := self._run(response.content.readany(), url):
            self._bytes_left -= len(piece)
            if self._bytes_left < 0:
                raise DownloadLengthMismatchError(f"{safe(url)}: more bytes came than this client takes in all")
            yield piece

    async def _open(self, address: str) -> aiohttp.ClientResponse:
        if self._session is None:
            # The waits are bounded by _run; a body is taken as it comes, so that its size is the size that travels.
            timeout = aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._authority or True),
                timeout=timeout,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )
        return await self._session.get(URL(address, encoded=True), max_redirects=REDIRECTS_MAX)

    def _run(self, step: Coroutine[Any, Any, T], url: str) -> T:
        if self._until is None:
            self._until = time.monotonic() + self._total_s
        left = self._until - time.monotonic()
        try:
            return self._runner.run(self._bounded(step, min(self._idle_s, left)))
        except TimeoutError as error:
            over = "in all" if left <= self._idle_s else "for the next bytes"
            raise SlowRetrievalError(f"{safe(url)}: took more than {min(self._idle_s, self._total_s):g} s {over}") from error
        except asyncio.CancelledError as error:
            raise DownloadError(f"{safe(url)}: stopped") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DownloadError(f"{safe(url)}: {safe(str(error) or type(error).__name__)}") from error

    async def _bounded(self, step: Coroutine[Any, Any, T], seconds: float) -> T:
        self._task = asyncio.current_task()
        if self._stopped.is_set():
            step.close()
            raise asyncio.CancelledError
        async with asyncio.timeout(seconds):
            return await step

    def _drop_response(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class LocalFetcher(FetcherInterface):
    """Answers from the metadata that is here already, so that it is verified anew without a network: no newer root, and all else as it was."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = _VERSION.sub("", url.rpartition("/")[2])
        path = self._directory / name
        if name == "root.json" or not path.exists():
            raise DownloadHTTPError(f"{safe(name)}: is not on this node", 404)
        return iter([path.read_bytes()])
