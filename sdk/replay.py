"""Replays recorded calls on a build of their skill, and keeps one as a golden vector.

The build's host answers from the record, so a replay on a desk gives what the node got: its clock, its random bytes, its state, its machine. What differs is then
the build's doing, or, where the record's own digest is the build's, a mistake of ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from host.core import cbor, files
from host.core.bundle import UnverifiedBundle, digest_of
from host.core.capabilities import grant
from host.core.errors import UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins import record as records
from host.plugins.comparison import Comparison, Difference
from host.plugins.observed import PlannedJob
from host.plugins.record import CallRecord
from host.plugins.replaying import RecordedHost, Replayer, against_record
from host.sandbox.engine import default_engine
from host.sandbox.imports import HostCall
from host.sandbox.skill import LoadedSkill
from sdk.local import user_cache

SAID_AGAIN = 8
LINE_CHARACTERS = 1000


@dataclass(frozen=True)
class Result:
    """What came of one record. It is the same where nothing `differs`; `asked` are the ways in which it spoke otherwise with its host."""

    id: str
    record: CallRecord
    differs: tuple[Difference, ...] = ()
    asked: tuple[str, ...] = ()
    unanswered: str = ""
    outcome: str = ""
    fuel: int = 0

    @property
    def same(self) -> bool:
        return not (self.differs or self.asked or self.unanswered)


class Bench:
    """One build, ready to replay. Raises UntrustedInput of some kind for a module that cannot run here."""

    def __init__(self, data: bytes, what: str, rules: Comparison) -> None:
        bundle = UnverifiedBundle.parse(data, what)
        self.manifest, self._what, self._rules = bundle.manifest, what, rules
        granted = grant(self.manifest.name, self.manifest.capabilities, self.manifest.capabilities)
        host = RecordedHost(self.manifest, granted)
        module = user_cache().module(default_engine(), data, digest_of(data), self.manifest)
        loaded = LoadedSkill(default_engine(), module, self.manifest, granted, host)
        self._replayer = Replayer(loaded, digest_of(data), host)

    def replay(self, id_: str, record: CallRecord) -> Result:
        """Raises UsageError for a record that is of something else, MalformedData for one that is not sound inside."""
        try:
            replayed = self._replayer.replay(record)
        except UsageError as error:
            raise UsageError(f"{self._what}: call {id_}: {error}") from error
        call = replayed.call
        outcome = records.outcome(call.reply, call.error, call.skill_code)
        if replayed.unanswered:
            return Result(id_, record, (), tuple(replayed.deviations), replayed.unanswered, outcome, call.fuel)
        differs = tuple(against_record(record, call, self._rules))
        return Result(id_, record, differs, tuple(replayed.deviations), "", outcome, call.fuel)


def replay_all(
    bench: Bench, held: Sequence[tuple[str, CallRecord]], step: Callable[[int, str], None] = lambda done, what: None
) -> list[Result]:
    """Replays records in their order; `step` is told how many are done, and the last one's id."""
    results = []
    for id_, record in held:
        results.append(bench.replay(id_, record))
        step(len(results), id_)
    return results


def read(path: Path) -> list[tuple[str, CallRecord]]:
    """The records of a file, with their ids. Raises UsageError where there is none, and what `from_file` does."""
    try:
        if path.stat().st_size > DEFAULT.calls_file_bytes_max:
            raise UsageError(f"{path}: a file of calls has at most {DEFAULT.calls_file_bytes_max} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; `snapcount node calls export` makes a file of calls") from error
    return records.from_file(data, str(path))


def in_words(results: Sequence[Result], digest: str) -> list[str]:
    """The results for people."""
    lines = []
    for one in results:
        if one.same:
            continue
        lines.append(f"{one.id}  {one.record.hook} of {one.record.node}, {one.record.version} (lineage {one.record.lineage})")
        if one.unanswered:
            lines.append(f"  asked {one.unanswered}, to which the record has no answer, and was ended there")
        lines += [f"  {difference.words('recorded', 'now')}" for difference in one.differs[:SAID_AGAIN]]
        if len(one.differs) > SAID_AGAIN:
            lines.append(f"  and {len(one.differs) - SAID_AGAIN} more fields; --json has them")
        lines += [f"  {deviation}" for deviation in one.asked]
    if results and all(one.record.digest == digest for one in results) and lines:
        lines.append("the records are of this very build: its calls depend on something that no record holds")
    return [*(safe(line, LINE_CHARACTERS) for line in lines), summary(results)]  # a record is somebody else's


def summary(results: Sequence[Result]) -> str:
    """One line: how many are the same, and how many are not."""
    differ = sum(bool(one.differs) for one in results)
    unanswered = sum(bool(one.unanswered) for one in results)
    asked = sum(bool(one.asked) and not one.unanswered for one in results)
    same = sum(one.same for one in results)
    return f"{len(results)} calls replayed: {same} the same, {differ} with another reply, {asked} asked their host otherwise, {unanswered} could not be answered"


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The results for programs. Bytes become base64."""
    counts = {
        "replayed": len(results), "same": sum(one.same for one in results), "differ": sum(bool(one.differs) for one in results),
        "unanswered": sum(bool(one.unanswered) for one in results),
    }  # fmt: skip
    rows = [
        {
            "id": one.id, "hook": one.record.hook, "node": one.record.node, "recorded_digest": one.record.digest, "same": one.same, "outcome": one.outcome,
            "fuel": one.fuel, "recorded_fuel": one.record.fuel, "asked": one.asked, "unanswered": one.unanswered,
            "differs": [{"field": each.field, "at": each.at, "recorded": each.one, "now": each.other} for each in one.differs],
        }
        for one in results
    ]  # fmt: skip
    plain: dict[str, Any] = msgspec.to_builtins(counts | {"calls": rows})
    return plain


def save_vector(path: Path, id_: str, record: CallRecord) -> None:
    """Writes a record as a golden vector: what it replied then is what is expected from now on.

    Raises UsageError for a record that a vector cannot hold, because its reply depends on what its host answered, and for a file that is there.
    """
    if path.exists():
        raise UsageError(f"{path}: is there already; a vector is not overwritten")
    asked = next((one for one in record.host_calls if not _as_on_a_fresh_host(one)), None)
    if asked is not None:
        raise UsageError(
            f"call {id_}: its reply may depend on what its host answered to {safe(asked.name, 32)}, which a vector cannot hold"
        )
    about = f"recorded on {record.node} as call {id_}: {record.version}, lineage {record.lineage}"
    vector = {"about": about, "hook": record.hook} | _request(id_, record) | _expected(id_, record)
    text = msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(vector)), indent=2)
    files.write_atomic(path, text + b"\n")


def _as_on_a_fresh_host(one: HostCall) -> bool:
    """Whether a vector's own host would have answered the same: its state is empty."""
    return (one.name == "state_get" and one.answer is None) or (one.name == "state_set" and one.answer == 0)


def _request(id_: str, record: CallRecord) -> dict[str, Any]:
    if record.hook != "plan_job":
        return {"request": cbor.decode(record.request, f"call {id_}: request", bytes_max=DEFAULT.request_bytes_max)}
    job = cbor.decode_struct(record.request, PlannedJob, f"call {id_}: request", bytes_max=DEFAULT.request_bytes_max)
    if job.run:
        raise UsageError(f"call {id_}: it drove a machine, which a vector does not do; take the call that only planned")
    try:
        program = b"".join(record.program).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"call {id_}: its program is not text, and a vector holds text") from error
    return {"program": program, "settings": msgspec.to_builtins(job.settings)}


def _expected(id_: str, record: CallRecord) -> dict[str, Any]:
    if record.reply is not None:
        return {"reply": cbor.decode(record.reply, f"call {id_}: reply", bytes_max=DEFAULT.reply_bytes_max)}
    if record.skill_code:
        return {"error": {"code": record.skill_code}}
    raise UsageError(f"call {id_}: it ended with {safe(record.error, 64)}; a vector expects a reply, or the skill's own error")


def chosen(held: Sequence[tuple[str, CallRecord]], ids: Sequence[str], what: str) -> list[tuple[str, CallRecord]]:
    """Those whose ids begin so; all without any. Raises UsageError for one that is not there."""
    if not ids:
        return list(held)
    found = []
    for wanted in ids:
        those = [one for one in held if wanted and one[0].startswith(wanted)]
        if len(those) != 1:
            raise UsageError(f"{what}: {'several calls begin' if those else 'no call begins'} with the id {safe(wanted, 64)}")
        found += those
    return found
