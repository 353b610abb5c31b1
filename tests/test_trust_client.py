"""The node's side of trust, over HTTP on a loopback port: what it takes, what it refuses, and what it does without a network."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from nacl.signing import SigningKey
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from typer.testing import CliRunner

import host
from host.core.bundle import Bundle, UnverifiedBundle
from host.core.errors import (
    DigestMismatch,
    HostFault,
    MalformedData,
    NetworkError,
    NotApproved,
    Replayed,
    SignatureInvalid,
    SnapcountError,
    TooLarge,
    TrustExpired,
    UntrustedInput,
    UsageError,
)
from host.core.limits import DEFAULT
from host.supply.trust import TrustClient
from host.supply.trust_fetch import HttpFetcher
from registry.trust import approvals, ceremony, publishing, rotation, steps
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME
from registry.trust.routes import routes
from registry.trust.signer import Holder, PyNaClSigner
from sdk.cli import trust

ROOT = Path(host.__file__).resolve().parents[1]
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
PEOPLE = {"root": ("anna", "ben", "carla"), "targets": ("anna", "ben", "carla"), "safety": ("dora", "emil"), "productivity": ("fay",)}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def key_of(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"."))


def holder(name: str) -> Holder:
    return Holder(name, key_of(name).verify_key)


@dataclass
class Server:
    """A real HTTP server in a thread. `instead` answers some paths otherwise; `asked` are the paths that were asked for."""

    routes: list[web.RouteDef]
    instead: dict[str, Handler] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def __enter__(self) -> "Server":
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            app = web.Application(middlewares=[self._answer])
            app.add_routes(self.routes)
            self._runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
            ready.set()

        def run() -> None:
            self._loop.run_until_complete(serve())
            self._loop.run_forever()
            self._loop.run_until_complete(self._runner.cleanup())
            self._loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _answer_path(self, path: str) -> Handler | None:
        return next((answer for end, answer in self.instead.items() if path.endswith(end)), None)

    @property
    def _answer(self) -> Any:
        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.asked.append(request.rel_url.raw_path)
            return await (self._answer_path(request.path) or handler)(request)

        return answer

    def endless(self, size: int = 100 << 20) -> Handler:
        """A body of `size` bytes, of which it counts what was taken."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            piece = b" " * (64 << 10)
            for _ in range(size // len(piece)):
                await response.write(piece)
                self.sent += len(piece)
            return response

        return answer


def dribble(request: web.Request) -> Awaitable[web.StreamResponse]:
    async def answer() -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    return answer()


async def silence(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


def fixed(body: bytes) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    return answer


@dataclass
class Fleet:
    """An operator's registry behind a real server, and one node's client with the node's own clock."""

    registry: Path
    state: Path
    server: Server
    clock: Any
    author: SigningKey
    make_skill: Callable[..., bytes]
    safety_capabilities: frozenset[str] = frozenset({"motion"})

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @property
    def repository(self) -> TrustRepository:
        return TrustRepository(self.registry)

    @property
    def client(self) -> TrustClient:
        """As a node that has just started would make it."""
        url = f"{self.server.url}/trust/metadata"
        return TrustClient(self.state, url, self.clock, safety_capabilities=self.safety_capabilities)

    def refresh(self) -> None:
        asyncio.run(self.client.refresh())

    def refused(self, kind: type[SnapcountError], *names: str) -> str:
        with pytest.raises(kind) as refused:
            self.refresh()
        line = str(refused.value)
        assert line.isprintable()
        assert all(name in line for name in names), line
        return line

    def days(self, days: float) -> None:
        self.clock.advance(int(days * 86_400_000))

    def bundle(self, *named: str, **described: Any) -> Bundle:
        return UnverifiedBundle.parse(self.make_skill(*named, **described), "x").verify([self.author.verify_key])

    def approve(self, lane: Any, bundle: Bundle, *names: str) -> None:
        for name in names:
            approvals.approve(self.repository, lane, bundle.data, "x", key_of(name), self.now)

    def sign(self, role: str, *names: str) -> steps.Outcome:
        for name in names:
            steps.sign(self.repository.pending_path(role), key_of(name))
        return steps.submit(self.repository, [self.repository.pending_path(role)], self.now)

    def renew(self) -> None:
        publishing.renew(self.registry, self.now)

    def forge(self, role: str, metadata: Metadata[Any], *names: str) -> None:
        """Puts metadata up for download, past everything that the operators' tools check."""
        metadata.signatures.clear()
        for name in names:
            metadata.sign(PyNaClSigner(key_of(name)), append=True)
        self.repository.publish(role, metadata)

    def sign_online(self, **lanes: int) -> None:
        """A snapshot and timestamp, by the registry's own keys, for these versions: what whoever holds the server can do."""
        snapshot, timestamp = self.repository.current("snapshot"), self.repository.current("timestamp")
        assert snapshot is not None
        assert timestamp is not None
        for lane, version in lanes.items():
            snapshot.signed.meta[f"{lane}.json"] = MetaFile(version)
        self.resign("snapshot", snapshot)
        timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        self.resign("timestamp", timestamp)

    def resign(self, role: str, metadata: Metadata[Any]) -> None:
        metadata.signed.version += 1
        online = self.repository.online_keys()
        keyid = self.repository.root().roles[role].keyids[0]
        metadata.sign(PyNaClSigner(online[keyid]))
        self.repository.publish(role, metadata)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry after its ceremony, to be copied."""
    folder = tmp_path_factory.mktemp("founded")
    repository, seeds = TrustRepository(folder), iter(range(1, 255))
    held = {role: [holder(name) for name in names] for role, names in PEOPLE.items()}
    ceremony.begin(repository, held, START, lambda size: bytes([next(seeds)]) * size)
    for role, names in PEOPLE.items():
        for name in names[:2]:
            steps.sign(repository.pending_path(role), key_of(name))
    steps.submit(repository, [repository.pending_path("root")], START)
    return folder


@pytest.fixture
def fleet(founded: Path, tmp_path: Path, clock: Any, author: SigningKey, make_skill: Callable[..., bytes]) -> Iterator[Fleet]:
    registry = tmp_path / "registry"
    shutil.copytree(founded, registry)
    clock.now = int(START.timestamp() * 1000)
    with Server(routes(registry, lambda digest: registry / "blobs" / digest.removeprefix("sha256:"))) as server:
        made = Fleet(registry, tmp_path / "state" / "trust", server, clock, author, make_skill)
        made.client.init((registry / "trust" / "metadata" / "1.root.json").read_bytes())
        yield made


# What is let in.


def test_an_approved_bundle_is_let_in_by_its_lane_and_any_other_is_refused(fleet: Fleet):
    fast, slow, none = fleet.bundle("fast"), fleet.bundle("slow"), fleet.bundle("none")
    fleet.approve("productivity", fast, "fay")
    fleet.approve("safety", slow, "dora", "emil")
    fleet.refresh()
    assert fleet.client.require(fast) == "productivity"
    assert fleet.client.require(slow) == "safety"
    with pytest.raises(NotApproved, match=r"none 1\.0\.0: not approved in the safety lane; not approved in the productivity lane"):
        fleet.client.require(none)


def test_the_same_name_and_version_with_other_bytes_is_refused(fleet: Fleet):
    fleet.approve("productivity", fleet.bundle(), "fay")
    fleet.refresh()
    with pytest.raises(NotApproved, match="with other bytes"):
        fleet.client.require(fleet.bundle(detail="other"))


def test_a_capability_that_the_owner_lists_as_safety_comes_by_the_safety_lane_only(fleet: Fleet):
    mover = fleet.bundle("mover", capabilities=("motion",))
    fleet.approve("productivity", mover, "fay")
    fleet.refresh()
    with pytest.raises(NotApproved, match="asks for motion, which only the safety lane may bring"):
        fleet.client.require(mover)
    fleet.approve("safety", mover, "dora", "emil")
    fleet.refresh()
    assert fleet.client.require(mover) == "safety"


def test_one_signature_in_the_safety_lane_is_no_approval(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.approve("safety", bundle, "dora")
    fleet.refresh()
    with pytest.raises(NotApproved):
        fleet.client.require(bundle)


def test_an_approval_under_another_name_does_not_count(fleet: Fleet):
    bundle = fleet.bundle()
    lane = fleet.repository.current("productivity")
    assert lane is not None
    target = listed("productivity/greeter/1.0.0.wasm", bundle)
    target.unrecognized_fields["custom"]["name"] = "other"
    lane.signed.targets[target.path] = target
    lane.signed.version += 1
    fleet.forge("productivity", lane, "fay")
    fleet.sign_online(productivity=2)
    fleet.refresh()
    with pytest.raises(NotApproved, match=r"as other 1\.0\.0"):
        fleet.client.require(bundle)


def test_a_withdrawn_approval_counts_no_more(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    approvals.withdraw(fleet.repository, "productivity", "greeter", "1.0.0", key_of("fay"), fleet.now)
    fleet.refresh()
    with pytest.raises(NotApproved):
        fleet.client.require(bundle)


def test_a_node_without_a_root_or_before_its_first_refresh_approves_nothing(fleet: Fleet, tmp_path: Path):
    bundle = fleet.bundle()
    with pytest.raises(TrustExpired, match="has not reached"):
        fleet.client.require(bundle)
    bare = TrustClient(tmp_path / "bare", fleet.server.url, fleet.clock)
    assert not bare.initialised
    with pytest.raises(NotApproved, match="no root of trust"):
        asyncio.run(bare.refresh())
    assert fleet.client.expires() == {}


def test_a_root_is_taken_once_and_only_when_it_is_soundly_signed(fleet: Fleet, tmp_path: Path, founded: Path):
    client = TrustClient(tmp_path / "other", fleet.server.url, fleet.clock)
    raw = (founded / "trust" / "metadata" / "1.root.json").read_bytes()
    alone = json.loads(raw)
    alone["signatures"] = alone["signatures"][:1]
    for bad, kind in (
        (b"{}", MalformedData),
        (b"[" * 200_000, MalformedData),
        (json.dumps(alone).encode(), SignatureInvalid),
        ((founded / "trust" / "metadata" / "1.targets.json").read_bytes(), MalformedData),
        (b" " * (DEFAULT.trust_root_bytes_max + 1), TooLarge),
    ):
        with pytest.raises(kind):
            client.init(bad)
        assert not client.initialised
    client.init(raw)
    client.init(raw)
    rotation.rotate(fleet.repository, "root", [holder("dan")], [], fleet.now)
    fleet.sign("root", "anna", "ben")
    with pytest.raises(UsageError, match="another root"):
        client.init((fleet.repository.metadata / "2.root.json").read_bytes())


# Keys that change.


def test_a_node_that_slept_through_three_root_rotations_follows(fleet: Fleet):
    fleet.refresh()
    for new, old, signers in (
        ("dan", "anna", ("ben", "carla", "dan")),
        ("eva", "ben", ("carla", "dan", "eva")),
        ("finn", "carla", ("dan", "eva", "finn")),
    ):
        rotation.rotate(fleet.repository, "root", [holder(new)], [old], fleet.now)
        fleet.sign("root", *signers)
    bundle = fleet.bundle()
    fleet.days(30)
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    assert fleet.client.require(bundle) == "productivity"
    assert sorted(path.name for path in (fleet.state / "metadata" / "root_history").iterdir()) == [f"{n}.root.json" for n in (1, 2, 3, 4)]


def test_a_root_that_only_its_new_holders_signed_is_refused_and_the_old_one_stays(fleet: Fleet):
    root = fleet.repository.current("root")
    assert root is not None
    root.signed.version = 2
    for keyid in list(root.signed.roles["root"].keyids):
        root.signed.revoke_key(keyid, "root")
    for name in ("mallory", "marvin"):
        root.signed.add_key(holder(name).tuf_key(), "root")
    fleet.forge("root", root, "mallory", "marvin")
    fleet.refused(SignatureInvalid, "root was signed by 0/2 keys")
    assert not (fleet.state / "metadata" / "root_history" / "2.root.json").exists()


# The drill: Fay's productivity key is stolen. In the worst case the thief also sits on the registry's server and signs snapshots with its own keys.


def listed(path: str, bundle: Bundle) -> TargetFile:
    target = TargetFile.from_data(path, bundle.data, ["sha256"])
    target.unrecognized_fields = {"custom": {"name": bundle.manifest.name, "version": bundle.manifest.version}}
    return target


def test_drill_a_stolen_productivity_key_does_not_reach_the_safety_lane_through_the_operators_tools(fleet: Fleet):
    mover = fleet.bundle("mover", capabilities=("motion",))
    with pytest.raises(UsageError, match="not asked"):
        fleet.approve("safety", mover, "fay")
    fleet.approve("productivity", mover, "fay")
    fleet.refresh()
    with pytest.raises(NotApproved, match="only the safety lane may bring"):
        fleet.client.require(mover)


def test_drill_a_stolen_productivity_key_cannot_sign_safety_metadata_nor_name_its_paths_even_from_the_server(fleet: Fleet):
    mover = fleet.bundle("mover", capabilities=("motion",))
    lane = fleet.repository.current("productivity")
    assert lane is not None
    lane.signed.targets["safety/mover/1.0.0.wasm"] = listed("safety/mover/1.0.0.wasm", mover)
    lane.signed.version = 2
    fleet.forge("productivity", lane, "fay")
    fleet.sign_online(productivity=2)
    fleet.refresh()
    with pytest.raises(NotApproved):
        fleet.client.require(mover)
    lane.signed.version = 2
    fleet.forge("safety", lane, "fay")
    fleet.sign_online(safety=2)
    fleet.refused(SignatureInvalid, "safety lane", "0/2 keys")
    with pytest.raises(UntrustedInput):
        fleet.client.require(mover)


def test_drill_a_stolen_productivity_key_cannot_roll_back_even_from_the_server(fleet: Fleet):
    flawed = fleet.bundle("greeter", "1.0.0")
    fleet.approve("productivity", flawed, "fay")
    approvals.withdraw(fleet.repository, "productivity", "greeter", "1.0.0", key_of("fay"), fleet.now)
    fleet.approve("productivity", fleet.bundle("greeter", "1.0.1"), "fay")
    fleet.refresh()
    fleet.sign_online(productivity=2)  # the version of it that did approve 1.0.0, with Fay's own signature
    fleet.refused(Replayed)
    with pytest.raises(SnapcountError):
        fleet.client.require(flawed)


def test_drill_a_stolen_productivity_key_does_not_outlive_its_revocation(fleet: Fleet):
    good, evil, guard = fleet.bundle("good"), fleet.bundle("evil"), fleet.bundle("guard")
    fleet.approve("safety", guard, "dora", "emil")
    fleet.approve("productivity", good, "fay")
    fleet.approve("productivity", evil, "fay")  # the thief may do this much
    fleet.refresh()
    assert fleet.client.require(evil) == "productivity"
    rotation.rotate(fleet.repository, "productivity", [holder("gus")], ["fay"], fleet.now, leave=True)
    fleet.sign("targets", "anna", "ben")
    fleet.refused(SignatureInvalid, "productivity lane")
    for bundle in (evil, good):
        with pytest.raises(SignatureInvalid):
            fleet.client.require(bundle)
    assert fleet.client.require(guard) == "safety", "the other lane goes on"
    with pytest.raises(UsageError, match="not asked"):
        fleet.approve("productivity", fleet.bundle("more"), "fay")
    approvals.withdraw(fleet.repository, "productivity", "evil", "1.0.0", key_of("gus"), fleet.now)
    fleet.refresh()
    assert fleet.client.require(good) == "productivity"
    with pytest.raises(NotApproved):
        fleet.client.require(evil)
    lane = fleet.repository.current("productivity")  # from the server, with the stolen key, once more
    assert lane is not None
    lane.signed.version += 1
    fleet.forge("productivity", lane, "fay")
    fleet.sign_online(productivity=lane.signed.version)
    fleet.refused(SignatureInvalid, "productivity lane")


def test_drill_when_the_servers_own_keys_were_stolen_too_new_ones_undo_what_they_signed(fleet: Fleet):
    """A fast-forward: the thief signs versions that the operators will not reach for years."""
    bundle = fleet.bundle()
    fleet.approve("safety", bundle, "dora", "emil")
    fleet.sign_online(safety=1_000_000)
    fleet.refused(SnapcountError)
    for role in ("snapshot", "timestamp"):
        rotation.rotate_online(fleet.repository, role, fleet.now, lambda size, role=role: role.encode().ljust(size, b"."))
        fleet.sign("root", "anna", "ben")
    fleet.refresh()
    assert fleet.client.require(bundle) == "safety"


# Without a network, and time.


def test_a_node_that_is_cut_off_installs_what_is_approved_until_the_timestamp_expires(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    fleet.server.instead["timestamp.json"] = silence
    asked = len(fleet.server.asked)
    fleet.days(6)
    assert fleet.client.require(bundle) == "productivity"
    fleet.days(24)
    with pytest.raises(TrustExpired, match="expired"):
        fleet.client.require(bundle)
    assert len(fleet.server.asked) == asked, "no network is needed to decide"
    assert set(fleet.client.expires()) == {"root", "timestamp", "snapshot", "targets", "safety", "productivity"}


def test_after_thirty_days_in_the_dark_one_refresh_brings_it_all_back(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.refresh()
    fleet.days(30)
    with pytest.raises(TrustExpired):
        fleet.client.require(bundle)
    fleet.approve("productivity", bundle, "fay")
    fleet.renew()
    fleet.refresh()
    assert fleet.client.require(bundle) == "productivity"


def test_a_server_that_freezes_the_fleet_with_an_old_timestamp_is_found_out(fleet: Fleet):
    fleet.refresh()
    fleet.days(8)
    fleet.refused(TrustExpired, "timestamp.json is expired")


def test_one_lane_that_expired_does_not_stop_the_other(fleet: Fleet):
    slow, fast = fleet.bundle("slow"), fleet.bundle("fast")
    fleet.approve("safety", slow, "dora", "emil")
    fleet.approve("productivity", fast, "fay")
    fleet.refresh()
    fleet.days(LIFETIME["productivity"].days + 1)
    fleet.renew()
    fleet.refused(TrustExpired, "productivity")
    assert fleet.client.require(slow) == "safety"
    with pytest.raises(TrustExpired):
        fleet.client.require(fast)


@pytest.mark.parametrize("said_expired", [True, False])
def test_a_clock_set_back_by_a_year_does_not_make_expired_metadata_valid(fleet: Fleet, said_expired: bool):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    fleet.days(8)
    if said_expired:
        with pytest.raises(TrustExpired):
            fleet.client.require(bundle)
    else:
        fleet.refused(TrustExpired)
    fleet.days(-365)
    with pytest.raises(TrustExpired):
        fleet.client.require(bundle)
    fleet.refused(TrustExpired)


def test_a_clock_that_ran_a_year_ahead_for_a_moment_does_not_shut_the_node_out(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    fleet.days(365)
    fleet.refused(TrustExpired)
    fleet.days(-365)
    with pytest.raises(TrustExpired):
        fleet.client.require(bundle)
    fleet.days(4)
    fleet.renew()
    fleet.refresh()
    assert fleet.client.require(bundle) == "productivity"


def test_a_clock_that_starts_in_1970_goes_by_the_time_it_has_seen(fleet: Fleet):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    fleet.refresh()
    fleet.clock.now = 0
    fleet.refresh()
    assert fleet.client.require(bundle) == "productivity"


# Rollback, mix and match, wrong signatures.


def test_an_older_timestamp_is_refused(fleet: Fleet):
    fleet.approve("productivity", fleet.bundle("one"), "fay")
    old = (fleet.repository.metadata / "timestamp.json").read_bytes()
    fleet.approve("productivity", fleet.bundle("two"), "fay")
    fleet.refresh()
    fleet.server.instead["timestamp.json"] = fixed(old)
    fleet.refused(Replayed, "version")


def test_an_older_timestamp_is_refused_even_after_the_local_one_was_lost(fleet: Fleet):
    fleet.approve("productivity", fleet.bundle("one"), "fay")
    old = (fleet.repository.metadata / "timestamp.json").read_bytes()
    fleet.approve("productivity", fleet.bundle("two"), "fay")
    fleet.refresh()
    for name in ("timestamp.json", "snapshot.json"):
        (fleet.state / "metadata" / name).write_bytes(b"")
    fleet.server.instead["timestamp.json"] = fixed(old)
    fleet.refused(Replayed, "which this node has seen")
    with pytest.raises(Replayed):
        fleet.client.require(fleet.bundle("one"))
    fleet.server.instead.clear()
    fleet.refresh()
    assert fleet.client.require(fleet.bundle("one")) == "productivity"


def test_after_the_online_keys_were_replaced_the_repository_may_count_anew(fleet: Fleet):
    for name in ("one", "two", "three"):
        fleet.approve("productivity", fleet.bundle(name), "fay")
    fleet.refresh()
    rotation.rotate_online(fleet.repository, "timestamp", fleet.now, lambda size: b"t" * size)
    fleet.sign("root", "anna", "ben")
    timestamp = fleet.repository.current("timestamp")
    assert timestamp is not None
    timestamp.signed.version = 0
    fleet.resign("timestamp", timestamp)
    fleet.refresh()
    assert json.loads((fleet.state / "seen.json").read_bytes())["timestamp"] == 1


def test_lanes_of_two_moments_cannot_be_mixed(fleet: Fleet):
    fleet.approve("productivity", fleet.bundle("one"), "fay")
    old = (fleet.repository.metadata / "2.productivity.json").read_bytes()
    fleet.approve("productivity", fleet.bundle("two"), "fay")
    fleet.server.instead["3.productivity.json"] = fixed(old)
    fleet.refused(UntrustedInput, "productivity lane")


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"signed": {}}', b"\xff" * 100, b"[" * 10_000, b'{"signed": {"_type": "timestamp", "version": "x"}}']
)
def test_metadata_that_is_none_is_refused_in_one_line_and_not_kept(fleet: Fleet, name: str, body: bytes):
    fleet.server.instead[name] = fixed(body)
    fleet.refused(UntrustedInput, "trust metadata")
    kept = fleet.state / "metadata" / name.removeprefix("1.")
    assert not kept.exists()


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.safety.json"])
def test_metadata_with_a_wrong_signature_is_refused(fleet: Fleet, name: str):
    raw = json.loads((fleet.repository.metadata / name).read_bytes())
    for signature in raw["signatures"]:
        signature["sig"] = signature["sig"][:-2] + ("00" if signature["sig"][-2:] != "00" else "01")
    fleet.server.instead[name] = fixed(json.dumps(raw).encode())
    fleet.refused(UntrustedInput)
    assert not (fleet.state / "metadata" / name.removeprefix("1.")).exists()


# A server that means harm, or is just bad.


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("2.root.json", DEFAULT.trust_root_bytes_max), ("timestamp.json", DEFAULT.trust_timestamp_bytes_max),
        ("1.snapshot.json", DEFAULT.trust_snapshot_bytes_max), ("1.targets.json", DEFAULT.trust_targets_bytes_max),
    ],
)  # fmt: skip
def test_metadata_of_100_mb_is_cut_off_at_its_bound(fleet: Fleet, name: str, bound: int):
    fleet.server.instead[name] = fleet.server.endless()
    fleet.refused(TooLarge)
    assert fleet.server.sent < bound + (16 << 20), "what stands in socket buffers may have been sent, not the rest"
    assert not any(path.stat().st_size > bound for path in fleet.state.rglob("*") if path.is_file())


def test_delegations_without_end_are_followed_for_a_few_steps_only(fleet: Fleet):
    """The holders of targets went mad: each role delegates the lane's paths to the next."""
    key = holder("fay").tuf_key()
    targets = fleet.repository.current("targets")
    assert targets is not None
    names = [f"r{number}" for number in range(40)]

    def delegating(name: str) -> Delegations:
        return Delegations({key.keyid: key}, {name: DelegatedRole(name, [key.keyid], 1, False, ["*/*/*"])})

    targets.signed.delegations = delegating(names[0])
    targets.signed.version = 2
    fleet.forge("targets", targets, "anna", "ben")
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        made = Metadata(Targets(expires=fleet.now + timedelta(days=1), delegations=delegating(following)))
        fleet.forge(name, made, "fay")
    fleet.sign_online(targets=2, **dict.fromkeys(names, 1))
    served = fleet.repository.metadata
    for name in names:
        fleet.server.instead[f"1.{name}.json"] = fixed((served / f"1.{name}.json").read_bytes())
    fleet.refresh()
    with pytest.raises(NotApproved):
        fleet.client.require(fleet.bundle())
    assert len({path for path in fleet.server.asked if "/1.r" in path and "root" not in path}) <= DEFAULT.trust_delegations_max


@pytest.mark.slow
def test_a_hundred_thousand_delegations_in_one_file_are_more_than_a_node_reads(fleet: Fleet):
    key = holder("fay").tuf_key()
    targets = fleet.repository.current("targets")
    assert targets is not None
    roles: dict[str, DelegatedRole] = {f"r{n}": DelegatedRole(f"r{n}", [key.keyid], 1, False, ["no/*"]) for n in range(100_000)}
    targets.signed.delegations = Delegations({key.keyid: key}, roles)
    targets.signed.version = 2
    fleet.forge("targets", targets, "anna", "ben")
    fleet.sign_online(targets=2)
    fleet.refused(TooLarge)


def test_a_server_that_is_gone_is_a_network_error_and_changes_nothing(fleet: Fleet, tmp_path: Path):
    fleet.refresh()
    before = {path: path.read_bytes() for path in fleet.state.rglob("*") if path.is_file()}
    gone = TrustClient(fleet.state, "http://127.0.0.1:9/trust/metadata", fleet.clock)
    with pytest.raises(NetworkError):
        asyncio.run(gone.refresh())
    assert {path: path.read_bytes() for path in fleet.state.rglob("*") if path.is_file()} == before


def test_a_server_that_answers_with_an_error_is_a_network_error(fleet: Fleet):
    async def broken(request: web.Request) -> web.StreamResponse:
        raise web.HTTPServiceUnavailable

    fleet.server.instead["timestamp.json"] = broken
    fleet.refused(NetworkError, "503")


def test_a_refresh_that_is_cancelled_ends_at_once(fleet: Fleet):
    fleet.server.instead["timestamp.json"] = silence

    async def main() -> float:
        task = asyncio.ensure_future(fleet.client.refresh())
        async with asyncio.timeout(10):
            while not any(path.endswith("timestamp.json") for path in fleet.server.asked):  # noqa: ASYNC110 - another thread's list
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic()

    cancelled = asyncio.run(main())  # waits for the thread
    assert time.monotonic() - cancelled < 5


def test_a_full_disk_is_a_fault_of_this_node(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: object, **more: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tuf.ngclient.updater.tempfile.NamedTemporaryFile", full)
    fleet.refused(HostFault, "No space left")


# The fetcher alone.


@pytest.mark.slow
def test_the_fetcher_is_bounded_over_all_files_and_by_time_and_idleness():
    with Server([]) as server:
        server.instead |= {"/big": server.endless(4 << 20), "/slow": dribble, "/never": silence, "/some": fixed(b"x" * 1000)}

        def take(name: str, bytes_max: int = 1 << 30, **bounds: float) -> bytes:
            with HttpFetcher(bytes_max, **bounds) as fetcher:
                return b"".join(fetcher.fetch(server.url + name))

        assert take("/some") == b"x" * 1000
        with pytest.raises(DownloadLengthMismatchError):
            take("/big", 1 << 20)
        with pytest.raises(SlowRetrievalError, match="in all"):
            take("/slow", total_s=0.3)
        with pytest.raises(SlowRetrievalError, match="for the next bytes"):
            take("/never", idle_s=0.1)
        with pytest.raises(DownloadHTTPError):
            take("/none")
        with HttpFetcher(1500) as fetcher:
            assert len(b"".join(fetcher.fetch(server.url + "/some"))) == 1000
            with pytest.raises(DownloadLengthMismatchError):
                b"".join(fetcher.fetch(server.url + "/some"))
            fetcher.allow(2000)
            assert len(b"".join(fetcher.fetch(server.url + "/some"))) == 1000


def test_the_fetcher_speaks_http_only_and_lets_no_name_break_the_request_line():
    with Server([]) as server, HttpFetcher(1 << 20) as fetcher:
        for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", ""):
            with pytest.raises(DownloadError):
                b"".join(fetcher.fetch(url))
        with pytest.raises(DownloadHTTPError):
            b"".join(fetcher.fetch(server.url + "/a b\r\nX-Evil: 1/%2F/ü"))
        assert server.asked == ["/a%20b%0D%0AX-Evil:%201/%2F/%C3%BC"]


def test_a_compressed_body_is_not_unpacked():
    async def packed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"not gzip at all", headers={"Content-Encoding": "gzip"})

    with Server([], {"/x": packed}) as server, HttpFetcher(1 << 20) as fetcher:
        assert b"".join(fetcher.fetch(server.url + "/x")) == b"not gzip at all"


# What the registry serves.


@pytest.mark.slow
def test_bundles_are_served_by_the_name_that_a_tuf_client_asks_for(fleet: Fleet, tmp_path: Path):
    bundle = fleet.bundle()
    fleet.approve("productivity", bundle, "fay")
    blob = fleet.registry / "blobs" / bundle.digest.removeprefix("sha256:")
    blob.parent.mkdir()
    blob.write_bytes(bundle.data)
    root = fleet.repository.metadata / "1.root.json"
    trust = ("--metadata-dir", tmp_path / "m", "--metadata-url", f"{fleet.server.url}/trust/metadata")
    cli(*trust[:2], "init", root)
    fleet.clock.now = int(time.time() * 1000)
    name = "productivity/greeter/1.0.0.wasm"
    base = ("--target-name", name, "--target-base-url", f"{fleet.server.url}/trust/targets", "--target-dir", tmp_path / "t")
    republish(fleet)
    cli(*trust, *base, "download")
    assert [path.read_bytes() for path in (tmp_path / "t").iterdir()] == [bundle.data]


def republish(fleet: Fleet) -> None:
    """Makes everything that this system's own clock would find expired hold again."""
    for role in ("root", "targets", "safety", "productivity"):
        rotation.expire(fleet.repository, role, 30, fleet.now)
        fleet.sign(role, *PEOPLE[role][:2])
    fleet.renew()


@pytest.mark.parametrize(
    "path",
    [
        "/trust/metadata/root.json", "/trust/metadata/..%2Fonline%2Fx.key", "/trust/metadata/.lock", "/trust/metadata/9.root.json",
        "/trust/metadata/0.root.json", "/trust/metadata/1.other.json", "/trust/targets/other/a/{h}.1.0.0.wasm",
        "/trust/targets/safety/a/{h}.wasm", "/trust/targets/safety/a/xyz.1.0.0.wasm", "/trust/targets/safety/a/{h}.1.0.0.wasm",
        "/trust/targets/safety/a/{h}.%2E%2E%2Fx.wasm",
    ],
)  # fmt: skip
def test_nothing_but_published_files_is_served(fleet: Fleet, path: str):
    with HttpFetcher(1 << 20) as fetcher, pytest.raises(DownloadHTTPError) as refused:
        b"".join(fetcher.fetch(fleet.server.url + path.format(h="a" * 64)))
    assert refused.value.status_code == 404


# The command, against repositories that are not ours.


def cli(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`snapcount trust …` as a process of its own."""
    command = [sys.executable, "-P", "-c", "from sdk.cli.trust import app; app()", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
    return ended


SIGNERS: dict[str, Callable[[], CryptoSigner]] = {
    "ed25519": lambda: CryptoSigner(ed25519.Ed25519PrivateKey.generate()),
    "rsa": lambda: CryptoSigner(rsa.generate_private_key(public_exponent=65_537, key_size=2048)),
    "ecdsa-nistp256": lambda: CryptoSigner(ec.generate_private_key(ec.SECP256R1())),
    "ecdsa-nistp384": lambda: CryptoSigner(ec.generate_private_key(ec.SECP384R1())),
    "ecdsa-legacy-type": lambda: legacy(ec.generate_private_key(ec.SECP256R1())),
}


def legacy(private: ec.EllipticCurvePrivateKey) -> CryptoSigner:
    """A key whose type is named as its scheme, as older repositories do."""
    plain = SSlibKey.from_crypto(private.public_key())
    return CryptoSigner(private, SSlibKey(plain.keyid, "ecdsa-sha2-nistp256", plain.scheme, plain.keyval))


@dataclass
class Foreign:
    """A small TUF repository as others make them: one key for every role, one target at the top and one in a delegation."""

    folder: Path
    signer: Signer
    content: bytes = b"target content"

    def publish(self, version: int = 1, days: float = 1) -> "Foreign":
        expires, key = datetime.now(UTC) + timedelta(days=days), self.signer.public_key
        root = Root(version=version, expires=expires)
        for role in root.roles:
            root.add_key(key, role)
        deep = TargetFile.from_data("deep/er.bin", self.content, ["sha512"])
        flat = TargetFile.from_data("flat.bin", self.content)
        odd = DelegatedRole("../odd?#", [key.keyid], 1, False, ["deep/*"])
        targets = Targets(
            version=version, expires=expires, targets={"flat.bin": flat}, delegations=Delegations({key.keyid: key}, {odd.name: odd})
        )
        below = Targets(version=version, expires=expires, targets={"deep/er.bin": deep})
        meta = {f"{name}.json": MetaFile(version) for name in ("targets", odd.name)}
        self.write(f"{version}.root.json", root)
        self.write(f"{version}.targets.json", targets)
        self.write(f"{version}.{'..%2Fodd%3F%23'}.json", below)
        self.write(f"{version}.snapshot.json", Snapshot(version=version, expires=expires, meta=meta))
        self.write("timestamp.json", Timestamp(version=version, expires=expires, snapshot_meta=MetaFile(version)))
        for target in (deep, flat):
            for path in target.get_prefixed_paths():
                (self.folder / "targets" / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / "targets" / path).write_bytes(self.content)
        return self

    def write(self, name: str, signed: Any) -> None:
        metadata = Metadata(signed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            metadata.sign(self.signer)
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)
        (self.folder / "metadata" / name).write_bytes(metadata.to_bytes())

    def serve(self) -> Server:
        async def answer(request: web.Request) -> web.StreamResponse:
            path = self.folder / request.match_info["kind"] / request.rel_url.raw_path.split("/", 2)[2]
            return web.FileResponse(path) if path.is_file() else web.Response(status=404)

        return Server([web.get("/{kind}/{name:.*}", answer)])

    def options(self, server: Server, state: Path, name: str = "flat.bin") -> tuple[object, ...]:
        return (
            "--metadata-dir", state / "m", "--metadata-url", f"{server.url}/metadata", "--target-name", name,
            "--target-base-url", f"{server.url}/targets", "--target-dir", state / "t",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIGNERS)
def test_the_command_takes_every_key_type_that_tuf_names(tmp_path: Path, kind: str):
    foreign = Foreign(tmp_path / "repository", SIGNERS[kind]()).publish()
    with foreign.serve() as server:
        options = foreign.options(server, tmp_path)
        cli(*options[:2], "init", foreign.folder / "metadata" / "1.root.json")
        cli(*options[:4], "refresh")
        assert sorted(path.name for path in (tmp_path / "m").glob("*.json")) == [
            "root.json",
            "snapshot.json",
            "targets.json",
            "timestamp.json",
        ]
        cli(*options, "download")
        cli("download", *foreign.options(server, tmp_path, "deep/er.bin"))
        assert [path.read_bytes() for path in sorted((tmp_path / "t").iterdir())] == [foreign.content] * 2
        before = len(server.asked)
        cli(*options, "download")
        assert not any(path.startswith("/targets") for path in server.asked[before:]), "what is here is not fetched again"


@pytest.mark.slow
def test_the_command_fails_with_code_1_and_keeps_nothing_that_is_not_proven(tmp_path: Path):
    foreign = Foreign(tmp_path / "repository", SIGNERS["ed25519"]()).publish()
    root = foreign.folder / "metadata" / "1.root.json"
    with foreign.serve() as server:
        options = foreign.options(server, tmp_path)
        cli(*options[:4], "refresh", code=1)  # before init
        (tmp_path / "bad.json").write_bytes(root.read_bytes().replace(b'"version":1', b'"version":2'))
        cli(*options[:2], "init", tmp_path / "bad.json", code=1)
        cli(*options[:2], "init", tmp_path / "missing.json", code=1)
        assert not (tmp_path / "m").exists()
        cli("init", *options[:2], root)
        assert "--metadata-url is missing" in cli("refresh", *options[:2], code=1).stderr
        cli("download", *foreign.options(server, tmp_path, "not there"), code=1)
        server.instead["flat.bin"] = fixed(b"other content!")
        cli(*options, "download", code=1)
        server.instead["flat.bin"] = fixed(b"x" * 1_000_000)
        cli(*options, "download", code=1)
        assert not list((tmp_path / "t").glob("*"))
        for name in ("..", ".", ""):
            cli("download", *foreign.options(server, tmp_path, name), code=1)
        server.instead.clear()
        (tmp_path / "m" / "root.json").unlink()  # a kill while tuf replaced its link
        cli(*options, "download")
        stranger = Foreign(tmp_path / "stranger", SIGNERS["rsa"]()).publish()
        cli(*options[:2], "init", stranger.folder / "metadata" / "1.root.json", code=1)
        foreign.publish(version=2, days=-1)
        assert "expired" in cli(*options[:4], "refresh", code=1).stderr


def test_a_damaged_target_of_a_foreign_repository_is_a_digest_mismatch(tmp_path: Path):
    foreign = Foreign(tmp_path / "repository", SIGNERS["ed25519"]()).publish()
    (tmp_path / "m").mkdir()
    shutil.copy(foreign.folder / "metadata" / "1.root.json", tmp_path / "m" / "root.json")
    with foreign.serve() as server:
        server.instead["flat.bin"] = fixed(b"other content!")
        (tmp_path / "t").mkdir()
        with pytest.raises(DigestMismatch), trust._updater(tmp_path / "m", f"{server.url}/metadata") as (updater, fetcher):
            trust._download(updater, fetcher, "flat.bin", f"{server.url}/targets", tmp_path / "t")


def test_neither_the_command_nor_its_help_loads_tuf():
    code = "import sys, sdk.cli.trust, sdk.cli.ceremony; sys.exit(any(name.split('.')[0] in ('tuf', 'aiohttp') for name in sys.modules))"
    ended = subprocess.run([sys.executable, "-P", "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=30)
    assert ended.returncode == 0


def test_a_node_is_given_its_root_by_a_command_once(fleet: Fleet, tmp_path: Path, make_state: Callable[..., Path], clock: Any):
    app = typer.Typer()
    trust.add_to_node(app)
    state = make_state(tmp_path / "node-1", clock)
    root = fleet.repository.metadata / "1.root.json"
    done = CliRunner().invoke(app, [str(root), "--state", str(state)], catch_exceptions=False)
    assert "set trust.metadata in node.toml" in done.output
    assert (state / "trust" / "initial-root.json").read_bytes() == root.read_bytes()


def test_what_a_killed_refresh_left_behind_is_swept(fleet: Fleet):
    leftover = fleet.state / "metadata" / "tmpabcdefgh"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    fleet.refresh()
    assert not leftover.exists()
