// What a lot must fulfil before it is worth a calculation, and what is odd about an assay that can be used.

import { AssessFeedstockRequest, ImpurityCeiling, Product, fail, number } from "snapcount";

const IMPURITIES_MAX = 64;
const ELEMENT_BYTES_MAX = 32;
const NAME_BYTES_MAX = 256;
/** Two sigma hold about 95 % of a normal distribution. */
const COVERAGE: f64 = 2;
/** Above this share of 1 − w, the next term of w/(1 − w) is no longer small. */
const LINEAR_SHARE_MAX: f64 = 0.1;
/** More than the rounding of a sum of 64 fractions. */
const SUM_SLACK: f64 = 1e-12;

function badAssay(message: string): bool {
  return fail<bool>("bad_assay", message);
}

function badRequest(message: string): bool {
  return fail<bool>("bad_request", message);
}

function isFraction(value: f64): bool {
  return value >= 0 && value <= 1;
}

function isName(name: string, bytesMax: i32): bool {
  return name.length > 0 && String.UTF8.byteLength(name) <= bytesMax;
}

/** False: the lot was refused with `bad_assay`, or a product with `bad_request`. */
export function admit(request: AssessFeedstockRequest): bool {
  if (!admitLot(request) || !admitAssay(request)) return false;
  for (let i = 0; i < request.products.length; i++) {
    const product = request.products[i];
    if (!admitProduct(product)) return false;
    for (let k = 0; k < i; k++) {
      if (request.products[k].name == product.name) return badRequest("expected each product once, got " + product.name + " twice");
    }
  }
  return true;
}

function admitLot(request: AssessFeedstockRequest): bool {
  const water = request.moisture.value;
  const sizes = request.particles;
  if (String.UTF8.byteLength(request.lot) > NAME_BYTES_MAX) return badRequest("expected a shorter name of the lot");
  if (request.mass_kg.value < 0) return badAssay("expected a mass of 0 kg or more, got " + number(request.mass_kg.value, 6));
  if (water < 0 || water >= 1) return badAssay("expected a moisture from 0 to below 1, got " + number(water, 6));
  if (request.work_index_kwh_t.value < 0) {
    return badAssay("expected a work index of 0 kWh/t or more, got " + number(request.work_index_kwh_t.value, 6));
  }
  if (sizes.d10_um > 0 && sizes.d10_um <= sizes.d50_um && sizes.d50_um <= sizes.d80_um) return true;
  const sizesShown = [number(sizes.d10_um, 6), number(sizes.d50_um, 6), number(sizes.d80_um, 6)].join(", ");
  return badAssay("expected sizes above 0 with d10 <= d50 <= d80, got " + sizesShown + " µm");
}

function admitAssay(request: AssessFeedstockRequest): bool {
  const assay = request.assay;
  for (let i = 0; i < assay.length; i++) {
    const element = assay[i].element;
    if (!isName(element, ELEMENT_BYTES_MAX)) return badAssay("expected a name of 1 to 32 bytes for assay[" + i.toString() + "]");
    const share = assay[i].fraction.value;
    if (!isFraction(share)) return badAssay("expected a share of " + element + " from 0 to 1, got " + number(share, 6));
    for (let k = 0; k < i; k++) if (assay[k].element == element) return badAssay("expected each element once, got " + element + " twice");
  }
  return true;
}

function admitProduct(product: Product): bool {
  if (!isName(product.name, NAME_BYTES_MAX)) return badRequest("expected a product's name of 1 to 256 bytes");
  if (!isName(product.element, ELEMENT_BYTES_MAX)) return badRequest("expected an element of 1 to 32 bytes for " + product.name);
  if (product.grade <= 0) return badRequest("expected a grade above 0 for " + product.name + ", got " + number(product.grade, 6));
  if (!isFraction(product.recovery.value)) {
    return badRequest("expected a recovery from 0 to 1 for " + product.name + ", got " + number(product.recovery.value, 6));
  }
  if (product.particle_um <= 0) return badRequest("expected a particle size above 0 µm for " + product.name);
  return admitCeilings(product.name, product.impurities);
}

function admitCeilings(name: string, ceilings: Array<ImpurityCeiling>): bool {
  if (ceilings.length > IMPURITIES_MAX) return badRequest("expected at most 64 ceilings for " + name + ", got " + ceilings.length.toString());
  for (let i = 0; i < ceilings.length; i++) {
    const element = ceilings[i].element;
    if (!isName(element, ELEMENT_BYTES_MAX)) return badRequest("expected an element of 1 to 32 bytes for each ceiling of " + name);
    if (!isFraction(ceilings[i].fraction_max)) return badRequest("expected a ceiling of " + element + " from 0 to 1 for " + name);
    for (let k = 0; k < i; k++) {
      if (ceilings[k].element == element) return badRequest("expected one ceiling of " + element + " for " + name + ", got two");
    }
  }
  return true;
}

/** What is odd about the assay as a whole, in sentences. */
export function oddities(request: AssessFeedstockRequest): Array<string> {
  const found = new Array<string>();
  const assay = request.assay;
  let sum: f64 = 0;
  let sigma: f64 = 0;
  for (let i = 0; i < assay.length; i++) {
    sum += assay[i].fraction.value;
    sigma = Math.hypot(sigma, assay[i].fraction.sigma);
  }
  if (sum > 1 + COVERAGE * sigma + SUM_SLACK) {
    const shown = number(sum, 6) + " ± " + number(sigma, 6);
    found.push("The mass fractions add up to " + shown + ", which is more than 1 by over " + number(COVERAGE, 6) + " sigma.");
  }
  if (sigma == 0) found.push("No element has an uncertainty, so each ceiling counts as surely held or surely broken.");
  for (let i = 0; i < assay.length; i++) {
    const fraction = assay[i].fraction;
    if (fraction.sigma <= fraction.value) continue;
    const shown = number(fraction.value, 6) + " ± " + number(fraction.sigma, 6);
    found.push(assay[i].element + " is " + shown + " of the dry solids: its uncertainty is larger than its value.");
  }
  const water = request.moisture;
  if (water.sigma > LINEAR_SHARE_MAX * (1 - water.value)) {
    const shown = number(water.value, 6) + " ± " + number(water.sigma, 6);
    found.push("The moisture of " + shown + " is so uncertain that the stated uncertainties of mass and energy are rough.");
  }
  return found;
}
