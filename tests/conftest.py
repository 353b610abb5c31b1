"""What many suites share: a clock that stands still until it is told, keys from fixed seeds, a small guest, and a node's state directory."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from nacl.signing import SigningKey
from wasmtime import wat2wasm

from host import config, identity
from host.core import cbor, keys, wasm
from host.core.bundle import with_manifest, with_signature
from host.core.clock import Clock, SystemRandom
from host.core.errors import UsageError
from host.core.manifest import Manifest, SkillLimits
from host.plugins.contract import BidReply, SelfTestReply
from sdk.toolchains import TOOLCHAINS

# CI tries the same examples each time, so that a push is judged by its change; everywhere else every run tries new ones and prints what fails.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@dataclass
class FakeClock:
    """Both times in milliseconds; a test sets them, and nothing else moves them."""

    now: int = 1_700_000_000_000
    monotonic: int = 0

    def now_ms(self) -> int:
        return self.now

    def monotonic_ms(self) -> int:
        return self.monotonic

    def advance(self, ms: int) -> None:
        self.now += ms
        self.monotonic += ms


@pytest.fixture(scope="session", autouse=True)
def nobody_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a command keeps for its user, as an author's key, is not kept for who runs the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def owner() -> SigningKey:
    return SigningKey(b"o" * 32)


@pytest.fixture(scope="session")
def author() -> SigningKey:
    return SigningKey(b"a" * 32)


# The guest of most suites: answers self_test and bid with fixed bytes; `{test}` and `{body}` may do something else.
_GUEST = """
(module
  {imports}
  (memory (export "memory") 1)
  (data (i32.const 16) "{reply_test}")
  (data (i32.const 1024) "{reply_bid}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_self_test") (param i32 i32) (result i64) {test})
  (func (export "hook_bid") (param i32 i32) (result i64) {body}))
"""


def _data(raw: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in raw)


@pytest.fixture(scope="session")
def make_skill(author: SigningKey) -> Callable[..., bytes]:
    """Makes a bundle whose `bid` answers with its version as `id`. `signer=None` leaves it unsigned; the rest goes into the manifest."""

    def make(
        name: str = "greeter", version: str = "1.0.0", *, signer: SigningKey | None = author, ok: bool = True, detail: str = "",
        test: str = "", body: str = "", imports: str = "", padding: int = 0, limits: SkillLimits | None = None, **described: Any,
    ) -> bytes:  # fmt: skip
        tested = cbor.encode(SelfTestReply(detail=detail, ok=ok))
        bid = cbor.encode(BidReply(cost=1.0, finish_ms=1, id=version, reason=name))
        text = _GUEST.format(
            imports=imports, reply_test=_data(tested), reply_bid=_data(bid),
            test=test or f"(i64.const {16 << 32 | len(tested)})", body=body or f"(i64.const {1024 << 32 | len(bid)})",
        )  # fmt: skip
        module = bytes(wat2wasm(text)) + (wasm.custom_section("padding", bytes(range(256)) * (padding // 256)) if padding else b"")
        described = {"hooks": ("bid", "self_test")} | described
        manifest = Manifest(name=name, version=version, limits=limits or SkillLimits(fuel=50_000_000, deadline_ms=500), **described)
        unsigned = with_manifest(module, manifest, name)
        return unsigned if signer is None else with_signature(unsigned, signer, name)

    return make


@pytest.fixture(scope="session")
def make_state(owner: SigningKey, author: SigningKey) -> Callable[..., Path]:
    """Makes a node's state directory as `snapcount node init` does."""

    def make(
        path: Path, clock: Clock, *, name: str = "node-01", generation: int = 1, registry: str = "", native: tuple[str, ...] = (),
        allowed: tuple[str, ...] = ("log", "clock", "random", "state", "motion"), authors: tuple[SigningKey, ...] = (author,),
    ) -> Path:  # fmt: skip
        trusted = tuple(keys.public_text(key.verify_key) for key in authors)
        toml = config.template(name, keys.public_text(owner.verify_key), generation, registry, trusted, allowed, native)
        identity.create(path, toml, owner, clock, SystemRandom())
        return path

    return make


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """Skips where a language's toolchain is missing; CI has them all."""

    def look(lang: str) -> None:
        try:
            TOOLCHAINS[lang]()
        except UsageError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return look


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB that are full when they are full."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("mounting a small tmpfs needs root and mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run([umount, "-l", disk], check=True)  # lazily: a journal that a failed test left open keeps it busy


@pytest.fixture(scope="session")
def one_line() -> Callable[..., str]:
    """Checks that an error is one printable line which names every thing it should; the line."""

    def check(error: object, *names: object) -> str:
        line = str(error)
        assert line and line.isprintable(), repr(line)
        assert all(str(name) in line for name in names), f"{line!r} does not name all of {names}"
        return line

    return check
