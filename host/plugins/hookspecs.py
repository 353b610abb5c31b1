"""Every hook that the host calls on plugins, declared once. A skill's exported hooks and a native plugin's functions are called alike.

For each hook: when it is called, its parameters, what None means, whether the first answer wins, and what an exception does.
`self_test` is called on one skill at a time, never through the manager: it decides whether that skill gets in.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from host.core.safety import SafetyLimits
from host.plugins.contract import (
    AssessFeedstockReply,
    AssessFeedstockRequest,
    BidReply,
    BidRequest,
    HandleReply,
    HandleRequest,
    InspectPartReply,
    InspectPartRequest,
    PlanReport,
    PlanSettings,
)  # fmt: skip
from host.plugins.driver import Driver

PROJECT = "snapcount"
ENTRY_POINT_GROUP = "snapcount.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def plan_job(program: Iterable[bytes], settings: PlanSettings, run: bool) -> PlanReport | None:
    """Called for each job, by `snapcount job` and the node's control socket. The first answer wins; None passes the job on.

    `program` yields the G-code in pieces of any size; `settings` stand for limits that the program does not state (mm, mm/s², mm/min);
    with `run` the plugin also drives the capability `motion`. An exception ends the job and reaches its caller.
    """


@hookspec(firstresult=True)
def assess_feedstock(request: AssessFeedstockRequest) -> AssessFeedstockReply | None:
    """Called when a lot of feedstock is offered. The first answer wins; None passes it on. Masses in kg, energies in kWh/t, fractions 0..1.

    An exception reaches the caller; nothing else is asked.
    """


@hookspec(firstresult=True)
def inspect_part(request: InspectPartRequest) -> InspectPartReply | None:
    """Called when a part or a lot has been measured. The first answer wins; None passes it on. Sizes in mm, newest last.

    The verdict is about these parts: accepting is not releasing, which the caller does. An exception reaches the caller; nothing else is asked.
    """


@hookspec
def bid(request: BidRequest) -> BidReply | None:
    """Called when a bounty is announced. Every plugin may answer; None means that this plugin does not bid on such work at all.

    Times in ms from now, positions in m, prices in the fleet's currency. An exception reaches the caller, and no bid is sent.
    """


@hookspec
def handle(request: HandleRequest) -> HandleReply | None:
    """Called when a mesh message reaches this node: as `prepare` on arrival and as `act` at its arrival time T; once, as `act`, where it has none.

    Times in fleet time, Unix ms. Every plugin may answer; None, or a reply with `handled` false, means that the message is not for this plugin.
    The reply to `prepare` is READY or CONFLICT, and takes as long as preparing takes. A message that is cancelled gets no `act`, so `prepare`
    must not have effects that would need undoing. An exception reaches the caller, for whom it is a CONFLICT, and nothing else is asked.
    """


@hookspec
def offer_drivers(settings: Mapping[str, Any], limits: SafetyLimits) -> list[Driver] | None:
    """Called once when the node starts, on native plugins. Each driver offers one capability; None offers nothing.

    `settings` is the plugin's own table of node.toml, `[drivers.NAME]`, empty without one; the plugin checks it. `limits` are those that the owner
    signed, in mm, mm/s, W and °C: the envelope before the driver keeps them, and a driver may compare its machine with them.
    Two drivers for one capability, or an exception, keep the node from starting: the error names the plugin.
    """
