"""The roll-out controller: hears of nodes, steps the roll-outs, writes what was decided, and hands out the desired states to be told. Blocking; see rollout_service.py.

    what was heard → step each roll-out → one transaction (members, desired states, audit) → tell the nodes

Nothing is told before it is on disk. What a kill loses is what was heard and not yet written; nodes say it again with their next hello. What was written and
not told, a node is told when its hello shows that it holds an older serial.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec
from nacl.signing import SigningKey, VerifyKey

from host.core import cose
from host.core.errors import Flooded, Replayed, SnapcountError, UsageError
from host.core.fleet import Hello, Progress
from host.core.limits import DEFAULT
from host.core.text import safe
from registry import compat, flags, rollout, rollout_document
from registry.admission import admit, admit_action
from registry.assignments import NO_PATCHES, Assignments, PatchesFor
from registry.audit import AuditLog, Entry
from registry.batch import Batch
from registry.database import Database
from registry.enrolment import Enrolment
from registry.flags import FlagChange
from registry.inventory import SERIAL_MAX, Inventory, Known
from registry.releases import Releases
from registry.rollout_document import Action, Release, Rollout, Selection
from registry.rollout_events import Abort, Approve, Command, Enrol, Observation, Observed, Pause, Resume, Retry, Supersede, Tick
from registry.rollout_store import Live, RolloutStore
from registry.rollout_turn import Header

COMMANDS: dict[str, type[Command]] = {"pause": Pause, "resume": Resume, "abort": Abort, "retry": Retry, "approve": Approve}
MESSAGE_CHARACTERS_MAX = 200
Tell = tuple[str, bytes]
"""A node that is connected, and the desired state to send it."""


@dataclass(frozen=True)
class Joined:
    """A hello that was checked, and the key that signed it."""

    hello: Hello
    key: bytes = b""


@dataclass(frozen=True)
class Gone:
    """A node's link has ended."""

    node: str


Heard = Joined | Progress | Gone


class Controller:
    """`live` are the roll-outs in memory, the newest of each skill. `reach` is told of the points `stepped`, `written` and `committed`, for tests."""

    def __init__(
        self, database: Database, operators: Collection[VerifyKey], key: SigningKey, releases: Releases, *, patches: PatchesFor = NO_PATCHES,
        log: Callable[[str, str], None] = lambda level, line: None, reach: Callable[[str], None] = lambda point: None,
    ) -> None:  # fmt: skip
        self._database, self._operators, self._releases = database, tuple(operators), releases
        self._patches, self._log, self._reach = patches, log, reach
        self.audit, self.inventory = AuditLog(database), Inventory(database)
        self._store, self._assignments = RolloutStore(database), Assignments(database, key)
        self._enrolment = Enrolment(releases, self._assignments)
        self.live: dict[str, Live] = {live.state.document.id: live for live in self._store.live()}
        self.flags = flags.load(database)
        self._due_ms: dict[str, int | None] = dict.fromkeys(self.live, 0)
        # Whoever was connected when the process before this one ended is so no more.
        connected = {node for live in self.live.values() for node, member in live.state.roster.items() if member.online}
        self._heard: deque[Heard] = deque(Gone(node) for node in sorted(connected))
        self._turning = threading.Lock()

    def hear(self, heard: Heard) -> None:
        """Takes note, for the next turn. Raises Flooded where too much is waiting."""
        if len(self._heard) >= DEFAULT.rollout_events_waiting_max:
            raise Flooded("more was reported than the roll-out controller can take in; try again later")
        self._heard.append(heard)

    def due_ms(self) -> int | None:
        """When the next turn is needed: 0 for at once, None for not before something is heard."""
        return 0 if self._heard else min((due for due in self._due_ms.values() if due is not None), default=None)

    def turn(self, now_ms: int) -> list[Tell]:
        """Works off what was heard and what is due. Raises HostFault, StorageFull; then no roll-out has changed, and what was heard waits for the next turn."""
        with self._turning:
            heard = [self._heard.popleft() for _ in range(len(self._heard))]  # another thread may append meanwhile
            batch = self._batch(now_ms)
            try:
                observations, greeted = self._take_in(heard, batch)
                for id, live in self.live.items():
                    self._step(batch, id, observations.get(id, []), self._enrolment.newcomers(live.state, greeted, self.inventory.online))
                changed = batch.states or batch.again or batch.above or batch.flagged or self.inventory.is_dirty
                return self._commit(batch) if changed else []
            except Exception:
                self._heard.extendleft(reversed(heard))
                raise

    def start(self, document: bytes, now_ms: int) -> tuple[Live, list[Tell]]:
        """Begins a roll-out. Raises UntrustedInput for a document that is not sound, UsageError for one that this fleet cannot take."""
        wanted = rollout_document.verify(document, self._operators)
        with self._turning:
            admit(wanted, self.live, self._store, self._releases, now_ms)
            self._assignments.check_room(wanted.name)
            report = self.report(wanted.digest, wanted.selection, wanted.previous)
            if report.blocked:
                raise UsageError(f"roll-out {wanted.id}: not started: {'; '.join(report.blocked)}")
            batch = self._batch(now_ms)
            batch.retired = tuple(id for id, live in self.live.items() if live.state.document.name == wanted.name)
            for id in batch.retired:
                batch.step(id, Supersede(f"by {wanted.id}"))
            nodes = [self.inventory.known[node] for node in report.eligible]
            enrolled = self._enrolment.begin(wanted, nodes, self.inventory.online)
            outcome = rollout.begin(wanted, enrolled.members, enrolled.releases, now_ms)
            batch.new = Live(outcome.state, document, report.as_dict())
            batch.take(outcome, _signer(document))
            return batch.new, self._commit(batch)

    def act(self, document: bytes, asked: tuple[str, str], now_ms: int) -> tuple[Action, list[Tell]]:
        """Does what an operator asks, once; `asked` is the id and the action that the document must say. Raises UntrustedInput (Replayed, Untimely), and
        UsageError where it does not fit the roll-out's status.
        """
        action = rollout_document.verify_action(document, self._operators)
        if (action.id, action.action) != asked:
            raise UsageError(f"roll-out {safe(asked[0], 64)}: the document asks to {action.action} {action.id}")
        with self._turning:
            admit_action(action, cose.parse(document, "roll-out action").kid, self.live, self._store, now_ms)
            batch = self._batch(now_ms)
            batch.nonce = action.nonce
            batch.step(action.id, COMMANDS[action.action](action.reason), _signer(document))
            return action, self._commit(batch)

    def flag(self, document: bytes, now_ms: int) -> tuple[FlagChange, list[Tell]]:
        """Turns a feature flag on or off, and tells those for whom that changes something. Raises UntrustedInput (Replayed, Untimely, TooLarge)."""
        change = flags.verify(document, self._operators)
        with self._turning:
            if self._store.nonce_is_known(change.nonce):
                raise Replayed(f"feature flag {change.flag}: this very document was taken before; sign a new one")
            batch = self._batch(now_ms)
            batch.nonce, batch.flags = change.nonce, flags.changed(self.flags, change, now_ms)
            for known in self.inventory.known.values():
                if flags.on_for(batch.flags, known) != flags.on_for(self.flags, known):
                    batch.flagged[known.node] = None
            chosen = {name: value for name, value in msgspec.to_builtins(change.selection).items() if value}
            detail = {"flag": change.flag, "on": change.on, "nodes": len(batch.flagged), "reason": change.reason, **chosen}
            batch.entries.append(Entry("flag", _signer(document), detail))
            return change, self._commit(batch)

    def report(self, digest: str, selection: Selection, previous: Release | None = None) -> compat.Report:
        """Who can take a bundle. Raises UsageError when the registry does not hold it."""
        manifest = self._releases.manifest(digest)
        if manifest is None:
            raise UsageError(f"{safe(digest, 80)}: no bundle of this registry has this digest; upload it first")
        return compat.check(manifest, digest, selection, list(self.inventory.known.values()), self._releases.manifest, previous)

    def ended(self) -> list[tuple[Header, Rollout]]:
        """Roll-outs that newer ones of the same skill have superseded, the newest first."""
        return self._store.ended()

    def desired_of(self, node: str) -> bytes | None:
        """A node's desired state as it was last signed, None for one that was never asked for anything."""
        return self._assignments.current(node)

    def _batch(self, now_ms: int) -> Batch:
        return Batch(now_ms, self.live, self.inventory.known, self._patches)

    def _take_in(self, heard: list[Heard], batch: Batch) -> tuple[dict[str, list[Observation]], list[Known]]:
        """What was heard into the inventory, and for each roll-out what it means to it; and the nodes that said hello."""
        observations: dict[str, list[Observation]] = {}
        greeted: dict[str, Known] = {}
        for item in heard:
            match item:
                case Joined(hello, key):
                    known = self._joined(hello, key, batch)
                    if known is None:
                        continue
                    greeted[known.node] = known
                    for id, live in self.live.items():
                        runs = known.skills.get(live.state.document.name, ("", ""))[1]
                        observations.setdefault(id, []).append(Observation(known.node, "online", runs))
                case Progress():
                    self.inventory.report(item, batch.now_ms)
                    code, message = safe(item.code, 64), safe(item.message, MESSAGE_CHARACTERS_MAX)
                    for id in [id for id, live in self.live.items() if live.state.document.name == item.name]:
                        observations.setdefault(id, []).append(Observation(item.node, item.state, item.digest, code, message))
                case Gone(node):
                    self.inventory.gone(node, batch.now_ms)
                    for id in self.live:
                        observations.setdefault(id, []).append(Observation(node, "offline"))
        return observations, list(greeted.values())

    def _joined(self, hello: Hello, key: bytes, batch: Batch) -> Known | None:
        try:
            known = self.inventory.seen(hello, batch.now_ms, key)
        except SnapcountError as error:
            self._log("warning", f"inventory: {error}")
            return None
        serial = self._assignments.serials.get(hello.node, 0)
        if not serial and flags.on_for(self.flags, known):
            batch.flagged[known.node] = None
        if hello.serial < serial:
            batch.again[hello.node] = None
        elif serial and serial < hello.serial < SERIAL_MAX:
            batch.above[hello.node] = hello.serial
        return known

    def _step(self, batch: Batch, id: str, observations: list[Observation], newcomers: Enrol | None) -> None:
        due = self._due_ms[id]
        if newcomers is not None:
            batch.step(id, newcomers)
        if observations:
            batch.step(id, Observed(tuple(observations)))
        elif due is not None and due <= batch.now_ms:
            batch.step(id, Tick())

    def _commit(self, batch: Batch) -> list[Tell]:
        self._reach("stepped")
        issued: dict[str, tuple[int, bytes]] = {}
        with self._database.transaction() as db:
            self.inventory.flush(db)
            if batch.new is not None:
                self._store.add(db, batch.new)
            for id, state in batch.states.items():
                self._store.save(db, state, batch.changed[id])
            if batch.retired:
                self._store.retire(db, batch.retired, batch.now_ms)
            for (node, name), wanted in batch.wanted.items():
                self._assignments.change(db, node, name, wanted)
            if batch.flags is not None:
                flags.save(db, batch.flags)
            for node in dict.fromkeys((*(node for node, _ in batch.wanted), *batch.above, *batch.flagged)):
                issued[node] = self._assignments.issue(db, node, batch.now_ms, batch.above.get(node, 0), self._flags_of(node, batch))
            if batch.nonce:
                self._store.remember(db, batch.nonce, batch.now_ms)
            self.audit.append(db, batch.now_ms, batch.entries)
            self._reach("written")
        self._reach("committed")
        return self._committed(batch, issued)

    def _flags_of(self, node: str, batch: Batch) -> tuple[str, ...]:
        known = self.inventory.known.get(node)
        return () if known is None else flags.on_for(self.flags if batch.flags is None else batch.flags, known)

    def _committed(self, batch: Batch, issued: dict[str, tuple[int, bytes]]) -> list[Tell]:
        """Makes memory what is on disk now."""
        self.inventory.flushed()
        self.flags = self.flags if batch.flags is None else batch.flags
        live = {
            id: Live(batch.states.get(id, old.state), old.signed, old.summary) for id, old in self.live.items() if id not in batch.retired
        }
        if batch.new is not None:
            live[batch.new.state.document.id] = batch.new
        self.live = live
        self._due_ms = {id: rollout.due_ms(live[id].state, batch.now_ms) if id in batch.states else self._due_ms[id] for id in live}
        self._assignments.serials.update((node, serial) for node, (serial, _) in issued.items())
        tells = {node: document for node, (_, document) in issued.items()}
        for node in batch.again.keys() - tells.keys():
            document = self._assignments.current(node)
            if document is not None:
                tells[node] = document
        return [(node, document) for node, document in tells.items() if node in self.inventory.online]


def _signer(document: bytes) -> str:
    return cose.key_name(cose.parse(document, "signed document").kid)
