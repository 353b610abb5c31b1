//! The Zig guest library: what a Snapcount skill written in Zig imports.
//!
//! A skill is a file of ordinary functions named for hooks, and one line that exports them:
//!
//!     const sc = @import("snapcount");
//!
//!     pub fn bid(request: sc.contract.BidRequest) !sc.contract.BidReply {
//!         if (request.margin < 0) return sc.fail("bad_margin", "margin is {d}; it must not be negative", .{request.margin});
//!         ...
//!     }
//!
//!     comptime {
//!         sc.exportSkill(@This());
//!     }
//!
//! A hook takes one request and returns one reply (`T` or `!T`). Both are plain structs: the library decodes and
//! encodes the deterministic CBOR of docs/abi.md by reflection when the skill is compiled. The rules are in
//! shape.zig; the shapes of the contract are in contract.zig.
//!
//! A mesh message comes to `handle`, whose reply has a default for everything:
//!
//!     pub fn handle(request: sc.contract.HandleRequest) !sc.contract.HandleReply {
//!         if (!std.mem.eql(u8, request.topic, "cell.stop")) return .{ .handled = false };
//!         if (request.phase == .prepare) return .{ .state = if (try mayStop()) .ready else .conflict };
//!         ...
//!     }

const arena = @import("arena.zig");
const decode_file = @import("decode.zig");
const encode_file = @import("encode.zig");
const entry = @import("entry.zig");
const failure = @import("failure.zig");
const host = @import("host.zig");
const shape = @import("shape.zig");

/// The shapes of sdk/contract/skill.cddl.
pub const contract = @import("contract.zig");

/// A CBOR byte string. A plain `[]const u8` is text.
pub const Bytes = shape.Bytes;

/// Exports `sc_alloc`, `sc_reset` and `hook_NAME` for each public function of `Skill` that is named for a hook.
pub const exportSkill = entry.exportSkill;

/// Ends the hook with an error reply: `return sc.fail("code", "format", .{arguments})`. `code` is lower_snake_case.
pub const fail = failure.fail;

/// Memory that lives until the reply of this call was read. For what must outlive it, use a global variable.
pub const allocator = arena.allocator;

/// Encodes a value as deterministic CBOR into the arena.
pub const encode = encode_file.encode;
/// Decodes deterministic CBOR strictly. Slices in the value point into `bytes`.
pub const decode = decode_file.decode;

// What the host offers. Each import is linked only when the skill uses it.
pub const Level = host.Level;
pub const log = host.log;
pub const nowMs = host.nowMs;
pub const random = host.random;
pub const stateGet = host.stateGet;
pub const stateSet = host.stateSet;
pub const flag = host.flag;
pub const call = host.call;
pub const Outcome = host.Outcome;
