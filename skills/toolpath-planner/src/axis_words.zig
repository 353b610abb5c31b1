//! The axis words of a line as a point.

const modal = @import("modal.zig");
const words = @import("words.zig");

pub const mask = words.bit('X') | words.bit('Y') | words.bit('Z');

/// Sets the axes that the line names; whether there is one.
pub fn targets(line: *const words.Line, point: *modal.Point, in_machine: bool) bool {
    inline for (.{ 'X', 'Y', 'Z' }, 0..) |letter, axis| {
        if (line.get(letter)) |word| point[axis] = modal.target(axis, word, in_machine);
    }
    return line.valued & mask != 0;
}
