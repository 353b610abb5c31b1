"""Real calls: observed, sampled into a journal that is bounded and survives a kill, taken away as a file, and replayed on another build."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from typer.testing import CliRunner
from wasmtime import wat2wasm

import host
from host import config
from host.console.panel import node_lines
from host.core import cbor, toml
from host.core.attestation import Measurement
from host.core.bundle import UnverifiedBundle, digest_of, with_manifest, with_signature
from host.core.capabilities import grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import Incompatible, MalformedData, SnapcountError, StateDamaged, TooLarge, UsageError
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest, SkillLimits
from host.core.pace import Pace, Paces
from host.events import _Watcher
from host.meshlink import MeshLink
from host.node import Node
from host.plugins import record as records
from host.plugins.adapter import SkillVersion
from host.plugins.comparison import Comparison, Difference, Tolerance, differences
from host.plugins.contract import BidReply, PlanSettings
from host.plugins.manager import PluginManager
from host.plugins.observed import Call, PlannedJob
from host.plugins.record import CallRecord
from host.recording import Recording, recording
from host.sandbox.engine import default_engine
from host.sandbox.imports import STATE_STORED, HostCall, HostServices
from host.sandbox.skill import LoadedSkill
from host.supply.calls import FILE, CallJournal, open_existing
from host.supply.sampling import Sampler
from sdk import replay as replaying
from sdk import vectors
from sdk.cli.main import app
from sdk.demo.samples import BID
from sdk.local import MemoryState, read_bundle, user_cache
from sdk.testbed import SeededRandom, StillClock
from skills import module_path

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
OneLine = Callable[..., str]
MakeSkill = Callable[..., bytes]
FINISH = b"ifinish_ms\x18"  # the key, and the byte before a value of 24 to 255

# Asks its host for everything there is, and answers with a `finish_ms` that depends on what it was told.
CURIOUS = """
(module
  (import "snapcount:host/1" "log" (func $log (param i32 i32 i32)))
  (import "snapcount:host/1" "now_ms" (func $now_ms (result i64)))
  (import "snapcount:host/1" "random" (func $random (param i32 i32)))
  (import "snapcount:host/1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
  (import "snapcount:host/1" "state_set" (func $state_set (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{reply}")
  (data (i32.const 2048) "key and value")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_bid") (param i32 i32) (result i64) {steps} (i64.const {packed})))
"""
STEPS = {
    "now": "(i32.store8 (i32.const {at}) (i32.or (i32.wrap_i64 (call $now_ms)) (i32.const 128)))",
    "random": "(call $random (i32.const 3000) (i32.const 1))"
    "(i32.store8 (i32.const {at}) (i32.or (i32.xor (i32.load8_u (i32.const {at})) (i32.load8_u (i32.const 3000))) (i32.const 128)))",
    "more": "(call $random (i32.const 3000) (i32.const 2))",
    "state": "(drop (call $state_get (i32.const 2048) (i32.const 3) (i32.const 3000) (i32.const 64)))"
    "(drop (call $state_set (i32.const 2048) (i32.const 3) (i32.const 2056) (i32.const 5)))",
    "log": "(call $log (i32.const 1) (i32.const 2048) (i32.const 3))",
}
NEEDS = ("log", "clock", "random", "state")


@pytest.fixture(scope="session")
def make(author: SigningKey) -> MakeSkill:
    """Makes a bundle that asks its host in this order."""

    def made(asks: str = "now random state", version: str = "1.0.0", *, name: str = "greeter", **described: Any) -> bytes:
        reply = cbor.encode(BidReply(cost=1.0, finish_ms=24, id=version, reason="greeter"))
        at = 1024 + reply.index(FINISH) + len(FINISH)
        steps = " ".join(STEPS[ask] for ask in asks.split()).format(at=at)
        text = CURIOUS.format(reply="".join(f"\\{byte:02x}" for byte in reply), steps=steps, packed=1024 << 32 | len(reply))
        manifest = Manifest(
            name=name, version=version, hooks=("bid",), capabilities=NEEDS, limits=SkillLimits(fuel=50_000_000, deadline_ms=500), **described
        )  # fmt: skip
        return with_signature(with_manifest(bytes(wat2wasm(text)), manifest, name), author, name)

    return made


def load(data: bytes, *, plain: bool = False) -> SkillVersion:
    """A version with every capability granted, as a node loads it."""
    manifest = UnverifiedBundle.parse(data, "skill").manifest
    granted = grant(manifest.name, manifest.capabilities, manifest.capabilities)
    services = HostServices(manifest.name, granted, StillClock(), SeededRandom(), log=lambda level, line: None, state=MemoryState())
    module = user_cache().module(default_engine(), data, digest_of(data), manifest)
    return SkillVersion(LoadedSkill(default_engine(), module, manifest, granted, services, force_plain=plain), digest_of(data), services)


def observed(version: SkillVersion) -> Call:
    """One `bid` of a version, as an observer is told of it."""
    manager, told = PluginManager(), []
    manager.activate(version)
    manager.observe(told.append)
    try:
        manager.hook.bid(request=BID)
    except SnapcountError:
        pass
    (call,) = told
    return call


# ---- Observing -------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["direct", "plain"])
def test_an_observer_is_told_what_went_in_what_came_out_and_what_the_host_was_asked(make, plain):
    data = make("log now random state")
    call = observed(load(data, plain=plain))
    assert (call.skill, call.version, call.lineage, call.hook, call.digest) == ("greeter", "1.0.0", "a", "bid", digest_of(data))
    assert call.request == cbor.encode(BID) and cbor.decode(call.reply, "reply")["reason"] == "greeter"
    assert [one.name for one in call.host_calls] == ["log", "now_ms", "random", "state_get", "state_set"]
    assert call.host_calls[1] == HostCall("now_ms", (), StillClock().now_ms())
    assert call.host_calls[3].answer is None and call.host_calls[4].answer == STATE_STORED
    assert call.fuel > 0 and call.took_us >= 0 and call.whole and not call.error


@pytest.mark.slow
def test_without_an_observer_nothing_is_bound_to_a_version_and_taking_one_away_ends_it(make):
    manager, told = PluginManager(), []
    version = load(make())
    manager.activate(version)
    assert version.observers is None
    remove = manager.observe(told.append)
    manager.hook.bid(request=BID)
    remove()
    manager.hook.bid(request=BID)
    assert version.observers is None and len(told) == 1
    again = load(make(version="1.0.1"))
    manager.observe(told.append, lambda version, hook: False)
    manager.activate(again)
    manager.hook.bid(request=BID)
    assert again.observers is not None and len(told) == 1, (
        "an observer is bound to what is swapped in, and is not told what it does not want"
    )


def test_an_observer_that_fails_costs_its_observation_and_not_the_call(make):
    manager, told = PluginManager(), []
    manager.activate(load(make()))
    manager.observe(lambda call: 1 / 0)
    manager.observe(told.append, lambda version, hook: 1 / 0)
    manager.observe(told.append)
    assert manager.hook.bid(request=BID)[0].reason == "greeter"
    assert len(told) == 1


def test_a_call_that_ends_without_a_reply_is_told_with_its_error(make_skill):
    call = observed(load(make_skill(body="(unreachable)")))
    assert (call.reply, call.error) == (None, "guest_trap") and "unreachable" in call.detail
    assert records.recordable(call)


def test_a_planned_job_is_one_call_with_the_pieces_of_its_program():
    data = read_bundle(module_path("toolpath-planner"))
    manager, told = PluginManager(), []
    manager.activate(load(data))
    manager.observe(told.append)
    pieces = [b"G1 X1 F600\n", b"G1 X2\n"]
    report = manager.hook.plan_job(program=iter(pieces), settings=PlanSettings(accel_mm_s2=500.0), run=False)
    (call,) = told
    job = cbor.decode_struct(call.request, PlannedJob, "request")
    assert call.program == tuple(pieces) and job.program_bytes == 17 and job.program_digest == digest_of(b"".join(pieces))
    assert cbor.decode(call.reply, "reply")["lines"] == report.lines
    manager.hook.plan_job(program=iter([b"; a comment\n" * 30_000]), settings=PlanSettings(), run=False)
    assert told[1].program == () and not told[1].whole and not records.recordable(told[1]), "a long program is known by its digest alone"
    assert cbor.decode_struct(told[1].request, PlannedJob, "request").program_bytes == 360_000


# ---- Sampling --------------------------------------------------------------------------------


def sampler(sample: float, take: Callable[[list[Call]], None], **more: Any) -> Sampler:
    return Sampler(
        sample, more.pop("skills", ()), more.pop("random", SystemRandom()), take, more.pop("log", lambda level, line: None), **more
    )


@pytest.mark.parametrize(("sample", "expected"), [(0.0, range(1)), (1.0, range(200, 201)), (0.25, range(25, 80))])
def test_a_sample_takes_its_share_of_calls_and_its_ends_are_exact(make, sample, expected):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    taken: list[Call] = []
    sampling = sampler(sample, taken.extend, random=SeededRandom(seed))
    manager = PluginManager()
    manager.activate(load(make()))
    manager.observe(sampling.told, sampling.wants)
    for _ in range(200):
        manager.hook.bid(request=BID)
    sampling.stop()
    assert len(taken) in expected and sampling.status() == {"taken": len(taken), "dropped": 0, "unfit": 0, "failed": 0}


@pytest.mark.slow
def test_only_fresh_instances_of_the_named_skills_are_sampled_and_never_their_self_tests(make):
    sampling = sampler(1.0, lambda calls: None, skills=("greeter",))
    fresh, kept = load(make()), load(make(instance="persistent"))
    other = load(make(name="other"))
    assert [sampling.wants(version, "bid") for version in (fresh, kept, other)] == [True, False, False]
    assert not sampling.wants(fresh, "self_test")
    sampling.stop()


def test_a_pace_bounds_how_many_a_second_are_taken():
    now = [0.0]
    pace = Pace(2.0, lambda: now[0])
    assert [pace.go() for _ in range(3)] == [True, True, False]
    now[0] = 0.5
    assert [pace.go(), pace.go()] == [True, False]
    now[0] = 100.0
    assert sum(pace.go() for _ in range(10)) == 2
    paces = Paces(1.0, lambda: now[0], burst=3, sources_max=2)
    assert [paces.go("one") for _ in range(4)] == [True, True, True, False] and paces.go("other")
    assert [paces.go(name) for name in ("third", "other", "one")] == [True] * 3, "who was forgotten begins anew"


def test_a_full_queue_drops_and_counts_and_the_call_does_not_wait(make):
    stuck, entered = threading.Event(), threading.Event()

    def take(calls: list[Call]) -> None:
        entered.set()
        stuck.wait(10)

    sampling = sampler(1.0, take, limits=Limits(calls_waiting_max=3))
    call = observed(load(make()))
    sampling.told(call)
    assert entered.wait(5)
    started = time.perf_counter()
    for _ in range(1_000):
        sampling.told(call)
    assert time.perf_counter() - started < 1.0
    assert sampling.dropped == 997
    stuck.set()
    sampling.stop()
    assert sampling.taken == 4


def test_what_waits_is_bounded_in_bytes_too(make):
    stuck, entered = threading.Event(), threading.Event()
    sampling = sampler(1.0, lambda calls: (entered.set(), stuck.wait(10)), limits=Limits(calls_waiting_bytes_max=1_000))
    call = observed(load(make()))
    sampling.told(call)
    assert entered.wait(5)
    for _ in range(10):
        sampling.told(call)
    assert 0 < 10 - sampling.dropped <= 1_000 // len(call.request)
    stuck.set()
    sampling.stop()


def test_host_calls_without_bytes_count_where_calls_wait_for_the_sample_and_for_who_watches(make):
    call = replace(observed(load(make())), host_calls=tuple(HostCall("now_ms", (), number) for number in range(4_000)), program=(b"",) * 10)
    assert call.size >= 64 * 4_010
    stuck, entered = threading.Event(), threading.Event()
    sampling = sampler(1.0, lambda calls: (entered.set(), stuck.wait(10)))
    sampling.told(call)
    assert entered.wait(5)
    for _ in range(100):
        sampling.told(call)
    assert 100 - sampling.dropped <= DEFAULT.calls_waiting_bytes_max // call.size < 33
    stuck.set()
    sampling.stop()
    loop = asyncio.new_event_loop()
    watcher = _Watcher(loop)
    for _ in range(100):
        watcher.told(call)
    assert len(watcher._calls) <= DEFAULT.watched_bytes_max // call.size < 66
    loop.close()


def test_a_version_on_trial_is_not_sampled(make):
    tried = load(make())
    sampling = sampler(1.0, lambda calls: None, on_trial=lambda version: version is tried)
    assert not sampling.wants(tried, "bid") and sampling.wants(load(make()), "bid")
    sampling.stop()


# ---- The journal of calls --------------------------------------------------------------------


def encoded(call: Call, number: int = 0) -> bytes:
    """A record of a call, unlike that of another number."""
    return records.encode("node-01", replace(call, began_ms=call.began_ms + number))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[CallJournal]:
    kept = CallJournal(tmp_path, 1 << 20)
    yield kept
    kept.close()


def test_a_record_comes_back_as_it_was_written_and_is_found_by_the_beginning_of_its_id(make, journal, tmp_path, one_line):
    call = observed(load(make("log now random state")))
    data = encoded(call)
    journal.add([data, encoded(call, 1)])
    journal.add([data])
    assert [row["outcome"] for row in journal.rows()] == ["reply", "reply"]
    assert journal.get([records.id_of(data)[:10]]) == [data]
    ((_, record), _) = journal.of_skill("greeter")
    assert record.request == call.request and record.capabilities == NEEDS and record.limits == call.limits
    assert [one.name for one in record.host_calls] == ["now_ms", "random", "state_get", "state_set"], "what it logged was told nothing"
    assert journal.rows("other") == []
    for bad in ("ffffff", "", "%"):
        with pytest.raises(UsageError) as caught:
            journal.get([bad])
        one_line(caught.value, "snapcount node calls")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_the_oldest_records_go_when_there_are_too_many_bytes_or_rows(make, tmp_path):
    call = observed(load(make()))
    size = len(encoded(call))
    kept = CallJournal(tmp_path, 10 * size + size // 2)
    for start in range(0, 40, 8):
        kept.add([encoded(call, number) for number in range(start, start + 8)])
    assert kept.status() == {"kept": 10, "kept_bytes": 10 * size}
    assert [row["at_ms"] - call.began_ms for row in kept.rows()] == list(range(39, 29, -1))
    kept.close()
    few = CallJournal(tmp_path, 1 << 20, rows_max=3)
    few.add([encoded(call, 99)])
    assert [row["at_ms"] - call.began_ms for row in few.rows()] == [99, 39, 38]
    few.close()


def test_what_was_deleted_from_the_journal_is_overwritten_and_all_of_a_skill_are_read_at_once(make, tmp_path):
    call = observed(load(make()))
    marked = replace(call, request=call.request + b"confidential" * 50)
    kept = CallJournal(tmp_path, 3 * len(encoded(call)))
    kept.add([encoded(marked)])
    kept.add([encoded(call, number) for number in range(1, 4)])
    assert kept.all_of("greeter") == [encoded(call, number) for number in range(1, 4)] and kept.all_of("other") == []
    kept.close()
    assert b"confidential" not in (tmp_path / FILE).read_bytes()


def test_a_record_that_was_changed_on_the_disk_is_not_used(make, journal, one_line):
    data = encoded(observed(load(make())))
    journal.add([data])
    with journal._database.transaction() as db:
        db.execute("UPDATE calls SET record = ?", (data.replace(b"greeter", b"greeted"),))
    for read in (lambda: journal.get([records.id_of(data)]), lambda: journal.of_skill("greeter")):
        with pytest.raises(StateDamaged) as caught:
            read()
        one_line(caught.value, records.id_of(data))


def test_a_full_disk_costs_the_sample_and_one_line_of_log_and_not_the_calls(make, journal):
    with journal._database.reading() as db:
        db.execute("PRAGMA max_page_count = 8")
    said: list[str] = []
    sampling = sampler(
        1.0,
        lambda calls: journal.add([encoded(call, time.time_ns() % 10**15) for call in calls]),
        log=lambda level, line: said.append(line),
    )
    manager = PluginManager()
    manager.activate(load(make()))
    manager.observe(sampling.told, sampling.wants)
    ends = time.monotonic() + 20
    while sampling.failed < 60 and time.monotonic() < ends:
        for _ in range(30):
            assert manager.hook.bid(request=BID)
        time.sleep(0.05)
    sampling.stop()
    assert sampling.failed >= 60 and len(said) == 1 and "full" in said[0]
    assert all(records.id_of(journal.get([row["id"]])[0]) == row["id"] for row in journal.rows())


WRITER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from host.plugins import record as records
from host.supply.calls import CallJournal
data = Path(sys.argv[2]).read_bytes()
call = records.decode(data, "call")
import msgspec
from host.core import cbor
journal = CallJournal(Path(sys.argv[1]), 60 * len(data))
number = int(sys.argv[3])
print("writing", flush=True)
while True:
    number += 1
    journal.add([cbor.encode(msgspec.structs.replace(call, began_ms=100 * number + each)) for each in range(7)])
"""


@pytest.mark.slow
def test_a_node_that_is_killed_while_it_writes_leaves_whole_batches_and_nothing_else(make, tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    (tmp_path / "one").write_bytes(encoded(observed(load(make()))))
    for start in (0, 1_000_000, 2_000_000):
        writer = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(tmp_path), str(tmp_path / "one"), str(start)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()
        journal = open_existing(tmp_path)
        held = journal.of_skill("greeter")
        batches = [record.began_ms // 100 for _, record in held]
        newest = max(batches, default=0)
        assert all(batches.count(batch) == 7 for batch in set(batches) - {min(batches, default=0)}) and len(held) <= 60
        print(f"{len(held)} records after the kill, the newest batch is {newest}")
        journal.close()


# ---- Files of calls --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(make_skill: MakeSkill) -> bytes:
    return records.to_file([encoded(observed(load(make_skill())), number) for number in range(3)])


def test_a_file_of_calls_is_the_same_bytes_each_time_and_comes_back_whole(sound):
    held = records.from_file(sound, "calls.cbor")
    assert len(held) == 3 and len({id_ for id_, _ in held}) == 3
    assert records.to_file(cbor.encode(record) for _, record in held) == sound


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda data: data[:-20], MalformedData, "not deterministic CBOR"),
        (lambda data: data.replace(b"greeter", b"greeted", 1), MalformedData, "the file was changed"),
        (lambda data: data[:-1] + b"\x02", Incompatible, "of version 2; this host reads version 1"),
        (lambda data: cbor.encode({"calls": []}), MalformedData, "snapcount node calls export"),
        (lambda data: cbor.encode({"calls": [1], "format": records.FORMAT, "version": 1}), MalformedData, "record 1: expected an id"),
        (lambda data: cbor.encode({"calls": 7, "format": records.FORMAT, "version": 1}), MalformedData, "not a list"),
        (lambda data: b"", MalformedData, "not deterministic CBOR"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_sound_is_refused_with_one_line(sound, change, kind, words, one_line):
    with pytest.raises(kind) as caught:
        records.from_file(change(sound), "calls.cbor")
    one_line(caught.value, "calls.cbor", words)


@given(at=st.integers(0, 5_000), byte=st.integers(0, 255))
def test_no_changed_byte_of_a_file_is_taken_for_the_truth_or_ends_in_a_defect(sound, at, byte):
    at %= len(sound)
    changed = sound[:at] + bytes([byte]) + sound[at + 1 :]
    try:
        held = records.from_file(changed, "calls.cbor")
    except SnapcountError as error:
        assert str(error).isprintable()
    else:
        assert {id_ for id_, _ in held} <= {id_ for id_, _ in records.from_file(sound, "calls.cbor")}


def test_a_record_has_a_bound(make):
    call = observed(load(make()))
    with pytest.raises(TooLarge):
        records.encode("node-01", replace(call, request=bytes(2 << 20)))


# ---- Replay ----------------------------------------------------------------------------------


def recorded(version: SkillVersion) -> tuple[str, CallRecord]:
    data = encoded(observed(version))
    return records.id_of(data), records.decode(data, "record")


def test_the_same_build_gives_the_same_reply_from_the_record_alone_though_clock_and_state_are_others(make):
    data = make()
    id_, record = recorded(load(data))
    again = replaying.Bench(data, "greeter.wasm", Comparison()).replay(id_, record)
    assert again.same and again.fuel == record.fuel
    assert cbor.decode(record.reply, "reply")["finish_ms"] >= 128, "the reply depends on what the host said"


@pytest.mark.slow
def test_a_build_that_asks_its_host_in_another_order_or_less_is_told_so(make):
    held = recorded(load(make("now random state")))
    other = replaying.Bench(make("random now state", version="1.0.1"), "new.wasm", Comparison()).replay(*held)
    assert "asked random(1) before now_ms()" in other.asked and not other.unanswered
    assert {one.at for one in other.differs} == {"finish_ms", "id"}
    less = replaying.Bench(make("now random", version="1.0.1"), "new.wasm", Comparison()).replay(*held)
    assert any("did not ask state_get('key')" in words and "nor 1 more" in words for words in less.asked)


@pytest.mark.slow
def test_a_build_that_asks_for_what_was_not_recorded_is_ended_there(make):
    held = recorded(load(make("now")))
    result = replaying.Bench(make("now more", version="1.0.1"), "new.wasm", Comparison()).replay(*held)
    assert result.unanswered == "random(2)" and result.outcome == "host_fault" and not result.same
    words = replaying.in_words([result], "sha256:0")
    assert any("asked random(2), to which the record has no answer" in line for line in words)
    assert words[-1].startswith("1 calls replayed: 0 the same")


def test_a_reply_is_compared_field_by_field_within_the_tolerances(make_skill):
    held = recorded(load(make_skill(version="1.0.0")))
    bench = replaying.Bench(make_skill(version="1.0.1"), "new.wasm", Comparison())
    (one,) = bench.replay(*held).differs
    assert one.words("recorded", "now") == 'id: recorded "1.0.0", now "1.0.1"'
    near = Comparison(fields={"a": Tolerance(relative=0.01)})
    assert list(differences({"a": [1.0, 2], "t": "12 kg"}, {"a": [1.005, 2], "t": "12 kg"}, near)) == []
    found = list(differences({"a": [{"b": 1.0}], "x": 1, "t": "5 kg"}, {"a": [{"b": 1.02}], "y": True, "t": "6 kg"}, near))
    assert [(one.field, one.at) for one in found] == [("a.b", "a[0].b"), ("x", "x"), ("t", "t"), ("y", "y")]


def test_what_a_forged_record_says_reaches_no_terminal_as_it_is_and_a_reply_is_read_as_the_host_reads_it(make_skill):
    data = make_skill()
    id_, record = recorded(load(data))
    evil = "\x1b]0;pwn\x07\n"
    forged = msgspec.structs.replace(record, version=evil)
    result = replaying.Result(id_, forged, (Difference(evil, evil, 1, 2),), (evil,), evil)
    assert all(line.isprintable() for line in replaying.in_words([result], "sha256:0"))
    with pytest.raises(MalformedData):
        records.decode(cbor.encode(forged), "record")
    asked = msgspec.structs.replace(record, host_calls=(HostCall(evil, (), 1),))
    assert all(words.isprintable() for words in replaying.Bench(data, "greeter.wasm", Comparison()).replay(id_, asked).asked)
    reply = cbor.decode(record.reply, "reply")
    bench = replaying.Bench(data, "greeter.wasm", Comparison())
    with pytest.raises(MalformedData):
        bench.replay(id_, msgspec.structs.replace(record, reply=cbor.encode(reply | {evil: 1})))


def test_a_call_that_trapped_is_the_same_when_it_traps_again_and_differs_when_it_does_not(make_skill):
    trapping, sound = make_skill(body="(unreachable)"), make_skill()
    held = recorded(load(trapping))
    assert replaying.Bench(trapping, "a.wasm", Comparison()).replay(*held).same
    (one,) = replaying.Bench(sound, "b.wasm", Comparison()).replay(*held).differs
    assert (one.one, one.other) == ("guest_trap", "reply")


def test_a_planned_job_is_replayed_from_its_pieces():
    data = read_bundle(module_path("toolpath-planner"))
    manager, told = PluginManager(), []
    manager.activate(load(data))
    manager.observe(told.append)
    manager.hook.plan_job(program=iter([b"G1 X1 F600\n", b"G1 X20\n"]), settings=PlanSettings(accel_mm_s2=500.0), run=False)
    raw = encoded(told[0])
    assert replaying.Bench(data, "toolpath-planner", Comparison()).replay(records.id_of(raw), records.decode(raw, "record")).same


def test_a_record_of_another_skill_or_hook_is_refused_with_one_line(make_skill, one_line):
    id_, record = recorded(load(make_skill(name="other")))
    bench = replaying.Bench(make_skill(), "greeter.wasm", Comparison())
    with pytest.raises(UsageError) as caught:
        bench.replay(id_, record)
    one_line(caught.value, "greeter.wasm", id_, "other")
    with pytest.raises(UsageError) as caught:
        bench.replay(id_, msgspec.structs.replace(record, skill="greeter", hook="handle"))
    one_line(caught.value, "has no hook handle")
    with pytest.raises(MalformedData):
        bench.replay(id_, msgspec.structs.replace(record, skill="greeter", request=b"\xa0"))


@pytest.mark.slow
def test_a_record_becomes_a_vector_only_where_a_vector_can_hold_it(make, make_skill, tmp_path, one_line):
    data = make_skill()
    held = recorded(load(data))
    path = tmp_path / "vectors" / "recorded.json"
    replaying.save_vector(path, *held)
    ((_, vector),) = vectors.load(path.parent)
    assert vectors.run(data, path, vector).problems == ()
    assert vectors.run(make_skill(version="9.9.9"), path, vector).problems
    with pytest.raises(UsageError) as caught:
        replaying.save_vector(path, *held)
    one_line(caught.value, "there already")
    for version, words in ((load(make()), "now_ms"), (load(make_skill(body="(unreachable)")), "guest_trap")):
        with pytest.raises(UsageError) as caught:
            replaying.save_vector(tmp_path / "no.json", *recorded(version))
        one_line(caught.value, words)
    assert not (tmp_path / "no.json").exists()


# ---- A node ----------------------------------------------------------------------------------


def allow(state: Path, **record: Any) -> None:
    """Changes [record] in a node.toml, as its owner would."""
    path = state / config.FILE
    text = path.read_text()
    for name, value in record.items():
        before = text[text.index("[record]") :].split(f"\n{name} = ", 1)[1].split("\n", 1)[0]
        text = text.replace(f"\n{name} = {before}", f"\n{name} = {json.dumps(value)}", 1)
    path.write_text(text)


async def run(state: Path, data: bytes, use: Callable[[Node, Recording | None], Any]) -> Any:
    node = await asyncio.to_thread(lambda: Node.open(state, MEASURED, log=lambda level, line: None))
    try:
        if data:
            await node.install(data, digest_of(data))
        kept = recording(node, state, MeshLink(node, state))
        try:
            return await asyncio.to_thread(use, node, kept)
        finally:
            if kept is not None:
                await asyncio.to_thread(kept.stop)
    finally:
        node.close()


@pytest.mark.slow
def test_a_node_records_nothing_unless_its_owner_says_so(make_state, make_skill, tmp_path):
    state = make_state(tmp_path / "node", SystemClock())

    def use(node: Node, kept: Recording | None) -> None:
        assert kept is None and node.manager.hook.bid(request=BID)
        assert node.manager.skills["greeter"].observers is None

    asyncio.run(run(state, make_skill(), use))
    assert not (state / FILE).exists()
    settings = config.load(state)
    assert settings.record.sample == 0 and settings.audit.sample == 0 and not settings.audit.auditor


@pytest.mark.slow
def test_a_node_whose_owner_wants_it_records_and_the_calls_go_to_a_desk_and_back(make_state, make, tmp_path):
    state, data = make_state(tmp_path / "node", SystemClock()), make()
    allow(state, sample=1.0, skills=["greeter"])

    def use(node: Node, kept: Recording | None) -> None:
        assert kept is not None
        for _ in range(5):
            assert node.manager.hook.bid(request=BID)
        shown = "\n".join(node_lines(node.status() | {"recording": kept.status()}))
        assert " calls kept, " in shown and "0 lost" in shown

    asyncio.run(run(state, data, use))
    (tmp_path / "greeter.wasm").write_bytes(data)
    (tmp_path / "new.wasm").write_bytes(make(version="1.1.0"))
    runner = CliRunner()

    def snapcount(*arguments: Any, code: int = 0) -> str:
        ended = runner.invoke(app, [str(argument) for argument in arguments])
        assert ended.exit_code == code, (ended.output, ended.exception)
        return ended.output

    listed = json.loads(snapcount("node", "calls", "--state", state, "--json").splitlines()[-1])
    assert listed["kept"] == 5 and {row["outcome"] for row in listed["calls"]} == {"reply"}
    assert listed["calls"][0]["id"] in snapcount("node", "calls", "--skill", "greeter", "--state", state)
    out = tmp_path / "calls.cbor"
    first, second = (row["id"] for row in listed["calls"][:2])
    snapcount("node", "calls", "export", first, second[:9], "--state", state, "--out", out)
    assert "2 calls replayed: 2 the same" in snapcount("skill", "replay", tmp_path / "greeter.wasm", out)
    assert "5 calls replayed: 5 the same" in snapcount("skill", "replay", tmp_path / "greeter.wasm", "--state", state)
    shown = snapcount("skill", "replay", tmp_path / "new.wasm", out, "--id", first[:8], code=1)
    assert 'id: recorded "1.0.0", now "1.1.0"' in shown and "1 calls replayed: 0 the same, 1 with another reply" in shown
    found = json.loads(snapcount("skill", "replay", tmp_path / "new.wasm", out, "--json", code=1).splitlines()[-1])
    assert found["differ"] == 2 and found["calls"][0]["differs"] == [{"field": "id", "at": "id", "recorded": "1.0.0", "now": "1.1.0"}]
    snapcount("node", "calls", "export", "--skill", "greeter", "--state", state, "--out", tmp_path / "all.cbor")
    assert len(replaying.read(tmp_path / "all.cbor")) == 5


@pytest.mark.parametrize("damage", ["garbage", "folder"])
def test_a_journal_of_calls_that_cannot_be_used_costs_the_records_and_not_the_node(make_state, make_skill, tmp_path, damage, one_line):
    state = make_state(tmp_path / "node", SystemClock())
    allow(state, sample=1.0)
    if damage == "garbage":
        (state / FILE).write_bytes(b"not a database " * 500)
    else:
        (state / FILE).mkdir()
    said: list[str] = []

    async def started() -> Recording | None:
        node = Node.open(state, MEASURED, log=lambda level, line: said.append(line))
        try:
            return recording(node, state, MeshLink(node, state))
        finally:
            node.close()

    assert asyncio.run(started()) is None
    one_line(said[-1], "no calls are recorded", FILE)


@pytest.mark.slow
def test_calls_of_a_version_that_somebody_tries_out_on_a_node_are_not_recorded(make_state, make, tmp_path):
    state, tried = make_state(tmp_path / "node", SystemClock()), make(version="1.0.1-dev.1")
    allow(state, sample=1.0)

    def use(node: Node, kept: Recording | None) -> None:
        assert kept is not None
        asyncio.run(node.try_out("greeter", tried, digest_of(tried)))
        assert node.manager.hook.bid(request=BID)[0].id == "1.0.1-dev.1"
        asyncio.run(node.end_trial("greeter"))
        assert node.manager.hook.bid(request=BID)[0].id == "1.0.0"

    asyncio.run(run(state, make(), use))
    journal = open_existing(state)
    assert [row["version"] for row in journal.rows()] == ["1.0.0"]
    journal.close()


@pytest.mark.slow
def test_when_a_later_part_cannot_begin_those_before_it_end(make_state, make_skill, tmp_path, one_line):
    state, said = make_state(tmp_path / "node", SystemClock()), []

    async def started() -> None:
        node = Node.open(state, MEASURED, log=lambda level, line: said.append(line))
        try:
            await node.install(make_skill(), digest_of(make_skill()))
            wanted = config.Audit(sample=1.0, send_to=("auditor-1",), auditor=True, compare={"greeter": Comparison()})
            mesh = config.Mesh(role="agent", parents=("ws://127.0.0.1:1",))
            node.config = msgspec.structs.replace(node.config, record=config.Record(sample=1.0), audit=wanted, mesh=mesh)
            (state / "identity" / "cache.key").write_bytes(b"short")
            assert recording(node, state, MeshLink(node, state)) is None
            assert node.manager.skills["greeter"].observers is None
            assert not [thread.name for thread in threading.enumerate() if thread.name == "snapcount-calls"]
        finally:
            node.close()

    asyncio.run(started())
    one_line(said[-1], "no calls are recorded")


def test_what_an_owner_writes_about_recording_and_auditing_is_checked(one_line):
    for text, words in (
        ("[record]\nsample = 1.5", "record.sample"),
        ("[record]\nbytes_max = 5", "record.bytes_max"),
        ("[audit]\nsample = 0.1", "send_to"),
        ("[audit]\nauditor = true", "audit.compare"),
        ("[audit]\nsample = 0.1\nsend_to = ['a']", "mesh.role"),
        ("[audit]\ncalls_per_s = 100", "calls_per_s"),
        ("[audit]\nauditor = true\n[audit.compare.greeter]", "an auditor is an agent of a mesh"),
    ):
        with pytest.raises(MalformedData) as caught:
            toml.decode(f"{text}\n[node]\nname = 'n'\nowner = 'o'\n".encode(), config.NodeConfig, "node.toml")
        one_line(caught.value, words)
