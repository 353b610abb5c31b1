/* Compatibility with the counterparts that each hardware generation makes. */

#ifndef MATING_H
#define MATING_H

#include "process.h"
#include "snapcount.h"

/* Fills the verdict's mates, with a sentence for each. */
void mate_all(const InspectPartRequest *request, const Characteristic *c, const Process *process, double guard_mm,
    CharacteristicVerdict *verdict, sc_texts *reasons);

#endif
