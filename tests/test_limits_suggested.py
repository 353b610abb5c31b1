"""`snapcount skill bench`: what calls need, limits that fit, and skill.toml with nothing changed but its limits."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from host.core import cbor
from host.core.bundle import UnverifiedBundle, with_manifest
from host.core.errors import UsageError
from host.core.limits import DEFAULT
from host.core.manifest import MIN_MEMORY_BYTES, Manifest, SkillLimits
from host.plugins.contract import BidReply
from sdk import benchmark, project, scripts, suggestion, vectors
from sdk.benchmark import Measured, Needs
from sdk.cli.main import app
from sdk.demo.samples import BID
from sdk.limits_table import with_limits
from sdk.local import read_bundle
from sdk.project import FILE
from sdk.scripts import Script
from sdk.suggestion import MARGIN, SLOWDOWN

SKILLS = Path(__file__).resolve().parents[1] / "skills"
TEMPLATES = Path(__file__).resolve().parents[1] / "sdk" / "templates"
BIDS = (Script("a-bid", "bid", request=cbor.encode(BID)),)
SPIN = "(local $n i32) (local.set $n (i32.const {rounds})) (loop $l (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n))) {reply}"
REPLY = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="1.0.0", reason="greeter"))
ANSWER = f"(i64.const {1024 << 32 | len(REPLY)})"
LOG = '(import "snapcount:host/1" "log" (func $log (param i32 i32 i32)))'


def judged(found: Measured, **more: float) -> dict[str, suggestion.Judged]:
    return {one.name: one for one in suggestion.judge(found, **more)}


def needs(**more: object) -> Needs:
    return Needs(
        **{"name": "one", "hook": "bid", "made_up": False, "plays": 1, "fuel": 1_000, "memory_bytes": 65_536, "times_ns": [1_000]} | more
    )  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_call_that_needs_more_fuel_than_it_asks_for_is_measured_and_found(make_skill):
    data = make_skill(body=SPIN.format(rounds=10_000, reply=ANSWER), limits=SkillLimits(fuel=20_000))
    found = benchmark.measure(data, BIDS, 0.0, examples=3)
    fuel = judged(found)["fuel"]
    assert fuel.fails
    assert fuel.needed == pytest.approx(60_000, abs=100)
    assert fuel.in_words.startswith("fuel: too tight: ")
    assert "20000 are asked for" in fuel.in_words
    assert fuel.suggested == 120_000 or fuel.suggested == 150_000


@pytest.mark.slow
def test_what_is_suggested_holds_for_every_call_that_was_measured(make_skill):
    data = make_skill(
        body=SPIN.format(rounds=500, reply=f"(call $log (i32.const 1) (i32.const 0) (i32.const 700)) {ANSWER}"), imports=LOG, capabilities=("log",),
        limits=SkillLimits(fuel=1_000, log_bytes=10, host_calls=0),
    )  # fmt: skip
    found = benchmark.measure(data, BIDS, 0.0, examples=5)
    marks = judged(found)
    assert marks["log_bytes"].needed == 700
    assert marks["host_calls"].needed == 1
    assert {name for name, one in marks.items() if one.fails} == {"fuel", "log_bytes", "host_calls"}
    manifest = UnverifiedBundle.parse(data, "x").manifest
    fitting = with_manifest(data, Manifest(**{**_fields(manifest), "limits": suggestion.limits(list(marks.values()))}), "x")
    again = judged(benchmark.measure(fitting, BIDS, 0.0, examples=5))
    assert not any(one.verdict for one in again.values()), again


def _fields(manifest: Manifest) -> dict[str, object]:
    return {name: getattr(manifest, name) for name in manifest.__struct_fields__}


@pytest.mark.slow
def test_a_limit_that_limits_nothing_is_said_to_be_far_too_wide(make_skill):
    found = benchmark.measure(make_skill(limits=SkillLimits(fuel=10_000_000_000, deadline_ms=60_000)), BIDS, 0.0, examples=2)
    marks = judged(found)
    assert marks["fuel"].verdict == "wide"
    assert "far too wide" in marks["fuel"].in_words
    assert marks["fuel"].suggested == suggestion.FUEL_MIN
    assert marks["deadline_ms"].suggested == suggestion.DEADLINE_MIN_MS


def test_a_deadline_holds_on_a_node_that_is_so_much_slower():
    found = Measured(SkillLimits(deadline_ms=500), (), (needs(times_ns=[9_000_000, 10_000_000, 11_000_000], plays=3),))
    assert judged(found, slowdown=20)["deadline_ms"].needed == 200
    assert judged(found, slowdown=20)["deadline_ms"].suggested == 400
    assert judged(found, slowdown=100)["deadline_ms"].fails
    assert "far" not in judged(found, slowdown=20)["deadline_ms"].in_words


def test_memory_that_was_not_seen_is_left_as_it_was():
    # A component does not say how much memory it has.
    mark = judged(Measured(SkillLimits(memory_bytes=32 << 20), (), (needs(memory_bytes=0),)))["memory_bytes"]
    assert (mark.suggested, mark.verdict, mark.fails) == (32 << 20, "", False)


def test_a_hiccup_of_this_machine_is_no_need_of_the_skill():
    steady = needs(times_ns=[1_000] * 9 + [80_000_000], plays=10)
    assert judged(Measured(SkillLimits(), (), (steady,)))["deadline_ms"].needed < 1


def test_the_longest_call_of_a_program_counts_not_their_mean():
    chunks = needs(hook="plan_job", times_ns=[1_000_000, 50_000_000, 1_100_000, 52_000_000], plays=2)
    assert chunks.call_ns == 51_000_000


@pytest.mark.slow
def test_a_call_that_traps_is_told_and_counts_for_nothing(make_skill):
    found = benchmark.measure(make_skill(body="(unreachable)"), BIDS, 0.0, examples=3)
    assert suggestion.judge(found) == []
    ((line, times),) = benchmark.endings(found).items()
    assert "trapped" in line
    assert times == 4
    assert not found.breached


@pytest.mark.slow
def test_what_needs_more_than_can_be_measured_is_a_breach(make_skill, monkeypatch):
    monkeypatch.setattr(benchmark, "LIFTED", SkillLimits(fuel=100_000))
    found = benchmark.measure(make_skill(body="(loop $l (br $l)) (i64.const 0)"), BIDS, 0.0, examples=0)
    assert [one.name for one in found.breached] == ["a-bid"]


@given(
    st.builds(
        Needs, name=st.just("one"), hook=st.just("bid"), made_up=st.booleans(), plays=st.just(1), fuel=st.integers(0, 10**10),
        memory_bytes=st.integers(1, 64 << 20), reply_bytes=st.integers(0, 4 << 20), host_calls=st.integers(0, 100_000), log_bytes=st.integers(0, 64 << 10),
        times_ns=st.lists(st.integers(0, 10**9), min_size=1, max_size=1),
    ),
    st.floats(1.0, 10.0),
)  # fmt: skip
def test_a_suggestion_covers_the_need_or_is_all_that_a_host_grants_and_is_not_far_above_it(one: Needs, margin: float) -> None:
    marks = judged(Measured(SkillLimits(), ("log",), (one,)), margin=margin)
    assert suggestion.limits(list(marks.values())).capped(DEFAULT) == suggestion.limits(list(marks.values()))
    for name, mark in marks.items():
        most = getattr(DEFAULT, f"{name}_max")
        assert mark.suggested >= min(mark.needed * margin, most) - 1
        floor = {
            "fuel": 10_000,
            "deadline_ms": 100,
            "memory_bytes": MIN_MEMORY_BYTES,
            "reply_bytes": 2_048,
            "host_calls": 10,
            "log_bytes": 1_024,
        }[name]
        assert mark.suggested <= max(2 * mark.needed * margin + MIN_MEMORY_BYTES * (name == "memory_bytes") + 1, floor)


def test_numbers_are_easy_to_read():
    assert [suggestion._readable(wanted) for wanted in (1, 11, 12.1, 100, 101, 7_200, 81_000, 99_999)] == [
        1,
        12,
        15,
        100,
        120,
        8_000,
        100_000,
        100_000,
    ]
    assert [suggestion._pages(pages * MIN_MEMORY_BYTES) for pages in (0, 1, 2, 3, 4, 5, 7, 13)] == [1, 1, 2, 3, 4, 6, 8, 16]


TOML = b"""# A skill.
[skill]
name = "x"   # its name

[limits]                      # what one call may use
fuel = 1000000
 deadline_ms=500   # half a second
memory_bytes = 1_048_576

# said of the build
[build]
lang = "zig"
"""
LIMITS = SkillLimits(fuel=20_000, deadline_ms=100, memory_bytes=131_072, reply_bytes=2_048, host_calls=0, log_bytes=0)


def test_limits_are_exchanged_where_they_stand_and_nothing_else_changes():
    made = with_limits(TOML, LIMITS, FILE)
    assert (
        made
        == b"""# A skill.
[skill]
name = "x"   # its name

[limits]                      # what one call may use
fuel = 20000
 deadline_ms=100   # half a second
memory_bytes = 131072
reply_bytes = 2048
host_calls = 0
log_bytes = 0

# said of the build
[build]
lang = "zig"
"""
    )
    assert with_limits(made, LIMITS, FILE) == made


@pytest.mark.parametrize("lang", sorted(path.name for path in TEMPLATES.iterdir() if (path / FILE).exists()))
def test_every_template_takes_limits_and_keeps_its_comments(lang: str) -> None:
    raw = (TEMPLATES / lang / FILE).read_bytes()
    made = with_limits(raw, LIMITS, FILE)
    assert tomllib.loads(made.decode())["limits"] == {name: getattr(LIMITS, name) for name in SkillLimits.__struct_fields__}
    assert [line for line in raw.splitlines() if b"#" in line] == [line for line in made.splitlines() if b"#" in line]


def test_a_file_without_limits_gets_them_at_its_end_in_its_own_line_endings():
    raw = b'[skill]\r\nname = "x"'
    assert with_limits(raw, LIMITS, FILE).startswith(raw + b"\r\n\r\n[limits]\r\nfuel = 20000\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"limits = {fuel = 5}\n",
        b"limits.fuel = 5\n[skill]\n",
        b'[skill]\nabout = """\n[limits]\nfuel = 5\n"""\n',
        b"[limits]\nfuel = 0x10\n",
        b"[limits]\n'fuel' = 5\n",
    ],
)
def test_limits_in_another_form_are_left_to_who_wrote_them(raw: bytes) -> None:
    with pytest.raises(UsageError, match="put these in yourself"):
        with_limits(raw, LIMITS, FILE)


def project_of(folder: Path, data: bytes, limits: str) -> Path:
    """A project around a module, with one vector."""
    (folder / "vectors").mkdir(parents=True)
    (folder / "main.zig").write_text("")
    (folder / FILE).write_text(
        f'[skill]\nname = "greeter"\nversion = "1.0.0"\nhooks = ["bid", "self_test"]\n[limits] # so much\n{limits}\n[build]\nlang = "zig"\nsource = "main.zig"\n'
    )
    (folder / "greeter.wasm").write_bytes(data)
    request = json.loads((SKILLS / "bounty-bidder/vectors/01-a-bid-with-margin.json").read_text())["request"]
    (folder / "vectors/01-a-bid.json").write_text(json.dumps({"about": "", "hook": "bid", "request": request, "reply": {"id": "1.0.0"}}))
    return folder


@pytest.mark.slow
def test_written_limits_let_the_skill_pass_where_those_before_did_not(tmp_path: Path, make_skill) -> None:
    body = SPIN.format(rounds=10_000, reply=ANSWER)
    folder = project_of(tmp_path / "greeter", make_skill(body=body, limits=SkillLimits(fuel=20_000)), "fuel = 20000 # too few")
    before = (folder / FILE).read_text()
    runner = CliRunner()
    assert vectors.run_all(read_bundle(folder), folder / "vectors")[0].problems
    shown = runner.invoke(app, ["skill", "bench", str(folder), "--seconds", "0", "--examples", "5", "--write"])
    assert shown.exit_code == 1, shown.output
    assert "fuel: too tight: 01-a-bid needs" in shown.stdout or "fuel: too tight: bid, made up" in shown.stdout
    assert "[limits]\nfuel = " in shown.stdout
    loaded = project.load(folder)
    assert loaded.manifest.limits.fuel >= 120_000
    after = (folder / FILE).read_text()
    assert after.startswith(before[: before.index("fuel = ")])
    assert after.endswith(before[before.index("[build]") :])
    assert "# too few" in after
    (folder / "greeter.wasm").write_bytes(with_manifest(read_bundle(folder), loaded.manifest, "greeter"))
    assert not vectors.run_all(read_bundle(folder), folder / "vectors")[0].problems
    shown = runner.invoke(app, ["skill", "bench", str(folder), "--seconds", "0", "--examples", "5", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout.splitlines()[-1])
    assert not any(limit["fails"] for limit in found["limits"])
    assert (found["margin"], found["slowdown"]) == (MARGIN, SLOWDOWN)
    assert set(found["times_us"]["bid"]) == {"p50", "p99", "max"}


def test_requests_are_made_up_from_those_that_somebody_wrote_and_the_same_each_time():
    loaded = project.load(SKILLS / "bounty-bidder")
    written = scripts.of_project(loaded)
    one, two = (list(scripts.made_up(loaded.manifest, written, 20, seed=3)) for _ in range(2))
    assert one == two
    assert len(one) == 20
    assert all(script.made_up and script.hook == "bid" for script in one)


def test_programs_are_measured_at_the_length_of_whole_chunks():
    loaded = project.load(SKILLS / "toolpath-planner")
    longer = list(scripts.made_up(loaded.manifest, scripts.of_project(loaded), 1, seed=3))
    assert longer
    assert {len(script.program) for script in longer} == {scripts.PROGRAM_BYTES}
