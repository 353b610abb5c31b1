//! What the host calls: the exports of docs/abi.md, made from a skill's own functions.

const arena = @import("arena.zig");
const decode = @import("decode.zig");
const encode = @import("encode.zig");
const failure = @import("failure.zig");

/// The hooks of ABI 1, as in the host's hookspecs.py.
const hook_names = [_][]const u8{
    "plan_job", "assess_feedstock", "inspect_part",
    "bid",      "clear_auction",    "arbitrate",
    "handle",   "resolve_conflict", "self_test",
};

/// Bit 31 of the reply's length marks an error reply.
const error_bit = 1 << 31;

pub fn exportSkill(comptime Skill: type) void {
    @export(&allocRequest, .{ .name = "sc_alloc" });
    @export(&resetArena, .{ .name = "sc_reset" });
    var count: usize = 0;
    for (hook_names) |name| {
        if (!@hasDecl(Skill, name)) continue;
        @export(&Hook(@field(Skill, name)).entry, .{ .name = "hook_" ++ name });
        count += 1;
    }
    if (count == 0) @compileError(@typeName(Skill) ++ " has no public function that is named for a hook");
}

fn allocRequest(len: usize) callconv(.{ .wasm_mvp = .{} }) usize {
    const bytes = arena.alloc(len) catch return 0;
    return @intFromPtr(bytes.ptr);
}

fn resetArena() callconv(.{ .wasm_mvp = .{} }) void {
    arena.reset();
}

fn Hook(comptime function: anytype) type {
    const info = @typeInfo(@TypeOf(function)).@"fn";
    if (info.param_types.len != 1) @compileError("a hook takes exactly one request");
    const Request = info.param_types[0].?;
    return struct {
        fn entry(ptr: [*]const u8, len: usize) callconv(.{ .wasm_mvp = .{} }) u64 {
            const reply = run(ptr[0..len]) catch |err| return refuse(err);
            return packReply(reply, 0);
        }

        fn run(bytes: []const u8) anyerror![]const u8 {
            const request = try decode.decode(Request, bytes);
            const result = function(request);
            const reply = if (@typeInfo(@TypeOf(result)) == .error_union) try result else result;
            return encode.encode(reply);
        }
    };
}

fn refuse(err: anyerror) u64 {
    @branchHint(.cold);
    // Without room for even the error reply there is nothing left to say: the call traps.
    const reply = encode.encode(failure.replyFor(err)) catch @trap();
    return packReply(reply, error_bit);
}

fn packReply(reply: []const u8, flag: u32) u64 {
    return @as(u64, @intFromPtr(reply.ptr)) << 32 | (reply.len | flag);
}
