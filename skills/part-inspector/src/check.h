/* What a request must fulfil beyond its shape. */

#ifndef CHECK_H
#define CHECK_H

#include "snapcount.h"

/* Refuses with `bad_inspection`. */
sc_status check(const InspectPartRequest *request);

#endif
