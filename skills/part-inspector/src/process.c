/* Two walks over the values: the first gathers statistics as it goes, the second follows the rules along the chart. */

#include "process.h"

#include "rules.h"
#include "size.h"

#define SUBGROUP_MIN 2
/* Control chart constants for subgroups of 2 to 10 (AIAG SPC, 2nd edition, appendix E; ISO 7870-2). */
static const double A2[] = { 1.880, 1.023, 0.729, 0.577, 0.483, 0.419, 0.373, 0.337, 0.308 };
static const double D2[] = { 1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078 };
static const double D3[] = { 0, 0, 0, 0, 0, 0.076, 0.136, 0.184, 0.223 };
static const double D4[] = { 3.267, 2.574, 2.282, 2.114, 2.004, 1.924, 1.864, 1.816, 1.777 };
/* Standard normal quantile of 95 %. */
#define Z_95 1.645
/* Degrees of freedom that a mean range keeps of those of its subgroups. */
#define RANGE_FREEDOM 0.9

/* The value at a place of the history and the measured parts, one after the other. */
static double value_at(const Characteristic *c, uint32_t place) {
    return place < c->history_mm.len ? c->history_mm.items[place] : c->measured_mm.items[place - c->history_mm.len];
}

typedef struct { double mean_mm, range_mm; } Subgroup;

static Subgroup point_at(const Characteristic *c, uint32_t point) {
    uint32_t n = (uint32_t)c->subgroup, from = point * n;
    double low = value_at(c, from), high = low, sum = 0;
    for (uint32_t i = from; i < from + n; i++) {
        double value = value_at(c, i);
        if (value < low) low = value;
        if (value > high) high = value;
        sum += value - c->nominal_mm;
    }
    return (Subgroup){ c->nominal_mm + sum / n, high - low };
}

/* Means and the sum of squares are kept up with each value (B. P. Welford, Technometrics 4, 1962). */
static void gather(const Characteristic *c, Process *process) {
    uint32_t n = (uint32_t)c->subgroup, values = process->points * n;
    double mean = 0, squares = 0, ranges = 0;
    for (uint32_t i = 0; i < values; i++) {
        double step = value_at(c, i) - c->nominal_mm - mean;
        mean += step / (i + 1);
        squares += step * (value_at(c, i) - c->nominal_mm - mean);
        if (i % n == n - 1) ranges += point_at(c, i / n).range_mm;
    }
    process->mean_mm = c->nominal_mm + mean;
    process->range_mm = ranges / process->points;
    process->sigma_mm = process->range_mm / D2[n - SUBGROUP_MIN];
    process->overall_sigma_mm = sc_sqrt(squares / (values - 1));
    process->has_capability = is_above(process->range_mm, 0);
}

static void draw_lines(const Characteristic *c, const Process *process, ControlChart *chart) {
    uint32_t row = (uint32_t)c->subgroup - SUBGROUP_MIN;
    chart->established = c->has_established;
    chart->center_mm = c->has_established ? c->established.center_mm : process->mean_mm;
    chart->range_mm = c->has_established ? c->established.range_mm : process->range_mm;
    chart->mean_lower_mm = chart->center_mm - A2[row] * chart->range_mm;
    chart->mean_upper_mm = chart->center_mm + A2[row] * chart->range_mm;
    chart->range_lower_mm = D3[row] * chart->range_mm;
    chart->range_upper_mm = D4[row] * chart->range_mm;
    chart->points = process->points;
}

static void signal(Process *process, ControlChart *chart, uint32_t which, uint32_t point, uint32_t rule, bool recent) {
    Signal found = { .chart = which, .point = point + 1, .rule = rule };
    if (chart->signals.len < SIGNALS_MAX) *SC_PUSH(&chart->signals) = found;
    else {
        for (uint32_t i = 1; i < SIGNALS_MAX; i++) chart->signals.items[i - 1] = chart->signals.items[i];
        chart->signals.items[SIGNALS_MAX - 1] = found;
    }
    chart->signals_total += 1;
    process->recent_signals += recent;
    process->last = found;
}

static void follow(const Characteristic *c, Process *process, ControlChart *chart) {
    Watch watch = { .center_mm = chart->center_mm, .sigma_mm = A2[c->subgroup - SUBGROUP_MIN] * chart->range_mm / 3 };
    for (uint32_t point = 0; point < process->points; point++) {
        Subgroup at = point_at(c, point);
        bool recent = (point + 1) * c->subgroup > c->history_mm.len;
        uint32_t broken = watch_next(&watch, at.mean_mm);
        for (uint32_t rule = 1; rule <= RULES; rule++)
            if (broken >> rule & 1) signal(process, chart, CHART_MEAN, point, rule, recent);
        if (is_above(at.range_mm, chart->range_upper_mm) || is_below(at.range_mm, chart->range_lower_mm))
            signal(process, chart, CHART_RANGE, point, 1, recent);
        process->has_recent_point |= recent;
    }
}

/* The least of what the limits leave on either side, in units of three sigma. */
static double nearest_limit(const Characteristic *c, const Process *process, double sigma_mm) {
    double above = (c->nominal_mm + c->upper_mm - process->mean_mm) / (3 * sigma_mm);
    double below = (process->mean_mm - (c->nominal_mm + c->lower_mm)) / (3 * sigma_mm);
    if (!c->has_lower_mm) return above;
    if (!c->has_upper_mm) return below;
    return above < below ? above : below;
}

static Capability capability(const Characteristic *c, const Process *process) {
    double values = (double)(process->points * c->subgroup), width = c->upper_mm - c->lower_mm;
    bool both = c->has_lower_mm && c->has_upper_mm;
    double cpk = nearest_limit(c, process, process->sigma_mm), freedom = RANGE_FREEDOM * process->points * (c->subgroup - 1);
    return (Capability){
        .has_cp = both, .has_pp = both,
        .cp = width / (6 * process->sigma_mm),
        .cpk = cpk,
        /* A. F. Bissell, How reliable is your capability index? (Applied Statistics 39, 1990). */
        .cpk_lower = cpk - Z_95 * sc_sqrt(1 / (9 * values) + cpk * cpk / (2 * freedom)),
        .overall_sigma_mm = process->overall_sigma_mm,
        .pp = width / (6 * process->overall_sigma_mm),
        .ppk = nearest_limit(c, process, process->overall_sigma_mm),
        .sigma_mm = process->sigma_mm,
        .values = (uint64_t)values,
    };
}

Process observe(const Characteristic *c, CharacteristicVerdict *verdict) {
    Process process = { .points = (c->history_mm.len + c->measured_mm.len) / (uint32_t)c->subgroup };
    process.has_chart = process.points >= (c->has_established ? 1 : 2);
    if (!process.has_chart) return process;
    gather(c, &process);
    verdict->has_chart = true;
    draw_lines(c, &process, &verdict->chart);
    follow(c, &process, &verdict->chart);
    verdict->has_capability = process.has_capability;
    if (process.has_capability) verdict->capability = capability(c, &process);
    return process;
}

bool is_settled(const Characteristic *c, const Process *process) {
    return process->has_chart && (c->has_established || process->points >= SUBGROUPS_SETTLED);
}

void caution_process(const Characteristic *c, const Process *process, const CharacteristicVerdict *verdict, sc_texts *cautions) {
    if (!process->has_chart) {
        SAY(cautions, c, "there is no control chart, only %u complete subgroups of %u.", process->points, (unsigned)c->subgroup);
        return;
    }
    if (!is_settled(c, process))
        SAY(cautions, c, "the control limits rest on %u subgroups; %u or more are usual.", process->points, SUBGROUPS_SETTLED);
    if (verdict->chart.signals_total > 0)
        SAY(cautions, c, "signals on the charts: %u, so the process is not stable and its capability is doubtful; the last is rule %u "
            "of the %s chart at point %u of %u.", (unsigned)verdict->chart.signals_total, (unsigned)process->last.rule,
            process->last.chart == CHART_MEAN ? "mean" : "range", (unsigned)process->last.point, process->points);
    if (!process->has_capability) SAY(cautions, c, "the measurements show no spread, so there is no capability.");
    else if (verdict->capability.values < VALUES_SETTLED)
        SAY(cautions, c, "Cpk is %.4g from %u values only; with 95 %% confidence it is at least %.4g.", verdict->capability.cpk,
            (unsigned)verdict->capability.values, verdict->capability.cpk_lower);
}
