"""A tier that serves its children: merged requests, the bounded cache, ranges, ceilings, and sources that fail; over real sockets."""

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from host import config
from host.core import files
from host.core.errors import Busy, NetworkError, NotServed, StateDamaged
from host.core.limits import DEFAULT
from host.supply import fetch as fetch_module
from host.supply import relay as relay_module
from host.supply import relay_server as server_module
from host.supply.cache import Blob, BlobCache
from host.supply.fetch import PROGRESS_HEADER, Fetcher
from host.supply.partial import Partials
from host.supply.rate import RateLimit
from host.supply.relay import Relay, Underway
from host.supply.relay_server import RelayServer
from host.supply.store import SkillStore

OneLine = Callable[..., str]
MIB = 1 << 20


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def some(number: int, size: int = 100_000) -> bytes:
    """Bytes that differ from those of any other number."""
    return number.to_bytes(4, "big") * (size // 4)


@dataclass
class Origin:
    """A registry that counts what it is asked for. `open` holds its answers back until it is set; `pieces` of 0.01 s each."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 200
    flip: bool = False
    half: bool = False
    url: str = ""

    def add(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    async def get(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        self.asked.append(digest)
        data = self.blobs.get(digest)
        if data is None or self.status != 200:
            return web.Response(status=404 if data is None else self.status)
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        body = bytes(byte ^ 1 for byte in data[start:]) if self.flip else data[start:]
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(body)
        await response.prepare(request)
        if self.half:
            await response.write(body[: len(body) // 2])
        await self.open.wait()
        await response.write(body[len(body) // 2 :] if self.half else body)
        return response


@dataclass
class Scene:
    stack: AsyncExitStack
    session: aiohttp.ClientSession
    origin: Origin
    tmp: Path
    reports: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    async def relay(
        self, *parents: str, name: str = "relay", cache_bytes: int = 64 * MIB, transfers_max: int = 8, up: int = 0, **options: Any
    ) -> tuple[Relay, RelayServer, str]:
        fetcher = Fetcher(
            self.session,
            [*parents, self.origin.url],
            partials=Partials(self.tmp / name / "partial"),
            report=lambda *told: self.reports.append(told),
        )
        cache = BlobCache(self.tmp / name / "sha256", cache_bytes)
        relay = Relay(cache, fetcher, log=self.log.append, **options)
        self.stack.push_async_callback(relay.close)
        server = RelayServer(relay, transfers_max=transfers_max, up=RateLimit(up))
        port = await server.start("127.0.0.1", 0)
        self.stack.push_async_callback(server.stop)
        return relay, server, f"http://127.0.0.1:{port}"

    async def get(self, url: str, digest: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
        async with self.session.request(method, f"{url}/v1/blobs/{digest}", headers=headers) as response:
            return response.status, await response.read(), response.headers


def play(tmp_path: Path, scenario: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            origin, app = Origin(), web.Application()
            origin.open.set()
            app.router.add_get("/v1/blobs/{digest}", origin.get)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            origin.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            await scenario(Scene(stack, session, origin, tmp_path))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, in less time."""
    monkeypatch.setattr(fetch_module, "DEFAULT", replace(DEFAULT, fetch_idle_s_max=0.5, fetch_attempts_max=2))
    monkeypatch.setattr(fetch_module, "RETRY_S", 0.001)
    monkeypatch.setattr(fetch_module, "NOT_YET_S", 0.01)


# Merged requests.


def test_a_hundred_children_at_once_are_one_fetch_and_later_ones_are_none(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = os.urandom(300_000)
        digest = scene.origin.add(blob)
        scene.origin.open.clear()
        relay, server, url = await scene.relay(transfers_max=200)
        children = [asyncio.create_task(scene.get(url, digest)) for _ in range(100)]
        await asyncio.sleep(0.1)
        scene.origin.open.set()
        answers = await asyncio.gather(*children)
        assert {(status, data) for status, data, _ in answers} == {(200, blob)}
        assert (await scene.get(url, digest))[1] == blob
        assert (scene.origin.asked, relay.fetched, server.bytes_sent) == ([digest], 1, 101 * len(blob))

    play(tmp_path, scenario)


def test_the_node_itself_and_its_children_are_one_fetch_too(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        relay, _, url = await scene.relay()
        own, child = await asyncio.gather(relay.fetch(digest, len(blob)), scene.get(url, digest))
        assert (own, child[1], scene.origin.asked) == (blob, blob, [digest])

    play(tmp_path, scenario)


def test_a_tree_of_three_tiers_asks_the_registry_once(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        _, _, coordinator = await scene.relay(name="coordinator")
        leads = [await scene.relay(coordinator, name=f"lead-{number}") for number in range(3)]
        nodes = [Fetcher(scene.session, [leads[number % 3][2], scene.origin.url]) for number in range(12)]
        assert set(await asyncio.gather(*(node.fetch(digest, len(blob)) for node in nodes))) == {blob}
        assert scene.origin.asked == [digest]

    play(tmp_path, scenario)


def test_what_the_nodes_own_store_has_is_served_from_there(tmp_path: Path) -> None:
    blob = some(7)
    digest = digest_of(blob)
    store = SkillStore(tmp_path / "state")
    store.put(blob, digest)

    def local(asked: str) -> bytes | None:
        try:
            return store.get(asked)
        except StateDamaged:
            return None

    async def scenario(scene: Scene) -> None:
        _, _, url = await scene.relay(local=local)
        assert (await scene.get(url, digest))[:2] == (200, blob)
        assert (await scene.get(url, digest_of(b"nobody has it")))[0] == 404
        assert scene.origin.asked == [digest_of(b"nobody has it")]
        assert list((tmp_path / "relay" / "sha256").iterdir()) == []  # it is on disk once

    play(tmp_path, scenario)


def test_a_child_that_waits_is_told_how_far_it_is_and_gets_it_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HOLD_S", 0.05)

    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        scene.origin.open.clear()
        scene.origin.half = True
        _, _, url = await scene.relay()
        await scene.get(url, digest)
        status, body, headers = await scene.get(url, digest)
        assert (status, headers[PROGRESS_HEADER], headers["Retry-After"]) == (503, str(len(blob) // 2), "2")
        assert b"on its way" in body
        child = asyncio.create_task(Fetcher(scene.session, [url]).fetch(digest, len(blob)))
        await asyncio.sleep(0.02)
        scene.origin.open.set()
        assert await child == blob
        assert scene.origin.asked == [digest]

    play(tmp_path, scenario)


def test_what_nobody_waits_for_is_given_up_and_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "ABANDONED_S", 0.02)

    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        scene.origin.open.clear()
        scene.origin.half = True
        relay, _, _ = await scene.relay()
        assert await relay.blob(digest, 0.1) == Underway(len(blob) // 2)
        async with asyncio.timeout(5):
            while not (tmp_path / "relay" / "partial" / digest[7:]).exists():  # noqa: ASYNC110 - the file is all there is to see
                await asyncio.sleep(0.005)
        scene.origin.open.set()
        scene.origin.half = False
        assert await relay.fetch(digest) == blob
        assert relay._fetcher.bytes_received == len(blob)

    play(tmp_path, scenario)


def test_a_relay_that_closes_tells_those_who_wait(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        digest = scene.origin.add(some(1))
        scene.origin.open.clear()
        relay, _, _ = await scene.relay()
        waiting = asyncio.create_task(relay.fetch(digest))
        await asyncio.sleep(0.05)
        await relay.close()
        with pytest.raises(NetworkError, match="given up"):
            await waiting

    play(tmp_path, scenario)


def test_too_many_blobs_on_their_way_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "DEFAULT", replace(DEFAULT, relay_fetches_max=2))

    async def scenario(scene: Scene) -> None:
        scene.origin.open.clear()
        digests = [scene.origin.add(some(number)) for number in range(3)]
        relay, _, url = await scene.relay()
        for digest in digests[:2]:
            assert isinstance(await relay.blob(digest, 0.05), Underway)
        with pytest.raises(Busy):
            await relay.blob(digests[2], 0.05)
        status, body, headers = await scene.get(url, digests[2])
        assert (status, headers["Retry-After"]) == (503, "2")
        assert b"2 blobs are on their way already" in body

    play(tmp_path, scenario)


# HTTP.


def test_ranges_are_those_of_http(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = bytes(range(256))
        digest = scene.origin.add(blob)
        _, _, url = await scene.relay()
        parts = {
            "bytes=0-": (206, blob, "bytes 0-255/256"),
            "bytes=10-19": (206, blob[10:20], "bytes 10-19/256"),
            "bytes=250-900": (206, blob[250:], "bytes 250-255/256"),
            "bytes=-6": (206, blob[250:], "bytes 250-255/256"),
            "bytes=256-": (416, b"", "bytes */256"),
            "bytes=9-1": (200, blob, None),
            "bytes=0-1,4-5": (200, blob, None),
            "lines=1-2": (200, blob, None),
            f"bytes={'9' * 5000}-": (200, blob, None),
        }
        for asked, (status, data, said) in parts.items():
            answer = await scene.get(url, digest, Range=asked)
            assert (answer[0], answer[1], answer[2].get("Content-Range")) == (status, data, said), asked[:30]
        status, data, headers = await scene.get(url, digest, "HEAD")
        assert (status, data, headers["Content-Length"], headers["Docker-Content-Digest"]) == (200, b"", "256", digest)
        assert (await scene.get(url, digest, **{"Range": "bytes=1-1", "If-Range": headers["ETag"]}))[0] == 206
        assert (await scene.get(url, digest, **{"Range": "bytes=1-1", "If-Range": '"other"'}))[0] == 200
        assert scene.origin.asked == [digest]

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "path", ["sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha512:" + "0" * 128, "..%2f..%2fetc%2fpasswd", "sha256:..%2f" + "0" * 61, "x%0a"]
)
def test_what_is_no_digest_is_400_and_nobody_is_asked(path: str, tmp_path: Path, one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        _, _, url = await scene.relay()
        reader, writer = await asyncio.open_connection(*url[7:].split(":"))
        writer.write(f"GET /v1/blobs/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.split()[1] in (b"400", b"404"), answer
        assert scene.origin.asked == []
        assert b"expected sha256:" in answer or b"404: Not Found" in answer

    play(tmp_path, scenario)


def test_what_is_wrong_above_is_one_clear_status(tmp_path: Path, one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        origin = scene.origin
        _, _, url = await scene.relay()
        status, body, _ = await scene.get(url, digest_of(b"nobody has it"))
        assert (status, b"answered 404" in body) == (404, True)
        assert (await scene.get(url, digest_of(b"nobody has it")))[0] == 404
        assert len(origin.asked) == 1  # it is not asked for again at once
        origin.status = 500
        assert (await scene.get(url, origin.add(some(1))))[0] == 502
        origin.status = 200
        origin.flip = True
        status, body, _ = await scene.get(url, origin.add(some(2)))
        assert (status, b"digest_mismatch" in body) == (502, True)  # and not one byte of it went to the child
        assert [source for source, _ in scene.reports] == [origin.url]
        origin.flip = False
        origin.open.clear()
        status, body, _ = await scene.get(url, origin.add(some(3)))
        assert (status, b"0 of" in body) == (504, True)
        origin.open.set()
        assert (await scene.get(url, digest_of(some(2))))[:2] == (200, some(2))  # nothing of it sticks

    play(tmp_path, scenario)


def test_a_relay_with_wrong_bytes_is_caught_by_the_child_and_the_registry_used(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        relay, _, url = await scene.relay(name="liar")
        relay._cache.lend(Blob(digest, b"x" * len(blob)))  # altered in memory: what its own checks cannot see
        _, _, below = await scene.relay(url, name="below")
        assert (await scene.get(below, digest))[:2] == (200, blob)
        assert [source for source, _ in scene.reports] == [url]

    play(tmp_path, scenario)


def test_few_transfers_at_once_are_first_come_first_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        digest = scene.origin.add(some(1))
        relay, server, url = await scene.relay(transfers_max=1)
        await relay.fetch(digest)
        await server._slots.acquire()
        order: list[int] = []

        async def child(number: int) -> None:
            assert (await scene.get(url, digest))[0] == 200
            order.append(number)

        children = []
        for number in range(5):
            children.append(asyncio.create_task(child(number)))
            await asyncio.sleep(0.02)
        server._slots.release()
        await asyncio.gather(*children)
        assert order == [0, 1, 2, 3, 4]
        monkeypatch.setattr(server_module, "HOLD_S", 0.02)
        await server._slots.acquire()
        status, body, _ = await scene.get(url, digest)
        assert (status, b"too many children" in body) == (503, True)
        server._slots.release()
        monkeypatch.setattr(server_module, "DEFAULT", replace(DEFAULT, relay_waiting_max=0))
        status, body, _ = await scene.get(url, digest)
        assert (status, b"ask again" in body) == (503, True)

    play(tmp_path, scenario)


@pytest.mark.slow
def test_a_child_that_stops_reading_is_cut_off_and_frees_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PIECE_S_MAX", 0.2)

    async def scenario(scene: Scene) -> None:
        digest = scene.origin.add(os.urandom(15 * MIB))
        relay, server, url = await scene.relay(transfers_max=1)
        await relay.fetch(digest)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as deaf:
            deaf.sendall(f"GET /v1/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(0.1)
            assert server._slots.locked()
            assert (await scene.get(url, digest, Range="bytes=0-0"))[0] == 206

    play(tmp_path, scenario)


@pytest.mark.slow
def test_a_ceiling_holds_for_all_children_together(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        digest = scene.origin.add(some(1, 200_000))
        relay, _, url = await scene.relay(up=400_000)
        await relay.fetch(digest)
        began_s = time.monotonic()
        await asyncio.gather(*(scene.get(url, digest) for _ in range(4)))
        assert 0.9 <= time.monotonic() - began_s <= 3.0  # 800,000 bytes, of which 400,000 may come at once

    play(tmp_path, scenario)


def test_a_place_that_is_taken_is_an_error_and_routes_fit_into_any_application(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        relay, server, url = await scene.relay()
        with pytest.raises(OSError):
            await RelayServer(relay).start("127.0.0.1", int(url.rpartition(":")[2]))
        assert [route.path for route in server.routes()] == ["/v1/blobs/{digest}"]
        await RelayServer(relay).stop()  # one that never started

    play(tmp_path, scenario)


# The cache.


def on_disk(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def test_the_cache_is_bounded_and_forgets_what_was_longest_unused(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 350_000)
    blobs = [Blob.verified(digest_of(some(number)), some(number)) for number in range(4)]
    for blob in blobs[:3]:
        cache.keep(blob)
    assert cache.load(blobs[0].digest) is not None
    cache.keep(blobs[3])
    assert set(on_disk(tmp_path)) == {blobs[number].digest[7:] for number in (0, 2, 3)}
    assert (cache.disk_bytes, cache.memory_bytes) == (300_000, 100_000)
    assert cache.load(blobs[1].digest) is None
    huge = Blob.verified(digest_of(bytes(400_000)), bytes(400_000))
    cache.keep(huge)
    assert huge.digest[7:] not in on_disk(tmp_path)
    assert cache.hot(huge.digest) is huge  # while somebody sends it
    del huge
    assert cache.hot(digest_of(bytes(400_000))) is None


def test_the_cache_survives_a_restart_with_its_order_and_without_leftovers(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 1_000_000)
    blobs = [Blob.verified(digest_of(some(number)), some(number)) for number in range(4)]
    for number, blob in enumerate(blobs):
        cache.keep(blob)
        os.utime(tmp_path / blob.digest[7:], (number, number))
    assert cache.load(blobs[0].digest) is not None
    (tmp_path / f"{files.TEMPORARY}0123").write_bytes(b"half")
    (tmp_path / "note").write_bytes(b"not ours")
    again = BlobCache(tmp_path, 250_000)
    assert set(on_disk(tmp_path)) == {blobs[0].digest[7:], blobs[3].digest[7:], "note"}
    found = again.load(blobs[3].digest)
    assert found is not None
    assert (found.data, again.disk_bytes) == (some(3), 200_000)


def test_a_blob_that_was_altered_on_disk_is_fetched_anew(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        path = tmp_path / "relay" / "sha256" / digest[7:]
        first, _, _ = await scene.relay()
        await first.fetch(digest)
        path.write_bytes(blob[:-1] + b"?")
        relay, _, url = await scene.relay()  # a restart: nothing is in memory
        assert (await scene.get(url, digest))[:2] == (200, blob)
        assert (relay.fetched, path.read_bytes()) == (1, blob)

    play(tmp_path, scenario)


def test_after_a_restart_nothing_is_fetched_again(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        digest = scene.origin.add(some(1))
        first, _, _ = await scene.relay()
        await first.fetch(digest)
        _, _, url = await scene.relay()
        assert (await scene.get(url, digest))[:2] == (200, some(1))
        assert scene.origin.asked == [digest]

    play(tmp_path, scenario)


def test_on_a_full_disk_children_are_served_all_the_same(small_disk: Path, one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        blob = some(1)
        digest = scene.origin.add(blob)
        _, _, url = await scene.relay()
        for _ in range(2):
            assert (await scene.get(url, digest))[:2] == (200, blob)
        one_line(scene.log[0], digest[:19], "not kept for children who come later", "No space left")
        assert on_disk(small_disk / "relay" / "sha256") == {}
        assert scene.origin.asked == [digest]  # in memory it is

    play(small_disk, scenario)


# node.toml.


def written(tmp_path: Path, make_state: Any, clock: Any, **supply: str) -> Path:
    state: Path = make_state(tmp_path / "node", clock)
    path = state / config.FILE
    lines = path.read_text().splitlines()
    for key, value in supply.items():
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")][-1:]
        lines[at] = f"{key} = {value}"
    path.write_text("\n".join(lines))
    return state


def test_the_template_has_the_defaults_of_the_supply(tmp_path: Path, make_state: Any, clock: Any) -> None:
    assert config.load(make_state(tmp_path / "node", clock)).supply == config.Supply()
    state = written(
        tmp_path / "other", make_state, clock, serve='"[::1]:8471"', cache_mib="128", down_bytes_s="125", up_bytes_s="9"
    )  # fmt: skip
    found = config.load(state).supply
    assert (found.serves_on, found.cache_mib, found.down_bytes_s, found.up_bytes_s) == (("::1", 8471), 128, 125, 9)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("serve", '"8471"', "supply.serve: expected HOST:PORT"),
        ("serve", '"127.0.0.1:99999"', "supply.serve: expected HOST:PORT"),
        ("serve", '"0.0.0.0:8471"', "can be reached from outside"),
        ("cache_mib", "1", "cache_mib"),
        ("down_bytes_s", "-1", "down_bytes_s"),
    ],
)
def test_a_supply_that_cannot_be_is_refused(
    key: str, value: str, says: str, tmp_path: Path, make_state: Any, clock: Any, one_line: OneLine
) -> None:
    with pytest.raises(StateDamaged) as caught:
        config.load(written(tmp_path, make_state, clock, **{key: value}))
    one_line(caught.value, config.FILE, says)


@pytest.mark.parametrize("parent", ["ftp://x", "127.0.0.1:8471", "http://", "http://two words", "http://x?y"])
def test_a_parent_that_is_no_address_is_refused(parent: str) -> None:
    with pytest.raises(ValueError, match=r"supply\.parents: expected http://HOST:PORT"):
        config.Supply(parents=(parent,))
    assert config.Supply(parents=("https://lead-1:8471", "http://10.0.0.1/under")).parents


def test_nobody_has_it_is_told_from_a_link_that_is_down() -> None:
    assert issubclass(NotServed, NetworkError)
    assert NotServed("x").exit_code == NetworkError("x").exit_code
