"""A skill in Python: each function named like a hook answers it."""

from math import isfinite

from snapcount import BidReply, BidRequest, SelfTestReply, fail

MS_PER_HOUR = 3_600_000


def bid(request: BidRequest) -> BidReply:
    bounty = request.bounty
    cost = bounty.work_ms / MS_PER_HOUR * request.costs.hour
    price = cost * (1 + request.margin)
    if not isfinite(cost) or not isfinite(price):
        fail("out_of_range", "the cost or the price is beyond all numbers")
    finish_ms = request.node.queue_ms + bounty.work_ms
    if finish_ms > bounty.deadline_ms:
        return BidReply(cost=cost, finish_ms=0, id=bounty.id, reason="it would be done after the deadline")
    if price > bounty.reward:
        return BidReply(cost=cost, finish_ms=0, id=bounty.id, reason="the reward does not cover the cost")
    return BidReply(cost=cost, finish_ms=finish_ms, id=bounty.id, price=price, reason="cost plus margin")


def self_test() -> SelfTestReply:
    return SelfTestReply(detail="nothing to prepare", ok=True)
