"""Installing, restoring and rolling back in one process, with real bundles in the real sandbox: what fails leaves everything as it was."""

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from wasmtime import wat2wasm

from host import config
from host.core import keys, wasm
from host.core.attestation import Measurement
from host.core.bundle import with_manifest, with_signature
from host.core.errors import HostFault, Incompatible, SnapcountError, StateDamaged, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, SkillLimits
from host.node import Node
from host.supply.store import HELD
from sdk.demo.samples import BID

MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]
STRANGER = SigningKey(b"s" * 32)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Bench:
    """A node's state directory, and the node that is open on it."""

    state: Path
    clock: Any
    log: list[tuple[str, str]]
    node: Node

    def reopen(self) -> None:
        self.node.close()
        self.log.clear()
        self.node = open_node(self.state, self.clock, self.log)

    def install(self, data: bytes, digest: str = "") -> None:
        asyncio.run(self.node.install(data, digest or digest_of(data)))

    def refused(self, data: bytes, digest: str = "") -> SnapcountError:
        with pytest.raises(SnapcountError) as caught:
            self.install(data, digest)
        return caught.value

    def bids(self) -> list[str]:
        """The versions that answer."""
        return [reply.id for reply in asyncio.run(self.node.call("bid", BID))]

    def roll_back(self, name: str = "greeter") -> str:
        return asyncio.run(self.node.roll_back(name))

    def remove(self, name: str = "greeter") -> None:
        asyncio.run(self.node.remove(name))

    def tree(self) -> list[str]:
        """Blobs, compiled code and skills on disk."""
        rooms = [self.state / room for room in ("blobs", "compiled", "skills")]
        found = [path for room in rooms for path in room.rglob("*") if path.is_symlink() or not path.is_dir()]
        return sorted(str(path.relative_to(self.state)) for path in found)

    def errors(self) -> list[str]:
        return [line for level, line in self.log if level == "error"]

    def journal(self) -> list[tuple[str, str, str, str]]:
        return [(row["skill"], row["version"], row["outcome"], row["detail"]) for row in self.node.journal.installs()]

    def pointer(self, name: str = "greeter") -> Path:
        return self.state / "skills" / name / "active"

    def blob(self, data: bytes) -> Path:
        return self.state / "blobs" / "sha256" / hashlib.sha256(data).hexdigest()

    def record(self, data: bytes) -> Path:
        return self.state / "skills" / "greeter" / hashlib.sha256(data).hexdigest()

    def compiled(self, data: bytes) -> list[Path]:
        return sorted((self.state / "compiled").glob(f"{hashlib.sha256(data).hexdigest()}-*"))


def open_node(state: Path, clock: Any, log: list[tuple[str, str]]) -> Node:
    return Node.open(state, MEASURED, clock=clock, log=lambda level, line: log.append((level, line)))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory, make_state: Callable[..., Path], make_skill: MakeSkill) -> Path:
    """A state directory with greeter 1.0.0 active; tests work on copies of it."""

    class Still:
        def now_ms(self) -> int:
            return 1_700_000_000_000

        def monotonic_ms(self) -> int:
            return 0

    state = make_state(tmp_path_factory.mktemp("seeded") / "node", Still())
    node = open_node(state, Still(), [])
    asyncio.run(node.install(make_skill(), digest_of(make_skill())))
    node.close()
    return state


@pytest.fixture
def bench(seeded: Path, tmp_path: Path, clock: Any) -> Iterator[Bench]:
    state = tmp_path / "node"
    shutil.copytree(seeded, state, symlinks=True)
    log: list[tuple[str, str]] = []
    made = Bench(state, clock, log, open_node(state, clock, log))
    assert (made.bids(), log) == (["1.0.0"], [])
    yield made
    made.node.close()


# What is refused.


def signed(module: bytes, author: SigningKey, name: str = "greeter", **described: Any) -> bytes:
    manifest = Manifest(**({"name": name, "version": "1.1.0", "hooks": ("bid", "self_test")} | described))
    return with_signature(with_manifest(module, manifest, name), author, name)


def module_of(text: str) -> bytes:
    return bytes(wat2wasm(text))


_HOOKS = '(func (export "hook_bid") (param i32 i32) (result i64) (i64.const 0)) (func (export "hook_self_test") (param i32 i32) (result i64) (i64.const 0))'
_ALLOC = '(func (export "sc_alloc") (param i32) (result i32) (i32.const 0))'


def bad_bundles(make: MakeSkill, author: SigningKey) -> dict[str, tuple[bytes, str, str]]:
    """Kind → the bundle, the error's code, and what its line names besides the skill or the digest."""
    v2 = make(version="1.1.0", padding=4096)
    at = v2.index(bytes(range(256)))
    quick = SkillLimits(fuel=10_000_000, deadline_ms=100, memory_bytes=1 << 20)
    return {
        "unsigned": (make(version="1.1.0", signer=None), "signature_invalid", "unsigned"),
        "signed by a stranger": (make(version="1.1.0", signer=STRANGER), "signature_invalid", "not trusted here"),
        "altered": (v2[:at] + b"\xff" + v2[at + 1 :], "signature_invalid", "does not match key"),
        "truncated": (v2[:-1], "malformed_module", ""),
        "half": (v2[: len(v2) // 2], "malformed_module", ""),
        "empty": (b"", "malformed_module", ""),
        "not wasm": (b"PK\x03\x04" * 100, "malformed_module", ""),
        "oversized": (make(version="1.1.0", signer=None)[:-1] + bytes(DEFAULT.bundle_bytes_max), "too_large", str(DEFAULT.bundle_bytes_max)),
        "two manifests": (v2 + wasm.custom_section("snapcount.manifest", b"\xa0"), "malformed_module", "found 2"),
        "another ABI": (make(version="1.1.0", abi=2), "incompatible", "ABI 2"),
        "another generation": (make(version="1.1.0", generations=(7, 8)), "incompatible", "generations 7, 8"),
        "a capability that is not allowed": (make(version="1.1.0", capabilities=("camera",)), "capability_denied", "camera"),
        "an unknown hook": (make(version="1.1.0", hooks=("bid", "self_test", "dance")), "incompatible", "dance"),
        "a hook that it does not export": (make(version="1.1.0", hooks=("assess_feedstock", "bid")), "malformed_module", "assess_feedstock"),
        "an import without its capability": (
            make(version="1.1.0", imports='(import "snapcount:host/1" "now_ms" (func (result i64)))'), "capability_denied", "now_ms"),
        "an import that is none": (make(version="1.1.0", imports='(import "wasi" "fd_write" (func))'), "incompatible", "wasi"),
        "no memory": (signed(module_of(f"(module {_ALLOC} {_HOOKS})"), author), "malformed_module", "memory"),
        "a hook of another type": (
            signed(module_of(f'(module (memory (export "memory") 1) {_ALLOC} (func (export "hook_bid") (result i32) (i32.const 0)))'), author, hooks=("bid",)),
            "malformed_module", "hook_bid"),
        "a start function": (
            signed(module_of(f'(module (memory (export "memory") 1) {_ALLOC} {_HOOKS} (func $f) (start $f))'), author), "malformed_module", "start function"),
        "code that is no code": (
            signed(b"\0asm\x01\0\0\0" + b"\x01\x04\x01\x60\0\0" + b"\x03\x02\x01\0" + b"\x0a\x05\x01\x03\0\xff\x0b", author), "malformed_module", ""),
        "a self-test that says no": (make(version="1.1.0", ok=False, detail="valve\n7"), "incompatible", "valve\\n7"),
        "a self-test that traps": (make(version="1.1.0", test="(unreachable)"), "guest_trap", "unreachable"),
        "a self-test that loops": (make(version="1.1.0", test="(loop $l (br $l)) (i64.const 0)", limits=quick), "fuel_exhausted", ""),
        "a self-test that loops with fuel to burn": (
            make(version="1.1.0", test="(loop $l (br $l)) (i64.const 0)", limits=replace_limits(quick, fuel=10**12)), "deadline_exceeded", ""),
        "a self-test whose reply is none": (make(version="1.1.0", test="(i64.const 0x7fffffff00000010)"), "reply_invalid", ""),
        "a self-test with another shape": (make(version="1.1.0", test=f"(i64.const {1024 << 32 | 4})"), "reply_invalid", ""),
        "too much memory to begin with": (
            signed(module_of(f'(module (memory (export "memory") 999) {_ALLOC} {_HOOKS})'), author, limits=quick), "memory_exceeded", ""),
        "older": (make(version="0.9.0"), "incompatible", "older than the active version 1.0.0"),
        "a pre-release of the active one": (make(version="1.0.0-rc.1"), "incompatible", "older than the active version 1.0.0"),
        "the active version with other bytes": (make(version="1.0.0", padding=256), "incompatible", "active with other bytes"),
    }  # fmt: skip


def replace_limits(limits: SkillLimits, **changed: int) -> SkillLimits:
    return SkillLimits(**({name: getattr(limits, name) for name in limits.__struct_fields__} | changed))


KINDS = (
    "unsigned", "signed by a stranger", "altered", "truncated", "half", "empty", "not wasm", "oversized", "two manifests", "another ABI",
    "another generation", "a capability that is not allowed", "an unknown hook", "a hook that it does not export", "an import without its capability",
    "an import that is none", "no memory", "a hook of another type", "a start function", "code that is no code", "a self-test that says no",
    "a self-test that traps", "a self-test that loops", "a self-test that loops with fuel to burn", "a self-test whose reply is none",
    "a self-test with another shape", "too much memory to begin with", "older", "a pre-release of the active one", "the active version with other bytes",
)  # fmt: skip


@pytest.fixture(scope="session")
def bad(make_skill: MakeSkill, author: SigningKey) -> dict[str, tuple[bytes, str, str]]:
    made = bad_bundles(make_skill, author)
    assert tuple(made) == KINDS
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_is_not_taken_leaves_everything_as_it_was(
    kind: str, bad: dict[str, tuple[bytes, str, str]], bench: Bench, one_line: OneLine
) -> None:
    data, code, names = bad[kind]
    before = bench.tree()
    error = bench.refused(data)
    assert error.code == code
    line = one_line(error, names)
    assert "greeter" in line or digest_of(data)[:19] in line, line
    assert bench.bids() == ["1.0.0"]
    assert bench.tree() == before
    last = bench.node.journal.installs(1)[0]
    assert (last["outcome"], last["digest"], last["detail"]) == ("failed", digest_of(data), line)
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.0.0"], [])


def test_a_manifest_that_nobody_signed_gets_no_name_into_the_journal(bench: Bench, make_skill: MakeSkill) -> None:
    bench.refused(make_skill(name="trusted-looking", version="1.1.0", signer=STRANGER))
    bench.refused(make_skill(name="signed", generations=(9,)))
    assert [(skill, version) for skill, version, _, _ in bench.journal()[:2]] == [("signed", "1.0.0"), ("", "")]


def test_bytes_that_are_not_those_announced_are_refused_with_both_digests(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    wanted, came = make_skill(version="1.1.0"), make_skill(version="1.2.0")
    one_line(bench.refused(came, digest_of(wanted)), digest_of(wanted), digest_of(came))
    assert bench.bids() == ["1.0.0"]


def test_a_failed_install_of_a_kept_version_leaves_that_version_kept(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    before = bench.tree()
    bench.refused(make_skill(version="1.0.0"))
    assert bench.tree() == before
    assert bench.roll_back() == "1.0.0"


def test_an_obstacle_in_the_blobs_place_is_a_host_fault_and_no_traceback(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    data = make_skill(version="1.1.0")
    bench.blob(data).mkdir()
    error = bench.refused(data)
    assert isinstance(error, HostFault)
    one_line(error, hashlib.sha256(data).hexdigest()[:16])
    assert bench.bids() == ["1.0.0"]


def test_a_disk_that_became_read_only_refuses_installs_and_keeps_the_skill(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    bench.install(make_skill(version="1.0.1"))
    rooms = [str(bench.state / room) for room in ("blobs", "compiled", "skills")]
    mounted = []
    try:
        for room in rooms:
            done = subprocess.run(["mount", "--bind", room, room], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            mounted.append(room)
            subprocess.run(["mount", "-o", "remount,bind,ro", room], check=True)
        error = bench.refused(make_skill(version="1.1.0"))
        assert isinstance(error, HostFault)
        one_line(error, "Read-only file system")
        assert bench.bids() == ["1.0.1"]
        for act in (bench.roll_back, bench.remove):
            with pytest.raises(SnapcountError) as caught:
                act()
            one_line(caught.value, "greeter")
        assert bench.bids() == ["1.0.1"]
        bench.reopen()
        assert (bench.bids(), bench.errors()) == (["1.0.1"], [])
    finally:
        for room in mounted:
            subprocess.run(["umount", "--lazy", room], check=True)
    bench.install(make_skill(version="1.1.0"))
    assert bench.bids() == ["1.1.0"]


def test_a_journal_that_cannot_be_written_costs_its_line_and_not_the_skill(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    with closing(sqlite3.connect(bench.state / "journal.db")) as db:
        db.execute("DROP TABLE installs")
    bench.install(make_skill(version="1.1.0"))
    assert bench.bids() == ["1.1.0"]
    one_line(bench.refused(make_skill(version="1.2.0", ok=False)), "greeter 1.2.0: its self-test failed")
    with pytest.raises(HostFault) as caught:
        bench.node.journal.installs()
    one_line(caught.value, bench.state / "journal.db")


# What is kept.


@pytest.mark.slow
def test_three_versions_are_kept_and_the_rest_is_pruned_with_its_code(bench: Bench, make_skill: MakeSkill) -> None:
    bundles = [make_skill(version=f"1.{minor}.0") for minor in range(5)]
    for data in bundles[1:]:
        bench.install(data)
    assert DEFAULT.versions_kept == 3
    for data in bundles[:2]:
        assert not bench.blob(data).exists() and not bench.record(data).exists() and not bench.compiled(data)
    for data in bundles[2:]:
        assert bench.blob(data).exists() and bench.record(data).exists() and len(bench.compiled(data)) == 2
    assert len(bench.tree()) == 3 * 4 + 1
    assert [bench.roll_back(), bench.roll_back()] == ["1.3.0", "1.2.0"]
    assert bench.bids() == ["1.2.0"]
    with pytest.raises(UsageError, match="greeter: no earlier version is kept"):
        bench.roll_back()


@pytest.mark.slow
def test_a_roll_back_leaves_nothing_of_the_version_it_left_and_survives_a_restart(bench: Bench, make_skill: MakeSkill) -> None:
    before, newer = bench.tree(), make_skill(version="1.1.0")
    bench.install(newer)
    assert bench.roll_back() == "1.0.0"
    assert bench.bids() == ["1.0.0"]
    assert bench.journal()[0] == ("greeter", "1.0.0", "rolled back", "from 1.1.0")
    assert [line for line in bench.tree() if HELD not in line] == before
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.0.0"], [])


@pytest.mark.slow
def test_what_the_owner_went_back_from_comes_by_no_push_again_but_a_newer_version_does(
    bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    bad = make_skill(version="1.1.0")
    bench.install(bad)
    bench.roll_back()
    bench.reopen()
    with pytest.raises(Incompatible) as caught:
        bench.install(bad)
    one_line(caught.value, "greeter 1.1.0", "went back from it", "newer version")
    assert bench.bids() == ["1.0.0"]
    with pytest.raises(Incompatible, match="went back from it"):  # a stranger's signature behind it makes it no other bundle
        bench.install(with_signature(bad, SigningKey(b"s" * 32), "greeter"))
    bench.install(make_skill(version="1.1.1"))
    assert bench.bids() == ["1.1.1"]


@pytest.mark.slow
def test_blobs_that_a_kill_left_without_a_record_are_removed_at_the_next_start(bench: Bench, make_skill: MakeSkill) -> None:
    before, orphan = bench.tree(), make_skill(version="9.0.0")
    bench.blob(orphan).write_bytes(orphan)
    bench.reopen()
    assert bench.tree() == before
    assert bench.bids() == ["1.0.0"]


def test_nothing_is_rolled_back_to_or_removed_where_nothing_is(bench: Bench, one_line: OneLine) -> None:
    for name in ("greeter", "nobody", "", "..", "../../identity", "two\nlines", "nul\0", "x" * 300):
        with pytest.raises(UsageError) as caught:
            bench.roll_back(name)
        one_line(caught.value, "no earlier version is kept", name if name.isprintable() else "")
        if name != "greeter":
            with pytest.raises(UsageError) as caught:
                bench.remove(name)
            one_line(caught.value, "no such skill is active")
    assert bench.bids() == ["1.0.0"]


def test_a_roll_back_to_a_version_that_no_longer_works_changes_nothing(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    first, second = make_skill(), make_skill(version="1.1.0")
    bench.install(second)
    bench.blob(first).write_bytes(b"damaged")
    with pytest.raises(StateDamaged) as caught:
        bench.roll_back()
    one_line(caught.value, digest_of(first)[7:23])
    assert bench.bids() == ["1.1.0"]
    assert os.readlink(bench.pointer()) == digest_of(second)[7:]


@pytest.mark.slow
def test_a_removed_skill_leaves_nothing_and_can_come_back(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    bench.remove()
    assert bench.tree() == []
    assert bench.journal()[0][:3] == ("greeter", "1.1.0", "removed")
    with pytest.raises(UsageError, match="no active skill has the hook bid"):
        bench.bids()
    bench.reopen()
    assert (bench.node.skills(), bench.errors()) == ([], [])
    bench.install(make_skill())
    assert bench.bids() == ["1.0.0"]


# What comes back after a restart.


def test_compiled_code_that_was_altered_is_compiled_anew(bench: Bench, make_skill: MakeSkill) -> None:
    for path in bench.compiled(make_skill()):
        altered = bytearray(path.read_bytes())
        altered[len(altered) // 2] ^= 1
        path.unlink()
        path.write_bytes(altered)
        bench.reopen()
        assert (bench.bids(), bench.errors()) == (["1.0.0"], [])
        assert path.read_bytes() != altered


@pytest.mark.slow
def test_compiled_code_that_is_missing_or_half_is_compiled_anew(bench: Bench, make_skill: MakeSkill) -> None:
    for damage in ("missing", "empty", "half"):
        path = bench.compiled(make_skill())[0]
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.unlink()
        if damage != "missing":
            path.write_bytes(b"" if damage == "empty" else half)
        bench.reopen()
        assert (bench.bids(), bench.errors()) == (["1.0.0"], []), damage


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["altered", "missing", "empty", "a directory"])
def test_a_damaged_blob_brings_back_the_version_before_it_and_says_so(
    damage: str, bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    data = make_skill(version="1.1.0")
    bench.install(data)
    blob = bench.blob(data)
    blob.unlink()
    if damage == "a directory":
        blob.mkdir()
    elif damage != "missing":
        blob.write_bytes(b"" if damage == "empty" else data[:-1] + b"\0")
    bench.reopen()
    assert bench.bids() == ["1.0.0"]
    (line,) = bench.errors()
    one_line(line, digest_of(data)[7:23])
    if damage == "a directory":
        blob.rmdir()
    bench.install(data)  # pushing it again mends it
    assert bench.bids() == ["1.1.0"]
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.1.0"], [])


def damage_pointer(path: Path, how: str) -> None:
    path.unlink()
    match how:
        case "dangling":
            path.symlink_to("0" * 64)
        case "a file":
            path.write_text("1.0.0")
        case "a directory":
            path.mkdir()
        case "to itself":
            path.symlink_to("active")
        case "out of its folder":
            path.symlink_to("../../node.toml")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dangling", "a file", "a directory", "to itself", "out of its folder"])
def test_a_damaged_pointer_brings_back_the_newest_version_and_a_push_mends_it(
    how: str, bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    bench.install(make_skill(version="1.1.0"))
    damage_pointer(bench.pointer(), how)
    bench.reopen()
    assert bench.bids() == ["1.1.0"]
    for line in bench.errors():
        one_line(line, "greeter")
    assert bench.errors()
    if how == "a directory":
        bench.pointer().rmdir()
    bench.install(make_skill(version="1.2.0"))
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.2.0"], [])


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"name": "greeter"}', b"[" * 100_000, b'{"two\\nlines": 1}'])
def test_a_damaged_record_brings_back_the_version_before_it(damage: bytes, bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    data = make_skill(version="1.1.0")
    bench.install(data)
    bench.record(data).write_bytes(damage)
    bench.reopen()
    assert bench.bids() == ["1.0.0"]
    (line,) = bench.errors()
    one_line(line, "greeter", digest_of(data)[7:23], "push the skill again")
    bench.install(data)
    assert bench.bids() == ["1.1.0"]


@pytest.mark.slow
def test_where_the_only_record_is_damaged_pushing_the_skill_again_mends_it(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    bench.record(make_skill()).write_bytes(b"damaged")
    bench.reopen()
    assert bench.node.skills() == []
    one_line(bench.errors()[0], "greeter", "push the skill again")
    bench.install(make_skill())
    assert bench.bids() == ["1.0.0"]
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.0.0"], [])


def test_a_record_that_names_another_skill_is_damage(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    other, data = make_skill(name="other"), make_skill(version="1.1.0")
    bench.install(other)
    bench.install(data)
    record = json.loads(bench.record(data).read_bytes())
    bench.record(data).write_text(json.dumps(record | {"name": "other"}))
    bench.reopen()
    assert bench.bids() == ["1.0.0", "1.0.0"]
    (line,) = bench.errors()
    one_line(line, "greeter", digest_of(data)[7:23])


def trust(bench: Bench, *authors: SigningKey) -> None:
    path = bench.state / config.FILE
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("authors"))
    lines[at] = f"authors = {json.dumps([keys.public_text(key.verify_key) for key in authors])}"
    path.write_text("\n".join(lines))


def test_an_author_that_is_no_longer_trusted_brings_nothing_back_until_it_is_again(
    bench: Bench, author: SigningKey, one_line: OneLine
) -> None:
    trust(bench, STRANGER)
    bench.reopen()
    assert bench.node.skills() == []
    (line,) = bench.errors()
    one_line(line, "greeter 1.0.0", "not trusted here")
    trust(bench, author)
    bench.reopen()
    assert (bench.bids(), bench.errors()) == (["1.0.0"], [])


def test_a_version_by_an_author_no_longer_trusted_gives_way_to_the_one_before(
    bench: Bench, author: SigningKey, make_skill: MakeSkill, one_line: OneLine
) -> None:
    trust(bench, author, STRANGER)
    bench.reopen()
    bench.install(make_skill(version="1.1.0", signer=STRANGER))
    trust(bench, author)
    bench.reopen()
    assert bench.bids() == ["1.0.0"]
    one_line(bench.errors()[0], "greeter 1.1.0", "not trusted here")


def test_one_skill_that_does_not_come_back_keeps_no_other_away(bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    bench.install(make_skill(name="other", version="2.0.0"))
    bench.blob(make_skill()).unlink()
    bench.reopen()
    assert bench.bids() == ["2.0.0"]
    one_line(bench.errors()[0], digest_of(make_skill())[7:23])


# The swap.


@pytest.mark.slow
@pytest.mark.parametrize("instance", ["fresh", "persistent"])
def test_a_swap_under_load_loses_no_call_and_the_next_one_is_new(instance: str, bench: Bench, make_skill: MakeSkill) -> None:
    versions = [f"1.{minor}.0" for minor in range(1, 5)]
    bundles = [make_skill(version=version, instance=instance) for version in versions]

    async def caller(answers: list[str], stop: asyncio.Event) -> None:
        while not stop.is_set():
            (reply,) = await bench.node.call("bid", BID)
            answers.append(reply.id)

    async def scenario() -> list[list[str]]:
        answers: list[list[str]] = [[] for _ in range(4)]
        stop = asyncio.Event()
        callers = [asyncio.create_task(caller(mine, stop)) for mine in answers]
        for version, data in zip(versions, bundles, strict=True):
            await bench.node.install(data, digest_of(data))
            (reply,) = await bench.node.call("bid", BID)
            assert reply.id == version
        stop.set()
        await asyncio.gather(*callers)
        return answers

    answers = asyncio.run(scenario())
    for mine in answers:
        assert mine == sorted(mine)  # none goes back
        assert set(mine) <= {"1.0.0", *versions}
    assert {version for mine in answers for version in mine} >= {"1.0.0", "1.3.0"}  # they did call while it was swapped
    assert [v.faults for v in bench.node.manager.skills.values()] == [0]


@pytest.mark.slow
def test_two_installs_at_once_go_one_after_the_other(bench: Bench, make_skill: MakeSkill) -> None:
    bundles = [make_skill(name=f"skill-{i}") for i in range(3)]

    async def scenario() -> None:
        await asyncio.gather(*(bench.node.install(data, digest_of(data)) for data in bundles))

    asyncio.run(scenario())
    assert sorted(skill.name for skill in bench.node.skills()) == ["greeter", "skill-0", "skill-1", "skill-2"]
    bench.reopen()
    assert bench.bids() == ["1.0.0"] * 4
