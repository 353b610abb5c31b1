"""Real clients against our registry (skopeo, the oras library), and our node and command line against a real registry (Debian's docker-registry).

CI has them all and skips nothing; elsewhere a test that lacks its tool says which.
"""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from host.core import oci
from host.core.errors import OciRefused
from host.core.oci_auth import Credentials
from host.supply.oci import fetch, resolve
from registry.oci_client import OciRepository
from registry.tokens import Tokens

WAIT_S = 20.0
SECRET_BCRYPT = "$2b$04$snapcountsnapcountteseT.D70gmocc6q6/J9W0hXZf7L5/5GoWK"  # of `secret`, as htpasswd files have it
MakeSkill = Callable[..., bytes]
pytestmark = pytest.mark.slow


def tool(name: str) -> str:
    """The path of a tool. Skips where it is missing, but in CI, where it must not be."""
    path = shutil.which(name)
    if path is None:
        text = f"{name} is not installed here (Debian: apt-get install {name})"
        if os.environ.get("CI"):
            pytest.fail(f"{text}; CI tests with it")
        pytest.skip(text)
    return path


def run(*command: object, code: int = 0, **environment: str) -> str:
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout if code == 0 else ended.stderr


def snapcount(*arguments: object, code: int = 0, **environment: str) -> Any:
    out = run(sys.executable, "-m", "sdk.cli.main", *arguments, code=code, **environment)
    return json.loads(out.splitlines()[-1]) if "--json" in arguments and code == 0 else out


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Served:
    url: str
    folder: Path

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "sdk.cli.main", "registry", "serve", "--dir", str(folder), "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield Served(json.loads(process.stdout.readline())["url"], folder)
    finally:
        process.terminate()
        process.wait(WAIT_S)
        process.stdout.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "registry") as it:
        yield it


@pytest.fixture
def bundle(tmp_path: Path, make_skill: MakeSkill) -> Path:
    path = tmp_path / "greeter.wasm"
    path.write_bytes(make_skill(padding=200_000))
    return path


def node_pull(reference: str, credentials: Credentials | None = None) -> bytes:
    """As a node does it."""

    async def pull() -> bytes:
        where = oci.parse_reference(reference)
        async with aiohttp.ClientSession() as session:
            found = await resolve(session, where, credentials)
            return await fetch(session, where, found, credentials)

    return asyncio.run(pull())


# Skopeo and oras against our registry.


def test_skopeo_inspects_copies_out_copies_in_and_lists_what_we_pushed(registry: Served, bundle: Path, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    pushed = snapcount("registry", "push", bundle, "--registry", registry.url, "--json")
    source = f"docker://{registry.host}/skills/greeter:1.0.0"
    raw = json.loads(run(skopeo, "inspect", "--tls-verify=false", "--raw", source))
    assert raw["config"]["mediaType"] == oci.WASM_CONFIG and [layer["digest"] for layer in raw["layers"]] == [pushed["digest"]]
    layout = tmp_path / "layout"
    run(skopeo, "copy", "--src-tls-verify=false", source, f"oci:{layout}:greeter")
    assert (layout / "blobs" / pushed["digest"].replace(":", "/")).read_bytes() == bundle.read_bytes()
    run(skopeo, "copy", "--dest-tls-verify=false", f"oci:{layout}:greeter", f"docker://{registry.host}/copies/greeter:new")
    assert node_pull(f"{registry.host}/copies/greeter:new") == bundle.read_bytes()
    # Within one registry skopeo mounts the blobs.
    run(skopeo, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", source, f"docker://{registry.host}/skills/copy:2.0.0")
    tags = json.loads(run(skopeo, "list-tags", "--tls-verify=false", f"docker://{registry.host}/copies/greeter"))
    assert tags["Tags"] == ["new"]


def test_skopeo_logs_in_to_push_and_to_delete_while_anybody_may_pull(bundle: Path, tmp_path: Path) -> None:
    skopeo, folder = tool("skopeo"), tmp_path / "registry"
    secret = Tokens(folder).new("ops", ("pull", "push", "delete"), "skills/*", 0)
    with served(folder) as registry:
        target = f"{registry.host}/skills/greeter:1.0.0"
        assert "wants a token" in snapcount("registry", "push", bundle, target, code=20)
        snapcount("registry", "push", bundle, target, SNAPCOUNT_TOKEN=f"ops:{secret}")
        run(skopeo, "inspect", "--tls-verify=false", "--raw", f"docker://{target}")  # without a login
        copy = f"docker://{registry.host}/skills/copy:1.0.0"
        verify = ("--src-tls-verify=false", "--dest-tls-verify=false")
        run(skopeo, "copy", *verify, f"docker://{target}", copy, code=1)
        run(skopeo, "copy", *verify, "--dest-creds", f"ops:{secret}", f"docker://{target}", copy)
        run(
            skopeo, "copy", *verify, "--dest-creds", f"ops:{secret}", f"docker://{target}", f"docker://{registry.host}/other/copy:1", code=1
        )
        run(skopeo, "delete", "--tls-verify=false", "--creds", f"ops:{secret}", copy)
        with pytest.raises(OciRefused) as caught:
            node_pull(f"{registry.host}/skills/copy:1.0.0")
        assert caught.value.oci_code == "MANIFEST_UNKNOWN"


def oras_client(host: str) -> Any:
    try:
        from oras.client import OrasClient
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("the oras library is not installed here (pip install -e '.[dev]')")
    return OrasClient(hostname=host, insecure=True)


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_oras_pulls_what_we_pushed_and_what_it_pushes_is_announced_by_digest(registry: Served, bundle: Path, tmp_path: Path) -> None:
    client = oras_client(registry.host)
    snapcount("registry", "push", bundle, "--registry", registry.url)
    (out,) = client.pull(target=f"{registry.host}/skills/greeter:1.0.0", outdir=str(tmp_path / "out"))
    assert Path(out).name == "greeter.wasm" and Path(out).read_bytes() == bundle.read_bytes()
    config = tmp_path / "config.json"
    config.write_text("{}")
    target = f"{registry.host}/oras/greeter:2.0.0"
    done = client.push(
        target=target, files=[f"{bundle}:{oci.WASM_LAYER}"], manifest_config=f"{config}:{oci.WASM_CONFIG}", disable_path_validation=True
    )
    assert done.status_code == 201
    assert client.get_tags(f"{registry.host}/oras/greeter") == ["2.0.0"]
    assert node_pull(target) == bundle.read_bytes()
    manifest = done.headers["Docker-Content-Digest"]
    for digest in (digest_of(bundle.read_bytes()), manifest):  # the bundle's own, and that which oras shows
        request = urllib.request.Request(f"{registry.url}/v1/announcements", data=json.dumps({"digest": digest}).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            announced = json.loads(answer.read())["announced"]
        assert (announced["name"], announced["digest"]) == ("greeter", digest_of(bundle.read_bytes()))
    with urllib.request.urlopen(f"{registry.url}/v1/blobs/{digest_of(bundle.read_bytes())}", timeout=WAIT_S) as blob:
        assert blob.read() == bundle.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_oras_pushes_in_pieces(registry: Served, tmp_path: Path) -> None:
    client = oras_client(registry.host)
    data = tmp_path / "large.bin"
    data.write_bytes(os.urandom(3 << 20))
    client.push(
        target=f"{registry.host}/oras/large:1", files=[f"{data}:application/octet-stream"], do_chunked=True, chunk_size=1 << 20,
        disable_path_validation=True,
    )  # fmt: skip
    client.pull(target=f"{registry.host}/oras/large:1", outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "large.bin").read_bytes() == data.read_bytes()


# Our node and command line against Debian's docker-registry.


@contextmanager
def docker_registry(tmp_path: Path, *, login: bool = False) -> Iterator[str]:
    """Its HOST:PORT. With a login it wants Basic authentication as `ops` with the password `secret`."""
    binary = tool("docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    auth = ""
    if login:
        (tmp_path / "htpasswd").write_text(f"ops:{SECRET_BCRYPT}\n")
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {tmp_path}/htpasswd\n"
    (tmp_path / "config.yml").write_text(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n"
        f"    rootdirectory: {tmp_path}/docker\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
    process = subprocess.Popen([binary, "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + WAIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < until, "docker-registry did not start"
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(WAIT_S)


def test_our_command_line_and_node_use_dockers_registry(bundle: Path, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as host:
        target = f"{host}/team/greeter:1.0.0"
        pushed = snapcount("registry", "push", bundle, target, "--json")
        assert pushed["digest"] == digest_of(bundle.read_bytes())
        snapcount("registry", "push", bundle, target)  # again: its blobs are there
        pulled = snapcount("registry", "pull", target, "-o", tmp_path / "back.wasm", "--json")
        assert (pulled["name"], pulled["version"]) == ("greeter", "1.0.0")
        assert (tmp_path / "back.wasm").read_bytes() == bundle.read_bytes()
        for reference in (target, f"oci://{target}", f"http://{host}/team/greeter@{pushed['manifest']}"):
            assert node_pull(reference) == bundle.read_bytes()
        snapcount("registry", "delete", f"{host}/team/greeter@{pushed['manifest']}")
        with pytest.raises(OciRefused) as caught:
            node_pull(target)
        assert (caught.value.oci_code, caught.value.status) == ("MANIFEST_UNKNOWN", 404)


def test_a_bundle_goes_from_our_registry_to_dockers_and_back_with_the_same_digests(registry: Served, bundle: Path, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    pushed = snapcount("registry", "push", bundle, "--registry", registry.url, "--json")
    verify = ("--src-tls-verify=false", "--dest-tls-verify=false")
    with docker_registry(tmp_path) as host:
        run(skopeo, "copy", *verify, f"docker://{registry.host}/skills/greeter:1.0.0", f"docker://{host}/skills/greeter:1.0.0")
        run(skopeo, "copy", *verify, f"docker://{host}/skills/greeter:1.0.0", f"docker://{registry.host}/back/greeter:1.0.0")
    assert node_pull(f"{registry.host}/back/greeter@{pushed['manifest']}") == bundle.read_bytes()


def test_our_clients_log_in_to_dockers_registry(bundle: Path, tmp_path: Path) -> None:
    with docker_registry(tmp_path, login=True) as host:
        target = f"{host}/team/greeter:1.0.0"
        assert "token" in snapcount("registry", "push", bundle, target, code=20)
        assert "does not take" in snapcount("registry", "push", bundle, target, code=20, SNAPCOUNT_TOKEN="ops:wrong")
        snapcount("registry", "push", bundle, target, SNAPCOUNT_TOKEN="ops:secret")
        assert node_pull(target, Credentials("ops", "secret")) == bundle.read_bytes()
        for credentials in (None, Credentials("ops", "wrong")):
            with pytest.raises(OciRefused) as caught:
                node_pull(target, credentials)
            assert caught.value.status == 401
        OciRepository(oci.parse_reference(target), Credentials("ops", "secret")).pull()


def test_a_running_node_installs_what_it_pulls_from_dockers_registry(
    bundle: Path, tmp_path: Path, make_state: Callable[..., Path], clock: Any
) -> None:
    state = make_state(tmp_path / "node", clock)
    with docker_registry(tmp_path, login=True) as host:
        target = f"{host}/team/greeter:1.0.0"
        snapcount("registry", "push", bundle, target, SNAPCOUNT_TOKEN="ops:secret")
        with (tmp_path / "node.log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "sdk.cli.main", "node", "run", "--state", str(state), "--development"], stderr=log, stdout=log
            )
        try:
            until = time.monotonic() + WAIT_S
            while not (state / "control.sock").exists():
                assert node.poll() is None and time.monotonic() < until, (tmp_path / "node.log").read_text()
                time.sleep(0.05)
            pull = ("node", "pull", target, "--state", state)
            assert "401" in snapcount(*pull, code=20) or "token" in snapcount(*pull, code=20)
            found = snapcount(*pull, "--json", SNAPCOUNT_TOKEN="ops:secret")
            assert found == {"name": "greeter", "version": "1.0.0", "digest": digest_of(bundle.read_bytes())}
            status = snapcount("node", "status", "--state", state, "--json")
            assert [skill["name"] for skill in status["skills"]] == ["greeter"]
        finally:
            node.terminate()
            node.wait(WAIT_S)
