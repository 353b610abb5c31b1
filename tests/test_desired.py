"""The desired state: what a node takes of it, what it does about it, what it tries again, and what of it survives."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

from host.core import desired, documents
from host.core.attestation import Measurement
from host.core.desired import AAD, DesiredState, Wanted
from host.core.errors import (
    GuestError,
    Incompatible,
    MalformedData,
    NetworkError,
    Replayed,
    SignatureInvalid,
    SnapcountError,
    StorageFull,
    TooLarge,
)
from host.core.fleet import SkillState
from host.core.limits import DEFAULT
from host.node import Node
from host.supply.desired import (
    AGAIN_MS,
    AGAIN_MS_MAX,
    DOCUMENT,
    NOTES,
    ROLLED_BACK_MAX,
    Keeper,
    RolledBack,
    Step,
    converge,
    plan,
    report_held,
)
from host.supply.probation import Ended
from sdk.demo.samples import BID

MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
OPERATOR, STRANGER = SigningKey(b"p" * 32), SigningKey(b"s" * 32)
NODE = "node-01"
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


A, B, C = (digest_of(letter.encode()) for letter in "abc")


def wanted(name: str = "greeter", digest: str = A, version: str = "1.0.0", **fields: Any) -> Wanted:
    return Wanted(**({"name": name, "version": version, "digest": digest, "size": 100} | fields))


def state(serial: int, *skills: Wanted, **fields: Any) -> DesiredState:
    return DesiredState(**({"node": NODE, "serial": serial, "issued_ms": 1, "skills": skills} | fields))


def signed(wish: DesiredState, key: SigningKey = OPERATOR) -> bytes:
    return desired.sign(wish, key)


# What is to be done.


def test_what_is_missing_is_installed_what_is_named_is_removed_and_the_rest_is_left_alone() -> None:
    wish = state(1, wanted("a", A), wanted("b", B), remove=("c", "d"))
    steps = plan(wish, {"a": A, "b": C, "c": C, "e": C}, {})
    assert steps == [Step("c"), Step("b", wanted("b", B))]
    assert plan(wish, {"a": A, "b": B}, {}) == []
    assert plan(wish, {"c": C}, {}, waiting={"c", A}) == [Step("b", wanted("b", B))]


def test_what_was_rolled_back_is_asked_for_anew_by_another_rollout_or_after_a_state_without_it() -> None:
    bad = RolledBack("greeter", "1.0.0", A, "r-1", "it traps")
    assert plan(state(1, wanted(rollout="r-1")), {}, {A: bad}) == []
    assert plan(state(2, wanted(rollout="r-1")), {}, {A: bad}) == []
    for again, entry in ((wanted(rollout="r-2"), bad), (wanted(rollout="r-1"), msgspec.structs.replace(bad, dropped=True))):
        assert plan(state(2, again), {}, {A: entry}) == [Step("greeter", again, again=True)]


# What is taken.


@dataclass
class Held:
    folder: Path
    clock: Any
    log: list[tuple[str, str]] = field(default_factory=list)
    operators: tuple[SigningKey, ...] = (OPERATOR,)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        keys = [key.verify_key for key in self.operators]
        self.keeper = Keeper(self.folder, NODE, keys, self.clock, random.Random(1), lambda level, line: self.log.append((level, line)))

    def steps(self, **active: str) -> list[str]:
        """The digests to install and the names to remove."""
        found = self.keeper.steps([SkillState(name, "1.0.0", digest) for name, digest in active.items()])
        return [step.name if step.wanted is None else step.wanted.digest for step in found]


@pytest.fixture
def held(tmp_path: Path, clock: Any) -> Held:
    return Held(tmp_path, clock)


def test_a_newer_state_is_taken_kept_and_replaces_the_one_before(held: Held) -> None:
    assert (held.keeper.serial, held.steps()) == (0, [])
    assert held.keeper.take(signed(state(3, wanted(digest=A), flags=("fast_path",))))
    assert not held.keeper.take(signed(state(3, wanted(digest=A), flags=("fast_path",))))  # the registry says it again at each connection
    assert (held.keeper.serial, held.steps(), held.keeper.flags) == (3, [A], {"fast_path"})
    held.reopen()
    assert (held.keeper.serial, held.steps(), held.keeper.flags) == (3, [A], {"fast_path"})
    assert held.keeper.take(signed(state(9, wanted(digest=B))))
    assert (held.keeper.serial, held.steps(), held.keeper.flags) == (9, [B], frozenset())


def test_a_state_that_came_before_is_a_replay_also_after_a_restart_and_the_loss_of_the_document(held: Held, one_line: OneLine) -> None:
    held.keeper.take(signed(state(5, wanted(digest=B))))
    for lose in (None, "restart", DOCUMENT):
        if lose == DOCUMENT:
            (held.folder / DOCUMENT).unlink()
        if lose:
            held.reopen()
        for old in (state(4, wanted()), state(5, wanted())):
            with pytest.raises(Replayed) as caught:
                held.keeper.take(signed(old))
            one_line(caught.value, old.serial, 5, "higher serial")
        assert held.keeper.serial == 5
    (held.folder / NOTES).unlink()
    assert held.keeper.take(signed(state(6, wanted(digest=B))))
    (held.folder / NOTES).unlink()
    held.reopen()
    assert (held.keeper.serial, held.steps()) == (6, [B])  # the document has its serial too


class Raw(msgspec.Struct):
    node: str = NODE
    serial: Any = 7
    issued_ms: int = 1
    skills: Any = ()
    extra: Any = msgspec.UNSET


def raw(**fields: Any) -> bytes:
    return documents.sign(Raw(**fields), OPERATOR, AAD)


PLAIN = {
    "name": "greeter",
    "version": "1.0.0",
    "digest": A,
    "size": 100,
    "lane": "productivity",
    "patches": [],
    "probation_s": 0,
    "rollout": "",
}
BAD: dict[str, tuple[bytes, type[SnapcountError], str]] = {
    "no document": (b"", MalformedData, "desired state"),
    "an operator that is not trusted": (signed(state(7, wanted()), STRANGER), SignatureInvalid, "not trusted"),
    "another kind of document": (documents.sign(state(7), OPERATOR, b"snapcount quarantine 1"), SignatureInvalid, "desired state"),
    "another node's": (signed(state(7, wanted(), node="node-02")), Incompatible, "node-02"),
    "an unknown field": (raw(extra="x"), MalformedData, "extra"),
    "a serial of nothing": (raw(serial=0), MalformedData, "serial"),
    "a serial that is text": (raw(serial="8"), MalformedData, "serial"),
    "a name that is a path": (raw(skills=[PLAIN | {"name": "../../x"}]), MalformedData, "name"),
    "a digest that is none": (raw(skills=[PLAIN | {"digest": "sha256:00"}]), MalformedData, "digest"),
    "an unknown field of a skill": (raw(skills=[PLAIN | {"run_as": "root"}]), MalformedData, "run_as"),
    "a lane that is none": (raw(skills=[PLAIN | {"lane": "fast"}]), MalformedData, "fast"),
    "a size beyond a bundle's": (raw(skills=[PLAIN | {"size": DEFAULT.bundle_bytes_max + 1}]), MalformedData, "size"),
    "more skills than may be": (raw(skills=[PLAIN] * (DEFAULT.announcements_max + 1)), MalformedData, "skills"),
    "a skill named twice": (signed(state(7, wanted(digest=A), wanted(digest=B))), MalformedData, "says two things about greeter"),
    "a skill both wanted and removed": (signed(state(7, wanted(), remove=("greeter",))), MalformedData, "says two things about greeter"),
    "more bytes than a frame": (signed(state(7)) + bytes(DEFAULT.frame_bytes_max), TooLarge, "desired state"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_taken_changes_nothing(kind: str, held: Held, one_line: OneLine) -> None:
    document, error, names = BAD[kind]
    held.keeper.take(signed(state(5, wanted(digest=C))))
    before = sorted((path.name, path.read_bytes()) for path in held.folder.iterdir())
    with pytest.raises(error) as caught:
        held.keeper.take(document)
    one_line(caught.value, names)
    assert (held.keeper.serial, held.steps()) == (5, [C])
    assert sorted((path.name, path.read_bytes()) for path in held.folder.iterdir()) == before


def test_on_a_full_disk_no_state_is_taken_and_the_one_before_holds(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.keeper.take(signed(state(1, wanted(digest=A))))

    def full(*arguments: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr("host.core.files.write_atomic", full)
        with pytest.raises(StorageFull):
            held.keeper.take(signed(state(2, wanted(digest=B))))
        assert (held.keeper.serial, held.steps()) == (1, [A])
    assert held.keeper.take(signed(state(2, wanted(digest=B))))


@pytest.mark.parametrize("name", [DOCUMENT, NOTES])
@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"{}"])
def test_a_damaged_file_is_said_and_the_next_state_is_taken(name: str, damage: bytes, held: Held) -> None:
    held.keeper.take(signed(state(5, wanted())))
    (held.folder / name).write_bytes(damage)
    held.reopen()
    assert held.keeper.serial == 5
    assert held.log or damage == b"{}"
    assert held.keeper.take(signed(state(6, wanted(digest=B))))
    held.reopen()
    assert held.steps() == [B]


def test_a_state_by_an_operator_who_is_no_longer_trusted_is_not_followed_and_no_older_one_is_taken(held: Held) -> None:
    held.keeper.take(signed(state(5, wanted())))
    held.operators = (STRANGER,)
    held.reopen()
    assert (held.keeper.serial, held.steps()) == (5, [])
    with pytest.raises(Replayed):
        held.keeper.take(signed(state(4, wanted()), STRANGER))
    assert held.keeper.take(signed(state(6, wanted(digest=B)), STRANGER))


# What is tried again.


def test_what_the_network_broke_is_tried_again_later_each_time_and_a_new_state_at_once(held: Held) -> None:
    held.keeper.take(signed(state(1, wanted(), wanted("other", B))))
    step, waits = Step("greeter", wanted()), []
    for _ in range(14):
        held.keeper.failed(step, NetworkError("the link broke"))
        assert held.steps() == [B]  # the others go on
        waited = 0
        while A not in held.steps():
            held.clock.advance(500)
            waited += 500
        waits.append(waited)
    assert 0.7 * AGAIN_MS <= waits[0] <= AGAIN_MS + 500
    assert waits[3] > 4 * waits[0]
    assert max(waits) <= AGAIN_MS_MAX + 500
    held.keeper.failed(step, NetworkError("the link broke"))
    held.keeper.take(signed(state(2, wanted())))
    assert held.steps() == [A]


def test_what_time_does_not_mend_is_tried_once_an_hour(held: Held) -> None:
    held.keeper.take(signed(state(1, wanted())))
    held.keeper.failed(Step("greeter", wanted()), Incompatible("another generation"))
    held.clock.advance(AGAIN_MS_MAX // 2)
    assert held.steps() == []
    held.clock.advance(AGAIN_MS_MAX // 2 + 1000)
    assert held.steps() == [A]


def ended(digest: str = A, version: str = "1.0.0") -> Ended:
    return Ended("greeter", version, digest, "rolled-back", "5 of 5 calls trapped", "0.9.0")


def test_a_state_for_another_skills_sake_does_not_bring_back_what_was_rolled_back_and_a_retry_does(held: Held) -> None:
    bad = wanted(rollout="r-1")
    held.keeper.take(signed(state(1, bad)))
    held.keeper.ended(ended())
    for _ in range(2):
        assert held.steps() == []
        assert [entry.cause for _, entry in held.keeper.given_up()] == ["5 of 5 calls trapped"]
        held.reopen()
    held.keeper.take(signed(state(2, bad, wanted("other", B))))
    assert held.steps() == [B]
    held.keeper.take(signed(state(3, wanted(digest=C))))  # the operator sends it back
    held.reopen()
    held.keeper.take(signed(state(4, bad)))  # and wants it once more
    (step,) = held.keeper.steps([])
    assert step.again and step.wanted == bad
    assert held.keeper.given_up() == []
    held.keeper.ended(ended())  # in vain
    assert held.steps() == []
    held.keeper.take(signed(state(5, wanted(rollout="r-2"))))
    assert held.steps() == [A]


def test_what_is_remembered_of_roll_backs_is_bounded(held: Held) -> None:
    held.keeper.take(signed(state(1, wanted())))
    for number in range(ROLLED_BACK_MAX + 10):
        held.keeper.ended(ended(digest_of(bytes([number]))))
    held.keeper.ended(ended())
    held.reopen()
    assert held.steps() == []
    assert len(msgspec.json.decode((held.folder / NOTES).read_bytes())["rolled_back"]) == ROLLED_BACK_MAX


def test_a_version_that_was_kept_after_all_is_forgotten_as_rolled_back(held: Held) -> None:
    held.keeper.take(signed(state(1, wanted())))
    held.keeper.ended(ended())
    held.keeper.ended(Ended("greeter", "1.0.0", A, "active", "nothing spoke against it", "1.0.0"))
    assert held.steps() == [A]


# On a node.


@dataclass
class Bench:
    """A node, its keeper, a registry that has some bundles, and what was reported."""

    node: Node
    keeper: Keeper
    clock: Any
    bundles: dict[str, bytes] = field(default_factory=dict)
    reports: list[tuple[str, str, str]] = field(default_factory=list)
    away: bool = False

    async def fetch(self, wish: Wanted) -> bytes:
        if self.away:
            raise NetworkError("nobody answers")
        return self.bundles[wish.digest]

    async def report(self, wish: Wanted, how: str, code: str, message: str) -> None:
        self.reports.append((f"{wish.name} {wish.version}", how, code))

    def has(self, data: bytes, **fields: Any) -> Wanted:
        manifest_name, version = fields.pop("name", "greeter"), fields.pop("version", "1.0.0")
        self.bundles[digest_of(data)] = data
        return wanted(manifest_name, digest_of(data), version, size=len(data), **fields)

    def converge(self) -> list[tuple[str, str, str]]:
        self.reports.clear()
        asyncio.run(converge(self.keeper, self.node, self.fetch, self.report))
        return list(self.reports)

    def active(self) -> dict[str, str]:
        return {skill.name: skill.version for skill in self.node.skills()}

    def call(self, times: int) -> None:
        for _ in range(times):
            try:
                asyncio.run(self.node.call("bid", BID))
            except GuestError:
                continue

    def tick(self) -> list[Ended]:
        self.clock.advance(1000)
        found = asyncio.run(self.node.tick())
        for one in found:
            self.keeper.ended(one)
        return found


@pytest.fixture
def bench(tmp_path: Path, clock: Any, make_state: Callable[..., Path]) -> Iterator[Bench]:
    folder = make_state(tmp_path / "node", clock)
    node = Node.open(folder, MEASURED, clock=clock, log=lambda level, line: None)
    keeper = Keeper(folder, NODE, [OPERATOR.verify_key], clock, random.Random(1), lambda level, line: None)
    yield Bench(node, keeper, clock)
    node.close()


@pytest.mark.slow
def test_a_node_converges_goes_back_when_it_is_told_to_and_does_nothing_more(bench: Bench, make_skill: MakeSkill) -> None:
    old, new, other = (
        bench.has(make_skill()),
        bench.has(make_skill(version="1.1.0"), version="1.1.0"),
        bench.has(make_skill("other"), name="other"),
    )
    bench.keeper.take(signed(state(1, new, other)))
    assert bench.converge() == [
        (f"{name}", how, "") for name in ("greeter 1.1.0", "other 1.0.0") for how in ("fetching", "installing", "active")
    ]
    assert bench.active() == {"greeter": "1.1.0", "other": "1.0.0"}
    assert bench.converge() == []
    bench.keeper.take(signed(state(2, old, remove=("other",))))
    bench.converge()
    assert bench.active() == {"greeter": "1.0.0"}  # an earlier version, because an operator signed that


@pytest.mark.slow
def test_a_node_that_was_away_converges_when_it_is_reachable(bench: Bench, make_skill: MakeSkill) -> None:
    bench.keeper.take(signed(state(1, bench.has(make_skill()))))
    bench.away = True
    assert bench.converge()[-1] == ("greeter 1.0.0", "failed", "network_error")
    assert bench.converge() == []  # not at once
    bench.away = False
    bench.clock.advance(AGAIN_MS)
    assert bench.converge()[-1] == ("greeter 1.0.0", "active", "")


@pytest.mark.slow
def test_a_step_that_fails_costs_only_itself(bench: Bench, make_skill: MakeSkill) -> None:
    untrusted = bench.has(make_skill(signer=STRANGER))
    named_otherwise = bench.has(make_skill("impostor"), name="other")
    missing = wanted("missing", C)
    good = bench.has(make_skill("good"), name="good")
    bench.keeper.take(signed(state(1, untrusted, named_otherwise, missing, good)))
    failed = {name: code for name, how, code in bench.converge() if how == "failed"}
    assert failed == {"greeter 1.0.0": "signature_invalid", "other 1.0.0": "incompatible", "missing 1.0.0": "host_fault"}
    assert bench.active() == {"good": "1.0.0"}


@pytest.mark.slow
def test_a_version_that_does_badly_is_reported_as_rolled_back_and_comes_again_when_it_is_wanted_anew(
    bench: Bench, make_skill: MakeSkill
) -> None:
    old = bench.has(make_skill())
    bad = bench.has(make_skill(version="1.1.0", body="(unreachable)"), version="1.1.0", probation_s=600, rollout="r-1")
    bench.keeper.take(signed(state(1, old)))
    bench.converge()
    bench.keeper.take(signed(state(2, bad)))
    assert bench.converge()[-1] == ("greeter 1.1.0", "probation", "")

    def held() -> list[tuple[str, str, str]]:
        bench.reports.clear()
        asyncio.run(report_held(bench.keeper, bench.node, bench.report, lambda name: bench.node.installer.watching(name) is not None))
        return list(bench.reports)

    assert held() == [("greeter 1.1.0", "probation", "")]
    bench.call(5)
    assert [one.state for one in bench.tick()] == ["rolled-back"]
    assert bench.converge() == []
    assert held() == [("greeter 1.1.0", "rolled-back", "probation")]
    bench.keeper.take(signed(state(3, old)))
    assert bench.converge() == []
    assert held() == [("greeter 1.0.0", "active", "")]
    bench.keeper.take(signed(state(4, bad)))
    assert bench.converge()[-1] == ("greeter 1.1.0", "probation", "")
    bench.call(5)
    bench.tick()
    assert bench.active() == {"greeter": "1.0.0"}
    assert bench.converge() == []


@pytest.mark.slow
def test_what_the_owner_went_back_from_no_state_brings_again(bench: Bench, make_skill: MakeSkill) -> None:
    old, new = bench.has(make_skill()), bench.has(make_skill(version="1.1.0"), version="1.1.0")
    bench.keeper.take(signed(state(1, old)))
    bench.converge()
    bench.keeper.take(signed(state(2, new)))
    bench.converge()
    asyncio.run(bench.node.roll_back("greeter"))
    assert bench.converge()[-1] == ("greeter 1.1.0", "failed", "incompatible")
    bench.keeper.take(signed(state(3, msgspec.structs.replace(new, rollout="r-2"))))
    assert bench.converge()[-1] == ("greeter 1.1.0", "failed", "incompatible")
    assert bench.active() == {"greeter": "1.0.0"}
