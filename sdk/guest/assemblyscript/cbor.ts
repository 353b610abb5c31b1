// The heads and floats of deterministic CBOR (RFC 8949, sections 3 and 4.2.1).

/** Major types, RFC 8949, section 3.1. */
export const enum Major {
  Uint = 0,
  Nint = 1,
  Bytes = 2,
  Text = 3,
  Array = 4,
  Map = 5,
}

// Initial bytes of major type 7, RFC 8949, section 3.3.
export const FALSE: u8 = 0xf4;
export const TRUE: u8 = 0xf5;
export const FLOAT16: u8 = 0xf9;
export const FLOAT32: u8 = 0xfa;
export const FLOAT64: u8 = 0xfb;

/** The longest head, and the longest float: an initial byte and 8 more. */
export const HEAD_BYTES_MAX: i32 = 9;

/** A big-endian number of 1, 2, 4 or 8 bytes. */
export function bigEndian(at: usize, bytes: u32): u64 {
  if (bytes == 1) return load<u8>(at);
  if (bytes == 2) return bswap<u16>(load<u16>(at));
  if (bytes == 4) return bswap<u32>(load<u32>(at));
  return bswap<u64>(load<u64>(at));
}

function storeBigEndian(at: usize, value: u64, bytes: u32): void {
  if (bytes == 1) store<u8>(at, <u8>value);
  else if (bytes == 2) store<u16>(at, bswap<u16>(<u16>value));
  else if (bytes == 4) store<u32>(at, bswap<u32>(<u32>value));
  else store<u64>(at, bswap<u64>(value));
}

/** Whether the next shorter argument could not have held the value (RFC 8949, section 4.2.1). */
export function isShortest(value: u64, bytes: u32): bool {
  return bytes == 1 ? value >= 24 : value >> (bytes * 4) != 0;
}

/** Writes a head and returns its length. */
export function storeHead(at: usize, major: Major, argument: u64): u32 {
  const high = <u8>(major << 5);
  if (argument < 24) {
    store<u8>(at, high | <u8>argument);
    return 1;
  }
  const power: u32 = argument > <u64>u32.MAX_VALUE ? 3 : argument > <u64>u16.MAX_VALUE ? 2 : argument > <u64>u8.MAX_VALUE ? 1 : 0;
  store<u8>(at, high | <u8>(24 + power));
  storeBigEndian(at + 1, argument, 1 << power);
  return 1 + (1 << power);
}

/** Writes a float in the shortest form that keeps its value, and returns its length. Every NaN is 7e00. */
export function storeFloat(at: usize, value: f64): u32 {
  const bytes = floatBytes(value);
  if (bytes == 2) {
    store<u8>(at, FLOAT16);
    store<u16>(at + 1, bswap<u16>(<u16>(isNaN(value) ? 0x7e00 : halfOf(<f32>value))));
  } else if (bytes == 4) {
    store<u8>(at, FLOAT32);
    store<u32>(at + 1, bswap<u32>(reinterpret<u32>(<f32>value)));
  } else {
    store<u8>(at, FLOAT64);
    store<u64>(at + 1, bswap<u64>(reinterpret<u64>(value)));
  }
  return 1 + bytes;
}

/** How many bytes the shortest float of this value has behind its initial byte. */
export function floatBytes(value: f64): u32 {
  if (isNaN(value)) return 2;
  const single = <f32>value;
  if (<f64>single != value) return 8;
  return halfOf(single) >= 0 ? 2 : 4;
}

/** The value of the bits of a float of 2, 4 or 8 bytes. */
export function floatValue(bits: u64, bytes: u32): f64 {
  if (bytes == 8) return reinterpret<f64>(bits);
  if (bytes == 4) return <f64>reinterpret<f32>(<u32>bits);
  return halfValue(<u32>bits);
}

/** The bits of the half (IEEE 754 binary16) that has exactly this value, or -1. Not for NaN. */
function halfOf(value: f32): i32 {
  const bits = reinterpret<u32>(value);
  const sign = <i32>((bits >> 16) & 0x8000);
  const exponent = <i32>((bits >> 23) & 255) - 127;
  const fraction = bits & 0x7fffff;
  if ((bits & 0x7fffffff) == 0) return sign;
  if (exponent == 128) return sign | 0x7c00;
  if (exponent > 15 || exponent < -24) return -1;
  // Below the least normal half, each halving costs one more bit of the fraction.
  const lost = <u32>(13 + max(0, -14 - exponent));
  const whole = fraction | 0x800000;
  if ((whole & ((1 << lost) - 1)) != 0) return -1;
  if (exponent < -14) return sign | <i32>(whole >> lost);
  return sign | ((exponent + 15) << 10) | <i32>(fraction >> 13);
}

function halfValue(bits: u32): f64 {
  const sign: f64 = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = <f64>(bits & 0x3ff);
  if (exponent == 31) return fraction == 0 ? sign * Infinity : NaN;
  if (exponent == 0) return (sign * fraction) / 16777216;
  return (sign * (1024 + fraction) * <f64>(1 << exponent)) / 33554432;
}
