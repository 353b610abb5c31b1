"""Impedance: the profiler on each agent, the registry of a tier, summaries that add up, and the orchestrator's map."""

import hashlib
import json
import math
import random
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core import arrival_reference
from cython_core.arrival_reference import ACTIVE, DEGRADED, EDGE, GPU, HUMAN, OFFLINE, QUARANTINED
from host.core import cbor
from host.core.errors import MalformedData, StateDamaged, TooLarge, UsageError
from host.mesh import impedance, scoring, snapshots
from host.mesh.fleetmap import CLUSTERS_MAX, SECTORS_MAX, FleetMap
from host.mesh.history import MINUTES, History
from host.mesh.impedance import INTERVAL_MS, STATES, USUAL_MS, AgentRow, ImpedanceRegistry
from host.mesh.profiler import SAMPLES_MAX, Profiler, Vitals, heartbeat_delay_ms, nearest_rank
from host.mesh.rows import CAPABILITIES_MAX
from host.mesh.summary import BIN_POINTS, BINS, Candidates, Ranked, Summary, compact, histogram, merge, quantile_of, summarise

FUZZ = settings(max_examples=100, deadline=None, print_blob=True)
NOW_MS = 1_700_000_000_000.0
MINUTE_MS, HOUR_MS = 60_000.0, 3_600_000.0
LATE_MS, GONE_MS = 2 * 1.1 * INTERVAL_MS, 4 * 1.1 * INTERVAL_MS

delays = st.floats(0, 1e8, width=32)
shares = st.floats(0, 1)
some_vitals = st.builds(
    Vitals, rtt_ms=delays, rtt_p95_ms=delays, processing_ms=delays, processing_p95_ms=delays, queue=st.integers(0, 65_535), success=shares,
    drift=shares, samples=st.integers(0, 100),
)  # fmt: skip


def vitals(delay_ms: float = 10.0, **changed: Any) -> Vitals:
    """Of an agent whose delay is `delay_ms`, now and at its worst."""
    plain = {"rtt_ms": 0.0, "rtt_p95_ms": 0.0, "processing_ms": delay_ms, "processing_p95_ms": delay_ms, "samples": 100}
    return Vitals(**(plain | changed))


def registry_of(*delays_ms: float, capacity: int = 0, capabilities: tuple[str, ...] = ("motion",)) -> ImpedanceRegistry:
    registry = ImpedanceRegistry(capacity or max(len(delays_ms), 1))
    for number, delay_ms in enumerate(delays_ms):
        row = registry.join(f"agent-{number:05}", EDGE, 1, capabilities, NOW_MS)
        registry.heartbeat(row, vitals(delay_ms), NOW_MS)
    registry.sweep(NOW_MS)
    return registry


def random_registry(chance: random.Random, size: int, capacity: int = 0) -> ImpedanceRegistry:
    """Agents of all classes, states and flags, some forgotten, with a quarter of an hour of history."""
    registry = ImpedanceRegistry(capacity or size)
    sets = [("motion",), ("motion", "state"), ("clock",), (), ("clock", "motion", "state")]
    for number in range(size):
        registry.join(f"agent-{number:05}", chance.randrange(6), chance.randint(1, 4), chance.choice(sets), NOW_MS)
    for minute in range(15):
        for row in range(size):
            spike = chance.choice((1, 1, 1, 1, 8))
            told = vitals(
                spike * chance.uniform(1, 4000), rtt_p95_ms=chance.uniform(0, 200), queue=chance.randrange(5), drift=chance.random(),
                success=1 - chance.random() / 5,
            )  # fmt: skip
            registry.heartbeat(row, told, NOW_MS + minute * MINUTE_MS + row)
            registry.table.observe(row, chance.uniform(1, 50), chance.uniform(1, 300), 0.0, 0)
    for number in chance.sample(range(size), size // 5):
        name = f"agent-{number:05}"
        chance.choice((registry.leave, registry.forget, lambda name: registry.quarantine(name, "sends nonsense")))(name)
    return registry


def everything(registry: ImpedanceRegistry) -> list[AgentRow]:
    return [registry.read(name) for name in registry.names()]


# The profiler.


@FUZZ
@given(st.lists(st.floats(0, 1e8, width=32), max_size=250))
def test_the_profiler_gives_the_quantiles_of_its_last_100_samples(samples: list[float]):
    profiler = Profiler()
    for at, sample in enumerate(samples):
        profiler.rtt(sample)
        profiler.processed(2 * sample, True, NOW_MS + at)
    kept, recent = sorted(samples[-SAMPLES_MAX:]), sorted(samples[-10:])
    found = profiler.vitals(0, NOW_MS)
    assert found.samples == len(kept)
    if kept:
        assert found.rtt_p95_ms == kept[-(-95 * len(kept) // 100) - 1]
        assert found.rtt_ms == recent[(len(recent) + 1) // 2 - 1]
        usual = kept[(len(kept) + 1) // 2 - 1]
        # A millisecond is the least that drift is measured by, so of the same figures the larger drift more.
        doubled, usual_doubled = min(2 * found.rtt_ms, 1e8), min(2 * usual, 1e8)
        of_each = (abs(found.rtt_ms - usual) / max(usual, 1.0), abs(doubled - usual_doubled) / max(usual_doubled, 1.0))
        assert found.drift == pytest.approx(min(max(of_each), 1.0))
        assert found.processing_p95_ms == min(2 * found.rtt_p95_ms, 1e8)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.98, 1.0])
def test_the_nearest_rank_is_that_of_exact_arithmetic_for_every_number_of_samples(share: float):
    for count in range(1, 201):
        exact = -(-round(100 * share) * count // 100)
        assert nearest_rank(range(1, count + 1), share) == exact


def test_a_new_profiler_knows_nothing_and_says_so():
    assert Profiler().vitals(0, NOW_MS) == Vitals()
    assert Vitals().samples == 0 and Vitals().success == 1.0


def test_drift_says_how_far_the_last_ten_samples_are_from_all():
    profiler = Profiler()
    for _ in range(90):
        profiler.rtt(100)
    assert profiler.vitals(0, NOW_MS).drift == 0
    for _ in range(10):
        profiler.rtt(140)
    assert profiler.vitals(0, NOW_MS).drift == pytest.approx(0.4)
    for _ in range(10):
        profiler.rtt(900)
    assert profiler.vitals(0, NOW_MS).drift == 1.0


def test_drift_of_less_than_a_millisecond_is_none_to_speak_of():
    profiler = Profiler()
    for sample in [0.1] * 90 + [0.3] * 10:
        profiler.rtt(sample)
    assert profiler.vitals(0, NOW_MS).drift == pytest.approx(0.2, abs=1e-6)


def test_success_is_that_of_the_last_hour():
    profiler = Profiler()
    for minute in range(30):
        profiler.processed(5, False, NOW_MS + minute * MINUTE_MS)
    assert profiler.success(NOW_MS + 30 * MINUTE_MS) == 0
    for minute in range(30, 60):
        profiler.processed(5, True, NOW_MS + minute * MINUTE_MS)
    assert profiler.success(NOW_MS + 59 * MINUTE_MS) == pytest.approx(0.5, abs=0.06)
    assert profiler.success(NOW_MS + 95 * MINUTE_MS) == 1
    assert profiler.success(NOW_MS + 24 * HOUR_MS) == 1


def test_a_clock_that_is_set_back_neither_loses_outcomes_nor_invents_any():
    profiler = Profiler()
    profiler.processed(5, False, NOW_MS)
    profiler.processed(5, True, NOW_MS - HOUR_MS)
    assert profiler.success(NOW_MS - HOUR_MS) == 0.5


@pytest.mark.parametrize(("sample", "kept"), [(-5.0, 0.0), (math.nan, 0.0), (math.inf, 1e8), (1e12, 1e8)])
def test_a_sample_that_cannot_be_is_kept_within_bounds(sample: float, kept: float):
    profiler = Profiler()
    profiler.rtt(sample)
    assert profiler.vitals(0, NOW_MS).rtt_ms == kept


def test_a_full_profiler_takes_less_than_a_kibibyte_and_a_half():
    profiler = Profiler()
    for at in range(1_000):
        profiler.rtt(at)
        profiler.processed(at, at % 7 > 0, NOW_MS + at * 10_000)
    assert not hasattr(profiler, "__dict__")
    held = [profiler, *(getattr(profiler, slot) for slot in Profiler.__slots__)]
    assert sum(map(sys.getsizeof, held)) < 1536
    assert sum(map(sys.getsizeof, [Profiler()])) < 100


@FUZZ
@given(some_vitals)
def test_vitals_travel_unchanged(told: Vitals):
    assert cbor.decode_struct(cbor.encode(told), Vitals, "vitals") == told


@pytest.mark.parametrize(
    ("field", "value"),
    [("rtt_ms", math.nan), ("processing_p95_ms", math.inf), ("rtt_ms", -1.0), ("processing_ms", 1.1e8), ("queue", 65_536),
     ("success", 1.01), ("drift", -0.1), ("samples", 101), ("load", 1.0)],
)  # fmt: skip
def test_vitals_out_of_range_are_refused(field: str, value: float, one_line: Any):
    data = cbor.encode(msgspec.structs.asdict(vitals()) | {field: value})
    with pytest.raises(MalformedData) as caught:
        cbor.decode_struct(data, Vitals, "vitals")
    one_line(caught.value, "vitals", field)


@given(st.floats(0, 1))
def test_a_heartbeat_comes_within_a_tenth_of_its_interval(uniform: float):
    assert 4_500 <= heartbeat_delay_ms(5_000, uniform) <= 5_500


def test_heartbeats_are_spread_over_the_whole_jitter():
    assert [heartbeat_delay_ms(5_000, uniform) for uniform in (0, 0.5, 1)] == [4_500, 5_000, 5_500]


# The score.


@pytest.mark.parametrize(("delay_ms", "points"), [(0, 0), (1, 0), (10, 200), (100, 400), (1_000, 600), (10_000, 800), (1e8, 1000)])
def test_each_200_points_are_ten_times_slower(delay_ms: float, points: float):
    assert scoring.score(delay_ms, 1.0, 0.0) == pytest.approx(points)


@given(delays, shares, shares)
def test_a_score_is_from_0_to_1000_and_worse_with_each_of_its_parts(delay_ms: float, success: float, drift: float):
    points = scoring.score(delay_ms, success, drift)
    assert 0 <= points <= 1000
    assert scoring.score(2 * delay_ms, success, drift) >= points
    assert scoring.score(delay_ms, success / 2, drift) >= points
    assert scoring.score(delay_ms, success, drift / 2) <= points


def test_the_score_is_about_upper_quantiles_and_what_waits():
    assert scoring.delays_ms(vitals(processing_p95_ms=80.0, rtt_p95_ms=40.0, queue=10), 0.0) == (180.0, 20.0)


def test_an_agent_that_never_processed_anything_is_expected_to_be_like_its_class():
    registry = ImpedanceRegistry(2)
    gpu, human = registry.join("gpu", GPU, 1, (), NOW_MS), registry.join("human", HUMAN, 1, (), NOW_MS)
    assert USUAL_MS == (10, 50, 200, 100, 150, 60_000)
    assert registry.score(gpu) == pytest.approx(400)
    registry.heartbeat(gpu, Vitals(rtt_ms=2.0, rtt_p95_ms=4.0), NOW_MS)
    assert registry.score(gpu) == pytest.approx(200 * math.log10(102))
    assert registry.score(human) > scoring.SLOW_OVER
    assert registry.read("human").flags == ()
    registry.heartbeat(human, Vitals(), NOW_MS)
    assert registry.read("human").flags == ("slow",)


@pytest.mark.parametrize(
    ("told", "flags"),
    [(vitals(9_900), ()), (vitals(10_100), ("slow",)), (vitals(drift=0.5), ()), (vitals(drift=0.51), ("unstable",)),
     (vitals(success=0.9), ()), (vitals(success=0.89), ("unstable",)), (vitals(50_000, success=0.5), ("slow", "unstable"))],
)  # fmt: skip
def test_flags_say_what_is_slow_and_what_is_unstable(told: Vitals, flags: tuple[str, ...]):
    registry = ImpedanceRegistry(1)
    registry.heartbeat(registry.join("one", EDGE, 1, (), NOW_MS), told, NOW_MS)
    assert registry.read("one").flags == flags


def test_an_agent_spikes_over_twice_its_own_baseline_and_spikes_do_not_become_the_baseline_soon():
    registry = registry_of(10.0)
    for beat in range(40):
        registry.heartbeat(0, vitals(10.0 + beat % 3), NOW_MS + beat * INTERVAL_MS)
        assert registry.read("agent-00000").flags == ()
    for beat in range(10):
        registry.heartbeat(0, vitals(10.0, processing_ms=5_000.0), NOW_MS + (40 + beat) * INTERVAL_MS)
        assert registry.read("agent-00000").flags == ("spiking",)
    registry.heartbeat(0, vitals(11.0), NOW_MS + 60 * INTERVAL_MS)
    assert registry.read("agent-00000").flags == ()


def test_a_delay_that_stays_longer_is_the_baseline_after_some_minutes():
    registry = registry_of(10.0)
    flagged = 0
    for beat in range(60):
        registry.heartbeat(0, vitals(50.0), NOW_MS + beat * INTERVAL_MS)
        flagged += registry.read("agent-00000").flags == ("spiking",)
    assert 12 <= flagged <= 30


def test_the_first_measurement_of_processing_is_no_spike():
    registry = ImpedanceRegistry(1)
    row = registry.join("one", EDGE, 1, (), NOW_MS)
    registry.heartbeat(row, Vitals(rtt_ms=1.0, rtt_p95_ms=1.0), NOW_MS)
    registry.heartbeat(row, vitals(500.0), NOW_MS)
    assert registry.read("one").flags == ()
    registry.heartbeat(row, vitals(1_500.0), NOW_MS)
    assert registry.read("one").flags == ("spiking",)


# Who is there.


def test_an_agent_that_comes_back_has_the_row_that_it_had():
    registry = registry_of(10.0, 20.0, capacity=3)
    before = registry.read("agent-00001")
    registry.leave("agent-00001")
    assert registry.read("agent-00001").state == OFFLINE
    assert registry.join("agent-00001", EDGE, 1, ("motion", "clock"), NOW_MS + 5) == 1
    after = registry.read("agent-00001")
    assert after.state == ACTIVE and after.score == before.score and after.vitals == before.vitals
    assert after.capabilities == ("clock", "motion") and after.heard_ms == NOW_MS + 5
    assert [row.name for row in registry.best("clock", 5)] == ["agent-00001"]
    assert len(registry) == 2


def test_other_hardware_under_an_old_name_starts_over():
    registry = registry_of(5_000.0)
    for _ in range(10):
        registry.table.observe(0, 900.0, 900.0, 0.0, 0)
    registry.join("agent-00000", EDGE, 2, ("motion",), NOW_MS)
    found = registry.read("agent-00000")
    assert found.vitals == Vitals() and found.score == pytest.approx(200) and found.generation == 2
    assert registry.table.observations(0) == 0
    assert registry.trend("agent-00000") == 0


def test_a_full_registry_refuses_one_more_until_one_is_forgotten(one_line: Any):
    registry = registry_of(10.0, 20.0)
    with pytest.raises(TooLarge) as caught:
        registry.join("late", EDGE, 1, (), NOW_MS)
    one_line(caught.value, "late", 2)
    registry.leave("agent-00000")
    with pytest.raises(TooLarge):
        registry.join("late", EDGE, 1, (), NOW_MS)
    registry.forget("agent-00000")
    assert "agent-00000" not in registry
    assert registry.join("late", GPU, 3, (), NOW_MS) == 0
    assert registry.read("late").vitals == Vitals()
    assert registry.table.row(0)[4] == GPU
    assert registry.best("motion", 5)[0].name == "agent-00001"


def test_a_forgotten_row_has_no_agent_and_is_not_sent_to(one_line: Any):
    registry = registry_of(10.0)
    registry.forget("agent-00000")
    assert registry.table.row(0)[6] == OFFLINE
    for call in (
        lambda: registry.heartbeat(0, vitals(), NOW_MS),
        lambda: registry.seen(0, NOW_MS),
        lambda: registry.score(-1),
        lambda: registry.seen(7, 0),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        one_line(caught.value, "row")
    assert registry.sweep(NOW_MS + HOUR_MS) == []


@pytest.mark.parametrize(
    ("name", "agent_class", "generation", "capabilities"),
    [("Big", 0, 1, ()), ("", 0, 1, ()), ("a" * 65, 0, 1, ()), ("a\nb", 0, 1, ()), ("a\n", 0, 1, ()), ("a", 6, 1, ()),
     ("a", -1, 1, ()), ("a", 0, 0, ()), ("a", 0, 256, ()), ("a", 0, 1, ("Motion",)), ("a", 0, 1, ("two words",)), ("a", 0, 1, ("c" * 65,))],
)  # fmt: skip
def test_what_cannot_be_an_agent_is_refused_in_one_line(
    name: str, agent_class: int, generation: int, capabilities: tuple[str, ...], one_line: Any
):
    registry = ImpedanceRegistry(2)
    with pytest.raises(UsageError) as caught:
        registry.join(name, agent_class, generation, capabilities, NOW_MS)
    one_line(caught.value)
    assert len(registry) == len(registry.rows) == 0


def test_an_agent_with_too_many_capabilities_is_refused():
    many = tuple(f"c{number}" for number in range(CAPABILITIES_MAX + 1))
    with pytest.raises(TooLarge):
        ImpedanceRegistry(2).join("one", EDGE, 1, many, NOW_MS)
    assert len(ImpedanceRegistry(2).rows) == 0


def test_an_unknown_name_is_a_mistake_in_one_line(one_line: Any):
    registry = registry_of(10.0)
    for call in (registry.read, registry.leave, registry.forget, registry.trend, registry.release):
        with pytest.raises(UsageError) as caught:
            call("nobody\x1b[2J")
        one_line(caught.value, "nobody")


def test_silence_degrades_then_takes_offline_and_a_heartbeat_brings_back():
    registry = registry_of(10.0, 20.0)
    names = ["agent-00000", "agent-00001"]
    assert registry.sweep(NOW_MS + LATE_MS) == []
    assert registry.sweep(NOW_MS + LATE_MS + 1) == names
    assert [row.state for row in everything(registry)] == [DEGRADED] * 2
    assert registry.best("motion", 9) == []
    registry.seen(1, NOW_MS + LATE_MS + 2)
    assert registry.read("agent-00001").state == ACTIVE
    assert registry.sweep(NOW_MS + GONE_MS + 4) == ["agent-00001", "agent-00000"]
    assert [STATES[row.state] for row in everything(registry)] == ["offline", "degraded"]
    assert [registry.table.row(row)[6] for row in (0, 1)] == [OFFLINE, DEGRADED]
    registry.heartbeat(0, vitals(10.0), NOW_MS + GONE_MS + 5)
    assert registry.sweep(NOW_MS + GONE_MS + 6) == ["agent-00000"]
    assert registry.read("agent-00000").state == ACTIVE == registry.table.row(0)[6]
    assert registry.sweep(NOW_MS + 10 * HOUR_MS) == names
    assert registry.sweep(NOW_MS + 11 * HOUR_MS) == []
    assert registry.gone_since(NOW_MS + GONE_MS) == ["agent-00001"]


def test_one_lost_heartbeat_degrades_nobody_however_the_jitter_falls():
    registry = registry_of(10.0)
    assert registry.sweep(NOW_MS + 2 * heartbeat_delay_ms(INTERVAL_MS, 1.0)) == []


def test_a_quarantined_agent_stays_so_whatever_it_sends(one_line: Any):
    registry = registry_of(10.0)
    registry.quarantine("agent-00000", "sends\x1b nonsense")
    assert registry.sweep(NOW_MS) == ["agent-00000"]
    registry.heartbeat(0, vitals(), NOW_MS)
    registry.seen(0, NOW_MS)
    registry.leave("agent-00000")
    registry.join("agent-00000", EDGE, 1, ("motion",), NOW_MS)
    registry.sweep(NOW_MS + HOUR_MS)
    found = registry.read("agent-00000")
    assert found.state == QUARANTINED == registry.table.row(0)[6]
    assert one_line(found.reason, "sends")
    assert registry.best("motion", 1) == []
    with pytest.raises(UsageError) as caught:
        registry.forget("agent-00000")
    one_line(caught.value, "agent-00000", "nonsense", "release")


def test_a_released_agent_has_to_be_heard_before_it_is_active():
    registry = registry_of(10.0, 10.0)
    for name in registry.names():
        registry.quarantine(name, "test")
        registry.release(name)
        registry.release(name)
    assert [(row.state, row.reason) for row in everything(registry)] == [(DEGRADED, "")] * 2
    registry.heartbeat(0, vitals(), NOW_MS + GONE_MS)
    registry.sweep(NOW_MS + GONE_MS + 1)
    assert [row.state for row in everything(registry)] == [ACTIVE, OFFLINE]


def test_a_heartbeat_reaches_the_arrival_table():
    registry = ImpedanceRegistry(1, quantile=0.9)
    row = registry.join("one", GPU, 1, (), NOW_MS)
    registry.heartbeat(row, Vitals(rtt_ms=30.0, queue=7, drift=0.25, success=0.5), NOW_MS + 1)
    assert registry.table.row(row) == (30.0, 7, 0.25, 0.5, GPU, NOW_MS + 1, ACTIVE)
    assert registry.table.quantile == 0.9


# The best.


@settings(max_examples=40, deadline=None, print_blob=True)
@given(st.integers(0, 1 << 32), st.integers(-1, 30), st.floats(0, 1000), st.sampled_from(["motion", "clock", "state", "none"]))
def test_the_best_are_those_that_a_full_sort_finds(seed: int, count: int, ceiling: float, capability: str):
    registry = random_registry(random.Random(seed), 25)
    able = [row for row in everything(registry) if row.state == ACTIVE and capability in row.capabilities and row.score <= ceiling]
    expected = sorted(able, key=lambda row: (row.score, row.name))[: max(count, 0)]
    assert registry.best(capability, count, ceiling) == expected


def test_the_ceiling_is_inclusive():
    registry = registry_of(10.0, 100.0)
    assert [row.name for row in registry.best("motion", 9, 400.0)] == ["agent-00000", "agent-00001"]
    assert [row.name for row in registry.best("motion", 9, 399.9)] == ["agent-00000"]


def test_an_index_that_emptied_holds_nothing():
    registry = registry_of(*range(1, 50))
    for name in registry.names():
        registry.leave(name)
    assert registry.holders() == {} == registry._ranking._piles


# Trends.


def test_a_trend_is_the_slope_in_points_per_hour():
    registry = registry_of(10.0)
    for minute in range(1, 31):
        delay_ms = 10.0 ** (1 + minute / 60)  # ten times slower in an hour: 200 points
        registry.heartbeat(0, vitals(delay_ms), NOW_MS + minute * MINUTE_MS)
    assert registry.trend("agent-00000") == pytest.approx(200, rel=0.01)


@FUZZ
@given(st.lists(st.tuples(st.integers(1, 70), st.floats(0, 1000)), max_size=80))
def test_history_keeps_the_first_score_of_each_of_the_last_sixty_minutes(steps: list[tuple[int, float]]):
    kept, told, minute = History(), dict[int, float](), 28_000_000
    kept.add()
    for step, score in steps:
        minute += step
        assert kept.note(0, minute * MINUTE_MS, score)
        assert not kept.note(0, minute * MINUTE_MS + 59_999, 1000 - score)
        assert not kept.note(0, (minute - 3) * MINUTE_MS, 500.0)
        told[minute] = score
    expected = [(at - minute, score) for at, score in told.items() if at > minute - MINUTES]
    found = kept.points(0)
    assert [at for at, _ in found] == [at for at, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1 / 120 + 1e-9)
    if len(expected) >= 2:
        mean_x, mean_y = (sum(values) / len(expected) for values in zip(*expected, strict=True))
        slope = sum((x - mean_x) * (y - mean_y) for x, y in expected) / sum((x - mean_x) ** 2 for x, _ in expected)
        assert kept.trend(0) == pytest.approx(60 * slope, abs=1.5)
    else:
        assert kept.trend(0) == 0
    kept.clear(0)
    assert kept.points(0) == []


# Snapshots.


@settings(max_examples=20, deadline=None, print_blob=True)
@given(st.integers(0, 1 << 32), st.integers(0, 20))
def test_a_restored_registry_is_the_one_that_was_kept(seed: int, size: int):
    chance = random.Random(seed)
    registry = random_registry(chance, size, capacity=30)
    kept = registry.snapshot()
    other = random_registry(chance, 7, capacity=30)
    other.restore(kept)
    assert other.snapshot() == kept
    assert sorted(everything(other), key=lambda row: row.name) == sorted(everything(registry), key=lambda row: row.name)
    for name in registry.names():
        assert other.trend(name) == registry.trend(name)
    for capability in ("motion", "clock"):
        assert other.best(capability, 5, 900.0) == registry.best(capability, 5, 900.0)
    for agent in range(30):
        assert other.table.row(agent) == registry.table.row(agent)
        assert other.table.lead_ms(agent) == registry.table.lead_ms(agent)
    assert summarise(other, "here") == summarise(registry, "here")
    # And it goes on: every row can be taken, every agent heard.
    for number in range(len(other), 30):
        other.join(f"new-{number}", EDGE, 1, (), NOW_MS)
    for name in other.names():
        other.heartbeat(other.row_of(name), vitals(), NOW_MS)
    assert sorted(other.row_of(name) for name in other.names()) == list(range(30))


def resealed(data: bytes, **changed: object) -> bytes:
    """The snapshot with other content and a digest that fits it."""
    body = cbor.encode(cbor.decode(cbor.decode(data, "")["body"], "", bytes_max=1 << 30) | changed)
    return cbor.encode({"body": body, "digest": hashlib.sha256(body).digest()})


def column(code: str, *values: float) -> bytes:
    return array(code, values).tobytes()


DAMAGE: dict[str, dict[str, Any]] = {
    "another format": {"format": 2},
    "another capacity": {"capacity": 4},
    "a name too many": {"names": "agent-00000\nagent-00001\nagent-00002\nx"},
    "a bad name": {"names": "agent-00000\nAGENT\nagent-00002"},
    "a name twice": {"names": "agent-00000\nagent-00000\nagent-00002"},
    "an agent without a name": {"names": "agent-00000\n\nagent-00002"},
    "an unknown state": {"state": b"\0\4\3"},
    "a column cut short": {"score": column("d", 1, 2)},
    "a column of half an item": {"score": b"\0" * 23},
    "a score over 1000": {"score": column("d", 1, 2, 1001)},
    "a score that is no number": {"score": column("d", 1, 2, math.nan)},
    "an infinite baseline": {"baseline_ms": column("d", 1, 2, math.inf)},
    "a time before time": {"heard_ms": column("d", 1, 2, -1)},
    "an agent that was heard never": {"heard_ms": column("d", 1, 2, math.inf)},
    "a class beyond the last": {"agent_class": b"\0\0\6"},
    "an unknown flag": {"flags": b"\0\0\x08"},
    "a set of capabilities that is not there": {"capabilities": column("I", 0, 0, 9)},
    "capabilities out of order": {"sets": "motion clock"},
    "a bad capability": {"sets": "MOTION"},
    "a reason too many": {"reasons": "one\ntwo"},
    "a reason that clears the screen": {"reasons": "\x1b[2J"},
    "history of another size": {"history_minute": column("I", 1, 2)},
    "a history score over 1000": {"history": column("H", *[60_002] * 180)},
    "no vitals": {"vitals": {}},
    "a table that is none": {"table": b"SCAT"},
    "a field too many": {"more": 1},
}


@pytest.mark.parametrize("changed", DAMAGE.values(), ids=DAMAGE)
def test_a_snapshot_that_nobody_wrote_is_refused_and_nothing_changes(changed: dict[str, Any], one_line: Any):
    registry = registry_of(10.0, 20.0, 30.0)
    registry.quarantine("agent-00002", "test")
    data = registry.snapshot()
    before = everything(registry)
    registry.restore(resealed(data))
    with pytest.raises(StateDamaged) as caught:
        registry.restore(resealed(data, **changed))
    one_line(caught.value, "impedance snapshot")
    assert everything(registry) == before
    assert registry.snapshot() == data


def test_vitals_out_of_range_in_a_snapshot_are_refused():
    registry = registry_of(10.0)
    data = registry.snapshot()
    columns = cbor.decode(cbor.decode(data, "")["body"], "")["vitals"]
    with pytest.raises(StateDamaged, match="vitals"):
        registry.restore(resealed(data, vitals=columns | {"drift": column("d", 1.5)}))


def test_no_flipped_bit_and_no_missing_byte_goes_unnoticed():
    registry = random_registry(random.Random(5), 3)
    data, before = registry.snapshot(), everything(registry)
    chance = random.Random(6)
    for at in chance.sample(range(len(data)), 150):
        flipped = bytearray(data)
        flipped[at] ^= 1 << chance.randrange(8)
        for damaged in (bytes(flipped), data[:at]):
            with pytest.raises(StateDamaged):
                registry.restore(damaged)
    assert everything(registry) == before


def test_a_snapshot_of_another_quantile_is_refused(one_line: Any):
    registry = registry_of(10.0)
    other = ImpedanceRegistry(1, quantile=0.9)
    with pytest.raises(StateDamaged) as caught:
        other.restore(registry.snapshot())
    one_line(caught.value, "quantile")
    assert len(other) == 0


def test_a_snapshot_is_the_same_on_a_machine_of_the_other_byte_order(monkeypatch: pytest.MonkeyPatch):
    numbers = array("I", (1, 2, 0xFFFF_FF00))
    little = snapshots._bytes(numbers)
    assert little[:4] == b"\1\0\0\0"
    monkeypatch.setattr(sys, "byteorder", "big")
    assert snapshots._bytes(numbers)[:4] == b"\0\0\0\1"  # what a big-endian machine has in memory, turned round
    assert snapshots._column("I", snapshots._bytes(numbers)) == numbers


def test_without_compiled_extensions_the_registry_is_the_same(monkeypatch: pytest.MonkeyPatch):
    compiled = random_registry(random.Random(7), 20)
    monkeypatch.setattr(impedance, "Table", arrival_reference.Table)
    readable = random_registry(random.Random(7), 20)
    assert type(readable.table) is not type(compiled.table)
    assert readable.snapshot() == compiled.snapshot()
    assert summarise(readable, "here") == summarise(compiled, "here")
    readable.restore(compiled.snapshot())
    assert readable.snapshot() == compiled.snapshot()


# Summaries.


def summaries_of(registries: list[ImpedanceRegistry]) -> list[Summary]:
    return [summarise(registry, f"cluster-{number}") for number, registry in enumerate(registries)]


@settings(max_examples=30, deadline=None, print_blob=True)
@given(st.integers(0, 1 << 32), st.lists(st.integers(0, 25), max_size=5))
def test_summaries_of_clusters_merge_into_what_one_registry_of_all_would_say(seed: int, sizes: list[int]):
    chance = random.Random(seed)
    registries = [random_registry(chance, size, capacity=25) for size in sizes]
    merged = merge("sector-1", "sector", summaries_of(registries))
    rows = [row for registry in registries for row in everything(registry)]
    reachable = [row for row in rows if row.state in (ACTIVE, DEGRADED)]
    scores = sorted(row.score for row in reachable)
    assert merged.agents == len(rows)
    assert (merged.active, merged.degraded, merged.offline, merged.quarantined) == tuple(
        sum(row.state == state for row in rows) for state in (ACTIVE, DEGRADED, OFFLINE, QUARANTINED)
    )
    assert merged.histogram == histogram(scores)
    assert merged.mean == pytest.approx(sum(scores) / len(scores) if scores else 0)
    assert abs(merged.p95 - nearest_rank(scores, 0.95)) <= BIN_POINTS
    assert merged.slow == sum("slow" in row.flags for row in reachable)
    assert merged.unstable == sum("unstable" in row.flags for row in reachable)
    assert merged.spiking == sum("spiking" in row.flags for row in reachable)
    assert merged.generations == tuple(sorted({row.generation for row in rows}))
    if scores:
        assert merged.slowest is not None and merged.slowest.score == scores[-1]
        assert merged.fastest is not None and merged.fastest.score == scores[0]
    for group in merged.candidates:
        able = sorted((row.score, row.name) for row in reachable if row.state == ACTIVE and group.capability in row.capabilities)
        assert group.agents == len(able)
        assert [(one.score, one.name) for one in group.best] == able[:3]
    assert cbor.decode_struct(cbor.encode(merged), Summary, "summary") == merged


def test_a_cluster_reports_the_lead_that_its_slowest_but_a_few_need():
    registry = ImpedanceRegistry(100)
    for number in range(100):
        row = registry.join(f"agent-{number}", EDGE, 1, (), NOW_MS)
        registry.heartbeat(row, vitals(rtt_ms=float(2 * number)), NOW_MS)
    assert summarise(registry, "c").lead_ms == 94 + 10
    assert summarise(registry, "c").lead_heavy_ms == 94 + 15
    assert summarise(registry, "c", share=1.0).lead_ms == 99 + 10
    registry.quarantine("agent-99", "test")
    assert summarise(registry, "c", share=1.0).lead_ms == 98 + 10
    registry.leave("agent-98")
    found = summarise(registry, "c", share=1.0, conflicts_hour=4, frozen=True)
    assert (found.lead_ms, found.conflicts_hour, found.frozen) == (97 + 10, 4, True)
    assert (found.agents, found.active, found.offline, found.quarantined) == (100, 98, 1, 1)


def test_a_tier_above_adds_the_way_to_each_child_and_covers_the_share():
    def child(name: str, agents: int, lead_ms: float) -> Summary:
        one = Ranked("x", 10.0)
        bins = (agents, *(0,) * (BINS - 1))
        return Summary(
            name=name, tier="cluster", agents=agents, active=agents, histogram=bins, slowest=one, fastest=one, lead_ms=lead_ms,
            lead_heavy_ms=2 * lead_ms,
        )  # fmt: skip

    children = [
        child("a", 50, 100.0),
        child("b", 49, 300.0),
        child("c", 1, 60_000.0),
        Summary(name="d", tier="cluster", agents=3, offline=3),
    ]
    merged = merge("s", "sector", children, hops_ms={"b": 5.0})
    assert (merged.lead_ms, merged.lead_heavy_ms) == (305, 605)
    assert merge("s", "sector", children, share=1.0).lead_ms == 60_000
    assert merge("s", "sector", children, share=0.5).lead_ms == 100
    assert merge("s", "sector", children[3:]).lead_ms == 0


def test_a_tier_is_frozen_when_it_says_so_or_when_all_below_it_is():
    frozen, open_ = Summary(name="a", tier="cluster", frozen=True), Summary(name="b", tier="cluster", conflicts_hour=2)
    assert not merge("s", "sector", [frozen, open_]).frozen
    assert merge("s", "sector", [frozen]).frozen
    assert merge("s", "sector", [open_], frozen=True).frozen
    assert not merge("s", "sector", []).frozen
    assert merge("s", "sector", [open_, open_], conflicts_hour=3).conflicts_hour == 7


def test_a_summary_of_nobody_is_sound():
    empty = summarise(ImpedanceRegistry(10), "empty")
    assert empty == Summary(name="empty", tier="cluster")
    assert merge("none", "federation", []).agents == 0
    assert cbor.decode_struct(cbor.encode(empty), Summary, "summary") == empty


@FUZZ
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_quantile_of_a_histogram_is_off_by_one_bin_at_most(scores: list[float], share: float):
    assert abs(quantile_of(histogram(scores), share) - nearest_rank(sorted(scores), share)) <= BIN_POINTS


def test_the_capabilities_that_most_agents_have_are_those_reported():
    registry = ImpedanceRegistry(60)
    for number in range(60):
        odd = f"a{number:02}"  # one agent each, and first by name
        registry.join(f"agent-{number}", EDGE, 1, (odd, *(f"common{at:02}" for at in range(15))), NOW_MS)
    found = summarise(registry, "c")
    assert [group.capability for group in found.candidates] == ["a00", *(f"common{at:02}" for at in range(15))]
    assert [group.agents for group in found.candidates] == [1, *[60] * 15]
    twice = merge("s", "sector", [found, found])
    assert [group.agents for group in twice.candidates] == [2, *[120] * 15]
    assert all(len(group.best) <= 3 for group in twice.candidates)


def test_a_cluster_passed_on_is_compact_and_a_full_summary_still_small():
    registry = random_registry(random.Random(1), 50)
    full = summarise(registry, "cluster-01-01")
    assert compact(full).candidates == () and compact(full).agents == full.agents
    assert compact(compact(full)) is not full
    assert len(cbor.encode(compact(full))) <= 512
    assert len(cbor.encode(full)) <= 1024


@pytest.mark.parametrize(
    "changed",
    [{"agents": 7}, {"active": -1}, {"mean": math.nan}, {"p95": 1001.0}, {"histogram": [0] * 20}, {"histogram": [9, *[0] * 20]},
     {"slowest": None}, {"tier": "galaxy"}, {"generations": [0]}, {"lead_ms": 1e9}, {"extra": 1},
     {"candidates": [{"capability": "x", "agents": 1, "best": []}]}],
)  # fmt: skip
def test_a_summary_that_contradicts_itself_is_refused(changed: dict[str, Any], one_line: Any):
    sound = msgspec.to_builtins(summarise(registry_of(10.0, 20.0), "c"))
    cbor.decode_struct(cbor.encode(sound), Summary, "summary")
    with pytest.raises(MalformedData) as caught:
        cbor.decode_struct(cbor.encode(sound | changed), Summary, "summary")
    one_line(caught.value, "summary")


# The map.


def sector(name: str, *scores: float, offline: int = 0, frozen: bool = False) -> Summary:
    ranked = sorted((Ranked(f"{name}-{at}", score) for at, score in enumerate(scores)), key=lambda one: one.score)
    return Summary(
        name=name, tier="sector", agents=len(scores) + offline, active=len(scores), offline=offline, frozen=frozen,
        histogram=histogram(scores), mean=sum(scores) / len(scores) if scores else 0.0,
        slowest=ranked[-1] if ranked else None, fastest=ranked[0] if ranked else None,
        candidates=(Candidates("motion", len(ranked), tuple(ranked[:3])),) if ranked else (),
    )  # fmt: skip


def test_a_sector_is_healthy_when_heard_not_frozen_and_nearly_all_active():
    fleet = FleetMap()
    fleet.report(sector("good", *[100.0] * 95, offline=5), [], NOW_MS)
    fleet.report(sector("thin", *[100.0] * 94, offline=6), [], NOW_MS)
    fleet.report(sector("cold", 100.0, frozen=True), [], NOW_MS)
    fleet.report(sector("empty"), [], NOW_MS)
    fleet.report(sector("silent", 100.0), [], NOW_MS - 4 * INTERVAL_MS - 1)
    assert [name for name in fleet.names() if fleet.healthy(name, NOW_MS)] == ["good"]
    assert fleet.sectors_healthy(NOW_MS) == 1
    assert fleet.ailment("thin", NOW_MS) == "94 of 100 agents active"
    assert fleet.ailment("silent", NOW_MS) == "not heard for 20 s"
    assert fleet.ailment("cold", NOW_MS) == "frozen"
    assert fleet.sectors_healthy(NOW_MS + HOUR_MS) == 0


def test_the_agents_of_a_silent_sector_count_as_offline():
    fleet = FleetMap("fleet")
    fleet.report(sector("a", 100.0, 200.0), [], NOW_MS)
    fleet.report(sector("b", 300.0, offline=1), [], NOW_MS + INTERVAL_MS)
    before = fleet.totals(NOW_MS + INTERVAL_MS)
    assert (before.agents, before.active, before.mean) == (4, 3, 200.0)
    after = fleet.totals(NOW_MS + 4.5 * INTERVAL_MS)
    assert (after.agents, after.active, after.offline, after.mean, after.name, after.tier) == (4, 1, 3, 300.0, "fleet", "federation")
    fleet.report(sector("a", 100.0, 200.0), [], NOW_MS + 5 * INTERVAL_MS)
    assert fleet.totals(NOW_MS + 5 * INTERVAL_MS) == before


def test_the_best_of_the_fleet_come_from_sectors_that_are_heard_and_open():
    fleet = FleetMap()
    fleet.report(sector("a", 50.0, 10.0, 90.0, 95.0), [], NOW_MS)
    fleet.report(sector("b", 20.0, 80.0), [], NOW_MS)
    fleet.report(sector("c", 1.0, frozen=True), [], NOW_MS)
    fleet.report(sector("d", 2.0), [], NOW_MS - HOUR_MS)
    assert [one.score for one in fleet.best("motion", 3, 1000.0, NOW_MS)] == [10, 20, 50]
    assert [one.name for one in fleet.best("motion", 9, 80.0, NOW_MS)] == ["a-1", "b-0", "a-0", "b-1"]
    assert fleet.best("clock", 3, 1000.0, NOW_MS) == []


def test_the_trend_of_the_fleet_is_that_of_its_mean():
    fleet = FleetMap()
    for minute in range(31):
        fleet.report(sector("a", 300.0 + 2 * minute), [], NOW_MS + minute * MINUTE_MS)
        fleet.report(sector("a", 999.0), [], NOW_MS + minute * MINUTE_MS + 5_000)
    assert fleet.trend() == pytest.approx(120, rel=0.01)


def test_a_map_keeps_clusters_without_their_candidates_and_forgets_on_demand(one_line: Any):
    fleet = FleetMap()
    fleet.report(sector("a", 10.0), [msgspec.structs.replace(sector("c", 10.0), tier="cluster")], NOW_MS)
    assert [(cluster.name, cluster.candidates) for cluster in fleet.sector("a").clusters] == [("c", ())]
    assert fleet.sector("a").summary.candidates
    fleet.forget("a")
    assert len(fleet) == 0
    for call in (fleet.forget, fleet.sector, lambda name: fleet.healthy(name, NOW_MS)):
        with pytest.raises(UsageError) as caught:
            call("a")
        one_line(caught.value, "'a'")


def test_a_map_is_bounded(one_line: Any):
    fleet, cluster = FleetMap(), Summary(name="c", tier="cluster")
    with pytest.raises(TooLarge):
        fleet.report(sector("a"), [cluster] * (CLUSTERS_MAX + 1), NOW_MS)
    for number in range(SECTORS_MAX):
        fleet.report(Summary(name=f"s{number}", tier="sector"), [], NOW_MS)
    fleet.report(Summary(name="s0", tier="sector"), [], NOW_MS)
    with pytest.raises(TooLarge) as caught:
        fleet.report(Summary(name="late", tier="sector"), [], NOW_MS)
    one_line(caught.value, "late", SECTORS_MAX)


# The size of a fleet.


@pytest.mark.slow
def test_thirty_thousand_agents_are_registered_read_ranked_kept_and_restored():
    chance, size = random.Random(3), 30_000
    registry = ImpedanceRegistry(size)
    for number in range(size):
        row = registry.join(f"agent-{number:05}", number % 6, 1, ("motion", "state"), NOW_MS)
        registry.heartbeat(row, vitals(chance.uniform(1, 20_000)), NOW_MS)
    assert len(registry.sweep(NOW_MS)) == len(registry) == size
    ranked = sorted(everything(registry), key=lambda row: (row.score, row.name))
    assert registry.best("motion", 500) == ranked[:500]
    found = summarise(registry, "all")
    assert found.active == sum(found.histogram) == size
    data = registry.snapshot()
    other = ImpedanceRegistry(size)
    other.restore(data)
    assert everything(other) == everything(registry)
    assert other.snapshot() == data
    assert len(data) < 1_000 * size
    assert len(registry.sweep(NOW_MS + HOUR_MS)) == size


@pytest.mark.slow
def test_the_registry_is_as_fast_as_its_benchmark_promises():
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "impedance.py"
    ended = subprocess.run([sys.executable, str(script), "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    print(found)
    assert found["agents"] == 30_000
    assert found["read_us"] <= 10
    assert found["heartbeat_us"] <= 40
    assert found["ratio_best"] >= 20
    assert found["profiler_bytes"] < 1536
