//! bounty-bidder: from a bounty and the state of a node to a bid, or to a reason why there is none. The formulas and
//! the decisions are in README.md.

const std = @import("std");
const sc = @import("snapcount");

const check = @import("check.zig").check;
const plan_file = @import("plan.zig");
const price_file = @import("price.zig");
const self_check = @import("self_check.zig");

const BidRequest = sc.contract.BidRequest;
const BidReply = sc.contract.BidReply;
const Plan = plan_file.Plan;

pub fn bid(request: BidRequest) !BidReply {
    try check(request);
    const plan = plan_file.plan(request) orelse return unreachableBounty(request);
    if (!std.math.isFinite(plan.cost)) return costTooLarge();
    if (try obstacle(request, plan)) |reason| return noBid(request, plan.cost, reason);
    const price = price_file.price(plan.cost, request.margin, request.bounty.reward) orelse {
        const reason = try say("The cost of {d} is above the reward of {d}.", .{ shown(plan.cost), shown(request.bounty.reward) });
        return noBid(request, plan.cost, reason);
    };
    return .{
        .cost = plan.cost,
        .finish_ms = plan.finish_ms,
        .id = request.bounty.id,
        .price = price.amount,
        .reason = try whyBid(request, plan, price),
    };
}

pub fn self_test(_: sc.contract.SelfTestRequest) !sc.contract.SelfTestReply {
    return self_check.run(bid);
}

fn costTooLarge() error{SkillFailed} {
    return sc.fail("bad_request", "costs: expected prices of a possible size, got a cost that is not finite", .{});
}

fn noBid(request: BidRequest, cost: f64, reason: []const u8) BidReply {
    return .{ .cost = cost, .finish_ms = 0, .id = request.bounty.id, .reason = reason };
}

fn unreachableBounty(request: BidRequest) !BidReply {
    const cost = plan_file.costWithoutTravel(request);
    if (!std.math.isFinite(cost)) return costTooLarge();
    return noBid(request, cost, try say(
        "At {d} m/s, with {d} ms of queue and {d} ms of work, the bounty is never done; the cost is that of the work alone.",
        .{ shown(request.node.speed_m_s + 0.0), request.node.queue_ms, request.bounty.work_ms },
    ));
}

/// Why the plan cannot be carried out, or null.
fn obstacle(request: BidRequest, plan: Plan) !?[]const u8 {
    const node = request.node;
    if (plan.finish_ms > request.bounty.deadline_ms) {
        return try say("Done after {d} s (queue {d} s, travel {d} s, work {d} s), but the deadline is after {d} s.", .{
            seconds(plan.finish_ms),         seconds(node.queue_ms),              seconds(plan.travel_ms),
            seconds(request.bounty.work_ms), seconds(request.bounty.deadline_ms),
        });
    }
    if (plan.fuel > node.fuel) {
        return try say("Queue, travel and work burn {d} units of fuel, but the tank holds {d}.", .{
            shown(plan.fuel), shown(node.fuel),
        });
    }
    if (plan.wear > 1) {
        return try say("Queue, travel and work would wear the node from {d} to {d}, but 1 is worn out.", .{
            shown(node.wear), shown(plan.wear),
        });
    }
    return null;
}

fn whyBid(request: BidRequest, plan: Plan, price: price_file.Price) ![]const u8 {
    const percent = shown(request.margin * 100);
    const ending = if (price.has_margin)
        try say("a margin of {d} % is in the price", .{percent})
    else
        try say("the reward leaves less than the wanted margin of {d} %, so it is the price", .{percent});
    return say("Travel of {d} m and work cost {d} and are done after {d} s of {d} s; {s}.", .{
        shown(plan.distance_m), shown(plan.cost), seconds(plan.finish_ms), seconds(request.bounty.deadline_ms), ending,
    });
}

/// Milliseconds as seconds, for sentences.
fn seconds(ms: u64) f64 {
    return @as(f64, @floatFromInt(ms)) / 1000;
}

/// For sentences: six decimals are enough, and show what a binary fraction was meant to be.
fn shown(value: f64) f64 {
    const scaled = value * 1e6;
    return if (std.math.isFinite(scaled)) @round(scaled) / 1e6 else value;
}

fn say(comptime format: []const u8, arguments: anytype) error{OutOfMemory}![]const u8 {
    return std.fmt.allocPrint(sc.allocator, format, arguments);
}

comptime {
    sc.exportSkill(@This());
}
