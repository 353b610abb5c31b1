// Numbers in sentences.

/** What a u64 and the rounding of a double leave of significant digits. */
const DIGITS_MAX = 15;

/** A number with at most so many significant digits, without trailing zeros, as `%g` of C writes it: `0.0014`, `25000`, `1e-09`. */
export function number(value: f64, digits: i32): string {
  if (isNaN(value)) return "nan";
  const sign = value < 0 ? "-" : "";
  const size = abs(value);
  if (size == 0) return "0";
  if (size == Infinity) return sign + "inf";
  digits = max(1, min(digits, DIGITS_MAX));
  let exponent = decimalExponent(size);
  const ceiling = <f64>tenTo(digits);
  let whole = <u64>nearest<f64>((scaled(size, exponent) * ceiling) / 10);
  if (whole >= <u64>ceiling) {
    whole /= 10;
    exponent += 1;
  }
  while (whole % 10 == 0) whole /= 10;
  const shown = whole.toString();
  if (exponent < -4 || exponent >= digits) {
    const power = <i32>Math.abs(exponent);
    const tail = (exponent < 0 ? "e-" : "e+") + (power < 10 ? "0" : "") + power.toString();
    return sign + shown.substring(0, 1) + (shown.length > 1 ? "." + shown.substring(1) : "") + tail;
  }
  if (exponent < 0) return sign + "0." + "0".repeat(-1 - exponent) + shown;
  const before = exponent + 1;
  if (shown.length <= before) return sign + shown + "0".repeat(before - shown.length);
  return sign + shown.substring(0, before) + "." + shown.substring(before);
}

function tenTo(power: i32): u64 {
  let value: u64 = 1;
  for (; power > 0; power--) value *= 10;
  return value;
}

/** The power of ten of the first digit of a positive finite number. */
function decimalExponent(value: f64): i32 {
  let exponent = 0;
  for (let size = 256; size > 0; size >>= 1) {
    const power = powerOfTen(size);
    if (value >= power) {
      value /= power;
      exponent += size;
    } else if (value * power < 10) {
      value *= power;
      exponent -= size;
    }
  }
  return exponent;
}

/** The number with its first digit before the point: from 1 to below 10. */
function scaled(value: f64, exponent: i32): f64 {
  const up = exponent < 0;
  let left = up ? -exponent : exponent;
  for (let size = 256; size > 0; size >>= 1) {
    if (left < size) continue;
    left -= size;
    value = up ? value * powerOfTen(size) : value / powerOfTen(size);
  }
  return value;
}

function powerOfTen(size: i32): f64 {
  switch (size) {
    case 256: return 1e256;
    case 128: return 1e128;
    case 64: return 1e64;
    case 32: return 1e32;
    case 16: return 1e16;
    case 8: return 1e8;
    case 4: return 1e4;
    case 2: return 1e2;
    default: return 1e1;
  }
}
