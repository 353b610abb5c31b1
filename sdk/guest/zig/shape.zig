//! How Zig types stand for CBOR, and what of it is known when the skill is compiled.
//!
//! | Zig | CBOR |
//! |---|---|
//! | `bool` | true, false |
//! | unsigned and signed integers | integer |
//! | `f32`, `f64` | float |
//! | `[]const u8` | text |
//! | `Bytes` | byte string |
//! | `[]const T`, `[n]T` | array |
//! | enum | text, the tag's name |
//! | struct | map, one key for each field; a field `?T` that is null is an absent key |
//! | `union(enum)` | whichever of its payloads is set, without the tag (only encoded, never decoded) |

const std = @import("std");

/// A CBOR byte string.
pub const Bytes = struct { data: []const u8 };

/// CBOR major types (RFC 8949 §3.1).
pub const Major = enum(u3) { uint = 0, nint = 1, bytes = 2, text = 3, array = 4, map = 5, tag = 6, simple = 7 };

/// Initial bytes of major type 7 (RFC 8949 §3.3).
pub const cbor_false = 0xf4;
pub const cbor_true = 0xf5;
pub const cbor_f16 = 0xf9;
pub const cbor_f32 = 0xfa;
pub const cbor_f64 = 0xfb;

/// The longest head of an item: one initial byte and a 64-bit argument.
pub const head_len_max = 9;

pub const Field = struct {
    name: []const u8,
    type: type,
    /// The encoded key: head and text.
    key: []const u8,
    optional: bool,
};

/// The fields of a struct in the order of their encoded keys (RFC 8949 §4.2.1).
pub fn fields(comptime T: type) []const Field {
    comptime {
        @setEvalBranchQuota(100_000);
        const info = @typeInfo(T).@"struct";
        var list: [info.field_names.len]Field = undefined;
        for (info.field_names, info.field_types, 0..) |name, Type, i| {
            list[i] = .{
                .name = name,
                .type = Type,
                .key = encodedKey(name),
                .optional = @typeInfo(Type) == .optional,
            };
        }
        // Not std.mem.sort: when it merges at compile time, Zig 0.17 refuses its copy onto itself.
        std.sort.insertion(Field, &list, {}, keyLessThan);
        const sorted = list;
        return &sorted;
    }
}

fn keyLessThan(_: void, a: Field, b: Field) bool {
    return std.mem.lessThan(u8, a.key, b.key);
}

fn encodedKey(comptime name: []const u8) []const u8 {
    if (name.len <= 23) return &[_]u8{0x60 | @as(u8, name.len)} ++ name;
    if (name.len <= 255) return &[_]u8{ 0x78, name.len } ++ name;
    @compileError("the key '" ++ name ++ "' is longer than 255 bytes");
}

/// The fewest bytes that a value of `T` takes: bounds how many items a request of a given length can hold.
pub fn encodedLenMin(comptime T: type) usize {
    comptime {
        if (T == Bytes) return 1;
        return switch (@typeInfo(T)) {
            .float => 3,
            .array => |array| 1 + array.len * encodedLenMin(array.child),
            .@"struct" => blk: {
                var len: usize = 1;
                for (fields(T)) |field| {
                    if (!field.optional) len += field.key.len + encodedLenMin(field.type);
                }
                break :blk len;
            },
            else => 1,
        };
    }
}

pub fn isText(comptime T: type) bool {
    return T == []const u8;
}
