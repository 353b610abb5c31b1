"""The shipped skills: their bytes, their vectors on both call paths, and what the vectors cannot say."""

import os
import random
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from host.core import cbor
from host.core.bundle import UnverifiedBundle
from host.core.errors import SnapcountError
from host.plugins import contract
from host.plugins.contract import PlanReport, PlanSettings
from host.plugins.streaming import plan
from sdk import project, vectors
from sdk.benchmark import measure_all
from sdk.build import build
from sdk.demo.gcode import vase
from sdk.demo.samples import BID, LOT, PART
from sdk.local import LocalSkill, read_bundle
from skills import module_path

SOURCES = Path(__file__).resolve().parents[1] / "skills"  # the installation has the modules, the tree their sources
SHIPPED = ("toolpath-planner", "feedstock-assessor", "part-inspector", "bounty-bidder", "cell-start")
START = contract.HandleRequest(
    at_ms=1_795_000_000_000, correlation=b"c" * 16, id=b"i" * 16, payload=cbor.encode({"feed_mm_min": 600.0, "job": "frame-7", "to_mm": [10.0, 20.0, 5.0]}),
    phase="prepare", priority=2, source="lead-1", topic="cell.start", verb="act", weight=0.0,
)  # fmt: skip
INVENTORY = msgspec.structs.replace(START, topic="cell.inventory", verb="observe")
# Every instance of a node has its own memory, so a shipped skill starts small.
INITIAL_MEMORY_BYTES_MAX = 3 << 20
CHUNK_SEED = 20_261_121
MB_PER_S_MIN = 20.0


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.slow
def test_each_shipped_module_is_what_its_sources_compile_to_anywhere(shipped, tmp_path, monkeypatch):
    """Built in another folder, with empty caches: the bytes must be those in the tree."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = tmp_path / "somewhere-else"
    shutil.copytree(SOURCES / shipped, copy, ignore=shutil.ignore_patterns("*.wasm"))
    built = build(project.load(copy)).read_bytes()
    assert built == module_path(shipped).read_bytes(), f"run `snapcount skill build skills/{shipped}` and commit the result"
    assert str(tmp_path).encode() not in built


@pytest.mark.parametrize("force_plain", [False, True], ids=["direct", "plain"])
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.slow
def test_each_shipped_skill_passes_its_own_vectors_on_both_call_paths(name, force_plain):
    data, found = read_bundle(module_path(name)), vectors.load(SOURCES / name / "vectors")
    assert len(found) >= 8
    for path, vector in found:
        outcome = vectors.run(data, path, vector, force_plain=force_plain)
        assert not outcome.problems, f"{path.name}: {outcome.problems}"


def test_each_shipped_skill_starts_small_and_tests_itself(shipped):
    skill = LocalSkill(read_bundle(module_path(shipped)), shipped)
    with skill.loaded.instance() as instance:
        assert instance.memory_bytes() <= INITIAL_MEMORY_BYTES_MAX
    assert skill.version.self_test().ok


def test_each_shipped_manifest_is_the_one_in_its_skill_toml(shipped):
    assert UnverifiedBundle.parse(read_bundle(module_path(shipped)), shipped).manifest == project.load(SOURCES / shipped).manifest


def test_the_same_request_gives_the_same_bytes_and_fuel_every_time():
    for name, hook, request in (
        ("feedstock-assessor", "assess_feedstock", LOT),
        ("part-inspector", "inspect_part", PART),
        ("bounty-bidder", "bid", BID),
        ("cell-start", "handle", INVENTORY),  # changes no state, unlike a start
    ):
        skill = LocalSkill(read_bundle(module_path(name)), name)
        seen = set()
        for _ in range(5):
            with skill.loaded.instance() as instance:
                seen.add((instance.call(hook, cbor.encode(request)), instance.fuel_used))
        assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hook", "request_"),
    [
        ("feedstock-assessor", "assess_feedstock", LOT),
        ("part-inspector", "inspect_part", PART),
        ("bounty-bidder", "bid", BID),
        ("cell-start", "handle", START),
    ],
)
def test_a_skill_answers_any_bytes_with_a_reply_or_an_error_reply_and_never_traps(name, hook, request_):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    skill = LocalSkill(read_bundle(module_path(name)), name)
    good = cbor.encode(request_)
    with skill.loaded.instance() as instance:
        for _ in range(3_000):
            mutated = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            data = bytes(mutated) if rng.random() < 0.8 else rng.randbytes(rng.randrange(300))
            try:
                cbor.decode(instance.call(hook, data), "reply")
            except SnapcountError as error:
                assert error.code == "skill_refused", f"{data.hex()}: {error}"


def bid_of(**changes) -> contract.BidReply:
    skill = LocalSkill(read_bundle(module_path("bounty-bidder")), "bounty-bidder")
    request = contract.BidRequest(bounty=BID.bounty, costs=BID.costs, margin=changes.get("margin", 0.0), node=BID.node)
    reply = skill.version.call("bid", request)
    assert isinstance(reply, contract.BidReply)
    return reply


def test_a_bid_is_never_below_its_own_cost():
    for margin in (0.0, 1e-12, 0.1, 1.0):
        reply = bid_of(margin=margin)
        assert isinstance(reply.price, float)
        assert reply.cost <= reply.price <= BID.bounty.reward


# ---- toolpath-planner ------------------------------------------------------------------------


def planner() -> LocalSkill:
    return LocalSkill(read_bundle(module_path("toolpath-planner")), "toolpath-planner")


def planned(program: bytes, **settings: float) -> PlanReport:
    return planner().version.plan([program], PlanSettings(**settings), False)


@pytest.mark.slow
def test_a_report_does_not_depend_on_how_the_program_is_cut_into_chunks():
    print(f"seed {CHUNK_SEED}")
    rng = random.Random(CHUNK_SEED)
    program = (vase(2) + "(a comment)\r\nG2 X10 Y10 I5 J0 ; é\rN5 G1 X3*1\n%\nG1 X1 Y\n").encode()
    whole = planned(program)
    skill = planner()
    for sizes in ([1], [2, 3], [rng.randrange(1, 400) for _ in range(50)]):
        pieces, at, turn = [], 0, 0
        while at < len(program):
            pieces.append(program[at : at + sizes[turn % len(sizes)]])
            at += sizes[turn % len(sizes)]
            turn += 1
        with skill.loaded.instance() as instance:
            for seq, piece in enumerate(pieces):
                request = contract.PlanJobRequest(chunk=piece, last=seq == len(pieces) - 1, run=False, seq=seq, settings=PlanSettings())
                reply = instance.call("plan_job", cbor.encode(request))
        assert cbor.decode_struct(reply, PlanReport, "report", bytes_max=1 << 20) == whole


@pytest.mark.slow
def test_it_reads_at_least_twenty_megabytes_of_g_code_in_a_second():
    program = vase(600).encode()
    skill = planner()
    best = 0.0
    for _ in range(3):
        with skill.loaded.instance() as instance:
            start = time.process_time()
            plan(instance, [program], PlanSettings(), False, "planner")
            best = max(best, len(program) / (time.process_time() - start) / 1e6)
    print(f"{best:.1f} MB/s")
    assert best >= MB_PER_S_MIN


def test_a_move_of_twenty_millimetres_takes_what_a_real_grbl_takes():
    """20 mm at 20 mm/s and 500 mm/s²: 0.04 s up, 0.96 s at speed, 0.04 s down."""
    assert planned(b"G1 X20 F1200\n", accel_mm_s2=500.0).time_s == pytest.approx(1.04, rel=1e-6)


def test_a_program_of_random_bytes_is_reported_and_never_traps():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(20):
        soup = bytes(rng.choice(b"GMXYZIJKREFSNT0123456789.-+ ;()%*\r\n/#[]O\xff\x00") for _ in range(2_000))
        report = planned(soup)
        assert report.lines > 0
        assert report.problems_total >= len(report.problems)


def test_what_is_driven_is_what_was_planned():
    skill = planner()
    report = skill.version.plan([vase(3).encode()], PlanSettings(), True)
    assert report.complete
    assert report.driven == skill.machine.moves > 0
    planned_mm = report.path_mm.total
    assert skill.machine.travelled_mm == pytest.approx(planned_mm, rel=0.02)


# ---- cell-start ------------------------------------------------------------------------------


def told(cell: LocalSkill, request: contract.HandleRequest = START, **changes) -> contract.HandleReply:
    reply = cell.version.call("handle", msgspec.structs.replace(request, **changes))
    assert isinstance(reply, contract.HandleReply)
    return reply


def line(length: int) -> list[LocalSkill]:
    return [LocalSkill(read_bundle(module_path("cell-start")), "cell-start") for _ in range(length)]


def test_the_whole_line_moves_at_t_and_none_of_it_before():
    cells = line(5)
    assert [told(cell).state for cell in cells] == ["ready"] * 5
    assert [cell.machine.moves for cell in cells] == [0] * 5
    replies = [told(cell, phase="act") for cell in cells]
    assert [cell.machine.position_mm for cell in cells] == [(10.0, 20.0, 5.0)] * 5
    assert {cell.machine.feed_mm_s for cell in cells} == {10.0}
    assert {reply.payload for reply in replies} == {cbor.encode({"moves": 1, "position_mm": [10.0, 20.0, 5.0]})}


def test_a_cell_in_conflict_keeps_its_own_job_and_begins_it():
    (cell,) = line(1)
    other = msgspec.structs.replace(START, id=b"o" * 16, payload=START.payload.replace(b"frame-7", b"frame-8"))
    assert told(cell).state == "ready"
    conflict = told(cell, other)
    assert (conflict.state, conflict.handled) == ("conflict", True)
    assert "frame-7" in conflict.detail
    assert told(cell, other, phase="act").state == "conflict"
    assert cell.machine.moves == 0
    assert told(cell, phase="act").state == "ready"
    assert cell.machine.moves == 1


def test_a_message_moves_the_machine_once_however_often_it_acts():
    (cell,) = line(1)
    told(cell)
    assert [told(cell, phase="act").state for _ in range(3)] == ["ready", "conflict", "conflict"]
    assert cell.machine.moves == 1


@pytest.mark.parametrize("verb", ["observe", "orient", "record"])
def test_a_verb_that_any_node_may_send_moves_nothing(verb):
    (cell,) = line(1)
    told(cell)
    assert [told(cell, verb=verb, phase=phase).handled for phase in ("prepare", "act")] == [False, False]
    assert cell.machine.moves == 0


def test_a_self_test_of_a_cell_moves_nothing_and_leaves_its_job_alone():
    (cell,) = line(1)
    told(cell)
    assert cell.version.self_test().ok
    assert cell.machine.moves == 0
    assert told(cell, phase="act").state == "ready"


# ---- What a vector can say -------------------------------------------------------------------


def vector_of(name: str) -> tuple[Path, vectors.Vector]:
    ((path, vector),) = ((path, vector) for path, vector in vectors.load(SOURCES / "cell-start" / "vectors") if path.stem.endswith(name))
    return path, vector


def problems(name: str, **changes) -> tuple[str, ...]:
    path, vector = vector_of(name)
    return vectors.run(read_bundle(module_path("cell-start")), path, msgspec.structs.replace(vector, **changes)).problems


def test_a_vector_that_expects_other_bytes_says_where_they_differ():
    name = "it-begins-at-the-arrival-time"
    assert problems(name) == ()
    (other,) = problems(name, reply={"payload": {"cbor": {"position_mm": [10.0, 20.0, 6.0]}}})
    assert "reply.payload.position_mm[2]" in other
    (base64,) = problems(name, reply={"payload": "AAAA"})
    assert "reply.payload: expected 'AAAA'" in base64
    (no_cbor,) = problems("a-cell-gets-ready", reply={"payload": {"cbor": {}}})
    assert "not deterministic CBOR" in no_cbor


def test_a_refusal_of_an_earlier_request_is_not_the_one_that_a_vector_expects():
    path, vector = vector_of("a-feed-of-zero")
    (said,) = problems("a-feed-of-zero", before=(vector.request,))
    assert "before[0]" in said
    assert problems("a-feed-of-zero", before=({"id": "short"},))[0].startswith(f"{path.name}: before[0]: ")


def test_every_vector_of_a_hook_can_be_measured():
    rows = measure_all(read_bundle(module_path("cell-start")), project.load(SOURCES / "cell-start"), 0.0)
    assert {row["calls"] for row in rows} == {1}
