//! How slicers turn the limits of their configuration into those of their time estimate.
//!
//! | | limits count | acceleration of travel |
//! |---|---|---|
//! | PrusaSlicer, SuperSlicer | unless machine_limits_usage says otherwise | marlin2, reprapfirmware: its own; else 1,250 |
//! | PrusaSlicer since 2.6 | the same, and for klipper | its own only with emit_to_gcode; else 1,250 |
//! | OrcaSlicer | always | marlin2, reprapfirmware: its own; else 1,250 |
//! | BambuStudio | always | marlin: that of printing; else its own |
//!
//! A limit that does not count is its default. What the program states by M codes is kept below the accelerations here.

const config = @import("config.zig");
const families = @import("dialect.zig");
const limits = @import("limits.zig");

const Config = config.Config;

/// Acceleration of travel where the configuration has none, mm/s².
const accel_travel_default = 1250;

/// Called between the limits' defaults and the first line of the program.
pub fn apply(found: *const Config, as: families.Family) void {
    if (as.dialect != .marlin) return;
    // Keys are in alphabetical order: of a long configuration the tail may begin behind the flavour.
    const flavour = found.flavour orelse if (found.accel_extruding != null) .marlin2 else return;
    limits.resetToPrinter();
    const used = flavour != .other and (found.usage orelse .emit_to_gcode) != .unused;
    if (used) take(found, flavour);
    const own = if (used) found.accel_travel orelse limits.printer_accel else limits.printer_accel;
    if (as.slicer == .bambu) {
        limits.accel_travel_max = positive(if (flavour == .marlin) limits.accel_print_max else own);
    } else {
        const separate = flavour == .marlin2 or flavour == .reprapfirmware;
        const emitted = as.slicer != .prusa_new or found.usage == .emit_to_gcode;
        limits.accel_travel_max = if (separate and emitted) positive(own) else limits.inf;
    }
    start();
}

fn take(found: *const Config, flavour: config.Flavour) void {
    inline for (0..limits.axis_count) |axis| {
        if (found.accel[axis]) |value| limits.axis_accel[axis] = value;
        if (found.feed[axis]) |value| limits.axis_feed[axis] = value;
        if (found.jerk[axis]) |value| limits.jerk[axis] = value;
    }
    if (found.accel_extruding) |value| limits.accel_print_max = positive(value);
    if (found.accel_retracting) |value| limits.accel_retract_max = positive(value);
    // RepRapFirmware has no least speeds.
    if (flavour == .reprapfirmware) return;
    if (found.feed_extruding_min) |value| limits.feed_print_min = value;
    if (found.feed_travel_min) |value| limits.feed_travel_min = value;
}

/// Until an M code states an acceleration it is the greatest there is.
fn start() void {
    limits.accel_print = orDefault(limits.accel_print_max, limits.printer_accel);
    limits.accel_retract = orDefault(limits.accel_retract_max, limits.printer_accel);
    limits.accel_travel = orDefault(limits.accel_travel_max, accel_travel_default);
}

fn orDefault(maximum: f64, default: f64) f64 {
    return if (maximum == limits.inf) default else maximum;
}

/// A limit of 0 is none.
fn positive(value: f64) f64 {
    return if (value > 0) value else limits.inf;
}
