"""A push, seen from both ends: a node's link to a registry that dies, lies or floods, and the operator's client."""

import asyncio
import hashlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nacl.signing import SigningKey

from host.core import cbor, fleet
from host.core.attestation import Measurement
from host.core.clock import Clock
from host.core.errors import NetworkError, SnapcountError, UntrustedInput, UsageError
from host.core.fleet import Announcement, Challenge, Hello, Progress
from host.core.limits import DEFAULT
from host.node import Node
from host.supply import client as client_module
from host.supply import fetch as fetch_module
from registry.client import RegistryHttp
from registry.server import RegistryServer, serve

WAIT_S = 20.0
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
BEFORE = "1.0.0"
MakeSkill = Callable[..., bytes]
MakeState = Callable[..., Path]
OneLine = Callable[..., str]
Lie = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the node under test has no event for it
            await asyncio.sleep(0.005)


@dataclass
class Liar:
    """A registry that answers for blobs as `lie` says, honestly where there is none. `served` counts the bytes of each answer."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    lie: Lie | None = None
    link: web.WebSocketResponse | None = None
    hellos: list[Hello] = field(default_factory=list)
    reports: list[Progress] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    runner: web.AppRunner | None = None
    port: int = 0

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/v1/nodes", self._nodes), web.get("/v1/blobs/{digest}", self._blob)])
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        """Dies: the port is closed, and so is every connection."""
        assert self.runner is not None
        if self.link is not None and self.link._req is not None and self.link._req.transport is not None:
            self.link._req.transport.abort()
        await self.runner.cleanup()

    async def announce(self, data: bytes, version: str, *, digest: str = "", size: int = 0) -> str:
        digest = digest or digest_of(data)
        self.blobs.setdefault(digest, data)
        assert self.link is not None
        frame = Announcement(name="greeter", version=version, digest=digest, size=size or len(data))
        await self.link.send_bytes(cbor.encode(frame))
        return digest

    async def push(self, data: bytes, version: str, **announced: Any) -> Progress:
        """Announces, and waits for the node's word."""
        seen = len(self.reports)
        digest = await self.announce(data, version, **announced)

        def decided() -> list[Progress]:
            return [r for r in self.reports[seen:] if r.digest == digest and r.state in ("active", "failed")]

        await until(decided)
        return decided()[0]

    async def _nodes(self, request: web.Request) -> web.WebSocketResponse:
        link = web.WebSocketResponse()
        await link.prepare(request)
        await link.send_bytes(cbor.encode(Challenge(nonce=b"n" * 16)))
        async for message in link:
            frame, _ = fleet.open_sealed(message.data)
            if isinstance(frame, Hello):
                self.hellos.append(frame)
                self.link = link
            else:
                self.reports.append(frame)
        return link

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        data = self.blobs.get(request.match_info["digest"])
        if data is None:
            return web.Response(status=404)
        if self.lie is not None:
            return await self.lie(request, data)
        start = int(asked[6:-1]) if asked else 0
        self.served.append(len(data) - start)
        return web.Response(body=data[start:], status=206 if asked else 200)


@dataclass
class Scene:
    """A node with one active skill, connected to a registry that may lie."""

    node: Node
    liar: Liar
    log: list[tuple[str, str]]

    def errors(self) -> list[str]:
        return [line for level, line in self.log if level == "error"]

    def warnings(self) -> list[str]:
        return [line for level, line in self.log if level == "warning"]

    def active(self) -> list[str]:
        return [skill.version for skill in self.node.skills()]


async def link(node: Node) -> None:
    """The node's link to its registry, as the daemon keeps it."""
    line = node.supply_line()
    session = await line.start()
    try:
        assert node.client is not None
        await node.client.run(session, line)
    finally:
        await line.stop()


@asynccontextmanager
async def connected(tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill) -> AsyncIterator[Scene]:
    liar, log = Liar(), []
    await liar.start()
    state = make_state(tmp_path / "node", clock, registry=f"http://127.0.0.1:{liar.port}")
    node = Node.open(state, MEASURED, clock=clock, log=lambda level, line: log.append((level, line)))
    first = make_skill(version=BEFORE)
    await node.install(first, digest_of(first))
    assert node.client is not None
    task = asyncio.create_task(link(node))
    try:
        await until(lambda: liar.hellos)
        yield Scene(node, liar, log)
        assert not task.done(), "the link to the registry must never end by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await liar.stop()
        node.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, in less time."""
    monkeypatch.setattr(fetch_module, "DEFAULT", replace(DEFAULT, fetch_idle_s_max=0.25, fetch_attempts_max=3))
    monkeypatch.setattr(fetch_module, "RETRY_S", 0.01)
    monkeypatch.setattr(client_module, "RECONNECT_S_MIN", 0.01)


# What a registry can answer instead of the blob.


async def _stream(
    request: web.Request, pieces: list[bytes], *, length: int | None = None, status: int = 200, **headers: str
) -> web.StreamResponse:
    answer = web.StreamResponse(status=status, headers=headers)
    answer.content_length = length
    await answer.prepare(request)
    for piece in pieces:
        await answer.write(piece)
    return answer


async def wrong_bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=data[:-1] + bytes([data[-1] ^ 1]))


async def too_many_bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=data + b"\0")


async def endless_body(request: web.Request, data: bytes) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    with suppress(ConnectionError):
        while True:
            await answer.write(bytes(65536))
    return answer


async def elsewhere(request: web.Request, data: bytes) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:9/elsewhere")


async def not_found(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=404)


async def broken(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=500, text="two\nlines")


async def silence(request: web.Request, data: bytes) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def silence_half_way(request: web.Request, data: bytes) -> web.StreamResponse:
    await _stream(request, [data[: len(data) // 2]], length=len(data))
    return await silence(request, data)


async def always_half(request: web.Request, data: bytes) -> web.StreamResponse:
    answer = await _stream(request, [data[: len(data) // 2]], length=len(data))
    assert request.transport is not None
    request.transport.close()
    return answer


async def another_range(request: web.Request, data: bytes) -> web.StreamResponse:
    """Half of it, and when the rest is asked for, the beginning once more."""
    if "Range" in request.headers:
        return web.Response(body=data, status=206)
    return await always_half(request, data)


async def no_gzip(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=data, headers={"Content-Encoding": "gzip"})


async def fewer_bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=data[:100])


LIES: dict[str, tuple[Lie, str, str]] = {
    "wrong bytes": (wrong_bytes, "digest_mismatch", "expected {digest}"),
    "too many bytes": (too_many_bytes, "digest_mismatch", "more than the announced {size} bytes"),
    "an endless body": (endless_body, "digest_mismatch", "more than the announced {size} bytes"),
    "a redirect elsewhere": (elsewhere, "network_error", "answered 302"),
    "not found": (not_found, "network_error", "answered 404"),
    "a server error": (broken, "network_error", "answered 500"),
    "silence": (silence, "network_error", "0 of {size} bytes came in 3 attempts"),
    "silence half-way": (silence_half_way, "network_error", "of {size} bytes came in 3 attempts"),
    "always half of it": (always_half, "network_error", "of {size} bytes came in 3 attempts"),
    "another range than asked for": (another_range, "digest_mismatch", ""),
    "what is not gzip as gzip": (no_gzip, "network_error", "of {size} bytes came in 3 attempts"),
    "fewer bytes": (fewer_bytes, "network_error", "100 of {size} bytes came in 3 attempts"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_one_clear_line_the_skill_stays_and_the_next_push_works(
    kind: str, tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None, one_line: OneLine
) -> None:
    lie, code, says = LIES[kind]

    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            data = make_skill(version="1.1.0", padding=40_000)
            scene.liar.lie = lie
            failed = await scene.liar.push(data, "1.1.0")
            assert (failed.state, failed.code) == ("failed", code)
            one_line(failed.message, digest_of(data)[:19], says.format(digest=digest_of(data), size=len(data)))
            one_line(scene.errors()[-1], f"greeter 1.1.0: not installed: {failed.message}")
            assert scene.active() == [BEFORE]
            scene.liar.lie = None
            assert (await scene.liar.push(data, "1.1.0")).state == "active"
            assert scene.active() == ["1.1.0"]
            assert len(scene.liar.hellos) == 1  # the link stood all the time

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_huge_announcement_is_not_even_asked_for(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None, one_line: OneLine
) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            data = make_skill(version="1.1.0")
            for size in (DEFAULT.bundle_bytes_max + 1, 2**63):
                failed = await scene.liar.push(data, "1.1.0", size=size)
                assert (failed.state, failed.code) == ("failed", "too_large")
                one_line(failed.message, digest_of(data)[:19], size, DEFAULT.bundle_bytes_max)
            assert scene.liar.ranges == []
            assert scene.active() == [BEFORE]
            assert (await scene.liar.push(data, "1.1.0")).state == "active"

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_blob_that_breaks_off_is_resumed_where_it_stopped(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None
) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            data, liar = make_skill(version="1.1.0", padding=300_000), scene.liar
            half = len(data) // 2

            async def dies_once(request: web.Request, data: bytes) -> web.StreamResponse:
                liar.lie = None
                answer = await _stream(request, [data[:half]], length=len(data))
                liar.served.append(half)
                await asyncio.sleep(0.05)  # the node, in this same loop, takes what has come
                assert request.transport is not None
                request.transport.close()
                return answer

            liar.lie = dies_once
            assert (await liar.push(data, "1.1.0")).state == "active"
            assert liar.ranges[0] == ""
            (resumed,) = re.findall(r"^bytes=(\d+)-$", liar.ranges[1])
            assert 0 < int(resumed) <= half
            assert liar.served == [half, len(data) - int(resumed)]
            assert scene.active() == ["1.1.0"]

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_registry_that_dies_half_way_and_comes_back_is_resumed_and_told(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch, one_line: OneLine
) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_S_MIN", 0.01)

    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            data, liar = make_skill(version="1.1.0", padding=300_000), scene.liar
            stopped = asyncio.Event()

            async def stall(request: web.Request, data: bytes) -> web.StreamResponse:
                await _stream(request, [data[: len(data) // 2]], length=len(data))
                await asyncio.sleep(0.05)
                stopped.set()
                return await silence(request, data)

            liar.lie = stall
            await liar.announce(data, "1.1.0")
            await stopped.wait()
            await liar.stop()
            await until(lambda: not scene.node.client.connected)  # type: ignore[union-attr]
            liar.lie = None
            await liar.start()
            await until(lambda: scene.active() == ["1.1.0"])
            await until(lambda: len(liar.hellos) == 2)
            assert liar.ranges[-1].startswith("bytes=")
            assert liar.served == [len(data) - int(liar.ranges[-1][6:-1])]
            assert liar.served[0] < len(data)
            for line in scene.warnings():
                one_line(line, f"registry http://127.0.0.1:{liar.port}")
            assert scene.errors() == []

    asyncio.run(scenario())


async def _garbage(liar: Liar) -> None:
    assert liar.link is not None
    await liar.link.send_bytes(b"\xff\x00garbage")


async def _text(liar: Liar) -> None:
    assert liar.link is not None
    await liar.link.send_str("two\nlines")


async def _a_hello(liar: Liar) -> None:
    assert liar.link is not None
    await liar.link.send_bytes(cbor.encode(liar.hellos[0]))


async def _too_long(liar: Liar) -> None:
    assert liar.link is not None
    await liar.link.send_bytes(bytes(DEFAULT.frame_bytes_max + 1))


async def _unknown_field(liar: Liar) -> None:
    assert liar.link is not None
    await liar.link.send_bytes(cbor.encode({"type": "challenge", "nonce": b"", "two\nlines\x1b[31m": 1}))


async def _a_path_for_a_name(liar: Liar) -> None:
    assert liar.link is not None
    frame = {"type": "announce", "name": "../../etc", "version": "1.0.0", "digest": digest_of(b""), "size": 8}
    await liar.link.send_bytes(cbor.encode(frame))


@pytest.mark.slow
@pytest.mark.parametrize("garbage", [_garbage, _text, _a_hello, _too_long, _unknown_field, _a_path_for_a_name])
def test_a_garbage_frame_ends_the_link_in_one_line_and_the_next_one_works(
    garbage: Callable[[Liar], Awaitable[None]], tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None, one_line: OneLine
) -> None:  # fmt: skip
    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            await garbage(scene.liar)
            await until(lambda: len(scene.liar.hellos) == 2)
            (line,) = scene.warnings()
            one_line(line, f"registry http://127.0.0.1:{scene.liar.port}", "trying again")
            assert [skill.version for skill in scene.liar.hellos[1].skills] == [BEFORE]
            assert (await scene.liar.push(make_skill(version="1.1.0"), "1.1.0")).state == "active"

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_flood_of_announcements_is_bounded_and_the_next_push_works(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None, one_line: OneLine
) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            assert scene.liar.link is not None
            with suppress(ConnectionError):
                for i in range(DEFAULT.announcements_max * 4):
                    frame = Announcement(name=f"skill-{i}", version="1.0.0", digest=digest_of(b"%d" % i), size=8)
                    await scene.liar.link.send_bytes(cbor.encode(frame))
            await until(lambda: len(scene.liar.hellos) == 2)
            one_line(scene.warnings()[0], f"registry http://127.0.0.1:{scene.liar.port}", f"more than {DEFAULT.announcements_max} bundles")
            await until(lambda: len(scene.errors()) >= DEFAULT.announcements_max)
            assert (await scene.liar.push(make_skill(version="1.1.0"), "1.1.0")).state == "active"
            assert len(scene.liar.ranges) <= DEFAULT.announcements_max * 2

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_link_that_stood_is_dialled_again_at_once_and_one_that_never_stands_ever_later(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_S_MIN", 0.01)
    monkeypatch.setattr(client_module, "RECONNECT_S_MAX", 0.6)

    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            liar = scene.liar
            await liar.stop()
            await until(lambda: len(scene.warnings()) >= 8)  # 0.01 s doubled seven times is more than 0.6 s
            assert not scene.node.client.connected  # type: ignore[union-attr]
            await liar.start()
            await until(lambda: len(liar.hellos) == 2)
            await asyncio.sleep(0.7)  # it stands for longer than any back-off
            assert liar.link is not None
            dropped = time.monotonic()
            await liar.link.close()
            await until(lambda: len(liar.hellos) == 3)
            assert time.monotonic() - dropped < 0.25  # at least 0.3 s where the delay had stayed

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_costs_one_install_and_not_the_link(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, quick: None, one_line: OneLine
) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, clock, make_state, make_skill) as scene:
            blobs = tmp_path / "node" / "blobs" / "sha256"
            data = make_skill(version="1.1.0")
            obstacle = blobs / digest_of(data)[7:]
            obstacle.mkdir()  # a directory where the blob is to be: neither written over nor unlinked
            failed = await scene.liar.push(data, "1.1.0")
            assert failed.state == "failed"
            one_line(failed.message, digest_of(data)[7:23])
            assert scene.active() == [BEFORE]
            obstacle.rmdir()
            assert (await scene.liar.push(data, "1.1.0")).state == "active"

    asyncio.run(scenario())


# The whole way, with a real registry and the operator's client.


@pytest.mark.slow
def test_a_push_through_a_real_registry_is_followed_to_its_end(
    tmp_path: Path, clock: Clock, make_state: MakeState, make_skill: MakeSkill, one_line: OneLine
) -> None:
    stranger = SigningKey(b"s" * 32)

    def push(http: RegistryHttp, data: bytes) -> list[dict[str, dict[str, Any]]]:
        kept = http.upload(data)
        http.announce(kept["digest"])
        return list(http.follow(kept["digest"], WAIT_S))

    async def scenario() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        log: list[str] = []
        server = RegistryServer(tmp_path / "registry", clock, lambda level, line: log.append(line))
        serving = asyncio.create_task(serve(server, "127.0.0.1", 0, ready.set_result))
        http = RegistryHttp(await ready)
        state = make_state(tmp_path / "node", clock, registry=ready.result())
        node = Node.open(state, MEASURED, clock=clock, log=lambda level, line: None)
        assert node.client is not None
        linked = asyncio.create_task(link(node))
        try:
            await until(lambda: node.client.connected and "node-01 connected" in log)  # type: ignore[union-attr]
            states = await asyncio.to_thread(push, http, make_skill())
            assert states[-1] == {"node-01": {"state": "active", "code": "", "message": ""}}
            states = await asyncio.to_thread(push, http, make_skill(version="2.0.0", signer=stranger))
            failed = states[-1]["node-01"]
            assert (failed["state"], failed["code"]) == ("failed", "signature_invalid")
            one_line(failed["message"], "sha256:", "not trusted here")
            assert [skill.version for skill in node.skills()] == ["1.0.0"]
            states = await asyncio.to_thread(push, http, make_skill(version="1.1.0"))
            assert states[-1]["node-01"]["state"] == "active"
        finally:
            linked.cancel()
            serving.cancel()
            await asyncio.gather(linked, serving, return_exceptions=True)
            node.close()

    asyncio.run(scenario())


# The operator's client.


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers every request with these bytes and hangs up; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS: dict[str, tuple[bytes, type[SnapcountError], str]] = {
    "nothing": (b"", NetworkError, "is it running"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\0\0", NetworkError, "is it running"),
    "half a header": (b"HTTP/1.1 200 OK\r\nContent-Le", NetworkError, ""),
    "half a body": (http_answer(b"{}")[:-1], NetworkError, "not JSON"),
    "a broken chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", NetworkError, ""),
    "not JSON": (http_answer(b"<html>"), NetworkError, "not JSON"),
    "not UTF-8": (http_answer(b"\xff\xfe\xfd"), NetworkError, "not JSON"),
    "nested without end": (http_answer(b"[" * 100_000), NetworkError, "not JSON"),
    "a list": (http_answer(b"[]"), NetworkError, "not a JSON object"),
    "500 without a reason": (http_answer(b"<h1>two\nlines</h1>", "500 Internal\x1b[31m Error"), NetworkError, "answered 500"),
    "507 with a reason": (http_answer(b'{"message": "full\\nof bits"}', "507 X"), NetworkError, "full\\nof bits"),
    "400 with a reason": (http_answer(b'{"message": "no\\u001bt this"}', "400 X"), UntrustedInput, "refused it: no\\x1bt this"),
    "400 with a list": (http_answer(b"[1]", "400 X"), NetworkError, "answered 400"),
    "a redirect to itself": (http_answer(b"", "302 X", "Location: /v1/fleet"), NetworkError, "302"),
    "a redirect to a file": (http_answer(b"", "302 X", "Location: file:///etc/passwd"), NetworkError, "302"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_whatever_answers_at_the_registrys_address_is_one_line(kind: str, one_line: OneLine) -> None:
    answer, error, says = ANSWERS[kind]
    with answering(answer) as url, pytest.raises(error) as caught:
        RegistryHttp(url).fleet()
    one_line(caught.value, "registry", says)


@pytest.mark.parametrize("body", [b"{}", b'{"nodes": 1}', b'{"nodes": [1]}', b'{"nodes": [{"node": "x"}]}'])
def test_an_answer_that_is_no_fleet_is_one_line(body: bytes, one_line: OneLine) -> None:
    with answering(http_answer(body)) as url, pytest.raises(NetworkError) as caught:
        list(RegistryHttp(url).follow(digest_of(b""), 1.0))
    one_line(caught.value, url, "not a fleet")


def test_a_registry_that_does_not_run_is_named_with_what_to_do(one_line: OneLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NetworkError) as caught:
        RegistryHttp(f"http://127.0.0.1:{port}").upload(b"")
    one_line(caught.value, f"registry http://127.0.0.1:{port}", "Connection refused", "snapcount registry serve")


@pytest.mark.parametrize(
    "url", ["", "registry", "ftp://x", "http://[", "http://127.0.0.1:port", "http://127.0.0.1:99999", "http://two words/", "http://x\ny"]
)
def test_an_address_that_is_none_is_one_line_that_names_it(url: str, one_line: OneLine) -> None:
    with pytest.raises((UsageError, NetworkError)) as caught:
        RegistryHttp(url).fleet()
    one_line(caught.value, "registry", url.partition("\n")[0].rstrip("/"))


@pytest.mark.slow
@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999", "ftp://x", "http://two words"])
def test_a_node_with_an_address_that_is_none_says_so_and_stays(
    url: str, tmp_path: Path, clock: Clock, make_state: MakeState, one_line: OneLine
) -> None:
    async def scenario() -> None:
        log: list[str] = []
        node = Node.open(
            make_state(tmp_path / "node", clock, registry=url), MEASURED, clock=clock, log=lambda level, line: log.append(line)
        )
        assert node.client is not None
        task = asyncio.create_task(link(node))
        try:
            await until(lambda: log or task.done())
            assert not task.done()
            one_line(log[0], f"registry {url}")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            node.close()

    asyncio.run(scenario())


def test_a_push_is_over_when_every_connected_node_has_decided_and_an_absent_one_counts_as_away() -> None:
    digest, other = digest_of(b"1"), digest_of(b"2")

    def row(node: str, connected: bool, state: str = "", runs: str = "") -> dict[str, Any]:
        progress = [{"digest": digest, "state": state, "code": "c", "message": "m"}] if state else []
        return {"node": node, "connected": connected, "skills": [{"digest": runs}] if runs else [], "progress": progress}

    class Answers(RegistryHttp):
        def fleet(self) -> dict[str, Any]:
            return {"nodes": rows}

    rows = [
        row("runs", True, runs=digest), row("failed", True, "failed"), row("left", False, "fetching"), row("never-told", False),
        row("runs-after-a-failure", True, "failed", digest), row("left-with-another", False, "active", other),
    ]  # fmt: skip
    (states,) = Answers("http://x").follow(digest, 0.0)
    assert {name: state["state"] for name, state in states.items()} == {
        "runs": "active", "failed": "failed", "left": "away", "runs-after-a-failure": "active", "left-with-another": "away",
    }  # fmt: skip
    rows = [row("silent", True)]
    assert list(Answers("http://x").follow(digest, 0.0)) == [{"silent": {"state": "pending", "code": "", "message": ""}}]
