// The host's functions (`snapcount:host/1`, docs/abi.md). An import that the skill never calls is not in its module, so a skill needs
// only the capabilities that it uses.

import { ErrorReply, FlagReply, FlagRequest } from "./contract";
import { fail, failed, failure } from "./failure";
import { decodeAt, encode } from "./shapes";

// @ts-ignore: decorator
@external("snapcount:host/1", "log")
declare function hostLog(level: i32, at: usize, length: usize): void;
// @ts-ignore: decorator
@external("snapcount:host/1", "now_ms")
declare function hostNowMs(): i64;
// @ts-ignore: decorator
@external("snapcount:host/1", "random")
declare function hostRandom(at: usize, length: usize): void;
// @ts-ignore: decorator
@external("snapcount:host/1", "state_get")
declare function hostStateGet(key: usize, keyLength: usize, out: usize, room: usize): i32;
// @ts-ignore: decorator
@external("snapcount:host/1", "state_set")
declare function hostStateSet(key: usize, keyLength: usize, value: usize, valueLength: usize): i32;
// @ts-ignore: decorator
@external("snapcount:host/1", "call")
declare function hostCall(capability: usize, capabilityLength: usize, request: usize, requestLength: usize, out: usize, room: usize): u32;

/** Room for a stored value at the first attempt; a longer one costs a second host call. */
const STATE_FIRST_BYTES = 512;
/** docs/abi.md: the room must be at least this, and no reply of a driver is longer. */
const CALL_REPLY_BYTES_MAX = 4096;
const ERROR_BIT: u32 = 1 << 31;

export enum Level {
  Debug,
  Info,
  Warning,
  Error,
}

/** Writes one line to the host's log (capability `log`). */
export function log(level: Level, line: string): void {
  const bytes = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/** Unix time in milliseconds (capability `clock`). */
export function nowMs(): i64 {
  return hostNowMs();
}

/** So many random bytes (capability `random`). */
export function random(length: i32): Uint8Array {
  const bytes = new Uint8Array(length);
  hostRandom(bytes.dataStart, length);
  return bytes;
}

/** The value stored under `key`, or null (capability `state`). */
export function stateGet(key: string): Uint8Array | null {
  const name = String.UTF8.encode(key);
  let out = new Uint8Array(STATE_FIRST_BYTES);
  let length = hostStateGet(changetype<usize>(name), name.byteLength, out.dataStart, out.length);
  while (length > out.length) {
    out = new Uint8Array(length);
    length = hostStateGet(changetype<usize>(name), name.byteLength, out.dataStart, out.length);
  }
  return length < 0 ? null : out.subarray(0, length);
}

/** Stores a value (capability `state`). False: the quota is full. An empty value deletes the key. */
export function stateSet(key: string, value: Uint8Array): bool {
  const name = String.UTF8.encode(key);
  return hostStateSet(changetype<usize>(name), name.byteLength, value.dataStart, value.length) == 0;
}

/** Deletes a key (capability `state`). */
export function stateDelete(key: string): void {
  stateSet(key, new Uint8Array(0));
}

/**
 * Asks the driver behind `capability`. An error reply, as `unsafe_command`, becomes the failure: `if (failed()) return fail…`, or
 * look at `failure()` and go on.
 */
export function call<Request, Reply>(capability: string, request: Request): Reply {
  const name = String.UTF8.encode(capability);
  const asked = encode<Request>(request);
  const out = new Uint8Array(CALL_REPLY_BYTES_MAX);
  const result = hostCall(changetype<usize>(name), name.byteLength, asked.dataStart, asked.length, out.dataStart, CALL_REPLY_BYTES_MAX);
  const length = min<u32>(result & ~ERROR_BIT, CALL_REPLY_BYTES_MAX);
  if ((result & ERROR_BIT) == 0) {
    const reply = decodeAt<Reply>(out.dataStart, length);
    if (!failed()) return reply;
  } else {
    const refusal = decodeAt<ErrorReply>(out.dataStart, length);
    if (!failed()) return fail<Reply>(refusal.code, refusal.message);
  }
  failure();
  return fail<Reply>("bad_reply", "expected a reply of " + capability + " in the shape of the contract, got something else");
}

/**
 * Whether the node's operators have switched a feature flag on (capability `flags`). `name` is lower_snake_case, at most 64 bytes; a flag that
 * nobody named, or that cannot be asked for, is off.
 */
export function flag(name: string): bool {
  const ask = new FlagRequest();
  ask.flag = name;
  const reply = call<FlagRequest, FlagReply>("flags", ask);
  return failure() == null && reply.on;
}
