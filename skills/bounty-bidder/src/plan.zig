//! What taking a bounty means for a node: how long it takes, what it burns and wears, and what that costs.

const std = @import("std");
const sc = @import("snapcount");

const ms_per_s = 1000.0;
const ms_per_hour = 3_600_000.0;

/// A travel time from here on is no time anyone waits for, and every one below it is exact as f64 and as u64.
const travel_ms_max = 0x1p53;

pub const Plan = struct {
    distance_m: f64,
    travel_ms: u64,
    /// Travel and work, without the queue.
    busy_ms: u64,
    /// From now: queue, travel and work.
    finish_ms: u64,
    /// Units that the queue, the travel and the work burn together.
    fuel: f64,
    /// Wear at the end of it all.
    wear: f64,
    /// Of travel and work. The queue was paid for when it was promised.
    cost: f64,
};

/// Null: the node never gets there, or never gets done.
pub fn plan(request: sc.contract.BidRequest) ?Plan {
    const node = request.node;
    const distance_m = distance(node.position_m, request.bounty.position_m);
    const travel_ms = travelMs(distance_m, node.speed_m_s) orelse return null;
    const busy_ms = std.math.add(u64, travel_ms, request.bounty.work_ms) catch return null;
    const finish_ms = std.math.add(u64, node.queue_ms, busy_ms) catch return null;
    return .{
        .distance_m = distance_m,
        .travel_ms = travel_ms,
        .busy_ms = busy_ms,
        .finish_ms = finish_ms,
        .fuel = node.fuel_per_hour * hours(finish_ms),
        .wear = node.wear + node.wear_per_hour * hours(finish_ms),
        .cost = costOf(request, hours(busy_ms)),
    };
}

/// Fuel, the node's time and its wear: the cost of being busy for some hours.
fn costOf(request: sc.contract.BidRequest, busy_h: f64) f64 {
    const fuel = request.node.fuel_per_hour * busy_h * request.costs.fuel_unit;
    const time = request.costs.hour * busy_h;
    const wear = request.node.wear_per_hour * busy_h * request.costs.wear;
    return fuel + time + wear;
}

/// The cost of the work alone, for a node that cannot even get there.
pub fn costWithoutTravel(request: sc.contract.BidRequest) f64 {
    return costOf(request, hours(request.bounty.work_ms));
}

fn distance(from: [2]f64, to: [2]f64) f64 {
    return std.math.hypot(to[0] - from[0], to[1] - from[1]);
}

/// Rounded up: a plan must not end later than it says.
fn travelMs(distance_m: f64, speed_m_s: f64) ?u64 {
    if (distance_m == 0) return 0;
    if (speed_m_s == 0) return null; // a negative zero would arrive before it left
    const travel_ms = @ceil(distance_m / speed_m_s * ms_per_s);
    if (!(travel_ms < travel_ms_max)) return null;
    return @intFromFloat(travel_ms);
}

pub fn hours(ms: u64) f64 {
    return @as(f64, @floatFromInt(ms)) / ms_per_hour;
}
