"""One suite over both call paths, direct and plain, with real modules and real traps.

After every test the pool of four instances is filled again, each instance answers, and neither a thread nor a file descriptor is left over.
"""

import ctypes
import gc
import inspect
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime
from wasmtime import _ffi as ffi

import cython_core
from cython_core import direct as compiled
from host.core import cbor
from host.core.capabilities import Grant
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
    UnsafeCommand,
    UsageError,
)
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest, SkillLimits
from host.sandbox import direct, plain
from host.sandbox.checks import IMPORT_TYPES, check_bytes, check_types
from host.sandbox.engine import PROPOSALS_OFF, PROPOSALS_ON, SkillEngine, config
from host.sandbox.faults import Fault
from host.sandbox.imports import HostServices
from host.sandbox.plain import PlainInstance
from host.sandbox.skill import LoadedSkill, SkillInstance

POOL = 4
NAME = "probe"
PAGE = 65_536
FUEL_MAX = DEFAULT.fuel_max
ECHO = "(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))"
SPIN = "(loop $again (br $again)) i64.const 0"


def module(hook: str, extra: str = "", *, memory: str = "1", alloc: str = "i32.const 1024", more: str = "") -> str:
    """A skill with the hook `bid`: `extra` stands before its memory, where imports belong, `more` after its functions."""
    return f"""(module {extra}
      (memory (export "memory") {memory})
      (func $sc_alloc (export "sc_alloc") (param i32) (result i32) {alloc})
      (func $hook_bid (export "hook_bid") (param i32 i32) (result i64) {hook})
      {more})"""


def importing(name: str, *, namespace: str = "snapcount:host/1") -> str:
    params, results = IMPORT_TYPES[name]
    return f'(import "{namespace}" "{name}" (func ${name} (param {" ".join(params)}) (result {" ".join(results)})))'


def packed(pointer: int, length: int, *, error: bool = False) -> str:
    return f"i64.const {pointer << 32 | length | (0x8000_0000 if error else 0)}"


def answering(i32: str) -> str:
    """A hook whose reply is the four bytes of the value of `i32`."""
    return f"(i32.store (i32.const 512) {i32}) {packed(512, 4)}"


def data(at: int, content: bytes) -> str:
    escaped = "".join(f"\\{byte:02x}" for byte in content)
    return f'(data (i32.const {at}) "{escaped}")'


def number(reply: bytes) -> int:
    return int.from_bytes(reply, "little", signed=True)


@contextmanager
def raising(kind: type[SnapcountError], *parts: str) -> Iterator[pytest.ExceptionInfo[SnapcountError]]:
    """Exactly `kind`, whose text is one printable line that names the skill and has `parts`."""
    with pytest.raises(SnapcountError) as caught:
        yield caught
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert said.isprintable(), said
    assert NAME in said
    for part in parts:
        assert part in said


@dataclass
class Services:
    """The world of a skill, in memory: a clock that stands still, random bytes that count, state with a quota, one driver."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    values: dict[bytes, bytes] = field(default_factory=dict)
    quota: int = 100_000
    driver: Callable[[bytes], bytes] = bytes

    def now_ms(self) -> int:
        return 1_700_000_000_123

    def monotonic_ms(self) -> int:
        return 0

    def token(self, size: int) -> bytes:
        return bytes(index & 0xFF for index in range(1, size + 1))

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def set(self, key: bytes, value: bytes) -> bool:
        if not value:
            self.values.pop(key, None)
        elif sum(map(len, self.values.values())) + len(value) > self.quota:
            return False
        else:
            self.values[key] = value
        return True

    def log(self, level: str, line: str) -> None:
        self.lines.append((level, line))

    def ask(self, capability: str, request: bytes) -> bytes:
        self.asked.append((capability, request))
        return self.driver(request)


class Sandbox:
    """Loads WAT as the node does, but compiles in this process: the child is the matter of test_compile_cache.py."""

    def __init__(self, engine: SkillEngine, path: str) -> None:
        self.engine, self.path = engine, path
        self.world = Services()

    def load(
        self, wat: str | bytes, capabilities: str = "", *, hooks: str = "bid", granted: str | None = None, **limits: int
    ) -> LoadedSkill:
        names = tuple(capabilities.split())
        manifest = Manifest(name=NAME, version="1.2.3", hooks=tuple(hooks.split()), capabilities=names, limits=SkillLimits(**limits))
        wasm = wasmtime.wat2wasm(wat) if isinstance(wat, str) else wat
        check_bytes(wasm, NAME)
        compiled_module = wasmtime.Module(self.engine.engine, wasm)
        check_types(compiled_module, manifest)
        grant = Grant(frozenset(names if granted is None else granted.split()))
        skill = LoadedSkill(
            self.engine, compiled_module, manifest, grant, self._services(grant, manifest),
            limits=self.engine.limits, force_plain=self.path == "plain",
        )  # fmt: skip
        assert skill.path == self.path
        return skill

    def call(self, wat: str, request: bytes = b"abc", capabilities: str = "", **limits: int) -> bytes:
        with self.load(wat, capabilities, **limits).instance() as instance:
            return instance.call("bid", request)

    def _services(self, grant: Grant, manifest: Manifest) -> HostServices:
        world = self.world
        return HostServices(f"{NAME} 1.2.3", grant, world, world, log=world.log, state=world, ask=world.ask)


@pytest.fixture(scope="module")
def engine() -> SkillEngine:
    return SkillEngine(Limits(instances_max=POOL))


@pytest.fixture(params=["direct", "plain"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sandbox(engine: SkillEngine, path: str) -> Iterator[Sandbox]:
    made = Sandbox(engine, path)
    echo = made.load(module(ECHO))
    _fill(echo)
    before = _held()
    yield made
    made.world.driver = lambda request: request  # a test's own driver may hold an instance
    _fill(echo)
    if not _no_more(_held(), before):
        gc.collect()  # a caught exception holds its frames, those a module, and that a file of its memory's first contents
    assert _no_more(_held(), before)


def _fill(echo: LoadedSkill) -> None:
    instances = [echo.instance() for _ in range(POOL)]
    assert [instance.call("bid", b"still there") for instance in instances] == [b"still there"] * POOL
    for instance in instances:
        instance.close()


def _held() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def _no_more(now: tuple[int, int], before: tuple[int, int]) -> bool:
    return all(here <= then for here, then in zip(now, before, strict=True))


# ---- Calls that end well ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 60_000])
def test_a_skill_that_echoes_gives_back_every_byte(sandbox: Sandbox, size: int) -> None:
    request = bytes(index & 0xFF for index in range(size))
    assert sandbox.call(module(ECHO), request) == request


def test_an_instance_keeps_its_memory_between_calls_and_a_new_one_starts_afresh(sandbox: Sandbox) -> None:
    count = "(global.set $n (i32.add (global.get $n) (i32.const 1)))" + answering("(global.get $n)")
    skill = sandbox.load(module(count, "(global $n (mut i32) (i32.const 0))"))
    with skill.instance() as instance:
        assert [number(instance.call("bid", b"")) for _ in range(3)] == [1, 2, 3]
    with skill.instance() as instance:
        assert number(instance.call("bid", b"")) == 1


def test_sc_reset_is_called_after_the_reply_was_read(sandbox: Sandbox) -> None:
    wipe = '(func (export "sc_reset") (i32.store (i32.const 1024) (i32.const 0)) (global.set $resets (i32.add (global.get $resets) (i32.const 1))))'
    skill = sandbox.load(module(f"(if (result i64) (local.get 1) (then {ECHO}) (else {answering('(global.get $resets)')}))",
                                "(global $resets (mut i32) (i32.const 0))", more=wipe))  # fmt: skip
    with skill.instance() as instance:
        assert instance.call("bid", b"whole") == b"whole"
        assert number(instance.call("bid", b"")) == 1


def test_each_hook_is_called_by_its_name(sandbox: Sandbox) -> None:
    second = f'(func (export "hook_handle") (param i32 i32) (result i64) {answering("(i32.const 77)")})'
    with sandbox.load(module(ECHO, more=second), hooks="handle bid").instance() as instance:
        assert instance.call("bid", b"x") == b"x"
        assert number(instance.call("handle", b"x")) == 77


def test_a_hook_that_the_skill_does_not_have_is_the_callers_mistake_and_costs_nothing(sandbox: Sandbox) -> None:
    with sandbox.load(module(ECHO)).instance() as instance:
        with raising(UsageError, "no_such", "bid"):
            instance.call("no_such", b"")
        assert not instance.faulted
        assert instance.call("bid", b"x") == b"x"


def test_a_request_over_the_bound_is_refused_before_the_guest_sees_it(sandbox: Sandbox) -> None:
    with sandbox.load(module("unreachable")).instance() as instance, raising(TooLarge, str(DEFAULT.request_bytes_max)):
        instance.call("bid", bytes(DEFAULT.request_bytes_max + 1))


def test_a_reply_may_be_empty_and_may_be_exactly_as_long_as_the_limit(sandbox: Sandbox) -> None:
    assert sandbox.call(module(packed(0, 0))) == b""
    assert sandbox.call(module(packed(PAGE, 0))) == b""
    assert sandbox.call(module(packed(PAGE - 10, 10)), reply_bytes=10) == bytes(10)


# ---- Error replies ------------------------------------------------------------------------------


def refusing(reply: bytes) -> str:
    return module(packed(64, len(reply), error=True), more=data(64, reply))


def test_an_error_reply_is_a_refusal_with_the_skills_own_code(sandbox: Sandbox) -> None:
    with sandbox.load(refusing(cbor.encode({"code": "too_wet", "message": "42 % water"}))).instance() as instance:
        with raising(SkillRefused, "too_wet", "42 % water") as caught:
            instance.call("bid", b"")
        assert caught.value.skill_code == "too_wet"  # type: ignore[attr-defined]
        assert not instance.faulted


def test_an_error_reply_cannot_reach_the_terminal_with_control_characters(sandbox: Sandbox) -> None:
    reply = cbor.encode({"code": "a\x1b[31m\nb", "message": "\x1b]0;title\x07 \u202e\r\nsecond line"})
    with raising(SkillRefused, "\\x1b[31m", "\\u202e", "\\n"):
        sandbox.call(refusing(reply))


@pytest.mark.parametrize(
    "reply",
    [b"", b"\xff", b"not cbor", cbor.encode([1]), cbor.encode({"code": 7, "message": "x"}), cbor.encode({"message": "x"}), bytes(300_000)],
    ids=["empty", "break", "text", "a list", "code is a number", "no code", "300 kB of zeros"],
)
def test_an_error_reply_of_another_shape_is_an_invalid_reply(sandbox: Sandbox, reply: bytes) -> None:
    wat = module(packed(64, len(reply), error=True), memory="8", more=data(64, reply[:1000]))
    with raising(ReplyInvalid, "error reply"):
        sandbox.call(wat, reply_bytes=1 << 20)


# ---- Traps --------------------------------------------------------------------------------------

TRAPS = {
    "unreachable": "(func $inner unreachable)",
    "memory out of bounds": "(func $inner (drop (i32.load (i32.const 65536))))",
    "integer division by zero": "(func $inner (drop (i32.div_u (i32.const 1) (i32.const 0))))",
    "integer overflow": "(func $inner (drop (i32.div_s (i32.const 0x80000000) (i32.const -1))))",
    "bad conversion to integer": "(func $inner (drop (i32.trunc_f64_s (f64.const nan))))",
    "indirect call to null": "(table 1 funcref) (type $nothing (func)) (func $inner (call_indirect (type $nothing) (i32.const 0)))",
    "bad signature": "(table funcref (elem $sc_alloc)) (type $nothing (func)) (func $inner (call_indirect (type $nothing) (i32.const 0)))",
    "table out of bounds": "(table 1 funcref) (type $nothing (func)) (func $inner (call_indirect (type $nothing) (i32.const 9)))",
    "stack overflow": "(func $inner (call $inner))",
}


@pytest.mark.parametrize("what", TRAPS)
def test_a_trap_says_what_and_where_with_the_guests_function_names(sandbox: Sandbox, what: str) -> None:
    skill = sandbox.load(module("(call $inner) i64.const 0", more=TRAPS[what]))
    with skill.instance() as instance:
        with raising(GuestTrap, what, "in inner") as caught:
            instance.call("bid", b"abc")
        assert instance.faulted
    frames = caught.value.backtrace  # type: ignore[attr-defined]
    assert frames[0].startswith("inner (function ")
    assert len(frames) <= DEFAULT.backtrace_frames_max
    assert what == "stack overflow" or frames[1].startswith("hook_bid (function ")
    assert all(int(at) < 1000 for frame in frames for at in re.findall(r"byte (\d+)", frame))


def test_a_trap_in_sc_alloc_and_one_in_sc_reset_end_the_call_alike(sandbox: Sandbox) -> None:
    with raising(GuestTrap, "unreachable in sc_alloc"):
        sandbox.call(module(ECHO, alloc="unreachable"))
    with raising(GuestTrap, "unreachable in tidy"):
        sandbox.call(module(ECHO, more='(func $tidy (export "sc_reset") unreachable)'))


def test_a_trap_leaves_the_instance_callable_but_marks_it(sandbox: Sandbox) -> None:
    with sandbox.load(module(f"(if (i32.eqz (local.get 1)) (then unreachable)) {ECHO}")).instance() as instance:
        with raising(GuestTrap):
            instance.call("bid", b"")
        assert instance.call("bid", b"x") == b"x"
        assert instance.faulted


def test_function_names_of_the_guest_are_sanitised(sandbox: Sandbox) -> None:
    with raising(GuestTrap, "\\x1b[2Jgone", "\\u202e") as caught:
        sandbox.call(module("(call $inner) i64.const 0", more='(func $inner (@name "\\1b[2Jgone\\0a\\u{202e}") unreachable)'))
    assert all(frame.isprintable() for frame in caught.value.backtrace)  # type: ignore[attr-defined]


def test_a_function_name_of_a_hundred_kilobytes_is_cut(sandbox: Sandbox) -> None:
    with raising(GuestTrap, "AAAA") as caught:
        sandbox.call(module("(call $inner) i64.const 0", more=f'(func $inner (@name "{"A" * 100_000}") unreachable)'))
    assert len(str(caught.value)) < 300


def test_a_module_without_names_traps_with_numbers(sandbox: Sandbox) -> None:
    wat = """(module (memory (export "memory") 1) (func (export "sc_alloc") (param i32) (result i32) i32.const 8)
             (func (export "hook_bid") (param i32 i32) (result i64) unreachable))"""
    with raising(GuestTrap, "? (function 1"):
        sandbox.call(wat)


# ---- Fuel and time ------------------------------------------------------------------------------


def test_an_endless_loop_uses_up_its_fuel(sandbox: Sandbox) -> None:
    with sandbox.load(module(SPIN), fuel=10_000).instance() as instance:
        with raising(FuelExhausted, "10000 units", "hook_bid"):
            instance.call("bid", b"")
        assert instance.fuel_used >= 10_000


def test_every_call_starts_with_the_whole_fuel(sandbox: Sandbox) -> None:
    loop = "(local $n i32) (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))"
    with sandbox.load(module(loop + ECHO), fuel=9_000).instance() as instance:
        assert [instance.call("bid", b"x") for _ in range(5)] == [b"x"] * 5
        assert 5_000 < instance.fuel_used < 9_000


def test_both_paths_account_for_fuel_and_host_calls_alike(engine: SkillEngine) -> None:
    reset = '(func (export "sc_reset") (local $n i32) (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 50)))))'
    used = []
    for path in ("direct", "plain"):
        skill = Sandbox(engine, path).load(module(f"(drop (call $now_ms)) {ECHO}", importing("now_ms"), more=reset), "clock")
        with skill.instance() as instance:
            instance.call("bid", b"abc")
            used.append((instance.fuel_used, instance.host_calls))
    assert used[0] == used[1]
    assert used[0][0] > 1_000 + 50 * 5


BUSY_WORK = {
    "an empty loop": SPIN,
    "bulk copies, which cost no fuel by the byte": "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 16000000)) (br $again)) i64.const 0",
    "growing memory in vain": "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) i64.const 0",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BUSY_WORK)
def test_endless_work_with_fuel_to_spare_ends_within_three_ticks_of_the_deadline(sandbox: Sandbox, what: str) -> None:
    deadline_ms, tick_ms = 150, DEFAULT.epoch_tick_ms
    skill = sandbox.load(module(BUSY_WORK[what], memory="250"), fuel=FUEL_MAX, deadline_ms=deadline_ms)
    took = [_overrun(skill) for _ in range(3)]
    assert all(ms >= deadline_ms for ms in took)
    assert min(took) <= deadline_ms + 3 * tick_ms  # the least of three: the machine may be busy, a tick must not be lost


@pytest.mark.slow
def test_the_deadline_holds_while_other_threads_keep_the_interpreter_busy(sandbox: Sandbox) -> None:
    deadline_ms = 300
    skill = sandbox.load(module(SPIN), fuel=FUEL_MAX, deadline_ms=deadline_ms)
    with spinning(2):
        took = [_overrun(skill) for _ in range(3)]
    assert min(took) <= deadline_ms + 6 * DEFAULT.epoch_tick_ms  # each of the two may hold the interpreter for 5 ms


def _overrun(skill: LoadedSkill) -> float:
    with skill.instance() as instance:
        began = time.perf_counter()
        with raising(DeadlineExceeded, f"{skill.limits.deadline_ms} ms"):
            instance.call("bid", b"")
        return (time.perf_counter() - began) * 1000


@contextmanager
def spinning(threads: int) -> Iterator[list[int]]:
    """Threads of Python that count as fast as they can, one counter each."""
    counts, stop = [0] * threads, threading.Event()

    def spin(own: int) -> None:
        while not stop.is_set():
            counts[own] += 1

    workers = [threading.Thread(target=spin, args=(own,)) for own in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield counts
    finally:
        stop.set()
        for worker in workers:
            worker.join()


@pytest.mark.slow
def test_other_threads_run_while_a_skill_computes(sandbox: Sandbox) -> None:
    skill = sandbox.load(module(SPIN), fuel=FUEL_MAX, deadline_ms=200)
    with spinning(1) as counts, skill.instance() as instance:
        before = counts[0]
        with raising(DeadlineExceeded):
            instance.call("bid", b"")
        assert counts[0] - before > 10_000


# ---- Memory and tables --------------------------------------------------------------------------


def test_a_guest_that_grows_until_it_cannot_has_exceeded_its_memory(sandbox: Sandbox) -> None:
    bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"
    with sandbox.load(module(bomb), memory_bytes=1 << 20).instance() as instance:
        with raising(MemoryExceeded, str(1 << 20)):
            instance.call("bid", b"")
        assert instance.memory_bytes() == 1 << 20


def test_memory_cannot_grow_past_the_limit_and_the_guest_can_go_on(sandbox: Sandbox) -> None:
    grow = answering("(memory.grow (i32.const 1))")
    with sandbox.load(module(grow), memory_bytes=2 * PAGE).instance() as instance:
        assert [number(instance.call("bid", b"")) for _ in range(3)] == [1, -1, -1]


def test_a_module_that_begins_with_more_memory_than_its_limit_gets_no_instance(sandbox: Sandbox) -> None:
    skill = sandbox.load(module(ECHO, memory="3"), memory_bytes=2 * PAGE)
    with raising(MemoryExceeded, str(2 * PAGE)):
        skill.instance()


def test_a_table_cannot_grow_past_the_limit(sandbox: Sandbox) -> None:
    grow = answering("(table.grow $t (ref.null func) (i32.const 9999))")
    with sandbox.load(module(grow, more="(table $t 1 funcref)")).instance() as instance:
        assert [number(instance.call("bid", b"")) for _ in range(2)] == [1, -1]


def test_two_tables_are_allowed(sandbox: Sandbox) -> None:
    assert sandbox.call(module(ECHO, more="(table 10 funcref) (table 10 externref)")) == b"abc"


def test_failed_instantiations_leave_no_instance_behind(sandbox: Sandbox) -> None:
    skill = sandbox.load(module(ECHO, importing("log"), memory="3"), "log", memory_bytes=2 * PAGE)
    for _ in range(20):
        with raising(MemoryExceeded):
            skill.instance()
    gc.collect()
    assert [thing for thing in gc.get_objects() if isinstance(thing, PlainInstance | compiled.DirectInstance)] == []


def test_an_instance_that_nobody_closed_gives_its_slot_back(sandbox: Sandbox) -> None:
    skill = sandbox.load(module(ECHO, importing("log")), "log")
    for _ in range(POOL):
        skill.instance().call("bid", b"x")
    gc.collect()
    with skill.instance() as instance:
        assert instance.call("bid", b"x") == b"x"


# ---- Spans that the guest gives -----------------------------------------------------------------


def test_sc_alloc_without_room_is_a_lack_of_memory(sandbox: Sandbox) -> None:
    with raising(MemoryExceeded, "sc_alloc", "3 bytes"):
        sandbox.call(module(ECHO, alloc="i32.const 0"))


@pytest.mark.parametrize("pointer", [PAGE - 2, PAGE, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFD])
def test_sc_alloc_that_points_out_of_the_memory_gets_nothing_written(sandbox: Sandbox, pointer: int) -> None:
    with raising(ReplyInvalid, f" {pointer} "):
        sandbox.call(module("unreachable", alloc=f"i32.const {pointer}"))


def test_sc_alloc_may_give_the_last_bytes_of_the_memory(sandbox: Sandbox) -> None:
    assert sandbox.call(module(ECHO, alloc=f"i32.const {PAGE - 3}")) == b"abc"


@pytest.mark.parametrize(
    ("pointer", "length"),
    [(PAGE, 1), (PAGE - 1, 2), (0xFFFF_FFFF, 1), (0xFFFF_FFFF, 0), (0xFFFF_FFF0, 0x20), (0x8000_0000, 4), (1, PAGE)],
)
def test_a_reply_outside_the_memory_is_invalid(sandbox: Sandbox, pointer: int, length: int) -> None:
    with raising(ReplyInvalid, f" {pointer} "):
        sandbox.call(module(packed(pointer, length)), reply_bytes=PAGE)


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("length", [0x7FFF_FFFF, 11])
def test_a_reply_over_its_limit_is_invalid_wherever_it_points(sandbox: Sandbox, length: int, error: bool) -> None:
    with raising(ReplyInvalid, str(length), "at most 10"):
        sandbox.call(module(packed(8, length, error=error)), reply_bytes=10)


OUTSIDE = [(PAGE, 1), (PAGE - 4, 5), (0xFFFF_FFFF, 2), (0, 0xFFFF_FFFF), (0xFFFF_FFFF, 0xFFFF_FFFF), (PAGE + 1, 0)]
SPANS = {  # each span that an import takes, for its capability
    "log line": ("log", "log", "(call $log (i32.const 1) {})"),
    "random bytes": ("random", "random", "(call $random {})"),
    "key to get": ("state_get", "state", "(drop (call $state_get {} (i32.const 0) (i32.const 8)))"),
    "key to set": ("state_set", "state", "(drop (call $state_set {} (i32.const 0) (i32.const 8)))"),
    "value to set": ("state_set", "state", "(drop (call $state_set (i32.const 0) (i32.const 1) {}))"),
    "name of a driver": ("call", "motion", "(drop (call $call {} (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4096)))"),
    "request to a driver": ("call", "motion", "(drop (call $call (i32.const 0) (i32.const 6) {} (i32.const 0) (i32.const 4096)))"),
    "room for a driver's reply": ("call", "motion", "(drop (call $call (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 1) {}))"),
}


@pytest.mark.parametrize("span", OUTSIDE, ids=str)
@pytest.mark.parametrize("what", SPANS)
def test_a_span_outside_the_memory_given_to_an_import_ends_the_call(sandbox: Sandbox, what: str, span: tuple[int, int]) -> None:
    name, capability, call = SPANS[what]
    sandbox.world.values[b"m"] = b"a value"
    body = call.format(f"(i32.const {span[0]}) (i32.const {span[1]})")
    with raising(ReplyInvalid):
        sandbox.call(module(body + ECHO, importing(name), more=data(0, b"motion")), b"abc", capability, fuel=FUEL_MAX)
    assert sandbox.world.lines == []
    assert sandbox.world.asked == []
    assert sandbox.world.values == {b"m": b"a value"}


@pytest.mark.parametrize("span", [(PAGE, 1), (PAGE - 4, 5), (0xFFFF_FFFF, 2), (0xFFFF_FFF0, 17)], ids=str)
def test_a_value_that_would_be_written_outside_the_memory_ends_the_call(sandbox: Sandbox, span: tuple[int, int]) -> None:
    sandbox.world.values[b"m"] = bytes(span[1])
    body = f"(drop (call $state_get (i32.const 0) (i32.const 1) (i32.const {span[0]}) (i32.const {span[1]})))"
    with raising(ReplyInvalid, f"{span[1]} bytes at {span[0]}"):
        sandbox.call(module(body + ECHO, importing("state_get"), more=data(0, b"m")), b"", "state")


# ---- Imports ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "name"), [(0, "debug"), (1, "info"), (2, "warning"), (3, "error"), (4, "error"), (-1, "error")])
def test_log_passes_one_line_with_its_level(sandbox: Sandbox, level: int, name: str) -> None:
    body = f"(call $log (i32.const {level}) (i32.const 0) (i32.const 5))"
    sandbox.call(module(body + ECHO, importing("log"), more=data(0, b"hello")), b"", "log")
    assert sandbox.world.lines == [(name, "hello")]


def test_a_logged_line_is_sanitised_and_cut(sandbox: Sandbox) -> None:
    line = b"\x1b[31mred\nforged line \xff\xe2\x80\xae" + b"x" * 2000
    body = f"(call $log (i32.const 1) (i32.const 0) (i32.const {len(line)}))"
    sandbox.call(module(body + ECHO, importing("log"), more=data(0, line)), b"", "log")
    [(_, logged)] = sandbox.world.lines
    assert logged.startswith("\\x1b[31mred\\nforged line \N{REPLACEMENT CHARACTER}\\u202exxx")
    assert logged.isprintable()
    assert len(logged) == DEFAULT.log_line_bytes_max + 1


def test_a_flood_of_log_ends_the_call(sandbox: Sandbox) -> None:
    flood = "(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 1000)) (br $again)) i64.const 0"
    with raising(HostCallsExceeded, "logged more than 4096 bytes"):
        sandbox.call(module(flood, importing("log")), b"", "log")
    assert len(sandbox.world.lines) == 4


def test_the_log_is_bounded_for_each_call_anew(sandbox: Sandbox) -> None:
    body = "(call $log (i32.const 1) (i32.const 0) (i32.const 1000))" + ECHO
    with sandbox.load(module(body, importing("log")), "log", log_bytes=1000).instance() as instance:
        assert [instance.call("bid", b"x") for _ in range(3)] == [b"x"] * 3


def test_now_ms_is_the_hosts_clock(sandbox: Sandbox) -> None:
    body = f"(i64.store (i32.const 512) (call $now_ms)) {packed(512, 8)}"
    assert number(sandbox.call(module(body, importing("now_ms")), b"", "clock")) == 1_700_000_000_123


def test_random_fills_exactly_its_span(sandbox: Sandbox) -> None:
    body = f"(call $random (i32.const 514) (i32.const 3)) {packed(512, 8)}"
    assert sandbox.call(module(body, importing("random")), b"", "random") == b"\0\0\1\2\3\0\0\0"


def state_get(room: int) -> str:
    return module(
        f"(i32.store (i32.const 512) (call $state_get (i32.const 0) (i32.const 1) (i32.const 516) (i32.const {room}))) {packed(512, 16)}",
        importing("state_get"), more=data(0, b"k") + data(516, b"------------"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "room", "answer", "written"),
    [
        (None, 12, -1, b"------------"),
        (b"five!", 12, 5, b"five!-------"),
        (b"five!", 5, 5, b"five!-------"),
        (b"five!", 4, 5, b"------------"),
        (b"five!", 0, 5, b"------------"),
    ],
    ids=["none", "with room", "exact", "one byte short", "no room"],
)
def test_state_get_answers_as_the_abi_says(sandbox: Sandbox, value: bytes | None, room: int, answer: int, written: bytes) -> None:
    if value is not None:
        sandbox.world.values[b"k"] = value
    reply = sandbox.call(state_get(room), b"", "state")
    assert (number(reply[:4]), reply[4:]) == (answer, written)


def state_set(length: int) -> str:
    body = answering(f"(call $state_set (i32.const 0) (i32.const 1) (i32.const 2) (i32.const {length}))")
    return module(body, importing("state_set"), memory="2", more=data(0, b"k value"))


def test_state_set_stores_deletes_and_says_when_the_quota_is_full(sandbox: Sandbox) -> None:
    assert number(sandbox.call(state_set(5), b"", "state")) == 0
    assert sandbox.world.values == {b"k": b"value"}
    sandbox.world.quota = 8
    assert number(sandbox.call(state_set(4), b"", "state")) == -2
    assert sandbox.world.values == {b"k": b"value"}
    assert number(sandbox.call(state_set(0), b"", "state")) == 0
    assert sandbox.world.values == {}


def test_a_value_over_its_bound_never_reaches_the_store(sandbox: Sandbox) -> None:
    assert number(sandbox.call(state_set(DEFAULT.state_value_bytes_max + 1), b"", "state")) == -2
    assert sandbox.world.values == {}
    assert number(sandbox.call(state_set(DEFAULT.state_value_bytes_max), b"", "state")) == 0


@pytest.mark.parametrize("length", [0, DEFAULT.state_key_bytes_max + 1])
def test_a_state_key_of_wrong_length_ends_the_call(sandbox: Sandbox, length: int) -> None:
    body = f"(drop (call $state_get (i32.const 0) (i32.const {length}) (i32.const 0) (i32.const 0)))"
    with raising(ReplyInvalid, "state key", str(length)):
        sandbox.call(module(body + ECHO, importing("state_get")), b"", "state")


def calling(capability: bytes = b"motion", room: int = 4096) -> str:
    """Sends the request on to a driver. Replies with the import's result, then the first bytes of the driver's answer."""
    return module(
        f"""(i32.store (i32.const 4092)
              (call $call (i32.const 0) (i32.const {len(capability)}) (local.get 0) (local.get 1) (i32.const 4096) (i32.const {room})))
            {packed(4092, 4104)}""",
        importing("call"), more=data(0, capability),
    )  # fmt: skip


def driver_said(reply: bytes) -> tuple[bool, bytes]:
    result = int.from_bytes(reply[:4], "little")
    return bool(result >> 31), reply[4 : 4 + (result & 0x7FFF_FFFF)]


def test_call_brings_a_drivers_answer(sandbox: Sandbox) -> None:
    sandbox.world.driver = lambda request: b"<" + request + b">"
    assert driver_said(sandbox.call(calling(), b"abc", "motion")) == (False, b"<abc>")
    assert sandbox.world.asked == [("motion", b"abc")]


def test_a_driver_may_answer_with_as_many_bytes_as_the_bound_and_no_more(sandbox: Sandbox) -> None:
    sandbox.world.driver = lambda request: bytes(DEFAULT.driver_reply_bytes_max)
    assert driver_said(sandbox.call(calling(), b"", "motion")) == (False, bytes(4096))
    sandbox.world.driver = lambda request: bytes(DEFAULT.driver_reply_bytes_max + 1)
    failed, answer = driver_said(sandbox.call(calling(), b"", "motion"))
    assert failed
    assert cbor.decode(answer, "answer")["code"] == "driver_reply_too_long"


def test_a_refusal_reaches_the_guest_with_the_error_bit_and_does_not_end_its_call(sandbox: Sandbox) -> None:
    def refuse(request: bytes) -> bytes:
        raise UnsafeCommand("x at 900 mm is outside \x1b[31m0 to 300 mm" + "!" * 5000)

    sandbox.world.driver = refuse
    failed, answer = driver_said(sandbox.call(calling(), b"", "motion"))
    said = cbor.decode(answer, "answer")
    assert (failed, said["code"]) == (True, "unsafe_command")
    assert said["message"].startswith("x at 900 mm is outside \\x1b[31m0 to 300 mm")


@pytest.mark.parametrize("capability", [b"heat", b"log", b"", b"\xff\x1b[31m", b"motion2"])
def test_a_driver_that_was_not_granted_is_not_asked(sandbox: Sandbox, capability: bytes) -> None:
    failed, answer = driver_said(sandbox.call(calling(capability), b"", "motion log"))
    said = cbor.decode(answer, "answer")
    assert (failed, said["code"]) == (True, "capability_denied")
    assert said["message"].isprintable()
    assert sandbox.world.asked == []


@pytest.mark.parametrize("room", [0, 4095])
def test_call_without_room_for_a_reply_ends_the_call_before_the_driver_is_asked(sandbox: Sandbox, room: int) -> None:
    with raising(ReplyInvalid, "4096", str(room)):
        sandbox.call(calling(room=room), b"", "motion")
    assert sandbox.world.asked == []


def test_a_foreign_exception_of_a_host_import_is_a_fault_of_the_host(sandbox: Sandbox) -> None:
    def broken(request: bytes) -> bytes:
        raise RuntimeError("boom\n\x1b[31m")

    sandbox.world.driver = broken
    with raising(HostFault, "RuntimeError", "boom"):
        sandbox.call(calling(), b"", "motion")


def test_an_interrupt_of_the_user_passes_through_the_guest(sandbox: Sandbox) -> None:
    def interrupted(request: bytes) -> bytes:
        raise KeyboardInterrupt

    sandbox.world.driver = interrupted
    with pytest.raises(KeyboardInterrupt):
        sandbox.call(calling(), b"", "motion")


def test_a_million_host_calls_end_at_the_ceiling(sandbox: Sandbox) -> None:
    loop = "(loop $again (drop (call $now_ms)) (br $again)) i64.const 0"
    with sandbox.load(module(loop, importing("now_ms")), "clock").instance() as instance:
        with raising(HostCallsExceeded, "1000 host calls"):
            instance.call("bid", b"")
        assert instance.host_calls == 1_001
        with raising(HostCallsExceeded):
            instance.call("bid", b"")


def test_host_calls_use_up_the_fuel_before_they_use_up_the_host(sandbox: Sandbox) -> None:
    loop = "(loop $again (drop (call $now_ms)) (br $again)) i64.const 0"
    with sandbox.load(module(loop, importing("now_ms")), "clock", fuel=1_000_000, host_calls=100_000).instance() as instance:
        with raising(FuelExhausted):
            instance.call("bid", b"")
        assert 980 <= instance.host_calls <= 1_000
        assert instance.fuel_used == 1_000_000


PRICES = {  # the fuel of each import's bytes, both ways
    "log": ("log", "(call $log (i32.const 1) (i32.const 0) (i32.const 5))", 5),
    "now_ms": ("clock", "(drop (call $now_ms))", 0),
    "random": ("random", "(call $random (i32.const 0) (i32.const 16))", 16),
    "state_get": ("state", "(drop (call $state_get (i32.const 0) (i32.const 1) (i32.const 64) (i32.const 64)))", 1 + 7),
    "state_set": ("state", "(drop (call $state_set (i32.const 0) (i32.const 1) (i32.const 64) (i32.const 9)))", 1 + 9),
    "call": ("motion", "(drop (call $call (i32.const 0) (i32.const 6) (i32.const 8) (i32.const 3) (i32.const 64) (i32.const 4096)))", 6 + 3 + 300),
}  # fmt: skip


@pytest.mark.parametrize("name", PRICES)
def test_a_host_call_costs_a_thousand_units_and_one_for_each_byte_moved(sandbox: Sandbox, name: str) -> None:
    capability, call, moved = PRICES[name]
    sandbox.world.values[b"m"] = b"7 bytes"
    sandbox.world.driver = lambda request: bytes(300)
    used = []
    for times in (1, 3):
        with sandbox.load(module(call * times + ECHO, importing(name), more=data(0, b"motion")), capability).instance() as instance:
            instance.call("bid", b"")
            assert instance.host_calls == times
            used.append(instance.fuel_used)
    price = (used[1] - used[0]) / 2
    assert DEFAULT.host_call_fuel + moved < price < DEFAULT.host_call_fuel + moved + 12


def test_bytes_that_the_fuel_does_not_cover_are_not_moved(sandbox: Sandbox) -> None:
    body = f"(call $random (i32.const 0) (i32.const {PAGE}))" + ECHO
    with raising(FuelExhausted, "host call"):
        sandbox.call(module(body, importing("random")), b"", "random", fuel=PAGE)


# ---- Capabilities and what a module may be -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "capability"),
    [("log", "log"), ("now_ms", "clock"), ("random", "random"), ("state_get", "state"), ("state_set", "state"), ("call", "driver")],
)
def test_an_import_whose_capability_was_not_granted_is_refused_at_load(sandbox: Sandbox, name: str, capability: str) -> None:
    others = " ".join({"log", "clock", "random", "state", "motion"} - {capability} - ({"motion"} if name == "call" else set()))
    with raising(CapabilityDenied, name, capability):
        sandbox.load(module(ECHO, importing(name)), others)
    with raising(CapabilityDenied, name, "none"):
        sandbox.load(module(ECHO, importing(name)), granted="")


@pytest.mark.parametrize(
    "text",
    ['"env" "abort"', '"wasi_snapshot_preview1" "fd_write"', '"snapcount:host/2" "log"', '"snapcount:host/1" "exec"', '"" ""'],
)
def test_an_import_that_the_host_does_not_offer_is_incompatible(sandbox: Sandbox, text: str) -> None:
    with raising(Incompatible, "snapcount:host/1"):
        sandbox.load(module(ECHO, f"(import {text} (func))"))


def test_names_of_imports_are_sanitised_and_cut(sandbox: Sandbox) -> None:
    with raising(Incompatible, "\\x1b[31m", "\\n") as caught:
        sandbox.load(module(ECHO, f'(import "\\1b[31m\\0a" "{"x" * 5000}" (func))'))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "kind",
    ["(func)", "(func (param i32 i32 i32) (result i32))", "(func (param i64 i32 i32))", "(global i32)", "(memory 1)", "(table 1 funcref)"],
)
def test_an_import_of_another_type_names_both_types(sandbox: Sandbox, kind: str) -> None:
    wat = f"""(module (import "snapcount:host/1" "log" {kind})
      (func (export "sc_alloc") (param i32) (result i32) i32.const 8) (func (export "hook_bid") (param i32 i32) (result i64) {ECHO})
      {'(export "memory" (memory 0))' if "memory" in kind else '(memory (export "memory") 1)'})"""
    with raising(MalformedModule, "import log: expected (i32, i32, i32) -> (), found "):
        sandbox.load(wat, "log")


HOOK, ALLOC = (
    '(func (export "hook_bid") (param i32 i32) (result i64) i64.const 0)',
    '(func (export "sc_alloc") (param i32) (result i32) i32.const 8)',
)
MEMORY = '(memory (export "memory") 1)'
EXPORTS = {
    "no memory": (HOOK + ALLOC, "exports no memory named `memory`"),
    "a memory that is not exported": (HOOK + ALLOC + "(memory 1)", "exports no memory"),
    "a function named memory": (HOOK + ALLOC + '(func (export "memory"))', "exports no memory"),
    "no sc_alloc": (HOOK + MEMORY, "sc_alloc is missing"),
    "sc_alloc of i64": (HOOK + MEMORY + '(func (export "sc_alloc") (param i64) (result i32) i32.const 8)', "sc_alloc: expected (i32) -> (i32), found (i64) -> (i32)"),
    "sc_alloc without result": (HOOK + MEMORY + '(func (export "sc_alloc") (param i32))', "sc_alloc: expected (i32) -> (i32), found (i32) -> ()"),
    "sc_alloc that is a global": (HOOK + MEMORY + '(global (export "sc_alloc") i32 (i32.const 8))', "sc_alloc: expected (i32) -> (i32), found something that is not a function"),
    "no hook": (ALLOC + MEMORY, "hook_bid is missing"),
    "a hook of one parameter": (ALLOC + MEMORY + '(func (export "hook_bid") (param i32) (result i64) i64.const 0)', "hook_bid: expected (i32, i32) -> (i64), found (i32) -> (i64)"),
    "a hook of three results": (ALLOC + MEMORY + '(func (export "hook_bid") (param i32 i32) (result i64 i64 i32) unreachable)', "found (i32, i32) -> (i64, i64, i32)"),
    "a hook of references": (ALLOC + MEMORY + '(func (export "hook_bid") (param funcref f32) (result f64) unreachable)', "found (funcref, f32) -> (f64)"),
    "a hook with an i32 result": (ALLOC + MEMORY + '(func (export "hook_bid") (param i32 i32) (result i32) i32.const 0)', "found (i32, i32) -> (i32)"),
    "a hook without result": (ALLOC + MEMORY + '(func (export "hook_bid") (param i32 i32))', "found (i32, i32) -> ()"),
    "sc_reset with a result": (HOOK + ALLOC + MEMORY + '(func (export "sc_reset") (result i32) i32.const 1)', "sc_reset: expected () -> (), found () -> (i32)"),
}  # fmt: skip


@pytest.mark.parametrize("what", EXPORTS)
def test_an_export_that_differs_from_the_abi_is_refused_with_both_types(sandbox: Sandbox, what: str) -> None:
    fields, said = EXPORTS[what]
    with raising(MalformedModule, said):
        sandbox.load(f"(module {fields})")


def test_a_start_function_is_refused(sandbox: Sandbox) -> None:
    with raising(MalformedModule, "start function"):
        sandbox.load(module(ECHO, more="(func $go) (start $go)"))


def test_too_many_imports_or_exports_are_refused_before_anything_is_compiled() -> None:
    exports = "".join(f'(export "e{index}" (func 0))' for index in range(1025))
    imports = "".join(f'(import "snapcount:host/1" "i{index}" (func))' for index in range(65))
    with raising(MalformedModule, "1025 exports", "1024"):
        check_bytes(wasmtime.wat2wasm(f"(module (func) {exports})"), NAME)
    with raising(MalformedModule, "65 imports", "64"):
        check_bytes(wasmtime.wat2wasm(f"(module {imports})"), NAME)


@pytest.mark.parametrize(
    "content",
    [b"(module)", b"", b"\0asm", b"\0asm\x0d\0\x01\0", b"\0asm\x02\0\0\0", b"\0asm\x01\0\0\0\x01\xff", b"\x7fELF\x02\x01\x01\0"],
    ids=["text", "nothing", "magic only", "component", "version 2", "truncated", "native code"],
)
def test_only_a_binary_core_module_is_looked_at(content: bytes) -> None:
    with raising(MalformedModule):
        check_bytes(content, NAME)


PROPOSALS = {
    "memory64": "(module (memory i64 1))",
    "64-bit table": "(module (table i64 1 funcref))",
    "multi-memory": "(module (memory 1) (memory 1))",
    "shared memory": "(module (memory 1 2 shared))",
    "threads": "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
    "SIMD": "(module (func (drop (i8x16.add (v128.const i32x4 0 0 0 0) (v128.const i32x4 0 0 0 0)))))",
    "SIMD in a type": "(module (func (param v128)))",
    "relaxed SIMD": "(module (func (param v128 v128 v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2))))",
    "tail call": "(module (func $f (return_call $f)))",
    "exceptions": "(module (tag $t) (func (throw $t)))",
    "GC structures": "(module (type $s (struct (field i32))) (func (drop (struct.new $s (i32.const 1)))))",
    "GC integers": "(module (func (drop (ref.i31 (i32.const 1)))))",
    "function references": "(module (type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0))))",
    "wide arithmetic": "(module (func (param i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 0))))",
    "custom page size": "(module (memory 1 (pagesize 1)))",
    "stack switching": "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $c)) (resume $c (local.get 0))))",
    "component": "(component)",
}


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_a_proposal_outside_the_abi_does_not_compile(proposal: str) -> None:
    wasm = wasmtime.wat2wasm(PROPOSALS[proposal])
    if proposal != "component":
        wasmtime.Module.validate(_everything(), wasm)  # it is valid, so it is the proposal that is refused
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(wasmtime.Engine(config()), wasm)


def _everything() -> wasmtime.Engine:
    made = wasmtime.Config()
    for name in PROPOSALS_OFF:
        setattr(made, name, True)
    return wasmtime.Engine(made)


def test_what_the_abi_allows_does_compile() -> None:
    wat = """(module (memory 1) (table 1 funcref) (table 1 externref) (global (export "g") (mut i32) (i32.const 0))
      (func (result i32 i64) (i32.extend8_s (i32.const 200)) (i64.trunc_sat_f64_u (f64.const 1e30)))
      (func (memory.copy (i32.const 0) (i32.const 8) (i32.const 8)) (table.copy (i32.const 0) (i32.const 0) (i32.const 1))))"""
    assert wasmtime.Module(wasmtime.Engine(config()), wasmtime.wat2wasm(wat)).exports[0].name == "g"


def test_every_switch_of_the_engine_is_one_that_wasmtime_has() -> None:
    switches = (*PROPOSALS_OFF, *PROPOSALS_ON)
    assert [name for name in switches if not isinstance(inspect.getattr_static(wasmtime.Config, name, None), property)] == []


@pytest.mark.parametrize("field", ["(memory 1025)", "(table 10001 funcref)", "(table 10000000 funcref)", "(table 1 funcref)" * 5])
def test_a_module_that_no_pool_slot_can_hold_does_not_load(engine: SkillEngine, field: str) -> None:
    with pytest.raises(wasmtime.WasmtimeError, match="pooling allocator"):
        wasmtime.Module(engine.engine, wasmtime.wat2wasm(f"(module {field})"))


# ---- Slots, closing, and more than one caller ----------------------------------------------------


def test_a_full_pool_is_busy_until_an_instance_is_closed(sandbox: Sandbox) -> None:
    skill = sandbox.load(module(ECHO))
    held = [skill.instance() for _ in range(POOL)]
    for _ in range(3):
        with raising(Busy, "slot"):
            skill.instance()
    held.pop().close()
    held.append(skill.instance())
    assert [instance.call("bid", b"x") for instance in held] == [b"x"] * POOL
    for instance in held:
        instance.close()


def test_closing_twice_does_nothing_and_a_call_after_it_is_a_fault_of_the_host(sandbox: Sandbox) -> None:
    instance = sandbox.load(module(ECHO)).instance()
    instance.close()
    instance.close()
    with raising(HostFault, "closed"):
        instance.call("bid", b"")
    assert instance.memory_bytes() == 0


def test_a_driver_that_calls_into_the_same_instance_finds_it_busy_and_nothing_breaks(sandbox: Sandbox) -> None:
    seen: list[str] = []
    with sandbox.load(calling(), "motion").instance() as instance:

        def reentrant(request: bytes) -> bytes:
            for enter in (lambda: instance.call("bid", b"again"), instance.close):
                with raising(Busy, "in a call"):
                    enter()
                seen.append(enter.__name__)
            return b"outer"

        sandbox.world.driver = reentrant
        assert driver_said(instance.call("bid", b"first")) == (False, b"outer")
        assert not instance.faulted
        assert driver_said(instance.call("bid", b"second")) == (False, b"outer")
    assert len(seen) == 4
    assert sandbox.world.asked == [("motion", b"first"), ("motion", b"second")]


def test_a_driver_that_lets_busy_through_gives_it_to_the_guest_as_an_error_reply(sandbox: Sandbox) -> None:
    with sandbox.load(calling(), "motion").instance() as instance:
        sandbox.world.driver = lambda request: instance.call("bid", b"again")
        failed, answer = driver_said(instance.call("bid", b"first"))
    assert (failed, cbor.decode(answer, "answer")["code"]) == (True, "busy")


def test_a_driver_may_call_another_instance_of_the_same_skill(sandbox: Sandbox) -> None:
    skill = sandbox.load(calling(), "motion")
    with skill.instance() as outer, skill.instance() as inner:
        sandbox.world.driver = lambda request: b"end" if request == b"inner" else driver_said(inner.call("bid", b"inner"))[1]
        assert driver_said(outer.call("bid", b"outer")) == (False, b"end")


def test_a_second_caller_does_not_widen_the_first_ones_log(sandbox: Sandbox) -> None:
    log = "(call $log (i32.const 1) (i32.const 0) (i32.const 60))"
    ask = "(drop (call $call (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 1) (i32.const 4096) (i32.const 4096)))"
    skill = sandbox.load(
        module(log + ask + log + ECHO, importing("log") + importing("call"), more=data(0, b"motion")), "log motion", log_bytes=100
    )
    with skill.instance() as instance:

        def reentrant(request: bytes) -> bytes:
            with raising(Busy):
                instance.call("bid", b"")
            return b""

        sandbox.world.driver = reentrant
        with raising(HostCallsExceeded, "100 bytes"):
            instance.call("bid", b"")


@contextmanager
def switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def hammer(instance: SkillInstance, hooks: tuple[str, ...], times: int) -> dict[str, set[str]]:
    """Calls each hook from a thread of its own at once, until each has had `times` answers; what each saw, Busy left out."""
    seen: dict[str, set[str]] = {hook: set() for hook in hooks}
    start = threading.Barrier(len(hooks))

    def caller(hook: str) -> None:
        start.wait()
        answers, tries = 0, 0
        while answers < times and tries < 1_000_000:
            tries += 1
            try:
                seen[hook].add(instance.call(hook, hook.encode()).decode())
            except Busy:
                continue
            except SnapcountError as error:
                seen[hook].add(f"{type(error).__name__} {error}")
            answers += 1

    threads = [threading.Thread(target=caller, args=(hook,)) for hook in hooks]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return seen


@pytest.mark.slow
def test_two_threads_on_one_instance_get_their_own_answer_or_busy(sandbox: Sandbox) -> None:
    refuse = cbor.encode({"code": "no", "message": "never"})
    work = "(local $n i32) (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 300))))"
    other = f'(func (export "hook_handle") (param i32 i32) (result i64) {work} {packed(64, len(refuse), error=True)})'
    with sandbox.load(module(work + ECHO, more=other + data(64, refuse)), hooks="bid handle").instance() as instance:
        seen = hammer(instance, ("bid", "handle"), 500)
    assert seen == {"bid": {"bid"}, "handle": {"SkillRefused probe 1.2.3: no: never"}}


@pytest.mark.slow
def test_two_threads_on_one_instance_get_their_own_trap_or_busy(sandbox: Sandbox) -> None:
    other = f'(func (export "hook_handle") (param i32 i32) (result i64) (loop $again (drop (call $now_ms)) (br $again)) {ECHO})'
    skill = sandbox.load(module("unreachable", importing("now_ms"), more=other), "clock", hooks="bid handle", host_calls=3)
    with skill.instance() as instance:
        seen = hammer(instance, ("bid", "handle"), 500)
    assert [len(said) for said in seen.values()] == [1, 1]
    assert "trapped: unreachable" in seen["bid"].pop()
    assert "more than 3 host calls" in seen["handle"].pop()


@pytest.mark.slow
def test_many_threads_with_an_instance_each_do_not_disturb_each_other(sandbox: Sandbox) -> None:
    skill = sandbox.load(calling(), "motion")
    sandbox.world.driver = lambda request: request * 2
    wrong: list[bytes] = []

    def caller(own: bytes) -> None:
        for _ in range(20):
            with skill.instance() as instance:
                wrong.extend(said for _ in range(10) if (said := driver_said(instance.call("bid", own))[1]) != own * 2)

    threads = [threading.Thread(target=caller, args=(bytes([65 + index]) * 50,)) for index in range(POOL)]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# ---- The two paths know the same numbers ---------------------------------------------------------


def test_the_faults_of_both_paths_are_numbered_alike() -> None:
    assert {fault.name: fault.value for fault in compiled.Fault} == {fault.name: fault.value for fault in Fault}


def test_the_compiled_path_serves_every_import() -> None:
    assert [number.name.lower() for number in sorted(compiled.Import)] == list(IMPORT_TYPES)
    assert all(hasattr(plain.PlainInstance, f"_on_{name}") for name in IMPORT_TYPES)


def test_the_layouts_are_those_of_the_librarys_python_package() -> None:
    for name, layout in compiled.LAYOUT.items():
        kind = getattr(ffi, f"{name}_t")
        assert layout == (ctypes.sizeof(kind), *sorted({getattr(kind, part).offset for part, _ in kind._fields_}))
    assert {"wasmtime_func", "wasmtime_memory", "wasmtime_instance", "wasmtime_extern", "wasmtime_val_raw"} == set(compiled.LAYOUT)


@pytest.fixture
def asked_again() -> Iterator[None]:
    direct.unavailable.cache_clear()
    yield
    direct.unavailable.cache_clear()


def plain_echo(engine: SkillEngine) -> bytes:
    sandbox = Sandbox(engine, "plain")
    manifest = Manifest(name=NAME, version="1.2.3", hooks=("bid",))
    loaded = wasmtime.Module(engine.engine, wasmtime.wat2wasm(module(ECHO)))
    skill = LoadedSkill(engine, loaded, manifest, Grant(frozenset()), sandbox._services(Grant(frozenset()), manifest))
    assert skill.path == "plain"
    with skill.instance() as instance:
        return instance.call("bid", b"by the plain path")


@pytest.mark.usefixtures("asked_again")
def test_the_direct_path_is_available_here() -> None:
    assert direct.unavailable() is None


@pytest.mark.usefixtures("asked_again")
def test_another_version_of_wasmtime_falls_back_to_the_plain_path(engine: SkillEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "WRITTEN_FOR", "1.2.3")
    assert "written for wasmtime 1.2.3, found " in (direct.unavailable() or "")
    assert plain_echo(engine) == b"by the plain path"


@pytest.mark.usefixtures("asked_again")
def test_a_missing_extension_falls_back_to_the_plain_path(engine: SkillEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cython_core, "direct")
    monkeypatch.setitem(sys.modules, "cython_core.direct", None)
    assert "not built for this Python" in (direct.unavailable() or "")
    assert plain_echo(engine) == b"by the plain path"


@pytest.mark.usefixtures("asked_again")
def test_another_layout_falls_back_to_the_plain_path(engine: SkillEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compiled.LAYOUT, "wasmtime_extern", (40, 0, 8))
    assert "wasmtime_extern_t is (32, 0, 8), expected (40, 0, 8)" in (direct.unavailable() or "")
    assert plain_echo(engine) == b"by the plain path"


@pytest.mark.usefixtures("asked_again")
def test_a_function_that_the_library_lacks_falls_back_to_the_plain_path(engine: SkillEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "FUNCTIONS", (*compiled.FUNCTIONS, "wasmtime_no_such_function"))
    assert "lacks a function" in (direct.unavailable() or "")
    assert plain_echo(engine) == b"by the plain path"
