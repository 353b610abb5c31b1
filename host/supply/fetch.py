"""Fetches one blob by digest over HTTP: bounded, resumed by range, and believed only by its digest.

- Sources are asked in order of preference. An interrupted transfer goes on where it stopped: at the same source, at the next one, and after a restart.
- Wrong bytes are reported. Where they all came from one source, it is avoided for a while. Where several added to them, nobody knows who lied: from then on
  the blob is fetched whole from one source at a time.
- There is no bound on how long a transfer takes while bytes keep coming: a link of 1 kbit/s is a link. Silence ends an attempt, and a source that is slower
  than a crawl waits until the others were asked.
- A source that is still fetching the blob itself answers 503 and says how far it is (`PROGRESS_HEADER`); while that grows it is waited for.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from host.core.errors import MalformedData, TooLarge
from host.core.fleet import DIGEST
from host.core.limits import DEFAULT
from host.core.text import safe
from host.supply.partial import Partials
from host.supply.rate import RateLimit
from host.supply.sources import Sources, Turn
from host.supply.whole import DISK, Overrun, Whole

RETRY_S = 0.2
NOT_YET_S = 1.0
PIECE_BYTES = 256 << 10
CRAWL_BYTES_S, CRAWL_S = 50.0, 60.0
PROGRESS_HEADER = "Blob-Progress"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)\Z")  # RFC 9110, section 14.4
_PROGRESS = re.compile(r"\d{1,18}\Z")
_TRANSIENT = (408, 416, 429)

Report = Callable[[str, str], None]
Progress = Callable[[int, int | None], None]


class _Lie(Exception):
    """What the source that was asked says cannot be so."""


class _Refused(Exception):
    """The source answered that it does not serve this."""


class _Broken(Exception):
    """The source answered that something is wrong, or it crawls. Asking again may help."""


class _NotYet(Exception):
    """The source is fetching the blob itself, and has `have` bytes of it."""

    def __init__(self, have: int) -> None:
        super().__init__(f"it has {have} bytes itself, and no more come to it")
        self.have = have


class Fetcher:
    """Fetches blobs from `sources` (base URLs, the preferred first). All fetches of a node go through one, so that what it learns of sources counts.

    `partials` keeps what has come over restarts, `down` is the ceiling for all that is fetched, and `report(source, problem)` hears of wrong bytes; the source
    is empty where nobody knows it. `authorization` has the header's value for the sources that want one. `bytes_received` counts what came, useful or not.
    """

    def __init__(
        self, session: aiohttp.ClientSession, sources: Sequence[str], *, partials: Partials | None = None, down: RateLimit | None = None,
        report: Report = lambda source, problem: None, authorization: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._session, self._partials, self._down = session, partials, down or RateLimit()
        self.report = report
        self._authorization = {url.rstrip("/"): value for url, value in (authorization or {}).items()}
        self.sources = Sources(sources, lambda: asyncio.get_running_loop().time())
        self.bytes_received = 0

    async def fetch(self, digest: str, size: int | None = None, progress: Progress = lambda have, size: None) -> bytes:
        """The bytes with this digest, and of this size where it is known. `progress(have, size)` is told as they come.

        Raises TooLarge, DigestMismatch when every source that has it lied, NotServed, or NetworkError after `fetch_attempts_max` attempts in a row without
        progress.
        """
        if not re.match(DIGEST, digest):
            raise MalformedData(f"expected sha256: and 64 hexadecimal digits, found {safe(digest, 80)}")
        what = f"{digest[:19]}…"
        if size is not None and size > DEFAULT.bundle_bytes_max:
            raise TooLarge(f"{what}: announced with {size} bytes, at most {DEFAULT.bundle_bytes_max} are fetched")
        whole = Whole(digest, size, self._partials.open(digest) if self._partials else None)
        try:
            await _Fetch(self, whole, Turn(what, self.sources.in_order(), DEFAULT.fetch_attempts_max), progress).run()
            return bytes(whole.data)
        finally:
            whole.close()


class _Fetch:
    """One fetch, until its blob is sound."""

    def __init__(self, fetcher: Fetcher, whole: Whole, turn: Turn, progress: Progress) -> None:
        self._fetcher, self._whole, self._turn, self._progress = fetcher, whole, turn, progress
        self._waiting: dict[str, _Waiting] = {}

    async def run(self) -> None:
        whole = self._whole
        while not whole.sound:
            if whole.complete:
                self._judge(f"sent other bytes than were announced: expected {whole.digest}, found {whole.found}")
                continue
            source = self._turn.source
            if whole.alone and whole.owners - {source}:
                whole.drop()
                whole.furthest = 0
            await self._attempt(source)

    async def _attempt(self, source: str) -> None:
        before = self._whole.furthest
        try:
            await self._receive(source)
        except Overrun:
            self._judge(
                f"sent more than the {'announced' if self._whole.announced else 'most that is fetched:'} {self._whole.bytes_max} bytes"
            )
        except _Lie as lie:
            self._blame(source, str(lie))
        except _Refused as error:
            self._turn.rule_out(source, str(error), error)
        except _NotYet as error:
            waiting = self._waiting.setdefault(source, _Waiting())
            self._failed(source, error, progress=waiting.comes_nearer(error.have))
            if waiting.crawls() and not self._whole.alone:
                self._turn.postpone(source)
            self._progress(error.have, self._whole.size)
            await asyncio.sleep(NOT_YET_S)
        except (aiohttp.ClientError, TimeoutError, OSError, _Broken) as error:
            self._whole.save()
            self._failed(source, error, progress=self._whole.furthest > before)
            await asyncio.sleep(self._turn.pause_s(RETRY_S))

    def _failed(self, source: str, error: Exception, *, progress: bool) -> None:
        problem = f"{source}: {safe(str(error) or type(error).__name__)}"
        self._turn.failed(source, self._whole.how_far, problem, error, progress=progress, alone=self._whole.alone)

    async def _receive(self, source: str) -> None:
        whole, fetcher = self._whole, self._fetcher
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={len(whole.data)}-"} if whole.data else {})
        if source in fetcher._authorization:
            headers["Authorization"] = fetcher._authorization[source]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=DEFAULT.fetch_idle_s_max, sock_read=DEFAULT.fetch_idle_s_max)
        url = f"{source}/v1/blobs/{whole.digest}"
        async with fetcher._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            self._open(response, source)
            pace = _Pace()
            async for piece in response.content.iter_chunked(fetcher._down.piece(PIECE_BYTES)):
                fetcher.bytes_received += len(piece)
                whole.take(piece, source)
                self._progress(len(whole.data), whole.size)
                pace.held_up_s += await fetcher._down.take(len(piece))
                if pace.crawls(len(piece)) and self._turn.alternatives and not whole.alone:
                    self._turn.postpone(source)
                    raise _Broken(f"slower than {CRAWL_BYTES_S:g} bytes/s, and others can be asked")
        if whole.size is None:
            whole.size = len(whole.data)
        elif len(whole.data) < whole.size:
            raise _Broken(f"the connection ended after {len(whole.data)} of {whole.size} bytes")

    def _open(self, response: aiohttp.ClientResponse, source: str) -> None:
        """Looks at the head of an answer. From here on its body is what comes next in the blob."""
        whole, have = self._whole, response.headers.get(PROGRESS_HEADER, "")
        if response.status == 416:
            whole.drop()  # for this source the blob is smaller than what is here
        if response.status == 503 and _PROGRESS.match(have):
            raise _NotYet(int(have))
        if response.status >= 500 or response.status in _TRANSIENT:
            raise _Broken(f"expected the blob, it answered {response.status}")
        if response.status not in (200, 206):
            raise _Refused(f"{response.url}: expected the blob, it answered {response.status}")
        size = None if "Content-Encoding" in response.headers else response.content_length
        if response.status == 206:
            size = self._check_range(response, source)
        elif whole.data:
            whole.drop()  # the range was not honoured
        if whole.size is None and size is not None:
            if size > DEFAULT.bundle_bytes_max:
                raise _Lie(f"says that it has {size} bytes, at most {DEFAULT.bundle_bytes_max} are fetched")
            whole.size = size

    def _check_range(self, response: aiohttp.ClientResponse, source: str) -> int | None:
        """The size of the whole, where a part says it. One that does not say which part it is, is taken for the one that was asked for."""
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if found is None:
            return None
        if int(found[1]) != len(self._whole.data):
            raise _Lie(f"was asked for bytes from {len(self._whole.data)} on, and answers with those from {found[1]} on")
        return None if found[2] == "*" else int(found[2])

    def _judge(self, problem: str) -> None:
        """What is here cannot be the blob."""
        owners = self._whole.owners
        self._whole.drop()
        if owners == {DISK}:
            self._fetcher.report("", f"{self._whole.digest[:19]}…: what was kept of it on disk is wrong, and was dropped")
        elif len(owners) == 1:
            self._blame(next(iter(owners)), problem)
        else:
            self._fetcher.report(
                "", f"{self._whole.digest[:19]}…: one of those that it came from {problem}; from now on each is asked for all of it"
            )
            self._whole.alone = True

    def _blame(self, source: str, problem: str) -> None:
        self._fetcher.sources.avoid(source)
        self._fetcher.report(source, f"{self._whole.digest[:19]}…: {source} {problem}")
        self._turn.rule_out(source, f"{source} {problem}", lied=True)


class _Pace:
    """How fast a source sends, without the time that our own ceiling held it up."""

    def __init__(self) -> None:
        self._began_s = asyncio.get_running_loop().time()
        self._count = 0
        self.held_up_s = 0.0

    def crawls(self, count: int) -> bool:
        self._count += count
        taken_s = asyncio.get_running_loop().time() - self._began_s - self.held_up_s
        return taken_s > CRAWL_S and self._count < CRAWL_BYTES_S * taken_s


class _Waiting:
    """How a source comes nearer to having the blob itself, by its own word."""

    def __init__(self) -> None:
        self._since_s = asyncio.get_running_loop().time()
        self._have, self._then = -1, 0

    def comes_nearer(self, have: int) -> bool:
        nearer = self._have < have <= DEFAULT.bundle_bytes_max
        self._have = have
        return nearer

    def crawls(self) -> bool:
        """Whether it was slower than a crawl for a while; then the next while begins. One that says now more, now less, is."""
        now_s = asyncio.get_running_loop().time()
        if (waited_s := now_s - self._since_s) < CRAWL_S:
            return False
        slow = self._have - self._then < CRAWL_BYTES_S * waited_s
        self._since_s, self._then = now_s, self._have
        return slow
