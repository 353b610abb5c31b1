// The verdict on one product: the probability that every requirement holds, and a sentence for each that is in doubt.

import { ImpurityCeiling, Product, ProductVerdict, Quantity, fail, number } from "snapcount";
import { Lot, below, isSound, positive, pull } from "./model";

const CONFIDENCE_MIN: f64 = 0.9;
const DOUBT_BELOW: f64 = 0.99;
const REASONS_MAX = 16;
/** Bond's law gives too little below this product size (C. A. Rowland and D. M. Kjos, 1978). */
const BOND_UM_MIN: f64 = 75;

function measured(quantity: Quantity): string {
  return number(quantity.value, 6) + " ± " + number(quantity.sigma, 6);
}

/** What the requirements of one product amount to. */
class Tally {
  confidence: f64 = 1;
  weakest: f64 = 1;
  count: i32 = 0;
  doubts: i32 = 0;
  reasons: Array<string> = [];

  /** Counts a requirement. True: it is in doubt, and its sentence has room. */
  isInDoubt(probability: f64): bool {
    this.count += 1;
    this.confidence *= probability;
    this.weakest = Math.min(this.weakest, probability);
    if (probability >= DOUBT_BELOW) return false;
    this.doubts += 1;
    return this.doubts <= REASONS_MAX;
  }
}

export function judge(lot: Lot, product: Product, warnings: Array<string>): ProductVerdict {
  const verdict = new ProductVerdict();
  const fraction = lot.fraction(product.element);
  verdict.name = product.name;
  verdict.energy_kwh_t = lot.energy(product);
  if (fraction) verdict.yield_kg = lot.yield(product, fraction);
  if (!isSound(verdict.yield_kg) || !isSound(verdict.energy_kwh_t)) {
    return fail<ProductVerdict>("bad_assay", "expected results for " + product.name + " that a number can hold");
  }
  if (fraction) warnOfExcess(product, fraction.value, warnings);
  const tally = new Tally();
  requireFeed(tally, lot, product, fraction);
  for (let i = 0; i < product.impurities.length; i++) requireCeiling(tally, product.impurities[i], lot.fraction(product.impurities[i].element));
  requireSize(tally, lot, product);
  conclude(tally, verdict);
  return verdict;
}

/** Dry solids, the element that is sold, and its recovery. */
function requireFeed(tally: Tally, lot: Lot, product: Product, fraction: Quantity | null): void {
  const dry = lot.dryMass.quantity();
  const solid = positive(dry);
  if (tally.isInDoubt(solid)) {
    tally.reasons.push("The lot holds " + measured(dry) + " kg of dry solids, which is above 0 kg with a probability of " + number(solid, 3) + ".");
  }
  const there = fraction ? positive(fraction) : 0;
  if (tally.isInDoubt(there)) {
    if (fraction) {
      const share = product.element + " is " + measured(fraction) + " of the dry solids, which is above 0 with a probability of " + number(there, 3);
      tally.reasons.push(share + "; without it the grade of " + number(product.grade, 6) + " cannot be reached.");
    } else {
      tally.reasons.push("The assay does not report " + product.element + ", the element that is sold.");
    }
  }
  const recovered = positive(product.recovery);
  if (tally.isInDoubt(recovered)) {
    tally.reasons.push("The recovery of " + measured(product.recovery) + " is above 0 with a probability of " + number(recovered, 3) + ".");
  }
}

function requireCeiling(tally: Tally, ceiling: ImpurityCeiling, fraction: Quantity | null): void {
  const held = fraction ? below(fraction, ceiling.fraction_max) : 0;
  if (!tally.isInDoubt(held)) return;
  const limit = "its ceiling of " + number(ceiling.fraction_max, 6);
  if (fraction) {
    tally.reasons.push(
      ceiling.element + " is " + measured(fraction) + " of the dry solids; " + limit + " holds with a probability of " + number(held, 3) + ".",
    );
  } else {
    tally.reasons.push("The assay does not report " + ceiling.element + ", so " + limit + " cannot be shown to hold.");
  }
}

function requireSize(tally: Tally, lot: Lot, product: Product): void {
  const coarse = lot.isCoarse(product);
  const index = lot.request.work_index_kwh_t;
  const reached = coarse ? positive(index) : 1;
  const size = number(product.particle_um, 6);
  if (tally.isInDoubt(reached)) {
    const ground = "The feed must be ground from " + number(lot.request.particles.d80_um, 6) + " to " + size + " µm (80 % passing)";
    tally.reasons.push(ground + ", but its work index of " + measured(index) + " kWh/t is above 0 with a probability of " + number(reached, 3) + ".");
  }
  if (coarse && product.particle_um < BOND_UM_MIN) {
    const law = ": below " + number(BOND_UM_MIN, 6) + " µm Bond's law gives too little.";
    tally.reasons.push("Grinding to " + size + " µm takes more energy than stated" + law);
  }
}

function conclude(tally: Tally, verdict: ProductVerdict): void {
  const probable = tally.confidence >= CONFIDENCE_MIN;
  const reasons = tally.reasons;
  if (tally.doubts > REASONS_MAX) {
    reasons.push("Requirements that are doubtful too, but not listed: " + (tally.doubts - REASONS_MAX).toString() + ".");
  }
  if (!probable && tally.weakest >= CONFIDENCE_MIN) {
    const each = "Each of the " + tally.count.toString() + " requirements is probable, but all of them hold with a probability of ";
    reasons.push(each + number(tally.confidence, 3) + ", below " + number(CONFIDENCE_MIN, 6) + ".");
  }
  if (verdict.yield_kg.value <= 0) reasons.push("The expected yield is 0 kg.");
  verdict.confidence = tally.confidence;
  verdict.suitable = probable && verdict.yield_kg.value > 0;
  verdict.reasons = reasons;
}

/** Says that a product would weigh more than the dry solids. */
function warnOfExcess(product: Product, fraction: f64, warnings: Array<string>): void {
  const made = pull(product, fraction);
  if (made <= 1) return;
  const process = product.name + ": a recovery of " + number(product.recovery.value, 6) + " from " + number(fraction, 6) + " " + product.element;
  const result = " at a grade of " + number(product.grade, 6) + " would make " + number(made, 6) + " kg of each kg of dry solids";
  warnings.push(process + result + ", so the yield is held at the dry mass.");
}

/** The most probable suitable product; of equally probable ones that with the larger yield, of those the first. */
export function best(verdicts: Array<ProductVerdict>): string {
  let chosen: ProductVerdict | null = null;
  for (let i = 0; i < verdicts.length; i++) {
    const verdict = verdicts[i];
    if (!verdict.suitable) continue;
    if (chosen == null || isBetter(verdict, chosen)) chosen = verdict;
  }
  return chosen == null ? "" : chosen.name;
}

function isBetter(one: ProductVerdict, other: ProductVerdict): bool {
  return one.confidence > other.confidence || (one.confidence == other.confidence && one.yield_kg.value > other.yield_kg.value);
}
