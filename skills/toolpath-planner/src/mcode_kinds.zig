//! What the M codes that are not carried out mean for a plan. A code that is not known could move an axis, so only those
//! are passed over of which it is known that they do not.

const words = @import("words.zig");

pub const Kind = enum {
    /// Moves nothing, and changes nothing that later moves depend on.
    harmless,
    /// The machine waits until a person lets it go on, and goes on from where it was.
    pause,
    /// Moves something, shifts coordinates, or leads to code that is not in the program.
    unsupported,
};

/// Grbl and RS-274. M codes of machine builders differ from one machine to the next, so an unknown one is named.
pub fn onRouter(code: words.Code) Kind {
    if (code % 10 != 0) return .unsupported;
    return switch (code / 10) {
        // M1 is optional: the switch is off, as on Grbl.
        1 => .harmless,
        0, 6, 60 => .pause,
        // Coolant, clamps, doors, spindle orientation and gears, overrides, inputs and outputs.
        7...11, 19, 31, 36...45, 48...53, 56, 61...68, 88, 89 => .harmless,
        // A printer's fans and displays stand in programs for lasers, too.
        17, 18, 84, 105...107, 114, 117 => .harmless,
        else => .unsupported,
    };
}

/// Marlin and its kin: hundreds of codes, of which few move anything. These are named.
pub fn onPrinter(code: words.Code) Kind {
    if (code % 10 != 0) return .harmless;
    return switch (code / 10) {
        0, 1, 25, 125, 226, 600, 601 => .pause,
        // Programs within programs and macros: M98, M99, M32, M23 and M24, M808 (repeat), M810 to M819.
        23, 24, 32, 98, 99, 808, 810...819 => .unsupported,
        // Repeatability test, tool offsets, home offsets from here, shift of Z, loading and unloading of filament.
        48, 218, 290, 428, 701, 702 => .unsupported,
        // BambuStudio: what follows is run only if the machine says so.
        622 => .unsupported,
        else => .harmless,
    };
}
