"""Who may do what in a registry: tokens, scopes, anonymous access, TLS; over a real socket, through the registry's own server."""

import asyncio
import base64
import datetime
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from host.core import oci
from host.core.errors import StateDamaged, UsageError
from registry.server import RegistryServer, serve
from registry.tokens import FILE, Access, Anonymous, Tokens

MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]


@dataclass
class Running:
    url: str
    server: RegistryServer
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, data: Any = None, authorization: str = "", **headers: str) -> tuple[int, Any, Any]:
        if authorization:
            headers["Authorization"] = authorization
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()}) as response:
            raw = await response.read()
            return response.status, response.headers, json.loads(raw) if raw[:1] == b"{" else raw

    async def status(self, method: str, path: str, data: Any = None, authorization: str = "") -> int:
        return (await self.ask(method, path, data, authorization))[0]


@asynccontextmanager
async def running(folder: Path, clock: Any, anonymous: Anonymous | None = None, host: str = "127.0.0.1") -> AsyncIterator[Running]:
    made = RegistryServer(folder, clock, lambda level, line: None, anonymous=anonymous)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(made, host, 0, ready.set_result))
    async with aiohttp.ClientSession() as session:
        try:
            yield Running((await ready).replace("0.0.0.0", "127.0.0.1"), made, session)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_without_a_token_anybody_pushes_on_loopback_and_nobody_deletes(folder: Path, clock: Any, make_skill: MakeSkill) -> None:
    async def main() -> None:
        async with running(folder, clock) as r:
            assert await r.status("GET", "/v2/") == 200
            assert await r.status("POST", "/v1/bundles", make_skill()) == 201
            assert await r.status("GET", "/v2/skills/greeter/manifests/1.0.0") == 200
            status, headers, body = await r.ask("DELETE", "/v2/skills/greeter/manifests/1.0.0")
            assert (status, body["errors"][0]["code"]) == (401, "UNAUTHORIZED")
            assert headers["WWW-Authenticate"].startswith("Basic realm=")

    asyncio.run(main())


def test_beyond_loopback_or_with_a_token_anybody_pulls_and_only_tokens_push(folder: Path, clock: Any, make_skill: MakeSkill) -> None:
    async def main() -> None:
        async with running(folder, clock, host="0.0.0.0") as r:
            assert await r.status("POST", "/v1/bundles", make_skill()) == 401
            assert await r.status("POST", "/v2/skills/greeter/blobs/uploads/") == 401
            assert await r.status("GET", "/v1/fleet") == 200
            # Clients say who they are only if the first answer tells them to.
            assert await r.status("GET", "/v2/") == 401
        async with running(folder, clock) as r:
            assert await r.status("POST", "/v2/skills/greeter/blobs/uploads/") == 202
            secret = Tokens(folder).new("ci", ("push",), "*", 0)  # by another process, while it runs
            assert await r.status("POST", "/v2/skills/greeter/blobs/uploads/") == 401
            assert await r.status("POST", "/v2/skills/greeter/blobs/uploads/", None, basic("ci", secret)) == 202

    asyncio.run(main())


@pytest.mark.parametrize(("anonymous", "pull", "push"), [("none", 401, 401), ("pull", 404, 401), ("push", 404, 202)])
def test_anonymous_access_is_a_setting(folder: Path, clock: Any, anonymous: Anonymous, pull: int, push: int) -> None:
    async def main() -> None:
        async with running(folder, clock, anonymous) as r:
            assert await r.status("GET", "/v2/a/manifests/v1") == pull
            assert await r.status("POST", "/v2/a/blobs/uploads/") == push
            assert await r.status("GET", "/v2/_catalog") == (401 if pull == 401 else 200)
            assert await r.status("GET", f"/v1/blobs/sha256:{'0' * 64}") == pull
            assert await r.status("GET", "/v1/fleet") == (401 if pull == 401 else 200)

    asyncio.run(main())


def test_a_token_takes_nothing_away_that_anybody_may(folder: Path, clock: Any) -> None:
    push = Tokens(folder).new("push", ("push",), "skills/*", 0)

    async def main() -> None:
        async with running(folder, clock, "pull") as r:
            assert await r.status("GET", "/v2/other/manifests/v1", None, f"Bearer {push}") == 404
            assert await r.status("POST", "/v2/other/blobs/uploads/", None, f"Bearer {push}") == 403
            assert await r.status("POST", "/v2/skills/x/blobs/uploads/", None, f"Bearer {push}") == 202

    asyncio.run(main())


def test_a_token_does_what_its_scopes_say_in_the_repositories_it_names(folder: Path, clock: Any, make_skill: MakeSkill) -> None:
    tokens = Tokens(folder)
    pull, push = tokens.new("pull", ("pull",), "skills/*", 0), tokens.new("push", ("pull", "push"), "skills/gre*", 0)
    delete = tokens.new("delete", ("delete",), "*", 0)

    async def main() -> None:
        async with running(folder, clock, "none") as r:
            assert await r.status("POST", "/v1/bundles", make_skill(), f"Bearer {push}") == 201
            assert await r.status("POST", "/v1/bundles", make_skill(name="other"), f"Bearer {push}") == 403
            assert await r.status("POST", "/v1/bundles", make_skill(), f"Bearer {pull}") == 403
            path = "/v2/skills/greeter/manifests/1.0.0"
            assert await r.status("GET", path, None, basic("pull", pull)) == 200
            bundle = f"sha256:{hashlib.sha256(make_skill()).hexdigest()}"
            status, _, body = await r.ask("DELETE", path, authorization=basic("pull", pull))
            assert (status, body["errors"][0]["code"]) == (403, "DENIED")
            assert await r.status("GET", path, None, f"Bearer {delete}") == 403
            assert await r.status("POST", "/v2/other/blobs/uploads/", None, f"Bearer {push}") == 403
            assert await r.status("GET", "/v2/other/tags/list", None, f"Bearer {pull}") == 403
            assert (await r.ask("GET", "/v2/_catalog", authorization=f"Bearer {pull}"))[2] == {"repositories": ["skills/greeter"]}
            # A digest alone is no way round the pattern of a token.
            narrow = tokens.new("narrow", ("pull", "push"), "skills/other", 0)
            assert (await r.ask("GET", "/v2/_catalog", authorization=f"Bearer {narrow}"))[2] == {"repositories": []}
            layer = json.dumps({"digest": bundle})
            assert await r.status("GET", f"/v1/blobs/{bundle}", None, f"Bearer {narrow}") == 403
            assert await r.status("GET", f"/v1/blobs/{bundle}", None, f"Bearer {pull}") == 200
            assert await r.status("POST", "/v1/announcements", layer, f"Bearer {narrow}") == 403
            assert await r.status("POST", "/v1/announcements", layer, f"Bearer {push}") == 202
            assert await r.status("DELETE", "/v1/announcements/greeter", None, f"Bearer {narrow}") == 403
            mount = f"/v2/skills/other/blobs/uploads/?mount={bundle}&from=skills/greeter"
            assert await r.status("POST", mount, None, f"Bearer {narrow}") == 202  # an ordinary upload, not a mount
            assert await r.status("DELETE", path, None, f"Bearer {delete}") == 202

    asyncio.run(main())


def test_wrong_revoked_and_expired_credentials_are_401_even_where_none_are_needed(folder: Path, clock: Any) -> None:
    tokens = Tokens(folder)
    secret = tokens.new("ci", ("pull",), "*", clock.now_ms() // 1000 + 60)
    other = tokens.new("other", ("pull",), "*", 0)

    async def main() -> None:
        async with running(folder, clock, "pull") as r:
            path = "/v1/fleet"
            assert await r.status("GET", path, None, basic("ci", secret)) == 200
            bad = (
                basic("ci", "wrong"), basic("ci", other), basic("nobody", secret), "Bearer wrong", "Bearer ", f"Digest {secret}", "Basic !!!",
                "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), basic("ci", ""), "x" * 5000,
            )  # fmt: skip
            for header in bad:
                status, headers, _ = await r.ask("GET", path, authorization=header)
                assert status == 401 and "WWW-Authenticate" in headers, header[:40]
                assert await r.status("GET", "/v2/_catalog", None, header) == 401
            assert await r.status("GET", path, None, basic("", "")) == 200  # how some clients say that they have none
            clock.advance(60_000)
            assert await r.status("GET", path, None, basic("ci", secret)) == 401
            Tokens(folder).revoke("other")
            assert await r.status("GET", path, None, f"Bearer {other}") == 401

    asyncio.run(main())


def test_the_file_of_tokens_has_no_secret_and_is_its_owners_only(folder: Path) -> None:
    secret = Tokens(folder).new("ci", ("pull", "pull"), "*", 0)
    raw = (folder / FILE).read_bytes()
    assert secret.encode() not in raw and (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert [(token.name, token.scopes) for token in Tokens(folder).all()] == [("ci", ("pull",))]


def test_a_token_that_is_none_is_refused_in_one_line_and_the_file_stays(folder: Path, one_line: OneLine) -> None:
    tokens = Tokens(folder)
    tokens.new("ci", ("pull",), "*", 0)
    before = (folder / FILE).read_bytes()
    for name, scopes, pattern in (
        ("ci", ("pull",), "*"), ("../x", ("pull",), "*"), ("x", ("all",), "*"), ("x", (), "*"), ("x", ("pull",), "[a]"), ("x\x1b", ("pull",), "*"),
        ("x", ("pull",), ""), ("x" * 65, ("pull",), "*"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            tokens.new(name, scopes, pattern, 0)
        one_line(caught.value, "token")
    with pytest.raises(UsageError) as caught:
        tokens.revoke("nobody")
    one_line(caught.value, "nobody")
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]x", b'[{"name": "x"}]', b"\xff", b"[" * 100_000])
def test_damaged_tokens_let_nobody_in(folder: Path, clock: Any, damage: bytes, one_line: OneLine) -> None:
    async def main() -> None:
        async with running(folder, clock) as r:
            (folder / FILE).write_bytes(damage)
            for method, path in (("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/"), ("POST", "/v1/bundles"), ("GET", "/v1/fleet")):
                assert await r.status(method, path) == 503
            with pytest.raises(StateDamaged) as caught:
                Access(folder, clock)
            one_line(caught.value, folder / FILE, "make new ones")

    asyncio.run(main())


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(private)
    return folder / "tls.crt", folder / "tls.key"


def test_a_registry_speaks_tls_where_it_has_a_certificate(folder: Path, clock: Any, tmp_path: Path, make_skill: MakeSkill) -> None:
    chain, key = certificate(tmp_path)

    async def main() -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(chain, key)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        made = RegistryServer(folder, clock, lambda level, line: None)
        task = asyncio.create_task(serve(made, "127.0.0.1", 0, ready.set_result, server))
        url = (await ready).replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(chain)))
        async with aiohttp.ClientSession(connector=trusting) as session:
            async with session.post(f"{url}/v1/bundles", data=make_skill()) as answer:
                assert answer.status == 201
            async with session.get(f"{url}/v2/skills/greeter/tags/list") as answer:
                assert (await answer.json())["tags"] == ["1.0.0"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("[::1]:80", True), ("localhost", True), ("localhost:80", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False), ("127.0.0.1.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert oci.is_loopback(host) is loopback
