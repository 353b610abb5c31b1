// bounty-bidder, lineage b: in JavaScript, from the formulas in the README.md of lineage a.

import { admit, requirePossible } from "./admission.js";
import { planOf } from "./plan.js";
import { priceOf } from "./price.js";

/**
 * @param {import("snapcount").BidRequest} request
 * @returns {import("snapcount").BidReply}
 */
export function bid(request) {
  admit(request);
  const { bounty, margin } = request;
  const plan = planOf(request);
  requirePossible(plan.cost);
  const obstacle = obstacleOf(request, plan);
  const offer = obstacle === undefined ? priceOf(plan.cost, margin, bounty.reward) : undefined;
  const reply = { cost: plan.cost, finish_ms: 0, id: bounty.id };
  if (offer !== undefined) return { ...reply, finish_ms: plan.finish_ms, price: offer.price, reason: whyBid(request, plan, offer) };
  return { ...reply, reason: obstacle ?? `The cost of ${shown(plan.cost)} is above the reward of ${shown(bounty.reward)}.` };
}

/** Why the plan cannot be carried out, or undefined. */
function obstacleOf({ bounty, node }, plan) {
  if (plan.finish_ms === undefined) {
    const times = `${time(node.queue_ms)} ms of queue and ${time(bounty.work_ms)} ms of work`;
    return `At ${shown(node.speed_m_s)} m/s, with ${times}, the bounty is never done; the cost is that of the work alone.`;
  }
  if (plan.finish_ms > bounty.deadline_ms) {
    const parts = `queue ${seconds(node.queue_ms)} s, travel ${seconds(plan.travel_ms)} s, work ${seconds(bounty.work_ms)} s`;
    return `Done after ${seconds(plan.finish_ms)} s (${parts}), but the deadline is after ${seconds(bounty.deadline_ms)} s.`;
  }
  const all = "Queue, travel and work";
  if (plan.fuel > node.fuel) return `${all} burn ${shown(plan.fuel)} units of fuel, but the tank holds ${shown(node.fuel)}.`;
  if (plan.wear > 1) return `${all} would wear the node from ${shown(node.wear)} to ${shown(plan.wear)}, but 1 is worn out.`;
  return undefined;
}

function whyBid({ bounty, margin }, plan, offer) {
  const percent = shown(margin * 100);
  const ending = offer.hasMargin
    ? `a margin of ${percent} % is in the price`
    : `the reward leaves less than the wanted margin of ${percent} %, so it is the price`;
  const times = `${seconds(plan.finish_ms)} s of ${seconds(bounty.deadline_ms)} s`;
  return `Travel of ${shown(plan.distance_m)} m and work cost ${shown(plan.cost)} and are done after ${times}; ${ending}.`;
}

function seconds(ms) {
  return decimal(ms / 1000);
}

/** For sentences: six decimals are enough, and show what a binary fraction was meant to be. */
function shown(value) {
  const scaled = value * 1e6;
  return decimal(Number.isFinite(scaled) ? Math.round(scaled) / 1e6 : value);
}

/** All digits, where JavaScript would write 1e21. */
function decimal(value) {
  return Number.isInteger(value) ? BigInt(value).toString() : String(value);
}

/** A time of the contract has 64 bits; the greatest of them arrive rounded up. */
function time(ms) {
  return ms < 2 ** 64 ? decimal(ms) : String(2n ** 64n - 1n);
}

// ---- self_test: a bounty with round answers. 36 km at 10 m/s and an hour of work: 2 h of fuel for 20, time for 20, wear for 2 ----

const ROUND = {
  bounty: { deadline_ms: 10_000_000, id: "self-test", position_m: [36_000, 0], reward: 100, work_ms: 3_600_000 },
  costs: { fuel_unit: 2, hour: 10, wear: 100 },
  margin: 0.5,
  node: { fuel: 20, fuel_per_hour: 5, position_m: [0, 0], queue_ms: 1_800_000, speed_m_s: 10, wear: 0.5, wear_per_hour: 0.01 },
};

/** @returns {import("snapcount").SelfTestReply} */
export function self_test() {
  const { cost, finish_ms, price } = bid(ROUND);
  const wanted = "Expected a price of 63 for a cost of 42, done after 9000000 ms";
  return { detail: `${wanted}; got ${price}, ${cost} and ${finish_ms} ms.`, ok: price === 63 && cost === 42 && finish_ms === 9_000_000 };
}
