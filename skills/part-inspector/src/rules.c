#include "rules.h"

#include "size.h"

#define RULE(number, holds) ((uint32_t)(holds) << (number))
#define LAST(bits, points) ((bits) & ((1u << (points)) - 1))

static uint32_t count_of(uint32_t bits) {
    return (uint32_t)__builtin_popcount(bits);
}

static int sign_of(double distance_mm) {
    return is_above(distance_mm, 0) - is_below(distance_mm, 0);
}

/* Keeps up the runs that depend on where the point lies. */
static void place(Watch *watch, double distance_mm) {
    int side = sign_of(distance_mm);
    watch->side_run = side == watch->side ? watch->side_run + 1 : 1;
    watch->side = side;
    bool outside = is_above(sc_abs(distance_mm), watch->sigma_mm), far = is_above(sc_abs(distance_mm), 2 * watch->sigma_mm);
    watch->outside_run = outside ? watch->outside_run + 1 : 0;
    watch->inside_run = outside ? 0 : watch->inside_run + 1;
    for (int above = 0; above < 2; above++) {
        bool here = side == (above ? 1 : -1);
        watch->outside[above] = watch->outside[above] << 1 | (outside && here);
        watch->far[above] = watch->far[above] << 1 | (far && here);
    }
}

/* Keeps up the runs that depend on the step from the point before. */
static void move(Watch *watch, double step_mm) {
    int step = sign_of(step_mm);
    watch->step_run = step == watch->step ? watch->step_run + 1 : 1;
    if (step == 0) watch->swing_run = 0;
    else watch->swing_run = step == -watch->step ? watch->swing_run + 1 : 1;
    watch->step = step;
}

/* So many of the last points lie out on one side, and the newest is one of them. */
static bool many(const uint32_t *sides, uint32_t points, uint32_t least) {
    for (int above = 0; above < 2; above++)
        if ((sides[above] & 1) && count_of(LAST(sides[above], points)) >= least) return true;
    return false;
}

uint32_t watch_next(Watch *watch, double mean_mm) {
    double distance_mm = mean_mm - watch->center_mm;
    place(watch, distance_mm);
    if (watch->count > 0) move(watch, mean_mm - watch->before_mm);
    watch->before_mm = mean_mm;
    watch->count += 1;
    bool both = LAST(watch->outside[0], 8) != 0 && LAST(watch->outside[1], 8) != 0;
    return RULE(1, is_above(sc_abs(distance_mm), 3 * watch->sigma_mm))
        | RULE(2, watch->side != 0 && watch->side_run >= 9)
        | RULE(3, watch->step != 0 && watch->step_run >= 5)
        | RULE(4, watch->swing_run >= 13)
        | RULE(5, many(watch->far, 3, 2))
        | RULE(6, many(watch->outside, 5, 4))
        | RULE(7, watch->inside_run >= 15)
        | RULE(8, watch->outside_run >= 8 && both);
}
