"""Feature flags that skills ask for, and the features and host versions that they may need."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host.core import cbor, flags
from host.core.attestation import Measurement
from host.core.capabilities import BUILT_IN, FEATURES, FLAGS, grant
from host.core.errors import CapabilityDenied, Incompatible, MalformedData, TooLarge
from host.node import Node
from host.plugins.contract import BidReply
from host.supply.facts import host_version
from sdk.cli.node_init import CAPABILITIES
from sdk.demo.samples import BID

MEASURED = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]
REPLY_AT = 12288


def test_a_flag_is_on_when_it_is_named_and_off_else() -> None:
    on = ("fast_path", "second")
    assert cbor.decode(flags.answer(cbor.encode({"flag": "fast_path"}), on), "reply") == {"on": True}
    assert cbor.decode(flags.answer(cbor.encode({"flag": "third"}), on), "reply") == {"on": False}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"", MalformedData), (b"\xff", MalformedData), (cbor.encode({}), MalformedData), (cbor.encode({"flag": 1}), MalformedData),
        (cbor.encode({"flag": "../x"}), MalformedData), (cbor.encode({"flag": "a", "set": True}), MalformedData), (bytes(257), TooLarge),
    ],
)  # fmt: skip
def test_a_request_for_a_flag_that_is_none_is_refused(request_: bytes, error: type[Exception], one_line: OneLine) -> None:
    with pytest.raises(error) as caught:
        flags.answer(request_, ())
    one_line(caught.value, "request for flags")


def test_flags_are_built_in_and_link_the_import_call() -> None:
    assert FLAGS in BUILT_IN and FLAGS in FEATURES
    granted = grant("greeter", {FLAGS}, {FLAGS, "log"})
    assert (granted.imports(), granted.drivers) == ({"call"}, frozenset())
    with pytest.raises(CapabilityDenied, match="flags"):
        grant("greeter", {FLAGS}, {"log"})


@pytest.fixture
def node(tmp_path: Path, clock: Any, make_state: Callable[..., Path]) -> Iterator[Node]:
    state = make_state(tmp_path / "node", clock, allowed=("flags", "log"))
    made = Node.open(state, MEASURED, clock=clock, log=lambda level, line: None)
    yield made
    made.close()


def asking(make: MakeSkill, request: bytes, **described: Any) -> bytes:
    """A skill that asks for a flag, and answers a bid with what it learned as the reason: see `answers`."""
    escaped = "".join(f"\\{byte:02x}" for byte in request)
    reply = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="1.0.0", reason="greeter"))  # which the fixture puts at 1024
    at = 1024 + reply.index(b"greeter") + len("greeter") - 1
    body = f"""(local $length i32)
      (local.set $length (call $call (i32.const 8192) (i32.const 5) (i32.const 8256) (i32.const {len(request)}) (i32.const {REPLY_AT}) (i32.const 4096)))
      (i32.store8 (i32.const {at}) (select (i32.const 101) (i32.const 110) (i32.lt_s (local.get $length) (i32.const 0))))
      (if (i32.gt_s (local.get $length) (i32.const 0))
        (then (if (i32.eq (i32.load8_u (i32.add (i32.const {REPLY_AT - 1}) (local.get $length))) (i32.const 0xf5))
          (then (i32.store8 (i32.const {at}) (i32.const 121))))))
      (i64.const {1024 << 32 | len(reply)})"""
    imports = (
        '(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32))) '
        f'(data (i32.const 8192) "flags") (data (i32.const 8256) "{escaped}")'
    )
    return make(imports=imports, capabilities=("flags",), body=body, **described)


def answers(node: Node) -> list[str]:
    """y for a flag that is on, n for one that is off, e for an error reply."""
    return [reply.reason[-1] for reply in asyncio.run(node.call("bid", BID))]


def install(node: Node, data: bytes) -> None:
    asyncio.run(node.install(data, f"sha256:{hashlib.sha256(data).hexdigest()}"))


def test_a_skill_asks_for_a_flag_and_learns_when_it_is_switched(node: Node, make_skill: MakeSkill) -> None:
    install(node, asking(make_skill, cbor.encode({"flag": "fast_path"})))
    assert answers(node) == ["n"]
    node._keeper = SimpleNamespace(flags=frozenset({"fast_path"}), serial=1)
    assert answers(node) == ["y"]
    assert node.status()["flags"] == ["fast_path"]
    node._keeper.flags = frozenset({"other"})
    assert answers(node) == ["n"]


def test_a_bad_question_is_an_error_reply_and_no_refused_command(node: Node, make_skill: MakeSkill) -> None:
    install(node, asking(make_skill, b"\xff"))
    assert answers(node) == ["e"]
    assert node.manager.skills["greeter"].tally.refused == 0


def test_a_skill_that_was_not_granted_flags_does_not_come_in(tmp_path: Path, clock: Any, make_state: Any, make_skill: MakeSkill) -> None:
    node = Node.open(make_state(tmp_path / "n", clock, allowed=("log",)), MEASURED, clock=clock, log=lambda level, line: None)
    with pytest.raises(CapabilityDenied, match="flags"):
        install(node, asking(make_skill, cbor.encode({"flag": "fast_path"})))
    node.close()


def test_a_skill_with_needs_that_this_host_meets_comes_in(node: Node, make_skill: MakeSkill) -> None:
    install(node, make_skill(features=tuple(sorted(FEATURES)), host_min=host_version()))
    assert [skill.name for skill in node.skills()] == ["greeter"]


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        ({"features": ("flags", "teleport")}, ("teleport", "quarantine")),
        ({"host_min": "99.0.0"}, ("99.0.0", "or newer")),
        ({"host_min": "99.0.0-rc.1", "features": ("teleport",)}, ("99.0.0-rc.1",)),
    ],
)
def test_a_skill_with_needs_that_this_host_does_not_meet_is_refused(
    needs: dict[str, Any], names: tuple[str, ...], node: Node, make_skill: MakeSkill, one_line: OneLine
) -> None:
    with pytest.raises(Incompatible) as caught:
        install(node, make_skill(**needs))
    one_line(caught.value, "greeter 1.0.0", host_version(), *names)


def test_the_hosts_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metadata.version("snapcount").startswith(host_version())
    for found, version in (("1.2.3.dev4", "1.2.3"), ("0.1", "0.0.0")):
        monkeypatch.setattr(metadata, "version", lambda name, found=found: found)
        assert host_version() == version


def test_a_new_node_allows_flags() -> None:
    assert "flags" in CAPABILITIES.split(",")
