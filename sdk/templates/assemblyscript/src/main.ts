// A skill in AssemblyScript: each exported function that is named like a hook answers it.

import { BidReply, BidRequest, SelfTestReply, SelfTestRequest, fail } from "snapcount";

const MS_PER_HOUR: f64 = 3600000;

export function bid(request: BidRequest): BidReply {
  const bounty = request.bounty;
  const reply = new BidReply();
  reply.id = bounty.id;
  reply.cost = (<f64>bounty.work_ms / MS_PER_HOUR) * request.costs.hour;
  const price = reply.cost * (1 + request.margin);
  if (!isFinite(reply.cost) || !isFinite(price)) return fail<BidReply>("out_of_range", "the cost or the price is beyond all numbers");
  const finish_ms = request.node.queue_ms + bounty.work_ms;
  // A sum that is smaller than what was added has passed the end of 64 bits.
  if (finish_ms < bounty.work_ms || finish_ms > bounty.deadline_ms) {
    reply.reason = "it would be done after the deadline";
  } else if (price > bounty.reward) {
    reply.reason = "the reward does not cover the cost";
  } else {
    reply.finish_ms = finish_ms;
    reply.has_price = true;
    reply.price = price;
    reply.reason = "cost plus margin";
  }
  return reply;
}

export function self_test(request: SelfTestRequest): SelfTestReply {
  const reply = new SelfTestReply();
  reply.ok = true;
  reply.detail = "nothing to prepare";
  return reply;
}
