//! Charts and capability: each statistic is computed over all values at once, the deviations around a mean that is known.

use snapcount::contract::{Capability, Characteristic, Chart, ControlChart, Signal};

use crate::interval::{exceeds, falls_short};
use crate::nelson;

/// AIAG SPC and ISO 7870-2: control limits rest on as many subgroups.
pub const SUBGROUPS_MIN: usize = 25;
const SIGNALS_MAX: usize = 64;
/// Quantile of 95 % of the standard normal distribution.
const QUANTILE: f64 = 1.645;

/// Constants of a subgroup's size (AIAG SPC, appendix E).
struct Constants {
    a2: f64,
    d2: f64,
    d3: f64,
    d4: f64,
}

fn constants(size: usize) -> Constants {
    let (a2, d2, d3, d4) = match size {
        2 => (1.880, 1.128, 0.0, 3.267),
        3 => (1.023, 1.693, 0.0, 2.574),
        4 => (0.729, 2.059, 0.0, 2.282),
        5 => (0.577, 2.326, 0.0, 2.114),
        6 => (0.483, 2.534, 0.0, 2.004),
        7 => (0.419, 2.704, 0.076, 1.924),
        8 => (0.373, 2.847, 0.136, 1.864),
        9 => (0.337, 2.970, 0.184, 1.816),
        _ => (0.308, 3.078, 0.223, 1.777), // the decoder has refused more than 10
    };
    Constants { a2, d2, d3, d4 }
}

/// What is known of the process that made the parts.
#[derive(Default)]
pub struct Process {
    pub subgroups: usize,
    pub settled: bool,
    /// Whether a point holds a measured part of this lot.
    pub shows_lot: bool,
    /// Signals at those points.
    pub lot_signals: usize,
    /// Mean and standard deviation within subgroups.
    pub spread: Option<(f64, f64)>,
    pub chart: Option<ControlChart>,
    pub capability: Option<Capability>,
}

pub fn observe(characteristic: &Characteristic) -> Process {
    let size = characteristic.subgroup as usize;
    let all: Vec<f64> = characteristic.history_mm.iter().chain(&characteristic.measured_mm).copied().collect();
    let groups: Vec<&[f64]> = all.chunks_exact(size).collect();
    let mut process = Process { subgroups: groups.len(), ..Default::default() };
    let least = if characteristic.established.is_some() { 1 } else { 2 };
    if groups.len() < least {
        return process;
    }
    let k = constants(size);
    let means: Vec<f64> = groups.iter().map(|group| mean(group)).collect();
    let ranges: Vec<f64> = groups.iter().map(|group| range(group)).collect();
    let (center, width) = (mean(&means), mean(&ranges));
    let mut chart = lines(characteristic, &k, center, width);
    chart.points = groups.len() as u64;
    let mut signals = signals(&chart, &means, &ranges, k.a2 * chart.range_mm / 3.0);
    let first_of_lot = characteristic.history_mm.len() / size; // counted from 0
    process.shows_lot = groups.len() > first_of_lot;
    process.lot_signals = signals.iter().filter(|signal| signal.point > first_of_lot as u64).count();
    process.settled = chart.established || groups.len() >= SUBGROUPS_MIN;
    chart.signals_total = signals.len() as u64;
    chart.signals = signals.split_off(signals.len().saturating_sub(SIGNALS_MAX));
    process.chart = Some(chart);
    let sigma = width / k.d2;
    process.spread = Some((center, sigma));
    if exceeds(width, 0.0) {
        process.capability = Some(capability(characteristic, &all[..groups.len() * size], center, sigma));
    }
    process
}

/// The lines of both charts: from these means, where none were established.
fn lines(characteristic: &Characteristic, k: &Constants, center: f64, width: f64) -> ControlChart {
    let (center_mm, range_mm) = match &characteristic.established {
        Some(lines) => (lines.center_mm, lines.range_mm),
        None => (center, width),
    };
    ControlChart {
        center_mm,
        established: characteristic.established.is_some(),
        mean_lower_mm: center_mm - k.a2 * range_mm,
        mean_upper_mm: center_mm + k.a2 * range_mm,
        range_lower_mm: k.d3 * range_mm,
        range_mm,
        range_upper_mm: k.d4 * range_mm,
        ..Default::default()
    }
}

/// Every signal, in the order of the points.
fn signals(chart: &ControlChart, means: &[f64], ranges: &[f64], sigma: f64) -> Vec<Signal> {
    let distances: Vec<f64> = means.iter().map(|mean| mean - chart.center_mm).collect();
    let mut found = Vec::new();
    for end in 1..=means.len() {
        let point = end as u64;
        for rule in nelson::broken(&means[..end], &distances[..end], sigma) {
            found.push(Signal { chart: Chart::Mean, point, rule });
        }
        let range = ranges[end - 1];
        if exceeds(range, chart.range_upper_mm) || falls_short(range, chart.range_lower_mm) {
            found.push(Signal { chart: Chart::Range, point, rule: 1 });
        }
    }
    found
}

fn capability(characteristic: &Characteristic, values: &[f64], center: f64, sigma: f64) -> Capability {
    let count = values.len() as f64;
    let squares: Vec<f64> = values.iter().map(|value| (value - center) * (value - center)).collect();
    let overall = (sum(&squares) / (count - 1.0)).sqrt();
    let lower = characteristic.lower_mm.map(|deviation| center - (characteristic.nominal_mm + deviation));
    let upper = characteristic.upper_mm.map(|deviation| characteristic.nominal_mm + deviation - center);
    let room = lower.into_iter().chain(upper).fold(f64::INFINITY, f64::min);
    let tolerance = characteristic.lower_mm.and_then(|lower| characteristic.upper_mm.map(|upper| upper - lower));
    let cpk = room / (3.0 * sigma);
    // A. F. Bissell, Applied Statistics 39 (1990); a range of `size` values has about 0.9 (size - 1) degrees of freedom.
    let size = characteristic.subgroup as f64;
    let freedom = 0.9 * count * (size - 1.0) / size;
    let error = (1.0 / (9.0 * count) + cpk * cpk / (2.0 * freedom)).sqrt();
    Capability {
        cp: tolerance.map(|tolerance| tolerance / (6.0 * sigma)),
        cpk,
        cpk_lower: cpk - QUANTILE * error,
        overall_sigma_mm: overall,
        pp: tolerance.map(|tolerance| tolerance / (6.0 * overall)),
        ppk: room / (3.0 * overall),
        sigma_mm: sigma,
        values: values.len() as u64,
    }
}

/// The sum, with what each addition loses (A. Neumaier, 1974).
fn sum(values: &[f64]) -> f64 {
    let (mut total, mut lost) = (0.0f64, 0.0);
    for value in values {
        let next = total + value;
        lost += if total.abs() >= value.abs() { total - next + value } else { value - next + total };
        total = next;
    }
    total + lost
}

fn mean(values: &[f64]) -> f64 {
    sum(values) / values.len() as f64
}

fn range(group: &[f64]) -> f64 {
    let mut sorted = group.to_vec();
    sorted.sort_by(|one, other| one.total_cmp(other));
    sorted[sorted.len() - 1] - sorted[0]
}
