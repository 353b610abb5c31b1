"""Every decoder that meets untrusted bytes, fuzzed: it gives its value or one error of the tree, in one line, and nothing else.

test_strict, test_cose, test_bundle and test_identity fuzz the decoders beneath; here are those that stand on them.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host import config
from host.core import attestation, cbor, cose, fleet, manifest, safety, toml
from host.core.clock import SystemClock
from host.core.errors import SnapcountError
from host.node import request_of
from host.plugins import contract
from host.plugins.driver import DriverGate
from host.plugins.drivers.virtual_machine import VirtualMachine
from host.sandbox.skill import refusal
from sdk.demo.samples import BID, BOUNTY, LOT, PART

KEY = SigningKey(b"f" * 32)
SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(max_size=40)
WORDS = st.sampled_from(
    [
        "type",
        "hello",
        "announce",
        "progress",
        "challenge",
        "op",
        "move",
        "moves",
        "node",
        "nonce",
        "name",
        "version",
        "digest",
        "size",
        "code",
        "message",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=6), max_leaves=20
)
GOOD = {
    "challenge": fleet.Challenge(nonce=b"n" * 16),
    "announce": fleet.Announcement(name="x", version="1.0.0", digest="sha256:" + "0" * 64, size=100),
    "progress": fleet.Progress(node="n", name="x", version="1.0.0", digest="sha256:" + "0" * 64, state="active", at_ms=1),
    "bid": BID,
    "part": PART,
    "lot": LOT,
    "manifest": manifest.Manifest(name="x", version="1.0.0", hooks=("bid",)),
}


def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(cbor.encode(draw(st.sampled_from(list(GOOD.values())))))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


BYTES = st.binary(max_size=200) | VALUES.map(cbor.encode) | st.composite(mutated)()


def gate() -> DriverGate:
    envelope = safety.SafetyEnvelope(safety.parse_limits(safety.default_toml(), "limits"), KEY.verify_key, audit=lambda refusal: None)
    return DriverGate(VirtualMachine(), envelope, SystemClock())


def reset(data: bytes) -> None:
    envelope = safety.SafetyEnvelope(safety.parse_limits(safety.default_toml(), "limits"), KEY.verify_key, audit=lambda refusal: None)
    envelope.trip("for the test", 1)
    try:
        envelope.reset(data)
    finally:
        assert envelope.tripped is not None, "nothing but the owner's own signature for this trip resets it"


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "frame from a registry": fleet.open_plain,
    "frame from a node": fleet.open_sealed,
    "signed frame from a node": lambda data: fleet.open_sealed(cose.sign(KEY, data, kid=bytes(KEY.verify_key), aad=fleet.AAD)),
    "attestation": lambda data: attestation.verify(
        cose.sign(KEY, data, kid=bytes(KEY.verify_key), aad=attestation.AAD), KEY.verify_key, b"n"
    ),
    "manifest": lambda data: manifest.decode(data, "x"),
    "command": lambda data: gate().ask("skill", data),
    "safety reset": reset,
    "signed safety reset": lambda data: reset(cose.sign(KEY, data, kid=bytes(KEY.verify_key), aad=safety.AAD_RESET)),
    "error reply": lambda data: refusal(data, "skill"),
    "reply of inspect_part": lambda data: cbor.decode_struct(data, contract.InspectPartReply, "reply"),
    "reply of bid": lambda data: cbor.decode_struct(data, contract.BidReply, "reply"),
    "reply of assess_feedstock": lambda data: cbor.decode_struct(data, contract.AssessFeedstockReply, "reply"),
    "reply of handle": lambda data: cbor.decode_struct(data, contract.HandleReply, "reply"),
    "report of plan_job": lambda data: cbor.decode_struct(data, contract.PlanReport, "reply"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=300, deadline=None, print_blob=True)
@given(data=BYTES)
def test_any_bytes_are_a_value_or_one_error_in_one_line(name: str, data: bytes) -> None:
    try:
        DECODERS[name](data)
    except SnapcountError as error:
        assert str(error).isprintable(), repr(str(error))


TEXTS = {
    "node.toml": lambda text: toml.decode(text, config.NodeConfig, "node.toml"),
    "safety.toml": lambda text: safety.parse_limits(text, "safety.toml"),
    "JSON request": lambda text: request_of("bid", text),
}
TOML_GOOD = [safety.default_toml(), config.template("n", "ed25519:" + "0" * 64, 1, "", (), ("log",), ()).encode(), BOUNTY]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=200, deadline=None, print_blob=True)
@given(draw=st.data())
def test_any_text_is_a_value_or_one_error_in_one_line(name: str, draw: st.DataObject) -> None:
    text = bytearray(draw.draw(st.sampled_from(TOML_GOOD) | st.binary(max_size=100)))
    for _ in range(draw.draw(st.integers(0, 6))):
        if text:
            text[draw.draw(st.integers(0, len(text) - 1))] = draw.draw(st.integers(0, 255))
    try:
        TEXTS[name](bytes(text))
    except SnapcountError as error:
        assert str(error).isprintable(), repr(str(error))


def test_the_good_values_of_this_suite_do_decode():
    assert fleet.open_plain(cbor.encode(GOOD["announce"])) == GOOD["announce"]
    assert fleet.open_sealed(fleet.seal(GOOD["progress"], KEY)) == (GOOD["progress"], KEY.verify_key)
    assert manifest.decode(GOOD["manifest"].encode(), "x") == GOOD["manifest"]
    assert request_of("bid", msgspec.json.encode(BID)) == BID
