#include "check.h"

/* Each impurity has to be in the assay, which has room for 64 elements. The contract leaves the list open. */
#define IMPURITIES_MAX 64u
/* Names appear in sentences, whose sum must fit the reply. */
#define ELEMENT_BYTES_MAX 32u
#define NAME_BYTES_MAX 256u
/* Coverage factor for "beyond its uncertainty": about 95 % of a normal distribution (GUM 6.3.3). */
#define COVERAGE 2.0
/* Share of 1−w above which u(w) makes first order rough: the next term of w/(1−w) is then 1 % of it. */
#define LINEAR_SHARE_MAX 0.1
/* Rounding of a sum of 64 fractions is far below this. */
#define SUM_SLACK 1e-12

static bool is_fraction(double value) {
    return value >= 0 && value <= 1;
}

static bool is_name(sc_text text, uint32_t len_max) {
    return text.len > 0 && text.len <= len_max;
}

static sc_status check_lot(const Lot *lot) {
    Particles sizes = lot->particles;
    if (lot->lot.len > NAME_BYTES_MAX)
        return sc_fail("bad_request", "expected a lot's name of at most %u bytes, got %u", NAME_BYTES_MAX, lot->lot.len);
    if (lot->mass_kg.value < 0)
        return sc_fail("bad_assay", "expected mass_kg of 0 or more, got %g kg", lot->mass_kg.value);
    if (!is_fraction(lot->moisture.value) || lot->moisture.value == 1)
        return sc_fail("bad_assay", "expected a moisture from 0 to below 1, got %g", lot->moisture.value);
    if (lot->work_index_kwh_t.value < 0)
        return sc_fail("bad_assay", "expected a work index of 0 or more, got %g kWh/t", lot->work_index_kwh_t.value);
    if (!(sizes.d10_um > 0))
        return sc_fail("bad_assay", "expected particle sizes above 0, got d10 = %g µm", sizes.d10_um);
    if (sizes.d10_um > sizes.d50_um || sizes.d50_um > sizes.d80_um)
        return sc_fail("bad_assay", "expected d10 <= d50 <= d80, got %g, %g and %g µm", sizes.d10_um, sizes.d50_um,
            sizes.d80_um);
    return SC_OK;
}

static sc_status check_elements(const Lot *lot) {
    for (uint32_t i = 0; i < lot->assay.len; i++) {
        const ElementAssay *line = &lot->assay.items[i];
        if (!is_name(line->element, ELEMENT_BYTES_MAX))
            return sc_fail("bad_assay", "expected a name of 1 to %u bytes for assay[%u], got %u", ELEMENT_BYTES_MAX, i,
                line->element.len);
        if (!is_fraction(line->fraction.value))
            return sc_fail("bad_assay", "expected a mass fraction of %.*s from 0 to 1, got %g",
                SC_TEXT_ARGS(line->element), line->fraction.value);
        if (assayed(lot, line->element) != &line->fraction)
            return sc_fail("bad_assay", "expected each element once, got %.*s twice", SC_TEXT_ARGS(line->element));
    }
    return SC_OK;
}

static sc_status check_impurities(const Product *product) {
    if (product->impurities.len > IMPURITIES_MAX)
        return sc_fail("bad_request", "expected at most %u impurities for %.*s, got %u", IMPURITIES_MAX,
            SC_TEXT_ARGS(product->name), product->impurities.len);
    for (uint32_t i = 0; i < product->impurities.len; i++) {
        const ImpurityCeiling *ceiling = &product->impurities.items[i];
        if (!is_name(ceiling->element, ELEMENT_BYTES_MAX))
            return sc_fail("bad_request", "expected an impurity's name of 1 to %u bytes for %.*s, got %u", ELEMENT_BYTES_MAX,
                SC_TEXT_ARGS(product->name), ceiling->element.len);
        if (!is_fraction(ceiling->fraction_max))
            return sc_fail("bad_request", "expected a ceiling of %.*s for %.*s from 0 to 1, got %g",
                SC_TEXT_ARGS(ceiling->element), SC_TEXT_ARGS(product->name), ceiling->fraction_max);
        for (uint32_t k = 0; k < i; k++)
            if (sc_text_same(ceiling->element, product->impurities.items[k].element))
                return sc_fail("bad_request", "expected one ceiling of %.*s for %.*s, got two",
                    SC_TEXT_ARGS(ceiling->element), SC_TEXT_ARGS(product->name));
    }
    return SC_OK;
}

static sc_status check_product(const Product *product) {
    if (!is_name(product->name, NAME_BYTES_MAX) || !is_name(product->element, ELEMENT_BYTES_MAX))
        return sc_fail("bad_request", "expected a product's name of 1 to %u bytes and its element of 1 to %u, got %u and %u",
            NAME_BYTES_MAX, ELEMENT_BYTES_MAX, product->name.len, product->element.len);
    if (!(product->grade > 0))
        return sc_fail("bad_request", "expected a grade of %.*s above 0, got %g", SC_TEXT_ARGS(product->name),
            product->grade);
    if (!is_fraction(product->recovery.value))
        return sc_fail("bad_request", "expected a recovery for %.*s from 0 to 1, got %g", SC_TEXT_ARGS(product->name),
            product->recovery.value);
    if (!(product->particle_um > 0))
        return sc_fail("bad_request", "expected a particle size for %.*s above 0, got %g µm",
            SC_TEXT_ARGS(product->name), product->particle_um);
    return check_impurities(product);
}

/* `best` in the reply is a name, so names must tell products apart. */
static sc_status check_products(const Lot *lot) {
    for (uint32_t i = 0; i < lot->products.len; i++) {
        const Product *product = &lot->products.items[i];
        if (check_product(product) != SC_OK) return SC_FAILED;
        for (uint32_t k = 0; k < i; k++)
            if (sc_text_same(product->name, lot->products.items[k].name))
                return sc_fail("bad_request", "expected each product once, got %.*s twice", SC_TEXT_ARGS(product->name));
    }
    return SC_OK;
}

sc_status check(const Lot *lot) {
    if (check_lot(lot) != SC_OK || check_elements(lot) != SC_OK) return SC_FAILED;
    return check_products(lot);
}

/* Sum and uncertainty of all fractions. */
static Quantity total_fraction(const Lot *lot) {
    Quantity total = {0};
    for (uint32_t i = 0; i < lot->assay.len; i++) {
        total.value += lot->assay.items[i].fraction.value;
        total.sigma = sc_hypot(total.sigma, lot->assay.items[i].fraction.sigma);
    }
    return total;
}

void warn(const Lot *lot, sc_texts *warnings) {
    Quantity total = total_fraction(lot), w = lot->moisture;
    if (total.value > 1 + COVERAGE * total.sigma + SUM_SLACK)
        *SC_PUSH(warnings) = sc_format("The mass fractions add up to %g ± %g, which is more than 1 by over %g sigma.",
            total.value, total.sigma, COVERAGE);
    if (total.sigma == 0)
        *SC_PUSH(warnings) = sc_format("No element has an uncertainty, so each ceiling counts as surely held or surely "
            "broken.");
    for (uint32_t i = 0; i < lot->assay.len; i++) {
        const ElementAssay *line = &lot->assay.items[i];
        if (line->fraction.sigma > line->fraction.value)
            *SC_PUSH(warnings) = sc_format("%.*s is %g ± %g of the dry solids: its uncertainty is larger than its value.",
                SC_TEXT_ARGS(line->element), line->fraction.value, line->fraction.sigma);
    }
    if (w.sigma > LINEAR_SHARE_MAX * (1 - w.value))
        *SC_PUSH(warnings) = sc_format("The moisture of %g ± %g is so uncertain that the stated uncertainties of mass and "
            "energy are rough.", w.value, w.sigma);
}
