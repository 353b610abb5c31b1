//! part-inspector, lineage b: in Rust, from the README.md of lineage a, with algorithms of its own.

mod admission;
mod chart;
mod interval;
mod mating;
mod nelson;
mod verdict;

use snapcount::{contract::*, export, number, Failure};

export!(inspect_part, self_test);

fn inspect_part(request: InspectPartRequest) -> Result<InspectPartReply, Failure> {
    admission::admit(&request)?;
    let mut reply = InspectPartReply { lot: request.lot.clone(), ..Default::default() };
    for characteristic in &request.characteristics {
        let found = verdict::judge(&request, characteristic, &mut reply.reasons, &mut reply.cautions);
        if found.verdict as u8 > reply.verdict as u8 {
            reply.verdict = found.verdict;
        }
        reply.characteristics.push(found);
    }
    Ok(reply)
}

/// Journals with round answers: two subgroups with means of 10 mm and ranges of 1.693 mm, so that sigma is 1 mm, in limits of 6 to 18 mm.
fn self_test(_: SelfTestRequest) -> Result<SelfTestReply, Failure> {
    let sizes = vec![10.0 - 0.8465, 10.0, 10.0 + 0.8465];
    let mate = Mate {
        generation: 2,
        required: true,
        lower_mm: 20.0,
        mean_mm: 20.0,
        upper_mm: 20.0,
        clearance_max_mm: 30.0,
        clearance_min_mm: 0.0,
        sigma_mm: 0.0,
    };
    let journal = Characteristic {
        name: "journal".to_string(),
        feature: Feature::External,
        nominal_mm: 12.0,
        lower_mm: Some(-6.0),
        upper_mm: Some(6.0),
        subgroup: 3,
        gauge_sigma_mm: 0.2,
        history_mm: sizes.clone(),
        measured_mm: sizes,
        mates: vec![mate],
        ..Default::default()
    };
    let got = inspect_part(InspectPartRequest { parts: 3, characteristics: vec![journal], ..Default::default() })?;
    let found = &got.characteristics[0];
    let capability = found.capability.clone().unwrap_or_default();
    let (lower, upper) = (found.window_lower_mm.unwrap_or_default(), found.window_upper_mm.unwrap_or_default());
    let upper_line = found.chart.as_ref().map_or(0.0, |chart| chart.mean_upper_mm);
    let cp = capability.cp.unwrap_or_default();
    let wanted = [
        (cp, 2.0),
        (capability.cpk, 4.0 / 3.0),
        (lower, 6.33),
        (upper, 17.67),
        (upper_line, 10.0 + 1.023 * 1.693),
        (found.mates[0].worst_min_mm, 2.0),
    ];
    Ok(SelfTestReply {
        ok: got.verdict == Verdict::Accept && wanted.iter().all(|(got, wanted)| (got - wanted).abs() <= 1e-9),
        detail: format!(
            "Expected Cp 2, Cpk 1.333 and sizes from 6.33 to 17.67 mm; got {}, {} and {} to {} mm.",
            number(cp, 4),
            number(capability.cpk, 4),
            number(lower, 6),
            number(upper, 6)
        ),
    })
}
