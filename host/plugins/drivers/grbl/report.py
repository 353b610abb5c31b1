"""What a session says of itself: to a caller that wants to move the machine, and to people."""

from itertools import chain
from typing import TYPE_CHECKING, Any

from host.plugins.drivers.grbl import gcode
from host.plugins.drivers.grbl.handshake import Step

if TYPE_CHECKING:
    from host.plugins.drivers.grbl.session import Session


def why_not_ready(session: "Session") -> str:
    """Why no line can be sent; empty when one can."""
    if session.ready:
        return next(session.handshake.controller.problems(session.settings.needs_homing), "")
    if not session.is_open:
        return f"no link to {session.settings.port}: {session.link}"
    if session.resetting:
        return "the controller is being reset"
    if session.deaf:
        return "the controller is in an alarm; a person resets it: `snapcount machine reset`"
    step = session.handshake.step
    return f"{step.value} (it reports {session.handshake.busy})" if step is Step.BUSY else f"the controller is not known yet: {step.value}"


def why_not_move(session: "Session") -> str:
    """Why no move can be sent; empty when one can. A homing that is on its way makes the position known."""
    if session.settings.door and session.door_open:
        return "the safety door is open"
    if session.position_known and not session.locked:
        return ""
    if any(line.text == gcode.HOME for line in chain(session.stream.in_flight, session.stream.waiting)):
        return ""
    if session.locked:
        return "the controller is locked after an alarm or its start; home it, or `snapcount machine unlock` where its position is right"
    return f"the machine's position is unknown: {session.lost_position}; home it first"


def as_dict(session: "Session") -> dict[str, Any]:
    """For people and `--json`: the link, the controller, and the work."""
    state = "stopped" if session.failure else "running" if session.at_work else "done" if session.job.given else "none"
    seen = session.status.label if session.status else "unknown"
    return {
        "link": why_not_ready(session) or "ready", "state": seen if session.is_open else f"not known; last seen: {seen}",
        "controller": session.handshake.controller.version, "locked": session.locked,
        "position": "known" if session.position_known else f"unknown: {session.lost_position}",
        "failure": str(session.error()) if session.failure else None, "needs_person": session.needs_person,
        "job": session.job.as_dict(state), "messages": list(session.messages), "garbled": session.watch.garbled, "strays": session.strays,
        "bytes_in_flight_peak": session.stream.peak,
    }  # fmt: skip
