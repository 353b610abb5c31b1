"""Probation: a new version is watched, kept or taken back, over restarts, kills, full disks and clocks that jump."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import host
from host.core import cbor
from host.core.attestation import Measurement
from host.core.commands import Move, Status
from host.core.errors import GuestError, HostFault, Incompatible, SnapcountError, StorageFull
from host.core.limits import DEFAULT
from host.core.manifest import SkillLimits
from host.node import Node
from host.plugins.contract import BidReply
from host.plugins.tally import KINDS, Tally
from host.supply import probation
from host.supply.installer import CRASH_POINTS
from host.supply.probation import CALLS_MIN, CRASHES_MAX, FAULTS_MIN, MARGIN, Ended, Watch, wilson_lower
from host.supply.store import RETURNED
from host.supply.watcher import ELAPSED_MS_MAX, POINTS, SAVE_MS
from sdk.demo.samples import BID

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
YEAR_MS = 365 * 86_400_000
WINDOW_S = 600
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]
QUICK = SkillLimits(fuel=5_000_000, deadline_ms=50, memory_bytes=1 << 20)
TRAPS, LOOPS = "(unreachable)", "(loop $l (br $l)) (i64.const 0)"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# The rules.


def watch(**fields: Any) -> Watch:
    digest = f"sha256:{'1' * 64}"
    return Watch(
        **({"name": "greeter", "version": "1.1.0", "digest": digest, "content": digest, "previous": digest, "window_s": 10} | fields)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_that_is_clearly_above_the_former_one_speaks_against_a_version(kind: str) -> None:
    def cause(faults: int, calls: int, former: int = 0, former_calls: int = 100) -> str:
        return probation.cause(watch(baseline=Tally(calls=former_calls, **{kind: former})), Tally(calls=calls, **{kind: faults}))

    assert probation.IN_WORDS[kind] in cause(5, 5)
    assert cause(5, 20) and cause(100, 1000)
    assert not cause(0, 1000)
    assert not cause(FAULTS_MIN - 1, CALLS_MIN)
    assert not cause(CALLS_MIN - 1, CALLS_MIN - 1)  # too few calls
    assert not cause(40, 1000)  # within the margin
    assert not cause(50, 100, former=50)  # as bad as before
    assert not cause(55, 100, former=50)
    assert cause(80, 100, former=50)
    assert cause(5, 5, former_calls=0)  # nothing is known of before: it is to work


def test_what_was_counted_before_the_probation_is_not_held_against_it() -> None:
    since = Tally(calls=100, traps=100)
    assert not probation.cause(watch(since=since), since)
    assert not probation.cause(watch(since=since), Tally(calls=110, traps=100))
    assert probation.cause(watch(since=since), Tally(calls=110, traps=110))
    assert not probation.cause(watch(since=since), Tally())  # a journal that was lost


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_lower_bound_is_below_the_rate_and_grows_with_the_sample(hits: int, of: int) -> None:
    hits = min(hits, of)
    bound = wilson_lower(hits, of)
    assert 0 <= bound <= hits / of + 1e-9
    assert wilson_lower(10 * hits, 10 * of) >= bound - 1e-9


def test_nothing_but_time_with_it_ends_a_window() -> None:
    seen = watch()
    assert not seen.over
    assert not probation.advanced(seen, 9_999).over
    assert probation.advanced(probation.advanced(seen, 9_999), 1).over


def test_kills_in_a_row_soon_after_a_start_speak_against_a_version_and_nothing_else_does() -> None:
    seen = watch()
    for crash in range(1, CRASHES_MAX + 1):
        assert not seen.cause
        seen = probation.started(probation.advanced(seen, 1_000))
        assert seen.crashes == crash
    assert f"killed {CRASHES_MAX} times" in seen.cause
    for between in (probation.stopped, lambda was: probation.advanced(was, probation.CRASH_MS)):
        seen = probation.started(probation.started(watch()))
        assert seen.crashes == 2
        seen = probation.started(between(seen))
        assert (seen.crashes, seen.cause) == (0, "")


# On a node.


@dataclass
class Bench:
    """A node, and a clock that a test moves."""

    state: Path
    clock: Any
    node: Node
    log: list[tuple[str, str]] = field(default_factory=list)

    def install(self, data: bytes, *, probation_s: int = WINDOW_S, **options: bool) -> None:
        asyncio.run(self.node.install(data, digest_of(data), probation_s=probation_s, **options))

    def bids(self) -> list[str]:
        return [reply.id for reply in asyncio.run(self.node.call("bid", BID))]

    def call(self, times: int) -> None:
        """Calls that may fail, as the skill pleases."""
        for _ in range(times):
            try:
                self.bids()
            except GuestError:
                continue

    def tick(self, ms: int = 1_000, *, wall_ms: int | None = None) -> list[Ended]:
        self.clock.monotonic += ms
        self.clock.now += ms if wall_ms is None else wall_ms
        return asyncio.run(self.node.tick())

    def watch_for(self, seconds: int) -> list[Ended]:
        ended = []
        while seconds > 0:
            ended += self.tick(min(seconds * 1000, 10_000))
            seconds -= 10
        return ended

    def on_probation(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.node.status()["skills"][0]["probation"]
        return found

    def reopen(self) -> None:
        self.node.close()
        self.open()

    def crash(self) -> None:
        """As if it had been killed: nothing more is written."""
        self.node.journal.close()
        self.open()

    def open(self) -> None:
        self.log.clear()
        self.node = open_node(self.state, self.clock, self.log)

    def journal(self) -> list[tuple[str, str, str]]:
        return [(row["version"], row["outcome"], row["detail"]) for row in self.node.journal.installs()]

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.state / "skills" / "greeter").glob("*.json"))


def open_node(state: Path, clock: Any, log: list[tuple[str, str]]) -> Node:
    return Node.open(state, MEASURED, clock=clock, log=lambda level, line: log.append((level, line)))


@pytest.fixture
def bench(tmp_path: Path, clock: Any, make_state: Callable[..., Path], make_skill: MakeSkill) -> Iterator[Bench]:
    state = make_state(tmp_path / "node", clock, native=("virtual_machine",))
    log: list[tuple[str, str]] = []
    made = Bench(state, clock, open_node(state, clock, log), log)
    made.install(make_skill(), probation_s=0)
    yield made
    made.node.close()


@pytest.mark.slow
def test_a_version_that_nothing_speaks_against_is_kept_when_its_window_is_over(bench: Bench, make_skill: MakeSkill) -> None:
    new = make_skill(version="1.1.0")
    bench.install(new)
    assert bench.on_probation() == {"window_s": WINDOW_S, "watched_s": 0, "previous": digest_of(make_skill())}
    bench.call(20)
    assert bench.watch_for(WINDOW_S - 10) == []
    (ended,) = bench.watch_for(10)
    assert (ended.name, ended.version, ended.digest, ended.state, ended.now) == ("greeter", "1.1.0", digest_of(new), "active", "1.1.0")
    assert bench.journal()[0][:2] == ("1.1.0", "kept")
    assert (bench.bids(), bench.on_probation(), bench.files()) == (["1.1.0"], None, [])
    bench.reopen()
    assert (bench.bids(), bench.on_probation(), bench.tick()) == (["1.1.0"], None, [])


KINDS_OF_BAD = {
    "traps": {"body": TRAPS},
    "replies that are none": {"body": "(i64.const 0x7fffffff00000010)"},
    "fuel": {"body": LOOPS, "limits": QUICK},
    "deadline": {"body": LOOPS, "limits": SkillLimits(fuel=10**12, deadline_ms=50, memory_bytes=1 << 20)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_BAD)
def test_a_version_that_does_badly_goes_back_by_itself_and_says_why(
    kind: str, bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    bench.call(20)
    bad = make_skill(version="1.1.0", **KINDS_OF_BAD[kind])
    bench.install(bad)
    bench.call(CALLS_MIN - 1)
    assert bench.tick() == []
    bench.call(1)
    (ended,) = bench.tick()
    assert (ended.version, ended.state, ended.now) == ("1.1.0", "rolled-back", "1.0.0")
    one_line(ended.cause, "5 of 5", "0.0% with the version before")
    assert bench.bids() == ["1.0.0"]
    version, outcome, detail = bench.journal()[0]
    assert (version, outcome) == ("1.1.0", "rolled back") and ended.cause in detail
    assert bench.files() == [RETURNED]
    assert any(ended.cause in line for level, line in bench.log if level == "error")
    blob = bench.state / "blobs" / "sha256" / digest_of(bad)[7:]
    assert not blob.exists()
    bench.reopen()
    assert (bench.bids(), bench.tick(), bench.on_probation()) == (["1.0.0"], [], None)


def asking(make: MakeSkill, version: str, request: bytes) -> bytes:
    """A skill whose bid gives one command to the machine."""
    escaped = "".join(f"\\{byte:02x}" for byte in request)
    reply = cbor.encode(BidReply(cost=1.0, finish_ms=1, id=version, reason="greeter"))
    return make(
        version=version, capabilities=("motion",), imports='(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32))) '
        f'(data (i32.const 8192) "motion") (data (i32.const 8256) "{escaped}")',
        body=f"(drop (call $call (i32.const 8192) (i32.const 6) (i32.const 8256) (i32.const {len(request)}) (i32.const 12288) (i32.const 4096))) "
        f"(i64.const {1024 << 32 | len(reply)})",
    )  # fmt: skip


@pytest.mark.slow
def test_commands_that_the_envelope_refuses_speak_against_a_version_but_not_in_safe_mode(bench: Bench, make_skill: MakeSkill) -> None:
    far = cbor.encode(Move(moves=((9_999.0, 0.0, 0.0, 1.0),)))
    bench.install(asking(make_skill, "1.1.0", far))
    bench.node.envelope.trip("a drill", 0)
    bench.call(20)  # everybody is refused everything
    assert bench.tick() == []
    bench.node.envelope.tripped = None
    bench.call(20)
    (ended,) = bench.tick()
    assert "20 of 40 calls gave commands that were refused" in ended.cause
    assert bench.bids() == ["1.0.0"]
    bench.install(asking(make_skill, "1.2.0", cbor.encode(Status())))
    bench.call(20)
    assert bench.tick() == []


@pytest.mark.slow
def test_a_version_that_is_as_bad_as_the_one_before_is_kept_also_when_the_node_restarts_between(
    bench: Bench, make_skill: MakeSkill
) -> None:
    bench.install(make_skill(version="1.1.0", body=TRAPS), probation_s=0)
    bench.call(20)
    bench.reopen()  # what was counted of the version before outlives it
    bench.install(make_skill(version="1.2.0", body=TRAPS))
    bench.call(20)
    bench.reopen()
    bench.call(20)
    (ended,) = bench.watch_for(WINDOW_S)
    assert (ended.version, ended.state) == ("1.2.0", "active")


@pytest.mark.slow
def test_what_was_seen_before_a_restart_counts(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0", body=TRAPS))
    bench.call(CALLS_MIN - 1)
    bench.reopen()
    assert bench.tick() == []
    bench.call(1)
    (ended,) = bench.tick()
    assert "5 of 5" in ended.cause


@pytest.mark.slow
def test_a_first_version_that_does_badly_is_taken_off(bench: Bench, make_skill: MakeSkill) -> None:
    first = make_skill(name="newcomer", body=TRAPS)
    bench.install(first)
    bench.call(5)
    (ended,) = bench.tick()
    assert (ended.name, ended.state, ended.now) == ("newcomer", "rolled-back", "")
    assert "no version before" in ended.cause
    assert [skill.name for skill in bench.node.skills()] == ["greeter"]
    with pytest.raises(Incompatible):
        bench.install(first)
    bench.reopen()
    assert [skill.name for skill in bench.node.skills()] == ["greeter"]
    assert bench.tick() == []


@pytest.mark.slow
@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS])
def test_a_clock_that_jumps_by_a_year_neither_ends_a_window_nor_prolongs_it(jump_ms: int, bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    assert bench.watch_for(WINDOW_S // 2) == []
    assert bench.tick(0, wall_ms=jump_ms) == []
    bench.reopen()
    assert bench.watch_for(WINDOW_S // 2 - 10) == []
    assert len(bench.watch_for(10)) == 1


@pytest.mark.slow
def test_a_window_goes_on_after_a_restart_with_the_time_that_is_left(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    bench.watch_for(WINDOW_S - 100)
    bench.clock.advance(YEAR_MS)  # the node was off
    bench.reopen()
    found = bench.on_probation()
    assert found is not None and found["watched_s"] == WINDOW_S - 100
    assert bench.watch_for(90) == []
    assert len(bench.watch_for(10)) == 1


@pytest.mark.slow
def test_time_that_nobody_looked_does_not_count_in_full(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    bench.tick(WINDOW_S * 1000 * 10)
    found = bench.on_probation()
    assert found is not None and found["watched_s"] == ELAPSED_MS_MAX // 1000


@pytest.mark.slow
def test_a_node_that_is_killed_again_and_again_soon_after_its_start_goes_back_without_loading_it(
    bench: Bench, make_skill: MakeSkill
) -> None:
    bench.install(make_skill(version="1.1.0"))
    for _ in range(CRASHES_MAX - 1):
        bench.tick()
        bench.crash()
        assert bench.bids() == ["1.1.0"]
    bench.crash()
    assert bench.bids() == ["1.0.0"]
    (ended,) = bench.tick()
    assert (ended.version, ended.state, ended.now) == ("1.1.0", "rolled-back", "1.0.0")
    assert f"killed {CRASHES_MAX} times" in ended.cause


@pytest.mark.slow
def test_kills_long_after_a_start_and_orderly_stops_are_no_crash_loop(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"), probation_s=100_000)
    for _ in range(CRASHES_MAX + 1):
        bench.watch_for(probation.CRASH_MS // 1000 + SAVE_MS // 1000)
        bench.crash()
    for _ in range(CRASHES_MAX + 1):
        bench.tick()
        bench.reopen()
    assert bench.bids() == ["1.1.0"]


@pytest.mark.slow
def test_what_probation_went_back_from_comes_by_no_push_but_when_it_is_asked_for_anew(
    bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    bad = make_skill(version="1.1.0", body=TRAPS)
    bench.install(bad)
    bench.call(5)
    bench.tick()
    for options in ({}, {"downgrade": True}):
        with pytest.raises(Incompatible) as caught:
            bench.install(bad, **options)
        one_line(caught.value, "greeter 1.1.0", "probation", "newer version")
    bench.install(bad, again=True)
    bench.call(5)
    (ended,) = bench.tick()  # it is as bad as it was
    assert (ended.version, ended.state) == ("1.1.0", "rolled-back")
    bench.install(make_skill(version="1.1.1"))
    assert bench.bids() == ["1.1.1"]


@pytest.mark.slow
def test_the_owners_roll_back_ends_a_probation_and_nothing_brings_that_version_again(bench: Bench, make_skill: MakeSkill) -> None:
    new = make_skill(version="1.1.0")
    bench.install(new)
    asyncio.run(bench.node.roll_back("greeter"))
    assert bench.on_probation() is None
    assert bench.watch_for(WINDOW_S) == []
    with pytest.raises(Incompatible, match="the owner of this node went back from it"):
        bench.install(new, again=True, downgrade=True)


@pytest.mark.slow
def test_an_earlier_version_comes_back_only_where_that_is_asked_for(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"), probation_s=0)
    with pytest.raises(Incompatible, match="older than the active version"):
        bench.install(make_skill())
    bench.install(make_skill(), downgrade=True)
    assert bench.bids() == ["1.0.0"]
    with pytest.raises(SnapcountError):  # and trust is asked for all the same
        bench.install(make_skill(version="0.9.0", signer=None), downgrade=True)


@pytest.mark.slow
def test_versions_that_follow_each_other_on_probation_go_back_to_the_last_that_was_kept(bench: Bench, make_skill: MakeSkill) -> None:
    for minor in range(1, DEFAULT.versions_kept + 3):
        bench.install(make_skill(version=f"1.{minor}.0", body=TRAPS))
    bench.call(5)
    (ended,) = bench.tick()
    assert (ended.now, bench.bids()) == ("1.0.0", ["1.0.0"])


@pytest.mark.slow
def test_the_same_version_pushed_again_begins_nothing_anew(bench: Bench, make_skill: MakeSkill) -> None:
    new = make_skill(version="1.1.0")
    bench.install(new)
    bench.watch_for(WINDOW_S // 2)
    bench.install(new)
    bench.install(new, probation_s=0)
    assert len(bench.watch_for(WINDOW_S // 2)) == 1


@pytest.mark.slow
def test_an_install_that_fails_leaves_the_probation_of_the_active_version_as_it_was(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"))
    bench.watch_for(100)
    before = bench.files()
    for bad in (make_skill(version="1.2.0", ok=False), make_skill(version="1.2.0", signer=None)):
        with pytest.raises(SnapcountError):
            bench.install(bad)
    found = bench.on_probation()
    assert (bench.files(), found and found["watched_s"]) == (before, 100)


@pytest.mark.slow
def test_where_the_version_before_is_damaged_an_earlier_one_comes_back(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(version="1.1.0"), probation_s=0)
    bench.install(make_skill(version="1.2.0", body=TRAPS))
    (bench.state / "blobs" / "sha256" / digest_of(make_skill(version="1.1.0"))[7:]).write_bytes(b"damaged")
    bench.call(5)
    (ended,) = bench.tick()
    assert (ended.now, bench.bids()) == ("1.0.0", ["1.0.0"])


@pytest.mark.slow
def test_where_nothing_works_that_was_before_the_version_stays_and_going_back_is_tried_again(bench: Bench, make_skill: MakeSkill) -> None:
    old = make_skill()
    bench.install(make_skill(version="1.1.0", body=TRAPS))
    blob = bench.state / "blobs" / "sha256" / digest_of(old)[7:]
    blob.write_bytes(b"damaged")
    bench.call(5)
    assert bench.tick() == []
    assert bench.journal()[0][1] == "failed" and "taken back" in bench.journal()[0][2]
    blob.write_bytes(old)
    assert bench.tick() == []  # not each second
    assert [ended.now for ended in bench.watch_for(70)] == ["1.0.0"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"name": "other"}'])
def test_a_damaged_probation_is_said_and_its_version_stays(damage: bytes, bench: Bench, make_skill: MakeSkill, one_line: OneLine) -> None:
    bench.install(make_skill(version="1.1.0"))
    (path,) = (bench.state / "skills" / "greeter").glob("probation-*")
    bench.node.close()
    path.write_bytes(damage)
    bench.open()
    one_line(next(line for level, line in bench.log if level == "error"), "greeter", "probation")
    assert (bench.bids(), bench.on_probation(), bench.files()) == (["1.1.0"], None, [])


# Full disks.


@pytest.mark.slow
def test_a_version_that_does_badly_goes_back_though_nothing_can_be_written(
    bench: Bench, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = make_skill(version="1.1.0", body=TRAPS)
    bench.install(bad)
    bench.call(5)

    def full(*arguments: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr("host.core.files.write_atomic", full)
        (ended,) = bench.tick()
        assert (ended.state, bench.bids()) == ("rolled-back", ["1.0.0"])
        assert bench.files() != [RETURNED]
    bench.tick()
    assert bench.files() == [RETURNED]
    with pytest.raises(Incompatible):
        bench.install(bad)


@pytest.mark.slow
def test_on_a_really_full_disk_nothing_is_half_done_and_it_goes_back_all_the_same(
    tmp_path: Path, clock: Any, make_state: Callable[..., Path], make_skill: MakeSkill
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        log: list[tuple[str, str]] = []
        state = make_state(disk / "node", clock, native=("virtual_machine",))
        bench = Bench(state, clock, open_node(state, clock, log), log)
        bench.install(make_skill(), probation_s=0)
        bench.install(make_skill(version="1.1.0", body=TRAPS))
        bench.call(5)
        ballast = disk / "ballast"
        with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(HostFault):
            bench.install(make_skill(version="1.2.0"))
        assert [ended.now for ended in bench.tick()] == ["1.0.0"]
        assert bench.bids() == ["1.0.0"]
        ballast.unlink()
        bench.tick()
        bench.reopen()
        assert (bench.bids(), bench.files()) == (["1.0.0"], [RETURNED])
        bench.install(make_skill(version="1.2.0"))
        assert bench.bids() == ["1.2.0"]
        bench.node.close()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# Killed.

SCRIPT = """
import asyncio, hashlib, os, signal, sys
from pathlib import Path
from host.core.attestation import Measurement
from host.core.errors import GuestError
from host.node import Node
from sdk.demo.samples import BID

state, bundle, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

class Clock:
    monotonic = 0
    def now_ms(self): return 1_700_000_000_000 + self.monotonic
    def monotonic_ms(self): return self.monotonic

def reach(reached):
    if reached == point:
        os.kill(os.getpid(), signal.SIGKILL)

clock = Clock()
node = Node.open(state, Measurement("sha256:" + "0" * 64, sealed=False, files=1), clock=clock, log=lambda level, line: None, reach=reach)
data = bundle.read_bytes()
asyncio.run(node.install(data, "sha256:" + hashlib.sha256(data).hexdigest(), probation_s=60))
for _ in range(10):
    try:
        asyncio.run(node.call("bid", BID))
    except GuestError:
        pass
for _ in range(10):
    clock.monotonic += 10_000
    asyncio.run(node.tick())
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_a_probation_leaves_one_version_and_is_finished_at_the_next_start(
    point: str, bench: Bench, make_skill: MakeSkill, tmp_path: Path
) -> None:
    good = point in ("watching", "kept")
    new = make_skill(version="1.1.0", **({} if good else {"body": TRAPS}))
    bundle = tmp_path / "bundle.wasm"
    bundle.write_bytes(new)
    bench.node.close()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(bench.state), str(bundle), point], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    bench.open()
    assert bench.bids() == (["1.1.0"] if point == "kept" else ["1.0.0"])
    assert bench.on_probation() is None
    ended = bench.tick()
    if good:
        assert (ended, bench.files()) == ([], [])
        bench.install(new)
        assert bench.bids() == ["1.1.0"]
        return
    assert [one.state for one in ended] == ([] if point == "cleared" else ["rolled-back"])
    assert bench.files() == [RETURNED]
    with pytest.raises(Incompatible, match="probation"):
        bench.install(new)
    bench.reopen()
    assert (bench.bids(), bench.tick()) == (["1.0.0"], [])


@pytest.mark.slow
def test_a_version_that_kills_its_node_each_time_is_gone_after_the_third(bench: Bench, make_skill: MakeSkill, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.wasm"
    bundle.write_bytes(make_skill(version="1.1.0"))
    bench.node.close()
    install = SCRIPT.replace("for _ in range(10):\n    try", "os.kill(os.getpid(), signal.SIGKILL)\nfor _ in range(10):\n    try")
    start = install.replace("asyncio.run(node.install(", "0 and asyncio.run(node.install(")
    for script in (install, *[start] * (CRASHES_MAX - 1)):
        arguments = [sys.executable, "-P", "-c", script, str(bench.state), str(bundle), ""]
        killed = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    bench.open()
    assert bench.bids() == ["1.0.0"]
    assert [one.state for one in bench.tick()] == ["rolled-back"]


def test_every_point_has_a_name_that_a_node_can_be_killed_at() -> None:
    assert set(POINTS) < set(CRASH_POINTS)
    assert len(set(CRASH_POINTS)) == len(CRASH_POINTS)
    assert MARGIN > 0
