"""The slow tier on small components made by hand: what is refused before it runs, how a call can end, and how values get there and back."""

import asyncio
import contextlib
import gc
import os
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from wasmtime import Engine, WasmtimeError, wat2wasm
from wasmtime import component as types

from host.core import cbor, wasm
from host.core.attestation import Measurement
from host.core.bundle import UnverifiedBundle, digest_of, with_manifest, with_signature
from host.core.capabilities import COMPONENTS, FEATURES, Grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import (
    Busy,
    CapabilityDenied,
    DeadlineExceeded,
    FuelExhausted,
    GuestTrap,
    HostCallsExceeded,
    HostFault,
    Incompatible,
    MalformedModule,
    MemoryExceeded,
    ReplyInvalid,
    SkillRefused,
    SnapcountError,
    TooLarge,
)
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, SkillLimits
from host.node import Node
from host.plugins.contract import SHAPES, SelfTestReply
from host.sandbox import component_engine, direct, signatures, values
from host.sandbox.cache import CompiledCache
from host.sandbox.compiler import compile_module
from host.sandbox.component_checks import IMPORTS, check_component_bytes, check_component_types, signature_of
from host.sandbox.component_imports import SERVED
from host.sandbox.compounds import Many
from host.sandbox.engine import SkillEngine
from host.sandbox.faults import CallFault, Fault, typed
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
from host.sandbox.tiers import COMPONENT, tier_of
from sdk import inspection, local, samples
from sdk.local import LocalSkill

NAME = "probe"
FINE = """
  (i32.store8 (i32.const 0) (i32.const 0)) (i32.store8 (i32.const 4) (i32.const 1))
  (i32.store (i32.const 8) (i32.const 100)) (i32.store (i32.const 12) (i32.const 4)) (i32.const 0)"""
REFUSES = """
  (i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const {code})) (i32.store (i32.const 8) (i32.const {length}))
  (i32.store (i32.const 12) (i32.const 100)) (i32.store (i32.const 16) (i32.const 4)) (i32.const 0)"""
TYPES = """
  (type $r (record (field "ok" bool) (field "detail" string))) (export $reply "self-test-reply" (type $r))
  (type $e (record (field "code" string) (field "message" string))) (export $error "error-reply" (type $e))"""
LOG = """
  (import "snapcount:skill/log@1.0.0" (instance $log
    (type $l (enum "debug" "info" "warning" "error")) (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "line" string)))))
  (core func $write (canon lower (func $log "write") (memory (core memory $memory "memory"))))"""
CLOCK = """
  (import "snapcount:skill/clock@1.0.0" (instance $clock (export "now-ms" (func (result u64)))))
  (core func $now (canon lower (func $clock "now-ms")))"""


def component(
    body: str = FINE, *, pages: int = 1, imports: str = "", given: str = "", wanted: str = "", export: str = "self-test", more: str = ""
) -> bytes:
    """A component whose hook `self_test` runs `body`, which leaves the address of a result."""
    return bytes(wat2wasm(f"""(component
      (core module $store (memory (export "memory") {pages}) (data (i32.const 100) "fine") (data (i32.const 120) "no_way") (data (i32.const 140) "trap"))
      (core instance $memory (instantiate $store))
      {imports}
      (core module $m (import "m" "memory" (memory 1)) {wanted} (global $g (mut i32) (i32.const 0)) (func $deep (call $deep)) (func (export "run") (result i32) {body}))
      (core instance $i (instantiate $m (with "m" (instance $memory)) {given}))
      {TYPES}
      (func $f (result (result $reply (error $error))) (canon lift (core func $i "run") (memory (core memory $memory "memory"))))
      (export "{export}" (func $f)) {more})"""))  # fmt: skip


LOGS = component(
    f'(call $write (i32.const 1) (i32.const 100) (i32.const 4)) {FINE}', imports=LOG, wanted='(import "host" "write" (func $write (param i32 i32 i32)))',
    given='(with "host" (instance (export "write" (func $write))))',
)  # fmt: skip
TELLS = component(
    f"(drop (call $now)) (drop (call $now)) {FINE}", imports=CLOCK, wanted='(import "host" "now" (func $now (result i64)))',
    given='(with "host" (instance (export "now" (func $now))))',
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> SkillEngine:
    return SkillEngine(replace(DEFAULT, component_instances_max=2))


def manifest(**changes: object) -> Manifest:
    return Manifest(
        **{"name": NAME, "version": "1.0.0", "hooks": ("self_test",), "limits": SkillLimits(fuel=1_000_000, deadline_ms=10_000)} | changes
    )  # type: ignore[arg-type]


def load(
    engine: SkillEngine, data: bytes, *, granted: frozenset[str] = frozenset(), logged: list[str] | None = None, **changes: object
) -> LoadedSkill:
    """A component checked, linked with what it was granted, and ready to be instantiated."""
    described = manifest(capabilities=tuple(sorted(granted)), **changes)
    check_component_bytes(data, NAME)
    loaded = types.Component(engine.components.engine, data)
    check_component_types(loaded, engine.components.engine, described)
    lines = [] if logged is None else logged
    services = HostServices(NAME, Grant(granted), SystemClock(), SystemRandom(), log=lambda level, line: lines.append(f"{level} {line}"))
    return LoadedSkill(engine, loaded, described, Grant(granted), services, limits=engine.limits)


def ask(skill: LoadedSkill) -> SelfTestReply:
    with skill.instance() as instance:
        return cbor.decode_struct(instance.call("self_test", cbor.encode({})), SelfTestReply, "reply")


def refused(kind: type[SnapcountError], engine: SkillEngine, data: bytes, **changes: object) -> str:
    with pytest.raises(kind) as caught:
        load(engine, data, **changes)  # type: ignore[arg-type]
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


# Calls.


def test_a_component_answers_and_each_instance_serves_a_call_as_the_first_one_did(engine: SkillEngine) -> None:
    counts = component(
        f"(global.set $g (i32.add (global.get $g) (i32.const 1))) (if (i32.ne (global.get $g) (i32.const 1)) (then unreachable)) {FINE}"
    )
    skill = load(engine, counts)
    assert skill.path == "component"
    assert [ask(skill) for _ in range(3)] == [SelfTestReply(detail="fine", ok=True)] * 3
    with skill.instance() as instance:
        instance.call("self_test", cbor.encode({}))
        used = instance.fuel_used
        with pytest.raises(GuestTrap):
            instance.call("self_test", cbor.encode({}))
        assert instance.faulted and used > 0
    assert {_fuel(skill) for _ in range(3)} == {used}


def _fuel(skill: LoadedSkill) -> int:
    with skill.instance() as instance:
        instance.call("self_test", cbor.encode({}))
        return instance.fuel_used


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("unreachable", GuestTrap, "unreachable"),
        ("(i32.load (i32.const -4))", GuestTrap, "memory out of bounds"),
        ("(i32.div_u (i32.const 1) (global.get $g))", GuestTrap, "division by zero"),
        ("(call $deep) unreachable", GuestTrap, "stack overflow"),
        ("(loop $again (br $again)) unreachable", FuelExhausted, "used up its 1000000 units of fuel"),
        ("(i32.const 65534)", ReplyInvalid, "cannot be read"),
        (REFUSES.format(code=120, length=6), SkillRefused, "no_way: fine"),
        (REFUSES.format(code=140, length=4), GuestTrap, "probe 1.0.0: trapped: fine"),
        (FINE.replace("(i32.const 4)) (i32.const 0)", "(i32.const 0x7fffffff)) (i32.const 0)"), ReplyInvalid, "out of bounds"),
    ],
)  # fmt: skip
def test_a_call_without_a_reply_ends_as_one_typed_error(engine: SkillEngine, body: str, kind: type[SnapcountError], says: str) -> None:
    with pytest.raises(kind) as caught:
        ask(load(engine, component(body)))
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert ask(load(engine, component())).ok


def test_a_deadline_ends_a_call_that_has_fuel_left(engine: SkillEngine) -> None:
    endless = load(engine, component("(loop $again (br $again)) unreachable"), limits=SkillLimits(fuel=DEFAULT.fuel_max, deadline_ms=20))
    with pytest.raises(DeadlineExceeded, match="ran longer than its 20 ms"):
        ask(endless)


def test_memory_beyond_the_limit_is_not_given(engine: SkillEngine) -> None:
    limits = SkillLimits(memory_bytes=1 << 20)
    with pytest.raises(MemoryExceeded, match="1048576 bytes"):
        ask(load(engine, component(pages=17), limits=limits))
    with pytest.raises(MemoryExceeded, match="memory count too high at 3"):
        ask(load(engine, component(more="(core module $s (memory 1)) (core instance (instantiate $s)) (core instance (instantiate $s))")))
    grows = component(f"(if (i32.ne (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) {FINE}")
    assert ask(load(engine, grows, limits=limits)).ok


def test_a_reply_over_its_ceiling_is_refused(engine: SkillEngine) -> None:
    with pytest.raises(ReplyInvalid, match="at most 8"):
        ask(load(engine, component(), limits=SkillLimits(reply_bytes=8)))
    long = FINE.replace("(i32.const 4)) (i32.const 0)", "(i32.const 60000)) (i32.const 0)")
    with pytest.raises(ReplyInvalid, match="replied with more than 4096 bytes"):
        ask(load(engine, component(long), limits=SkillLimits(reply_bytes=8)))


def test_what_a_host_call_gets_has_a_ceiling_too(engine: SkillEngine) -> None:
    shouts = component(
        f"(call $write (i32.const 1) (i32.const 0) (i32.const {DEFAULT.request_bytes_max + 1})) {FINE}", pages=65, imports=LOG,
        wanted='(import "host" "write" (func $write (param i32 i32 i32)))', given='(with "host" (instance (export "write" (func $write))))',
    )  # fmt: skip
    with pytest.raises(HostCallsExceeded, match=f"a host call with more than {DEFAULT.request_bytes_max} bytes"):
        ask(load(engine, shouts, granted=frozenset({"log"})))


@pytest.mark.parametrize("name", ["all fuel consumed by WebAssembly", "wasm trap: interrupt", "\\0aCaused by:\\0a    wasm trap: interrupt"])
def test_a_functions_name_does_not_change_what_ended_the_call(engine: SkillEngine, name: str) -> None:
    forged = component(f'(call $forger) unreachable) (func $forger (@name "{name}") unreachable')
    with pytest.raises(GuestTrap) as caught:
        ask(load(engine, forged))
    assert type(caught.value) is GuestTrap and "trapped: unreachable" in str(caught.value)


def test_a_functions_name_does_not_change_why_no_instance_was_made() -> None:
    said = "while executing:\n    0: m!maximum concurrent, exceeds every limit\n\nCaused by:\n    0: no such thing\n    1: nothing at all\n"
    ended = typed(CallFault(Fault.INSTANTIATE, error=WasmtimeError(said)), NAME, SkillLimits(), 0)
    assert type(ended) is MalformedModule and str(ended) == "probe: could not be instantiated: nothing at all"


def test_an_instance_that_nobody_closed_gives_its_place_back_at_once_after_a_call_that_failed(engine: SkillEngine) -> None:
    skill, slots = load(engine, component("unreachable")), engine.components.slots
    before = slots.qsize()
    gc.disable()
    try:
        instance = skill.instance()
        with contextlib.suppress(GuestTrap):
            instance.call("self_test", cbor.encode({}))
        assert slots.qsize() == before - 1
        del instance
        assert slots.qsize() == before
    finally:
        gc.enable()


class Torn:
    """Stands for the variable with the running instance, and is interrupted when it is read: at the `first` reading of a host call, or any."""

    def __init__(self, first: bool) -> None:
        self._value: Any = None
        self._first, self._readings = first, -1

    @property
    def instance(self) -> Any:
        self._readings += 1
        if self._value is not None and (self._readings == 0) == self._first:
            raise KeyboardInterrupt
        return self._value

    @instance.setter
    def instance(self, value: Any) -> None:
        self._value, self._readings = value, -1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("first", [True, False], ids=["as it begins", "as it fails"])
def test_an_interrupt_while_a_host_call_is_answered_is_not_lost(engine: SkillEngine, first: bool) -> None:
    skill = load(engine, TELLS, granted=frozenset({"clock"}), limits=SkillLimits(host_calls=2 if first else 0))
    skill._make.args[0].running = Torn(first)  # type: ignore[attr-defined]
    with skill.instance() as instance, pytest.raises(KeyboardInterrupt):
        instance.call("self_test", cbor.encode({}))


def test_a_start_function_of_a_module_inside_is_under_the_limits_of_a_call(engine: SkillEngine) -> None:
    spins = component(more="(core module $s (func $f (loop $a (br $a))) (start $f)) (core instance (instantiate $s))")
    with pytest.raises(FuelExhausted):
        ask(load(engine, spins))


def test_a_request_that_the_contract_does_not_allow_is_refused_before_the_guest(engine: SkillEngine) -> None:
    with load(engine, component("unreachable")).instance() as instance:
        for request in (b"", b"\xa0\xa0", cbor.encode([]), cbor.encode({"x": 1})):
            with pytest.raises(SkillRefused) as caught:
                instance.call("self_test", request)
            assert caught.value.skill_code == "bad_request"
        with pytest.raises(TooLarge):
            instance.call("self_test", bytes(DEFAULT.request_bytes_max + 1))


def test_there_are_only_so_many_instances_and_a_closed_one_gives_its_place_back(engine: SkillEngine) -> None:
    skill = load(engine, component())
    with skill.instance(), skill.instance() as second:
        with pytest.raises(Busy, match="2 components"):
            skill.instance()
        second.close()
        ask(skill)
    second.close()
    with pytest.raises(HostFault, match="closed"):
        second.call("self_test", cbor.encode({}))
    for _ in range(3):
        with pytest.raises(MemoryExceeded):
            load(engine, component(pages=400), limits=SkillLimits(memory_bytes=1 << 20)).instance()
    ask(skill)


def test_calls_of_two_threads_run_side_by_side_and_keep_their_logs_apart(engine: SkillEngine) -> None:
    told: dict[int, list[str]] = {number: [] for number in range(2)}
    skills = [load(engine, LOGS, granted=frozenset({"log"}), logged=told[number]) for number in range(2)]
    threads = [threading.Thread(target=lambda skill=skill: [ask(skill) for _ in range(50)]) for skill in skills]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {number: ["info fine"] * 50 for number in range(2)}


# Imports.


def test_a_granted_import_is_served_counted_and_charged(engine: SkillEngine) -> None:
    skill = load(engine, TELLS, granted=frozenset({"clock"}))
    with skill.instance() as instance:
        instance.call("self_test", cbor.encode({}))
        assert instance.host_calls == 2
        assert instance.fuel_used > 2 * DEFAULT.host_call_fuel


DRAWS = component(
    f"(call $draw (i32.const 65537) (i32.const 200)) {FINE}",
    imports="""(import "snapcount:skill/random@1.0.0" (instance $random (export "get-bytes" (func (param "size" u32) (result (list u8))))))
      (core module $room (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
      (core instance $realloc (instantiate $room))
      (core func $draw (canon lower (func $random "get-bytes") (memory (core memory $memory "memory")) (realloc (core func $realloc "realloc"))))""",
    wanted='(import "host" "draw" (func $draw (param i32 i32)))', given='(with "host" (instance (export "draw" (func $draw))))',
)  # fmt: skip


def test_what_takes_much_more_room_on_its_way_is_given_in_small_pieces(engine: SkillEngine) -> None:
    with pytest.raises(HostCallsExceeded, match="65537 random bytes"):
        ask(load(engine, DRAWS, granted=frozenset({"random"})))


@pytest.mark.parametrize(
    ("limits", "data", "says"),
    [
        (SkillLimits(host_calls=1), TELLS, "more than 1 host calls"),
        (SkillLimits(log_bytes=3), LOGS, "logged more than 3 bytes"),
    ],
)
def test_host_calls_and_logs_have_ceilings(engine: SkillEngine, limits: SkillLimits, data: bytes, says: str) -> None:
    with pytest.raises(HostCallsExceeded, match=says):
        ask(load(engine, data, granted=frozenset({"clock", "log"}), limits=limits))


def test_a_host_call_that_the_fuel_does_not_reach_for_ends_the_call(engine: SkillEngine) -> None:
    with pytest.raises(FuelExhausted, match="host call"):
        ask(load(engine, TELLS, granted=frozenset({"clock"}), limits=SkillLimits(fuel=1_500)))


def test_what_an_import_raises_reaches_the_caller_and_the_instance_is_not_trusted_any_more(engine: SkillEngine) -> None:
    skill = load(engine, TELLS, granted=frozenset({"clock"}))

    class Broken(SystemClock):
        def now_ms(self) -> int:
            raise ZeroDivisionError("a clock without hands")

    template = skill._make.args[0]  # type: ignore[attr-defined]  # the one place to break a service from
    template.services._clock = Broken()
    with skill.instance() as instance:
        with pytest.raises(HostFault, match="a clock without hands"):
            instance.call("self_test", cbor.encode({}))
        assert instance.faulted


def test_an_import_without_its_grant_is_refused_by_name(engine: SkillEngine) -> None:
    assert "imports log (capability log) without the grant" in refused(CapabilityDenied, engine, LOGS)


def test_wasi_is_refused_in_both_tiers_and_each_says_what_to_do(engine: SkillEngine) -> None:
    wants = component(imports='(import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string))))))')
    said = refused(Incompatible, engine, wants)
    assert "wasi:cli/environment@0.2.0" in said and "without WASI" in said
    core = wat2wasm('(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1)'
        ' (func (export "sc_alloc") (param i32) (result i32) i32.const 8) (func (export "hook_self_test") (param i32 i32) (result i64) i64.const 0))')  # fmt: skip
    from wasmtime import Module

    from host.sandbox.checks import check_types

    with pytest.raises(Incompatible, match=r"wasi_snapshot_preview1\.fd_write.*component"):
        check_types(Module(engine.engine, core), manifest())


@pytest.mark.parametrize(
    ("imports", "says"),
    [
        ('(import "snapcount:skill/log@2.0.0" (instance))', "log@2.0.0"),
        ('(import "snapcount:skill/files@1.0.0" (instance))', "files@1.0.0"),
        ('(import "env" (func))', "imports env"),
        ('(import "snapcount:skill/clock@1.0.0" (instance (export "sleep" (func))))', "imports sleep of"),
    ],
)
def test_an_import_that_this_host_does_not_have_is_refused_by_name(engine: SkillEngine, imports: str, says: str) -> None:
    assert says in refused(Incompatible, engine, component(imports=imports), granted=frozenset({"clock"}))


def test_an_import_of_another_type_is_refused(engine: SkillEngine) -> None:
    other = component(imports='(import "snapcount:skill/clock@1.0.0" (instance (export "now-ms" (func (result s64)))))')
    assert "expected func() -> u64" in refused(MalformedModule, engine, other, granted=frozenset({"clock"}))


@pytest.mark.parametrize(
    ("imports", "says"),
    [
        ('"snapcount:skill/types@1.0.0" (instance (export "made" (type (sub resource))))', "imports made of snapcount:skill/types@1.0.0"),
        ('"snapcount:skill/types@1.0.0" (instance (export "make" (func)))', "it offers types only"),
        ('"snapcount:skill/clock@1.0.0" (instance (export "more" (instance)))', "imports more of"),
        ('"snapcount:skill/clock@1.0.0" (instance (export "code" (core module)))', "imports code of"),
    ],
)
def test_an_import_that_is_neither_a_function_of_the_contract_nor_a_type_is_refused(engine: SkillEngine, imports: str, says: str) -> None:
    assert says in refused(Incompatible, engine, component(imports=f"(import {imports})"), granted=frozenset({"clock"}))
    harmless = component(imports='(import "snapcount:skill/types@1.0.0" (instance (type $t (enum "a")) (export "word" (type (eq $t)))))')
    assert ask(load(engine, harmless)).ok


def test_an_async_function_is_refused(engine: SkillEngine) -> None:
    waits = component(imports='(import "snapcount:skill/clock@1.0.0" (instance (export "now-ms" (func async (result u64)))))')
    with pytest.raises(WasmtimeError, match="async"):
        types.Component(engine.components.engine, waits)
    elsewhere = Engine()
    with pytest.raises(MalformedModule, match="found an async one"):
        check_component_types(types.Component(elsewhere, waits), elsewhere, manifest())


FLOOD = "".join(f'(export "x{n}" (func))' for n in range(DEFAULT.component_externs_max + 1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (component(more="".join(f'(export "x{n}" (func $f))' for n in range(DEFAULT.component_externs_max))), "it has 131 exports"),
        (component(imports="".join(f'(import "x{n}" (func))' for n in range(DEFAULT.component_externs_max + 1))), "it has 129 imports"),
        (
            component(imports=f'(import "snapcount:skill/clock@1.0.0" (instance {FLOOD}))'),
            "it has 129 functions and types in an interface",
        ),
    ],
    ids=["exports", "imports", "an interface"],
)  # fmt: skip
def test_a_flood_of_imports_or_exports_is_refused_before_it_is_listed(engine: SkillEngine, data: bytes, says: str) -> None:
    assert says in refused(MalformedModule, engine, data)


# Exports.


def test_exports_that_are_missing_surplus_or_of_another_type_are_refused(engine: SkillEngine) -> None:
    missing = refused(MalformedModule, engine, component(export="self-check"))
    assert "the export self-test is missing; it exports" in missing
    wrong = component().replace(b"detail", b"entail")
    assert "another type" in refused(MalformedModule, engine, wrong)
    nothing = wat2wasm('(component (core module $m) (export "self-test" (core module $m)))')
    assert "not a function" in refused(MalformedModule, engine, bytes(nothing))
    twice = component(more='(export "bid" (func $f))')
    loaded = types.Component(engine.components.engine, twice)
    with pytest.raises(MalformedModule, match="exports bid, which the manifest does not list"):
        COMPONENT.require_every_hook_named(engine, loaded, manifest())


HEADER = wasm.MAGIC + wasm.COMPONENT
CORE_HEADER = wasm.MAGIC + wasm.VERSION_1


def section(number: int, body: bytes) -> bytes:
    return bytes([number]) + wasm.write_u32(len(body)) + body


def declares(number: int, count: int) -> bytes:
    """A section that says that so many things follow. None does: they are counted before they are read."""
    return section(number, wasm.write_u32(count))


def doubling(levels: int) -> bytes:
    """A component with two instances of one with two instances, and so on."""
    made = "(component $c0 (core module $m) (core instance (instantiate $m)))"
    for level in range(1, levels):
        made += f"(component $c{level} (alias outer 1 $c{level - 1} (component $p)) {'(instance (instantiate $p))' * 2})"
    return component(more=f"{made}(instance (instantiate $c{levels - 1}))")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (component() + section(9, b"\0\0"), "start function"),
        (HEADER + section(4, HEADER + section(9, b"\0\0")), "start function"),
        (doubling(22), "declares 10 instances of components inside it, at most 8"),
        (HEADER + declares(2, 513), "513 instances of core modules, at most 512"),
        (HEADER + declares(6, 10_000) + section(4, HEADER + declares(7, 10_000)), "20001 instances, aliases, types and the like, at most 16384"),
        (HEADER + section(1, CORE_HEADER + declares(6, 32_769)), "32769 imports, functions and globals in a core module, at most 32768"),
        (HEADER + section(1, CORE_HEADER + declares(2, 10_000) + declares(3, 30_000)), "40000 imports, functions and globals"),
        (HEADER + section(4, HEADER + b"\x07\0" * 4096), "more than 4096 sections, those of what is inside it counted in"),
        (HEADER + section(4, HEADER + b"\x07\x05\0"), "is longer than what it stands in"),
        (HEADER + section(4, CORE_HEADER), "section 4 at byte 8 is not what it says"),
        (HEADER + section(1, CORE_HEADER[:7]), "section 1 at byte 8 is not what it says"),
    ],
    ids=[
        "a start function", "one inside", "doubling", "core instances", "aliases and types", "globals", "imports and functions", "sections", "overlong", "no component",
        "no module",
    ],
)  # fmt: skip
def test_a_component_that_declares_what_no_limit_of_a_call_covers_is_refused_before_it_is_compiled(data: bytes, says: str) -> None:
    with pytest.raises(MalformedModule) as caught:
        check_component_bytes(data, NAME)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_many_modules_side_by_side_and_components_inside_one_another_are_counted_each_for_itself() -> None:
    full = section(1, CORE_HEADER + declares(6, 32_768))
    nested = HEADER
    for _ in range(1_000):  # no Python stack is that deep
        nested = HEADER + section(4, nested) + b"\x07\0"
    check_component_bytes(HEADER + full * 3 + section(4, nested) + full, NAME)


# The file.


def test_a_component_carries_its_manifest_and_signatures_as_a_module_does() -> None:
    data = with_manifest(component(), manifest(features=(COMPONENTS,)), NAME)
    assert wasm.is_component(data) and tier_of(data) is COMPONENT
    key = SigningKey(b"a" * 32)
    signed = with_signature(with_signature(data, key, NAME), SigningKey(b"b" * 32), NAME)
    bundle = UnverifiedBundle.parse(signed, NAME).verify([key.verify_key])
    assert bundle.content_digest == digest_of(data)
    assert with_manifest(signed, manifest(features=(COMPONENTS,)), NAME) == data
    assert COMPONENTS in FEATURES


@pytest.mark.parametrize(
    ("damage", "kind", "says"),
    [
        (lambda data: data[:4] + b"\x0e\0\x01\0" + data[8:], MalformedModule, "or a component (0d 00 01 00), found 0e 00 01 00"),
        (lambda data: data[:-3], MalformedModule, "truncated"),
        (lambda data: data + b"\x02", MalformedModule, "ends inside a number"),
        (
            lambda data: data + b"\x01\0" * DEFAULT.component_sections_max,
            MalformedModule,
            f"more than {DEFAULT.component_sections_max} sections",
        ),
        (lambda data: data + bytes(DEFAULT.bundle_bytes_max), TooLarge, "a bundle has at most"),
    ],
    ids=["another layer", "truncated", "half a section", "a flood of sections", "too large"],
)
def test_a_damaged_component_is_refused_in_one_line(damage: Callable[[bytes], bytes], kind: type[SnapcountError], says: str) -> None:
    with pytest.raises(kind) as caught:
        UnverifiedBundle.parse(damage(with_manifest(component(), manifest(), NAME)), NAME)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_core_module_keeps_its_own_bound_of_size() -> None:
    large = b"\0asm\x01\0\0\0" + wasm.custom_section("x", bytes(DEFAULT.module_bytes_max))
    with pytest.raises(TooLarge, match="a core module has at most"):
        UnverifiedBundle.parse(large, NAME)


@pytest.mark.slow
def test_a_component_is_compiled_in_a_child_kept_sealed_and_compiled_anew_when_altered(tmp_path: Path, engine: SkillEngine) -> None:
    data, described = with_manifest(component(), manifest(), NAME), manifest()
    cache = CompiledCache(tmp_path, bytes(range(32)))
    first = cache.module(engine, data, digest_of(data), described)
    assert isinstance(first, types.Component)
    assert isinstance(CompiledCache(tmp_path, bytes(range(32))).load(engine, digest_of(data), described), types.Component)
    assert cache.load(engine, digest_of(data), manifest(hooks=("bid",))) is None
    cache.module(engine, data, digest_of(data), described)
    (code,) = tmp_path.glob("*.cwasm")
    code.chmod(0o600)
    code.unlink()
    code.write_bytes(b"something else")
    assert cache.load(engine, digest_of(data), described) is None
    for bad, says in (
        (data[:8] + b"\x07\x02\x01\xff", "not a component"),
        (with_manifest(component(export="other"), described, NAME), "missing"),
    ):
        with pytest.raises(MalformedModule, match=says):
            cache.module(engine, bad, digest_of(bad), described)
    assert not list(tmp_path.glob(".tmp*"))


@pytest.mark.slow
def test_code_that_is_too_large_is_not_written_by_a_child_that_ends_first_where_memory_runs_out(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(component())
    code = (
        "from host.sandbox.compile_child import main; import resource;"
        f"print(main({str(source)!r}, {str(target)!r}, 4 << 30, 60, 4096), open('/proc/self/oom_score_adj').read(), resource.getrlimit(resource.RLIMIT_FSIZE))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n") == ["4 1000", " (4096, 4096)", ""] and ended.stderr.startswith("it compiles to ")
    assert not target.exists()


def test_a_compiler_that_panics_is_not_said_to_need_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child"
    said = ["thread '<unnamed>' panicked at crates/x.rs:1:2:", "index 7 into a memory of 3", "note: run with RUST_BACKTRACE=1"]
    child.write_text("\n".join(["#!/bin/sh", *(f'echo "{line}" >&2' for line in said), "kill -ABRT $$"]))
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    with pytest.raises(MalformedModule, match=r"probe: the compiler failed on it: index 7 into a memory of 3$"):
        compile_module(tmp_path / "in", tmp_path / "out", NAME)


def test_the_sdks_cache_keeps_the_newest_code_within_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "snapcount" / "compiled"
    folder.mkdir(parents=True)
    name = "{}-" + COMPONENT.engine_id()
    for age, each in enumerate("abc"):
        for suffix in (".cwasm", ".tag"):
            path = folder / f"{name.format(each)}{suffix}"
            path.write_bytes(bytes(100))
            os.utime(path, (1_000 - age, 1_000 - age))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(local, "DEFAULT", replace(DEFAULT, user_cache_bytes_max=200))
    local.user_cache()
    assert sorted(path.name[0] for path in folder.iterdir()) == ["a", "a", "b", "b"]


@pytest.mark.slow
def test_a_component_is_shown_and_checked_like_any_bundle() -> None:
    data = with_manifest(LOGS, manifest(capabilities=("log",), features=(COMPONENTS,)), NAME)
    assert LocalSkill(data, NAME).version.self_test() == SelfTestReply(detail="fine", ok=True)
    shown = inspection.describe(data, NAME)
    assert shown["tier"] == "component" and dict(shown["sections"])["core module (2)"] > 100
    report = inspection.check(data, NAME, frozenset(), None)
    assert report["imports"] == ["log.write"] and report["exports"] == ["self-test"] and report["needs"] == {"log.write": "log"}
    assert any("without the grant" in reason or "does not allow" in reason for reason in report["refused"])
    assert inspection.in_words(inspection.check(data, NAME, None, None))[-1].startswith("A node that trusts a signer")


@pytest.mark.slow
def test_a_node_without_components_does_without_their_engine() -> None:
    code = "import sys, host.node, host.sandbox.engine as e; e.default_engine(); print([m for m in sys.modules if m.startswith('host.sandbox.component')])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_node_installs_a_component_tries_it_and_finds_it_again_after_a_restart(
    make_state: Callable[..., Path], author: SigningKey, clock: Any, tmp_path: Path
) -> None:
    state = make_state(tmp_path / "node", clock)
    measured = Measurement(f"sha256:{'0' * 64}", sealed=False, files=1)
    log: list[tuple[str, str]] = []

    def bundle(data: bytes, **changes: object) -> bytes:
        return with_signature(with_manifest(data, manifest(features=(COMPONENTS,), **changes), NAME), author, NAME)

    node = Node.open(state, measured, clock=clock, log=lambda level, line: log.append((level, line)))
    good = bundle(LOGS, capabilities=("log",))
    asyncio.run(node.install(good, digest_of(good)))
    assert node.manager.skills[NAME].skill.path == "component"
    assert any(line.endswith("fine") for _, line in log)
    for bad, kind, says in (
        (bundle(component(FINE.replace("(i32.store8 (i32.const 4) (i32.const 1))", "")), version="1.1.0"), Incompatible, "self-test failed on this node: fine"),
        (bundle(component("unreachable"), version="1.1.0"), GuestTrap, "unreachable"),
        (bundle(LOGS, version="1.1.0"), CapabilityDenied, "imports log"),
    ):  # fmt: skip
        with pytest.raises(kind, match=says):
            asyncio.run(node.install(bad, digest_of(bad)))
        assert node.manager.skills[NAME].digest == digest_of(good)
    node.close()
    compiled = sorted(path.name for path in (state / "compiled").glob("*.cwasm"))
    again = Node.open(state, measured, clock=clock, log=lambda level, line: None)
    assert again.manager.skills[NAME].self_test().ok
    assert sorted(path.name for path in (state / "compiled").glob("*.cwasm")) == compiled
    again.close()


# Values.


@pytest.mark.parametrize(
    ("where", "name", "other", "says"),
    [
        (direct, "WRITTEN_FOR", "1.2.3", "written for wasmtime 1.2.3, found"),
        (values, "LAYOUT", {"wasm_byte_vec": (16, 0, 4)}, "the layout of wasm_byte_vec_t is (16, 0, 8), expected (16, 0, 4)"),
        (sys, "byteorder", "big", "little-endian"),
    ],
    ids=["another version", "another layout", "another machine"],
)
def test_a_library_that_was_not_written_for_is_a_fault_of_the_host(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, other: object, says: str
) -> None:
    component_engine.ComponentEngine()
    monkeypatch.setattr(where, name, other)
    with pytest.raises(HostFault) as caught:
        component_engine.ComponentEngine()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_code_that_was_compared_with_another_contract_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = component_engine.engine_id.__wrapped__()
    monkeypatch.setitem(IMPORTS, "clock", {"now-ms": ((), values.Scalar("u32"))})
    assert component_engine.engine_id.__wrapped__() != name
    monkeypatch.undo()
    assert component_engine.engine_id.__wrapped__() == name
    monkeypatch.setattr(component_engine, "ASYNC_OFF", ())
    assert component_engine.engine_id.__wrapped__() != name


@pytest.mark.parametrize(
    ("kind", "claims", "says"),
    [
        (values.Text(), 65_537, "more than 65536 bytes"),
        (values.Bytes(), 65_537, "more than 65536 bytes"),
        (Many(values.Text()), 65_537, "more than 65536 bytes"),
        (Many(values.Scalar("f64")), 1 << 60, "more than 65536 bytes"),
    ],
    ids=["text", "bytes", "texts", "numbers"],
)
def test_what_there_is_no_room_for_is_not_read(kind: values.Kind, claims: int, says: str) -> None:
    nowhere = struct.pack("<B7xQQ8x", 0, claims, 8)  # reading there would end the process
    with pytest.raises(values.Overfull, match=says):
        kind.lift(nowhere, values.Room(1 << 16, "it replied"))


def test_there_is_room_for_as_many_items_in_all_as_a_request_may_have() -> None:
    kept: values.Kept = []
    flags = Many(values.Scalar("bool"))
    lowered, room = flags.lower([True] * 40_000, kept), values.Room(1 << 20, "it replied")
    assert flags.lift(lowered, room) == [True] * 40_000
    with pytest.raises(values.Overfull, match="more than 65536 items"):
        flags.lift(lowered, room)


@pytest.mark.parametrize("hook", sorted(SHAPES))
def test_requests_and_replies_made_up_from_the_types_get_there_and_back(hook: str) -> None:
    request, outcome = signature_of(hook)
    rng = random.Random(7)
    for _ in range(20):
        kept, room = [], values.Room(DEFAULT.reply_bytes_max, hook)
        asked = cbor.decode(cbor.encode(samples.fresh(SHAPES[hook][0], rng)), hook)
        if request:
            assert request[0].lift(request[0].lower(asked, kept), room) == asked
        replied = cbor.decode(cbor.encode(samples.fresh(SHAPES[hook][1], rng)), hook)
        assert outcome is not None
        assert outcome.lift(outcome.lower((True, replied), kept), room) == (True, replied)


def test_what_stands_in_the_tables_has_somebody_who_answers_and_a_type() -> None:
    assert {(interface, name) for interface, functions in IMPORTS.items() for name in functions} == SERVED.keys()
    assert signatures.HOOKS.keys() >= SHAPES.keys()
