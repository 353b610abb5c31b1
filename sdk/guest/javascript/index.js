// The JavaScript guest library: what a Snapcount skill written in JavaScript imports.
//
// A skill is a module that exports a function for each hook, from a request to a reply, both plain objects with the names of the contract:
//
//     import { fail } from "snapcount";
//
//     export function bid(request) {
//       if (request.margin < 0) fail("bad_margin", "expected a margin that is not negative");
//       return { cost: 0, finish_ms: 0, id: request.bounty.id, reason: "not today" };
//     }
//
// A key that may be absent is undefined; bytes are a Uint8Array. The types are in snapcount.d.ts.

export { Float, decode, encode } from "./cbor.js";
export { Failure, fail } from "./failure.js";
export { ask, flags, log, motion, nowMs, random, state } from "./host.js";
export { textOf, utf8 } from "./utf8.js";
