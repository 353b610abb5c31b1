//! G codes: modes first, then what acts once, then the motion, in the order of RS-274 (section 3.8).

const actions = @import("actions.zig");
const arcs = @import("arcs.zig");
const axis_words = @import("axis_words.zig");
const cycles = @import("cycles.zig");
const kinds = @import("gcode_kinds.zig");
const limits = @import("limits.zig");
const mcodes = @import("mcodes.zig");
const modal = @import("modal.zig");
const moves = @import("moves.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const tools = @import("tools.zig");
const words = @import("words.zig");

pub fn run(line: *const words.Line, number_of_line: u64) void {
    var action: actions.Action = .none;
    var in_machine = false;
    // A printer runs one command a line: words behind a mode or a command are not a move.
    var moves_now = line.g_count == 0;
    var moves_stated = false;
    for (line.g()) |code| {
        if (kinds.isMotion(code)) {
            if (moves_stated) return problems.add(number_of_line, .malformed_word, "two motions on one line", "", "");
            setMotion(code);
            moves_stated = true;
        } else if (kinds.actionOf(code)) |named| {
            action = named;
        } else if (code == 530) {
            in_machine = true;
            moves_now = true;
        } else if (!setMode(code, line)) {
            unsupported(code, number_of_line);
            if (kinds.ownsWords(code) and action == .none) action = .swallow;
        }
    }
    if (action == .swallow and moves_stated) action = .none;
    setFeed(line, number_of_line);
    mcodes.runBeforeMotion(line, number_of_line);
    if (action != .none) {
        actions.act(action, line, number_of_line);
    } else if (moves_now or moves_stated or modal.dialect != .marlin) {
        motion(line, in_machine, number_of_line);
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

/// Whether the code is known.
fn setMode(code: words.Code, line: *const words.Line) bool {
    const marlin = modal.dialect == .marlin;
    switch (code) {
        170 => modal.plane = modal.plane_xy,
        180 => modal.plane = modal.plane_zx,
        190 => modal.plane = modal.plane_yz,
        200 => modal.setInch(true),
        210 => modal.setInch(false),
        540, 550, 560, 570, 580, 590 => modal.system = (code - 540) / 10,
        591, 592, 593 => modal.system = 5 + (code - 590),
        900, 910 => {
            modal.relative = code == 910;
            modal.relative_e = code == 910;
        },
        901 => modal.absolute_centre = true,
        911 => modal.absolute_centre = false,
        921 => modal.suspendShift(false),
        922 => modal.suspendShift(true),
        923 => modal.restoreShift(),
        930 => modal.feed_mode = .inverse_time,
        940 => modal.feed_mode = .per_minute,
        980, 990 => cycles.return_to_r = code == 990,
        800 => modal.motion = if (marlin) modal.motion else .none,
        490 => modal.tool_length = 0,
        290 => if (marlin) level(line) else return false,
        else => return if (marlin) kinds.isHarmlessOnPrinter(code) else kinds.isHarmlessOnRouter(code) or setCycle(code),
    }
    return true;
}

fn setCycle(code: words.Code) bool {
    switch (code) {
        730, 810, 820, 830, 850, 860, 890 => {
            modal.motion = .cycle;
            cycles.kind = code;
            return true;
        },
        else => return false,
    }
}

/// BambuStudio's estimate gives a time to its levelling.
fn level(line: *const words.Line) void {
    if (limits.direction_jerk and line.hasLetter('A') and line.hasLetter('I')) planner.dwell(tools.prepare_s);
}

fn unsupported(code: words.Code, line: u64) void {
    problems.addCode(line, 'G', code);
}

fn setFeed(line: *const words.Line, number_of_line: u64) void {
    // In inverse time each move states its own (RS-274, section 3.5.19).
    modal.moves_per_minute = null;
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

fn motion(line: *const words.Line, in_machine: bool, number_of_line: u64) void {
    if (line.has & (words.bit('A') | words.bit('B') | words.bit('C') | words.bit('U') | words.bit('V') | words.bit('W')) != 0) {
        problems.add(number_of_line, .unsupported_axis, "only X, Y and Z are planned", "", "");
    }
    var target = modal.position;
    const named = axis_words.targets(line, &target, in_machine);
    const fed = if (modal.dialect == .marlin) filamentFed(line) else 0;
    const centre = line.valued & (words.bit('I') | words.bit('J') | words.bit('K') | words.bit('R')) != 0;
    switch (modal.motion) {
        .rapid => if (named or fed != 0) moves.straight(.rapid, &target, fed, number_of_line),
        .linear => if (named or fed != 0) moves.straight(.linear, &target, fed, number_of_line),
        .clockwise, .counterclockwise => if (named or centre or fed != 0) arc(line, &target, fed, number_of_line),
        .cycle => if (named) cycles.run(line, &target, number_of_line),
        .none => if (named) problems.add(number_of_line, .malformed_word, "axis words, but no motion is chosen (G80)", "", ""),
        .unsupported => if (named or line.g_count > 0) {
            problems.add(number_of_line, .unsupported_code, "this kind of motion is not supported: splines, threads, tapping and probing", "", "");
            moves.leap(&target);
        },
    }
}

/// mm of filament that the E word feeds.
fn filamentFed(line: *const words.Line) f64 {
    const word = line.get('E') orelse return 0;
    const value = word * modal.scale * modal.filament_scale;
    if (modal.relative_e) {
        modal.filament += value;
        return value * modal.flow_factor;
    }
    defer modal.filament = value;
    return (value - modal.filament) * modal.flow_factor;
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
