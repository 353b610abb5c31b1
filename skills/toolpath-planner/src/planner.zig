//! How long the moves take: trapezoidal velocity profiles joined at corners, planned over a bounded window.
//!
//! A move enters with the speed that its corner allows (cornering.zig). When the window is full, a backward pass makes
//! each entry slow enough to reach what follows, a forward pass makes it slow enough to be reached from what came
//! before, and the oldest moves leave the window with their time. Speeds are kept squared: v² changes by 2·a·d.

const std = @import("std");
const cornering = @import("cornering.zig");
const limits = @import("limits.zig");

const Block = struct {
    distance: f64,
    accel: f64,
    cruise: f64,
    /// Squared speeds: planned entry, the most the corner allows, and the end if nothing follows.
    entry: f64,
    entry_max: f64,
    stop: f64,
};

/// Room for the longest window and for moves that enter before the window is shifted to the front again.
const blocks_max = 1024;

/// Planning anew for each move, as Grbl does, costs far more than it changes: so many moves leave together.
const leave_at_once = 8;

var blocks: [blocks_max]Block = undefined;
var first: usize = 0;
var len: usize = 0;
var seconds: f64 = 0;

pub fn reset() void {
    first = 0;
    len = 0;
    seconds = 0;
    cornering.stop();
}

/// Seconds of all that has left the window. After `stop` that is everything.
pub fn time() f64 {
    return seconds;
}

/// Time in which the machine stands.
pub fn dwell(standing: f64) void {
    stop();
    seconds += standing;
}

/// The machine comes to rest before it does anything else.
pub fn stop() void {
    if (len > 0) {
        plan();
        leave(len);
    }
    cornering.stop();
}

/// Adds a straight move. `delta` in mm on each axis, `distance` its length (of the filament if nothing else moves),
/// `feed` in mm/s.
pub fn move(delta: *const limits.Axes, distance: f64, feed: f64) void {
    add(&cornering.Path.straight(delta, distance), distance, feed);
}

/// Adds a move whose directions are known.
pub fn add(path: *const cornering.Path, distance: f64, feed: f64) void {
    const corner = cornering.enter(path, distance, feed, len == 0);
    if (first + len == blocks_max) {
        std.mem.copyForwards(Block, blocks[0..len], blocks[first..][0..len]);
        first = 0;
    }
    blocks[first + len] = .{
        .distance = distance,
        .accel = corner.accel,
        .cruise = corner.cruise,
        .entry = corner.entry * corner.entry,
        .entry_max = corner.entry * corner.entry,
        .stop = corner.stop * corner.stop,
    };
    len += 1;
    if (len < limits.lookahead + leave_at_once) return;
    plan();
    leave(leave_at_once);
}

fn plan() void {
    const window = blocks[first..][0..len];
    var exit = window[len - 1].stop;
    // The oldest move has begun in a plan before this one: its entry stands.
    var i = len - 1;
    while (i > 0) : (i -= 1) {
        const block = &window[i];
        block.entry = @min(block.entry_max, exit + 2 * block.accel * block.distance);
        exit = block.entry;
    }
    for (window[0 .. len - 1], window[1..]) |*block, *next| {
        next.entry = @min(next.entry, block.entry + 2 * block.accel * block.distance);
    }
}

fn leave(count: usize) void {
    const window = blocks[first..][0..len];
    var entry_speed = @sqrt(window[0].entry);
    for (window[0..count], 0..) |*block, i| {
        const exit = if (i + 1 < len) window[i + 1].entry else @min(block.stop, block.entry + 2 * block.accel * block.distance);
        const exit_speed = @sqrt(exit);
        seconds += duration(block, entry_speed, exit_speed, exit);
        entry_speed = exit_speed;
    }
    first = if (count == len) 0 else first + count;
    len -= count;
}

fn duration(block: *const Block, entry_speed: f64, exit_speed: f64, exit: f64) f64 {
    const ramp_up = block.cruise * block.cruise - block.entry;
    const ramp_down = block.cruise * block.cruise - exit;
    const cruising = block.distance - (ramp_up + ramp_down) / (2 * block.accel);
    if (cruising >= 0) {
        return (2 * block.cruise - entry_speed - exit_speed) / block.accel + cruising / block.cruise;
    }
    // Too short to reach its speed: up and straight down again.
    const peak = @sqrt(@max(block.accel * block.distance + (block.entry + exit) / 2, @max(block.entry, exit)));
    return (2 * peak - entry_speed - exit_speed) / block.accel;
}
