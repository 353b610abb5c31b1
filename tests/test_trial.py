"""Versions on trial: the steps of an install, in memory only; and the stream of events at the control socket, with which a trial begins and ends."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host import events as events_module
from host.console.client import SOCKET, ControlRefused, EventStream, NodeControl
from host.control import ControlServer
from host.core import cbor, keys
from host.core.attestation import Measurement
from host.core.bundle import digest_of, with_signature
from host.core.clock import SystemClock
from host.core.errors import Incompatible, NetworkError, Refused, SignatureInvalid, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, SkillLimits
from host.events import CALLS_A_TURN, _Watcher, described
from host.node import Node
from host.plugins.contract import HandleRequest
from host.plugins.observed import Call
from host.plugins.tally import Tally
from host.sandbox.imports import HostCall
from sdk.demo.samples import BID, BOUNTY
from sdk.dev import shown
from skills import module_path

MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
TRIED, NAME = "1.0.1-dev.1", "greeter"


@pytest.fixture
def node(tmp_path: Path, make_state, clock) -> Iterator[Node]:
    made = open_node(make_state(tmp_path / "node", clock), clock)
    yield made
    made.close()


def open_node(state: Path, clock: Any) -> Node:
    return Node.open(state, MEASURED, clock=clock, log=lambda level, line: None)


def run(what: Any) -> Any:
    return asyncio.run(what)


def install(node: Node, data: bytes) -> None:
    run(node.install(data, digest_of(data)))


def try_out(node: Node, data: bytes, name: str = NAME) -> None:
    run(node.try_out(name, data, digest_of(data)))


def bids(node: Node) -> list[str]:
    return [reply.id for reply in node.manager.hook.bid(request=BID)]


def files_of(node: Node, state: Path) -> dict[str, str]:
    """What is on the node's disk of skills, by name; the caches and the journal aside."""
    kept = [path for folder in ("skills", "blobs") for path in (state / folder).rglob("*")]
    return {str(path.relative_to(state)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept if path.is_file()}


def test_a_trial_answers_and_when_it_ends_what_was_installed_answers_again(node, make_skill, tmp_path):
    install(node, make_skill())
    before = files_of(node, tmp_path / "node")
    running = node.manager.skills[NAME]
    try_out(node, make_skill(version=TRIED))
    assert bids(node) == [TRIED]
    try_out(node, make_skill(version="1.0.1-dev.2"))
    assert bids(node) == ["1.0.1-dev.2"]
    assert files_of(node, tmp_path / "node") == before
    run(node.end_trial(NAME))
    assert bids(node) == ["1.0.0"]
    assert node.manager.skills[NAME] is running
    assert files_of(node, tmp_path / "node") == before
    outcomes = [row["outcome"] for row in node.journal.installs(10)]
    assert sorted(outcomes) == ["active", "on trial", "on trial", "trial ended"]


def test_a_trial_of_a_skill_that_was_not_there_leaves_nothing(node, make_skill):
    try_out(node, make_skill(version=TRIED))
    assert bids(node) == [TRIED]
    run(node.end_trial(NAME))
    assert node.manager.skills == {}
    assert list((node._state / "compiled").glob("*.cwasm")) == []


def test_a_node_that_restarts_has_what_was_installed(tmp_path, make_state, make_skill, clock):
    state = make_state(tmp_path / "node", clock)
    node = open_node(state, clock)
    install(node, make_skill())
    try_out(node, tried := make_skill(version=TRIED))
    bids(node)
    node.installer._watcher.save()  # as each 30 s
    compiled = state / "compiled"
    assert len(list(compiled.glob("*.cwasm"))) == 2
    node.journal.close()  # as a kill leaves it
    again = open_node(state, clock)
    assert bids(again) == ["1.0.0"]
    assert (len(list(compiled.glob("*.cwasm"))), len(list(compiled.glob("*.tag")))) == (1, 1)
    assert again.journal.health(digest_of(tried)) == Tally()
    again.close()


def test_a_refused_trial_leaves_what_ran(node, make_skill, one_line):
    install(node, make_skill())
    stranger = keys.SigningKey(b"x" * 32)
    try_out(node, make_skill(version=TRIED))
    for data, error, said in (
        (make_skill(version="1.0.1-dev.2", signer=stranger), SignatureInvalid, "not trusted here"),
        (make_skill(version="1.0.1-dev.2", signer=None), SignatureInvalid, "unsigned"),
        (make_skill(version="1.0.1-dev.2", ok=False, detail="no tool"), Incompatible, "no tool"),
        (make_skill(version="1.0.1-dev.2", generations=(9,)), Incompatible, "generation"),
        (make_skill(version="1.0.1-dev.2", capabilities=("power",)), Refused, "power"),
        (make_skill(version="0.9.0-dev.1"), Incompatible, "older than the active version 1.0.0"),
        (make_skill(version="1.0.1"), UsageError, "pre-releases only"),
        (make_skill(name="other", version="1.0.1-dev.2"), UsageError, "this is a trial of greeter"),
    ):
        with pytest.raises(error) as caught:
            try_out(node, data)
        one_line(caught.value, said)
        assert bids(node) == [TRIED]
    assert [row["outcome"] for row in node.journal.installs(3)] == ["refused on trial"] * 3


def test_what_is_installed_during_a_trial_ends_it_and_stays(node, make_skill):
    install(node, make_skill())
    try_out(node, make_skill(version=TRIED))
    install(node, make_skill(version="2.0.0"))
    assert bids(node) == ["2.0.0"]
    run(node.end_trial(NAME))
    assert bids(node) == ["2.0.0"]
    assert node.installer.on_trial(NAME) is None


def test_what_is_installed_already_and_comes_in_again_ends_no_trial(node, make_skill):
    # A registry announces again what a node does not name as active.
    install(node, make_skill())
    try_out(node, make_skill(version=TRIED))
    install(node, make_skill())
    assert bids(node) == [TRIED]
    run(node.end_trial(NAME))
    assert bids(node) == ["1.0.0"]


def test_a_skill_that_is_removed_during_its_trial_stays_removed(node, make_skill):
    install(node, make_skill())
    try_out(node, make_skill(version=TRIED))
    run(node.remove(NAME))
    run(node.end_trial(NAME))
    assert node.manager.skills == {}


def test_nothing_is_tried_out_in_place_of_a_version_on_probation(node, make_skill):
    install(node, make_skill())
    data = make_skill(version="1.0.1")
    run(node.install(data, digest_of(data), probation_s=600))
    with pytest.raises(Refused, match="probation"):
        try_out(node, make_skill(version="1.0.2-dev.1"))


def test_a_probation_that_begins_over_a_trial_is_judged_by_what_was_installed(node, make_skill):
    install(node, make_skill())
    for _ in range(5):
        bids(node)
    try_out(node, make_skill(version=TRIED))
    data = make_skill(version="1.0.1")
    run(node.install(data, digest_of(data), probation_s=600))
    assert node.installer.watching(NAME).baseline.calls >= 5


def test_a_nodes_status_says_what_is_on_trial(node, make_skill):
    install(node, make_skill())
    install(node, make_skill(name="other"))
    try_out(node, make_skill(version=TRIED))
    assert {skill["name"]: skill["trial"] for skill in node.status()["skills"]} == {NAME: True, "other": False}
    run(node.end_trial(NAME))
    assert not any(skill["trial"] for skill in node.status()["skills"])


def test_a_node_with_operators_takes_nothing_on_trial(node, make_skill, one_line, monkeypatch):
    monkeypatch.setattr(type(node.config), "operators", (keys.SigningKey(b"p" * 32).verify_key,))
    with pytest.raises(Refused) as caught:
        try_out(node, make_skill(version=TRIED))
    one_line(caught.value, "operators", "node.toml")


# The stream.


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[NodeControl]:
    server = ControlServer(node, node._state)
    await server.start()
    try:
        yield NodeControl(node._state)
    finally:
        node.interrupt()
        await server.stop()


def collected(stream: EventStream) -> tuple[list[dict[str, Any]], threading.Thread]:
    """The events, as they come, and the thread that takes them."""
    events: list[dict[str, Any]] = []

    def take() -> None:
        try:
            for event in stream:
                events.append(event)
        except NetworkError:
            events.append({"event": "ended"})

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return events, thread


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on other threads
            await asyncio.sleep(0.01)


def asked(events: list[dict[str, Any]], kind: str = "call") -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


@pytest.mark.slow
def test_who_watches_sees_calls_their_logs_and_swaps(node, make_skill):
    async def scene() -> None:
        async with served(node) as control:
            await node.install(data := make_skill(), digest_of(data))
            stream = await asyncio.to_thread(control.events, "/v1/events")
            events, thread = collected(stream)
            await until(lambda: bool(events))
            assert events[0]["skills"] == [{"name": NAME, "version": "1.0.0", "digest": digest_of(data)}]
            await asyncio.to_thread(control.post, "/v1/hooks/bid", BOUNTY)
            await until(lambda: bool(asked(events)))
            (call,) = asked(events)
            assert (call["skill"], call["hook"], call["error"]) == (NAME, "bid", "")
            assert call["reply"]["id"] == "1.0.0"
            assert call["request"]["bounty"]["id"]
            assert call["fuel"] > 0
            other = make_skill(version="1.1.0")
            await node.install(other, digest_of(other))
            await until(lambda: bool(asked(events, "skills")))
            assert asked(events, "skills")[0]["skills"][0]["version"] == "1.1.0"
            stream.close()
            await asyncio.to_thread(thread.join, 5)
            await until(lambda: node.manager.skills[NAME].observers is None)

    run(scene())


@pytest.mark.slow
def test_a_trial_lasts_as_long_as_the_stream_that_asked_for_it(node, make_skill):
    async def scene() -> None:
        async with served(node) as control:
            await node.install(data := make_skill(), digest_of(data))
            with pytest.raises(ControlRefused, match="nobody watches its trial"):
                await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version=TRIED))
            stream = await asyncio.to_thread(control.events, f"/v1/events?trial={NAME}")
            with pytest.raises(ControlRefused, match="already"):
                await asyncio.to_thread(control.events, f"/v1/events?trial={NAME}")
            answer = await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version=TRIED))
            assert answer["version"] == TRIED
            assert bids(node) == [TRIED]
            stream.close()
            await until(lambda: bids(node) == ["1.0.0"])
            again = await asyncio.to_thread(control.events, f"/v1/events?trial={NAME}")
            await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version=TRIED))
            again.close()

    run(scene())
    assert bids(node) == ["1.0.0"]


@pytest.mark.slow
def test_a_node_that_stops_does_not_wait_for_who_watches_and_says_that_it_ends(node):
    async def scene() -> list[dict[str, Any]]:
        async with served(node) as control:
            events, thread = collected(await asyncio.to_thread(control.events, "/v1/events"))
            await until(lambda: bool(events))
            began = time.monotonic()
        assert time.monotonic() - began < 3
        await asyncio.to_thread(thread.join, 5)
        return events

    assert run(scene())[-1] == {"event": "ended"}


def deaf(node: Node, path: str) -> socket.socket:
    """A watcher that never reads."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.connect(str(node._state / SOCKET))
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
    return one


def flood(node: Node) -> None:
    """More than a connection holds."""
    long = call(reply=cbor.encode({"b": bytes(DEFAULT.watched_value_bytes_max - 64)}))
    for told, _ in node.manager.observers._observers:
        for _ in range(100):
            told(long)


@pytest.mark.slow
def test_a_node_that_stops_does_not_wait_for_who_does_not_read(node):
    async def scene() -> None:
        with ExitStack() as closing:
            async with served(node):
                closing.enter_context(deaf(node, "/v1/events"))
                await until(lambda: bool(node.manager.observers._observers))
                flood(node)
                await asyncio.sleep(0.2)
                began = time.monotonic()
            assert time.monotonic() - began < 3

    run(scene())


@pytest.mark.slow
def test_a_trial_ends_when_who_asked_for_it_does_not_read(node, make_skill, monkeypatch):
    monkeypatch.setattr(events_module, "WRITE_S_MAX", 0.2)

    async def scene() -> None:
        async with served(node) as control:
            with deaf(node, f"/v1/events?trial={NAME}"):
                await until(lambda: bool(node.manager.observers._observers))
                await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version=TRIED))
                flood(node)
                await until(lambda: node.manager.skills == {})

    run(scene())


class Registry:
    """A link to a registry that takes its time once `slow` is set."""

    def __init__(self) -> None:
        self.slow, self.asked, self.answered = False, asyncio.Event(), asyncio.Event()

    async def refresh(self) -> None:
        if self.slow:
            self.asked.set()
            await self.answered.wait()


@pytest.mark.slow
def test_nothing_is_swapped_in_while_a_trial_ends(node, make_skill, monkeypatch):
    async def scene() -> None:
        registry = Registry()
        monkeypatch.setattr(node, "client", registry)
        async with served(node) as control:
            stream = await asyncio.to_thread(control.events, f"/v1/events?trial={NAME}")
            await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version=TRIED))
            registry.slow = True
            stream.close()
            await asyncio.wait_for(registry.asked.wait(), 5)
            registry.slow = False
            with pytest.raises(ControlRefused, match="nobody watches its trial"):
                await asyncio.to_thread(control.post, f"/v1/trials/{NAME}", make_skill(version="1.0.1-dev.2"))
            registry.answered.set()
        assert node.manager.skills == {}

    run(scene())


@pytest.mark.slow
def test_who_tries_a_skill_out_sees_the_calls_of_that_one_alone(node, make_skill):
    async def scene() -> list[dict[str, Any]]:
        async with served(node) as control:
            for name in ("other", NAME):
                await node.install(data := make_skill(name=name), digest_of(data))
            events, _ = collected(await asyncio.to_thread(control.events, f"/v1/events?trial={NAME}"))
            for _ in range(2):
                await asyncio.to_thread(control.post, "/v1/hooks/bid", BOUNTY)
            await until(lambda: len(asked(events)) >= 2)
            return asked(events)

    assert [event["skill"] for event in run(scene())] == [NAME, NAME]


@pytest.mark.slow
def test_watchers_are_bounded(node):
    async def scene() -> None:
        async with served(node) as control:
            streams = [await asyncio.to_thread(control.events, "/v1/events") for _ in range(DEFAULT.watchers_max)]
            with pytest.raises(ControlRefused, match="watching already"):
                await asyncio.to_thread(control.events, "/v1/events")
            for stream in streams:
                stream.close()

    run(scene())


@pytest.mark.slow
def test_what_the_envelope_refuses_a_skill_is_seen_with_its_reason(tmp_path, make_state, author):
    node = open_node(make_state(tmp_path / "machine", SystemClock(), native=("virtual_machine",)), SystemClock())
    install(node, with_signature(module_path("cell-start").read_bytes(), author, "cell-start"))
    payload = cbor.encode({"feed_mm_min": 600.0, "job": "too-far", "to_mm": [900.0, 20.0, 5.0]})
    begin = HandleRequest(
        at_ms=1, correlation=bytes(16), id=bytes(16), payload=payload, phase="prepare", priority=1, source="lead-1", topic="cell.start", verb="act", weight=0.0
    )  # fmt: skip

    async def scene() -> list[dict[str, Any]]:
        async with served(node) as control:
            stream = await asyncio.to_thread(control.events, "/v1/events")
            events, _ = collected(stream)
            for request in (begin, msgspec.structs.replace(begin, phase="act")):
                await node.handle(request)
            await until(lambda: len(asked(events)) == 2)
            stream.close()
        return asked(events)

    _, acted = run(scene())
    node.close()
    (refusal,) = acted["refusals"]
    assert (refusal["capability"], refusal["code"]) == ("motion", "unsafe_command")
    assert "900" in refusal["message"]


def call(**more: Any) -> Call:
    return Call(**{
        "skill": NAME, "version": "1.0.0", "lineage": "a", "digest": "sha256:", "hook": "bid", "began_ms": 0, "took_us": 12, "request": cbor.encode({"a": 1}),
        "reply": cbor.encode({"b": b"\x00\xff"}), "error": "", "skill_code": "", "detail": "", "fuel": 34, "host_calls": (), "whole": True,
        "program": (), "manifest": Manifest(name=NAME, version="1.0.0", hooks=("bid",)), "limits": SkillLimits(),
    } | more)  # fmt: skip


async def drained(watcher: _Watcher) -> tuple[list[Call], int]:
    """All that a watcher has, and how many it lost. A turn takes few calls, so that the event loop gets on; none waits for the next."""
    calls: list[Call] = []
    dropped = 0
    began = time.monotonic()
    while watcher._calls:
        some, lost = await watcher.next(10.0)
        assert len(some) <= CALLS_A_TURN
        calls, dropped = calls + some, dropped + lost
    assert time.monotonic() - began < 5
    assert watcher._bytes == 0
    return calls, dropped


def test_a_slow_watcher_loses_calls_and_is_told_how_many():
    async def scene() -> tuple[list[Call], int]:
        watcher = _Watcher(asyncio.get_running_loop())
        for _ in range(DEFAULT.watched_calls_max + 7):
            watcher.told(call())
        return await drained(watcher)

    kept, dropped = run(scene())
    assert (len(kept), dropped) == (DEFAULT.watched_calls_max, 7)


def test_long_calls_do_not_fill_the_memory():
    async def scene() -> tuple[list[Call], int]:
        watcher = _Watcher(asyncio.get_running_loop())
        for _ in range(100):
            watcher.told(call(reply=bytes(1 << 20)))
        return await drained(watcher)

    kept, dropped = run(scene())
    assert sum(len(one.reply or b"") for one in kept) <= DEFAULT.watched_bytes_max
    assert len(kept) + dropped == 100


def test_a_call_is_told_with_its_logs_and_the_envelopes_reason():
    refused = cbor.encode({"code": "unsafe_command", "message": "x = 900 mm is outside 0 to 300"})
    event = described(
        call(
            host_calls=(
                HostCall("log", (1, b"going \x1b[31mfar"), None),
                HostCall("call", (b"motion", b""), refused, True),
                HostCall("call", (b"motion", b""), cbor.encode({}), False),
            )
        )
    )
    assert json.loads(json.dumps(event, default=repr))["logs"] == [{"level": "info", "line": r"going \x1b[31mfar"}]
    assert event["refusals"] == [{"capability": "motion", "code": "unsafe_command", "message": "x = 900 mm is outside 0 to 300"}]
    first, *rest = shown.lines(event | {"reply": {"b": "AP8="}}, NAME)
    assert "greeter 1.0.0 bid(" in first
    assert "12 µs, 34 fuel, 3 host calls" in first
    assert [line.strip() for line in rest] == [
        r"log info: going \x1b[31mfar", "REFUSED motion: unsafe_command: x = 900 mm is outside 0 to 300",
    ]  # fmt: skip
    assert list(shown.lines(event, "another")) == []


def test_what_is_long_or_no_cbor_is_told_by_its_size():
    event = described(call(request=bytes(DEFAULT.watched_value_bytes_max + 1), reply=b"\xff\xff"))
    assert event["request"] == {"bytes": DEFAULT.watched_value_bytes_max + 1}
    assert event["reply"] == {"bytes": 2}


def test_who_asks_where_no_node_runs_is_told_so(tmp_path):
    with pytest.raises(NetworkError, match="node run --state"):
        NodeControl(tmp_path).events("/v1/events")


@pytest.mark.parametrize("last", ['{"event":"call","took', '{"event":"call","took\n', ""])
def test_a_node_that_ends_in_the_middle_of_a_line_is_an_error_of_one_line(tmp_path, last, one_line):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / SOCKET))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(f'HTTP/1.1 200 OK\r\n\r\n{{"event":"watching"}}\n{last}'.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        stream = iter(NodeControl(tmp_path).events("/v1/events"))
        assert next(stream) == {"event": "watching"}
        with pytest.raises(NetworkError) as caught:
            next(stream)
        one_line(caught.value, "the node ended what was watched")
        thread.join()
