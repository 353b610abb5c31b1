#include "mating.h"

#include "size.h"

/* Three standard deviations hold 99.73 % of a normal distribution; a tolerance without a process counts as six of them. */
#define COVERAGE 3.0

typedef struct { double min_mm, max_mm; } Clearance;

/* Between a part of one of these sizes and a counterpart of one of those. */
static Clearance clearance(const Characteristic *c, double lower_mm, double upper_mm, const Mate *mate) {
    if (c->feature == FEATURE_EXTERNAL) return (Clearance){ mate->lower_mm - upper_mm, mate->upper_mm - lower_mm };
    return (Clearance){ lower_mm - mate->upper_mm, upper_mm - mate->lower_mm };
}

/* Root sum of squares: part and counterpart vary independently. */
static Clearance statistical(const Characteristic *c, const Process *process, const Mate *mate) {
    double mean_mm = c->nominal_mm + (c->lower_mm + c->upper_mm) / 2, sigma_mm = (c->upper_mm - c->lower_mm) / (2 * COVERAGE);
    if (process->has_chart) {
        mean_mm = process->mean_mm;
        sigma_mm = process->sigma_mm;
    }
    double middle_mm = c->feature == FEATURE_EXTERNAL ? mate->mean_mm - mean_mm : mean_mm - mate->mean_mm;
    double spread_mm = COVERAGE * sc_hypot(sigma_mm, mate->sigma_mm);
    return (Clearance){ middle_mm - spread_mm, middle_mm + spread_mm };
}

static bool is_wanted(Clearance found, const Mate *mate) {
    return !is_below(found.min_mm, mate->clearance_min_mm) && !is_above(found.max_mm, mate->clearance_max_mm);
}

static uint32_t fit_of(Clearance worst) {
    if (!is_below(worst.min_mm, 0)) return FIT_CLEARANCE;
    return is_above(worst.max_mm, 0) ? FIT_TRANSITION : FIT_INTERFERENCE;
}

static const char *const FIT_NAMES[] = { "clearance", "transition", "interference" };
static const char *const FITS_SAID[] = {
    "every part fits", "nearly every part fits", "the measured parts fit", "not even the measured parts fit",
};

void mate_all(const InspectPartRequest *request, const Characteristic *c, const Process *process, double guard_mm,
    CharacteristicVerdict *verdict, sc_texts *reasons) {
    double least_mm = c->measured_mm.items[0], most_mm = least_mm;
    for (uint32_t i = 1; i < c->measured_mm.len; i++) {
        if (c->measured_mm.items[i] < least_mm) least_mm = c->measured_mm.items[i];
        if (c->measured_mm.items[i] > most_mm) most_mm = c->measured_mm.items[i];
    }
    for (uint32_t i = 0; i < c->mates.len; i++) {
        const Mate *mate = &c->mates.items[i];
        Clearance worst = clearance(c, c->nominal_mm + c->lower_mm, c->nominal_mm + c->upper_mm, mate);
        Clearance likely = statistical(c, process, mate);
        Clearance measured = clearance(c, least_mm - guard_mm, most_mm + guard_mm, mate);
        uint32_t fits = is_wanted(worst, mate) ? FITS_EVERY : is_wanted(likely, mate) ? FITS_MOST
            : is_wanted(measured, mate) ? FITS_MEASURED : FITS_NONE;
        *SC_PUSH(&verdict->mates) = (Compatibility){
            .fit = fit_of(worst), .fits = fits, .generation = mate->generation,
            .measured_max_mm = measured.max_mm, .measured_min_mm = measured.min_mm,
            .statistical_max_mm = likely.max_mm, .statistical_min_mm = likely.min_mm,
            .worst_max_mm = worst.max_mm, .worst_min_mm = worst.min_mm,
        };
        SAY(reasons, c, "generation %llu with generation %llu%s: wanted is a clearance of %.6g to %.6g mm; worst case %.6g to %.6g mm "
            "(%s fit), statistically %.6g to %.6g mm, as measured %.6g to %.6g mm: %s.", request->generation, mate->generation,
            mate->required ? "" : " (not required)", mate->clearance_min_mm, mate->clearance_max_mm, worst.min_mm, worst.max_mm,
            FIT_NAMES[fit_of(worst)], likely.min_mm, likely.max_mm, measured.min_mm, measured.max_mm, FITS_SAID[fits]);
    }
}
