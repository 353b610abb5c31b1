//! Moves in machine coordinates: to the totals, the time estimate and, when asked to, the machine.

const std = @import("std");
const arcs = @import("arcs.zig");
const cornering = @import("cornering.zig");
const limits = @import("limits.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const totals = @import("totals.zig");

const Point = modal.Point;

/// Shorter than any machine's step; what is left over when offsets are added and taken away.
const length_min = 1e-9;

/// A straight move to `target`, feeding `fed` mm of filament.
pub fn straight(kind: totals.Kind, target: *const Point, fed: f64, line: u64) void {
    var delta: limits.Axes = undefined;
    var square: f64 = 0;
    inline for (0..3) |axis| {
        delta[axis] = target[axis] - modal.position[axis];
        square += delta[axis] * delta[axis];
    }
    delta[limits.e] = fed;
    var length = @sqrt(square);
    if (length < length_min) {
        length = 0;
        inline for (0..3) |axis| delta[axis] = 0;
    }
    modal.noteUnits();
    modal.position = target.*;
    totals.extruded += fed;
    totals.move(kind, length);
    totals.visit(target);
    const travelled = if (length > 0) length else @abs(fed);
    if (travelled < length_min) return;
    const feed = feedFor(kind, travelled, line);
    planner.move(&delta, travelled, feed);
    if (length > 0) machine.moveTo(target, &delta, length, feed, line);
}

/// Puts the tool where a move that is not understood would have ended. It counts for the box alone.
pub fn leap(target: *const Point) void {
    modal.position = target.*;
    totals.visit(target);
    planner.stop();
}

/// mm/s that the program asks for.
fn feedFor(kind: totals.Kind, length: f64, line: u64) f64 {
    // A rapid is as fast as the axes are, except on printers, where G0 is another name for G1.
    if (kind == .rapid and modal.dialect != .marlin) return std.math.inf(f64);
    if (modal.feed_mode == .inverse_time) {
        if (modal.moves_per_minute) |rate| return @max(length * rate / 60, feed_min);
    } else if (modal.feed) |feed| return @max(feed, feed_min);
    problems.add(line, .no_feed, "expected a feed (F) before the first G1, G2 or G3; timed as a rapid", "", "");
    // Said once, but in inverse time each move needs its own.
    if (modal.feed_mode == .per_minute) modal.feed = std.math.inf(f64);
    return std.math.inf(f64);
}

/// Grbl's floor for any feed, 1 mm/min.
const feed_min = 1.0 / 60.0;

/// A G2 or G3 whose geometry is settled.
pub fn arc(shape: *const arcs.Arc, target: *const Point, fed: f64, line: u64) void {
    modal.noteUnits();
    const length = shape.length();
    totals.extruded += fed;
    totals.move(.arc, length);
    totals.visit(target);
    shape.visitQuadrants();
    const feed = feedFor(.arc, length, line);
    planPieces(shape, fed, feed);
    if (machine.driving()) driveSegments(shape, target, feed, line);
    modal.position = target.*;
}

/// A machine runs an arc as segments so short that planning each would cost more than the rest of the program. Larger
/// pieces take their place, with the speed that the segments' bends allow. Within a piece of this turn the axes share
/// the work much alike; where nothing but the feed limits the speed, a quarter of a turn is near enough.
const piece_turn_max = std.math.pi / 6.0;
const piece_turn_at_feed = std.math.pi / 2.0;

fn planPieces(shape: *const arcs.Arc, fed: f64, feed: f64) void {
    const whole = shape.length();
    const segments: f64 = @floatFromInt(arcs.segmentCount(shape, limits.arc_tolerance));
    const travel: Travel = .{
        .plane = shape.plane,
        .flat = shape.radius * shape.sweep / whole,
        .rise = shape.rise / whole,
        .filament = fed / whole,
        .half_bend = arcs.Rotation.by(shape.sweep / segments / 2),
        .segment = whole / segments,
    };
    const ceiling = @min(feed, cornering.circleSpeed(shape.radius, &travel.at(shape.start)));
    // The bends are slowest where they load one axis alone.
    const at_feed = @min(travel.speed(.{ 1, 0 }), travel.speed(.{ 0, 1 })) >= ceiling;
    const piece_turn: f64 = if (at_feed) piece_turn_at_feed else piece_turn_max;
    const pieces = @min(segments, @ceil(@abs(shape.sweep) / piece_turn));
    // From the middle of a piece to the middles of its first and last segments, and to the next piece.
    const to_end = arcs.Rotation.by((shape.sweep / pieces - shape.sweep / segments) / 2);
    const half_turn = to_end.then(travel.half_bend);
    const turn = half_turn.then(half_turn);
    var ray = half_turn.turn(shape.start);
    var piece: f64 = 0;
    while (piece < pieces) : (piece += 1) {
        const path: cornering.Path = .{
            .into = travel.at(to_end.turnBack(ray)),
            .along = travel.at(ray),
            .out = travel.at(to_end.turn(ray)),
            .smooth = piece > 0 and pieces < segments,
        };
        const bounded = !at_feed and pieces < segments;
        planner.add(&path, whole / pieces, if (bounded) @min(ceiling, travel.speed(ray)) else ceiling);
        ray = turn.turn(ray);
    }
}

/// How an arc is travelled, seen from the ray that points from its centre to where the tool is.
const Travel = struct {
    plane: modal.Plane,
    /// What each mm of travel moves along the circle, along the plane's normal, and of filament.
    flat: f64,
    rise: f64,
    filament: f64,
    half_bend: arcs.Rotation,
    segment: f64,

    inline fn at(self: *const Travel, ray: [2]f64) limits.Axes {
        var unit: limits.Axes = undefined;
        unit[self.plane.first] = -ray[1] * self.flat;
        unit[self.plane.second] = ray[0] * self.flat;
        unit[self.plane.normal] = self.rise;
        unit[limits.e] = self.filament;
        return unit;
    }

    fn speed(self: *const Travel, ray: [2]f64) f64 {
        const bend = cornering.bendSpeed(&self.at(self.half_bend.turnBack(ray)), &self.at(self.half_bend.turn(ray)));
        return segmentedSpeed(bend, self.segment, &self.at(ray));
    }
};

/// Mean speed over segments of one length that are joined by bends: between bends the machine gains speed and loses it
/// again, and it never outruns the segments that it has planned.
fn segmentedSpeed(bend: f64, segment: f64, along: *const limits.Axes) f64 {
    const accel = cornering.accelAlong(along);
    const peak = @sqrt(bend * bend + accel * segment);
    const planned: f64 = @floatFromInt(limits.lookahead - 1);
    return @min((bend + peak) / 2, @sqrt(2 * accel * segment * planned));
}

fn driveSegments(shape: *const arcs.Arc, target: *const Point, feed: f64, line: u64) void {
    var walk = arcs.Walk.start(shape, machine.chord, &modal.position, target);
    var from = modal.position;
    while (walk.next()) |point| {
        var delta: limits.Axes = @splat(0);
        var square: f64 = 0;
        inline for (0..3) |axis| {
            delta[axis] = point[axis] - from[axis];
            square += delta[axis] * delta[axis];
        }
        machine.moveTo(&point, &delta, @sqrt(square), feed, line);
        from = point;
    }
}
