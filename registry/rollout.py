"""A roll-out as a pure state machine: `step(state, event, now_ms)` gives the next state and what was decided. No clock, no disk, no network.

Its rules:

- Stages follow each other. A stage chooses its nodes (registry/selection.py), starts those that are reachable, within window, rate and in-flight bound, waits
  until they have decided, soaks, and looks at its thresholds again. Nodes that are away block nothing: they are started when they come, even after the end.
- When failures cross the error threshold (registry/thresholds.py), in a stage, over all, or in one generation or sector, it stops at once and undoes what
  was done. When successes do not reach the success threshold at the end of a soak, it holds until an operator decides.
- Of a generation that no node has proven yet, only `stratum_min_sample` are in flight at once: also those who come late go ahead one canary at a time.
- A node that failed is told to run what it ran before. A failure does not count twice, and `retry` starts failed nodes once more.
- Undoing waits for no window and no rate.
"""

from dataclasses import dataclass

from host.core.errors import UsageError
from registry import window
from registry.rollout_document import Release, Rollout
from registry.rollout_events import Abort, Approve, Command, Decision, Enrol, Event, Observed, Pause, Resume, Retry, Supersede, Tick
from registry.rollout_turn import NO_ANSWER, Header, State, Status, Turn
from registry.roster import Member, Roster
from registry.stages import MINUTE_MS, advance, enter, numbers, start_ready
from registry.thresholds import crossed


@dataclass(frozen=True)
class Outcome:
    """`changed` names the members that are not as they were."""

    state: State
    decisions: tuple[Decision, ...]
    changed: tuple[str, ...]


def begin(document: Rollout, members: dict[str, Member], releases: dict[str, Release], now_ms: int) -> Outcome:
    """A roll-out to these nodes. In the lane `safety` it waits for a second operator first."""
    status: Status = "pending" if document.lane == "safety" else "running"
    turn = Turn(document, Header(status=status, started_ms=now_ms, releases=releases), Roster(), now_ms)
    for node, member in members.items():
        turn.enrol(node, member)
    begun = {"nodes": len(members), "stages": len(document.stages), "emergency": int(document.emergency)}
    turn.decide("started", begun, reason=document.reason)
    if status == "running":
        enter(turn, 0)
    return _close(turn)


def step(state: State, event: Event, now_ms: int) -> Outcome:
    """Raises UsageError for a command that does not fit the status; then nothing has changed."""
    turn = Turn(state.document, state.header, state.roster.copy(), now_ms)
    match event:
        case Observed(observations):
            for observation in observations:
                turn.observe(observation)
        case Enrol(members, releases):
            _enrol(turn, members, releases)
        case Tick():
            pass
        case _:
            _command(turn, event)
    return _close(turn)


def due_ms(state: State, now_ms: int) -> int | None:
    """When something happens by time alone; None for never. It is after `now_ms`."""
    header, roster = state.header, state.roster
    times = [time for node in roster.flight if (time := _expires_ms(roster[node]))]
    if header.status == "running" and header.soak_from_ms:
        times.append(header.soak_from_ms + state.stage.soak_s * 1000)
    if roster.ready and _starts_nodes(header):
        opens = window.opens_ms(state.document.window, now_ms)
        times.append(opens if opens > now_ms else (now_ms // MINUTE_MS + 1) * MINUTE_MS)
    return min((time for time in times if time > now_ms), default=None)


def _close(turn: Turn) -> Outcome:
    """What follows from any event: time passes, thresholds are watched, the stage goes on."""
    _expire(turn)
    _watch(turn)
    match turn.header.status:
        case "running":
            advance(turn)
        case "rolling-back":
            _finish_undoing(turn)
        case "done" if turn.header.converging:
            start_ready(turn)
    return Outcome(State(turn.document, turn.header, turn.roster), tuple(turn.decisions), tuple(turn.changed))


def _enrol(turn: Turn, members: dict[str, Member], releases: dict[str, Release]) -> None:
    new = {node: member for node, member in members.items() if node not in turn.roster}
    if not new or turn.header.status in ("rolling-back", "aborted", "rolled-back") or not turn.header.converging:
        return
    turn.set(releases=turn.header.releases | releases)
    last = len(turn.document.stages) - 1
    for node, member in new.items():
        turn.enrol(node, member)
        if turn.header.status == "done" or turn.header.stage == last:
            turn.put(node, stage=last)
    turn.decide("enrolled", {"nodes": len(new)})


_FROM: dict[type[Command], tuple[str, tuple[Status, ...]]] = {
    Pause: ("pause", ("running",)),
    Resume: ("resume", ("paused", "held")),
    Abort: ("abort", ("pending", "running", "paused", "held", "done")),
    Retry: ("retry", ("running", "paused", "held", "done")),
    Approve: ("approve", ("pending",)),
    Supersede: ("supersede", ("done", "aborted", "rolled-back")),
}


def _command(turn: Turn, command: Command) -> None:
    verb, statuses = _FROM[type(command)]
    header = turn.header
    if header.status not in statuses or (header.status == "done" and not header.converging and not isinstance(command, Abort | Supersede)):
        raise UsageError(f"roll-out {turn.document.id}: it is {header.status}; {verb} is for one that is {' or '.join(statuses)}")
    match command:
        case Pause(reason):
            turn.set(status="paused")
            turn.decide("paused", reason=reason)
        case Resume(reason):
            turn.set(status="running", soak_from_ms=0 if header.status == "held" else header.soak_from_ms, reason="")
            turn.decide("resumed", reason=reason)
        case Abort(reason):
            turn.set(status="rolling-back", ends_as="aborted", ended_ms=0, reason=reason or "an operator aborted it")
            turn.decide("aborted", reason=reason)
            turn.undo()
        case Retry(reason):
            _retry(turn, reason)
        case Approve(reason):
            turn.set(status="running")
            turn.decide("approved", reason=reason)
            enter(turn, 0)
        case Supersede(reason):
            turn.set(converging=False)
            turn.decide("superseded", reason=reason)


def _retry(turn: Turn, reason: str) -> None:
    failed = [node for node, member in turn.roster.items() if member.phase == "failed"]
    for node in failed:
        turn.put(node, phase="waiting", code="", message="", decided_ms=0)
    if turn.header.status == "held":
        turn.set(status="running", soak_from_ms=0, reason="")
    turn.decide("retried", {"nodes": len(failed)}, reason=reason)


def _expires_ms(member: Member) -> int:
    """When an undecided node that is reachable is decided by time; 0 for never."""
    return (member.settles_ms or member.deadline_ms) if member.online else 0


def _expire(turn: Turn) -> None:
    for node in [node for node in turn.roster.flight if 0 < _expires_ms(turn.roster[node]) <= turn.now_ms]:
        member = turn.roster[node]
        if member.phase != "flight":
            continue
        if member.settles_ms:
            turn.succeed(node)
        else:
            turn.fail(node, NO_ANSWER, "it was reachable, and did not say in time how it went")
            turn.send_back(node, NO_ANSWER)


def _watch(turn: Turn) -> None:
    header = turn.header
    if header.status not in ("running", "paused", "held") and not (header.status == "done" and header.converging):
        return
    reason = crossed(turn.roster, turn.stage, header.stage)
    if not reason:
        return
    if header.status == "done":
        turn.set(converging=False, reason=reason)
        turn.decide("converging-stopped", reason=reason)
        return
    turn.set(status="rolling-back", ends_as="rolled-back", reason=reason)
    turn.decide("stopped", numbers(turn), reason=reason)
    turn.undo()


def _finish_undoing(turn: Turn) -> None:
    undoing = (turn.roster[node] for node in turn.roster.flight)
    if any(m.online and turn.now_ms < m.deadline_ms for m in undoing):
        return
    turn.set(status=turn.header.ends_as, ended_ms=turn.now_ms)
    turn.decide("ended", numbers(turn), reason=turn.header.ends_as)


def _starts_nodes(header: Header) -> bool:
    return header.status == "running" or (header.status == "done" and header.converging)
