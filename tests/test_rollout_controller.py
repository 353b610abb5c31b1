"""The controller on a real database: what it signs and tells, what survives a kill, and its routes and commands over a real socket."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from nacl.signing import SigningKey
from typer.testing import CliRunner

from host.core import desired, keys
from host.core.bundle import digest_of
from host.core.clock import SystemClock
from host.core.desired import DesiredState, Patch
from host.core.errors import Flooded, MalformedData, Replayed, SignatureInvalid, StorageFull, TooLarge, Untimely, UntrustedInput, UsageError
from host.core.fleet import Hello, Progress, SkillState, State
from host.core.limits import DEFAULT
from registry import audit, flags, rollout_document, server
from registry.controller import Controller, Gone, Joined, Tell
from registry.database import FILE, Database
from registry.inventory import FORGOTTEN_MS, Inventory
from registry.releases import Releases
from registry.rollout_client import RolloutHttp
from registry.rollout_document import Action, Rollout, Selection, Stage
from registry.rollout_routes import RolloutRoutes
from registry.rollout_service import RolloutService
from registry.rollout_status import counts
from registry.tokens import Access
from sdk.cli import audit as audit_cli
from sdk.cli import fleet as fleet_cli
from sdk.cli import rollout as cli
from sdk.cli import rollout_view

NOW = 1_700_000_000_000
OPERATOR, SECOND, STRANGER, REGISTRY = (SigningKey(letter * 32) for letter in (b"p", b"s", b"q", b"r"))
STAGES = (Stage(name="canary", share=0.1, soak_s=3_600), Stage(name="all", share=1.0, soak_s=0))
MakeSkill = Callable[..., bytes]


@dataclass
class World:
    """A controller on disk and nodes that hold what they are told. `restart` is a controller that begins anew on the same files."""

    folder: Path
    blobs: dict[str, bytes]
    now_ms: int = NOW
    serials: dict[str, int] = field(default_factory=dict)
    runs: dict[str, SkillState] = field(default_factory=dict)
    states: dict[str, DesiredState] = field(default_factory=dict)
    controller: Controller = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.folder / FILE)
        self._make()

    def _make(self, **rest: Any) -> None:
        operators = [OPERATOR.verify_key, SECOND.verify_key]
        self.controller = Controller(self.database, operators, REGISTRY, Releases(self.blobs.get), patches=self.patches, **rest)

    def patches(self, digest: str, base: str) -> tuple[Patch, ...]:
        return (Patch(base=base, digest="sha256:" + "9" * 64, size=50),) if base else ()

    def restart(self, **rest: Any) -> None:
        self.database.close()
        self.database = Database(self.folder / FILE)
        self._make(**rest)

    def hello(self, *names: str, **fields: Any) -> None:
        for name in names:
            runs = (self.runs[name],) if name in self.runs else ()
            hello = Hello(
                node=name, nonce=b"", generation=int(name[-1]) % 2 + 1, certificate=b"", host="", skills=runs, sector=f"s{int(name[-1]) % 3}",
                capabilities=("log",), serial=self.serials.get(name, 0),
            )  # fmt: skip
            self.controller.hear(Joined(msgspec.structs.replace(hello, **fields), b"k" * 32))
        self.turn()

    def turn(self, ms: int = 0) -> list[Tell]:
        self.now_ms += ms
        return self.take(self.controller.turn(self.now_ms))

    def take(self, tells: list[Tell]) -> list[Tell]:
        """The nodes take it as real ones do: verified, and only with a higher serial."""
        for name, document in tells:
            state = desired.verify(document, [REGISTRY.verify_key])
            assert state.node == name
            if state.serial > self.serials.get(name, 0):
                self.serials[name], self.states[name] = state.serial, state
        return tells

    def start(self, id: str, data: bytes, key: SigningKey = OPERATOR, **fields: Any) -> list[Tell]:
        manifest = Releases(self.blobs.get).manifest(digest_of(data))
        name, version = (manifest.name, manifest.version) if manifest else ("greeter", "2.0.0")
        made = {
            "id": id,
            "name": name,
            "version": version,
            "digest": digest_of(data),
            "size": len(data),
            "issued_ms": self.now_ms,
            "stages": STAGES,
        }
        document = rollout_document.sign(Rollout(**(made | fields)), key)
        return self.take(self.controller.start(document, self.now_ms)[1])

    def act(self, id: str, action: Any, key: SigningKey = OPERATOR, nonce: bytes = b"", at_ms: int = 0) -> None:
        asked = Action(id=id, action=action, at_ms=at_ms or self.now_ms, nonce=nonce or os.urandom(16))
        self.take(self.controller.act(rollout_document.sign_action(asked, key), (id, action), self.now_ms)[1])

    def report(self, state: State, *names: str, skill: str = "greeter") -> None:
        """Each node reports on what it was asked to run of a skill."""
        for name in names:
            wanted = next(wanted for wanted in self.states[name].skills if wanted.name == skill)
            self.controller.hear(Progress(
                node=name, name=skill, version=wanted.version, digest=wanted.digest, state=state, at_ms=self.now_ms, code="guest_trap" if state == "failed" else ""
            ))  # fmt: skip
            if state == "active":
                self.runs[name] = SkillState(skill, wanted.version, wanted.digest)
        self.turn()

    def wanted(self, name: str, skill: str = "greeter") -> str | None:
        return next((wanted.digest for wanted in self.states[name].skills if wanted.name == skill), None) if name in self.states else None

    def until_done(self, id: str) -> None:
        """Every node that is asked obeys, and time passes."""
        for _ in range(100):
            if not self.controller.live[id].state.header.is_open:
                return
            flight = [node for node, member in self.controller.live[id].state.roster.items() if member.phase == "flight" and member.online]
            self.report("active", *flight, skill=self.controller.live[id].state.document.name)
            due = self.controller.due_ms()
            self.turn(max(due - self.now_ms, 0) if due and not flight else 0)
        raise AssertionError(self.controller.live[id].state.header)

    def kinds(self, node: str = "") -> list[str]:
        rows = self.controller.audit.every()
        return [row.kind for row in rows if not node or json.loads(row.detail).get("node") == node]


NODES = tuple(f"node-{number:02}" for number in range(20))


@pytest.fixture
def old(make_skill: MakeSkill) -> bytes:
    return make_skill("greeter", "1.0.0")


@pytest.fixture
def new(make_skill: MakeSkill) -> bytes:
    return make_skill("greeter", "2.0.0")


@pytest.fixture
def world(tmp_path: Path, old: bytes, new: bytes) -> Iterator[World]:
    made = World(tmp_path, {digest_of(data): data for data in (old, new)})
    made.runs = {name: SkillState("greeter", "1.0.0", digest_of(old)) for name in NODES}
    made.hello(*NODES)
    yield made
    made.database.close()


# What it signs and tells.


def test_nodes_are_told_a_signed_desired_state_with_what_the_roll_out_asks(world: World, old: bytes, new: bytes) -> None:
    told = world.start("first", new, probation_s=300)
    assert 0 < len(told) < len(NODES)
    name, document = told[0]
    state = desired.verify(document, [REGISTRY.verify_key])
    assert (state.node, state.serial, state.issued_ms) == (name, 1, NOW)
    (wanted,) = state.skills
    assert (wanted.digest, wanted.size, wanted.probation_s, wanted.rollout) == (digest_of(new), len(new), 300, "first")
    assert wanted.patches == (Patch(base=digest_of(old), digest="sha256:" + "9" * 64, size=50),)
    world.until_done("first")
    assert {world.wanted(node) for node in NODES} == {digest_of(new)}
    assert set(world.serials.values()) == {1}
    assert audit.verify(world.controller.audit.every()) == len(world.kinds())


def test_a_roll_out_that_goes_wrong_leaves_every_node_desired_on_what_it_ran(world: World, old: bytes, new: bytes) -> None:
    told = [name for name, _ in world.start("first", new)]
    world.report("active", told[0])
    world.report("failed", *told[1:])
    assert all(world.wanted(name) == digest_of(old) for name in told) and {world.serials[name] for name in told} == {2}
    assert "stopped" in world.kinds()


def test_a_node_that_had_nothing_is_told_to_take_it_off_again(world: World, new: bytes) -> None:
    world.hello("fresh-1")
    world.start("first", new, selection=Selection(nodes=("fresh-*",)))
    assert world.wanted("fresh-1") == digest_of(new)
    world.report("failed", "fresh-1")
    assert world.states["fresh-1"].skills == () and world.states["fresh-1"].remove == ("greeter",)


def test_two_skills_at_once_are_merged_into_one_desired_state(world: World, new: bytes, make_skill: MakeSkill) -> None:
    other = make_skill("sorter", "1.0.0")
    world.blobs[digest_of(other)] = other
    whole = (Stage(name="all", share=1.0, soak_s=0),)
    world.start("first", new, stages=whole)
    world.until_done("first")
    world.start("second", other, stages=whole)
    world.until_done("second")
    assert {(state.serial, *(wanted.name for wanted in state.skills)) for state in world.states.values()} == {(2, "greeter", "sorter")}


def test_a_second_roll_out_of_the_same_skill_is_refused_until_the_first_has_ended(
    world: World, new: bytes, make_skill: MakeSkill, one_line: Any
) -> None:
    world.start("first", new)
    newer = make_skill("greeter", "2.1.0")
    world.blobs[digest_of(newer)] = newer
    with pytest.raises(UsageError) as caught:
        world.start("second", newer)
    one_line(caught.value, "first of greeter is running", "abort it")
    world.until_done("first")
    world.start("second", newer)
    assert "first" not in world.controller.live and [document.id for _, document in world.controller.ended()] == ["first"]
    world.restart()
    assert list(world.controller.live) == ["second"]


def test_an_offline_node_that_was_rolled_back_is_not_sent_back_to_the_bad_version_by_the_next_one(
    world: World, old: bytes, new: bytes, make_skill: MakeSkill
) -> None:
    told = [name for name, _ in world.start("first", new)]
    world.report("active", told[0])
    world.controller.hear(Gone(told[0]))
    world.report("failed", *told[1:])
    world.turn(86_400_000)
    fixed = make_skill("greeter", "2.0.1")
    world.blobs[digest_of(fixed)] = fixed
    world.start("second", fixed, stages=(Stage(name="all", share=1.0, soak_s=0, error_max=0.1),))
    world.hello(told[0])
    assert world.controller.live["second"].state.roster[told[0]].before == digest_of(old)


# Nothing is lost.


def test_a_node_with_an_older_serial_is_told_again_and_one_that_holds_it_is_left_alone(world: World, new: bytes) -> None:
    name, document = world.start("first", new)[0]
    world.serials[name] = 0  # the link broke before it came through
    world.hello(name)
    assert world.serials[name] == 1 and world.controller.desired_of(name) == document
    world.controller.hear(Joined(Hello(node=name, nonce=b"", generation=1, certificate=b"", host="", skills=(), serial=1)))
    assert not [node for node, _ in world.turn() if node == name]


def test_a_node_that_holds_a_higher_serial_than_a_restored_registry_is_given_one_above(world: World, new: bytes) -> None:
    name, _ = world.start("first", new)[0]
    world.serials[name] = 41
    world.hello(name)
    assert world.serials[name] == 42
    world.hello(name, serial=(1 << 64) - 1, abi=(1, 1 << 63, -(1 << 64)))
    assert world.serials[name] == 42, "a number that is no serial of ours changes nothing"


def test_a_restart_remembers_nodes_roll_outs_and_serials_and_takes_nobody_for_connected(world: World, new: bytes) -> None:
    world.start("first", new)
    before = dict(world.controller.live["first"].state.roster.items())
    world.restart()
    assert set(world.controller.inventory.known) == set(NODES) and not world.controller.inventory.online
    world.turn()
    state = world.controller.live["first"].state
    assert {node: member.phase for node, member in state.roster.items()} == {node: member.phase for node, member in before.items()}
    assert counts(state)["offline"] == len(NODES)
    world.hello(*NODES)
    world.until_done("first")
    assert world.kinds().count("start") == len(NODES)


def test_a_node_that_is_new_joins_a_roll_out_that_is_under_way(world: World, new: bytes) -> None:
    world.start("first", new)
    world.hello("late-7", "picky-8")
    world.until_done("first")
    assert world.wanted("late-7") == digest_of(new)
    world.hello("later-9")
    assert world.wanted("later-9") == digest_of(new), "also after it is done"


def test_when_the_disk_is_full_nothing_has_changed_and_what_was_heard_is_not_lost(
    world: World, new: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [name for name, _ in world.start("first", new)]
    former = world.controller.live["first"].state

    def full(*rest: Any) -> None:
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(world.controller.audit, "append", full)
        with pytest.raises(StorageFull):
            world.report("active", *told)
    assert world.controller.live["first"].state is former
    world.turn()
    assert counts(world.controller.live["first"].state)["active"] == len(told)


CHILD = """
import json, os, signal, sys
from pathlib import Path
from nacl.signing import SigningKey
from host.core import desired, files
from host.core.bundle import digest_of
from host.core.fleet import Hello, Progress, SkillState
from registry import rollout_document
from registry.controller import Controller, Joined
from registry.database import FILE, Database
from registry.releases import Releases
from registry.rollout_document import Rollout, Stage

folder, point, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
operator = SigningKey(b"p" * 32)
old, new = (folder / "old.wasm").read_bytes(), (folder / "new.wasm").read_bytes()

def reach(name):
    global left
    left -= name == point
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

world = json.loads((folder / "nodes.json").read_text())
controller = Controller(
    Database(folder / FILE), [operator.verify_key], operator, Releases({digest_of(old): old, digest_of(new): new}.get), reach=reach
)

def save():
    files.write_atomic(folder / "nodes.json", json.dumps(world).encode())

def take(tells):
    for name, document in tells:
        state = desired.verify(document, [operator.verify_key])
        node = world["nodes"][name]
        if state.serial > node["serial"]:
            wanted = state.skills[0]
            node.update(serial=state.serial, version=wanted.version, digest=wanted.digest, told=node["told"] + 1)
            controller.hear(Progress(node=name, name="greeter", version=wanted.version, digest=wanted.digest, state="active", at_ms=0))
    save()

for name, node in world["nodes"].items():
    runs = (SkillState("greeter", node["version"], node["digest"]),)
    controller.hear(Joined(Hello(node=name, nonce=b"", generation=1 + len(name) % 2, certificate=b"", host="", skills=runs, serial=node["serial"])))
take(controller.turn(world["now"]))
if not controller.live:
    stages = (Stage(name="canary", share=0.1, soak_s=600), Stage(name="half", share=0.5, soak_s=60), Stage(name="all", share=1.0, soak_s=0))
    made = Rollout(id="first", name="greeter", version="2.0.0", digest=digest_of(new), size=len(new), issued_ms=world["now"], stages=stages, probation_s=0)
    take(controller.start(rollout_document.sign(made, operator), world["now"])[1])
while controller.live["first"].state.header.is_open:
    world["now"] = max(controller.due_ms() or 0, world["now"])
    take(controller.turn(world["now"]))
"""


@pytest.mark.slow
def test_killed_at_any_point_no_decision_is_lost_or_doubled(tmp_path: Path, old: bytes, new: bytes) -> None:
    (tmp_path / "old.wasm").write_bytes(old)
    (tmp_path / "new.wasm").write_bytes(new)
    nodes = {f"n-{i}": {"serial": 0, "version": "1.0.0", "digest": digest_of(old), "told": 0} for i in range(40)}
    (tmp_path / "nodes.json").write_text(json.dumps({"now": NOW, "nodes": nodes}))
    killed: list[str] = []
    for point, nth in [(point, nth) for nth in (1, 2, 3, 4) for point in ("stepped", "written", "committed")] + [("nothing", 1)]:
        ended = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path), point, str(nth)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        if ended.returncode:
            killed.append(point)
        database = Database(tmp_path / FILE)
        audit.verify(audit.AuditLog(database).every())
        database.close()
    assert len(killed) >= 8, killed
    database = Database(tmp_path / FILE)
    rows = [json.loads(row.detail) | {"kind": row.kind} for row in audit.AuditLog(database).every()]
    with database.reading() as db:
        serials = dict(db.execute("SELECT node, serial FROM desired").fetchall())
    database.close()
    assert sorted(row["node"] for row in rows if row["kind"] == "start") == sorted(nodes)
    assert [row["reason"] for row in rows if row["kind"] == "stage"] == ["canary", "half", "all"]
    assert [row["kind"] for row in rows if row["kind"] in ("started", "ended")] == ["started", "ended"]
    after = json.loads((tmp_path / "nodes.json").read_text())["nodes"]
    assert {node["digest"] for node in after.values()} == {digest_of(new)}
    assert serials == {name: node["serial"] for name, node in after.items()} == dict.fromkeys(nodes, 1)


# Bad input.


def test_a_roll_out_of_a_bundle_that_is_not_here_or_is_another_is_refused(world: World, new: bytes, one_line: Any) -> None:
    for fields, says in (
        ({"digest": "sha256:" + "0" * 64}, "does not hold"), ({"size": 999}, "but the bundle is greeter 2.0.0"), ({"version": "3.0.0"}, "names greeter 3.0.0"),
        ({"name": "other"}, "names other"), ({"previous": rollout_document.Release(version="1.0.0", digest="sha256:" + "0" * 64, size=9)}, "nobody could go back"),
        ({"selection": Selection(generations=(99,))}, "no node that is selected can take it"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            world.start("first", new, **fields)
        one_line(caught.value, "first", says)
    assert not world.controller.live and world.kinds() == []


def test_documents_by_strangers_old_ones_and_repeated_ones_are_refused_and_nothing_is_written(world: World, new: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        world.start("first", new, key=STRANGER)
    with pytest.raises(Untimely):
        world.start("first", new, issued_ms=NOW - 90_000_000)
    with pytest.raises(UntrustedInput):
        world.controller.start(b"\xd2nonsense", NOW)
    assert world.kinds() == []
    world.start("first", new)
    world.act("first", "abort")
    with pytest.raises(Replayed):
        world.start("first", new)


def test_an_action_counts_once_in_its_time_from_an_operator_and_for_what_it_says(world: World, new: bytes, one_line: Any) -> None:
    world.start("first", new)
    nonce = os.urandom(16)
    world.act("first", "pause", nonce=nonce)
    world.act("first", "resume")
    with pytest.raises(Replayed):
        world.act("first", "pause", nonce=nonce)
    world.restart()
    with pytest.raises(Replayed):
        world.act("first", "pause", nonce=nonce)
    with pytest.raises(Untimely):
        world.act("first", "pause", at_ms=world.now_ms - 700_000)
    with pytest.raises(SignatureInvalid):
        world.act("first", "pause", key=STRANGER)
    with pytest.raises(UsageError, match="none that can be changed"):
        world.act("second", "pause")
    document = rollout_document.sign_action(Action(id="first", action="abort", at_ms=world.now_ms, nonce=nonce), OPERATOR)
    with pytest.raises(UsageError) as caught:
        world.controller.act(document, ("first", "pause"), world.now_ms)
    one_line(caught.value, "asks to abort first")
    with pytest.raises(MalformedData):
        rollout_document.verify_action(
            rollout_document.sign_action(Action(id="first", action="pause", at_ms=1, nonce=b"short"), OPERATOR), [OPERATOR.verify_key]
        )
    assert world.controller.live["first"].state.header.status == "running"


def test_who_did_what_stands_in_the_log(world: World, new: bytes) -> None:
    world.start("first", new, emergency=True, reason="CVE-2031-1", stages=rollout_document.emergency_stages())
    world.act("first", "pause", key=SECOND)
    rows = {row.kind: row for row in world.controller.audit.every()}
    assert rows["started"].who == keys.public_text(OPERATOR.verify_key) and rows["paused"].who == keys.public_text(SECOND.verify_key)
    assert json.loads(rows["started"].detail)["emergency"] == 1 and "CVE-2031-1" in rows["started"].detail
    assert rows["start"].who == "controller"


def test_in_the_lane_safety_the_signer_cannot_approve_alone(world: World, new: bytes) -> None:
    assert world.start("first", new, lane="safety") == []
    with pytest.raises(UsageError, match="second operator"):
        world.act("first", "approve")
    world.act("first", "approve", key=SECOND)
    assert world.states


def test_the_inventory_is_bounded_and_gives_up_who_has_been_away_for_long(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE)
    inventory = Inventory(database, nodes_max=2)
    hello = Hello(node="a", nonce=b"", generation=1, certificate=b"", host="", skills=())
    inventory.seen(hello, NOW)
    inventory.seen(msgspec.structs.replace(hello, node="b"), NOW)
    inventory.gone("a", NOW)
    with pytest.raises(TooLarge, match="takes no new names"):
        inventory.seen(msgspec.structs.replace(hello, node="c"), NOW + FORGOTTEN_MS - 1)
    inventory.seen(msgspec.structs.replace(hello, node="c"), NOW + FORGOTTEN_MS)
    with database.transaction() as db:
        inventory.flush(db)
    assert set(Inventory(database).known) == {"b", "c"}
    database.close()


def test_what_nodes_write_into_their_reports_is_shown_without_control_characters(world: World, new: bytes) -> None:
    name = world.start("first", new)[0][0]
    world.controller.hear(Progress(
        node=name, name="greeter", version="2.0.0", digest=digest_of(new), state="failed", at_ms=-(1 << 64), code="\x1b[2J\0", message="\u202e\x00" * 500
    ))  # fmt: skip
    world.turn()
    member = world.controller.live["first"].state.roster[name]
    assert member.phase == "failed" and member.code.isprintable() and member.message.isprintable() and len(member.message) <= 201
    assert all(row.detail.isprintable() for row in world.controller.audit.every())


def test_more_than_can_wait_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.controller.DEFAULT", replace(DEFAULT, rollout_events_waiting_max=1))
    world.controller.hear(Gone("x"))
    with pytest.raises(Flooded):
        world.controller.hear(Gone("x"))


# Over a real socket.


@dataclass
class Served:
    """A service on a loop of its own thread."""

    url: str
    service: RolloutService
    loop: asyncio.AbstractEventLoop
    told: list[tuple[str, bytes]]
    folder: Path
    bundle: Path

    def node(self, name: str, **fields: Any) -> None:
        hello = Hello(node=name, nonce=b"", generation=1, certificate=b"", host="", skills=(), sector="north", capabilities=("log",))
        self.loop.call_soon_threadsafe(self.service.seen, msgspec.structs.replace(hello, **fields))

    def report(self, name: str, state: State) -> None:
        document = next(document for node, document in reversed(self.told) if node == name)
        (wanted,) = desired.verify(document, [REGISTRY.verify_key]).skills
        progress = Progress(
            node=name, name=wanted.name, version=wanted.version, digest=wanted.digest, state=state, at_ms=1, code="", message="\x1b[31m"
        )
        self.loop.call_soon_threadsafe(self.service.report, progress)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 10
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(self.url + path, data=body)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture
def served(tmp_path: Path, make_skill: MakeSkill) -> Iterator[Served]:
    blobs: dict[str, bytes] = {}
    told: list[tuple[str, bytes]] = []
    database = Database(tmp_path / FILE)
    controller = Controller(database, [OPERATOR.verify_key], REGISTRY, Releases(blobs.get))
    keys.create(tmp_path / "operator.key", b"p" * 32)
    bundle = tmp_path / "greeter.wasm"
    bundle.write_bytes(make_skill("greeter", "2.0.0"))

    async def keep(request: web.Request) -> web.Response:
        data = await request.read()
        blobs[digest_of(data)] = data
        held = Releases(blobs.get).get(digest_of(data))
        assert held is not None
        return web.json_response(
            {"name": held.manifest.name, "version": held.manifest.version, "digest": digest_of(data), "size": held.size}, status=201
        )

    loop, ready, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        service = RolloutService(controller, SystemClock(), lambda node, document: told.append((node, document)), lambda level, line: None)
        app = web.Application(middlewares=[server._errors])
        app.add_routes([*RolloutRoutes(service, Access(tmp_path, SystemClock(), "push"), REGISTRY).routes(), web.post("/v1/bundles", keep)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        task = asyncio.create_task(service.run())
        found.update(service=service, url=f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await end.wait()
        service.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    yield Served(found["url"], found["service"], loop, told, tmp_path, bundle)
    loop.call_soon_threadsafe(end.set)
    thread.join(10)
    loop.close()
    database.close()


def cli_json(*arguments: str, app: Any = cli.app) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.slow
def test_an_operator_plans_starts_watches_pauses_and_aborts_from_the_command_line(served: Served) -> None:
    at = ("--registry", served.url, "--key", str(served.folder / "operator.key"))
    for name in ("node-1", "node-2", "node-3"):
        served.node(name)
    served.node("old-1", generation=1, abi=(9,))
    served.until(lambda: len(served.service.controller.inventory.known) == 4)
    plan = cli_json("plan", str(served.bundle), "--registry", served.url)
    assert (plan["eligible"], plan["excluded"], plan["possible"], len(plan["stages"])) == (3, 1, True, 4)
    started = cli_json(
        "start", str(served.bundle), *at, "--id", "greeter-two", "--wave", "34%", "--wave", "100%", "--soak", "1d", "--probation", "0s"
    )
    assert started["status"] == "running" and started["excluded"]["groups"][0]["code"] == "abi"
    served.until(lambda: len(served.told) == 2)
    for name, _ in list(served.told):
        served.report(name, "active")
    http = RolloutHttp(served.url)
    shown = served.until(lambda: found if (found := http.rollout("greeter-two"))["counts"]["active"] == 2 else None)
    assert shown["stage"]["name"] == "canary" and 86_000 < shown["stage"]["soak_left_s"] <= 86_400
    assert shown["by_generation"]["1"]["active"] == 2 and shown["by_sector"]["north"]["pending"] == 1
    assert [row["kind"] for row in shown["decisions"]][:2] == ["soak", "stage"]
    text = CliRunner().invoke(cli.app, ["status", "greeter-two", "--registry", served.url]).stdout
    assert "generation 1" in text and "sector north" in text and "excluded: 1 node(s)" in text
    assert rollout_view.follow_live([shown, shown], 20) == shown
    assert cli_json("pause", "greeter-two", *at)["status"] == "paused"
    assert cli_json("list", "--registry", served.url)["rollouts"][0]["status"] == "paused"
    events = http.watch("greeter-two")
    assert next(events)["status"] == "paused"
    assert cli_json("abort", "greeter-two", *at, "--reason", "wrong release")["status"] == "rolling-back"
    assert desired.verify(served.told[-1][1], [REGISTRY.verify_key]).remove == ("greeter",)
    for name in ("node-1", "node-2", "node-3"):
        served.node(name, serial=2)
    last = list(events)[-1]
    assert last["status"] == "aborted" and last["counts"]["reverted"] == 2
    head = served.folder / "head.cose"
    assert CliRunner().invoke(audit_cli.app, ["head", "--registry", served.url, "--out", str(head)]).exit_code == 0
    keys.create(served.folder / "registry.key", b"r" * 32)
    checked = CliRunner().invoke(
        audit_cli.app,
        ["verify", "--registry", served.url, "--head", str(head), "--operator", str(served.folder / "registry.pub"), "--json"],
        catch_exceptions=False,
    )
    assert json.loads(checked.stdout)["verified"] is True


def test_the_routes_refuse_what_is_not_signed_not_known_and_not_of_their_shape(served: Served, one_line: Any) -> None:
    for path, body, status, says in (
        ("/v1/rollouts", b"{}", 400, "roll-out document"),
        ("/v1/rollouts", rollout_document.sign(Rollout(id="first", name="x", version="1.0.0", digest="sha256:" + "0" * 64, size=9, issued_ms=1, stages=STAGES), STRANGER), 400, "not trusted"),
        ("/v1/rollouts", bytes(300 << 10), 413, "at most"),
        ("/v1/rollouts/nothing/pause", rollout_document.sign_action(Action(id="nothing", action="pause", at_ms=int(time.time() * 1000), nonce=bytes(16)), OPERATOR), 400, "none that can be changed"),
        ("/v1/rollouts/nothing/explode", b"", 404, "Not Found"),
        ("/v1/compat", b'{"digest": "sha256:x"}', 400, "digest"),
        ("/v1/compat", b'{"surprise": 1}', 400, "surprise"),
        ("/v1/compat", b'{"digest": "sha256:' + b"0" * 64 + b'"}', 400, "upload it first"),
        ("/v1/compat", b"[" * 100_000, 400, "JSON"),
    ):  # fmt: skip
        found, answer = served.post(path, body)
        assert (found, says in one_line(answer["message"])) == (status, True), answer
    http = RolloutHttp(served.url)
    with pytest.raises(UntrustedInput, match="no roll-out of this registry"):
        http.rollout("nothing")
    with pytest.raises(UntrustedInput, match="no roll-out"):
        next(http.watch("../../etc"))
    with pytest.raises(UntrustedInput, match="after"):
        http.audit("x")  # type: ignore[arg-type]
    assert http.rollouts() == [] and http.audit() is not None and list(http.every_row()) == []


def test_a_token_is_asked_for_where_the_registry_wants_one(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        for setting, get, post in (("pull", 200, 401), ("none", 401, 401)):
            app = web.Application(middlewares=[server._errors])
            app.add_routes(RolloutRoutes(served.service, Access(tmp_path, SystemClock(), setting), REGISTRY).routes())  # type: ignore[arg-type]
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"

            async def status(path: str, body: bytes | None = None, url: str = url) -> int:
                def ask() -> int:
                    try:
                        with urllib.request.urlopen(urllib.request.Request(url + path, data=body), timeout=10) as response:
                            return int(response.status)
                    except urllib.error.HTTPError as error:
                        with error:
                            return error.code

                return await asyncio.to_thread(ask)

            assert (await status("/v1/rollouts"), await status("/v1/rollouts", b"x")) == (get, post)
            await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.slow
def test_the_simulation_catches_the_bad_version_and_converges() -> None:
    found = cli_json("simulate", "--nodes", "1500", "--generations", "6", "--offline", "0.1", "--seed", "3")
    assert found["done"] and found["bad_version_reach"] <= 0.05 and found["bad_version_left"] == 0
    assert found["excluded"] > 0 and found["offline_converged_later"] > 100 and found["decisions_logged"] > 1_400
    again = cli_json("simulate", "--nodes", "1500", "--generations", "6", "--offline", "0.1", "--seed", "3")
    assert {**found, "wall_s": 0} == {**again, "wall_s": 0}


# Feature flags.


def flag(
    world: World, name: str, on: bool, key: SigningKey = OPERATOR, *, nonce: bytes = b"", at_ms: int = 0, **selection: Any
) -> list[Tell]:
    change = flags.FlagChange(
        flag=name, on=on, selection=Selection(**selection), at_ms=at_ms or world.now_ms, nonce=nonce or os.urandom(16), reason="a trial"
    )
    return world.take(world.controller.flag(flags.sign(change, key), world.now_ms)[1])


def test_a_flag_is_on_for_the_nodes_that_were_chosen_and_stays_beside_what_they_shall_run(world: World, new: bytes) -> None:
    chosen = {known.node for known in world.controller.inventory.known.values() if known.generation == 2}
    others = set(world.controller.inventory.known) - chosen
    assert chosen and others
    assert {node for node, _ in flag(world, "fast_feed", True, generations=(2,))} == chosen
    assert all(world.states[node].flags == ("fast_feed",) for node in chosen)
    world.start("greeter-2", new)
    told = [state for state in world.states.values() if state.skills]
    assert told and all(("fast_feed" in state.flags) == (state.node in chosen) for state in told)
    one = min(others)
    flag(world, "fast_feed", True, nodes=(one,))
    assert all(world.states[node].flags == () for node in chosen), "the last choice counts, for all"
    assert world.states[one].flags == ("fast_feed",)
    flag(world, "fast_feed", False)
    assert world.states[one].flags == ()
    rows = world.controller.audit.rows()
    assert [row.kind for row in rows if row.kind == "flag"] == ["flag"] * 3 and audit.verify(rows) == len(rows)


def test_a_node_that_comes_later_or_after_a_restart_is_told_of_the_flags_that_are_on(world: World) -> None:
    flag(world, "night_shift", True)
    world.restart()
    world.hello("node-5")
    assert world.states["node-5"].flags == ("night_shift",)
    world.hello("node-5")
    assert world.states["node-5"].serial == 1, "nothing has changed"


def test_flags_by_strangers_old_ones_repeated_ones_and_too_many_are_refused(world: World, one_line: Any) -> None:
    once = flags.sign(flags.FlagChange(flag="a", on=True, at_ms=world.now_ms, nonce=b"n" * 16), OPERATOR)
    world.controller.flag(once, world.now_ms)
    with pytest.raises(Replayed) as replayed:
        world.controller.flag(once, world.now_ms)
    one_line(replayed.value, "a")
    with pytest.raises(SignatureInvalid):
        flag(world, "b", True, STRANGER)
    with pytest.raises(Untimely) as untimely:
        flag(world, "b", True, at_ms=world.now_ms - 86_400_000)
    one_line(untimely.value, "b")
    for number in range(flags.FLAGS_MAX - 1):
        flag(world, f"f{number}", True)
    with pytest.raises(TooLarge) as full:
        flag(world, "one_more", True)
    one_line(full.value, "one_more")
    assert len(world.controller.flags) == flags.FLAGS_MAX


def test_an_operator_turns_a_flag_on_and_off_from_the_command_line(served: Served) -> None:
    key = str(served.folder / "operator.key")
    on = cli_json("flag", "fast_feed", "on", "--key", key, "--registry", served.url, "--generation", "2", app=fleet_cli.app)
    assert on["flags"]["fast_feed"]["generations"] == [2]
    assert list(cli_json("flags", "--registry", served.url, app=fleet_cli.app)["flags"]) == ["fast_feed"]
    off = cli_json("flag", "fast_feed", "off", "--key", key, "--registry", served.url, app=fleet_cli.app)
    assert off["flags"] == {}
