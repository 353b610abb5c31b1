"""Skills that misbehave on purpose, as WebAssembly text: what the demo and the tests let loose on a node."""

from wasmtime import wat2wasm

from host.core.bundle import with_manifest
from host.core.manifest import Manifest, SkillLimits

# Answers self_test with {"detail": "", "ok": true}, so that the skill gets in; `bid` is then the trap.
_SHELL = """
(module
  {imports}
  (memory (export "memory") 1)
  (data (i32.const 16) "\\a2\\62ok\\f5\\66detail\\60")
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
CAMERA = '(import "snapcount:host/1" "call" (func (param i32 i32 i32 i32 i32 i32) (result i32)))'


def bundle(name: str) -> bytes:
    """An unsigned bundle of one of `BODIES`, or `camera-thief`, which asks for a capability that no owner here allows."""
    thief = name == "camera-thief"
    text = _SHELL.format(imports=CAMERA if thief else "", self_test=_SELF_TEST_REPLY, body="(i64.const 0)" if thief else BODIES[name])
    manifest = Manifest(
        name=name, version="1.0.0", description="misbehaves on purpose", hooks=("bid", "self_test"), capabilities=("camera",) if thief else (),
        limits=SkillLimits(fuel=200_000_000, deadline_ms=5_000, memory_bytes=4 << 20, reply_bytes=4096),
    )  # fmt: skip
    return with_manifest(bytes(wat2wasm(text)), manifest, name)
