"""Deltas, from the maker at the registry to the bundle at a node: round trips, what they save, and patches that are wrong or hostile."""

import asyncio
import hashlib
import os
import random
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host.core import files
from host.core.bundle import with_signature
from host.core.desired import Patch, Wanted
from host.core.errors import DigestMismatch, MalformedData, NotServed, SnapcountError, StateDamaged, TooLarge
from host.core.limits import DEFAULT
from host.supply.delta import apply, obtain
from registry.deltas import PATCHES_MAX, DeltaMaker, make_patch
from sdk import build, project

OneLine = Callable[..., str]
SKILLS = Path(__file__).resolve().parents[1] / "skills"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def module(seed: int = 1, size: int = 200_000) -> bytes:
    """Bytes that do not compress by themselves."""
    return random.Random(seed).randbytes(size)


BASE = module()
NEW = BASE[:1000] + b"a longer function" + BASE[1010:150_000] + BASE[150_100:]


# Round trips.


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4096), st.binary(max_size=4096), st.integers(0, 4096), st.integers(0, 4096))
def test_every_patch_makes_what_it_was_made_for_and_is_the_same_each_time(base: bytes, other: bytes, start: int, stop: int) -> None:
    new = base[:start] + other + base[stop:]
    patch = make_patch(base, new)
    assert apply(base, patch, digest_of(new), len(new)) == new
    assert make_patch(base, new) == patch


@pytest.mark.slow
@pytest.mark.ci
def test_a_patch_between_the_largest_bundles_reaches_back_to_the_first_byte() -> None:
    base = module(2, DEFAULT.bundle_bytes_max)
    new = base[-(8 << 20) :] + base[: 8 << 20]
    patch = make_patch(base, new)
    assert len(patch) < 10_000
    assert apply(base, patch, digest_of(new), len(new)) == new


@pytest.mark.slow
def test_a_changed_function_of_a_shipped_skill_is_a_patch_of_a_few_percent(tmp_path: Path) -> None:
    folder = tmp_path / "bounty-bidder"
    shutil.copytree(SKILLS / "bounty-bidder", folder)
    price, about = folder / "src" / "price.zig", folder / "skill.toml"
    line = "    const nearest = @round(amount * steps_per_unit);"
    assert line in price.read_text()
    price.write_text(price.read_text().replace(line, f"{line[:-1]} + @sqrt(@abs(amount - 0.125)) * 1e-9;"))
    about.write_text(about.read_text().replace('version = "1.0.0"', 'version = "1.0.1"'))
    author = SigningKey(b"a" * 32)
    old = with_signature((SKILLS / "bounty-bidder" / "bounty-bidder.wasm").read_bytes(), author, "old")
    new = with_signature(build.build(project.load(folder)).read_bytes(), author, "new")
    patch = make_patch(old, new)
    print(len(old), len(new), len(patch))
    assert old != new
    assert len(patch) <= 0.05 * len(new)
    assert apply(old, patch, digest_of(new), len(new)) == new


# Patches that are wrong.


def announcing(size: int, patch: bytes) -> bytes:
    """The patch with another content size in its head (RFC 8878, section 3.1.1.1)."""
    assert patch[4] >> 6 == 2, "a content size of 4 bytes"
    at = 5 if patch[4] & 0x20 else 6
    return patch[:at] + size.to_bytes(4, "little") + patch[at + 4 :]


GOOD = make_patch(BASE, NEW)
BAD: dict[str, tuple[bytes, bytes, type[SnapcountError]]] = {
    "nothing": (BASE, b"", MalformedData),
    "garbage": (BASE, module(3, 500), MalformedData),
    "cut off": (BASE, GOOD[:-1], MalformedData),
    "only its head": (BASE, GOOD[:12], MalformedData),
    "more behind it": (BASE, GOOD + b"\0", MalformedData),
    "two of them": (BASE, GOOD + GOOD, MalformedData),
    "no size in its head": (BASE, zstandard.ZstdCompressor(write_content_size=False).compress(NEW), TooLarge),
    "another size in its head": (BASE, make_patch(BASE, NEW + b"1"), TooLarge),
    "a skippable frame": (BASE, b"\x50\x2a\x4d\x18\x04\0\0\0abcd", TooLarge),
    "other bytes of the right size": (BASE, make_patch(BASE, NEW[:-1] + b"?"), DigestMismatch),
    "without the base": (b"", GOOD, MalformedData),
    "a base that is too short": (BASE[:1000], GOOD, MalformedData),
    "another base": (module(9), GOOD, DigestMismatch),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_patch_that_is_wrong_is_one_clear_line(kind: str, one_line: OneLine) -> None:
    base, patch, error = BAD[kind]
    with pytest.raises(error) as caught:
        apply(base, patch, digest_of(NEW), len(NEW))
    one_line(caught.value, digest_of(NEW)[:19])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_altered_byte_gets_through(at: int, flip: int) -> None:
    altered = bytearray(GOOD)
    altered[at] ^= flip
    try:
        assert apply(BASE, bytes(altered), digest_of(NEW), len(NEW)) == NEW
    except (MalformedData, TooLarge, DigestMismatch):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["says nothing", "says it", "says less than it makes", "a window of gigabytes"])
def test_a_patch_that_expands_without_bound_is_cut_off(kind: str, one_line: OneLine) -> None:
    expanded = 512 << 20
    writer = zstandard.ZstdCompressor(level=1, write_content_size=kind == "says it").compressobj(size=expanded)
    if kind == "says it":
        bomb = b"".join(writer.compress(bytes(1 << 20)) for _ in range(512)) + writer.flush()
    elif kind == "says nothing":
        writer = zstandard.ZstdCompressor(level=1).compressobj()
        bomb = b"".join(writer.compress(bytes(1 << 20)) for _ in range(512)) + writer.flush()
    elif kind == "says less than it makes":
        bomb = announcing(len(NEW), make_patch(BASE, bytes(DEFAULT.bundle_bytes_max)))
    else:
        # Frame header: a content size of 4 bytes, then the window descriptor of 2^41 bytes (RFC 8878, section 3.1.1.1.2), and one empty last block.
        bomb = b"\x28\xb5\x2f\xfd\x80\xf8" + len(NEW).to_bytes(4, "little") + b"\x01\x00\x00"
    assert len(bomb) < 1 << 20
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((TooLarge, MalformedData)) as caught:
        apply(BASE, bomb, digest_of(NEW), len(NEW))
    one_line(caught.value, digest_of(NEW)[:19])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 16 << 10


def test_a_size_or_a_base_beyond_all_bounds_is_refused() -> None:
    for base, size in ((BASE, DEFAULT.bundle_bytes_max + 1), (bytes(DEFAULT.bundle_bytes_max + 1), 10)):
        with pytest.raises(TooLarge):
            apply(base, GOOD, digest_of(NEW), size)


# What a node does with them.


class Blobs:
    """A source of blobs in memory that counts what it gives."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {digest_of(blob): blob for blob in blobs}
        self.asked: list[str] = []
        self.told: list[str] = []

    def report(self, source: str, problem: str) -> None:
        assert source == ""
        self.told.append(problem)

    async def fetch(self, digest: str, size: int | None = None) -> bytes:
        self.asked.append(digest)
        if digest not in self.blobs:
            raise NotServed(f"{digest}: not here")
        return self.blobs[digest]


def wanting(*patches: Patch) -> Wanted:
    return Wanted(name="greeter", version="1.0.1", digest=digest_of(NEW), size=len(NEW), patches=patches)


def patch_of(base: bytes, patch: bytes) -> Patch:
    return Patch(base=digest_of(base), digest=digest_of(patch), size=len(patch))


def obtained(source: Blobs, wanted: Wanted, *own: bytes) -> bytes:
    threads: list[threading.Thread] = []

    def have(digest: str) -> bytes | None:
        threads.append(threading.current_thread())
        return next((data for data in own if digest_of(data) == digest), None)

    made = asyncio.run(obtain(source, wanted, have))
    assert threading.main_thread() not in threads
    return made


def test_a_node_that_has_the_base_fetches_the_patch_only() -> None:
    source = Blobs(GOOD, NEW)
    assert obtained(source, wanting(patch_of(BASE, GOOD)), BASE) == NEW
    assert (source.asked, source.told) == ([digest_of(GOOD)], [])


def test_a_node_that_has_no_base_fetches_the_whole() -> None:
    source = Blobs(GOOD, NEW)
    assert obtained(source, wanting(patch_of(BASE, GOOD)), module(5)) == NEW
    assert (source.asked, source.told) == ([digest_of(NEW)], [])


def test_the_smallest_patch_for_which_there_is_a_base_is_used() -> None:
    far = module(6, 100_000) + BASE[:100_000]
    patches = [(far, make_patch(far, NEW)), (BASE, GOOD), (NEW + b"!", make_patch(NEW + b"!", NEW))]
    source = Blobs(NEW, *(patch for _, patch in patches))
    assert obtained(source, wanting(*(patch_of(*pair) for pair in patches)), far, BASE) == NEW
    assert source.asked == [digest_of(GOOD)]


def test_a_patch_that_is_no_smaller_is_not_fetched() -> None:
    source = Blobs(NEW)
    patch = Patch(base=digest_of(BASE), digest=digest_of(b"patch"), size=len(NEW))
    assert obtained(source, wanting(patch), BASE) == NEW
    assert source.asked == [digest_of(NEW)]


@pytest.mark.parametrize("kind", ["another base", "cut off", "gone"])
def test_whatever_is_wrong_with_a_patch_costs_a_fetch_of_the_whole_and_is_reported(kind: str, one_line: OneLine) -> None:
    patch = {"another base": make_patch(BASE[:-5], NEW), "cut off": GOOD[:-5], "gone": GOOD}[kind]
    source = Blobs(NEW, *([] if kind == "gone" else [patch]))
    assert obtained(source, wanting(patch_of(BASE, patch)), BASE) == NEW
    assert source.asked == [digest_of(patch), digest_of(NEW)]
    (told,) = source.told
    one_line(told, "greeter 1.0.1", digest_of(patch)[:19], "all of it is fetched")


# The maker.


class Shelf:
    """Blobs in a directory, as a registry has them."""

    def __init__(self, folder: Path, *blobs: bytes) -> None:
        self.folder = folder
        self.puts: list[str] = []
        for blob in blobs:
            files.write_atomic(self.path_of(digest_of(blob)), blob)

    def path_of(self, digest: str) -> Path:
        return self.folder / digest.removeprefix("sha256:")

    def put(self, patch: bytes, bundle: str) -> None:
        assert bundle == digest_of(NEW)
        self.puts.append(digest_of(patch))
        files.write_atomic(self.path_of(digest_of(patch)), patch)


def test_the_maker_makes_each_patch_once_and_again_when_it_was_cleaned_away(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, BASE, NEW)
    maker = DeltaMaker(shelf.path_of, shelf.put)

    async def twice() -> list[tuple[Patch, ...]]:
        return await asyncio.gather(*(maker.patches([digest_of(BASE), digest_of(BASE), digest_of(NEW)], digest_of(NEW)) for _ in range(2)))

    first, second = asyncio.run(twice())
    assert first == second == (patch_of(BASE, GOOD),)
    assert shelf.puts == [digest_of(GOOD)]
    assert maker.digests == {digest_of(GOOD)}
    shelf.path_of(digest_of(GOOD)).unlink()
    assert maker.make([digest_of(BASE)], digest_of(NEW)) == first
    assert shelf.path_of(digest_of(GOOD)).read_bytes() == GOOD


def test_a_patch_that_is_no_smaller_than_the_whole_is_not_made(tmp_path: Path) -> None:
    unlike = module(7)
    shelf = Shelf(tmp_path, BASE, unlike)
    assert DeltaMaker(shelf.path_of, shelf.put).make([digest_of(BASE)], digest_of(unlike)) == ()
    assert shelf.puts == []


def test_a_base_that_is_gone_or_altered_has_no_patch_and_a_bundle_that_is_gone_is_an_error(tmp_path: Path, one_line: OneLine) -> None:
    shelf = Shelf(tmp_path, BASE, NEW)
    shelf.path_of(digest_of(BASE)).write_bytes(BASE[:-1])
    maker = DeltaMaker(shelf.path_of, shelf.put)
    assert maker.make([digest_of(b"gone"), digest_of(BASE)], digest_of(NEW)) == ()
    with pytest.raises(StateDamaged) as caught:
        maker.make([digest_of(BASE)], digest_of(b"gone"))
    one_line(caught.value, digest_of(b"gone")[:19], "cannot be read")


def test_no_more_patches_are_made_than_a_desired_state_can_name(tmp_path: Path) -> None:
    bases = [BASE + os.urandom(8) for _ in range(PATCHES_MAX + 2)]
    shelf = Shelf(tmp_path, NEW, *bases)
    patches = DeltaMaker(shelf.path_of, shelf.put).make([digest_of(base) for base in bases], digest_of(NEW))
    assert [patch.base for patch in patches] == [digest_of(base) for base in bases[:PATCHES_MAX]]
    assert wanting(*patches).patches == patches
