// The AssemblyScript guest library: what a Snapcount skill written in AssemblyScript imports.
//
// A skill is a file that exports a function for each hook, from a typed request to a typed reply:
//
//     import { BidReply, BidRequest, fail } from "snapcount";
//
//     export function bid(request: BidRequest): BidReply {
//       if (request.margin < 0) return fail<BidReply>("bad_margin", "expected a margin that is not negative");
//       const reply = new BidReply();
//       reply.id = request.bounty.id;
//       return reply;
//     }
//
// The request is decoded strictly before the function runs; a bad one is answered with the error `bad_request`, which names the key.
// Memory is garbage collected: what a global holds stays from call to call.

export * from "./contract";
export { fail, failed, failure } from "./failure";
export { Level, call, flag, log, nowMs, random, stateDelete, stateGet, stateSet } from "./host";
export { Reader } from "./reader";
export { decode, encode } from "./shapes";
export { number } from "./text";
export { Writer } from "./writer";
