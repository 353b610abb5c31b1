"""Skills for Snapcount in Python: the contract's types, as componentize-py makes them from the skill's own world, and how a hook says no.

A hook is a function of its name in the skill's source: it takes a request, returns a reply, and raises `Failure`, as `fail` does, to refuse. Records are
dataclasses with the names of sdk/contract/skill.cddl; what may be absent is None and may be left out. Words are enums, as `Phase.ACT`. The host has checked
the bounds of a request, and checks those of the reply. What the host offers is a module for each capability: `from snapcount import log`.
"""

from dataclasses import fields, is_dataclass
from typing import NoReturn, get_args

from wit_world.imports import types
from wit_world.imports.types import *  # noqa: F403


class Failure(Exception):
    """Ends a hook with an error reply: a code in lower_snake_case for programs, and one line for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def fail(code: str, message: str) -> NoReturn:
    """Refuses a request."""
    raise Failure(code, message)


def _forgiving(record: type) -> None:
    """Lets what may be absent be left out of the record's constructor."""
    absent = [field.name for field in fields(record) if type(None) in get_args(field.type)]
    made = record.__init__  # type: ignore[misc]

    def __init__(self: object, *values: object, **named: object) -> None:
        if not values:
            named = {**dict.fromkeys(absent), **named}
        made(self, *values, **named)

    if absent:
        record.__init__ = __init__  # type: ignore[misc]


for _record in list(vars(types).values()):
    if isinstance(_record, type) and is_dataclass(_record):
        _forgiving(_record)
