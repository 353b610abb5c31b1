//! self_test: one bounty whose answers are round numbers.

const std = @import("std");
const sc = @import("snapcount");

/// 3,600 s of travel (36 km at 10 m/s) and 3,600 s of work are 2 h: 2 h × 5 units × 2 for fuel, 2 h × 10 for time, and
/// 2 h × 0.01 × 100 for wear make 42; a margin of 50 % makes 63.
const request: sc.contract.BidRequest = .{
    .bounty = .{
        .deadline_ms = 10_000_000,
        .id = "self-test",
        .position_m = .{ 36_000, 0 },
        .reward = 100,
        .work_ms = 3_600_000,
    },
    .costs = .{ .fuel_unit = 2, .hour = 10, .wear = 100 },
    .margin = 0.5,
    .node = .{
        .fuel = 20,
        .fuel_per_hour = 5,
        .position_m = .{ 0, 0 },
        .queue_ms = 1_800_000,
        .speed_m_s = 10,
        .wear = 0.5,
        .wear_per_hour = 0.01,
    },
};
const cost = 42;
const price = 63;
const finish_ms = 9_000_000;

const detail_format = "Expected a price of {d} for a cost of {d}, done after {d} ms; got {d}, {d} and {d} ms.";

pub fn run(bid: anytype) !sc.contract.SelfTestReply {
    const reply = try bid(request);
    const got = reply.price orelse 0;
    return .{
        .detail = try std.fmt.allocPrint(sc.allocator, detail_format, .{ price, cost, finish_ms, got, reply.cost, reply.finish_ms }),
        .ok = got == price and reply.cost == cost and reply.finish_ms == finish_ms,
    };
}
