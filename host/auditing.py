"""Auditing: a node sends a sample of its calls, and an auditor runs its own lineage of the skill on them.

The record of a call (host/plugins/record.py) goes as a signed mesh message of the topic `audit.call` to the auditors that the node's owner named. An auditor puts
it into a bounded queue and has answered; what its lineage makes of it is found out on a thread of its own, under its own sandbox, with the host's answers
from the record. Where the two differ by more than the auditor's owner allows, that is a conflict: a row in its journal, a line in its log, and a signed
message that each tier above notes (host/mesh/raised.py). What one node sends takes nothing from the others: each has its share of the queue, and its own pace.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host import identity
from host.core import cbor
from host.core.capabilities import grant
from host.core.clock import Random
from host.core.errors import SnapcountError, UnknownSender
from host.core.limits import DEFAULT
from host.core.pace import Pace
from host.core.quarantine import ANY
from host.core.text import safe
from host.mesh.agent import Outcome
from host.mesh.frames import READY
from host.mesh.message import Message
from host.mesh.raised import RAISED_PER_S
from host.plugins import record as records
from host.plugins.adapter import SkillVersion
from host.plugins.comparison import Comparison, Difference, shown
from host.plugins.conflict import Conflict
from host.plugins.observed import Call
from host.plugins.record import ENDED_AT_A_LIMIT, THE_SKILLS_OWN, CallRecord
from host.plugins.replaying import RecordedHost, Replayed, Replayer, against_record
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import default_engine
from host.sandbox.skill import LoadedSkill
from host.supply.calls import CallJournal
from host.supply.store import SkillStore

AUDITED_MS = 2_000
"""How long such a message lives. An auditor answers at once; one that is silent costs the tiers on the way no more than this."""
WAITING_MAX, WAITING_OF_ONE_MAX = 64, 16
SAY_AGAIN_S = 60.0
"""A conflict of one node in one field of one pair of versions is said at once, and then so often at most, with how many calls showed it meanwhile."""
PAIRS_MAX = 64
"""Of one node."""
SAID_PER_S = 0.25
"""Of one node; of all together, what the tiers take of one auditor."""
NEVER = (-SAY_AGAIN_S, 0)
STOP_S = 5.0

Load = Callable[[SkillVersion], Replayer]


class Sender:
    """A node's side: `take` is for a Sampler; `send` puts a record on its way, or raises SnapcountError."""

    def __init__(self, node: str, send: Callable[[bytes], None]) -> None:
        self._node, self._send = node, send
        self.too_large = 0

    def take(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                data = records.encode(self._node, call)
            except SnapcountError:
                data = b""
            if not 0 < len(data) <= DEFAULT.payload_bytes_max:
                self.too_large += 1
                continue
            self._send(data)


@dataclass
class _Source:
    """A node that sends calls: how many of them wait, when a refused one was said last, and which conflicts, with how many calls showed them since."""

    pace: Pace
    waiting: int = 0
    refused_s: float = -SAY_AGAIN_S
    said: dict[tuple[str, ...], tuple[float, int]] = field(default_factory=dict)

    def remember(self, what: tuple[str, ...], at_s: float, seen: int) -> None:
        while what not in self.said and len(self.said) >= PAIRS_MAX:
            del self.said[next(iter(self.said))]
        self.said[what] = (at_s, seen)


class Auditor:
    """Compares what nodes say with what the versions in `active` say. `say` takes a conflict on its way up; it may be called from the auditor's thread.

    A version `on_trial` audits nothing: it is a developer's, who may change it at any time.
    """

    def __init__(
        self, name: str, active: Callable[[], Mapping[str, SkillVersion]], rules: Mapping[str, Comparison], load: Load, journal: CallJournal,
        say: Callable[[Conflict], None], log: Callable[[str, str], None], now_ms: Callable[[], int], *, now_s: Callable[[], float] = time.monotonic,
        on_trial: Callable[[SkillVersion], bool] = lambda version: False,
    ) -> None:  # fmt: skip
        self._name, self._active, self._rules, self._load, self._journal = name, active, rules, load, journal
        self._say, self._log, self._now_ms, self._now_s, self._on_trial = say, log, now_ms, now_s, on_trial
        self._replayers: dict[str, tuple[str, Replayer]] = {}
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(WAITING_MAX)
        self._sources: dict[str, _Source] = {}
        self._lock = threading.Lock()
        self._pace = Pace(RAISED_PER_S, now_s)
        self.compared = self.conflicts = self.dropped = self.refused = 0
        self.skipped: Counter[str] = Counter()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="snapcount-auditor", daemon=True)
        self._thread.start()

    def take(self, message: Message) -> Outcome:
        """A call of another node. Answers at once: whether it is audited."""
        with self._lock:
            source = self._source(message.source)
            if source.waiting < WAITING_OF_ONE_MAX and not self._waiting.full():
                source.waiting += 1
                self._waiting.put_nowait((message.source, message.payload))
                return Outcome(READY)
            self.dropped += 1
        return Outcome(READY, detail="not audited: too many calls wait")

    def stop(self) -> None:
        """Ends after the call that is being looked at."""
        self._stopping = True
        with self._lock:
            if not self._waiting.full():  # the thread wakes up for what waits
                self._waiting.put_nowait(None)
        self._thread.join(STOP_S)

    def status(self) -> dict[str, Any]:
        """`skipped` has the reasons why calls were not compared."""
        counted = {name: getattr(self, name) for name in ("compared", "conflicts", "dropped", "refused")}
        return counted | {"skipped": dict(sorted(self.skipped.items()))}

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._stopping:
            source, data = item
            with self._lock:
                self._source(source).waiting -= 1
            try:
                self.audit(source, data)
            except SnapcountError as error:
                self.refused += 1
                self._complain(source, safe(str(error)))
            except Exception as error:  # a defect costs this call, not the auditor
                self.refused += 1
                self._complain(source, safe(repr(error)))

    def _complain(self, source: str, problem: str) -> None:
        known, now_s = self._known(source), self._now_s()
        if now_s - known.refused_s >= SAY_AGAIN_S:
            known.refused_s = now_s
            self._log("warning", f"a call of {source} cannot be audited: {problem}")

    def audit(self, source: str, data: bytes) -> Conflict | None:
        """Looks at one call; the conflict that was said of it. Raises SnapcountError for what cannot be looked at."""
        record = records.decode(data, f"call of {source}")
        if record.node != source:
            raise UnknownSender(f"call of {source}: its record is one of {record.node}")
        version = self._active().get(record.skill)
        reason = self._no_auditing(record, version)
        if reason or version is None:
            self.skipped[reason] += 1
            return None
        replayed = self._replayer(version).replay(record)
        reason = not_comparable(record, replayed)
        if reason:
            self.skipped[reason] += 1
            return None
        self.compared += 1
        found = {one.field: one for one in reversed(list(against_record(record, replayed.call, self._rules[record.skill])))}
        if not found:
            return None
        self.conflicts += 1
        return self._raise(source, record, version, data, list(reversed(found.values())))

    def _no_auditing(self, record: CallRecord, version: SkillVersion | None) -> str:
        """Why a call is not looked at; empty where it is."""
        if record.skill not in self._rules:
            return "no [audit.compare] for the skill"
        if version is None:
            return "the skill is not installed here"
        if self._on_trial(version):
            return "on trial here"
        if version.skill.manifest.lineage == record.lineage:
            return "the same lineage"
        if not version.has(record.hook):
            return "no such hook here"
        barred = version.barred or {}
        return "quarantined here" if ANY in barred or record.hook in barred else ""

    def _replayer(self, version: SkillVersion) -> Replayer:
        kept = self._replayers.get(version.name)
        if kept is None or kept[0] != version.digest:
            kept = self._replayers[version.name] = (version.digest, self._load(version))
        return kept[1]

    def _raise(self, source: str, record: CallRecord, version: SkillVersion, data: bytes, found: list[Difference]) -> Conflict | None:
        """Says the first of a call's differences that has its turn, and counts the others."""
        due, known = None, self._known(source)
        for one in found:
            pair = (record.skill, record.hook, one.field, record.digest, version.digest)
            at_s, seen = known.said.get(pair, NEVER)
            known.remember(pair, at_s, seen + 1)
            if due is None and self._due(known, pair) and known.pace.go() and self._pace.go():
                known.remember(pair, self._now_s(), 0)
                due = self._conflict(source, record, version, one, records.id_of(data), seen + 1, len(found) - 1)
        if due is not None:
            self._log("error", f"conflict: {due.words}")
            self._say(due)
            self._keep(due, data)
        return due

    def _conflict(
        self, source: str, record: CallRecord, version: SkillVersion, one: Difference, id_: str, seen: int, others: int
    ) -> Conflict:
        manifest = version.skill.manifest
        return Conflict(
            at_ms=self._now_ms(), auditor=self._name, node=source, skill=record.skill, hook=record.hook, field=safe(one.at, 200),
            versions=(safe(record.version, 100), manifest.version), lineages=(safe(record.lineage, 16), manifest.lineage),
            digests=(safe(record.digest, 100), version.digest), values=(safe(shown(one.one), 200), safe(shown(one.other), 200)),
            record=id_, seen=seen, others=others,
        )  # fmt: skip

    def _keep(self, conflict: Conflict, data: bytes) -> None:
        try:
            self._journal.add([data])
            self._journal.conflict(conflict)
        except SnapcountError as error:  # it is said all the same
            self._log("warning", f"a conflict could not be written down: {error}")

    def _due(self, source: _Source, what: tuple[str, ...]) -> bool:
        return self._now_s() - source.said.get(what, NEVER)[0] >= SAY_AGAIN_S

    def _known(self, name: str) -> _Source:
        with self._lock:
            return self._source(name)

    def _source(self, name: str) -> _Source:
        """Under the lock. Of too many, the one that was heard least recently is forgotten; whose calls wait is not, and those are fewer."""
        known = self._sources.pop(name, None) or _Source(Pace(SAID_PER_S, self._now_s))
        while len(self._sources) >= DEFAULT.sources_known_max:
            del self._sources[next(each for each, source in self._sources.items() if not source.waiting)]
        self._sources[name] = known
        return known


def not_comparable(record: CallRecord, replayed: Replayed) -> str:
    """Why a replay says nothing of whether the two agree; empty where it does.

    A limit is met by one lineage at a fuel that is fair to another, and what one keeps as its state another need not understand.
    """
    if replayed.unanswered:
        return "it asked its host what the other had not"
    if replayed.met_state:
        return "it met state that the other had written"
    if replayed.call.reply is None and replayed.call.error not in THE_SKILLS_OWN:
        return "the auditor's host failed"
    if ENDED_AT_A_LIMIT & {record.error, replayed.call.error}:
        return "a call ended at a limit"
    return ""


def loader(state: Path, random: Random) -> Load:
    """Loads versions that are installed in `state` once more, with a host that answers from records."""
    engine, store = default_engine(), SkillStore(state)
    cache = CompiledCache(state / "compiled", identity.load_cache_key(state, random))

    def load(version: SkillVersion) -> Replayer:
        manifest = version.skill.manifest
        granted = grant(manifest.name, manifest.capabilities, manifest.capabilities)  # nothing behind them is real
        host = RecordedHost(manifest, granted)
        module = cache.module(engine, store.get(version.digest), version.digest, manifest)
        return Replayer(LoadedSkill(engine, module, manifest, granted, host), version.digest, host)

    return load


def payload(conflict: Conflict) -> bytes:
    """A conflict as it travels."""
    return cbor.encode(conflict)
