//! Intervals of sizes that may be open on a side, and when sizes count as different.

use snapcount::number;

/// Half a nanometre: sizes that lie nearer count as equal.
const SAME_MM: f64 = 5e-7;

/// Whether a size is more than another one.
pub fn exceeds(size_mm: f64, other_mm: f64) -> bool {
    size_mm > other_mm + SAME_MM
}

/// Whether a size is less than another one.
pub fn falls_short(size_mm: f64, other_mm: f64) -> bool {
    size_mm < other_mm - SAME_MM
}

/// Sizes from `lower` to `upper`, both included; None is no bound.
#[derive(Clone, Copy)]
pub struct Interval {
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

impl Interval {
    pub fn new(lower: f64, upper: f64) -> Self {
        Interval { lower: Some(lower), upper: Some(upper) }
    }

    /// The smallest that holds all of them.
    pub fn around(sizes: &[f64]) -> Self {
        let least = sizes.iter().copied().fold(f64::INFINITY, f64::min);
        let most = sizes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Interval::new(least, most)
    }

    /// Both ends moved outwards; inwards by a negative amount.
    pub fn wider(self, by: f64) -> Self {
        Interval { lower: self.lower.map(|lower| lower - by), upper: self.upper.map(|upper| upper + by) }
    }

    /// What lies in both.
    pub fn and(self, other: Self) -> Self {
        let narrower = |one: Option<f64>, two: Option<f64>, choose: fn(f64, f64) -> f64| match (one, two) {
            (Some(one), Some(two)) => Some(choose(one, two)),
            (one, two) => one.or(two),
        };
        Interval { lower: narrower(self.lower, other.lower, f64::max), upper: narrower(self.upper, other.upper, f64::min) }
    }

    pub fn is_empty(&self) -> bool {
        matches!((self.lower, self.upper), (Some(lower), Some(upper)) if exceeds(lower, upper))
    }

    pub fn is_below(&self, size_mm: f64) -> bool {
        self.upper.map_or(false, |upper| exceeds(size_mm, upper))
    }

    pub fn is_above(&self, size_mm: f64) -> bool {
        self.lower.map_or(false, |lower| falls_short(size_mm, lower))
    }

    /// Whether the other one lies in it. The other has two ends.
    pub fn holds(&self, other: &Interval) -> bool {
        !other.upper.map_or(false, |upper| self.is_below(upper)) && !other.lower.map_or(false, |lower| self.is_above(lower))
    }

    /// The differences of a size out of this one less a size out of the other: of two with two ends.
    pub fn less(self, other: Self) -> Self {
        let apart = |one: Option<f64>, two: Option<f64>| one.and_then(|one| two.map(|two| one - two));
        Interval { lower: apart(self.lower, other.upper), upper: apart(self.upper, other.lower) }
    }

    /// The ends of an interval that has two.
    pub fn ends(&self) -> (f64, f64) {
        (self.lower.unwrap_or(f64::MIN), self.upper.unwrap_or(f64::MAX))
    }

    pub fn words(&self) -> String {
        match (self.lower, self.upper) {
            (Some(lower), Some(upper)) => format!("from {} to {} mm", number(lower, 8), number(upper, 8)),
            (Some(lower), None) => format!("from {} mm on", number(lower, 8)),
            (None, upper) => format!("up to {} mm", number(upper.unwrap_or(f64::MAX), 8)),
        }
    }
}
