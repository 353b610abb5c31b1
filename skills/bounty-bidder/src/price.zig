//! The price: cost and the wanted margin, or the reward when that is less; never below cost, never above the reward.

const std = @import("std");

/// Prices stand on a grid of a millionth of the fleet's currency.
const steps_per_unit = 1e6;

/// From here on neighbouring f64 are further apart than the grid's steps.
const grid_max = 0x1p53 / steps_per_unit;

pub const Price = struct {
    amount: f64,
    /// False: the reward leaves less than the wanted margin.
    has_margin: bool,
};

/// Null: the reward does not cover the cost.
pub fn price(cost: f64, margin: f64, reward: f64) ?Price {
    if (cost > reward) return null;
    const wanted = cost * (1 + margin);
    // A margin is a wish, and any profit is better than none; so the reward is a price, too.
    if (wanted > reward) return .{ .amount = reward, .has_margin = false };
    return .{ .amount = @min(roundUp(wanted), reward), .has_margin = true };
}

/// The least multiple of a millionth that is not below `amount`. The nearest one is tried first: the product alone may
/// be an ulp above a whole number, and rounding that up would add a step that nobody asked for.
fn roundUp(amount: f64) f64 {
    if (amount >= grid_max) return amount;
    const nearest = @round(amount * steps_per_unit);
    const rounded = nearest / steps_per_unit;
    return if (rounded >= amount) rounded else (nearest + 1) / steps_per_unit;
}
