/* The formulas: what a lot yields and what it costs in energy, each with its standard uncertainty. */

#ifndef MODEL_H
#define MODEL_H

#include "snapcount.h"

typedef AssessFeedstockRequest Lot;

/* Mass of the solids in kg. */
Quantity dry_mass_kg(const Lot *lot);

/* Kilograms of product per kilogram of dry solids, f·R/g, before the mass balance holds it at 1. */
double mass_pull(const Product *product, double fraction);

/* Mass of the product in kg; never more than the dry mass. `fraction` is that of the element that is sold. */
Quantity yield_kg(const Lot *lot, const Product *product, Quantity fraction);

/* Energy for drying and comminution in kWh per tonne of dry solids. */
Quantity energy_kwh_t(const Lot *lot, double particle_um);

/* Whether the feed is coarser than the process needs. */
bool needs_grinding(const Lot *lot, double particle_um);

/* Probability that a normally distributed quantity is above a limit, or at most the limit. A quantity without
 * uncertainty gives 0 or 1. */
double probability_above(Quantity quantity, double limit);
double probability_at_most(Quantity quantity, double limit);

/* Square root of the sum of squares: how uncorrelated contributions add up (GUM 5.1.2). */
double root_sum_squares(const double *contributions, uint32_t count);

bool is_finite(Quantity quantity);

/* The element's mass fraction in the assay, or NULL. */
const Quantity *assayed(const Lot *lot, sc_text element);

#endif
