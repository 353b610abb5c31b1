#include "judge.h"

/* From the contract: suitable means at least this. */
#define CONFIDENCE_MIN 0.9
/* A requirement less probable than this gets a sentence of its own. */
#define DOUBT_BELOW 0.99
/* More sentences than this help nobody, and 16 products of them must fit the reply. */
#define REASONS_MAX 16u
/* Below this product size Bond's law needs a correction upward (Rowland and Kjos 1978, fineness factor EF5). */
#define BOND_UM_MIN 75.0

typedef struct {
    const Lot *lot;
    const Product *product;
    ProductVerdict *verdict;
    double weakest;     /* the least probable requirement so far */
    uint32_t count;     /* of requirements */
    uint32_t unsaid;    /* doubtful requirements beyond REASONS_MAX */
} Judgement;

/* Counts a requirement; true when it gets a sentence. */
static bool is_doubtful(Judgement *judgement, double probability) {
    judgement->verdict->confidence *= probability;
    if (probability < judgement->weakest) judgement->weakest = probability;
    judgement->count += 1;
    if (probability >= DOUBT_BELOW) return false;
    bool is_full = judgement->verdict->reasons.len >= REASONS_MAX;
    judgement->unsaid += is_full;
    return !is_full;
}

#define REASON(judgement) *SC_PUSH(&(judgement)->verdict->reasons)

static void require_solids(Judgement *judgement) {
    Quantity dry = dry_mass_kg(judgement->lot);
    double probability = probability_above(dry, 0);
    if (is_doubtful(judgement, probability))
        REASON(judgement) = sc_format("The lot holds %g ± %g kg of dry solids, which is above 0 kg with a probability of "
            "%.3g.", dry.value, dry.sigma, probability);
}

/* Any grade up to 1 can be reached from a feed that has the element at all, at the recovery that the product states. */
static void require_element(Judgement *judgement, const Quantity *fraction) {
    const Product *product = judgement->product;
    if (fraction == NULL) {
        if (is_doubtful(judgement, 0))
            REASON(judgement) = sc_format("The assay does not report %.*s, the element that is sold.",
                SC_TEXT_ARGS(product->element));
        return;
    }
    double probability = probability_above(*fraction, 0);
    if (is_doubtful(judgement, probability))
        REASON(judgement) = sc_format("%.*s is %g ± %g of the dry solids, which is above 0 with a probability of %.3g; "
            "without it the grade of %g cannot be reached.", SC_TEXT_ARGS(product->element), fraction->value,
            fraction->sigma, probability, product->grade);
}

static void require_recovery(Judgement *judgement) {
    Quantity recovery = judgement->product->recovery;
    double probability = probability_above(recovery, 0);
    if (is_doubtful(judgement, probability))
        REASON(judgement) = sc_format("The recovery of %g ± %g is above 0 with a probability of %.3g.", recovery.value,
            recovery.sigma, probability);
}

static void require_ceiling(Judgement *judgement, const ImpurityCeiling *ceiling) {
    const Quantity *fraction = assayed(judgement->lot, ceiling->element);
    double probability = fraction == NULL ? 0 : probability_at_most(*fraction, ceiling->fraction_max);
    if (!is_doubtful(judgement, probability)) return;
    if (fraction == NULL)
        REASON(judgement) = sc_format("The assay does not report %.*s, so its ceiling of %g cannot be shown to hold.",
            SC_TEXT_ARGS(ceiling->element), ceiling->fraction_max);
    else
        REASON(judgement) = sc_format("%.*s is %g ± %g of the dry solids; its ceiling of %g holds with a probability of "
            "%.3g.", SC_TEXT_ARGS(ceiling->element), fraction->value, fraction->sigma, ceiling->fraction_max, probability);
}

/* A feed that is fine enough needs nothing. A coarser one can be ground, if the work index is known to be above 0. */
static void require_size(Judgement *judgement) {
    const Lot *lot = judgement->lot;
    double size_um = judgement->product->particle_um;
    bool grinds = needs_grinding(lot, size_um);
    Quantity index = lot->work_index_kwh_t;
    double probability = grinds ? probability_above(index, 0) : 1;
    if (is_doubtful(judgement, probability))
        REASON(judgement) = sc_format("The feed must be ground from %g to %g µm (80 %% passing), but its work index of "
            "%g ± %g kWh/t is above 0 with a probability of %.3g.", lot->particles.d80_um, size_um, index.value,
            index.sigma, probability);
    if (grinds && size_um < BOND_UM_MIN)
        REASON(judgement) = sc_format("Grinding to %g µm takes more energy than stated: below %g µm Bond's law gives too "
            "little.", size_um, BOND_UM_MIN);
}

static void warn_of_excess(const Judgement *judgement, double fraction, sc_texts *warnings) {
    const Product *product = judgement->product;
    double pull = mass_pull(product, fraction);
    if (pull > 1)
        *SC_PUSH(warnings) = sc_format("%.*s: a recovery of %g from %g %.*s at a grade of %g would make %g kg of each kg of "
            "dry solids, so the yield is held at the dry mass.", SC_TEXT_ARGS(product->name), product->recovery.value,
            fraction, SC_TEXT_ARGS(product->element), product->grade, pull);
}

static void conclude(Judgement *judgement) {
    ProductVerdict *verdict = judgement->verdict;
    bool probable = verdict->confidence >= CONFIDENCE_MIN;
    verdict->suitable = probable && verdict->yield_kg.value > 0;
    if (judgement->unsaid > 0)
        REASON(judgement) = sc_format("Requirements that are doubtful too, but not listed: %u.", judgement->unsaid);
    if (!probable && judgement->weakest >= CONFIDENCE_MIN)
        REASON(judgement) = sc_format("Each of the %u requirements is probable, but all of them hold with a probability of "
            "%.3g, below %g.", judgement->count, verdict->confidence, CONFIDENCE_MIN);
    if (!(verdict->yield_kg.value > 0)) REASON(judgement) = sc_format("The expected yield is 0 kg.");
}

sc_status judge(const Lot *lot, const Product *product, ProductVerdict *verdict, sc_texts *warnings) {
    Judgement judgement = { .lot = lot, .product = product, .verdict = verdict, .weakest = 1 };
    const Quantity *fraction = assayed(lot, product->element);
    verdict->name = product->name;
    verdict->confidence = 1;
    verdict->energy_kwh_t = energy_kwh_t(lot, product->particle_um);
    if (fraction != NULL) {
        verdict->yield_kg = yield_kg(lot, product, *fraction);
        warn_of_excess(&judgement, fraction->value, warnings);
    }
    if (!is_finite(verdict->yield_kg) || !is_finite(verdict->energy_kwh_t))
        return sc_fail("bad_assay", "expected numbers of a possible size, got a result for %.*s that is not finite",
            SC_TEXT_ARGS(product->name));
    require_solids(&judgement);
    require_element(&judgement, fraction);
    require_recovery(&judgement);
    for (uint32_t i = 0; i < product->impurities.len; i++) require_ceiling(&judgement, &product->impurities.items[i]);
    require_size(&judgement);
    conclude(&judgement);
    return SC_OK;
}

static bool is_better(const ProductVerdict *one, const ProductVerdict *other) {
    if (one->confidence != other->confidence) return one->confidence > other->confidence;
    return one->yield_kg.value > other->yield_kg.value;
}

sc_text best_of(const AssessFeedstockReply *reply) {
    const ProductVerdict *best = NULL;
    for (uint32_t i = 0; i < reply->products.len; i++) {
        const ProductVerdict *verdict = &reply->products.items[i];
        if (verdict->suitable && (best == NULL || is_better(verdict, best))) best = verdict;
    }
    return best == NULL ? sc_text_of("") : best->name;
}
