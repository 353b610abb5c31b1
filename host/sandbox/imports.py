"""What a skill's imports do: the host side of `snapcount:host/1`, for one skill.

Memory, fuel and counting are the instance's business; here are the services. An error raised here ends the guest's call and reaches its caller.
"""

from collections.abc import Callable, Collection
from threading import get_ident
from typing import NoReturn, Protocol

import msgspec

from host.core import cbor, flags
from host.core.capabilities import FLAGS, Grant
from host.core.clock import Clock, Random
from host.core.errors import (
    FuelExhausted,
    GuestError,
    HostCallsExceeded,
    MalformedData,
    Quarantined,
    Refused,
    ReplyInvalid,
    SafeMode,
    SnapcountError,
)  # fmt: skip
from host.core.limits import DEFAULT, Limits
from host.core.text import safe

LEVELS = ("debug", "info", "warning", "error")
OVER_CALLS, OVER_FUEL = 1, 2
STATE_STORED, STATE_FULL = 0, -2
HOST_CALL_BYTES = 64  # what a noted call takes besides what it holds


class StateStore(Protocol):
    """A skill's own keys and values, kept on the node's disk."""

    def get(self, key: bytes) -> bytes | None: ...

    def set(self, key: bytes, value: bytes) -> bool:
        """False when the quota is full; an empty value deletes."""
        ...


Ask = Callable[[str, bytes], bytes]
"""Asks the driver of a capability; raises SnapcountError where the command is refused or fails."""

LogSink = Callable[[str, str], None]
"""Takes a level and a line that is safe to print."""


class HostCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a guest asked of the host, by the import's name, and what it was told; `failed` is of `call` alone. A log line is told nothing."""

    name: str
    asked: tuple[bytes | int, ...]
    answer: bytes | int | None
    failed: bool = False


class HostNotes:
    """The host calls of one hook call, in order. `whole` is false once they had more than `bytes_max` together; the rest is then not noted."""

    def __init__(self, bytes_max: int) -> None:
        self.calls: list[HostCall] = []
        self.whole = True
        self._left = bytes_max

    def add(self, call: HostCall) -> None:
        self._left -= HOST_CALL_BYTES + sum(len(part) for part in (*call.asked, call.answer) if isinstance(part, bytes))
        self.whole &= self._left >= 0
        if self.whole:
            self.calls.append(call)


class HostServices:
    """Serves the instances of one skill. Counting is the instance's business; here is only noted in which calls a command was refused.

    `flags` gives the feature flags that are on. With a line in `halted`, a call that asks for a driver ends with it, even one that was running before.
    """

    def __init__(
        self, skill: str, grant: Grant, clock: Clock, random: Random, *,
        log: LogSink, state: StateStore | None = None, ask: Ask | None = None, limits: Limits = DEFAULT,
        flags: Callable[[], Collection[str]] = frozenset,
    ) -> None:  # fmt: skip
        self._skill, self._grant, self._clock, self._random = skill, grant, clock, random
        self._sink, self._state, self._ask, self._flags = log, state, ask, flags
        self._limits = limits
        self.halted = ""
        self._refusing: set[int] = set()
        self._noting: dict[int, HostNotes] = {}

    def note(self, notes: HostNotes | None) -> HostNotes | None:
        """Has what is asked on this thread noted from now on, or, with None, no more. What it was noted in before."""
        before = self._noting.pop(get_ident(), None)
        if notes is not None:
            self._noting[get_ident()] = notes
        return before

    def log(self, level: int, line: bytes) -> None:
        if self._noting:
            self._note("log", (level, line), None)
        name = LEVELS[level] if 0 <= level < len(LEVELS) else LEVELS[-1]
        self._sink(name, safe(line, self._limits.log_line_bytes_max))

    def now_ms(self) -> int:
        answer = self._clock.now_ms()
        if self._noting:
            self._note("now_ms", (), answer)
        return answer

    def random(self, size: int) -> bytes:
        answer = self._random.token(size)
        if self._noting:
            self._note("random", (size,), answer)
        return answer

    def state_get(self, key: bytes) -> bytes | None:
        assert self._state is not None, "state is linked only when it was granted"
        answer = self._state.get(self._key(key))
        if self._noting:
            self._note("state_get", (key,), answer)
        return answer

    def state_set(self, key: bytes, value: bytes) -> int:
        answer = STATE_STORED if len(value) <= self._limits.state_value_bytes_max and self._keep(self._key(key), value) else STATE_FULL
        if self._noting:
            self._note("state_set", (key, value), answer)
        return answer

    def call(self, capability: bytes, request: bytes, room: int) -> tuple[bool, bytes]:
        """Asks a driver; (failed, CBOR). A refusal is an answer to the guest, not the end of its call."""
        failed, answer = self._asked(capability, request, room)
        if self._noting:
            self._note("call", (capability, request), answer, failed)
        return failed, answer

    def _asked(self, capability: bytes, request: bytes, room: int) -> tuple[bool, bytes]:
        if room < self._limits.driver_reply_bytes_max:
            raise ReplyInvalid(f"{self._skill}: call needs room for {self._limits.driver_reply_bytes_max} bytes of reply, it gave {room}")
        if self.halted:
            raise Quarantined(self.halted)
        name = safe(capability, 64)
        ask = self._answering(name)
        if ask is None:
            return True, _error("capability_denied", f"{name} was not granted to {self._skill}")
        try:
            reply = ask(name, request)
        except GuestError:
            raise
        except SnapcountError as error:
            # In safe mode everybody is refused everything: that says nothing of this skill.
            if name != FLAGS and isinstance(error, Refused | MalformedData) and not isinstance(error, SafeMode):
                self._refusing.add(get_ident())
            return True, _error(error.code, str(error))
        if len(reply) > self._limits.driver_reply_bytes_max:
            return True, _error("driver_reply_too_long", f"the driver of {name} replied with {len(reply)} bytes")
        return False, reply

    def took_refusal(self) -> bool:
        """Whether a command was refused on this thread since this was last asked: once for each call, by whoever counts them."""
        if not self._refusing or get_ident() not in self._refusing:
            return False
        self._refusing.discard(get_ident())
        return True

    def over_budget(self, which: int, host_calls_max: int) -> NoReturn:
        """Ends a call that asked the host for more than it may."""
        if which == OVER_CALLS:
            raise HostCallsExceeded(f"{self._skill}: more than {host_calls_max} host calls in one call")
        raise FuelExhausted(f"{self._skill}: used up its fuel in a host call")

    def over_log(self, log_bytes_max: int) -> NoReturn:
        raise HostCallsExceeded(f"{self._skill}: logged more than {log_bytes_max} bytes in one call")

    def bad_span(self, pointer: int, length: int) -> NoReturn:
        raise ReplyInvalid(f"{self._skill}: gave the host {length} bytes at {pointer}, which are not in its memory")

    def _note(self, name: str, asked: tuple[bytes | int, ...], answer: bytes | int | None, failed: bool = False) -> None:
        notes = self._noting.get(get_ident())
        if notes is not None:
            notes.add(HostCall(name, asked, answer, failed))

    def _keep(self, key: bytes, value: bytes) -> bool:
        assert self._state is not None, "state is linked only when it was granted"
        return self._state.set(key, value)

    def _answering(self, capability: str) -> Ask | None:
        """Who answers for a capability; None where it was not granted."""
        if capability == FLAGS:
            return self._flag if FLAGS in self._grant.names else None
        return self._ask if capability in self._grant.drivers else None

    def _flag(self, capability: str, request: bytes) -> bytes:
        return flags.answer(request, self._flags())

    def _key(self, key: bytes) -> bytes:
        if not 1 <= len(key) <= self._limits.state_key_bytes_max:
            raise ReplyInvalid(f"{self._skill}: a state key has 1 to {self._limits.state_key_bytes_max} bytes, not {len(key)}")
        return key


def _error(code: str, message: str) -> bytes:
    return cbor.encode({"code": code, "message": safe(message, 500)})
