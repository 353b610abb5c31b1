//! Half-precision floats (f16, RFC 8949 §3.3), by hand, so that no soft-float routine is linked.

const std = @import("std");

/// The bits of the f16 that equals `value`, if there is one. `value` is not NaN.
pub fn bitsOf(value: f32) ?u16 {
    const bits: u32 = @bitCast(value);
    const sign: u16 = @intCast(bits >> 16 & 0x8000);
    const exponent = bits >> 23 & 0xff;
    const mantissa = bits & 0x7f_ffff;
    if (exponent == 0 and mantissa == 0) return sign;
    if (exponent == 0xff) return sign | 0x7c00; // infinity
    // The exponent of f32 is biased by 127, that of f16 by 15 with subnormals below 2^-14.
    if (exponent >= 113 and exponent <= 142) {
        if (mantissa & 0x1fff != 0) return null;
        return sign | @as(u16, @intCast((exponent - 112) << 10 | mantissa >> 13));
    }
    if (exponent >= 103 and exponent < 113) {
        const shift: u5 = @intCast(126 - exponent);
        const whole = mantissa | 0x80_0000;
        if (whole & ((@as(u32, 1) << shift) - 1) != 0) return null;
        return sign | @as(u16, @intCast(whole >> shift));
    }
    return null;
}

pub fn valueOf(bits: u16) f64 {
    const sign: f64 = if (bits & 0x8000 != 0) -1 else 1;
    const exponent = bits >> 10 & 31;
    const mantissa: f64 = @floatFromInt(bits & 0x3ff);
    if (exponent == 31) return if (mantissa == 0) sign * std.math.inf(f64) else std.math.nan(f64);
    if (exponent == 0) return sign * mantissa * 0x1p-24;
    const scale: f64 = @bitCast(@as(u64, exponent + (1023 - 15)) << 52);
    return sign * scale * (1 + mantissa * 0x1p-10);
}
