"""bounty-bidder: from a bounty and the state of a node to a bid, or to a reason why there is none. The formulas are in ../../bounty-bidder/README.md."""

from checks import check, demand_finite
from plan import Plan, cost_of, plan_of
from prices import price_of
from self_check import run
from snapcount import BidReply, BidRequest, SelfTestReply


def bid(request: BidRequest) -> BidReply:
    check(request)
    bounty, node = request.bounty, request.node
    plan = plan_of(request)
    if plan is None:
        return no_bid(
            request,
            demand_finite(cost_of(request, bounty.work_ms)),
            f"At {shown(node.speed_m_s)} m/s, with {node.queue_ms} ms of queue and {bounty.work_ms} ms of work, "
            "the bounty is never done; the cost is that of the work alone.",
        )
    demand_finite(plan.cost)
    obstacle = obstacle_of(request, plan)
    if obstacle:
        return no_bid(request, plan.cost, obstacle)
    price = price_of(plan.cost, request.margin, bounty.reward)
    if price is None:
        return no_bid(request, plan.cost, f"The cost of {shown(plan.cost)} is above the reward of {shown(bounty.reward)}.")
    amount, has_margin = price
    percent = shown(request.margin * 100)
    ending = (
        f"a margin of {percent} % is in the price"
        if has_margin
        else f"the reward leaves less than the wanted margin of {percent} %, so it is the price"
    )
    reason = (
        f"Travel of {shown(plan.distance_m)} m and work cost {shown(plan.cost)} and are done after {seconds(plan.finish_ms)} s "
        f"of {seconds(bounty.deadline_ms)} s; {ending}."
    )
    return BidReply(cost=plan.cost, finish_ms=plan.finish_ms, id=bounty.id, price=amount, reason=reason)


def self_test() -> SelfTestReply:
    return run(bid)


def no_bid(request: BidRequest, cost: float, reason: str) -> BidReply:
    return BidReply(cost=cost, finish_ms=0, id=request.bounty.id, reason=reason)


def obstacle_of(request: BidRequest, plan: Plan) -> str:
    """Why the plan cannot be carried out; empty when it can."""
    bounty, node = request.bounty, request.node
    if plan.finish_ms > bounty.deadline_ms:
        return (
            f"Done after {seconds(plan.finish_ms)} s (queue {seconds(node.queue_ms)} s, travel {seconds(plan.travel_ms)} s, "
            f"work {seconds(bounty.work_ms)} s), but the deadline is after {seconds(bounty.deadline_ms)} s."
        )
    if plan.fuel > node.fuel:
        return f"Queue, travel and work burn {shown(plan.fuel)} units of fuel, but the tank holds {shown(node.fuel)}."
    if plan.wear > 1:
        return f"Queue, travel and work would wear the node from {shown(node.wear)} to {shown(plan.wear)}, but 1 is worn out."
    return ""


def seconds(ms: int) -> str:
    """Milliseconds as seconds, for sentences."""
    return shown(ms / 1000)


def shown(value: float) -> str:
    """A number for sentences, with six decimals at most."""
    rounded = round(value, 6)
    return str(int(rounded)) if rounded.is_integer() else repr(rounded)
