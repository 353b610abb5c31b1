"""Compiling in a child process, and the cache of what came of it: real compilers, real files, a real full disk."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

import host
from host.core.bundle import digest_of
from host.core.capabilities import Grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import HostFault, Incompatible, MalformedModule, SnapcountError, StorageFull, TooLarge
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest
from host.sandbox import cache as cache_module
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import SkillEngine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill

NAME = "probe"
KEY = bytes(range(32))
MANIFEST = Manifest(name=NAME, version="1.2.3", hooks=("bid",))
ROOT = Path(host.__file__).resolve().parents[1]  # where snapcount was imported from: the installation, or a tree on PYTHONPATH
MIB = 1 << 20


def answering(text: str, more: str = "") -> bytes:
    """A skill that replies `text` to everything."""
    return wasmtime.wat2wasm(
        f"""(module (memory (export "memory") 1) (data (i32.const 64) "{text}")
          (func (export "sc_alloc") (param i32) (result i32) i32.const 1024)
          (func (export "hook_bid") (param i32 i32) (result i64) i64.const {64 << 32 | len(text)}) {more})"""
    )


ONE = answering("one")


@pytest.fixture(scope="module")
def engine() -> SkillEngine:
    return SkillEngine(Limits(instances_max=4))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "compiled"


@pytest.fixture
def cache(directory: Path) -> CompiledCache:
    return CompiledCache(directory, KEY)


def said_by(engine: SkillEngine, module: wasmtime.Module, manifest: Manifest = MANIFEST) -> bytes:
    none = Grant(frozenset())

    def services() -> HostServices:
        return HostServices(NAME, none, SystemClock(), SystemRandom(), log=lambda level, line: None)

    with LoadedSkill(engine, module, manifest, none, services()).instance() as instance:
        return instance.call(manifest.hooks[0], b"")


@contextmanager
def raising(kind: type[SnapcountError], *parts: str) -> Iterator[None]:
    """Exactly `kind`, whose text is one printable line that names the skill and has `parts`."""
    with pytest.raises(SnapcountError) as caught:
        yield
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert said.isprintable(), said
    assert NAME in said
    for part in parts:
        assert part in said


def entry(directory: Path, data: bytes) -> tuple[Path, Path]:
    """The code and the tag of one bundle."""
    stem = digest_of(data).removeprefix("sha256:")
    [code], [tag] = directory.glob(f"{stem}-*.cwasm"), directory.glob(f"{stem}-*.tag")
    return code, tag


# ---- Compiling ----------------------------------------------------------------------------------


def test_a_module_is_compiled_once_and_behaves_the_same_from_the_cache(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    first = cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    again = cache.module(engine, b"never looked at", digest_of(ONE), MANIFEST)
    assert said_by(engine, first) == said_by(engine, again) == b"one"
    assert cache.rejected == 0
    assert sorted(path.suffix for path in directory.iterdir()) == [".cwasm", ".tag"]


def test_another_cache_with_the_same_key_finds_the_entry(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    found = CompiledCache(directory, KEY).load(engine, digest_of(ONE), MANIFEST)
    assert found is not None
    assert said_by(engine, found) == b"one"


def test_the_directory_is_for_its_owner_alone(cache: CompiledCache, directory: Path) -> None:
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {size}"):
        CompiledCache(tmp_path, bytes(size))


INVALID = {
    "SIMD": (wasmtime.wat2wasm("(module (func (param v128)))"), "SIMD support is not enabled"),
    "threads": (wasmtime.wat2wasm("(module (memory 1 2 shared))"), "threads must be enabled"),
    "memory64": (wasmtime.wat2wasm("(module (memory i64 1))"), "memory64 must be enabled"),
    "a function body of the wrong type": (b"\0asm\1\0\0\0\1\5\1`\0\1\x7f\3\2\1\0\x0a\4\1\2\0\x0b", "type mismatch"),
    "two exports of one name": (b"\0asm\1\0\0\0\5\3\1\0\1\7\x0f\2\4\x1b[2J\2\0\4\x1b[2J\2\0", "duplicate export name `\\x1b[2J`"),
    "memory that fits no slot": (wasmtime.wat2wasm("(module (memory 1025))"), "exceeds the limit"),
    "a table of ten million": (wasmtime.wat2wasm("(module (table 10000000 funcref))"), "10000000"),
    "no exports": (wasmtime.wat2wasm("(module)"), "exports no memory"),
    "a start function": (wasmtime.wat2wasm("(module (func $f) (start $f))"), "start function"),
    "text": (b"(module)", "not a WebAssembly binary"),
}


@pytest.mark.parametrize("what", INVALID)
def test_a_module_that_breaks_a_rule_is_refused_in_one_line_and_leaves_nothing(
    engine: SkillEngine, cache: CompiledCache, directory: Path, what: str
) -> None:
    wasm, said = INVALID[what]
    with raising(MalformedModule, said):
        cache.module(engine, wasm, digest_of(wasm), MANIFEST)
    assert list(directory.iterdir()) == []


def test_a_module_with_a_foreign_import_leaves_nothing(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    foreign = wasmtime.wat2wasm(
        """(module (import "env" "abort" (func)) (memory (export "memory") 1)
          (func (export "sc_alloc") (param i32) (result i32) i32.const 8)
          (func (export "hook_bid") (param i32 i32) (result i64) i64.const 0))"""
    )
    with raising(Incompatible, "env.abort"):
        cache.module(engine, foreign, digest_of(foreign), MANIFEST)
    assert list(directory.iterdir()) == []


# Measured with wasmtime 50.0.1 on one core and no limits: 150 KB of this with 10,000 branches take 1.57 GiB and 2.8 s, because
# the compiler keeps a table of basic blocks for each local that is written in a late one.
def memory_bomb(branches: int, variables: int) -> bytes:
    body = "(if (local.get 0) (then))" * branches + "".join(f"(local.set {index} (local.get 0))" for index in range(1, variables + 1))
    return answering("", f"(func (param i32) (local {'i32 ' * variables}) {body})")


# 250 KB of this with depth 36,000 take 20 s: its time grows with the square of the depth.
def time_bomb(depth: int) -> bytes:
    return answering("", "(func (param i32)" + "(block (br_if 0 (local.get 0))" * depth + ")" * depth + ")")


@pytest.mark.slow
def test_a_module_that_needs_more_memory_to_compile_than_allowed_is_stopped(engine: SkillEngine, directory: Path) -> None:
    bomb = memory_bomb(5_000, 20_000)
    cache = CompiledCache(directory, KEY, replace(DEFAULT, compile_memory_bytes_max=400 * MIB))
    with raising(MalformedModule, "400 MiB of memory"):
        cache.module(engine, bomb, digest_of(bomb), MANIFEST)
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_a_module_that_needs_more_than_a_gibibyte_is_stopped_by_the_default_limits(
    engine: SkillEngine, cache: CompiledCache, directory: Path
) -> None:
    bomb = memory_bomb(10_000, 20_000)
    assert len(bomb) < 200_000
    with raising(MalformedModule, "1024 MiB of memory"):
        cache.module(engine, bomb, digest_of(bomb), MANIFEST)
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_a_module_that_takes_more_processor_time_to_compile_than_allowed_is_stopped(engine: SkillEngine, directory: Path) -> None:
    bomb = time_bomb(36_000)
    cache = CompiledCache(directory, KEY, replace(DEFAULT, compile_cpu_s_max=1))
    with raising(MalformedModule, "1 s of processor time"):
        cache.module(engine, bomb, digest_of(bomb), MANIFEST)
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_a_module_that_takes_too_long_to_compile_is_stopped(engine: SkillEngine, directory: Path) -> None:
    bomb = time_bomb(36_000)
    cache = CompiledCache(directory, KEY, replace(DEFAULT, compile_wall_s_max=1))
    with raising(MalformedModule, "more than 1 s"):
        cache.module(engine, bomb, digest_of(bomb), MANIFEST)
    assert list(directory.iterdir()) == []


def test_a_module_that_compiles_to_too_much_is_not_kept(engine: SkillEngine, directory: Path) -> None:
    cache = CompiledCache(directory, KEY, replace(DEFAULT, compiled_bytes_max=4096))
    with raising(TooLarge, "4096"):
        cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    assert list(directory.iterdir()) == []


def test_a_compiler_that_cannot_be_started_is_a_fault_of_the_host(
    engine: SkillEngine, cache: CompiledCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with raising(HostFault, "could not be started"):
        cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_after_every_failure_the_next_module_compiles_and_nothing_is_left_open(engine: SkillEngine, directory: Path) -> None:
    cache = CompiledCache(directory, KEY, replace(DEFAULT, compile_memory_bytes_max=400 * MIB))
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for bad in (*(wasm for wasm, _ in INVALID.values()), memory_bomb(5_000, 20_000)):
        with pytest.raises(SnapcountError):
            cache.module(engine, bad, digest_of(bad), MANIFEST)
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) <= before
    assert said_by(engine, cache.module(engine, answering("two"), digest_of(answering("two")), MANIFEST)) == b"two"


# ---- Entries that are not what was written -------------------------------------------------------

Spoil = Callable[[Path, Path], None]


def flip(path: Path, at: int) -> None:
    # A new file: an entry may be mapped, and changing a mapped file changes code that runs.
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


def resize(path: Path, size: int) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:size].ljust(size, b"\0"))


def link_away(path: Path) -> None:
    elsewhere = path.parent.parent / path.name
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


SPOILT: dict[str, Spoil] = {
    "first byte of the code": lambda code, tag: flip(code, 0),
    "a byte in the middle of the code": lambda code, tag: flip(code, code.stat().st_size // 2),
    "last byte of the code": lambda code, tag: flip(code, -1),
    "nonce": lambda code, tag: flip(tag, 0),
    "sealed header": lambda code, tag: flip(tag, 12),
    "seal": lambda code, tag: flip(tag, -1),
    "code truncated": lambda code, tag: resize(code, code.stat().st_size - 1),
    "code with a byte more": lambda code, tag: resize(code, code.stat().st_size + 1),
    "tag truncated": lambda code, tag: resize(tag, tag.stat().st_size - 1),
    "tag of the nonce alone": lambda code, tag: resize(tag, 12),
    "tag of five bytes": lambda code, tag: resize(tag, 5),
    "empty code": lambda code, tag: resize(code, 0),
    "empty tag": lambda code, tag: resize(tag, 0),
    "code behind a symbolic link": lambda code, tag: link_away(code),
    "tag behind a symbolic link": lambda code, tag: link_away(tag),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SPOILT)
def test_an_entry_that_was_tampered_with_is_removed_counted_and_compiled_again(
    engine: SkillEngine, cache: CompiledCache, directory: Path, what: str
) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    SPOILT[what](*entry(directory, ONE))
    assert cache.load(engine, digest_of(ONE), MANIFEST) is None
    assert cache.rejected == 1
    assert list(directory.iterdir()) == []
    assert said_by(engine, cache.module(engine, ONE, digest_of(ONE), MANIFEST)) == b"one"
    assert cache.rejected == 1
    assert cache.load(engine, digest_of(ONE), MANIFEST) is not None


@pytest.mark.slow
def test_swapped_entries_of_two_digests_are_both_refused(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    two = answering("two")
    for data in (ONE, two):
        cache.module(engine, data, digest_of(data), MANIFEST)
    for left, right in zip(entry(directory, ONE), entry(directory, two), strict=True):
        aside = left.with_name("aside")
        left.rename(aside)
        right.rename(left)
        aside.rename(right)
    for count, (data, said) in enumerate(((ONE, b"one"), (two, b"two")), start=1):
        assert said_by(engine, cache.module(engine, data, digest_of(data), MANIFEST)) == said
        assert cache.rejected == count


def test_a_tag_of_another_key_is_refused(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    CompiledCache(directory, bytes(32)).module(engine, ONE, digest_of(ONE), MANIFEST)
    assert cache.load(engine, digest_of(ONE), MANIFEST) is None
    assert cache.rejected == 1
    assert list(directory.iterdir()) == []


def test_an_entry_that_was_checked_for_other_hooks_is_refused(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    other = Manifest(name=NAME, version="1.2.3", hooks=("bid", "handle"))
    assert cache.load(engine, digest_of(ONE), other) is None
    assert cache.rejected == 1
    with raising(MalformedModule, "hook_handle is missing"):
        cache.module(engine, ONE, digest_of(ONE), other)


@pytest.mark.parametrize("half", [0, 1], ids=["code", "tag"])
def test_half_an_entry_is_what_a_kill_leaves_and_no_attack(engine: SkillEngine, cache: CompiledCache, directory: Path, half: int) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    entry(directory, ONE)[half].unlink()
    assert said_by(engine, cache.module(engine, ONE, digest_of(ONE), MANIFEST)) == b"one"
    assert cache.rejected == 0
    assert cache.load(engine, digest_of(ONE), MANIFEST) is not None


def test_an_entry_that_cannot_be_removed_is_a_fault_of_the_host(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    code, _ = entry(directory, ONE)
    code.unlink()
    code.mkdir()
    with pytest.raises(HostFault, match="cannot be removed"):
        cache.load(engine, digest_of(ONE), MANIFEST)


def test_dropping_an_entry_that_is_not_there_leaves_the_others(engine: SkillEngine, cache: CompiledCache, directory: Path) -> None:
    cache.module(engine, ONE, digest_of(ONE), MANIFEST)
    cache.drop(digest_of(b"never compiled"))
    assert len(list(directory.iterdir())) == 2
    for _ in range(2):
        cache.drop(digest_of(ONE))
        assert list(directory.iterdir()) == []


# ---- Entries in use, and more than one process ----------------------------------------------------

LOADING = """
import gc, sys
from pathlib import Path
import wasmtime
from host.core.bundle import digest_of
from host.core.capabilities import Grant
from host.core.clock import SystemClock, SystemRandom
from host.core.limits import Limits
from host.core.manifest import Manifest
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import SkillEngine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
wasm = Path(sys.argv[2]).read_bytes()
manifest = Manifest(name="probe", version="1.2.3", hooks=("bid",))
engine = SkillEngine(Limits(instances_max=4))
cache = CompiledCache(Path(sys.argv[1]), bytes(range(32)))
none = Grant(frozenset())
def load():
    module = cache.module(engine, wasm, digest_of(wasm), manifest)
    return LoadedSkill(engine, module, manifest, none, lambda: HostServices("probe", none, SystemClock(), SystemRandom(), log=print))
def call(skill):
    with skill.instance() as instance:
        return instance.call("bid", b"").decode()
"""


def python(script: str, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", LOADING + script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_running_module_outlives_its_entry(directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "one.wasm"
    source.write_bytes(ONE)
    script = """
load()
running = load()                     # from the cache: mapped from the entry's file
held = running.instance()
said = [call(running)]
cache.drop(digest_of(wasm))          # unlinked while it is mapped
said += [call(running), held.call("bid", b"").decode()]
replaced = load()                    # a new file under the same name
said += [call(running), call(replaced), held.call("bid", b"").decode()]
del replaced
gc.collect()
for path in Path(sys.argv[1]).iterdir():
    path.unlink()
    path.write_bytes(b"rubbish")     # a new file under the same name again
said += [call(running), held.call("bid", b"").decode(), call(load())]
print(" ".join(said), cache.rejected)
"""
    out, err = python(script, directory, source).communicate(timeout=60)
    assert out.strip() == "one " * 9 + "1", err


@pytest.mark.slow
def test_processes_that_compile_one_digest_at_once_all_get_it(engine: SkillEngine, directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "one.wasm"
    source.write_bytes(ONE)
    script = "print('ready', flush=True)\ninput()\nprint(call(load()), cache.rejected)"
    rivals = [python(script, directory, source) for _ in range(3)]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    ended = []
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    for rival in rivals:
        out, err = rival.communicate(timeout=60)
        ended.append((out, err, rival.returncode))
    assert [(out.split()[0], code) for out, _, code in ended] == [("one", 0)] * 3, ended
    cache = CompiledCache(directory, KEY)
    assert said_by(engine, cache.module(engine, ONE, digest_of(ONE), MANIFEST)) == b"one"
    assert sorted(path.suffix for path in directory.iterdir()) == [".cwasm", ".tag"]


def test_a_rival_that_has_published_only_half_its_entry_does_not_matter(
    engine: SkillEngine, cache: CompiledCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def rival_first(source: Path, target: Path) -> None:
        if not target.exists():
            target.write_bytes(b"the rival's code, whose tag is still to come")
        link(source, target)

    monkeypatch.setattr(cache_module.os, "link", rival_first)
    assert said_by(engine, cache.module(engine, ONE, digest_of(ONE), MANIFEST)) == b"one"
    assert [path.suffix for path in directory.iterdir()] == [".cwasm"]


# ---- A full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a real file system of the given size; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        point = tmp_path / "disk"
        point.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


FULL = {
    "the source does not fit": ("size=4k", answering("", "(func)" * 5_000)),
    "the compiled code does not fit": ("size=12k", ONE),
    "there is no room for the tag": ("size=1m,nr_inodes=3", ONE),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_reported_and_nothing_is_left(engine: SkillEngine, small_disk: Callable[[str], Path], what: str) -> None:
    options, data = FULL[what]
    disk = small_disk(options)
    cache = CompiledCache(disk, KEY)
    with raising(StorageFull):
        cache.module(engine, data, digest_of(data), MANIFEST)
    assert list(disk.iterdir()) == []
    assert cache.rejected == 0


@pytest.mark.slow
def test_a_disk_with_room_for_one_entry_keeps_it_when_the_second_fails(engine: SkillEngine, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=44k")
    cache = CompiledCache(disk, KEY)
    assert said_by(engine, cache.module(engine, ONE, digest_of(ONE), MANIFEST)) == b"one"
    two = answering("two", "(func)" * 2_000)
    with raising(StorageFull):
        cache.module(engine, two, digest_of(two), MANIFEST)
    assert sorted(disk.iterdir()) == sorted(entry(disk, ONE))
    assert said_by(engine, cache.module(engine, b"never looked at", digest_of(ONE), MANIFEST)) == b"one"
