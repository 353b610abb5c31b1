/* The process that made the parts: its control charts and its capability. */

#ifndef PROCESS_H
#define PROCESS_H

#include "snapcount.h"

/* What is known of a process from the complete subgroups of its history and of the measured parts. */
typedef struct {
    uint32_t points;            /* complete subgroups */
    bool has_chart;
    bool has_capability;        /* the spread is more than nothing */
    double mean_mm, range_mm;   /* of the subgroups: the mean of their means, and their mean range */
    double sigma_mm;            /* within subgroups */
    double overall_sigma_mm;    /* of all charted values */
    uint32_t recent_signals;    /* at points that hold a measured part of this lot */
    bool has_recent_point;
    Signal last;                /* the newest signal, if there is one */
} Process;

/* How many subgroups control limits should rest on (AIAG SPC, ISO 7870-2). */
#define SUBGROUPS_SETTLED 25u
/* How many values a capability should rest on (AIAG SPC). */
#define VALUES_SETTLED 100u

/* Fills the chart and the capability of the verdict where there are any. */
Process observe(const Characteristic *c, CharacteristicVerdict *verdict);

/* The control limits rest on enough subgroups, or were established. */
bool is_settled(const Characteristic *c, const Process *process);

/* What weakens the statements about the process. */
void caution_process(const Characteristic *c, const Process *process, const CharacteristicVerdict *verdict, sc_texts *cautions);

#endif
