"""The engine of components: a second one, because that of core modules has all of this switched off, and a pool of slots that no interpreter fits into.

It is made when the first component is loaded: a node without components pays nothing for it. Instances are not pooled; what stands in an interpreter's memory
is mapped from the compiled code and copied where it is written to, so that a fresh instance costs well under a millisecond.
"""

import hashlib
import platform
from functools import cache
from queue import SimpleQueue

from wasmtime import Config, Engine
from wasmtime import _ffi as ffi

from host.core.limits import DEFAULT, Limits
from host.sandbox.engine import PROPOSALS_OFF, PROPOSALS_ON, wasmtime_version

# Interpreters are compiled for today's WebAssembly; whatever could make two nodes disagree stays off.
ON = ("wasm_component_model", "wasm_simd", "wasm_multi_memory", "wasm_tail_call", *PROPOSALS_ON)
OFF = tuple(name for name in PROPOSALS_OFF if name not in ON)
# These the Python package has no property for: without them no function is async, and nothing of wasmtime's tasks, streams and futures can be reached.
ASYNC_OFF = ("wasm_component_model_async", "wasm_component_model_more_async_builtins", "wasm_component_model_async_stackful")
# Raised whenever a rule of component_checks.py or component_sections.py changes.
RULES = 2


def config(limits: Limits = DEFAULT) -> Config:
    """The configuration that decides what compiled components look like; the compiling child and the host share it."""
    made = Config()
    for name in OFF:
        setattr(made, name, False)
    for name in ON:
        setattr(made, name, True)
    for name in ASYNC_OFF:
        getattr(ffi, f"wasmtime_config_{name}_set")(made.ptr(), False)
    made.consume_fuel = True
    made.epoch_interruption = True
    made.cranelift_nan_canonicalization = True
    made.max_wasm_stack = limits.component_stack_bytes_max
    return made


class ComponentEngine:
    """The engine, and a place in `slots` for each instance that there may be at once. Its epoch is advanced by the thread of the `SkillEngine` that made it."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        from host.sandbox.values import require_known_library  # not for the compiling child

        require_known_library()
        self.engine = Engine(config(limits))
        # Not a semaphore: the collector may close an instance while this very thread holds a semaphore's lock.
        self.slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(limits.component_instances_max):
            self.slots.put(None)


@cache
def engine_id() -> str:
    """Names what a compiled component depends on, the contract too, against which it was checked. 16 hexadecimal digits."""
    from host.sandbox.component_checks import contract

    facts = (wasmtime_version(), platform.machine(), OFF, ASYNC_OFF, ON, DEFAULT.component_stack_bytes_max, RULES, contract())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
