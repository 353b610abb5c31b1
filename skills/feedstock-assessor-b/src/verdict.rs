//! The verdict on one product: the probability that every requirement holds, and a sentence for each that is in doubt.

use snapcount::contract::{ImpurityCeiling, Product, ProductVerdict, Quantity};
use snapcount::{fail, number, Failure};

use crate::quantity::{is_finite, is_positive, keeps_below, pull, Lot};

const CONFIDENCE_MIN: f64 = 0.9;
const DOUBT_BELOW: f64 = 0.99;
const REASONS_MAX: usize = 16;
/// Bond's law gives too little below this product size (C. A. Rowland and D. M. Kjos, 1978).
const BOND_UM_MIN: f64 = 75.0;

/// One requirement: its probability, and what is said of it where that is low.
struct Requirement {
    probability: f64,
    doubt: Option<String>,
}

impl Requirement {
    fn new(probability: f64, doubt: impl FnOnce() -> String) -> Self {
        Requirement { probability, doubt: if probability < DOUBT_BELOW { Some(doubt()) } else { None } }
    }
}

pub fn judge(lot: &Lot, product: &Product, warnings: &mut Vec<String>) -> Result<ProductVerdict, Failure> {
    let fraction = lot.fraction(&product.element);
    let yield_kg = fraction.map_or_else(Quantity::default, |fraction| lot.yield_kg(product, fraction));
    let energy_kwh_t = lot.energy_kwh_t(product);
    if !is_finite(&yield_kg) || !is_finite(&energy_kwh_t) {
        return fail("bad_assay", format!("expected results for {} that a number can hold", product.name));
    }
    warnings.extend(fraction.and_then(|fraction| excess(product, fraction.value)));
    let requirements = requirements(lot, product, fraction);
    let confidence = requirements.iter().map(|requirement| requirement.probability).product();
    let reasons = reasons(lot, product, &requirements, confidence, yield_kg.value);
    let suitable = confidence >= CONFIDENCE_MIN && yield_kg.value > 0.0;
    Ok(ProductVerdict { name: product.name.clone(), reasons, suitable, yield_kg, confidence, energy_kwh_t })
}

fn requirements(lot: &Lot, product: &Product, fraction: Option<&Quantity>) -> Vec<Requirement> {
    let mut found = vec![solids(&lot.dry_mass_kg), element(product, fraction), recovery(&product.recovery)];
    found.extend(product.impurities.iter().map(|ceiling| held(ceiling, lot.fraction(&ceiling.element))));
    found.push(size(lot, product));
    found
}

fn solids(dry: &Quantity) -> Requirement {
    let probability = is_positive(dry);
    Requirement::new(probability, || {
        format!("The lot holds {} kg of dry solids, which is above 0 kg with a probability of {}.", measured(dry), number(probability, 3))
    })
}

fn element(product: &Product, fraction: Option<&Quantity>) -> Requirement {
    let Product { element, grade, .. } = product;
    let fraction = match fraction {
        Some(fraction) => fraction,
        None => return Requirement::new(0.0, || format!("The assay does not report {}, the element that is sold.", element)),
    };
    let probability = is_positive(fraction);
    Requirement::new(probability, || {
        format!(
            "{} is {} of the dry solids, which is above 0 with a probability of {}; without it the grade of {} cannot be reached.",
            element,
            measured(fraction),
            number(probability, 3),
            number(*grade, 6)
        )
    })
}

fn recovery(recovery: &Quantity) -> Requirement {
    let probability = is_positive(recovery);
    Requirement::new(probability, || {
        format!("The recovery of {} is above 0 with a probability of {}.", measured(recovery), number(probability, 3))
    })
}

fn held(ceiling: &ImpurityCeiling, fraction: Option<&Quantity>) -> Requirement {
    let ImpurityCeiling { element, fraction_max } = ceiling;
    let limit = || number(*fraction_max, 6);
    let fraction = match fraction {
        Some(fraction) => fraction,
        None => {
            let doubt = || format!("The assay does not report {}, so its ceiling of {} cannot be shown to hold.", element, limit());
            return Requirement::new(0.0, doubt);
        }
    };
    let probability = keeps_below(fraction, *fraction_max);
    Requirement::new(probability, || {
        format!(
            "{} is {} of the dry solids; its ceiling of {} holds with a probability of {}.",
            element,
            measured(fraction),
            limit(),
            number(probability, 3)
        )
    })
}

fn size(lot: &Lot, product: &Product) -> Requirement {
    let index = &lot.request.work_index_kwh_t;
    let probability = if lot.is_coarse(product) { is_positive(index) } else { 1.0 };
    Requirement::new(probability, || {
        format!(
            "The feed must be ground from {} to {} µm (80 % passing), but its work index of {} kWh/t is above 0 with a probability of {}.",
            number(lot.request.particles.d80_um, 6),
            number(product.particle_um, 6),
            measured(index),
            number(probability, 3)
        )
    })
}

/// The sentences for what is in doubt, up to 16, and what else there is to say.
fn reasons(lot: &Lot, product: &Product, requirements: &[Requirement], confidence: f64, yield_kg: f64) -> Vec<String> {
    let doubts = || requirements.iter().filter_map(|requirement| requirement.doubt.clone());
    let mut said: Vec<String> = doubts().take(REASONS_MAX).collect();
    if lot.is_coarse(product) && product.particle_um < BOND_UM_MIN {
        said.push(format!(
            "Grinding to {} µm takes more energy than stated: below {} µm Bond's law gives too little.",
            number(product.particle_um, 6),
            number(BOND_UM_MIN, 6)
        ));
    }
    let unsaid = doubts().skip(REASONS_MAX).count();
    if unsaid > 0 {
        said.push(format!("Requirements that are doubtful too, but not listed: {}.", unsaid));
    }
    let weakest = requirements.iter().map(|requirement| requirement.probability).fold(1.0, f64::min);
    if confidence < CONFIDENCE_MIN && weakest >= CONFIDENCE_MIN {
        said.push(format!(
            "Each of the {} requirements is probable, but all of them hold with a probability of {}, below {}.",
            requirements.len(),
            number(confidence, 3),
            number(CONFIDENCE_MIN, 6)
        ));
    }
    if yield_kg <= 0.0 {
        said.push("The expected yield is 0 kg.".to_string());
    }
    said
}

/// What there is to say of a product that would weigh more than the dry solids.
fn excess(product: &Product, fraction: f64) -> Option<String> {
    let pull = pull(product, fraction);
    if pull <= 1.0 {
        return None;
    }
    Some(format!(
        "{}: a recovery of {} from {} {} at a grade of {} would make {} kg of each kg of dry solids, so the yield is held at the dry mass.",
        product.name,
        number(product.recovery.value, 6),
        number(fraction, 6),
        product.element,
        number(product.grade, 6),
        number(pull, 6)
    ))
}

/// The most probable suitable product; of equally probable ones that with the larger yield, of those the first.
pub fn best(products: &[ProductVerdict]) -> String {
    let mut best: Option<&ProductVerdict> = None;
    for product in products.iter().filter(|product| product.suitable) {
        let rank = |product: &ProductVerdict| (product.confidence, product.yield_kg.value);
        if best.map_or(true, |so_far| rank(product) > rank(so_far)) {
            best = Some(product);
        }
    }
    best.map_or_else(String::new, |product| product.name.clone())
}

fn measured(quantity: &Quantity) -> String {
    format!("{} ± {}", number(quantity.value, 6), number(quantity.sigma, 6))
}
