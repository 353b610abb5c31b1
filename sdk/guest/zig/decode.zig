//! Strict decoding of deterministic CBOR. Because keys arrive in a known order, a struct is read in one pass that
//! compares each key with the one that must come next; nothing is searched for and nothing is buffered.
//!
//! Refused: an unknown, missing, repeated or misplaced key; another type than the field's; lengths that are
//! indefinite; lengths and numbers that are not in their shortest form; NaN and infinities; text that is not UTF-8;
//! tags; null; bytes behind the value. The depth is that of the type, so input cannot nest deeper, and no array is
//! allocated that the input could not fill.

const std = @import("std");
const arena = @import("arena.zig");
const failure = @import("failure.zig");
const half = @import("half.zig");
const shape = @import("shape.zig");

pub const Error = error{ OutOfMemory, SkillFailed };
const ItemError = error{ OutOfMemory, Malformed };

/// Decodes a `T`. A failure has the code `bad_request` and a message that names the key.
pub fn decode(comptime T: type, bytes: []const u8) Error!T {
    trace.clear();
    return decodeTraced(T, bytes) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        error.Malformed => failure.fail("bad_request", "{s}{s}{s}", .{ trace.path(), if (trace.path().len > 0) ": " else "", trace.problem }),
    };
}

fn decodeTraced(comptime T: type, bytes: []const u8) ItemError!T {
    var input: Input = .{ .rest = bytes };
    const value = try item(T, &input);
    if (input.rest.len != 0) return malformed("expected the end, got more bytes");
    return value;
}

/// Where decoding failed, as `products[2].recovery.sigma`. Written from the inside out, so the path grows to the left.
const trace = struct {
    var buffer: [200]u8 = undefined;
    var from: usize = buffer.len;
    var problem: []const u8 = "";

    fn clear() void {
        from = buffer.len;
        problem = "";
    }

    fn path() []const u8 {
        return buffer[from..];
    }

    /// Puts `part` before the path. A path that would not fit keeps its innermost parts.
    fn prepend(part: []const u8) void {
        const dot: usize = if (from == buffer.len or buffer[from] == '[') 0 else 1;
        if (part.len + dot > from) return;
        if (dot == 1) {
            from -= 1;
            buffer[from] = '.';
        }
        from -= part.len;
        @memcpy(buffer[from..][0..part.len], part);
    }

    fn prependIndex(index: usize) void {
        var digits: [24]u8 = undefined;
        prepend(std.fmt.bufPrint(&digits, "[{d}]", .{index}) catch unreachable);
    }
};

fn malformed(problem: []const u8) error{Malformed} {
    @branchHint(.cold);
    trace.problem = problem;
    return error.Malformed;
}

const Input = struct {
    rest: []const u8,

    fn take(self: *Input, len: usize) error{Malformed}![]const u8 {
        if (len > self.rest.len) return malformed("expected more bytes, got the end");
        defer self.rest = self.rest[len..];
        return self.rest[0..len];
    }

    /// Reads a head of the wanted major type and returns its argument.
    fn head(self: *Input, comptime major: shape.Major) error{Malformed}!u64 {
        if (self.rest.len == 0) return malformed("expected " ++ @tagName(major) ++ ", got the end");
        const initial = self.rest[0];
        if (initial >> 5 != @backingInt(major)) return malformed("expected " ++ @tagName(major) ++ ", got another type");
        self.rest = self.rest[1..];
        return switch (initial & 31) {
            0...23 => |small| small,
            24 => self.argument(u8, 24),
            25 => self.argument(u16, 1 << 8),
            26 => self.argument(u32, 1 << 16),
            27 => self.argument(u64, 1 << 32),
            else => malformed("expected a definite length"),
        };
    }

    fn argument(self: *Input, comptime T: type, least: u64) error{Malformed}!u64 {
        const value = std.mem.readInt(T, (try self.take(@sizeOf(T)))[0..@sizeOf(T)], .big);
        if (value < least) return malformed("expected the shortest form of a number or length");
        return value;
    }

    fn string(self: *Input, comptime major: shape.Major) error{Malformed}![]const u8 {
        const len = try self.head(major);
        if (len > self.rest.len) return malformed("expected more bytes, got the end");
        return self.take(@intCast(len));
    }
};

fn item(comptime T: type, input: *Input) ItemError!T {
    if (T == shape.Bytes) return .{ .data = try input.string(.bytes) };
    if (comptime shape.isText(T)) return text(input);
    return switch (@typeInfo(T)) {
        .bool => boolean(input),
        .int => integer(T, input),
        .float => @floatCast(try float(input)),
        .pointer => |pointer| slice(pointer.child, input),
        .array => |info| fixedArray(T, info.child, input),
        .@"enum" => std.meta.stringToEnum(T, try input.string(.text)) orelse malformed("expected one of the listed words, got another"),
        .@"struct" => map(T, input),
        else => @compileError("cannot decode " ++ @typeName(T)),
    };
}

fn text(input: *Input) ItemError![]const u8 {
    const bytes = try input.string(.text);
    if (!std.unicode.utf8ValidateSlice(bytes)) return malformed("expected UTF-8");
    return bytes;
}

fn boolean(input: *Input) ItemError!bool {
    const byte = (try input.take(1))[0];
    if (byte == shape.cbor_true) return true;
    if (byte == shape.cbor_false) return false;
    return malformed("expected bool, got another type");
}

fn integer(comptime T: type, input: *Input) ItemError!T {
    const negative = input.rest.len > 0 and input.rest[0] >> 5 == @backingInt(shape.Major.nint);
    if (negative and @typeInfo(T).int.signedness == .signed) {
        const argument = try input.head(.nint);
        if (argument > std.math.maxInt(T)) return malformed("expected a smaller number");
        return -1 - @as(T, @intCast(argument));
    }
    return std.math.cast(T, try input.head(.uint)) orelse malformed("expected a smaller number");
}

/// A finite number in its shortest form. No value of the contract is infinite or not a number.
fn float(input: *Input) ItemError!f64 {
    const initial = (try input.take(1))[0];
    const value: f64 = switch (initial) {
        shape.cbor_f16 => half.valueOf(std.mem.readInt(u16, (try input.take(2))[0..2], .big)),
        shape.cbor_f32 => @as(f32, @bitCast(std.mem.readInt(u32, (try input.take(4))[0..4], .big))),
        shape.cbor_f64 => @bitCast(std.mem.readInt(u64, (try input.take(8))[0..8], .big)),
        else => return malformed("expected float, got another type"),
    };
    if (!std.math.isFinite(value)) return malformed("expected a finite number");
    const single: f32 = @floatCast(value);
    const shortest: u8 = if (single != value) shape.cbor_f64 else if (half.bitsOf(single) == null) shape.cbor_f32 else shape.cbor_f16;
    if (initial != shortest) return malformed("expected the shortest form of a float");
    return value;
}

fn slice(comptime T: type, input: *Input) ItemError![]const T {
    const count = try input.head(.array);
    if (count > input.rest.len / comptime shape.encodedLenMin(T)) return malformed("expected more items, got the end");
    const items = try arena.allocator.alloc(T, @intCast(count));
    for (items, 0..) |*one, i| one.* = try itemAt(T, i, input);
    return items;
}

fn fixedArray(comptime T: type, comptime Item: type, input: *Input) ItemError!T {
    var items: T = undefined;
    if (try input.head(.array) != items.len) return malformed(std.fmt.comptimePrint("expected {d} items", .{items.len}));
    for (&items, 0..) |*one, i| one.* = try itemAt(Item, i, input);
    return items;
}

fn itemAt(comptime T: type, index: usize, input: *Input) ItemError!T {
    return item(T, input) catch |err| {
        trace.prependIndex(index);
        return err;
    };
}

fn map(comptime T: type, input: *Input) ItemError!T {
    const fields = comptime shape.fields(T);
    var left = try input.head(.map);
    var value: T = undefined;
    inline for (fields) |field| {
        if (left > 0 and std.mem.startsWith(u8, input.rest, field.key)) {
            input.rest = input.rest[field.key.len..];
            left -= 1;
            const Wanted = if (field.optional) @typeInfo(field.type).optional.child else field.type;
            @field(value, field.name) = item(Wanted, input) catch |err| {
                trace.prepend(field.name);
                return err;
            };
        } else if (field.optional) {
            @field(value, field.name) = null;
        } else {
            return unexpectedKey(T, field.name, left, input);
        }
    }
    if (left > 0) return unexpectedKey(T, "", left, input);
    return value;
}

/// Says whether the key that stands here is unknown or misplaced, or the wanted one is missing.
fn unexpectedKey(comptime T: type, wanted: []const u8, left: u64, input: *Input) error{Malformed} {
    @branchHint(.cold);
    if (left == 0) {
        trace.prepend(wanted);
        return malformed("expected this key, it is missing");
    }
    const key = try input.string(.text);
    inline for (comptime shape.fields(T)) |field| {
        if (std.mem.eql(u8, key, field.name)) {
            // A key of this struct stands here, so what was wanted before it is missing or comes too late.
            trace.prepend(if (wanted.len > 0) wanted else field.name);
            return malformed(if (wanted.len > 0) "expected this key, it is missing or out of order" else "got this key twice or out of order");
        }
    }
    trace.prepend(printable(key));
    return malformed("got a key that is not known here");
}

/// A key from outside is shown only when it is short printable ASCII.
fn printable(key: []const u8) []const u8 {
    if (key.len > 64) return "(a long key)";
    for (key) |char| if (!std.ascii.isPrint(char)) return "(an unprintable key)";
    return key;
}
