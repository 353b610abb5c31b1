"""What taking a bounty means for a node: how long it takes, what it burns and wears, and what that costs."""

from dataclasses import dataclass
from math import ceil, hypot

from snapcount import BidRequest

MS_PER_HOUR = 3_600_000
TRAVEL_MS_MAX = 1 << 53
MS_MAX = (1 << 64) - 1


@dataclass(frozen=True)
class Plan:
    """`finish_ms` is from now: queue, travel and work. Fuel and wear are at the end of it all; the cost leaves out the queue, which was paid for."""

    distance_m: float
    travel_ms: int
    finish_ms: int
    fuel: float
    wear: float
    cost: float


def plan_of(request: BidRequest) -> Plan | None:
    """None: the node never gets there, or never gets done."""
    node, bounty = request.node, request.bounty
    distance_m = hypot(bounty.position_m[0] - node.position_m[0], bounty.position_m[1] - node.position_m[1])
    travel_ms = travel_of(distance_m, node.speed_m_s)
    if travel_ms is None:
        return None
    busy_ms = travel_ms + bounty.work_ms
    finish_ms = node.queue_ms + busy_ms
    if finish_ms > MS_MAX:
        return None
    hours = finish_ms / MS_PER_HOUR
    return Plan(
        distance_m=distance_m, travel_ms=travel_ms, finish_ms=finish_ms, fuel=node.fuel_per_hour * hours,
        wear=node.wear + node.wear_per_hour * hours, cost=cost_of(request, busy_ms),
    )  # fmt: skip


def cost_of(request: BidRequest, busy_ms: int) -> float:
    """Fuel, the node's time and its wear: the cost of being busy for so long."""
    hours = busy_ms / MS_PER_HOUR
    node, costs = request.node, request.costs
    return node.fuel_per_hour * hours * costs.fuel_unit + costs.hour * hours + node.wear_per_hour * hours * costs.wear


def travel_of(distance_m: float, speed_m_s: float) -> int | None:
    """Rounded up: a plan must not end later than it says."""
    if distance_m == 0:
        return 0
    if speed_m_s == 0:
        return None
    travel_ms = distance_m / speed_m_s * 1000
    return ceil(travel_ms) if travel_ms < TRAVEL_MS_MAX else None
