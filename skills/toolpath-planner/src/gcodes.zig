//! G codes: modes first, then what acts once, then the motion, in the order of RS-274 (section 3.8).

const std = @import("std");
const arcs = @import("arcs.zig");
const cycles = @import("cycles.zig");
const limits = @import("limits.zig");
const machine = @import("machine.zig");
const mcodes = @import("mcodes.zig");
const modal = @import("modal.zig");
const moves = @import("moves.zig");
const number = @import("number.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const totals = @import("totals.zig");
const words = @import("words.zig");

/// Seconds that BambuStudio's estimate gives to bed levelling: the default of its machine_prepare_compensation_time.
const bambu_levelling_s = 260;

/// What acts once, on the line where it stands.
const Action = enum { none, dwell, table, home, home_second, store_home, store_second, shift };

const axis_words = words.bit('X') | words.bit('Y') | words.bit('Z');

pub fn run(line: *const words.Line, number_of_line: u64) void {
    var action: Action = .none;
    var in_machine = false;
    var moves_now = false;
    for (line.g()) |code| switch (code) {
        0, 10, 20, 30, 50, 51, 330, 380...389 => {
            setMotion(code);
            moves_now = true;
        },
        40 => action = .dwell,
        100 => action = if (modal.dialect == .marlin) .none else .table,
        280 => action = .home,
        281 => action = .store_home,
        300 => action = if (modal.dialect == .marlin) .none else .home_second,
        301 => action = .store_second,
        530 => in_machine = true,
        920 => action = .shift,
        else => setMode(code, line, number_of_line),
    };
    setFeed(line, number_of_line);
    mcodes.runBeforeMotion(line, number_of_line);
    switch (action) {
        .none => motion(line, in_machine, moves_now, number_of_line),
        else => act(action, line, number_of_line),
    }
    mcodes.runAfterMotion(line, number_of_line);
}

fn setMotion(code: words.Code) void {
    modal.motion = switch (code) {
        0 => .rapid,
        10 => .linear,
        20 => .clockwise,
        30 => .counterclockwise,
        else => .unsupported,
    };
}

fn setMode(code: words.Code, line: *const words.Line, number_of_line: u64) void {
    const marlin = modal.dialect == .marlin;
    switch (code) {
        170 => modal.plane = modal.plane_xy,
        180 => modal.plane = modal.plane_zx,
        190 => modal.plane = modal.plane_yz,
        200 => modal.setInch(true),
        210 => modal.setInch(false),
        540, 550, 560, 570, 580, 590 => modal.system = (code - 540) / 10,
        591, 592, 593 => modal.system = 5 + (code - 590),
        900 => {
            modal.relative = false;
            modal.relative_e = false;
        },
        910 => {
            modal.relative = true;
            modal.relative_e = true;
        },
        901 => modal.absolute_centre = true,
        911 => modal.absolute_centre = false,
        921 => modal.suspendShift(false),
        922 => modal.suspendShift(true),
        923 => modal.restoreShift(),
        930 => modal.feed_mode = .inverse_time,
        940 => modal.feed_mode = .per_minute,
        290 => if (limits.direction_jerk and line.hasLetter('A') and line.hasLetter('I')) planner.dwell(bambu_levelling_s),
        // Path blending, compensation off, tool lengths (of an unknown table, so 0), spindle modes, return levels.
        400, 430, 431, 490, 610, 611, 640, 970 => if (marlin and code == 610) unsupported(code, number_of_line),
        980, 990 => cycles.return_to_r = code == 990,
        800 => modal.motion = .none,
        730, 810...819, 820, 830, 850, 860, 890 => if (!marlin) {
            modal.motion = .cycle;
            cycles.kind = code;
        },
        // Levelling, parking, wiping, PINDA calibration and the like: they return to where they began.
        110, 120, 220, 230, 270, 291...299, 300, 310...350, 390...394, 420, 600, 750...780, 1500...1509, 3920 => if (!marlin) unsupported(code, number_of_line),
        else => unsupported(code, number_of_line),
    }
}

fn unsupported(code: words.Code, line: u64) void {
    var buffer: [8]u8 = undefined;
    const name = if (code % 10 == 0)
        std.fmt.bufPrint(&buffer, "G{d}", .{code / 10})
    else
        std.fmt.bufPrint(&buffer, "G{d}.{d}", .{ code / 10, code % 10 });
    problems.add(line, .unsupported_code, "not supported: ", name catch unreachable, "");
}

fn setFeed(line: *const words.Line, number_of_line: u64) void {
    const word = line.get('F') orelse return;
    if (word <= 0) {
        // Printers ignore it; elsewhere it is an error.
        if (modal.dialect != .marlin) problems.add(number_of_line, .malformed_word, "expected a feed above 0", "", "");
        return;
    }
    if (modal.feed_mode == .inverse_time) {
        modal.moves_per_minute = word;
    } else {
        modal.feed = word * modal.scale * modal.feed_factor / 60;
    }
}

fn act(action: Action, line: *const words.Line, number_of_line: u64) void {
    switch (action) {
        .none => unreachable,
        .dwell => {
            const seconds = dwellSeconds(line) orelse 0;
            planner.dwell(seconds);
            machine.dwell(seconds, number_of_line);
        },
        .table => setTable(line, number_of_line),
        .home => if (modal.dialect == .marlin) homeAxes(line, number_of_line) else goToReference(0, line, number_of_line),
        .home_second => goToReference(1, line, number_of_line),
        .store_home => modal.references[0] = modal.position,
        .store_second => modal.references[1] = modal.position,
        .shift => shift(line),
    }
}

/// G4 and M400: S is seconds and P milliseconds on printers, P is seconds elsewhere.
pub fn dwellSeconds(line: *const words.Line) ?f64 {
    if (modal.dialect != .marlin) return if (line.get('P')) |seconds| @max(seconds, 0) else null;
    if (line.get('S')) |seconds| return @max(seconds, 0);
    if (line.get('P')) |milliseconds| return @max(milliseconds / 1000, 0);
    return null;
}

/// G92: what is named gets a new name; without words printers name everything 0.
fn shift(line: *const words.Line) void {
    const all = modal.dialect == .marlin and line.has & (axis_words | words.bit('E')) == 0;
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter) orelse if (all) @as(?f64, 0) else null) |word| modal.shiftTo(axis, word);
    }
    if (line.get('E') orelse if (all) @as(?f64, 0) else null) |word| modal.filament = word * modal.scale * modal.filament_scale;
}

/// G10 L2 sets the origin of a coordinate system, L20 sets it so that the present position gets this name.
fn setTable(line: *const words.Line, number_of_line: u64) void {
    const kind = line.get('L') orelse 0;
    const index = line.get('P') orelse 0;
    if ((kind != 2 and kind != 20) or index < 0 or index > modal.systems.len) return unsupported(100, number_of_line);
    const chosen: usize = @trunc(index);
    const system = &modal.systems[if (chosen == 0) modal.system else chosen - 1];
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| {
            const value = word * modal.scale;
            system[axis] = if (kind == 2) value else modal.position[axis] - modal.shift[axis] - value;
        }
    }
}

/// G28 on printers: the named axes, or all, find their end stops and are 0 there. Timed as one move, as slicers do.
fn homeAxes(line: *const words.Line, number_of_line: u64) void {
    const named = line.has & axis_words;
    var delta: limits.Axes = @splat(0);
    var square: f64 = 0;
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (named == 0 or named & words.bit(letter) != 0) {
            delta[axis] = -modal.position[axis];
            square += delta[axis] * delta[axis];
            modal.position[axis] = 0;
            modal.shift[axis] = 0;
        }
    }
    if (square > 0) planner.move(&delta, @sqrt(square), modal.feed orelse limits.printer_first_feed);
    totals.visit(&modal.position);
    machine.home(number_of_line);
}

/// G28 and G30 elsewhere: a rapid to the named point, then a rapid of the named axes, or all, to the stored one.
fn goToReference(index: usize, line: *const words.Line, number_of_line: u64) void {
    var between = modal.position;
    const any = targets(line, &between, false);
    if (any) moves.straight(.rapid, &between, 0, number_of_line);
    var target = modal.position;
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (!any or line.has & words.bit(letter) != 0) target[axis] = modal.references[index][axis];
    }
    moves.straight(.rapid, &target, 0, number_of_line);
}

/// Sets the axes that the line names; whether there is one.
fn targets(line: *const words.Line, point: *modal.Point, in_machine: bool) bool {
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| point[axis] = modal.target(axis, word, in_machine);
    }
    return line.valued & axis_words != 0;
}

fn motion(line: *const words.Line, in_machine: bool, moves_now: bool, number_of_line: u64) void {
    if (line.has & (words.bit('A') | words.bit('B') | words.bit('C') | words.bit('U') | words.bit('V') | words.bit('W')) != 0) {
        // On printers these letters are flags of other commands.
        if (moves_now or modal.dialect != .marlin) problems.add(number_of_line, .unsupported_axis, "only X, Y and Z are planned", "", "");
    }
    var target = modal.position;
    const named = targets(line, &target, in_machine);
    const fed = if (modal.dialect == .marlin) filamentFed(line, moves_now) else 0;
    const centre = line.valued & (words.bit('I') | words.bit('J') | words.bit('K') | words.bit('R')) != 0;
    switch (modal.motion) {
        .rapid => if (named or fed != 0) moves.straight(.rapid, &target, fed, number_of_line),
        .linear => if (named or fed != 0) moves.straight(.linear, &target, fed, number_of_line),
        .clockwise, .counterclockwise => if (named or centre or (moves_now and fed != 0)) arc(line, &target, fed, number_of_line),
        .cycle => if (named) cycles.run(line, &target, number_of_line),
        .none => if (named) problems.add(number_of_line, .malformed_word, "axis words, but no motion is chosen (G80)", "", ""),
        .unsupported => if (named or moves_now) {
            problems.add(number_of_line, .unsupported_code, "this kind of motion is not supported: splines, threads and probing", "", "");
            moves.leap(&target);
        },
    }
}

/// mm of filament that the E word feeds. Without a G word on the line, E belongs to another command.
fn filamentFed(line: *const words.Line, moves_now: bool) f64 {
    const word = line.get('E') orelse return 0;
    if (!moves_now and line.g_count > 0) return 0;
    const value = word * modal.scale * modal.filament_scale;
    if (modal.relative_e) {
        modal.filament += value;
        return value;
    }
    defer modal.filament = value;
    return value - modal.filament;
}

fn arc(line: *const words.Line, target: *const modal.Point, fed: f64, number_of_line: u64) void {
    const clockwise = modal.motion == .clockwise;
    const turns = extraTurns(line);
    const plane = modal.plane;
    const shape = if (line.get('R')) |radius|
        arcs.byRadius(&modal.position, target, plane, radius * modal.scale, clockwise, turns)
    else
        arcs.byCentre(&modal.position, target, plane, .{ centreOn(line, plane.first), centreOn(line, plane.second) }, clockwise, turns);
    if (shape) |good| return moves.arc(&good, target, fed, number_of_line);
    problems.add(number_of_line, .arc_radius, "start and end are not on one circle; the arc was left out", "", "");
    moves.leap(target);
}

/// P: on printers the full circles before the rest, elsewhere the turns that are begun.
fn extraTurns(line: *const words.Line) f64 {
    const word = line.get('P') orelse return 0;
    const turns = if (modal.dialect == .marlin) word else word - 1;
    return @max(0, @min(@trunc(turns), turns_max));
}

const turns_max = 1000;

/// I, J and K count from the start, or from the origin after G90.1.
fn centreOn(line: *const words.Line, axis: usize) f64 {
    const word = switch (axis) {
        0 => line.get('I'),
        1 => line.get('J'),
        else => line.get('K'),
    };
    if (modal.absolute_centre) return (word orelse 0) * modal.scale + modal.origin(axis);
    return modal.position[axis] + (word orelse 0) * modal.scale;
}
