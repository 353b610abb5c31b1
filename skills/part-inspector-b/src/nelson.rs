//! The eight tests of L. S. Nelson (Journal of Quality Technology 16, 1984), each a question about the last points of a chart.

use crate::interval::exceeds;

/// The rules that hold for a pattern which ends in the last of these points. `distances` are theirs from the centre line.
pub fn broken(means: &[f64], distances: &[f64], sigma: f64) -> impl Iterator<Item = u64> {
    let newest = distances[distances.len() - 1];
    let is_out = |distance: f64, sigmas: f64| exceeds(distance.abs(), sigmas * sigma);
    let all = |points: usize, test: &dyn Fn(f64) -> bool| {
        last(distances, points).map_or(false, |window| window.iter().all(|distance| test(*distance)))
    };
    let steps = |points: usize| {
        last(means, points).map(|window| window.windows(2).map(|pair| sign(pair[1] - pair[0])).collect::<Vec<i8>>())
    };
    let side = sign(newest);
    let holds = [
        is_out(newest, 3.0),
        side != 0 && all(9, &|distance| sign(distance) == side),
        steps(6).map_or(false, |steps| steps[0] != 0 && steps.iter().all(|step| *step == steps[0])),
        steps(14).map_or(false, |steps| steps.windows(2).all(|pair| pair[0] * pair[1] == -1)),
        is_out(newest, 2.0) && on_side(distances, 3, side, &|distance| is_out(distance, 2.0)) >= 2,
        is_out(newest, 1.0) && on_side(distances, 5, side, &|distance| is_out(distance, 1.0)) >= 4,
        all(15, &|distance| !is_out(distance, 1.0)),
        all(8, &|distance| is_out(distance, 1.0)) && [-1, 1].iter().all(|side| on_side(distances, 8, *side, &|_| true) > 0),
    ];
    (1u64..).zip(holds).filter(|(_, holds)| *holds).map(|(rule, _)| rule)
}

/// So many of the last values, if there are as many.
fn last(values: &[f64], count: usize) -> Option<&[f64]> {
    values.len().checked_sub(count).map(|from| &values[from..])
}

/// How many of the last points, or of all if there are fewer, lie on a side and pass a test.
fn on_side(distances: &[f64], points: usize, side: i8, test: &dyn Fn(f64) -> bool) -> usize {
    let from = distances.len().saturating_sub(points);
    distances[from..].iter().filter(|distance| sign(**distance) == side && test(**distance)).count()
}

fn sign(distance: f64) -> i8 {
    i8::from(exceeds(distance, 0.0)) - i8::from(exceeds(-distance, 0.0))
}
