//! What holds from line to line: units, distance modes, plane, offsets, feed, position.
//!
//! Positions are kept in mm and in machine coordinates; offsets turn the program's numbers into them.

const sc = @import("snapcount");
const limits = @import("limits.zig");

pub const Point = sc.contract.Point;

const mm_per_inch = 25.4;

pub const Motion = enum { rapid, linear, clockwise, counterclockwise, cycle, none, unsupported };
pub const FeedMode = enum { per_minute, inverse_time };

/// Axes of a plane: first and second span it, the third is its normal (RS-274, section 3.5.2).
pub const Plane = struct { first: usize, second: usize, normal: usize };
pub const plane_xy: Plane = .{ .first = 0, .second = 1, .normal = 2 };
pub const plane_zx: Plane = .{ .first = 2, .second = 0, .normal = 1 };
pub const plane_yz: Plane = .{ .first = 1, .second = 2, .normal = 0 };

/// G60 S: Marlin's most.
const saved_count = 8;

/// G54 to G59.3.
const systems_count = 9;

pub var dialect: sc.contract.Dialect = undefined;
/// mm for each unit of the program's numbers.
pub var scale: f64 = undefined;
/// The unit of the first move; null until there is one.
pub var first_units: ?sc.contract.Units = undefined;
pub var relative: bool = undefined;
pub var relative_e: bool = undefined;
pub var absolute_centre: bool = undefined;
pub var plane: Plane = undefined;
pub var motion: Motion = undefined;
pub var feed_mode: FeedMode = undefined;
/// mm/s; null until the program states one.
pub var feed: ?f64 = undefined;
/// Inverse time (G93): how often a minute the move would fit.
pub var moves_per_minute: ?f64 = undefined;
/// M220, for the F words after it.
pub var feed_factor: f64 = undefined;
/// M220 B.
pub var feed_factor_saved: f64 = undefined;
/// Machine position, mm.
pub var position: Point = undefined;
/// Filament position as the program counts it, mm.
pub var filament: f64 = undefined;
/// M221.
pub var flow_factor: f64 = undefined;
/// mm of filament for each unit of an E word: 1, or less when E counts volume (M200).
pub var filament_scale: f64 = undefined;
pub var system: usize = undefined;
pub var systems: [systems_count]Point = undefined;
/// G92.
pub var shift: Point = undefined;
var shift_suspended: Point = undefined;
/// G52, or M206 with the opposite sign.
pub var local: Point = undefined;
/// G43.1: how much further down the tool's tip is.
pub var tool_length: f64 = undefined;
/// G60 on printers stores positions here.
pub var saved: [saved_count]Point = undefined;
/// G28 and G30 go here (RS-274); G28.1 and G30.1 store it.
pub var references: [2]Point = undefined;
/// M2 or M30 was read.
pub var ended: bool = undefined;

pub fn reset(as: sc.contract.Dialect, start: Point) void {
    dialect = as;
    scale = 1;
    first_units = null;
    relative = false;
    relative_e = false;
    absolute_centre = false;
    plane = plane_xy;
    motion = .rapid;
    feed_mode = .per_minute;
    feed = if (as == .marlin) limits.printer_first_feed else null;
    moves_per_minute = null;
    feed_factor = 1;
    position = start;
    filament = 0;
    filament_scale = 1;
    system = 0;
    systems = @splat(@splat(0));
    shift = @splat(0);
    shift_suspended = @splat(0);
    local = @splat(0);
    tool_length = 0;
    saved = @splat(start);
    flow_factor = 1;
    feed_factor_saved = 1;
    pushed = null;
    references = @splat(@splat(0));
    ended = false;
}

pub fn setInch(inch: bool) void {
    scale = if (inch) mm_per_inch else 1;
}

pub fn noteUnits() void {
    if (first_units == null) first_units = if (scale == 1) .mm else .inch;
}

/// Where the origin of the program's coordinates stands on an axis.
pub inline fn origin(axis: usize) f64 {
    const offset = systems[system][axis] + shift[axis] + local[axis];
    return if (axis == limits.z) offset + tool_length else offset;
}

/// The machine coordinate that an axis word names.
pub inline fn target(axis: usize, word: f64, in_machine: bool) f64 {
    const value = word * scale;
    if (in_machine) return value;
    return value + if (relative) position[axis] else origin(axis);
}

/// G92: the present position gets this name.
pub fn shiftTo(axis: usize, word: f64) void {
    shift[axis] += position[axis] - origin(axis) - word * scale;
}

/// G92.1 clears the shift for good, G92.2 until G92.3.
pub fn suspendShift(keep: bool) void {
    shift_suspended = if (keep) shift else @splat(0);
    shift = @splat(0);
}

pub fn restoreShift() void {
    shift = shift_suspended;
}

/// What M120 stores on RepRapFirmware.
const Pushed = struct { relative: bool, relative_e: bool, feed: ?f64, scale: f64 };
var pushed: ?Pushed = undefined;

pub fn push() void {
    pushed = .{ .relative = relative, .relative_e = relative_e, .feed = feed, .scale = scale };
}

/// Elsewhere M120 and M121 switch end stops, and no M120 comes before.
pub fn pop() void {
    const state = pushed orelse return;
    relative = state.relative;
    relative_e = state.relative_e;
    feed = state.feed;
    scale = state.scale;
    pushed = null;
}
