//! toolpath-planner: reads G-code, says what it does and how long it takes, and drives the machine when asked to.

const sc = @import("snapcount");
const job = @import("job.zig");
const self_check = @import("self_check.zig");

const contract = sc.contract;

var seq_expected: u64 = 0;
var finished = false;

pub fn plan_job(request: contract.PlanJobRequest) !contract.PlanReply {
    if (finished) return sc.fail("bad_request", "seq: expected no chunk after the last, got {d}", .{request.seq});
    if (request.seq != seq_expected) return sc.fail("bad_request", "seq: expected {d}, got {d}", .{ seq_expected, request.seq });
    if (request.seq == 0) {
        try check(request.settings);
        job.begin(request.run, request.settings);
    }
    seq_expected += 1;
    finished = request.last;
    job.feed(request.chunk.data, request.last);
    if (!request.last) return .{ .progress = job.progress() };
    return .{ .report = try job.report() };
}

/// The least that a caller may set, in the setting's own unit: smaller values would ask for endless work or time.
const setting_min = 1e-6;

fn check(settings: contract.PlanSettings) !void {
    inline for (.{ "accel_mm_s2", "chord_mm", "feed_max_mm_min", "junction_deviation_mm" }) |name| {
        if (@field(settings, name)) |value| {
            if (!(value >= setting_min) or value > 1e9) return sc.fail("bad_request", "settings." ++ name ++ ": expected a number above 0", .{});
        }
    }
    if (settings.tool_w_per_s) |value| {
        if (!(value >= 0) or value > 1e9) return sc.fail("bad_request", "settings.tool_w_per_s: expected 0 or more", .{});
    }
    for (settings.start_mm orelse .{ 0, 0, 0 }) |value| {
        if (!(@abs(value) <= 1e9)) return sc.fail("bad_request", "settings.start_mm: expected numbers of mm", .{});
    }
}

pub fn self_test(_: contract.SelfTestRequest) !contract.SelfTestReply {
    return self_check.run();
}

comptime {
    sc.exportSkill(@This());
}
