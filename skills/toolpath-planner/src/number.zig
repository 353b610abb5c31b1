//! Decimal numbers as G-code writes them: `10`, `-.5`, `+5.`, `0.20`. There is no exponent: in `X1E5` the E is the
//! next word.

/// No machine is a million kilometres long; a larger number is a damaged line. Also keeps all arithmetic finite.
pub const magnitude_max = 1e12;

/// Digits that a 64-bit mantissa always holds.
const mantissa_digits_max = 18;

const powers_of_ten = blk: {
    var table: [mantissa_digits_max + 1]f64 = undefined;
    var power: f64 = 1;
    for (&table) |*entry| {
        entry.* = power;
        power *= 10;
    }
    break :blk table;
};

pub const Number = struct {
    value: f64,
    /// How many bytes it took; 0 when there is no number.
    len: usize,
};

/// Reads the number at the start of `text`.
pub inline fn read(text: []const u8) Number {
    var i: usize = 0;
    var negative = false;
    if (i < text.len and (text[i] == '-' or text[i] == '+')) {
        negative = text[i] == '-';
        i += 1;
    }
    var mantissa: u64 = 0;
    const digits_from = i;
    while (i < text.len and text[i] -% '0' < 10) : (i += 1) mantissa = mantissa *% 10 +% (text[i] - '0');
    var digits = i - digits_from;
    var fraction: usize = 0;
    if (i < text.len and text[i] == '.') {
        i += 1;
        const fraction_from = i;
        while (i < text.len and text[i] -% '0' < 10) : (i += 1) mantissa = mantissa *% 10 +% (text[i] - '0');
        fraction = i - fraction_from;
        digits += fraction;
    }
    if (digits == 0) return .{ .value = 0, .len = 0 };
    if (digits > mantissa_digits_max) return readLong(text, i);
    // One correctly rounded division of two exact numbers gives the nearest double for up to 15 digits.
    const magnitude = @as(f64, @floatFromInt(mantissa)) / powers_of_ten[fraction];
    return .{ .value = if (negative) -magnitude else magnitude, .len = i };
}

/// A number with more digits than a mantissa holds; rare, so it may be slow.
fn readLong(text: []const u8, len: usize) Number {
    @branchHint(.cold);
    var value: f64 = 0;
    // The weight of a digit behind the point; so small in the end that it adds nothing.
    var weight: f64 = 1;
    var fraction = false;
    for (text[0..len]) |char| {
        if (char == '.') fraction = true;
        if (char -% '0' >= 10) continue;
        const digit: f64 = @floatFromInt(char - '0');
        if (fraction) {
            weight /= 10;
            value += digit * weight;
        } else {
            value = @min(value * 10 + digit, magnitude_max * 10);
        }
    }
    return .{ .value = if (text[0] == '-') -value else value, .len = len };
}
