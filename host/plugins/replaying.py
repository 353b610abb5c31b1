"""Runs a recorded call on another build or lineage of its skill. What that asks of its host is answered from the record: nothing real is touched.

The same build asks the same in the same order. Another one may not: each answer is then looked for among all that were recorded, and where there is none the
call ends, for whatever came of a made-up answer would tell nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from host.core import cbor
from host.core.capabilities import Grant
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import HostFault, ReplyInvalid, SnapcountError, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest
from host.core.text import safe
from host.plugins.adapter import SkillVersion
from host.plugins.comparison import OUTCOME, Comparison, Difference, differences
from host.plugins.contract import SHAPES, PlanReport
from host.plugins.observed import Call, Observers, PlannedJob, everything
from host.plugins.record import CallRecord, outcome
from host.sandbox.imports import STATE_FULL, STATE_STORED, HostCall, HostServices
from host.sandbox.skill import LoadedSkill

DEVIATIONS_KEPT = 16
SHOWN_CHARACTERS = 60
Asked = tuple[bytes | int, ...]


@dataclass
class Replayed:
    """What came of a replay. `deviations` say where something else was asked of the host than was recorded, `unanswered` what the record had no answer to."""

    call: Call
    deviations: list[str] = field(default_factory=list)
    unanswered: str = ""
    met_state: bool = False
    """Whether it was given a value that had been kept by the skill which was recorded."""


class RecordedHost(HostServices):
    """The host of one record at a time. For one call at a time."""

    def __init__(self, manifest: Manifest, grant: Grant) -> None:
        super().__init__(f"{manifest.name} {manifest.version}", grant, SystemClock(), SystemRandom(), log=lambda level, line: None)
        self.begin((), 0)

    def begin(self, recorded: tuple[HostCall, ...], began_ms: int) -> None:
        """From now on answers come from these."""
        self.deviations: list[str] = []
        self.unanswered, self.met_state = "", False
        self._recorded, self._used, self._next = recorded, [False] * len(recorded), 0
        self._written: dict[bytes, bytes] = {}
        self._now_ms = began_ms

    def end(self) -> None:
        """Notes what was recorded and not asked."""
        left = [one for one, used in zip(self._recorded, self._used, strict=True) if not used]
        if left:
            more = f", nor {len(left) - 1} more" if len(left) > 1 else ""
            self._deviates(f"did not ask {_shown(left[0].name, left[0].asked)}{more}")

    def now_ms(self) -> int:
        found = self._take("now_ms", ())
        if found is not None and isinstance(found.answer, int):
            self._now_ms = found.answer
        return self._now_ms

    def random(self, size: int) -> bytes:
        return self._bytes(self._take("random", (size,)), "random", (size,), size)

    def state_get(self, key: bytes) -> bytes | None:
        found = self._take("state_get", (self._key(key),))
        if found is not None:
            self.met_state |= isinstance(found.answer, bytes) and found.answer != self._written.get(key)
            return found.answer if isinstance(found.answer, bytes) else None
        if key in self._written:
            return self._written[key] or None
        return self._bytes(None, "state_get", (key,))

    def state_set(self, key: bytes, value: bytes) -> int:
        found = self._take("state_set", (self._key(key), value))
        answer = STATE_FULL if found is not None and found.answer == STATE_FULL else STATE_STORED
        if answer == STATE_STORED:
            self._written[key] = value
        return answer

    def call(self, capability: bytes, request: bytes, room: int) -> tuple[bool, bytes]:
        if room < DEFAULT.driver_reply_bytes_max:
            raise ReplyInvalid(f"call needs room for {DEFAULT.driver_reply_bytes_max} bytes of reply, it gave {room}")
        found = self._take("call", (capability, request))
        return found is not None and found.failed, self._bytes(found, "call", (capability, request), DEFAULT.driver_reply_bytes_max)

    def _take(self, name: str, asked: Asked) -> HostCall | None:
        """The answer that was recorded next, or the first that was not given yet; None where there is none. A flag may be asked again."""
        for index in range(self._next, len(self._recorded)):
            one = self._recorded[index]
            if not self._used[index] and one.name == name and one.asked == asked:
                return self._give(index, name, asked)
        expected = self._recorded[self._next] if self._next < len(self._recorded) else None
        instead = (
            f" where the record has {_shown(expected.name, expected.asked)}" if expected is not None else " after the last that is recorded"
        )
        self._deviates(f"asked {_shown(name, asked)}{instead}")
        again = (one for one in self._recorded if one.name == name == "call" and one.asked == asked)
        return next(again, None)

    def _give(self, index: int, name: str, asked: Asked) -> HostCall:
        if index != self._next:
            expected = self._recorded[self._next]
            self._deviates(f"asked {_shown(name, asked)} before {_shown(expected.name, expected.asked)}")
        self._used[index] = True
        while self._next < len(self._recorded) and self._used[self._next]:
            self._next += 1
        return self._recorded[index]

    def _bytes(self, found: HostCall | None, name: str, asked: Asked, bytes_max: int = 0) -> bytes:
        # A record comes from outside: an answer that no host would have given is none.
        if found is None or not isinstance(found.answer, bytes) or len(found.answer) > bytes_max:
            self.unanswered = self.unanswered or _shown(name, asked)
            raise HostFault(f"the record has no answer to {_shown(name, asked)}")
        return found.answer

    def _deviates(self, words: str) -> None:
        if len(self.deviations) < DEVIATIONS_KEPT:
            self.deviations.append(words)


class Replayer:
    """Replays records on one loaded skill, whose host is `host`. For one thread at a time."""

    def __init__(self, skill: LoadedSkill, digest: str, host: RecordedHost) -> None:
        self._skill, self._digest, self._host = skill, digest, host
        self._ended: list[Call] = []
        self._observers = Observers(lambda: None)
        self._observers.add(self._ended.append, everything)

    def replay(self, record: CallRecord) -> Replayed:
        """Raises UsageError for a record of another skill, or of a hook that this one lacks; MalformedData for a request that is none."""
        manifest = self._skill.manifest
        if record.skill != manifest.name:
            raise UsageError(f"the record is of a call of {record.skill}, and this is {manifest.name}")
        if record.hook not in manifest.hooks:
            raise UsageError(f"{manifest.name} {manifest.version}: has no hook {safe(record.hook, 64)}, which the record is of")
        # A record is of one fresh instance, so each gets a version of its own: what one call leaves behind is not for the next.
        version = SkillVersion(self._skill, self._digest, self._host)
        self._observers.bind(version)
        self._host.begin(record.host_calls, record.began_ms)
        self._ended.clear()
        try:
            self._call(version, record)
        finally:
            version.close()
        self._host.end()
        return Replayed(self._ended[0], self._host.deviations, self._host.unanswered, self._host.met_state)

    def _call(self, version: SkillVersion, record: CallRecord) -> None:
        what = f"the recorded request of {record.hook}"
        if record.hook in SHAPES:
            request = cbor.decode_struct(record.request, SHAPES[record.hook][0], what, bytes_max=DEFAULT.request_bytes_max)
        else:
            job = cbor.decode_struct(record.request, PlannedJob, what, bytes_max=DEFAULT.request_bytes_max)
        try:
            if record.hook in SHAPES:
                version.call(record.hook, request)
            else:
                version.plan(record.program, job.settings, job.run)
        except SnapcountError:
            return  # how it ended is what was observed


def against_record(record: CallRecord, call: Call, rules: Comparison) -> Iterator[Difference]:
    """Where a replay came to something else than was recorded: the fields of the reply, or `(outcome)` where one ended otherwise. Raises MalformedData."""
    if record.reply is None or call.reply is None:
        one, other = record.outcome, outcome(call.reply, call.error, call.skill_code)
        if one != other:
            yield Difference(OUTCOME, OUTCOME, one, other)
        return
    shape: type[Any] = SHAPES[record.hook][1] if record.hook in SHAPES else PlanReport
    one, other = (_as_read(reply, shape, f"reply of {record.hook}") for reply in (record.reply, call.reply))
    yield from differences(one, other, rules)


def _as_read(reply: bytes, shape: type[Any], what: str) -> Any:
    """A reply as the host reads it: what that would not take is MalformedData."""
    read = cbor.decode_struct(reply, shape, what, bytes_max=DEFAULT.reply_bytes_max)
    return cbor.decode(cbor.encode(read), what, bytes_max=DEFAULT.reply_bytes_max)


def _shown(name: str, asked: Asked) -> str:
    return f"{safe(name, 32)}({', '.join(map(_argument, asked))})"


def _argument(value: bytes | int) -> str:
    if isinstance(value, int):
        return str(value)
    try:
        return safe(str(cbor.decode(value, "")), SHOWN_CHARACTERS) if value[:1] >= b"\x80" else safe(repr(value.decode()), SHOWN_CHARACTERS)
    except (SnapcountError, UnicodeDecodeError):
        return safe(f"0x{value.hex()}", SHOWN_CHARACTERS)
