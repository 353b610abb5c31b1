"""A push to many node stores, in several processes: a real registry, relays in two tiers, and nodes that fetch, verify and write as a node does.

Beside it the floor: the same bytes from plain servers that have them in memory, to as many clients that hash and write them.
"""

import asyncio
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from host.core import files
from host.core.clock import SystemClock
from host.core.desired import Patch, Wanted
from host.core.errors import SnapcountError, StateDamaged
from host.supply.cache import BlobCache
from host.supply.delta import obtain
from host.supply.fetch import Fetcher
from host.supply.partial import Partials
from host.supply.relay import Relay
from host.supply.relay_server import RelayServer
from host.supply.store import SkillStore
from registry.deltas import DeltaMaker
from registry.server import RegistryServer, serve
from registry.store import BundleStore

CACHE_BYTES = 64 << 20
ANSWER_S_MAX = 300.0


class RegistryRole:
    """The real registry. It counts the bytes of the blobs that it sends."""

    def __init__(self) -> None:
        self._sent = 0

    async def start(self, folder: Path) -> str:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        server = RegistryServer(folder, SystemClock(), lambda level, line: None)
        server.app.on_response_prepare.append(self._count)
        self._folder = folder
        self._serving = asyncio.create_task(serve(server, "127.0.0.1", 0, ready.set_result))
        return await ready

    async def sent(self) -> int:
        return self._sent

    async def delta(self, old: str, new: str) -> tuple[Patch, ...]:
        """Makes the patch, and keeps it where the bundles are."""
        store = BundleStore(self._folder, sweep=False)

        def put(patch: bytes, bundle: str) -> None:
            for repository in store.content.index.linked_in(bundle):
                store.content.put(repository, patch)

        return await DeltaMaker(store.path, put).patches([old], new)

    async def stop(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _count(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.path.startswith("/v1/blobs/") and response.status in (200, 206):
            self._sent += response.content_length or 0


class RelayRole:
    """Relays, each with its own cache and its own socket; and, for the floor, a plain server."""

    def __init__(self) -> None:
        self._relays: list[tuple[Relay, RelayServer, aiohttp.ClientSession]] = []

    async def start(self, folder: Path, sources: Sequence[Sequence[str]]) -> list[str]:
        """One relay for each list of sources; their addresses."""
        urls = []
        for number, parents in enumerate(sources):
            below, session = folder / str(number), aiohttp.ClientSession()
            relay = Relay(BlobCache(below / "sha256", CACHE_BYTES), Fetcher(session, parents, partials=Partials(below / "partial")))
            server = RelayServer(relay)
            self._relays.append((relay, server, session))
            urls.append(f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}")
        return urls

    async def plain(self, data: bytes) -> str:
        """The floor's server: these bytes, from memory."""

        async def get(_request: web.Request) -> web.Response:
            return web.Response(body=data)

        app = web.Application()
        app.router.add_get("/blob", get)
        self._plain = web.AppRunner(app, access_log=None)
        await self._plain.setup()
        await web.TCPSite(self._plain, "127.0.0.1", 0, backlog=1024).start()
        return f"http://127.0.0.1:{self._plain.addresses[0][1]}/blob"

    async def stop(self) -> None:
        for relay, server, session in self._relays:
            await server.stop()
            await relay.close()
            await session.close()
        await self._plain.cleanup()


@dataclass
class _Node:
    store: SkillStore
    session: aiohttp.ClientSession
    fetcher: Fetcher

    def have(self, digest: str) -> bytes | None:
        try:
            return self.store.get(digest)
        except StateDamaged:
            return None


class NodesRole:
    """Some of the nodes, each with its own store, session and connections."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []

    async def start(self, folder: Path, sources: Sequence[Sequence[str]]) -> None:
        self._folder = folder
        for number, parents in enumerate(sources):
            state, session = folder / str(number), aiohttp.ClientSession()
            fetcher = Fetcher(session, parents, partials=Partials(state / "blobs" / "partial"))
            self._nodes.append(_Node(SkillStore(state), session, fetcher))

    async def push(self, wanted: Wanted) -> tuple[int, int, list[str]]:
        """How many nodes have it in their stores then, how many bytes came to them, and what went wrong."""
        before = sum(node.fetcher.bytes_received for node in self._nodes)
        problems = [problem for problem in await asyncio.gather(*(self._push(node, wanted) for node in self._nodes)) if problem]
        return len(self._nodes) - len(problems), sum(node.fetcher.bytes_received for node in self._nodes) - before, problems

    async def _push(self, node: _Node, wanted: Wanted) -> str:
        try:
            data = await obtain(node.fetcher, wanted, node.have)
            await asyncio.to_thread(node.store.put, data, wanted.digest)
        except SnapcountError as error:
            return str(error)
        return ""

    async def check(self, digest: str) -> int:
        """How many stores have it, sound."""
        return sum(node.have(digest) is not None for node in self._nodes)

    async def floor(self, url: str, digest: str, name: str) -> None:
        """The same bytes to as many clients, hashed and written the same way, and nothing else."""

        def write(data: bytes, path: Path) -> None:
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
            files.write_atomic(path, data)

        async def client(path: Path) -> None:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                data = await response.read()
            await asyncio.to_thread(write, data, path)

        await asyncio.gather(*(client(self._folder / name / str(number) / "blob") for number in range(len(self._nodes))))

    async def stop(self) -> None:
        for node in self._nodes:
            await node.session.close()


class Process:
    """A role in a process of its own. `ask` calls one of its methods and waits for the answer; `tell` does not wait, `answer` does then."""

    def __init__(self, role: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(role, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, method: str, *arguments: Any) -> None:
        self._connection.send((method, arguments))

    def answer(self) -> Any:
        if not self._connection.poll(ANSWER_S_MAX):
            raise TimeoutError(f"no answer in {ANSWER_S_MAX:g} s")
        kind, value = self._connection.recv()
        if kind == "error":
            raise RuntimeError(value)
        return value

    def ask(self, method: str, *arguments: Any) -> Any:
        self.tell(method, *arguments)
        return self.answer()

    def stop(self) -> None:
        self.ask("stop")
        self._connection.close()
        self._process.join()


def ask_all(processes: Sequence[Process], method: str, arguments: Sequence[Sequence[Any]]) -> tuple[list[Any], float]:
    """Asks them all at once; their answers, and how many seconds it took until the last."""
    began_s = time.perf_counter()
    for process, own in zip(processes, arguments, strict=True):
        process.tell(method, *own)
    answers = [process.answer() for process in processes]
    return answers, time.perf_counter() - began_s


def _run(role: Callable[[], Any], connection: Connection) -> None:
    _allow_sockets()
    uvloop.run(_serve(role(), connection))


async def _serve(role: Any, connection: Connection) -> None:
    while True:
        method, arguments = await asyncio.to_thread(connection.recv)
        try:
            connection.send(("answer", await getattr(role, method)(*arguments)))
        except Exception as error:  # the process that asked has to hear of it, whatever it is
            connection.send(("error", f"{method}: {error!r}"))
        if method == "stop":
            return


def _allow_sockets() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65_536), hard))
