//! How fast a move may be, and how fast it may be entered from the move before it.
//!
//! Three rules exist. Classic jerk (Marlin, and the slicers that estimate for it): each axis may change its speed by so
//! much at once. Junction deviation (Grbl, LinuxCNC, Marlin on request): the corner is taken like the arc that stays
//! within a given distance of it, at the speed whose centripetal acceleration the axes can bear. Direction jerk
//! (BambuStudio and its kin): like classic jerk for one speed before and behind the corner, but a reversing axis counts
//! twice, the filament not at all, and gentle curves are slowed by their centripetal acceleration.

const std = @import("std");
const limits = @import("limits.zig");

const Axes = limits.Axes;
const inf = std.math.inf(f64);

pub const Corner = struct {
    cruise: f64,
    accel: f64,
    /// Greatest speed at the start of the move.
    entry: f64,
    /// Speed at which the move may end if the machine stops behind it.
    stop: f64,
};

/// The move before: its direction at the end, its speed, and the speed at which it may stop.
var previous_unit: Axes = undefined;
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

/// Directions of a move, as unit vectors of all axes. A straight move has one; a piece of an arc turns.
pub const Path = struct {
    into: Axes,
    along: Axes,
    out: Axes,
    /// Continues the piece before without a corner.
    smooth: bool = false,

    pub fn straight(delta: *const Axes, distance: f64) Path {
        const inverse = 1 / distance;
        var unit: Axes = undefined;
        inline for (0..limits.axis_count) |axis| unit[axis] = delta[axis] * inverse;
        return .{ .into = unit, .along = unit, .out = unit };
    }
};

pub fn enter(path: *const Path, distance: f64, wanted: f64, from_rest: bool) Corner {
    const kind_accel = kindAccel(&path.along);
    const curve = if (limits.direction_jerk and !path.smooth) curveSpeed(distance, &path.into, kind_accel) else inf;
    const cruise = cruiseSpeed(&path.along, @min(wanted, curve));
    var corner: Corner = .{ .cruise = cruise, .accel = limitByAxes(kind_accel, &limits.axis_accel, &path.along), .entry = 0, .stop = 0 };
    if (limits.junction_deviation == null) corner.stop = jerkStop(cruise, &path.along);
    if (from_rest or previous_cruise == 0) {
        corner.entry = corner.stop;
    } else if (path.smooth) {
        corner.entry = @min(cruise, previous_cruise);
    } else {
        corner.entry = junction(&corner, path, kind_accel);
    }
    previous_unit = path.out;
    previous_cruise = cruise;
    previous_stop = corner.stop;
    return corner;
}

fn junction(corner: *const Corner, path: *const Path, kind_accel: f64) f64 {
    if (limits.junction_deviation) |deviation| {
        return @min(deviationSpeed(&previous_unit, &path.into, kind_accel, deviation), @min(corner.cruise, previous_cruise));
    }
    const shared = if (limits.direction_jerk) directionSpeed(corner, &path.into) else jerkSpeed(corner, &path.into);
    // Not worth keeping up the speed: stop and start again.
    if (previous_stop > shared * coasting_share and corner.stop > shared * coasting_share) return corner.stop;
    return shared;
}

/// The acceleration that a move in this direction has.
pub fn accelAlong(unit: *const Axes) f64 {
    return limitByAxes(kindAccel(unit), &limits.axis_accel, unit);
}

/// The greatest speed through the bend between two segments of an arc.
pub fn bendSpeed(from: *const Axes, to: *const Axes) f64 {
    if (limits.junction_deviation) |deviation| return deviationSpeed(from, to, kindAccel(to), deviation);
    var speed = inf;
    inline for (0..limits.e) |axis| {
        const turned = @abs(to[axis] - from[axis]);
        if (speed * turned > limits.jerk[axis]) speed = limits.jerk[axis] / turned;
    }
    return speed;
}

/// The greatest speed on a circle where the slicer's rule bounds its centripetal acceleration.
pub fn circleSpeed(radius: f64, along: *const Axes) f64 {
    return if (limits.direction_jerk) @sqrt(kindAccel(along) * radius) else inf;
}

/// The speed that a move reaches if it is long enough.
pub fn cruiseFor(delta: *const Axes, distance: f64, wanted: f64) f64 {
    return cruiseSpeed(&Path.straight(delta, distance).along, wanted);
}

fn cruiseSpeed(unit: *const Axes, wanted: f64) f64 {
    const least = if (unit[limits.e] == 0) limits.feed_travel_min else limits.feed_print_min;
    return limitByAxes(@min(@max(wanted, least), limits.feed_ceiling), &limits.axis_feed, unit);
}

/// Marlin's choice: filament alone retracts, a move without filament travels, everything else prints.
fn kindAccel(unit: *const Axes) f64 {
    if (unit[limits.e] == 0) return limits.accel_travel;
    const alone = unit[limits.x] == 0 and unit[limits.y] == 0 and unit[limits.z] == 0;
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
fn deviationSpeed(from: *const Axes, to: *const Axes, kind_accel: f64, deviation: f64) f64 {
    var cosine: f64 = 0;
    inline for (0..limits.axis_count) |axis| cosine -= from[axis] * to[axis];
    if (cosine > cosine_max) return 0;
    if (cosine < -cosine_max) return inf;
    var direction: Axes = undefined;
    var square: f64 = 0;
    inline for (0..limits.axis_count) |axis| {
        direction[axis] = to[axis] - from[axis];
        square += direction[axis] * direction[axis];
    }
    const inverse = 1 / @sqrt(square);
    inline for (0..limits.axis_count) |axis| direction[axis] *= inverse;
    const accel = limitByAxes(kind_accel, &limits.axis_accel, &direction);
    const sine = @sqrt(0.5 * (1 - cosine));
    return @sqrt(accel * deviation * sine / (1 - sine));
}

/// Speed at which a move may start or end at rest: its own, unless an axis would jump; then the least jerk of those.
fn jerkStop(cruise: f64, unit: *const Axes) f64 {
    var stop_speed = cruise;
    inline for (0..limits.axis_count) |axis| {
        if (@abs(cruise * unit[axis]) > limits.jerk[axis]) stop_speed = @min(stop_speed, limits.jerk[axis]);
    }
    return stop_speed;
}

/// Both moves meet at the slower one's speed, scaled down until no axis jumps by more than its jerk. An axis that
/// reverses stops in between, so only the larger of its two speeds counts.
fn jerkSpeed(corner: *const Corner, unit: *const Axes) f64 {
    const meeting = @min(previous_cruise, corner.cruise);
    var factor: f64 = 1;
    inline for (0..limits.axis_count) |axis| {
        const exit = previous_unit[axis] * meeting * factor;
        const entry = unit[axis] * corner.cruise * factor;
        const jump = if (exit * entry > 0) @abs(exit - entry) else @max(@abs(exit), @abs(entry));
        if (jump > limits.jerk[axis]) factor *= limits.jerk[axis] / jump;
    }
    return meeting * factor;
}

/// One speed through the corner, at which no axis changes by more than its jerk.
fn directionSpeed(corner: *const Corner, unit: *const Axes) f64 {
    var shared = @min(corner.cruise, previous_cruise);
    inline for (0..limits.e) |axis| {
        const turned = @abs(unit[axis] - previous_unit[axis]);
        if (shared * turned > limits.jerk[axis]) shared = limits.jerk[axis] / turned;
    }
    return shared;
}

/// Two directions further apart than this are a corner, closer than the other one line (BambuStudio's bounds).
const curve_turn_max = 0.5;
const curve_turn_min = 1e-5;

/// Speed at which the circle through this move and the one before asks for no more than `accel`.
fn curveSpeed(distance: f64, unit: *const Axes, accel: f64) f64 {
    const flat = @sqrt(unit[0] * unit[0] + unit[1] * unit[1]);
    const flat_before = @sqrt(previous_unit[0] * previous_unit[0] + previous_unit[1] * previous_unit[1]);
    if (previous_cruise == 0 or flat == 0 or flat_before == 0) return inf;
    const across = unit[0] / flat - previous_unit[0] / flat_before;
    const up = unit[1] / flat - previous_unit[1] / flat_before;
    // The distance of two unit vectors is twice the sine of half the angle between them.
    const turned = @sqrt(across * across + up * up);
    if (turned >= curve_turn_max or turned <= curve_turn_min) return inf;
    return @sqrt(accel * distance * flat / turned);
}
