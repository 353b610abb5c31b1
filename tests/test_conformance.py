"""The contract's own cases: that they are current, that the host's decoder agrees with them, and what a module that breaks them is told."""

import json
from pathlib import Path

import msgspec
import pytest
from wasmtime import wat2wasm

from host.core import cbor
from host.core.bundle import with_manifest
from host.core.errors import MalformedData, TooLarge, UsageError
from host.core.manifest import Manifest, SkillLimits
from host.plugins.contract import SHAPES, STREAMING, BidReply, ErrorReply
from sdk import conformance
from sdk.conformance import FOLDER, cases, raw
from sdk.local import read_bundle

SKILLS = Path(__file__).resolve().parents[1] / "skills"  # with their sources, which no installation has

SHIPPED = sorted(path.parent.name for path in SKILLS.glob("*/*.wasm"))


def test_the_files_are_those_that_the_structs_give():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(SHAPES) | set(STREAMING)
    for hook in cases.HOOKS:
        assert (FOLDER / f"{hook}.json").read_bytes() == conformance.written(cases.made(hook)), "run `python -m sdk.conformance`"


def test_the_hosts_own_decoder_takes_what_must_be_answered_and_refuses_the_rest():
    """The host takes an infinity, a NaN, and an integer for a float; no host sends them, and every guest library refuses them."""
    for hook, file in conformance.load().items():
        for case in file.cases:
            data = bytes.fromhex(case.cbor)
            if case.expect == "answer":
                assert cbor.encode(cbor.decode_struct(data, cases.request_of(hook), case.name)) == data
            elif not case.name.endswith(("infinity", "not-a-number", "integer", "negative")):
                with pytest.raises((MalformedData, TooLarge)):
                    cbor.decode_struct(data, cases.request_of(hook), case.name)


def test_each_case_has_a_name_of_its_own_and_a_sound_one_says_its_bytes_in_json():
    for file in conformance.load().values():
        assert len({case.name for case in file.cases}) == len(file.cases)
        sound = [case for case in file.cases if case.expect == "answer"]
        assert sound[0].name == "typical"
        for case in sound:
            shown = msgspec.to_builtins(cbor.decode(bytes.fromhex(case.cbor), case.name))
            assert json.loads(json.dumps(shown)) == case.value


def test_raw_items_are_written_as_they_are_and_everything_else_deterministically():
    assert (
        raw.encode({"bb": [1, raw.Raw(b"\xff")], "a": 0.5})
        == cbor.encode({"a": 0.5})[:1].replace(b"\xa1", b"\xa2") + b"aa\xf9\x38\x00bbb\x82\x01\xff"
    )
    for argument in (0, 23, 24, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1):
        assert raw.head(0, argument) == cbor.encode(argument)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_skill_conforms(name):
    data = read_bundle(SKILLS / name)
    found = conformance.run(data, name)
    assert found.failures == ()
    assert conformance.in_words(found)[-1].endswith("cases end as the contract wants.")
    assert sum(found.ran.values()) > 100


def canned(reply: bytes, body: str = "") -> bytes:
    """A module whose `bid` always answers with the same bytes; `body` may do something before."""
    manifest = Manifest(name="canned", version="1.0.0", hooks=("bid",), limits=SkillLimits(fuel=100_000, memory_bytes=1 << 20))
    data = "".join(f"\\{byte:02x}" for byte in reply)
    return with_manifest(
        bytes(wat2wasm(f"""
(module
  (memory (export "memory") 2)
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 16) "{data}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "hook_bid") (param $at i32) (param $len i32) (result i64)
    {body}
    (i64.const {16 << 32 | len(reply)})))
""")),
        manifest,
        "canned",
    )  # fmt: skip


GOOD = cbor.encode(BidReply(cost=1.0, finish_ms=0, id="b", reason=""))
BAD_REQUEST = cbor.encode(ErrorReply(code="bad_request", message="no"))


def failed(data: bytes) -> dict[str, str]:
    return {failure.case: failure.problem for failure in conformance.run(data, "canned").failures}


@pytest.mark.slow
def test_a_module_that_answers_everything_is_told_what_it_should_have_refused():
    problems = failed(canned(GOOD))
    assert "typical" not in problems
    assert problems["empty"] == "expected the error reply bad_request, got a reply"
    assert len(problems) > 100


@pytest.mark.slow
def test_a_reply_of_another_shape_and_a_trap_are_told():
    assert "contract's shape" in failed(canned(cbor.encode({"cost": 1.0})))["typical"]
    assert "got no reply" in failed(canned(GOOD, "unreachable"))["typical"]
    assert "got no reply" in failed(canned(GOOD, "(loop $again (br $again))"))["typical"]


@pytest.mark.slow
def test_a_module_without_a_hook_that_has_cases_is_an_error():
    with pytest.raises(UsageError, match="no cases for its hooks: bid"):
        conformance.run(canned(GOOD), "canned", {})


@pytest.mark.slow
def test_the_command_reports_in_words_and_in_its_exit_code(tmp_path):
    from typer.testing import CliRunner

    from sdk.cli.main import app

    (tmp_path / "bad.wasm").write_bytes(canned(GOOD))
    runner = CliRunner()
    told = runner.invoke(app, ["skill", "conformance", str(tmp_path / "bad.wasm")])
    assert told.exit_code == 1
    assert "bid: empty (no bytes at all): expected the error reply bad_request, got a reply." in told.output
    sound = runner.invoke(app, ["skill", "conformance", str(SKILLS / "bounty-bidder" / "bounty-bidder.wasm"), "--json"])
    assert sound.exit_code == 0
    assert json.loads(sound.output.splitlines()[-1])["failures"] == []
