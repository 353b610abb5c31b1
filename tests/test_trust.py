"""The operators' side of trust: the ceremony, approvals over several machines, keys that change, and what is published when."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from nacl.signing import SigningKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata
from typer.testing import CliRunner

from host.core import keys
from host.core.bundle import digest_of
from host.core.errors import MalformedData, SignatureInvalid, SnapcountError, StateDamaged, TooLarge, UsageError
from host.core.limits import DEFAULT
from registry.trust import approvals, ceremony, pending, publishing, rotation, status, steps
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME, OFFLINE, ONLINE, ROLES, THRESHOLDS
from registry.trust.signer import Holder, PyNaClSigner, key_id
from sdk.cli import ceremony as commands

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
PEOPLE = {"root": ("anna", "ben", "carla"), "targets": ("anna", "ben", "carla"), "safety": ("dora", "emil"), "productivity": ("fay",)}


def key_of(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"."))


def holder(name: str) -> Holder:
    return Holder(name, key_of(name).verify_key)


@dataclass
class Office:
    """A registry's folder, its clock, and the people who sign."""

    folder: Path
    now: datetime = START
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(1, 255)))

    @property
    def repository(self) -> TrustRepository:
        return TrustRepository(self.folder)

    def seed(self, size: int) -> bytes:
        return bytes([next(self.seeds)]) * size

    def begin(self, **other: tuple[str, ...]) -> steps.Outcome:
        held = {role: [holder(name) for name in names] for role, names in (PEOPLE | other).items()}
        return ceremony.begin(self.repository, held, self.now, self.seed)

    def file(self, role: str) -> Path:
        return self.repository.pending_path(role)

    def sign(self, role: str, *names: str) -> steps.Outcome:
        for name in names:
            steps.sign(self.file(role), key_of(name))
        return steps.submit(self.repository, [self.file(role)], self.now)

    def found(self) -> "Office":
        """The ceremony, done."""
        self.begin()
        self.sign("root", "anna", "ben")
        self.sign("targets", "anna", "carla")
        self.sign("safety", "dora", "emil")
        assert self.sign("productivity", "fay").published == (
            "safety 1",
            "productivity 1",
            "targets 1",
            "snapshot 1",
            "root 1",
            "timestamp 1",
        )
        return self

    def approve(self, lane: Any, data: bytes, *names: str) -> steps.Outcome:
        for name in names:
            outcome = approvals.approve(self.repository, lane, data, "x.wasm", key_of(name), self.now)
        return outcome

    def renew(self) -> list[str]:
        return publishing.renew(self.folder, self.now)

    def version(self, role: str) -> int:
        return self.repository.newest(role)

    def approved(self, lane: str) -> list[str]:
        metadata = self.repository.current(lane)
        assert metadata is not None
        return sorted(metadata.signed.targets)

    def published(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.repository.metadata.iterdir())}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "registry").found()


@pytest.fixture
def fresh(tmp_path: Path) -> Office:
    return Office(tmp_path / "registry")


# The ceremony.


def test_the_ceremony_needs_two_of_three_for_root_and_two_for_safety_and_publishes_only_when_all_four_are_signed(fresh: Office):
    begun = fresh.begin()
    assert [line.partition(" ")[0] for line in begun.waiting] == list(OFFLINE)
    fresh.sign("root", "anna")
    fresh.sign("targets", "anna", "ben")
    fresh.sign("safety", "dora", "emil")
    outcome = fresh.sign("productivity", "fay")
    assert outcome.published == ()
    assert "root 1 (the first version): 1 more of ben, carla" in outcome.waiting
    assert not fresh.repository.metadata.exists()
    done = fresh.sign("root", "carla")
    assert "root 1" in done.published
    assert done.waiting == ()
    assert sorted(fresh.published()) == [
        "1.productivity.json", "1.root.json", "1.safety.json", "1.snapshot.json", "1.targets.json", "timestamp.json",
    ]  # fmt: skip


def test_copies_that_were_signed_apart_on_two_machines_are_put_together(fresh: Office, tmp_path: Path):
    fresh.begin()
    for name in ("ben", "carla"):
        away = tmp_path / f"{name}.json"
        shutil.copy(fresh.file("root"), away)
        steps.sign(away, key_of(name))
    steps.submit(fresh.repository, [tmp_path / "ben.json"], fresh.now)
    steps.submit(fresh.repository, [tmp_path / "carla.json"], fresh.now)
    found = fresh.repository.pending("root")
    assert found is not None
    assert [signer.name for signer in found.signers()] == ["ben", "carla"]
    assert found.missing() == []


def test_what_is_published_has_two_of_three_for_root_and_terminating_lanes_by_path(office: Office):
    root, targets = office.repository.root(), office.repository.targets()
    assert {role: (rule.threshold, len(rule.keyids)) for role, rule in root.roles.items()} == {
        "root": (2, 3), "targets": (2, 3), "snapshot": (1, 1), "timestamp": (1, 1),
    }  # fmt: skip
    assert root.consistent_snapshot
    assert targets.delegations is not None
    lanes = targets.delegations.roles or {}
    assert {name: (role.threshold, role.paths, role.terminating) for name, role in lanes.items()} == {
        "safety": (2, ["safety/*/*"], True), "productivity": (1, ["productivity/*/*"], True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"root": ("anna", "ben")}, "root: 3 different keys"),
        ({"root": ("anna", "ben", "ben")}, "root: 3 different keys"),
        ({"safety": ("dora",)}, "safety: 2 different keys"),
        ({"productivity": ()}, "productivity: 1 different keys"),
        ({"productivity": ("dora",)}, "safety and productivity"),
        ({"productivity": ("anna",)}, "root and productivity"),
    ],
)
def test_a_ceremony_whose_keys_do_not_keep_the_roles_apart_is_refused(fresh: Office, one_line: Callable[..., str], other: Any, says: str):
    with pytest.raises(UsageError) as refused:
        fresh.begin(**other)
    one_line(refused.value, says)
    assert not fresh.repository.online.exists()


def test_a_ceremony_is_begun_once(office: Office):
    with pytest.raises(UsageError, match="begun here already"):
        office.begin()


def test_the_online_keys_are_readable_by_their_owner_only_and_never_travel(fresh: Office):
    fresh.begin()
    made = sorted(fresh.repository.online.glob("*.key"))
    assert [path.name.partition("-")[0] for path in made] == ["snapshot", "timestamp"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)
    secrets = [path.read_text().strip() for path in made]
    assert not any(secret in fresh.file(role).read_text() for secret in secrets for role in OFFLINE)


# Signing a travelling file.


def test_a_stranger_cannot_sign_and_nobody_signs_twice(fresh: Office, one_line: Callable[..., str]):
    fresh.begin()
    with pytest.raises(UsageError) as stranger:
        steps.sign(fresh.file("safety"), key_of("anna"))
    one_line(stranger.value, "safety", "dora, emil")
    steps.sign(fresh.file("safety"), key_of("dora"))
    with pytest.raises(UsageError, match="signed it already"):
        steps.sign(fresh.file("safety"), key_of("dora"))


def test_a_file_whose_content_was_changed_after_signing_has_no_valid_signature(fresh: Office):
    fresh.begin()
    steps.sign(fresh.file("root"), key_of("anna"))
    raw = json.loads(fresh.file("root").read_text())
    raw["next"]["signed"]["expires"] = "2099-01-01T00:00:00Z"
    fresh.file("root").write_text(json.dumps(raw))
    found = fresh.repository.pending("root")
    assert found is not None
    assert found.signers() == []


def test_a_file_with_another_content_or_a_forged_signature_is_not_taken_back(
    office: Office, tmp_path: Path, make_skill: Callable[..., bytes]
):
    office.approve("safety", make_skill(), "dora")
    away, raw = tmp_path / "safety.json", json.loads(office.file("safety").read_text())
    other = json.loads(json.dumps(raw))
    other["next"]["signed"]["expires"] = "2099-01-01T00:00:00Z"
    away.write_text(json.dumps(other))
    with pytest.raises(UsageError, match="not a copy"):
        steps.submit(office.repository, [away], office.now)
    raw["next"]["signatures"].append({"keyid": key_id(key_of("emil").verify_key), "sig": "00" * 64})
    away.write_text(json.dumps(raw))
    with pytest.raises(SignatureInvalid):
        steps.submit(office.repository, [away], office.now)
    assert office.version("safety") == 1


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff", b'{"format": "snapcount pending change 1", "role": "root", "more": 1}', b"[" * 100_000]
)
def test_a_file_that_is_no_pending_change_is_refused_in_one_line(tmp_path: Path, one_line: Callable[..., str], raw: bytes):
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(MalformedData) as refused:
        pending.load(tmp_path / "x.json")
    one_line(refused.value, "x.json")


@pytest.mark.parametrize("odd", [1.5, json.loads("[" * 800 + "]" * 800)], ids=["a fraction", "nested deeply"])
def test_a_change_that_nobody_could_read_or_sign_is_refused(fresh: Office, odd: Any, one_line: Callable[..., str]):
    fresh.begin()
    raw = json.loads(fresh.file("root").read_text())
    raw["next"]["signed"]["more"] = odd
    fresh.file("root").write_text(json.dumps(raw))
    with pytest.raises(MalformedData) as refused:
        pending.load(fresh.file("root")).changes()
    one_line(refused.value)


def test_a_pending_change_without_end_is_refused_unread(tmp_path: Path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(DEFAULT.trust_pending_bytes_max + 1)
    with pytest.raises(TooLarge):
        pending.load(tmp_path / "x.json")


def test_a_change_whose_metadata_is_of_another_kind_is_refused(fresh: Office):
    fresh.begin()
    raw = json.loads(fresh.file("root").read_text())
    raw["role"] = "targets"
    fresh.file("targets").write_text(json.dumps(raw))
    with pytest.raises(MalformedData, match="type targets, found root"):
        fresh.repository.pending("targets")


def test_a_signer_who_signed_the_version_before_sees_the_difference_and_everybody_else_the_whole(
    office: Office, make_skill: Callable[..., bytes]
):
    office.approve("safety", make_skill("thermal", "1.0.0"), "dora", "emil")
    office.approve("safety", make_skill("thermal", "1.1.0"), "dora")
    found = office.repository.pending("safety")
    assert found is not None
    seen = found.changes(key_of("emil"))
    assert any(line.startswith("+ targets safety/thermal/1.1.0.wasm hashes sha256") for line in seen)
    assert not any("1.0.0" in line for line in seen)
    whole = found.changes(key_of("anna"))
    assert any("1.0.0" in line for line in whole)
    raw = json.loads(office.file("safety").read_text())
    raw["base"]["signed"]["targets"]["safety/thermal/1.1.0.wasm"] = raw["next"]["signed"]["targets"]["safety/thermal/1.1.0.wasm"]
    lying = msgspec.convert(raw, pending.Pending)
    assert any("1.1.0" in line for line in lying.changes(key_of("emil"))), "a base that was tampered with hides nothing"


# Approvals.


def test_a_productivity_approval_takes_one_signature_and_is_published_at_once(office: Office, make_skill: Callable[..., bytes]):
    data = make_skill("greeter", "1.2.0")
    outcome = office.approve("productivity", data, "fay")
    assert outcome.published == ("productivity 2", "snapshot 2", "timestamp 2")
    metadata = office.repository.current("productivity")
    assert metadata is not None
    target = metadata.signed.targets["productivity/greeter/1.2.0.wasm"]
    assert (f"sha256:{target.hashes['sha256']}", target.length) == (digest_of(data), len(data))
    assert target.custom == {"name": "greeter", "version": "1.2.0"}


def test_a_safety_approval_waits_for_the_second_signature_days_later(office: Office, make_skill: Callable[..., bytes]):
    data = make_skill()
    first = office.approve("safety", data, "dora")
    assert first.published == ()
    assert first.waiting == ("safety 2 (approve greeter 1.0.0): 1 more of emil",)
    office.now += timedelta(days=3)
    assert office.approve("safety", data, "emil").published == ("safety 2", "snapshot 2", "timestamp 2")
    assert office.approved("safety") == ["safety/greeter/1.0.0.wasm"]


def test_an_approval_is_begun_on_one_machine_signed_on_another_and_published_on_a_third(
    office: Office, tmp_path: Path, make_skill: Callable[..., bytes]
):
    doras = Office(tmp_path / "dora", office.now)
    shutil.copytree(office.folder / "trust" / "metadata", doras.folder / "trust" / "metadata")  # what everybody may read, and no keys
    doras.approve("safety", make_skill(), "dora")
    stick = tmp_path / "stick.json"
    shutil.copy(doras.file("safety"), stick)
    assert steps.sign(stick, key_of("emil")).missing() == []
    assert steps.submit(doras.repository, [stick], office.now).published == (), "without the registry's keys it waits"
    assert steps.submit(office.repository, [stick], office.now).published == ("safety 2", "snapshot 2", "timestamp 2")
    assert office.approved("safety") == ["safety/greeter/1.0.0.wasm"]


def test_a_second_approval_joins_the_one_that_waits_and_whoever_signed_without_it_signs_again(
    office: Office, make_skill: Callable[..., bytes]
):
    one, two = make_skill("one"), make_skill("two")
    office.approve("safety", one, "dora")
    joined = office.approve("safety", two, "emil")
    assert joined.waiting == ("safety 2 (approve one 1.0.0; approve two 1.0.0): 1 more of dora",)
    assert office.approve("safety", two, "dora").published
    assert office.approved("safety") == ["safety/one/1.0.0.wasm", "safety/two/1.0.0.wasm"]


def test_a_signer_of_one_lane_cannot_approve_in_the_other_and_leaves_nothing_behind(office: Office, make_skill: Callable[..., bytes]):
    with pytest.raises(UsageError, match="not asked"):
        office.approve("safety", make_skill(), "fay")
    assert office.repository.pending("safety") is None
    office.approve("safety", make_skill("one"), "dora")
    before = office.file("safety").read_bytes()
    with pytest.raises(UsageError, match="not asked"):
        office.approve("safety", make_skill("two"), "fay")
    assert office.file("safety").read_bytes() == before


def test_a_version_is_never_approved_with_other_bytes_and_not_twice(office: Office, make_skill: Callable[..., bytes]):
    office.approve("productivity", make_skill(), "fay")
    with pytest.raises(UsageError, match="a version is never changed"):
        office.approve("productivity", make_skill(detail="other"), "fay")
    with pytest.raises(UsageError, match="in force already"):
        office.approve("productivity", make_skill(), "fay")


def test_an_unsigned_or_altered_bundle_cannot_be_approved(office: Office, make_skill: Callable[..., bytes]):
    altered = bytearray(make_skill(padding=256))
    altered[altered.index(b"padding") + 20] ^= 1
    for data in (make_skill(signer=None), bytes(altered), b"no wasm"):
        with pytest.raises(SnapcountError):
            office.approve("productivity", data, "fay")
    assert office.version("productivity") == 1


def test_an_approval_is_withdrawn_with_the_lanes_own_signatures(office: Office, make_skill: Callable[..., bytes]):
    office.approve("productivity", make_skill(), "fay")
    with pytest.raises(UsageError, match="not approved"):
        approvals.withdraw(office.repository, "productivity", "greeter", "9.9.9", key_of("fay"), office.now)
    approvals.withdraw(office.repository, "productivity", "greeter", "1.0.0", key_of("fay"), office.now)
    assert office.approved("productivity") == []
    assert office.version("productivity") == 3


# Keys that change.


def test_a_new_root_needs_enough_of_the_old_holders_and_enough_of_the_new(office: Office):
    rotation.rotate(office.repository, "root", [holder("dan"), holder("eva")], ["anna", "ben"], office.now)
    waiting = office.sign("root", "dan", "eva").waiting
    assert waiting == ("root 2 (keys of root: dan in, eva in, anna out, ben out): 2 more of anna, ben, carla",)
    office.sign("root", "carla")
    assert office.version("root") == 1
    assert office.sign("root", "ben").published == ("root 2",)
    former, new = (Metadata.from_bytes(office.published()[f"{n}.root.json"]) for n in (1, 2))
    former.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    new.signed.verify_delegate("root", new.signed_bytes, new.signatures)


def test_when_the_holders_of_targets_change_root_and_targets_are_published_together(office: Office):
    rotation.rotate(office.repository, "targets", [holder("tom"), holder("ute")], ["anna", "ben", "carla"], office.now)
    assert office.sign("root", "anna", "ben").published == (), "with this root alone nodes could not verify targets"
    done = office.sign("targets", "tom", "ute").published
    assert done == ("targets 2", "snapshot 2", "root 2", "timestamp 2")


def test_a_lanes_new_holder_signs_it_anew_and_both_are_published_together(office: Office, make_skill: Callable[..., bytes]):
    office.approve("productivity", make_skill(), "fay")
    rotation.rotate(office.repository, "productivity", [holder("gus")], ["fay"], office.now)
    assert office.sign("targets", "anna", "ben").published == ()
    done = office.sign("productivity", "gus").published
    assert done == ("productivity 3", "targets 2", "snapshot 3", "timestamp 3")
    with pytest.raises(UsageError, match="not asked"):
        office.approve("productivity", make_skill("other"), "fay")


def test_in_an_emergency_a_stolen_key_is_out_at_once_and_its_lane_waits(office: Office):
    rotation.rotate(office.repository, "productivity", [holder("gus")], ["fay"], office.now, leave=True)
    assert office.sign("targets", "anna", "ben").published == ("targets 2", "snapshot 2", "timestamp 2")
    lane = office.repository.current("productivity")
    assert lane is not None
    with pytest.raises(UnsignedMetadataError):
        office.repository.targets().verify_delegate("productivity", lane.signed_bytes, lane.signatures)
    assert office.sign("productivity", "gus").published == ("productivity 2", "snapshot 3", "timestamp 3")


def test_a_role_is_never_left_with_fewer_keys_than_must_sign(office: Office):
    for name in ("dora", "fay"):
        with pytest.raises(UsageError, match="would be left"):
            rotation.revoke(office.repository, name, office.now)
    assert office.repository.all_pending() == []


def test_revoking_a_key_that_stands_in_several_roles_asks_from_which(office: Office):
    with pytest.raises(UsageError, match="root, targets"):
        rotation.revoke(office.repository, "anna", office.now)
    rotation.revoke(office.repository, keys.public_text(key_of("anna").verify_key), office.now, role="root")
    office.sign("root", "ben", "carla")
    assert len(office.repository.root().roles["root"].keyids) == 2
    with pytest.raises(UsageError, match="no role has such a key"):
        rotation.revoke(office.repository, "zoe", office.now)


def test_a_rotation_cannot_give_a_key_two_roles_of_which_one_signs_alone(office: Office):
    with pytest.raises(UsageError, match="cannot sign both"):
        rotation.rotate(office.repository, "productivity", [holder("dora")], [], office.now)


@pytest.mark.parametrize("role", ONLINE)
def test_the_registrys_own_keys_are_replaced_and_what_they_sign_with_them(office: Office, role: str):
    before = office.repository.root().roles[role].keyids
    rotation.rotate_online(office.repository, role, office.now, office.seed)
    done = office.sign("root", "anna", "carla").published
    assert "root 2" in done
    assert f"{role} 2" in done
    assert not set(before) & set(office.repository.root().roles[role].keyids)
    signed = office.repository.current(role)
    assert signed is not None
    office.repository.root().verify_delegate(role, signed.signed_bytes, signed.signatures)


def test_an_approval_that_waits_when_keys_change_is_asked_of_the_new_holders(office: Office, make_skill: Callable[..., bytes]):
    office.approve("safety", make_skill(), "emil")
    rotation.rotate(office.repository, "safety", [holder("hans"), holder("ida")], ["dora", "emil"], office.now)
    office.sign("targets", "anna", "ben")
    assert office.sign("safety", "hans", "ida").published == ("safety 2", "targets 2", "snapshot 2", "timestamp 2")


def test_one_change_of_a_document_waits_at_a_time_and_can_be_forgotten(office: Office):
    rotation.rotate(office.repository, "root", [holder("dan")], [], office.now)
    with pytest.raises(UsageError, match="waits for signatures already"):
        rotation.rotate_online(office.repository, "timestamp", office.now, office.seed)
    steps.drop(office.repository, "root")
    with pytest.raises(UsageError, match="no change waits"):
        steps.drop(office.repository, "root")
    assert office.repository.all_pending() == []


# Time.


def test_the_registry_renews_snapshot_and_timestamp_when_half_of_their_time_is_over(office: Office):
    assert office.renew() == []
    office.now += LIFETIME["timestamp"] / 2 + timedelta(hours=1)
    assert office.renew() == ["timestamp 2"]
    office.now += LIFETIME["timestamp"] / 2 + timedelta(hours=1)
    assert office.renew() == ["snapshot 2", "timestamp 3"]
    assert sorted(office.published())[-1] == "timestamp.json"


def test_expiry_is_moved_at_once_for_what_is_online_and_by_signatures_for_the_rest(office: Office):
    done = rotation.expire(office.repository, "timestamp", 0, office.now)
    assert done.published == ("timestamp 2",)
    timestamp = office.repository.current("timestamp")
    assert timestamp is not None
    assert timestamp.signed.is_expired(office.now)
    assert office.renew() == ["timestamp 3"]
    rotation.expire(office.repository, "safety", 400, office.now)
    assert office.sign("safety", "dora", "emil").published == ("safety 2", "snapshot 2", "timestamp 4")
    lane = office.repository.current("safety")
    assert lane is not None
    assert lane.signed.expires == office.now + timedelta(days=400)
    with pytest.raises(UsageError, match="0 to 3650 days"):
        rotation.expire(office.repository, "safety", -1, office.now)


def test_the_status_in_words_names_roles_keys_expiry_and_what_waits(office: Office, make_skill: Callable[..., bytes]):
    office.approve("safety", make_skill(), "dora")
    office.now += timedelta(days=80)
    said = status.lines(status.status(office.repository, office.now))
    text = "\n".join(said)
    assert "root 1: holds 285 days more, signed by 2 of anna (ed25519:" in text
    assert "timestamp 1: expired 73 days ago" in text
    assert "snapcount keys expire productivity --days 90" in text
    assert "pending: safety 2 (approve greeter 1.0.0), signed by dora" in text
    assert "needs 1 more of emil" in text
    assert status.lines(status.status(TrustRepository(office.folder / "nowhere"), office.now)) == [
        "nothing is here yet: snapcount keys ceremony begins"
    ]


# What a kill, a copy or a bad file leaves.


@pytest.mark.parametrize("survived", range(6))
def test_a_kill_between_any_two_files_of_a_publication_is_mended_by_the_next_renewal(
    office: Office, monkeypatch: pytest.MonkeyPatch, survived: int
):
    rotation.rotate(office.repository, "targets", [holder("tom"), holder("ute")], ["anna", "ben", "carla"], office.now)
    office.sign("root", "anna", "ben")
    for name in ("tom", "ute"):
        steps.sign(office.file("targets"), key_of(name))
    written = 0
    real = TrustRepository.publish

    def publish(self: TrustRepository, role: str, metadata: Metadata[Any]) -> None:
        nonlocal written
        if written == survived:
            raise KeyboardInterrupt
        real(self, role, metadata)
        written += 1

    with monkeypatch.context() as patched:
        patched.setattr(TrustRepository, "publish", publish)
        try:
            office.renew()
        except KeyboardInterrupt:
            pass
    office.renew()
    assert [office.version(role) for role in ("root", "targets", "snapshot", "timestamp")] == [2, 2, 2, 2]
    assert office.repository.all_pending() == []
    snapshot = office.repository.current("snapshot")
    assert snapshot is not None
    assert snapshot.signed.meta["targets.json"].version == 2


def test_without_the_online_keys_nothing_is_renewed_and_the_reason_is_said(office: Office):
    shutil.rmtree(office.repository.online)
    with pytest.raises(UsageError, match="its key is not in this folder"):
        office.renew()


def test_a_damaged_published_file_is_named_rather_than_replaced(office: Office):
    (office.repository.metadata / "1.root.json").write_bytes(b"{")
    with pytest.raises(StateDamaged, match="root"):
        office.renew()


def test_an_overtaken_change_is_not_taken_back(office: Office, tmp_path: Path, make_skill: Callable[..., bytes]):
    office.approve("safety", make_skill(), "dora")
    old = tmp_path / "old.json"
    shutil.copy(office.file("safety"), old)
    office.approve("safety", make_skill(), "emil")
    with pytest.raises(UsageError, match="version 2 is published here"):
        steps.submit(office.repository, [old], office.now)


def test_our_key_files_sign_through_securesystemslib_by_uri(tmp_path: Path):
    keys.create(tmp_path / "k.key", b"k" * 32)
    public = Holder("k", SigningKey(b"k" * 32).verify_key).tuf_key()
    signer = PyNaClSigner.from_priv_key_uri(f"snapcount:{tmp_path / 'k.key'}", public)
    public.verify_signature(signer.sign(b"payload"), b"payload")
    for uri, key in ((f"file:{tmp_path / 'k.key'}", public), (f"snapcount:{tmp_path / 'k.key'}", holder("other").tuf_key())):
        with pytest.raises(ValueError, match=r"expected|not the private half"):
            PyNaClSigner.from_priv_key_uri(uri, key)


def test_every_role_has_a_threshold_and_a_life():
    assert set(THRESHOLDS) == set(LIFETIME) == set(ROLES)


# The commands.


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs a command of `snapcount keys` or `snapcount registry` and reads its JSON."""
    keys_app, registry_app = typer.Typer(), typer.Typer()
    commands.add_to_keys(keys_app)
    commands.add_to_registry(registry_app)
    monkeypatch.chdir(tmp_path)
    for name in {name for names in PEOPLE.values() for name in names} | {"gus"}:
        keys.create(tmp_path / f"{name}.key", bytes(key_of(name)))

    def invoke(group: str, *arguments: object, json_too: bool = True) -> dict[str, Any]:
        line = [*map(str, arguments), *(["--json"] if json_too else [])]
        done = CliRunner().invoke(keys_app if group == "keys" else registry_app, line, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1]) if json_too else {"text": done.stdout}

    return invoke


def test_the_whole_ceremony_and_an_approval_by_commands(
    run: Callable[..., dict[str, Any]], tmp_path: Path, make_skill: Callable[..., bytes]
):
    options = [word for role in ("root", "safety", "productivity") for name in PEOPLE[role] for word in (f"--{role}", f"{name}.pub")]
    told = run("keys", "ceremony", *options, json_too=False)["text"]
    assert "snapcount keys sign FILE" in told
    folder = tmp_path / "bundles" / "trust" / "pending"
    files = {role: folder / f"{role}.json" for role in OFFLINE}
    run("keys", "sign", files["root"], files["targets"], "--key", "anna.key")
    assert run("keys", "sign", files["root"], files["targets"], "--key", "ben.key")["missing"] == {
        str(files["root"]): [],
        str(files["targets"]): [],
    }
    run("keys", "sign", files["safety"], "--key", "dora.key")
    shown = run("keys", "sign", files["safety"], "--key", "emil.key", "--yes", json_too=False)["text"]
    assert "the last signature" in shown
    run("keys", "sign", files["productivity"], "--key", "fay.key")
    assert len(run("keys", "submit", *files.values())["published"]) == 6
    (tmp_path / "x.wasm").write_bytes(make_skill())
    waits = run("registry", "approve", "x.wasm", "--lane", "safety", "--key", "dora.key")
    assert waits["waiting"] == ["safety 2 (approve greeter 1.0.0): 1 more of emil"]
    assert run("registry", "approve", "x.wasm", "--lane", "safety", "--key", "emil.key")["published"][0] == "safety 2"
    assert "safety/greeter/1.0.0.wasm" in run("registry", "approvals", json_too=False)["text"]
    assert run("registry", "withdraw-approval", "greeter", "1.0.0", "--lane", "safety", "--key", "dora.key")["waiting"]
    run("keys", "drop", "safety", json_too=False)
    run("keys", "rotate", "productivity", "--add", "gus.pub", "--at-once")
    run("keys", "drop", "targets", json_too=False)
    run("keys", "rotate", "timestamp")
    run("keys", "drop", "root", json_too=False)
    assert run("keys", "expire", "timestamp", "--days", "1")["published"] == ["timestamp 3"]
    assert run("keys", "revoke", "carla.pub", "--role", "targets")["waiting"]
    assert run("registry", "renew")["published"] == [], "whatever is submitted renews what is due"
    assert set(run("keys", "status")["roles"]) == set(ROLES)


def test_signing_is_asked_for_and_a_no_leaves_the_file_as_it_was(fresh: Office, run: Callable[..., dict[str, Any]]):
    fresh.begin()
    before = fresh.file("root").read_bytes()
    app = typer.Typer()
    commands.add_to_keys(app)
    done = CliRunner().invoke(app, ["sign", str(fresh.file("root")), "--key", "anna.key"], input="n\n")
    assert isinstance(done.exception, UsageError)
    assert "roles root" in done.output
    assert fresh.file("root").read_bytes() == before
