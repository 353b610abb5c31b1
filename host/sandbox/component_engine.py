"""The engine of components: a second one, because that of core modules has all of this switched off, and a pool of slots that no interpreter fits into.

It is made when the first component is loaded: a node without components pays nothing for it. Instances are not pooled; what stands in an interpreter's memory
is mapped from the compiled code and copied where it is written to, so that a fresh instance costs well under a millisecond.
"""

import hashlib
import platform
import threading
from functools import cache

from wasmtime import Config, Engine

from host.core.limits import DEFAULT, Limits
from host.sandbox import signatures
from host.sandbox.engine import PROPOSALS_OFF, PROPOSALS_ON, wasmtime_version

# Interpreters are compiled for today's WebAssembly; whatever could make two nodes disagree stays off.
ON = ("wasm_component_model", "wasm_simd", "wasm_multi_memory", "wasm_tail_call", *PROPOSALS_ON)
OFF = tuple(name for name in PROPOSALS_OFF if name not in ON)
# Raised whenever a rule of component_checks.py changes.
RULES = 1


def config(limits: Limits = DEFAULT) -> Config:
    """The configuration that decides what compiled components look like; the compiling child and the host share it."""
    made = Config()
    for name in OFF:
        setattr(made, name, False)
    for name in ON:
        setattr(made, name, True)
    made.consume_fuel = True
    made.epoch_interruption = True
    made.cranelift_nan_canonicalization = True
    made.max_wasm_stack = limits.component_stack_bytes_max
    return made


class ComponentEngine:
    """The engine, and how many instances there may be at once. Its epoch is advanced by the thread of the `SkillEngine` that made it."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.engine = Engine(config(limits))
        self.slots = threading.BoundedSemaphore(limits.component_instances_max)


@cache
def engine_id() -> str:
    """Names what a compiled component depends on, the contract's shapes too, against which it was checked. 16 hexadecimal digits."""
    shapes = (signatures.ENUMS, signatures.RECORDS, signatures.CASES, signatures.HOOKS)
    facts = (wasmtime_version(), platform.machine(), OFF, ON, DEFAULT.component_stack_bytes_max, RULES, shapes)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
