/* feedstock-assessor: from an assay to yield, energy and suitability for each product, with propagated uncertainty.
 * The formulas and their sources are in README.md. */

#include "check.h"
#include "judge.h"

SC_HOOK(assess_feedstock, AssessFeedstockRequest, AssessFeedstockReply)
SC_HOOK(self_test, SelfTestRequest, SelfTestReply)

static sc_status assess_feedstock(const AssessFeedstockRequest *lot, AssessFeedstockReply *reply) {
    if (check(lot) != SC_OK) return SC_FAILED;
    reply->lot = lot->lot;
    reply->dry_mass_kg = dry_mass_kg(lot);
    if (!is_finite(reply->dry_mass_kg))
        return sc_fail("bad_assay", "expected a dry mass of a possible size, got one that is not finite");
    warn(lot, &reply->warnings);
    for (uint32_t i = 0; i < lot->products.len; i++)
        if (judge(lot, &lot->products.items[i], SC_PUSH(&reply->products), &reply->warnings) != SC_OK) return SC_FAILED;
    reply->best = best_of(reply);
    return SC_OK;
}

/* ---- self_test: a lot whose answers are round numbers ---- */

/* Relative; the answers below are exact but for the last bits. */
#define SELF_TEST_TOLERANCE 1e-12

static bool is_near(double got, double wanted) {
    return sc_abs(got - wanted) <= SELF_TEST_TOLERANCE * wanted;
}

static sc_status self_test(const SelfTestRequest *request, SelfTestReply *reply) {
    (void)request;
    sc_text iron = sc_text_of("Fe");
    ElementAssay assay = { .element = iron, .fraction = { .value = 0.3, .sigma = 0.03 } };
    Product product = { .element = iron, .grade = 0.6, .name = sc_text_of("concentrate"), .particle_um = 100,
        .recovery = { .value = 0.9 } };
    AssessFeedstockRequest lot = { .assay = { &assay, 1 }, .mass_kg = { .value = 1000 }, .moisture = { .value = 0.2 },
        .particles = { 100, 1000, 10000 }, .products = { &product, 1 }, .work_index_kwh_t = { .value = 10 } };
    AssessFeedstockReply got = {0};
    if (assess_feedstock(&lot, &got) != SC_OK) return SC_FAILED;
    const ProductVerdict *verdict = got.products.items;
    /* 1000 kg × 0.8; then × 0.3 × 0.9 / 0.6, with the 10 % of the assay; 719.9667 kWh/t of water × 0.25, and
     * 10 kWh/t × 10 × (1/10 − 1/100). */
    reply->ok = is_near(got.dry_mass_kg.value, 800) && is_near(verdict->yield_kg.value, 360)
        && is_near(verdict->yield_kg.sigma, 36) && is_near(verdict->energy_kwh_t.value, 2591.88 / 3.6 / 4 + 9)
        && verdict->suitable && sc_text_same(got.best, product.name);
    reply->detail = sc_format("Expected 800 kg dry, 360 ± 36 kg and 188.992 kWh/t; got %g kg dry, %g ± %g kg and %g kWh/t.",
        got.dry_mass_kg.value, verdict->yield_kg.value, verdict->yield_kg.sigma, verdict->energy_kwh_t.value);
    return SC_OK;
}
