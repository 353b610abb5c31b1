// Deterministic CBOR (RFC 8949, section 4.2.1), as in the payload of a message: definite lengths, shortest numbers, sorted keys, no tags.

import { Unsound } from "./failure.js";
import { textOf, utf8 } from "./utf8.js";

const UINT = 0;
const NINT = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const MAP = 5;
const SIMPLE = 7;
const HALF = 0xf9;
const SINGLE = 0xfa;
const DOUBLE = 0xfb;
const DEPTH_MAX = 16;

/** A number that is written as a float although it is whole: to other languages 600 and 600.0 are different things. */
export class Float {
  constructor(value) {
    this.value = value;
  }
}

/**
 * The bytes of null, a boolean, a number, a string, a Uint8Array, an array or a plain object. A whole number that is no Float becomes an
 * integer.
 */
export function encode(value) {
  const out = [];
  write(out, value, "value", 0);
  return new Uint8Array(out);
}

function write(out, value, path, depth) {
  if (depth > DEPTH_MAX) throw new Unsound(path, `expected at most ${DEPTH_MAX} levels`);
  if (value === null) out.push(0xf6);
  else if (typeof value === "boolean") out.push(value ? 0xf5 : 0xf4);
  else if (value instanceof Float) writeFloat(out, value.value);
  else if (typeof value === "bigint" || Number.isSafeInteger(value)) writeInteger(out, BigInt(value), path);
  else if (typeof value === "number") writeFloat(out, value);
  else if (typeof value === "string") writeString(out, TEXT, utf8(value));
  else if (value instanceof Uint8Array) writeString(out, BYTES, value);
  else if (Array.isArray(value)) {
    head(out, ARRAY, BigInt(value.length));
    value.forEach((item, index) => write(out, item, `${path}[${index}]`, depth + 1));
  } else if (typeof value === "object") writeMap(out, value, path, depth);
  else throw new Unsound(path, `a ${typeof value} has no CBOR`);
}

function writeInteger(out, value, path) {
  if (value >= 1n << 64n || value < -(1n << 64n)) throw new Unsound(path, `${value} has more than 64 bits`);
  if (value < 0n) head(out, NINT, -1n - value);
  else head(out, UINT, value);
}

function head(out, major, argument) {
  const first = major << 5;
  if (argument < 24n) return out.push(first | Number(argument));
  const size = argument < 0x100n ? 0 : argument < 0x10000n ? 1 : argument < 0x100000000n ? 2 : 3;
  out.push(first | (24 + size));
  for (let shift = BigInt(8 * ((1 << size) - 1)); shift >= 0n; shift -= 8n) out.push(Number((argument >> shift) & 0xffn));
}

function writeString(out, major, bytes) {
  head(out, major, BigInt(bytes.length));
  for (const byte of bytes) out.push(byte);
}

function writeFloat(out, value) {
  const view = new DataView(new ArrayBuffer(8));
  if (Number.isNaN(value)) return out.push(HALF, 0x7e, 0);
  const isSingle = Object.is(Math.fround(value), value);
  const [first, size] = Object.is(Math.f16round(value), value) ? [HALF, 2] : isSingle ? [SINGLE, 4] : [DOUBLE, 8];
  if (size === 2) view.setFloat16(0, value);
  else if (size === 4) view.setFloat32(0, value);
  else view.setFloat64(0, value);
  out.push(first);
  for (let at = 0; at < size; at++) out.push(view.getUint8(at));
}

function writeMap(out, value, path, depth) {
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  const encoded = entries.map(([key, item]) => [encode(key), key, item]).sort(([one], [other]) => order(one, other));
  head(out, MAP, BigInt(encoded.length));
  for (const [bytes, key, item] of encoded) {
    for (const byte of bytes) out.push(byte);
    write(out, item, `${path}.${key}`, depth + 1);
  }
}

function order(one, other) {
  const shorter = Math.min(one.length, other.length);
  for (let at = 0; at < shorter; at++) if (one[at] !== other[at]) return one[at] - other[at];
  return one.length - other.length;
}

/** What the bytes say; integers above 2^53 are the nearest number. Undefined for anything that is not one deterministic item. */
export function decode(bytes) {
  const input = { bytes, at: 0, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  try {
    const value = read(input, 0);
    return input.at === bytes.length ? value : undefined;
  } catch (thrown) {
    if (thrown === UNSOUND || thrown instanceof RangeError) return undefined;
    throw thrown;
  }
}

const UNSOUND = { unsound: true };

function read(input, depth) {
  const first = input.view.getUint8(input.at);
  if (depth > DEPTH_MAX) throw UNSOUND;
  if (first >> 5 === SIMPLE) return readSimple(input, first);
  const [major, argument] = readHead(input, first);
  if (major === UINT) return Number(argument);
  if (major === NINT) return Number(-1n - argument);
  if (argument > BigInt(input.bytes.length - input.at)) throw UNSOUND; // each item takes a byte or more
  const count = Number(argument);
  if (major === ARRAY) return Array.from({ length: count }, () => read(input, depth + 1));
  if (major === MAP) return readMap(input, count, depth);
  const found = input.bytes.slice(input.at, (input.at += count));
  if (major === BYTES) return found;
  const text = major === TEXT ? textOf(found) : undefined;
  if (text === undefined) throw UNSOUND;
  return text;
}

function readHead(input, first) {
  const info = first & 0x1f;
  input.at += 1;
  if (info < 24) return [first >> 5, BigInt(info)];
  if (info > 27) throw UNSOUND;
  const size = 1 << (info - 24);
  let argument = 0n;
  for (let more = 0; more < size; more++) argument = (argument << 8n) | BigInt(input.view.getUint8(input.at++));
  const least = info === 24 ? 24n : 1n << BigInt(4 * size);
  if (argument < least) throw UNSOUND; // a shorter form was there
  return [first >> 5, argument];
}

function readMap(input, count, depth) {
  const made = {};
  let last = new Uint8Array(0);
  for (let entry = 0; entry < count; entry++) {
    const start = input.at;
    const key = read(input, depth + 1);
    const encoded = input.bytes.slice(start, input.at);
    if (typeof key !== "string" || order(last, encoded) >= 0) throw UNSOUND;
    // Not an assignment: a key called __proto__ is a key like any other.
    Object.defineProperty(made, key, { value: read(input, depth + 1), enumerable: true, configurable: true, writable: true });
    last = encoded;
  }
  return made;
}

function readSimple(input, first) {
  input.at += 1;
  if (first === 0xf4 || first === 0xf5) return first === 0xf5;
  if (first === 0xf6) return null;
  const size = { [HALF]: 2, [SINGLE]: 4, [DOUBLE]: 8 }[first];
  if (size === undefined) throw UNSOUND;
  const { view, at } = input;
  const value = size === 2 ? view.getFloat16(at) : size === 4 ? view.getFloat32(at) : view.getFloat64(at);
  const again = [];
  writeFloat(again, value);
  if (order(input.bytes.slice(at - 1, at + size), again) !== 0) throw UNSOUND; // a shorter form was there, or another NaN
  input.at += size;
  return value;
}
