"""The registry as a real server on a loopback socket: uploads, blobs, announcements, and nodes that are not who they say."""

import asyncio
import hashlib
import json
import logging
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, web
from nacl.signing import SigningKey
from yarl import URL

from host.core import cbor, certificate, cose, fleet
from host.core.certificate import Claims
from host.core.clock import Clock
from host.core.errors import HostFault, StateDamaged
from host.core.fleet import Announcement, Hello, Progress, SkillState
from host.core.limits import DEFAULT
from registry import links as links_module
from registry import server as server_module
from registry.fleet import Fleet
from registry.server import RegistryServer, serve
from registry.store import ANNOUNCED, BundleStore

WAIT_S = 10.0
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tree(root: Path) -> list[str]:
    """The files below the registry's folder, but for its databases, its key, and what describes a bundle to OCI clients (JSON)."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(("registry.db", "rollouts.db", "operator."))]
    return sorted(str(path.relative_to(root)) for path in files if path.parent.name != "sha256" or path.read_bytes()[:1] != b"{")


@dataclass
class Running:
    """A registry that listens, and a session to speak to it."""

    url: str
    server: RegistryServer
    session: aiohttp.ClientSession
    folder: Path
    log: list[str]
    links: list["Link"] = field(default_factory=list)  # kept until the session closes them

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(self.url + path, data=body) as response:
            return response.status, await response.json()

    async def upload(self, data: bytes) -> dict[str, Any]:
        status, kept = await self.post("/v1/bundles", data)
        assert status == 201
        return kept

    async def announce(self, digest: str) -> tuple[int, dict[str, Any]]:
        return await self.post("/v1/announcements", json.dumps({"digest": digest}))

    async def blob(self, digest: str, byte_range: str = "") -> tuple[int, bytes]:
        headers = {"Range": byte_range} if byte_range else {}
        async with self.session.get(URL(f"{self.url}/v1/blobs/{digest}", encoded=True), headers=headers) as response:
            return response.status, await response.read()

    async def fleet(self) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/v1/fleet") as response:
            assert response.status == 200
            found: dict[str, Any] = await response.json()
            return found

    async def row(self, node: str) -> dict[str, Any]:
        return next(
            (row for row in (await self.fleet())["nodes"] if row["node"] == node), {"connected": False, "progress": [], "skills": []}
        )

    async def dial(self) -> "Link":
        link = await self.session.ws_connect(f"{self.url}/v1/nodes")
        challenge = fleet.open_plain(await link.receive_bytes(timeout=WAIT_S))
        assert isinstance(challenge, fleet.Challenge)
        self.links.append(Link(link, challenge.nonce))
        return self.links[-1]

    async def join(self, name: str, key: SigningKey, skills: tuple[SkillState, ...] = (), cert: bytes = b"") -> "Link":
        """A node that is connected, and that the registry knows to be."""
        link = await self.dial()
        await link.send(hello(name, link.nonce, skills, cert), key)
        await until(lambda: self.connected(name))
        return link

    async def connected(self, name: str) -> bool:
        return bool((await self.row(name))["connected"])


@dataclass
class Link:
    """The node's end of a link."""

    socket: aiohttp.ClientWebSocketResponse
    nonce: bytes

    async def send(self, frame: fleet.FromNode, key: SigningKey) -> None:
        await self.socket.send_bytes(fleet.seal(frame, key))

    async def told(self) -> Announcement:
        frame = fleet.open_plain(await self.socket.receive_bytes(timeout=WAIT_S))
        assert isinstance(frame, Announcement)
        return frame

    async def sent_away(self) -> str:
        """Why the registry closed the link. Fails when it says anything else first."""
        message = await self.socket.receive(timeout=WAIT_S)
        assert message.type is WSMsgType.CLOSE, message
        assert message.data in (aiohttp.WSCloseCode.POLICY_VIOLATION, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)
        return str(message.extra)


def hello(name: str, nonce: bytes, skills: tuple[SkillState, ...] = (), cert: bytes = b"") -> Hello:
    return Hello(node=name, nonce=nonce, generation=1, certificate=cert, host=f"sha256:{'0' * 64}", skills=skills)


def report(node: str, kept: dict[str, Any], state: fleet.State = "active", message: str = "") -> Progress:
    return Progress(node=node, name=kept["name"], version=kept["version"], digest=kept["digest"], state=state, at_ms=1, message=message)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in the registry, which has no event for it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(folder: Path, clock: Clock, authorities: tuple[Any, ...] = (), send_buffer: int = 0) -> AsyncIterator[Running]:
    log: list[str] = []
    made = RegistryServer(folder, clock, lambda level, line: log.append(f"{level} {line}"), authorities)
    async with aiohttp.ClientSession() as session:
        if send_buffer:
            async with small_site(made, send_buffer) as url:
                r = Running(url, made, session, folder, log)
                yield r
                await asyncio.gather(*(link.socket.close() for link in r.links))
            return
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(made, "127.0.0.1", 0, ready.set_result))
        r = Running(await ready, made, session, folder, log)
        try:
            yield r
        finally:
            await asyncio.gather(*(link.socket.close() for link in r.links))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def small_site(made: RegistryServer, send_buffer: int) -> AsyncIterator[str]:
    """Listens with so small a kernel buffer that a reader who stops is soon noticed."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    runner = web.AppRunner(made.app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing from outside may end in a handler's traceback: aiohttp would log it as an error."""
    with caplog.at_level(logging.ERROR):
        yield
    assert [f"{record.getMessage()}: {record.exc_info}" for record in caplog.get_records("call")] == []


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets bounds of the server lower, so that a test need not send 16 MiB or dial 5,000 times."""
    return lambda **bounds: [monkeypatch.setattr(module, "DEFAULT", replace(DEFAULT, **bounds)) for module in (server_module, links_module)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


# Bundles and blobs.


def test_an_upload_is_kept_by_its_digest_and_served_byte_for_byte(folder: Path, clock: Clock, make_skill: MakeSkill) -> None:
    async def scenario() -> None:
        data = make_skill(padding=10_000)
        async with running(folder, clock) as r:
            kept = await r.upload(data)
            assert kept == {"type": "announce", "name": "greeter", "version": "1.0.0", "digest": digest_of(data), "size": len(data)}
            assert await r.blob(kept["digest"]) == (200, data)
            assert await r.blob(kept["digest"], "bytes=100-") == (206, data[100:])
            assert await r.blob(kept["digest"], "bytes=7-9") == (206, data[7:10])
            assert (await r.blob(kept["digest"], f"bytes={len(data)}-"))[0] == 416
            assert tree(folder) == [f"blobs/sha256/{kept['digest'][7:]}"]

    asyncio.run(scenario())


def test_the_same_bundle_uploaded_by_many_at_once_is_one_blob(folder: Path, clock: Clock, make_skill: MakeSkill) -> None:
    async def scenario() -> None:
        data = make_skill(padding=50_000)
        async with running(folder, clock) as r:
            answers = await asyncio.gather(*(r.upload(data) for _ in range(8)))
            assert all(answer == answers[0] for answer in answers)
            assert tree(folder) == [f"blobs/sha256/{digest_of(data)[7:]}"]

    asyncio.run(scenario())


BAD_DIGESTS = (
    "sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha256:" + "0" * 65, "md5:" + "0" * 64, "0" * 64, "sha256:..%2f..%2fannounced.json",
    "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2fannounced.json", f"sha256:{'0' * 64}%0a", "sha256:%00", f"sha256:..%2fsha256%2f{'0' * 64}", "%1b[31m",
)  # fmt: skip


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_a_digest_that_is_none_is_refused_before_it_touches_a_file(folder: Path, clock: Clock, digest: str, one_line: OneLine) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            (folder / ANNOUNCED).write_text("{}")
            status, body = await r.blob(digest)
            answer = json.loads(body)
            assert (status, answer["code"]) == (400, "usage_error")
            one_line(answer["message"], "expected sha256: and 64 hexadecimal digits")

    asyncio.run(scenario())


def test_an_unknown_digest_is_not_found_and_cannot_be_announced(folder: Path, clock: Clock, one_line: OneLine) -> None:
    async def scenario() -> None:
        nothing = digest_of(b"nothing")
        async with running(folder, clock) as r:
            status, body = await r.blob(nothing)
            assert status == 404
            one_line(json.loads(body)["message"], nothing)
            status, answer = await r.announce(nothing)
            assert (status, answer["code"]) == (400, "usage_error")
            one_line(answer["message"], nothing, "upload it first")
            assert tree(folder) == []

    asyncio.run(scenario())


def test_an_upload_that_is_no_bundle_is_refused_and_not_kept(folder: Path, clock: Clock, make_skill: MakeSkill, one_line: OneLine) -> None:
    async def scenario() -> None:
        whole = make_skill()
        async with running(folder, clock) as r:
            for data in (b"", b"\0asm", b"not wasm at all", b"\0asm\1\0\0\0", whole[:-1], whole[: len(whole) // 2], whole + b"\0"):
                status, answer = await r.post("/v1/bundles", data)
                assert (status, answer["code"]) == (400, "malformed_module"), data[:20]
                one_line(answer["message"], "upload")
            assert tree(folder) == []
            await r.upload(make_skill(signer=None))  # whether to trust it is each node's own decision

    asyncio.run(scenario())


def test_an_upload_that_is_too_large_is_refused_with_and_without_a_length(
    folder: Path, clock: Clock, make_skill: MakeSkill, small_limits: Callable[..., None], one_line: OneLine
) -> None:
    small_limits(bundle_bytes_max=4096)

    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1024)

    async def scenario() -> None:
        async with running(folder, clock) as r:
            status, answer = await r.post("/v1/bundles", bytes(4097))
            assert (status, answer["code"]) == (413, "too_large")
            one_line(answer["message"], 4096, 4097)
            status, answer = await r.post("/v1/bundles", chunked())
            assert status == 413
            one_line(answer["message"], 4096)
            assert tree(folder) == []
            await r.upload(make_skill())

    asyncio.run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_breaks_off_half_way_leaves_nothing(folder: Path, clock: Clock, make_skill: MakeSkill, chunked: bool) -> None:
    async def scenario() -> None:
        data = make_skill(padding=20_000)
        async with running(folder, clock) as r:
            url = URL(r.url)
            assert url.host and url.port
            reader, writer = await asyncio.open_connection(url.host, url.port)
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
            half = data[: len(data) // 2]
            body = b"%x\r\n%s\r\n" % (len(half), half) if chunked else half
            writer.write(f"POST /v1/bundles HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode() + body)
            await writer.drain()
            await r.fleet()  # by now the first half has been read
            writer.transport.abort()
            assert await reader.read() == b""
            await r.fleet()
            assert tree(folder) == []
            await r.upload(data)

    asyncio.run(scenario())


def test_a_blob_that_was_altered_on_disk_is_not_announced_and_an_upload_mends_it(
    folder: Path, clock: Clock, make_skill: MakeSkill, one_line: OneLine
) -> None:
    async def scenario() -> None:
        data, other = make_skill(), make_skill(version="6.6.6")
        async with running(folder, clock) as r:
            kept = await r.upload(data)
            path = folder / "blobs" / "sha256" / kept["digest"][7:]
            for damaged in (other, data[:-1]):
                path.write_bytes(damaged)
                status, answer = await r.announce(kept["digest"])
                assert (status, answer["code"]) == (503, "state_damaged")
                one_line(answer["message"], kept["digest"])
                assert (await r.fleet())["announced"] == []
                assert tree(folder) == [f"blobs/sha256/{kept['digest'][7:]}"]
            await r.upload(data)
            assert (await r.announce(kept["digest"]))[0] == 202
            assert await r.blob(kept["digest"]) == (200, data)

    asyncio.run(scenario())


# Announcements and what is kept of them.


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"sha256:"', b"{}", b'{"digest": 1}', b'{"digest": "sha256:xyz"}', b"\xff\xfe", b'{"digest": "\xff"}',
        b'{"digest": "sha256:' + b"0" * 64 + b'", "force": true}', b'{"digest": "sha256:' + b"0" * 64 + b'", "two\\nlines\\u001b[31m": 1}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_an_announcement_that_is_not_its_json_is_refused_in_one_line(folder: Path, clock: Clock, body: bytes, one_line: OneLine) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            status, answer = await r.post("/v1/announcements", body)
            assert (status, answer["code"]) == (400, "usage_error")
            one_line(answer["message"], 'expected {"digest": "sha256:…"}')
            assert tree(folder) == []

    asyncio.run(scenario())


def test_announcements_survive_a_restart_and_the_newest_of_a_skill_counts(folder: Path, clock: Clock, make_skill: MakeSkill) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            for data in (make_skill(), make_skill(version="1.1.0"), make_skill(name="other")):
                kept = await r.upload(data)
                assert (await r.announce(kept["digest"]))[0] == 202
        async with running(folder, clock) as r:
            announced = (await r.fleet())["announced"]
            assert [(a["name"], a["version"]) for a in announced] == [("greeter", "1.1.0"), ("other", "1.0.0")]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b'{"x": {}}', b'{"a\\nb": 1}', b'{"x": {"type": "announce", "name": "x"}}', b"[" * 100_000],
)
def test_damaged_announcements_are_named_in_one_line_when_the_registry_starts(folder: Path, damage: bytes, one_line: OneLine) -> None:
    BundleStore(folder)
    (folder / ANNOUNCED).write_bytes(damage)
    with pytest.raises(StateDamaged) as caught:
        BundleStore(folder)
    one_line(caught.value, folder / ANNOUNCED, "push again")
    assert (folder / ANNOUNCED).read_bytes() == damage


def test_a_folder_that_cannot_be_one_is_a_host_fault_in_one_line(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostFault) as caught:
        BundleStore(tmp_path / "file")
    one_line(caught.value, tmp_path / "file")
    (tmp_path / "registry" / ANNOUNCED).mkdir(parents=True)
    with pytest.raises(StateDamaged) as damaged:
        BundleStore(tmp_path / "registry")
    one_line(damaged.value, tmp_path / "registry" / ANNOUNCED)


def test_what_a_killed_registry_left_half_written_is_swept_at_the_next_start(folder: Path) -> None:
    BundleStore(folder)
    half = folder / "blobs" / "sha256" / ".tmp-0123456789abcdef"
    half.write_bytes(b"half")
    BundleStore(folder)
    assert not half.exists()


def test_a_full_disk_is_507_and_nothing_is_half_written(small_disk: Path, clock: Clock, make_skill: MakeSkill, one_line: OneLine) -> None:
    async def scenario() -> None:
        async with running(small_disk / "registry", clock) as r:
            kept = await r.upload(make_skill())
            status, answer = await r.post("/v1/bundles", make_skill(version="2.0.0", padding=700_000))
            assert (status, answer["code"]) == (507, "storage_full")
            one_line(answer["message"], "No space left on device")
            assert tree(r.folder) == [f"blobs/sha256/{kept['digest'][7:]}"]
            filler = small_disk / "filler"
            fill(filler)
            status, answer = await r.announce(kept["digest"])
            assert (status, answer["code"]) == (507, "storage_full")
            one_line(answer["message"], ANNOUNCED)
            assert (await r.fleet())["announced"] == []
            filler.unlink()
            assert (await r.announce(kept["digest"]))[0] == 202
            assert tree(r.folder) == [ANNOUNCED, f"blobs/sha256/{kept['digest'][7:]}"]

    asyncio.run(scenario())


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(descriptor)


# Who speaks.


def test_a_node_says_hello_reports_and_goes(folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            kept = await r.upload(make_skill())
            link = await r.join("node-1", author)
            assert (await r.row("node-1"))["skills"] == []
            assert (await r.announce(kept["digest"]))[1]["nodes"] == 1
            assert (await link.told()).digest == kept["digest"]
            await link.send(report("node-1", kept, "installing"), author)
            await link.send(report("node-1", kept), author)

            async def runs_it() -> bool:
                return bool((await r.row("node-1"))["skills"])

            await until(runs_it)
            row = await r.row("node-1")
            assert [skill["digest"] for skill in row["skills"]] == [kept["digest"]]
            assert [progress["state"] for progress in row["progress"]] == ["active"]
            await link.socket.close()

            async def gone() -> bool:
                return not await r.connected("node-1")

            await until(gone)
            assert (await r.row("node-1"))["skills"] == row["skills"]  # what it last said is still known

    asyncio.run(scenario())


def test_a_replayed_hello_answers_another_challenge_and_is_sent_away(
    folder: Path, clock: Clock, author: SigningKey, one_line: OneLine
) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            first = await r.dial()
            recorded = fleet.seal(hello("node-1", first.nonce), author)
            second = await r.dial()
            assert second.nonce != first.nonce
            await second.socket.send_bytes(recorded)
            one_line(await second.sent_away(), "node-1", "another challenge")
            assert (await r.fleet())["nodes"] == []
            assert any(line.startswith("warning a node was sent away: node-1") for line in r.log)

    asyncio.run(scenario())


def test_frames_that_no_key_vouches_for_are_sent_away(folder: Path, clock: Clock, author: SigningKey, one_line: OneLine) -> None:
    other = SigningKey(b"x" * 32)

    def frames(nonce: bytes) -> dict[str, bytes]:
        plain = cbor.encode(hello("node-1", nonce))
        sealed = fleet.seal(hello("node-1", nonce), author)
        kid = bytes(author.verify_key)
        return {
            "unsigned": plain,
            "altered": sealed[:-1] + bytes([sealed[-1] ^ 1]),
            "claims another's key": sealed.replace(kid, bytes(other.verify_key)),
            "a key that is no point": sealed.replace(kid, b"\xff" * 32),
            "empty": b"",
            "garbage": b"\xff" * 100,
            "trailing bytes": sealed + b"\0",
            "a report first": fleet.seal(report("node-1", {"name": "greeter", "version": "1.0.0", "digest": digest_of(b"")}), author),
            "a name that is a path": fleet.seal(hello("../node", nonce), author),
            "an unknown field of wide characters": signed_map(author, {"type": "hello", "é" * 200: 1}),
            "and cut one byte later": signed_map(author, {"type": "hello", "x" + "é" * 200: 1}),
        }

    async def scenario() -> None:
        async with running(folder, clock) as r:
            for kind in frames(b""):
                link = await r.dial()
                await link.socket.send_bytes(frames(link.nonce)[kind])
                one_line(await link.sent_away(), "hello" if "report" in kind else "frame")
            assert (await r.fleet())["nodes"] == []

    asyncio.run(scenario())


def test_a_name_belongs_to_the_key_that_took_it_first(folder: Path, clock: Clock, author: SigningKey, one_line: OneLine) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            first = await r.join("node-1", author)
            thief = await r.dial()
            await thief.send(hello("node-1", thief.nonce), SigningKey(b"t" * 32))
            one_line(await thief.sent_away(), "node-1", "belongs to another key")
            assert await r.connected("node-1")
            await first.socket.close()
            late = await r.dial()  # and it still does when its owner is away
            await late.send(hello("node-1", late.nonce), SigningKey(b"t" * 32))
            one_line(await late.sent_away(), "node-1", "belongs to another key")

    asyncio.run(scenario())


def signed_map(key: SigningKey, value: dict[str, Any]) -> bytes:
    return cose.sign(key, cbor.encode(value), kid=bytes(key.verify_key), aad=fleet.AAD)


def certify(authority: SigningKey, key: SigningKey, clock: Clock, subject: str = "node-1", **changed: Any) -> bytes:
    now_s = clock.now_ms() // 1000
    claims = Claims(
        issuer="owner", subject=subject, key=bytes(key.verify_key), roles=("node",), generation=1, capabilities=(), not_before_s=now_s - 1000,
        expires_s=now_s + 1000, issued_s=now_s, id=b"i" * 16,
    )  # fmt: skip
    return certificate.issue(authority, replace(claims, **changed))


def test_where_certificates_are_demanded_only_a_valid_one_for_this_name_and_key_gets_in(
    folder: Path, clock: Clock, owner: SigningKey, author: SigningKey, one_line: OneLine
) -> None:
    now_s = clock.now_ms() // 1000
    other = SigningKey(b"x" * 32)
    refused = {
        "missing": (b"", "certificate of node-1"),
        "garbage": (b"\xa1", "certificate of node-1"),
        "expired": (certify(owner, author, clock, expires_s=now_s - 400), "expired"),
        "not yet valid": (certify(owner, author, clock, not_before_s=now_s + 400), "valid from"),
        "by a stranger": (certify(other, author, clock), "no trusted authority"),
        "for another key": (certify(owner, other, clock), "for another key"),
        "for another name": (certify(owner, author, clock, subject="node-2"), "node-2"),
    }

    async def scenario() -> None:
        async with running(folder, clock, (owner.verify_key,)) as r:
            for kind, (cert, why) in refused.items():
                link = await r.dial()
                await link.send(hello("node-1", link.nonce, cert=cert), author)
                one_line(await link.sent_away(), "node-1")
                assert why in one_line(r.log[-1], "warning a node was sent away", "node-1"), kind
            assert (await r.fleet())["nodes"] == []
            await r.join("node-1", author, cert=certify(owner, author, clock))

    asyncio.run(scenario())


def test_a_hello_that_does_not_come_in_time_ends_the_link(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "HELLO_S_MAX", 0.05)

    async def scenario() -> None:
        async with running(folder, clock) as r:
            link = await r.dial()
            assert await link.sent_away() == "no hello in time"

    asyncio.run(scenario())


def test_a_text_frame_and_a_frame_over_the_bound_end_the_link_before_and_after_hello(
    folder: Path, clock: Clock, author: SigningKey
) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            for joined in (False, True):
                link = await (r.join("node-1", author) if joined else r.dial())
                await link.socket.send_str("hello")
                assert "binary" in await link.sent_away()
                link = await (r.join("node-2", author) if joined else r.dial())
                await link.socket.send_bytes(bytes(DEFAULT.frame_bytes_max + 1))
                await link.sent_away()
            await r.join("node-3", author)

    asyncio.run(scenario())


def test_a_node_that_leaves_without_hello_leaves_nothing(folder: Path, clock: Clock) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            for clean in (True, False):
                link = await r.dial()
                if clean:
                    await link.socket.close()
                else:
                    link.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                assert (await r.fleet())["nodes"] == []

    asyncio.run(scenario())


def test_a_report_by_another_node_another_key_or_a_second_hello_is_sent_away(
    folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill, one_line: OneLine
) -> None:
    other = SigningKey(b"x" * 32)

    async def scenario() -> None:
        async with running(folder, clock) as r:
            kept = await r.upload(make_skill())
            await r.join("node-2", other)
            lies = [(report("node-2", kept), author), (report("node-1", kept), other), (hello("node-1", b""), author)]
            for frame, key in lies:
                link = await r.join("node-1", author)
                await link.send(frame, key)
                one_line(await link.sent_away(), "node-1", "not this node's own report")
            assert [row["progress"] for row in (await r.fleet())["nodes"]] == [[], []]

    asyncio.run(scenario())


def test_a_node_that_reports_on_ever_new_skills_is_sent_away(folder: Path, clock: Clock, author: SigningKey, one_line: OneLine) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            link = await r.join("node-1", author)
            for i in range(DEFAULT.announcements_max + 1):
                await link.send(report("node-1", {"name": f"skill-{i}", "version": "1.0.0", "digest": digest_of(b"")}), author)
            one_line(await link.sent_away(), "node-1", DEFAULT.announcements_max)
            assert len((await r.row("node-1"))["progress"]) == DEFAULT.announcements_max

    asyncio.run(scenario())


def test_one_node_more_than_the_bound_is_turned_away_until_another_leaves(
    folder: Path, clock: Clock, author: SigningKey, small_limits: Callable[..., None]
) -> None:
    small_limits(nodes_connected_max=2)

    async def scenario() -> None:
        async with running(folder, clock) as r:
            first = await r.join("node-1", author)
            await r.join("node-2", author)
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await r.dial()
            assert caught.value.status == 503
            await first.socket.close()

            async def gone() -> bool:
                return not await r.connected("node-1")

            await until(gone)
            await r.join("node-3", author)

    asyncio.run(scenario())


def test_the_newest_link_of_a_node_counts_and_the_end_of_an_older_one_does_not(
    folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill
) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            kept = await r.upload(make_skill())
            old, new = await r.join("node-1", author), await r.join("node-1", author)

            async def both_known() -> bool:
                return sum("node-1 connected" in line for line in r.log) == 2

            await until(both_known)
            await old.socket.close()
            assert await r.connected("node-1")
            assert (await r.announce(kept["digest"]))[1]["nodes"] == 1
            assert (await new.told()).digest == kept["digest"]

    asyncio.run(scenario())


# Who is told.


def test_a_node_that_connects_later_is_told_and_one_that_has_it_is_not(
    folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill
) -> None:
    async def scenario() -> None:
        async with running(folder, clock) as r:
            kept, newer = await r.upload(make_skill()), await r.upload(make_skill(version="1.1.0"))
            has = SkillState(kept["name"], kept["version"], kept["digest"])
            early = await r.join("node-1", author, (has,))
            await r.announce(kept["digest"])
            late_has, late = await r.join("node-2", author, (has,)), await r.join("node-3", author)
            assert (await late.told()).digest == kept["digest"]
            await r.announce(newer["digest"])
            # The first that those who had it already are told of is the newer one.
            for link in (early, late_has, late):
                assert (await link.told()).digest == newer["digest"]

    asyncio.run(scenario())


def test_a_node_with_other_bytes_under_the_announced_version_is_told(clock: Clock, author: SigningKey) -> None:
    known = Fleet()
    digest, other = digest_of(b"1"), digest_of(b"2")
    row = known.hello(hello("node-1", b"n", (SkillState("greeter", "1.0.0", digest),)), author.verify_key, b"n", 0)
    assert not known.wants(row, "greeter", digest)
    assert known.wants(row, "greeter", other)
    assert known.wants(row, "other", digest)


def test_a_reader_that_stops_is_cut_off_and_the_push_goes_on(
    folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "SEND_S_MAX", 0.05)
    many = {f"skill-{i}": Announcement(name=f"skill-{i}", version="1.0.0", digest=digest_of(b"%d" % i), size=8) for i in range(4000)}
    folder.mkdir()
    (folder / ANNOUNCED).write_bytes(msgspec.json.encode(many))

    async def scenario() -> None:
        async with running(folder, clock, send_buffer=4096) as r:
            url = URL(r.url)
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, (url.host, url.port))
                nonce = await upgrade(slow)
                await loop.sock_sendall(slow, masked(fleet.seal(hello("slow", nonce), author)))

                async def cut_off() -> bool:
                    return "info slow disconnected" in r.log

                await until(cut_off)
                assert not await r.connected("slow")
                kept = await r.upload(make_skill(name="skill-0"))
                async with asyncio.timeout(WAIT_S):
                    assert (await r.announce(kept["digest"]))[0] == 202

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_announcement_does_not_wait_for_a_reader_that_stopped(
    folder: Path, clock: Clock, author: SigningKey, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "SEND_S_MAX", 0.05)

    async def scenario() -> None:
        async with running(folder, clock, send_buffer=4096) as r:
            kept = await r.upload(make_skill())
            url = URL(r.url)
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, (url.host, url.port))
                nonce = await upgrade(slow)
                await loop.sock_sendall(slow, masked(fleet.seal(hello("slow", nonce), author)))
                await until(lambda: r.connected("slow"))
                well = await r.join("well", SigningKey(b"w" * 32))
                for _ in range(4000):
                    async with asyncio.timeout(WAIT_S):
                        assert (await r.announce(kept["digest"]))[0] == 202
                    assert (await well.told()).digest == kept["digest"]
                    if "info slow disconnected" in r.log:
                        break
                assert not await r.connected("slow")
                assert await r.connected("well")

    asyncio.run(scenario())


def test_a_registry_that_stops_waits_for_no_node(folder: Path, clock: Clock, author: SigningKey) -> None:
    async def scenario() -> None:
        made = RegistryServer(folder, clock, lambda level, line: None)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(made, "127.0.0.1", 0, ready.set_result))
        async with aiohttp.ClientSession() as session:
            r = Running(await ready, made, session, folder, [])
            links = [await r.join("node-1", author), await r.dial()]
            task.cancel()
            for link in links:  # the one that has not said hello is told too
                message = await link.socket.receive(timeout=WAIT_S)
                assert (message.type, message.data) == (WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
            async with asyncio.timeout(server_module.GOODBYE_S_MAX):
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


async def upgrade(raw: socket.socket) -> bytes:
    """A WebSocket handshake by hand (RFC 6455), so that nobody reads afterwards; the challenge's nonce."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        raw,
        b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    received = b""
    while b"\r\n\r\n" not in received or not received.partition(b"\r\n\r\n")[2]:
        received += await loop.sock_recv(raw, 4096)
    frame = received.partition(b"\r\n\r\n")[2]
    assert frame[0] == 0x82 and frame[1] == len(frame) - 2
    challenge = fleet.open_plain(frame[2:])
    assert isinstance(challenge, fleet.Challenge)
    return challenge.nonce


def masked(payload: bytes) -> bytes:
    """One binary frame from a client, with a mask of zeros."""
    return b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload
