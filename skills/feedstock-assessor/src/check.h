/* What an assay must fulfil before it is worth a calculation, and what is odd about it although it can be used. */

#ifndef CHECK_H
#define CHECK_H

#include "model.h"

/* SC_FAILED with `bad_assay` (the lot) or `bad_request` (the products). */
sc_status check(const Lot *lot);

/* Adds to `warnings` what is odd about the assay as a whole. */
void warn(const Lot *lot, sc_texts *warnings);

#endif
