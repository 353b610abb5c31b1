"""`snapcount skill profile`: where fuel goes, by function, from backtraces of calls whose fuel was cut."""

import json
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner
from wasmtime import wat2wasm

from host.core import cbor, wasm
from host.core.bundle import with_manifest
from host.core.errors import MalformedModule, SnapcountError
from host.core.manifest import Manifest, SkillLimits
from sdk import profile, project, scripts
from sdk.checkpoints import with_checkpoints
from sdk.cli.main import app
from sdk.local import LocalSkill, read_bundle
from sdk.named_build import with_names
from sdk.profile import Profile
from sdk.scripts import Script
from sdk.symbols import has_names, readable
from sdk.testbed import SeededRandom, StillClock
from skills import module_path

SKILLS = Path(__file__).resolve().parents[1] / "skills"
CALL = (Script("one", "bid", request=b"abc"),)
SHELL = """(module {imports} (memory (export "memory") 1)
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096)) {functions})"""
SPIN = """(func $spin (param i32) (loop $l (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br_if $l (local.get 0))))"""
SPIN_FUEL = 6  # of a round: get, const, sub, set, get, br_if


def bundle(functions: str, imports: str = "", instance: str = "fresh", **limits: int) -> bytes:
    capabilities = tuple(re.findall(r'"(log|random|clock)"', imports))
    manifest = Manifest(
        name="probe", version="1.0.0", hooks=("bid",), capabilities=capabilities, instance=instance, limits=SkillLimits(**{"fuel": 50_000_000} | limits),
    )  # fmt: skip
    return with_manifest(bytes(wat2wasm(SHELL.format(functions=functions, imports=imports))), manifest, "probe")


def profiled(functions: str, samples: int = 500, calls: tuple[Script, ...] = CALL, **more: str) -> Profile:
    return profile.profile(bundle(functions, **more), "probe", calls, samples)


def shares(found: Profile) -> dict[str, tuple[float, float]]:
    return {row.name: (row.self_fuel / found.fuel, row.total_fuel / found.fuel) for row in found.functions}


def test_two_functions_whose_loops_are_three_to_one_have_three_and_one_quarters_of_the_fuel():
    found = profiled(f"""{SPIN}
      (func $long (call $spin (i32.const 3000))) (func $short (call $spin (i32.const 1000)))
      (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (call $long) (call $short) (i64.const 0))""")
    assert abs(found.fuel - 4_000 * SPIN_FUEL) < 30
    found_shares = shares(found)
    assert found_shares["long"][1] == pytest.approx(0.75, abs=0.01)
    assert found_shares["short"][1] == pytest.approx(0.25, abs=0.01)
    assert found_shares["spin"] == pytest.approx((1.0, 1.0), abs=0.01)
    assert found_shares["hook_bid"] == pytest.approx((0.0, 1.0), abs=0.01)


def test_code_without_a_loop_counts_for_the_function_that_it_stands_in():
    # wasmtime looks at the fuel at entries and loops only: without the looks that are put in, `loops` would get what `straight` uses.
    adds = "(f64.const 1) (f64.add) " * 30
    found = profiled(f"""
      (func $straight (param f64) (result f64) (local.get 0) {adds})
      (func $loops (param i32) (local f64)
        (loop $l (local.set 1 (call $straight (local.get 1))) (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br_if $l (local.get 0))))
      (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (call $loops (i32.const 500)) (i64.const 0))""")
    # 61 instructions and the call that leads there; 8 in a round of the loop.
    assert shares(found)["straight"][0] == pytest.approx(62 / 70, abs=0.02)
    assert shares(found)["loops"] == pytest.approx((8 / 70, 1.0), abs=0.02)


def test_what_a_function_does_after_a_call_is_its_own():
    adds = "(drop (f64.add (f64.const 1) (f64.const 2)))" * 50
    found = profiled(f"""
      (func $leaf (nop)) (func $after (call $leaf) {adds})
      (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (local i32)
        (loop $l (call $after) (local.set 2 (i32.add (local.get 2) (i32.const 1))) (br_if $l (i32.lt_u (local.get 2) (i32.const 100))))
        (i64.const 0))""")
    assert shares(found)["after"][0] == pytest.approx(151 / 160, abs=0.03)  # 150 and its call, of 1 for the leaf and 8 of the loop
    assert shares(found)["leaf"][0] < 0.03


def test_what_the_host_is_asked_for_is_shown_under_who_asked():
    found = profiled(
        f"""{SPIN} (func $says (call $log (i32.const 1) (i32.const 0) (i32.const 100)))
        (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (local i32)
          (loop $l (call $says) (local.set 2 (i32.add (local.get 2) (i32.const 1))) (br_if $l (i32.lt_u (local.get 2) (i32.const 10))))
          (call $spin (i32.const 500)) (i64.const 0))""",
        imports='(import "snapcount:host/1" "log" (func $log (param i32 i32 i32)))',
    )
    assert shares(found)["host: log"][0] == pytest.approx(10 * 1_100 / (10 * 1_100 + 500 * SPIN_FUEL + 90), abs=0.02)
    assert ("hook_bid", "says", "host: log") in found.stacks


def test_a_profile_is_the_same_each_time_and_its_parts_are_the_whole():
    functions = f"""{SPIN} (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (call $spin (i32.const 700)) (i64.const 0))"""
    one, two = (profiled(functions, samples=97) for _ in range(2))
    assert one == two
    assert sum(one.stacks.values()) == pytest.approx(one.fuel, abs=len(one.stacks))
    assert one.folded().splitlines() == [f"{';'.join(stack)} {fuel}" for stack, fuel in sorted(one.stacks.items())]


def test_a_short_call_is_looked_at_unit_by_unit():
    found = profiled("""(func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (i64.const 0))""", samples=10_000)
    assert found.samples == found.fuel < 10
    assert sum(found.stacks.values()) == found.fuel


def test_functions_deeper_than_a_backtrace_reaches_are_said_to_be():
    found = profiled(f"""{SPIN}
      (func $down (param i32) (if (i32.eqz (local.get 0)) (then (call $spin (i32.const 1000))) (else (call $down (i32.sub (local.get 0) (i32.const 1))))))
      (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (call $down (i32.const 40)) (i64.const 0))""")
    assert found.deeper / found.fuel > 0.9
    assert shares(found)["spin"][0] > 0.9
    assert shares(found)["down"][1] > 0.9


def test_a_persistent_skill_meets_in_each_run_what_the_calls_before_left():
    # The first call is short and leaves a number; the second works through it.
    data = bundle(
        f"""{SPIN} (global $n (mut i32) (i32.const 1))
        (func $hook_bid (export "hook_bid") (param i32 i32) (result i64)
          (call $spin (global.get $n)) (global.set $n (i32.mul (global.get $n) (i32.const 1000))) (i64.const 0))""",
        instance="persistent",
    )
    calls = (Script("second", "bid", (b"first",), b"second"),)
    found = profile.profile(data, "probe", calls, 300)
    assert found.calls == 1
    assert found.fuel == pytest.approx(1_000 * SPIN_FUEL, abs=30)
    assert shares(found)["spin"][0] > 0.99


def test_a_call_that_uses_all_its_fuel_is_profiled_up_to_there():
    data = bundle("""(func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (loop $l (br $l)) (i64.const 0))""", fuel=10_000)
    found = profile.profile(data, "probe", CALL, 50)
    assert found.fuel == 10_000
    assert shares(found)["hook_bid"][0] > 0.9


EVERYTHING = """
  (type $pair (func (result i32 i32))) (table funcref (elem $leaf))
  (func $leaf (param i32) (result i32) (if (i32.gt_s (local.get 0) (i32.const 5)) (then (return (i32.const 7)))) (i32.add (local.get 0) (i32.const 1)))
  (func $pair (param i32) (result i32 i32)
    (if (local.get 0) (then (return (i32.const 1) (i32.const 2)))) (br 0 (i32.const 3) (i32.const 4)))
  (func $jumps (param i32) (result i64)
    (block $c (block $b (block $a (br_table $a $b $c 3 (i64.const 10) (local.get 0)) (unreachable)) (return (i64.const 20))) (nop)) (i64.const 30))
  (func $nothing (br_if 0 (i32.const 1)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 8)))
  (func $hook_bid (export "hook_bid") (param i32 i32) (result i64)
    (local i32)
    (call $nothing)
    (memory.copy (i32.const 64) (i32.const 0) (i32.const 8))
    (local.set 2 (i32.add (call_indirect (param i32) (result i32) (i32.const 3) (i32.const 0)) (call $leaf (i32.const 9))))
    (local.set 2 (i32.add (local.get 2) (i32.add (call $pair (i32.const 0)))))
    (local.set 2 (i32.add (local.get 2) (i32.add (call $pair (i32.const 1)))))
    (local.set 2 (i32.add (local.get 2) (i32.trunc_sat_f64_s (f64.const 3.7))))
    (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.extend8_s (i32.const 255))))
    (i32.store8 (i32.const 9000) (local.get 2))
    (i64.or (i64.shl (i64.const 9000) (i64.const 32)) (i64.const 1)))"""


def test_looks_at_the_fuel_change_neither_answers_nor_fuel_whatever_the_instructions():
    # br_table with a value to the function's own end is rewritten below, as WAT wants one type for all of its targets.
    functions = EVERYTHING.replace("(br_table $a $b $c 3 (i64.const 10) (local.get 0))", "(br_table $a $b $c (local.get 0))")
    plain = bundle(functions)
    looking = with_checkpoints(plain, "probe")
    assert looking != plain
    (one, fuel), (other, fuel_too) = (_answer(data) for data in (plain, looking))
    assert (one, fuel) == (other, fuel_too)
    assert one == bytes([4 + 7 + 7 + 3 + 3])
    found = profile.profile(plain, "probe", CALL, 500)
    assert {"leaf", "pair", "nothing", "hook_bid"} <= set(shares(found))


def _answer(data: bytes) -> tuple[bytes, int]:
    skill = LocalSkill(data, "probe", clock=StillClock(), random=SeededRandom(), force_plain=True)
    with skill.loaded.instance() as instance:
        return instance.call("bid", b"abc"), instance.fuel_used


def test_a_module_that_is_cut_anywhere_is_refused_in_one_line():
    whole = bundle(EVERYTHING.replace("(br_table $a $b $c 3 (i64.const 10) (local.get 0))", "(br_table $a $b $c (local.get 0))"))
    rng = random.Random(7)
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.randrange(8, len(broken))] = rng.randrange(256)
        try:
            with_checkpoints(bytes(broken[: rng.randrange(8, len(broken) + 1)]), "broken")
        except SnapcountError as error:
            assert isinstance(error, MalformedModule)
            assert str(error).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cell-start", "feedstock-assessor", "feedstock-assessor-b", "feedstock-assessor-c", "bounty-bidder", "toolpath-planner"]
)
def test_every_shipped_skill_can_be_profiled_and_uses_the_fuel_that_it_uses_without(name: str) -> None:
    loaded = project.load(SKILLS / name)
    found = profile.profile(read_bundle(SKILLS / name), name, scripts.of_project(loaded), 60)
    assert found.samples == 60
    assert found.calls >= len(list(loaded.vectors.glob("*.json")))
    assert max(total for _, total in shares(found).values()) > 0.5


def test_rusts_names_are_read_and_all_others_stay():
    assert readable("_ZN4core3fmt5write17h0123456789abcdefE") == "core::fmt::write"
    assert readable("_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Write$GT$9write_str17h0123456789abcdefE") == (
        "<alloc::string::String as core::fmt::Write>::write_str"
    )
    assert readable("job.feed") == "job.feed"
    assert readable("_ZN3abE") == "_ZN3abE"
    assert readable("~lib/rt/tlsf/addBlock") == "~lib/rt/tlsf/addBlock"
    assert readable("a\x1b[31mb") == r"a\x1b[31mb"


@pytest.mark.slow
def test_the_command_shows_a_table_writes_flames_and_says_where_names_are_missing(tmp_path: Path) -> None:
    functions = f"""{SPIN} (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) (call $spin (i32.const 900)) (i64.const 0))"""
    data, flame = bundle(functions), tmp_path / "flame.txt"
    (tmp_path / "probe.wasm").write_bytes(data)
    shown = CliRunner().invoke(app, ["skill", "profile", str(tmp_path / "probe.wasm"), "--samples", "50", "--flame", str(flame)])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^\d+\.\d%\s+\d+\.\d%\s+\d+\s+spin$", shown.stdout, re.MULTILINE), shown.stdout
    assert all(re.fullmatch(r"\S.* \d+", line) for line in flame.read_text().splitlines())
    (tmp_path / "bare.wasm").write_bytes(wasm.without_custom(data, "probe", ("name",)))
    shown = CliRunner().invoke(app, ["skill", "profile", str(tmp_path / "bare.wasm"), "--samples", "50", "--json"])
    assert "carries no names" in shown.stderr
    found = json.loads(shown.stdout.splitlines()[-1])
    assert found["named"] is False
    assert {row["name"] for row in found["functions"]} <= {f"function {number}" for number in range(5)}


def test_a_vector_that_is_not_there_is_named_with_those_that_are():
    shown = CliRunner().invoke(app, ["skill", "profile", str(SKILLS / "cell-start"), "--vector", "nothing-like-it"])
    assert "30-self-test" in str(shown.exception)
    assert "nothing-like-it" in str(shown.exception)


@pytest.mark.ci
def test_a_zig_module_without_names_is_built_once_more_with_them(require) -> None:
    require("zig")
    loaded = project.load(SKILLS / "cell-start")
    named = with_names(loaded)
    assert named is not None
    assert has_names(named, "named")
    assert not has_names(module_path("cell-start").read_bytes(), "cell-start")
    written = scripts.of_project(loaded)
    there, here = (profile.fuel_of(data, "cell-start", written) for data in (module_path("cell-start").read_bytes(), named))
    assert there == pytest.approx(here, rel=0.02)


def test_cases_of_the_contract_stand_in_where_there_are_no_vectors():
    manifest = Manifest(name="probe", version="1.0.0", hooks=("bid", "handle"))
    found = scripts.of_contract(manifest)
    assert {script.hook for script in found} == {"bid", "handle"}
    assert all(cbor.decode(script.request, script.name) for script in found)
