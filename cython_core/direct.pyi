from enum import IntEnum
from typing import Final

FUNCTIONS: Final[tuple[str, ...]]
LAYOUT: Final[dict[str, tuple[int, ...]]]

class Fault(IntEnum):
    INSTANTIATE = 1
    MISSING = 2
    BUSY = 3
    TRAPPED = 4
    FAILED = 5
    NO_ROOM = 6
    BAD_POINTER = 7
    REPLY_SIZE = 8
    CLOSED = 9

class Import(IntEnum):
    LOG = 0
    NOW_MS = 1
    RANDOM = 2
    STATE_GET = 3
    STATE_SET = 4
    CALL = 5

class DirectFault(Exception):
    kind: Fault
    detail: int
    trap: int
    error: int

class DirectTemplate:
    def __init__(
        self,
        engine: int,
        pre: int,
        keep: object,
        host: object,
        hooks: tuple[str, ...],
        has_reset: bool,
        memory_bytes_max: int,
        table_elements_max: int,
        fuel: int,
        ticks: int,
        reply_bytes_max: int,
        host_calls_max: int,
        host_call_fuel: int,
        log_bytes_max: int,
    ) -> None: ...

class DirectInstance:
    fuel_used: int
    host_calls: int
    def __init__(self, template: DirectTemplate) -> None: ...
    def call(self, hook: int, request: bytes, fuel: int, ticks: int) -> tuple[bytes, bool]: ...
    def close(self) -> None: ...
    def memory_bytes(self) -> int: ...

def bind(addresses: dict[str, int]) -> None: ...
def import_callback() -> int: ...
