/* What the other files share: when sizes count as equal, how one value is compared with a limit, and sentences. */

#ifndef SIZE_H
#define SIZE_H

#include "snapcount.h"

/* Half a nanometre. No gauge of a workshop resolves it, and rounding in these formulas is far below it. */
#define EQUAL_MM 5e-7

static inline bool is_above(double size_mm, double limit_mm) {
    return size_mm > limit_mm + EQUAL_MM;
}

static inline bool is_below(double size_mm, double limit_mm) {
    return size_mm < limit_mm - EQUAL_MM;
}

/* A sentence about one characteristic, which begins with its name. */
#define SAY(list, c, text, ...) (*SC_PUSH(list) = sc_format("%.*s: " text, SC_TEXT_ARGS((c)->name), ##__VA_ARGS__))

#endif
