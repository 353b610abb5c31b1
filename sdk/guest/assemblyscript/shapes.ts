// Shapes to bytes and back: a shape is a class with `read(input: Reader): void` and `write(out: Writer): void`.

import { fail } from "./failure";
import { Reader } from "./reader";
import { Writer } from "./writer";

/** The encoding of a shape. */
export function encode<T>(shape: T): Uint8Array {
  const out = new Writer();
  shape.write(out);
  return out.bytes();
}

/** Decodes exactly one shape; fails with `bad_request` and the name of the key (look at `failed()`). */
export function decode<T>(bytes: Uint8Array): T {
  return decodeAt<T>(bytes.dataStart, bytes.length);
}

export function decodeAt<T>(at: usize, length: usize): T {
  const input = new Reader(at, at + length);
  const shape = instantiate<T>();
  shape.read(input);
  input.finish();
  return input.failed ? fail<T>("bad_request", input.message) : shape;
}
