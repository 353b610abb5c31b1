"""What a component declares, counted before it is compiled: each instance takes room of the host's for it, which no limit of a call covers.

A nested component that makes two instances of the one before it doubles with every level, so that two kilobytes ask for more than there is.
"""

from host.core import wasm
from host.core.errors import MalformedModule
from host.core.limits import DEFAULT, Limits

CORE_INSTANCES, INSTANCES, START = 2, 5, 9
IMPORTS, FUNCTIONS, GLOBALS = 2, 3, 6  # in a core module


def check_sections(data: bytes, what: str, limits: Limits = DEFAULT) -> None:
    """Raises MalformedModule for a component that declares too much, or that has a start function: nothing runs when it is loaded."""
    nested = core_instances = declared = in_module = 0
    for section in wasm.everywhere(data, what):
        if not section.component:
            in_module += section.count if section.id in (IMPORTS, FUNCTIONS, GLOBALS) else 0
            _require(in_module, limits.component_core_declared_max, "imports, functions and globals in a core module", what)
            continue
        in_module = 0
        if section.id == START:
            raise MalformedModule(f"{what}: the component has a start function; remove it")
        nested += section.count if section.id == INSTANCES else 0
        _require(nested, limits.component_nested_max, "instances of components inside it", what)
        core_instances += section.count if section.id == CORE_INSTANCES else 0
        _require(core_instances, limits.component_core_instances_declared_max, "instances of core modules", what)
        declared += section.count
        _require(declared, limits.component_declared_max, "instances, aliases, types and the like", what)


def _require(count: int, most: int, of: str, what: str) -> None:
    if count > most:
        raise MalformedModule(f"{what}: the component declares {count} {of}, at most {most} are allowed")
