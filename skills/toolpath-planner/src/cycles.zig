//! Canned drilling cycles (RS-274, section 3.5.16): G73, G81, G82, G83, G85, G86 and G89 as the moves that they stand for.

const limits = @import("limits.zig");
const machine = @import("machine.zig");
const modal = @import("modal.zig");
const moves = @import("moves.zig");
const planner = @import("planner.zig");
const problems = @import("problems.zig");
const words = @import("words.zig");

/// G code of the cycle that is chosen, times ten.
pub var kind: words.Code = 0;
/// G99: return to R; G98: to where Z stood before the cycle, if that is higher.
pub var return_to_r = false;

/// Words that stay until they are stated again.
var clear: f64 = 0;
var bottom: f64 = 0;
var peck: f64 = 0;
var pause: f64 = 0;
/// Whether R and Z were ever stated.
var ready = false;

/// How far a peck stops above the last one, and how far G73 backs off, mm (LinuxCNC's 0.010 inch).
const peck_gap = 0.254;

/// One line can ask for this many holes and pecks.
const repeats_max = 10_000;

const z = limits.z;

pub fn reset() void {
    kind = 0;
    return_to_r = false;
    peck = 0;
    pause = 0;
    ready = false;
}

pub fn run(line: *const words.Line, target: *const modal.Point, number: u64) void {
    if (line.get('R')) |word| clear = height(word, modal.position[z]);
    if (line.get('Z')) |word| {
        bottom = height(word, if (modal.relative) clear else modal.position[z]);
        ready = true;
    }
    if (line.get('Q')) |word| peck = @abs(word) * modal.scale;
    if (line.get('P')) |word| pause = @max(word, 0);
    const pecks = kind == 730 or kind == 830;
    if (!ready or bottom > clear or (pecks and peck <= 0)) {
        problems.add(number, .malformed_word, "a canned cycle needs R above Z, and Q where it pecks", "", "");
        return;
    }
    const before = modal.position[z];
    const back = if (return_to_r) clear else @max(clear, before);
    const holes: f64 = if (line.get('L')) |count| @max(0, @min(@trunc(count), repeats_max)) else 1;
    const across = .{ target[0] - modal.position[0], target[1] - modal.position[1] };
    if (before < clear) rapid(clear, number);
    var done: f64 = 0;
    while (done < holes) : (done += 1) {
        var above = modal.position;
        above[0] = if (modal.relative) above[0] + across[0] else target[0];
        above[1] = if (modal.relative) above[1] + across[1] else target[1];
        moves.straight(.rapid, &above, 0, number);
        rapid(clear, number);
        if (pecks) peckDown(number) else feed(bottom, number);
        if (pause > 0 and kind != 810 and kind != 830) wait(number);
        if (kind == 850 or kind == 890) feed(back, number) else rapid(back, number);
    }
}

fn height(word: f64, from: f64) f64 {
    return word * modal.scale + if (modal.relative) from else modal.origin(z);
}

fn peckDown(number: u64) void {
    var depth = clear;
    var count: usize = 0;
    while (depth > bottom and count < repeats_max) : (count += 1) {
        if (count > 0 and kind == 830) {
            rapid(clear, number);
            rapid(depth + peck_gap, number);
        } else if (count > 0) {
            rapid(depth + peck_gap, number);
        }
        depth = @max(bottom, depth - peck);
        feed(depth, number);
    }
}

fn rapid(to: f64, number: u64) void {
    vertical(.rapid, to, number);
}

fn feed(to: f64, number: u64) void {
    vertical(.linear, to, number);
}

fn vertical(how: @import("totals.zig").Kind, to: f64, number: u64) void {
    var target = modal.position;
    target[z] = to;
    moves.straight(how, &target, 0, number);
}

fn wait(number: u64) void {
    planner.dwell(pause);
    machine.dwell(pause, number);
}
