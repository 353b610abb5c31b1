//! Which family of controllers a program is written for, from its first 64 KiB.
//!
//! | dialect | signs |
//! |---|---|
//! | marlin | a slicer's name in a comment; filament (E words on moves), heaters, fans, M82/M83, extended commands |
//! | rs274 | O-words, parameters, canned cycles, cutter and tool-length compensation, feed per turn, path blending |
//! | grbl | `$` settings, G43.1, laser power on moves; and everything that shows no sign of another family |
//!
//! Slicers estimate in ways of their own, so some names are told apart.

const std = @import("std");
const sc = @import("snapcount");
const words = @import("words.zig");

/// What a slicer writes into a comment near the top.
const slicer_names = [_][]const u8{
    "PrusaSlicer",   "SuperSlicer",    "OrcaSlicer",     "BambuStudio",  "Slic3r",  "Cura_SteamEngine",
    "Simplify3D",    "ideaMaker",      "KISSlicer",      "CraftWare",    "FLAVOR:", "ffslicer",
    "CrealityPrint", "Creality_Print", "AnycubicSlicer", "ElegooSlicer",
};

/// What grew out of BambuStudio.
const orca_names = [_][]const u8{ "OrcaSlicer", "CrealityPrint", "Creality_Print", "ElegooSlicer", "AnycubicSlicerNext" };

/// Slicers whose estimates follow rules of their own; `prusa_new` is PrusaSlicer since 2.6.
pub const Slicer = enum { other, prusa_new, orca, bambu };

pub const Family = struct {
    dialect: sc.contract.Dialect,
    slicer: Slicer = .other,

    /// The slicer's rule for corners is BambuStudio's.
    pub fn hasDirectionJerk(self: Family) bool {
        return self.slicer == .orca or self.slicer == .bambu;
    }
};

/// A comment that names a slicer is decisive; code gathers points, and a program with none is Grbl's.
const slicer_points = 1000;
const name_within = 80;
const strong = 10;
const weak = 2;

const Points = struct { marlin: u32 = 0, rs274: u32 = 0, grbl: u32 = 0, slicer: Slicer = .other };

pub fn detect(head: []const u8) Family {
    var points: Points = .{};
    var lines = std.mem.tokenizeAny(u8, head, "\r\n");
    while (lines.next()) |line| weigh(std.mem.trim(u8, line, " \t\x00"), &points);
    if (points.marlin > points.rs274 and points.marlin > points.grbl) {
        return .{ .dialect = .marlin, .slicer = points.slicer };
    }
    return .{ .dialect = if (points.rs274 > points.grbl) .rs274 else .grbl };
}

fn weigh(line: []const u8, points: *Points) void {
    if (line.len == 0) return;
    switch (line[0]) {
        ';' => return weighComment(line, points),
        '$' => points.grbl += strong,
        '#' => points.rs274 += strong,
        else => {},
    }
    if (line.len > 1 and std.ascii.isAlphabetic(line[0]) and (std.ascii.isAlphabetic(line[1]) or line[1] == '_')) {
        // An extended command of Klipper.
        points.marlin += if (std.mem.indexOfScalar(u8, line, '_') != null) strong else 0;
        return;
    }
    var code: words.Line = .{};
    code.read(line, textFollows) catch |err| {
        if (err == error.OWord or err == error.Parameter) points.rs274 += strong;
    };
    for (code.g()) |g| weighG(g, &code, points);
    for (code.m()) |m| weighM(m, &code, points);
    if (code.hasLetter('E') and code.valued & words.bit('E') != 0) points.marlin += weak;
    // Laser power on the move itself; printers with a laser do it too, but say so with M codes.
    if (code.hasLetter('S') and code.hasLetter('X')) points.grbl += weak;
}

fn weighComment(line: []const u8, points: *Points) void {
    // The name stands in the first words; whole configurations follow in other comments.
    const start = line[0..@min(line.len, name_within)];
    for (slicer_names) |name| {
        if (std.mem.indexOf(u8, start, name) != null) points.marlin += slicer_points;
    }
    for (orca_names) |name| {
        if (std.mem.indexOf(u8, start, name) != null) points.slicer = .orca;
    }
    // Both names stand in what slicers write that descend from both: the first one counts.
    if (points.slicer != .other) return;
    if (std.mem.indexOf(u8, start, "BambuStudio") != null) points.slicer = .bambu;
    if (std.mem.indexOf(u8, start, prusa_name)) |at| {
        if (isSince2_6(start[at + prusa_name.len ..])) points.slicer = .prusa_new;
    }
}

const prusa_name = "PrusaSlicer ";

/// Whether a version as `2.7.1+linux` is 2.6 or later.
fn isSince2_6(version: []const u8) bool {
    var parts = std.mem.tokenizeAny(u8, version, ".+- ");
    const major = std.fmt.parseInt(u32, parts.next() orelse return false, 10) catch return false;
    const minor = std.fmt.parseInt(u32, parts.next() orelse return false, 10) catch return false;
    return major > 2 or (major == 2 and minor >= 6);
}

fn weighG(g: words.Code, code: *const words.Line, points: *Points) void {
    switch (g) {
        290, 291, 110 => points.marlin += strong,
        920 => if (code.hasLetter('E')) {
            points.marlin += strong;
        },
        // Firmware retraction has no words; the table of RS-274 does.
        100 => if (code.has == 0) {
            points.marlin += weak;
        },
        // Marlin names axes without a number.
        280 => if (code.has & ~code.valued != 0) {
            points.marlin += strong;
        },
        410, 420, 430, 490, 640, 330, 730, 760, 820, 830, 840, 850, 950, 960, 970 => points.rs274 += strong,
        810 => if (code.hasLetter('R') or code.hasLetter('Z')) {
            points.rs274 += strong;
        },
        401, 431, 611 => points.grbl += weak,
        else => {},
    }
}

fn weighM(m: words.Code, code: *const words.Line, points: *Points) void {
    switch (m / 10) {
        82, 83, 84, 104, 106, 107, 109, 117, 140, 190, 201, 203, 204, 205, 220, 221, 566, 862, 900 => points.marlin += strong,
        73, 105, 110, 115, 400, 486, 500, 501, 502, 503, 555, 569, 572, 593, 1002 => points.marlin += strong,
        6 => if (code.hasLetter('T')) {
            points.rs274 += weak;
        },
        48, 49, 60, 61, 62, 63, 64, 65, 66, 67, 68 => points.rs274 += weak,
        else => {},
    }
}

/// Codes whose parameters are text in every dialect.
fn textFollows(code: words.Code) bool {
    return switch (code / 10) {
        16, 23, 28, 32, 33, 73, 115, 117, 118, 486, 862, 928, 1002 => true,
        else => false,
    };
}
