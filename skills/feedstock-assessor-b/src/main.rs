//! feedstock-assessor, lineage b: in Rust, from the formulas in the README.md of lineage a, with numerics of its own.

mod admission;
mod normal;
mod quantity;
mod verdict;

use snapcount::{contract::*, export, fail, number, Failure};

use quantity::Lot;

export!(assess_feedstock, self_test);

fn assess_feedstock(request: AssessFeedstockRequest) -> Result<AssessFeedstockReply, Failure> {
    admission::admit(&request)?;
    let lot = Lot::new(&request);
    if !quantity::is_finite(&lot.dry_mass_kg) {
        return fail("bad_assay", "expected a dry mass that a number can hold");
    }
    let mut warnings = admission::oddities(&request);
    let mut products = Vec::with_capacity(request.products.len());
    for product in &request.products {
        products.push(verdict::judge(&lot, product, &mut warnings)?);
    }
    let best = verdict::best(&products);
    Ok(AssessFeedstockReply { best, dry_mass_kg: lot.dry_mass_kg, lot: request.lot.clone(), products, warnings })
}

/// A lot with round answers: 1000 kg with a fifth of water, 30 % iron of which 90 % is recovered at a grade of 60 %.
fn self_test(_: SelfTestRequest) -> Result<SelfTestReply, Failure> {
    let exact = |value: f64| Quantity { value, sigma: 0.0 };
    let lot = AssessFeedstockRequest {
        lot: String::new(),
        assay: vec![ElementAssay { element: "Fe".to_string(), fraction: Quantity { value: 0.3, sigma: 0.03 } }],
        mass_kg: exact(1000.0),
        moisture: exact(0.2),
        products: vec![Product {
            name: "concentrate".to_string(),
            grade: 0.6,
            element: "Fe".to_string(),
            recovery: exact(0.9),
            impurities: Vec::new(),
            particle_um: 100.0,
        }],
        particles: Particles { d10_um: 100.0, d50_um: 1000.0, d80_um: 10_000.0 },
        work_index_kwh_t: exact(10.0),
    };
    let got = assess_feedstock(lot)?;
    let product = &got.products[0];
    let energy_kwh_t = 2591.88 / 3.6 / 4.0 + 9.0;
    let near = |got: f64, wanted: f64| (got - wanted).abs() <= 1e-12 * wanted;
    Ok(SelfTestReply {
        ok: near(got.dry_mass_kg.value, 800.0)
            && near(product.yield_kg.value, 360.0)
            && near(product.yield_kg.sigma, 36.0)
            && near(product.energy_kwh_t.value, energy_kwh_t)
            && product.suitable
            && got.best == product.name,
        detail: format!(
            "Expected 800 kg dry, 360 ± 36 kg and 188.992 kWh/t; got {} kg dry, {} ± {} kg and {} kWh/t.",
            number(got.dry_mass_kg.value, 6),
            number(product.yield_kg.value, 6),
            number(product.yield_kg.sigma, 6),
            number(product.energy_kwh_t.value, 6),
        ),
    })
}
