//! The memory of one call: a bump pointer between the module's data and the end of linear memory.
//!
//! Allocation is an addition, freeing everything is an assignment, so a call costs nothing in memory management
//! and an instance stays as small as what its largest call needed. Nothing is freed on its own.

const std = @import("std");

const page_bytes = 64 * 1024;
const alignment = 8;

// The linker places this symbol behind the data and the stack.
extern var __heap_base: u8;

/// First free byte. 0 until the first allocation.
var top: usize = 0;
/// End of the linear memory that the arena may use without growing it.
var end: usize = 0;

fn base() usize {
    return std.mem.alignForward(usize, @intFromPtr(&__heap_base), alignment);
}

fn start() void {
    top = base();
    end = @wasmMemorySize(0) * page_bytes;
}

/// Where the arena stands, for `release`.
pub fn mark() usize {
    if (top == 0) start();
    return top;
}

/// Frees everything that was allocated since `mark`.
pub fn release(to: usize) void {
    top = to;
}

/// Frees everything.
pub fn reset() void {
    if (top != 0) top = base();
}

/// Makes sure that `len` bytes follow the top, and returns a pointer to them without taking them.
pub inline fn reserve(len: usize) error{OutOfMemory}![*]u8 {
    if (top == 0) start();
    if (len > end - top) try grow(len);
    return @ptrFromInt(top);
}

/// Takes the first `len` of the bytes that `reserve` promised.
pub inline fn commit(len: usize) void {
    top += len;
}

fn grow(len: usize) error{OutOfMemory}!void {
    @branchHint(.unlikely);
    const missing = len - (end - top);
    const pages = missing / page_bytes + 1;
    if (@wasmMemoryGrow(0, pages) < 0) return error.OutOfMemory;
    end += pages * page_bytes;
}

/// `len` bytes, 8-byte aligned.
pub fn alloc(len: usize) error{OutOfMemory}![]u8 {
    if (top == 0) start();
    top = std.mem.alignForward(usize, top, alignment);
    const bytes = try reserve(len);
    commit(len);
    return bytes[0..len];
}

/// The arena behind the standard interface. `free` does nothing; everything goes at the end of the call.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{
        .alloc = vtableAlloc,
        .resize = std.mem.Allocator.noResize,
        .remap = std.mem.Allocator.noRemap,
        .free = std.mem.Allocator.noFree,
    },
};

fn vtableAlloc(_: *anyopaque, len: usize, wanted: std.mem.Alignment, _: usize) ?[*]u8 {
    if (top == 0) start();
    const from = std.mem.alignForward(usize, top, @max(wanted.toByteUnits(), alignment));
    if (from > end) return null;
    top = from;
    const bytes = reserve(len) catch return null;
    commit(len);
    return bytes;
}
