/* The measured parts: which sizes are accepted, and what becomes of each part. */

#ifndef CONFORM_H
#define CONFORM_H

#include "snapcount.h"

/* The sizes that are accepted. */
typedef struct {
    bool has_lower, has_upper;
    double lower_mm, upper_mm;
    double guard_mm;
    bool is_open;               /* there is a size that is accepted */
} Window;

Window window_of(const Characteristic *c);

/* Judges the measured parts and says why. Fills what the verdict says of them. */
void judge_measured(const Characteristic *c, const Window *window, CharacteristicVerdict *verdict, sc_texts *reasons);

/* What weakens the statement about single parts. */
void caution_gauge(const Characteristic *c, sc_texts *cautions);

#endif
