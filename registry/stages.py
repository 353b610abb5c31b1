"""The stages of a roll-out: who is chosen, who is started now, when a stage has settled, and what comes at the end of its soak."""

from registry import selection, window
from registry.rollout_turn import Turn
from registry.roster import ALL
from registry.selection import Candidate

MINUTE_MS = 60_000
RECENT_MS = 7 * 86_400_000
"""A node that was heard of within a week is an active one: its generation and its sector need a canary."""


def enter(turn: Turn, index: int) -> None:
    """Begins a stage: chooses its nodes."""
    turn.set(stage=index, soak_from_ms=0)
    pool = sum(member.chosen or member.phase == "waiting" for member in turn.roster.members())
    wanted = selection.target(turn.stage, pool)
    turn.set(sample=min(turn.stage.min_sample, wanted))
    chosen = _choose(turn, wanted)
    nodes = sum(member.chosen for member in turn.roster.members())
    turn.decide("stage", {"stage": index, "added": len(chosen), "nodes": nodes}, reason=turn.stage.name)


def _choose(turn: Turn, wanted: int) -> list[str]:
    """Makes the sample so large, or larger where a generation or a sector has nobody in it who can answer; the names that were added."""
    candidates = [
        Candidate(
            node,
            m.generation,
            m.sector,
            m.chosen,
            m.online or m.phase in ("active", "failed"),
            turn.now_ms - m.seen_ms < RECENT_MS or m.online,
        )
        for node, m in turn.roster.items()
        if m.chosen or m.phase == "waiting"
    ]
    names = selection.choose(candidates, wanted, turn.document.id)
    for node in names:
        turn.put(node, stage=turn.header.stage)
    return names


def advance(turn: Turn) -> None:
    """As far as the stage goes now; over its end into the next one."""
    while turn.header.status == "running":
        start_ready(turn)
        if not turn.header.soak_from_ms:
            if not _settled(turn):
                if _stalled(turn) and _substituted(turn):
                    continue
                return
            turn.set(soak_from_ms=turn.now_ms)
            turn.decide("soak", numbers(turn) | {"until_ms": turn.now_ms + turn.stage.soak_s * 1000}, reason=turn.stage.name)
        if turn.now_ms < turn.header.soak_from_ms + turn.stage.soak_s * 1000 or not _judge(turn):
            return


def _settled(turn: Turn) -> bool:
    """Whether every reachable node of the stage has decided. One that comes and goes, and takes longer than an answer may, does not block the others."""
    patience_ms = (turn.document.probation_s + turn.document.answer_s) * 1000
    undecided = (turn.roster[node] for node in turn.roster.flight)
    if turn.roster.ready or any(m.online and turn.now_ms < m.told_ms + patience_ms for m in undecided):
        return False
    return turn.roster.tally(ALL).decided >= _needed(turn)


def _missing(turn: Turn) -> int:
    """How many nodes the stage's sample lacks, for those that went away before they were told."""
    return max(turn.header.sample - turn.roster.tally(ALL).touched - len(turn.roster.ready), 0)


def _stalled(turn: Turn) -> bool:
    """Whether the stage waits for nodes that are away, while others are there."""
    return _missing(turn) > 0 and any(m.online and not m.chosen and m.phase == "waiting" for m in turn.roster.members())


def _substituted(turn: Turn) -> bool:
    """Whether others that can be reached have come into the stage, for those that went away or for a generation or sector without an answer."""
    added = _choose(turn, sum(member.chosen for member in turn.roster.members()) + _missing(turn))
    if not any(turn.roster[node].online for node in added):
        return False
    turn.decide(
        "stage", {"stage": turn.header.stage, "added": len(added)}, reason=f"{turn.stage.name}: substitutes for nodes that went away"
    )
    return True


def _needed(turn: Turn) -> int:
    """How many nodes have to have decided: the stage's sample, or those there are; where all are away, one."""
    return min(turn.header.sample, max(turn.roster.tally(ALL).touched + len(turn.roster.ready), 1))


def _judge(turn: Turn) -> bool:
    """At the end of a soak: on to the next stage, done, hold, or wait for more nodes. True when there may be more to do at once."""
    roster, stage = turn.roster, turn.stage
    needed = _needed(turn)
    if _substituted(turn):
        turn.set(soak_from_ms=0)
        return True
    total = roster.tally(ALL)
    if total.decided < needed:
        return False
    if total.decided and total.active / total.decided < stage.success_min:
        reason = f"stage {stage.name}: {total.active} of {total.decided} nodes succeeded, fewer than {stage.success_min:.0%}"
        turn.set(status="held", reason=reason)
        turn.decide("held", numbers(turn), reason=reason)
        return False
    if turn.header.stage + 1 < len(turn.document.stages):
        enter(turn, turn.header.stage + 1)
        return True
    turn.set(status="done", ended_ms=turn.now_ms)
    turn.decide("ended", numbers(turn), reason="done")
    return False


def start_ready(turn: Turn) -> None:
    """Starts reachable nodes of the stages so far, in their order, as many as window, rate and bounds allow."""
    roster, rate = turn.roster, turn.document.rate
    if not roster.ready or not window.is_open(turn.document.window, turn.now_ms):
        return
    minute = turn.now_ms // MINUTE_MS
    if minute != turn.header.minute:
        turn.set(minute=minute, started_in_minute=0)
    before = started = turn.header.started_in_minute
    for node in list(roster.ready):
        if started >= rate.nodes_per_minute or roster.tally(ALL).flight >= rate.in_flight_max:
            break
        if _may_go(turn, roster[node].generation):
            turn.start(node)
            started += 1
    if started != before:
        turn.set(started_in_minute=started)


def _may_go(turn: Turn, generation: int) -> bool:
    tally, few = turn.roster.tally(("generation", generation)), turn.stage.stratum_min_sample
    return tally.active >= min(few, turn.roster.sizes[generation]) or tally.flight < few


def numbers(turn: Turn) -> dict[str, int]:
    total = turn.roster.tally(ALL)
    return {"active": total.active, "failed": total.failed, "flight": total.flight, "stage": turn.header.stage}
