"""Bad input to the mesh, over real sockets: it is refused, counted by reason and logged once, its link ends, and honest peers notice nothing."""

import asyncio
import copy
import functools
import inspect
import os
import random
import struct
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec
import pytest
import uvloop
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host.core import cbor, cose
from host.core.certificate import VALIDITY_S, Claims, issue
from host.core.clock import SystemRandom
from host.core.limits import DEFAULT
from host.mesh import children as children_module
from host.mesh import frames
from host.mesh.agent import Outcome
from host.mesh.frames import (
    HISTOGRAM_MS,
    NONCE_BYTES,
    READY,
    Ack,
    Beat,
    Challenge,
    Deliver,
    Dismiss,
    Heartbeat,
    Hello,
    Introduce,
    Report,
    Roster,
    Sealer,
    Submit,
    Taken,
    Welcome,
    plain,
)
from host.mesh.looptime import LoopTime, raise_file_limit
from host.mesh.message import Author
from host.mesh.peer import AgentPeer, World
from host.mesh.profiler import Vitals
from host.mesh.summary import Summary
from host.mesh.tier import FROM_ONE_SOURCE_MAX, TierPeer
from host.mesh.trust import NODE, Trust
from host.mesh.virtual import VirtualTime
from host.mesh.websocket import WebSocketTransport
from sdk.mesh.topology import CAPABILITIES, Topology

NOW_S = int(time.time())
TOPOLOGY = Topology(900, now_s=NOW_S)
REVOKED = b"revoked".ljust(16, b"-")
NOBODY = SigningKey(b"n" * 32)
HONEST = "agent-000029"


def agent(number):
    return TOPOLOGY.identity(TOPOLOGY.agent_name(number), "agent")


LEAD = TOPOLOGY.identity("cluster-00000", "lead")
SECTOR = TOPOLOGY.identity("sector-000", "coordinator")


def certified(identity, *, authority=TOPOLOGY.authority, **changes):
    """The identity with another certificate."""
    claims = Claims(
        issuer="owner", subject=identity.name, key=bytes(identity.key.verify_key), roles=(NODE,), generation=1, capabilities=CAPABILITIES,
        not_before_s=NOW_S - 3_600, expires_s=NOW_S + VALIDITY_S, issued_s=NOW_S, id=b"i" * 16,
    )  # fmt: skip
    return replace(identity, chain=(issue(authority, replace(claims, **changes)),))


async def until(happened, seconds=5.0):
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.002)


class Deeds:
    """A handler that remembers what it did."""

    def __init__(self):
        self.acted = []

    def prepare(self, message, done):
        done(Outcome(READY))

    def act(self, message, done):
        self.acted.append((message, time.monotonic()))
        done(Outcome(READY))

    def state(self):
        return "idle"


class RawEnd:
    """One end of a WebSocket that can send anything."""

    ws = None

    async def send(self, data):
        await self.ws.send_bytes(data)

    async def next(self, kind, seconds=5.0):
        """The next frame of a kind; others are passed over."""
        async with asyncio.timeout(seconds):
            while True:
                received = await self.ws.receive()
                assert received.type is aiohttp.WSMsgType.BINARY, f"expected a {kind.__name__}, the link ended: {received}"
                frame = decoded(received.data)
                if isinstance(frame, kind):
                    return frame

    async def end(self, seconds=5.0):
        """Waits until the other end has closed; the reason that it gave."""
        async with asyncio.timeout(seconds):
            while True:
                received = await self.ws.receive()
                if received.type is not aiohttp.WSMsgType.BINARY:
                    return received.extra


def decoded(data):
    if data[0] >> 5 == 6:
        data = cose.parse(data, "frame").payload
    return frames.typed(data, frames.FromParent | frames.FromChild)


class RawChild(RawEnd):
    """Speaks the child's side of the protocol by hand."""

    def __init__(self, yard, identity):
        self.yard, self.identity = yard, identity
        self.n = 0

    async def dial(self):
        self.ws = await self.yard.session.ws_connect(self.yard.address, max_msg_size=0)
        self.nonce = (await self.next(Challenge)).nonce
        return self

    def hello(self, key=None, recorded=None, **changes):
        who = self.identity
        fields = {
            "name": who.name, "role": who.role, "nonce": self.nonce, "mine": b"m" * NONCE_BYTES, "chain": who.chain, "agent_class": 0,
            "capabilities": who.capabilities, "sent_ms": time.time() * 1000,
        }  # fmt: skip
        return Sealer(key or who.key, recorded or self.nonce).seal(Hello, **(fields | changes))

    async def join(self):
        await self.dial()
        await self.send(self.hello())
        self.welcome = await self.next(Welcome)
        self.sealer = Sealer(self.identity.key, self.welcome.session)
        return self

    def seal(self, kind, **fields):
        return self.sealer.seal(kind, **fields)

    def signed(self, payload, key=None, session=None):
        """Any bytes, signed as a frame of this session."""
        return cose.sign(key or self.identity.key, payload, kid=b"", aad=frames.AAD + (session or self.welcome.session))

    def heartbeat(self, **changes):
        return self.seal(Heartbeat, **({"sent_ms": time.time() * 1000, "vitals": Vitals()} | changes))

    def map_of(self, frame):
        """The frame as a map, to be spoilt."""
        return msgspec.to_builtins(frame, builtin_types=(bytes,))

    def submit(self, message, chain=None):
        return plain(Submit(chain=chain or self.identity.chain, message=message))


class Yard:
    """A lead behind a real port, and whoever comes."""

    def __init__(self, identity=LEAD):
        self.identity, self.lines, self.peers = identity, [], []

    async def __aenter__(self):
        self.time, self.transport = LoopTime(), WebSocketTransport()
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.lead = TierPeer(self.identity, self.world(), heartbeat_ms=60_000)
        self.peers.append(self.lead)
        listener = await self.transport.listen("127.0.0.1", 0, self.lead.children, admits=self.lead.children.admits)
        self.address = f"ws://127.0.0.1:{listener.port}/v1/mesh"
        return self

    async def __aexit__(self, *_):
        for peer in self.peers:
            peer.stop() if isinstance(peer, TierPeer) else peer.uplink.stop()
        await self.session.close()
        await self.transport.close()

    def world(self):
        trust = Trust([TOPOLOGY.authority.verify_key], lambda: NOW_S, revoked=frozenset({REVOKED}))
        return World(
            self.time, self.transport, trust, SystemRandom(), random.Random(1), lambda level, line: self.lines.append((level, line))
        )

    def agent(self, identity, address=None):
        peer = AgentPeer(identity, self.world(), Deeds(), [address or self.address])
        peer.deeds = peer.agent._handler
        self.peers.append(peer)
        return peer

    def child(self, number=0):
        return RawChild(self, agent(number))

    def logged(self, code):
        return [line for level, line in self.lines if f"refused ({code})" in line]

    def refused(self, code, times):
        """Counted each time, logged once."""
        assert self.lead.complaints.counts.get(code) == times, self.lead.complaints.counts
        assert len(self.logged(code)) == 1
        assert all(line.isprintable() for _, line in self.lines)

    async def serves(self):
        """An honest child gets a message, and its answer counts. Above a lead, an honest lead is let in."""
        if self.identity.role != "lead":
            lead = TierPeer(TOPOLOGY.identity("cluster-00099", "lead"), self.world(), [self.address], heartbeat_ms=60_000)
            self.peers.append(lead)
            await until(lambda: lead.uplink.connected)
            return
        honest = next((peer for peer in self.peers if peer.identity.name == HONEST), None) or self.agent(agent(29))
        await until(lambda: honest.uplink.connected)
        message = self.lead.author.message(
            self.lead.clock.now_ms(), topic="x.go", verb="act", routing="direct", targets=(HONEST,), ttl_ms=5_000
        )
        reports = []
        self.lead.pass_on(message, message.value.expires_ms, 1_000, lambda gathering: reports.append(gathering.report()))
        await until(lambda: reports)
        assert (reports[0]["expected"], reports[0]["ready"]) == (1, 1)


def real(test=None, *, lead=LEAD):
    """Runs a test on an event loop with a Yard; what the loop complains of is a failure."""
    if test is None:
        return functools.partial(real, lead=lead)

    @functools.wraps(test)
    def run(**arguments):
        complaints = []

        async def body():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            async with Yard(lead) as yard:
                await test(yard, **arguments)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(body())
        assert complaints == []

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    return run


# Who may come in.

IMPOSTORS = {
    "a signature by another key": (agent(0), {"key": NOBODY}, "signature_invalid"),
    "a hello that was recorded on another link": (agent(0), {"recorded": b"r" * 16}, "signature_invalid"),
    "an answer to another challenge": (agent(0), {"changes": {"nonce": b"r" * 16}}, "malformed_data"),
    "a certificate by a foreign authority": (certified(agent(0), authority=NOBODY), {}, "certificate_invalid"),
    "an expired certificate": (certified(agent(0), not_before_s=1, expires_s=2), {}, "certificate_invalid"),
    "a certificate that is not valid yet": (certified(agent(0), not_before_s=NOW_S + 9_999), {}, "certificate_invalid"),
    "a revoked certificate": (certified(agent(0), id=REVOKED), {}, "certificate_invalid"),
    "a certificate for another name": (certified(agent(0), subject="agent-000001"), {}, "unknown_sender"),
    "an agent that claims to be a lead": (replace(agent(0), role="lead"), {}, "unknown_sender"),
    "a lead below a lead": (TOPOLOGY.identity("cluster-00001", "lead"), {}, "unknown_sender"),
    "a certificate without the role of a node": (certified(agent(0), roles=("author",)), {}, "unknown_sender"),
    "a capability that its certificate does not grant": (agent(0), {"changes": {"capabilities": ("lidar",)}}, "unknown_sender"),
    "a generation that does not exist": (certified(agent(0), generation=1 << 40), {}, "usage_error"),
}


@pytest.mark.parametrize("case", IMPOSTORS)
@real
async def test_whoever_cannot_prove_who_it_is_does_not_get_in(yard, case):
    identity, how, code = IMPOSTORS[case]
    for _ in range(5):
        child = await RawChild(yard, identity).dial()
        await child.send(child.hello(how.get("key"), how.get("recorded"), **how.get("changes", {})))
        assert (await child.next(Dismiss)).code == code
        assert await child.end() == code
    yard.refused(code, 5)
    assert yard.lead.children.by_name == {}
    await yard.serves()


FIRST_FRAMES = {
    "random bytes": lambda child: random.Random(1).randbytes(200),
    "nothing": lambda child: b"",
    "a hello that is not signed": lambda child: cose.parse(child.hello(), "hello").payload,
    "half a hello": lambda child: child.hello()[:-40],
    "a heartbeat": lambda child: Sealer(child.identity.key, child.nonce).seal(Heartbeat, sent_ms=1.0, vitals=Vitals()),
    "a submit": lambda child: child.submit(b"x"),
}


@pytest.mark.parametrize("case", FIRST_FRAMES)
@real
async def test_a_stranger_that_says_something_else_than_hello_is_dismissed(yard, case):
    for _ in range(5):
        child = await yard.child().dial()
        await child.send(FIRST_FRAMES[case](child))
        assert await child.end() == "malformed_data"
    yard.refused("malformed_data", 5)
    await yard.serves()


@real
async def test_a_flood_of_hellos_with_bad_signatures_is_one_line_in_the_log(yard):
    async def one():
        child = await yard.child().dial()
        await child.send(child.hello(NOBODY))
        assert await child.end() == "signature_invalid"

    await asyncio.gather(*(one() for _ in range(60)))
    yard.refused("signature_invalid", 60)
    assert yard.lead.children._strangers == {}
    await yard.serves()


# What a child may say. One such frame ends its link.


def spoilt(kind, **changes):
    def make(child):
        fields = child.map_of(kind(n=1, **SOUND[kind]))
        return child.signed(cbor.encode(fields | changes))

    return make


SOUND = {
    Heartbeat: {"sent_ms": 1.0, "vitals": Vitals()},
    Ack: {"id": b"a" * 16, "state": 1, "received_ms": 1.0, "done_ms": 1.0},
    Roster: {},
}


def forged(frame):
    return frame[:-1] + bytes([frame[-1] ^ 1])


NAN, INFINITE = b"\xf9\x7e\x00", b"\xf9\x7c\x00"


def with_number(raw):
    """A heartbeat whose time is these bytes of CBOR."""

    def make(child):
        payload = cbor.encode(child.map_of(Heartbeat(n=1, sent_ms=1.5, vitals=Vitals())))
        assert payload.count(b"\xf9\x3e\x00") == 1
        return child.signed(payload.replace(b"\xf9\x3e\x00", raw))

    return make


BAD_FRAMES = {
    "a heartbeat with a forged signature": (lambda c: forged(c.heartbeat()), "signature_invalid"),
    "an ack with a forged signature": (lambda c: forged(c.seal(Ack, **SOUND[Ack])), "signature_invalid"),
    "a heartbeat signed by another": (lambda c: Sealer(NOBODY, c.welcome.session).seal(Heartbeat, **SOUND[Heartbeat]), "signature_invalid"),
    "a frame of another session": (lambda c: Sealer(c.identity.key, b"s" * 16).seal(Heartbeat, **SOUND[Heartbeat]), "signature_invalid"),
    "random bytes": (lambda c: random.Random(2).randbytes(300), "malformed_data"),
    "a signed frame of random bytes": (lambda c: c.signed(random.Random(3).randbytes(99)), "malformed_data"),
    "a frame cut short": (lambda c: c.heartbeat()[:-70], "malformed_data"),
    "an empty frame": (lambda c: b"", "malformed_data"),
    "a frame with something behind it": (lambda c: c.heartbeat() + b"\0", "malformed_data"),
    "a wrong type": (spoilt(Heartbeat, sent_ms="soon"), "malformed_data"),
    "a field too many": (spoilt(Heartbeat, extra=1), "malformed_data"),
    "an unknown type of frame": (spoilt(Heartbeat, type="gossip"), "malformed_data"),
    "no type at all": (lambda c: c.signed(cbor.encode({"n": 1})), "malformed_data"),
    "a number and not a frame": (lambda c: c.signed(cbor.encode(7)), "malformed_data"),
    "a plain heartbeat": (lambda c: plain(Heartbeat(n=1, **SOUND[Heartbeat])), "malformed_data"),
    "a signed submit": (lambda c: c.signed(c.submit(b"x")), "malformed_data"),
    "a frame of a parent": (lambda c: c.seal(Beat, sent_ms=1.0, received_ms=1.0, replied_ms=1.0), "malformed_data"),
    "another hello": (lambda c: c.hello(recorded=c.welcome.session), "malformed_data"),
    "a map that is not in order": (lambda c: bytes.fromhex("a2616201616102"), "malformed_data"),
    "a map without an end": (lambda c: bytes.fromhex("bf616101ff"), "malformed_data"),
    "a map with a list as its key": (lambda c: bytes.fromhex("a1810101"), "malformed_data"),
    "lists a thousand deep": (lambda c: b"\x81" * 1000 + b"\0", "malformed_data"),
    "a list that claims to be huge": (lambda c: b"\x9b\x7f" + b"\xff" * 7, "malformed_data"),
    "a time that is no number": (with_number(NAN), "malformed_data"),
    "a time that is infinite": (with_number(INFINITE), "malformed_data"),
    "a time before 1970": (spoilt(Heartbeat, sent_ms=-1.0), "malformed_data"),
    "a time in four thousand years": (spoilt(Heartbeat, sent_ms=1.3e14), "malformed_data"),
    "an enormous count": (spoilt(Ack, queue=(1 << 64) - 1), "malformed_data"),
    "a number of a frame beyond all": (spoilt(Heartbeat, n=1 << 53), "malformed_data"),
    "a number of a frame below zero": (spoilt(Heartbeat, n=-1), "malformed_data"),
    "a state that does not exist": (spoilt(Ack, state=2), "malformed_data"),
    "vitals that cannot be": (lambda c: c.heartbeat(vitals=Vitals(success=2.0)), "malformed_data"),
    "a reply too large": (lambda c: c.seal(Ack, **SOUND[Ack], payload=bytes(DEFAULT.reply_payload_bytes_max + 1)), "malformed_data"),
    "a roster of an agent": (lambda c: c.seal(Roster, added=("agent-000001",)), "unknown_sender"),
    "a report of an agent": (lambda c: c.seal(Report, id=b"a" * 16, **counts(1)), "malformed_data"),
    "a summary of an agent": (lambda c: c.heartbeat(summaries=(Summary(name=c.identity.name, tier="cluster"),)), "malformed_data"),
}


def counts(agents, /, **more):
    return {"expected": agents, "ready": agents, "transit": 0, "conflict": 0, "skipped": 0} | more


@pytest.mark.parametrize("case", BAD_FRAMES)
@real
async def test_one_bad_frame_ends_the_link_of_a_child(yard, case):
    make, code = BAD_FRAMES[case]
    for _ in range(4):
        child = await yard.child().join()
        await child.send(make(child))
        assert (await child.next(Dismiss)).code == code
        assert await child.end() == code
    yard.refused(code, 4)
    await until(lambda: not yard.lead.children.by_name)
    await yard.serves()


@real
async def test_a_text_frame_ends_the_link_and_is_counted(yard):
    for _ in range(3):
        child = await yard.child().join()
        await child.ws.send_str("hello")
        await child.end()
    await until(lambda: yard.lead.complaints.counts.get("malformed_data") == 3)
    yard.refused("malformed_data", 3)
    await yard.serves()


@real
async def test_a_frame_that_is_sent_twice_counts_once_and_ends_the_link(yard):
    for _ in range(3):
        child = await yard.child().join()
        frame = child.heartbeat()
        await child.send(frame)
        await child.send(frame)
        assert await child.end() == "replayed"
    yard.refused("replayed", 3)
    assert yard.lead.children.heartbeats == 3
    await yard.serves()


@real
async def test_frames_recorded_from_an_earlier_session_are_worth_nothing(yard):
    first = await yard.child().join()
    recorded = [first.heartbeat() for _ in range(3)]
    await first.send(recorded[0])
    await first.next(Beat)
    second = await yard.child().join()
    assert await first.end() == "the same node has dialled anew"
    await second.send(recorded[1])
    assert await second.end() == "signature_invalid"
    yard.refused("signature_invalid", 1)
    await yard.serves()


@real
async def test_a_frame_of_100_megabytes_takes_no_memory(yard):
    child = await yard.child().join()
    transport = child.ws._response.connection.transport
    before = resident_bytes()
    transport.write(b"\x82\xff" + struct.pack(">Q", 100 << 20) + b"mask")
    sent = 0
    while not transport.is_closing() and sent < 100 << 20:
        transport.write(bytes(64 << 10))
        sent += 64 << 10
        await asyncio.sleep(0)
        await until(lambda: transport.is_closing() or transport.get_write_buffer_size() == 0)
    assert transport.is_closing() and sent < 50 << 20
    await until(lambda: yard.lead.complaints.counts)
    yard.refused("too_large", 1)
    assert resident_bytes() - before < 6 << 20
    await yard.serves()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@real
async def test_a_frame_just_over_the_limit_is_too_large(yard):
    child = await yard.child().join()
    await child.send(bytes(DEFAULT.frame_bytes_max + 1))
    await child.end()
    await until(lambda: yard.lead.complaints.counts)
    yard.refused("too_large", 1)
    await yard.serves()


# Messages. It takes eight bad ones to end a link, for they need not be the child's fault.


def note(yard, source, *, after_ms=0.0, key=None, **fields):
    author = Author(source.name, key or source.key, SystemRandom())
    fields = {"topic": "x.note", "verb": "observe", "routing": "direct", "targets": (HONEST,), "ttl_ms": 5_000} | fields
    return author.message(yard.lead.clock.now_ms() + after_ms, **fields)


BAD_MESSAGES = {
    "a forged signature": (lambda y, c: forged(note(y, c.identity).raw), "signature_invalid"),
    "random bytes": (lambda y, c: random.Random(4).randbytes(200), "malformed_data"),
    "an empty message": (lambda y, c: b"", "malformed_data"),
    "a message from the future": (lambda y, c: note(y, c.identity, after_ms=60_000).raw, "untimely"),
    "a message past its time to live": (lambda y, c: note(y, c.identity, after_ms=-10_000).raw, "untimely"),
    "a source that nobody introduced": (lambda y, c: note(y, c.identity, key=NOBODY).raw, "unknown_sender"),
    "another's name as its source": (lambda y, c: note(y, agent(1), key=c.identity.key).raw, "unknown_sender"),
    "the verb act": (lambda y, c: note(y, c.identity, verb="act").raw, "unknown_sender"),
    "the verb decide": (lambda y, c: note(y, c.identity, verb="decide").raw, "unknown_sender"),
    "the verb sync": (lambda y, c: note(y, c.identity, verb="sync").raw, "unknown_sender"),
    "a capability that its source does not have": (lambda y, c: note(y, c.identity, capabilities=("lidar",)).raw, "capability_denied"),
    "a freeze by an agent": (lambda y, c: note(y, c.identity, topic="mesh.freeze", priority=3).raw, "unknown_sender"),
    "a digest of another payload": (lambda y, c: note(y, c.identity, payload=b"x", digest=bytes(32)).raw, "malformed_data"),
    "a sequence that came before": (lambda y, c: note(y, c.identity, sequence=1).raw, "replayed"),
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
@real
async def test_a_bad_message_is_refused_and_eight_of_them_end_the_link(yard, case):
    make, code = BAD_MESSAGES[case]
    await yard.serves()
    child = await yard.child().join()
    if code == "replayed":
        await child.send(child.submit(note(yard, child.identity, sequence=5_000).raw))
        assert (await child.next(Taken)).code == ""
    for _ in range(DEFAULT.strikes_max):
        await child.send(child.submit(make(yard, child)))
    assert await child.end() == "flooded"
    yard.refused(code, DEFAULT.strikes_max)
    yard.refused("flooded", 1)
    assert yard.lead.frozen is None
    await yard.serves()
    honest = yard.peers[-1]
    assert [message.topic for message, _ in honest.deeds.acted if message.topic != "x.go"] == (["x.note"] if code == "replayed" else [])


@real
async def test_a_message_of_somebody_who_is_not_below_the_child_is_refused(yard):
    child, other = await yard.child(0).join(), agent(1)
    for source in (other, agent(500)):
        await child.send(child.submit(note(yard, source).raw, source.chain))
        assert (await child.next(Taken)).code == "unknown_sender"
    sister = await yard.child(1).join()
    await child.send(child.submit(note(yard, other).raw, other.chain))
    assert (await child.next(Taken)).code == "unknown_sender"
    await sister.send(sister.submit(note(yard, other).raw))
    assert (await sister.next(Taken)).code == ""
    yard.refused("unknown_sender", 3)
    await yard.serves()


@real
async def test_a_source_with_a_foreign_certificate_is_refused_and_the_child_is_told(yard):
    child, stranger = await yard.child().join(), certified(agent(1), authority=NOBODY)
    await child.send(child.submit(note(yard, stranger).raw, stranger.chain))
    assert (await child.next(Taken)).code == "certificate_invalid"
    yard.refused("certificate_invalid", 1)
    await yard.serves()


@real
async def test_a_message_that_is_submitted_twice_is_taken_twice_and_delivered_once(yard):
    await yard.serves()
    child = await yard.child().join()
    message = note(yard, child.identity)
    for _ in range(3):
        await child.send(child.submit(message.raw))
        assert (await child.next(Taken)).code == ""
    renamed = note(yard, child.identity, sequence=message.value.sequence)
    await child.send(child.submit(renamed.raw))
    assert (await child.next(Taken)).code == "replayed"
    await yard.serves()
    assert [m.id for m, _ in yard.peers[-1].deeds.acted if m.topic == "x.note"] == [message.value.id]
    yard.refused("replayed", 1)


@real
async def test_a_child_cannot_take_all_the_room_for_messages_that_are_under_way(yard):
    child, silent = await yard.child(0).join(), await yard.child(1).join()
    codes = []
    for _ in range(180):
        await child.send(
            child.submit(note(yard, child.identity, targets=(silent.identity.name,), priority=3, ttl_ms=DEFAULT.ttl_ms_max).raw)
        )
        codes.append((await child.next(Taken)).code)
    assert set(codes) == {"", "busy"} and codes.count("") <= FROM_ONE_SOURCE_MAX
    yard.refused("busy", codes.count("busy"))
    await yard.serves()
    await child.send(child.heartbeat())
    await child.next(Beat)


# Answers.


async def asked(yard, members, *, ttl_ms=2_000, **fields):
    """A message under way to members; its gathering, and where its report will be."""
    message = yard.lead.author.message(
        yard.lead.clock.now_ms(), topic="x.go", verb="act", routing="direct", targets=members, ttl_ms=ttl_ms, **fields
    )
    reports = []
    gathering = yard.lead.pass_on(message, message.value.expires_ms, 1_000, lambda ended: reports.append(ended.report()))
    return gathering, reports


@real
async def test_an_answer_counts_only_for_a_message_that_was_sent_to_its_child(yard):
    one, other = await yard.child(0).join(), await yard.child(1).join()
    gathering, reports = await asked(yard, (one.identity.name,))
    answer = SOUND[Ack] | {"id": gathering.message.id}
    await other.send(other.seal(Ack, **answer))
    await other.send(other.seal(Ack, **SOUND[Ack]))  # to a message that never was
    await other.send(other.heartbeat())
    await other.next(Beat)
    assert gathering.open == 1 and reports == []
    yard.refused("unknown_sender", 1)
    assert yard.lead.complaints.counts["unasked_answers"] == 1
    for _ in range(DEFAULT.strikes_max - 1):
        await other.send(other.seal(Ack, **answer))
    assert await other.end() == "flooded"
    await one.send(one.seal(Ack, **answer))
    await until(lambda: reports)
    assert reports[0]["ready"] == 1
    await yard.serves()


@real
async def test_an_answer_before_the_message_was_sent_does_not_count(yard):
    child = await yard.child().join()
    now_ms = yard.lead.clock.now_ms()
    gathering, reports = await asked(yard, (child.identity.name,), ttl_ms=60_000, at_ms=now_ms + 50_000)
    await child.send(child.seal(Ack, **(SOUND[Ack] | {"id": gathering.message.id, "done_ms": now_ms})))
    await child.send(child.heartbeat())
    await child.next(Beat)
    assert gathering.open == 1 and reports == []
    yard.refused("unknown_sender", 1)


BAD_REPORTS = {
    "more ready than expected": counts(1, ready=2),
    "counts that do not add up": counts(3, expected=5),
    "more agents than a lead has": counts(DEFAULT.children_max + 1),
    "an absurd number of agents": counts((1 << 53) - 1),
    "more that acted than agents": counts(1, acted=2),
    "more that failed than acted": counts(2, acted=1, failed=2),
    "a histogram of another width": counts(1, ready_errors=(1,)),
    "a histogram of more answers than agents": counts(1, ready_errors=(1 << 52,) * (len(HISTOGRAM_MS) + 1)),
    "a histogram of acts that were none": counts(1, acted_errors=(1,) + (0,) * len(HISTOGRAM_MS)),
}


def unchecked_report(child, **fields):
    child.sealer.n += 1
    return child.signed(cbor.encode({"type": "report", "n": child.sealer.n} | fields))


@pytest.mark.parametrize("case", BAD_REPORTS)
@real(lead=SECTOR)
async def test_a_report_that_cannot_be_does_not_get_into_the_totals(yard, case):
    liar = await RawChild(yard, TOPOLOGY.identity("cluster-00001", "lead")).join()
    sound = await RawChild(yard, LEAD).join()
    gathering, reports = await asked(yard, ("cluster-00000", "cluster-00001"), ttl_ms=150)
    bins = (0,) * 12 + (2,) + (0,) * (len(HISTOGRAM_MS) - 12)
    await sound.send(sound.seal(Report, id=gathering.message.id, **counts(2, ready_errors=bins)))
    await liar.send(unchecked_report(liar, id=gathering.message.id, **BAD_REPORTS[case]))
    assert await liar.end() == "malformed_data"
    yard.refused("malformed_data", 1)
    await until(lambda: reports)
    total = reports[0]
    assert (total["expected"], total["ready"], total["ready_errors"]) == (2, 2, bins)
    assert "cluster-00001" in total["missing"][0]
    await yard.serves()


@real(lead=SECTOR)
async def test_the_other_counts_of_a_report_stay_within_what_its_own_parent_accepts(yard):
    liars = [await RawChild(yard, TOPOLOGY.identity(f"cluster-0000{n}", "lead")).join() for n in range(3)]
    gathering, reports = await asked(yard, tuple(liar.identity.name for liar in liars))
    huge = (1 << 53) - 1
    for liar in liars:
        fields = counts(1, messages=huge, missing_more=huge, replies_dropped=huge)
        await liar.send(liar.seal(Report, id=gathering.message.id, **fields))
    await until(lambda: reports)
    assert max(reports[0][name] for name in ("messages", "missing_more", "replies_dropped")) < 1_000_000
    msgspec.convert(reports[0] | {"n": 1, "id": b"a" * 16}, Report)


BAD_SUMMARIES = {
    "of another cluster": (Summary(name="cluster-00009", tier="cluster"),),
    "of two clusters": (Summary(name="cluster-00001", tier="cluster"), Summary(name="cluster-00002", tier="cluster")),
    "of a million agents": (Summary(name="cluster-00001", tier="cluster", agents=1_000_000, offline=1_000_000),),
    "of more slow agents than agents": (Summary(name="cluster-00001", tier="cluster", slow=(1 << 32) - 1),),
}


@pytest.mark.parametrize("case", BAD_SUMMARIES)
@real(lead=SECTOR)
async def test_a_summary_that_cannot_be_is_refused(yard, case):
    liar = await RawChild(yard, TOPOLOGY.identity("cluster-00001", "lead")).join()
    await liar.send(liar.heartbeat(summaries=BAD_SUMMARIES[case]))
    assert await liar.end() == "malformed_data"
    yard.refused("malformed_data", 1)
    assert yard.lead.summary().agents == 0
    await yard.serves()


@real(lead=SECTOR)
async def test_conflicts_of_all_leads_together_stay_within_a_summary(yard):
    for number in range(3):
        child = await RawChild(yard, TOPOLOGY.identity(f"cluster-0000{number}", "lead")).join()
        await child.send(child.heartbeat(summaries=(Summary(name=child.identity.name, tier="cluster", conflicts_hour=(1 << 32) - 1),)))
        await child.next(Beat)
    msgspec.convert(msgspec.to_builtins(yard.lead.summary()), Summary)


BAD_ROSTERS = {
    "the name of another child": ((("cluster-00000",),), "unknown_sender"),
    "the name of its parent": ((("sector-000",),), "unknown_sender"),
    "a name for everybody": ((("*",),), "unknown_sender"),
    "a name that would forge a line of the log": ((("agent\n2026 all is well",),), "unknown_sender"),
    "100,000 names": (tuple(tuple(f"ghost-{1000 * f + n}" for n in range(1000)) for f in range(100)), "too_large"),
}


@pytest.mark.parametrize("case", BAD_ROSTERS)
@real(lead=SECTOR)
async def test_a_roster_of_names_that_cannot_be_below_a_child_is_refused(yard, case):
    rosters, code = BAD_ROSTERS[case]
    honest, liar = await RawChild(yard, LEAD).join(), await RawChild(yard, TOPOLOGY.identity("cluster-00001", "lead")).join()

    async def send_all():
        for names in rosters:
            await liar.send(liar.seal(Roster, added=names))

    sending = asyncio.create_task(send_all())
    assert await liar.end() == code
    await asyncio.gather(sending, return_exceptions=True)
    yard.refused(code, 1)
    assert len(yard.lead.members.all_names()) < 3_000
    gathering, _ = await asked(yard, ("cluster-00000",))
    assert (await honest.next(Deliver)).message == gathering.verified.raw
    await yard.serves()


# Time.


@real
async def test_a_child_cannot_set_the_clock_of_its_parent(yard):
    child = await yard.child().join()
    for sent_ms in (0.0, 1e14, 1.0):
        await child.send(child.heartbeat(sent_ms=sent_ms))
        beat = await child.next(Beat)
        assert beat.sent_ms == sent_ms and abs(beat.received_ms - time.time() * 1000) < 2_000
    assert yard.lead.clock.offset_ms == 0.0
    gathering, reports = await asked(yard, (child.identity.name,))
    await child.next(Deliver)
    await child.send(child.seal(Ack, id=gathering.message.id, state=1, received_ms=1e14, done_ms=1e14))
    await until(lambda: reports)
    assert reports[0]["ready"] == 1 and sum(reports[0]["ready_errors"]) == 1
    await yard.serves()


# Too much.


@real
async def test_a_child_that_floods_is_dropped_and_closed_while_control_messages_pass(yard):
    await yard.serves()
    receiver, sender = yard.peers[-1], yard.agent(agent(28))
    await until(lambda: sender.uplink.connected)
    flooder = await yard.child().join()
    flood = [flooder.heartbeat() for _ in range((DEFAULT.strikes_max + 2) * DEFAULT.frames_per_s_max)]

    async def pour():
        for frame in flood:
            await flooder.send(frame)

    pouring = asyncio.create_task(pour())
    await asyncio.sleep(0.02)
    message = sender.author.message(
        sender.clock.now_ms(), topic="x.stop", verb="observe", routing="direct", targets=(HONEST,), ttl_ms=5_000, priority=3
    )
    before = time.monotonic()
    sender.uplink.submit(message, sender.identity.chain)
    await until(lambda: any(m.topic == "x.stop" for m, _ in receiver.deeds.acted))
    assert receiver.deeds.acted[-1][1] - before < 0.25
    assert await flooder.end() == "flooded"
    await asyncio.gather(pouring, return_exceptions=True)
    assert yard.lead.complaints.counts["flooded"] > DEFAULT.strikes_max * DEFAULT.frames_per_s_max
    assert len(yard.logged("flooded")) == 1
    await yard.serves()


@pytest.mark.slow
@real
@pytest.mark.ci
async def test_a_child_that_connects_ten_thousand_times_gets_in_thirty_times_a_minute(yard):
    got_in = 0

    async def some(times):
        nonlocal got_in
        for _ in range(times):
            child = await yard.child().dial()
            await child.send(child.hello())
            received = decoded((await child.ws.receive()).data)
            got_in += isinstance(received, Welcome)
            child.ws._response.close()

    await asyncio.gather(*(some(1_000) for _ in range(10)))
    assert got_in == DEFAULT.connects_per_minute_max
    yard.refused("flooded", 10_000 - got_in)
    await until(lambda: not yard.lead.children._strangers)
    assert len(yard.lead.children._children) <= 1 and len(yard.lead.registry) == 1
    await yard.serves()


@real
async def test_connections_that_say_nothing_are_bounded_and_get_503(yard, monkeypatch):
    monkeypatch.setattr(children_module, "DEFAULT", replace(DEFAULT, links_pending_max=20, handshake_ms_max=150))
    silent = [await yard.child(number).dial() for number in range(20)]
    for _ in range(10):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await yard.child().dial()
        assert refused.value.status == 503
    yard.refused("flooded", 10)
    for child in silent:
        assert await child.end() == "said no hello in time"
    await yard.serves()


@pytest.mark.slow
@real
async def test_two_thousand_silent_connections_are_all_that_wait(yard):
    assert raise_file_limit(6_000) >= 6_000
    silent = []
    for _ in range(8):
        silent += await asyncio.gather(*(yard.child().dial() for _ in range(DEFAULT.links_pending_max // 8)))
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await yard.child().dial()
    yard.refused("flooded", 1)
    for child in silent:
        child.ws._response.close()
    await until(lambda: not yard.lead.children._strangers, 15)
    await yard.serves()


# A hostile parent.


class RawParent(RawEnd):
    """Speaks the parent's side by hand, to one agent."""

    def __init__(self, yard, identity=LEAD):
        self.yard, self.identity = yard, identity
        self.sockets = asyncio.Queue()
        self.done = asyncio.Event()

    async def __aenter__(self):
        self.runner = web.ServerRunner(web.Server(self._accept), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.peer = self.yard.agent(agent(0), f"ws://127.0.0.1:{self.runner.addresses[0][1]}/")
        self.ws = await self.sockets.get()
        return self

    async def __aexit__(self, *_):
        self.peer.uplink.stop()
        self.done.set()
        await self.runner.cleanup()

    async def _accept(self, request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.put_nowait(ws)
        await self.done.wait()
        return ws

    async def challenge(self):
        await self.send(plain(Challenge(nonce=b"c" * NONCE_BYTES)))
        self.hello = await self.next(Hello)

    def welcome(self, key=None, **changes):
        now_ms = time.time() * 1000
        fields = {
            "name": self.identity.name, "role": self.identity.role, "mine": self.hello.mine, "session": b"s" * NONCE_BYTES,
            "chain": self.identity.chain, "introductions": (), "heartbeat_ms": 40, "frozen": False, "sent_ms": self.hello.sent_ms,
            "received_ms": now_ms, "replied_ms": now_ms,
        }  # fmt: skip
        return Sealer(key or self.identity.key, self.hello.mine).seal(Welcome, **(fields | changes))

    async def accept(self):
        await self.challenge()
        await self.send(self.welcome())
        self.sealer = Sealer(self.identity.key, b"s" * NONCE_BYTES)
        await until(lambda: self.peer.uplink.connected)
        return self

    def deliver(self, message, order=1):
        return plain(Deliver(order=order, report_by_ms=1e13, reply_bytes=0, gated=False, message=message))

    def refused(self, code, times):
        assert self.peer.complaints.counts.get(code) == times, self.peer.complaints.counts
        assert len(self.yard.logged(code)) == 1


def command(yard, source, **fields):
    return note(yard, source, **({"verb": "act", "targets": ("agent-000000",)} | fields))


BAD_DELIVERIES = {
    "a forged signature": (lambda y: forged(command(y, LEAD).raw), "signature_invalid"),
    "random bytes": (lambda y: random.Random(5).randbytes(99), "malformed_data"),
    "a message from the future": (lambda y: command(y, LEAD, after_ms=60_000).raw, "untimely"),
    "a message past its time to live": (lambda y: command(y, LEAD, after_ms=-9_000).raw, "untimely"),
    "a source that nobody introduced": (lambda y: command(y, SECTOR).raw, "unknown_sender"),
    "another's name as its source": (lambda y: command(y, SECTOR, key=LEAD.key).raw, "unknown_sender"),
    "a command by an agent": (lambda y: command(y, agent(1)).raw, "unknown_sender"),
    "a freeze by an agent": (lambda y: command(y, agent(1), verb="observe", topic="mesh.freeze").raw, "unknown_sender"),
    "a message for somebody else": (lambda y: command(y, LEAD, targets=("agent-000007",)).raw, "unknown_sender"),
    "a capability that its source does not have": (lambda y: command(y, LEAD, capabilities=("lidar",)).raw, "capability_denied"),
    "a digest of another payload": (lambda y: command(y, LEAD, digest=bytes(32)).raw, "malformed_data"),
    "a sequence that came before": (lambda y: command(y, LEAD, sequence=1).raw, "replayed"),
}


@pytest.mark.parametrize("case", BAD_DELIVERIES)
@real
async def test_an_agent_does_nothing_that_a_parent_made_up(yard, case):
    make, code = BAD_DELIVERIES[case]
    async with RawParent(yard) as parent:
        await parent.accept()
        await parent.send(plain(Introduce(chain=agent(1).chain)))
        await parent.send(parent.deliver(command(yard, LEAD, sequence=5_000).raw))
        for order in range(2, 7):
            await parent.send(parent.deliver(make(yard), order))
        await until(lambda: parent.peer.complaints.counts.get(code) == 5)
        parent.refused(code, 5)
        assert len(parent.peer.deeds.acted) == 1 and parent.peer.frozen is None
        await parent.send(parent.deliver(command(yard, LEAD).raw, 7))
        await until(lambda: len(parent.peer.deeds.acted) == 2)


@real
async def test_a_message_that_is_delivered_twice_is_done_once_and_answered_twice(yard):
    async with RawParent(yard) as parent:
        await parent.accept()
        message = command(yard, LEAD)
        for order in (1, 2):
            await parent.send(parent.deliver(message.raw, order))
            assert (await parent.next(Ack)).id == message.value.id
        assert len(parent.peer.deeds.acted) == 1


BAD_BEFORE_WELCOME = {
    "a message": (lambda p: p.deliver(command(p.yard, LEAD).raw), "malformed_data"),
    "an introduction": (lambda p: plain(Introduce(chain=LEAD.chain)), "malformed_data"),
    "another challenge": (lambda p: plain(Challenge(nonce=b"d" * NONCE_BYTES)), "malformed_data"),
    "random bytes": (lambda p: random.Random(6).randbytes(99), "malformed_data"),
    "nothing": (lambda p: b"", "malformed_data"),
    "a welcome by another key": (lambda p: p.welcome(NOBODY), "signature_invalid"),
    "a welcome to another hello": (lambda p: p.welcome(mine=b"x" * NONCE_BYTES), "malformed_data"),
    "a welcome of another name": (lambda p: p.welcome(name="cluster-00009"), "unknown_sender"),
    "a welcome by an agent": (lambda p: p.welcome(agent(1).key, name="agent-000001", chain=agent(1).chain), "unknown_sender"),
    "a welcome by a foreign authority": (lambda p: p.welcome(chain=certified(LEAD, authority=NOBODY).chain), "certificate_invalid"),
    "an agent as a tier above": (lambda p: p.welcome(introductions=(agent(1).chain,)), "unknown_sender"),
}


@pytest.mark.parametrize("case", BAD_BEFORE_WELCOME)
@real
async def test_an_agent_hangs_up_on_a_parent_that_does_not_prove_who_it_is(yard, case):
    make, code = BAD_BEFORE_WELCOME[case]
    async with RawParent(yard) as parent:
        await parent.challenge()
        await parent.send(make(parent))
        assert await parent.end() == code
        parent.refused(code, 1)
        assert not parent.peer.uplink.connected and parent.peer.deeds.acted == []
        parent.ws = await parent.sockets.get()  # it dials anew
        await parent.accept()


BAD_FROM_PARENT = {
    "a beat with a forged signature": (lambda p: forged(p.sealer.seal(Beat, sent_ms=1.0, received_ms=1.0, replied_ms=1.0)), "signature_invalid"),
    "a beat to no heartbeat": (lambda p: p.sealer.seal(Beat, sent_ms=1.0, received_ms=1e13, replied_ms=1e13), "malformed_data"),
    "a beat of another session": (
        lambda p: Sealer(LEAD.key, b"t" * 16).seal(Beat, sent_ms=1.0, received_ms=1.0, replied_ms=1.0), "signature_invalid",
    ),
    "a plain beat": (lambda p: plain(Beat(n=1, sent_ms=1.0, received_ms=1.0, replied_ms=1.0)), "malformed_data"),
    "a frame of a child": (lambda p: p.sealer.seal(Ack, **SOUND[Ack]), "malformed_data"),
    "a foreign certificate": (lambda p: plain(Introduce(chain=certified(LEAD, authority=NOBODY).chain)), "certificate_invalid"),
    "random bytes": (lambda p: random.Random(7).randbytes(99), "malformed_data"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FROM_PARENT)
@real
async def test_an_agent_hangs_up_on_a_parent_that_sends_a_bad_frame(yard, case):
    make, code = BAD_FROM_PARENT[case]
    async with RawParent(yard) as parent:
        await parent.accept()
        await parent.send(make(parent))
        assert await parent.end() == code
        parent.refused(code, 1)
        assert abs(parent.peer.clock.offset_ms) < 1_000


@real
async def test_an_agent_hangs_up_on_a_parent_that_sends_text(yard):
    async with RawParent(yard) as parent:
        await parent.accept()
        await parent.ws.send_str("hello")
        await parent.end()
        await until(lambda: parent.peer.complaints.counts)
        parent.refused("malformed_data", 1)


@real
async def test_impossible_timestamps_do_not_move_the_clock_of_a_child(yard):
    async with RawParent(yard) as parent:
        await parent.accept()
        before = parent.peer.clock.offset_ms
        for received_ms, replied_ms in ((2e13, 1e13), (0.0, 1e14)):
            sent_ms = (await parent.next(Heartbeat)).sent_ms
            await parent.send(parent.sealer.seal(Beat, sent_ms=sent_ms, received_ms=received_ms, replied_ms=replied_ms))
        await until(lambda: parent.peer.complaints.counts.get("impossible_beats") == 2)
        assert parent.peer.clock.offset_ms == before and parent.peer.uplink.connected


# Any bytes at all.


class FakeLink:
    peer, reliable = "nowhere", True

    def __init__(self):
        self.sent, self.ended = [], ""

    def send(self, frame, priority):
        self.sent.append(frame)
        return True

    def close(self, reason):
        self.ended = self.ended or reason


class NoTransport:
    def dial(self, address, receiver):
        pass


def fake_world():
    trust = Trust([TOPOLOGY.authority.verify_key], lambda: NOW_S)
    return World(VirtualTime(NOW_S * 1000.0), NoTransport(), trust, SystemRandom(), random.Random(1), lambda level, line: None)


def joined_child():
    lead, link = TierPeer(LEAD, fake_world()), FakeLink()
    raw = RawChild(None, agent(0))
    lead.children.opened(link)
    raw.nonce = decoded(link.sent[0]).nonce
    lead.children.received(link, raw.hello())
    raw.welcome = decoded(link.sent[1])
    return lead, link, raw


def joined_agent():
    peer, link = AgentPeer(agent(0), fake_world(), Deeds(), ["nowhere"]), FakeLink()
    peer.uplink.opened(link)
    peer.uplink.received(link, plain(Challenge(nonce=b"c" * NONCE_BYTES)))
    parent = RawParent(None)
    parent.hello = decoded(link.sent[0])
    peer.uplink.received(link, parent.welcome())
    assert peer.uplink.connected
    return peer, link


SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.floats(width=64) | st.text(max_size=20) | st.binary(max_size=40)
)
KINDS = [
    kind.__struct_config__.tag
    for kind in (Hello, Heartbeat, Roster, Ack, Report, Submit, Dismiss, Welcome, Beat, Deliver, Introduce, Taken, Challenge)
]
FIELDS = [
    "n",
    "id",
    "name",
    "state",
    "sent_ms",
    "vitals",
    "summaries",
    "added",
    "removed",
    "chain",
    "message",
    "expected",
    "ready",
    "code",
    "detail",
]
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)
MAPS = st.builds(
    lambda kind, more: {"type": kind} | more, st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8)
)
SPOILT = st.builds(
    lambda kind, changes: msgspec.to_builtins(kind(n=1, **SOUND[kind]), builtin_types=(bytes,)) | changes,
    st.sampled_from(list(SOUND)),
    st.dictionaries(
        st.sampled_from(["n", "id", "state", "sent_ms", "done_ms", "queue", "acted", "added", "first", "payload"]), VALUES, max_size=2
    ),
)
ANYTHING = st.binary(max_size=300) | (VALUES | MAPS | SPOILT).map(cbor.encode)


@pytest.mark.slow
@given(ANYTHING, st.booleans())
def test_no_bytes_from_a_child_raise(data, signed):
    lead, link, raw = CHILD
    child = lead.children.by_name[raw.identity.name]
    child.tokens, child.strikes, child.opener = float(DEFAULT.frames_per_s_max), 0, copy.copy(FRESH)
    lead.children.received(link, raw.signed(data) if signed else data)
    lead.children.received(FakeLink(), data)
    stranger = FakeLink()
    lead.children.opened(stranger)
    lead.children.received(stranger, data)
    assert stranger.ended


@pytest.mark.slow
@given(ANYTHING, st.booleans())
def test_no_bytes_from_a_parent_raise(data, signed):
    peer, link = AGENT
    link.ended = ""
    peer.uplink.received(link, cose.sign(LEAD.key, data, kid=b"", aad=frames.AAD + b"s" * NONCE_BYTES) if signed else data)
    fresh = AgentPeer(agent(0), fake_world(), Deeds(), ["nowhere"])
    other = FakeLink()
    fresh.uplink.opened(other)
    fresh.uplink.received(other, data)
    assert not fresh.uplink.connected


CHILD, AGENT = joined_child(), joined_agent()
FRESH = copy.copy(CHILD[0].children.by_name["agent-000000"].opener)
