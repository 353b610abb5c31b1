// feedstock-assessor, lineage c: in AssemblyScript, from the formulas in the README.md of lineage a, with numerics of its own: uncertainty
// goes through dual numbers instead of written-out derivatives, and the normal distribution through Mills' ratio.

import { AssessFeedstockReply, AssessFeedstockRequest, ElementAssay, Product, SelfTestReply, SelfTestRequest, fail, failed, number } from "snapcount";
import { admit, oddities } from "./admission";
import { Lot, isSound } from "./model";
import { best, judge } from "./verdict";

export function assess_feedstock(request: AssessFeedstockRequest): AssessFeedstockReply {
  const reply = new AssessFeedstockReply();
  if (!admit(request)) return reply;
  const lot = new Lot(request);
  reply.lot = request.lot;
  reply.dry_mass_kg = lot.dryMass.quantity();
  if (!isSound(reply.dry_mass_kg)) return fail<AssessFeedstockReply>("bad_assay", "expected a dry mass that a number can hold");
  reply.warnings = oddities(request);
  for (let i = 0; i < request.products.length && !failed(); i++) {
    const verdict = judge(lot, request.products[i], reply.warnings);
    if (!failed()) reply.products.push(verdict);
  }
  reply.best = best(reply.products);
  return reply;
}

// ---- self_test: a lot with round answers, 1000 kg with a fifth of water, 30 % iron of which 90 % is recovered at a grade of 60 % ----

function roundLot(): AssessFeedstockRequest {
  const iron = new ElementAssay();
  iron.element = "Fe";
  iron.fraction.value = 0.3;
  iron.fraction.sigma = 0.03;
  const product = new Product();
  product.name = "concentrate";
  product.element = "Fe";
  product.grade = 0.6;
  product.recovery.value = 0.9;
  product.particle_um = 100;
  const lot = new AssessFeedstockRequest();
  lot.assay.push(iron);
  lot.products.push(product);
  lot.mass_kg.value = 1000;
  lot.moisture.value = 0.2;
  lot.particles.d10_um = 100;
  lot.particles.d50_um = 1000;
  lot.particles.d80_um = 10000;
  lot.work_index_kwh_t.value = 10;
  return lot;
}

function isNear(got: f64, wanted: f64): bool {
  return Math.abs(got - wanted) <= 1e-12 * wanted;
}

export function self_test(request: SelfTestRequest): SelfTestReply {
  const reply = new SelfTestReply();
  const got = assess_feedstock(roundLot());
  if (failed()) return reply;
  const verdict = got.products[0];
  const amounts = isNear(got.dry_mass_kg.value, 800) && isNear(verdict.yield_kg.value, 360) && isNear(verdict.yield_kg.sigma, 36);
  reply.ok = amounts && isNear(verdict.energy_kwh_t.value, 2591.88 / 3.6 / 4 + 9) && verdict.suitable && got.best == "concentrate";
  const yields = number(verdict.yield_kg.value, 6) + " ± " + number(verdict.yield_kg.sigma, 6);
  reply.detail = "Expected 800 kg dry, 360 ± 36 kg and 188.992 kWh/t; got " + number(got.dry_mass_kg.value, 6) + " kg dry, "
    + yields + " kg and " + number(verdict.energy_kwh_t.value, 6) + " kWh/t.";
  return reply;
}
