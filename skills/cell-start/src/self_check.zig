//! self_test: the rules of a cell on values in memory, because a test must move no machine and change no state.

const std = @import("std");
const sc = @import("snapcount");

const Cell = @import("cell.zig").Cell;
const Start = @import("start.zig").Start;

const first: sc.Bytes = .{ .data = "the first id----" };
const second: sc.Bytes = .{ .data = "the second id---" };

pub fn run() !sc.contract.SelfTestReply {
    const sent: Start = .{ .feed_mm_min = 600, .job = "frame-7", .to_mm = .{ 10, 20, 5 } };
    const read = try Start.read(.{ .data = try sc.encode(sent) });
    const idle: Cell = .{ .started = 4 };
    const ready = idle.prepared(read.job, first) orelse return failed("an idle cell does not get ready");
    if (ready.prepared("frame-8", second) != null) return failed("a cell gets ready for a second job");
    if (!ready.isReadyFor(sent.job, first)) return failed("a cell does not know the job that it got ready for");
    if (ready.isReadyFor(sent.job, second)) return failed("a cell begins a job for a message that did not prepare it");
    if (idle.isReadyFor("", .{ .data = "" })) return failed("an idle cell begins a job");
    const begun = ready.cleared().counted();
    if (begun.job.len != 0 or begun.started != 5) return failed("a cell does not forget and count what it began");
    if (!std.meta.eql(read.to_mm, sent.to_mm)) return failed("a payload does not survive encoding");
    return .{ .detail = "A cell gets ready for one job at a time, and begins it once.", .ok = true };
}

fn failed(detail: []const u8) sc.contract.SelfTestReply {
    return .{ .detail = detail, .ok = false };
}
