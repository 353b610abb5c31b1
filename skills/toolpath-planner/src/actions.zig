//! G codes that act once, on the line where they stand: dwells, homing, and where the origin is.

const axis_words = @import("axis_words.zig");
const limits = @import("limits.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const moves = @import("moves.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const totals = @import("totals.zig");
const words = @import("words.zig");

pub const Action = enum {
    none,
    dwell,
    table,
    home,
    home_second,
    store_home,
    store_second,
    shift,
    local,
    tool_offset,
    save_position,
    restore_position,
    /// The words on the line belong to a code that is not supported.
    swallow,
};

pub fn act(action: Action, line: *const words.Line, number_of_line: u64) void {
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
    const all = modal.dialect == .marlin and line.has & (axis_words.mask | words.bit('E')) == 0;
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
    const named = line.has & axis_words.mask;
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
        if (line.valued & axis_words.mask != 0) problems.addCode(number_of_line, 'G', 100);
        return;
    }
    const kind = line.get('L') orelse 0;
    const index = line.get('P') orelse 0;
    if ((kind != 2 and kind != 20) or index < 0 or index > modal.systems.len) return problems.addCode(number_of_line, 'G', 100);
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
    const named = line.has & axis_words.mask;
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
    const any = axis_words.targets(line, &between, false);
    if (any) moves.straight(.rapid, &between, 0, number_of_line);
    var target = modal.position;
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (!any or line.has & words.bit(letter) != 0) target[axis] = modal.references[index][axis];
    }
    moves.straight(.rapid, &target, 0, number_of_line);
}
