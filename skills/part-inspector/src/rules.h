/* The eight rules of L. S. Nelson (The Shewhart control chart: tests for special causes, Journal of Quality Technology 16, 1984),
 * followed along a chart point by point: what each rule needs of the past is kept as the length of a run, or as a few bits. */

#ifndef RULES_H
#define RULES_H

#include <stdbool.h>
#include <stdint.h>

#define RULES 8u

typedef struct {
    double center_mm, sigma_mm; /* sigma of a subgroup's mean */
    uint32_t count;             /* points so far */
    double before_mm;           /* the point before */
    int side;                   /* of the centre line: 1 above, -1 below, 0 on it */
    uint32_t side_run;          /* points on that side */
    int step;                   /* 1 up, -1 down, 0 level */
    uint32_t step_run;          /* steps in that direction */
    uint32_t swing_run;         /* steps that alternate */
    uint32_t inside_run;        /* points in zone C */
    uint32_t outside_run;       /* points beyond zone C */
    uint32_t outside[2];        /* which of the last points lie beyond one sigma, below and above: the newest is bit 0 */
    uint32_t far[2];            /* the same beyond two sigma */
} Watch;

/* Takes the next point; bit r of the result says that rule r holds for a pattern that ends in it. */
uint32_t watch_next(Watch *watch, double mean_mm);

#endif
