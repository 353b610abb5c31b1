//! The payload of `cell.start`, and what it must fulfil.

const sc = @import("snapcount");

const job_len_max = 64;

pub const Start = struct {
    feed_mm_min: f64,
    job: []const u8,
    /// x, y, z, machine coordinates.
    to_mm: sc.contract.Point,

    /// Decodes strictly; numbers are finite. Whether the machine may go there is for the owner's safety envelope to say.
    pub fn read(payload: sc.Bytes) !Start {
        const start = try sc.decode(Start, payload.data);
        if (!(start.feed_mm_min > 0)) return sc.fail("bad_request", "feed_mm_min: expected more than 0, got {d}", .{start.feed_mm_min});
        if (start.job.len < 1 or start.job.len > job_len_max) {
            return sc.fail("bad_request", "job: expected 1 to {d} bytes, got {d}", .{ job_len_max, start.job.len });
        }
        // The name stands in sentences of one line.
        for (start.job) |byte| if (byte < ' ' or byte == 0x7f) return sc.fail("bad_request", "job: expected no control characters", .{});
        return start;
    }
};
