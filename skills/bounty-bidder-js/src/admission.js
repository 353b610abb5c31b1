// What a request must fulfil before it is worth a calculation.

import { fail, utf8 } from "snapcount";

const ID_BYTES_MAX = 256;
const NOT_NEGATIVE = {
  bounty: ["reward"],
  costs: ["fuel_unit", "hour", "wear"],
  node: ["fuel", "fuel_per_hour", "speed_m_s", "wear", "wear_per_hour"],
};

/** @param {import("snapcount").BidRequest} request */
export function admit(request) {
  const { bounty, margin, node } = request;
  require(utf8(bounty.id).length <= ID_BYTES_MAX, "bounty.id", `at most ${ID_BYTES_MAX} bytes`, bounty.id.length);
  for (const part of ["bounty", "node"]) {
    for (const metres of request[part].position_m) require(Number.isFinite(metres), `${part}.position_m`, "finite numbers", metres);
  }
  for (const [part, names] of Object.entries(NOT_NEGATIVE)) {
    for (const name of names) requireAmount(`${part}.${name}`, request[part][name]);
  }
  requireAmount("margin", margin); // a negative one would be a bid below cost
  require(node.wear <= 1, "node.wear", "0 to 1", node.wear);
}

/** A sum that is a number: prices and rates can each be sound, and their product none. */
export function requirePossible(cost) {
  require(Number.isFinite(cost), "costs", "prices of a possible size", cost);
}

function requireAmount(name, value) {
  require(Number.isFinite(value) && value >= 0, name, "a finite number of 0 or more", value);
}

function require(holds, name, wanted, got) {
  if (!holds) fail("bad_request", `${name}: expected ${wanted}, got ${got}`);
}
