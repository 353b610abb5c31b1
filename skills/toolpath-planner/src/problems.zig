//! What is wrong with the program, by line. Only the first problems keep their words; all are counted.

const std = @import("std");
const sc = @import("snapcount");

pub const Code = enum {
    arc_radius,
    bad_checksum,
    line_too_long,
    malformed_word,
    motion_refused,
    motion_stopped,
    no_feed,
    safe_mode,
    unsupported_axis,
    unsupported_code,
    unsupported_expression,
    unsupported_macro,
    unsupported_o_word,
    unsupported_parameter,

    /// Whether something of the program was left out because of it.
    fn leavesOut(code: Code) bool {
        return switch (code) {
            // A wrong checksum is reported, but the line is read: files on disk are full of them.
            .bad_checksum => false,
            // The driver said no; the program itself was understood.
            .motion_refused, .motion_stopped, .safe_mode => false,
            else => true,
        };
    }
};

/// The contract's ceiling for the list.
pub const listed_max = 256;
const message_len_max = 128;
/// How much of a program's text a message quotes.
const quote_len_max = 64;

const Entry = struct {
    code: Code,
    line: u64,
    message: [message_len_max]u8,
    message_len: u8,
};

var entries: [listed_max]Entry = undefined;
var listed: usize = 0;
var total: u64 = 0;
var left_out = false;

pub fn reset() void {
    listed = 0;
    total = 0;
    left_out = false;
}

pub fn count() u64 {
    return total;
}

pub fn complete() bool {
    return !left_out;
}

/// Adds a problem. `before` and `after` are our words; `quoted` comes from the program and is sanitised.
pub fn add(line: u64, code: Code, before: []const u8, quoted: []const u8, after: []const u8) void {
    @branchHint(.cold);
    total += 1;
    left_out = left_out or code.leavesOut();
    if (listed == listed_max) return;
    const entry = &entries[listed];
    listed += 1;
    entry.code = code;
    entry.line = line;
    entry.message_len = 0;
    append(entry, before);
    for (quoted[0..@min(quoted.len, quote_len_max)]) |char| append(entry, if (std.ascii.isPrint(char)) &.{char} else "?");
    if (quoted.len > quote_len_max) append(entry, "...");
    append(entry, after);
}

/// A G or M code (times ten) that is not supported.
pub fn addCode(line: u64, letter: u8, code: u16) void {
    var buffer: [8]u8 = undefined;
    const name = if (code % 10 == 0)
        std.fmt.bufPrint(&buffer, "{c}{d}", .{ letter, code / 10 })
    else
        std.fmt.bufPrint(&buffer, "{c}{d}.{d}", .{ letter, code / 10, code % 10 });
    add(line, .unsupported_code, "not supported: ", name catch unreachable, "");
}

fn append(entry: *Entry, text: []const u8) void {
    const len = @min(text.len, message_len_max - entry.message_len);
    @memcpy(entry.message[entry.message_len..][0..len], text[0..len]);
    entry.message_len += @intCast(len);
}

/// The list for the report, in the arena.
pub fn list() error{OutOfMemory}![]const sc.contract.Problem {
    const out = try sc.allocator.alloc(sc.contract.Problem, listed);
    for (out, entries[0..listed]) |*problem, *entry| {
        problem.* = .{ .code = @tagName(entry.code), .line = entry.line, .message = entry.message[0..entry.message_len] };
    }
    return out;
}
