//! One program, from its first chunk to its report. The first 64 KiB wait until the dialect is known.

const std = @import("std");
const sc = @import("snapcount");
const config = @import("config.zig");
const cycles = @import("cycles.zig");
const dialects = @import("dialect.zig");
const interpreter = @import("interpreter.zig");
const limits = @import("limits.zig");
const lines = @import("lines.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const slicer = @import("slicer.zig");
const tools = @import("tools.zig");
const totals = @import("totals.zig");

const contract = sc.contract;

/// Enough for the slicer's comments and the first moves; the same bytes decide however the program is cut.
const head_bytes_max = 64 * 1024;

var head: [head_bytes_max]u8 = undefined;
var head_len: usize = 0;
var dialect: ?contract.Dialect = null;
var settings: contract.PlanSettings = .{};
var runs = false;
var machine_config: config.Config = .{};

pub fn begin(run: bool, with: contract.PlanSettings) void {
    head_len = 0;
    dialect = null;
    settings = with;
    // The tail lies in memory that is freed after this call.
    settings.tail = null;
    machine_config = .{};
    if (with.tail) |tail| machine_config.read(afterFirstLine(tail.data));
    runs = run;
    lines.reset();
}

pub fn feed(chunk: []const u8, last: bool) void {
    var rest = chunk;
    if (dialect == null) {
        const taken = @min(rest.len, head_bytes_max - head_len);
        @memcpy(head[head_len..][0..taken], rest[0..taken]);
        head_len += taken;
        rest = rest[taken..];
        if (head_len < head_bytes_max and !last) return;
        start(dialects.detect(head[0..head_len]));
        lines.feed(head[0..head_len], interpreter.run);
    }
    lines.feed(rest, interpreter.run);
    if (!last) return;
    lines.end(interpreter.run);
    planner.stop();
    machine.flush();
}

/// The first line of a tail may be the end of another one.
fn afterFirstLine(text: []const u8) []const u8 {
    const end = std.mem.indexOfAny(u8, text, "\r\n") orelse return "";
    return text[end..];
}

fn start(as: dialects.Family) void {
    dialect = as.dialect;
    machine_config.read(head[0..head_len]);
    const from = settings.start_mm orelse contract.Point{ 0, 0, 0 };
    limits.reset(as, settings);
    slicer.apply(&machine_config, as);
    tools.reset(&machine_config);
    modal.reset(as.dialect, from);
    totals.reset(from);
    planner.reset();
    problems.reset();
    cycles.reset();
    interpreter.reset();
    machine.reset(runs, settings);
}

pub fn progress() contract.PlanProgress {
    return .{ .lines = lines.counted() };
}

pub fn report() error{OutOfMemory}!contract.PlanReport {
    const rapid, const linear, const arc = totals.lengths;
    return .{
        .bbox_mm = totals.box,
        .complete = problems.complete(),
        .dialect = modal.dialect,
        .driven = machine.driven(),
        .extruded_mm = totals.extruded,
        .lines = lines.counted(),
        .moves = .{ .rapid = totals.counts[0], .linear = totals.counts[1], .arc = totals.counts[2] },
        .path_mm = .{ .rapid = rapid, .linear = linear, .arc = arc, .total = rapid + linear + arc },
        .problems = try problems.list(),
        .problems_total = problems.count(),
        .time_s = planner.time(),
        .units = modal.first_units orelse if (modal.scale == 1) .mm else .inch,
    };
}
