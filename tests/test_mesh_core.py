"""The parts of the mesh that need no link: what is let in, what is decided, which time it is, in which order, and what the leaf does when."""

import random
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.core.clock import SystemRandom
from host.core.errors import CapabilityDenied, Flooded, MalformedData, Replayed, UnknownSender, Untimely
from host.core.limits import DEFAULT
from host.mesh.admission import COMPLAINT_MS, Admission, Complaints, Window
from host.mesh.agent import Agent, Outcome
from host.mesh.fleetclock import SAMPLES, FleetClock
from host.mesh.frames import CONFLICT, HISTOGRAM_MS, READY, TRANSIT, Ack, Deliver, Report
from host.mesh.gathering import AWAY, FROZEN, INCAPABLE, SENT, Gathering, Member, histogram
from host.mesh.message import Author
from host.mesh.ordering import GAP_MS_MAX, HELD_MAX, Ordering
from host.mesh.profiler import Profiler
from host.mesh.quorum import COORDINATORS, Tally, Thresholds, decide
from host.mesh.trust import Trust
from host.mesh.virtual import VirtualTime
from sdk.mesh.topology import Topology

NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000.0
TOPOLOGY = Topology(900, now_s=NOW_S)
LEAD = TOPOLOGY.identity("cluster-00000", "lead")
NODE = TOPOLOGY.identity("agent-000000", "agent")


def trust():
    return Trust([TOPOLOGY.authority.verify_key], lambda: NOW_S)


def author(identity=LEAD):
    return Author(identity.name, identity.key, SystemRandom())


def message(identity=LEAD, now_ms=NOW_MS, **fields):
    fields = {"topic": "x.go", "verb": "observe", "routing": "direct", "targets": ("agent-000000",), "ttl_ms": 10_000} | fields
    return author(identity).message(now_ms, **fields)


# Windows: the last 1,024 sequences of a source.


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3 * DEFAULT.sequence_window) | st.integers(0, 8), max_size=60))
def test_a_window_takes_each_sequence_once_and_none_that_is_too_old_to_tell(sequences):
    window, taken = Window(), set()
    for sequence in sequences:
        old = sequence <= max(taken, default=-1) - DEFAULT.sequence_window
        assert window.take(sequence) == (sequence not in taken and not old)
        if not old:
            taken.add(sequence)


def test_a_window_begins_anywhere_and_has_exact_edges():
    window, top = Window(), 1 << 62
    assert window.take(top)
    assert not window.take(top)
    assert not window.take(top - DEFAULT.sequence_window)
    assert window.take(top - DEFAULT.sequence_window + 1)
    assert not window.take(top - DEFAULT.sequence_window + 1)
    assert window.take(top + DEFAULT.sequence_window)
    assert not window.take(top)


# Admission.


@pytest.fixture
def gate():
    known = trust()
    known.introduce(LEAD.chain)
    known.introduce(NODE.chain)
    now = [NOW_MS]
    admission = Admission(known, lambda: now[0])
    admission.now = now
    return admission


def test_a_message_is_let_in_once_however_often_it_comes(gate):
    made = message()
    verified = gate.verify(made.raw)
    assert verified.value == made.value
    assert [gate.admit(verified) for _ in range(3)] == [True, False, False]


def test_another_message_with_an_old_sequence_is_a_replay(gate):
    first = message()
    assert gate.admit(first)
    with pytest.raises(Replayed, match=str(first.value.sequence)):
        gate.admit(message(sequence=first.value.sequence))


def test_a_source_that_restarts_goes_on_above_what_it_sent_before(gate):
    for later_ms in range(5):
        assert gate.admit(message(now_ms=NOW_MS + later_ms))  # each by an author that is new


def test_a_message_lives_until_its_time_is_up_and_no_longer(gate):
    made = message(ttl_ms=100)
    gate.now[0] = NOW_MS + 100
    assert gate.admit(made)
    gate.now[0] = NOW_MS + 100.5
    with pytest.raises(Untimely, match="expired"):
        gate.admit(message(ttl_ms=100))


def test_a_message_may_be_as_early_as_clocks_differ_and_no_earlier(gate):
    assert gate.admit(message(now_ms=NOW_MS + DEFAULT.early_ms_max))
    with pytest.raises(Untimely, match="whose clock is wrong"):
        gate.admit(message(now_ms=NOW_MS + DEFAULT.early_ms_max + 1))


def test_a_message_that_was_refused_leaves_no_trace(gate):
    early = message(now_ms=NOW_MS + DEFAULT.early_ms_max + 10)
    with pytest.raises(Untimely):
        gate.admit(early)
    gate.now[0] += 10
    assert gate.admit(early)


def test_nobody_speaks_unintroduced_or_beyond_his_certificate(gate):
    with pytest.raises(UnknownSender, match="whom no trusted certificate introduced"):
        gate.verify(message(TOPOLOGY.identity("agent-000001", "agent")).raw)
    for fields in ({"verb": "act"}, {"verb": "decide"}, {"verb": "sync"}, {"topic": "mesh.freeze"}, {"topic": "mesh.thaw"}):
        with pytest.raises(UnknownSender, match="only a tier commands"):
            gate.verify(message(NODE, **fields).raw)
        assert gate.verify(message(LEAD, **fields).raw)
    with pytest.raises(CapabilityDenied, match="lidar"):
        gate.verify(message(capabilities=("motion", "lidar")).raw)
    with pytest.raises(UnknownSender, match="names agent-000000"):
        gate.verify(
            author(replace(LEAD, name="agent-000000"))
            .message(NOW_MS, topic="x.go", verb="act", routing="direct", targets=("*",), ttl_ms=9)
            .raw
        )


def test_what_is_remembered_is_bounded_and_a_replay_is_still_known(gate):
    writer = author()
    fields = {"topic": "x.go", "verb": "observe", "routing": "direct", "targets": ("*",), "ttl_ms": 60_000}
    first = writer.message(NOW_MS, **fields)
    assert gate.admit(first)
    for _ in range(DEFAULT.ids_remembered_max):
        sample = msgspec.structs.replace(first.value, id=writer.identity(), sequence=first.value.sequence + len(gate._ids))
        assert gate.admit(replace(first, value=sample))
    assert len(gate._ids) == DEFAULT.ids_remembered_max and first.value.id not in gate._ids
    with pytest.raises(Replayed):
        gate.admit(first)
    for number in range(DEFAULT.sources_known_max + 5):
        gate.admit(replace(first, key=number.to_bytes(32, "big"), value=msgspec.structs.replace(first.value, id=writer.identity())))
    assert len(gate._windows) == DEFAULT.sources_known_max


def test_agents_cannot_make_a_peer_forget_a_tier():
    known = trust()
    known.introduce(LEAD.chain)
    for number in range(DEFAULT.sources_known_max + 20):
        known.introduce(TOPOLOGY.identity(TOPOLOGY.agent_name(number), "agent").chain)
    assert known.knows(bytes(LEAD.key.verify_key))
    assert not known.knows(bytes(TOPOLOGY.key("agent-000000").verify_key))
    assert len(known._known) == DEFAULT.sources_known_max


def test_of_the_agents_the_one_is_forgotten_that_was_silent_longest():
    known = trust()
    for number in range(DEFAULT.sources_known_max):
        known.introduce(TOPOLOGY.identity(TOPOLOGY.agent_name(number), "agent").chain)
    known.source(bytes(NODE.key.verify_key))
    known.introduce(TOPOLOGY.identity("agent-000800", "agent").chain)
    assert known.knows(bytes(NODE.key.verify_key))
    assert not known.knows(bytes(TOPOLOGY.key("agent-000001").verify_key))


# Complaints.


def test_complaints_are_counted_each_and_logged_once_a_minute_and_reason():
    lines = []
    complaints = Complaints(lambda level, line: lines.append((level, line)))
    for second in range(70):
        complaints.note(Flooded("too much"), "lead", second * 1000.0)
    complaints.note(MalformedData("no frame"), "lead", 0.0)
    assert complaints.counts == {"flooded": 70, "malformed_data": 1}
    assert lines == [
        ("warning", "lead: refused (flooded): too much"),
        ("warning", "lead: refused (flooded): too much; 59 more of this kind before"),
        ("warning", "lead: refused (malformed_data): no frame"),
    ]


@given(st.lists(st.floats(0, 10 * COMPLAINT_MS), max_size=50))
def test_two_lines_of_one_reason_are_a_minute_apart_and_tell_of_all(times):
    lines = []
    complaints = Complaints(lambda level, line: lines.append(line))
    logged = []
    for at_ms in sorted(times):
        before = len(lines)
        complaints.note(Flooded("too much"), "lead", at_ms)
        logged += [at_ms] * (len(lines) - before)
    assert complaints.counts.get("flooded", 0) == len(times)
    assert all(later - earlier >= COMPLAINT_MS for earlier, later in pairwise(logged))
    assert bool(logged) == bool(times)


# The quorum.


@pytest.mark.parametrize(
    ("ready", "transit", "conflict", "skipped", "time_left", "verdict"),
    [
        (100, 0, 0, 0, True, "PROCEED"),
        (95, 0, 5, 0, True, "PROCEED"),  # both exactly at their bounds
        (94, 0, 6, 0, True, "RESOLVE_CONFLICTS"),
        (0, 0, 100, 0, False, "RESOLVE_CONFLICTS"),
        (95, 5, 0, 0, False, "PROCEED"),
        (94, 6, 0, 0, True, "WAIT"),
        (94, 6, 0, 0, False, "RETRY"),
        (94, 0, 0, 6, True, "WAIT"),
        (94, 0, 0, 6, False, "RETRY"),
        (0, 100, 0, 0, True, "WAIT"),
        (0, 100, 0, 0, False, "RETRY"),
        (0, 0, 0, 100, False, "RETRY"),
    ],
)
def test_the_verdict_of_a_quorum(ready, transit, conflict, skipped, time_left, verdict):
    decision = decide(Tally(100, ready, transit, conflict, skipped), Thresholds(), time_left)
    assert decision.verdict == verdict
    assert decision.reason and decision.recommendation


def test_too_many_on_their_way_hold_up_a_quorum_even_when_enough_are_ready():
    lenient = Thresholds(ready_min=0.5)
    assert decide(Tally(100, 90, 10), lenient, True).verdict == "PROCEED"
    assert decide(Tally(100, 89, 11), lenient, True).verdict == "WAIT"
    assert decide(Tally(100, 89, 11), lenient, False).verdict == "RETRY"


def test_coordinators_need_more_and_nobody_is_no_quorum():
    assert decide(Tally(100, 98, 2), COORDINATORS, False).verdict == "PROCEED"
    assert decide(Tally(100, 97, 3), COORDINATORS, False).verdict == "RETRY"
    assert decide(Tally(0, 0), Thresholds(), True).verdict == "RETRY"


def test_a_retry_says_what_to_do_about_whoever_is_missing():
    assert "later arrival time" in decide(Tally(10, 0, 4, 0, 6), Thresholds(), False).recommendation
    assert "their lead" in decide(Tally(10, 0, 6, 0, 4), Thresholds(), False).recommendation


def test_a_tally_that_does_not_add_up_is_a_defect():
    with pytest.raises(AssertionError, match="in one state"):
        Tally(10, 9)


# Fleet time.


def exchange(clock, own, offset_ms, there_ms, held_ms, back_ms):
    """One heartbeat and its beat; fleet time is `offset_ms` ahead of this peer's own clock."""
    sent_ms = own.now_ms()
    received_ms = sent_ms + there_ms + offset_ms
    own.run_for(there_ms + held_ms + back_ms)
    return clock.sample(sent_ms, received_ms, received_ms + held_ms, own.now_ms())


DELAYS = st.floats(0.0, 500.0)


@settings(max_examples=50)
@given(st.floats(-1e6, 1e6), st.lists(st.tuples(DELAYS, st.floats(0.0, 50.0), DELAYS), min_size=1, max_size=SAMPLES))
def test_the_offset_is_found_within_half_of_the_least_delay(offset_ms, delays):
    own = VirtualTime(NOW_MS)
    clock = FleetClock(own)
    for there_ms, held_ms, back_ms in delays:
        exchange(clock, own, offset_ms, there_ms, held_ms, back_ms)
    slack_ms = 0.01  # of doubles that hold the Unix time in ms
    assert abs(clock.offset_ms - offset_ms) <= clock.uncertainty_ms + slack_ms
    assert clock.uncertainty_ms <= min(there + back for there, _, back in delays) / 2 + slack_ms
    assert clock.to_own_ms(clock.now_ms()) == pytest.approx(own.now_ms(), abs=slack_ms)


def test_the_least_delayed_sample_is_truer_than_the_mean_of_all():
    dice, filtered_ms, mean_ms = random.Random(7), [], []
    for _ in range(200):
        own = VirtualTime(NOW_MS)
        clock, samples = FleetClock(own), []
        for _ in range(SAMPLES):
            there_ms, back_ms = 1 + dice.expovariate(1 / 20), 1 + dice.expovariate(1 / 2)  # queues, mostly on the way there
            samples.append(300 + (there_ms - back_ms) / 2)
            exchange(clock, own, 300.0, there_ms, 1.0, back_ms)
        filtered_ms.append(abs(clock.offset_ms - 300))
        mean_ms.append(abs(fmean(samples) - 300))
    assert fmean(filtered_ms) < fmean(mean_ms) / 3


def test_impossible_samples_change_nothing():
    own = VirtualTime(NOW_MS)
    clock = FleetClock(own)
    exchange(clock, own, 40.0, 5.0, 1.0, 5.0)
    for sample in ((NOW_MS, 2e13, 1e13, NOW_MS + 10), (NOW_MS, 0.0, 1e14, NOW_MS + 10), (NOW_MS + 99, NOW_MS, NOW_MS, NOW_MS)):
        assert clock.sample(*sample) == 0.0
    assert clock.offset_ms == pytest.approx(40.0, abs=0.01)


def test_another_parent_begins_with_no_samples_and_the_offset_of_the_last():
    own = VirtualTime(NOW_MS)
    clock = FleetClock(own)
    exchange(clock, own, 40.0, 1.0, 0.0, 1.0)
    clock.forget()
    assert clock.offset_ms == pytest.approx(40.0, abs=0.01)
    exchange(clock, own, 70.0, 9.0, 0.0, 9.0)
    assert clock.offset_ms == pytest.approx(70.0, abs=0.01)


# Order.


def frame(order):
    return Deliver(order=order, report_by_ms=0.0, reply_bytes=0, gated=False, message=b"")


def ordered():
    time, passed = VirtualTime(), []
    return time, passed, Ordering(time, lambda deliver: passed.append(deliver.order))


@given(st.permutations(range(1, 13)))
def test_frames_that_come_out_of_order_are_passed_on_in_order(orders):
    _, passed, ordering = ordered()
    for order in orders:
        ordering.take(frame(order))
    assert passed == list(range(1, 13))


@settings(max_examples=50)
@given(st.sets(st.integers(2, 40)), st.randoms(use_true_random=False))
def test_lost_frames_hold_up_the_rest_for_a_while_and_lose_nothing_else(lost, dice):
    time, passed, ordering = ordered()
    orders = [order for order in range(1, 41) if order not in lost]
    dice.shuffle(orders)
    for order in orders:
        ordering.take(frame(order))
    time.run_for(GAP_MS_MAX * 41)
    assert passed == sorted(orders)
    for order in sorted(lost & set(range(1, max(orders)))):
        ordering.take(frame(order))
        assert passed[-1] == order  # sent again, it comes late rather than never


def test_a_gap_is_waited_for_as_long_as_a_retransmission_takes():
    time, passed, ordering = ordered()
    ordering.take(frame(1))
    ordering.take(frame(3))
    time.run_for(GAP_MS_MAX - 1)
    assert passed == [1]
    ordering.take(frame(2))
    assert passed == [1, 2, 3]
    ordering.take(frame(5))
    time.run_for(GAP_MS_MAX + 1)
    assert passed == [1, 2, 3, 5]


def test_what_waits_behind_a_gap_is_bounded():
    _, passed, ordering = ordered()
    for order in range(2, HELD_MAX + 3):
        ordering.take(frame(order))
    assert passed == list(range(2, HELD_MAX + 3))


# Gathering.


def member(number, role="agent", agents=1):
    made = Member(f"{role}-{number}", number, role, frozenset())
    made.agents = agents
    return made


def ack(state, done_ms, **more):
    return Ack(n=1, id=b"i" * 16, state=state, received_ms=done_ms, done_ms=done_ms, **more)


def report_of(agents, ready):
    return Report(n=1, id=b"i" * 16, expected=agents, ready=ready, transit=agents - ready, conflict=0, skipped=0)


FATES = st.sampled_from(["ready", "late", "conflict", "transit", "silent", "waiting", "incapable", "frozen", "away", "acted", "failed"])


@given(st.lists(FATES, max_size=12), st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=4), st.booleans(), st.booleans())
def test_every_agent_is_counted_in_one_state(fates, subtrees, timed, confirm):
    at_ms = NOW_MS + 1_000 if timed else 0.0
    members = [member(row) for row in range(len(fates))]
    members += [member(100 + row, "lead", agents) for row, (agents, _) in enumerate(subtrees)]
    gathering = Gathering(message(at_ms=at_ms, confirm=confirm), members, NOW_MS + 9_000, 4_000)
    for row, fate in enumerate(fates):
        slot = gathering.slots[row]
        if fate in ("incapable", "frozen", "away"):
            gathering.exclude(slot, {"incapable": INCAPABLE, "frozen": FROZEN, "away": AWAY}[fate])
            continue
        slot.sent_ms, slot.stage = NOW_MS, SENT if fate != "waiting" else slot.stage
        state = {"conflict": CONFLICT, "transit": TRANSIT}.get(fate, READY)
        if fate not in ("silent", "waiting"):
            assert gathering.acknowledged(slot, ack(state, NOW_MS + (5_000 if fate == "late" else 900), payload=b"x" * 10))
        if fate in ("acted", "failed"):
            gathering.acknowledged(slot, ack(READY if fate == "acted" else CONFLICT, NOW_MS + 1_000, acted=True))
        for again in (False, True):
            before = gathering.open
            if slot.stage > SENT + 1:
                assert not gathering.acknowledged(slot, ack(CONFLICT, NOW_MS, acted=again))
            assert gathering.open == before
    for row, (agents, answers) in enumerate(subtrees):
        slot = gathering.slots[100 + row]
        slot.stage = SENT
        if answers:
            assert gathering.reported(slot, report_of(agents, agents // 2))
            assert not gathering.reported(slot, report_of(agents, agents))
    total = gathering.report()
    assert total["ready"] + total["transit"] + total["conflict"] + total["skipped"] == total["expected"]
    assert total["expected"] == len(fates) + sum(agents for agents, _ in subtrees)
    assert total["acted"] >= total["failed"]
    assert msgspec.convert(msgspec.to_builtins(total | {"n": 1}, builtin_types=(bytes,)) | {"type": "report"}, Report)


def test_ready_counts_until_half_a_window_after_t():
    at_ms = NOW_MS + 1_000
    gathering = Gathering(message(at_ms=at_ms, window_ms=100.0), [member(0), member(1)], NOW_MS + 2_000, 0)
    for row, done_ms in enumerate((at_ms + 50, at_ms + 50.5)):
        gathering.slots[row].stage, gathering.slots[row].sent_ms = SENT, NOW_MS
        gathering.acknowledged(gathering.slots[row], ack(READY, done_ms))
    total = gathering.report()
    assert (total["ready"], total["transit"], total["missing"], gathering.open) == (1, 1, ("agent-1",), 0)
    assert sum(total["ready_errors"]) == 2


def test_names_and_replies_of_a_report_are_bounded_and_what_did_not_fit_is_counted():
    gathering = Gathering(message(), [member(row) for row in range(200)], NOW_MS, 1_000)
    for slot in gathering.slots.values():
        slot.stage, slot.sent_ms = SENT, NOW_MS
    for row in range(100):
        gathering.acknowledged(gathering.slots[row], ack(READY, NOW_MS, payload=b"x" * 50))
    total = gathering.report()
    assert len(total["missing"]) == DEFAULT.stragglers_max and total["missing_more"] == 100 - DEFAULT.stragglers_max
    assert len(total["replies"]) + total["replies_dropped"] == 100
    assert sum(len(reply.payload) for reply in total["replies"]) <= 1_000


def test_a_silent_subtree_is_missing_as_a_whole():
    gathering = Gathering(message(), [member(1, "lead", 30)], NOW_MS, 0)
    gathering.slots[1].stage = SENT
    assert gathering.report() | {"transit": 30} == gathering.report()
    assert gathering.report()["missing"] == ("lead-1 (all 30)",)


@given(st.lists(st.floats(-1e14, 1e14), max_size=50))
def test_every_error_is_in_the_bin_of_its_histogram(errors):
    bins = histogram(errors)
    assert sum(bins) == len(errors) and len(bins) in (0, len(HISTOGRAM_MS) + 1)
    if errors:
        assert bins[0] == sum(error < HISTOGRAM_MS[0] for error in errors)
        assert bins[-1] == sum(error >= HISTOGRAM_MS[-1] for error in errors)


# The leaf.


class Slow:
    """A handler whose preparing and acting end when the test says."""

    def __init__(self):
        self.begun, self.acted, self.now = [], [], "idle"

    def prepare(self, message, done):
        self.begun.append((message.topic, done))

    def act(self, message, done):
        self.acted.append(message.topic)
        if message.at_ms:
            done(Outcome(READY))
        else:
            self.begun.append((message.topic, done))

    def state(self):
        return self.now

    def finish(self, outcome=None):
        """Ends what was begun last."""
        self.begun[-1][1](outcome or Outcome(READY))


class Leaf:
    def __init__(self):
        self.time, self.handler, self._answers = VirtualTime(NOW_MS), Slow(), []
        self.clock, self.complaints = FleetClock(self.time), Complaints(lambda level, line: None)
        self.agent = Agent(self.time, self.clock, self.handler, Profiler(), self.complaints, self.answer)
        self.author = author()

    def answer(self, message_id, **fields):
        self._answers.append(fields | {"id": message_id})

    @property
    def answers(self):
        self.time.run_for(0)  # they are deferred
        return self._answers

    def take(self, topic="x.go", **fields):
        made = {"topic": topic, "verb": "act", "routing": "direct", "targets": ("*",), "ttl_ms": 10_000} | fields
        taken = self.author.message(self.clock.now_ms(), **made)
        self.agent.take(taken)
        return taken.value

    @property
    def topics(self):
        return [topic for topic, _ in self.handler.begun]


@pytest.fixture
def leaf():
    return Leaf()


def test_one_message_is_begun_at_a_time_and_the_highest_priority_first(leaf):
    leaf.take("x.first", priority=0)
    for topic, priority in (("x.a0", 0), ("x.b2", 2), ("x.c1", 1), ("x.d3", 3), ("x.e2", 2)):
        leaf.take(topic, priority=priority)
    assert leaf.topics == ["x.first"] and leaf.agent.queue == 6
    for _ in range(6):
        leaf.handler.finish()
    assert leaf.topics == ["x.first", "x.d3", "x.b2", "x.e2", "x.c1", "x.a0"] and leaf.agent.queue == 0
    assert [answer["state"] for answer in leaf.answers] == [READY] * 6


def test_a_full_inbox_drops_what_matters_least_and_counts_it(leaf):
    leaf.take("x.busy")
    for number in range(DEFAULT.inbox_messages_max):
        leaf.take(f"x.n{number}", priority=number % 2)
    assert leaf.agent.queue == DEFAULT.inbox_messages_max + 1 and leaf.complaints.counts == {}
    leaf.take("x.urgent", priority=3)
    assert leaf.complaints.counts == {"dropped_priority_0": 1}
    leaf.take("x.idle", priority=0)
    assert leaf.complaints.counts == {"dropped_priority_0": 2}
    for _ in range(200):
        leaf.take("x.more", priority=2)
    assert leaf.complaints.counts == {"dropped_priority_0": 1 + DEFAULT.inbox_messages_max // 2, "dropped_priority_1": 73}
    assert leaf.agent.queue == DEFAULT.inbox_messages_max + 1
    leaf.handler.finish()
    assert leaf.topics[-1] == "x.urgent"


def test_a_message_for_another_state_is_in_conflict_and_the_next_goes_on(leaf):
    leaf.take("x.cut", expected="cutting")
    leaf.take("x.rest", expected="idle")
    assert leaf.topics == ["x.rest"]
    assert (leaf.answers[0]["state"], leaf.answers[0]["code"]) == (CONFLICT, "unexpected_state")
    assert "cutting" in leaf.answers[0]["detail"] and "idle" in leaf.answers[0]["detail"]


def test_a_message_is_prepared_at_once_and_acted_on_at_t_by_fleet_time(leaf):
    leaf.clock.sample(NOW_MS, NOW_MS + 5_000, NOW_MS + 5_000, NOW_MS)  # fleet time is 5 s ahead
    at_ms = leaf.clock.now_ms() + 800
    leaf.take("x.snap", at_ms=at_ms, confirm=True)
    leaf.time.run_for(300)
    leaf.handler.finish()
    assert leaf.answers[-1]["done_ms"] == pytest.approx(at_ms - 500) and not leaf.answers[-1]["acted"]
    leaf.time.run_for(499)
    assert leaf.handler.acted == []
    leaf.time.run_for(2)
    assert leaf.handler.acted == ["x.snap"]
    assert leaf.answers[-1]["acted"] and leaf.answers[-1]["done_ms"] == pytest.approx(at_ms)


def test_what_cannot_be_prepared_is_not_acted_on(leaf):
    leaf.take("x.snap", at_ms=NOW_MS + 500, confirm=True)
    leaf.handler.finish(Outcome(CONFLICT, "jammed"))
    leaf.time.run_for(1_000)
    assert leaf.handler.acted == [] and [answer["code"] for answer in leaf.answers] == ["jammed"]


def test_a_frozen_agent_takes_control_alone_and_goes_on_after_the_thaw(leaf):
    leaf.take("x.busy")
    waits, short = leaf.take("x.waits"), leaf.take("x.short", ttl_ms=100)
    kept = leaf.agent.freeze()
    assert len(kept) == 2
    leaf.handler.finish()
    assert leaf.topics == ["x.busy"]
    refused = leaf.take("x.refused", priority=2)
    assert (leaf.answers[-1]["id"], leaf.answers[-1]["state"], leaf.answers[-1]["code"]) == (refused.id, CONFLICT, "frozen")
    leaf.take("x.control", priority=3)
    assert leaf.topics == ["x.busy", "x.control"]
    leaf.handler.finish()
    leaf.time.run_for(200)
    leaf.agent.thaw()
    assert leaf.topics == ["x.busy", "x.control", "x.waits"] and short.topic not in leaf.topics
    assert leaf.agent.queue == 1 and waits.topic in leaf.topics


def test_an_agent_that_is_frozen_at_t_does_not_act(leaf):
    leaf.take("x.snap", at_ms=NOW_MS + 500, confirm=True)
    leaf.handler.finish()
    leaf.agent.freeze()
    leaf.time.run_for(600)
    assert leaf.handler.acted == [] and leaf.complaints.counts == {"acts_failed": 1}
    assert (leaf.answers[-1]["state"], leaf.answers[-1]["acted"]) == (CONFLICT, True)


def test_an_answer_is_given_again_when_it_is_asked_for_again(leaf):
    taken = leaf.take()
    leaf.agent.repeat(taken.id)
    assert leaf.answers == []  # not answered yet
    leaf.handler.finish()
    leaf.agent.repeat(taken.id)
    leaf.agent.repeat(b"?" * 16)
    assert len(leaf.answers) == 2 and leaf.answers[0] == leaf.answers[1]
    assert len(leaf.handler.begun) == 1


def test_a_message_that_leaves_after_many_younger_ones_is_still_let_in():
    author = Author("orchestrator", TOPOLOGY.key("orchestrator"), SystemRandom())
    made = [
        author.message(NOW_MS + 50.0 * number, topic="x.go", verb="act", routing="broadcast", targets=("*",), ttl_ms=600_000)
        for number in range(1_000)
    ]
    window = Window()
    assert all(window.take(message.value.sequence) for message in reversed(made))
    again = Author("orchestrator", TOPOLOGY.key("orchestrator"), SystemRandom())
    after = again.message(NOW_MS + 60_000.0, topic="x.go", verb="act", routing="broadcast", targets=("*",), ttl_ms=600_000)
    assert after.value.sequence > made[-1].value.sequence, "a source that restarts goes on above"
