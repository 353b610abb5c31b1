"""What a request must fulfil before it is worth a calculation. The contract leaves open what a negative price would mean; here it has no meaning."""

from math import isfinite

from snapcount import BidRequest, fail

ID_BYTES_MAX = 256


def check(request: BidRequest) -> None:
    bounty, costs, node = request.bounty, request.costs, request.node
    if len(bounty.id.encode()) > ID_BYTES_MAX:
        fail("bad_request", f"bounty.id: expected at most {ID_BYTES_MAX} bytes, got {len(bounty.id.encode())}")
    not_negative = {
        "bounty.reward": bounty.reward, "costs.fuel_unit": costs.fuel_unit, "costs.hour": costs.hour, "costs.wear": costs.wear, "margin": request.margin,
        "node.fuel": node.fuel, "node.fuel_per_hour": node.fuel_per_hour, "node.speed_m_s": node.speed_m_s, "node.wear_per_hour": node.wear_per_hour,
        "node.wear": node.wear,
    }  # fmt: skip
    for key, value in not_negative.items():
        if value < 0:
            fail("bad_request", f"{key}: expected 0 or more, got {value:g}")
    if node.wear > 1:
        fail("bad_request", f"node.wear: expected 0 to 1, got {node.wear:g}")


def demand_finite(cost: float) -> float:
    if not isfinite(cost):
        fail("bad_request", "costs: expected prices of a possible size, got a cost that is not finite")
    return cost
