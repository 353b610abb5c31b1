//! G codes: modes first, then what acts once, then the motion, in the order of RS-274 (section 3.8).

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
const tools = @import("tools.zig");
const totals = @import("totals.zig");
const words = @import("words.zig");

/// What acts once, on the line where it stands.
const Action = enum { none, dwell, table, home, home_second, store_home, store_second, shift, local, tool_offset, save_position, restore_position, swallow };

const axis_words = words.bit('X') | words.bit('Y') | words.bit('Z');

pub fn run(line: *const words.Line, number_of_line: u64) void {
    var action: Action = .none;
    var in_machine = false;
    // A printer runs one command a line: words behind a mode or a command are not a move.
    var moves_now = line.g_count == 0;
    var moves_stated = false;
    for (line.g()) |code| {
        if (isMotion(code)) {
            if (moves_stated) return problems.add(number_of_line, .malformed_word, "two motions on one line", "", "");
            setMotion(code);
            moves_stated = true;
        } else if (actionOf(code)) |named| {
            action = named;
        } else if (code == 530) {
            in_machine = true;
            moves_now = true;
        } else if (!setMode(code, line)) {
            unsupported(code, number_of_line);
            if (ownsWords(code) and action == .none) action = .swallow;
        }
    }
    if (action == .swallow and moves_stated) action = .none;
    setFeed(line, number_of_line);
    mcodes.runBeforeMotion(line, number_of_line);
    if (action != .none) {
        act(action, line, number_of_line);
    } else if (moves_now or moves_stated or modal.dialect != .marlin) {
        motion(line, in_machine, number_of_line);
    }
    mcodes.runAfterMotion(line, number_of_line);
}

/// G0 to G3, and what moves in ways that are not supported: splines, threads, probing, and tapping and back boring cycles.
fn isMotion(code: words.Code) bool {
    return switch (code) {
        0, 10, 20, 30, 50...53, 331, 380...389 => true,
        330, 740, 760, 840...843, 870, 880 => modal.dialect != .marlin,
        else => false,
    };
}

/// Whether the axis words on the line belong to an unsupported code. With compensation and feed per turn they are a move.
fn ownsWords(code: words.Code) bool {
    return switch (code) {
        410, 411, 420, 421, 950 => false,
        else => true,
    };
}

fn actionOf(code: words.Code) ?Action {
    const marlin = modal.dialect == .marlin;
    return switch (code) {
        40 => .dwell,
        100 => .table,
        280 => .home,
        281 => .store_home,
        300 => if (marlin) null else .home_second,
        301 => .store_second,
        431 => if (marlin) null else .tool_offset,
        520 => .local,
        600 => if (marlin) .save_position else null,
        610 => if (marlin) .restore_position else null,
        920 => .shift,
        else => null,
    };
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
        else => return if (marlin) isHarmlessOnPrinter(code, line) else isHarmlessOnRouter(code) or setCycle(code),
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

/// Compensation, rotation and scaling off, tool lengths (of an unknown table, so 0), path blending, spindle modes.
fn isHarmlessOnRouter(code: words.Code) bool {
    return switch (code) {
        80, 400, 430, 500, 501, 610, 611, 640, 690, 960, 970 => true,
        else => false,
    };
}

/// Firmware retraction, levelling, probing for it, calibration of the probe, and what BambuStudio's printers do before a
/// print. Where they leave the tool is not known, so programs go on with a move to a stated point.
fn isHarmlessOnPrinter(code: words.Code, line: *const words.Line) bool {
    switch (code) {
        // BambuStudio's estimate gives a time to its levelling.
        290 => if (limits.direction_jerk and line.hasLetter('A') and line.hasLetter('I')) planner.dwell(tools.prepare_s),
        110, 220, 230, 291...299, 310, 320...350, 390...394, 750...780, 810, 820, 1500...1509, 3920 => {},
        else => return false,
    }
    return true;
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

fn act(action: Action, line: *const words.Line, number_of_line: u64) void {
    switch (action) {
        .none => unreachable,
        // What the words of an unknown code mean is not known; they are no move.
        .swallow => {},
        .local => setLocal(line),
        .tool_offset => if (line.get('Z')) |word| {
            modal.tool_length = word * modal.scale;
        },
        .save_position => modal.saved[slot(line)] = modal.position,
        .restore_position => restorePosition(line, number_of_line),
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

/// G52: the origin moves by this much within its coordinate system, until it is set again.
fn setLocal(line: *const words.Line) void {
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| modal.local[axis] = word * modal.scale;
    }
}

fn slot(line: *const words.Line) usize {
    const word = line.get('S') orelse 0;
    return if (word >= 0 and word < modal.saved.len) @trunc(word) else 0;
}

/// G61 on printers: back to where G60 was, on the named axes or on all.
fn restorePosition(line: *const words.Line, number_of_line: u64) void {
    const named = line.has & axis_words;
    var target = modal.position;
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (named == 0 or named & words.bit(letter) != 0) target[axis] = modal.saved[slot(line)][axis];
    }
    moves.straight(.rapid, &target, 0, number_of_line);
}

/// G10 L2 sets the origin of a coordinate system, L20 sets it so that the present position gets this name.
fn setTable(line: *const words.Line, number_of_line: u64) void {
    // Without L a printer retracts, or sets what a tool is: its offsets would shift all that follows.
    if (modal.dialect == .marlin and !line.hasLetter('L')) {
        if (line.valued & axis_words != 0) unsupported(100, number_of_line);
        return;
    }
    const kind = line.get('L') orelse 0;
    const index = line.get('P') orelse 0;
    if ((kind != 2 and kind != 20) or index < 0 or index > modal.systems.len) return unsupported(100, number_of_line);
    const chosen: usize = @trunc(index);
    const system = &modal.systems[if (chosen == 0) modal.system else chosen - 1];
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| {
            const value = word * modal.scale;
            system[axis] = if (kind == 2) value else modal.position[axis] - (modal.origin(axis) - modal.systems[modal.system][axis]) - value;
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

fn motion(line: *const words.Line, in_machine: bool, number_of_line: u64) void {
    if (line.has & (words.bit('A') | words.bit('B') | words.bit('C') | words.bit('U') | words.bit('V') | words.bit('W')) != 0) {
        problems.add(number_of_line, .unsupported_axis, "only X, Y and Z are planned", "", "");
    }
    var target = modal.position;
    const named = targets(line, &target, in_machine);
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
