//! A skill in Zig: each public function named like a hook answers it.

const std = @import("std");

const sc = @import("snapcount");

comptime {
    sc.exportSkill(@This());
}

const ms_per_hour = 3_600_000.0;

pub fn bid(request: sc.contract.BidRequest) !sc.contract.BidReply {
    const bounty = request.bounty;
    const cost = @as(f64, @floatFromInt(bounty.work_ms)) / ms_per_hour * request.costs.hour;
    const price = cost * (1 + request.margin);
    if (!std.math.isFinite(cost) or !std.math.isFinite(price)) return sc.fail("out_of_range", "the cost or the price is beyond all numbers", .{});
    const finish_ms = request.node.queue_ms +| bounty.work_ms;
    if (finish_ms > bounty.deadline_ms) {
        return .{ .cost = cost, .finish_ms = 0, .id = bounty.id, .reason = "it would be done after the deadline" };
    }
    if (price > bounty.reward) {
        return .{ .cost = cost, .finish_ms = 0, .id = bounty.id, .reason = "the reward does not cover the cost" };
    }
    return .{ .cost = cost, .finish_ms = finish_ms, .id = bounty.id, .price = price, .reason = "cost plus margin" };
}

pub fn self_test(_: sc.contract.SelfTestRequest) !sc.contract.SelfTestReply {
    return .{ .detail = "nothing to prepare", .ok = true };
}
