"""The roll-out document, its selection and its state machine: in words, and as properties over fleets that do what they like."""

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nacl.signing import SigningKey

from host.core import cbor, cose, documents
from host.core.errors import MalformedData, SignatureInvalid, TooLarge, UntrustedInput, UsageError
from host.core.fleet import REMOVED
from registry import rollout, rollout_document, selection, window
from registry.rollout import Outcome
from registry.rollout_document import AAD, DAY_S, Rate, Release, Rollout, Selection, Stage, Window, default_stages, emergency_stages
from registry.rollout_events import Abort, Approve, Enrol, Event, Observation, Observed, Pause, Resume, Retry, Seen, Supersede, Tick
from registry.rollout_status import counts
from registry.rollout_turn import State
from registry.roster import ALL, Member, Roster
from registry.selection import Candidate, choose
from sdk import rollout_request

NEW, OLD = "sha256:" + "1" * 64, "sha256:" + "2" * 64
OLD_RELEASE = Release(version="1.0.0", digest=OLD, size=100)
NOW = 1_700_000_000_000  # a Tuesday, 22:13 UTC
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OPERATOR, STRANGER = SigningKey(b"p" * 32), SigningKey(b"q" * 32)
SHORT = (Stage(name="canary", share=0.1, soak_s=3_600), Stage(name="all", share=1.0, soak_s=0))


def document(**fields: Any) -> Rollout:
    return Rollout(**({
        "id": "greeter-1", "name": "greeter", "version": "2.0.0", "digest": NEW, "size": 100, "issued_ms": NOW, "stages": SHORT, "probation_s": 600, "answer_s": 3_600
    } | fields))  # fmt: skip


def fleet(count: int, generations: int = 3, sectors: int = 2, offline: int = 0) -> dict[str, Member]:
    """The last `offline` nodes are away."""
    return {f"node-{i:04}": Member(i % generations + 1, f"s{i % sectors}", OLD, i < count - offline, seen_ms=NOW) for i in range(count)}


class Run:
    """A roll-out under way, and what its nodes were told."""

    def __init__(self, made: Rollout, members: dict[str, Member], now_ms: int = NOW) -> None:
        self.now_ms = now_ms
        self.wanted: dict[str, str] = {}
        self.log: list[Any] = []
        self.take(rollout.begin(made, members, {OLD: OLD_RELEASE}, now_ms))

    def take(self, outcome: Outcome) -> Outcome:
        self.state: State = outcome.state
        self.log += outcome.decisions
        for decision in outcome.decisions:
            if decision.kind in ("start", "back"):
                self.wanted[decision.node] = decision.digest
        return outcome

    def step(self, event: Event) -> Outcome:
        return self.take(rollout.step(self.state, event, self.now_ms))

    def say(self, seen: Seen, *nodes: str, digest: str = NEW, code: str = "") -> None:
        self.step(Observed(tuple(Observation(node, seen, digest, code) for node in nodes)))

    def wait(self, ms: int) -> None:
        """Lets time pass, with a tick whenever one is due."""
        until = self.now_ms + ms
        while (due := rollout.due_ms(self.state, self.now_ms)) is not None and due <= until:
            self.now_ms = due
            self.step(Tick())
        self.now_ms = until
        self.step(Tick())

    @property
    def status(self) -> str:
        return self.state.header.status

    @property
    def flight(self) -> list[str]:
        return [node for node, member in self.state.roster.items() if member.phase == "flight"]

    def all_succeed(self) -> None:
        while flight := [node for node in self.flight if self.state.roster[node].online]:
            self.say("active", *flight)

    def kinds(self, *kinds: str) -> list[str]:
        return [decision.kind for decision in self.log if not kinds or decision.kind in kinds]


# The document.


def signed(fields: dict[str, Any], key: SigningKey = OPERATOR, aad: bytes = AAD) -> bytes:
    return cose.sign(key, cbor.encode(fields), kid=bytes(key.verify_key), aad=aad)


def plain(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(document())
    return made | fields


def test_a_signed_document_comes_back_as_it_was() -> None:
    made = document(
        window=Window(start_min=60, end_min=120), previous=OLD_RELEASE, selection=Selection(nodes=("hall-*",), generations=(1, 2))
    )
    assert rollout_document.verify(rollout_document.sign(made, OPERATOR), [OPERATOR.verify_key]) == made


def test_a_document_by_a_stranger_altered_or_of_another_kind_is_refused() -> None:
    keys = [OPERATOR.verify_key]
    good = rollout_document.sign(document(), OPERATOR)
    with pytest.raises(SignatureInvalid, match="not trusted"):
        rollout_document.verify(rollout_document.sign(document(), STRANGER), keys)
    with pytest.raises(UntrustedInput):
        rollout_document.verify(good[:-1] + bytes([good[-1] ^ 1]), keys)
    with pytest.raises(SignatureInvalid, match="does not match"):
        rollout_document.verify(documents.sign(document(), OPERATOR, b"snapcount desired state 1"), keys)
    forged = signed(plain(), STRANGER).replace(bytes(STRANGER.verify_key), bytes(OPERATOR.verify_key))
    with pytest.raises(SignatureInvalid, match="does not match"):
        rollout_document.verify(forged, keys)


STAGE = {"name": "all", "share": 1.0}
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"surprise": 1}, "unknown field"),
    ({"stages": []}, "length"),
    ({"stages": [STAGE | {"surprise": 1}]}, "unknown field"),
    ({"stages": [STAGE | {"soak_s": -1}]}, "soak_s"),
    ({"stages": [STAGE | {"soak_s": 91 * DAY_S}]}, "soak_s"),
    ({"stages": [STAGE | {"error_max": 1.5}]}, "error_max"),
    ({"stages": [STAGE | {"error_max": float("nan")}]}, "error_max"),
    ({"stages": [STAGE | {"error_max": 1.0}]}, "can never be crossed"),
    ({"stages": [STAGE | {"count": 5}]}, "either a share or a count"),
    ({"stages": [{"name": "all"}]}, "either a share or a count"),
    ({"stages": [{"name": "none", "share": 0.0}, STAGE]}, "reaches nobody"),
    ({"stages": [{"name": "half", "share": 0.5}]}, "share of 1"),
    ({"stages": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.1}, STAGE]}, "not wider"),
    ({"stages": [{"name": "a", "count": 5}, {"name": "b", "count": 5}, STAGE]}, "not wider"),
    ({"stages": [{"name": "all", "share": 0.5}, STAGE]}, "same name"),
    ({"stages": [{"name": f"s{i}", "share": (i + 1) / 17} for i in range(17)]}, "length"),
    ({"window": {"start_min": 5, "end_min": 5}}, "never open"),
    ({"window": {"start_min": 0, "end_min": 9, "days": [7]}}, "days"),
    ({"window": {"start_min": 0, "end_min": 9, "days": []}}, "days"),
    ({"window": {"start_min": 0, "end_min": 9, "days": [1, 1]}}, "names one twice"),
    ({"rate": {"nodes_per_minute": 0}}, "nodes_per_minute"),
    ({"rate": {"in_flight_max": 0}}, "in_flight_max"),
    ({"selection": {"nodes": ["../*"]}}, "nodes"),
    ({"selection": {"generations": [0]}}, "generations"),
    ({"previous": {"version": "1.0.0", "digest": NEW, "size": 100}}, "the very bundle"),
    ({"emergency": True}, "needs a reason"),
    ({"emergency": True, "reason": "x", "window": {"start_min": 0, "end_min": 9}}, "contradicts a window"),
    ({"emergency": True, "reason": "x"}, "begins with a canary"),
    ({"emergency": True, "reason": "x", "stages": [{"name": "canary", "share": 0.05, "soak_s": 601}, STAGE]}, "contradicts the soak"),
    ({"emergency": True, "reason": "x", "stages": [{"name": "canary", "count": 5, "soak_s": 0}, STAGE]}, "begins with a canary"),
    ({"id": "../etc"}, "id"),
    ({"lane": "fast"}, "lane"),
    ({"digest": "sha256:00"}, "digest"),
    ({"size": 1 << 40}, "size"),
    ({"version": "2"}, "version"),
    ({"probation_s": 31 * DAY_S}, "probation_s"),
    ({"reason": "x" * 501}, "reason"),
]


@pytest.mark.parametrize(("fields", "says"), BAD_FIELDS, ids=[f"{'-'.join(fields)}-{says}" for fields, says in BAD_FIELDS])
def test_a_document_with_an_unknown_field_a_value_out_of_bounds_or_a_contradiction_is_refused(
    fields: dict[str, Any], says: str, one_line: Any
) -> None:
    with pytest.raises(MalformedData) as caught:
        rollout_document.verify(signed(plain(**fields)), [OPERATOR.verify_key])
    one_line(caught.value, "roll-out document", says)


def test_a_document_larger_than_a_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        rollout_document.verify(bytes(300 << 10), [OPERATOR.verify_key])


def test_the_default_stages_are_a_canary_of_at_most_five_percent_a_week_and_widening_waves() -> None:
    canary, *waves = default_stages()
    assert canary.share is not None and 0.01 <= canary.share <= 0.05 and canary.soak_s == 7 * DAY_S
    assert [wave.share for wave in waves] == [0.1, 0.3, 1.0]
    document(stages=emergency_stages(), emergency=True, reason="CVE")


# Windows.


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    friday_night = Window(days=(4,), start_min=22 * 60, end_min=4 * 60)
    friday = NOW - NOW % DAY_MS + 3 * DAY_MS
    assert [window.is_open(friday_night, friday + hours * HOUR_MS) for hours in (3, 21, 22, 27, 28, 46)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert window.opens_ms(friday_night, friday) == friday + 22 * HOUR_MS
    assert window.opens_ms(friday_night, friday + 28 * HOUR_MS) == friday + 7 * DAY_MS + 22 * HOUR_MS
    assert window.opens_ms(friday_night, friday + 23 * HOUR_MS) == friday + 23 * HOUR_MS


@given(st.integers(0, 1_439), st.integers(0, 1_440), st.sets(st.integers(0, 6), min_size=1), st.integers(0, 20 * DAY_MS))
def test_a_window_opens_when_it_says_and_at_no_minute_before(start: int, end: int, days: set[int], now_ms: int) -> None:
    if start == end:
        return
    made = Window(days=tuple(days), start_min=start, end_min=end)
    opens = window.opens_ms(made, now_ms)
    assert window.is_open(made, opens) and 0 <= opens - now_ms <= 7 * DAY_MS
    assert opens == now_ms or not window.is_open(made, opens - 1)


# Selection.

candidates = st.lists(st.tuples(st.integers(1, 5), st.sampled_from("abcdefgh"), st.booleans()), min_size=1, max_size=120)


def as_candidates(nodes: list[tuple[int, str, bool]], chosen: set[str]) -> list[Candidate]:
    return [Candidate(f"n{i}", generation, sector, f"n{i}" in chosen, answers) for i, (generation, sector, answers) in enumerate(nodes)]


@given(candidates, st.integers(0, 120), st.integers(0, 120))
def test_a_sample_covers_every_generation_and_sector_and_a_wider_one_contains_it(
    nodes: list[tuple[int, str, bool]], first: int, second: int
) -> None:
    fleet_now = as_candidates(nodes, set())
    small = choose(fleet_now, min(first, second), "seed")
    assert len(set(small)) == len(small) <= len(nodes)
    covered = [c for c in fleet_now if c.node in small]
    for of in (lambda c: c.generation, lambda c: c.sector):
        assert {of(c) for c in covered} == {of(c) for c in fleet_now}
        # Where somebody can answer, somebody who can answer stands for it.
        assert {of(c) for c in covered if c.answers} == {of(c) for c in fleet_now if c.answers}
    added = choose(as_candidates(nodes, set(small)), max(first, second), "seed")
    assert not set(added) & set(small)
    assert len(small) + len(added) >= min(max(first, second), len(nodes))
    assert choose(fleet_now, min(first, second), "seed") == small


def test_a_sample_is_in_proportion_and_prefers_those_who_answer() -> None:
    nodes = [(1, "a", i % 2 == 0) for i in range(800)] + [(2, "b", i % 2 == 0) for i in range(200)]
    sample = set(choose(as_candidates(nodes, set()), 100, "seed"))
    chosen = [c for c in as_candidates(nodes, sample) if c.chosen]
    assert Counter(c.generation for c in chosen) == {1: 80, 2: 20}
    assert all(c.answers for c in chosen)
    assert sample != set(choose(as_candidates(nodes, set()), 100, "another seed"))


def test_who_is_meant_by_a_selection() -> None:
    meant = Selection(generations=(2,), sectors=("north",), nodes=("hall-?", "dock-*"), capabilities=("motion",))
    assert selection.selects(meant, "hall-3", 2, "north", ("motion", "log"))
    assert not selection.selects(meant, "hall-33", 2, "north", ("motion",))
    assert not selection.selects(meant, "hall-3", 1, "north", ("motion",))
    assert not selection.selects(meant, "hall-3", 2, "south", ("motion",))
    assert not selection.selects(meant, "hall-3", 2, "north", ())
    assert selection.selects(Selection(), "anything", 9, "", ())


# The state machine, in words.


def test_a_roll_out_goes_canary_soak_waves_done() -> None:
    run = Run(document(stages=default_stages()), fleet(300))
    # Of each generation no more than three at once, as long as none is proven.
    assert len(run.flight) == 6 and {run.state.roster[node].generation for node in run.flight} == {1, 2, 3}
    run.all_succeed()
    assert run.state.header.stage == 0 and run.state.header.soak_from_ms == NOW
    run.wait(7 * DAY_MS - 1)
    assert run.state.header.stage == 0
    run.wait(1)
    assert run.state.header.stage == 1
    run.all_succeed()
    assert counts(run.state)["active"] == 30
    run.wait(DAY_MS)
    run.all_succeed()
    run.wait(DAY_MS)
    run.all_succeed()
    assert run.status == "done" and counts(run.state)["active"] == 300
    assert set(run.wanted) == set(fleet(300)) and set(run.wanted.values()) == {NEW}


def test_nobody_is_started_twice() -> None:
    run = Run(document(), fleet(60))
    run.all_succeed()
    run.wait(HOUR_MS)
    run.all_succeed()
    starts = [decision.node for decision in run.log if decision.kind == "start"]
    assert sorted(starts) == sorted(fleet(60))


def test_crossing_the_error_threshold_stops_at_once_and_sends_everybody_back() -> None:
    run = Run(document(), fleet(100))
    run.all_succeed()
    run.wait(HOUR_MS)
    told = run.flight
    run.say("failed", *told[:4], code="guest_trap")
    assert run.status == "running", "4 of 90 are less than 5 %"
    run.say("rolled-back", told[4], code="guest_trap")
    assert run.status == "rolling-back" and "5 of 90" in run.state.header.reason
    assert set(run.wanted.values()) == {OLD} and len(run.wanted) == 100
    run.say("active", *(node for node, m in run.state.roster.items() if m.phase == "undoing"), digest=OLD)
    assert run.status == "rolled-back" and counts(run.state)["reverted"] == 95
    assert run.kinds("stopped", "ended") == ["stopped", "ended"]


def test_a_version_that_fails_on_one_small_generation_only_is_caught_though_the_overall_rate_is_small() -> None:
    members = {f"n-{i}": Member(1, "s", OLD, True) for i in range(400)} | {f"old-{i}": Member(7, "s", OLD, True) for i in range(8)}
    run = Run(
        document(stages=(Stage(name="canary", share=0.5, soak_s=0, error_max=0.2), Stage(name="all", share=1.0, error_max=0.2))), members
    )
    while run.status == "running" and (flight := run.flight):
        run.say("active", *(node for node in flight if node.startswith("n-")))
        run.say("failed", *(node for node in flight if node.startswith("old-")))
    assert run.status == "rolling-back" and run.state.header.reason.startswith("generation 7: ")
    ever = [decision.node for decision in run.log if decision.kind == "start" and decision.node.startswith("old-")]
    assert len(ever) <= 3, "while a generation is not proven, three canaries of it at once"


def test_the_only_node_of_a_generation_is_enough_to_stop() -> None:
    members = fleet(100, generations=1) | {"lone": Member(9, "s0", OLD, True)}
    run = Run(document(stages=(Stage(name="all", share=1.0, error_max=0.5),)), members)
    run.say("failed", "lone")
    assert run.status == "rolling-back" and "generation 9: 1 of 1" in run.state.header.reason


def test_one_sector_can_stop_it_too() -> None:
    members = fleet(90, sectors=1) | {f"north-{i}": Member(1, "north", OLD, True) for i in range(4)}
    run = Run(document(stages=(Stage(name="all", share=1.0, error_max=0.2),)), members)
    while run.status == "running" and (flight := run.flight):
        run.say("failed", *(node for node in flight if node.startswith("north")))
        run.say("active", *(node for node in flight if not node.startswith("north")))
    assert run.status == "rolling-back" and "sector north" in run.state.header.reason


def test_failures_during_the_soak_count_and_those_who_had_succeeded_go_back() -> None:
    run = Run(document(stages=default_stages()), fleet(300))
    run.all_succeed()
    run.wait(3 * DAY_MS)
    run.say("rolled-back", *[node for node, m in run.state.roster.items() if m.phase == "active"][:2], code="deadline_exceeded")
    assert run.status == "rolling-back"
    assert NEW not in run.wanted.values()


def test_an_owner_who_takes_the_skill_off_says_nothing_of_how_the_version_does() -> None:
    run = Run(document(stages=(Stage(name="canary", count=4, soak_s=0, min_sample=2, error_max=0.1), SHORT[1])), fleet(12, generations=1))
    first = run.flight[0]
    run.say("active", first)
    run.say("rolled-back", first, code=REMOVED)
    assert run.status == "running" and run.state.roster[first].phase == "declined" and "back" not in run.kinds("back")
    run.all_succeed()
    run.wait(DAY_MS)
    run.all_succeed()
    assert run.status == "done"
    found = counts(run.state)
    assert (found["active"], found["declined"], found["failed"]) == (11, 1, 0)
    other = next(node for node, member in run.state.roster.items() if member.phase == "active")
    run.say("rolled-back", other, code=REMOVED)
    assert run.state.header.converging, "an ended roll-out goes on converging too"


def test_too_few_successes_at_the_end_of_a_soak_hold_it_and_a_retry_goes_on() -> None:
    run = Run(
        document(stages=(Stage(name="canary", count=10, soak_s=60, error_max=0.4, success_min=0.95), SHORT[1])), fleet(50, generations=1)
    )
    failed: list[str] = []
    while flight := run.flight:
        run.say("failed" if not failed else "active", flight[0])
        failed = failed or [flight[0]]
    assert run.wanted[failed[0]] == OLD, "a node that failed is told to run what it ran"
    run.wait(60_000)
    assert run.status == "held" and "9 of 10" in run.state.header.reason
    run.wait(DAY_MS)
    assert run.status == "held", "nothing goes on without an operator"
    run.step(Retry("the disk was full"))
    assert run.flight == failed and run.wanted[failed[0]] == NEW
    run.all_succeed()
    run.wait(60_000)
    assert run.state.header.stage == 1


def test_outside_the_window_nobody_is_started_and_the_soak_goes_on() -> None:
    night = Window(start_min=0, end_min=4 * 60)
    run = Run(document(window=night), fleet(60))
    assert run.flight == [], "it is 22:13"
    run.wait(2 * HOUR_MS)
    assert len(run.flight) == 6
    run.now_ms += 5 * HOUR_MS - 600_000
    run.all_succeed()
    run.wait(HOUR_MS + 600_000)
    assert run.state.header.stage == 1 and run.flight == [], "the soak has ended at seven o'clock, and the wave waits for the night"
    due = rollout.due_ms(run.state, run.now_ms)
    assert due is not None and due % DAY_MS == 0


def test_no_more_nodes_are_started_in_a_minute_and_are_in_flight_than_allowed() -> None:
    run = Run(document(stages=SHORT[1:], rate=Rate(nodes_per_minute=7, in_flight_max=10)), fleet(200, generations=1))
    run.all_succeed()
    started = run.kinds("start")
    assert len(started) == 7
    run.wait(60_000)
    assert len(run.kinds("start")) == 14
    run.wait(5 * 60_000)
    assert len(run.flight) == 10 and len(run.kinds("start")) == 17


def test_nodes_that_are_away_do_not_block_a_stage_and_converge_after_the_end() -> None:
    run = Run(document(), fleet(60, offline=12))
    run.all_succeed()
    run.wait(HOUR_MS)
    run.all_succeed()
    assert run.status == "done" and counts(run.state) == {
        "active": 48, "pending": 0, "failed": 0, "declined": 0, "offline": 12, "reverting": 0, "reverted": 0, "nodes": 60
    }  # fmt: skip
    run.now_ms += 30 * DAY_MS
    away = [node for node, m in run.state.roster.items() if not m.online]
    run.say("online", *away, digest=OLD)
    run.all_succeed()
    assert counts(run.state)["active"] == 60 and run.status == "done"


def test_a_node_that_goes_away_half_way_is_waited_for_by_nobody_and_counts_when_it_is_back() -> None:
    run = Run(document(stages=SHORT[1:]), fleet(4, generations=1))
    gone, *others = run.flight
    run.say("offline", gone)
    run.say("active", *others)
    run.all_succeed()
    assert run.status == "done" and counts(run.state)["offline"] == 1
    run.say("online", gone, digest=NEW)
    assert counts(run.state)["pending"] == 1, "it may be on probation still"
    run.wait(600_000)
    assert counts(run.state)["active"] == 4


def test_late_nodes_that_fail_stop_the_convergence_and_nobody_else_is_sent_back() -> None:
    run = Run(document(), fleet(60, offline=20))
    run.all_succeed()
    run.wait(HOUR_MS)
    run.all_succeed()
    run.now_ms += DAY_MS
    run.say("online", *[node for node, m in run.state.roster.items() if not m.online], digest=OLD)
    run.say("failed", *run.flight)
    assert run.status == "done" and not run.state.header.converging
    assert counts(run.state)["active"] == 40


def test_a_reachable_node_that_never_answers_has_failed_in_the_end() -> None:
    run = Run(document(), fleet(60))
    silent, *others = run.flight
    run.say("active", *others)
    run.wait((600 + 3_600) * 1000)
    assert run.state.roster[silent].code == "no_answer" and run.wanted[silent] == OLD


def test_a_bad_link_is_not_a_bad_version_but_its_time_is_up_some_day() -> None:
    run = Run(document(), fleet(60))
    unlucky, *others = run.flight
    run.say("failed", unlucky, code="network_error")
    assert run.state.roster[unlucky].phase == "flight" and run.wanted[unlucky] == NEW
    run.say("active", *others)
    run.wait((600 + 3_600) * 1000)
    assert run.state.roster[unlucky].phase == "failed"


def test_a_canary_that_is_away_when_it_is_chosen_holds_up_nobody_while_others_are_there() -> None:
    """As where it left a moment ago, and may be back in the next one."""
    made = document(stages=(Stage(name="canary", count=1, soak_s=3, min_sample=1), Stage(name="all", share=1.0)))
    members = fleet(2, generations=1, sectors=1)
    (chosen,) = Run(made, members).flight
    (other,) = members.keys() - {chosen}
    run = Run(made, members | {chosen: msgspec.structs.replace(members[chosen], online=False)})
    assert run.flight == [other]
    run.say("active", other)
    run.wait(HOUR_MS)
    run.say("online", chosen, digest=OLD)
    assert run.flight == [chosen] and run.wanted[chosen] == NEW


def test_a_canary_that_goes_away_is_replaced_before_its_stage_ends() -> None:
    run = Run(document(), fleet(60, generations=2, sectors=1))
    first = run.flight
    lost = [node for node in first if run.state.roster[node].generation == 2]
    run.say("offline", *lost)
    new = set(run.flight) - set(first)
    assert run.state.header.stage == 0 and 2 in {run.state.roster[node].generation for node in new}, (
        "generation 2 still needs one who answers"
    )
    run.all_succeed()
    run.wait(HOUR_MS)
    assert run.state.header.stage == 1


def test_with_the_whole_fleet_away_it_waits() -> None:
    run = Run(document(), fleet(20, offline=20))
    run.wait(30 * DAY_MS)
    assert run.status == "running" and run.state.header.stage == 0 and not run.kinds("start")
    run.say("online", *fleet(20), digest=OLD)
    run.all_succeed()
    assert run.state.header.stage == 0, "and soaks when somebody has decided, not before"
    run.wait(HOUR_MS)
    assert run.state.header.stage == 1


def test_pause_starts_nobody_and_resume_goes_on() -> None:
    run = Run(document(), fleet(60))
    run.step(Pause("audit week"))
    run.all_succeed()
    run.wait(DAY_MS)
    assert run.status == "paused" and run.state.header.stage == 0
    run.step(Resume())
    run.all_succeed()
    run.wait(HOUR_MS)
    assert run.state.header.stage == 1


def test_a_paused_roll_out_still_rolls_back_when_it_goes_wrong() -> None:
    run = Run(document(), fleet(60))
    run.step(Pause())
    run.say("failed", *run.flight)
    assert run.status in ("rolling-back", "rolled-back") and NEW not in run.wanted.values()


def test_abort_undoes_what_was_done_even_of_one_that_is_done() -> None:
    run = Run(document(), fleet(60, offline=5))
    run.all_succeed()
    run.wait(HOUR_MS)
    run.all_succeed()
    assert run.status == "done"
    run.step(Abort("the customer found a fault"))
    assert set(run.wanted.values()) == {OLD} and run.state.header.ended_ms == 0
    run.say("active", *(node for node, m in run.state.roster.items() if m.phase == "undoing"), digest=OLD)
    assert run.status == "aborted"
    run.say("online", *(node for node, m in run.state.roster.items() if not m.online), digest=OLD)
    assert not run.flight, "nobody is started any more"


def test_a_node_that_ran_nothing_before_is_told_to_take_it_off() -> None:
    run = Run(document(stages=SHORT[1:]), {"fresh": Member(1, "s", "", True)})
    run.say("failed", "fresh")
    assert run.wanted == {"fresh": ""}


COMMANDS = {"pause": Pause(), "resume": Resume(), "abort": Abort(), "retry": Retry(), "approve": Approve(), "supersede": Supersede()}


@pytest.mark.parametrize(("status", "allowed"), [
    ("running", {"pause", "abort", "retry"}), ("paused", {"resume", "abort", "retry"}), ("rolled-back", {"supersede"}), ("done", {"abort", "retry", "supersede"}),
    ("pending", {"abort", "approve"}),
])  # fmt: skip
def test_a_command_that_does_not_fit_is_refused_by_name(status: str, allowed: set[str], one_line: Any) -> None:
    run = Run(document(lane="safety" if status == "pending" else "productivity", stages=SHORT[1:]), fleet(3))
    match status:
        case "paused":
            run.step(Pause())
        case "rolled-back":
            run.say("failed", *run.flight)
        case "done":
            run.all_succeed()
    assert run.status == status
    for name, command in COMMANDS.items():
        if name in allowed:
            rollout.step(run.state, command, run.now_ms)
        else:
            with pytest.raises(UsageError) as caught:
                rollout.step(run.state, command, run.now_ms)
            one_line(caught.value, status, name)


def test_the_lane_safety_starts_nobody_until_a_second_operator_approves() -> None:
    run = Run(document(lane="safety"), fleet(30))
    run.wait(DAY_MS)
    assert run.status == "pending" and not run.wanted
    run.step(Approve())
    assert run.status == "running" and run.flight


def test_an_emergency_goes_canary_first_and_soaks_for_nobody() -> None:
    run = Run(document(stages=emergency_stages(), emergency=True, reason="CVE-1", rate=Rate(nodes_per_minute=10_000)), fleet(300))
    assert len(run.flight) == 6
    run.all_succeed()
    assert run.status == "done" and counts(run.state)["active"] == 300
    assert run.log[0].numbers["emergency"] == 1 and run.log[0].reason == "CVE-1"
    assert [decision.reason for decision in run.log if decision.kind == "stage"] == ["canary", "half", "all"]


def test_nodes_that_come_to_belong_later_are_in_the_last_stage_and_after_the_end_at_once() -> None:
    run = Run(document(), fleet(60))
    run.step(Enrol({"late-1": Member(1, "s0", OLD, True)}, {}))
    run.all_succeed()
    assert "late-1" not in run.wanted
    run.wait(HOUR_MS)
    run.all_succeed()
    assert run.wanted["late-1"] == NEW and run.status == "done"
    run.step(Enrol({"late-2": Member(1, "s0", "", True)}, {}))
    assert run.flight == ["late-2"]


def test_a_node_that_lost_the_version_is_asked_for_it_still() -> None:
    run = Run(document(), fleet(60))
    node = run.flight[0]
    run.all_succeed()
    run.say("online", node, digest=OLD)
    assert run.flight == [node] and run.wanted[node] == NEW
    run.say("active", node)
    assert run.state.roster[node].phase == "active"


def test_reports_of_strangers_and_of_other_bundles_change_nothing() -> None:
    run = Run(document(), fleet(60))
    before = dict(run.state.roster.items())
    other = "sha256:" + "7" * 64
    run.say("failed", run.flight[0], digest=other)
    run.say("active", "stranger")
    run.say("rolled-back", next(node for node, m in before.items() if m.phase == "waiting"))
    assert dict(run.state.roster.items()) == before


# What an operator writes.


def test_times_windows_and_waves_are_read_as_they_are_written() -> None:
    assert [rollout_request.seconds(text) for text in ("90", "90s", "30m", "12h", "7d")] == [90, 90, 1_800, 43_200, 604_800]
    assert rollout_request.window("fri-mon 22:00-04:30") == Window(days=(4, 5, 6, 0), start_min=1_320, end_min=270)
    assert rollout_request.window("08:00-20:00").days == tuple(range(7))
    waves = rollout_request.stages(("2%", "0.3", "100%"), "2h", "", emergency=False, min_sample=5, success_min=None, error_max=0.1)
    assert [(s.name, s.share, s.soak_s, s.min_sample, s.error_max) for s in waves] == [
        ("canary", 0.02, 7_200, 5, 0.1), ("wave-1", 0.3, 86_400, 5, 0.1), ("wave-2", 1.0, 0, 5, 0.1)
    ]  # fmt: skip
    assert rollout_request.stages((), "", "", emergency=True, min_sample=None, success_min=None, error_max=None) == emergency_stages()


@pytest.mark.parametrize("text", ["", "7w", "-1", "1.5h", "d", "٣m\n"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time"):
        rollout_request.seconds(text)


@pytest.mark.parametrize("text", ["", "25:00-26:00", "08:00-08:00", "someday 08:00-09:00", "mon 08:61-09:00", "08-09", "mon-fri"])
def test_a_window_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a window"):
        rollout_request.window(text)


@pytest.mark.parametrize("wave", ["", "x%", "-3", "200%", "0"])
def test_a_wave_that_is_none_is_refused(wave: str) -> None:
    with pytest.raises(UsageError):
        rollout_request.stages((wave, "100%"), "", "", emergency=False, min_sample=None, success_min=None, error_max=None)


# As properties.

REPORTS: tuple[Seen, ...] = ("fetching", "installing", "probation", "active", "failed", "rolled-back")


class AnyFleet(RuleBasedStateMachine):
    """Nodes and operators do whatever they like, and time passes as it likes."""

    @initialize(
        count=st.integers(1, 30), generations=st.integers(1, 4), sectors=st.integers(1, 3), offline=st.integers(0, 10), per_minute=st.integers(1, 8),
        in_flight=st.integers(1, 8), lenient=st.booleans(), first=st.sampled_from((0.05, 0.3)), night=st.booleans(),
    )  # fmt: skip
    def begin(
        self,
        count: int,
        generations: int,
        sectors: int,
        offline: int,
        per_minute: int,
        in_flight: int,
        lenient: bool,
        first: float,
        night: bool,
    ) -> None:
        limits = {"error_max": 0.6, "stratum_error_max": 0.9, "success_min": 0.2} if lenient else {}
        stages = (
            Stage(name="canary", share=first, soak_s=600, **limits),
            Stage(name="half", share=0.5, soak_s=60, **limits),
            Stage(name="all", share=1.0, soak_s=0, **limits),
        )
        made = document(
            stages=stages,
            rate=Rate(nodes_per_minute=per_minute, in_flight_max=in_flight),
            window=Window(start_min=0, end_min=720) if night else None,
        )
        self.started: Counter[int] = Counter()
        self.chosen: set[str] = set()
        self.run = Run(made, fleet(count, generations, sectors, min(offline, count)))
        self.after(self.run.log)

    def names(self) -> list[str]:
        return sorted(node for node, _ in self.run.state.roster.items())

    def step(self, event: Event) -> None:
        before, former = self.run.state, dict(self.run.state.roster.items())
        tallies = dict(before.roster.tallies)
        outcome = self.run.step(event)
        assert dict(before.roster.items()) == former and before.roster.tallies == tallies, "a step changes no former state"
        changed = {node for node, member in outcome.state.roster.items() if former.get(node) is not member}
        assert changed <= set(outcome.changed)
        self.after(list(outcome.decisions))

    def after(self, decisions: list[Any]) -> None:
        starts = [decision.node for decision in decisions if decision.kind == "start"]
        self.started[self.run.now_ms // 60_000] += len(starts)
        rate = self.run.state.document.rate
        assert self.started[self.run.now_ms // 60_000] <= rate.nodes_per_minute
        if starts:
            assert self.run.state.roster.tally(ALL).flight <= rate.in_flight_max
            assert window.is_open(self.run.state.document.window, self.run.now_ms)
        assert all(self.run.state.roster[node].online for node in starts)
        assert self.run.state.header.status in ("running", "done") or not starts or any(d.kind in ("stopped", "held") for d in decisions)

        if any(decision.kind == "stage" for decision in decisions):
            members = self.run.state.roster.members()
            standing_in = {
                member.generation for member in members if member.chosen and (member.online or member.phase in ("active", "failed"))
            }
            assert {member.generation for member in members if member.online and member.phase == "waiting"} <= standing_in, (
                "each generation has a canary"
            )

    @rule(data=st.data(), seen=st.sampled_from(REPORTS), digest=st.sampled_from((NEW, NEW, NEW, OLD)))
    def report(self, data: st.DataObject, seen: Seen, digest: str) -> None:
        nodes = data.draw(st.lists(st.sampled_from(self.names()), min_size=1, max_size=4))
        self.step(Observed(tuple(Observation(node, seen, digest) for node in nodes)))

    @rule()
    def those_in_flight_succeed(self) -> None:
        self.step(Observed(tuple(Observation(node, "active", NEW) for node in self.run.flight)))

    @rule(data=st.data(), seen=st.sampled_from(("online", "offline")), digest=st.sampled_from((NEW, OLD, OLD, "")))
    def come_or_go(self, data: st.DataObject, seen: Seen, digest: str) -> None:
        self.step(Observed((Observation(data.draw(st.sampled_from(self.names())), seen, digest),)))

    @rule(ms=st.sampled_from((1, 1_000, 60_000, 700_000, 5 * HOUR_MS)))
    def time_passes(self, ms: int) -> None:
        self.run.now_ms += ms
        self.step(Tick())

    @precondition(lambda self: len(self.run.state.roster) < 40)
    @rule(generation=st.integers(1, 5))
    def somebody_new(self, generation: int) -> None:
        self.step(Enrol({f"new-{len(self.run.state.roster)}": Member(generation, "s0", OLD, True)}, {}))

    @rule(command=st.sampled_from((Pause(), Resume(), Retry(), Resume(), Retry(), Abort())))
    def an_operator(self, command: Event) -> None:
        try:
            self.step(command)
        except UsageError:
            pass

    @invariant()
    def a_sample_only_grows(self) -> None:
        chosen = {node for node, member in self.run.state.roster.items() if member.chosen}
        assert self.chosen <= chosen
        self.chosen = chosen

    @invariant()
    def what_is_counted_along_the_way_is_what_there_is(self) -> None:
        kept, fresh = self.run.state.roster, Roster(dict(self.run.state.roster.items()))
        assert {key: tally for key, tally in kept.tallies.items() if tally.touched} == {
            key: tally for key, tally in fresh.tallies.items() if tally.touched
        }
        assert (set(kept.flight), set(kept.ready)) == (set(fresh.flight), set(fresh.ready))
        assert {g: size for g, size in kept.sizes.items() if size} == fresh.sizes

    @invariant()
    def one_that_is_undone_leaves_nobody_on_the_version(self) -> None:
        if self.run.status in ("rolling-back", "rolled-back", "aborted"):
            assert NEW not in self.run.wanted.values()

    @invariant()
    def one_that_goes_on_is_within_its_thresholds(self) -> None:
        state = self.run.state
        total = state.roster.tally(ALL)
        if self.run.status in ("running", "paused", "held") and total.touched >= state.stage.min_sample:
            assert total.failed <= state.stage.error_max * total.touched

    @invariant()
    def what_is_due_is_in_the_future(self) -> None:
        due = rollout.due_ms(self.run.state, self.run.now_ms)
        assert due is None or due > self.run.now_ms


AnyFleet.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnyFleet = pytest.mark.slow(AnyFleet.TestCase)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_whatever_happened_it_ends_once_the_nodes_answer(seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    run = Run(
        document(rate=Rate(nodes_per_minute=dice.randint(1, 9), in_flight_max=dice.randint(1, 9))),
        fleet(dice.randint(1, 60), offline=dice.randint(0, 5)),
    )
    fails = dice.choice((0, 0, 0.01, 0.1))
    for _ in range(3_000):
        if run.status in ("done", "rolled-back", "held"):
            break
        nodes = [node for node, _ in run.state.roster.items()]
        if dice.random() < 0.3:
            node = dice.choice(nodes)
            run.say("offline" if run.state.roster[node].online else "online", node, digest=OLD)
        for node in run.flight:
            if run.state.roster[node].online and dice.random() < 0.5:
                undoing = run.state.roster[node].phase == "undoing"
                run.say("failed" if dice.random() < fails else "active", node, digest=OLD if undoing else NEW)
        run.wait(dice.choice((1_000, 60_000, HOUR_MS)))
    assert run.status in ("done", "rolled-back", "held"), run.state.header
