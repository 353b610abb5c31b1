"""Fetching one blob: sources that break off, lie, crawl and disappear, over real sockets; partial files; ceilings."""

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from host.core.errors import DigestMismatch, MalformedData, NetworkError, NotServed, TooLarge
from host.core.limits import DEFAULT
from host.supply import fetch as fetch_module
from host.supply import partial as partial_module
from host.supply import whole as whole_module
from host.supply.fetch import PROGRESS_HEADER, Fetcher
from host.supply.partial import Partials
from host.supply.rate import RateLimit, TokenBucket
from host.supply.sources import AVOID_S, Sources

OneLine = Callable[..., str]
Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
BLOB = os.urandom(300_000)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


DIGEST = digest_of(BLOB)


def start_of(request: web.Request) -> int:
    asked = request.headers.get("Range", "")
    return int(asked[6:-1]) if asked else 0


async def honest(request: web.Request, data: bytes) -> web.StreamResponse:
    start = start_of(request)
    headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    return web.Response(body=data[start:], status=206 if start else 200, headers=headers)


async def wrong(request: web.Request, data: bytes) -> web.StreamResponse:
    return await honest(request, bytes(byte ^ 1 for byte in data))


async def absent(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=404)


async def failing(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=502)


async def silent(request: web.Request, data: bytes) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def breaking(after: int, *, flip: int = 0) -> Answer:
    """Sends `after` bytes from where it was asked, and hangs up."""

    async def answer(request: web.Request, data: bytes) -> web.StreamResponse:
        start = start_of(request)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(bytes(byte ^ flip for byte in data[start : start + after]))
        await asyncio.sleep(0.02)  # the other end, in this same loop, takes what has come
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def trickling(bytes_s: int, piece: int) -> Answer:
    async def answer(request: web.Request, data: bytes) -> web.StreamResponse:
        start = start_of(request)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        for at in range(start, len(data), piece):
            await response.write(data[at : at + piece])
            await asyncio.sleep(piece / bytes_s)
        return response

    return answer


@dataclass
class Source:
    """A real server that answers for every blob as `answer` says."""

    answer: Answer = honest
    data: bytes = BLOB
    starts: list[int] = field(default_factory=list)
    url: str = ""

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.starts.append(start_of(request))
        return await self.answer(request, self.data)


@dataclass
class Scene:
    stack: AsyncExitStack
    session: aiohttp.ClientSession
    reports: list[tuple[str, str]] = field(default_factory=list)

    async def source(self, answer: Answer = honest, data: bytes = BLOB) -> Source:
        made = Source(answer, data)
        app = web.Application()
        app.router.add_get("/v1/blobs/{digest}", made.get)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return made

    def fetcher(self, *sources: Source, **options: Any) -> Fetcher:
        return Fetcher(self.session, [s.url for s in sources], report=lambda *told: self.reports.append(told), **options)


def play(scenario: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            await scenario(Scene(stack, await stack.enter_async_context(aiohttp.ClientSession())))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, in less time."""
    monkeypatch.setattr(fetch_module, "DEFAULT", replace(DEFAULT, fetch_idle_s_max=0.25, fetch_attempts_max=3))
    monkeypatch.setattr(fetch_module, "RETRY_S", 0.001)
    monkeypatch.setattr(fetch_module, "NOT_YET_S", 0.005)


# Sources in turn.


def test_the_first_source_that_has_it_is_the_only_one_asked() -> None:
    async def scenario(scene: Scene) -> None:
        parent, registry = await scene.source(), await scene.source()
        fetcher = scene.fetcher(parent, registry)
        assert await fetcher.fetch(DIGEST, len(BLOB)) == BLOB
        assert (parent.starts, registry.starts, fetcher.bytes_received) == ([0], [], len(BLOB))

    play(scenario)


@pytest.mark.parametrize("size", [len(BLOB), None])
def test_a_parent_without_it_and_one_that_is_ill_are_passed_over(size: int | None) -> None:
    async def scenario(scene: Scene) -> None:
        without, ill, registry = await scene.source(absent), await scene.source(failing), await scene.source()
        assert await scene.fetcher(without, ill, registry).fetch(DIGEST, size) == BLOB
        assert (len(without.starts), len(ill.starts), registry.starts, scene.reports) == (1, 1, [0], [])

    play(scenario)


def test_a_parent_that_does_not_listen_is_passed_over() -> None:
    async def scenario(scene: Scene) -> None:
        registry = await scene.source()
        fetcher = Fetcher(scene.session, ["http://127.0.0.1:9", "http://[", registry.url])
        assert await fetcher.fetch(DIGEST, len(BLOB)) == BLOB

    play(scenario)


def test_only_the_source_that_a_token_is_for_gets_it() -> None:
    seen: list[str | None] = []

    async def wants(request: web.Request, data: bytes) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=401) if seen[-1] is None else await honest(request, data)

    async def scenario(scene: Scene) -> None:
        parent, registry = await scene.source(wants), await scene.source(wants)
        fetcher = scene.fetcher(parent, registry, authorization={f"{registry.url}/": "Bearer secret"})
        assert await fetcher.fetch(DIGEST, len(BLOB)) == BLOB
        assert seen == [None, "Bearer secret"]

    play(scenario)


def test_what_nobody_has_is_not_served_and_what_nobody_sends_is_a_network_error(one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        first, second = await scene.source(absent), await scene.source(absent)
        with pytest.raises(NotServed) as missing:
            await scene.fetcher(first, second).fetch(DIGEST)
        one_line(missing.value, DIGEST[:19], second.url, "answered 404")
        assert (len(first.starts), len(second.starts)) == (1, 1)
        ill = await scene.source(failing)
        with pytest.raises(NetworkError) as broken:
            await scene.fetcher(ill).fetch(DIGEST, len(BLOB))
        assert not isinstance(broken.value, NotServed)
        one_line(broken.value, DIGEST[:19], f"0 of {len(BLOB)} bytes came in 3 attempts", "answered 502")
        with pytest.raises(NotServed, match="there is no source"):
            await scene.fetcher().fetch(DIGEST)

    play(scenario)


def test_what_is_no_digest_or_too_large_is_not_even_asked_for(one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source()
        for digest in ("sha256:../../etc/passwd", DIGEST.upper(), "sha512:" + "0" * 128, DIGEST + "\n", ""):
            with pytest.raises(MalformedData) as malformed:
                await scene.fetcher(source).fetch(digest)
            one_line(malformed.value, "expected sha256:")
        with pytest.raises(TooLarge):
            await scene.fetcher(source).fetch(DIGEST, DEFAULT.bundle_bytes_max + 1)
        assert source.starts == []

    play(scenario)


def test_a_source_that_says_it_has_a_gigabyte_is_not_read() -> None:
    async def huge(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1 << 30
        await response.prepare(request)
        return response

    async def scenario(scene: Scene) -> None:
        liar = await scene.source(huge)
        with pytest.raises(DigestMismatch, match="says that it has 1073741824 bytes"):
            await scene.fetcher(liar).fetch(DIGEST)
        assert [source for source, _ in scene.reports] == [liar.url]

    play(scenario)


# Resuming.


@pytest.mark.parametrize("size", [len(BLOB), None])
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped_however_often(size: int | None) -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source(breaking(30_000))  # 10 times, and 3 attempts are allowed: progress makes the difference
        fetcher = scene.fetcher(source)
        assert await fetcher.fetch(DIGEST, size) == BLOB
        assert source.starts == list(range(0, len(BLOB), 30_000))
        assert fetcher.bytes_received == len(BLOB)

    play(scenario)


def test_a_transfer_that_breaks_off_goes_on_at_the_next_source() -> None:
    async def scenario(scene: Scene) -> None:
        async def once(request: web.Request, data: bytes) -> web.StreamResponse:
            first.answer = failing
            return await breaking(100_000)(request, data)

        first, second = await scene.source(once), await scene.source()
        assert await scene.fetcher(first, second).fetch(DIGEST, len(BLOB)) == BLOB
        assert (first.starts, second.starts) == ([0, 100_000], [100_000])

    play(scenario)


def test_silence_ends_an_attempt_and_a_restart_without_ranges_is_no_progress(one_line: OneLine) -> None:
    async def no_ranges(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:1000])
        assert request.transport is not None
        request.transport.close()
        return response

    async def scenario(scene: Scene) -> None:
        dumb = await scene.source(silent)
        with pytest.raises(NetworkError) as caught:
            await asyncio.wait_for(scene.fetcher(dumb).fetch(DIGEST, len(BLOB)), 5)
        one_line(caught.value, "0 of 300000 bytes came in 3 attempts")
        assert isinstance(caught.value.__cause__, TimeoutError)
        forgetful = await scene.source(no_ranges)
        with pytest.raises(NetworkError) as caught:
            await scene.fetcher(forgetful).fetch(DIGEST, len(BLOB))
        one_line(caught.value, "1000 of 300000 bytes came in 3 attempts")
        assert len(forgetful.starts) == 4

    play(scenario)


_FETCHING = """
import asyncio, sys
from pathlib import Path
import aiohttp
from host.supply import whole
from host.supply.fetch import Fetcher
from host.supply.partial import Partials

whole.SAVE_S = 0.2

async def main():
    async with aiohttp.ClientSession() as session:
        await Fetcher(session, [sys.argv[1]], partials=Partials(Path(sys.argv[2]))).fetch(sys.argv[3], int(sys.argv[4]))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source(trickling(100_000, 2_000))
        arguments = [source.url, str(tmp_path), DIGEST, str(len(BLOB))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _FETCHING, *arguments, env=environment)
        partial = tmp_path / DIGEST[7:]
        async with asyncio.timeout(20):
            while not (partial.exists() and partial.stat().st_size):  # noqa: ASYNC110 - the file is all there is to see
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        kept = partial.read_bytes()
        assert kept == BLOB[: len(kept)]
        source.answer = honest
        assert await scene.fetcher(source, partials=Partials(tmp_path)).fetch(DIGEST, len(BLOB)) == BLOB
        assert source.starts == [0, len(kept)]
        assert list(tmp_path.iterdir()) == []

    play(scenario)


def test_a_cancelled_fetch_leaves_what_has_come(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source(trickling(1_000, 500))
        fetcher = scene.fetcher(source, partials=Partials(tmp_path))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await fetcher.fetch(DIGEST, len(BLOB))
        assert (tmp_path / DIGEST[7:]).read_bytes() == BLOB[:500]
        source.answer = honest
        assert await fetcher.fetch(DIGEST) == BLOB
        assert source.starts == [0, 500]

    play(scenario)


def test_a_partial_file_that_is_wrong_is_dropped_and_nobody_is_blamed_for_it(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source()
        for wrong_bytes in (bytes(1000), bytes(len(BLOB)), bytes(len(BLOB) + 1)):
            (tmp_path / DIGEST[7:]).write_bytes(wrong_bytes)
            assert await scene.fetcher(source, partials=Partials(tmp_path)).fetch(DIGEST, len(BLOB)) == BLOB
            assert list(tmp_path.iterdir()) == []
        assert source.starts == [1000, 0, 0, 0]
        assert [told for told, _ in scene.reports] == ["", ""]  # the one that is too long is not even read

    play(scenario)


def test_two_fetches_of_one_blob_do_not_share_a_partial_file(tmp_path: Path) -> None:
    partials = Partials(tmp_path)
    first = partials.open(DIGEST)
    assert first is not None
    assert partials.open(DIGEST) is None
    first.release()
    assert partials.open(DIGEST) is not None


def test_partial_files_are_bounded_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "DEFAULT", replace(DEFAULT, bundle_bytes_max=1000))
    partials = Partials(tmp_path, 3000)
    digests = [digest_of(bytes([number])) for number in range(5)]
    for number, digest in enumerate(digests):
        partial = partials.open(digest)
        assert partial is not None
        partial.save(bytes(1000))
        os.utime(tmp_path / digest[7:], (number, number))
        partial.release()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    assert {path.name for path in tmp_path.iterdir()} == {digest[7:] for digest in digests[2:]}


def test_a_disk_that_refuses_partial_files_costs_the_resumption_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    async def scenario(scene: Scene) -> None:
        source = await scene.source(breaking(100_000))
        assert await scene.fetcher(source, partials=Partials(tmp_path / "file" / "below")).fetch(DIGEST, len(BLOB)) == BLOB

    play(scenario)


# Wrong bytes.


@pytest.mark.parametrize("size", [len(BLOB), None])
def test_a_parent_with_wrong_bytes_is_reported_and_avoided_and_another_is_used(size: int | None, one_line: OneLine) -> None:
    async def scenario(scene: Scene) -> None:
        liar, registry = await scene.source(wrong), await scene.source()
        fetcher = scene.fetcher(liar, registry)
        assert await fetcher.fetch(DIGEST, size) == BLOB
        ((source, problem),) = scene.reports
        assert source == liar.url
        one_line(problem, DIGEST[:19], liar.url, f"expected {DIGEST}")
        assert await fetcher.fetch(DIGEST, size) == BLOB
        assert (len(liar.starts), len(registry.starts)) == (1, 2)

    play(scenario)


def test_when_several_sources_added_to_it_each_is_then_asked_for_all_of_it() -> None:
    async def scenario(scene: Scene) -> None:
        async def lies_and_dies(request: web.Request, data: bytes) -> web.StreamResponse:
            liar.answer = failing
            return await breaking(100_000, flip=1)(request, data)

        liar, second = await scene.source(lies_and_dies), await scene.source()
        fetcher = scene.fetcher(liar, second)
        assert await fetcher.fetch(DIGEST, len(BLOB)) == BLOB
        assert second.starts == [100_000, 0]
        assert [source for source, _ in scene.reports] == [""]  # it is not known who it was

    play(scenario)


def test_one_that_lies_again_when_it_is_asked_alone_is_found_out() -> None:
    async def scenario(scene: Scene) -> None:
        def then(answer: Answer, source: Source, after: Answer) -> Answer:
            async def once(request: web.Request, data: bytes) -> web.StreamResponse:
                source.answer = after
                return await answer(request, data)

            return once

        liar, second = await scene.source(), await scene.source()
        liar.answer = then(breaking(100_000, flip=1), liar, then(failing, liar, wrong))
        second.answer = then(honest, second, absent)
        with pytest.raises(DigestMismatch, match=f"{liar.url} sent other bytes"):
            await scene.fetcher(liar, second).fetch(DIGEST, len(BLOB))
        assert (liar.starts, second.starts) == ([0, 100_000, 0], [100_000, 0])
        assert [source for source, _ in scene.reports] == ["", liar.url]

    play(scenario)


def test_a_source_that_answers_with_another_range_than_asked_is_caught_and_what_was_there_is_kept() -> None:
    async def another(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(body=data, status=206, headers={"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"})

    async def scenario(scene: Scene) -> None:
        async def once(request: web.Request, data: bytes) -> web.StreamResponse:
            first.answer = absent
            return await breaking(100_000)(request, data)

        first, liar, third = await scene.source(once), await scene.source(another), await scene.source()
        assert await scene.fetcher(first, liar, third).fetch(DIGEST, len(BLOB)) == BLOB
        assert third.starts == [100_000]
        assert [source for source, _ in scene.reports] == [liar.url]

    play(scenario)


def test_when_all_lie_the_error_says_so() -> None:
    async def scenario(scene: Scene) -> None:
        liars = [await scene.source(wrong), await scene.source(wrong)]
        with pytest.raises(DigestMismatch, match=r"sent other bytes than were announced"):
            await scene.fetcher(*liars).fetch(DIGEST, len(BLOB))
        assert [source for source, _ in scene.reports] == [liar.url for liar in liars]

    play(scenario)


def test_one_that_was_avoided_is_asked_again_after_a_while_and_at_once_where_there_is_no_other() -> None:
    now = [0.0]
    sources = Sources(["a", "b/", "b", "c"], lambda: now[0])
    assert sources.in_order() == ["a", "b", "c"]
    sources.avoid("a")
    assert sources.in_order() == ["b", "c", "a"]
    now[0] = AVOID_S
    assert sources.in_order() == ["a", "b", "c"]


# Those that are slow.


@pytest.mark.slow
def test_a_link_of_1_kbit_s_is_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fetch_module, "DEFAULT", replace(DEFAULT, fetch_idle_s_max=2)
    )  # 2 s of silence are too many, 4 s for all of it are not
    blob = os.urandom(500)

    async def scenario(scene: Scene) -> None:
        source = await scene.source(trickling(125, 25), blob)
        began_s = time.monotonic()
        assert await scene.fetcher(source).fetch(digest_of(blob), 500) == blob
        assert time.monotonic() - began_s > 3.5
        assert source.starts == [0]

    play(scenario)


@pytest.mark.slow
def test_a_source_that_crawls_waits_until_the_others_were_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "CRAWL_S", 0.1)
    monkeypatch.setattr(fetch_module, "CRAWL_BYTES_S", 1_000.0)

    async def scenario(scene: Scene) -> None:
        crawling, second = await scene.source(trickling(200, 10)), await scene.source()
        assert await asyncio.wait_for(scene.fetcher(crawling, second).fetch(DIGEST, len(BLOB)), 10) == BLOB
        assert (crawling.starts, len(second.starts)) == ([0], 1)
        assert second.starts[0] > 0
        assert scene.reports == []

    play(scenario)


def test_a_parent_that_still_fetches_it_is_waited_for_while_it_comes_nearer() -> None:
    async def scenario(scene: Scene) -> None:
        async def not_yet(request: web.Request, data: bytes) -> web.StreamResponse:
            if len(parent.starts) > 8:
                return await honest(request, data)
            return web.Response(status=503, headers={PROGRESS_HEADER: str(len(parent.starts))})

        async def stuck(request: web.Request, data: bytes) -> web.StreamResponse:
            return web.Response(status=503, headers={PROGRESS_HEADER: "7"})

        parent, registry = await scene.source(not_yet), await scene.source()
        assert await scene.fetcher(parent, registry).fetch(DIGEST, len(BLOB)) == BLOB
        assert (len(parent.starts), registry.starts) == (9, [])
        hopeless = await scene.source(stuck)
        assert await scene.fetcher(hopeless, registry).fetch(DIGEST, len(BLOB)) == BLOB
        assert len(hopeless.starts) == 2

    play(scenario)


@pytest.mark.slow
def test_a_parent_that_only_says_that_it_comes_nearer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "CRAWL_S", 0.1)
    monkeypatch.setattr(fetch_module, "CRAWL_BYTES_S", 10_000.0)

    async def scenario(scene: Scene) -> None:
        async def a_byte_more_each_time(request: web.Request, data: bytes) -> web.StreamResponse:
            return web.Response(status=503, headers={PROGRESS_HEADER: str(len(parent.starts))})

        parent, registry = await scene.source(a_byte_more_each_time), await scene.source()
        assert await asyncio.wait_for(scene.fetcher(parent, registry).fetch(DIGEST, len(BLOB)), 10) == BLOB
        assert registry.starts == [0]
        assert len(parent.starts) > 3

    play(scenario)


# Ceilings.


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5_000)), max_size=60), st.integers(1, 10_000), st.integers(1, 10_000))
def test_no_more_passes_a_bucket_than_its_rate_and_one_burst(takes: list[tuple[float, int]], rate: int, burst: int) -> None:
    now_s = free_s = 0.0
    bucket, passed, last = TokenBucket(rate, burst, 0.0), 0, 0.0
    for pause_s, count in takes:
        now_s += pause_s
        free_s = now_s + bucket.take(count, now_s)
        passed += count
        assert passed <= rate * free_s + burst + 1e-3
        assert free_s >= last - 1e-6  # first come, first served
        last = free_s


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(100, 100, 10.0)
    assert bucket.take(100, 10.0) == 0.0
    assert bucket.take(50, 5.0) == 0.5
    bucket.give_back(50)
    assert bucket.take(50, 10.5) == 0.0


@pytest.mark.slow
def test_a_ceiling_holds_for_all_fetches_of_a_node_together() -> None:
    async def scenario(scene: Scene) -> None:
        source = await scene.source()
        fetcher = scene.fetcher(source, down=RateLimit(400_000))
        began_s = time.monotonic()
        assert await asyncio.gather(fetcher.fetch(DIGEST), fetcher.fetch(DIGEST)) == [BLOB, BLOB]
        taken_s = time.monotonic() - began_s
        assert 0.45 <= taken_s <= 2.0  # 600,000 bytes, of which 400,000 may come at once

    play(scenario)


def test_a_transfer_that_is_given_up_gives_its_share_of_the_ceiling_back() -> None:
    async def scenario() -> None:
        limit = RateLimit(2000, now=lambda: 0.0)
        assert await limit.take(2000) == 0.0
        waiting = asyncio.create_task(limit.take(10_000))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await limit.take(10) == pytest.approx(0.005)
        assert await RateLimit().take(1 << 30) == 0.0
        assert (RateLimit().piece(65_536), RateLimit(125).piece(65_536), RateLimit(5000).piece(65_536)) == (65_536, 1024, 5000)

    asyncio.run(scenario())


@pytest.mark.slow
def test_what_has_come_is_on_disk_soon_after_though_nothing_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_module, "SAVE_S", 0.05)

    async def stalls(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:777])
        return await silent(request, data)

    async def scenario(scene: Scene) -> None:
        source = await scene.source(stalls)
        fetching = asyncio.create_task(scene.fetcher(source, partials=Partials(tmp_path)).fetch(DIGEST, len(BLOB)))
        await asyncio.sleep(0.2)
        assert (tmp_path / DIGEST[7:]).read_bytes() == BLOB[:777]
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)

    play(scenario)
