//! What a printer's tool and filament changes cost: times that stand only in the slicer's configuration.

const config = @import("config.zig");
const planner = @import("planner.zig");

/// Seconds that BambuStudio's estimate gives to bed levelling.
pub var prepare_s: f64 = prepare_default_s;
const prepare_default_s = 260;

var load_s: config.Seconds = undefined;
var unload_s: config.Seconds = undefined;
var change_s: f64 = 0;
var current: usize = 0;
/// No filament is in the tool, so none has to leave it.
var unloaded = true;

pub fn reset(found: *const config.Config) void {
    load_s = found.load_s;
    unload_s = found.unload_s;
    change_s = found.tool_change_s;
    prepare_s = found.prepare_s orelse prepare_default_s;
    current = 0;
    unloaded = true;
}

/// T: numbers that no tool has are commands of BambuStudio's printers.
pub fn change(word: ?f64) void {
    const wanted = word orelse return;
    if (!(wanted >= 0) or wanted >= config.filaments_max) return;
    const next: usize = @trunc(wanted);
    if (next == current) return;
    const leaving = if (unloaded) 0 else unload_s[current];
    planner.dwell(leaving + load_s[next] + change_s);
    current = next;
    unloaded = false;
}

/// M702 C: the filament goes back to its unit. PrusaSlicer gives this no time, because it notes the unloading first.
pub fn unload() void {
    unloaded = true;
}
