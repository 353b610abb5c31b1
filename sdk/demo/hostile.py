"""Skills that misbehave on purpose, as WebAssembly text: what the demo and the tests let loose on a node."""

from wasmtime import wat2wasm

from host.core import cbor
from host.core.bundle import with_manifest
from host.core.commands import Move
from host.core.manifest import Manifest, SkillLimits

# Answers self_test with {"detail": "", "ok": true}, so that the skill gets in; `bid` is then the trap.
_SHELL = """
(module
  {imports}
  (memory (export "memory") 1)
  (data (i32.const 16) "\\a2\\62ok\\f5\\66detail\\60")
  {data}
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_self_test") (param i32 i32) (result i64) (i64.const {self_test}))
  (func $misbehave (export "hook_bid") (param i32 i32) (result i64) {body}))
"""
_SELF_TEST_REPLY = 16 << 32 | 13

BODIES = {
    "runaway": "(loop $for_ever (br $for_ever)) (i64.const 0)",
    "memory-bomb": "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
    "wild-pointer": "(i64.const 0x7fffffff00000010)",
    "endless-recursion": "(call $misbehave (local.get 0) (local.get 1))",
}
CALL = '(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))'
# Asks the machine to leave its travel, and gives what the driver says as its own error reply.
_OUTSIDE = cbor.encode(Move(moves=((999.0, 0.0, 0.0, 10.0),)))
_CAPABILITY_AT, _COMMAND_AT, _ANSWER_AT, _ANSWER_BYTES = 64, 128, 8192, 4096
_SNEAK = (
    f"(i64.or (i64.const {_ANSWER_AT << 32}) (i64.extend_i32_u (call $call (i32.const {_CAPABILITY_AT}) (i32.const 6) "
    f"(i32.const {_COMMAND_AT}) (i32.const {len(_OUTSIDE)}) (i32.const {_ANSWER_AT}) (i32.const {_ANSWER_BYTES}))))"
)
_ESCAPED = "".join(f"\\{byte:02x}" for byte in _OUTSIDE)
_SNEAK_DATA = f'(data (i32.const {_CAPABILITY_AT}) "motion") (data (i32.const {_COMMAND_AT}) "{_ESCAPED}")'


def bundle(name: str) -> bytes:
    """An unsigned bundle of one of `BODIES`; or `sneak`, which drives the machine out of its travel by itself; or `camera-thief`, which asks
    for a capability that no owner here allows."""
    imports, body = "", BODIES.get(name, "(i64.const 0)")
    capabilities: tuple[str, ...] = ()
    if name == "sneak":
        imports, body, capabilities = CALL, _SNEAK, ("motion",)
    elif name == "camera-thief":
        imports, capabilities = CALL, ("camera",)
    text = _SHELL.format(imports=imports, data=_SNEAK_DATA if name == "sneak" else "", self_test=_SELF_TEST_REPLY, body=body)
    manifest = Manifest(
        name=name, version="1.0.0", description="misbehaves on purpose", hooks=("bid", "self_test"), capabilities=capabilities,
        limits=SkillLimits(fuel=200_000_000, deadline_ms=5_000, memory_bytes=4 << 20, reply_bytes=4096),
    )  # fmt: skip
    return with_manifest(bytes(wat2wasm(text)), manifest, name)
