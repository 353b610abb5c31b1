"""Who a registry lets speak, and what it knows of a node."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

from host.core.certificate import Claims, issue
from host.core.errors import CertificateInvalid, SignatureInvalid
from host.core.fleet import Hello, Progress, SkillState
from registry.fleet import Fleet

NODE = SigningKey(b"n" * 32)
NONCE = b"0" * 16
DIGESTS = tuple(f"sha256:{letter * 64}" for letter in "ab")


def claims(**changes: Any) -> Claims:
    good = Claims("owner", "node-1", bytes(NODE.verify_key), ("node",), 2, (), 0, 10**10, 0, b"id-1")
    return replace(good, **changes)


def hello(certificate: bytes = b"", **changes: Any) -> Hello:
    good = Hello(node="node-1", nonce=NONCE, generation=2, certificate=certificate, host="sha256:0", skills=())
    return msgspec.structs.replace(good, **changes)


def test_a_revoked_certificate_is_refused_and_the_next_one_is_not(owner: SigningKey) -> None:
    fleet = Fleet((owner.verify_key,), revoked=frozenset({b"id-1"}))
    with pytest.raises(CertificateInvalid, match=r"certificate of node-1.*revoked"):
        fleet.hello(hello(issue(owner, claims())), NODE.verify_key, NONCE, 1)
    assert fleet.hello(hello(issue(owner, claims(id=b"id-2"))), NODE.verify_key, NONCE, 1).connected


@pytest.mark.parametrize("changes", [{"roles": ("viewer",)}, {"generation": 3}, {"subject": "node-2"}, {"key": b"k" * 32}])
def test_a_certificate_for_something_else_is_refused(changes: dict[str, Any], owner: SigningKey) -> None:
    with pytest.raises(SignatureInvalid, match="node-1: its certificate is"):
        Fleet((owner.verify_key,)).hello(hello(issue(owner, claims(**changes))), NODE.verify_key, NONCE, 1)


def test_a_second_hello_on_the_link_says_what_the_owner_changed() -> None:
    fleet = Fleet()
    row = fleet.hello(hello(), NODE.verify_key, NONCE, 1)
    fleet.report(
        row, Progress(node="node-1", name="x", version="2.0.0", digest=DIGESTS[1], state="active", at_ms=1), NODE.verify_key
    )  # fmt: skip
    assert not fleet.wants(row, "x", DIGESTS[1])
    fleet.report(row, hello(skills=(SkillState("x", "1.0.0", DIGESTS[0]),)), NODE.verify_key)
    assert fleet.wants(row, "x", DIGESTS[1])
    assert (row.skills["x"].version, row.progress) == ("1.0.0", {})


def test_a_second_hello_of_another_name_nonce_or_key_is_refused() -> None:
    fleet = Fleet()
    row = fleet.hello(hello(), NODE.verify_key, NONCE, 1)
    for frame, key in ((hello(node="other"), NODE), (hello(nonce=b"1" * 16), NODE), (hello(), SigningKey(b"x" * 32))):
        with pytest.raises(SignatureInvalid, match="not this node's own report"):
            fleet.report(row, frame, key.verify_key)
