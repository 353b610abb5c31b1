/* Every uncertainty is the law of propagation of uncertainty to first order for uncorrelated inputs, equation 10 of
 * the GUM (JCGM 100:2008, 5.1.2): u²(y) = Σ (∂y/∂x)² u²(x). The partial derivatives are written out beside each formula. */

#include "model.h"

/* Specific heat of liquid water, kJ/(kg·K): the 15 °C calorie of 4.1855 J, rounded. */
#define WATER_HEAT_KJ_KG_K 4.186
/* Enthalpy of vaporization of water at 100 °C and 101.325 kPa, kJ/kg: the usual figure; IAPWS-IF97 gives 2256.5. */
#define WATER_LATENT_KJ_KG 2257.0
/* From a yard at 20 °C to the boiling point at 101.325 kPa. */
#define DRYING_RISE_K (100.0 - 20.0)
#define KJ_PER_KWH 3600.0
#define KG_PER_TONNE 1000.0
/* Energy to dry off one tonne of water, kWh. */
#define WATER_KWH_T (KG_PER_TONNE * (WATER_HEAT_KJ_KG_K * DRYING_RISE_K + WATER_LATENT_KJ_KG) / KJ_PER_KWH)
/* Bond's third theory (Trans. AIME 193, 1952): the work index refers to 100 µm, and √100 = 10. */
#define BOND_SQRT_UM 10.0

#define UNCERTAINTY(...) root_sum_squares((const double[]){__VA_ARGS__}, \
    sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

double root_sum_squares(const double *contributions, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) sum = sc_hypot(sum, contributions[i]);
    return sum;
}

/* D = m(1−w): ∂D/∂m = 1−w, ∂D/∂w = −m. */
Quantity dry_mass_kg(const Lot *lot) {
    Quantity m = lot->mass_kg, w = lot->moisture;
    return (Quantity){
        .value = m.value * (1 - w.value),
        .sigma = UNCERTAINTY((1 - w.value) * m.sigma, m.value * w.sigma),
    };
}

double mass_pull(const Product *product, double fraction) {
    return fraction * product->recovery.value / product->grade;
}

/* Y = D·f·R/g: ∂Y/∂D = f·R/g, ∂Y/∂f = D·R/g, ∂Y/∂R = D·f/g. D depends on other inputs than f and R do, so its own
 * uncertainty stands for those of m and w. */
Quantity yield_kg(const Lot *lot, const Product *product, Quantity fraction) {
    Quantity dry = dry_mass_kg(lot), recovery = product->recovery;
    double pull = mass_pull(product, fraction.value), grade = product->grade;
    if (pull > 1) return dry;
    return (Quantity){
        .value = dry.value * pull,
        .sigma = UNCERTAINTY(pull * dry.sigma, dry.value * recovery.value / grade * fraction.sigma,
            dry.value * fraction.value / grade * recovery.sigma),
    };
}

bool needs_grinding(const Lot *lot, double particle_um) {
    return particle_um < lot->particles.d80_um;
}

/* E = H·w/(1−w) + Wi·b: ∂E/∂w = H/(1−w)², ∂E/∂Wi = b, where H is the energy for a tonne of water and
 * b = 10(1/√P80 − 1/√F80). */
Quantity energy_kwh_t(const Lot *lot, double particle_um) {
    Quantity w = lot->moisture, index = lot->work_index_kwh_t;
    double dry_share = 1 - w.value, bond = 0;
    if (needs_grinding(lot, particle_um))
        bond = BOND_SQRT_UM * (1 / sc_sqrt(particle_um) - 1 / sc_sqrt(lot->particles.d80_um));
    return (Quantity){
        .value = WATER_KWH_T * w.value / dry_share + index.value * bond,
        .sigma = UNCERTAINTY(WATER_KWH_T / dry_share / dry_share * w.sigma, bond * index.sigma),
    };
}

double probability_above(Quantity quantity, double limit) {
    if (quantity.sigma == 0) return quantity.value > limit ? 1 : 0;
    return sc_normal_cdf((quantity.value - limit) / quantity.sigma);
}

double probability_at_most(Quantity quantity, double limit) {
    if (quantity.sigma == 0) return quantity.value <= limit ? 1 : 0;
    return sc_normal_cdf((limit - quantity.value) / quantity.sigma);
}

bool is_finite(Quantity quantity) {
    /* Infinity minus itself, and NaN, are NaN. */
    return quantity.value - quantity.value == 0 && quantity.sigma - quantity.sigma == 0;
}

const Quantity *assayed(const Lot *lot, sc_text element) {
    for (uint32_t i = 0; i < lot->assay.len; i++)
        if (sc_text_same(lot->assay.items[i].element, element)) return &lot->assay.items[i].fraction;
    return NULL;
}
