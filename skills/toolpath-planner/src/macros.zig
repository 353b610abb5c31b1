//! Extended commands of Klipper and its kin: a word and `NAME=value` pairs.

const std = @import("std");
const limits = @import("limits.zig");
const modal = @import("modal.zig");
const number = @import("number.zig");
const problems = @import("problems.zig");

/// Commands that move nothing: displays, objects, fans, timelapse. A name stands for all that start with it.
const harmless = [_][]const u8{
    "EXCLUDE_OBJECT",   "SET_PRESSURE_ADVANCE", "SET_PRINT_STATS_INFO", "SET_FAN_SPEED",       "SET_HEATER_TEMPERATURE",
    "SET_DISPLAY_TEXT", "SET_LED",              "SET_PIN",              "SET_RETRACTION",      "SET_TEMPERATURE_FAN_TARGET",
    "TEMPERATURE_WAIT", "TIMELAPSE_",           "RESPOND",              "STATUS_",             "TURN_OFF_HEATERS",
    "SAVE_GCODE_STATE", "BED_MESH_CLEAR",       "BED_MESH_PROFILE",     "SKEW_PROFILE",        "ACTIVATE_EXTRUDER",
    "SET_INPUT_SHAPER", "_ON_LAYER_CHANGE",     "ON_LAYER_CHANGE",      "SET_FILAMENT_SENSOR", "UPDATE_DELAYED_GCODE",
};

pub fn run(text: []const u8, line: u64) void {
    const end = std.mem.indexOfAny(u8, text, " \t;") orelse text.len;
    const name = text[0..end];
    if (modal.dialect != .marlin) {
        problems.add(line, .malformed_word, "expected a letter and a number, got ", name, "");
        return;
    }
    if (std.ascii.eqlIgnoreCase(name, "SET_VELOCITY_LIMIT")) return setVelocityLimit(text[end..]);
    for (harmless) |known| if (std.ascii.startsWithIgnoreCase(name, known)) return;
    problems.add(line, .unsupported_macro, "what this command does is not known: ", name, "");
}

/// SET_VELOCITY_LIMIT: VELOCITY in mm/s, ACCEL in mm/s², SQUARE_CORNER_VELOCITY in mm/s, which slicers take for jerk.
fn setVelocityLimit(parameters: []const u8) void {
    var pairs = std.mem.tokenizeAny(u8, parameters, " \t");
    while (pairs.next()) |pair| {
        const equals = std.mem.indexOfScalar(u8, pair, '=') orelse continue;
        const found = number.read(pair[equals + 1 ..]);
        if (found.len == 0 or !(found.value > 0)) continue;
        const key = pair[0..equals];
        if (std.ascii.eqlIgnoreCase(key, "ACCEL")) {
            limits.setAccel(found.value);
        } else if (std.ascii.eqlIgnoreCase(key, "VELOCITY")) {
            limits.axis_feed[limits.x] = found.value;
            limits.axis_feed[limits.y] = found.value;
        } else if (std.ascii.eqlIgnoreCase(key, "SQUARE_CORNER_VELOCITY")) {
            limits.jerk[limits.x] = found.value;
            limits.jerk[limits.y] = found.value;
        }
    }
}
