//! The verdict on one characteristic: the measured parts by the sizes that are accepted, the others by the process.

use snapcount::contract::{Characteristic, CharacteristicVerdict, Compatibility, Feature, Fits, InspectPartRequest, Verdict};
use snapcount::number;

use crate::chart::{observe, Process, SUBGROUPS_MIN};
use crate::interval::{exceeds, falls_short, Interval};
use crate::mating;

/// One-sided 95 % in standard uncertainties: ISO 14253-1:2017.
const GUARD: f64 = 1.65;
/// The share of the tolerance that six sigma of a gauge may take: AIAG MSA.
const GAUGE_MAX: f64 = 0.3;
const VALUES_MIN: u64 = 100;
/// So near, ratios count as equal.
const SAME: f64 = 1e-9;

pub fn judge(
    request: &InspectPartRequest,
    characteristic: &Characteristic,
    reasons: &mut Vec<String>,
    cautions: &mut Vec<String>,
) -> CharacteristicVerdict {
    let guard = GUARD * characteristic.gauge_sigma_mm;
    let limits = Interval {
        lower: characteristic.lower_mm.map(|deviation| characteristic.nominal_mm + deviation),
        upper: characteristic.upper_mm.map(|deviation| characteristic.nominal_mm + deviation),
    };
    let required = characteristic.mates.iter().filter(|mate| mate.required);
    let sizes = required.fold(limits, |sizes, mate| sizes.and(mating::mating_sizes(characteristic, mate)));
    let window = sizes.wider(-guard);
    let process = observe(characteristic);
    let measured = Measured::new(characteristic, &window);

    let mut said = measured.sentences(characteristic, &window, guard);
    said.extend(undecided(characteristic, &limits, guard));
    let (mates, sentences): (Vec<_>, Vec<_>) =
        characteristic.mates.iter().map(|mate| mating::compare(characteristic, mate, &process, guard, request.generation)).unzip();
    said.extend(sentences);
    let others = judge_others(request, characteristic, &process, &mates, &mut said);

    let name = characteristic.name.replace(|letter: char| letter.is_ascii_control(), "?");
    let about = |sentence: String| format!("{}: {}", name, sentence);
    reasons.extend(said.into_iter().map(about));
    cautions.extend(gauge_weakness(characteristic).into_iter().chain(process_weakness(characteristic, &process)).map(about));
    CharacteristicVerdict {
        accepted: measured.accepted as u64,
        capability: process.capability,
        chart: process.chart,
        mates,
        name: characteristic.name.clone(),
        verdict: if others { measured.verdict(characteristic, &window) } else { Verdict::Reject },
        window_lower_mm: window.lower,
        window_upper_mm: window.upper,
    }
}

/// The measured parts by their material.
struct Measured {
    accepted: usize,
    excess: usize,
    lack: usize,
    worst_excess: f64,
    worst_lack: f64,
}

impl Measured {
    fn new(characteristic: &Characteristic, window: &Interval) -> Self {
        let sizes = &characteristic.measured_mm;
        let large = sizes.iter().filter(|size| window.is_below(**size)).count();
        let small = sizes.iter().filter(|size| window.is_above(**size)).count();
        let accepted = sizes.iter().filter(|size| !window.is_below(**size) && !window.is_above(**size)).count();
        let (least, most) = Interval::around(sizes).ends();
        match characteristic.feature {
            Feature::External => Measured { accepted, excess: large, lack: small, worst_excess: most, worst_lack: least },
            Feature::Internal => Measured { accepted, excess: small, lack: large, worst_excess: least, worst_lack: most },
        }
    }

    fn verdict(&self, characteristic: &Characteristic, window: &Interval) -> Verdict {
        if self.lack > 0 || (self.excess > 0 && !can_rework(characteristic, window)) {
            Verdict::Reject
        } else if self.excess > 0 {
            Verdict::Rework
        } else {
            Verdict::Accept
        }
    }

    fn sentences(&self, characteristic: &Characteristic, window: &Interval, guard: f64) -> Vec<String> {
        let (least, most) = Interval::around(&characteristic.measured_mm).ends();
        let mut said = vec![format!(
            "{} of {} measured parts are accepted; they measure {} to {} mm, and accepted is {} (guard band {} mm).",
            self.accepted,
            characteristic.measured_mm.len(),
            number(least, 8),
            number(most, 8),
            window.words(),
            number(guard, 6)
        )];
        if window.is_empty() {
            said.push(
                "no size is accepted: what is proven to conform does not mate, or the uncertainty leaves no size that is \
                 proven to conform."
                    .to_string(),
            );
        }
        if self.excess > 0 {
            let rest = if can_rework(characteristic, window) {
                format!("; rework to sizes {}.", window.words())
            } else {
                ", and rework cannot help.".to_string()
            };
            said.push(format!("too much material: {}, the worst {} mm{}", self.excess, number(self.worst_excess, 8), rest));
        }
        if self.lack > 0 {
            said.push(format!("too little material: {}, the worst {} mm.", self.lack, number(self.worst_lack, 8)));
        }
        said
    }
}

fn can_rework(characteristic: &Characteristic, window: &Interval) -> bool {
    characteristic.rework && !window.is_empty()
}

/// What there is to say of sizes that prove nothing.
fn undecided(characteristic: &Characteristic, limits: &Interval, guard: f64) -> Option<String> {
    let count = characteristic.measured_mm.iter().filter(|size| is_undecided(limits, guard, **size)).count();
    let uncertainty = number(characteristic.gauge_sigma_mm, 6);
    let sentence = "neither conformity nor nonconformity is proven";
    (count > 0).then(|| format!("{}: {}; a smaller uncertainty than {} mm may decide.", sentence, count, uncertainty))
}

/// Whether the parts that were not measured are accepted, if there are any.
fn judge_others(
    request: &InspectPartRequest,
    characteristic: &Characteristic,
    process: &Process,
    mates: &[Compatibility],
    said: &mut Vec<String>,
) -> bool {
    let others = request.parts - characteristic.measured_mm.len() as u64;
    if others == 0 {
        return true;
    }
    let mut doubts = doubts(request, process);
    for (mate, found) in characteristic.mates.iter().zip(mates) {
        if mate.required && matches!(found.fits, Fits::Measured | Fits::None) {
            doubts.push(format!("the process does not fit generation {}", mate.generation));
        }
    }
    said.extend(doubts.iter().map(|doubt| format!("parts not measured: {}; {}, so measure every part.", others, doubt)));
    if let (true, Some(capability)) = (doubts.is_empty(), &process.capability) {
        said.push(format!(
            "parts not measured: {}; the process covers them: it is stable, and its Cpk of {} is at least {}.",
            others,
            number(capability.cpk, 4),
            number(request.cpk_min, 4)
        ));
    }
    doubts.is_empty()
}

/// Whether a size lies so near a limit that it proves nothing.
fn is_undecided(limits: &Interval, guard: f64, size: f64) -> bool {
    let low = limits.lower.map_or(false, |limit| falls_short(size, limit + guard) && !falls_short(size, limit - guard));
    let high = limits.upper.map_or(false, |limit| exceeds(size, limit - guard) && !exceeds(size, limit + guard));
    low || high
}

/// Why the process does not speak for parts that were not measured.
fn doubts(request: &InspectPartRequest, process: &Process) -> Vec<String> {
    let mut found = Vec::new();
    if !process.settled {
        found.push(format!("the control limits rest on {} subgroups instead of {}", process.subgroups, SUBGROUPS_MIN));
    }
    if !process.shows_lot {
        found.push("none of the measured parts is on the chart".to_string());
    }
    if process.lot_signals > 0 {
        found.push(format!("signals at points of this lot: {}", process.lot_signals));
    }
    match &process.capability {
        None => found.push("the capability is not known".to_string()),
        Some(capability) if capability.cpk < request.cpk_min - SAME => {
            found.push(format!("Cpk is {}, below {}", number(capability.cpk, 4), number(request.cpk_min, 4)))
        }
        Some(_) => {}
    }
    found
}

/// What weakens statements about single parts.
fn gauge_weakness(characteristic: &Characteristic) -> Vec<String> {
    let mut found = Vec::new();
    if characteristic.gauge_sigma_mm == 0.0 {
        found.push("no uncertainty of measurement is stated, so sizes up to the limits are accepted.".to_string());
    }
    if let (Some(lower), Some(upper)) = (characteristic.lower_mm, characteristic.upper_mm) {
        let share = 6.0 * characteristic.gauge_sigma_mm / (upper - lower);
        if share > GAUGE_MAX + SAME {
            found.push(format!(
                "six sigma of the gauge take {} % of the tolerance; more than {} % are too much.",
                number(100.0 * share, 4),
                number(100.0 * GAUGE_MAX, 6)
            ));
        }
    }
    found
}

/// What weakens statements about the process.
fn process_weakness(characteristic: &Characteristic, process: &Process) -> Vec<String> {
    let chart = match &process.chart {
        None => {
            let size = characteristic.subgroup;
            return vec![format!("there is no control chart, only {} complete subgroups of {}.", process.subgroups, size)];
        }
        Some(chart) => chart,
    };
    let mut found = Vec::new();
    if !process.settled {
        found.push(format!("the control limits rest on {} subgroups; {} or more are usual.", process.subgroups, SUBGROUPS_MIN));
    }
    if let Some(last) = chart.signals.last() {
        found.push(format!(
            "signals on the charts: {}, so the process is not stable and its capability is doubtful; \
             the last is rule {} of the {} chart at point {} of {}.",
            chart.signals_total,
            last.rule,
            last.chart.word(),
            last.point,
            process.subgroups
        ));
    }
    match &process.capability {
        None => found.push("the measurements show no spread, so there is no capability.".to_string()),
        Some(capability) if capability.values < VALUES_MIN => found.push(format!(
            "Cpk is {} from {} values only; with 95 % confidence it is at least {}.",
            number(capability.cpk, 4),
            capability.values,
            number(capability.cpk_lower, 4)
        )),
        Some(_) => {}
    }
    found
}
