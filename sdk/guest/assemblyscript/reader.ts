// Strict decoding of deterministic CBOR. Keys arrive in a known order, so each is compared with the one that must come next.
//
// Refused: an unknown, missing, repeated or misplaced key; another type than the field's; a value, length or count outside the field's
// bounds; lengths that are indefinite; lengths and numbers that are not in their shortest form; NaN and infinities; text that is not
// UTF-8; tags; null; bytes behind the value. The depth is that of the classes, and a list grows with the items that are really there.
//
// A shape reads itself: for each key in the order of the encoded keys (shorter ones first, then alphabetical)
//
//     if (input.key("name", KEYS)) this.name = input.text(1, 64);
//     if (input.failed) return input.inside("name");

import { FLOAT16, FLOAT64, FALSE, Major, TRUE, bigEndian, floatBytes, floatValue, isShortest } from "./cbor";
import { cut } from "./failure";
import { number } from "./text";
import { characters, isUtf8 } from "./utf8";

/** An unknown key is shown up to this length. */
const KEY_SHOWN_MAX = 64;

export class Reader {
  /** Whether something was refused: then nothing more is worth reading. */
  failed: bool = false;
  private problem: string = "";
  private path: string = "";
  /** Whether the failure already names its key. */
  private named: bool = false;
  /** Entries of the current map that were not read yet. */
  private left: u64 = 0;

  constructor(
    private at: usize,
    private end: usize,
  ) {}

  /** Where decoding failed, as `products[2].recovery.sigma`, and why. */
  get message(): string {
    return (this.path.length > 0 ? this.path : "request") + ": " + this.problem;
  }

  private refuse(problem: string): void {
    if (this.failed) return;
    this.failed = true;
    this.problem = problem;
  }

  /** Seen from outside of a key, or of a place in a list. */
  inside(part: string): void {
    if (this.named) {
      this.named = false;
      return;
    }
    const dot = this.path.length > 0 && !this.path.startsWith("[") ? "." : "";
    this.path = part + dot + this.path;
  }

  /** Refuses bytes behind the value. */
  finish(): void {
    if (!this.failed && this.at < this.end) this.refuse("expected the end, got more bytes");
  }

  /** Begins a map; what it returns goes to `endMap`. */
  map(): u64 {
    const outer = this.left;
    this.left = this.head(Major.Map, "a map");
    return outer;
  }

  /** Reads a key that must come next. */
  key(name: string, keys: string): bool {
    if (this.failed) return false;
    if (this.optional(name)) return true;
    this.unexpectedKey(name, keys);
    this.named = true;
    return false;
  }

  /** Reads a key if it comes next. */
  optional(name: string): bool {
    if (this.failed || this.left == 0) return false;
    const length = name.length;
    const head: u32 = length < 24 ? 1 : 2;
    if (this.end - this.at < <usize>length + head) return false;
    if (load<u8>(this.at) != <u8>(length < 24 ? 0x60 | length : 0x78)) return false;
    if (head == 2 && load<u8>(this.at + 1) != <u8>length) return false;
    for (let i = 0; i < length; i++) if (<i32>load<u8>(this.at + head + i) != name.charCodeAt(i)) return false;
    this.at += <usize>length + head;
    this.left -= 1;
    return true;
  }

  /** Ends a map: refuses a key that is left. `keys` are all that it may have, with spaces between them. */
  endMap(outer: u64, keys: string): void {
    if (!this.failed && this.left > 0) this.unexpectedKey("", keys);
    this.left = outer;
  }

  /** Says whether the key that stands here is unknown or misplaced, or the wanted one is missing. */
  private unexpectedKey(wanted: string, keys: string): void {
    if (this.left == 0) return this.refuse('the key "' + wanted + '" is missing');
    const key = this.text(0, i32.MAX_VALUE);
    if (this.failed) return;
    if (!keys.split(" ").includes(key)) this.refuse('the key "' + cut(key, KEY_SHOWN_MAX) + '" is not known');
    else if (wanted.length > 0) this.refuse('the key "' + wanted + '" is missing or out of order');
    else this.refuse('the key "' + key + '" is there twice or out of order');
  }

  /** Reads a head of one major type and returns its argument. */
  private head(major: Major, expected: string): u64 {
    if (this.failed) return 0;
    const room = this.end - this.at;
    if (room == 0 || <u32>load<u8>(this.at) >> 5 != major) return this.anotherType(expected);
    const info = <u32>load<u8>(this.at) & 31;
    if (info < 24) {
      this.at += 1;
      return info;
    }
    const bytes: u32 = info > 27 ? u32.MAX_VALUE : 1 << (info - 24);
    if (room <= bytes) return this.incomplete(expected);
    const argument = bigEndian(this.at + 1, bytes);
    if (!isShortest(argument, bytes)) return this.incomplete(expected);
    this.at += 1 + bytes;
    return argument;
  }

  private anotherType(expected: string): u64 {
    let got = "the end";
    if (this.at < this.end) {
      const initial = load<u8>(this.at);
      const major = initial >> 5;
      if (major == 0) got = "an unsigned integer";
      else if (major == 1) got = "a negative integer";
      else if (major == 2) got = "a byte string";
      else if (major == 3) got = "text";
      else if (major == 4) got = "an array";
      else if (major == 5) got = "a map";
      else if (major == 6) got = "a tag";
      else if (initial == FALSE || initial == TRUE) got = "a boolean";
      else if (initial >= FLOAT16 && initial <= FLOAT64) got = "a float";
      else got = "another simple value";
    }
    this.refuse("expected " + expected + ", got " + got);
    return 0;
  }

  private incomplete(expected: string): u64 {
    this.refuse("expected " + expected + " in its shortest, complete form");
    return 0;
  }

  private within(amount: f64, low: f64, high: f64, unit: string): void {
    if (this.failed || (amount >= low && amount <= high)) return;
    const least = "expected " + (high == F64.MAX_VALUE ? "at least " : "") + number(low, 6);
    this.refuse(least + (high == F64.MAX_VALUE ? "" : " to " + number(high, 6)) + unit + ", got " + number(amount, 6));
  }

  bool(): bool {
    if (this.failed) return false;
    const byte: u8 = this.at < this.end ? load<u8>(this.at) : 0;
    if (byte != TRUE && byte != FALSE) {
      this.anotherType("a boolean");
      return false;
    }
    this.at += 1;
    return byte == TRUE;
  }

  /** A boolean that must have this value. */
  constant(wanted: bool): void {
    if (this.bool() != wanted) this.refuse("expected the constant of the contract");
  }

  uint(low: f64, high: f64): u64 {
    const value = this.head(Major.Uint, "an unsigned integer");
    this.within(<f64>value, low, high, "");
    return value;
  }

  int(low: f64, high: f64): i64 {
    const negative = this.at < this.end && load<u8>(this.at) >> 5 == <u8>Major.Nint;
    const argument = negative ? this.head(Major.Nint, "an integer") : this.head(Major.Uint, "an integer");
    if (argument > <u64>i64.MAX_VALUE) this.refuse("expected an integer of 64 bits");
    // RFC 8949, section 3.1: a negative integer n is stored as -1 - n.
    const value = negative ? -1 - <i64>argument : <i64>argument;
    this.within(<f64>value, low, high, "");
    return value;
  }

  /** A finite number in its shortest form: no value of the contract is infinite or not a number. */
  float(low: f64, high: f64): f64 {
    if (this.failed) return 0;
    const initial: u8 = this.at < this.end ? load<u8>(this.at) : 0;
    if (initial < FLOAT16 || initial > FLOAT64) return <f64>this.anotherType("a float");
    const bytes: u32 = 2 << (initial - FLOAT16);
    if (this.end - this.at <= bytes) return <f64>this.incomplete("a float");
    const value = floatValue(bigEndian(this.at + 1, bytes), bytes);
    if (!isFinite(value)) this.refuse("expected a finite number");
    else if (floatBytes(value) != bytes) this.incomplete("a float");
    this.at += 1 + bytes;
    this.within(value, low, high, "");
    return value;
  }

  /** The length of a string, which is there. */
  private string(major: Major, expected: string): i32 {
    const length = this.head(major, expected);
    if (length <= <u64>(this.end - this.at)) return <i32>length;
    this.refuse("expected more bytes, got the end");
    return 0;
  }

  /** Text of so many characters. */
  text(low: f64, high: f64): string {
    const length = this.string(Major.Text, "text");
    if (this.failed) return "";
    if (!isUtf8(this.at, length)) this.refuse("expected UTF-8");
    else this.within(<f64>characters(this.at, length), low, high, " characters");
    const text = this.failed ? "" : String.UTF8.decodeUnsafe(this.at, length);
    this.at += length;
    return text;
  }

  /** A byte string of so many bytes. */
  bytes(low: f64, high: f64): Uint8Array {
    const length = this.string(Major.Bytes, "a byte string");
    this.within(<f64>length, low, high, " bytes");
    const bytes = new Uint8Array(this.failed ? 0 : length);
    memory.copy(bytes.dataStart, this.at, bytes.length);
    this.at += length;
    return bytes;
  }

  /** One of the words, which have spaces between them: its place. */
  word(words: string): i32 {
    const text = this.text(0, F64.MAX_VALUE);
    if (this.failed) return 0;
    const place = words.split(" ").indexOf(text);
    if (place < 0) this.refuse("expected one of the words of the contract, got another");
    return place;
  }

  /** The count of a list. */
  list(low: f64, high: f64): i32 {
    const count = this.head(Major.Array, "an array");
    this.within(<f64>count, low, high, " items");
    if (this.failed) return 0;
    // Each item takes a byte or more.
    if (count > <u64>(this.end - this.at)) {
      this.refuse("expected more items, got the end");
      return 0;
    }
    return <i32>count;
  }

  /** A list of shapes. */
  items<T>(low: f64, high: f64): Array<T> {
    const items = new Array<T>();
    const count = this.list(low, high);
    for (let i = 0; i < count; i++) {
      const item = instantiate<T>();
      item.read(this);
      if (this.failed) {
        this.inside("[" + i.toString() + "]");
        break;
      }
      items.push(item);
    }
    return items;
  }

  /** A list of texts. */
  texts(low: f64, high: f64, longest: f64): Array<string> {
    const texts = new Array<string>();
    const count = this.list(low, high);
    for (let i = 0; i < count; i++) {
      texts.push(this.text(0, longest));
      if (this.failed) {
        this.inside("[" + i.toString() + "]");
        break;
      }
    }
    return texts;
  }

  /** A list of floats, each between two bounds. */
  floats(low: f64, high: f64, least: f64, most: f64): Array<f64> {
    const floats = new Array<f64>();
    const count = this.list(low, high);
    for (let i = 0; i < count; i++) {
      floats.push(this.float(least, most));
      if (this.failed) {
        this.inside("[" + i.toString() + "]");
        break;
      }
    }
    return floats;
  }

  /** So many floats. */
  tuple(length: i32): StaticArray<f64> {
    const tuple = new StaticArray<f64>(length);
    this.fill(tuple);
    return tuple;
  }

  /** As many floats as there is room for. */
  fill(tuple: StaticArray<f64>): void {
    const length = tuple.length;
    const count = this.head(Major.Array, "an array");
    if (!this.failed && count != length) this.refuse("expected " + length.toString() + " items, got " + count.toString());
    for (let i = 0; i < length && !this.failed; i++) {
      tuple[i] = this.float(-F64.MAX_VALUE, F64.MAX_VALUE);
      if (this.failed) this.inside("[" + i.toString() + "]");
    }
  }

  /** A list of so many floats each. */
  tuples(low: f64, high: f64, length: i32): Array<StaticArray<f64>> {
    const tuples = new Array<StaticArray<f64>>();
    const count = this.list(low, high);
    for (let i = 0; i < count; i++) {
      tuples.push(this.tuple(length));
      if (this.failed) {
        this.inside("[" + i.toString() + "]");
        break;
      }
    }
    return tuples;
  }
}
