/* A skill in C: SC_HOOK makes the function after it answer the hook of the same name. */

#include "math.h"
#include "snapcount.h"

#define MS_PER_HOUR 3600000.0

SC_HOOK(bid, BidRequest, BidReply)

static sc_status bid(const BidRequest *request, BidReply *reply) {
    const double cost = (double)request->bounty.work_ms / MS_PER_HOUR * request->costs.hour;
    const double price = cost * (1 + request->margin);
    if (!sc_is_finite(cost) || !sc_is_finite(price)) return sc_fail("out_of_range", "the cost or the price is beyond all numbers");
    const uint64_t finish_ms = request->node.queue_ms + request->bounty.work_ms;
    reply->cost = cost;
    reply->id = request->bounty.id;
    if (finish_ms < request->node.queue_ms || finish_ms > request->bounty.deadline_ms) {
        reply->reason = sc_text_of("it would be done after the deadline");
    } else if (price > request->bounty.reward) {
        reply->reason = sc_text_of("the reward does not cover the cost");
    } else {
        reply->finish_ms = finish_ms;
        reply->has_price = true;
        reply->price = price;
        reply->reason = sc_text_of("cost plus margin");
    }
    return SC_OK;
}

SC_HOOK(self_test, SelfTestRequest, SelfTestReply)

static sc_status self_test(const SelfTestRequest *request, SelfTestReply *reply) {
    (void)request;
    reply->ok = true;
    reply->detail = sc_text_of("nothing to prepare");
    return SC_OK;
}
