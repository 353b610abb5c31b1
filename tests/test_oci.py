"""The OCI Distribution API over a real socket: every verb, every error, and what a kill or a hostile client leaves behind."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from host.core import oci
from host.core.clock import Clock
from host.core.errors import NetworkError, StateDamaged
from host.core.limits import DEFAULT, Limits
from registry.client import RegistryHttp
from registry.content import INDEX, Content
from registry.oci import OciRoutes
from registry.tokens import Access, Tokens

WAIT_S = 10.0
MANIFEST, ARTIFACT = oci.MANIFEST, "application/vnd.example.sbom"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(data: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)} | more


def manifest_of(config: bytes, *layers: bytes, **more: Any) -> bytes:
    described = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config), "layers": [descriptor(layer) for layer in layers]}
    return json.dumps(described | more).encode()


def kept(folder: Path) -> list[str]:
    """The files of blobs and uploads."""
    return sorted(str(p.relative_to(folder)) for part in ("blobs", "uploads") for p in (folder / part).rglob("*") if p.is_file())


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The code of the one error, in the specification's shape."""
        (error,) = json.loads(self.body)["errors"]
        assert set(error) == {"code", "message", "detail"} and error["message"].isprintable()
        return str(error["code"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    url: str
    folder: Path
    session: aiohttp.ClientSession
    content: Content
    delete_token: str

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        url = URL(path if path.startswith("http") else self.url + path, encoded=True)
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            assert response.headers.get("Docker-Distribution-Api-Version") == "registry/2.0"
            return Answer(response.status, response.headers, await response.read())

    async def delete(self, path: str) -> Answer:
        return await self.ask("DELETE", path, Authorization=f"Bearer {self.delete_token}")

    async def begin(self, name: str = "lib/one") -> str:
        begun = await self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert begun.status == 202
        return str(begun.headers["Location"])

    async def blob(self, data: bytes, name: str = "lib/one") -> str:
        digest = digest_of(data)
        done = await self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert done.status == 201, done.body
        return digest

    async def manifest(self, data: bytes, reference: str, name: str = "lib/one", media_type: str = MANIFEST) -> Answer:
        return await self.ask("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=media_type)

    async def artifact(self, tag: str, name: str = "lib/one", **more: Any) -> str:
        """A small artifact, pushed; its digest."""
        config, layer = b"{}", f"layer of {tag}".encode()
        await self.blob(config, name)
        await self.blob(layer, name)
        put = await self.manifest(manifest_of(config, layer, **more), tag, name)
        assert put.status == 201, put.body
        return str(put.headers["Docker-Content-Digest"])


@asynccontextmanager
async def serving(folder: Path, clock: Clock, limits: Limits = DEFAULT) -> AsyncIterator[Running]:
    content = Content(folder, clock, limits)
    tokens = Tokens(folder)
    if any(token.name == "delete" for token in tokens.all()):
        tokens.revoke("delete")
    secret = tokens.new("delete", ("delete",), "*", 0)
    app = web.Application()
    app.add_routes(OciRoutes(content, Access(folder, clock, "push"), lambda level, line: None, limits).routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        try:
            yield Running(f"http://127.0.0.1:{runner.addresses[0][1]}", folder, session, content, secret)
        finally:
            await runner.cleanup()


@pytest.fixture
def run(tmp_path: Path, clock: Clock) -> Callable[..., None]:
    """Runs a scenario against a registry of its own."""

    def start(scenario: Callable[[Running], Awaitable[None]], **bounds: int) -> None:
        async def main() -> None:
            async with asyncio.timeout(60), serving(tmp_path / "registry", clock, replace(DEFAULT, **bounds)) as r:
                await scenario(r)

        asyncio.run(main())

    return start


Run = Callable[..., None]


# Blobs.


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_pushed_in_one_request_in_two_and_in_pieces_and_read_back(run: Run, algorithm: str) -> None:
    async def scenario(r: Running) -> None:
        one, two, many = b"in one", b"in two", bytes(range(256)) * 300
        done = await r.ask("POST", f"/v2/lib/one/blobs/uploads/?digest={digest_of(one, algorithm)}", one)
        assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest_of(one, algorithm))
        location = await r.begin()
        assert (await r.ask("PUT", f"{location}?digest={digest_of(two, algorithm)}", two)).status == 201
        location = await r.begin()
        for start in range(0, len(many), 30_000):
            piece = many[start : start + 30_000]
            end = start + len(piece) - 1
            put = await r.ask("PATCH", location, piece, Content_Range=f"{start}-{end}", Content_Type="application/octet-stream")
            assert (put.status, put.headers["Range"]) == (202, f"0-{end}")
            location = put.headers["Location"]
            status = await r.ask("GET", location)
            assert (status.status, status.headers["Range"], status.body) == (204, f"0-{end}", b"")
        done = await r.ask("PUT", f"{location}?digest={digest_of(many, algorithm)}")
        assert done.status == 201
        for data in (one, two, many):
            digest = digest_of(data, algorithm)
            head = await r.ask("HEAD", f"/v2/lib/one/blobs/{digest}")
            assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(data)), b"")
            assert head.headers["Docker-Content-Digest"] == digest
            assert (await r.ask("GET", f"/v2/lib/one/blobs/{digest}")).body == data
        assert kept(r.folder) == sorted(f"blobs/{algorithm}/{digest_of(data, algorithm).partition(':')[2]}" for data in (one, two, many))

    run(scenario)


def test_the_last_piece_may_come_with_the_end_and_pieces_may_come_without_a_range(run: Run) -> None:
    async def scenario(r: Running) -> None:
        location = await r.begin()
        assert (await r.ask("PATCH", location, b"abc")).status == 202
        done = await r.ask("PUT", f"{location}?digest={digest_of(b'abcdef')}", b"def", Content_Range="3-5")
        assert (done.status, done.headers["Location"]) == (201, f"/v2/lib/one/blobs/{digest_of(b'abcdef')}")
        assert (await r.ask("GET", done.headers["Location"])).body == b"abcdef"

    run(scenario)


def test_an_empty_blob_is_a_blob(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"")
        assert (await r.ask("GET", f"/v2/lib/one/blobs/{digest_of(b'')}")).body == b""

    run(scenario)


def test_ranges_of_a_blob_are_206_and_one_past_its_end_is_416(run: Run) -> None:
    async def scenario(r: Running) -> None:
        path = f"/v2/lib/one/blobs/{await r.blob(b'0123456789')}"
        part = await r.ask("GET", path, Range="bytes=2-4")
        assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
        assert (await r.ask("GET", path, Range="bytes=-3")).body == b"789"
        assert (await r.ask("GET", path, Range="bytes=10-")).status == 416

    run(scenario)


def test_pieces_out_of_order_are_416_with_where_to_go_on_and_the_upload_stands(run: Run) -> None:
    async def scenario(r: Running) -> None:
        location = await r.begin()
        await r.ask("PATCH", location, b"abc", Content_Range="0-2")
        for wrong in ("0-2", "4-6", "2-4"):
            answer = await r.ask("PATCH", location, b"xyz", Content_Range=wrong)
            assert (answer.status, answer.headers["Range"], answer.code) == (416, "0-2", "BLOB_UPLOAD_INVALID")
            assert answer.headers["Location"] == location
        answer = await r.ask("PUT", f"{location}?digest={digest_of(b'abcxyz')}", b"xyz", Content_Range="5-7")
        assert answer.status == 416
        for wrong, code in (("abc", "BLOB_UPLOAD_INVALID"), ("3-2", "SIZE_INVALID"), ("3-9", "SIZE_INVALID"), ("3", "BLOB_UPLOAD_INVALID")):
            answer = await r.ask("PATCH", location, b"xyz", Content_Range=wrong)
            assert (answer.status, answer.code) == (400, code)
        assert (await r.ask("PUT", f"{location}?digest={digest_of(b'abcxyz')}", b"xyz", Content_Range="3-5")).status == 201

    run(scenario)


def test_a_digest_that_does_not_fit_is_refused_and_nothing_is_kept(run: Run) -> None:
    async def scenario(r: Running) -> None:
        wrong = digest_of(b"other")
        answer = await r.ask("POST", f"/v2/lib/one/blobs/uploads/?digest={wrong}", b"data")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
        location = await r.begin()
        answer = await r.ask("PUT", f"{location}?digest={wrong}", b"data")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
        assert (await r.ask("GET", location)).code == "BLOB_UPLOAD_UNKNOWN"
        assert (await r.ask("HEAD", f"/v2/lib/one/blobs/{wrong}")).status == 404
        assert kept(r.folder) == []

    run(scenario)


@pytest.mark.parametrize(
    "digest", ["", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, "sha256:..%2F..%2Fregistry.db", "sha256:" + "0" * 64 + "%0a"]
)
def test_a_digest_that_is_none_is_refused_wherever_it_stands(run: Run, digest: str) -> None:
    async def scenario(r: Running) -> None:
        location = await r.begin()
        for method, path in (
            ("PUT", f"{location}?digest={digest}"), ("POST", f"/v2/lib/one/blobs/uploads/?digest={digest}"),
            ("POST", f"/v2/lib/one/blobs/uploads/?mount={digest}&from=lib/two"), ("GET", f"/v2/lib/one/referrers/{digest or 'x'}"),
            ("GET", f"/v2/lib/one/blobs/{digest or 'x'}"),
        ):  # fmt: skip
            answer = await r.ask(method, path, b"data" if method != "GET" else None)
            assert answer.status in (400, 404) and answer.code in ("DIGEST_INVALID", "UNSUPPORTED"), path
        assert kept(r.folder) == [f"uploads/{location.rpartition('/')[2]}"]

    run(scenario)


def test_uploads_are_cancelled_and_belong_to_their_repository(run: Run) -> None:
    async def scenario(r: Running) -> None:
        location = await r.begin()
        elsewhere = location.replace("lib/one", "lib/two")
        for method, path in (
            ("GET", elsewhere),
            ("PATCH", elsewhere),
            ("PUT", f"{elsewhere}?digest={digest_of(b'')}"),
            ("DELETE", elsewhere),
        ):
            answer = await r.ask(method, path, b"" if method != "GET" else None)
            assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await r.ask("DELETE", location)).status == 204
        assert (await r.ask("DELETE", location)).code == "BLOB_UPLOAD_UNKNOWN"
        assert (await r.ask("GET", "/v2/lib/one/blobs/uploads/..%2f..%2fregistry.db")).code == "BLOB_UPLOAD_UNKNOWN"
        assert kept(r.folder) == []

    run(scenario)


def test_a_blob_is_mounted_from_another_repository_and_what_cannot_be_is_uploaded(run: Run) -> None:
    async def scenario(r: Running) -> None:
        digest = await r.blob(b"shared", "lib/one")
        mounted = await r.ask("POST", f"/v2/lib/two/blobs/uploads/?mount={digest}&from=lib/one")
        assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/lib/two/blobs/{digest}")
        assert (await r.ask("GET", f"/v2/lib/two/blobs/{digest}")).body == b"shared"
        assert (await r.ask("POST", f"/v2/lib/three/blobs/uploads/?mount={digest}")).status == 201  # found wherever it is
        for source in ("lib/none", "..%2Fx", ""):
            fallback = await r.ask("POST", f"/v2/lib/four/blobs/uploads/?mount={digest}&from={source}")
            assert fallback.status == 202 and "/blobs/uploads/" in fallback.headers["Location"]
        missing = await r.ask("POST", f"/v2/lib/four/blobs/uploads/?mount={digest_of(b'nothing')}&from=lib/one")
        assert missing.status == 202

    run(scenario)


def test_a_deleted_blob_is_gone_from_its_repository_and_from_no_other(run: Run) -> None:
    async def scenario(r: Running) -> None:
        digest = await r.blob(b"shared", "lib/one")
        await r.ask("POST", f"/v2/lib/two/blobs/uploads/?mount={digest}&from=lib/one")
        assert (await r.ask("DELETE", f"/v2/lib/one/blobs/{digest}")).code == "UNAUTHORIZED"
        assert (await r.delete(f"/v2/lib/one/blobs/{digest}")).status == 202
        gone = await r.ask("GET", f"/v2/lib/one/blobs/{digest}")
        assert (gone.status, gone.code) == (404, "BLOB_UNKNOWN")
        assert (await r.delete(f"/v2/lib/one/blobs/{digest}")).code == "BLOB_UNKNOWN"
        assert (await r.ask("GET", f"/v2/lib/two/blobs/{digest}")).body == b"shared"

    run(scenario)


# Manifests.


def test_a_manifest_is_read_by_tag_and_by_digest_with_its_media_type(run: Run) -> None:
    async def scenario(r: Running) -> None:
        config, layer = b"{}", b"layer"
        await r.blob(config)
        await r.blob(layer)
        for media_type in (oci.MANIFEST, oci.DOCKER_MANIFEST):
            data = manifest_of(config, layer, mediaType=media_type)
            put = await r.manifest(data, "v1", media_type=media_type)
            digest = digest_of(data)
            assert (put.status, put.headers["Docker-Content-Digest"]) == (201, digest)
            assert put.headers["Location"] == f"/v2/lib/one/manifests/{digest}" and "OCI-Subject" not in put.headers
            for reference in ("v1", digest):
                for method, body in (("GET", data), ("HEAD", b"")):
                    got = await r.ask(method, f"/v2/lib/one/manifests/{reference}")
                    assert (got.status, got.body, got.headers["Content-Type"]) == (200, body, media_type)
                    assert (got.headers["Docker-Content-Digest"], got.headers["Content-Length"]) == (digest, str(len(data)))

    run(scenario)


def test_a_manifest_is_pushed_by_its_digest_of_either_kind_and_refused_by_another(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"{}")
        data = manifest_of(b"{}")
        for algorithm in ("sha256", "sha512"):
            digest = digest_of(data, algorithm)
            assert (await r.manifest(data, digest)).headers["Docker-Content-Digest"] == digest
            assert (await r.ask("GET", f"/v2/lib/one/manifests/{digest}")).body == data
        wrong = await r.manifest(data, digest_of(b"other"))
        assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
        assert (await r.ask("GET", "/v2/lib/one/tags/list")).json == {"name": "lib/one", "tags": []}

    run(scenario)


def test_an_index_lists_manifests_that_are_here(run: Run) -> None:
    async def scenario(r: Running) -> None:
        digest = await r.artifact("child")
        child = (await r.ask("GET", f"/v2/lib/one/manifests/{digest}")).body
        for media_type in (oci.INDEX, oci.DOCKER_LIST):
            entry = descriptor(child, MANIFEST)
            data = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]}).encode()
            assert (await r.manifest(data, "all", media_type=media_type)).status == 201
            missing = json.dumps({"schemaVersion": 2, "manifests": [descriptor(b"none", MANIFEST)]}).encode()
            answer = await r.manifest(missing, "all", media_type=media_type)
            assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")

    run(scenario)


def test_a_manifest_of_what_is_not_here_or_has_another_size_is_refused(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"{}")
        await r.blob(b"layer")
        missing = await r.manifest(manifest_of(b"{}", b"never pushed"), "v1")
        assert (missing.status, missing.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        for size in (4, 6, 1 << 62):
            lie = manifest_of(b"{}", layers=[descriptor(b"layer") | {"size": size}])
            answer = await r.manifest(lie, "v1")
            assert (answer.status, answer.code) == (400, "SIZE_INVALID")
        foreign = manifest_of(b"{}", layers=[descriptor(b"elsewhere", urls=["https://example.org/layer"])])
        assert (await r.manifest(foreign, "foreign")).status == 201
        await r.blob(b"elsewhere", "lib/two")
        assert (await r.manifest(manifest_of(b"{}", b"elsewhere"), "v1")).code == "MANIFEST_BLOB_UNKNOWN"  # another repository's
        assert (await r.ask("GET", "/v2/lib/one/tags/list")).json["tags"] == ["foreign"]

    run(scenario)


BAD_MANIFESTS: list[tuple[str, bytes]] = [
    ("application/json", b"{}"), ("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}"), ("", b"{}"), ("text/html", b"<html>"),
    (MANIFEST, b""), (MANIFEST, b"{"), (MANIFEST, b"[]"), (MANIFEST, b"\xff"), (MANIFEST, b"[" * 100_000), (MANIFEST, b'{"schemaVersion": 1}'),
    (MANIFEST, b'{"schemaVersion": 2}'), (MANIFEST, b'{"schemaVersion": 2, "layers": []}'), (MANIFEST, manifest_of(b"{}", mediaType=oci.INDEX)),
    (MANIFEST, manifest_of(b"{}", manifests=[])), (oci.INDEX, manifest_of(b"{}", mediaType=oci.INDEX, manifests=[])),
    (MANIFEST, manifest_of(b"{}", layers=[{"mediaType": "x", "digest": "sha256:../../etc/passwd", "size": 1}])),
    (MANIFEST, manifest_of(b"{}", layers=[{"mediaType": "x", "digest": digest_of(b""), "size": -1}])),
    (MANIFEST, manifest_of(b"{}", layers=[descriptor(b"{}")] * 1025)), (MANIFEST, manifest_of(b"{}", subject={"digest": "x"})),
]  # fmt: skip


@pytest.mark.parametrize(("media_type", "data"), BAD_MANIFESTS, ids=range(len(BAD_MANIFESTS)))
def test_what_is_no_manifest_of_a_known_media_type_is_refused(run: Run, media_type: str, data: bytes) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"{}")
        answer = await r.manifest(data, "v1", media_type=media_type)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
        assert (await r.ask("GET", "/v2/lib/one/manifests/v1")).code == "MANIFEST_UNKNOWN"
        assert kept(r.folder) == [f"blobs/sha256/{digest_of(b'{}')[7:]}"]

    run(scenario)


def test_a_manifest_over_the_bound_is_413_with_and_without_a_length(run: Run) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    async def scenario(r: Running) -> None:
        for body in (bytes(5000), endless()):
            answer = await r.ask("PUT", "/v2/lib/one/manifests/v1", body, Content_Type=MANIFEST)
            assert (answer.status, answer.code) == (413, "SIZE_INVALID")
        assert kept(r.folder) == []

    run(scenario, oci_manifest_bytes_max=4096)


def test_unknown_names_and_manifests_are_404_with_their_own_codes(run: Run) -> None:
    async def scenario(r: Running) -> None:
        for path in ("manifests/v1", f"manifests/{digest_of(b'')}", "tags/list"):
            answer = await r.ask("GET", f"/v2/lib/none/{path}")
            assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
        await r.artifact("v1")
        for reference in ("v2", digest_of(b"")):
            answer = await r.ask("GET", f"/v2/lib/one/manifests/{reference}")
            assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
            assert (await r.ask("HEAD", f"/v2/lib/one/manifests/{reference}")).status == 404
            assert (await r.delete(f"/v2/lib/one/manifests/{reference}")).code == "MANIFEST_UNKNOWN"

    run(scenario)


def test_deleting_a_tag_leaves_the_manifest_and_deleting_the_manifest_takes_its_tags(run: Run) -> None:
    async def scenario(r: Running) -> None:
        digest = await r.artifact("v1")
        data = (await r.ask("GET", "/v2/lib/one/manifests/v1")).body
        for tag in ("v2", "v3"):
            await r.manifest(data, tag)
        assert (await r.delete("/v2/lib/one/manifests/v1")).status == 202
        assert (await r.ask("GET", "/v2/lib/one/tags/list")).json["tags"] == ["v2", "v3"]
        assert (await r.ask("GET", f"/v2/lib/one/manifests/{digest}")).status == 200
        assert (await r.delete(f"/v2/lib/one/manifests/{digest}")).status == 202
        assert (await r.ask("GET", "/v2/lib/one/tags/list")).json["tags"] == []
        assert (await r.ask("GET", f"/v2/lib/one/manifests/{digest}")).code == "MANIFEST_UNKNOWN"

    run(scenario)


def test_a_manifest_that_was_altered_on_disk_is_not_served(run: Run) -> None:
    async def scenario(r: Running) -> None:
        digest = await r.artifact("v1")
        path = r.content.path(digest)
        good = path.read_bytes()
        path.write_bytes(good.replace(b"layers", b"lavers"))
        answer = await r.ask("GET", "/v2/lib/one/manifests/v1")
        assert answer.status == 503 and "altered" in answer.body.decode()
        assert (await r.manifest(good, "v1")).status == 201  # pushing it again mends it
        assert (await r.ask("GET", "/v2/lib/one/manifests/v1")).body == good

    run(scenario)


# Listings and referrers.


async def pages(r: Running, path: str, key: str) -> list[list[str]]:
    found = []
    link: str | None = path
    while link:
        answer = await r.ask("GET", link)
        assert answer.status == 200
        found.append(answer.json[key])
        header = answer.headers.get("Link", "")
        link = header[1:].partition(">")[0] if header.endswith('; rel="next"') else None
    return found


def test_tags_come_in_lexical_order_and_in_pages(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.artifact("v1")
        data = (await r.ask("GET", "/v2/lib/one/manifests/v1")).body
        for tag in ("Beta", "alpha", "v10", "v2", "_x", "beta"):
            await r.manifest(data, tag)
        everything = ["_x", "alpha", "Beta", "beta", "v1", "v10", "v2"]
        assert await pages(r, "/v2/lib/one/tags/list", "tags") == [everything]
        assert await pages(r, "/v2/lib/one/tags/list?n=3", "tags") == [everything[:3], everything[3:6], everything[6:]]
        assert await pages(r, "/v2/lib/one/tags/list?n=7", "tags") == [everything]
        assert await pages(r, "/v2/lib/one/tags/list?n=100&last=beta", "tags") == [everything[4:]]
        assert await pages(r, "/v2/lib/one/tags/list?n=0", "tags") == [[]]
        assert await pages(r, "/v2/lib/one/tags/list?last=zzz", "tags") == [[]]
        for wrong in ("-1", "x", "1e3", "%c2%b2", "9" * 30):
            answer = await r.ask("GET", f"/v2/lib/one/tags/list?n={wrong}")
            assert (answer.status, answer.code) == (400, "UNSUPPORTED")

    run(scenario)


def test_the_catalogue_comes_in_pages(run: Run) -> None:
    async def scenario(r: Running) -> None:
        for name in ("c", "a", "b/d"):
            await r.blob(b"x", name)
        assert await pages(r, "/v2/_catalog?n=2", "repositories") == [["a", "b/d"], ["c"]]
        assert await pages(r, "/v2/_catalog", "repositories") == [["a", "b/d", "c"]]

    run(scenario)


def test_referrers_are_listed_and_filtered_and_a_subject_need_not_be_here(run: Run) -> None:
    async def scenario(r: Running) -> None:
        subject = await r.artifact("v1")
        data = (await r.ask("GET", "/v2/lib/one/manifests/v1")).body
        refers = {"subject": descriptor(data, MANIFEST)}
        await r.blob(b"{}")
        sbom = manifest_of(b"{}", artifactType=ARTIFACT, annotations={"by": "me"}, **refers)
        other = manifest_of(b"{}", **refers)
        for body in (sbom, other):
            put = await r.manifest(body, digest_of(body))
            assert (put.status, put.headers["OCI-Subject"]) == (201, subject)
        listed = await r.ask("GET", f"/v2/lib/one/referrers/{subject}")
        assert listed.headers["Content-Type"] == oci.INDEX and "OCI-Filters-Applied" not in listed.headers
        assert listed.json["schemaVersion"] == 2 and listed.json["mediaType"] == oci.INDEX
        found = {entry["digest"]: entry for entry in listed.json["manifests"]}
        assert set(found) == {digest_of(sbom), digest_of(other)}
        assert found[digest_of(sbom)] == descriptor(sbom, MANIFEST) | {"artifactType": ARTIFACT, "annotations": {"by": "me"}}
        assert found[digest_of(other)]["artifactType"] == "application/octet-stream"  # its config's media type
        filtered = await r.ask("GET", f"/v2/lib/one/referrers/{subject}?artifactType={ARTIFACT}")
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        assert [entry["digest"] for entry in filtered.json["manifests"]] == [digest_of(sbom)]
        assert (await r.ask("GET", f"/v2/lib/two/referrers/{digest_of(b'nothing')}")).json["manifests"] == []
        early = manifest_of(b"{}", subject=descriptor(b"not here yet", MANIFEST))
        assert (await r.manifest(early, "early")).headers["OCI-Subject"] == digest_of(b"not here yet")
        assert len((await r.ask("GET", f"/v2/lib/one/referrers/{digest_of(b'not here yet')}")).json["manifests"]) == 1
        await r.delete(f"/v2/lib/one/manifests/{digest_of(sbom)}")
        assert len((await r.ask("GET", f"/v2/lib/one/referrers/{subject}")).json["manifests"]) == 1

    run(scenario)


def test_referrers_come_in_pages(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"{}")
        for i in range(5):
            await r.manifest(
                manifest_of(b"{}", subject=descriptor(b"s", MANIFEST), artifactType=ARTIFACT, annotations={"i": str(i)}), f"t{i}"
            )
        found = await pages(r, f"/v2/lib/one/referrers/{digest_of(b's')}?artifactType={ARTIFACT}", "manifests")
        assert [len(page) for page in found] == [2, 2, 1]
        assert len({entry["digest"] for page in found for entry in page}) == 5  # type: ignore[index]

    run(scenario, oci_page_max=2)


def test_referrers_that_an_older_client_listed_under_a_tag_are_among_them(run: Run) -> None:
    async def scenario(r: Running) -> None:
        subject = await r.artifact("v1")
        old, gone = await r.artifact("signature"), digest_of(b"gone")
        old_data = (await r.ask("GET", f"/v2/lib/one/manifests/{old}")).body
        listed = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [descriptor(old_data, MANIFEST)]}).encode()
        assert (await r.manifest(listed, subject.replace(":", "-"), media_type=oci.INDEX)).status == 201
        found = (await r.ask("GET", f"/v2/lib/one/referrers/{subject}")).json["manifests"]
        assert [entry["digest"] for entry in found] == [old]
        assert gone not in {entry["digest"] for entry in found}
        await r.delete(f"/v2/lib/one/manifests/{old}")
        assert (await r.ask("GET", f"/v2/lib/one/referrers/{subject}")).json["manifests"] == []

    run(scenario)


# Bad input.

BAD_NAMES = (
    "..", ".", "../../etc", "a/../b", "a//b", "/a", "A", "a/B", "a_", "-a", "a/.b", "a%2f..%2fb", "%2e%2e/x", "a%00b", "a%0a", "a\\b", "a" * 256, "é",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_a_path_or_no_name_is_refused_before_it_touches_a_file(run: Run, name: str) -> None:
    async def scenario(r: Running) -> None:
        url = URL(r.url)
        before = sorted(r.folder.parent.rglob("*"))
        for method, path in (
            ("POST", "blobs/uploads/"), ("PUT", "manifests/v1"), ("GET", "manifests/v1"), ("GET", "tags/list"), ("GET", f"blobs/{digest_of(b'')}"),
            ("DELETE", "manifests/v1"),
        ):  # fmt: skip
            # By hand: a client library would tidy the path up.
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(f"{method} /v2/{name}/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), WAIT_S)
            writer.close()
            status = int(answer.split()[1])
            assert status in (400, 404), answer
            if b"NAME_INVALID" not in answer:
                assert b"UNSUPPORTED" in answer or b"400" in answer, answer
        assert sorted(r.folder.parent.rglob("*")) == before

    run(scenario)


@pytest.mark.parametrize("tag", ["..", ".x", "-x", "a" * 129, "a b", "a%2fb", "%2e%2e%2fx", "é", "a%0a"])
def test_a_tag_that_is_none_is_refused(run: Run, tag: str) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"{}")
        reader, writer = await asyncio.open_connection(URL(r.url).host, URL(r.url).port)
        body = manifest_of(b"{}")
        head = f"PUT /v2/lib/one/manifests/{tag} HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), WAIT_S)
        writer.close()
        assert int(answer.split()[1]) in (400, 404), answer
        assert (await r.ask("GET", "/v2/lib/one/tags/list")).json["tags"] == []

    run(scenario)


def test_what_is_no_endpoint_is_an_error_of_the_same_shape(run: Run) -> None:
    async def scenario(r: Running) -> None:
        for method, path, status in (
            ("GET", "/v2/nothing", 404), ("PUT", "/v2/lib/one/tags/list", 404), ("PATCH", "/v2/", 404), ("OPTIONS", "/v2/lib/one/manifests/v1", 405),
            ("POST", "/v2/lib/one/manifests/v1", 404), ("GET", "/v2/lib/one/blobs/uploads/", 400),
        ):  # fmt: skip
            answer = await r.ask(method, path)
            assert answer.status in (status, 404) and answer.code in ("UNSUPPORTED", "DIGEST_INVALID"), path

    run(scenario)


def test_an_upload_that_stops_is_cut_and_can_be_resumed(run: Run) -> None:
    async def slow(pieces: int) -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"x" * 10
        await asyncio.sleep(WAIT_S)

    async def scenario(r: Running) -> None:
        location = await r.begin()
        started = time.monotonic()
        answer = await r.ask("PATCH", location, slow(3))
        assert (answer.status, answer.code) == (408, "BLOB_UPLOAD_INVALID") and "nothing came for" in answer.body.decode()
        assert time.monotonic() - started < WAIT_S / 2
        assert (await r.ask("GET", location)).headers["Range"] == "0-29"
        assert (await r.ask("PUT", f"{location}?digest={digest_of(b'x' * 30 + b'y')}", b"y", Content_Range="30-30")).status == 201

    run(scenario, upload_idle_s_max=0.1)


@pytest.mark.slow
def test_an_upload_of_a_byte_now_and_then_is_cut_when_its_time_is_up(run: Run) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    async def scenario(r: Running) -> None:
        answer = await r.ask("PATCH", await r.begin(), drip())
        assert (answer.status, answer.code) == (408, "BLOB_UPLOAD_INVALID") and "not done in" in answer.body.decode()

    run(scenario, upload_total_s_max=0.3)


def test_an_upload_without_end_is_cut_at_the_bound_and_nothing_is_kept(run: Run) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 << 10)

    async def scenario(r: Running) -> None:
        location = await r.begin()
        try:
            answer = await r.ask("PATCH", location, endless())
            assert (answer.status, answer.code) == (413, "SIZE_INVALID")
        except aiohttp.ClientError:
            pass  # the connection was closed while it still wrote
        assert (await r.ask("GET", location)).code == "BLOB_UPLOAD_UNKNOWN"
        assert kept(r.folder) == []
        location = await r.begin()
        for start in range(0, 1 << 20, 256 << 10):  # in pieces that each are small enough
            answer = await r.ask("PATCH", location, bytes(256 << 10), Content_Range=f"{start}-{start + (256 << 10) - 1}")
        assert (await r.ask("PATCH", location, b"x")).status == 413
        assert kept(r.folder) == []

    run(scenario, oci_blob_bytes_max=1 << 20)


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_read(run: Run) -> None:
    async def scenario(r: Running) -> None:
        url = URL(r.url)
        location = await r.begin()
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 60}\r\n\r\n".encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), WAIT_S)
        writer.close()

    run(scenario)


def test_a_compressed_body_is_refused_however_small_it_is(run: Run) -> None:
    async def scenario(r: Running) -> None:
        bomb = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        answer = await r.ask("PATCH", await r.begin(), bomb, Content_Encoding="gzip")
        assert (answer.status, answer.code) == (415, "UNSUPPORTED")

    run(scenario)


def test_only_so_many_uploads_are_open_and_old_ones_expire(tmp_path: Path, clock: Any) -> None:
    async def main() -> None:
        async with serving(tmp_path / "registry", clock, replace(DEFAULT, uploads_open_max=2, upload_age_s_max=60)) as r:
            first = await r.begin()
            await r.begin()
            answer = await r.ask("POST", "/v2/lib/one/blobs/uploads/")
            assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
            await r.ask("DELETE", first)
            await r.begin()
            clock.advance(61_000)
            third = await r.begin()
            assert kept(r.folder) == [f"uploads/{third.rpartition('/')[2]}"]

    asyncio.run(main())


def test_only_so_many_repositories_are_made(run: Run) -> None:
    async def scenario(r: Running) -> None:
        await r.blob(b"x", "a")
        await r.blob(b"x", "b")
        answer = await r.ask("POST", f"/v2/c/blobs/uploads/?digest={digest_of(b'x')}", b"x")
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")

    run(scenario, oci_repositories_max=2)


def test_two_at_once_do_not_write_to_one_upload(run: Run) -> None:
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await asyncio.sleep(WAIT_S)

    async def scenario(r: Running) -> None:
        location = await r.begin()
        task = asyncio.create_task(r.ask("PATCH", location, slow()))
        await begun.wait()
        async with asyncio.timeout(WAIT_S):
            while (await r.ask("PATCH", location, b"y", Content_Range="0-0")).status != 409:  # noqa: ASYNC110 - the registry has no event for it
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(WAIT_S):  # the one that went away holds nothing up
            while (await r.ask("PATCH", location, b"z")).status != 202:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(scenario)


def test_a_full_disk_is_507_and_the_upload_goes_on_when_there_is_room(tmp_path: Path, clock: Clock) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")

    async def main() -> None:
        async with serving(disk / "registry", clock) as r:
            data, location, filler = os.urandom(1 << 20), await r.begin(), disk / "filler"
            filler.write_bytes(bytes(1200 << 10))
            answer = await r.ask("PATCH", location, data)
            assert (answer.status, answer.code) == (507, "UNAVAILABLE")
            filler.unlink()
            start = int((await r.ask("GET", location)).headers["Range"].removeprefix("0-")) + 1
            assert 1 < start < len(data)
            done = await r.ask("PUT", f"{location}?digest={digest_of(data)}", data[start:], Content_Range=f"{start}-{len(data) - 1}")
            assert done.status == 201

    try:
        asyncio.run(main())
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# Restarts and kills.


def test_everything_is_there_after_a_restart_and_leftovers_are_not(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "registry"

    async def before() -> tuple[str, str]:
        async with serving(folder, clock) as r:
            digest = await r.artifact("v1")
            location = await r.begin()
            await r.ask("PATCH", location, b"half")
            return digest, location

    async def after(digest: str, location: str) -> None:
        async with serving(folder, clock) as r:
            assert (await r.ask("GET", "/v2/lib/one/manifests/v1")).headers["Docker-Content-Digest"] == digest
            assert (await r.ask("GET", location)).headers["Range"] == "0-3"
            done = await r.ask("PUT", f"{location}?digest={digest_of(b'half and half')}", b" and half", Content_Range="4-12")
            assert done.status == 201
            assert not (folder / "uploads" / ("0" * 32)).exists() and not (folder / "blobs" / "sha512" / ".tmp-0123").exists()

    digest, location = asyncio.run(before())
    (folder / "uploads" / ("0" * 32)).write_bytes(b"no row knows it")
    (folder / "blobs" / "sha512" / ".tmp-0123").write_bytes(b"half a blob")
    asyncio.run(after(digest, location))


def test_a_damaged_index_is_named_in_one_line(tmp_path: Path, one_line: Callable[..., str]) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / INDEX).write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(StateDamaged) as caught:
        Content(folder)
    one_line(caught.value, folder / INDEX, "move it away")


def start_registry(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "sdk.cli.main", "registry", "serve", "--dir", str(folder), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def stop(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.wait(WAIT_S)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.slow
def test_an_upload_goes_on_where_a_kill_cut_it_off(tmp_path: Path) -> None:
    folder, data = tmp_path / "registry", os.urandom(8 << 20)

    async def until_killed(url: str, process: subprocess.Popen[str]) -> str:
        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(data) // 2, 64 << 10):
                yield data[start : start + (64 << 10)]
            async with asyncio.timeout(WAIT_S):
                while not any(path.stat().st_size >= 2 << 20 for path in (folder / "uploads").iterdir()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.sleep(WAIT_S)

        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/v2/lib/one/blobs/uploads/") as begun:
                location = begun.headers["Location"]
            with pytest.raises(aiohttp.ClientError):
                async with session.patch(url + location, data=body()):
                    pass
        return location

    process, url = start_registry(folder)
    try:
        location = asyncio.run(until_killed(url, process))
    finally:
        stop(process, signal.SIGKILL)
    process, url = start_registry(folder)
    try:
        with urllib.request.urlopen(url + location, timeout=WAIT_S) as status:
            start = int(status.headers["Range"].removeprefix("0-")) + 1
        assert 2 << 20 <= start <= len(data) // 2
        headers = {"Content-Range": f"{start}-{len(data) - 1}", "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{url}{location}?digest={digest_of(data)}", data=data[start:], method="PUT", headers=headers)
        with urllib.request.urlopen(request, timeout=WAIT_S) as done:
            assert done.status == 201
        with urllib.request.urlopen(f"{url}/v2/lib/one/blobs/{digest_of(data)}", timeout=WAIT_S) as got:
            assert got.read() == data
        assert kept(folder) == [f"blobs/sha256/{digest_of(data)[7:]}"]
    finally:
        stop(process, signal.SIGTERM)


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing_that_was_acknowledged_and_leave_nothing_half(
    tmp_path: Path, make_skill: Callable[..., bytes]
) -> None:
    folder, seed = tmp_path / "registry", int(os.environ.get("SEED", "20"))
    print(f"SEED={seed}")
    random, acknowledged, number = Random(seed), dict[str, bytes](), 0
    for _ in range(5):
        process, url = start_registry(folder)
        killer = threading.Timer(random.uniform(0.02, 0.3), process.kill)
        killer.start()
        try:
            while True:
                number += 1
                data = make_skill(version=f"1.0.{number}", padding=random.choice((0, 50_000, 300_000)))
                acknowledged[RegistryHttp(url).upload(data)["digest"]] = data
        except NetworkError:
            pass
        finally:
            killer.join()
            stop(process, signal.SIGKILL)
        content = Content(folder)
        for repository in content.index.repositories():
            for row in content.index.manifests(repository):
                _, raw = content.manifest(repository, row.digest)
                for part in oci.read_manifest(raw, row.media_type, row.digest).blobs:
                    assert digest_of(content.blob(repository, part.digest).read_bytes()) == part.digest
        for digest, data in acknowledged.items():
            assert content.blob("skills/greeter", digest).read_bytes() == data
            assert content.index.made_of(digest)
        assert not [name for name in kept(folder) if ".tmp-" in name]
    assert acknowledged, "it was killed before anything was pushed"
