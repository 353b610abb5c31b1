// What the host calls: the exports of docs/abi.md, around a skill's own functions.

import { ErrorReply } from "./contract";
import { failed, failure } from "./failure";
import { decodeAt } from "./shapes";
import { Writer } from "./writer";

/** Bit 31 of a reply's length marks an error reply. */
const ERROR_BIT: u64 = 1 << 31;
/** A larger request gets pages of its own, for which the answer may be no. */
const LARGE_BYTES: usize = 32 << 10;
const PAGE_BYTES: usize = 64 << 10;

let request: ArrayBuffer | null = null;
let reply: Writer | null = null;
let large: usize = 0;
let largeBytes: usize = 0;

export function sc_alloc(length: usize): usize {
  if (length > LARGE_BYTES) return allocLarge(length);
  const room = new ArrayBuffer(<i32>length);
  request = room;
  return changetype<usize>(room);
}

function allocLarge(length: usize): usize {
  if (length > largeBytes) {
    // The allocator takes all memory that there is when it is first used, so it has to begin before there is more.
    if (request == null) request = new ArrayBuffer(0);
    const pages = (length + PAGE_BYTES - 1) / PAGE_BYTES;
    const before = memory.grow(<i32>pages);
    if (before < 0) return 0;
    large = <usize>before * PAGE_BYTES;
    largeBytes = pages * PAGE_BYTES;
  }
  return large;
}

export function sc_reset(): void {
  request = null;
  reply = null;
}

/** Decodes the request, calls the hook, encodes what it replies: `ptr << 32 | len`. */
export function answer<Request, Reply>(at: usize, length: usize, hook: (request: Request) => Reply): u64 {
  failure();
  const asked = decodeAt<Request>(at, length);
  if (failed()) return refuse();
  const made = hook(asked);
  if (failed()) return refuse();
  const out = new Writer();
  made.write(out);
  return send(out, 0);
}

function refuse(): u64 {
  const why = failure()!;
  const out = new Writer();
  const error = new ErrorReply();
  error.code = why.code;
  error.message = why.message;
  error.write(out);
  return send(out, ERROR_BIT);
}

function send(out: Writer, flag: u64): u64 {
  reply = out;
  return (<u64>out.start << 32) | flag | <u64>out.length;
}

/** Takes the place of the import that an abort would otherwise need: a failed assertion, a null, an index out of range. */
export function trap(message: string | null, file: string | null, line: u32, column: u32): void {
  unreachable();
}
