//! Reads the program line by line and does what each line says: the part that knows comments, extended commands,
//! `$` lines and damage. What a G or M code does is in gcodes.zig and mcodes.zig.

const std = @import("std");
const gcodes = @import("gcodes.zig");
const limits = @import("limits.zig");
const lines = @import("lines.zig");
const macros = @import("macros.zig");
const mcodes = @import("mcodes.zig");
const modal = @import("modal.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const settings = @import("settings.zig");
const tools = @import("tools.zig");
const words = @import("words.zig");

var code: words.Line = .{};
/// Nothing but comments and program marks was read so far.
var at_head = true;

pub fn reset() void {
    at_head = true;
}

pub fn run(line: lines.Line) void {
    if (modal.ended) return;
    var text = line.text;
    // A byte order mark, which editors on Windows put first.
    if (line.number == 1 and std.mem.startsWith(u8, text, "\xef\xbb\xbf")) text = text[3..];
    while (text.len > 0 and words.isBlank(text[0])) text = text[1..];
    if (text.len == 0 or text[0] == ';') return;
    if (line.too_long) {
        problems.add(line.number, .line_too_long, "expected at most 4096 bytes of code, starts with ", text[0..@min(text.len, 24)], "");
        return;
    }
    switch (text[0]) {
        '%' => return,
        '$' => return settings.run(text, line.number),
        // Optional lines are run: the switch that skips them is off, as on Grbl.
        '/' => text = text[1..],
        else => {},
    }
    noteModel(text);
    if (isToolName(text)) return;
    if (isExtended(text)) return macros.run(text, line.number);
    runCode(text, line.number);
    at_head = false;
}

/// Two letters at the start are a word, not a code: `START_PRINT`, `EXCLUDE_OBJECT NAME=…`.
fn isExtended(text: []const u8) bool {
    return text.len > 1 and std.ascii.isAlphabetic(text[0]) and (std.ascii.isAlphabetic(text[1]) or text[1] == '_');
}

/// M862.3 P "MK3S": the printer that the program is made for.
fn noteModel(text: []const u8) void {
    if (std.mem.startsWith(u8, text, "M862.3") and std.mem.indexOf(u8, text, "MK3") != null) limits.usePrusaMk3();
}

/// Prusa's multi-material printers choose a tool by name: Tx, Tc, T?.
fn isToolName(text: []const u8) bool {
    if (modal.dialect != .marlin or text.len < 2 or std.ascii.toUpper(text[0]) != 'T') return false;
    if (text.len > 2 and !words.isBlank(text[2]) and text[2] != ';') return false;
    return std.mem.indexOfScalar(u8, "xXcC?", text[1]) != null;
}

fn runCode(text: []const u8, line: u64) void {
    code.read(text, mcodes.skipsParameters) catch |trouble| return report(trouble, line);
    if (code.checksum_wrong) problems.add(line, .bad_checksum, "the checksum does not match; the line was read anyway", "", "");
    if (modal.dialect == .marlin and code.hasLetter('T') and code.g_count + code.m_count == 0) return tools.change(code.get('T'));
    const bare = code.has & ~code.valued;
    if (bare != 0 and !mcodes.allowsBareLetters(&code)) {
        const letter: u8 = 'A' + @as(u8, @ctz(bare));
        problems.add(line, .malformed_word, "expected a number after ", &.{letter}, "");
        return;
    }
    if (modal.dialect == .marlin and code.m_count > 0 and code.g_count == 0) return mcodes.runAll(&code, line);
    gcodes.run(&code, line);
}

fn report(trouble: words.Trouble, line: u64) void {
    switch (trouble) {
        error.Malformed => problems.add(line, .malformed_word, "cannot be read: ", code.trouble, ""),
        error.Parameter => problems.add(line, .unsupported_parameter, "parameters are not supported: ", code.trouble, ""),
        error.Expression => problems.add(line, .unsupported_expression, "expressions are not supported: ", code.trouble, ""),
        error.OWord => {
            // A program's number stands alone before everything else.
            if (at_head and code.trouble.len > 1 and !code.followed) return;
            problems.add(line, .unsupported_o_word, "O-words are not supported: ", code.trouble, "");
        },
    }
}
