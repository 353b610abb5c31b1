"""self_test: one bounty whose answers are round numbers."""

from collections.abc import Callable

from snapcount import BidNode, BidReply, BidRequest, Bounty, Costs, SelfTestReply

# 3,600 s of travel (36 km at 10 m/s) and 3,600 s of work are 2 h: 2 h × 5 units × 2 for fuel, 2 h × 10 for time, and 2 h × 0.01 × 100 for wear make 42;
# a margin of 50 % makes 63.
REQUEST = BidRequest(
    bounty=Bounty(deadline_ms=10_000_000, id="self-test", position_m=(36_000.0, 0.0), reward=100.0, work_ms=3_600_000),
    costs=Costs(fuel_unit=2.0, hour=10.0, wear=100.0),
    margin=0.5,
    node=BidNode(
        fuel=20.0, fuel_per_hour=5.0, position_m=(0.0, 0.0), queue_ms=1_800_000, speed_m_s=10.0, wear=0.5, wear_per_hour=0.01,
    ),
)  # fmt: skip
COST, PRICE, FINISH_MS = 42.0, 63.0, 9_000_000


def run(bid: Callable[[BidRequest], BidReply]) -> SelfTestReply:
    reply = bid(REQUEST)
    found = reply.price, reply.cost, reply.finish_ms
    detail = f"Expected a price of {PRICE:g} for a cost of {COST:g}, done after {FINISH_MS} ms; got {reply.price or 0:g}, {reply.cost:g} and {reply.finish_ms} ms."
    return SelfTestReply(detail=detail, ok=found == (PRICE, COST, FINISH_MS))
