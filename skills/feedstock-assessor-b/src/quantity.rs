//! The formulas, and how uncertainty goes through them: u²(y) = Σ (∂y/∂x)² u²(x) for inputs that are not correlated (GUM, JCGM 100:2008,
//! 5.1.2, equation 10).

use snapcount::contract::{AssessFeedstockRequest, Product, Quantity};

use crate::normal;

/// kJ to bring a kilogram of water from 20 to 100 °C at 4.186 kJ/(kg·K), and to evaporate it there.
const WATER_KJ_KG: f64 = 4.186 * 80.0 + 2257.0;
/// kWh for a tonne of water: 1000 kg, 3600 kJ each kWh.
const WATER_KWH_T: f64 = WATER_KJ_KG / 3.6;

/// A lot with what all its products share.
pub struct Lot<'a> {
    pub request: &'a AssessFeedstockRequest,
    pub dry_mass_kg: Quantity,
}

impl<'a> Lot<'a> {
    pub fn new(request: &'a AssessFeedstockRequest) -> Self {
        let (mass, water) = (&request.mass_kg, &request.moisture);
        let solids = 1.0 - water.value;
        let dry_mass_kg = Quantity { value: mass.value * solids, sigma: (solids * mass.sigma).hypot(mass.value * water.sigma) };
        Lot { request, dry_mass_kg }
    }

    /// The mass fraction of an element, if the assay has it.
    pub fn fraction(&self, element: &str) -> Option<&'a Quantity> {
        self.request.assay.iter().find(|line| line.element == element).map(|line| &line.fraction)
    }

    /// Whether the feed is coarser than the product's process needs it.
    pub fn is_coarse(&self, product: &Product) -> bool {
        self.request.particles.d80_um > product.particle_um
    }

    /// Y = D f R / g, and at most D.
    pub fn yield_kg(&self, product: &Product, fraction: &Quantity) -> Quantity {
        let (dry, recovery, grade) = (&self.dry_mass_kg, &product.recovery, product.grade);
        let pull = pull(product, fraction.value);
        if pull > 1.0 {
            return dry.clone();
        }
        let by_dry = pull * dry.sigma;
        let by_fraction = dry.value * (recovery.value / grade) * fraction.sigma;
        let by_recovery = dry.value * (fraction.value / grade) * recovery.sigma;
        Quantity { value: dry.value * pull, sigma: by_dry.hypot(by_fraction).hypot(by_recovery) }
    }

    /// Drying and Bond's third theory, kWh per tonne of dry solids. Bond's sizes are those that 80 % pass, in µm.
    pub fn energy_kwh_t(&self, product: &Product) -> Quantity {
        let (water, index) = (&self.request.moisture, &self.request.work_index_kwh_t);
        let solids = 1.0 - water.value;
        let bond = if self.is_coarse(product) {
            10.0 / product.particle_um.sqrt() - 10.0 / self.request.particles.d80_um.sqrt()
        } else {
            0.0
        };
        Quantity {
            value: water.value / solids * WATER_KWH_T + bond * index.value,
            sigma: (WATER_KWH_T * water.sigma / (solids * solids)).hypot(bond * index.sigma),
        }
    }
}

/// Mass of product for each mass of dry solids, before the balance of mass holds it at 1.
pub fn pull(product: &Product, fraction: f64) -> f64 {
    fraction * product.recovery.value / product.grade
}

/// Probability that a quantity is above 0.
pub fn is_positive(quantity: &Quantity) -> f64 {
    if quantity.sigma > 0.0 {
        normal::at_most(quantity.value / quantity.sigma)
    } else {
        f64::from(u8::from(quantity.value > 0.0))
    }
}

/// Probability that a quantity is at most the limit.
pub fn keeps_below(quantity: &Quantity, limit: f64) -> f64 {
    if quantity.sigma > 0.0 {
        normal::at_most((limit - quantity.value) / quantity.sigma)
    } else {
        f64::from(u8::from(quantity.value <= limit))
    }
}

pub fn is_finite(quantity: &Quantity) -> bool {
    quantity.value.is_finite() && quantity.sigma.is_finite()
}
