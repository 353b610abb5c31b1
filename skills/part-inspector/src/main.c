/* part-inspector: from measured sizes to accept, rework or reject. The rules, their sources and their boundaries are in README.md. */

#include "check.h"
#include "conform.h"
#include "mating.h"
#include "process.h"
#include "size.h"

SC_HOOK(inspect_part, InspectPartRequest, InspectPartReply)
SC_HOOK(self_test, SelfTestRequest, SelfTestReply)

/* Below this, a Cpk counts as the one that is asked for. */
#define CPK_SLACK 1e-9

/* The parts that were not measured are accepted by the process alone: a stable one, known well enough, and capable. */
static void judge_others(const InspectPartRequest *request, const Characteristic *c, const Process *process, CharacteristicVerdict *verdict,
    sc_texts *reasons) {
    unsigned others = (unsigned)(request->parts - c->measured_mm.len);
    uint32_t before = reasons->len;
    if (others == 0) return;
#define REFUSE(text, ...) SAY(reasons, c, "parts not measured: %u; " text ", so measure every part.", others, ##__VA_ARGS__)
    if (!is_settled(c, process)) REFUSE("the control limits rest on %u subgroups instead of %u", process->points, SUBGROUPS_SETTLED);
    if (!process->has_recent_point) REFUSE("none of the measured parts is on the chart");
    if (process->recent_signals > 0) REFUSE("signals at points of this lot: %u", process->recent_signals);
    if (!process->has_capability) REFUSE("the capability is not known");
    else if (verdict->capability.cpk < request->cpk_min - CPK_SLACK)
        REFUSE("Cpk is %.4g, below %.4g", verdict->capability.cpk, request->cpk_min);
    for (uint32_t i = 0; i < c->mates.len; i++)
        if (c->mates.items[i].required && verdict->mates.items[i].fits > FITS_MOST)
            REFUSE("the process does not fit generation %llu", c->mates.items[i].generation);
#undef REFUSE
    if (reasons->len > before) verdict->verdict = VERDICT_REJECT;
    else SAY(reasons, c, "parts not measured: %u; the process covers them: it is stable, and its Cpk of %.4g is at least %.4g.", others,
        verdict->capability.cpk, request->cpk_min);
}

static void judge(const InspectPartRequest *request, const Characteristic *c, InspectPartReply *reply) {
    CharacteristicVerdict *verdict = SC_PUSH(&reply->characteristics);
    verdict->name = c->name;
    Window window = window_of(c);
    verdict->has_window_lower_mm = window.has_lower;
    verdict->has_window_upper_mm = window.has_upper;
    verdict->window_lower_mm = window.lower_mm;
    verdict->window_upper_mm = window.upper_mm;
    Process process = observe(c, verdict);
    judge_measured(c, &window, verdict, &reply->reasons);
    mate_all(request, c, &process, window.guard_mm, verdict, &reply->reasons);
    judge_others(request, c, &process, verdict, &reply->reasons);
    caution_gauge(c, &reply->cautions);
    caution_process(c, &process, verdict, &reply->cautions);
    if (verdict->verdict > reply->verdict) reply->verdict = verdict->verdict;
}

static sc_status inspect_part(const InspectPartRequest *request, InspectPartReply *reply) {
    if (check(request) != SC_OK) return SC_FAILED;
    reply->lot = request->lot;
    for (uint32_t i = 0; i < request->characteristics.len; i++) judge(request, &request->characteristics.items[i], reply);
    return SC_OK;
}

/* ---- self_test: journals whose answers are round numbers ---- */

static bool is_near(double got, double wanted) {
    return sc_abs(got - wanted) <= 1e-9;
}

static sc_status self_test(const SelfTestRequest *request, SelfTestReply *reply) {
    (void)request;
    /* Two subgroups with means of 10 and ranges of 1.693: sigma is 1 of them, the tolerance is 12 wide and the mean 2 off its middle. */
    double sizes[] = { 10 - 0.8465, 10, 10 + 0.8465 };
    Mate mate = { .clearance_max_mm = 30, .generation = 2, .lower_mm = 20, .mean_mm = 20, .required = true, .upper_mm = 20 };
    Characteristic journal = { .has_lower_mm = true, .has_upper_mm = true, .nominal_mm = 12, .lower_mm = -6, .upper_mm = 6,
        .feature = FEATURE_EXTERNAL, .history_mm = { sizes, 3 }, .measured_mm = { sizes, 3 }, .mates = { &mate, 1 }, .subgroup = 3,
        .name = sc_text_of("journal"), .gauge_sigma_mm = 0.2 };
    InspectPartRequest lot = { .characteristics = { &journal, 1 }, .parts = 3 };
    InspectPartReply got = {0};
    if (inspect_part(&lot, &got) != SC_OK) return SC_FAILED;
    const CharacteristicVerdict *found = got.characteristics.items;
    reply->ok = got.verdict == VERDICT_ACCEPT && is_near(found->capability.cp, 2) && is_near(found->capability.cpk, 4.0 / 3)
        && is_near(found->window_lower_mm, 6.33) && is_near(found->window_upper_mm, 17.67)
        && is_near(found->chart.mean_upper_mm, 10 + 1.023 * 1.693) && is_near(found->mates.items[0].worst_min_mm, 2);
    reply->detail = sc_format("Expected Cp 2, Cpk 1.333 and sizes from 6.33 to 17.67 mm; got %.4g, %.4g and %.6g to %.6g mm.",
        found->capability.cp, found->capability.cpk, found->window_lower_mm, found->window_upper_mm);
    return SC_OK;
}
