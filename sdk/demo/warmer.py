"""A skill for the demo's roll-outs: with each bid it moves its machine to one place. What changes from version to version is where to."""

import random

from wasmtime import wat2wasm

from host.core import cbor
from host.core.bundle import with_manifest
from host.core.commands import Move
from host.core.manifest import Manifest, SkillLimits
from host.plugins.contract import BidReply, SelfTestReply
from sdk.demo.hostile import CALL

NAME = "cell-warmer"
_CAPABILITY_AT, _COMMAND_AT, _TESTED_AT, _BID_AT, _ANSWER_AT, _ANSWER_BYTES, _TABLE_AT = 64, 128, 512, 1024, 8192, 4096, 65_536
TABLE_BYTES = 65_536
"""A table that every version has, as a skill's data would be: so that what has changed is little of the whole."""

_TEXT = """
(module
  {call}
  (memory (export "memory") 3)
  (data (i32.const {capability_at}) "motion")
  (data (i32.const {command_at}) "{command}")
  (data (i32.const {tested_at}) "{tested}")
  (data (i32.const {bid_at}) "{bid}")
  (data (i32.const {table_at}) "{table}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_self_test") (param i32 i32) (result i64) (i64.const {tested_reply}))
  (func (export "hook_bid") (param i32 i32) (result i64)
    (drop (call $call (i32.const {capability_at}) (i32.const 6) (i32.const {command_at}) (i32.const {command_bytes}) (i32.const {answer_at})
      (i32.const {answer_bytes})))
    (i64.const {bid_reply})))
"""


def bundle(version: str, x_mm: float) -> bytes:
    """An unsigned bundle of the version that moves to `x_mm`."""
    command = cbor.encode(Move(moves=((x_mm, 0.0, 0.0, 50.0),)))
    tested = cbor.encode(SelfTestReply(detail="", ok=True))
    bid = cbor.encode(BidReply(cost=1.0, finish_ms=1, id="warm-up", price=1.0, reason="to keep warm"))
    text = _TEXT.format(
        call=CALL, capability_at=_CAPABILITY_AT, command_at=_COMMAND_AT, command=_escaped(command), command_bytes=len(command), tested_at=_TESTED_AT,
        tested=_escaped(tested), tested_reply=_TESTED_AT << 32 | len(tested), bid_at=_BID_AT, bid=_escaped(bid), bid_reply=_BID_AT << 32 | len(bid),
        table_at=_TABLE_AT, table=_escaped(random.Random(NAME).randbytes(TABLE_BYTES)), answer_at=_ANSWER_AT, answer_bytes=_ANSWER_BYTES,
    )  # fmt: skip
    manifest = Manifest(
        name=NAME, version=version, description="moves a machine now and then, so that it stays warm", hooks=("bid", "self_test"), capabilities=("motion",),
        limits=SkillLimits(fuel=1_000_000, deadline_ms=5_000, memory_bytes=4 << 20, reply_bytes=4096),
    )  # fmt: skip
    return with_manifest(bytes(wat2wasm(text)), manifest, NAME)


def _escaped(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)
