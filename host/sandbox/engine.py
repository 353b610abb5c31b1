"""The WebAssembly engine of core modules: one for the process, with pooled instances, fuel, and a clock for deadlines.

Only what ABI 1 needs is switched on. Everything that could make two nodes disagree (NaN bits, relaxed SIMD, threads) is off.
"""

import hashlib
import platform
import threading
import time
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from wasmtime import Config, Engine
from wasmtime import _ffi as ffi

from host.core.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from host.sandbox.component_engine import ComponentEngine

# Each is a property of wasmtime.Config; wasmtime switches several of them on by default.
PROPOSALS_OFF = (
    "wasm_threads", "shared_memory", "wasm_tail_call", "wasm_relaxed_simd", "wasm_simd", "wasm_multi_memory", "wasm_memory64",
    "wasm_function_references", "wasm_gc", "wasm_exceptions", "wasm_wide_arithmetic", "wasm_custom_page_sizes", "wasm_stack_switching",
    "wasm_component_model",
)  # fmt: skip
PROPOSALS_ON = ("wasm_reference_types", "wasm_bulk_memory", "wasm_multi_value")
# Raised whenever a rule of checks.py changes: a cached entry is proof that the rules of its time were met.
RULES = 1
TICKS_CAUGHT_UP_MAX = 1_000  # after a machine slept, deadlines need not count the night
RESIDENT_BYTES = 1 << 20  # a pooled slot keeps this much mapped, so that a fresh instance costs no page faults


def config(limits: Limits = DEFAULT) -> Config:
    """The configuration that decides what compiled code looks like; the compiling child and the host share it."""
    made = Config()
    for name in PROPOSALS_OFF:
        setattr(made, name, False)
    for name in PROPOSALS_ON:
        setattr(made, name, True)
    made.consume_fuel = True
    made.epoch_interruption = True
    made.cranelift_nan_canonicalization = True
    made.max_wasm_stack = limits.wasm_stack_bytes_max
    return made


def _pool(made: Config, limits: Limits) -> None:
    pool = ffi.wasmtime_pooling_allocation_config_new()
    try:
        for name, value in (
            ("total_core_instances", limits.instances_max),
            ("total_memories", limits.instances_max),
            ("total_tables", limits.instances_max * 4),
            ("total_stacks", limits.instances_max),
            ("max_memories_per_module", 1),
            ("max_tables_per_module", 4),
            ("max_memory_size", limits.memory_bytes_max),
            ("table_elements", limits.table_elements_max),
            ("linear_memory_keep_resident", RESIDENT_BYTES),
            ("table_keep_resident", RESIDENT_BYTES // 16),
        ):
            getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
        ffi.wasmtime_pooling_allocation_strategy_set(made.ptr(), pool)
    finally:
        ffi.wasmtime_pooling_allocation_config_delete(pool)


class SkillEngine:
    """The engine and its epoch: a thread advances it every `epoch_tick_ms`, and a call past its deadline traps at the next tick."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        made = config(limits)
        _pool(made, limits)
        self.limits = limits
        self.engine = Engine(made)
        self._components: ComponentEngine | None = None
        self._making = threading.Lock()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="snapcount-epoch", daemon=True)
        self._ticker.start()

    @property
    def components(self) -> "ComponentEngine":
        """The engine of components, made at first use."""
        from host.sandbox.component_engine import ComponentEngine  # a node without components does without

        with self._making:
            if self._components is None:
                self._components = ComponentEngine(self.limits)
            return self._components

    def interrupt(self) -> None:
        """Ends every call that is running now, as if its deadline had passed: for a host that stops."""
        for _ in range(self.ticks(self.limits.deadline_ms_max)):
            self._advance()

    def ticks(self, deadline_ms: int) -> int:
        """The deadline in epochs: at least `deadline_ms`, at most two ticks more."""
        return -(-deadline_ms // self.limits.epoch_tick_ms) + 1

    def _tick(self) -> None:
        # Counts time, not awakenings: each of those is late by a little, and by more on a busy machine.
        period_s, began, ticks = self.limits.epoch_tick_ms / 1000, time.monotonic(), 0
        while not self._stop.wait(max(0.0, began + (ticks + 1) * period_s - time.monotonic())):
            due = int((time.monotonic() - began) / period_s)
            for _ in range(min(due - ticks, TICKS_CAUGHT_UP_MAX)):
                self._advance()
            ticks = due

    def _advance(self) -> None:
        self.engine.increment_epoch()
        if self._components is not None:
            self._components.engine.increment_epoch()


@cache
def wasmtime_version() -> str:
    """The version of the installed wasmtime package."""
    return version("wasmtime")


@cache
def engine_id() -> str:
    """Names what compiled code depends on: wasmtime's version, the machine, the configuration and the rules. 16 hexadecimal digits."""
    facts = (wasmtime_version(), platform.machine(), PROPOSALS_OFF, PROPOSALS_ON, DEFAULT.wasm_stack_bytes_max, RULES)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@cache
def default_engine() -> SkillEngine:
    """The engine of this process, made at first use."""
    return SkillEngine()
