"""A tier's own fetching: each blob once, however many children ask for it, and whole and verified before a child sees a byte.

A blob is looked for in memory, in the cache on disk, in the node's own store, and then at the tier's sources. While it is on its way, whoever asks joins those
who wait; a child that has waited long enough is told how far it is, and asks again. What nobody waits for any more is given up after `ABANDONED_S`, and goes on
from its partial file when somebody asks again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from host.core.errors import Busy, NetworkError, NotServed, SnapcountError
from host.core.limits import DEFAULT
from host.supply.cache import Blob, BlobCache
from host.supply.fetch import Fetcher, Progress

ABANDONED_S = 120.0
MISSING_S = 2.0
MISSING_MAX = 1024

Local = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Underway:
    """The blob is on its way: `have` bytes of it are here."""

    have: int


class _Flight:
    """One blob on its way. `waiting` counts those who want it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Blob]
        self.have = self.waiting = 0
        self.given_up = False
        self.giving_up: asyncio.TimerHandle | None = None

    def join(self) -> None:
        self.waiting += 1
        if self.giving_up is not None:
            self.giving_up.cancel()
            self.giving_up = None

    def leave(self) -> None:
        self.waiting -= 1
        if not self.waiting and not self.task.done():
            self.giving_up = asyncio.get_running_loop().call_later(ABANDONED_S, self.give_up)

    def give_up(self) -> None:
        self.given_up = True
        self.task.cancel()


class Relay:
    """Serves its node and its node's children. `local` gives verified bytes of the node's own store, from a thread; `log` hears what went wrong here.

    `fetched` counts the blobs that came from a source.
    """

    def __init__(
        self, cache: BlobCache, fetcher: Fetcher, *, local: Local = lambda digest: None, log: Callable[[str], None] = lambda problem: None
    ) -> None:
        self._cache, self._fetcher, self._local, self._log = cache, fetcher, local, log
        self._flights: dict[str, _Flight] = {}
        self._missing: dict[str, float] = {}
        self.report = fetcher.report
        self.fetched = 0

    async def fetch(self, digest: str, size: int | None = None, progress: Progress = lambda have, size: None) -> bytes:
        """As `Fetcher.fetch`, for the node itself: what its children have asked for, or will, is fetched once for all."""
        blob = await self.blob(digest, None)
        assert isinstance(blob, Blob), "it waits until it is whole"
        progress(len(blob.data), len(blob.data))
        return blob.data

    async def blob(self, digest: str, wait_s: float | None) -> Blob | Underway:
        """The blob; or, after `wait_s` seconds, how far it is. Raises as `Fetcher.fetch`, and Busy where too many others are on their way."""
        blob = self._cache.hot(digest)
        if blob is not None:
            return blob
        while (flight := self._flights.get(digest)) is not None and flight.given_up:
            await asyncio.wait([flight.task])  # what has come of it is on disk then
        flight = flight or self._take_off(digest)
        flight.join()
        try:
            done, _ = await asyncio.wait([flight.task], timeout=wait_s)
        finally:
            flight.leave()
        if not done:
            return Underway(flight.have)
        if flight.task.cancelled():
            raise NetworkError(f"{digest[:19]}…: the transfer was given up; ask again")
        return flight.task.result()

    async def close(self) -> None:
        """Gives up what is on its way; what has come stays on disk."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.give_up()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)

    def _take_off(self, digest: str) -> _Flight:
        now_s = asyncio.get_running_loop().time()
        if self._missing.get(digest, 0.0) > now_s:
            raise NotServed(f"{digest[:19]}…: no source has it")
        if len(self._flights) >= DEFAULT.relay_fetches_max:
            raise Busy(f"{digest[:19]}…: {len(self._flights)} blobs are on their way already; ask again")
        flight = self._flights[digest] = _Flight()
        flight.task = asyncio.create_task(self._bring(digest, flight))
        flight.task.add_done_callback(lambda task: self._land(digest, task))
        return flight

    def _land(self, digest: str, task: "asyncio.Task[Blob]") -> None:
        flight = self._flights.pop(digest)
        if flight.giving_up is not None:
            flight.giving_up.cancel()
        if not task.cancelled() and isinstance(task.exception(), NotServed):
            if len(self._missing) >= MISSING_MAX:
                self._missing.clear()
            self._missing[digest] = asyncio.get_running_loop().time() + MISSING_S

    async def _bring(self, digest: str, flight: _Flight) -> Blob:
        blob = await asyncio.to_thread(self._here, digest)
        if blob is not None:
            return blob

        def progress(have: int, _size: int | None) -> None:
            flight.have = have

        blob = Blob(digest, await self._fetcher.fetch(digest, None, progress))  # the fetcher gives out what it has verified
        self.fetched += 1
        try:
            await asyncio.to_thread(self._cache.keep, blob)
        except SnapcountError as error:  # a full disk: those who wait get it all the same
            self._log(f"{digest[:19]}…: not kept for children who come later: {error}")
        return blob

    def _here(self, digest: str) -> Blob | None:
        blob = self._cache.load(digest)
        if blob is None and (data := self._local(digest)) is not None:
            blob = self._cache.lend(Blob(digest, data))
        return blob
