//! How fast a move may be, and how fast it may be entered from the move before it.
//!
//! Two rules exist. Classic jerk (Marlin, and the slicers that estimate for it): each axis may change its speed by so
//! much at once. Junction deviation (Grbl, LinuxCNC, Marlin on request): the corner is taken like the arc that stays
//! within a given distance of it, at the speed whose centripetal acceleration the axes can bear.

const std = @import("std");
const limits = @import("limits.zig");

const Axes = limits.Axes;

pub const Corner = struct {
    cruise: f64,
    accel: f64,
    /// Greatest speed at the start of the move.
    entry: f64,
    /// Speed at which the move may end if the machine stops behind it.
    stop: f64,
};

/// The move before: its direction, the speed of each axis, its speed and the speed at which it may stop.
var previous_unit: Axes = undefined;
var previous_speed: Axes = undefined;
var previous_cruise: f64 = 0;
var previous_stop: f64 = 0;

/// Cosines beyond this are a straight line or a full reversal (Grbl's planner uses the same bound).
const cosine_max = 0.999999;

/// PrusaSlicer's rule of thumb: if both moves may start and stop about as fast as the corner, they do just that.
const coasting_share = 0.99;

/// The machine stands: nothing to corner from.
pub fn stop() void {
    previous_cruise = 0;
}

pub fn enter(delta: *const Axes, distance: f64, wanted: f64, from_rest: bool) Corner {
    const inverse = 1 / distance;
    var unit: Axes = undefined;
    inline for (0..limits.axis_count) |axis| unit[axis] = delta[axis] * inverse;

    const cruise = cruiseSpeed(&unit, wanted);
    const accel = limitByAxes(kindAccel(delta), &limits.axis_accel, &unit);
    var corner: Corner = .{ .cruise = cruise, .accel = accel, .entry = 0, .stop = 0 };
    if (limits.junction_deviation) |deviation| {
        if (!from_rest) corner.entry = @min(deviationSpeed(&unit, kindAccel(delta), deviation), @min(cruise, previous_cruise));
    } else {
        classicJerk(&corner, &unit, from_rest);
    }
    previous_unit = unit;
    previous_cruise = cruise;
    previous_stop = corner.stop;
    return corner;
}

/// The speed that a move reaches if it is long enough.
pub fn cruiseFor(delta: *const Axes, distance: f64, wanted: f64) f64 {
    var unit: Axes = undefined;
    inline for (0..limits.axis_count) |axis| unit[axis] = delta[axis] / distance;
    return cruiseSpeed(&unit, wanted);
}

fn cruiseSpeed(unit: *const Axes, wanted: f64) f64 {
    const least = if (unit[limits.e] == 0) limits.feed_travel_min else limits.feed_print_min;
    return limitByAxes(@min(@max(wanted, least), limits.feed_ceiling), &limits.axis_feed, unit);
}

/// Marlin's choice: filament alone retracts, a move without filament travels, everything else prints.
fn kindAccel(delta: *const Axes) f64 {
    if (delta[limits.e] == 0) return limits.accel_travel;
    const alone = delta[limits.x] == 0 and delta[limits.y] == 0 and delta[limits.z] == 0;
    return if (alone) limits.accel_retract else limits.accel_print;
}

/// The greatest value along a direction that no axis exceeds its maximum with. A maximum of 0 is none.
fn limitByAxes(value: f64, maxima: *const Axes, unit: *const Axes) f64 {
    var limited = value;
    inline for (0..limits.axis_count) |axis| {
        const share = @abs(unit[axis]);
        if (limited * share > maxima[axis] and maxima[axis] > 0) limited = maxima[axis] / share;
    }
    return limited;
}

/// Speed of the corner by junction deviation: v² = a·d·sin(θ/2) / (1 − sin(θ/2)), θ the angle between the moves.
fn deviationSpeed(unit: *const Axes, kind_accel: f64, deviation: f64) f64 {
    var cosine: f64 = 0;
    inline for (0..limits.axis_count) |axis| cosine -= previous_unit[axis] * unit[axis];
    if (cosine > cosine_max) return 0;
    if (cosine < -cosine_max) return std.math.inf(f64);
    var direction: Axes = undefined;
    var square: f64 = 0;
    inline for (0..limits.axis_count) |axis| {
        direction[axis] = unit[axis] - previous_unit[axis];
        square += direction[axis] * direction[axis];
    }
    const inverse = 1 / @sqrt(square);
    inline for (0..limits.axis_count) |axis| direction[axis] *= inverse;
    const accel = limitByAxes(kind_accel, &limits.axis_accel, &direction);
    const sine = @sqrt(0.5 * (1 - cosine));
    return @sqrt(accel * deviation * sine / (1 - sine));
}

fn classicJerk(corner: *Corner, unit: *const Axes, from_rest: bool) void {
    var speed: Axes = undefined;
    corner.stop = corner.cruise;
    inline for (0..limits.axis_count) |axis| {
        speed[axis] = corner.cruise * unit[axis];
        if (@abs(speed[axis]) > limits.jerk[axis]) corner.stop = @min(corner.stop, limits.jerk[axis]);
    }
    corner.entry = if (from_rest or previous_cruise == 0) corner.stop else jerkSpeed(corner, &speed);
    previous_speed = speed;
}

/// Both moves meet at the slower one's speed, scaled down until no axis jumps by more than its jerk. An axis that
/// reverses stops in between, so only the larger of its two speeds counts.
fn jerkSpeed(corner: *const Corner, speed: *const Axes) f64 {
    const slows = previous_cruise > corner.cruise;
    const meeting = if (slows) corner.cruise else previous_cruise;
    const exit_scale = if (slows) corner.cruise / previous_cruise else 1;
    var factor: f64 = 1;
    inline for (0..limits.axis_count) |axis| {
        const exit = previous_speed[axis] * exit_scale * factor;
        const entry = speed[axis] * factor;
        const jump = if (exit * entry > 0) @abs(exit - entry) else @max(@abs(exit), @abs(entry));
        if (jump > limits.jerk[axis]) factor *= limits.jerk[axis] / jump;
    }
    const shared = meeting * factor;
    if (previous_stop > shared * coasting_share and corner.stop > shared * coasting_share) return corner.stop;
    return shared;
}
