//! M codes: limits, heaters, tool, modes and stops. Which of the others are passed over is in mcode_kinds.zig.

const std = @import("std");
const actions = @import("actions.zig");
const kinds = @import("mcode_kinds.zig");
const limits = @import("limits.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const tools = @import("tools.zig");
const words = @import("words.zig");

/// Whether the rest of the line is not made of words that matter. On printers that is so for every M code that is not
/// read here, and their parameters can be anything: texts, file names, versions.
pub fn skipsParameters(code: words.Code) bool {
    if (code % 10 != 0) return modal.dialect == .marlin;
    return switch (code / 10) {
        117, 118 => true,
        // What a printer shows while it waits.
        0, 1 => modal.dialect == .marlin,
        2...5, 30, 82, 83, 104, 109, 140, 190, 191, 200, 201, 203...206, 220, 221, 400, 566, 702 => false,
        else => modal.dialect == .marlin,
    };
}

/// Printers take letters without numbers as flags (`G28 X`, `M18 X Y`); on a move they are damage.
pub fn allowsBareLetters(line: *const words.Line) bool {
    if (modal.dialect != .marlin) return false;
    for (line.g()) |g| if (g <= 30) return false;
    return true;
}

pub fn runAll(line: *const words.Line, number: u64) void {
    for (line.m()) |code| run(code, line, number);
}

/// What a line does before its motion (RS-274, section 3.8).
pub fn runBeforeMotion(line: *const words.Line, number: u64) void {
    for (line.m()) |code| if (!isStop(code)) run(code, line, number);
}

pub fn runAfterMotion(line: *const words.Line, number: u64) void {
    for (line.m()) |code| if (isStop(code)) run(code, line, number);
}

fn isStop(code: words.Code) bool {
    return code == 0 or code == 10 or code == 20 or code == 300 or code == 600;
}

/// BambuStudio's estimate for heating the chamber, and from where on it counts.
const bambu_chamber_s = 720;
const bambu_chamber_c_min = 40;

fn run(code: words.Code, line: *const words.Line, number: u64) void {
    if (code % 10 != 0) return pass(code, number);
    const marlin = modal.dialect == .marlin;
    switch (code / 10) {
        3, 4 => startTool(line, number),
        5 => {
            if (!marlin) planner.stop();
            machine.tool(0, number);
        },
        // On printers M30 deletes a file and M2 is unknown.
        2, 30 => if (!marlin) {
            planner.stop();
            modal.ended = true;
        },
        400 => if (actions.dwellSeconds(line)) |seconds| planner.dwell(seconds) else planner.stop(),
        else => if (marlin) runPrinter(code, line, number) else pass(code, number),
    }
}

/// Codes of printers; on other machines their numbers mean something else.
fn runPrinter(code: words.Code, line: *const words.Line, number: u64) void {
    switch (code / 10) {
        82 => modal.relative_e = false,
        83 => modal.relative_e = true,
        104, 109 => if (line.get('S') orelse line.get('R')) |celsius| machine.heat("nozzle", celsius, number),
        120 => modal.push(),
        121 => modal.pop(),
        140, 190 => if (line.get('S') orelse line.get('R')) |celsius| machine.heat("bed", celsius, number),
        191 => if (limits.direction_jerk and (line.get('S') orelse 0) > bambu_chamber_c_min) planner.dwell(bambu_chamber_s),
        200 => setFilamentDiameter(line),
        201 => setAxes(&limits.axis_accel, line, 1),
        203 => setAxes(&limits.axis_feed, line, feedUnit(line)),
        204 => setAccel(line),
        205 => setCornering(line),
        206 => setHomeOffset(line),
        220 => setFeedFactor(line),
        221 => if (above0(line.get('S'))) |percent| {
            modal.flow_factor = percent / 100;
        },
        // RepRapFirmware's jerk, mm/min.
        566 => setAxes(&limits.jerk, line, 1.0 / 60.0),
        702 => {
            if (line.hasLetter('C')) tools.unload();
            pass(code, number);
        },
        else => pass(code, number),
    }
}

/// What is not done here: it changes nothing that is planned, waits for a person, or has to be named.
fn pass(code: words.Code, number: u64) void {
    const kind = if (modal.dialect == .marlin) kinds.onPrinter(code) else kinds.onRouter(code);
    switch (kind) {
        .harmless => {},
        .pause => {
            planner.stop();
            machine.pause(number);
        },
        .unsupported => problems.addCode(number, 'M', code),
    }
}

fn startTool(line: *const words.Line, number: u64) void {
    const power = line.get('S');
    // A spindle is waited for; a laser's power that comes with a move is not.
    if (modal.dialect != .marlin and line.g_count == 0) planner.stop();
    machine.tool(power orelse 0, number);
}

/// M206: home gets this name, so the origin lies on the other side of it.
fn setHomeOffset(line: *const words.Line) void {
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| modal.local[axis] = -word * modal.scale;
    }
}

/// M220: percent in S; B stores the factor, R brings it back.
fn setFeedFactor(line: *const words.Line) void {
    if (line.hasLetter('B')) modal.feed_factor_saved = modal.feed_factor;
    if (above0(line.get('S'))) |percent| modal.feed_factor = percent / 100;
    if (line.hasLetter('R')) modal.feed_factor = modal.feed_factor_saved;
}

/// M200 D: E words count mm³ of a filament with this diameter; 0 goes back to mm.
fn setFilamentDiameter(line: *const words.Line) void {
    const diameter = line.get('D') orelse return;
    modal.filament_scale = if (diameter > 0) 4 / (std.math.pi * diameter * diameter) else 1;
}

fn setAxes(axes: *limits.Axes, line: *const words.Line, unit: f64) void {
    inline for (.{ 'X', 'Y', 'Z', 'E' }, 0..) |letter, axis| {
        if (line.get(letter)) |value| {
            if (value > 0) axes[axis] = value * unit;
        }
    }
}

/// No axis of a printer moves 2 m/s: a larger M203 is RepRapFirmware's, in mm/min.
const axis_feed_mm_s_max = 2000;

fn feedUnit(line: *const words.Line) f64 {
    const fastest = @max(line.get('X') orelse 0, line.get('Y') orelse 0);
    return if (fastest > axis_feed_mm_s_max) 1.0 / 60.0 else 1;
}

/// M204: P printing, R retracting, T travelling; the older S sets printing and travelling at once, then T is retracting.
fn setAccel(line: *const words.Line) void {
    if (above0(line.get('S'))) |accel| {
        limits.setPrintAccel(accel);
        limits.setTravelAccel(accel);
        if (above0(line.get('T'))) |retract| limits.setRetractAccel(retract);
        return;
    }
    if (above0(line.get('P'))) |accel| limits.setPrintAccel(accel);
    if (above0(line.get('R'))) |accel| limits.setRetractAccel(accel);
    if (above0(line.get('T'))) |accel| limits.setTravelAccel(accel);
}

fn above0(value: ?f64) ?f64 {
    return if ((value orelse 0) > 0) value else null;
}

/// M205: jerk of each axis, junction deviation J, least speeds S (printing) and T (travelling), mm/s.
fn setCornering(line: *const words.Line) void {
    setAxes(&limits.jerk, line, 1);
    if (line.get('J')) |deviation| limits.setJunctionDeviation(deviation);
    if (line.get('S')) |feed| limits.feed_print_min = feed;
    if (line.get('T')) |feed| limits.feed_travel_min = feed;
}
