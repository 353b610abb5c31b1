"""sdk.testing: the fake host and its faults, golden vectors, and that `skill test` finds what is wrong with skills that are wrong on purpose."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from wasmtime import wat2wasm

from host.core import cbor
from host.core.bundle import with_manifest
from host.core.commands import Dwell, Home, Move
from host.core.errors import CapabilityDenied, FuelExhausted, Incompatible, MachineError, MalformedData, SkillRefused, TooLarge, UsageError
from host.core.manifest import Manifest, SkillLimits
from host.plugins.contract import (
    SHAPES,
    STREAMING,
    BidReply,
    BoundingBox,
    HandleRequest,
    MoveCounts,
    PathLengths,
    PlanJobRequest,
    PlanProgress,
    PlanReport,
    PlanSettings,
)  # fmt: skip
from sdk import project, samples, vectors
from sdk.cli.main import app
from sdk.demo.samples import BID, LOT
from sdk.local import MemoryState, read_bundle
from sdk.testing import (
    ClockJump,
    ContractBroken,
    DriverFails,
    DriverTimesOut,
    FakeHost,
    FuelCut,
    Job,
    RefusedCommand,
    SafeMode,
    ScriptedDriver,
    ScriptMismatch,
    StateFull,
    Step,
    VirtualClock,
    determinism,
    golden,
    require_survives,
    resilience,
    strategies,
)
from sdk.testing.check import Budget
from sdk.testing.damage import damaged
from sdk.testing.scripts import Script
from sdk.testing.suite import Options, Report, Suite
from skills import module_path

SOURCES = Path(__file__).resolve().parents[1] / "skills"
SHIPPED = sorted(path.parent.name for path in SOURCES.glob("*/*.wasm"))
START = HandleRequest(
    at_ms=1_795_000_000_000, correlation=b"c" * 16, id=b"i" * 16, payload=cbor.encode({"feed_mm_min": 600.0, "job": "frame-7", "to_mm": [10.0, 20.0, 5.0]}),
    phase="prepare", priority=2, source="lead-1", topic="cell.start", verb="act", weight=0.0,
)  # fmt: skip
BEGIN = msgspec.structs.replace(START, phase="act")
MOVE = Move(((10.0, 20.0, 5.0, 10.0),))


def cell(**told: object) -> FakeHost:
    return FakeHost(module_path("cell-start"), **told)  # type: ignore[arg-type]  # as the test says


# ---- The fake host -----------------------------------------------------------------------------


def test_a_fake_host_keeps_state_moves_its_machine_and_is_as_new_after_a_reset():
    host = cell()
    assert host.call("handle", START).detail == "Ready for job frame-7."
    host.call("handle", BEGIN)
    assert host.machine.position_mm == (10.0, 20.0, 5.0)
    assert len(host.state.values) > 0
    assert [call.hook for call in host.calls] == ["handle", "handle"]
    assert host.watch.peaks.fuel == max(call.fuel for call in host.calls) > 0
    fuel = host.calls[0].fuel
    host.reset()
    assert (host.state.values, host.machine.moves, host.calls) == ({}, 0, [])
    host.call("handle", START)
    assert host.calls[0].fuel == fuel


def test_a_request_may_be_written_as_in_a_vector_and_one_that_no_node_sends_is_refused():
    host = FakeHost(module_path("bounty-bidder"))
    _, vector = vectors.load(SOURCES / "bounty-bidder" / "vectors")[0]
    assert host.call("bid", vector.request) == host.call("bid", vectors.requests(vector, "x")[0])
    with pytest.raises(UsageError, match="a node never sends such a one"):
        host.call("bid", {"margin": 1.0})
    with pytest.raises(UsageError, match=r"plan\(\) for plan_job"):
        host.call("plan_job", {})


def test_the_clock_moves_only_when_it_is_told_to_and_a_jump_is_not_time_that_passes():
    clock = VirtualClock(1_000, step_ms=0)
    clock.advance(10)
    assert (clock.now_ms(), clock.monotonic_ms()) == (1_010, 10)
    clock.jump(-500)
    assert (clock.now_ms(), clock.monotonic_ms()) == (510, 10)
    clock.jump_at(2, 5_000)
    assert [clock.now_ms() for _ in range(3)] == [510, 5_510, 5_510]
    host = cell(step_ms=7)
    host.call("handle", START)
    assert host.clock.monotonic_ms() == 7


def test_state_in_memory_has_the_quota_of_a_node():
    state = MemoryState(10)
    assert state.set(b"key", b"1234567")
    assert not state.set(b"k", b"1")
    assert state.set(b"key", b"7654321")
    assert state.set(b"key", b"")
    assert state.set(b"k", b"1")


@pytest.mark.parametrize(("told", "expected"), [({"generation": 9}, Incompatible), ({"allowed": ("state",)}, CapabilityDenied)])
def test_a_node_that_does_not_do_refuses_the_skill_as_a_node_does(told, expected, one_line):
    with pytest.raises(expected) as caught:
        cell(**told)
    one_line(caught.value, "cell-start 1.0.0")


def test_an_older_host_and_one_without_a_feature_refuse_the_skill(make_skill):
    data = make_skill(host_min="0.1.0", features=("flags",))
    FakeHost(data, host="0.1.0")
    with pytest.raises(Incompatible, match=r"needs host 0\.1\.0 or newer, this is host 0\.0\.9"):
        FakeHost(data, host="0.0.9")
    with pytest.raises(Incompatible, match="needs the host features flags"):
        FakeHost(data, host="0.1.0", features=())


# ---- A driver with a script --------------------------------------------------------------------


def test_a_script_that_is_followed_answers_as_it_says():
    host = cell(driver=ScriptedDriver(Step(MOVE)))
    host.call("handle", START)
    assert host.call("handle", BEGIN).detail == "Job frame-7 has begun."
    host.driver.inner.done()
    host.reset()
    host.call("handle", START)
    host.call("handle", BEGIN)
    host.driver.inner.done()


def test_a_script_refuses_and_the_skill_is_told_the_machines_error():
    host = cell(driver=ScriptedDriver(Step(MOVE, error=MachineError("the door is open"))))
    host.call("handle", START)
    assert "machine_error: the door is open" in host.call("handle", BEGIN).detail


def test_what_the_envelope_refuses_never_reaches_the_script():
    limits = "travel_mm = {x = [0, 5], y = [0, 5], z = [0, 5]}\nspeed_mm_s = {max = 100}\nrate = {moves_per_s = 1e6, burst = 1000}"
    host = cell(driver=ScriptedDriver(), limits=limits)
    host.call("handle", START)
    assert "unsafe_command: x = 10 mm is outside the travel" in host.call("handle", BEGIN).detail
    host.driver.inner.done()
    assert [refusal.command for refusal in host.refusals] == ["move"]


def test_another_command_than_the_scripts_fails_with_a_diff_that_shows_both():
    host = cell(driver=ScriptedDriver(Step(Home()), Step(MOVE)))
    host.call("handle", START)
    with pytest.raises(ScriptMismatch) as caught:
        host.call("handle", BEGIN)
    assert str(caught.value).splitlines() == [
        "the skill gave other commands than the script:", "  - Home()", "    Move(moves=((10.0, 20.0, 5.0, 10.0),))",
    ]  # fmt: skip


def test_commands_that_did_not_come_are_told_at_the_end():
    driver = ScriptedDriver(Step(None), Step(Dwell(5)))
    host = cell(driver=driver)
    host.call("handle", START)
    host.call("handle", BEGIN)
    with pytest.raises(ScriptMismatch, match=r"1 command\(s\) of the script did not come(.|\n)*- Dwell\(ms=5\)"):
        driver.done()


# ---- Faults ------------------------------------------------------------------------------------


def test_a_fault_ends_with_its_block():
    host = cell()
    host.call("handle", START)
    with host.fault(FuelCut(share=0.5)), pytest.raises(FuelExhausted):
        host.call("handle", BEGIN)
    assert host.call("handle", BEGIN).detail == "Job frame-7 has begun."


def test_a_share_of_fuel_needs_a_call_before():
    for fault in (FuelCut(share=0.5), FuelCut(), FuelCut(units=1, share=0.5)):
        with pytest.raises(UsageError, match="FuelCut"), cell().fault(fault):
            pass


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        (FuelCut(units=1_000), "fault"),
        (RefusedCommand(), "reply"),
        (DriverFails(), "reply"),
        (DriverTimesOut(), "reply"),
        (SafeMode(), "reply"),
        (StateFull(), "error"),
        (ClockJump(), "reply"),
        (ClockJump(ms=5, at_read=1), "reply"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_shipped_skill_survives_each_fault(fault, ends):
    assert require_survives(cell(), "handle", BEGIN, fault, before=[START]).kind == ends


def test_each_fault_is_what_the_skill_and_the_audit_are_told():
    host = cell()
    told = {}
    for fault in (RefusedCommand(), DriverFails(), DriverTimesOut(after_ms=50), SafeMode()):
        host.reset()
        host.call("handle", START)
        with host.fault(fault):
            told[type(fault)] = host.call("handle", BEGIN).detail
        assert host.machine.moves == 0
        assert len(host.refusals) == isinstance(fault, RefusedCommand | SafeMode)
    assert "unsafe_command: command 1 is refused" in told[RefusedCommand]
    assert "machine_error: the machine cannot be reached" in told[DriverFails]
    assert "host_fault: the machine did not answer within 50 ms" in told[DriverTimesOut]
    assert "safe_mode: safe mode since" in told[SafeMode]


# ---- Skills that are wrong on purpose ------------------------------------------------------------

CALL = '(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))'
SET = '(import "snapcount:host/1" "state_set" (func $set (param i32 i32 i32 i32) (result i32)))'
GET = '(import "snapcount:host/1" "state_get" (func $get (param i32 i32 i32 i32) (result i32)))'
NOW = '(import "snapcount:host/1" "now_ms" (func $now (result i64)))'
LOG = '(import "snapcount:host/1" "log" (func $log (param i32 i32 i32)))'
RANDOM = '(import "snapcount:host/1" "random" (func $random (param i32 i32)))'
GOOD = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="b", reason="r"))
REFUSED = cbor.encode({"code": "No Code", "message": ""})
COMMAND = cbor.encode(Home())


def text(raw: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in raw)


def reply(at: int, raw: bytes, *, error: bool = False) -> str:
    return f"(i64.const {at << 32 | len(raw) | (0x8000_0000 if error else 0)})"


GOES_WELL = reply(256, GOOD)


def wrong(body: str, *, imports: str = "", data: str = "", fuel: int = 1_000_000, **described: object) -> bytes:
    """A skill with the hook `bid` and this body. At 256 stands a sound reply, at 512 an error reply without a code, at 16 "motion", at 32 a command."""
    module = f"""(module {imports}
      (memory (export "memory") 32)
      (global $calls (mut i32) (i32.const 0))
      (data (i32.const 16) "motion") (data (i32.const 32) "{text(COMMAND)}")
      (data (i32.const 256) "{text(GOOD)}") (data (i32.const 512) "{text(REFUSED)}") {data}
      (func (export "sc_alloc") (param i32) (result i32) (i32.const 65536))
      (func (export "hook_bid") (param $at i32) (param $len i32) (result i64) {body}))"""
    manifest = Manifest(name="wrong", version="1.0.0", limits=SkillLimits(fuel=fuel), **({"hooks": ("bid",)} | described))  # type: ignore[arg-type]
    return with_manifest(bytes(wat2wasm(module)), manifest, "wrong")


def report_of(data: bytes, examples: int = 60, **options: object) -> Report:
    return Suite(data, "wrong", [], Options(seed=1, examples=examples, **options)).run()  # type: ignore[arg-type]


def found(report: Report, name: str) -> list[str]:
    (check,) = [check for check in report.checks if check.name == name]
    return check.problems


# A margin that only fits into 64 bits stands at the very end of a request.
IF_WIDE_MARGIN = "(i32.eq (i32.load8_u (i32.sub (i32.add (local.get $at) (local.get $len)) (i32.const 9))) (i32.const 0xfb))"


@pytest.mark.slow
def test_a_trap_on_some_requests_is_found_and_shrunk_to_a_small_one_that_can_be_saved():
    report = report_of(wrong(f"(if {IF_WIDE_MARGIN} (then unreachable)) {GOES_WELL}"))
    (check,) = [check for check in report.checks if check.name == "bid, made-up requests"]
    (finding,) = check.findings
    assert "no reply: wrong 1.0.0: trapped: unreachable" in finding.problem
    request = finding.vector["request"]
    assert (request["bounty"]["id"], request["bounty"]["deadline_ms"], request["costs"]) == (
        "",
        0,
        {"fuel_unit": 0.0, "hour": 0.0, "wear": 0.0},
    )
    assert request["margin"] != round(request["margin"], 0)
    assert msgspec.convert(finding.vector, vectors.Vector).hook == "bid"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (f"(loop $again (br $again)) {GOES_WELL}", "used up its"),
        (reply(512, REFUSED, error=True), "an error reply whose code is 'No Code', not lower_snake_case"),
        (reply(512, REFUSED), "reply of bid"),
        ("(i64.const 0x7fffffff)", "replied with 2147483647 bytes"),
    ],
    ids=["spins", "no-code", "another-shape", "too-long"],
)
def test_a_call_that_ends_otherwise_than_the_contract_allows_is_found(body, problem):
    (said,) = found(report_of(wrong(body), examples=5, faults=False), "bid, made-up requests")
    assert problem in said


@pytest.mark.slow
def test_a_skill_that_answers_what_is_no_request_is_found():
    report = report_of(wrong(GOES_WELL))
    assert found(report, "bid, made-up requests") == []
    assert "expected the error reply bad_request, got a reply" in found(report, "bid, damaged requests")[0]


HALF_WRITTEN = f"""(local $i i32)
  (if (i32.and (i32.ge_s (call $get (i32.const 16) (i32.const 1) (i32.const 900) (i32.const 8)) (i32.const 0))
               (i32.lt_s (call $get (i32.const 17) (i32.const 1) (i32.const 900) (i32.const 8)) (i32.const 0))) (then unreachable))
  (drop (call $set (i32.const 16) (i32.const 1) (i32.const 256) (i32.const 4)))
  (loop $again (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 20000))))
  (drop (call $set (i32.const 17) (i32.const 1) (i32.const 256) (i32.const 4)))
  {GOES_WELL}"""
FULL = f"(if (i32.ne (call $set (i32.const 0) (i32.const 1) (i32.const 256) (i32.const 4)) (i32.const 0)) (then unreachable)) {GOES_WELL}"
ASKS = f"(call $call (i32.const 16) (i32.const 6) (i32.const 32) (i32.const {len(COMMAND)}) (i32.const 8192) (i32.const 4096))"
REFUSAL = f"(if (i32.lt_s {ASKS} (i32.const 0)) (then unreachable)) {GOES_WELL}"
BACK = f"""(if (i64.lt_s (call $now) (i64.const 1700000000000)) (then unreachable)) {GOES_WELL}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "imports", "capability", "problem"),
    [
        (HALF_WRITTEN, SET + GET, "state", "the next call, without the fault, got no reply"),
        (FULL, SET, "state", "with the state's quota reached at write 1: expected a reply"),
        (REFUSAL, CALL, "motion", "by the envelope: expected a reply"),
        (REFUSAL, CALL, "motion", "with the driver failing at command 1: expected a reply"),
        (REFUSAL, CALL, "motion", "in safe mode: expected a reply"),
        (BACK, NOW, "clock", "with the clock set back by"),
    ],
    ids=["half-written", "full", "refused", "failing", "safe-mode", "clock"],
)
def test_a_skill_that_does_not_come_through_a_fault_is_found(body, imports, capability, problem, monkeypatch):
    monkeypatch.setattr(resilience, "FINDINGS_MAX", 1_000)
    data = wrong(body, imports=imports, capabilities=(capability,))
    check = resilience.survives(FakeHost(data), [Script("bid", BID)], random.Random(1), Budget(9.0, 100, 100))
    assert any(problem in said for said in check.problems), check.problems
    assert not any(finding.replays for finding in check.findings)


def test_a_host_that_is_left_in_safe_mode_and_a_skill_that_never_answers_again_are_told():
    data = wrong(REFUSAL, imports=CALL, capabilities=("motion",))
    with pytest.raises(ContractBroken, match="expected a reply, an error reply or the fault's own error, got no reply"):
        require_survives(FakeHost(data), "bid", BID, RefusedCommand())


FLAG = cbor.encode({"flag": "fast"})
WITH_FLAG = f"""(drop (call $call (i32.const 800) (i32.const 5) (i32.const 816) (i32.const {len(FLAG)}) (i32.const 8192) (i32.const 4096)))
  (if (i32.eq (i32.load8_u (i32.const 8196)) (i32.const 0xf5)) (then (return {GOES_WELL}))) {reply(512, REFUSED, error=True)}"""


def test_flags_are_those_that_the_host_was_made_with_and_can_be_switched(tmp_path):
    data = f'(data (i32.const 800) "flags") (data (i32.const 816) "{text(FLAG)}")'
    host = FakeHost(wrong(WITH_FLAG, imports=CALL, data=data, capabilities=("flags",)), flags=["fast"])
    assert host.call("bid", BID).id == "b"
    host.save_vector(tmp_path / "on.json", "With the flag.")
    ((_, vector),) = vectors.load(tmp_path)
    assert vector.flags == ("fast",)
    host.flags.clear()
    with pytest.raises(SkillRefused):
        host.call("bid", BID)
    host.reset()
    assert host.flags == {"fast"}


def test_a_persistent_skill_has_a_new_memory_after_a_cut_of_its_fuel_and_the_whole_fuel_again():
    body = f"""(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const 3)) (then (return {reply(512, REFUSED, error=True)}))) {GOES_WELL}"""
    host = FakeHost(wrong(body, instance="persistent"))
    host.call("bid", BID)
    host.call("bid", BID)
    with host.fault(FuelCut(units=1)), pytest.raises(FuelExhausted):
        host.call("bid", BID)
    assert [host.call("bid", BID).id, host.call("bid", BID).id] == ["b", "b"]
    with pytest.raises(SkillRefused):
        host.call("bid", BID)
    host.close()


def test_two_hosts_that_do_not_agree_are_found_by_what_differs():
    body = f"(call $random (i32.const 900) (i32.const 8)) (call $log (i32.const 1) (i32.const 900) (i32.const 8)) {GOES_WELL}"
    data = wrong(body, imports=RANDOM + LOG, capabilities=("random", "log"))
    seeds = iter((1, 1, 1, 2, 3, 4))
    check = determinism.deterministic(lambda plain: FakeHost(data, seed=next(seeds), force_plain=plain), [Script("bid", BID)], Budget(1, 1))
    assert check.problems == []
    check = determinism.deterministic(lambda plain: FakeHost(data, seed=next(seeds), force_plain=plain), [Script("bid", BID)], Budget(1, 1))
    assert "what it logs differs" in check.problems[0]


@pytest.mark.slow
def test_what_a_persistent_skill_remembers_is_asked_for_in_sequences():
    body = f"""(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.gt_u (global.get $calls) (i32.const 2)) (then unreachable)) {GOES_WELL}"""
    data = wrong(body, instance="persistent")
    report = Suite(data, "wrong", [(Path("x.json"), described(BID))], Options(seed=1, examples=60, faults=False)).run()
    (check,) = [check for check in report.checks if check.name == "bid, made-up requests"]
    assert len(check.findings[0].vector["before"]) == 2


def described(request: object) -> vectors.Vector:
    return msgspec.convert(golden.described("bid", [request], "x"), vectors.Vector)  # type: ignore[list-item]


@pytest.mark.slow
def test_a_manifest_that_asks_for_what_no_host_has_is_found():
    report = report_of(wrong(GOES_WELL, fuel=10**12), examples=2)
    assert found(report, "limits") == ["its manifest asks for more fuel than any host grants (host/core/limits.py)"]


def test_the_bounds_of_a_manifest_are_said_in_words(make_skill):
    check = resilience.old_nodes(make_skill(generations=(2, 3), host_min="0.1.0", features=("flags",)), "x")
    assert check.problems == []
    assert check.detail == "it runs on hardware generations 2, 3, host 0.1.0 or newer, with flags; any other node refuses it at load"


EMPTY_REPORT = PlanReport(
    bbox_mm=BoundingBox(max=(0.0, 0.0, 0.0), min=(0.0, 0.0, 0.0)), complete=True, dialect="grbl", done=True, driven=0, extruded_mm=0.0, lines=0,
    moves=MoveCounts(arc=0, linear=0, rapid=0), path_mm=PathLengths(arc=0.0, linear=0.0, rapid=0.0, total=0.0), problems=(), problems_total=0, time_s=0.0,
    units="mm",
)  # fmt: skip


@pytest.mark.slow
def test_a_planner_whose_report_depends_on_the_pieces_is_found_and_the_program_cut_anywhere():
    last_at = cbor.encode(PlanJobRequest(chunk=b"", last=True, run=False, seq=0, settings=PlanSettings())).index(b"last") + 4
    report = cbor.encode(EMPTY_REPORT)
    lines_at = report.index(b"elines\x00") + 6
    progress = cbor.encode(PlanProgress(done=False, lines=0))
    module = f"""(module
      (memory (export "memory") 32)
      (global $chunks (mut i32) (i32.const 0))
      (data (i32.const 256) "{text(report)}") (data (i32.const 1024) "{text(progress)}")
      (func (export "sc_alloc") (param i32) (result i32) (i32.const 65536))
      (func (export "hook_plan_job") (param $at i32) (param $len i32) (result i64)
        (if (i32.lt_u (global.get $chunks) (i32.const 20)) (then (global.set $chunks (i32.add (global.get $chunks) (i32.const 1)))))
        (i32.store8 (i32.const {256 + lines_at}) (global.get $chunks))
        (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const {last_at}))) (i32.const 0xf4))
          (then (return {reply(1024, progress)})))
        (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const {last_at + 1}))) (i32.const 0xf4))
          (then (return {reply(1024, progress)})))
        {reply(256, report)}))"""
    manifest = Manifest(name="wrong", version="1.0.0", hooks=("plan_job",))
    data = with_manifest(bytes(wat2wasm(module)), manifest, "wrong")
    (check,) = [check for check in report_of(data, faults=False).checks if check.name == "plan_job, programs in pieces"]
    (finding,) = check.findings
    assert "in 2 pieces it gives a reply" in finding.problem
    vector = msgspec.convert(finding.vector, vectors.Vector)
    assert (len(vector.program), len(vector.cuts)) == (2, 1)
    assert vectors.run(data, Path("x.json"), vector).problems == ("reply.lines: expected 1, found 2",)


# ---- What is made up ---------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from(sorted(SHAPES | STREAMING)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_that_must_be_refused_is_refused_by_the_host_too(seed, hook):
    shape = (SHAPES | STREAMING)[hook][0]
    rng = random.Random(seed)
    made = samples.made_up(shape, [], rng)
    assert made is not None
    one = damaged(shape, made[1], rng)
    if one.ends == "refused":
        with pytest.raises((MalformedData, TooLarge)):
            cbor.decode_struct(one.data, shape, "request")


@given(st.integers(0, 2**32), st.sampled_from(sorted(SHAPES)))
@settings(deadline=None)
def test_a_bold_request_from_nothing_but_its_type_is_sound_and_the_same_for_a_seed(seed, hook):
    made = [samples.fresh(SHAPES[hook][0], random.Random(seed), samples.BOLD) for _ in range(2)]
    assert repr(made[0]) == repr(made[1])
    assert samples.sound(SHAPES[hook][0], made[0]) is not None


def test_a_grown_request_has_lists_as_long_as_they_may_be_with_names_that_differ():
    grown = samples.grown(samples.plain(LOT), SHAPES["assess_feedstock"][0], random.Random(1))
    assert (len(grown["assay"]), len(grown["products"])) == (64, 16)
    assert len({part["element"] for part in grown["assay"]}) == 64
    assert samples.sound(SHAPES["assess_feedstock"][0], grown) is not None


@pytest.mark.parametrize("hook", sorted(SHAPES))
def test_hypothesis_makes_requests_of_each_hook_that_the_host_can_send(hook):
    @given(strategies.requests(hook))
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def sent(request):
        assert isinstance(request, SHAPES[hook][0])
        assert cbor.decode_struct(cbor.encode(request), SHAPES[hook][0], "request") == request

    sent()


@pytest.mark.slow
def test_hypothesis_makes_programs_that_a_planner_reads_the_same_in_any_pieces():
    host = FakeHost(module_path("toolpath-planner"))

    @given(strategies.jobs())
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def planned(job: Job):
        host.reset()
        try:
            report = host.ask("plan_job", job)
        except SkillRefused as error:
            assert error.skill_code == "bad_request"
            return
        host.reset()
        assert host.plan(b"".join(job.program), job.settings, job.run) == report

    planned()


def test_strategies_are_of_hooks_that_there_are():
    with pytest.raises(UsageError, match="jobs\\(\\) for plan_job"):
        strategies.requests("plan_job")


# ---- Golden vectors ----------------------------------------------------------------------------


def test_a_call_is_saved_as_a_vector_that_passes_and_a_change_of_its_reply_is_a_diff(tmp_path):
    host = cell()
    host.call("handle", START)
    host.call("handle", BEGIN)
    path = tmp_path / "begins.json"
    assert '+    "detail": "Job frame-7 has begun.",' in host.save_vector(path, "It begins.")
    assert host.save_vector(path, "It begins.") == ""
    ((_, vector),) = vectors.load(tmp_path)
    assert (len(vector.before), vector.request["payload"]["cbor"]["job"]) == (1, "frame-7")
    data = read_bundle(module_path("cell-start"))
    assert vectors.run(data, path, vector).problems == ()
    assert golden.update(data, path, vector) == ""
    path.write_text(path.read_text().replace("has begun", "had begun"))
    ((_, vector),) = vectors.load(tmp_path)
    change = golden.update(data, path, vector)
    assert '-    "detail": "Job frame-7 had begun.",' in change
    assert '+    "detail": "Job frame-7 has begun.",' in change
    ((_, vector),) = vectors.load(tmp_path)
    assert vectors.run(data, path, vector).problems == ()


def test_an_update_keeps_the_keys_that_a_vector_had_and_fills_in_what_it_had_not(tmp_path):
    data = read_bundle(module_path("bounty-bidder"))
    _, known = vectors.load(SOURCES / "bounty-bidder" / "vectors")[0]
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"about": "x", "hook": "bid", "request": known.request, "reply": {"cost": 7.0}}))
    ((_, vector),) = vectors.load(tmp_path)
    golden.update(data, path, vector)
    assert list(json.loads(path.read_text())["reply"]) == ["cost"]
    path.write_text(json.dumps({"about": "x", "hook": "bid", "request": known.request}))
    ((_, vector),) = vectors.load(tmp_path)
    golden.update(data, path, vector)
    assert {"cost", "finish_ms", "id", "reason"} <= set(json.loads(path.read_text())["reply"])
    negative = known.request | {"margin": -1.0}
    path.write_text(json.dumps({"about": "x", "hook": "bid", "request": negative, "reply": {"cost": 7.0}}))
    ((_, vector),) = vectors.load(tmp_path)
    golden.update(data, path, vector)
    assert json.loads(path.read_text())["error"] == {"code": "bad_request"}


def test_what_a_vector_cannot_say_is_not_saved(tmp_path):
    host = cell()
    with pytest.raises(UsageError, match="no call yet"):
        host.save_vector(tmp_path / "x.json", "x")
    host.call("self_test")
    host.call("handle", START)
    with pytest.raises(UsageError, match="other hooks were called before"):
        host.save_vector(tmp_path / "x.json", "x")
    host.reset()
    with host.fault(FuelCut(units=10)), pytest.raises(FuelExhausted):
        host.call("handle", START)
    with pytest.raises(UsageError, match="ended without a reply"):
        host.save_vector(tmp_path / "x.json", "x")
    host.reset()
    host.call("handle", msgspec.structs.replace(START, payload=START.payload.replace(b"frame-7", b"frame-8")))
    held = cell(state=host.state.values)
    assert held.call("handle", START).state == "conflict"
    with pytest.raises(UsageError, match="a vector cannot say it"):
        held.save_vector(tmp_path / "x.json", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_saved_with_its_pieces_and_one_that_is_no_text_beside_its_vector(tmp_path):
    host = FakeHost(module_path("toolpath-planner"))
    data = read_bundle(module_path("toolpath-planner"))
    host.plan([b"G21\nG1 X1", b"0 F600\n"])
    host.save_vector(tmp_path / "a.json", "In two pieces.")
    host.reset()
    host.plan([b"G21\n; \xff\n"], run=True)
    host.save_vector(tmp_path / "b.json", "Not text.")
    (a, first), (b, second) = vectors.load(tmp_path)
    assert (first.cuts, second.program_file) == ((9,), "b.bin")
    for path, vector in ((a, first), (b, second)):
        assert vectors.run(data, path, vector).problems == ()


# ---- The command -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_skill_passes_everything(name):
    loaded = project.load(SOURCES / name)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    report = Suite(read_bundle(loaded.module), name, vectors.load(loaded.vectors), Options(seed=seed, examples=100)).run()
    assert {check.name: check.problems for check in report.failed} == {}
    assert report.limits["fuel"]["used"] > 0


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[bytes], Path]:
    """A project's folder around a module that is made already."""

    def make(data: bytes) -> Path:
        (tmp_path / "main.c").write_text("")
        (tmp_path / "skill.toml").write_text(
            '[skill]\nname = "wrong"\nversion = "1.0.0"\nhooks = ["bid"]\n[build]\nlang = "c"\nsource = "main.c"\n'
        )
        (tmp_path / "wrong.wasm").write_bytes(data)
        (tmp_path / "vectors").mkdir()
        return tmp_path

    return make


def run_test(*arguments: object, code: int) -> str:
    ended = CliRunner().invoke(app, ["skill", "test", *map(str, arguments)])
    assert ended.exit_code == code, ended.output
    return ended.output


@pytest.mark.slow
def test_the_command_names_what_is_wrong_saves_it_and_asks_the_same_again_for_a_seed(folder):
    place = folder(wrong(f"(if {IF_WIDE_MARGIN} (then unreachable)) {GOES_WELL}"))
    shown = run_test(place, "--seed", 5, "--examples", 40, "--no-faults", "--save", code=1)
    assert "FAILED bid, made-up requests\n       no reply: wrong 1.0.0: trapped: unreachable" in shown
    assert "saved  found-5-bid-made-up-requests-0.json" in shown
    assert "(--seed 5 asks the same again)" in shown
    assert "FAILED found-5-bid-made-up-requests-0" in run_test(place, "--seed", 5, "--examples", 40, "--no-faults", code=1)
    (place / "vectors" / "found-5-bid-made-up-requests-0.json").unlink()
    one, other = (
        json.loads(run_test(place, "--seed", 5, "--examples", 40, "--json", code=1).splitlines()[-1]) for _ in range(2)
    )  # fmt: skip
    for report in (one, other):
        report["limits"].pop("deadline_ms")  # that is this machine's
        report["checks"].pop("limits")
    assert one == other
    assert one["found"][0]["hook"] == "bid"
    assert set(one["failed"]) == {"bid, made-up requests", "bid, damaged requests"}


@pytest.mark.slow
def test_the_command_writes_replies_down_and_without_a_vector_says_that_nothing_is_tested(folder, tmp_path):
    data = read_bundle(module_path("bounty-bidder"))
    place = folder(data)
    ended = CliRunner().invoke(app, ["skill", "test", str(place), "--examples", "5"])
    assert isinstance(ended.exception, UsageError)
    assert "not tested" in str(ended.exception)
    shutil.copy(SOURCES / "bounty-bidder" / "vectors" / "01-a-bid-with-margin.json", place / "vectors")
    changed = json.loads((place / "vectors" / "01-a-bid-with-margin.json").read_text())
    changed["reply"]["price"] += 1
    (place / "vectors" / "01-a-bid-with-margin.json").write_text(json.dumps(changed))
    assert "FAILED 01-a-bid-with-margin" in run_test(place, "--examples", 5, code=1)
    shown = run_test(place, "--examples", 5, "--update", code=0)
    assert "+++ 01-a-bid-with-margin.json (now)" in shown
    assert "0 failed" in run_test(place, "--examples", 5, code=0)


def test_a_first_request_with_lists_as_long_as_may_be_arrives_whole_in_each_language():
    grown = samples.grown(samples.plain(LOT), SHAPES["assess_feedstock"][0], random.Random(1))
    folders = [SOURCES / name for name in ("feedstock-assessor", "feedstock-assessor-b", "feedstock-assessor-c")]
    replies = [FakeHost(folder).call("assess_feedstock", grown) for folder in folders]
    assert len(cbor.encode(FakeHost(folders[0]).typed("assess_feedstock", grown))) > 32 << 10
    assert len({reply.best for reply in replies}) == 1
