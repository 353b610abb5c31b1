//! cell-start: on the snap count the whole line moves. A cell gets ready for a job when the message comes, and begins it
//! at the arrival time. The topics and the decisions are in README.md.

const std = @import("std");
const sc = @import("snapcount");

const Cell = @import("cell.zig").Cell;
const self_check = @import("self_check.zig");
const Start = @import("start.zig").Start;

const contract = sc.contract;
const HandleRequest = contract.HandleRequest;
const HandleReply = contract.HandleReply;

const s_per_min = 60.0;

pub fn handle(request: HandleRequest) !HandleReply {
    if (isCommand(request.verb)) {
        if (std.mem.eql(u8, request.topic, "cell.start")) return start(request);
        if (std.mem.eql(u8, request.topic, "cell.clear")) return clear(request);
    }
    if (request.verb == .observe and std.mem.eql(u8, request.topic, "cell.inventory")) return inventory();
    return .{ .handled = false };
}

pub fn self_test(_: contract.SelfTestRequest) !contract.SelfTestReply {
    return self_check.run();
}

/// What moves a machine must come from a tier above, and any node of the fleet can send the other verbs.
fn isCommand(verb: contract.Verb) bool {
    return switch (verb) {
        .decide, .act, .sync => true,
        .observe, .orient, .record => false,
    };
}

fn start(request: HandleRequest) !HandleReply {
    const wanted = try Start.read(request.payload);
    const cell = try Cell.load();
    return switch (request.phase) {
        .prepare => prepare(cell, wanted.job, request.id),
        .act => act(cell, wanted, request.id),
    };
}

fn prepare(cell: Cell, job: []const u8, message: sc.Bytes) !HandleReply {
    const ready = cell.prepared(job, message) orelse return conflict("Job {s} is under way.", .{cell.job});
    try ready.store();
    return .{ .detail = try say("Ready for job {s}.", .{job}) };
}

fn act(cell: Cell, wanted: Start, message: sc.Bytes) !HandleReply {
    if (!cell.isReadyFor(wanted.job, message)) return notPrepared(cell, wanted.job);
    // Before the machine moves: whatever becomes of this call, the same message cannot move it twice.
    try cell.cleared().store();
    const to = wanted.to_mm;
    const moves = [_][4]f64{.{ to[0], to[1], to[2], wanted.feed_mm_min / s_per_min }};
    const request: contract.MotionRequest = .{ .move = .{ .moves = &moves } };
    const moved = switch (try sc.call("motion", request, contract.MotionReply)) {
        .reply => |reply| reply,
        .refused => |refusal| return conflict("The machine refused job {s}: {s}: {s}", .{ wanted.job, refusal.code, refusal.message }),
    };
    // Read anew: while the machine moved, the cell may have got ready for the next job.
    try (try Cell.load()).counted().store();
    return .{ .detail = try say("Job {s} has begun.", .{wanted.job}), .payload = .{ .data = try sc.encode(moved) } };
}

fn notPrepared(cell: Cell, job: []const u8) !HandleReply {
    if (cell.job.len == 0) return conflict("Job {s} was not prepared here; a start needs an arrival time.", .{job});
    return conflict("Job {s} was not prepared by this message, and job {s} is under way.", .{ job, cell.job });
}

fn clear(request: HandleRequest) !HandleReply {
    const cell = try Cell.load();
    // A cancelled message gets no `act`, so nothing is forgotten before it.
    if (request.phase == .act) try cell.cleared().store();
    if (cell.job.len == 0) return .{ .detail = "No job is under way." };
    return .{ .detail = switch (request.phase) {
        .prepare => try say("Ready to forget job {s}.", .{cell.job}),
        .act => try say("Job {s} is forgotten.", .{cell.job}),
    } };
}

const Inventory = struct { job: []const u8, started: u64 };

fn inventory() !HandleReply {
    const cell = try Cell.load();
    return .{ .payload = .{ .data = try sc.encode(Inventory{ .job = cell.job, .started = cell.started }) } };
}

fn conflict(comptime format: []const u8, arguments: anytype) !HandleReply {
    return .{ .detail = try say(format, arguments), .state = .conflict };
}

fn say(comptime format: []const u8, arguments: anytype) error{OutOfMemory}![]const u8 {
    return std.fmt.allocPrint(sc.allocator, format, arguments);
}

comptime {
    sc.exportSkill(@This());
}
