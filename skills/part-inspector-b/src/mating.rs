//! Clearance to the counterparts of each generation, by intervals.

use snapcount::contract::{Characteristic, Compatibility, Feature, Fit, Fits, Mate};
use snapcount::number;

use crate::chart::Process;
use crate::interval::{exceeds, falls_short, Interval};

/// The sizes that a part may have to mate with every counterpart, as it is and not as it is measured.
pub fn mating_sizes(characteristic: &Characteristic, mate: &Mate) -> Interval {
    match characteristic.feature {
        Feature::External => Interval::new(mate.upper_mm - mate.clearance_max_mm, mate.lower_mm - mate.clearance_min_mm),
        Feature::Internal => Interval::new(mate.upper_mm + mate.clearance_min_mm, mate.lower_mm + mate.clearance_max_mm),
    }
}

fn clearance(feature: Feature, part: Interval, counterpart: Interval) -> Interval {
    match feature {
        Feature::External => counterpart.less(part),
        Feature::Internal => part.less(counterpart),
    }
}

/// The clearances of the parts to one counterpart, each by its own measure.
struct Clearances {
    wanted: Interval,
    worst: Interval,
    likely: Interval,
    measured: Interval,
}

fn clearances(characteristic: &Characteristic, mate: &Mate, process: &Process, guard: f64) -> Clearances {
    let drawn = Interval { lower: characteristic.lower_mm, upper: characteristic.upper_mm };
    let (low, high) = drawn.ends();
    let limits = Interval::new(characteristic.nominal_mm + low, characteristic.nominal_mm + high);
    let counterpart = Interval::new(mate.lower_mm, mate.upper_mm);
    let (mean, sigma) = process.spread.unwrap_or((characteristic.nominal_mm + (low + high) / 2.0, (high - low) / 6.0));
    let apart = clearance(characteristic.feature, Interval::new(mean, mean), Interval::new(mate.mean_mm, mate.mean_mm));
    let sizes = Interval::around(&characteristic.measured_mm).wider(guard);
    Clearances {
        wanted: Interval::new(mate.clearance_min_mm, mate.clearance_max_mm),
        worst: clearance(characteristic.feature, limits, counterpart),
        likely: apart.wider(3.0 * (sigma * sigma + mate.sigma_mm * mate.sigma_mm).sqrt()),
        measured: clearance(characteristic.feature, sizes, counterpart),
    }
}

impl Clearances {
    fn fits(&self) -> (Fits, &'static str) {
        if self.wanted.holds(&self.worst) {
            (Fits::Every, "every part fits")
        } else if self.wanted.holds(&self.likely) {
            (Fits::Most, "nearly every part fits")
        } else if self.wanted.holds(&self.measured) {
            (Fits::Measured, "the measured parts fit")
        } else {
            (Fits::None, "not even the measured parts fit")
        }
    }

    fn fit(&self) -> Fit {
        let (least, most) = self.worst.ends();
        if !falls_short(least, 0.0) {
            Fit::Clearance
        } else if exceeds(most, 0.0) {
            Fit::Transition
        } else {
            Fit::Interference
        }
    }
}

/// The counterpart of one generation, and the sentence about it without the name.
pub fn compare(
    characteristic: &Characteristic,
    mate: &Mate,
    process: &Process,
    guard: f64,
    generation: u64,
) -> (Compatibility, String) {
    let found = clearances(characteristic, mate, process, guard);
    let ((fits, said), fit) = (found.fits(), found.fit());
    let sentence = format!(
        "generation {} with generation {}{}: wanted is a clearance of {} mm; worst case {} mm ({} fit), \
         statistically {} mm, as measured {} mm: {}.",
        generation,
        mate.generation,
        if mate.required { "" } else { " (not required)" },
        span(&found.wanted),
        span(&found.worst),
        fit.word(),
        span(&found.likely),
        span(&found.measured),
        said
    );
    let (worst_min_mm, worst_max_mm) = found.worst.ends();
    let (measured_min_mm, measured_max_mm) = found.measured.ends();
    let (statistical_min_mm, statistical_max_mm) = found.likely.ends();
    let compatibility = Compatibility {
        fit,
        fits,
        generation: mate.generation,
        worst_max_mm,
        worst_min_mm,
        measured_max_mm,
        measured_min_mm,
        statistical_max_mm,
        statistical_min_mm,
    };
    (compatibility, sentence)
}

fn span(interval: &Interval) -> String {
    let (lower, upper) = interval.ends();
    format!("{} to {}", number(lower, 6), number(upper, 6))
}
