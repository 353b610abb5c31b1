//! What a lot must fulfil before it is worth a calculation, and what is odd about an assay that can be used.

use std::collections::BTreeSet;

use snapcount::contract::{AssessFeedstockRequest, Product};
use snapcount::{fail, number, Failure};

const IMPURITIES_MAX: usize = 64;
const ELEMENT_BYTES: std::ops::RangeInclusive<usize> = 1..=32;
const NAME_BYTES: std::ops::RangeInclusive<usize> = 1..=256;
/// Coverage factor: two sigma hold about 95 % of a normal distribution.
const COVERAGE: f64 = 2.0;
/// Above this share of 1 − w, the next term of w/(1 − w) is no longer small.
const LINEAR_SHARE_MAX: f64 = 0.1;
/// More than the rounding of a sum of 64 fractions.
const SUM_SLACK: f64 = 1e-12;

fn bad_assay(message: String) -> Result<(), Failure> {
    fail("bad_assay", message)
}

fn bad_request(message: String) -> Result<(), Failure> {
    fail("bad_request", message)
}

fn is_fraction(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// Refuses a lot with `bad_assay`, its products with `bad_request`.
pub fn admit(lot: &AssessFeedstockRequest) -> Result<(), Failure> {
    admit_lot(lot)?;
    admit_assay(lot)?;
    let mut names = BTreeSet::new();
    for product in &lot.products {
        admit_product(product)?;
        if !names.insert(&product.name) {
            return bad_request(format!("expected every product once, got {} again", product.name));
        }
    }
    Ok(())
}

fn admit_lot(lot: &AssessFeedstockRequest) -> Result<(), Failure> {
    let (mass, water, index, sizes) = (lot.mass_kg.value, lot.moisture.value, lot.work_index_kwh_t.value, &lot.particles);
    if lot.lot.len() > *NAME_BYTES.end() {
        return bad_request(format!("expected a lot's name of up to {} bytes, got {}", NAME_BYTES.end(), lot.lot.len()));
    }
    if mass < 0.0 {
        return bad_assay(format!("expected a mass that is not negative, got {} kg", number(mass, 6)));
    }
    if !is_fraction(water) || water == 1.0 {
        return bad_assay(format!("expected a moisture of 0 or more and below 1, got {}", number(water, 6)));
    }
    if index < 0.0 {
        return bad_assay(format!("expected a work index that is not negative, got {} kWh/t", number(index, 6)));
    }
    if !(sizes.d10_um > 0.0 && sizes.d10_um <= sizes.d50_um && sizes.d50_um <= sizes.d80_um) {
        return bad_assay(format!(
            "expected particle sizes above 0 with d10 <= d50 <= d80, got {}, {} and {} µm",
            number(sizes.d10_um, 6),
            number(sizes.d50_um, 6),
            number(sizes.d80_um, 6)
        ));
    }
    Ok(())
}

fn admit_assay(lot: &AssessFeedstockRequest) -> Result<(), Failure> {
    let mut elements = BTreeSet::new();
    for line in &lot.assay {
        if !ELEMENT_BYTES.contains(&line.element.len()) {
            return bad_assay(format!("expected an element's name of 1 to {} bytes, got {}", ELEMENT_BYTES.end(), line.element.len()));
        }
        if !is_fraction(line.fraction.value) {
            return bad_assay(format!("expected a share of {} from 0 to 1, got {}", line.element, number(line.fraction.value, 6)));
        }
        if !elements.insert(&line.element) {
            return bad_assay(format!("expected every element once, got {} again", line.element));
        }
    }
    Ok(())
}

fn admit_product(product: &Product) -> Result<(), Failure> {
    let Product { name, element, grade, recovery, impurities, particle_um } = product;
    if !NAME_BYTES.contains(&name.len()) || !ELEMENT_BYTES.contains(&element.len()) {
        return bad_request(format!("expected names of a product and its element, got {} and {} bytes", name.len(), element.len()));
    }
    // The decoder has refused a grade above 1.
    if *grade <= 0.0 {
        return bad_request(format!("expected a grade above 0 for {}, got {}", name, number(*grade, 6)));
    }
    if !is_fraction(recovery.value) {
        return bad_request(format!("expected a recovery from 0 to 1 for {}, got {}", name, number(recovery.value, 6)));
    }
    if *particle_um <= 0.0 {
        return bad_request(format!("expected a particle size above 0 for {}, got {} µm", name, number(*particle_um, 6)));
    }
    if impurities.len() > IMPURITIES_MAX {
        return bad_request(format!("expected up to {} ceilings for {}, got {}", IMPURITIES_MAX, name, impurities.len()));
    }
    let mut elements = BTreeSet::new();
    for ceiling in impurities {
        if !ELEMENT_BYTES.contains(&ceiling.element.len()) || !is_fraction(ceiling.fraction_max) {
            return bad_request(format!("expected a name and a ceiling from 0 to 1 for {}", name));
        }
        if !elements.insert(&ceiling.element) {
            return bad_request(format!("expected one ceiling of {} for {}, got another", ceiling.element, name));
        }
    }
    Ok(())
}

/// What is odd about the assay as a whole, in sentences.
pub fn oddities(lot: &AssessFeedstockRequest) -> Vec<String> {
    let mut found = Vec::new();
    let (mut sum, mut sigma) = (0.0, 0.0f64);
    for line in &lot.assay {
        sum += line.fraction.value;
        sigma = sigma.hypot(line.fraction.sigma);
    }
    if sum - 1.0 > COVERAGE * sigma + SUM_SLACK {
        found.push(format!(
            "The mass fractions add up to {} ± {}, which is more than 1 by over {} sigma.",
            number(sum, 6),
            number(sigma, 6),
            number(COVERAGE, 6)
        ));
    }
    if sigma == 0.0 {
        found.push("No element has an uncertainty, so each ceiling counts as surely held or surely broken.".to_string());
    }
    for line in lot.assay.iter().filter(|line| line.fraction.sigma > line.fraction.value) {
        found.push(format!(
            "{} is {} ± {} of the dry solids: its uncertainty is larger than its value.",
            line.element,
            number(line.fraction.value, 6),
            number(line.fraction.sigma, 6)
        ));
    }
    if lot.moisture.sigma > LINEAR_SHARE_MAX * (1.0 - lot.moisture.value) {
        found.push(format!(
            "The moisture of {} ± {} is so uncertain that the stated uncertainties of mass and energy are rough.",
            number(lot.moisture.value, 6),
            number(lot.moisture.sigma, 6)
        ));
    }
    found
}
