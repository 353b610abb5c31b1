//! What the machine can do: the limits that the program states, those of the caller, and defaults for the rest.

const std = @import("std");
const sc = @import("snapcount");
const families = @import("dialect.zig");

pub const axis_count = 4;
pub const x = 0;
pub const y = 1;
pub const z = 2;
pub const e = 3;
pub const Axes = [axis_count]f64;

pub const inf = std.math.inf(f64);

/// What a Marlin-family printer is taken for until the program states its limits: the defaults of PrusaSlicer's
/// machine limits page (mm/s², mm/s). A filament axis is limited like any other.
const printer = struct {
    const axis_accel: Axes = .{ 9000, 9000, 500, 10000 };
    const axis_feed: Axes = .{ 500, 500, 12, 120 };
    const jerk: Axes = .{ 10, 10, 0.2, 2.5 };
};
pub const printer_accel: f64 = 1500;

/// What a Grbl or RS-274 machine is taken for: a hobby router. Its axis maxima stand in `$110`–`$122` on the controller,
/// seldom in a program.
const router = struct {
    const axis_accel: f64 = 500;
    const axis_feed: f64 = 5000.0 / 60.0;
    /// Grbl's `$11`, mm.
    const junction_deviation: f64 = 0.01;
    /// Grbl's `$12`, mm.
    const arc_tolerance: f64 = 0.002;
};

/// Marlin's feed rate until the first F word, mm/s (1500 mm/min).
pub const printer_first_feed: f64 = 25;

/// PrusaSlicer's chord error for arcs in its estimate, mm.
const printer_arc_tolerance: f64 = 0.0125;

/// How many moves a plan reaches ahead: Grbl keeps 16, of which one is always free and one is being run; slicers plan with
/// 64; LinuxCNC holds thousands, of which more than these seldom matter.
const router_lookahead = 14;
const printer_lookahead = 64;
const rs274_lookahead = 128;

/// Greatest acceleration and speed of each axis, mm/s² and mm/s.
pub var axis_accel: Axes = undefined;
pub var axis_feed: Axes = undefined;
/// Classic jerk: the change of speed an axis makes at once, mm/s.
pub var jerk: Axes = undefined;
/// Acceleration of the move itself by kind, before its axes limit it.
pub var accel_print: f64 = undefined;
pub var accel_travel: f64 = undefined;
pub var accel_retract: f64 = undefined;
/// What M204 cannot exceed: the slicer's estimate clamps it to the limits of its configuration.
pub var accel_print_max: f64 = undefined;
pub var accel_travel_max: f64 = undefined;
pub var accel_retract_max: f64 = undefined;
/// Least speeds that M205 S and T state.
pub var feed_print_min: f64 = undefined;
pub var feed_travel_min: f64 = undefined;
/// Cornering by junction deviation instead of jerk, mm.
pub var junction_deviation: ?f64 = undefined;
/// Jerk counts the change of direction, and curves are slowed by their centripetal acceleration.
pub var direction_jerk: bool = undefined;
/// The caller's ceiling for every move, mm/s.
pub var feed_ceiling: f64 = undefined;
/// How far the segments of an arc may stand off the arc in the estimate, mm.
pub var arc_tolerance: f64 = undefined;
/// How many moves the machine plans ahead.
pub var lookahead: usize = undefined;
/// The limits came from a slicer's configuration.
var configured: bool = undefined;
/// The caller's junction deviation wins over the program's cornering.
var cornering_fixed: bool = undefined;

pub fn reset(as: families.Family, settings: sc.contract.PlanSettings) void {
    const dialect = as.dialect;
    direction_jerk = as.hasDirectionJerk();
    feed_print_min = 0;
    feed_travel_min = 0;
    accel_print_max = inf;
    accel_travel_max = inf;
    accel_retract_max = inf;
    configured = false;
    feed_ceiling = if (settings.feed_max_mm_min) |feed| feed / 60 else inf;
    if (dialect == .marlin) resetPrinter(settings.accel_mm_s2) else resetRouter(settings, dialect);
    cornering_fixed = settings.junction_deviation_mm != null;
    if (settings.junction_deviation_mm) |deviation| junction_deviation = deviation;
}

fn resetPrinter(accel: ?f64) void {
    axis_accel = printer.axis_accel;
    axis_feed = printer.axis_feed;
    jerk = printer.jerk;
    setAccel(accel orelse printer_accel);
    // A caller who states a high acceleration means the machine has it.
    for (axis_accel[x .. y + 1]) |*limit| limit.* = @max(limit.*, accel orelse 0);
    junction_deviation = null;
    arc_tolerance = printer_arc_tolerance;
    lookahead = printer_lookahead;
}

fn resetRouter(settings: sc.contract.PlanSettings, dialect: sc.contract.Dialect) void {
    axis_accel = @splat(settings.accel_mm_s2 orelse router.axis_accel);
    // Without its own maxima the machine is as fast as the caller's ceiling lets it be.
    axis_feed = @splat(if (settings.feed_max_mm_min) |feed| feed / 60 else router.axis_feed);
    jerk = @splat(0);
    // A router has one acceleration for each axis and none for the move.
    setAccel(inf);
    junction_deviation = router.junction_deviation;
    arc_tolerance = router.arc_tolerance;
    lookahead = if (dialect == .grbl) router_lookahead else rs274_lookahead;
}

/// The defaults of a slicer whose configuration the program carries: they take the place of the caller's.
pub fn resetToPrinter() void {
    configured = true;
    axis_accel = printer.axis_accel;
    axis_feed = printer.axis_feed;
    jerk = printer.jerk;
    accel_print_max = printer_accel;
    accel_retract_max = printer_accel;
}

pub fn setAccel(accel: f64) void {
    setPrintAccel(accel);
    setTravelAccel(accel);
    setRetractAccel(accel);
}

pub fn setPrintAccel(accel: f64) void {
    accel_print = @min(accel, accel_print_max);
}

pub fn setTravelAccel(accel: f64) void {
    accel_travel = @min(accel, accel_travel_max);
}

pub fn setRetractAccel(accel: f64) void {
    accel_retract = @min(accel, accel_retract_max);
}

/// Prusa's MK3 printers keep their limits in the firmware; their programs only name the model. PrusaSlicer's profile.
const mk3 = struct {
    const axis_accel: Axes = .{ 1000, 1000, 200, 5000 };
    const axis_feed: Axes = .{ 200, 200, 12, 120 };
    const jerk: Axes = .{ 8, 8, 0.4, 4.5 };
    const accel: f64 = 1250;
};

/// The printer is one of Prusa's MK3 family, which says nothing new where a slicer's configuration was found.
pub fn usePrusaMk3() void {
    if (configured) return;
    axis_accel = mk3.axis_accel;
    axis_feed = mk3.axis_feed;
    jerk = mk3.jerk;
    setAccel(mk3.accel);
}

/// M205 J: the program's own junction deviation. 0 keeps classic jerk.
pub fn setJunctionDeviation(deviation: f64) void {
    if (!cornering_fixed) junction_deviation = if (deviation > 0) deviation else null;
}
