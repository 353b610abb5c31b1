"""The impedance registry of one tier: who is there, how late each is expected to be, and who is the best for a task.

States: an agent is ACTIVE while it is heard from, DEGRADED after two missed heartbeats, OFFLINE after four or when it leaves, ACTIVE again
when it is heard. QUARANTINED is for the operator or a breaker to say, and only `release` ends it, neither a heartbeat nor leaving and
coming back. The score is that of host/mesh/scoring.py. Times are in ms on any one clock, which the caller passes in.
"""

from collections.abc import Iterable

import msgspec

from cython_core.arrival_reference import ACTIVE, BASE, DEGRADED, HUMAN, OFFLINE, QUARANTINED
from host.core.errors import StateDamaged, TooLarge, UsageError
from host.core.text import safe
from host.mesh import scoring, snapshots
from host.mesh.arrival import Table
from host.mesh.profiler import JITTER, UPPER_QUANTILE, Vitals
from host.mesh.ranking import Ranking, pile_of
from host.mesh.rows import Rows, checked_capabilities, checked_name

INTERVAL_MS = 5_000.0
DEGRADED_AFTER, OFFLINE_AFTER = 2, 4
"""Missed heartbeats. One is missed when even a fully jittered one should have come: 1.1 intervals after the last."""
REASON_CHARACTERS_MAX = 200
STATES = ("active", "degraded", "offline", "quarantined")
"""The names of the states, in the order of their numbers."""


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry knows of an agent, as of when it was read. `state` is a number of the arrival kernel's, `flags` are words.

    `score` is 0 to 1000, less is better; before the first heartbeat it is a guess by class, and there are no flags. `reason` says why it is
    quarantined.
    """

    name: str
    row: int
    agent_class: int
    generation: int
    capabilities: tuple[str, ...]
    state: int
    score: float
    flags: tuple[str, ...]
    heard_ms: float
    vitals: Vitals
    reason: str = ""


def _usual_ms() -> tuple[float, ...]:
    """The work in ms that the base model expects of each class, from the kernel itself."""
    table = Table(HUMAN + 1)
    for agent_class in range(HUMAN + 1):
        table.update(agent_class, 0.0, 0, 0.0, 1.0, agent_class, 0.0, ACTIVE)
    return tuple(table.estimate(agent_class, BASE)[1] for agent_class in range(HUMAN + 1))


USUAL_MS = _usual_ms()


class ImpedanceRegistry:
    """Up to `capacity` agents over an arrival `table` of as many rows, which a scheduler may read at any time.

    UsageError for a name that is not here. Rows keep their numbers until they are forgotten.
    """

    def __init__(self, capacity: int, quantile: float = UPPER_QUANTILE, interval_ms: float = INTERVAL_MS) -> None:
        self.capacity, self.interval_ms = capacity, interval_ms
        self.table = Table(capacity, quantile)
        self.rows = Rows()
        """For reading only: what concerns all rows at once, such as a summary, goes through the columns."""
        self._index: dict[str, int] = {}
        self._free: list[int] = []
        self._ranking = Ranking()
        self._changed: dict[str, None] = {}  # an ordered set
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __len__(self) -> int:
        """How many are registered, in whatever state."""
        return len(self._index)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def names(self) -> list[str]:
        return list(self._index)

    def row_of(self, name: str) -> int:
        row = self._index.get(name)
        if row is None:
            raise UsageError(f"no agent {safe(name, 64)!r} is registered here; it must join first")
        return row

    # Who is there.

    def join(self, name: str, agent_class: int, generation: int, capabilities: Iterable[str], now_ms: float) -> int:
        """Registers an agent and returns its row, the same one when it was here before; ACTIVE at once, unless it is quarantined.

        With another class or generation it is other hardware under the old name, and nothing that was measured holds any more.
        Raises TooLarge when all rows are taken, UsageError for a bad name, class, generation or capability.
        """
        if not (0 <= agent_class <= HUMAN and 1 <= generation <= 255):
            raise UsageError(f"an agent has a class from 0 to {HUMAN} and a generation from 1 to 255, not {agent_class} and {generation}")
        able, rows, row = self._share(capabilities), self.rows, self._index.get(name)
        if row is None:
            row = self._take_row(name)
        elif (rows.agent_class[row], rows.generation[row]) != (agent_class, generation):
            self.table.forget(row)
            rows.start_over(row)
        rows.agent_class[row], rows.generation[row], rows.heard_ms[row] = agent_class, generation, now_ms
        self._give(row, able)
        state = QUARANTINED if rows.state[row] == QUARANTINED else ACTIVE
        self._tell_table(row, rows.vitals[row], now_ms, state)
        self._place(row, state, self._assess(row, rows.vitals[row])[0])
        return row

    def leave(self, name: str) -> None:
        """Its link is closed: OFFLINE at once. The row and what was learned wait for it to come back."""
        row = self.row_of(name)
        if self.rows.state[row] != QUARANTINED:
            self._place(row, OFFLINE, self.rows.score[row])

    def forget(self, name: str) -> None:
        """Drops all that is known of an agent; its row goes to the next that joins. UsageError while quarantined: this is no way out."""
        row = self.row_of(name)
        if self.rows.state[row] == QUARANTINED:
            raise UsageError(f"{name} is quarantined ({self.rows.reasons.get(row, '')}); release it before it is forgotten")
        self._place(row, OFFLINE, 0.0)
        self.table.forget(row)
        self.rows.free(row)
        del self._index[name]
        self._changed.pop(name, None)
        self._free.append(row)

    def gone_since(self, before_ms: float) -> list[str]:
        """Who is offline and was last heard before then: who may be forgotten to make room."""
        rows = self.rows
        return [rows.names[row] for row, state in enumerate(rows.state) if state == OFFLINE and rows.heard_ms[row] < before_ms]

    def quarantine(self, name: str, reason: str) -> None:
        """Nothing is sent to it any more. `reason` is for people."""
        row = self.row_of(name)
        self.rows.reasons[row] = safe(reason, REASON_CHARACTERS_MAX)
        self._place(row, QUARANTINED, self.rows.score[row])

    def release(self, name: str) -> None:
        """Ends a quarantine: DEGRADED until it is heard, or until a sweep finds that it is gone. Nothing happens to one that is in none."""
        row = self.row_of(name)
        if self.rows.state[row] == QUARANTINED:
            del self.rows.reasons[row]
            self._place(row, DEGRADED, self.rows.score[row])

    # What is heard.

    def heartbeat(self, row: int, vitals: Vitals, now_ms: float) -> None:
        """Takes a heartbeat. UsageError for a row without an agent."""
        rows = self.rows
        self._check(row)
        state = QUARANTINED if rows.state[row] == QUARANTINED else ACTIVE
        self._tell_table(row, vitals, now_ms, state)
        points, now_delay_ms = self._assess(row, vitals)
        baseline_ms = rows.baseline_ms[row]
        rows.flags[row] = scoring.flags(points, vitals, now_delay_ms, baseline_ms)
        if now_delay_ms:
            rows.baseline_ms[row] = scoring.next_baseline(baseline_ms, now_delay_ms)
        rows.vitals[row], rows.heard_ms[row] = vitals, now_ms
        rows.history.note(row, now_ms, points)
        self._place(row, state, points)

    def seen(self, row: int, now_ms: float) -> None:
        """Something else than a heartbeat was heard from it, which shows as well that it lives. UsageError for a row without an agent."""
        self._check(row)
        self.rows.heard_ms[row] = now_ms
        if self.rows.state[row] in (DEGRADED, OFFLINE):
            self._place(row, ACTIVE, self.rows.score[row])

    def sweep(self, now_ms: float) -> list[str]:
        """Finds who has gone silent; the names of all whose state changed since the last sweep, for whatever reason, as they changed."""
        rows, missed_ms = self.rows, self.interval_ms * (1.0 + JITTER)
        late_ms, gone_ms = now_ms - DEGRADED_AFTER * missed_ms, now_ms - OFFLINE_AFTER * missed_ms
        for row in [row for row, heard_ms in enumerate(rows.heard_ms) if heard_ms < late_ms]:
            state = rows.state[row]
            if state in (ACTIVE, DEGRADED):
                now = OFFLINE if rows.heard_ms[row] < gone_ms else DEGRADED
                self._place(row, now, rows.score[row])
        changed, self._changed = self._changed, {}
        return list(changed)

    # What is known.

    def read(self, name: str) -> AgentRow:
        return self._view(self.row_of(name))

    def score(self, row: int) -> float:
        """0 to 1000, less is better; see host/mesh/scoring.py."""
        self._check(row)
        return self.rows.score[row]

    def trend(self, name: str) -> float:
        """How the score changes, in points per hour over the last hour; above 0 it gets slower. 0.0 until two minutes are known."""
        return self.rows.history.trend(self.row_of(name))

    def best(self, capability: str, count: int, ceiling: float = scoring.SCORE_MAX) -> list[AgentRow]:
        """Up to `count` active agents that have the capability and score at most `ceiling`, the best first; of equals the first by name."""
        return [self._view(row) for row in self.best_rows(capability, count, ceiling)]

    def best_rows(self, capability: str, count: int, ceiling: float = scoring.SCORE_MAX) -> list[int]:
        return self._ranking.best(capability, count, ceiling, self.rows.score, self.rows.names)

    def holders(self) -> dict[str, int]:
        """How many active agents have each capability."""
        return self._ranking.holders()

    # What outlives the process.

    def snapshot(self) -> bytes:
        """All of it, table included, as deterministic CBOR: of equal registries the same bytes."""
        return snapshots.pack(self.rows, self.capacity, self.table.snapshot())

    def restore(self, data: bytes) -> None:
        """Takes over a snapshot of a registry of the same capacity and quantile, in place of what stands here.

        Raises StateDamaged, and then nothing is changed.
        """
        rows, table = snapshots.unpack(data, self.capacity)
        try:
            self.table.restore(table)
        except ValueError as error:
            raise StateDamaged(f"impedance snapshot: its table cannot be used: {safe(str(error))}") from error
        # From here on nothing can fail.
        self.rows, self._ranking, self._changed, self._index, self._free = rows, Ranking(), {}, {}, []
        for row, name in enumerate(rows.names):
            if name:
                self._index[name] = row
            else:
                self._free.append(row)
            self.table.set_state(row, rows.state[row])
            if rows.state[row] == ACTIVE:
                self._ranking.add(row, rows.capabilities[row], pile_of(rows.score[row]))

    # Helpers. An agent is in the ranking exactly while it is ACTIVE, in the pile of its score.

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.rows.names) or not self.rows.names[row]:
            raise UsageError(f"row {row} has no agent; it must join first")

    def _take_row(self, name: str) -> int:
        checked_name(name)
        if len(self._index) >= self.capacity:
            raise TooLarge(f"{name} cannot be registered: all {self.capacity} rows are taken; forget agents that are gone")
        row = self._free.pop() if self._free else self.rows.add()
        self.rows.names[row] = name
        self._index[name] = row
        return row

    def _share(self, capabilities: Iterable[str]) -> tuple[str, ...]:
        # Most agents have the same few sets of capabilities; each is checked once and held once.
        asked = tuple(capabilities)
        able = self._shared.get(asked)
        if able is None:
            able = checked_capabilities(asked)
            if len(self._shared) >= self.capacity:
                self._shared.clear()
            self._shared[asked] = able
        return able

    def _give(self, row: int, able: tuple[str, ...]) -> None:
        rows = self.rows
        if rows.state[row] == ACTIVE and rows.capabilities[row] != able:
            pile = pile_of(rows.score[row])
            self._ranking.remove(row, rows.capabilities[row], pile)
            self._ranking.add(row, able, pile)
        rows.capabilities[row] = able

    def _tell_table(self, row: int, vitals: Vitals, now_ms: float, state: int) -> None:
        agent_class = self.rows.agent_class[row]
        self.table.update(row, vitals.rtt_ms, vitals.queue, vitals.drift, vitals.success, agent_class, now_ms, state)

    def _assess(self, row: int, vitals: Vitals) -> tuple[float, float]:
        """The score, and the delay now in ms, 0 where that would be the class's and not the agent's own."""
        measured = vitals.samples or vitals.processing_p95_ms
        upper_ms, now_delay_ms = scoring.delays_ms(vitals, USUAL_MS[self.rows.agent_class[row]])
        return scoring.score(upper_ms, vitals.success, vitals.drift), now_delay_ms if measured else 0.0

    def _place(self, row: int, state: int, points: float) -> None:
        rows = self.rows
        was = rows.state[row]
        before = pile_of(rows.score[row]) if was == ACTIVE else -1
        after = pile_of(points) if state == ACTIVE else -1
        if before != after:
            if before >= 0:
                self._ranking.remove(row, rows.capabilities[row], before)
            if after >= 0:
                self._ranking.add(row, rows.capabilities[row], after)
        rows.score[row] = points
        if state != was:
            rows.state[row] = state
            self.table.set_state(row, state)
            self._changed[rows.names[row]] = None

    def _view(self, row: int) -> AgentRow:
        rows = self.rows
        return AgentRow(
            name=rows.names[row],
            row=row,
            agent_class=rows.agent_class[row],
            generation=rows.generation[row],
            capabilities=rows.capabilities[row],
            state=rows.state[row],
            score=rows.score[row],
            flags=scoring.FLAGS[rows.flags[row]],
            heard_ms=rows.heard_ms[row],
            vitals=rows.vitals[row],
            reason=rows.reasons.get(row, ""),
        )
