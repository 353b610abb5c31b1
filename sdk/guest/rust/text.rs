//! Numbers in sentences.

const POWERS: [(f64, i32); 9] =
    [(1e256, 256), (1e128, 128), (1e64, 64), (1e32, 32), (1e16, 16), (1e8, 8), (1e4, 4), (1e2, 2), (1e1, 1)];
/// What a u64 and the rounding of a double leave of significant digits.
const DIGITS_MAX: usize = 15;

/// A number with at most so many significant digits, without trailing zeros, as `%g` of C writes it: `0.0014`, `25000`, `1e-09`.
pub fn number(value: f64, digits: usize) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    if size.is_nan() {
        return "nan".to_string();
    }
    if size == 0.0 || size == f64::INFINITY {
        return format!("{}{}", sign, if size == 0.0 { "0" } else { "inf" });
    }
    let digits = digits.clamp(1, DIGITS_MAX);
    let (mut whole, exponent) = significant(size, digits as i32);
    let mut count = digits as i32;
    while whole % 10 == 0 {
        whole /= 10;
        count -= 1;
    }
    let shown = whole.to_string();
    if exponent < -4 || exponent >= digits as i32 {
        let point = if count > 1 { "." } else { "" };
        let (mark, size) = (if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs());
        return format!("{}{}{}{}e{}{}{}", sign, &shown[..1], point, &shown[1..], mark, if size < 10 { "0" } else { "" }, size);
    }
    if exponent < 0 {
        return format!("{}0.{}{}", sign, "0".repeat((-1 - exponent) as usize), shown);
    }
    let before = exponent as usize + 1;
    if shown.len() <= before {
        return format!("{}{}{}", sign, shown, "0".repeat(before - shown.len()));
    }
    format!("{}{}.{}", sign, &shown[..before], &shown[before..])
}

/// The digits of a positive finite number as a whole number, and the power of ten of the first of them.
fn significant(value: f64, digits: i32) -> (u64, i32) {
    let (mut scaled, mut exponent) = (value, 0);
    for (power, size) in POWERS {
        if scaled >= power {
            scaled /= power;
            exponent += size;
        } else if scaled * power < 10.0 {
            scaled *= power;
            exponent -= size;
        }
    }
    let ceiling = 10u64.pow(digits as u32);
    let exact = scaled * ceiling as f64 / 10.0;
    let whole = round_half_even(exact);
    if whole >= ceiling {
        (whole / 10, exponent + 1)
    } else {
        (whole, exponent)
    }
}

fn round_half_even(value: f64) -> u64 {
    let down = value.floor();
    let odd = down as u64 % 2 == 1;
    let part = value - down;
    down as u64 + u64::from(part > 0.5 || (part == 0.5 && odd))
}
