"""The last chapter: what is thrown at the fleet, and what becomes of it."""

import time
from collections.abc import Callable
from typing import Any

from host.core.errors import SnapcountError
from host.supply.store import SkillStore
from sdk.demo import hostile
from sdk.demo.gcode import vase
from sdk.demo.samples import ASSAY, BOUNTY
from sdk.demo.telling import PLANNER, Story, planner

DEFENCES = (
    "tampered_refused", "unsigned_refused", "runaway_stopped", "memory_bomb_stopped", "ungranted_refused", "unsafe_motion_refused",
    "install_kill_survived",
)  # fmt: skip


def tell(story: Story) -> None:
    story.say("7. What is refused, and what is stopped")
    signed = story.signed(planner("1.0.9"), PLANNER)
    tampered = bytearray(signed)
    tampered[len(tampered) // 2] ^= 1
    unsigned = planner("1.0.8")
    thief = story.signed(hostile.bundle("camera-thief"), "camera-thief")
    story.result |= {
        "tampered_refused": _refused(story, bytes(tampered), "signature_invalid", "one bit changed after signing"),
        "unsigned_refused": _refused(story, unsigned, "signature_invalid", "no signature"),
        "ungranted_refused": _refused(story, thief, "capability_denied", "a capability that the owner does not allow"),
        "runaway_stopped": _stopped(story, "runaway", ("fuel_exhausted", "deadline_exceeded"), "a loop without end"),
        "memory_bomb_stopped": _stopped(story, "memory-bomb", ("memory_exceeded",), "memory without end"),
        "unsafe_motion_refused": _unsafe_motion(story),
        "install_kill_survived": _kill_during_install(story),
    }


def _refused(story: Story, data: bytes, code: str, what: str) -> bool:
    before = [_digests(story, name) for name in story.fleet.names]
    states = story.push(data)
    refused = len(states) == len(story.fleet.names) and all(
        state["state"] == "failed" and state["code"] == code for state in states.values()
    )
    unchanged = before == [_digests(story, name) for name in story.fleet.names]
    _verdict(story, what, refused and unchanged, next(iter(states.values()))["message"] if states else "no node answered")
    return refused and unchanged


def _stopped(story: Story, name: str, codes: tuple[str, ...], what: str) -> bool:
    states = story.push(story.signed(hostile.bundle(name), name))
    installed = all(state["state"] == "active" for state in states.values())
    node = story.fleet.names[0]
    started = time.monotonic()
    try:
        story.fleet.control(node).post("/v1/hooks/bid", BOUNTY)
        code, message = "", "it was not stopped"
    except SnapcountError as error:
        code, message = error.code, str(error)
    took_ms = (time.monotonic() - started) * 1000
    well = isinstance(story.fleet.control(node).post("/v1/hooks/assess_feedstock", ASSAY), dict)
    story.calls += 2
    held = installed and code in codes and well
    _verdict(story, what, held, f"{message} (after {took_ms:.0f} ms; the node goes on)")
    _withdraw(story, name)
    return held


def _withdraw(story: Story, name: str) -> None:
    """Takes the misbehaving skill out again, so that the next one's `bid` is the only one, and no restarting node is told of it."""
    story.http.withdraw(name)
    for node in story.fleet.names:
        story.fleet.control(node).post(f"/v1/remove/{name}")


def _unsafe_motion(story: Story) -> bool:
    node = story.fleet.names[0]
    before = story.fleet.status(node)["machines"]["motion"]["moves"]
    control = story.fleet.control(node)
    # A plan's box gives a program away before anything moves; a skill that moves on its own meets the envelope itself.
    program = _error(lambda: control.job([b"G21\nG90\nG1 X10 Y10 F1200\nG1 X999\nG1 X20\n"], {}, run=True))
    story.push(story.signed(hostile.bundle("sneak"), "sneak"))
    skill = _error(lambda: control.post("/v1/hooks/bid", BOUNTY))
    _withdraw(story, "sneak")
    story.calls += 1
    status = story.fleet.status(node)
    unmoved = status["machines"]["motion"]["moves"] == before
    audited = any(row["skill"].startswith("sneak") and "outside the travel" in row["reason"] for row in status["audit"])
    held = unmoved and audited and "outside the travel" in program and "unsafe_command" in skill
    _verdict(story, "a program that leaves the machine", held, program or "it was not refused")
    _verdict(story, "a skill that leaves the machine", held, skill or "it was not refused")
    return held


def _error(ask: Callable[[], Any]) -> str:
    """What an answer was refused with; empty when it was not."""
    try:
        ask()
    except SnapcountError as error:
        return str(error)
    return ""


def _kill_during_install(story: Story) -> bool:
    """Kills a node before and after the moment an install takes effect; each time it comes back with one whole version."""
    node = story.fleet.names[-1]
    held = True
    for point, version, wanted in (("recorded", "1.0.2", "1.0.1"), ("activated", "1.0.3", "1.0.3")):
        story.fleet.stop(node)
        story.fleet.start_node(node, crash_at=point)
        story.fleet.wait_for(f"{node} to connect", lambda: bool(story.fleet.status(node)["registry"]["connected"]))
        story.push(story.signed(planner(version), PLANNER))
        story.fleet.wait_for(f"{node} to be killed", lambda: story.fleet.ended(node) is not None)
        active = SkillStore(story.fleet.state(node)).active(PLANNER)
        story.fleet.start_node(node)
        story.fleet.wait_for(f"{node} to have {version}", lambda v=version: _version(story, node) == v)  # type: ignore[misc]
        job = story.fleet.control(node).job([vase(1).encode()], {}, run=False)
        story.calls += 1
        well = active is not None and active.version == wanted and job["complete"]
        _verdict(
            story,
            f"kill -9 at `{point}`",
            well,
            f"the disk had {active.version if active else 'nothing'}, and after a restart {node} runs {version}",
        )
        held &= well
    return held


def _verdict(story: Story, what: str, held: bool, detail: str) -> None:
    story.say(f"   {'held  ' if held else 'FAILED'} {what}: {detail}")


def _digests(story: Story, name: str) -> list[str]:
    return sorted(skill["digest"] for skill in story.fleet.status(name)["skills"])


def _version(story: Story, node: str) -> str:
    return next((skill["version"] for skill in story.fleet.status(node)["skills"] if skill["name"] == PLANNER), "")
