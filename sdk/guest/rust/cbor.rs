//! The heads and floats of deterministic CBOR (RFC 8949, sections 3 and 4.2.1).

/// Major types, RFC 8949, section 3.1.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
pub enum Major {
    Uint = 0,
    Nint = 1,
    Bytes = 2,
    Text = 3,
    Array = 4,
    Map = 5,
}

/// Initial bytes of major type 7, RFC 8949, section 3.3.
pub const FALSE: u8 = 0xf4;
pub const TRUE: u8 = 0xf5;
pub const F16: u8 = 0xf9;
pub const F32: u8 = 0xfa;
pub const F64: u8 = 0xfb;

/// How many bytes follow an initial byte whose low bits are 24 to 27.
pub fn argument_bytes(info: u8) -> Option<usize> {
    match info {
        24..=27 => Some(1 << (info - 24)),
        _ => None,
    }
}

/// A big-endian number of at most eight bytes.
pub fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Whether the next shorter argument could not have held the value (RFC 8949, section 4.2.1).
pub fn is_shortest(value: u64, bytes: usize) -> bool {
    if bytes == 1 {
        value >= 24
    } else {
        value >> (bytes * 4) != 0
    }
}

/// A head, and how many of the bytes it takes.
pub fn head(major: Major, argument: u64) -> ([u8; 9], usize) {
    let mut out = [0; 9];
    let high = (major as u8) << 5;
    if argument < 24 {
        out[0] = high | argument as u8;
        return (out, 1);
    }
    let power = if argument > u64::from(u32::MAX) {
        3
    } else if argument > u64::from(u16::MAX) {
        2
    } else {
        u8::from(argument > u64::from(u8::MAX))
    };
    let bytes = 1 << power;
    out[0] = high | (24 + power);
    out[1..=bytes].copy_from_slice(&argument.to_be_bytes()[8 - bytes..]);
    (out, 1 + bytes)
}

/// A float in the shortest form that keeps its value, and how many of the bytes it takes. Every NaN is 7e00.
pub fn float(value: f64) -> ([u8; 9], usize) {
    let single = value as f32;
    let (initial, bits, bytes) = if value.is_nan() {
        (F16, 0x7e00, 2)
    } else if f64::from(single) != value {
        (F64, value.to_bits(), 8)
    } else if let Some(half) = half_of(single) {
        (F16, u64::from(half), 2)
    } else {
        (F32, u64::from(single.to_bits()), 4)
    };
    let mut out = [0; 9];
    out[0] = initial;
    out[1..=bytes].copy_from_slice(&bits.to_be_bytes()[8 - bytes..]);
    (out, 1 + bytes)
}

/// The value of the bits of a float of 2, 4 or 8 bytes.
pub fn float_value(bits: u64, bytes: usize) -> f64 {
    match bytes {
        2 => half_value(bits as u16),
        4 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

/// The bits of the half (IEEE 754 binary16) that has exactly this value. Not for NaN.
fn half_of(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude == 0 {
        return Some(sign);
    }
    if magnitude == 0x7f80_0000 {
        return Some(sign | 0x7c00);
    }
    // A half is a whole number of 2^-24, with at most 11 significant bits, and at most 65,504.
    let units = f64::from(f32::from_bits(magnitude)) * 16_777_216.0;
    if units < 1.0 || units > 65_504.0 * 16_777_216.0 || units.trunc() != units {
        return None;
    }
    let whole = units as u64;
    let exponent = (63 - whole.leading_zeros()).saturating_sub(10);
    if whole & ((1 << exponent) - 1) != 0 {
        return None;
    }
    // A subnormal half has the exponent 0 like its smallest normal neighbour, whose hidden bit carries into the exponent.
    Some(sign | ((u64::from(exponent) << 10) + (whole >> exponent)) as u16)
}

fn half_value(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = bits >> 10 & 31;
    let fraction = f64::from(bits & 0x3ff);
    match exponent {
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        0 => sign * fraction / 16_777_216.0,
        _ => sign * (1024.0 + fraction) * f64::from(1u32 << exponent) / 33_554_432.0,
    }
}
