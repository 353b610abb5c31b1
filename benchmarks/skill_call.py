"""What a skill call costs, beside wasmtime's own Python API and Extism's Python host, measured in the same run.

Every peer runs the same job: 1 KiB goes into the guest, the guest copies it, 1 KiB comes back. Every call is guarded: ours and wasmtime's Python API
by fuel and an epoch deadline set anew for each call, Extism by its timeout (its Python API offers no fuel).
`direct_ns` is the call path of `cython_core.direct`; `sandbox_ns` is the same through the sandbox's typed-error layer; `hook_us` is a whole hook call
through pluggy: typed request, CBOR both ways, a fresh instance, checks, on a guest that does nothing else; `hook_bounty_bidder_us` is the same with the
shipped skill's own work; `instance_us` is a fresh guarded instance made and freed.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import extism
import wasmtime
from common import median_ns, report
from wasmtime import wat2wasm

from host.core import cbor
from host.core.bundle import digest_of, with_manifest
from host.core.manifest import Manifest, SkillLimits
from host.plugins.contract import BidReply
from host.plugins.manager import PluginManager
from host.sandbox.cache import KEY_BYTES, CompiledCache
from host.sandbox.engine import config, default_engine
from host.sandbox.skill import LoadedSkill, SkillInstance
from sdk.demo.samples import BID
from sdk.local import LocalSkill, read_bundle
from skills import module_path

PAYLOAD = bytes(range(256)) * 4
FUEL, DEADLINE_MS = 1_000_000, 1_000

ECHO = """
(module
  (memory (export "memory") 1)
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "hook_bid") (param i32 i32) (result i64)
    (memory.copy (i32.const 8192) (local.get 0) (local.get 1))
    (i64.or (i64.shl (i64.const 8192) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))
"""

# Extism's convention: input and output live in its kernel's memory, and a guest copies them eight bytes at a time, as its PDKs do.
EXTISM_ECHO = """
(module
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 1)
  (func (export "echo") (result i32)
    (local $n i64) (local $i i64) (local $out i64)
    (local.set $n (call $input_length))
    (local.set $out (call $alloc (local.get $n)))
    (block $done (loop $next
      (br_if $done (i64.ge_u (local.get $i) (local.get $n)))
      (call $store_u64 (i64.add (local.get $out) (local.get $i)) (call $input_load_u64 (local.get $i)))
      (local.set $i (i64.add (local.get $i) (i64.const 8)))
      (br $next)))
    (call $output_set (local.get $out) (local.get $n))
    (i32.const 0)))
"""


def bundle(wat: str) -> bytes:
    manifest = Manifest(name="echo", version="1.0.0", hooks=("bid",), limits=SkillLimits(fuel=FUEL, deadline_ms=DEADLINE_MS))
    return with_manifest(bytes(wat2wasm(wat)), manifest, "echo")


def direct(skill: LoadedSkill) -> float:
    with skill.instance() as instance:
        raw, ticks = instance._raw, skill.ticks
        first = raw.call(0, PAYLOAD, FUEL, ticks)
        assert PAYLOAD in (first, first[0]), "the echo must be whole"
        return median_ns(lambda: raw.call(0, PAYLOAD, FUEL, ticks), 20_000)


def sandbox(instance: SkillInstance) -> float:
    return median_ns(lambda: instance.call("bid", PAYLOAD), 20_000)


def wasmtime_py() -> float:
    """wasmtime's Python API, with the same configuration of the engine."""
    engine = wasmtime.Engine(config())
    store = wasmtime.Store(engine)
    store.set_fuel(FUEL)
    store.set_epoch_deadline(100)
    exports = wasmtime.Instance(store, wasmtime.Module(engine, wat2wasm(ECHO)), []).exports(store)
    memory, alloc, hook = exports["memory"], exports["sc_alloc"], exports["hook_bid"]

    def call() -> bytes:
        store.set_fuel(FUEL)
        store.set_epoch_deadline(100)
        pointer = alloc(store, len(PAYLOAD))
        memory.write(store, PAYLOAD, pointer)
        packed = hook(store, pointer, len(PAYLOAD))
        start, length = packed >> 32, packed & 0x7FFFFFFF
        return bytes(memory.read(store, start, start + length))

    assert call() == PAYLOAD
    return median_ns(call, 1_000)


def extism_py() -> float:
    manifest = {"wasm": [{"data": bytes(wat2wasm(EXTISM_ECHO))}], "timeout_ms": DEADLINE_MS, "memory": {"max_pages": 16}}
    with extism.Plugin(manifest, wasi=False) as plugin:
        assert plugin.call("echo", PAYLOAD) == PAYLOAD
        return median_ns(lambda: plugin.call("echo", PAYLOAD), 2_000)


def canned_bidder() -> bytes:
    """A guest that answers every `bid` with the same typed reply, so that what is measured is the host's share of a hook call."""
    reply = cbor.encode(BidReply(cost=40.5, finish_ms=5_400_000, id="haul-1", price=48.6, reason="cost plus margin"))
    data = "".join(f"\\{byte:02x}" for byte in reply)
    return bundle(f"""
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "{data}")
  (func (export "sc_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "hook_bid") (param i32 i32) (result i64) (i64.const {16 << 32 | len(reply)})))
""")


def hook(data: bytes) -> float:
    """A whole `bid`, as a node calls it: pluggy, the typed request to CBOR, a fresh instance, the call, the reply checked and decoded."""
    manager = PluginManager()
    manager.activate(LocalSkill(data, "bidder").version)
    assert manager.hook.bid(request=BID)[0].price > 0
    return median_ns(lambda: manager.hook.bid(request=BID), 2_000)


def fresh(skill: LoadedSkill) -> float:
    def once() -> None:
        with skill.instance():
            pass

    return median_ns(once, 5_000)


def load_cached() -> dict[str, Any]:
    """Loads a module of 1 MB from the cache: authenticated, mapped, deserialized."""
    data, cache_key = bundle(large_wat()), bytes(KEY_BYTES)
    manifest = LocalSkill(data, "large").manifest
    engine, digest = default_engine(), digest_of(data)
    with tempfile.TemporaryDirectory() as folder:
        cache = CompiledCache(Path(folder), cache_key)
        started = time.perf_counter()
        cache.module(engine, data, digest, manifest)
        compile_ms = (time.perf_counter() - started) * 1000
        compiled = sum(path.stat().st_size for path in Path(folder).glob("*.cwasm"))
        ms = median_ns(lambda: cache.load(engine, digest, manifest), 20) / 1e6
    return {"load_cached_ms": round(ms, 3), "module_bytes": len(data), "compiled_bytes": compiled, "compile_ms": round(compile_ms)}


def large_wat() -> str:
    """A module of a little over 1 MB, all of it code: functions of arithmetic, branches and stores, no two alike."""
    step = (
        "(local.set 2 (i64.add (i64.mul (local.get 2) (i64.const {c})) (i64.extend_i32_u (local.get 0))))"
        "(if (i32.lt_s (local.get 0) (i32.const {d})) (then (i32.store offset={o} (i32.and (local.get 0) (i32.const 1023)) (i32.wrap_i64 (local.get 2)))))"
    )
    functions = []
    for i in range(1_520):
        body = "".join(step.format(c=i * 7 + j, d=j * 3, o=4 * j) for j in range(20))
        functions.append(f"(func $f{i} (param i32 i32) (result i64) (local i64) {body} (local.get 2))")
    shell = '(memory (export "memory") 2) (func (export "sc_alloc") (param i32) (result i32) i32.const 1024) (export "hook_bid" (func $f0))'
    return f"(module {shell} {''.join(functions)})"


def main() -> None:
    echo = LocalSkill(bundle(ECHO), "echo").loaded
    direct_ns, wasmtime_ns, extism_ns = direct(echo), wasmtime_py(), extism_py()
    with echo.instance() as instance:
        sandbox_ns = sandbox(instance)
    report({
        "path": echo.path, "direct_ns": round(direct_ns, 1), "sandbox_ns": round(sandbox_ns, 1), "wasmtime_py_ns": round(wasmtime_ns, 1),
        "extism_ns": round(extism_ns, 1), "ratio_wasmtime_py": round(wasmtime_ns / direct_ns, 1), "ratio_extism": round(extism_ns / direct_ns, 1),
        "hook_us": round(hook(canned_bidder()) / 1000, 2),
        "hook_bounty_bidder_us": round(hook(read_bundle(module_path("bounty-bidder"))) / 1000, 2), "instance_us": round(fresh(echo) / 1000, 2), **load_cached(),
    })  # fmt: skip


if __name__ == "__main__":
    main()
