// Deterministic CBOR encoding (RFC 8949, section 4.2.1): definite lengths, shortest integers, shortest floats that keep the value.
// A shape writes its keys in the order of their encodings: shorter ones first, then alphabetical.

import { FALSE, HEAD_BYTES_MAX, Major, TRUE, storeFloat, storeHead } from "./cbor";

/** Room at the beginning; it doubles when it is used up. */
const FIRST_BYTES = 512;

export class Writer {
  private room: ArrayBuffer = new ArrayBuffer(FIRST_BYTES);
  length: i32 = 0;

  /** Where the bytes are, for as long as the writer is. */
  get start(): usize {
    return changetype<usize>(this.room);
  }

  /** A copy of the bytes. */
  bytes(): Uint8Array {
    return Uint8Array.wrap(this.room.slice(0, this.length));
  }

  /** Where the next `more` bytes go. */
  private next(more: i32): usize {
    if (this.length + more > this.room.byteLength) {
      const wider = new ArrayBuffer(max(this.room.byteLength * 2, this.length + more));
      memory.copy(changetype<usize>(wider), this.start, this.length);
      this.room = wider;
    }
    return this.start + this.length;
  }

  private head(major: Major, argument: u64): void {
    this.length += storeHead(this.next(HEAD_BYTES_MAX), major, argument);
  }

  /** Begins a map of so many entries. */
  map(entries: i32): void {
    this.head(Major.Map, entries);
  }

  /** Begins a list of so many items. */
  list(items: i32): void {
    this.head(Major.Array, items);
  }

  bool(value: bool): void {
    store<u8>(this.next(1), value ? TRUE : FALSE);
    this.length += 1;
  }

  uint(value: u64): void {
    this.head(Major.Uint, value);
  }

  int(value: i64): void {
    // RFC 8949, section 3.1: a negative integer n is stored as -1 - n.
    if (value < 0) this.head(Major.Nint, <u64>(-1 - value));
    else this.head(Major.Uint, value);
  }

  float(value: f64): void {
    this.length += storeFloat(this.next(HEAD_BYTES_MAX), value);
  }

  /** Text, and keys. Half of a character of two halves becomes U+FFFD. */
  text(value: string): void {
    const bytes = String.UTF8.byteLength(value);
    this.head(Major.Text, bytes);
    String.UTF8.encodeUnsafe(changetype<usize>(value), value.length, this.next(bytes), false, String.UTF8.ErrorMode.REPLACE);
    this.length += bytes;
  }

  bytesOf(value: Uint8Array): void {
    this.head(Major.Bytes, value.length);
    memory.copy(this.next(value.length), value.dataStart, value.length);
    this.length += value.length;
  }

  /** The word at a place in words with spaces between them. */
  word(words: string, place: i32): void {
    this.text(words.split(" ")[place]);
  }

  items<T>(items: Array<T>): void {
    this.list(items.length);
    for (let i = 0; i < items.length; i++) items[i].write(this);
  }

  texts(texts: Array<string>): void {
    this.list(texts.length);
    for (let i = 0; i < texts.length; i++) this.text(texts[i]);
  }

  floats(floats: Array<f64>): void {
    this.list(floats.length);
    for (let i = 0; i < floats.length; i++) this.float(floats[i]);
  }

  tuple(tuple: StaticArray<f64>): void {
    this.list(tuple.length);
    for (let i = 0; i < tuple.length; i++) this.float(tuple[i]);
  }

  tuples(tuples: Array<StaticArray<f64>>): void {
    this.list(tuples.length);
    for (let i = 0; i < tuples.length; i++) this.tuple(tuples[i]);
  }
}
