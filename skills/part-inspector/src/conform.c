#include "conform.h"

#include "size.h"

/* ISO 14253-1:2017: conformity is proven with 95 % at so many standard uncertainties inside a limit. */
#define GUARD_FACTOR 1.65
/* AIAG MSA: a gauge whose six sigma take more than this share of the tolerance is not acceptable. */
#define GAUGE_SHARE_MAX 0.3
#define SHARE_SLACK 1e-9

static void at_least(Window *window, double size_mm) {
    if (!window->has_lower || size_mm > window->lower_mm) window->lower_mm = size_mm;
    window->has_lower = true;
}

static void at_most(Window *window, double size_mm) {
    if (!window->has_upper || size_mm < window->upper_mm) window->upper_mm = size_mm;
    window->has_upper = true;
}

Window window_of(const Characteristic *c) {
    Window window = { .guard_mm = GUARD_FACTOR * c->gauge_sigma_mm };
    if (c->has_lower_mm) at_least(&window, c->nominal_mm + c->lower_mm + window.guard_mm);
    if (c->has_upper_mm) at_most(&window, c->nominal_mm + c->upper_mm - window.guard_mm);
    for (uint32_t i = 0; i < c->mates.len; i++) {
        const Mate *mate = &c->mates.items[i];
        if (!mate->required) continue;
        if (c->feature == FEATURE_EXTERNAL) {
            at_least(&window, mate->upper_mm - mate->clearance_max_mm + window.guard_mm);
            at_most(&window, mate->lower_mm - mate->clearance_min_mm - window.guard_mm);
        } else {
            at_least(&window, mate->upper_mm + mate->clearance_min_mm + window.guard_mm);
            at_most(&window, mate->lower_mm + mate->clearance_max_mm - window.guard_mm);
        }
    }
    window.is_open = !(window.has_lower && window.has_upper && is_above(window.lower_mm, window.upper_mm));
    return window;
}

static sc_text words_of(const Window *window) {
    if (!window->has_upper) return sc_format("from %.8g mm on", window->lower_mm);
    if (!window->has_lower) return sc_format("up to %.8g mm", window->upper_mm);
    return sc_format("from %.8g to %.8g mm", window->lower_mm, window->upper_mm);
}

/* The measured parts, counted. `most_mm` and `least_mm` are the largest and the smallest of them. */
typedef struct { uint32_t accepted, above, below, undecided; double most_mm, least_mm; } Count;

/* Near a limit, neither conformity nor nonconformity is proven: the uncertainty zone of ISO 14253-1. */
static bool is_undecided(const Characteristic *c, const Window *window, double size_mm) {
    double lower_mm = c->nominal_mm + c->lower_mm, upper_mm = c->nominal_mm + c->upper_mm;
    return (c->has_lower_mm && is_below(size_mm, lower_mm + window->guard_mm) && !is_below(size_mm, lower_mm - window->guard_mm))
        || (c->has_upper_mm && is_above(size_mm, upper_mm - window->guard_mm) && !is_above(size_mm, upper_mm + window->guard_mm));
}

static Count count(const Characteristic *c, const Window *window) {
    Count counted = { .most_mm = c->measured_mm.items[0], .least_mm = c->measured_mm.items[0] };
    for (uint32_t i = 0; i < c->measured_mm.len; i++) {
        double size_mm = c->measured_mm.items[i];
        bool above = window->has_upper && is_above(size_mm, window->upper_mm);
        bool below = window->has_lower && is_below(size_mm, window->lower_mm);
        counted.above += above;
        counted.below += below;
        counted.accepted += !above && !below;
        counted.undecided += is_undecided(c, window, size_mm);
        if (size_mm > counted.most_mm) counted.most_mm = size_mm;
        if (size_mm < counted.least_mm) counted.least_mm = size_mm;
    }
    return counted;
}

void judge_measured(const Characteristic *c, const Window *window, CharacteristicVerdict *verdict, sc_texts *reasons) {
    Count counted = count(c, window);
    bool external = c->feature == FEATURE_EXTERNAL, removable = c->rework && window->is_open;
    uint32_t excess = external ? counted.above : counted.below, lack = external ? counted.below : counted.above;
    double excess_mm = external ? counted.most_mm : counted.least_mm, lack_mm = external ? counted.least_mm : counted.most_mm;
    verdict->accepted = counted.accepted;
    verdict->verdict = VERDICT_ACCEPT;
    if (excess > 0) verdict->verdict = removable ? VERDICT_REWORK : VERDICT_REJECT;
    if (lack > 0) verdict->verdict = VERDICT_REJECT;

    sc_text words = words_of(window);
    SAY(reasons, c, "%u of %u measured parts are accepted; they measure %.8g to %.8g mm, and accepted is %.*s (guard band %.6g mm).",
        counted.accepted, c->measured_mm.len, counted.least_mm, counted.most_mm, SC_TEXT_ARGS(words), window->guard_mm);
    if (!window->is_open)
        SAY(reasons, c, "no size is accepted: what is proven to conform does not mate, or the uncertainty leaves no size that is "
            "proven to conform.");
    if (excess > 0 && removable)
        SAY(reasons, c, "too much material: %u, the worst %.8g mm; rework to sizes %.*s.", excess, excess_mm, SC_TEXT_ARGS(words));
    if (excess > 0 && !removable)
        SAY(reasons, c, "too much material: %u, the worst %.8g mm, and rework cannot help.", excess, excess_mm);
    if (lack > 0) SAY(reasons, c, "too little material: %u, the worst %.8g mm.", lack, lack_mm);
    if (counted.undecided > 0)
        SAY(reasons, c, "neither conformity nor nonconformity is proven: %u; a smaller uncertainty than %.6g mm may decide.",
            counted.undecided, c->gauge_sigma_mm);
}

void caution_gauge(const Characteristic *c, sc_texts *cautions) {
    if (c->gauge_sigma_mm == 0) SAY(cautions, c, "no uncertainty of measurement is stated, so sizes up to the limits are accepted.");
    if (!c->has_lower_mm || !c->has_upper_mm) return;
    double share = 6 * c->gauge_sigma_mm / (c->upper_mm - c->lower_mm);
    if (share > GAUGE_SHARE_MAX + SHARE_SLACK)
        SAY(cautions, c, "six sigma of the gauge take %.4g %% of the tolerance; more than %g %% are too much.", 100 * share,
            100 * GAUGE_SHARE_MAX);
}
