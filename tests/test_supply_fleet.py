"""The whole supply chain through real processes: a registry, and nodes that are away, killed, lied to, cut off and stopped while it works."""

import asyncio
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from nacl.signing import SigningKey

from host import config, identity
from host.core import fleet, keys, quarantine
from host.core.clock import SystemClock, SystemRandom
from host.core.desired import DesiredState, Wanted
from host.core.errors import SnapcountError, UntrustedInput
from host.supply.desired import RolledBack, plan
from registry import rollout_document
from registry.audit import Row
from registry.fleet import Fleet
from registry.links import NodeLinks
from registry.rollout_client import RolloutHttp
from registry.rollout_document import Action, ActionName, Rate, Rollout, Stage
from sdk.demo.fleet import LocalFleet
from sdk.demo.samples import BOUNTY

SOON_S = 30.0
TRAP = "(unreachable)"
WHOLE = (Stage(name="all", share=1.0, soak_s=0, min_sample=1, error_max=0.9, stratum_error_max=0.9),)
CAREFUL = (Stage(name="all", share=1.0, soak_s=0, min_sample=1, error_max=0.2, stratum_error_max=0.9),)


class Plant(LocalFleet):
    """A registry and nodes as a test wants them, in no mesh unless it says so. `options` are the registry's."""

    def __init__(self, folder: Path, author: SigningKey) -> None:
        super().__init__(folder, 0, author)
        self.author = author
        self.options: tuple[str, ...] = ()
        self.token = ""

    @property
    def http(self) -> RolloutHttp:
        return RolloutHttp(self.url, self.token)

    def add(
        self, name: str, *, generation: int = 1, registry: str | None = None, operators: bool = True, announcements: bool | None = None,
        supply: str = "", mesh: config.Mesh | None = None, crash_at: str = "", start: bool = True, **described: Any,
    ) -> None:  # fmt: skip
        """Makes a node, and starts it. `supply` are lines of [supply]; `described` goes into node.toml."""
        signers = (keys.public_text(self.operator.verify_key),) if operators else ()
        toml = config.template(
            name, keys.public_text(self.owner.verify_key), generation, self.url if registry is None else registry, (keys.public_text(self.author.verify_key),),
            ("log", "clock", "random", "state", "motion"), ("virtual_machine",), mesh, sector="hall-1", operators=signers, announcements=announcements,
            **described,
        )  # fmt: skip
        for line in filter(None, supply.splitlines()):  # the first such line is that of [supply], before those of [mesh]
            toml = re.sub(rf"(?m)^{line.partition(' ')[0]} = .*$", line, toml, count=1)
        identity.create(self.state(name), toml, self.owner, SystemClock(), SystemRandom())
        self.names.append(name)
        if start:
            self.start_node(name, crash_at)

    def restart_registry(self) -> None:
        self.start_registry(int(self.url.rpartition(":")[2]))

    def kill(self, name: str) -> None:
        """SIGKILL, as by a power cut."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def signal(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)

    def died(self, name: str) -> None:
        """Waits until a process has killed itself at its crash point."""
        self.wait_for(f"{name} to die", lambda: self.ended(name) == -signal.SIGKILL, SOON_S)
        self.kill(name)

    def connected(self, *names: str) -> None:
        self.wait_for("nodes to connect", lambda: all(self.status(name)["registry"]["connected"] for name in names or self.names), SOON_S)

    def skills(self, name: str) -> dict[str, str]:
        return {skill["name"]: skill["version"] for skill in self.status(name)["skills"]}

    def runs(self, version: str, *names: str, skill: str = "greeter") -> None:
        """Waits until these nodes run this version; empty for not at all."""
        for name in names or self.names:
            self.wait_for(f"{name} to run {skill} {version}", lambda name=name: self.skills(name).get(skill, "") == version, SOON_S)

    def roll_out(self, data: bytes, id: str, **document: Any) -> dict[str, Any]:
        """Uploads and starts; does not wait."""
        kept = self.http.upload(data)
        wanted: dict[str, Any] = {"stages": WHOLE, "rate": Rate(nodes_per_minute=1_000), "probation_s": 0, "answer_s": 60} | document
        named = {key: kept[key] for key in ("name", "version", "digest", "size")}
        signed = rollout_document.sign(Rollout(id=id, issued_ms=SystemClock().now_ms(), **named, **wanted), self.operator)
        self.wait_for("the registry to know a node that can take it", lambda: self._started(signed), SOON_S)
        return kept

    def _started(self, signed: bytes) -> bool:
        try:
            self.http.start(signed)
        except UntrustedInput as error:
            if "no node that is selected can take it" in str(error):  # a node knows that it is connected before the inventory does
                return False
            raise
        return True

    def act(self, id: str, action: ActionName) -> None:
        document = Action(id=id, action=action, at_ms=SystemClock().now_ms(), nonce=os.urandom(16))
        self.http.act(id, action, rollout_document.sign_action(document, self.operator))

    def becomes(self, id: str, status: str) -> dict[str, Any]:
        """Waits until a roll-out has this status."""
        try:
            self.wait_for(f"roll-out {id} to be {status}", lambda: self.http.rollout(id)["status"] == status, SOON_S)
        except SnapcountError:
            print(json.dumps(self.http.rollout(id), indent=1))
            raise
        return self.http.rollout(id)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def says(self, name: str, words: str) -> None:
        self.wait_for(f"{name} to log {words!r}", lambda: words in self.log(name), SOON_S)

    def rows(self, kind: str, id: str) -> list[dict[str, Any]]:
        """What the audit log has of one kind about one roll-out."""
        return [_detail(row) for row in self.http.every_row() if row.kind == kind and _detail(row).get("rollout") == id]

    def cli(self, *arguments: str) -> Any:
        """A command's JSON."""
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "sdk.cli.main", *arguments, "--json"], env=os.environ | {"PYTHONPATH": str(Path(config.__file__).parents[1])},
            capture_output=True, text=True, timeout=60, check=False, cwd=self.folder,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    def bids(self, name: str, count: int = 1) -> None:
        for _ in range(count):
            with suppress(SnapcountError):
                self.control(name).post("/v1/hooks/bid", BOUNTY)

    def _spawn(self, name: str, log: Path, arguments: list[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
        return super()._spawn(name, log, [*arguments, *self.options] if name == "registry" else arguments, extra)


def _detail(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.detail)
    return found


@pytest.fixture
def plant(tmp_path: Path, author: SigningKey) -> Iterator[Plant]:
    with Plant(tmp_path, author) as made:
        yield made


class Wire:
    """A TCP proxy before a registry: counts the blobs that are asked for through it, and breaks its links when told to."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.blobs: Counter[str] = Counter()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Breaks every link there is now."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._copy, args=(source, sink, source is near), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if asks:
                    self.blobs.update(digest.decode() for digest in re.findall(rb"GET /v1/blobs/(sha256:[0-9a-f]{64})", data))
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if not asks:
            for one in (source, sink):
                self._open.discard(one)
                one.close()


@pytest.fixture
def wire() -> Iterator[Callable[[str], Wire]]:
    made: list[Wire] = []

    def make(target: str) -> Wire:
        made.append(Wire(target))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def liar() -> Iterator[str]:
    """A parent that answers every request for a blob with wrong bytes."""

    class Lies(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "300000")
            self.end_headers()
            with suppress(OSError):  # who notices hangs up
                self.wfile.write(b"\0" * 300_000)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lies)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


# Desired states.


@pytest.mark.slow
@pytest.mark.ci
def test_a_registry_that_is_killed_in_a_roll_out_goes_on_and_a_node_that_was_away_gets_it_once(plant, make_skill):
    plant.start_registry()
    plant.add("here")
    plant.add("away")
    plant.connected()
    plant.roll_out(make_skill(version="1.0.0"), "first")
    plant.becomes("first", "done")
    plant.stop("away")
    soaking = (Stage(name="canary", count=1, soak_s=3, min_sample=1), Stage(name="all", share=1.0, soak_s=0, min_sample=1))
    plant.roll_out(make_skill(version="1.1.0"), "second", stages=soaking)
    plant.runs("1.1.0", "here")
    assert plant.http.rollout("second")["status"] == "running"
    plant.kill("registry")
    plant.restart_registry()
    done = plant.becomes("second", "done")
    assert done["counts"]["active"] == 1, "the node that is away is not counted before it has it"
    plant.stop("registry")
    plant.start_node("away")
    plant.restart_registry()
    assert plant.log("registry").count("registry: stopping") == 1, "told to stop, it does"
    plant.runs("1.1.0", "here", "away")
    plant.wait_for("both to be counted", lambda: plant.http.rollout("second")["counts"]["active"] == 2)
    assert sorted(row["node"] for row in plant.rows("start", "second")) == ["away", "here"], "each was started once"
    assert len(plant.rows("ended", "second")) == 1
    assert plant.cli("registry", "audit", "verify", "--dir", "registry")["verified"] is True
    for name in ("here", "away"):
        told = [line for line in plant.log(name).splitlines() if "greeter 1.1.0 is active" in line]
        assert len(told) == 1, "it was installed once"


@pytest.mark.slow
def test_announcements_are_taken_where_the_owner_says_so_and_never_for_what_a_desired_state_names(plant, make_skill):
    plant.start_registry()
    plant.add("quiet")
    plant.add("open", announcements=True)
    plant.add("alone", operators=False)
    plant.connected()
    assert plant.http.announce(plant.http.upload(make_skill(version="1.0.0"))["digest"])["nodes"] == 3
    plant.runs("1.0.0", "open", "alone")
    plant.roll_out(make_skill(version="1.1.0"), "first")
    plant.runs("1.1.0", "quiet", "open")
    assert plant.skills("alone") == {"greeter": "1.0.0"}
    plant.http.announce(plant.http.upload(make_skill(version="1.2.0"))["digest"])
    plant.http.announce(plant.http.upload(make_skill("other"))["digest"])
    plant.runs("1.0.0", "open", "alone", skill="other")
    plant.runs("1.2.0", "alone")
    assert plant.skills("open")["greeter"] == "1.1.0"
    assert "takes it from its operators only" in plant.log("open")
    assert plant.skills("quiet") == {"greeter": "1.1.0"}


@pytest.mark.slow
@pytest.mark.ci
def test_what_the_owner_took_off_or_went_back_from_stays_so_until_the_operators_ask_anew(plant, make_skill):
    plant.start_registry()
    plant.add("mine")
    plant.connected()
    first, second = make_skill(version="1.0.0"), make_skill(version="1.1.0")
    for number, data in enumerate((first, second)):
        plant.roll_out(data, f"roll-{number}")
        plant.becomes(f"roll-{number}", "done")
    assert plant.control("mine").post("/v1/rollback/greeter")["version"] == "1.0.0"
    plant.roll_out(make_skill("other"), "other")  # a new desired state, for the sake of something else
    plant.becomes("other", "done")
    assert plant.skills("mine") == {"greeter": "1.0.0", "other": "1.0.0"}
    plant.roll_out(make_skill(version="1.2.0"), "roll-2")
    plant.becomes("roll-2", "done")
    plant.runs("1.2.0")
    plant.control("mine").post("/v1/remove/greeter")
    plant.stop("mine")
    plant.start_node("mine")
    plant.connected()
    plant.roll_out(make_skill("other", "1.0.1"), "other-2")
    plant.becomes("other-2", "done")
    assert plant.skills("mine") == {"other": "1.0.1"}, "neither what was taken off nor an earlier version of it comes back by itself"
    plant.roll_out(make_skill(version="1.2.0"), "roll-3")
    plant.becomes("roll-3", "done")
    assert plant.skills("mine")["greeter"] == "1.2.0"
    plant.act("roll-3", "abort")  # nothing of what was taken off is in the way of what comes later
    plant.becomes("roll-3", "aborted")


# Bad versions.


@pytest.mark.slow
@pytest.mark.ci
def test_a_bad_version_is_taken_back_with_its_cause_and_the_fixed_one_comes_as_a_patch(plant, make_skill):
    plant.start_registry()
    plant.add("mine")
    plant.connected()
    size = plant.roll_out(make_skill(version="1.0.0", padding=1 << 17), "good-1")["size"]
    plant.becomes("good-1", "done")
    plant.roll_out(make_skill(version="1.1.0", padding=1 << 17, body=TRAP), "bad-1", probation_s=60, stages=CAREFUL)
    plant.runs("1.1.0")
    plant.bids("mine", 8)
    back = plant.becomes("bad-1", "rolled-back")
    plant.runs("1.0.0")
    assert "calls trapped" in back["failures"][0]["message"], back
    assert back["failures"][0]["code"] == "probation"
    before = plant.status("mine")["supply"]["bytes_received"]
    plant.roll_out(make_skill(version="1.1.1", padding=1 << 17), "fixed", probation_s=1)
    plant.becomes("fixed", "done")
    plant.runs("1.1.1")
    assert plant.status("mine")["supply"]["bytes_received"] - before < size * 0.15


@pytest.mark.slow
@pytest.mark.ci
def test_a_node_that_is_killed_at_any_step_of_a_bad_roll_out_still_goes_back_and_says_why(plant, make_skill):
    plant.start_registry()
    plant.add("mine")
    plant.connected()
    plant.roll_out(make_skill(version="1.0.0"), "good-1")
    plant.becomes("good-1", "done")
    for number, point in enumerate(("activated", "condemned", "returned", "cleared"), 1):
        plant.stop("mine")
        plant.start_node("mine", point)
        plant.connected()
        plant.roll_out(make_skill(version=f"1.{number}.0", body=TRAP), f"bad-{number}", probation_s=60, stages=CAREFUL)
        if number > 1:  # the other points are on the way back
            plant.runs(f"1.{number}.0")
            plant.bids("mine", 8)
        plant.died("mine")
        plant.start_node("mine")
        if number == 1:
            plant.runs(f"1.{number}.0")
            plant.bids("mine", 8)
        back = plant.becomes(f"bad-{number}", "rolled-back")
        # What was killed after it had cleared everything away knows only that it went back.
        said = "did badly on probation" if point == "cleared" else "calls trapped"
        assert said in back["failures"][0]["message"], (point, back["failures"])
        plant.runs("1.0.0")
    plant.roll_out(make_skill(version="2.0.0"), "fixed")
    plant.becomes("fixed", "done")
    plant.runs("2.0.0")


# Ways of the bytes.


@pytest.mark.slow
@pytest.mark.ci
def test_through_a_tree_of_three_tiers_the_registry_is_asked_once_for_each_blob_and_a_parent_that_lies_is_avoided(
    plant, wire, liar, make_skill
):
    plant.start_registry()
    before = wire(plant.url)
    plant.add("lead", registry=before.url, supply='serve = "127.0.0.1:0"')
    plant.connected("lead")
    lead = f"http://127.0.0.1:{plant.status('lead')['supply']['serves_on']}"
    plant.add("middle", registry=before.url, supply=f'serve = "127.0.0.1:0"\nparents = ["{lead}"]')
    plant.connected("middle")
    middle = f"http://127.0.0.1:{plant.status('middle')['supply']['serves_on']}"
    plant.add("leaf", registry=before.url, supply=f'parents = ["{middle}"]')
    plant.add("misled", registry=before.url, supply=f'parents = ["{liar}", "{middle}"]')
    plant.connected()
    kept = [plant.roll_out(make_skill(version="1.0.0", padding=1 << 17), "first")]
    plant.becomes("first", "done")
    kept.append(plant.roll_out(make_skill(version="1.1.0", padding=1 << 17), "second"))
    plant.becomes("second", "done")
    plant.runs("1.1.0")
    assert before.blobs[kept[0]["digest"]] == 1
    assert set(before.blobs.values()) == {1}, "a patch is asked for once too"
    assert kept[1]["digest"] not in before.blobs, "the second version came as a patch"
    assert f"{liar} sent" in plant.log("misled"), "it is reported"
    assert plant.log("misled").count(f"{liar} sent") == 1, "and avoided from then on"
    received = [plant.status(name)["supply"]["bytes_received"] for name in ("lead", "middle", "leaf")]
    assert max(received) < 1.2 * kept[0]["size"]


@pytest.mark.slow
@pytest.mark.ci
def test_a_node_whose_link_flaps_gets_all_of_a_roll_out_and_two_at_once(plant, wire, make_skill):
    plant.start_registry()
    link = wire(plant.url)
    plant.add("shaky", registry=link.url, supply="down_bytes_s = 200000")
    plant.connected()
    size = 0
    for skill in ("greeter", "other"):
        size += plant.roll_out(make_skill(skill, padding=1 << 18), f"{skill}-1")["size"]
    until = time.monotonic() + SOON_S
    while plant.skills("shaky") != {"greeter": "1.0.0", "other": "1.0.0"} and time.monotonic() < until:
        time.sleep(0.4)
        link.cut()
    for skill in ("greeter", "other"):
        plant.becomes(f"{skill}-1", "done")
        assert len(plant.rows("start", f"{skill}-1")) == 1
    assert plant.status("shaky")["supply"]["bytes_received"] < 1.5 * size, "what broke off was resumed"


@pytest.mark.slow
def test_a_roll_out_that_is_aborted_while_a_node_fetches_or_after_it_is_done_leaves_what_was_there(plant, make_skill):
    plant.start_registry()
    plant.add("slow", supply="down_bytes_s = 100000")
    plant.connected()
    plant.roll_out(make_skill(version="1.0.0"), "first")
    plant.becomes("first", "done")
    plant.roll_out(make_skill("other", padding=1 << 18), "other")
    plant.wait_for("the fetch to begin", lambda: plant.status("slow")["supply"]["bytes_received"] > 50_000)
    plant.act("other", "abort")
    plant.becomes("other", "aborted")
    plant.roll_out(make_skill(version="1.1.0"), "second")
    plant.becomes("second", "done")
    assert plant.skills("slow") == {"greeter": "1.1.0"}
    assert "other 1.0.0 is active" not in plant.log("slow"), "an aborted version is not installed after all"
    plant.act("second", "abort")
    plant.becomes("second", "aborted")
    plant.runs("1.0.0")


@pytest.mark.slow
def test_a_registry_that_lets_nobody_pull_without_a_login_serves_the_node_that_has_one(plant, make_skill):
    plant.options = ("--anonymous", "none")
    plant.token = plant.cli("registry", "token", "new", "operator", "--dir", "registry", "--scope", "push", "--scope", "pull")["token"]
    login = plant.cli("registry", "token", "new", "nodes", "--dir", "registry", "--scope", "pull")["token"]
    (plant.folder / "registry/trust").mkdir()
    plant.start_registry()
    plant.add("known", start=False)
    (plant.state("known") / identity.REGISTRY_LOGIN).write_text(login + "\n")
    (plant.state("known") / identity.REGISTRY_LOGIN).chmod(0o600)
    plant.start_node("known")
    plant.add("stranger")
    plant.connected()
    kept = plant.roll_out(make_skill(), "first")
    plant.runs("1.0.0", "known")
    plant.says("stranger", "answered 401")
    assert plant.skills("stranger") == {}
    assert login.partition(":")[2] not in plant.log("known")
    for path in (f"/v1/blobs/{kept['digest']}", f"/trust/targets/productivity/greeter/{kept['digest'].removeprefix('sha256:')}.1.0.0.wasm"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(plant.url + path, timeout=10)
        refused.value.close()
        assert refused.value.code == 401, path


# Quarantine.


def _disable(id: str, key: SigningKey, **fields: Any) -> bytes:
    return quarantine.sign(quarantine.Disable(id=id, issued_ms=SystemClock().now_ms(), **({"skill": "greeter"} | fields)), key)


def _listens(plant: Plant, name: str) -> str:
    plant.wait_for(f"{name} to listen", lambda: bool(plant.status(name)["mesh"]["listening"]), SOON_S)
    return f"ws://{plant.status(name)['mesh']['listening']}"


@pytest.mark.slow
@pytest.mark.ci
def test_a_quarantine_policy_reaches_who_is_there_at_once_and_who_was_away_before_anything_else(plant, make_skill):
    plant.start_registry()
    above = config.Mesh(role="orchestrator", listen="127.0.0.1:0", heartbeat_s=0.5)
    plant.add("top", mesh=above)
    plant.add("away")
    plant.connected()
    below = config.Mesh(role="lead", parents=(_listens(plant, "top"),), listen="127.0.0.1:0", heartbeat_s=0.5)
    plant.add("below", registry="", mesh=below)
    lowest = config.Mesh(role="agent", parents=(_listens(plant, "below"),), heartbeat_s=0.5)
    plant.add("lowest", registry="", mesh=lowest)
    plant.wait_for("the mesh to stand", lambda: plant.control("top").get("/v1/mesh/status")["agents"]["active"] == 1, SOON_S)
    plant.roll_out(make_skill(), "first")
    plant.becomes("first", "done")
    plant.signal("away", signal.SIGSTOP)  # it reads nothing, and nobody waits for it
    began = time.monotonic()
    assert plant.http.police(_disable("q-1", plant.operator, versions="1.0.0")) == {"id": "q-1", "nodes": 2}
    for name in ("top", "below", "lowest"):
        plant.wait_for(f"{name} to hold it", lambda name=name: [p["id"] for p in plant.status(name)["policies"]] == ["q-1"], SOON_S)
    assert time.monotonic() - began < 5
    with pytest.raises(SnapcountError, match="q-1"):
        plant.control("top").post("/v1/hooks/bid", BOUNTY)
    plant.signal("away", signal.SIGCONT)
    plant.says("away", "quarantine policy q-1")
    plant.stop("away")
    plant.roll_out(make_skill(version="1.1.0"), "second")
    plant.http.police(_disable("q-2", plant.operator, hook="bid"))
    with pytest.raises(UntrustedInput):
        plant.http.police(_disable("q-3", SigningKey(b"x" * 32)))
    plant.kill("registry")
    plant.restart_registry()
    plant.start_node("away")
    plant.runs("1.1.0", "away")
    words = plant.log("away")[plant.log("away").rindex("ready, ") :]
    assert words.index("quarantine policy q-2") < words.index("desired state"), words
    assert [policy["id"] for policy in plant.status("away")["policies"]] == ["q-1", "q-2"]
    assert [policy["id"] for policy in plant.http._ask("GET", "/v1/policies")["policies"]] == ["q-1", "q-2"]
    assert [_detail(row)["id"] for row in plant.http.every_row() if row.kind == "quarantine"] == ["q-1", "q-2"]
    assert plant.cli("registry", "audit", "verify", "--dir", "registry")["verified"] is True


# Approvals.


@pytest.mark.slow
@pytest.mark.ci
def test_a_node_that_goes_by_approvals_installs_nothing_without_one_in_the_lane_that_it_needs(plant, make_skill):
    for person in ("anna", "ben", "carla", "dora", "emil", "fay"):
        keys.create(plant.folder / f"{person}.key", os.urandom(32))
    holders = [f"--{role}={name}.pub" for role, name in (("root", "anna"), ("root", "ben"), ("root", "carla"), ("safety", "dora"), ("safety", "emil"), ("productivity", "fay"))]  # fmt: skip
    plant.cli("keys", "ceremony", *holders, "--dir", "registry")
    pending = sorted(str(path) for path in (plant.folder / "registry/trust/pending").glob("*.json"))
    for person in ("anna", "ben", "dora", "emil", "fay"):
        wanted = [path for path in pending if Path(path).stem in _roles_of(person)]
        plant.cli("keys", "sign", *wanted, "--key", f"{person}.key", "--yes")
    plant.cli("keys", "submit", *pending, "--dir", "registry")
    plant.start_registry()
    plant.add("careful", metadata=f"{plant.url}/trust/metadata", safety_capabilities=("motion",), start=False)
    plant.cli("node", "trust-root", "registry/trust/metadata/1.root.json", "--state", str(plant.state("careful")))
    plant.start_node("careful")
    plant.connected()
    plain, moving = make_skill(), make_skill("mover", capabilities=("motion",))
    for data, id in ((plain, "plain"), (moving, "moving")):
        (plant.folder / f"{id}.wasm").write_bytes(data)
        plant.roll_out(data, id, stages=CAREFUL)
        assert plant.becomes(id, "rolled-back")["failures"][0]["code"] == "not_approved"
    assert plant.skills("careful") == {}
    for id in ("plain", "moving"):
        plant.cli("registry", "approve", f"{id}.wasm", "--lane", "productivity", "--key", "fay.key", "--dir", "registry")
        plant.roll_out((plant.folder / f"{id}.wasm").read_bytes(), f"{id}-2", stages=CAREFUL)
    plant.becomes("plain-2", "done")
    assert "only the safety lane may bring" in plant.becomes("moving-2", "rolled-back")["failures"][0]["message"]
    for person in ("dora", "emil"):
        plant.cli("registry", "approve", "moving.wasm", "--lane", "safety", "--key", f"{person}.key", "--dir", "registry")
    plant.roll_out(moving, "moving-3", stages=CAREFUL)
    plant.becomes("moving-3", "done")
    plant.kill("careful")
    plant.stop("registry")
    plant.start_node("careful")
    plant.wait_for("what was approved to be there", lambda: plant.skills("careful") == {"greeter": "1.0.0", "mover": "1.0.0"}, SOON_S)


def _roles_of(person: str) -> tuple[str, ...]:
    return {"dora": ("safety",), "emil": ("safety",), "fay": ("productivity",)}.get(person, ("root", "targets"))


# What takes no process.


def _wish(version: str, digest: str, rollout: str) -> Wanted:
    return Wanted(name="greeter", version=version, digest=f"sha256:{digest * 64}", size=8, rollout=rollout)


def test_what_a_roll_out_goes_back_to_after_the_owner_took_its_version_off_is_not_taken():
    off = RolledBack("greeter", "1.1.0", f"sha256:{'b' * 64}", "r-1", "the owner of this node took it off", dropped=True, by_owner=True)

    def planned(wish: Wanted, active: dict[str, str]) -> list[Wanted | None]:
        state = DesiredState(node="mine", serial=2, issued_ms=0, skills=(wish,))
        return [step.wanted for step in plan(state, active, {off.digest: off})]

    back, again, later = _wish("1.0.0", "a", "r-1"), _wish("1.1.0", "b", "r-1"), _wish("1.2.0", "c", "r-2")
    assert planned(back, {}) == []
    assert planned(again, {}) == [again], "an operator's retry"
    assert planned(later, {}) == [later]
    assert planned(back, {"greeter": again.digest}) == [back], "it was asked for anew, and is aborted now"
    assert off.code == "removed"


def test_a_node_that_connects_hears_of_every_policy_before_anything_else(clock):
    def policies() -> Iterator[bytes]:
        for document in (b"one", b"two"):
            nodes.desire("mine", b"a state")  # decided while it is told, for a link of it that stood before
            yield document

    async def listen() -> list[type]:
        app = web.Application()
        app.router.add_get("/v1/nodes", nodes.handle)
        async with TestClient(TestServer(app)) as client, client.ws_connect("/v1/nodes") as socket:
            challenge = fleet.open_plain(await socket.receive_bytes())
            assert isinstance(challenge, fleet.Challenge)
            hello = fleet.Hello(node="mine", nonce=challenge.nonce, generation=1, certificate=b"", host="", skills=())
            await socket.send_bytes(fleet.seal(hello, SigningKey(b"n" * 32)))
            told = [type(fleet.open_plain(await socket.receive_bytes())) for _ in range(2)]
            nodes.desire("mine", b"a state")
            return [*told, type(fleet.open_plain(await socket.receive_bytes()))]

    nodes = NodeLinks(Fleet(), clock, lambda level, line: None, policies, lambda: [])
    assert asyncio.run(listen()) == [fleet.Policy, fleet.Policy, fleet.Desired]
