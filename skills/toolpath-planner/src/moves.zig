//! Moves in machine coordinates: to the totals, the time estimate and, when asked to, the machine.

const std = @import("std");
const arcs = @import("arcs.zig");
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
    modal.feed = std.math.inf(f64);
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
    planSegments(shape, target, fed, feed);
    if (machine.driving()) driveSegments(shape, target, feed, line);
    modal.position = target.*;
}

fn planSegments(shape: *const arcs.Arc, target: *const Point, fed: f64, feed: f64) void {
    var walk = arcs.Walk.start(shape, limits.arc_tolerance, &modal.position, target);
    var from = modal.position;
    const share = fed / @as(f64, @floatFromInt(walk.segments));
    while (walk.next()) |point| {
        var delta: limits.Axes = undefined;
        var square: f64 = 0;
        inline for (0..3) |axis| {
            delta[axis] = point[axis] - from[axis];
            square += delta[axis] * delta[axis];
        }
        delta[limits.e] = share;
        if (square > length_min * length_min) planner.move(&delta, @sqrt(square), feed);
        from = point;
    }
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
