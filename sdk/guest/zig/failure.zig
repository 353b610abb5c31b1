//! What went wrong in a call, kept until the error reply is written.

const std = @import("std");
const contract = @import("contract.zig");

/// Bounds of the contract's error-reply.
const code_len_max = 64;
const message_len_max = 1024;

var code_buffer: [code_len_max]u8 = undefined;
var message_buffer: [message_len_max]u8 = undefined;
var pending: ?contract.ErrorReply = null;

pub const Failed = error{SkillFailed};

/// Remembers the reply and returns the error that ends the hook.
pub fn fail(code: []const u8, comptime format: []const u8, arguments: anytype) Failed {
    const kept = code[0..@min(code.len, code_len_max)];
    @memcpy(code_buffer[0..kept.len], kept);
    var writer: std.Io.Writer = .fixed(&message_buffer);
    // A message that is too long is cut: the fixed writer keeps what fits.
    writer.print(format, arguments) catch {};
    pending = .{ .code = code_buffer[0..kept.len], .message = wholeCharacters(writer.buffered()) };
    return error.SkillFailed;
}

/// Drops a character that the end of the buffer cut in two.
fn wholeCharacters(text: []const u8) []const u8 {
    if (text.len < message_len_max) return text;
    var len = text.len;
    while (len > 0 and text[len - 1] & 0xc0 == 0x80) len -= 1;
    return text[0..len -| 1];
}

/// The reply for an error that a hook returned: its own words if it used `fail`, else the error's name.
pub fn replyFor(err: anyerror) contract.ErrorReply {
    defer pending = null;
    if (err == error.SkillFailed) if (pending) |reply| return reply;
    const name = @errorName(err);
    return .{ .code = snakeCase(name), .message = name };
}

/// `OutOfMemory` becomes `out_of_memory`.
fn snakeCase(name: []const u8) []const u8 {
    var len: usize = 0;
    for (name, 0..) |char, i| {
        if (len + 2 > code_len_max) break;
        if (std.ascii.isUpper(char) and i > 0) {
            code_buffer[len] = '_';
            len += 1;
        }
        code_buffer[len] = std.ascii.toLower(char);
        len += 1;
    }
    return code_buffer[0..len];
}
