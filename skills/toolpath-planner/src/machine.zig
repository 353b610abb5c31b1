//! Drives the capability `motion`. Moves travel in batches, everything else waits for the moves before it.
//!
//! The first refusal ends driving for good: what follows was planned from a position that the machine never reached.
//! For the same reason driving ends at the first line that was left out.

const std = @import("std");
const sc = @import("snapcount");
const cornering = @import("cornering.zig");
const limits = @import("limits.zig");
const problems = @import("problems.zig");

const contract = sc.contract;
const capability = "motion";
const chord_default = 0.05;
const watts_per_s_default = 1;

/// How far the driven segments of an arc may stand off the arc, mm.
pub var chord: f64 = chord_default;
var watts_per_s: f64 = watts_per_s_default;
var active = false;
/// The program waits for a person here; there is none to ask.
var waiting = false;
var accepted: u64 = 0;

var batch: [contract.motion_moves_max][4]f64 = undefined;
var batch_len: usize = 0;
var batch_line: u64 = 0;

pub fn reset(run: bool, settings: contract.PlanSettings) void {
    active = run;
    waiting = false;
    accepted = 0;
    batch_len = 0;
    chord = settings.chord_mm orelse chord_default;
    watts_per_s = settings.tool_w_per_s orelse watts_per_s_default;
}

pub inline fn driving() bool {
    return active;
}

/// Moves that the driver accepted.
pub fn driven() u64 {
    return accepted;
}

pub fn moveTo(point: *const contract.Point, delta: *const limits.Axes, length: f64, feed: f64, line: u64) void {
    if (!ready(line)) return;
    if (batch_len == 0) batch_line = line;
    batch[batch_len] = .{ point[0], point[1], point[2], cornering.cruiseFor(delta, length, feed) };
    batch_len += 1;
    if (batch_len == batch.len) flush();
}

pub fn heat(heater: []const u8, celsius: f64, line: u64) void {
    command(.{ .heat = .{ .celsius = celsius, .heater = heater } }, line);
}

/// Power of the tool for an S word.
pub fn tool(s: f64, line: u64) void {
    command(.{ .tool = .{ .watts = s * watts_per_s } }, line);
}

pub fn home(line: u64) void {
    command(.{ .home = .{} }, line);
}

pub fn dwell(seconds: f64, line: u64) void {
    command(.{ .dwell = .{ .ms = @trunc(seconds * 1000 + 0.5) } }, line);
}

/// The program goes on when a person says so: to change a tool or filament, or to look. What is sent after it would not
/// wait, so driving ends there.
pub fn pause(line: u64) void {
    if (!ready(line)) return;
    flush();
    waiting = true;
}

/// Sends the moves that wait.
pub fn flush() void {
    if (!active or batch_len == 0) return;
    const count = batch_len;
    batch_len = 0;
    if (ask(.{ .move = .{ .moves = batch[0..count] } }, batch_line)) accepted += count;
}

fn command(request: contract.MotionRequest, line: u64) void {
    if (!ready(line)) return;
    flush();
    if (active) _ = ask(request, line);
}

/// Whether driving goes on.
fn ready(line: u64) bool {
    if (!active) return false;
    if (problems.complete() and !waiting) return true;
    flush();
    active = false;
    problems.add(line, .motion_stopped, "driving ended here: ", if (waiting) "the program waits for a person" else "a line before was not understood", "");
    return false;
}

fn ask(request: contract.MotionRequest, line: u64) bool {
    const outcome = sc.call(capability, request, contract.MotionReply) catch {
        active = false;
        problems.add(line, .motion_refused, "the driver's reply could not be read", "", "");
        return false;
    };
    switch (outcome) {
        .reply => return true,
        .refused => |refusal| {
            active = false;
            const safe_mode = std.mem.eql(u8, refusal.code, "safe_mode");
            problems.add(line, if (safe_mode) .safe_mode else .motion_refused, "the driver refused: ", refusal.message, "");
            return false;
        },
    }
}
