"""Quarantine policies: what an operator may say, what a node makes of it over clocks and restarts, what its calls meet, and how it travels."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey
from typer.testing import CliRunner

import host
from host import config, identity
from host.console.client import NodeControl
from host.core import cbor, documents, keys, safety
from host.core.attestation import Measurement
from host.core.clock import SystemClock, SystemRandom
from host.core.commands import Home, Move, Status
from host.core.errors import (
    GuestTrap,
    MalformedData,
    NetworkError,
    Quarantined,
    Refused,
    Replayed,
    SafeMode,
    SignatureInvalid,
    SnapcountError,
    StorageFull,
    TooLarge,
    UnsafeCommand,
    Untimely,
)
from host.core.limits import DEFAULT
from host.core.manifest import Manifest
from host.core.quarantine import AAD, Anomaly, AnyPolicy, Disable, Lift, sign, verify
from host.node import Node
from host.plugins.adapter import SkillVersion
from host.plugins.contract import BidReply, PlanProgress, PlanSettings
from host.supply.policies import DOCUMENTS_BYTES_MAX, ENDED_MAX, FILE, FOLDER, PolicyStore
from sdk.cli.main import app
from sdk.cli.quarantine import seconds
from sdk.demo.samples import BID, BOUNTY
from sdk.mesh.virtual_fleet import VirtualFleet

ROOT = Path(host.__file__).resolve().parent.parent
MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
OPERATOR, STRANGER = SigningKey(b"p" * 32), SigningKey(b"s" * 32)
NOW_MS = 1_700_000_000_000
DAY_MS, YEAR_MS = 86_400_000, 365 * 86_400_000
WAIT_S = 30.0
DIGEST = f"sha256:{'1' * 64}"
CHECKS, CHECK_NS_MAX = 200_000, 300
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]
numbers = count()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def disable(**fields: Any) -> Disable:
    return Disable(**({"id": f"q-{next(numbers)}", "issued_ms": NOW_MS, "skill": "greeter"} | fields))


def lift(policy: Disable, **fields: Any) -> Lift:
    return Lift(**({"id": f"l-{next(numbers)}", "issued_ms": NOW_MS + 1, "lifts": policy.id} | fields))


def signed(policy: AnyPolicy, key: SigningKey = OPERATOR) -> bytes:
    return sign(policy, key)


# What an operator may say.


def test_a_policy_is_a_few_hundred_bytes_and_comes_back_as_it_was() -> None:
    policy = disable(
        digest=DIGEST, versions=">=1.0.0 <2.0.0", hook="bid", anomaly=Anomaly(code="guest_trap", count=3, within_s=60), expires_ms=NOW_MS + DAY_MS,
        reason="it traps on wet ore",
    )  # fmt: skip
    document = signed(policy)
    assert len(document) < 512
    assert verify(document, [STRANGER.verify_key, OPERATOR.verify_key]) == policy
    assert verify(signed(lift(policy)), [OPERATOR.verify_key]).id.startswith("l-")


@pytest.mark.parametrize(
    ("versions", "within", "without"),
    [
        ("*", ["0.0.1", "9.9.9"], []),
        ("1.2.0", ["1.2.0"], ["1.2.1", "1.2.0-rc.1"]),
        ("=1.2.0", ["1.2.0"], ["1.2.1"]),
        (">=1.2.0 <1.4.0", ["1.2.0", "1.3.9", "1.4.0-rc.1"], ["1.1.9", "1.4.0"]),
        (">1.2.0 <=1.4.0", ["1.2.1", "1.4.0"], ["1.2.0", "1.4.1"]),
    ],
)
def test_a_range_holds_the_versions_that_all_its_comparators_hold(versions: str, within: list[str], without: list[str]) -> None:
    policy = disable(versions=versions)
    assert [version for version in (*within, *without) if policy.names("greeter", version, DIGEST)] == within
    assert not policy.names("other", within[0], DIGEST)


def test_a_digest_alone_names_that_bundle_under_any_name() -> None:
    policy = disable(skill="*", digest=DIGEST)
    assert policy.names("greeter", "1.0.0", DIGEST) and policy.names("other", "2.0.0", DIGEST)
    assert not policy.names("greeter", "1.0.0", f"sha256:{'2' * 64}")


PLAIN = {"action": "disable", "id": "q", "issued_ms": NOW_MS, "skill": "greeter"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "everything": (PLAIN | {"skill": "*"}, "a policy that names everything is refused"),
    "everything, for a hook": ({"action": "disable", "id": "q", "issued_ms": NOW_MS, "hook": "bid"}, "names everything"),
    "an unknown field": (PLAIN | {"limits": {"travel_mm": 9999}}, "limits"),
    "an unknown action": (PLAIN | {"action": "widen"}, "widen"),
    "an unknown anomaly": (PLAIN | {"anomaly": {"code": "safe_mode", "count": 1, "within_s": 1}}, "safe_mode"),
    "an anomaly of a million": (PLAIN | {"anomaly": {"code": "guest_trap", "count": 1_000_001, "within_s": 1}}, "count"),
    "a range that is none": (PLAIN | {"versions": "^1.2"}, "comparators"),
    "a range without end": (PLAIN | {"versions": ">=1.0.0 " * 9 + ">1.0.0"}, "up to 4 comparators"),
    "a name that is a path": (PLAIN | {"skill": "../../etc"}, "skill"),
    "an id that is a path": (PLAIN | {"id": "../q"}, "id"),
    "an end before its beginning": (PLAIN | {"expires_ms": NOW_MS}, "expires_ms"),
    "no id": ({"action": "disable", "skill": "greeter", "issued_ms": NOW_MS}, "id"),
}


class Raw(msgspec.Struct):
    policy: dict[str, Any]


@pytest.mark.parametrize("kind", BAD)
def test_what_an_operator_may_not_say_is_refused_though_it_is_signed(kind: str, one_line: OneLine) -> None:
    fields, names = BAD[kind]
    with pytest.raises(MalformedData) as caught:
        verify(documents.sign(Raw(fields), OPERATOR, AAD), [OPERATOR.verify_key])
    one_line(caught.value, "quarantine policy", names)


def test_what_is_unsigned_forged_too_large_or_of_another_kind_is_refused(one_line: OneLine) -> None:
    document = signed(disable())
    with pytest.raises(SignatureInvalid) as caught:
        verify(signed(disable(), STRANGER), [OPERATOR.verify_key])
    one_line(caught.value, "not trusted", bytes(STRANGER.verify_key).hex())
    with pytest.raises(SignatureInvalid):
        verify(document[:-1] + bytes([document[-1] ^ 1]), [OPERATOR.verify_key])
    with pytest.raises(SignatureInvalid):
        verify(documents.sign(Raw(PLAIN), OPERATOR, b"snapcount desired state 1"), [OPERATOR.verify_key])
    for garbage in (b"", b"\xff", cbor.encode(PLAIN), document[:40]):
        with pytest.raises(MalformedData):
            verify(garbage, [OPERATOR.verify_key])
    with pytest.raises(TooLarge):
        verify(document + bytes(DEFAULT.policy_bytes_max), [OPERATOR.verify_key])
    with pytest.raises(SignatureInvalid):
        verify(document, [])  # a node that trusts no operator takes none


# What a node makes of it.


@dataclass
class Held:
    """A store on a directory, and what it last told the node's calls."""

    state: Path
    clock: Any
    store: PolicyStore = field(init=False)
    told: list[str] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self, *operators: SigningKey) -> None:
        trusted = [key.verify_key for key in operators or (OPERATOR,)]
        self.store = PolicyStore(self.state, trusted, self.clock, self._enforce, lambda level, line: self.log.append((level, line)))

    def _enforce(self, policies: Any, shown: Any) -> None:
        self.told = [policy.id for policy in policies if policy.anomaly is None or policy.id in shown]

    def later(self, ms: int, *, wall_ms: int | None = None) -> None:
        """Time passes; the wall clock goes on by `wall_ms` of it, which may be another number."""
        self.clock.monotonic += ms
        self.clock.now += ms if wall_ms is None else wall_ms
        self.store.tick()


@pytest.fixture
def held(tmp_path: Path, clock: Any) -> Held:
    assert clock.now == NOW_MS
    return Held(tmp_path, clock)


def test_a_policy_acts_at_once_is_taken_once_and_survives_a_restart(held: Held) -> None:
    policy = disable()
    assert held.store.take(signed(policy))
    assert held.told == [policy.id]
    assert not held.store.take(signed(policy))
    held.store.save()
    held.reopen()
    assert held.told == [policy.id]
    assert not held.store.take(signed(policy))
    assert held.store.documents() == (signed(policy),)


def test_a_lift_ends_a_policy_for_good_also_over_a_restart_and_where_it_comes_first(held: Held) -> None:
    first, second = disable(), disable()
    held.store.take(signed(first))
    assert held.store.take(signed(lift(first)))
    assert held.told == []
    assert held.store.take(signed(lift(second)))
    for _ in range(2):
        for policy in (first, second):
            with pytest.raises(Replayed, match="lifted or has expired"):
                held.store.take(signed(policy))
        assert not held.store.take(signed(lift(first)))  # a second lift changes nothing
        assert (held.told, len(held.store.documents())) == ([], 2)  # who was away is told of the lifts
        held.store.save()
        held.reopen()


def test_an_id_that_is_used_again_for_something_else_is_a_replay(held: Held) -> None:
    held.store.take(signed(disable(id="q-same")))
    with pytest.raises(Replayed, match="another policy has its id"):
        held.store.take(signed(disable(id="q-same", skill="other")))


def test_a_policy_expires_by_the_clock_and_is_not_taken_again(held: Held) -> None:
    policy = disable(expires_ms=NOW_MS + DAY_MS)
    held.store.take(signed(policy))
    held.later(DAY_MS - 1)
    assert held.told == [policy.id]
    held.later(1)
    assert held.told == []
    with pytest.raises(Replayed):
        held.store.take(signed(policy))
    with pytest.raises(Untimely, match="expired"):
        held.store.take(signed(disable(expires_ms=NOW_MS + DAY_MS)))


def test_a_clock_set_back_by_a_year_neither_ends_a_policy_nor_prolongs_it_nor_brings_it_back(held: Held) -> None:
    policy, ended = disable(expires_ms=NOW_MS + 2 * DAY_MS), disable(expires_ms=NOW_MS + DAY_MS // 2)
    held.store.take(signed(policy))
    held.store.take(signed(ended))
    held.later(DAY_MS)
    assert held.told == [policy.id]
    held.clock.now -= YEAR_MS
    for _ in range(2):
        held.later(0)
        assert held.told == [policy.id]
        with pytest.raises(Replayed):
            held.store.take(signed(ended))
        held.store.save()
        held.reopen()  # and the restart does not begin it anew
    late = disable(expires_ms=NOW_MS + DAY_MS)
    assert held.store.take(signed(late))  # issued in what is the future here: the clock is wrong, not the operator
    held.later(DAY_MS)
    assert held.told == []


def test_a_clock_that_was_a_year_ahead_once_keeps_no_later_policy_out(held: Held) -> None:
    held.store.take(signed(disable(id="q-before", expires_ms=NOW_MS + DAY_MS)))
    held.later(1000, wall_ms=YEAR_MS)
    assert held.told == []
    held.later(1000, wall_ms=-YEAR_MS)
    policy = disable(expires_ms=NOW_MS + DAY_MS)
    assert held.store.take(signed(policy))
    held.later(1000)
    assert held.told == [policy.id]


def test_an_armed_policy_waits_for_its_anomaly_and_then_stays_over_a_restart(held: Held) -> None:
    policy = disable(anomaly=Anomaly(code="guest_trap"))
    held.store.take(signed(policy))
    assert (held.told, held.store.status()[0]["in_force"]) == ([], False)
    held.store.shows(policy.id, "greeter 1.0.0")
    assert held.told == [policy.id]
    held.store.tick()
    held.reopen()
    assert (held.told, held.store.status()[0]["in_force"]) == ([policy.id], True)


def test_what_is_held_is_bounded_in_number_and_bytes_and_a_lift_makes_room(held: Held, one_line: OneLine) -> None:
    policies = [disable(reason="x" * 250) for _ in range(DEFAULT.policies_max + 1)]
    taken = []
    with pytest.raises(TooLarge) as caught:
        for policy in policies:
            held.store.take(signed(policy))
            taken.append(policy)
    one_line(caught.value, "lift some")
    assert 100 < len(taken) <= DEFAULT.policies_max
    assert sum(map(len, held.store.documents())) <= DOCUMENTS_BYTES_MAX
    held.store.take(signed(lift(taken[0])))
    assert held.store.take(signed(policies[-1]))
    held.store.save()
    held.reopen()
    assert len(held.told) == len(taken)


def test_what_is_remembered_of_ended_policies_is_bounded_and_an_old_one_is_still_a_replay(held: Held) -> None:
    first = disable(issued_ms=NOW_MS - 1)
    held.store.take(signed(lift(first, issued_ms=NOW_MS - 1)))
    for _ in range(ENDED_MAX):
        held.store.take(signed(lift(disable(), issued_ms=NOW_MS)))
    with pytest.raises(Replayed, match="older than what is remembered"):
        held.store.take(signed(first))
    assert held.store.take(signed(disable()))
    held.store.save()
    held.reopen()
    with pytest.raises(Replayed):
        held.store.take(signed(first))


def test_on_a_full_disk_a_policy_is_in_force_and_saved_once_there_is_room(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = disable()

    def full(*arguments: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr("host.core.files.write_atomic", full)
        assert held.store.take(signed(policy))
        with pytest.raises(StorageFull):
            held.store.save()
        assert held.told == [policy.id]
    held.store.tick()
    held.reopen()
    assert held.told == [policy.id]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 30, cbor.encode({"documents": []}), bytes(DEFAULT.frame_bytes_max + 1)])
def test_a_damaged_file_is_said_and_the_node_takes_policies_anew(damage: bytes, held: Held, one_line: OneLine) -> None:
    policy = disable()
    held.store.take(signed(policy))
    held.store.save()
    (held.state / FOLDER / FILE).write_bytes(damage)
    held.reopen()
    assert held.told == []
    one_line(next(line for level, line in held.log if level == "error"), FILE, "told them again")
    assert held.store.take(signed(policy))
    held.store.save()
    held.reopen()
    assert held.told == [policy.id]


def test_the_policies_of_an_operator_who_is_no_longer_trusted_count_no_more(held: Held) -> None:
    held.store.take(signed(disable()))
    held.store.save()
    held.reopen(STRANGER)
    assert held.told == []


# What calls meet.


def trust_operator(state: Path, *operators: SigningKey) -> None:
    path = state / config.FILE
    text = path.read_text()
    named = json.dumps([keys.public_text(key.verify_key) for key in operators])
    lines = [line for line in text.splitlines() if not line.startswith("operators")]
    at = next(i for i, line in enumerate(lines) if line.startswith("authors"))
    path.write_text("\n".join([*lines[: at + 1], f"operators = {named}", *lines[at + 1 :]]))


@dataclass
class Bench:
    """A node with skills, and an operator's policies."""

    state: Path
    clock: Any
    node: Node

    def install(self, data: bytes) -> None:
        asyncio.run(self.node.install(data, digest_of(data)))

    def bids(self) -> list[str]:
        return [reply.id for reply in asyncio.run(self.node.call("bid", BID))]

    def take(self, policy: AnyPolicy) -> bool:
        return self.node.policies.take(signed(policy))

    def reopen(self) -> None:
        self.node.close()
        self.node = open_node(self.state, self.clock)


def open_node(state: Path, clock: Any) -> Node:
    return Node.open(state, MEASURED, clock=clock, log=lambda level, line: None)


@pytest.fixture
def bench(tmp_path: Path, clock: Any, make_state: Callable[..., Path]) -> Iterator[Bench]:
    state = make_state(tmp_path / "node", clock, native=("virtual_machine",))
    trust_operator(state, OPERATOR)
    made = Bench(state, clock, open_node(state, clock))
    yield made
    made.node.close()


@pytest.mark.slow
def test_a_quarantined_version_is_not_called_says_why_and_another_version_is(
    bench: Bench, make_skill: MakeSkill, one_line: OneLine
) -> None:
    bench.install(make_skill())
    assert bench.bids() == ["1.0.0"]
    policy = disable(versions="<1.1.0", reason="it jams\nthe belt")
    bench.take(policy)
    with pytest.raises(Quarantined) as caught:
        bench.bids()
    one_line(caught.value, "greeter 1.0.0", policy.id, "jams\\nthe belt", "fleet lift")
    assert isinstance(caught.value, Refused) and caught.value.exit_code == 30
    bench.reopen()
    with pytest.raises(Quarantined):
        bench.bids()
    status = bench.node.status()
    assert (status["policies"][0]["id"], status["skills"][0]["quarantined"]) == (policy.id, ["*"])
    bench.install(make_skill(version="1.1.0"))
    assert bench.bids() == ["1.1.0"]
    bench.take(lift(policy))
    asyncio.run(bench.node.roll_back("greeter"))
    assert bench.bids() == ["1.0.0"]


@pytest.mark.slow
def test_a_version_in_quarantine_does_not_come_in(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill())
    bad = make_skill(version="1.1.0")
    bench.take(disable(skill="*", digest=digest_of(bad)))
    with pytest.raises(Quarantined):
        bench.install(bad)
    assert bench.bids() == ["1.0.0"]


@pytest.mark.slow
def test_one_hook_is_forbidden_and_the_others_are_not(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill())
    bench.take(disable(hook="handle"))
    assert bench.bids() == ["1.0.0"]
    bench.take(disable(hook="bid"))
    with pytest.raises(Quarantined, match="bid is disabled"):
        bench.bids()
    assert bench.node.manager.skills["greeter"].self_test().ok


@pytest.mark.slow
def test_an_anomaly_disables_the_skill_on_the_node_where_it_shows_and_over_a_restart(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(body="(unreachable)"))
    bench.take(disable(anomaly=Anomaly(code="guest_trap", count=3, within_s=3600)))
    bench.take(disable(anomaly=Anomaly(code="deadline_exceeded")))
    for _ in range(3):
        with pytest.raises(GuestTrap):
            bench.bids()
    with pytest.raises(Quarantined):
        bench.bids()
    bench.reopen()
    with pytest.raises(Quarantined):
        bench.bids()
    assert [policy["in_force"] for policy in bench.node.status()["policies"]] == [True, False]


@pytest.mark.slow
def test_errors_that_are_too_far_apart_are_no_anomaly(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill(body="(unreachable)"))
    now_ms = [0]
    bench.node.manager.quarantine._now_ms = lambda: now_ms[0]
    bench.take(disable(anomaly=Anomaly(code="guest_trap", count=2, within_s=10)))
    for at_ms in (0, 10_001, 20_002):
        now_ms[0] = at_ms
        with pytest.raises(GuestTrap):
            bench.bids()
    now_ms[0] = 30_002
    with pytest.raises(GuestTrap):
        bench.bids()
    with pytest.raises(Quarantined):
        bench.bids()


CALL = '(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))'


def asking(make: MakeSkill, capability: str, request: bytes, times: int, name: str = "asker") -> bytes:
    """A skill whose bid asks for a capability so many times, and then answers."""
    escaped = "".join(f"\\{byte:02x}" for byte in request)
    reply = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="1.0.0", reason=name))
    asks = f"(drop (call $call (i32.const 8192) (i32.const {len(capability)}) (i32.const 8256) (i32.const {len(request)}) (i32.const 12288) (i32.const 4096)))"
    return make(
        name, imports=f'{CALL} (data (i32.const 8192) "{capability}") (data (i32.const 8256) "{escaped}")', capabilities=(capability,),
        body=f"(local $i i32) (loop $l {asks} (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {times})))) "
        f"(i64.const {1024 << 32 | len(reply)})",
    )  # fmt: skip


@pytest.mark.slow
def test_a_call_that_is_running_ends_when_it_next_asks_for_a_driver(
    bench: Bench, make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.install(asking(make_skill, "motion", cbor.encode(Status()), 100))
    machine, asked = bench.node.drivers["motion"], []
    execute = machine.execute

    def watched(command: Any) -> Any:
        asked.append(command)
        if len(asked) == 5:
            bench.take(disable(skill="asker"))
        return execute(command)

    monkeypatch.setattr(machine, "execute", watched)
    with pytest.raises(Quarantined):
        bench.bids()
    assert len(asked) == 5


class Planner:
    """Stands for a loaded skill with the streaming hook."""

    def __init__(self) -> None:
        self.manifest = Manifest(name="planner", version="1.0.0", hooks=("plan_job",))
        self.name, self.chunks = "planner 1.0.0", 0

    def instance(self) -> "Planner":
        return self

    def call(self, hook: str, request: bytes) -> bytes:
        self.chunks += 1
        return cbor.encode(PlanProgress(done=False, lines=1))

    def __enter__(self) -> "Planner":
        return self

    def __exit__(self, *exception: object) -> None: ...


def test_a_streaming_hook_ends_before_its_next_chunk() -> None:
    planner = Planner()
    version = SkillVersion(planner, DIGEST)  # type: ignore[arg-type]

    def program() -> Iterator[bytes]:
        for number in range(10):
            if number == 4:
                version.bar({"plan_job": "planner 1.0.0: plan_job is disabled"})
            yield b"G1 X1\n"

    with pytest.raises(Quarantined):
        version.plan(program(), PlanSettings(), run=False)
    assert planner.chunks <= 4
    with pytest.raises(Quarantined):
        version.plan([b"G1\n"], PlanSettings(), run=False)


def test_no_policy_touches_the_safety_envelope(bench: Bench, make_skill: MakeSkill, owner: SigningKey) -> None:
    """The same commands, refusals, audit and safe mode, with and without policies about the skill, its digest, its hooks and its anomalies."""
    far, near = (cbor.encode(Move(moves=((x, 1.0, 1.0, 5.0),))) for x in (9_999.0, 5.0))

    def outcome() -> list[str]:
        gate, said = bench.node._gates["motion"], []
        for request in (near, far, cbor.encode(Home()), b"\xff"):
            try:
                gate.ask("asker 1.0.0", request)
                said.append("done")
            except SnapcountError as error:
                said.append(f"{error.code}: {error}")
        bench.node.envelope.trip("a drill", NOW_MS)
        with pytest.raises(SafeMode):
            gate.ask("asker 1.0.0", near)
        gate.ask("asker 1.0.0", cbor.encode(Status()))
        assert bench.node.envelope.tripped is not None
        bench.node.envelope.reset(safety.sign_reset(owner, bench.node.envelope.tripped.id))
        return [*said, str(safety.as_dict(bench.node.envelope.limits)), str(len(bench.node.journal.audit()))]

    bench.install(asking(make_skill, "motion", near, 1))
    before = outcome()
    policies = [
        disable(skill="asker"), disable(skill="*", digest=bench.node.skills()[0].digest), disable(skill="asker", hook="bid"),
        disable(skill="motion"), disable(skill="asker", anomaly=Anomaly(code="guest_trap")),
    ]  # fmt: skip
    for policy in policies:
        bench.take(policy)
    after = outcome()
    assert after[:-1] == before[:-1]
    assert int(after[-1]) == 2 * int(before[-1])
    for policy in policies:
        bench.take(lift(policy))
    assert outcome()[:-1] == before[:-1]
    with pytest.raises(UnsafeCommand):
        bench.node._gates["motion"].ask("asker 1.0.0", far)
    assert not {"limits", "travel", "speed", "driver", "command", "envelope"} & set(Disable.__struct_fields__)


@pytest.mark.slow
def test_a_call_pays_next_to_nothing_however_many_policies_are_about_others(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill())
    slot = bench.node.manager._slots["greeter"]

    def check() -> None:
        if slot.active.barred is not None:
            raise AssertionError("nothing is barred")

    def nothing() -> None: ...

    def mean_ns(call: Callable[[], None]) -> float:
        started = time.perf_counter_ns()
        for _ in range(CHECKS):
            call()
        return (time.perf_counter_ns() - started) / CHECKS

    def cost_ns() -> float:
        return median(mean_ns(check) - mean_ns(nothing) for _ in range(5))

    assert cost_ns() < CHECK_NS_MAX
    for number in range(100):
        bench.take(disable(skill=f"other-{number}"))
    assert cost_ns() < CHECK_NS_MAX
    assert bench.bids() == ["1.0.0"]


@pytest.mark.slow
def test_policies_may_change_while_calls_run_on_other_threads(bench: Bench, make_skill: MakeSkill) -> None:
    bench.install(make_skill())
    ended, outcomes = threading.Event(), set()
    version = bench.node.manager.skills["greeter"]

    def call() -> None:
        while not ended.is_set():
            try:
                version.call("bid", BID)
                outcomes.add("answered")
            except Quarantined:
                outcomes.add("refused")

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(50):
        policy = disable()
        bench.take(policy)
        with pytest.raises(Quarantined):
            version.call("bid", BID)
        bench.take(lift(policy))
        version.call("bid", BID)
    until = time.monotonic() + 10
    for wanted, document in (("answered", None), ("refused", disable())):  # on a busy machine the callers may have had no turn so far
        if document is not None:
            bench.take(document)
        while wanted not in outcomes and time.monotonic() < until:
            time.sleep(0.001)
    ended.set()
    for caller in callers:
        caller.join()
    assert outcomes == {"answered", "refused"}


# How it travels.


class PolicedFleet(VirtualFleet):
    """A virtual fleet whose peers hold policies."""

    def __init__(self, agents: int, seed: int, folder: Path, **options: Any) -> None:
        self.folder, self.stores = folder, {}
        super().__init__(agents, seed, **options)

    def _world(self, name: str, agent_class: int, *, clock_error_ms: float) -> Any:
        world = super()._world(name, agent_class, clock_error_ms=clock_error_ms)
        store = self.stores[name] = PolicyStore(self.folder / name, [OPERATOR.verify_key], self, lambda policies, shown: None, self._note)
        world.police, world.policies = store.take, store.documents
        return world

    def now_ms(self) -> int:
        return int(self.time.now_ms())

    def monotonic_ms(self) -> int:
        return int(self.time.now_ms())

    def holding(self) -> int:
        return sum(bool(store.status()) for name, store in self.stores.items() if name.startswith("agent"))

    def send(self, policy: AnyPolicy) -> Any:
        return self.run(lambda done: self.orchestrator.quarantine(signed(policy), done))


def policed(agents: int, folder: Path, **options: Any) -> PolicedFleet:
    fleet = PolicedFleet(agents, 1, folder, **options)
    fleet.start()
    return fleet


def test_a_policy_reaches_every_agent_passes_a_freeze_and_is_lifted_again(tmp_path: Path) -> None:
    fleet = policed(60, tmp_path)
    fleet.run(lambda done: fleet.orchestrator.freeze(("*",), "a drill", done))
    policy = disable(issued_ms=fleet.now_ms())
    result = fleet.send(policy)
    assert (result["outcome"], result["ready"], result["expected"]) == ("SUCCESS", 60, 60)
    assert result["wall_ms"] < 50
    assert fleet.holding() == 60
    assert all(len(store.documents()) == 1 for store in fleet.stores.values())
    assert fleet.send(lift(policy, issued_ms=fleet.now_ms()))["ready"] == 60
    assert fleet.holding() == 0


def test_what_an_orchestrator_does_not_take_goes_no_further(tmp_path: Path) -> None:
    fleet = policed(30, tmp_path)
    for document, error in (
        (signed(disable(), STRANGER), SignatureInvalid),
        (b"\xff", MalformedData),
        (signed(disable(expires_ms=NOW_MS + 1)), Untimely),
    ):
        with pytest.raises(error):
            fleet.orchestrator.quarantine(document, lambda result: None)
    assert fleet.holding() == 0


def test_an_agent_that_refuses_a_policy_says_why(tmp_path: Path) -> None:
    fleet = policed(30, tmp_path)
    name = fleet.topology.agent_name(3)
    fleet.stores[name]._operators = (STRANGER.verify_key,)
    result = fleet.send(disable(issued_ms=fleet.now_ms()))
    assert (result["ready"], result["conflict"]) == (29, 1)
    assert fleet.agents[3].complaints.counts["signature_invalid"] == 1


@pytest.mark.slow
def test_who_was_away_finds_the_policies_in_the_welcome_and_a_tier_passes_them_on(tmp_path: Path) -> None:
    fleet = policed(300, tmp_path)
    fleet.network.partition("sector-000", "orchestrator")
    policy = disable(issued_ms=fleet.now_ms())
    fleet.orchestrator.quarantine(signed(policy), lambda result: None)
    fleet.time.run_for(60_000.0)
    assert fleet.holding() == 0
    fleet.network.heal("sector-000", "orchestrator")
    assert fleet.time.run_while(lambda: fleet.holding() < 300, 60_000.0)
    fleet.network.partition("cluster-00003", "sector-000")
    fleet.orchestrator.quarantine(signed(lift(policy, issued_ms=fleet.now_ms())), lambda result: None)
    fleet.time.run_for(60_000.0)
    assert fleet.holding() == 30
    fleet.network.heal("cluster-00003", "sector-000")
    assert fleet.time.run_while(lambda: fleet.holding() > 0, 60_000.0)


@pytest.mark.slow
def test_a_lossy_network_loses_no_policy(tmp_path: Path) -> None:
    fleet = policed(300, tmp_path, loss=0.1)
    for _ in range(3):
        fleet.orchestrator.quarantine(signed(disable(issued_ms=fleet.now_ms())), lambda result: None)
        fleet.time.run_for(30_000.0)
    assert fleet.network.lost > 0
    assert fleet.holding() == 300


# A fleet of processes.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def until(condition: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < ends, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.02)
    return found


@contextmanager
def daemon(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--state", str(state), "--development"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)


def place(role: str, **more: Any) -> config.Mesh:
    return msgspec.convert({"role": role, "heartbeat_s": 0.3, "class": "A"} | more, config.Mesh)


def make_node(path: Path, owner: SigningKey, author: SigningKey, settings: config.Mesh, *skills: bytes) -> Path:
    allowed, public = ("log", "motion"), keys.public_text(owner.verify_key)
    text = config.template(path.name, public, 1, "", (keys.public_text(author.verify_key),), allowed, (), settings)
    identity.create(path, text, owner, SystemClock(), SystemRandom())
    trust_operator(path, OPERATOR)
    node = open_node(path, SystemClock())
    for data in skills:
        asyncio.run(node.install(data, digest_of(data)))
    node.close()
    return path


def connected(state: Path) -> bool:
    try:
        return bool((NodeControl(state).get("/v1/status")["mesh"] or {}).get("connected"))
    except NetworkError:
        return False


def fleet_command(*arguments: str, code: int = 0) -> dict[str, Any]:
    ended = CliRunner().invoke(app, [*arguments, "--json"])
    assert ended.exit_code == code, f"{ended.exit_code}: {ended.output} {ended.exception!r}"
    found: dict[str, Any] = json.loads(ended.output.strip().splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.ci
def test_the_command_line_disables_a_skill_on_running_nodes_over_a_kill_and_lifts_it_again(
    tmp_path: Path, owner: SigningKey, author: SigningKey, make_skill: MakeSkill, one_line: OneLine
) -> None:
    key = tmp_path / "operator.key"
    keys.create(key, b"p" * 32)
    root_port, lead_port = (f"127.0.0.1:{free_port()}" for _ in range(2))
    root = make_node(tmp_path / "root", owner, author, place("orchestrator", listen=root_port))
    lead = make_node(tmp_path / "lead", owner, author, place("lead", parents=[f"ws://{root_port}"], listen=lead_port))
    cell = make_node(tmp_path / "cell", owner, author, place("agent", parents=[f"ws://{lead_port}"]), make_skill())

    def refused(state: Path) -> str:
        with pytest.raises(SnapcountError) as caught:
            NodeControl(state).post("/v1/hooks/bid", BOUNTY)
        assert caught.value.code == "quarantined"
        return str(caught.value)

    with daemon(root), daemon(lead):
        with daemon(cell) as process:
            until(lambda: connected(lead) and connected(cell), "all to be connected")
            until(lambda: NodeControl(root).get("/v1/mesh/status")["agents"]["active"] == 1, "the agent to be known")
            sent = fleet_command("fleet", "quarantine", "greeter", "--version", "<2.0.0", "--expires", "7d", "--reason", "a drill", "--key", str(key),
                                 "--state", str(root))  # fmt: skip
            assert (sent["ready"], sent["expected"]) == (1, 1)
            one_line(refused(cell), "greeter 1.0.0", sent["policy"], "a drill")
            for state in (root, lead, cell):
                assert [p["id"] for p in fleet_command("node", "policies", "--state", str(state))["policies"]] == [sent["policy"]]
            until((cell / FOLDER / FILE).exists, "the policy to be on disk")
            process.kill()
            process.wait(WAIT_S)
        node = open_node(cell, SystemClock())  # with nobody to tell it again
        with pytest.raises(Quarantined):
            asyncio.run(node.call("bid", BID))
        node.close()
        assert fleet_command("fleet", "lift", sent["policy"], "--key", str(key), "--state", str(root), code=50)["expected"] == 1
        with daemon(cell):
            until(lambda: connected(cell), "the cell to be back")
            until(lambda: not fleet_command("node", "policies", "--state", str(cell))["policies"], "the lift to come with the welcome")
            assert NodeControl(cell).post("/v1/hooks/bid", BOUNTY)[0]["id"] == "1.0.0"


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1w", "9999999d", "½d", "0s", "1.5h"])
def test_a_time_that_is_none_is_refused(text: str, one_line: OneLine) -> None:
    with pytest.raises(SnapcountError) as caught:
        seconds(text)
    one_line(caught.value, "--expires", "7d")


def test_times_are_read() -> None:
    assert [seconds(text) for text in ("90s", "30m", "12h", "7d")] == [90, 1_800, 43_200, 604_800]
