//! One line of G-code as words: letters with numbers, without comments, checksum and line number.

const std = @import("std");
const number = @import("number.zig");

pub const Trouble = error{ Malformed, Parameter, Expression, OWord };

/// More G or M words than this on a line is a damaged line; RS-274 has 14 modal groups.
const codes_max = 16;

/// A G or M code times ten, so that G92.1 is 921.
pub const Code = u16;

pub const Line = struct {
    /// Which letters stand on the line, bit 0 for A.
    has: u32 = 0,
    /// Which of them have a number.
    valued: u32 = 0,
    value: [26]f64 = undefined,
    g_codes: [codes_max]Code = undefined,
    g_count: usize = 0,
    m_codes: [codes_max]Code = undefined,
    m_count: usize = 0,
    checksum_wrong: bool = false,
    /// What could not be read, for the message.
    trouble: []const u8 = "",
    /// Whether more words follow the O-word.
    followed: bool = false,

    pub inline fn get(self: *const Line, comptime letter: u8) ?f64 {
        return if (self.valued & bit(letter) != 0) self.value[letter - 'A'] else null;
    }

    pub inline fn hasLetter(self: *const Line, comptime letter: u8) bool {
        return self.has & bit(letter) != 0;
    }

    pub fn g(self: *const Line) []const Code {
        return self.g_codes[0..self.g_count];
    }

    pub fn m(self: *const Line) []const Code {
        return self.m_codes[0..self.m_count];
    }

    /// Reads `text`. `skipsParameters` says for which M codes the rest of the line is not words.
    pub fn read(self: *Line, text: []const u8, comptime skipsParameters: fn (code: Code) bool) Trouble!void {
        self.has = 0;
        self.valued = 0;
        self.g_count = 0;
        self.m_count = 0;
        self.checksum_wrong = false;
        var i: usize = 0;
        while (i < text.len) {
            const index = (text[i] | 0x20) -% 'a';
            if (index < 26) {
                const start = i;
                i += 1;
                while (i < text.len and isBlank(text[i])) i += 1;
                const found = number.read(text[i..]);
                i += found.len;
                if (index == 'O' - 'A') self.followed = hasCode(text[i..]);
                try self.add(index, found, text[start..i]);
                if (index == 'M' - 'A' and self.g_count == 0 and skipsParameters(self.m_codes[self.m_count - 1])) return;
                continue;
            }
            switch (text[i]) {
                ' ', '\t', 0 => i += 1,
                ';' => return,
                '(' => i = afterComment(text, i),
                '"' => i = afterString(text, i),
                '*' => return self.checksum(text, i),
                '#' => return self.fail(error.Parameter, text[i..]),
                '[', ']' => return self.fail(error.Expression, text[i..]),
                else => return self.fail(error.Malformed, text[i..]),
            }
        }
    }

    fn add(self: *Line, index: u8, found: number.Number, word: []const u8) Trouble!void {
        if (found.len > 0 and @abs(found.value) > number.magnitude_max) return self.fail(error.Malformed, word);
        switch (index) {
            'G' - 'A' => try self.addCode(&self.g_codes, &self.g_count, found, word),
            'M' - 'A' => try self.addCode(&self.m_codes, &self.m_count, found, word),
            // An O-word starts its line; elsewhere an O is a mistyped 0.
            'O' - 'A' => return self.fail(if (self.isEmpty()) error.OWord else error.Malformed, word),
            else => {
                const mask = @as(u32, 1) << @intCast(index);
                if (self.has & mask != 0) return self.fail(error.Malformed, word);
                self.has |= mask;
                if (found.len == 0) return;
                self.valued |= mask;
                self.value[index] = found.value;
            },
        }
    }

    /// Whether nothing but a line number was read so far.
    pub fn isEmpty(self: *const Line) bool {
        return self.has & ~bit('N') == 0 and self.g_count + self.m_count == 0;
    }

    fn addCode(self: *Line, codes: *[codes_max]Code, count: *usize, found: number.Number, word: []const u8) Trouble!void {
        const tenfold = found.value * 10;
        if (found.len == 0 or count.* == codes_max or tenfold < 0 or tenfold > std.math.maxInt(Code)) return self.fail(error.Malformed, word);
        codes[count.*] = @trunc(tenfold + 0.5);
        count.* += 1;
    }

    /// `*85` ends a line: the exclusive or of all bytes before it, as hosts send it with line numbers.
    fn checksum(self: *Line, text: []const u8, star: usize) Trouble!void {
        var expected: u8 = 0;
        for (text[0..star]) |char| expected ^= char;
        const stated = number.read(text[star + 1 ..]);
        if (stated.len == 0) return self.fail(error.Malformed, text[star..]);
        for (text[star + 1 + stated.len ..]) |char| {
            if (char == ';') break;
            if (!isBlank(char)) return self.fail(error.Malformed, text[star..]);
        }
        self.checksum_wrong = stated.value != @as(f64, @floatFromInt(expected));
    }

    fn fail(self: *Line, trouble: Trouble, text: []const u8) Trouble {
        @branchHint(.cold);
        self.trouble = text;
        return trouble;
    }
};

pub inline fn bit(comptime letter: u8) u32 {
    return 1 << (letter - 'A');
}

pub inline fn isBlank(char: u8) bool {
    // NUL pads some files; it means nothing.
    return char == ' ' or char == '\t' or char == 0;
}

/// Whether something other than comments follows.
fn hasCode(text: []const u8) bool {
    var i: usize = 0;
    while (i < text.len) {
        if (text[i] == ';') return false;
        if (text[i] == '(') {
            i = afterComment(text, i);
        } else if (isBlank(text[i])) {
            i += 1;
        } else return true;
    }
    return false;
}

/// A `(` comment ends at `)` or with the line.
fn afterComment(text: []const u8, from: usize) usize {
    const close = std.mem.indexOfScalarPos(u8, text, from, ')') orelse return text.len;
    return close + 1;
}

fn afterString(text: []const u8, from: usize) usize {
    const close = std.mem.indexOfScalarPos(u8, text, from + 1, '"') orelse return text.len;
    return close + 1;
}
