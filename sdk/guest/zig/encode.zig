//! Deterministic CBOR encoding (RFC 8949 §4.2.1): definite lengths, shortest integers, shortest floats that keep
//! the value, keys in bytewise order. The order of keys is computed when the skill is compiled.

const std = @import("std");
const arena = @import("arena.zig");
const half = @import("half.zig");
const shape = @import("shape.zig");

pub const Error = error{OutOfMemory};

/// The encoding of `value`, at the top of the arena.
pub fn encode(value: anytype) Error![]const u8 {
    const from = arena.mark();
    try item(@TypeOf(value), value);
    const many: [*]const u8 = @ptrFromInt(from);
    return many[0 .. arena.mark() - from];
}

fn item(comptime T: type, value: T) Error!void {
    if (T == shape.Bytes) return string(.bytes, value.data);
    if (comptime shape.isText(T)) return string(.text, value);
    switch (@typeInfo(T)) {
        .bool => try raw(&.{if (value) shape.cbor_true else shape.cbor_false}),
        .int => try integer(T, value),
        .float => try float(value),
        .pointer => |pointer| {
            if (pointer.size != .slice) @compileError("cannot encode " ++ @typeName(T));
            try array(pointer.child, value);
        },
        .array => |info| try array(info.child, &value),
        .@"enum" => try string(.text, @tagName(value)),
        .@"struct" => try map(T, value),
        .@"union" => switch (value) {
            inline else => |payload| try item(@TypeOf(payload), payload),
        },
        else => @compileError("cannot encode " ++ @typeName(T)),
    }
}

fn array(comptime T: type, values: []const T) Error!void {
    try head(.array, values.len);
    for (values) |value| try item(T, value);
}

fn map(comptime T: type, value: T) Error!void {
    const fields = comptime shape.fields(T);
    var count: usize = 0;
    inline for (fields) |field| {
        count += if (field.optional) @intFromBool(@field(value, field.name) != null) else 1;
    }
    try head(.map, count);
    inline for (fields) |field| {
        if (field.optional) {
            if (@field(value, field.name)) |present| {
                try raw(field.key);
                try item(@TypeOf(present), present);
            }
        } else {
            try raw(field.key);
            try item(field.type, @field(value, field.name));
        }
    }
}

fn raw(bytes: []const u8) Error!void {
    const out = try arena.reserve(bytes.len);
    @memcpy(out[0..bytes.len], bytes);
    arena.commit(bytes.len);
}

fn string(major: shape.Major, bytes: []const u8) Error!void {
    try head(major, bytes.len);
    try raw(bytes);
}

fn integer(comptime T: type, value: T) Error!void {
    if (value >= 0) return head(.uint, @intCast(value));
    // RFC 8949 §3.1: a negative integer n is stored as -1 - n.
    return head(.nint, @intCast(-1 - @as(i64, value)));
}

fn head(major: shape.Major, argument: u64) Error!void {
    const out = try arena.reserve(shape.head_len_max);
    const high = @as(u8, @backingInt(major)) << 5;
    if (argument < 24) {
        out[0] = high | @as(u8, @intCast(argument));
        arena.commit(1);
    } else if (argument <= std.math.maxInt(u8)) {
        argumentBytes(out, high | 24, u8, argument);
    } else if (argument <= std.math.maxInt(u16)) {
        argumentBytes(out, high | 25, u16, argument);
    } else if (argument <= std.math.maxInt(u32)) {
        argumentBytes(out, high | 26, u32, argument);
    } else {
        argumentBytes(out, high | 27, u64, argument);
    }
}

fn argumentBytes(out: [*]u8, initial: u8, comptime T: type, argument: u64) void {
    out[0] = initial;
    std.mem.writeInt(T, out[1..][0..@sizeOf(T)], @intCast(argument), .big);
    arena.commit(1 + @sizeOf(T));
}

/// The shortest of f16, f32 and f64 that keeps the value; every NaN is 7e00 (RFC 8949 §4.2.1 and §4.2.2).
fn float(value: f64) Error!void {
    const out = try arena.reserve(shape.head_len_max);
    if (std.math.isNan(value)) return argumentBytes(out, shape.cbor_f16, u16, 0x7e00);
    // An f64 whose value f32 cannot hold must be asked first: narrowing twice could round twice.
    const single: f32 = @floatCast(value);
    if (@as(f64, single) != value) return argumentBytes(out, shape.cbor_f64, u64, @bitCast(value));
    if (half.bitsOf(single)) |bits| return argumentBytes(out, shape.cbor_f16, u16, bits);
    argumentBytes(out, shape.cbor_f32, u32, @as(u32, @bitCast(single)));
}
