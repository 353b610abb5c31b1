/* The verdict on one product: how probable it is that every requirement holds, and why not. */

#ifndef JUDGE_H
#define JUDGE_H

#include "model.h"

/* Fills the verdict; adds to `warnings` what the product shows about the assay. */
sc_status judge(const Lot *lot, const Product *product, ProductVerdict *verdict, sc_texts *warnings);

/* Name of the best suitable product: the most probable one, of equally probable ones that with the larger yield, of
 * those the first. Empty for none. */
sc_text best_of(const AssessFeedstockReply *reply);

#endif
