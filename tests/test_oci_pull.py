"""Pulling a bundle from a registry that lies, stalls, or wants a login; and what a reference, a challenge and a manifest may look like."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from host.core import oci
from host.core.errors import DigestMismatch, Incompatible, MalformedData, NetworkError, OciRefused, SnapcountError, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.oci_auth import Authorizer, Credentials
from host.supply import oci as pulling
from host.supply.oci import Resolved, fetch, resolve
from registry.oci_client import OciRepository

BUNDLE = b"\0asm" + bytes(range(256)) * 100
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest(*layers: dict[str, Any], **more: Any) -> bytes:
    config = {"mediaType": oci.WASM_CONFIG, "digest": digest_of(b"{}"), "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": list(layers)} | more).encode()


def layer(data: bytes = BUNDLE, media_type: str = oci.WASM_LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)} | more


@dataclass
class Liar:
    """A registry that answers whatever a test says; by default the truth."""

    manifest: bytes = manifest(layer())
    media_type: str = oci.MANIFEST
    blob: bytes = BUNDLE
    headers: dict[str, str] = field(default_factory=dict)
    host: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        if self.handler is not None and (found := await self.handler(request)) is not None:
            return found
        if "/manifests/" in request.path:
            return web.Response(body=self.manifest, headers={"Content-Type": self.media_type} | self.headers)
        return web.Response(body=self.blob, headers=self.headers)

    @property
    def target(self) -> oci.Reference:
        return oci.parse_reference(f"{self.host}/team/greeter:1.0.0")


@asynccontextmanager
async def lying(liar: Liar) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", liar.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    liar.host = f"127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        try:
            yield session
        finally:
            await runner.cleanup()


def pull(liar: Liar, credentials: Credentials | None = None, reference: str = "", *, blocking: bool = False) -> bytes:
    async def main() -> bytes:
        async with asyncio.timeout(20), lying(liar) as session:
            where = oci.parse_reference(f"{liar.host}/{reference}") if reference else liar.target
            if blocking:
                return await asyncio.to_thread(OciRepository(where, credentials).pull)
            found = await resolve(session, where, credentials)
            return await fetch(session, where, found, credentials)

    return asyncio.run(main())


both = pytest.mark.parametrize("blocking", [False, True], ids=["node", "command line"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "RETRY_S", 0.001)


@both
def test_an_honest_registry_is_pulled_from(blocking: bool) -> None:
    assert pull(Liar(), blocking=blocking) == BUNDLE
    assert pull(Liar(), reference=f"team/greeter@{digest_of(manifest(layer()))}", blocking=blocking) == BUNDLE


@both
@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        ((), Incompatible),
        ((layer(), layer()), Incompatible),
        ((layer(media_type="application/wasm+gzip"),), Incompatible),
        ((layer(media_type="application/vnd.oci.image.layer.v1.tar+gzip"),), Incompatible),
        ((layer(media_type="application/vnd.docker.image.rootfs.diff.tar.gzip"),), Incompatible),
        ((layer(digest="sha512:" + "0" * 128),), Incompatible),
        ((layer(size=DEFAULT.bundle_bytes_max + 1),), TooLarge),
        ((layer(size=1 << 62),), TooLarge),
        ((layer(size=-1),), MalformedData),
        ((layer(digest="sha256:../../etc/passwd"),), MalformedData),
    ],
)
def test_a_manifest_that_is_not_a_bundles_is_refused_before_a_blob_is_asked_for(
    layers: tuple[Any, ...], kind: type[SnapcountError], blocking: bool, one_line: OneLine
) -> None:
    liar = Liar(manifest=manifest(*layers))
    with pytest.raises(kind) as caught:
        pull(liar, blocking=blocking)
    one_line(caught.value, f"{liar.host}/team/greeter:1.0.0")
    assert not any("/blobs/" in path for _, path, _ in liar.asked)


@both
@pytest.mark.parametrize(
    "media_type", ["text/html", "application/json", "", "application/vnd.docker.distribution.manifest.v1+json", oci.INDEX]
)
def test_an_unknown_media_type_or_an_index_is_refused(media_type: str, blocking: bool) -> None:
    with pytest.raises((MalformedData, Incompatible)):
        pull(Liar(media_type=media_type), blocking=blocking)


@both
@pytest.mark.parametrize(
    "blob", [BUNDLE[:-1], BUNDLE + b"\0", BUNDLE[:-1] + b"\0", b"", bytes(1 << 20)], ids=["less", "more", "other", "nothing", "much"]
)
def test_other_bytes_than_the_manifest_named_are_refused(blob: bytes, blocking: bool) -> None:
    with pytest.raises((DigestMismatch, NetworkError, TooLarge)):
        pull(Liar(blob=blob), blocking=blocking)


@both
def test_another_manifest_than_was_asked_for_by_digest_is_refused(blocking: bool) -> None:
    with pytest.raises(DigestMismatch):
        pull(Liar(), reference=f"team/greeter@{digest_of(b'another')}", blocking=blocking)


def test_a_registry_that_contradicts_itself_on_a_manifests_digest_is_refused() -> None:
    with pytest.raises(DigestMismatch):
        pull(Liar(headers={"Docker-Content-Digest": digest_of(b"another")}))


@both
def test_a_manifest_without_end_is_cut_off(blocking: bool) -> None:
    with pytest.raises(TooLarge):
        pull(Liar(manifest=bytes(DEFAULT.oci_manifest_bytes_max + 1)), blocking=blocking)


def test_a_compressed_answer_is_not_expanded() -> None:
    bomb = gzip.compress(bytes(DEFAULT.bundle_bytes_max * 4))
    with pytest.raises(NetworkError, match="compressed"):
        pull(Liar(manifest=bomb, headers={"Content-Encoding": "gzip"}))


def test_a_broken_transfer_goes_on_where_it_broke() -> None:
    ranges = []

    async def breaks(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path:
            return None
        ranges.append(request.headers.get("Range", ""))
        start = int(ranges[-1].removeprefix("bytes=").rstrip("-") or 0)
        response = web.StreamResponse(status=206 if start else 200, headers={"Content-Length": str(len(BUNDLE) - start)})
        await response.prepare(request)
        await response.write(BUNDLE[start : start + 10_000])
        if start + 10_000 < len(BUNDLE):
            assert request.transport is not None
            request.transport.close()
        return response

    assert pull(Liar(handler=breaks)) == BUNDLE  # type: ignore[arg-type]
    assert ranges[0] == "" and len(ranges) == 3 and all(text.startswith("bytes=") for text in ranges[1:])


def test_a_registry_that_always_breaks_off_is_given_up() -> None:
    async def breaks(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" in request.path:
            assert request.transport is not None
            request.transport.close()
        return None

    liar = Liar(handler=breaks)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="attempts"):
        pull(liar)
    assert sum("/blobs/" in path for _, path, _ in liar.asked) >= DEFAULT.fetch_attempts_max


def test_a_registry_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "DEFAULT", replace(DEFAULT, fetch_idle_s_max=0.05))

    async def stalls(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    with pytest.raises(NetworkError):
        pull(Liar(handler=stalls))


@both
def test_redirects_are_followed_a_few_times_without_the_login(blocking: bool) -> None:
    credentials = Credentials("ops", "secret")

    async def elsewhere(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/cdn":
            return web.Response(body=BUNDLE)
        if "/blobs/" in request.path and request.headers.get("Authorization"):
            # Another name of the same machine is another origin.
            raise web.HTTPTemporaryRedirect(f"http://localhost:{request.url.port}/cdn")
        if not request.headers.get("Authorization"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return None

    liar = Liar(handler=elsewhere)  # type: ignore[arg-type]
    assert pull(liar, credentials, blocking=blocking) == BUNDLE
    assert liar.asked[-1] == ("GET", "/cdn", "")

    async def around(request: web.Request) -> web.StreamResponse | None:
        raise web.HTTPFound(f"{request.path}x")

    with pytest.raises((NetworkError, OciRefused)):
        pull(Liar(handler=around), blocking=blocking)  # type: ignore[arg-type]


@both
@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "gopher://x"])
def test_a_redirect_to_no_web_address_is_not_followed(location: str, blocking: bool) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": location})

    with pytest.raises((NetworkError, OciRefused)):
        pull(Liar(handler=elsewhere), blocking=blocking)


@both
def test_an_error_of_the_registrys_is_told_with_its_code_in_one_line(blocking: bool, one_line: OneLine) -> None:
    for body, code in (
        ({"errors": [{"code": "DENIED", "message": "no\nentry\x1b[31m"}]}, "DENIED"), ({"errors": []}, "UNKNOWN"), ([1], "UNKNOWN"),
    ):  # fmt: skip

        async def refuses(request: web.Request, body: Any = body) -> web.StreamResponse:
            return web.json_response(body, status=403)

        with pytest.raises(OciRefused) as caught:
            pull(Liar(handler=refuses), blocking=blocking)
        one_line(caught.value, 403, code)
        assert (caught.value.oci_code, caught.value.status) == (code, 403)


# Logging in.


def token_service(answer: Any, realm: str = "", status: int = 200) -> Callable[[web.Request], Awaitable[Any]]:
    async def handler(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            assert request.query["service"] == "test" and request.query["scope"] == "repository:team/greeter:pull"
            return web.json_response(answer, status=status)
        if request.headers.get("Authorization") == "Bearer abc.def":
            return None
        where = realm or f"http://{request.host}/token"
        challenge = f'Basic realm="x", Bearer realm="{where}",service="test",scope="repository:team/greeter:pull,push"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    return handler


@both
@pytest.mark.parametrize("answer", [{"token": "abc.def"}, {"access_token": "abc.def", "expires_in": 60}])
def test_a_token_is_fetched_where_the_challenge_says_with_and_without_a_login(answer: Any, blocking: bool) -> None:
    for credentials in (None, Credentials("ops", "secret")):
        liar = Liar(handler=token_service(answer))
        assert pull(liar, credentials, blocking=blocking) == BUNDLE
        (asked,) = {header for _, path, header in liar.asked if path.startswith("/token")}
        assert asked == (credentials.basic if credentials else "")


@both
@pytest.mark.parametrize("answer", [{}, [], {"token": ""}, {"token": "two\nlines"}, {"token": "x" * 20_000}, {"token": 1}])
def test_a_token_that_is_none_is_refused(answer: Any, blocking: bool) -> None:
    with pytest.raises(NetworkError, match="no token"):
        pull(Liar(handler=token_service(answer)), blocking=blocking)


@both
@pytest.mark.parametrize("realm", ["file:///etc/passwd", "token", "ftp://x/", "http:///x"])
def test_a_token_service_that_is_no_web_address_is_not_asked(realm: str, blocking: bool) -> None:
    with pytest.raises(NetworkError, match="token service"):
        pull(Liar(handler=token_service({}, realm)), Credentials("ops", "secret"), blocking=blocking)


@both
def test_a_registry_that_refuses_every_login_is_asked_once_more_only(blocking: bool) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    for credentials, count in ((None, 1), (Credentials("ops", "secret"), 2)):
        liar = Liar(handler=never)
        with pytest.raises(OciRefused) as caught:
            pull(liar, credentials, blocking=blocking)
        assert caught.value.status == 401 and len(liar.asked) == count
        assert "secret" not in str(caught.value)


def test_a_login_for_tls_is_not_sent_to_a_token_service_without_it() -> None:
    authorizer = Authorizer("https://registry.example", "team/greeter", "pull", Credentials("ops", "secret"))
    with pytest.raises(NetworkError, match="token service"):
        authorizer.challenged('Bearer realm="http://registry.example/token",service="x"', "x")


def test_credentials_are_a_name_and_a_secret_that_no_error_shows() -> None:
    assert Credentials.parse("ops:a:b") == Credentials("ops", "a:b")
    assert "hidden" not in repr(Credentials("ops", "hidden"))
    for text in ("", "hidden", ":hidden", "ops:", "ops:hid\nden"):
        with pytest.raises(UsageError) as caught:
            Credentials.parse(text)
        assert "hid" not in str(caught.value)


# References and manifests.


@pytest.mark.parametrize(
    ("text", "base", "repository", "tag", "digest"),
    [
        ("registry.example/skills/greeter:1.0.0", "https://registry.example", "skills/greeter", "1.0.0", ""),
        ("registry.example:8470/greeter:latest", "https://registry.example:8470", "greeter", "latest", ""),
        ("oci://localhost/greeter:x", "http://localhost", "greeter", "x", ""),
        ("127.0.0.1:8470/a/b/c:x_1", "http://127.0.0.1:8470", "a/b/c", "x_1", ""),
        ("[::1]:8470/a:x", "http://[::1]:8470", "a", "x", ""),
        ("https://127.0.0.1:8470/a:x", "https://127.0.0.1:8470", "a", "x", ""),
        ("http://registry.example/a:x", "http://registry.example", "a", "x", ""),
        (f"registry.example/a@sha256:{'0' * 64}", "https://registry.example", "a", "", f"sha256:{'0' * 64}"),
        (f"registry.example/a:x@sha512:{'0' * 128}", "https://registry.example", "a", "x", f"sha512:{'0' * 128}"),
    ],
)
def test_a_reference_names_a_registry_a_repository_and_a_manifest(text: str, base: str, repository: str, tag: str, digest: str) -> None:
    assert oci.parse_reference(text) == oci.Reference(base, oci.Local(repository, tag, digest))


@pytest.mark.parametrize(
    "text",
    [
        "", "greeter", "greeter:1.0.0", "skills/greeter:1.0.0", "registry.example/greeter", "registry.example/", "/a:x", "registry.example/A:x",
        "registry.example/../a:x", "registry.example/a//b:x", "registry.example/a:", "registry.example/a@", "registry.example/a@sha256:0",
        "registry.example/a:x@", "ftp://registry.example/a:x", "registry.example:port/a:x", "user@registry.example/a:x", "registry.example/a:x\n",
        "registry.example\x1b/a:x", "https://http://registry.example/a:x", "registry.example/a:x:y", "registry.example/a:x#y", "registry.example/a:x?y",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_in_one_line(text: str, one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        oci.parse_reference(text)
    one_line(caught.value, "expected")


def test_a_bundle_is_the_same_artifact_on_every_machine(make_skill: MakeSkill) -> None:
    data = make_skill()
    made = oci.wasm_artifact(data, "greeter", "1.0.0")
    assert made == oci.wasm_artifact(data, "greeter", "1.0.0") and made.layer == digest_of(data)
    described, config = json.loads(made.manifest), json.loads(made.config)
    # TAG Runtime, "Wasm OCI Artifact layout".
    assert config == {"created": "1970-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip1", "layerDigests": [digest_of(data)]}
    assert described["config"] == {
        "mediaType": "application/vnd.wasm.config.v0+json",
        "digest": digest_of(made.config),
        "size": len(made.config),
    }
    assert [entry["mediaType"] for entry in described["layers"]] == ["application/wasm"]
    assert described["annotations"] == {"org.opencontainers.image.title": "greeter", "org.opencontainers.image.version": "1.0.0"}
    assert oci.wasm_layer(made.manifest, oci.MANIFEST, "x").digest == digest_of(data)


def test_resolving_tells_digest_size_and_manifest() -> None:
    async def main() -> None:
        liar = Liar()
        async with lying(liar) as session:
            assert await resolve(session, liar.target) == Resolved(digest_of(BUNDLE), len(BUNDLE), digest_of(liar.manifest))

    asyncio.run(main())
