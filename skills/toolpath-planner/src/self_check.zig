//! Plans a small program whose values were worked out by hand.

const std = @import("std");
const sc = @import("snapcount");
const job = @import("job.zig");

/// A square of 10 mm with one corner rounded by a quarter circle of radius 5, then 1 s of rest.
const program =
    \\G21 G90 G17
    \\G1 X10 F600
    \\G1 Y5
    \\G3 X5 Y10 I-5
    \\G1 X0
    \\G0 Y0
    \\G4 P1
;
const linear_mm: f64 = 10 + 5 + 5;
const rapid_mm: f64 = 10;
const arc_mm: f64 = 5 * std.math.pi / 2.0;

/// At 600 mm/min the cuts alone take this long; acceleration and the rapid add less than a second.
const time_min_s = 1 + (linear_mm + arc_mm) / 10;
const time_max_s = time_min_s + 1;

pub fn run() error{OutOfMemory}!sc.contract.SelfTestReply {
    job.begin(false, .{});
    job.feed(program, true);
    const report = try job.report();
    if (report.problems_total != 0) return failed("found problems in a good program");
    if (report.moves.arc != 1 or report.moves.linear != 3 or report.moves.rapid != 1) return failed("counted the wrong moves");
    const path = report.path_mm;
    if (!near(path.arc, arc_mm) or !near(path.linear, linear_mm) or !near(path.rapid, rapid_mm)) return failed("measured the wrong lengths");
    if (!near(report.bbox_mm.max[0], 10) or !near(report.bbox_mm.max[1], 10)) return failed("found the wrong box");
    if (!(report.time_s > time_min_s and report.time_s < time_max_s)) return failed("estimated the wrong time");
    return .{ .ok = true, .detail = "planned 5 moves as expected" };
}

fn failed(detail: []const u8) sc.contract.SelfTestReply {
    return .{ .ok = false, .detail = detail };
}

fn near(value: f64, expected: f64) bool {
    return @abs(value - expected) < 1e-9;
}
