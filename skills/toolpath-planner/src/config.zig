//! What slicers write about the machine into comments: `; machine_max_acceleration_x = 4000,1000`.
//!
//! PrusaSlicer, SuperSlicer and OrcaSlicer put these lines at the end of a program, BambuStudio at its start. A list has one
//! value for each mode of the printer; the first is the normal one. What they mean for the limits is in slicer.zig.

const std = @import("std");
const number = @import("number.zig");

/// x, y, z, e.
pub const Values = [4]?f64;

pub const Flavour = enum { other, marlin, marlin2, klipper, reprapfirmware };
pub const Usage = enum { emit_to_gcode, time_estimate_only, unused };

/// A printer changes between at most this many filaments.
pub const filaments_max = 16;
pub const Seconds = [filaments_max]f64;

pub const Config = struct {
    /// The program has such a configuration.
    flavour: ?Flavour = null,
    /// Null: the slicer has no such choice, and its limits always count.
    usage: ?Usage = null,
    accel: Values = @splat(null),
    feed: Values = @splat(null),
    jerk: Values = @splat(null),
    accel_extruding: ?f64 = null,
    accel_retracting: ?f64 = null,
    accel_travel: ?f64 = null,
    feed_extruding_min: ?f64 = null,
    feed_travel_min: ?f64 = null,
    load_s: Seconds = @splat(0),
    unload_s: Seconds = @splat(0),
    tool_change_s: f64 = 0,
    prepare_s: ?f64 = null,

    /// Takes what stands in whole lines of `text`.
    pub fn read(self: *Config, text: []const u8) void {
        var lines = std.mem.tokenizeAny(u8, text, "\r\n");
        while (lines.next()) |line| {
            if (line[0] != ';') continue;
            const equals = std.mem.indexOfScalar(u8, line, '=') orelse continue;
            self.set(trimmed(line[1..equals]), trimmed(line[equals + 1 ..]));
        }
    }

    fn set(self: *Config, key: []const u8, value: []const u8) void {
        if (std.mem.eql(u8, key, "gcode_flavor")) {
            self.flavour = std.meta.stringToEnum(Flavour, value) orelse .other;
        } else if (std.mem.eql(u8, key, "machine_limits_usage")) {
            self.usage = std.meta.stringToEnum(Usage, value) orelse .unused;
        } else if (std.mem.startsWith(u8, key, "machine_")) {
            self.setMachine(key["machine_".len..], value);
        } else if (std.mem.eql(u8, key, "filament_load_time")) {
            setEach(&self.load_s, value);
        } else if (std.mem.eql(u8, key, "filament_unload_time")) {
            setEach(&self.unload_s, value);
        }
    }

    fn setMachine(self: *Config, key: []const u8, text: []const u8) void {
        const value = first(text) orelse return;
        inline for (.{ "max_acceleration_", "max_feedrate_", "max_speed_", "max_jerk_" }, .{ "accel", "feed", "feed", "jerk" }) |prefix, field| {
            if (std.mem.startsWith(u8, key, prefix) and key.len == prefix.len + 1) {
                if (std.mem.indexOfScalar(u8, "xyze", key[prefix.len])) |axis| @field(self, field)[axis] = value;
                return;
            }
        }
        const names = .{ "max_acceleration_extruding", "max_acceleration_retracting", "max_acceleration_travel", "min_extruding_rate", "min_travel_rate", "prepare_compensation_time" };
        const fields = .{ "accel_extruding", "accel_retracting", "accel_travel", "feed_extruding_min", "feed_travel_min", "prepare_s" };
        inline for (names, fields) |name, field| {
            if (std.mem.eql(u8, key, name)) @field(self, field) = value;
        }
        if (std.mem.eql(u8, key, "tool_change_time")) self.tool_change_s = value;
        // One time for all filaments.
        if (std.mem.eql(u8, key, "load_filament_time")) self.load_s = @splat(value);
        if (std.mem.eql(u8, key, "unload_filament_time")) self.unload_s = @splat(value);
    }
};

fn trimmed(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, " \t");
}

/// The first value of a list. Nothing that slicers write here is negative or astronomical.
fn first(text: []const u8) ?f64 {
    const found = number.read(text);
    if (found.len == 0 or !(found.value >= 0) or found.value > number.magnitude_max) return null;
    return found.value;
}

/// A list with one value for each filament; the first holds for those that have none.
fn setEach(seconds: *Seconds, text: []const u8) void {
    var values = std.mem.tokenizeScalar(u8, text, ',');
    seconds.* = @splat(first(text) orelse return);
    for (seconds) |*one| one.* = first(trimmed(values.next() orelse return)) orelse continue;
}
