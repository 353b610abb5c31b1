"""Arrival scheduling: one suite over the compiled kernel and its readable reference, and properties on which they agree bit for bit."""

import math
import random
import struct
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cython_core import arrival, arrival_reference
from cython_core.arrival_reference import (
    ACTIVE,
    BASE,
    BUCKETS_MAX,
    DEGRADED,
    EDGE,
    GPU,
    HUMAN,
    LEARNED,
    OBSERVATIONS,
    OBSERVATIONS_MIN,
    OFFLINE,
    PERSISTENT,
    QUARANTINED,
    SKIP,
)

FUZZ = settings(max_examples=100, deadline=None, print_blob=True)
NOW_MS = 1_700_000_000_000.0


@pytest.fixture(params=[arrival, arrival_reference], ids=["compiled", "reference"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def as_the_processor_has_it() -> Iterator[None]:
    yield
    arrival.use_plain(False)


def table_of(module: Any, *agents: dict[str, Any]) -> Any:
    table = module.Table(len(agents))
    row = {"rtt_ms": 20.0, "queue": 0, "drift": 0.0, "reliability": 1.0, "agent_class": EDGE, "heartbeat_ms": NOW_MS, "state": ACTIVE}
    for agent, changed in enumerate(agents):
        table.update(agent, **{**row, **changed})
    return table


def groups(schedule: Any) -> list[tuple[float, list[int]]]:
    order, offsets = schedule.order.tolist(), schedule.offsets.tolist()
    return [(start, order[offsets[g] : offsets[g + 1]]) for g, start in enumerate(schedule.starts_ms.tolist())]


def everything(schedule: Any, confidence: memoryview) -> dict[str, Any]:
    """All that a schedule says, as bytes where equality of floats would hide a difference."""
    views = {name: getattr(schedule, name).tobytes() for name in ("lead_ms", "bucket", "order", "skipped", "starts_ms", "offsets")}
    numbers = {name: getattr(schedule, name) for name in ("selected", "scheduled", "groups", "available_ms")}
    return {**views, **numbers, "confidence": confidence.tobytes()}


# --- the base model ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agent_class", "base_ms"), [*enumerate([10, 50, 200, 100, 150, 60_000])])
def test_the_base_lead_is_half_the_round_trip_and_the_class_s_processing_grown_by_weight_and_queue(
    module: Any, agent_class: int, base_ms: float
) -> None:
    table = table_of(module, {"rtt_ms": 30.0, "queue": 5, "drift": 0.5, "agent_class": agent_class})
    assert table.lead_ms(0, 2.0, BASE) == pytest.approx(15 + base_ms * 2.0 * 1.5 + 25, rel=1e-6)


def test_confidence_follows_reliability_drift_and_the_last_heartbeat_and_stays_between_0_and_1(module: Any) -> None:
    table = table_of(
        module,
        {"reliability": 0.9, "drift": 0.1},
        {"reliability": 0.9, "drift": 0.1, "heartbeat_ms": NOW_MS - 10_001},
        {"reliability": 0.0, "drift": 1.0},
        {"heartbeat_ms": NOW_MS - 10_000},
    )
    assert module.Schedule(4).assess(table, NOW_MS).tolist() == pytest.approx([0.62, 0.42, 0.0, 0.7])
    assert module.Schedule(4).assess(table, NOW_MS, array("I", [1, 3])).tolist() == pytest.approx([0.42, 0.7])


# --- scheduled, skipped, in order ---------------------------------------------------------------------------------------------------


def test_agents_are_grouped_by_send_time_and_within_a_group_by_number(module: Any) -> None:
    table = table_of(
        module, {}, {"agent_class": PERSISTENT}, {"rtt_ms": 22.0}, {"agent_class": PERSISTENT, "rtt_ms": 25.0}, {"agent_class": GPU}
    )
    schedule = module.Schedule(5)
    assert schedule.compute(table, NOW_MS + 1000, NOW_MS) == 5
    assert groups(schedule) == [(NOW_MS + 780, [1, 3]), (NOW_MS + 880, [4]), (NOW_MS + 970, [0, 2])]


def test_a_skip_says_what_was_needed_and_what_was_available(module: Any) -> None:
    table = table_of(module, {}, {"agent_class": HUMAN}, {})
    schedule = module.Schedule(3)
    assert schedule.compute(table, NOW_MS + 500, NOW_MS) == 2
    assert schedule.skipped.tolist() == [1]
    assert list(schedule.bucket) == [2, SKIP, 2]
    assert (schedule.lead_ms[1], schedule.available_ms) == (60_010.0, 500.0)


@pytest.mark.parametrize("state", [OFFLINE, QUARANTINED])
def test_an_agent_that_is_offline_or_quarantined_is_never_scheduled(module: Any, state: int) -> None:
    table = table_of(module, {"state": state}, {"state": DEGRADED}, {})
    table.set_state(2, state)
    for _ in range(OBSERVATIONS_MIN):
        table.observe(0, 1.0, 1.0, 0.0, 0)
    schedule = module.Schedule(3)
    for estimator in (BASE, LEARNED):
        assert schedule.compute(table, NOW_MS + 1e8, NOW_MS, estimator=estimator) == 1
        assert (schedule.order.tolist(), schedule.skipped.tolist(), schedule.lead_ms[0]) == ([1], [0, 2], math.inf)


def test_a_bucket_that_should_have_left_already_is_sent_now(module: Any) -> None:
    schedule = module.Schedule(1)
    schedule.compute(table_of(module, {}), NOW_MS + 20, NOW_MS)
    assert groups(schedule) == [(NOW_MS, [0])]


def test_with_t_in_the_past_or_no_agents_there_is_nothing_to_send(module: Any) -> None:
    schedule = module.Schedule(2)
    assert schedule.compute(table_of(module, {}, {}), NOW_MS - 1, NOW_MS) == 0
    assert (groups(schedule), schedule.skipped.tolist(), schedule.available_ms) == ([], [0, 1], -1.0)
    assert schedule.compute(module.Table(0), NOW_MS, NOW_MS) == 0
    assert schedule.compute(table_of(module, {}), NOW_MS, NOW_MS, selection=array("I")) == 0
    assert (schedule.selected, schedule.offsets.tolist()) == (0, [0])


def test_a_selection_is_scheduled_alone_and_answers_by_position(module: Any) -> None:
    table = table_of(module, *({"agent_class": agent_class} for agent_class in (EDGE, PERSISTENT, GPU, HUMAN)))
    schedule = module.Schedule(4)
    schedule.compute(table, NOW_MS + 1000, NOW_MS, selection=array("I", [1, 2, 3]))
    assert (schedule.order.tolist(), schedule.skipped.tolist()) == ([1, 2], [3])
    assert schedule.lead_ms.tolist() == [210.0, 110.0, 60_010.0]


def test_leads_beyond_the_last_bucket_share_it_and_leave_when_the_slowest_must(module: Any) -> None:
    table = table_of(module, {"agent_class": HUMAN}, {"agent_class": HUMAN, "queue": 20}, {"agent_class": HUMAN, "queue": 30}, {})
    schedule = module.Schedule(4)
    schedule.compute(table, NOW_MS + 1e6, NOW_MS)
    assert groups(schedule)[0] == (NOW_MS + 1e6 - table.lead_ms(2), [1, 2])
    assert list(schedule.bucket)[1:3] == [BUCKETS_MAX - 1] * 2
    assert [agents for _, agents in groups(schedule)] == [[1, 2], [0], [3]]


def test_a_schedule_is_used_again_without_a_trace_of_the_call_before(module: Any) -> None:
    table = table_of(module, *({"rtt_ms": float(n % 700), "agent_class": n % 6} for n in range(3000)))
    used, fresh = module.Schedule(3000), module.Schedule(3000)
    used.compute(table, NOW_MS + 1e6, NOW_MS, 3.0)
    used.compute(table, NOW_MS + 90, NOW_MS)
    fresh.compute(table, NOW_MS + 90, NOW_MS)
    assert everything(used, used.assess(table, NOW_MS)) == everything(fresh, fresh.assess(table, NOW_MS))


# --- what is learned ----------------------------------------------------------------------------------------------------------------


def test_an_agent_has_the_base_model_s_lead_until_it_has_been_observed_enough(module: Any) -> None:
    table = table_of(module, {"agent_class": PERSISTENT})
    for _ in range(OBSERVATIONS_MIN - 1):
        table.observe(0, 3.0, 7.0, 0.0, 0)
        assert table.lead_ms(0) == table.lead_ms(0, estimator=BASE) == 210.0
    table.observe(0, 3.0, 7.0, 0.0, 0)
    assert (table.lead_ms(0), table.lead_ms(0, estimator=BASE)) == (10.0, 210.0)
    table.forget(0)
    assert (table.lead_ms(0), table.observations(0)) == (210.0, 0)


def test_the_learned_lead_covers_all_but_the_slowest_of_the_last_observations(module: Any) -> None:
    table = table_of(module, {})
    for n in range(100):
        table.observe(0, float(n), 0.0, 0.0, 0)
    assert table.observations(0) == OBSERVATIONS
    assert table.estimate(0)[:2] == (98.0, 0.0)  # of 68 to 99, the 31st: the rank that 0.95 of 32 rounds up to


def test_one_wild_observation_changes_little(module: Any) -> None:
    table = table_of(module, {})
    for _ in range(OBSERVATIONS):
        table.observe(0, 5.0, 20.0, 1.0, 2)
    table.observe(0, 9_000.0, 90_000.0, 1.0, 2)
    assert 20 < table.lead_ms(0, 1.0) < 30


@pytest.mark.parametrize(("per_weight", "per_item"), [(0.0, 0.0), (0.5, 0.1), (2.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_the_growth_with_weight_and_queue_is_learned(module: Any, per_weight: float, per_item: float) -> None:
    table, chance = table_of(module, {"queue": 4}), random.Random(1)
    for _ in range(OBSERVATIONS):
        weight, queue = chance.choice((0.0, 1.0, 3.0)), chance.randrange(12)
        table.observe(0, 5.0, 20 * (1 + per_weight * weight) * (1 + per_item * queue), weight, queue)
    truth = 5 + 20 * (1 + per_weight * 2) * (1 + per_item * 4)
    assert truth * 0.8 < table.lead_ms(0, 2.0) < truth * 1.5


def test_where_weight_and_queue_never_vary_their_growth_is_the_base_model_s(module: Any) -> None:
    table = table_of(module, {})
    for _ in range(OBSERVATIONS):
        table.observe(0, 5.0, 30.0, 1.0, 0)
    assert table.estimate(0) == pytest.approx((5.0, 20.0, 0.5, 0.1), rel=1e-6)


def test_a_new_queue_depth_is_in_the_next_lead(module: Any) -> None:
    table = table_of(module, {})
    table.set_queue(0, 65_535)
    assert table.lead_ms(0) == pytest.approx(10 + 10 * 6554.5, rel=1e-6)
    assert table.row(0)[1] == 65_535


# --- what is assigned ---------------------------------------------------------------------------------------------------------------


def test_an_assigned_estimate_is_the_learned_one_at_once_and_the_base_model_does_not_know_it(module: Any) -> None:
    table = table_of(module, {"queue": 2})
    table.assign(0, 40.0, 100.0, 0.25, 0.5)
    assert table.estimate(0) == (40.0, 100.0, 0.25, 0.5)
    assert table.lead_ms(0, 4.0) == 40 + 100 * 2.0 * 2.0
    assert table.estimate(0, BASE) == pytest.approx((10.0, 10.0, 0.5, 0.1))
    assert table.observations(0) == 0
    schedule = module.Schedule(1)
    schedule.compute(table, NOW_MS + 1000, NOW_MS, 4.0)
    assert groups(schedule) == [(NOW_MS + 1000 - 450, [0])]


def test_an_assigned_estimate_outlasts_observations_and_heartbeats_until_it_is_forgotten(module: Any) -> None:
    table = table_of(module, {})
    for _ in range(OBSERVATIONS_MIN):
        table.observe(0, 3.0, 7.0, 0.0, 0)
    table.assign(0, 40.0, 100.0, 0.0, 0.0)
    for _ in range(OBSERVATIONS):
        table.observe(0, 5.0, 9.0, 0.0, 0)
    table.update(0, 99.0, 0, 0.0, 1.0, GPU, NOW_MS, ACTIVE)
    assert (table.lead_ms(0), table.observations(0)) == (140.0, OBSERVATIONS)
    table.assign(0, 50.0, 100.0, 0.0, 0.0)
    assert table.lead_ms(0) == 150.0
    table.forget(0)
    assert (table.lead_ms(0), table.observations(0)) == (table.lead_ms(0, estimator=BASE), 0)
    for _ in range(OBSERVATIONS_MIN):
        table.observe(0, 3.0, 7.0, 0.0, 0)
    assert table.lead_ms(0) == 10.0


@pytest.mark.parametrize(
    ("at", "name", "values"),
    [(0, "one_way_ms", (1.1e8, -1.0)), (1, "work_ms", (1.1e8, -1.0)), (2, "per_weight", (10.1, -0.1)), (3, "per_item", (10.1, -0.1))],
)
def test_an_estimate_out_of_range_is_refused_and_changes_nothing(module: Any, at: int, name: str, values: tuple[float, ...]) -> None:
    table = table_of(module, {})
    before = table.estimate(0)
    for value in (*values, math.nan, math.inf):
        estimate = [1.0, 1.0, 1.0, 1.0]
        estimate[at] = value
        with pytest.raises(ValueError, match=f"{name} must be from 0 to"):
            table.assign(0, *estimate)
    assert table.estimate(0) == before


# --- the lead that a share of the agents needs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "lead_ms"), [(1.0, 100.0), (0.99, 99.0), (0.95, 95.0), (0.945, 95.0), (0.5, 50.0), (0.01, 1.0), (1e-300, 1.0)]
)
def test_the_lead_of_a_share_is_the_nearest_rank_quantile(module: Any, share: float, lead_ms: float) -> None:
    table = table_of(module, *[{}] * 100)
    order = list(range(100))
    random.Random(3).shuffle(order)
    for agent, place in enumerate(order):
        table.assign(agent, float(place), 1.0, 1.0, 0.0)
    assert table.quantile_lead_ms(share) == lead_ms
    assert table.quantile_lead_ms(share, 3.0) == lead_ms + 3.0
    assert table.quantile_lead_ms(share, estimator=BASE) == 20.0


def test_an_agent_that_is_never_sent_to_counts_for_no_share(module: Any) -> None:
    table = table_of(module, {"agent_class": GPU, "state": OFFLINE}, {}, {"agent_class": HUMAN, "state": QUARANTINED}, {"rtt_ms": 40.0})
    assert (table.quantile_lead_ms(1.0), table.quantile_lead_ms(0.5)) == (30.0, 20.0)
    assert table.quantile_lead_ms(1.0, selection=array("I", [0, 1, 2])) == 20.0
    assert table.quantile_lead_ms(0.5, selection=array("I", [3])) == 30.0


def test_where_nobody_can_be_sent_to_the_lead_of_any_share_is_0(module: Any) -> None:
    table = table_of(module, {"state": OFFLINE}, {})
    for lead_ms in (
        table.quantile_lead_ms(1.0, selection=array("I", [0])),
        table.quantile_lead_ms(0.5, selection=array("I")),
        module.Table(0).quantile_lead_ms(0.5),
    ):
        assert struct.pack("<d", lead_ms) == bytes(8)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"share": 0.0}, "share must be above 0"), ({"share": -0.5}, "share"), ({"share": 1.0001}, "share"), ({"share": math.nan}, "share"),
        ({"weight": 17.0}, "weight"), ({"estimator": 2}, "estimator"), ({"selection": array("I", [1, 1])}, "ascending"),
    ],
    ids=str,
)  # fmt: skip
def test_a_share_out_of_range_is_refused(module: Any, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        table_of(module, {}, {}).quantile_lead_ms(**{"share": 0.5, **wrong})


# --- snapshots ------------------------------------------------------------------------------------------------------------------------


def varied(module: Any) -> Any:
    """A table with an agent of every kind: never heard from, a filling ring, a ring that has turned, assigned, and both."""
    table, chance = module.Table(6, 0.9), random.Random(5)
    for agent in range(1, 6):
        table.update(agent, 20.0 * agent, agent, 0.1, 0.9, agent, NOW_MS - agent, ACTIVE if agent < 5 else QUARANTINED)
    for agent, count in ((1, OBSERVATIONS_MIN - 1), (2, OBSERVATIONS_MIN), (3, 77), (4, 40)):
        for _ in range(count):
            table.observe(agent, chance.uniform(1, 9), chance.uniform(10, 90), chance.uniform(0, 3), chance.randrange(9))
    table.assign(4, 33.3, 44.4, 0.5, 0.25)
    table.assign(5, 1e8, 1e8, 10.0, 10.0)
    return table


def all_of(table: Any) -> list[Any]:
    agents = range(len(table))
    leads = [table.lead_ms(agent, 1.0, estimator) for agent in agents for estimator in (BASE, LEARNED)]
    return [leads, *((table.row(agent), table.estimate(agent), table.observations(agent)) for agent in agents)]


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with other bytes at `at` and a checksum that fits them: what an attacker or a bug writes, not what a disk does."""
    return sealed(data[:at] + new + data[at + len(new) : -4])


def test_a_restored_table_is_the_one_that_was_saved_and_goes_on_like_it(module: Any) -> None:
    table, restored = varied(module), module.Table(6, 0.9)
    for agent in range(6):
        restored.assign(agent, 1.0, 1.0, 1.0, 1.0)
        restored.observe(agent, 1.0, 1.0, 1.0, 1)
    assert restored.restore(table.snapshot()) is None
    assert all_of(restored) == all_of(table)
    for either in (table, restored):
        for agent in range(6):
            either.observe(agent, 500.0, 600.0, 1.0, 1)
        either.forget(4)
        either.observe(4, 500.0, 600.0, 1.0, 1)
    assert all_of(restored) == all_of(table)
    assert restored.snapshot() == table.snapshot()


def test_a_snapshot_is_laid_out_as_written_down(module: Any) -> None:
    table = module.Table(2)
    table.update(1, 20.0, 3, 0.5, 0.25, GPU, NOW_MS, DEGRADED)
    table.assign(1, 1.0, 2.0, 3.0, 4.0)
    table.observe(1, 5.0, 6.0, 7.0, 8)
    never = struct.pack("<fHffBdBBB", 0.0, 0, 0.0, 0.0, EDGE, -math.inf, OFFLINE, 0, 0)
    row = struct.pack("<fHffBdBBB", 20.0, 3, 0.5, 0.25, GPU, NOW_MS, DEGRADED, 1, 1)
    learned = struct.pack("<ffff", 1.0, 2.0, 3.0, 4.0) + struct.pack("<fffH", 5.0, 6.0, 7.0, 8)
    assert table.snapshot() == sealed(struct.pack("<4sIId", b"SCAT", 1, 2, 0.95) + never + row + learned)
    assert module.Table(0).snapshot() == sealed(struct.pack("<4sIId", b"SCAT", 1, 0, 0.95))


def refused(table: Any, data: bytes) -> str:
    """The one line that refuses `data`, of which nothing may then stand in the table."""
    before = table.snapshot()
    with pytest.raises(ValueError, match="nothing was restored") as caught:
        table.restore(data)
    assert table.snapshot() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "a snapshot has at least 24 bytes, not 0"),
        (lambda data: data[:23], "a snapshot has at least 24 bytes, not 23"),
        (lambda data: b"PK34" + data[4:], r"a snapshot begins with b'SCAT', not b'PK34'"),
        (lambda data: with_bytes(data, 4, b"\2"), "the snapshot has format 2, and only format 1 is read"),
        (lambda data: data[:-1], "the snapshot is damaged or cut short: its checksum is"),
        (lambda data: data + b"\0", "the snapshot is damaged or cut short: its checksum is"),
        (lambda data: with_bytes(data, 8, struct.pack("<I", 7)), "the snapshot is of 7 agents, the table has 6"),
        (lambda data: with_bytes(data, 12, struct.pack("<d", 0.5)), "the snapshot is of quantile 0.5, the table has 0.9"),
        (lambda data: with_bytes(data, 12, struct.pack("<d", math.nan)), "the snapshot is of quantile nan, the table has 0.9"),
        (lambda data: sealed(data[:-5]), "the row of agent 5 in the snapshot is cut short or has a value out of range"),
        (lambda data: sealed(data[:20]), "the row of agent 0 in the snapshot is cut short or has a value out of range"),
        (lambda data: sealed(data[:-4] + b"123"), "3 bytes follow the last agent of the snapshot"),
    ],
)  # fmt: skip
def test_what_is_no_whole_snapshot_of_such_a_table_is_refused_in_one_line(
    module: Any, change: Callable[[bytes], bytes], message: str
) -> None:
    data = varied(arrival).snapshot()
    table = module.Table(6, 0.9)
    table.update(0, 9.0, 1, 0.5, 0.5, GPU, NOW_MS, DEGRADED)
    assert refused(table, change(data)).startswith(message)


@pytest.mark.parametrize(
    ("at", "form", "values"),
    [
        (0, "<f", (math.nan, math.inf, -1.0, 1.1e8)), (6, "<f", (math.nan, 1.1, -0.1)), (10, "<f", (math.nan, 1.1, -0.1)),
        (14, "<B", (6, 255)), (15, "<d", (math.nan, math.inf)), (23, "<B", (4, 255)), (24, "<B", (64, 255)), (25, "<B", (2, 255)),
        (26, "<f", (math.nan, -1.0, 1.1e8)), (30, "<f", (math.nan, -1.0, 1.1e8)), (34, "<f", (math.nan, -0.1, 10.1)),
        (38, "<f", (math.nan, -0.1, 10.1)), (42, "<f", (math.nan, -1.0, 1.1e8)), (46, "<f", (math.nan, -1.0, 1.1e8)),
        (50, "<f", (math.nan, -0.1, 16.1)),
    ],
)  # fmt: skip
def test_a_snapshot_with_any_value_out_of_range_is_refused_though_its_checksum_fits(
    module: Any, at: int, form: str, values: tuple[float, ...]
) -> None:
    table = table_of(module, {}, {"agent_class": GPU})
    table.assign(1, 40.0, 100.0, 0.0, 0.0)
    for _ in range(3):
        table.observe(1, 3.0, 7.0, 1.0, 0)
    good = table.snapshot()
    table.update(0, 9.0, 1, 0.5, 0.5, HUMAN, NOW_MS, DEGRADED)
    for value in values:
        assert refused(table, with_bytes(good, 20 + 26 + at, struct.pack(form, value))).startswith("the row of agent 1 in the snapshot is")
    table.restore(good)
    assert table.snapshot() == good


def test_every_flipped_bit_and_every_cut_of_a_snapshot_is_noticed(module: Any) -> None:
    table = table_of(module, {}, {})
    table.observe(0, 3.0, 7.0, 1.0, 0)
    good = table.snapshot()
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(table, bytes(damaged))
    for length in range(len(good)):
        refused(table, good[:length])


@pytest.mark.slow
def test_a_snapshot_of_30000_agents_with_full_rings_takes_well_under_100_ms() -> None:
    size = 30_000
    table, restored = arrival.Table(size), arrival.Table(size)
    for agent in range(size):
        for n in range(OBSERVATIONS):
            table.observe(agent, 5.0, 20.0 + n, 1.0, 2)
    times_ms = []
    for _ in range(5):
        start = time.perf_counter()
        data = table.snapshot()
        times_ms.append(1_000 * (time.perf_counter() - start))
    start = time.perf_counter()
    restored.restore(data)
    print({"snapshot_ms": min(times_ms), "restore_ms": 1_000 * (time.perf_counter() - start), "bytes": len(data)})
    assert restored.snapshot() == data
    assert min(times_ms) < 100


# --- what is refused ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"rtt_ms": math.nan}, {"rtt_ms": math.inf}, {"rtt_ms": -1.0}, {"queue": 65_536}, {"queue": -1}, {"drift": math.nan}, {"drift": 1.1},
        {"reliability": -0.1}, {"agent_class": 6}, {"agent_class": -1}, {"heartbeat_ms": math.inf}, {"heartbeat_ms": math.nan}, {"state": 4},
    ],
    ids=str,
)  # fmt: skip
def test_a_row_out_of_range_is_refused_and_changes_nothing(module: Any, wrong: dict[str, Any]) -> None:
    table = table_of(module, {})
    before = table.row(0)
    row = {"rtt_ms": 9.0, "queue": 1, "drift": 0.5, "reliability": 0.5, "agent_class": GPU, "heartbeat_ms": 1.0, "state": DEGRADED}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        table.update(0, **{**row, **wrong})
    assert table.row(0) == before


@pytest.mark.parametrize("wrong", [(math.nan, 1, 0, 0), (1, math.inf, 0, 0), (1, 1, 17, 0), (1, 1, 0, 65_536), (-1, 1, 0, 0)], ids=str)
def test_an_observation_out_of_range_is_refused(module: Any, wrong: tuple[float, float, float, int]) -> None:
    table = table_of(module, {})
    with pytest.raises(ValueError, match="must be from"):
        table.observe(0, *wrong)
    assert table.observations(0) == 0


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"at_ms": math.nan}, "at_ms"), ({"at_ms": math.inf}, "at_ms"), ({"at_ms": NOW_MS + 2e8}, "at_ms"), ({"weight": math.nan}, "weight"),
        ({"weight": 17.0}, "weight"), ({"bucket_ms": 0.0}, "bucket_ms"), ({"estimator": 2}, "estimator"),
        ({"selection": array("I", [1, 0])}, "ascending"), ({"selection": array("I", [1, 1])}, "ascending"),
        ({"selection": array("I", [0, 1, 2])}, "room for 2"),
    ],
    ids=str,
)  # fmt: skip
def test_a_call_out_of_range_is_refused(module: Any, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        module.Schedule(2).compute(table_of(module, {}, {}), **{"at_ms": NOW_MS, "now_ms": NOW_MS, **wrong})


def test_an_agent_that_is_not_there_is_named(module: Any) -> None:
    table = table_of(module, {}, {})
    calls = (
        ("lead_ms", 2),
        ("observe", -1, 1, 1, 0, 0),
        ("set_state", 2, ACTIVE),
        ("set_queue", 2, 0),
        ("row", 9),
        ("assign", 2, 0, 0, 0, 0),
    )
    for name, *arguments in calls:
        with pytest.raises(IndexError, match="numbered from 0"):
            getattr(table, str(name))(*arguments)
    with pytest.raises(IndexError, match="no agent 7"):
        module.Schedule(2).compute(table, NOW_MS, NOW_MS, selection=array("I", [0, 7]))
    with pytest.raises(IndexError, match="no agent 7"):
        table.quantile_lead_ms(0.5, selection=array("I", [0, 7]))
    for size in (-1, arrival.AGENTS_MAX + 1):
        with pytest.raises(ValueError, match="size"):
            module.Table(size)
        with pytest.raises(ValueError, match="size"):
            module.Schedule(size)


def columns_of(rows: list[tuple[Any, ...]]) -> "list[array[Any]]":
    return [array(code, column) for code, column in zip("fHffBdB", zip(*rows, strict=True), strict=True)]


def test_columns_are_loaded_whole_or_not_at_all(module: Any) -> None:
    table = table_of(module, {}, {}, {})
    before = [table.row(agent) for agent in range(3)]
    good, bad = (8.0, 3, 0.25, 0.5, GPU, NOW_MS, DEGRADED), (8.0, 3, 0.25, math.nan, GPU, NOW_MS, DEGRADED)
    with pytest.raises(ValueError, match=r"row 1 .* nothing was loaded"):
        table.load(0, *columns_of([good, bad]))
    with pytest.raises(ValueError, match="rows, as the first one has"):
        table.load(0, *columns_of([good, good])[:-1], array("B", [0]))
    with pytest.raises(IndexError, match="do not fit"):
        table.load(2, *columns_of([good, good]))
    assert [table.row(agent) for agent in range(3)] == before
    table.load(1, *columns_of([good, good]))
    assert [table.row(agent) for agent in range(3)] == [before[0], good, good]


def test_what_a_schedule_shows_cannot_be_written_to(module: Any) -> None:
    schedule = module.Schedule(1)
    schedule.compute(table_of(module, {}), NOW_MS + 100, NOW_MS)
    for name in ("lead_ms", "bucket", "order", "skipped", "starts_ms", "offsets"):
        assert getattr(schedule, name).readonly


# --- both agree exactly ---------------------------------------------------------------------------------------------------------------

FRACTIONS = st.floats(0, 1)
WEIGHTS = st.floats(0, 3)
QUEUES = st.one_of(st.integers(0, 20), st.integers(0, 65_535))
ROWS = st.tuples(
    st.floats(0, 2_000), QUEUES, FRACTIONS, FRACTIONS, st.integers(0, 5), st.floats(NOW_MS - 20_000, NOW_MS + 100), st.sampled_from([0, 0, 0, 0, 1, 2, 3])
)  # fmt: skip
OBSERVED = st.tuples(st.just("observe"), st.integers(0, 3), st.floats(0, 500), st.floats(0, 70_000), WEIGHTS, QUEUES)
ASSIGNED = st.tuples(st.just("assign"), st.integers(0, 3), st.floats(0, 500), st.floats(0, 1e8), st.floats(0, 10), st.floats(0, 10))
FORGOTTEN = st.tuples(st.just("forget"), st.integers(0, 3))
LEARNING = st.lists(st.one_of(OBSERVED, OBSERVED, OBSERVED, OBSERVED, OBSERVED, ASSIGNED, FORGOTTEN), max_size=80)
SHARES = st.one_of(st.floats(0, 1, exclude_min=True), st.sampled_from([1.0, 0.95, 0.5]))
AHEADS = st.one_of(st.floats(-100, 1_000), st.floats(0, 200_000), st.floats(-1e8, 1e8), st.integers(0, 50).map(lambda n: n * 10.0))


@pytest.mark.slow
@FUZZ
@given(
    rows=st.lists(ROWS, max_size=80),
    repeat=st.sampled_from([1, 1, 7]),
    learning=st.one_of(LEARNING, st.lists(OBSERVED, max_size=80)),
    ahead_ms=AHEADS,
    weight=WEIGHTS,
    share=SHARES,
    bucket_ms=st.sampled_from([10.0, 10.0, 0.1, 7.3, 1_000.0]),
    picked=st.one_of(st.none(), st.sets(st.integers(0, 559))),
    plain=st.booleans(),
)
@example(rows=[], repeat=1, learning=[], ahead_ms=0.0, weight=0.0, share=1.0, bucket_ms=10.0, picked=None, plain=False)
def test_the_compiled_kernel_and_the_reference_agree_bit_for_bit(
    rows: list[tuple[Any, ...]],
    repeat: int,
    learning: list[tuple[Any, ...]],
    ahead_ms: float,
    weight: float,
    share: float,
    bucket_ms: float,
    picked: set[int] | None,
    plain: bool,
) -> None:
    arrival.use_plain(plain)
    rows = rows * repeat
    chosen = None if picked is None else array("I", sorted(agent for agent in picked if agent < len(rows)))
    seen = []
    for module in (arrival, arrival_reference):
        table: Any = module.Table(len(rows))
        for agent, row in enumerate(rows):
            table.update(agent, *row)
        for name, agent, *arguments in learning:
            if agent < len(rows):
                getattr(table, name)(agent, *arguments)
        schedule: Any = module.Schedule(len(rows))
        said: list[Any] = [(table.row(agent), table.estimate(agent), table.lead_ms(agent, weight)) for agent in range(len(rows))]
        for estimator in (BASE, LEARNED):
            schedule.compute(table, NOW_MS + ahead_ms, NOW_MS, weight, chosen, estimator, bucket_ms)
            said.append(everything(schedule, schedule.assess(table, NOW_MS, chosen)))
            said.append(struct.pack("<d", table.quantile_lead_ms(share, weight, chosen, estimator)))
        said.append(table.snapshot())
        seen.append(said)
    assert seen[0] == seen[1]


@pytest.mark.slow
@FUZZ
@given(rows=st.lists(ROWS, min_size=4, max_size=6), learning=LEARNING, later=LEARNING, compiled_first=st.booleans())
def test_what_one_of_them_saved_the_other_restores_and_both_go_on_alike(
    rows: list[tuple[Any, ...]], learning: list[tuple[Any, ...]], later: list[tuple[Any, ...]], compiled_first: bool
) -> None:
    modules: list[Any] = [arrival, arrival_reference] if compiled_first else [arrival_reference, arrival]
    saved, restored = (module.Table(len(rows)) for module in modules)
    for agent, row in enumerate(rows):
        saved.update(agent, *row)
    for name, agent, *arguments in learning:
        getattr(saved, name)(agent, *arguments)
    restored.restore(saved.snapshot())
    assert all_of(restored) == all_of(saved)
    for name, agent, *arguments in later:
        for table in (saved, restored):
            getattr(table, name)(agent, *arguments)
    assert all_of(restored) == all_of(saved)
    assert restored.snapshot() == saved.snapshot()


@pytest.mark.slow
@FUZZ
@given(
    changes=st.lists(st.tuples(st.integers(8, 2_000), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 60),
    more=st.binary(max_size=60),
    fitting=st.integers(0, 5),
)
def test_both_take_or_refuse_a_changed_snapshot_in_the_same_words(
    changes: list[tuple[int, int]], cut: int, more: bytes, fitting: int
) -> None:
    data = varied(arrival).snapshot()
    body = bytearray(data[: -4 - cut] + more)
    for at, value in changes:
        body[at % len(body)] = value
    changed = sealed(bytes(body)) if fitting else bytes(body)
    seen = []
    for module in (arrival, arrival_reference):
        table: Any = module.Table(6, 0.9)
        try:
            table.restore(changed)
            seen.append(table.snapshot())
            assert table.snapshot() == changed
        except ValueError as error:
            seen.append(str(error))
            assert table.snapshot() == module.Table(6, 0.9).snapshot()
    assert seen[0] == seen[1]


@FUZZ
@given(rows=st.lists(ROWS, min_size=1, max_size=60), ahead_ms=AHEADS, weight=WEIGHTS)
def test_everybody_selected_is_sent_to_once_in_time_or_skipped_for_a_reason(
    rows: list[tuple[Any, ...]], ahead_ms: float, weight: float
) -> None:
    table = arrival.Table(len(rows))
    table.load(0, *columns_of(rows))
    schedule, at_ms = arrival.Schedule(len(rows)), NOW_MS + ahead_ms
    schedule.compute(table, at_ms, NOW_MS, weight)
    sent = groups(schedule)
    assert sorted(schedule.order.tolist() + schedule.skipped.tolist()) == list(range(len(rows)))
    assert [start for start, _ in sent] == sorted(start for start, _ in sent)
    for start_ms, agents in sent:
        assert start_ms >= NOW_MS
        assert agents == sorted(agents)
        for agent in agents:
            lead_ms = schedule.lead_ms[agent]
            assert lead_ms <= schedule.available_ms
            assert start_ms <= at_ms - lead_ms * (1 - 1e-6) + 0.001
    for agent in schedule.skipped:
        assert not schedule.lead_ms[agent] <= schedule.available_ms


@pytest.mark.slow
def test_a_large_table_with_piles_of_many_chunks_agrees_too() -> None:
    chance = random.Random(7)
    rows = [
        (
            chance.uniform(0, 100),
            chance.choice((0, 0, 3, 900)),
            0.0,
            1.0,
            chance.choice((0, 0, 0, 1, 2, 5)),
            NOW_MS,
            chance.choice((0, 0, 0, 3)),
        )
        for _ in range(20_011)
    ]
    seen = []
    for module, plain in ((arrival, False), (arrival, True), (arrival_reference, False)):
        arrival.use_plain(plain)
        table: Any = module.Table(len(rows))
        table.load(0, *columns_of(rows))
        schedule: Any = module.Schedule(len(rows))
        for ahead_ms in (60.0, 2_000.0, 1e8):
            schedule.compute(table, NOW_MS + ahead_ms, NOW_MS, 1.0)
            seen.append(everything(schedule, schedule.assess(table, NOW_MS)))
    assert seen[:3] == seen[3:6] == seen[6:]


def test_a_schedule_that_is_being_computed_refuses_a_second_thread() -> None:
    size = 200_000
    table, schedule, refused = arrival.Table(size), arrival.Schedule(size), []

    def compute() -> None:
        for _ in range(20):
            try:
                schedule.compute(table, NOW_MS + 100, NOW_MS)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("each thread needs its own" in message for message in refused)
    assert schedule.compute(table, NOW_MS + 100, NOW_MS) == 0
    assert schedule.skipped.tolist() == list(range(size))


def test_both_modules_offer_the_same_names() -> None:
    for name in ("Table", "Schedule"):
        public = {item for item in dir(getattr(arrival, name)) if not item.startswith("_")} - {"size", "quantile"}
        written = {item for item in dir(getattr(arrival_reference, name)) if not item.startswith("_")}
        assert public - {"available_ms", "groups", "scheduled", "selected"} == written
    constants = {name: value for name, value in vars(arrival_reference).items() if name.isupper() and not name.startswith("_")}
    assert {name: getattr(arrival, name) for name in constants} == constants
