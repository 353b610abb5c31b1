//! `$` lines of Grbl: homing, and the settings that shape the motion.

const std = @import("std");
const limits = @import("limits.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const moves = @import("moves.zig");
const number = @import("number.zig");
const problems = @import("problems.zig");

const home: modal.Point = .{ 0, 0, 0 };

pub fn run(text: []const u8, line: u64) void {
    if (text.len > 1 and std.ascii.toLower(text[1]) == 'h') {
        moves.leap(&home);
        return machine.home(line);
    }
    if (text.len > 1 and std.ascii.toLower(text[1]) == 'j') {
        problems.add(line, .unsupported_code, "not supported: ", text[0..2], " (jogging)");
        return;
    }
    const name = number.read(text[1..]);
    const rest = text[1 + name.len ..];
    if (name.len == 0 or rest.len == 0 or rest[0] != '=') return;
    const value = number.read(rest[1..]);
    if (value.len == 0 or !(value.value > 0)) return;
    applySetting(name.value, value.value);
}

/// Grbl's settings by number: 11 junction deviation, 12 arc tolerance, 110–112 mm/min, 120–122 mm/s².
fn applySetting(name: f64, value: f64) void {
    if (name == 11) limits.setJunctionDeviation(value);
    if (name == 12) limits.arc_tolerance = value;
    inline for (0..3) |axis| {
        if (name == 110 + axis) limits.axis_feed[axis] = value / 60;
        if (name == 120 + axis) limits.axis_accel[axis] = value;
    }
}
