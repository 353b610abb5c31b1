//! The geometry of G2 and G3: centre, sweep, length, extremes, and straight segments along the way.

const std = @import("std");
const modal = @import("modal.zig");
const totals = @import("totals.zig");

const Point = modal.Point;
const Plane = modal.Plane;
const full_turn = 2 * std.math.pi;

/// Grbl takes an end that is off the circle by this much for rounding; more must be less than a thousandth of the radius
/// and less than half a millimetre (gcode.c, error 33).
const radius_error_rounding = 0.005;
const radius_error_share = 0.001;
const radius_error_max = 0.5;

/// Below this sweep an arc that ends where it began is a full circle (Grbl's ARC_ANGULAR_TRAVEL_EPSILON).
const sweep_min = 5e-7;

/// More segments than this add nothing to an estimate; bounds the work that one line can ask for.
const segments_max = 20_000;

pub const Arc = struct {
    plane: Plane,
    /// Centre in the plane.
    centre: [2]f64,
    radius: f64,
    /// From the centre towards start and end, as unit vectors.
    start: [2]f64,
    end: [2]f64,
    /// Signed angle: positive is counterclockwise.
    sweep: f64,
    /// Travel along the plane's normal.
    rise: f64,

    pub fn length(self: *const Arc) f64 {
        const flat = self.radius * @abs(self.sweep);
        return @sqrt(flat * flat + self.rise * self.rise);
    }

    /// Extends the box by the points where the arc turns around on an axis.
    pub fn visitQuadrants(self: *const Arc) void {
        const reach = self.radius;
        if (self.passes(.{ 1, 0 })) totals.visitAxis(self.plane.first, self.centre[0] + reach);
        if (self.passes(.{ 0, 1 })) totals.visitAxis(self.plane.second, self.centre[1] + reach);
        if (self.passes(.{ -1, 0 })) totals.visitAxis(self.plane.first, self.centre[0] - reach);
        if (self.passes(.{ 0, -1 })) totals.visitAxis(self.plane.second, self.centre[1] - reach);
    }

    /// Whether the arc crosses the ray from its centre.
    fn passes(self: *const Arc, ray: [2]f64) bool {
        if (@abs(self.sweep) >= full_turn) return true;
        const from, const to = if (self.sweep > 0) .{ self.start, self.end } else .{ self.end, self.start };
        // Up to half a turn the ray must be left of the one and right of the other; beyond, not in what is left out.
        if (@abs(self.sweep) <= std.math.pi) return cross(from, ray) >= 0 and cross(ray, to) >= 0;
        return !(cross(to, ray) > 0 and cross(ray, from) > 0);
    }
};

fn cross(a: [2]f64, b: [2]f64) f64 {
    return a[0] * b[1] - a[1] * b[0];
}

/// A turn of the plane.
pub const Rotation = struct {
    cosine: f64,
    sine: f64,

    pub fn by(angle: f64) Rotation {
        return .{ .cosine = @cos(angle), .sine = @sin(angle) };
    }

    /// This turn and another one after it.
    pub fn then(self: Rotation, other: Rotation) Rotation {
        const sum = other.turn(.{ self.cosine, self.sine });
        return .{ .cosine = sum[0], .sine = sum[1] };
    }

    pub fn turn(self: Rotation, ray: [2]f64) [2]f64 {
        // The parts are named because a literal is written in place, over what it still has to read.
        const first = ray[0] * self.cosine - ray[1] * self.sine;
        const second = ray[0] * self.sine + ray[1] * self.cosine;
        return .{ first, second };
    }

    pub fn turnBack(self: Rotation, ray: [2]f64) [2]f64 {
        const back: Rotation = .{ .cosine = self.cosine, .sine = -self.sine };
        return back.turn(ray);
    }
};

/// Centre from I, J, K. Null when start and end are not on one circle.
pub fn byCentre(start: *const Point, target: *const Point, plane: Plane, centre: [2]f64, clockwise: bool, turns: f64) ?Arc {
    const from: [2]f64 = .{ start[plane.first] - centre[0], start[plane.second] - centre[1] };
    const to: [2]f64 = .{ target[plane.first] - centre[0], target[plane.second] - centre[1] };
    const radius = @sqrt(from[0] * from[0] + from[1] * from[1]);
    const radius_error = @abs(@sqrt(to[0] * to[0] + to[1] * to[1]) - radius);
    if (radius == 0) return null;
    if (radius_error > radius_error_rounding and (radius_error > radius_error_max or radius_error > radius_error_share * radius)) return null;
    var sweep = std.math.atan2(cross(from, to), from[0] * to[0] + from[1] * to[1]);
    if (clockwise) {
        if (sweep >= -sweep_min) sweep -= full_turn;
        sweep -= turns * full_turn;
    } else {
        if (sweep <= sweep_min) sweep += full_turn;
        sweep += turns * full_turn;
    }
    return .{
        .plane = plane,
        .centre = centre,
        .radius = radius,
        .start = .{ from[0] / radius, from[1] / radius },
        .end = .{ to[0] / radius, to[1] / radius },
        .sweep = sweep,
        .rise = target[plane.normal] - start[plane.normal],
    };
}

/// Centre from R: of the two circles through start and end, a positive R takes the arc of up to half a turn. Null when
/// the ends are further apart than the diameter, or the same point.
pub fn byRadius(start: *const Point, target: *const Point, plane: Plane, radius: f64, clockwise: bool, turns: f64) ?Arc {
    const across = target[plane.first] - start[plane.first];
    const up = target[plane.second] - start[plane.second];
    const chord_square = across * across + up * up;
    if (chord_square == 0 or radius == 0) return null;
    var height_square = 4 * radius * radius - chord_square;
    if (height_square < 0) {
        // A half circle whose numbers were rounded.
        if (@sqrt(chord_square) - 2 * @abs(radius) > radius_error_rounding) return null;
        height_square = 0;
    }
    const height = @sqrt(height_square / chord_square);
    const side = if (clockwise == (radius > 0)) -height else height;
    const centre = .{
        start[plane.first] + 0.5 * (across - up * side),
        start[plane.second] + 0.5 * (up + across * side),
    };
    return byCentre(start, target, plane, centre, clockwise, turns);
}

/// Points along an arc, the start left out and the exact end included.
pub const Walk = struct {
    arc: *const Arc,
    segments: usize,
    done: usize = 0,
    /// From the centre to the present point.
    ray: [2]f64,
    step: Rotation,
    normal_from: f64,
    target: Point,

    pub fn start(shape: *const Arc, tolerance: f64, from: *const Point, target: *const Point) Walk {
        const segments = segmentCount(shape, tolerance);
        const step = shape.sweep / @as(f64, @floatFromInt(segments));
        return .{
            .arc = shape,
            .segments = segments,
            .ray = .{ from[shape.plane.first] - shape.centre[0], from[shape.plane.second] - shape.centre[1] },
            .step = Rotation.by(step),
            .normal_from = from[shape.plane.normal],
            .target = target.*,
        };
    }

    pub fn next(self: *Walk) ?Point {
        if (self.done == self.segments) return null;
        self.done += 1;
        if (self.done == self.segments) return self.target;
        // Turning the ray by a fixed angle loses less than a nanometre over the most segments there can be.
        self.ray = self.step.turn(self.ray);
        const share = @as(f64, @floatFromInt(self.done)) / @as(f64, @floatFromInt(self.segments));
        var point: Point = undefined;
        point[self.arc.plane.first] = self.arc.centre[0] + self.ray[0];
        point[self.arc.plane.second] = self.arc.centre[1] + self.ray[1];
        point[self.arc.plane.normal] = self.normal_from + share * self.arc.rise;
        return point;
    }
};

/// Grbl's rule: half the arc's length over half the chord whose sagitta is the tolerance (motion_control.c, mc_arc).
pub fn segmentCount(shape: *const Arc, tolerance: f64) usize {
    const half_chord_square = tolerance * (2 * shape.radius - tolerance);
    if (half_chord_square <= 0) return 1;
    const segments = 0.5 * shape.radius * @abs(shape.sweep) / @sqrt(half_chord_square);
    return @trunc(@max(1, @min(segments, segments_max)));
}
