"""The auditor: another lineage is run on real calls, and what differs beyond what is allowed becomes a conflict, from real nodes up to the orchestrator."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from typer.testing import CliRunner
from wasmtime import wat2wasm

import host
from host import config, identity
from host.auditing import WAITING_MAX, WAITING_OF_ONE_MAX, Auditor
from host.console.client import NodeControl
from host.console.mesh import status_lines
from host.console.panel import node_lines
from host.core import cbor, keys
from host.core.attestation import Measurement
from host.core.bundle import UnverifiedBundle, digest_of, with_manifest, with_signature
from host.core.capabilities import grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import Busy, MalformedData, NetworkError, SnapcountError, StateDamaged, UnknownSender
from host.core.manifest import Manifest, SkillLimits
from host.mesh.agent import Outcome
from host.mesh.frames import READY
from host.mesh.message import Author
from host.mesh.raised import AUDITED_CALL, CONFLICT_RAISED, HOST_TOPICS, RAISED_MS, Raised
from host.meshlink import NodeHandler
from host.node import Node
from host.plugins import record as records
from host.plugins.adapter import SkillVersion
from host.plugins.comparison import Comparison, Tolerance
from host.plugins.conflict import Conflict
from host.plugins.contract import BidReply, PlanSettings
from host.plugins.manager import PluginManager
from host.plugins.observed import Call, PlannedJob
from host.plugins.replaying import RecordedHost, Replayer
from host.sandbox.engine import default_engine
from host.sandbox.imports import HostCall, HostServices
from host.sandbox.skill import LoadedSkill
from host.supply.calls import CallJournal
from sdk.cli.main import app
from sdk.demo.samples import BID
from sdk.local import MemoryState, read_bundle, user_cache
from sdk.testbed import SeededRandom, VirtualClock
from skills import module_path

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
WAIT_S = 30.0
PRICE = 48.6
WRONG = PRICE * 1.005
ALLOWED = Comparison(default=Tolerance(relative=1e-9), fields={"reason": Tolerance(relative=1e-3)})
FINISH = b"ifinish_ms\x18"  # the key, and the byte before a value of 24 to 255
KEY = b"\xa5bi"  # where the guest's reply stands, to be some key or other
OneLine = Callable[..., str]
Make = Callable[..., bytes]

BIDDER = """
(module
  (import "snapcount:host/1" "now_ms" (func $now_ms (result i64)))
  (import "snapcount:host/1" "random" (func $random (param i32 i32)))
  (import "snapcount:host/1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
  (import "snapcount:host/1" "state_set" (func $state_set (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{reply}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_bid") (param i32 i32) (result i64) {steps} (i64.const {packed})))
"""
STEPS = {
    "now": "(i32.store8 (i32.const {at}) (i32.or (i32.wrap_i64 (call $now_ms)) (i32.const 128)))",
    "twice": "(drop (call $now_ms)) (drop (call $now_ms))",
    "random": "(call $random (i32.const 3000) (i32.const 9))",
    "get": "(drop (call $state_get (i32.const 1024) (i32.const 3) (i32.const 3000) (i32.const 64)))",
    "set": "(drop (call $state_set (i32.const 1024) (i32.const 3) (i32.const 1024) (i32.const 1)))",
    "trap": "unreachable",
    "spin": "(loop $again (br $again))",
}


@pytest.fixture(scope="session")
def bidder(author: SigningKey) -> Make:
    """Makes a bundle of one lineage: it bids `price`, says so in its reason, and its `finish_ms` is the clock's last byte."""

    def make(
        lineage: str = "a", price: float = PRICE, does: str = "now", *, name: str = "bidder", reason: str = "", version: str = "1.0.0"
    ) -> bytes:
        reply = cbor.encode(BidReply(cost=1.0, finish_ms=24, id="haul-1", price=price, reason=reason or f"asks for {price:.6f}"))
        at = 1024 + reply.index(FINISH) + len(FINISH)
        steps = " ".join(STEPS[step] for step in does.split()).format(at=at)
        text = BIDDER.format(reply="".join(f"\\{byte:02x}" for byte in reply), steps=steps, packed=1024 << 32 | len(reply))
        manifest = Manifest(
            name=name, version=version, lineage=lineage, hooks=("bid",), capabilities=("clock", "random", "state"), limits=SkillLimits(fuel=1_000_000, deadline_ms=500)
        )  # fmt: skip
        return with_signature(with_manifest(bytes(wat2wasm(text)), manifest, name), author, name)

    return make


def load(data: bytes, services: Callable[[Manifest, Any], HostServices] | None = None) -> tuple[SkillVersion, HostServices, LoadedSkill]:
    manifest = UnverifiedBundle.parse(data, "skill").manifest
    granted = grant(manifest.name, manifest.capabilities, manifest.capabilities)
    serving = services(manifest, granted) if services else HostServices(
        manifest.name, granted, VirtualClock(step_ms=7), SeededRandom(), log=lambda level, line: None, state=MemoryState()
    )  # fmt: skip
    loaded = LoadedSkill(
        default_engine(), user_cache().module(default_engine(), data, digest_of(data), manifest), manifest, granted, serving
    )
    return SkillVersion(loaded, digest_of(data), serving), serving, loaded


def call_of(data: bytes) -> Call:
    """A real call of a bundle."""
    manager, told = PluginManager(), []
    manager.activate(load(data)[0])
    manager.observe(told.append)
    try:
        manager.hook.bid(request=BID)
    except SnapcountError:
        pass
    return told[0]


def record_of(data: bytes, node: str = "press-1", **changed: Any) -> bytes:
    return records.encode(node, replace(call_of(data), **changed))


class Office:
    """An auditor by itself: what is active there, and what it says."""

    def __init__(self, folder: Path, *bundles: bytes, rules: dict[str, Comparison] | None = None, **more: Any) -> None:
        versions = [load(data)[0] for data in bundles]
        self.active = {version.name: version for version in versions}
        self.data = {digest_of(data): data for data in bundles}
        self.said: list[Conflict] = []
        self.logged: list[str] = []
        self.journal = CallJournal(folder, 1 << 20)
        rules = {"bidder": ALLOWED} if rules is None else rules
        self.auditor = Auditor(
            "auditor-1", lambda: self.active, rules, self.load, self.journal, self.said.append, lambda level, line: self.logged.append(line),
            SystemClock().now_ms, **more,
        )  # fmt: skip

    def load(self, version: SkillVersion) -> Replayer:
        _, services, loaded = load(self.data[version.digest], RecordedHost)
        assert isinstance(services, RecordedHost)
        return Replayer(loaded, version.digest, services)

    def close(self) -> None:
        self.auditor.stop()
        self.journal.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(*bundles: bytes, **more: Any) -> Office:
        made.append(Office(tmp_path, *bundles, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def one_office(tmp_path_factory: pytest.TempPathFactory, bidder: Make) -> Iterator[Office]:
    one = Office(tmp_path_factory.mktemp("office"), bidder("a", does="now random"))
    yield one
    one.close()


@cache
def record_of_once(bidder: Make) -> bytes:
    return record_of(bidder("b", does="now random"))


# ---- What is a conflict, and what is none ----------------------------------------------------


def test_half_a_percent_in_one_lineage_is_a_conflict_that_names_everything(bidder, office, one_line):
    theirs, ours = bidder("b", WRONG), bidder("a")
    at = office(ours)
    data = record_of(theirs)
    conflict = at.auditor.audit("press-1", data)
    assert conflict is not None and at.said == [conflict] and conflict.others == 1
    assert (conflict.skill, conflict.hook, conflict.field, conflict.node) == ("bidder", "bid", "price", "press-1")
    assert (
        conflict.lineages == ("b", "a")
        and conflict.digests == (digest_of(theirs), digest_of(ours))
        and conflict.values == (f"{WRONG}", f"{PRICE}")
    )
    line = one_line(
        conflict.words, "press-1 (lineage b", f"says {WRONG}", "auditor-1 (lineage a", f"says {PRICE}", records.id_of(data), "1 more field"
    )
    assert at.logged == [f"conflict: {line}"]
    assert at.journal.get([conflict.record]) == [data] and at.journal.conflicts() == [conflict]


@pytest.mark.slow
def test_what_lies_within_the_tolerance_and_answers_that_depend_on_the_clock_are_no_conflict(bidder, office):
    at = office(bidder("a", PRICE, "now", reason="asks for 48.6000 an hour"))
    for does in ("now", "now twice"):
        assert at.auditor.audit("press-1", record_of(bidder("b", PRICE * (1 + 1e-12), does, reason="asks for 48.6001 an hour"))) is None
    assert at.auditor.compared == 2 and at.auditor.conflicts == 0 and at.said == []


@pytest.mark.slow
def test_a_trap_in_one_lineage_alone_is_a_conflict_and_in_both_is_none(bidder, office):
    at = office(bidder("a"))
    conflict = at.auditor.audit("press-1", record_of(bidder("b", does="trap")))
    assert conflict is not None and conflict.field == "(outcome)" and conflict.values == ('"guest_trap"', '"reply"')
    both = office(bidder("c", does="trap"))
    assert both.auditor.audit("press-1", record_of(bidder("b", does="trap"))) is None and both.auditor.compared == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "changed", "reason"),
    [
        (("a",), ("b", PRICE, "spin"), {}, "a call ended at a limit"),
        (("a", PRICE, "spin"), ("b",), {}, "a call ended at a limit"),
        (("a", PRICE, "random"), ("b",), {}, "it asked its host what the other had not"),
        (
            ("a", PRICE, "get"),
            ("b", WRONG, "get"),
            {"host_calls": (HostCall("state_get", (KEY,), b"kept"),)},
            "it met state that the other had written",
        ),
        (("a",), ("a",), {}, "the same lineage"),
        (("a",), ("b",), {"skill": "other"}, "no [audit.compare] for the skill"),
        (("a",), ("b",), {"hook": "handle"}, "no such hook here"),
        (None, ("b",), {}, "the skill is not installed here"),
    ],
    ids=["their limit", "our limit", "unanswered", "state", "lineage", "skill", "hook", "absent"],
)
def test_what_cannot_be_compared_is_counted_with_its_reason_and_is_no_conflict(bidder, office, ours, theirs, changed, reason):
    at = office(*([bidder(*ours)] if ours else []))
    assert at.auditor.audit("press-1", record_of(bidder(*theirs), **changed)) is None
    assert at.auditor.skipped == {reason: 1} and at.auditor.compared == 0 and at.said == []


def test_a_skill_that_is_quarantined_on_the_auditor_is_not_run(bidder, office):
    at = office(bidder("a"))
    at.active["bidder"].bar({"bid": "disabled"})
    assert at.auditor.audit("press-1", record_of(bidder("b", WRONG))) is None
    assert at.auditor.skipped == {"quarantined here": 1}


def test_the_same_conflict_is_said_once_a_minute_with_how_many_calls_showed_it(bidder, office):
    now_s = [1_000.0]
    at = office(bidder("a"), now_s=lambda: now_s[0])
    data = record_of(bidder("b", WRONG))
    fields = [found.field if (found := at.auditor.audit("press-1", data)) else "" for _ in range(5)]
    assert fields == ["price", "", "", "", ""], "at most one in four seconds of one node, whatever it is"
    now_s[0] += 4
    fields = [found.field if (found := at.auditor.audit("press-1", data)) else "" for _ in range(3)]
    assert fields == ["reason", "", ""]
    now_s[0] += 60
    found = at.auditor.audit("press-1", data)
    assert found is not None and found.field == "price" and found.seen == 8
    assert at.auditor.conflicts == 9


# ---- Bad input and slow auditors -------------------------------------------------------------


def message(payload: bytes, source: str = "press-1") -> Any:
    author = Author(source, SigningKey(b"s" * 32), SystemRandom())
    return author.message(
        1.0, topic=AUDITED_CALL, verb="record", routing="direct", targets=("auditor-1",), ttl_ms=100, payload=payload
    ).value


def test_what_is_no_record_is_refused_counted_and_said_once(bidder, office):
    at = office(bidder("a"))
    sound = record_of(bidder("b"))
    broken = cbor.encode(msgspec.structs.replace(records.decode(sound, "record"), request=b"\xa0"))
    for payload in (b"", b"\x00" * 60_000, sound[:-1], broken, cbor.encode({"node": "x"})):
        assert at.auditor.take(message(payload)).state == READY
    until(lambda: at.auditor.refused == 5, "all to be refused")
    assert len(at.logged) == 1 and at.said == []
    assert at.auditor.take(message(record_of(bidder("b", WRONG)))).state == READY
    until(lambda: at.said, "the conflict")


@given(at=st.integers(0, 2_000), bits=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_call_makes_an_auditor_fail_otherwise_than_with_a_typed_error(bidder, one_office, at, bits):
    sound = record_of_once(bidder)
    at %= len(sound)
    try:
        one_office.auditor.audit("press-1", sound[:at] + bytes([sound[at] ^ bits]) + sound[at + 1 :])
    except SnapcountError as error:
        assert str(error).isprintable()


def test_an_answer_that_no_host_would_have_given_is_none(bidder, office):
    at = office(bidder("a", does="random"))
    for answer in (b"more than nine bytes", 7, None):
        record = record_of(bidder("b", does="random"), host_calls=(HostCall("random", (9,), answer),))
        assert at.auditor.audit("press-1", record) is None
    assert at.auditor.skipped == {"it asked its host what the other had not": 3}


def test_an_auditor_that_cannot_keep_up_answers_at_once_and_drops(bidder, office):
    at = office(bidder("a"))
    stuck = threading.Event()
    at.auditor.audit = lambda source, data: stuck.wait(20)  # type: ignore[method-assign]
    sound = message(record_of(bidder("b")))
    started = time.perf_counter()
    answers = [at.auditor.take(sound) for _ in range(WAITING_MAX + 50)]
    assert time.perf_counter() - started < 1.0
    assert all(answer.state == READY for answer in answers)
    assert at.auditor.dropped >= 49
    stuck.set()


def test_one_node_that_makes_conflicts_up_silences_no_other_and_fills_no_more_than_its_share_of_the_queue(bidder, office):
    now_s = [1_000.0]
    at = office(bidder("a"), now_s=lambda: now_s[0])
    forged = records.decode(record_of(bidder("b", WRONG), "liar"), "record")
    true = record_of(bidder("b", WRONG, version="1.0.1"))
    for number in range(100):
        now_s[0] += 0.5
        at.auditor.audit("liar", cbor.encode(msgspec.structs.replace(forged, digest=f"sha256:{number:064x}")))
    assert at.auditor.audit("press-1", true) is not None
    assert [one.node for one in at.said[-1:]] == ["press-1"] and len(at.said) <= 15
    with pytest.raises(UnknownSender):
        at.auditor.audit("liar", true)
    stuck = threading.Event()
    at.auditor.audit = lambda source, data: stuck.wait(20)  # type: ignore[method-assign]
    for _ in range(WAITING_MAX):
        at.auditor.take(message(true, "liar"))
    assert at.auditor.dropped >= WAITING_MAX - WAITING_OF_ONE_MAX - 1
    before = at.auditor.dropped
    at.auditor.take(message(true))
    assert at.auditor.dropped == before
    stuck.set()


def test_conflicts_of_other_nodes_take_a_share_of_the_journal_and_leave_the_nodes_own_sample(bidder, tmp_path):
    call = call_of(bidder("b"))
    own, other = (
        [records.encode(node, replace(call, began_ms=call.began_ms + number)) for number in range(40)] for node in ("auditor-1", "liar")
    )
    kept = CallJournal(tmp_path, 16 * len(own[0]), "auditor-1")
    kept.add(own[:8])
    for data in other:
        kept.add([data])
    assert [row["node"] for row in kept.rows()].count("auditor-1") == 8
    assert kept.status()["kept"] == len(kept.rows()) == 12
    kept.add(own)
    assert kept.status() == {"kept": 16, "kept_bytes": sum(row["bytes"] for row in kept.rows())}
    kept.close()


def test_a_time_that_no_journal_can_hold_is_refused_and_a_conflict_is_said_before_it_is_written_down(bidder, office):
    at = office(bidder("a"))
    sound = records.decode(record_of(bidder("b", WRONG)), "record")
    for changed in (
        {"began_ms": 1 << 63}, {"version": "\x1b]0;pwn\x07"}, {"lineage": "\x1b]0;pwn\x07"}, {"digest": "\x1b]0;pwn\x07"},
    ):  # fmt: skip
        with pytest.raises(MalformedData):
            at.auditor.audit("press-1", cbor.encode(msgspec.structs.replace(sound, **changed)))
    at.journal.close()
    with suppress(Exception):
        at.auditor.audit("press-1", cbor.encode(sound))
    assert len(at.said) == 1


def test_a_record_that_was_changed_to_drive_a_machine_is_unanswered_and_no_driver_is_asked(office):
    asked: list[str] = []

    def spied(manifest: Manifest, granted: Any) -> HostServices:
        def ask(capability: str, request: bytes) -> bytes:
            asked.append(capability)
            return b"\xa0"

        return HostServices(manifest.name, granted, VirtualClock(), SeededRandom(), log=lambda level, line: None, ask=ask)

    data = read_bundle(module_path("toolpath-planner"))
    version = load(data, spied)[0]
    manager, told = PluginManager(), []
    manager.activate(version)
    manager.observe(told.append)
    manager.hook.plan_job(program=iter([b"G1 X1 F600\n", b"G1 X20\n"]), settings=PlanSettings(accel_mm_s2=500.0), run=False)
    sound = records.decode(records.encode("press-1", told[0]), "record")
    job = cbor.decode_struct(sound.request, PlannedJob, "request")
    driving = msgspec.structs.replace(sound, lineage="b", request=cbor.encode(msgspec.structs.replace(job, run=True)))
    at = office(data, rules={"toolpath-planner": ALLOWED})
    at.active["toolpath-planner"] = version
    assert at.auditor.audit("press-1", cbor.encode(driving)) is None
    assert at.auditor.skipped == {"it asked its host what the other had not": 1} and asked == [] and at.auditor.compared == 0
    with suppress(SnapcountError):
        manager.hook.plan_job(program=iter([b"G1 X1 F600\n", b"G1 X20\n"]), settings=PlanSettings(accel_mm_s2=500.0), run=True)
    assert asked, "the spy is asked where the job is a real one"


def test_a_skill_on_trial_audits_nothing(bidder, office):
    at = office(bidder("a"), on_trial=lambda version: version.name == "bidder")
    assert at.auditor.audit("press-1", record_of(bidder("b", WRONG))) is None
    assert at.auditor.skipped == {"on trial here": 1} and at.auditor.refused == 0


def test_a_damaged_conflict_is_said_in_one_line(office, one_line):
    at = office()
    with at.journal._database.transaction() as db:
        db.execute("INSERT INTO conflicts (conflict, at_ms) VALUES ('{\"at_ms\":', 1)")
    with pytest.raises(StateDamaged) as caught:
        at.journal.conflicts()
    one_line(caught.value, "calls.db")


@pytest.mark.parametrize("topic", sorted(HOST_TOPICS))
def test_what_is_for_an_auditor_reaches_no_skill_whoever_it_comes_to_and_however(topic):
    reached: list[Any] = []

    async def handle(request: Any) -> list[Any]:
        reached.append(request)
        return []

    async def ask() -> list[Outcome]:
        node = SimpleNamespace(handle=handle, name="press-9", machine=asyncio.Lock(), envelope=SimpleNamespace(tripped=None))
        handler, said = NodeHandler(node, lambda: False), []  # type: ignore[arg-type]
        confidential = msgspec.structs.replace(message(b"confidential"), topic=topic)
        handler.prepare(confidential, said.append)
        handler.act(confidential, said.append)
        await asyncio.sleep(0.01)
        await handler.stop()
        return said

    assert [outcome.code for outcome in asyncio.run(ask())] == ["unhandled", "unhandled"] and reached == []


def test_a_tier_notes_a_conflict_of_an_auditor_and_nothing_else(bidder, office, one_line):
    at = office(bidder("a"))
    conflict = at.auditor.audit("press-1", record_of(bidder("b", WRONG)))
    logged: list[str] = []
    now_s = [0.0]
    raised = Raised(lambda level, line: logged.append(line), lambda: now_s[0])
    author = Author("auditor-1", SigningKey(b"s" * 32), SystemRandom())

    def said(payload: bytes, by: Author = author, ttl_ms: int = 100) -> Any:
        return by.message(
            1.0, topic=CONFLICT_RAISED, verb="record", routing="direct", targets=(by.name,), ttl_ms=ttl_ms, payload=payload
        ).value

    raised.take(said(cbor.encode(conflict)))
    assert raised.rows()[0]["words"] == conflict.words and logged == [f"auditor-1 raises a conflict: {conflict.words}"]
    with pytest.raises(UnknownSender) as caught:
        raised.take(said(cbor.encode(conflict), Author("press-2", SigningKey(b"t" * 32), SystemRandom())))
    one_line(caught.value, "press-2", "auditor-1")
    for payload in (b"", cbor.encode({"at_ms": 1}), cbor.encode(msgspec.structs.replace(conflict, field="x" * 300))):
        with pytest.raises(MalformedData):
            raised.take(said(payload))
    with pytest.raises(MalformedData):
        raised.take(said(cbor.encode(conflict), ttl_ms=RAISED_MS + 1))
    other = Author("auditor-2", SigningKey(b"u" * 32), SystemRandom())
    theirs = msgspec.structs.replace(conflict, auditor="auditor-2")
    raised.take(said(cbor.encode(theirs), other))
    for _ in range(100):
        now_s[0] += 1
        raised.take(said(cbor.encode(conflict)))
    assert len(raised.rows()) == 32 and theirs.words in [row["words"] for row in raised.rows()], "no auditor pushes out what another raised"
    with pytest.raises(Busy) as busy:
        for _ in range(100):
            raised.take(said(cbor.encode(conflict)))
    one_line(busy.value, "auditor-1")
    raised.take(said(cbor.encode(theirs), other))
    assert len(logged) <= 1 + 1 + 11, "a line in ten seconds for each auditor"


# ---- Real nodes ------------------------------------------------------------------------------


def until(condition: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Daemon:
    """`snapcount node run` on a state directory."""

    def __init__(self, state: Path) -> None:
        self.state, self.control, self.said = state, NodeControl(state), []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--state", str(state), "--development"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.control.get("/v1/status")
        except NetworkError:
            assert self.process.poll() is None, self.said
            return {}
        return found

    def bid(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.control.post("/v1/hooks/bid", msgspec.json.encode(BID))
        return found[0]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, self.said
        self.reader.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def make_node(tmp_path: Path, owner: SigningKey, author: SigningKey) -> Callable[..., Path]:
    """Makes a node of a mesh, with skills installed and more in its node.toml."""

    def make(name: str, role: str, *bundles: bytes, more: str = "", **place: Any) -> Path:
        path, public = tmp_path / name, keys.public_text(owner.verify_key)
        mesh = msgspec.convert({"role": role, "heartbeat_s": 0.3} | place, config.Mesh)
        text = config.template(name, public, 1, "", (keys.public_text(author.verify_key),), ("clock", "random", "state"), (), mesh)
        before, _, after = text.partition("[record]")
        text = before + more + after[after.index("[mesh]") :]
        identity.create(path, text, owner, SystemClock(), SystemRandom())
        node = Node.open(path, MEASURED, log=lambda level, line: None)
        for data in bundles:
            asyncio.run(node.install(data, digest_of(data)))
        node.close()
        return path

    return make


SENDS = """
[audit]
sample = 1.0
send_to = ["auditor-1"]
calls_per_s = 2.0

"""
AUDITS = """
[audit]
auditor = true

[audit.compare.bidder]
default = {relative = 1e-9}

"""


@pytest.mark.slow
def test_a_planted_half_percent_on_a_real_node_is_raised_to_the_orchestrator_and_the_call_goes_to_a_desk(bidder, make_node, tmp_path):
    root, tier = (f"127.0.0.1:{free_port()}" for _ in range(2))
    theirs, sound, ours = bidder("b", WRONG), bidder("b", PRICE, version="1.0.1"), bidder("a")
    parents = {"parents": [f"ws://{tier}"]}
    states = (
        make_node("orchestrator", "orchestrator", listen=root), make_node("lead-1", "lead", parents=[f"ws://{root}"], listen=tier),
        make_node("auditor-1", "agent", ours, more=AUDITS, **parents), make_node("press-1", "agent", theirs, more=SENDS, **parents),
        make_node("press-2", "agent", sound, more=SENDS, **parents),
    )  # fmt: skip
    daemons = [Daemon(state) for state in states]
    orchestrator, lead, auditor, press, honest = daemons
    try:
        until(lambda: all((one.status().get("mesh") or {}).get("connected") for one in daemons[1:]), "all to be connected")
        until(lambda: orchestrator.control.get("/v1/mesh/status")["agents"]["active"] == 3, "three active agents")

        for _ in range(5):
            assert honest.bid()["price"] == PRICE
        until(lambda: auditor.status()["recording"]["auditor"]["compared"] >= 2, "calls to be compared")
        assert auditor.status()["recording"]["auditor"]["conflicts"] == 0, "without a divergence there is no conflict"
        assert orchestrator.control.get("/v1/mesh/status")["raised"] == []

        assert press.bid()["price"] == WRONG
        (raised, *_) = until(lambda: orchestrator.control.get("/v1/mesh/status")["raised"], "the conflict to reach the orchestrator")
        assert (raised["node"], raised["auditor"], raised["skill"], raised["field"]) == ("press-1", "auditor-1", "bidder", "price")
        assert raised["digests"] == [digest_of(theirs), digest_of(ours)] and raised["values"] == [str(WRONG), str(PRICE)]
        until(lambda: orchestrator.control.get("/v1/mesh/status")["conflicts_hour"] == 1, "the lead to count it")
        assert raised["words"] in "\n".join(status_lines(orchestrator.control.get("/v1/mesh/status")))
        for one in (orchestrator, lead):
            assert any(f"auditor-1 raises a conflict: {raised['words'][:60]}" in line for line in one.said)

        def snapcount(*arguments: Any, code: int = 0) -> str:
            ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert ended.exit_code == code, (ended.output, ended.exception)
            return ended.output

        assert raised["words"] in snapcount("node", "audit", "--state", auditor.state)
        found = json.loads(snapcount("node", "audit", "--state", auditor.state, "--json").splitlines()[-1])
        assert found["conflicts"][0]["record"] == raised["record"] and found["auditor"]["conflicts"] == 1
        out = tmp_path / "calls.cbor"
        snapcount("node", "calls", "export", raised["record"], "--state", auditor.state, "--out", out)
        (tmp_path / "mended.wasm").write_bytes(sound)
        assert f"price: recorded {WRONG}, now {PRICE}" in snapcount("skill", "replay", tmp_path / "mended.wasm", out, code=1)

        shown = {one.state.name: "\n".join(node_lines(one.status())) for one in (auditor, press)}
        assert "1 in conflict" in shown["auditor-1"] and "calls taken for auditors" in shown["press-1"]

        # An auditor that hangs costs nobody anything.
        auditor.process.send_signal(signal.SIGSTOP)
        took_s = []
        for _ in range(60):
            started = time.perf_counter()
            assert honest.bid()
            took_s.append(time.perf_counter() - started)
        print(f"with its auditor stopped, a node answers in {sorted(took_s)[30] * 1000:.1f} ms")
        assert sorted(took_s)[30] < 0.1
        assert honest.status()["mesh"]["connected"]
    finally:
        for one in reversed(daemons):
            one.end()
