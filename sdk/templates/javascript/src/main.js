// A skill in JavaScript: each exported function that is named like a hook answers it.

import { fail } from "snapcount";

const MS_PER_HOUR = 3_600_000;

/**
 * @param {import("snapcount").BidRequest} request
 * @returns {import("snapcount").BidReply}
 */
export function bid({ bounty, costs, margin, node }) {
  const cost = (bounty.work_ms / MS_PER_HOUR) * costs.hour;
  const price = cost * (1 + margin);
  if (!Number.isFinite(cost) || !Number.isFinite(price)) fail("out_of_range", "the cost or the price is beyond all numbers");
  const finish_ms = node.queue_ms + bounty.work_ms;
  const noBid = { cost, finish_ms: 0, id: bounty.id };
  if (finish_ms > bounty.deadline_ms) return { ...noBid, reason: "it would be done after the deadline" };
  if (price > bounty.reward) return { ...noBid, reason: "the reward does not cover the cost" };
  return { cost, finish_ms, id: bounty.id, price, reason: "cost plus margin" };
}

/** @returns {import("snapcount").SelfTestReply} */
export function self_test() {
  return { detail: "nothing to prepare", ok: true };
}
