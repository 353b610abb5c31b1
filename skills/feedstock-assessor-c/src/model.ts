// The formulas of README.md (lineage a), in dual numbers.

import { AssessFeedstockRequest, Product, Quantity } from "snapcount";
import { Dual } from "./dual";
import { atMost } from "./normal";

/** kWh to bring a tonne of water from 20 to 100 °C (4.186 kJ/(kg·K)) and to evaporate it there (2257 kJ/kg). */
const WATER_KWH_T: f64 = (1000 * (4.186 * 80 + 2257)) / 3600;

/** A lot with what all its products share. */
export class Lot {
  moisture: Dual;
  workIndex: Dual;
  /** Share of the mass that is dry solids. */
  solids: Dual;
  dryMass: Dual;

  constructor(public request: AssessFeedstockRequest) {
    const moisture = Dual.measured(request.moisture, 1);
    const solids = Dual.exact(1).minus(moisture);
    this.moisture = moisture;
    this.solids = solids;
    this.dryMass = Dual.measured(request.mass_kg, 0).times(solids);
    this.workIndex = Dual.measured(request.work_index_kwh_t, 4);
  }

  /** An element's mass fraction, or null where the assay has none. */
  fraction(element: string): Quantity | null {
    const assay = this.request.assay;
    for (let i = 0; i < assay.length; i++) if (assay[i].element == element) return assay[i].fraction;
    return null;
  }

  isCoarse(product: Product): bool {
    return product.particle_um < this.request.particles.d80_um;
  }

  /** D f R / g, and at most D. */
  yield(product: Product, fraction: Quantity): Quantity {
    if (pull(product, fraction.value) > 1) return this.dryMass.quantity();
    const recovered = Dual.measured(fraction, 2).times(Dual.measured(product.recovery, 3));
    return this.dryMass.times(recovered.over(Dual.exact(product.grade))).quantity();
  }

  /** Drying H w/(1 − w), and grinding 10 Wi (1/√P80 − 1/√F80), kWh per tonne of dry solids. */
  energy(product: Product): Quantity {
    const drying = this.moisture.over(this.solids).times(Dual.exact(WATER_KWH_T));
    if (!this.isCoarse(product)) return drying.quantity();
    const bond = 10 * (1 / Math.sqrt(product.particle_um) - 1 / Math.sqrt(this.request.particles.d80_um));
    return drying.plus(this.workIndex.times(Dual.exact(bond))).quantity();
  }
}

/** Mass of product for each mass of dry solids, before the balance of mass holds it at 1. */
export function pull(product: Product, fraction: f64): f64 {
  return (fraction * product.recovery.value) / product.grade;
}

/** Probability that a quantity is above 0. */
export function positive(quantity: Quantity): f64 {
  if (quantity.sigma == 0) return quantity.value > 0 ? 1 : 0;
  return atMost(quantity.value / quantity.sigma);
}

/** Probability that a quantity is at most the limit. */
export function below(quantity: Quantity, limit: f64): f64 {
  if (quantity.sigma == 0) return quantity.value <= limit ? 1 : 0;
  return atMost((limit - quantity.value) / quantity.sigma);
}

/** Whether a number can hold both parts. */
export function isSound(quantity: Quantity): bool {
  return isFinite(quantity.value) && isFinite(quantity.sigma);
}
