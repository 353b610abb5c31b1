//! Cuts a stream of chunks into lines. A chunk may end anywhere; the unfinished line waits here.
//!
//! A line ends with LF, CR or CRLF. Numbers count from 1. The result is the same however the stream was cut.

const std = @import("std");

/// Longest line that is kept whole. Slicers write whole configuration files into one comment, so the tail of a longer
/// comment is dropped in silence; a longer line of code is reported.
pub const line_bytes_max = 4096;

pub const Line = struct {
    text: []const u8,
    number: u64,
    too_long: bool,
};

var kept: [line_bytes_max]u8 = undefined;
var kept_len: usize = 0;
/// The unfinished line is longer than `kept`.
var overflow = false;
/// The last byte was a CR; an LF that follows belongs to the same line end.
var after_cr = false;
/// The unfinished line has at least one byte.
var started = false;
var count: u64 = 0;

/// Lines that have ended so far.
pub fn counted() u64 {
    return count;
}

pub fn reset() void {
    kept_len = 0;
    overflow = false;
    after_cr = false;
    started = false;
    count = 0;
}

/// Calls `handle` for each line that ends in `chunk`.
pub fn feed(chunk: []const u8, comptime handle: fn (Line) void) void {
    var rest = chunk;
    while (rest.len > 0) {
        if (after_cr) {
            after_cr = false;
            if (rest[0] == '\n') {
                rest = rest[1..];
                continue;
            }
        }
        const stop = lineEnd(rest) orelse return keep(rest);
        after_cr = rest[stop] == '\r';
        finish(rest[0..stop], handle);
        rest = rest[stop + 1 ..];
    }
}

/// Ends the stream: what waits is the last line.
pub fn end(comptime handle: fn (Line) void) void {
    if (started) finish("", handle);
}

fn finish(tail: []const u8, comptime handle: fn (Line) void) void {
    count += 1;
    if (!started) return handle(bounded(tail, false));
    keep(tail);
    const line = bounded(kept[0..kept_len], overflow);
    kept_len = 0;
    overflow = false;
    started = false;
    handle(line);
}

fn bounded(text: []const u8, cut: bool) Line {
    if (!cut and text.len <= line_bytes_max) return .{ .text = text, .number = count, .too_long = false };
    const head = text[0..@min(text.len, line_bytes_max)];
    const comment = std.mem.indexOfScalar(u8, head, ';') != null;
    return .{ .text = head, .number = count, .too_long = !comment };
}

fn keep(part: []const u8) void {
    const room = line_bytes_max - kept_len;
    const taken = @min(part.len, room);
    @memcpy(kept[kept_len..][0..taken], part[0..taken]);
    kept_len += taken;
    overflow = overflow or taken < part.len;
    started = started or part.len > 0;
}

/// Finds the first CR or LF, eight bytes at a time: a byte equals c exactly if (byte ^ c) is zero, and
/// (x - 0x01…) & ~x & 0x80… marks the lowest zero byte (Hacker's Delight, section 6-1).
fn lineEnd(text: []const u8) ?usize {
    const ones: u64 = 0x0101010101010101;
    var i: usize = 0;
    while (i + 8 <= text.len) : (i += 8) {
        const word = std.mem.readInt(u64, text[i..][0..8], .little);
        const lf = word ^ ones * '\n';
        const cr = word ^ ones * '\r';
        const found = ((lf -% ones) & ~lf | (cr -% ones) & ~cr) & ones * 0x80;
        if (found != 0) return i + @ctz(found) / 8;
    }
    while (i < text.len) : (i += 1) {
        if (text[i] == '\n' or text[i] == '\r') return i;
    }
    return null;
}
