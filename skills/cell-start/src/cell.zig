//! What a cell remembers between calls. The rules are functions from one value to the next; only `load` and `store` touch
//! the host.

const std = @import("std");
const sc = @import("snapcount");

const key = "cell";

pub const Cell = struct {
    /// The job under way: prepared, and neither begun nor cleared. Empty: none.
    job: []const u8 = "",
    /// Id of the message that prepared it; empty where there is none.
    message: sc.Bytes = .{ .data = "" },
    /// Jobs that have begun here.
    started: u64 = 0,

    pub fn load() !Cell {
        const stored = try sc.stateGet(key) orelse return .{};
        return sc.decode(Cell, stored);
    }

    pub fn store(self: Cell) !void {
        try sc.stateSet(key, try sc.encode(self));
    }

    /// The cell with this job under way; null: another one is. A message that prepares the same job anew takes its place.
    pub fn prepared(self: Cell, job: []const u8, message: sc.Bytes) ?Cell {
        if (self.job.len > 0 and !std.mem.eql(u8, self.job, job)) return null;
        return .{ .job = job, .message = message, .started = self.started };
    }

    /// Whether this very message prepared this very job.
    pub fn isReadyFor(self: Cell, job: []const u8, message: sc.Bytes) bool {
        return self.job.len > 0 and std.mem.eql(u8, self.job, job) and std.mem.eql(u8, self.message.data, message.data);
    }

    pub fn cleared(self: Cell) Cell {
        return .{ .started = self.started };
    }

    /// The cell with one more job begun.
    pub fn counted(self: Cell) Cell {
        return .{ .job = self.job, .message = self.message, .started = self.started +| 1 };
    }
};
