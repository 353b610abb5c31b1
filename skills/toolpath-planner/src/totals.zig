//! What the report adds up: box, path, counts and filament. Lengths in mm, machine coordinates.

const sc = @import("snapcount");

pub const Kind = enum { rapid, linear, arc };

pub var box: sc.contract.BoundingBox = undefined;
pub var counts: [3]u64 = undefined;
pub var lengths: [3]f64 = undefined;
/// Net length of filament fed.
pub var extruded: f64 = undefined;

pub fn reset(start: sc.contract.Point) void {
    box = .{ .max = start, .min = start };
    counts = @splat(0);
    lengths = @splat(0);
    extruded = 0;
}

pub fn move(kind: Kind, length: f64) void {
    if (length == 0) return;
    counts[@backingInt(kind)] += 1;
    lengths[@backingInt(kind)] += length;
}

pub inline fn visit(point: *const sc.contract.Point) void {
    inline for (0..3) |axis| visitAxis(axis, point[axis]);
}

pub inline fn visitAxis(axis: usize, value: f64) void {
    if (value < box.min[axis]) box.min[axis] = value;
    if (value > box.max[axis]) box.max[axis] = value;
}
