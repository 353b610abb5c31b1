// The shapes of sdk/contract/skill.cddl. Made by `python -m sdk.bindings` from the host's structs; fields stand in the order of the wire.
// A key that may be absent is null, or, where it is a number, has a `has_…` beside it.

import { Reader } from "./reader";
import { Writer } from "./writer";

export enum Verb { Observe, Orient, Decide, Act, Record, Sync }
const VERB_WORDS = "observe orient decide act record sync";

export enum Phase { Prepare, Act }
const PHASE_WORDS = "prepare act";

export enum HandleState { Ready, Conflict }
const HANDLESTATE_WORDS = "ready conflict";

export enum Feature { External, Internal }
const FEATURE_WORDS = "external internal";

export enum Fit { Clearance, Transition, Interference }
const FIT_WORDS = "clearance transition interference";

export enum Fits { Every, Most, Measured, None }
const FITS_WORDS = "every most measured none";

export enum Chart { Mean, Range }
const CHART_WORDS = "mean range";

export enum Verdict { Accept, Rework, Reject }
const VERDICT_WORDS = "accept rework reject";

export enum Units { Inch, Mm }
const UNITS_WORDS = "inch mm";

export enum Dialect { Grbl, Marlin, Rs274 }
const DIALECT_WORDS = "grbl marlin rs274";

export class ErrorReply {
  /** lower_snake_case, for programs */
  code: string = "";
  /** for people */
  message: string = "";

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("code", "code message")) this.code = input.text(1, 64);
    if (input.failed) return input.inside("code");
    if (input.key("message", "code message")) this.message = input.text(0, 1024);
    if (input.failed) return input.inside("message");
    input.endMap(outer, "code message");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("code");
    out.text(this.code);
    out.text("message");
    out.text(this.message);
  }
}

/** A measured value and its standard uncertainty, in the unit of the key that holds it. */
export class Quantity {
  sigma: f64 = 0;
  value: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("sigma", "sigma value")) this.sigma = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("sigma");
    if (input.key("value", "sigma value")) this.value = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("value");
    input.endMap(outer, "sigma value");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("sigma");
    out.float(this.sigma);
    out.text("value");
    out.float(this.value);
  }
}

export class ElementAssay {
  element: string = "";
  fraction: Quantity = new Quantity();

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("element", "element fraction")) this.element = input.text(0, 64);
    if (input.failed) return input.inside("element");
    if (input.key("fraction", "element fraction")) this.fraction.read(input);
    if (input.failed) return input.inside("fraction");
    input.endMap(outer, "element fraction");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("element");
    out.text(this.element);
    out.text("fraction");
    this.fraction.write(out);
  }
}

export class Particles {
  d10_um: f64 = 0;
  d50_um: f64 = 0;
  d80_um: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("d10_um", "d10_um d50_um d80_um")) this.d10_um = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("d10_um");
    if (input.key("d50_um", "d10_um d50_um d80_um")) this.d50_um = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("d50_um");
    if (input.key("d80_um", "d10_um d50_um d80_um")) this.d80_um = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("d80_um");
    input.endMap(outer, "d10_um d50_um d80_um");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("d10_um");
    out.float(this.d10_um);
    out.text("d50_um");
    out.float(this.d50_um);
    out.text("d80_um");
    out.float(this.d80_um);
  }
}

export class ImpurityCeiling {
  element: string = "";
  fraction_max: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("element", "element fraction_max")) this.element = input.text(0, 64);
    if (input.failed) return input.inside("element");
    if (input.key("fraction_max", "element fraction_max")) this.fraction_max = input.float(0, 1);
    if (input.failed) return input.inside("fraction_max");
    input.endMap(outer, "element fraction_max");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("element");
    out.text(this.element);
    out.text("fraction_max");
    out.float(this.fraction_max);
  }
}

export class Product {
  name: string = "";
  /** its mass fraction in the product */
  grade: f64 = 0;
  /** the element that is sold */
  element: string = "";
  /** share of the element that reaches the product, 0..1 */
  recovery: Quantity = new Quantity();
  /** ceilings, mass fraction of the dry feed */
  impurities: Array<ImpurityCeiling> = [];
  /** 80 % passing size that the process needs */
  particle_um: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("name", "name grade element recovery impurities particle_um")) this.name = input.text(0, 64);
    if (input.failed) return input.inside("name");
    if (input.key("grade", "name grade element recovery impurities particle_um")) this.grade = input.float(0, 1);
    if (input.failed) return input.inside("grade");
    if (input.key("element", "name grade element recovery impurities particle_um")) this.element = input.text(0, 64);
    if (input.failed) return input.inside("element");
    if (input.key("recovery", "name grade element recovery impurities particle_um")) this.recovery.read(input);
    if (input.failed) return input.inside("recovery");
    if (input.key("impurities", "name grade element recovery impurities particle_um")) this.impurities = input.items<ImpurityCeiling>(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("impurities");
    if (input.key("particle_um", "name grade element recovery impurities particle_um")) this.particle_um = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("particle_um");
    input.endMap(outer, "name grade element recovery impurities particle_um");
  }

  write(out: Writer): void {
    out.map(6);
    out.text("name");
    out.text(this.name);
    out.text("grade");
    out.float(this.grade);
    out.text("element");
    out.text(this.element);
    out.text("recovery");
    this.recovery.write(out);
    out.text("impurities");
    out.items<ImpurityCeiling>(this.impurities);
    out.text("particle_um");
    out.float(this.particle_um);
  }
}

export class AssessFeedstockRequest {
  lot: string = "";
  /** mass fraction of the dry solids, 0..1 */
  assay: Array<ElementAssay> = [];
  /** as received, water included */
  mass_kg: Quantity = new Quantity();
  /** mass fraction of the mass as received, 0..1 */
  moisture: Quantity = new Quantity();
  products: Array<Product> = [];
  /** passing sizes, ascending */
  particles: Particles = new Particles();
  /** Bond work index of the dry solids */
  work_index_kwh_t: Quantity = new Quantity();

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("lot", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.lot = input.text(0, 64);
    if (input.failed) return input.inside("lot");
    if (input.key("assay", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.assay = input.items<ElementAssay>(1, 64);
    if (input.failed) return input.inside("assay");
    if (input.key("mass_kg", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.mass_kg.read(input);
    if (input.failed) return input.inside("mass_kg");
    if (input.key("moisture", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.moisture.read(input);
    if (input.failed) return input.inside("moisture");
    if (input.key("products", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.products = input.items<Product>(1, 16);
    if (input.failed) return input.inside("products");
    if (input.key("particles", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.particles.read(input);
    if (input.failed) return input.inside("particles");
    if (input.key("work_index_kwh_t", "lot assay mass_kg moisture products particles work_index_kwh_t")) this.work_index_kwh_t.read(input);
    if (input.failed) return input.inside("work_index_kwh_t");
    input.endMap(outer, "lot assay mass_kg moisture products particles work_index_kwh_t");
  }

  write(out: Writer): void {
    out.map(7);
    out.text("lot");
    out.text(this.lot);
    out.text("assay");
    out.items<ElementAssay>(this.assay);
    out.text("mass_kg");
    this.mass_kg.write(out);
    out.text("moisture");
    this.moisture.write(out);
    out.text("products");
    out.items<Product>(this.products);
    out.text("particles");
    this.particles.write(out);
    out.text("work_index_kwh_t");
    this.work_index_kwh_t.write(out);
  }
}

export class ProductVerdict {
  name: string = "";
  reasons: Array<string> = [];
  suitable: bool = false;
  yield_kg: Quantity = new Quantity();
  confidence: f64 = 0;
  energy_kwh_t: Quantity = new Quantity();

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("name", "name reasons suitable yield_kg confidence energy_kwh_t")) this.name = input.text(0, 64);
    if (input.failed) return input.inside("name");
    if (input.key("reasons", "name reasons suitable yield_kg confidence energy_kwh_t")) this.reasons = input.texts(0, F64.MAX_VALUE, 1024);
    if (input.failed) return input.inside("reasons");
    if (input.key("suitable", "name reasons suitable yield_kg confidence energy_kwh_t")) this.suitable = input.bool();
    if (input.failed) return input.inside("suitable");
    if (input.key("yield_kg", "name reasons suitable yield_kg confidence energy_kwh_t")) this.yield_kg.read(input);
    if (input.failed) return input.inside("yield_kg");
    if (input.key("confidence", "name reasons suitable yield_kg confidence energy_kwh_t")) this.confidence = input.float(0, 1);
    if (input.failed) return input.inside("confidence");
    if (input.key("energy_kwh_t", "name reasons suitable yield_kg confidence energy_kwh_t")) this.energy_kwh_t.read(input);
    if (input.failed) return input.inside("energy_kwh_t");
    input.endMap(outer, "name reasons suitable yield_kg confidence energy_kwh_t");
  }

  write(out: Writer): void {
    out.map(6);
    out.text("name");
    out.text(this.name);
    out.text("reasons");
    out.texts(this.reasons);
    out.text("suitable");
    out.bool(this.suitable);
    out.text("yield_kg");
    this.yield_kg.write(out);
    out.text("confidence");
    out.float(this.confidence);
    out.text("energy_kwh_t");
    this.energy_kwh_t.write(out);
  }
}

export class AssessFeedstockReply {
  lot: string = "";
  /** name of the most probable suitable product; empty for none */
  best: string = "";
  products: Array<ProductVerdict> = [];
  /** what is odd about the assay itself */
  warnings: Array<string> = [];
  dry_mass_kg: Quantity = new Quantity();

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("lot", "lot best products warnings dry_mass_kg")) this.lot = input.text(0, 64);
    if (input.failed) return input.inside("lot");
    if (input.key("best", "lot best products warnings dry_mass_kg")) this.best = input.text(0, 64);
    if (input.failed) return input.inside("best");
    if (input.key("products", "lot best products warnings dry_mass_kg")) this.products = input.items<ProductVerdict>(1, 16);
    if (input.failed) return input.inside("products");
    if (input.key("warnings", "lot best products warnings dry_mass_kg")) this.warnings = input.texts(0, F64.MAX_VALUE, 1024);
    if (input.failed) return input.inside("warnings");
    if (input.key("dry_mass_kg", "lot best products warnings dry_mass_kg")) this.dry_mass_kg.read(input);
    if (input.failed) return input.inside("dry_mass_kg");
    input.endMap(outer, "lot best products warnings dry_mass_kg");
  }

  write(out: Writer): void {
    out.map(5);
    out.text("lot");
    out.text(this.lot);
    out.text("best");
    out.text(this.best);
    out.text("products");
    out.items<ProductVerdict>(this.products);
    out.text("warnings");
    out.texts(this.warnings);
    out.text("dry_mass_kg");
    this.dry_mass_kg.write(out);
  }
}

export class Bounty {
  id: string = "";
  reward: f64 = 0;
  work_ms: u64 = 0;
  position_m: StaticArray<f64> = new StaticArray<f64>(2);
  deadline_ms: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("id", "id reward work_ms position_m deadline_ms")) this.id = input.text(0, 64);
    if (input.failed) return input.inside("id");
    if (input.key("reward", "id reward work_ms position_m deadline_ms")) this.reward = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("reward");
    if (input.key("work_ms", "id reward work_ms position_m deadline_ms")) this.work_ms = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("work_ms");
    if (input.key("position_m", "id reward work_ms position_m deadline_ms")) input.fill(this.position_m);
    if (input.failed) return input.inside("position_m");
    if (input.key("deadline_ms", "id reward work_ms position_m deadline_ms")) this.deadline_ms = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("deadline_ms");
    input.endMap(outer, "id reward work_ms position_m deadline_ms");
  }

  write(out: Writer): void {
    out.map(5);
    out.text("id");
    out.text(this.id);
    out.text("reward");
    out.float(this.reward);
    out.text("work_ms");
    out.uint(this.work_ms);
    out.text("position_m");
    out.tuple(this.position_m);
    out.text("deadline_ms");
    out.uint(this.deadline_ms);
  }
}

export class Costs {
  hour: f64 = 0;
  wear: f64 = 0;
  fuel_unit: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("hour", "hour wear fuel_unit")) this.hour = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("hour");
    if (input.key("wear", "hour wear fuel_unit")) this.wear = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("wear");
    if (input.key("fuel_unit", "hour wear fuel_unit")) this.fuel_unit = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("fuel_unit");
    input.endMap(outer, "hour wear fuel_unit");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("hour");
    out.float(this.hour);
    out.text("wear");
    out.float(this.wear);
    out.text("fuel_unit");
    out.float(this.fuel_unit);
  }
}

export class BidNode {
  fuel: f64 = 0;
  wear: f64 = 0;
  queue_ms: u64 = 0;
  speed_m_s: f64 = 0;
  position_m: StaticArray<f64> = new StaticArray<f64>(2);
  fuel_per_hour: f64 = 0;
  wear_per_hour: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("fuel", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.fuel = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("fuel");
    if (input.key("wear", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.wear = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("wear");
    if (input.key("queue_ms", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.queue_ms = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("queue_ms");
    if (input.key("speed_m_s", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.speed_m_s = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("speed_m_s");
    if (input.key("position_m", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) input.fill(this.position_m);
    if (input.failed) return input.inside("position_m");
    if (input.key("fuel_per_hour", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.fuel_per_hour = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("fuel_per_hour");
    if (input.key("wear_per_hour", "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour")) this.wear_per_hour = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("wear_per_hour");
    input.endMap(outer, "fuel wear queue_ms speed_m_s position_m fuel_per_hour wear_per_hour");
  }

  write(out: Writer): void {
    out.map(7);
    out.text("fuel");
    out.float(this.fuel);
    out.text("wear");
    out.float(this.wear);
    out.text("queue_ms");
    out.uint(this.queue_ms);
    out.text("speed_m_s");
    out.float(this.speed_m_s);
    out.text("position_m");
    out.tuple(this.position_m);
    out.text("fuel_per_hour");
    out.float(this.fuel_per_hour);
    out.text("wear_per_hour");
    out.float(this.wear_per_hour);
  }
}

export class BidRequest {
  node: BidNode = new BidNode();
  costs: Costs = new Costs();
  bounty: Bounty = new Bounty();
  /** wanted profit over cost, 0.2 = 20 % */
  margin: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("node", "node costs bounty margin")) this.node.read(input);
    if (input.failed) return input.inside("node");
    if (input.key("costs", "node costs bounty margin")) this.costs.read(input);
    if (input.failed) return input.inside("costs");
    if (input.key("bounty", "node costs bounty margin")) this.bounty.read(input);
    if (input.failed) return input.inside("bounty");
    if (input.key("margin", "node costs bounty margin")) this.margin = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("margin");
    input.endMap(outer, "node costs bounty margin");
  }

  write(out: Writer): void {
    out.map(4);
    out.text("node");
    this.node.write(out);
    out.text("costs");
    this.costs.write(out);
    out.text("bounty");
    this.bounty.write(out);
    out.text("margin");
    out.float(this.margin);
  }
}

export class BidReply {
  id: string = "";
  cost: f64 = 0;
  /** absent: no bid. Never below cost, never above the reward */
  has_price: bool = false;
  price: f64 = 0;
  reason: string = "";
  /** from now; 0 when there is no bid */
  finish_ms: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("id", "id cost price reason finish_ms")) this.id = input.text(0, 64);
    if (input.failed) return input.inside("id");
    if (input.key("cost", "id cost price reason finish_ms")) this.cost = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("cost");
    if (input.optional("price")) { this.has_price = true; this.price = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("price");
    if (input.key("reason", "id cost price reason finish_ms")) this.reason = input.text(0, 1024);
    if (input.failed) return input.inside("reason");
    if (input.key("finish_ms", "id cost price reason finish_ms")) this.finish_ms = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("finish_ms");
    input.endMap(outer, "id cost price reason finish_ms");
  }

  write(out: Writer): void {
    out.map(4 + i32(this.has_price));
    out.text("id");
    out.text(this.id);
    out.text("cost");
    out.float(this.cost);
    if (this.has_price) {
      out.text("price");
      out.float(this.price);
    }
    out.text("reason");
    out.text(this.reason);
    out.text("finish_ms");
    out.uint(this.finish_ms);
  }
}

/** One mesh message, in one of its two phases. `at_ms` is the arrival time T in fleet time, Unix ms; 0 is at once. */
export class HandleRequest {
  /** of this message */
  id: Uint8Array = new Uint8Array(0);
  /** decide, act and sync come only from a tier above */
  verb: Verb = 0;
  /** the arrival time T, fleet time, Unix ms; 0: at once */
  at_ms: u64 = 0;
  phase: Phase = 0;
  /** as `cell.start` */
  topic: string = "";
  /** name of the node that sent it, verified */
  source: string = "";
  /** of the payload */
  weight: f64 = 0;
  /** the topic says what is in it */
  payload: Uint8Array = new Uint8Array(0);
  /** 3: what keeps the fleet in hand */
  priority: u64 = 0;
  /** the same in every message of one conversation */
  correlation: Uint8Array = new Uint8Array(0);

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("id", "id verb at_ms phase topic source weight payload priority correlation")) this.id = input.bytes(16, 16);
    if (input.failed) return input.inside("id");
    if (input.key("verb", "id verb at_ms phase topic source weight payload priority correlation")) this.verb = input.word(VERB_WORDS);
    if (input.failed) return input.inside("verb");
    if (input.key("at_ms", "id verb at_ms phase topic source weight payload priority correlation")) this.at_ms = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("at_ms");
    if (input.key("phase", "id verb at_ms phase topic source weight payload priority correlation")) this.phase = input.word(PHASE_WORDS);
    if (input.failed) return input.inside("phase");
    if (input.key("topic", "id verb at_ms phase topic source weight payload priority correlation")) this.topic = input.text(1, 64);
    if (input.failed) return input.inside("topic");
    if (input.key("source", "id verb at_ms phase topic source weight payload priority correlation")) this.source = input.text(0, 64);
    if (input.failed) return input.inside("source");
    if (input.key("weight", "id verb at_ms phase topic source weight payload priority correlation")) this.weight = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("weight");
    if (input.key("payload", "id verb at_ms phase topic source weight payload priority correlation")) this.payload = input.bytes(0, 65536);
    if (input.failed) return input.inside("payload");
    if (input.key("priority", "id verb at_ms phase topic source weight payload priority correlation")) this.priority = input.uint(0, 3);
    if (input.failed) return input.inside("priority");
    if (input.key("correlation", "id verb at_ms phase topic source weight payload priority correlation")) this.correlation = input.bytes(16, 16);
    if (input.failed) return input.inside("correlation");
    input.endMap(outer, "id verb at_ms phase topic source weight payload priority correlation");
  }

  write(out: Writer): void {
    out.map(10);
    out.text("id");
    out.bytesOf(this.id);
    out.text("verb");
    out.word(VERB_WORDS, this.verb);
    out.text("at_ms");
    out.uint(this.at_ms);
    out.text("phase");
    out.word(PHASE_WORDS, this.phase);
    out.text("topic");
    out.text(this.topic);
    out.text("source");
    out.text(this.source);
    out.text("weight");
    out.float(this.weight);
    out.text("payload");
    out.bytesOf(this.payload);
    out.text("priority");
    out.uint(this.priority);
    out.text("correlation");
    out.bytesOf(this.correlation);
  }
}

/** What a skill makes of a message. With `handled` false the rest means nothing. */
export class HandleReply {
  /** ready: will act, or has acted */
  state: HandleState = 0;
  /** for people */
  detail: string = "";
  /** false: not for this skill, whose other answers then mean nothing */
  handled: bool = false;
  /** goes back to the source */
  payload: Uint8Array = new Uint8Array(0);

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("state", "state detail handled payload")) this.state = input.word(HANDLESTATE_WORDS);
    if (input.failed) return input.inside("state");
    if (input.key("detail", "state detail handled payload")) this.detail = input.text(0, 1024);
    if (input.failed) return input.inside("detail");
    if (input.key("handled", "state detail handled payload")) this.handled = input.bool();
    if (input.failed) return input.inside("handled");
    if (input.key("payload", "state detail handled payload")) this.payload = input.bytes(0, 16384);
    if (input.failed) return input.inside("payload");
    input.endMap(outer, "state detail handled payload");
  }

  write(out: Writer): void {
    out.map(4);
    out.text("state");
    out.word(HANDLESTATE_WORDS, this.state);
    out.text("detail");
    out.text(this.detail);
    out.text("handled");
    out.bool(this.handled);
    out.text("payload");
    out.bytesOf(this.payload);
  }
}

/** The counterpart as one hardware generation makes it. */
export class Mate {
  /** mean of its sizes */
  mean_mm: f64 = 0;
  /** the counterpart's smallest size */
  lower_mm: f64 = 0;
  /** false: only stated, without effect on the verdict */
  required: bool = false;
  /** standard deviation of its sizes */
  sigma_mm: f64 = 0;
  /** the counterpart's largest size */
  upper_mm: f64 = 0;
  /** the hardware generation that makes the counterpart, each once */
  generation: u64 = 0;
  /** clearance is the internal size less the external one; below 0 it is interference */
  clearance_max_mm: f64 = 0;
  clearance_min_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("mean_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.mean_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("mean_mm");
    if (input.key("lower_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.lower_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("lower_mm");
    if (input.key("required", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.required = input.bool();
    if (input.failed) return input.inside("required");
    if (input.key("sigma_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.sigma_mm = input.float(0, 100000);
    if (input.failed) return input.inside("sigma_mm");
    if (input.key("upper_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.upper_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("upper_mm");
    if (input.key("generation", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.generation = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("generation");
    if (input.key("clearance_max_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.clearance_max_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("clearance_max_mm");
    if (input.key("clearance_min_mm", "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm")) this.clearance_min_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("clearance_min_mm");
    input.endMap(outer, "mean_mm lower_mm required sigma_mm upper_mm generation clearance_max_mm clearance_min_mm");
  }

  write(out: Writer): void {
    out.map(8);
    out.text("mean_mm");
    out.float(this.mean_mm);
    out.text("lower_mm");
    out.float(this.lower_mm);
    out.text("required");
    out.bool(this.required);
    out.text("sigma_mm");
    out.float(this.sigma_mm);
    out.text("upper_mm");
    out.float(this.upper_mm);
    out.text("generation");
    out.uint(this.generation);
    out.text("clearance_max_mm");
    out.float(this.clearance_max_mm);
    out.text("clearance_min_mm");
    out.float(this.clearance_min_mm);
  }
}

/** Centre lines of X̄ and R that were established earlier, from subgroups of the same size. */
export class ControlLines {
  /** centre line of the R chart */
  range_mm: f64 = 0;
  /** centre line of the X̄ chart */
  center_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("range_mm", "range_mm center_mm")) this.range_mm = input.float(0, 100000);
    if (input.failed) return input.inside("range_mm");
    if (input.key("center_mm", "range_mm center_mm")) this.center_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("center_mm");
    input.endMap(outer, "range_mm center_mm");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("range_mm");
    out.float(this.range_mm);
    out.text("center_mm");
    out.float(this.center_mm);
  }
}

/** One size of a part: what the drawing allows, what was measured, and what it has to mate with. */
export class Characteristic {
  name: string = "";
  /** a characteristic with mates has both limits */
  mates: Array<Mate> = [];
  /** material can still be removed */
  rework: bool = false;
  /** external: removing material makes it smaller, as a shaft; internal: larger, as a bore */
  feature: Feature = 0;
  /** lower limit deviation from nominal_mm; absent: no limit on this side */
  has_lower_mm: bool = false;
  lower_mm: f64 = 0;
  /** so many consecutive values are a point of the charts; an incomplete last subgroup is not charted */
  subgroup: u64 = 0;
  /** upper limit deviation from nominal_mm; absent: no limit on this side */
  has_upper_mm: bool = false;
  upper_mm: f64 = 0;
  /** the process so far, oldest first, one value a part */
  history_mm: Array<f64> = [];
  nominal_mm: f64 = 0;
  /** absent: the lines are computed from what was measured */
  established: ControlLines | null = null;
  /** the parts of this lot that were measured, one value a part; they come after history_mm */
  measured_mm: Array<f64> = [];
  /** standard uncertainty of one measurement */
  gauge_sigma_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("name", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.name = input.text(0, 64);
    if (input.failed) return input.inside("name");
    if (input.key("mates", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.mates = input.items<Mate>(0, 8);
    if (input.failed) return input.inside("mates");
    if (input.key("rework", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.rework = input.bool();
    if (input.failed) return input.inside("rework");
    if (input.key("feature", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.feature = input.word(FEATURE_WORDS);
    if (input.failed) return input.inside("feature");
    if (input.optional("lower_mm")) { this.has_lower_mm = true; this.lower_mm = input.float(-100000, 100000); }
    if (input.failed) return input.inside("lower_mm");
    if (input.key("subgroup", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.subgroup = input.uint(2, 10);
    if (input.failed) return input.inside("subgroup");
    if (input.optional("upper_mm")) { this.has_upper_mm = true; this.upper_mm = input.float(-100000, 100000); }
    if (input.failed) return input.inside("upper_mm");
    if (input.key("history_mm", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.history_mm = input.floats(0, 1000, -100000, 100000);
    if (input.failed) return input.inside("history_mm");
    if (input.key("nominal_mm", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.nominal_mm = input.float(-100000, 100000);
    if (input.failed) return input.inside("nominal_mm");
    if (input.optional("established")) { const established = new ControlLines(); established.read(input); this.established = established; }
    if (input.failed) return input.inside("established");
    if (input.key("measured_mm", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.measured_mm = input.floats(1, 100, -100000, 100000);
    if (input.failed) return input.inside("measured_mm");
    if (input.key("gauge_sigma_mm", "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm")) this.gauge_sigma_mm = input.float(0, 100000);
    if (input.failed) return input.inside("gauge_sigma_mm");
    input.endMap(outer, "name mates rework feature lower_mm subgroup upper_mm history_mm nominal_mm established measured_mm gauge_sigma_mm");
  }

  write(out: Writer): void {
    out.map(9 + i32(this.has_lower_mm) + i32(this.has_upper_mm) + i32(this.established != null));
    out.text("name");
    out.text(this.name);
    out.text("mates");
    out.items<Mate>(this.mates);
    out.text("rework");
    out.bool(this.rework);
    out.text("feature");
    out.word(FEATURE_WORDS, this.feature);
    if (this.has_lower_mm) {
      out.text("lower_mm");
      out.float(this.lower_mm);
    }
    out.text("subgroup");
    out.uint(this.subgroup);
    if (this.has_upper_mm) {
      out.text("upper_mm");
      out.float(this.upper_mm);
    }
    out.text("history_mm");
    out.floats(this.history_mm);
    out.text("nominal_mm");
    out.float(this.nominal_mm);
    if (this.established != null) {
      out.text("established");
      this.established!.write(out);
    }
    out.text("measured_mm");
    out.floats(this.measured_mm);
    out.text("gauge_sigma_mm");
    out.float(this.gauge_sigma_mm);
  }
}

export class InspectPartRequest {
  /** the part or lot */
  lot: string = "";
  /** in the lot */
  parts: u64 = 0;
  /** the Cpk that a lot needs whose parts were not all measured */
  cpk_min: f64 = 0;
  /** the hardware generation that made the parts */
  generation: u64 = 0;
  characteristics: Array<Characteristic> = [];

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("lot", "lot parts cpk_min generation characteristics")) this.lot = input.text(0, 64);
    if (input.failed) return input.inside("lot");
    if (input.key("parts", "lot parts cpk_min generation characteristics")) this.parts = input.uint(1, 1000000);
    if (input.failed) return input.inside("parts");
    if (input.key("cpk_min", "lot parts cpk_min generation characteristics")) this.cpk_min = input.float(0, 10);
    if (input.failed) return input.inside("cpk_min");
    if (input.key("generation", "lot parts cpk_min generation characteristics")) this.generation = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("generation");
    if (input.key("characteristics", "lot parts cpk_min generation characteristics")) this.characteristics = input.items<Characteristic>(1, 16);
    if (input.failed) return input.inside("characteristics");
    input.endMap(outer, "lot parts cpk_min generation characteristics");
  }

  write(out: Writer): void {
    out.map(5);
    out.text("lot");
    out.text(this.lot);
    out.text("parts");
    out.uint(this.parts);
    out.text("cpk_min");
    out.float(this.cpk_min);
    out.text("generation");
    out.uint(this.generation);
    out.text("characteristics");
    out.items<Characteristic>(this.characteristics);
  }
}

/** Clearance to the counterpart of one generation; below 0 it is interference. */
export class Compatibility {
  /** of the two tolerance intervals (ISO 286-1) */
  fit: Fit = 0;
  /** within the wanted clearance: by the worst case, statistically, the measured parts only, not even those */
  fits: Fits = 0;
  generation: u64 = 0;
  /** greatest clearance between the two tolerance intervals */
  worst_max_mm: f64 = 0;
  worst_min_mm: f64 = 0;
  /** greatest clearance of the measured parts, guard band included */
  measured_max_mm: f64 = 0;
  measured_min_mm: f64 = 0;
  /** mean clearance and three standard deviations (root sum of squares) */
  statistical_max_mm: f64 = 0;
  statistical_min_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("fit", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.fit = input.word(FIT_WORDS);
    if (input.failed) return input.inside("fit");
    if (input.key("fits", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.fits = input.word(FITS_WORDS);
    if (input.failed) return input.inside("fits");
    if (input.key("generation", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.generation = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("generation");
    if (input.key("worst_max_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.worst_max_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("worst_max_mm");
    if (input.key("worst_min_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.worst_min_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("worst_min_mm");
    if (input.key("measured_max_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.measured_max_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("measured_max_mm");
    if (input.key("measured_min_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.measured_min_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("measured_min_mm");
    if (input.key("statistical_max_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.statistical_max_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("statistical_max_mm");
    if (input.key("statistical_min_mm", "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm")) this.statistical_min_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("statistical_min_mm");
    input.endMap(outer, "fit fits generation worst_max_mm worst_min_mm measured_max_mm measured_min_mm statistical_max_mm statistical_min_mm");
  }

  write(out: Writer): void {
    out.map(9);
    out.text("fit");
    out.word(FIT_WORDS, this.fit);
    out.text("fits");
    out.word(FITS_WORDS, this.fits);
    out.text("generation");
    out.uint(this.generation);
    out.text("worst_max_mm");
    out.float(this.worst_max_mm);
    out.text("worst_min_mm");
    out.float(this.worst_min_mm);
    out.text("measured_max_mm");
    out.float(this.measured_max_mm);
    out.text("measured_min_mm");
    out.float(this.measured_min_mm);
    out.text("statistical_max_mm");
    out.float(this.statistical_max_mm);
    out.text("statistical_min_mm");
    out.float(this.statistical_min_mm);
  }
}

/** What the process makes beside what the drawing allows. Cp and Pp are absent with one limit only. */
export class Capability {
  /** of the spread within subgroups; absent with one limit */
  has_cp: bool = false;
  cp: f64 = 0;
  /** of the overall standard deviation; absent with one limit */
  has_pp: bool = false;
  pp: f64 = 0;
  cpk: f64 = 0;
  ppk: f64 = 0;
  /** that were charted */
  values: u64 = 0;
  /** the mean range / d2 */
  sigma_mm: f64 = 0;
  /** lower 95 % confidence limit of cpk, one-sided */
  cpk_lower: f64 = 0;
  /** standard deviation of all charted values */
  overall_sigma_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.optional("cp")) { this.has_cp = true; this.cp = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("cp");
    if (input.optional("pp")) { this.has_pp = true; this.pp = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("pp");
    if (input.key("cpk", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.cpk = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("cpk");
    if (input.key("ppk", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.ppk = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("ppk");
    if (input.key("values", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.values = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("values");
    if (input.key("sigma_mm", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.sigma_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("sigma_mm");
    if (input.key("cpk_lower", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.cpk_lower = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("cpk_lower");
    if (input.key("overall_sigma_mm", "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm")) this.overall_sigma_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("overall_sigma_mm");
    input.endMap(outer, "cp pp cpk ppk values sigma_mm cpk_lower overall_sigma_mm");
  }

  write(out: Writer): void {
    out.map(6 + i32(this.has_cp) + i32(this.has_pp));
    if (this.has_cp) {
      out.text("cp");
      out.float(this.cp);
    }
    if (this.has_pp) {
      out.text("pp");
      out.float(this.pp);
    }
    out.text("cpk");
    out.float(this.cpk);
    out.text("ppk");
    out.float(this.ppk);
    out.text("values");
    out.uint(this.values);
    out.text("sigma_mm");
    out.float(this.sigma_mm);
    out.text("cpk_lower");
    out.float(this.cpk_lower);
    out.text("overall_sigma_mm");
    out.float(this.overall_sigma_mm);
  }
}

/** A point of a chart that a rule holds for; of a pattern its last point. */
export class Signal {
  /** of L. S. Nelson (1984); the range chart has rule 1 only */
  rule: u64 = 0;
  chart: Chart = 0;
  /** 1 is the oldest; of a pattern, its last point */
  point: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("rule", "rule chart point")) this.rule = input.uint(1, 8);
    if (input.failed) return input.inside("rule");
    if (input.key("chart", "rule chart point")) this.chart = input.word(CHART_WORDS);
    if (input.failed) return input.inside("chart");
    if (input.key("point", "rule chart point")) this.point = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("point");
    input.endMap(outer, "rule chart point");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("rule");
    out.uint(this.rule);
    out.text("chart");
    out.word(CHART_WORDS, this.chart);
    out.text("point");
    out.uint(this.point);
  }
}

/** The X̄ and R charts (ISO 7870-2): their lines, and where the rules see something. */
export class ControlChart {
  /** complete subgroups */
  points: u64 = 0;
  /** the newest 64, in order of point, chart and rule */
  signals: Array<Signal> = [];
  /** centre line of the R chart */
  range_mm: f64 = 0;
  /** centre line of the X̄ chart */
  center_mm: f64 = 0;
  /** the lines are those of the request */
  established: bool = false;
  /** control limits of the X̄ chart */
  mean_lower_mm: f64 = 0;
  mean_upper_mm: f64 = 0;
  signals_total: u64 = 0;
  /** control limits of the R chart */
  range_lower_mm: f64 = 0;
  range_upper_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("points", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.points = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("points");
    if (input.key("signals", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.signals = input.items<Signal>(0, 64);
    if (input.failed) return input.inside("signals");
    if (input.key("range_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.range_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("range_mm");
    if (input.key("center_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.center_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("center_mm");
    if (input.key("established", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.established = input.bool();
    if (input.failed) return input.inside("established");
    if (input.key("mean_lower_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.mean_lower_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("mean_lower_mm");
    if (input.key("mean_upper_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.mean_upper_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("mean_upper_mm");
    if (input.key("signals_total", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.signals_total = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("signals_total");
    if (input.key("range_lower_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.range_lower_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("range_lower_mm");
    if (input.key("range_upper_mm", "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm")) this.range_upper_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("range_upper_mm");
    input.endMap(outer, "points signals range_mm center_mm established mean_lower_mm mean_upper_mm signals_total range_lower_mm range_upper_mm");
  }

  write(out: Writer): void {
    out.map(10);
    out.text("points");
    out.uint(this.points);
    out.text("signals");
    out.items<Signal>(this.signals);
    out.text("range_mm");
    out.float(this.range_mm);
    out.text("center_mm");
    out.float(this.center_mm);
    out.text("established");
    out.bool(this.established);
    out.text("mean_lower_mm");
    out.float(this.mean_lower_mm);
    out.text("mean_upper_mm");
    out.float(this.mean_upper_mm);
    out.text("signals_total");
    out.uint(this.signals_total);
    out.text("range_lower_mm");
    out.float(this.range_lower_mm);
    out.text("range_upper_mm");
    out.float(this.range_upper_mm);
  }
}

/** What was found for one characteristic. The window holds the measured sizes that are accepted, and those to rework to. */
export class CharacteristicVerdict {
  name: string = "";
  /** absent below 2 complete subgroups, or below 1 with established lines */
  chart: ControlChart | null = null;
  /** in the order of the request */
  mates: Array<Compatibility> = [];
  verdict: Verdict = 0;
  /** measured parts that lie in the window */
  accepted: u64 = 0;
  /** absent without a chart, or without a spread */
  capability: Capability | null = null;
  /** measured sizes from here on are accepted: conformity is proven, and it mates; absent: no limit on this side */
  has_window_lower_mm: bool = false;
  window_lower_mm: f64 = 0;
  /** measured sizes up to here; below window_lower_mm: no size is accepted */
  has_window_upper_mm: bool = false;
  window_upper_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("name", "name chart mates verdict accepted capability window_lower_mm window_upper_mm")) this.name = input.text(0, 64);
    if (input.failed) return input.inside("name");
    if (input.optional("chart")) { const chart = new ControlChart(); chart.read(input); this.chart = chart; }
    if (input.failed) return input.inside("chart");
    if (input.key("mates", "name chart mates verdict accepted capability window_lower_mm window_upper_mm")) this.mates = input.items<Compatibility>(0, 8);
    if (input.failed) return input.inside("mates");
    if (input.key("verdict", "name chart mates verdict accepted capability window_lower_mm window_upper_mm")) this.verdict = input.word(VERDICT_WORDS);
    if (input.failed) return input.inside("verdict");
    if (input.key("accepted", "name chart mates verdict accepted capability window_lower_mm window_upper_mm")) this.accepted = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("accepted");
    if (input.optional("capability")) { const capability = new Capability(); capability.read(input); this.capability = capability; }
    if (input.failed) return input.inside("capability");
    if (input.optional("window_lower_mm")) { this.has_window_lower_mm = true; this.window_lower_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("window_lower_mm");
    if (input.optional("window_upper_mm")) { this.has_window_upper_mm = true; this.window_upper_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("window_upper_mm");
    input.endMap(outer, "name chart mates verdict accepted capability window_lower_mm window_upper_mm");
  }

  write(out: Writer): void {
    out.map(4 + i32(this.chart != null) + i32(this.capability != null) + i32(this.has_window_lower_mm) + i32(this.has_window_upper_mm));
    out.text("name");
    out.text(this.name);
    if (this.chart != null) {
      out.text("chart");
      this.chart!.write(out);
    }
    out.text("mates");
    out.items<Compatibility>(this.mates);
    out.text("verdict");
    out.word(VERDICT_WORDS, this.verdict);
    out.text("accepted");
    out.uint(this.accepted);
    if (this.capability != null) {
      out.text("capability");
      this.capability!.write(out);
    }
    if (this.has_window_lower_mm) {
      out.text("window_lower_mm");
      out.float(this.window_lower_mm);
    }
    if (this.has_window_upper_mm) {
      out.text("window_upper_mm");
      out.float(this.window_upper_mm);
    }
  }
}

export class InspectPartReply {
  lot: string = "";
  /** one or more for each characteristic, in words with numbers */
  reasons: Array<string> = [];
  /** the worst of the characteristics */
  verdict: Verdict = 0;
  /** what weakens the statement, in words */
  cautions: Array<string> = [];
  /** in the order of the request */
  characteristics: Array<CharacteristicVerdict> = [];

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("lot", "lot reasons verdict cautions characteristics")) this.lot = input.text(0, 64);
    if (input.failed) return input.inside("lot");
    if (input.key("reasons", "lot reasons verdict cautions characteristics")) this.reasons = input.texts(0, F64.MAX_VALUE, 1024);
    if (input.failed) return input.inside("reasons");
    if (input.key("verdict", "lot reasons verdict cautions characteristics")) this.verdict = input.word(VERDICT_WORDS);
    if (input.failed) return input.inside("verdict");
    if (input.key("cautions", "lot reasons verdict cautions characteristics")) this.cautions = input.texts(0, F64.MAX_VALUE, 1024);
    if (input.failed) return input.inside("cautions");
    if (input.key("characteristics", "lot reasons verdict cautions characteristics")) this.characteristics = input.items<CharacteristicVerdict>(1, 16);
    if (input.failed) return input.inside("characteristics");
    input.endMap(outer, "lot reasons verdict cautions characteristics");
  }

  write(out: Writer): void {
    out.map(5);
    out.text("lot");
    out.text(this.lot);
    out.text("reasons");
    out.texts(this.reasons);
    out.text("verdict");
    out.word(VERDICT_WORDS, this.verdict);
    out.text("cautions");
    out.texts(this.cautions);
    out.text("characteristics");
    out.items<CharacteristicVerdict>(this.characteristics);
  }
}

/** Nothing: a skill tests itself. */
export class SelfTestRequest {

  read(input: Reader): void {
    const outer = input.map();
    input.endMap(outer, "");
  }

  write(out: Writer): void {
    out.map(0);
  }
}

export class SelfTestReply {
  ok: bool = false;
  detail: string = "";

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("ok", "ok detail")) this.ok = input.bool();
    if (input.failed) return input.inside("ok");
    if (input.key("detail", "ok detail")) this.detail = input.text(0, 1024);
    if (input.failed) return input.inside("detail");
    input.endMap(outer, "ok detail");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("ok");
    out.bool(this.ok);
    out.text("detail");
    out.text(this.detail);
  }
}

/** What stands for a program's missing limits; see the CDDL for each. */
export class PlanSettings {
  /** the end of the program, where slicers write their configuration; may begin inside a line */
  tail: Uint8Array | null = null;
  /** greatest distance of an arc's segments from the arc, when driven */
  has_chord_mm: bool = false;
  chord_mm: f64 = 0;
  /** where the machine stands when the program begins */
  start_mm: StaticArray<f64> | null = null;
  /** acceleration until the program states its own (M204) */
  has_accel_mm_s2: bool = false;
  accel_mm_s2: f64 = 0;
  /** watts for each unit of the S word of M3 and M4, when driven */
  has_tool_w_per_s: bool = false;
  tool_w_per_s: f64 = 0;
  /** ceiling for every move, rapids included */
  has_feed_max_mm_min: bool = false;
  feed_max_mm_min: f64 = 0;
  /** used in place of the dialect's own cornering rule */
  has_junction_deviation_mm: bool = false;
  junction_deviation_mm: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.optional("tail")) this.tail = input.bytes(0, 65536);
    if (input.failed) return input.inside("tail");
    if (input.optional("chord_mm")) { this.has_chord_mm = true; this.chord_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("chord_mm");
    if (input.optional("start_mm")) this.start_mm = input.tuple(3);
    if (input.failed) return input.inside("start_mm");
    if (input.optional("accel_mm_s2")) { this.has_accel_mm_s2 = true; this.accel_mm_s2 = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("accel_mm_s2");
    if (input.optional("tool_w_per_s")) { this.has_tool_w_per_s = true; this.tool_w_per_s = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("tool_w_per_s");
    if (input.optional("feed_max_mm_min")) { this.has_feed_max_mm_min = true; this.feed_max_mm_min = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("feed_max_mm_min");
    if (input.optional("junction_deviation_mm")) { this.has_junction_deviation_mm = true; this.junction_deviation_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE); }
    if (input.failed) return input.inside("junction_deviation_mm");
    input.endMap(outer, "tail chord_mm start_mm accel_mm_s2 tool_w_per_s feed_max_mm_min junction_deviation_mm");
  }

  write(out: Writer): void {
    out.map(0 + i32(this.tail != null) + i32(this.has_chord_mm) + i32(this.start_mm != null) + i32(this.has_accel_mm_s2) + i32(this.has_tool_w_per_s) + i32(this.has_feed_max_mm_min) + i32(this.has_junction_deviation_mm));
    if (this.tail != null) {
      out.text("tail");
      out.bytesOf(this.tail!);
    }
    if (this.has_chord_mm) {
      out.text("chord_mm");
      out.float(this.chord_mm);
    }
    if (this.start_mm != null) {
      out.text("start_mm");
      out.tuple(this.start_mm!);
    }
    if (this.has_accel_mm_s2) {
      out.text("accel_mm_s2");
      out.float(this.accel_mm_s2);
    }
    if (this.has_tool_w_per_s) {
      out.text("tool_w_per_s");
      out.float(this.tool_w_per_s);
    }
    if (this.has_feed_max_mm_min) {
      out.text("feed_max_mm_min");
      out.float(this.feed_max_mm_min);
    }
    if (this.has_junction_deviation_mm) {
      out.text("junction_deviation_mm");
      out.float(this.junction_deviation_mm);
    }
  }
}

/** One chunk of a program. */
export class PlanJobRequest {
  run: bool = false;
  seq: u64 = 0;
  last: bool = false;
  chunk: Uint8Array = new Uint8Array(0);
  settings: PlanSettings = new PlanSettings();

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("run", "run seq last chunk settings")) this.run = input.bool();
    if (input.failed) return input.inside("run");
    if (input.key("seq", "run seq last chunk settings")) this.seq = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("seq");
    if (input.key("last", "run seq last chunk settings")) this.last = input.bool();
    if (input.failed) return input.inside("last");
    if (input.key("chunk", "run seq last chunk settings")) this.chunk = input.bytes(0, 1048576);
    if (input.failed) return input.inside("chunk");
    if (input.key("settings", "run seq last chunk settings")) this.settings.read(input);
    if (input.failed) return input.inside("settings");
    input.endMap(outer, "run seq last chunk settings");
  }

  write(out: Writer): void {
    out.map(5);
    out.text("run");
    out.bool(this.run);
    out.text("seq");
    out.uint(this.seq);
    out.text("last");
    out.bool(this.last);
    out.text("chunk");
    out.bytesOf(this.chunk);
    out.text("settings");
    this.settings.write(out);
  }
}

/** The reply to every chunk but the last. */
export class PlanProgress {
  lines: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("done", "done lines")) input.constant(false);
    if (input.failed) return input.inside("done");
    if (input.key("lines", "done lines")) this.lines = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("lines");
    input.endMap(outer, "done lines");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("done");
    out.bool(false);
    out.text("lines");
    out.uint(this.lines);
  }
}

export class BoundingBox {
  max: StaticArray<f64> = new StaticArray<f64>(3);
  min: StaticArray<f64> = new StaticArray<f64>(3);

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("max", "max min")) input.fill(this.max);
    if (input.failed) return input.inside("max");
    if (input.key("min", "max min")) input.fill(this.min);
    if (input.failed) return input.inside("min");
    input.endMap(outer, "max min");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("max");
    out.tuple(this.max);
    out.text("min");
    out.tuple(this.min);
  }
}

export class MoveCounts {
  arc: u64 = 0;
  rapid: u64 = 0;
  linear: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("arc", "arc rapid linear")) this.arc = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("arc");
    if (input.key("rapid", "arc rapid linear")) this.rapid = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("rapid");
    if (input.key("linear", "arc rapid linear")) this.linear = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("linear");
    input.endMap(outer, "arc rapid linear");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("arc");
    out.uint(this.arc);
    out.text("rapid");
    out.uint(this.rapid);
    out.text("linear");
    out.uint(this.linear);
  }
}

export class PathLengths {
  arc: f64 = 0;
  rapid: f64 = 0;
  total: f64 = 0;
  linear: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("arc", "arc rapid total linear")) this.arc = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("arc");
    if (input.key("rapid", "arc rapid total linear")) this.rapid = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("rapid");
    if (input.key("total", "arc rapid total linear")) this.total = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("total");
    if (input.key("linear", "arc rapid total linear")) this.linear = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("linear");
    input.endMap(outer, "arc rapid total linear");
  }

  write(out: Writer): void {
    out.map(4);
    out.text("arc");
    out.float(this.arc);
    out.text("rapid");
    out.float(this.rapid);
    out.text("total");
    out.float(this.total);
    out.text("linear");
    out.float(this.linear);
  }
}

export class Problem {
  code: string = "";
  line: u64 = 0;
  message: string = "";

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("code", "code line message")) this.code = input.text(0, 64);
    if (input.failed) return input.inside("code");
    if (input.key("line", "code line message")) this.line = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("line");
    if (input.key("message", "code line message")) this.message = input.text(0, 1024);
    if (input.failed) return input.inside("message");
    input.endMap(outer, "code line message");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("code");
    out.text(this.code);
    out.text("line");
    out.uint(this.line);
    out.text("message");
    out.text(this.message);
  }
}

/** What a whole program does; the last reply of `plan_job`. */
export class PlanReport {
  lines: u64 = 0;
  /** those with length */
  moves: MoveCounts = new MoveCounts();
  /** what the program used for its first move */
  units: Units = 0;
  /** moves that the motion driver accepted; 0 unless `run` */
  driven: u64 = 0;
  time_s: f64 = 0;
  bbox_mm: BoundingBox = new BoundingBox();
  dialect: Dialect = 0;
  path_mm: PathLengths = new PathLengths();
  /** false when anything in the program was not understood */
  complete: bool = false;
  /** the first of them, in order of line */
  problems: Array<Problem> = [];
  /** net length of filament fed; 0 for machines that cut */
  extruded_mm: f64 = 0;
  problems_total: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("done", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) input.constant(true);
    if (input.failed) return input.inside("done");
    if (input.key("lines", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.lines = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("lines");
    if (input.key("moves", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.moves.read(input);
    if (input.failed) return input.inside("moves");
    if (input.key("units", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.units = input.word(UNITS_WORDS);
    if (input.failed) return input.inside("units");
    if (input.key("driven", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.driven = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("driven");
    if (input.key("time_s", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.time_s = input.float(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("time_s");
    if (input.key("bbox_mm", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.bbox_mm.read(input);
    if (input.failed) return input.inside("bbox_mm");
    if (input.key("dialect", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.dialect = input.word(DIALECT_WORDS);
    if (input.failed) return input.inside("dialect");
    if (input.key("path_mm", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.path_mm.read(input);
    if (input.failed) return input.inside("path_mm");
    if (input.key("complete", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.complete = input.bool();
    if (input.failed) return input.inside("complete");
    if (input.key("problems", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.problems = input.items<Problem>(0, 256);
    if (input.failed) return input.inside("problems");
    if (input.key("extruded_mm", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.extruded_mm = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("extruded_mm");
    if (input.key("problems_total", "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total")) this.problems_total = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("problems_total");
    input.endMap(outer, "done lines moves units driven time_s bbox_mm dialect path_mm complete problems extruded_mm problems_total");
  }

  write(out: Writer): void {
    out.map(13);
    out.text("done");
    out.bool(true);
    out.text("lines");
    out.uint(this.lines);
    out.text("moves");
    this.moves.write(out);
    out.text("units");
    out.word(UNITS_WORDS, this.units);
    out.text("driven");
    out.uint(this.driven);
    out.text("time_s");
    out.float(this.time_s);
    out.text("bbox_mm");
    this.bbox_mm.write(out);
    out.text("dialect");
    out.word(DIALECT_WORDS, this.dialect);
    out.text("path_mm");
    this.path_mm.write(out);
    out.text("complete");
    out.bool(this.complete);
    out.text("problems");
    out.items<Problem>(this.problems);
    out.text("extruded_mm");
    out.float(this.extruded_mm);
    out.text("problems_total");
    out.uint(this.problems_total);
  }
}

/** Straight moves, one after the other: x, y, z in mm and the speed in mm/s. */
export class MotionMove {
  moves: Array<StaticArray<f64>> = [];

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("op", "op moves")) input.word("move");
    if (input.failed) return input.inside("op");
    if (input.key("moves", "op moves")) this.moves = input.tuples(1, 256, 4);
    if (input.failed) return input.inside("moves");
    input.endMap(outer, "op moves");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("op");
    out.text("move");
    out.text("moves");
    out.tuples(this.moves);
  }
}

/** Sets a heater's target, in °C. */
export class MotionHeat {
  heater: string = "";
  celsius: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("op", "op heater celsius")) input.word("heat");
    if (input.failed) return input.inside("op");
    if (input.key("heater", "op heater celsius")) this.heater = input.text(1, 64);
    if (input.failed) return input.inside("heater");
    if (input.key("celsius", "op heater celsius")) this.celsius = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("celsius");
    input.endMap(outer, "op heater celsius");
  }

  write(out: Writer): void {
    out.map(3);
    out.text("op");
    out.text("heat");
    out.text("heater");
    out.text(this.heater);
    out.text("celsius");
    out.float(this.celsius);
  }
}

/** Sets the power of the spindle or laser, in watts; 0 is off. */
export class MotionTool {
  watts: f64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("op", "op watts")) input.word("tool");
    if (input.failed) return input.inside("op");
    if (input.key("watts", "op watts")) this.watts = input.float(-F64.MAX_VALUE, F64.MAX_VALUE);
    if (input.failed) return input.inside("watts");
    input.endMap(outer, "op watts");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("op");
    out.text("tool");
    out.text("watts");
    out.float(this.watts);
  }
}

/** Moves every axis to its reference. */
export class MotionHome {

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("op", "op")) input.word("home");
    if (input.failed) return input.inside("op");
    input.endMap(outer, "op");
  }

  write(out: Writer): void {
    out.map(1);
    out.text("op");
    out.text("home");
  }
}

/** Waits, in ms. */
export class MotionDwell {
  ms: u64 = 0;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("ms", "ms op")) this.ms = input.uint(0, 86400000);
    if (input.failed) return input.inside("ms");
    if (input.key("op", "ms op")) input.word("dwell");
    if (input.failed) return input.inside("op");
    input.endMap(outer, "ms op");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("ms");
    out.uint(this.ms);
    out.text("op");
    out.text("dwell");
  }
}

/** Asks where the machine is. Changes nothing, so it passes in safe mode too. */
export class MotionStatus {

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("op", "op")) input.word("status");
    if (input.failed) return input.inside("op");
    input.endMap(outer, "op");
  }

  write(out: Writer): void {
    out.map(1);
    out.text("op");
    out.text("status");
  }
}

/** What the driver of `motion` answers. */
export class MotionReply {
  /** moves executed since the driver started */
  moves: u64 = 0;
  position_mm: StaticArray<f64> = new StaticArray<f64>(3);

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("moves", "moves position_mm")) this.moves = input.uint(0, F64.MAX_VALUE);
    if (input.failed) return input.inside("moves");
    if (input.key("position_mm", "moves position_mm")) input.fill(this.position_mm);
    if (input.failed) return input.inside("position_mm");
    input.endMap(outer, "moves position_mm");
  }

  write(out: Writer): void {
    out.map(2);
    out.text("moves");
    out.uint(this.moves);
    out.text("position_mm");
    out.tuple(this.position_mm);
  }
}

/** Asks for one flag by its name. */
export class FlagRequest {
  flag: string = "";

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("flag", "flag")) this.flag = input.text(0, 64);
    if (input.failed) return input.inside("flag");
    input.endMap(outer, "flag");
  }

  write(out: Writer): void {
    out.map(1);
    out.text("flag");
    out.text(this.flag);
  }
}

/** A flag that nobody named is off. */
export class FlagReply {
  /** a flag that nobody named is off */
  on: bool = false;

  read(input: Reader): void {
    const outer = input.map();
    if (input.key("on", "on")) this.on = input.bool();
    if (input.failed) return input.inside("on");
    input.endMap(outer, "on");
  }

  write(out: Writer): void {
    out.map(1);
    out.text("on");
    out.bool(this.on);
  }
}

/** The reply of `plan_job`: each but the last is progress, the last is the report. */
export class PlanJobReply {
  progress: PlanProgress | null = null;
  report: PlanReport | null = null;

  static ofProgress(lines: u64): PlanJobReply {
    const reply = new PlanJobReply();
    reply.progress = new PlanProgress();
    reply.progress!.lines = lines;
    return reply;
  }

  static ofReport(report: PlanReport): PlanJobReply {
    const reply = new PlanJobReply();
    reply.report = report;
    return reply;
  }

  write(out: Writer): void {
    const report = this.report;
    if (report) report.write(out);
    else this.progress!.write(out);
  }
}
