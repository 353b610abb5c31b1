//! The host's functions (`snapcount:host/1`), typed. An import that the skill never calls is not in its module, so a
//! skill needs only the capabilities that it uses.

const arena = @import("arena.zig");
const contract = @import("contract.zig");
const decode = @import("decode.zig");
const encode = @import("encode.zig");

const raw = struct {
    extern "snapcount:host/1" fn log(level: i32, ptr: [*]const u8, len: usize) void;
    extern "snapcount:host/1" fn now_ms() i64;
    extern "snapcount:host/1" fn random(ptr: [*]u8, len: usize) void;
    extern "snapcount:host/1" fn state_get(key: [*]const u8, key_len: usize, out: [*]u8, out_cap: usize) i32;
    extern "snapcount:host/1" fn state_set(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize) i32;
    extern "snapcount:host/1" fn call(cap: [*]const u8, cap_len: usize, req: [*]const u8, req_len: usize, out: [*]u8, out_cap: usize) u32;
};

pub const Level = enum(i32) { debug = 0, info = 1, warning = 2, err = 3 };

/// Writes one line of UTF-8 to the host's log (capability `log`).
pub fn log(level: Level, line: []const u8) void {
    raw.log(@backingInt(level), line.ptr, line.len);
}

/// Unix time in milliseconds (capability `clock`).
pub fn nowMs() i64 {
    return raw.now_ms();
}

/// Fills `bytes` with random bytes (capability `random`).
pub fn random(bytes: []u8) void {
    raw.random(bytes.ptr, bytes.len);
}

/// Room for a value at the first attempt; a longer value costs a second host call.
const state_first_attempt_bytes = 512;

/// The value stored under `key`, in the arena, or null (capability `state`).
pub fn stateGet(key: []const u8) error{OutOfMemory}!?[]const u8 {
    var out = try arena.alloc(state_first_attempt_bytes);
    while (true) {
        const len = raw.state_get(key.ptr, key.len, out.ptr, out.len);
        if (len < 0) return null;
        const wanted: usize = @intCast(len);
        if (wanted <= out.len) return out[0..wanted];
        out = try arena.alloc(wanted);
    }
}

/// Stores `value` under `key`; an empty value deletes the key (capability `state`).
pub fn stateSet(key: []const u8, value: []const u8) error{StateQuotaFull}!void {
    if (raw.state_set(key.ptr, key.len, value.ptr, value.len) < 0) return error.StateQuotaFull;
}

/// What a driver answered: its reply, or the error reply with its code and message.
pub fn Outcome(comptime Reply: type) type {
    return union(enum) { reply: Reply, refused: contract.ErrorReply };
}

/// docs/abi.md: the buffer must hold at least this much, and no reply is longer.
const call_reply_bytes_max = 4096;
const error_bit = 1 << 31;

var call_reply: [call_reply_bytes_max]u8 = undefined;

/// Asks the driver behind `capability`. Text in the outcome is valid until the next `call`.
pub fn call(capability: []const u8, request: anytype, comptime Reply: type) decode.Error!Outcome(Reply) {
    const before = arena.mark();
    const bytes = try encode.encode(request);
    const result = raw.call(capability.ptr, capability.len, bytes.ptr, bytes.len, &call_reply, call_reply.len);
    arena.release(before);
    const reply = call_reply[0..@min(result & ~@as(u32, error_bit), call_reply.len)];
    if (result & error_bit != 0) return .{ .refused = try decode.decode(contract.ErrorReply, reply) };
    return .{ .reply = try decode.decode(Reply, reply) };
}

/// Whether the node's operators have switched a feature flag on (capability `flags`). `name` is lower_snake_case; a flag that nobody named,
/// or that cannot be asked for, is off.
pub fn flag(name: []const u8) bool {
    const outcome = call("flags", contract.FlagRequest{ .flag = name }, contract.FlagReply) catch return false;
    return switch (outcome) {
        .reply => |reply| reply.on,
        .refused => false,
    };
}
