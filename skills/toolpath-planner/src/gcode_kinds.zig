//! What kind of code a G code is, where the dialects differ or it is not carried out.

const modal = @import("modal.zig");
const words = @import("words.zig");
const Action = @import("actions.zig").Action;

/// G0 to G3, and what moves in ways that are not supported: splines, threads, probing, and tapping and back boring cycles.
pub fn isMotion(code: words.Code) bool {
    return switch (code) {
        0, 10, 20, 30, 50...53, 331, 380...389 => true,
        330, 740, 760, 840...843, 870, 880 => modal.dialect != .marlin,
        else => false,
    };
}

/// Whether the axis words on the line belong to an unsupported code. With compensation and feed per turn they are a move.
pub fn ownsWords(code: words.Code) bool {
    return switch (code) {
        410, 411, 420, 421, 950 => false,
        else => true,
    };
}

/// The action that a code stands for.
pub fn actionOf(code: words.Code) ?Action {
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

/// Compensation, rotation and scaling off, tool lengths (of an unknown table, so 0), path blending, spindle modes.
pub fn isHarmlessOnRouter(code: words.Code) bool {
    return switch (code) {
        80, 400, 430, 500, 501, 610, 611, 640, 690, 960, 970 => true,
        else => false,
    };
}

/// Firmware retraction, levelling, probing for it, calibration of the probe, and what BambuStudio's printers do before a
/// print. Where they leave the tool is not known, so programs go on with a move to a stated point.
pub fn isHarmlessOnPrinter(code: words.Code) bool {
    return switch (code) {
        110, 220, 230, 290...299, 310, 320...350, 390...394, 750...780, 810, 820, 1500...1509, 3920 => true,
        else => false,
    };
}
