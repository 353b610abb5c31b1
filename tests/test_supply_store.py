"""What a node keeps on disk: files that are old or new and never half, the skill store, and the journal."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host.core import files, keys
from host.core.errors import DigestMismatch, HostFault, SnapcountError, StateDamaged, StorageFull
from host.core.limits import DEFAULT
from host.core.safety import Refusal
from host.supply.journal import Journal
from host.supply.store import Installed, SkillStore

BLOB = b"\0asm\x01\0\0\0"


def refusal(kind: type[SnapcountError], act: Callable[[], object], *names: object, exactly: bool = True) -> str:
    """The message of what `act` raises: one line, and it names what it should."""
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert type(caught.value) is kind or not exactly
    assert message.isprintable(), repr(message)
    for name in names:
        assert str(name) in message, message
    return message


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hex_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file())


# Files.


def test_a_write_replaces_the_whole_file_with_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    files.write_atomic(path, b"old" * 1000)
    files.write_atomic(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert tree(tmp_path) == ["deep/file"]


def test_a_write_follows_no_link_out_of_its_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    link = tmp_path / "state" / "file"
    link.parent.mkdir()
    link.symlink_to(outside)
    files.write_atomic(link, b"new")
    assert outside.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_a_file_in_place_of_a_directory_is_a_host_fault_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    refusal(HostFault, lambda: files.write_atomic(tmp_path / "plain" / "file", b"x"), "file: cannot be written to", tmp_path / "plain")
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    refusal(HostFault, lambda: files.write_atomic(tmp_path / "taken", b"x"), "taken: cannot be written to")
    assert tree(tmp_path) == ["plain"]


@pytest.mark.parametrize("number", files.FULL)
def test_a_full_disk_a_quota_and_a_size_limit_are_all_storage_full(number: int) -> None:
    assert type(files.storage_error(OSError(number, "full"), "thing")) is StorageFull
    assert type(files.storage_error(PermissionError(13, "Permission denied"), "thing")) is HostFault


def test_the_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{files.TEMPORARY}1").write_bytes(b"half")
    (tmp_path / f"{files.TEMPORARY}2").symlink_to("nowhere")
    (tmp_path / f"{files.TEMPORARY}directory").mkdir()
    (tmp_path / "a" / "kept").write_bytes(b"")
    (tmp_path / "a" / f"x{files.TEMPORARY}").write_bytes(b"")
    assert files.sweep(tmp_path) == 2
    assert tree(tmp_path) == ["a/kept", f"a/x{files.TEMPORARY}"]
    assert files.sweep(tmp_path) == 0
    assert files.sweep(tmp_path / "missing") == 0


WRITER = """
import sys
from pathlib import Path
from host.core import files
path, number = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number += 1
    files.write_atomic(path, (b"%08d" % number) * 4096)
"""


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    root = Path(__file__).resolve().parent.parent
    for after_s in (0.02, 0.03, 0.05, 0.08, 0.13):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=root)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            threading.Event().wait(after_s)
        finally:
            process.kill()
            process.communicate()
        content = path.read_bytes()
        assert len(content) == 8 * 4096
        assert content == content[:8] * 4096
        files.sweep(tmp_path)
        assert tree(tmp_path) == ["file"]


# The store.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> SkillStore:
    return SkillStore(state)


def install(store: SkillStore, name: str, version: str) -> Installed:
    data = BLOB + f"{name} {version}".encode()
    store.put(data, digest_of(data))
    record = store.record(name, version, digest_of(data))
    store.activate(record)
    return record


def test_a_blob_comes_back_by_its_digest(store: SkillStore, state: Path) -> None:
    assert store.put(BLOB, digest_of(BLOB)) is True
    assert store.put(BLOB, digest_of(BLOB)) is False
    assert store.get(digest_of(BLOB)) == BLOB
    assert tree(state) == [f"blobs/sha256/{hex_of(BLOB)}"]
    store.discard(digest_of(BLOB))
    store.discard(digest_of(BLOB))
    assert tree(state) == []


def test_bytes_under_another_digest_are_refused_and_not_kept(store: SkillStore, state: Path) -> None:
    for digest in (digest_of(b"other"), hex_of(BLOB), "sha256:", "", "sha256:../../x"):
        refusal(DigestMismatch, lambda digest=digest: store.put(BLOB, digest), digest_of(BLOB), "nothing was kept")
    assert tree(state) == []


def test_a_missing_or_altered_blob_is_state_damaged_and_named(store: SkillStore, state: Path) -> None:
    digest = digest_of(BLOB)
    refusal(StateDamaged, lambda: store.get(digest), hex_of(BLOB)[:16], "No such file")
    store.put(BLOB, digest)
    path = state / "blobs" / "sha256" / hex_of(BLOB)
    for content in (b"", BLOB[:-1], BLOB + b"\0", BLOB[:-1] + b"\1"):
        path.write_bytes(content)
        refusal(StateDamaged, lambda: store.get(digest), path, "push the skill again")
    path.unlink()
    path.mkdir()
    refusal(StateDamaged, lambda: store.get(digest), hex_of(BLOB)[:16], "directory")


def test_pushing_a_skill_again_mends_its_altered_blob(store: SkillStore, state: Path) -> None:
    store.put(BLOB, digest_of(BLOB))
    (state / "blobs" / "sha256" / hex_of(BLOB)).write_bytes(b"rotten")
    assert store.put(BLOB, digest_of(BLOB)) is True
    assert store.get(digest_of(BLOB)) == BLOB


def test_an_installed_version_is_active_and_survives_a_new_store(store: SkillStore, state: Path) -> None:
    assert (store.names(), store.active("drill"), store.versions("drill")) == ([], None, [])
    first = install(store, "drill", "1.0.0")
    second = install(store, "drill", "1.1.0")
    other = install(store, "planner", "3.0.0")
    again = SkillStore(state)
    assert again.names() == ["drill", "planner"]
    assert (again.active("drill"), again.active("planner")) == (second, other)
    assert again.versions("drill") == [second, first]
    assert (first.order, second.order) == (1, 2)
    assert os.readlink(state / "skills" / "drill" / "active") == second.digest.removeprefix("sha256:")


def test_recording_a_version_again_makes_it_the_newest(store: SkillStore) -> None:
    first, second = install(store, "drill", "1.0.0"), install(store, "drill", "1.1.0")
    again = store.record("drill", "1.0.0", first.digest)
    assert again.order == 3
    assert store.versions("drill") == [again, second]


def test_a_recorded_version_is_not_active_until_it_is_activated(store: SkillStore) -> None:
    first = install(store, "drill", "1.0.0")
    record = store.record("drill", "2.0.0", digest_of(b"2"))
    assert store.active("drill") == first
    store.activate(record)
    assert store.active("drill") == record
    store.forget(first)
    assert store.versions("drill") == [record]


RECORDS = [
    b"",
    b"{}",
    b"null",
    b"\xff",
    b'{"name":"\xff"}',
    b"[" * 100_000,
    b'{"name":"../x","version":"1.0.0","digest":"sha256:' + b"0" * 64 + b'","order":1}',
    b'{"name":"drill","version":"latest","digest":"sha256:' + b"0" * 64 + b'","order":1}',
    b'{"name":"drill","version":"1.0.0","digest":"sha256:0","order":1}',
    b'{"name":"drill","version":"1.0.0","digest":"sha256:' + b"0" * 64 + b'\\n","order":1}',
    b'{"name":"drill","version":"1.0.0","digest":"sha256:' + b"0" * 64 + b'","order":"1"}',
    b'{"name":"drill","version":"1.0.0","digest":"sha256:' + b"0" * 64 + b'","order":1,"x":1}',
]


@pytest.mark.parametrize("content", RECORDS)
def test_a_damaged_record_is_named_and_left_out_of_the_versions(store: SkillStore, state: Path, content: bytes) -> None:
    first, second = install(store, "drill", "1.0.0"), install(store, "drill", "1.1.0")
    (state / "skills" / "drill" / second.digest.removeprefix("sha256:")).write_bytes(content)
    refusal(StateDamaged, lambda: store.active("drill"), f"skills/drill/{second.digest[7:23]}", "push the skill again")
    assert store.versions("drill") == [first]
    assert store.names() == ["drill"]


def test_a_damaged_pointer_is_named_and_never_taken_for_no_skill(store: SkillStore, state: Path) -> None:
    install(store, "drill", "1.0.0")
    pointer = state / "skills" / "drill" / "active"
    for target in ("0" * 64, "nowhere", ".", "..", "active", "/etc/passwd", "../../../etc/passwd"):
        pointer.unlink()
        pointer.symlink_to(target)
        refusal(StateDamaged, lambda: store.active("drill"), "skill", "push the skill again")
        assert store.names() == ["drill"]
    pointer.unlink()
    pointer.write_bytes(b"0" * 64)
    refusal(StateDamaged, lambda: store.active("drill"), "skills/drill/active", "symbolic link")
    assert store.names() == ["drill"]


def test_activating_replaces_a_damaged_pointer(store: SkillStore, state: Path) -> None:
    first = install(store, "drill", "1.0.0")
    pointer = state / "skills" / "drill" / "active"
    for damage in (lambda: pointer.symlink_to("nowhere"), lambda: pointer.write_bytes(b"")):
        pointer.unlink()
        damage()
        store.activate(first)
        assert store.active("drill") == first


def test_a_pointer_that_cannot_be_moved_leaves_the_former_version_active(store: SkillStore, state: Path) -> None:
    record = store.record("drill", "1.0.0", digest_of(BLOB))
    (state / "skills" / "drill" / "active" / "inner").mkdir(parents=True)
    refusal(HostFault, lambda: store.activate(record), "drill: the active version cannot be changed")
    assert tree(state) == [f"skills/drill/{hex_of(BLOB)}"], "no temporary is left"


def test_a_store_that_cannot_be_made_names_the_directory(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"")
    refusal(HostFault, lambda: SkillStore(tmp_path), tmp_path / "blobs" / "sha256", "cannot be made")


def test_pruning_keeps_the_newest_and_forgets_records_and_blobs_of_the_rest(store: SkillStore, state: Path) -> None:
    kept = [install(store, "drill", f"1.{minor}.0") for minor in range(5)]
    other = install(store, "planner", "1.0.0")
    assert sorted(store.prune("drill", 3)) == sorted(entry.digest for entry in kept[:2])
    assert store.versions("drill") == kept[:1:-1]
    for entry in kept[:2]:
        assert not store.referenced(entry.digest)
        refusal(StateDamaged, lambda entry=entry: store.get(entry.digest), entry.digest[7:23])
    for entry in (*kept[2:], other):
        assert store.referenced(entry.digest)
        assert store.get(entry.digest)
    assert store.prune("drill", 3) == []


def test_pruning_never_forgets_the_active_version_however_old(store: SkillStore) -> None:
    entries = [install(store, "drill", f"1.{minor}.0") for minor in range(5)]
    store.activate(entries[0])
    assert sorted(store.prune("drill", 3)) == [entries[1].digest]
    assert store.active("drill") == entries[0]
    assert store.get(entries[0].digest)
    assert store.prune("drill", 0)
    assert store.versions("drill") == [entries[0]]


def test_a_half_written_file_in_the_store_is_no_version_and_no_skill(store: SkillStore, state: Path) -> None:
    install(store, "drill", "1.0.0")
    (state / "skills" / "drill" / f"{files.TEMPORARY}0").write_bytes(b"half")
    (state / "skills" / "half").mkdir()
    (state / "skills" / "half" / f"{files.TEMPORARY}0").symlink_to("x")
    (state / "skills" / "stray").write_bytes(b"")
    assert store.names() == ["drill"]
    assert len(store.versions("drill")) == 1
    assert not store.referenced(digest_of(b"other"))
    assert files.sweep(state) == 2


@pytest.mark.slow
def test_a_reader_sees_one_whole_version_or_the_other_while_the_pointer_moves(store: SkillStore) -> None:
    entries = [install(store, "drill", "1.0.0"), install(store, "drill", "2.0.0")]
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set() or seen == 0:
            assert store.active("drill") in entries
            assert store.names() == ["drill"]
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for turn in range(200):
                store.activate(entries[turn % 2])
        finally:
            done.set()
        assert all(reader.result(30) > 0 for reader in readers)


def test_many_threads_put_the_same_blob_and_it_is_whole(store: SkillStore, state: Path) -> None:
    data = BLOB + bytes(100_000)
    start = threading.Barrier(8)

    def put(_: int) -> bool:
        start.wait(10)
        return store.put(data, digest_of(data))

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(put, range(8)))
    assert store.get(digest_of(data)) == data
    assert tree(state) == [f"blobs/sha256/{hex_of(data)}"]


# The journal.


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def test_what_was_written_down_comes_back_newest_first_from_a_new_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db")
    first.installed(1, "drill", "1.0.0", "sha256:1", "active", "")
    first.installed(2, "drill", "1.1.0", "sha256:2", "failed", "its self-test failed")
    first.refused(Refusal(3, "drill", "move", "x = -1 mm is outside"))
    first.state("drill").set(b"k", b"v")
    first.close()
    again = Journal(tmp_path / "journal.db")
    assert [(row["version"], row["outcome"]) for row in again.installs()] == [("1.1.0", "failed"), ("1.0.0", "active")]
    assert again.installs(1)[0]["detail"] == "its self-test failed"
    assert again.audit() == [{"at_ms": 3, "skill": "drill", "command": "move", "reason": "x = -1 mm is outside"}]
    assert again.state("drill").get(b"k") == b"v"
    again.close()


def test_the_audit_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", replace(DEFAULT, audit_rows_max=10))
    for number in range(35):
        journal.refused(Refusal(number, "drill", "move", "no"))
        journal.installed(number, "drill", "1.0.0", "sha256:1", "active", "")
    assert [row["at_ms"] for row in journal.audit(1000)] == list(range(34, 24, -1))
    assert [row["at_ms"] for row in journal.installs(1000)] == list(range(34, 24, -1))
    journal.close()


def test_skills_do_not_see_each_others_state(journal: Journal) -> None:
    journal.state("drill").set(b"k", b"mine")
    assert journal.state("planner").get(b"k") is None
    journal.state("planner").set(b"k", b"theirs")
    journal.state("planner").set(b"k", b"")
    assert journal.state("planner").get(b"k") is None
    assert journal.state("drill").get(b"k") == b"mine"


def test_the_state_quota_counts_keys_and_values_of_one_skill_and_not_what_is_replaced(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", replace(DEFAULT, state_bytes_max=100))
    state = journal.state("drill")
    assert state.set(b"k" * 10, b"v" * 90)
    assert not state.set(b"l", b"v")
    assert state.get(b"l") is None
    assert not state.set(b"k" * 10, b"v" * 91)
    assert state.get(b"k" * 10) == b"v" * 90, "a refused value leaves the former one"
    assert state.set(b"k" * 10, b"w" * 89)
    assert state.set(b"l", b"")
    assert journal.state("planner").set(b"k" * 10, b"v" * 90), "another skill has its own quota"
    assert state.set(b"k" * 10, b"")
    assert state.set(b"l", b"v" * 99)
    journal.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.binary(max_size=40)), max_size=25))
def test_state_behaves_like_a_dictionary_within_its_quota(tmp_path: Path, writes: list[tuple[bytes, bytes]]) -> None:
    journal = Journal(":memory:", replace(DEFAULT, state_bytes_max=100))  # type: ignore[arg-type]
    state, model = journal.state("drill"), dict[bytes, bytes]()
    for key, value in writes:
        wanted = {**model, key: value} if value else {k: v for k, v in model.items() if k != key}
        fits = not value or sum(len(k) + len(v) for k, v in wanted.items()) <= 100
        assert state.set(key, value) is fits
        model = wanted if fits else model
        assert {k: state.get(k) for k, _ in writes} == {k: model.get(k) for k, _ in writes}
    journal.close()


def test_threads_use_one_journal_and_nothing_is_lost_or_over_quota(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", replace(DEFAULT, state_bytes_max=100))

    def work(number: int) -> int:
        journal.refused(Refusal(number, f"skill-{number}", "move", "no"))
        kept = journal.state("shared").set(b"%04d" % number, b"v" * 16)
        assert journal.audit(1)
        return int(kept)

    with ThreadPoolExecutor(8) as pool:
        kept = sum(pool.map(work, range(40)))
    assert kept == 5, "5 of 4 + 16 bytes fit in 100"
    assert sorted(row["at_ms"] for row in journal.audit(1000)) == list(range(40))
    journal.close()


@pytest.mark.parametrize(
    "content", [b"this is not a database, and long enough to see it" * 10, b"SQLite format 3\0" + b"\xff" * 4080, b"\0" * 4096]
)
def test_a_journal_that_is_no_database_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    refusal(StateDamaged, lambda: Journal(path), path, "move it away")
    assert path.read_bytes() == content, "the evidence is left"


def test_a_journal_in_a_missing_directory_or_in_place_of_one_is_refused_in_one_line(tmp_path: Path) -> None:
    refusal(StateDamaged, lambda: Journal(tmp_path / "no" / "journal.db"), tmp_path / "no" / "journal.db")
    refusal(StateDamaged, lambda: Journal(tmp_path), tmp_path)


@pytest.mark.slow
def test_pages_that_rotted_under_an_open_journal_are_state_damaged_for_readers_and_writers(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    for number in range(300):
        journal.state("drill").set(b"%04d" % number, b"v" * 100)
        journal.refused(Refusal(number, "drill", "move", "r" * 100))
        journal.installed(number, "drill", "1.0.0", "sha256:1", "active", "d" * 100)
    journal.close()
    data = bytearray(path.read_bytes())
    data[2 * 4096 :] = b"\xa5" * (len(data) - 2 * 4096)  # the schema's page is left
    path.write_bytes(data)
    damaged = Journal(path)
    for act in (
        lambda: damaged.audit(10_000),
        lambda: damaged.installs(10_000),
        lambda: damaged.state("drill").get(b"0001"),
        lambda: damaged.state("drill").set(b"0001", b"x"),
        lambda: damaged.refused(Refusal(1, "drill", "move", "no")),
    ):
        refusal(StateDamaged, act, path)
    damaged.close()


def test_a_journal_of_another_shape_is_a_host_fault_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE audit (note TEXT)")
    other.commit()
    other.close()
    journal = Journal(path)
    refusal(HostFault, lambda: journal.refused(Refusal(1, "drill", "move", "no")), path)
    refusal(HostFault, journal.audit, path)
    journal.close()


# A full disk, for real.


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(1024))
        except OSError as error:
            assert error.errno in files.FULL


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_beside_it(small_disk: Path) -> None:
    path = small_disk / "file"
    files.write_atomic(path, b"old")
    refusal(StorageFull, lambda: files.write_atomic(path, bytes(100_000)), "file: cannot be written to", small_disk, "No space left")
    assert path.read_bytes() == b"old"
    assert tree(small_disk) == ["file"]
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_blob_that_does_not_fit_is_storage_full_and_the_active_skill_stays(small_disk: Path) -> None:
    store = SkillStore(small_disk)
    active = install(store, "drill", "1.0.0")
    before = tree(small_disk)
    large = bytes(60_000)
    refusal(StorageFull, lambda: store.put(large, digest_of(large)), hex_of(large))
    assert tree(small_disk) == before
    fill(small_disk)
    refusal(StorageFull, lambda: store.record("drill", "2.0.0", digest_of(b"2")), hex_of(b"2"))
    assert store.active("drill") == active
    assert store.versions("drill") == [active]
    assert store.get(active.digest)
    assert [name for name in tree(small_disk) if files.TEMPORARY in name] == []


def test_a_journal_on_a_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "journal.db"
    journal = Journal(tmp_path / "roomy.db")
    journal.close()
    shutil.copy(tmp_path / "roomy.db", path)
    journal = Journal(path)
    fill(small_disk)
    written = 0

    def write() -> None:
        nonlocal written
        for number in range(10_000):
            journal.refused(Refusal(number, "drill", "move", "r" * 500))
            written += 1

    refusal(StorageFull, write, path, "full")
    assert len(journal.audit(10_000)) == written
    refusal(StorageFull, lambda: journal.state("drill").set(b"k", b"v" * 5000), path)
    assert journal.state("drill").get(b"k") is None
    refusal(StorageFull, lambda: journal.installed(1, "drill", "1.0.0", "sha256:1", "active", "d" * 5000), path)
    (small_disk / "ballast").unlink()
    journal.refused(Refusal(77, "drill", "move", "room again"))
    assert journal.audit(1)[0]["at_ms"] == 77
    journal.close()


def test_a_journal_that_cannot_be_opened_on_a_full_disk_is_not_called_damaged(small_disk: Path) -> None:
    fill(small_disk)
    message = refusal(StorageFull, lambda: Journal(small_disk / "journal.db"), small_disk / "journal.db")
    assert "move it away" not in message


def test_a_key_that_does_not_fit_leaves_no_half_of_it(small_disk: Path) -> None:
    fill(small_disk)
    refusal(StorageFull, lambda: keys.create(small_disk / "node.key", b"\x07" * 32), small_disk / "node.key")
    assert tree(small_disk) == ["ballast"]
    (small_disk / "ballast").unlink()
    assert isinstance(keys.create(small_disk / "node.key", b"\x07" * 32), SigningKey)
