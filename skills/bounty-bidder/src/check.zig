//! What a request must fulfil before it is worth a calculation. The contract's `float` allows NaN and infinity, and
//! leaves it open what a negative price would mean; here neither has a meaning.

const std = @import("std");
const sc = @import("snapcount");

/// The id comes back in the reply, whose size is limited.
const id_len_max = 256;

pub fn check(request: sc.contract.BidRequest) error{SkillFailed}!void {
    const bounty = request.bounty;
    const costs = request.costs;
    const node = request.node;
    if (bounty.id.len > id_len_max) {
        return sc.fail("bad_request", "bounty.id: expected at most {d} bytes, got {d}", .{ id_len_max, bounty.id.len });
    }
    for (bounty.position_m) |metres| try expectFinite("bounty.position_m", metres);
    for (node.position_m) |metres| try expectFinite("node.position_m", metres);
    try expectNotNegative("bounty.reward", bounty.reward);
    try expectNotNegative("costs.fuel_unit", costs.fuel_unit);
    try expectNotNegative("costs.hour", costs.hour);
    try expectNotNegative("costs.wear", costs.wear);
    // A negative margin would be a bid below cost.
    try expectNotNegative("margin", request.margin);
    try expectNotNegative("node.fuel", node.fuel);
    try expectNotNegative("node.fuel_per_hour", node.fuel_per_hour);
    try expectNotNegative("node.speed_m_s", node.speed_m_s);
    try expectNotNegative("node.wear_per_hour", node.wear_per_hour);
    try expectNotNegative("node.wear", node.wear);
    if (node.wear > 1) return sc.fail("bad_request", "node.wear: expected 0 to 1, got {d}", .{node.wear});
}

fn expectFinite(key: []const u8, value: f64) error{SkillFailed}!void {
    if (!std.math.isFinite(value)) return sc.fail("bad_request", "{s}: expected a finite number, got {d}", .{ key, value });
}

fn expectNotNegative(key: []const u8, value: f64) error{SkillFailed}!void {
    try expectFinite(key, value);
    if (value < 0) return sc.fail("bad_request", "{s}: expected 0 or more, got {d}", .{ key, value });
}
