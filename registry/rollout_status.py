"""How far a roll-out is, for people and for JSON: counts by generation and sector, what is left of a soak, who is excluded."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from registry.audit import Row
from registry.rollout_document import Rollout
from registry.rollout_store import Live
from registry.rollout_turn import Header, State
from registry.roster import Member

Standing = Literal["active", "pending", "failed", "declined", "offline", "reverting", "reverted"]
STANDINGS: tuple[Standing, ...] = ("active", "pending", "failed", "declined", "offline", "reverting", "reverted")
FAILURES_SHOWN = 20


def standing(member: Member) -> Standing:
    """Where a node stands. One that is away and has not decided is offline, whether it was told or not."""
    match member.phase:
        case "active" | "failed" | "declined":
            return member.phase
        case "undone":
            return "reverted"
        case _ if not member.online:
            return "offline"
        case "undoing":
            return "reverting"
    return "pending"


def brief(document: Rollout, header: Header) -> dict[str, Any]:
    """One line of a list."""
    return {
        "id": document.id, "name": document.name, "version": document.version, "digest": document.digest, "lane": document.lane, "emergency": document.emergency,
        "status": header.status, "stage": document.stages[header.stage].name, "reason": header.reason, "started_ms": header.started_ms, "ended_ms": header.ended_ms,
    }  # fmt: skip


def describe(live: Live, now_ms: int, decisions: list[Row]) -> dict[str, Any]:
    """All there is to say of one roll-out. `stage.soak_left_s` is null while nodes of the stage are still to decide."""
    state = live.state
    return brief(state.document, state.header) | {
        "stages": [stage.name for stage in state.document.stages],
        "stage": _stage(state, now_ms),
        "counts": counts(state),
        "by_generation": _grouped(state, lambda member: str(member.generation)),
        "by_sector": _grouped(state, lambda member: member.sector),
        "failures": _failures(state),
        "excluded": {"nodes": live.summary.get("excluded", 0), "groups": live.summary.get("groups", [])},
        "converging": state.header.converging,
        "decisions": [decision(row) for row in decisions],
    }


def counts(state: State) -> dict[str, int]:
    """Nodes by standing."""
    found: dict[str, int] = dict.fromkeys(STANDINGS, 0)
    for member in state.roster.members():
        found[standing(member)] += 1
    return found | {"nodes": len(state.roster)}


def decision(row: Row) -> dict[str, Any]:
    return {"seq": row.seq, "at_ms": row.at_ms, "kind": row.kind, "who": row.who, **msgspec.json.decode(row.detail, type=dict[str, Any])}


def _stage(state: State, now_ms: int) -> dict[str, Any]:
    soaking = state.header.status in ("running", "paused") and state.header.soak_from_ms
    left_ms = state.header.soak_from_ms + state.stage.soak_s * 1000 - now_ms
    return {
        "name": state.stage.name, "index": state.header.stage, "nodes": sum(member.chosen for member in state.roster.members()),
        "soak_left_s": max(left_ms, 0) // 1000 if soaking else None,
    }  # fmt: skip


def _grouped(state: State, of: Callable[[Member], str]) -> dict[str, dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for member in state.roster.members():
        groups.setdefault(of(member), dict.fromkeys(STANDINGS, 0))[standing(member)] += 1
    return dict(sorted(groups.items(), key=lambda item: (len(item[0]), item[0])))


def _failures(state: State) -> list[dict[str, Any]]:
    """The newest failures, each with its cause."""
    failed = [(node, member) for node, member in state.roster.items() if member.phase == "failed"]
    failed.sort(key=lambda item: -item[1].decided_ms)
    return [
        {"node": node, "code": member.code, "message": member.message, "generation": member.generation, "sector": member.sector}
        for node, member in failed[:FAILURES_SHOWN]
    ]
