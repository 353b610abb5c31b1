// The shapes of sdk/contract/skill.cddl as tables. Made by `python -m sdk.bindings` from the host's structs.
// Each field has its name in the contract, its name in the component model, and its kind.

const U8 = 2 ** 8;
const U32 = 2 ** 32;
const U64 = 2 ** 64;

function shape(members, constants = {}) {
  const names = [...members.map((member) => member.name), ...Object.keys(constants)];
  return { members, constants, names: names.join(", ") || "(none)", known: new Set(names) };
}

function field(name, wit, kind, more) {
  return { name, wit, kind, optional: false, of: undefined, words: undefined, length: 0, end: 0, ...more };
}

export const ErrorReply = shape([
  field("code", "code", "text"),
  field("message", "message", "text"),
]);
export const Quantity = shape([
  field("sigma", "sigma", "float"),
  field("value", "value", "float"),
]);
export const ElementAssay = shape([
  field("element", "element", "text"),
  field("fraction", "fraction", "struct", { of: Quantity }),
]);
export const Particles = shape([
  field("d10_um", "d10Um", "float"),
  field("d50_um", "d50Um", "float"),
  field("d80_um", "d80Um", "float"),
]);
export const ImpurityCeiling = shape([
  field("element", "element", "text"),
  field("fraction_max", "fractionMax", "float"),
]);
export const Product = shape([
  field("name", "name", "text"),
  field("grade", "grade", "float"),
  field("element", "element", "text"),
  field("recovery", "recovery", "struct", { of: Quantity }),
  field("impurities", "impurities", "structs", { of: ImpurityCeiling }),
  field("particle_um", "particleUm", "float"),
]);
export const AssessFeedstockRequest = shape([
  field("lot", "lot", "text"),
  field("assay", "assay", "structs", { of: ElementAssay }),
  field("mass_kg", "massKg", "struct", { of: Quantity }),
  field("moisture", "moisture", "struct", { of: Quantity }),
  field("products", "products", "structs", { of: Product }),
  field("particles", "particles", "struct", { of: Particles }),
  field("work_index_kwh_t", "workIndexKwhT", "struct", { of: Quantity }),
]);
export const ProductVerdict = shape([
  field("name", "name", "text"),
  field("reasons", "reasons", "texts"),
  field("suitable", "suitable", "bool"),
  field("yield_kg", "yieldKg", "struct", { of: Quantity }),
  field("confidence", "confidence", "float"),
  field("energy_kwh_t", "energyKwhT", "struct", { of: Quantity }),
]);
export const AssessFeedstockReply = shape([
  field("lot", "lot", "text"),
  field("best", "best", "text"),
  field("products", "products", "structs", { of: ProductVerdict }),
  field("warnings", "warnings", "texts"),
  field("dry_mass_kg", "dryMassKg", "struct", { of: Quantity }),
]);
export const Bounty = shape([
  field("id", "id", "text"),
  field("reward", "reward", "float"),
  field("work_ms", "workMs", "uint", { end: U64 }),
  field("position_m", "positionM", "tuple", { length: 2 }),
  field("deadline_ms", "deadlineMs", "uint", { end: U64 }),
]);
export const Costs = shape([
  field("hour", "hour", "float"),
  field("wear", "wear", "float"),
  field("fuel_unit", "fuelUnit", "float"),
]);
export const BidNode = shape([
  field("fuel", "fuel", "float"),
  field("wear", "wear", "float"),
  field("queue_ms", "queueMs", "uint", { end: U64 }),
  field("speed_m_s", "speedMS", "float"),
  field("position_m", "positionM", "tuple", { length: 2 }),
  field("fuel_per_hour", "fuelPerHour", "float"),
  field("wear_per_hour", "wearPerHour", "float"),
]);
export const BidRequest = shape([
  field("node", "node", "struct", { of: BidNode }),
  field("costs", "costs", "struct", { of: Costs }),
  field("bounty", "bounty", "struct", { of: Bounty }),
  field("margin", "margin", "float"),
]);
export const BidReply = shape([
  field("id", "id", "text"),
  field("cost", "cost", "float"),
  field("price", "price", "float", { optional: true }),
  field("reason", "reason", "text"),
  field("finish_ms", "finishMs", "uint", { end: U64 }),
]);
export const HandleRequest = shape([
  field("id", "id", "bytes"),
  field("verb", "verb", "words", { words: ["observe", "orient", "decide", "act", "record", "sync"] }),
  field("at_ms", "atMs", "uint", { end: U64 }),
  field("phase", "phase", "words", { words: ["prepare", "act"] }),
  field("topic", "topic", "text"),
  field("source", "source", "text"),
  field("weight", "weight", "float"),
  field("payload", "payload", "bytes"),
  field("priority", "priority", "uint", { end: U8 }),
  field("correlation", "correlation", "bytes"),
]);
export const HandleReply = shape([
  field("state", "state", "words", { words: ["ready", "conflict"] }),
  field("detail", "detail", "text"),
  field("handled", "handled", "bool"),
  field("payload", "payload", "bytes"),
]);
export const Mate = shape([
  field("mean_mm", "meanMm", "float"),
  field("lower_mm", "lowerMm", "float"),
  field("required", "required", "bool"),
  field("sigma_mm", "sigmaMm", "float"),
  field("upper_mm", "upperMm", "float"),
  field("generation", "generation", "uint", { end: U64 }),
  field("clearance_max_mm", "clearanceMaxMm", "float"),
  field("clearance_min_mm", "clearanceMinMm", "float"),
]);
export const ControlLines = shape([
  field("range_mm", "rangeMm", "float"),
  field("center_mm", "centerMm", "float"),
]);
export const Characteristic = shape([
  field("name", "name", "text"),
  field("mates", "mates", "structs", { of: Mate }),
  field("rework", "rework", "bool"),
  field("feature", "feature", "words", { words: ["external", "internal"] }),
  field("lower_mm", "lowerMm", "float", { optional: true }),
  field("subgroup", "subgroup", "uint", { end: U8 }),
  field("upper_mm", "upperMm", "float", { optional: true }),
  field("history_mm", "historyMm", "floats"),
  field("nominal_mm", "nominalMm", "float"),
  field("established", "established", "struct", { optional: true, of: ControlLines }),
  field("measured_mm", "measuredMm", "floats"),
  field("gauge_sigma_mm", "gaugeSigmaMm", "float"),
]);
export const InspectPartRequest = shape([
  field("lot", "lot", "text"),
  field("parts", "parts", "uint", { end: U32 }),
  field("cpk_min", "cpkMin", "float"),
  field("generation", "generation", "uint", { end: U64 }),
  field("characteristics", "characteristics", "structs", { of: Characteristic }),
]);
export const Compatibility = shape([
  field("fit", "fit", "words", { words: ["clearance", "transition", "interference"] }),
  field("fits", "fits", "words", { words: ["every", "most", "measured", "none"] }),
  field("generation", "generation", "uint", { end: U64 }),
  field("worst_max_mm", "worstMaxMm", "float"),
  field("worst_min_mm", "worstMinMm", "float"),
  field("measured_max_mm", "measuredMaxMm", "float"),
  field("measured_min_mm", "measuredMinMm", "float"),
  field("statistical_max_mm", "statisticalMaxMm", "float"),
  field("statistical_min_mm", "statisticalMinMm", "float"),
]);
export const Capability = shape([
  field("cp", "cp", "float", { optional: true }),
  field("pp", "pp", "float", { optional: true }),
  field("cpk", "cpk", "float"),
  field("ppk", "ppk", "float"),
  field("values", "values", "uint", { end: U64 }),
  field("sigma_mm", "sigmaMm", "float"),
  field("cpk_lower", "cpkLower", "float"),
  field("overall_sigma_mm", "overallSigmaMm", "float"),
]);
export const Signal = shape([
  field("rule", "rule", "uint", { end: U8 }),
  field("chart", "chart", "words", { words: ["mean", "range"] }),
  field("point", "point", "uint", { end: U64 }),
]);
export const ControlChart = shape([
  field("points", "points", "uint", { end: U64 }),
  field("signals", "signals", "structs", { of: Signal }),
  field("range_mm", "rangeMm", "float"),
  field("center_mm", "centerMm", "float"),
  field("established", "established", "bool"),
  field("mean_lower_mm", "meanLowerMm", "float"),
  field("mean_upper_mm", "meanUpperMm", "float"),
  field("signals_total", "signalsTotal", "uint", { end: U64 }),
  field("range_lower_mm", "rangeLowerMm", "float"),
  field("range_upper_mm", "rangeUpperMm", "float"),
]);
export const CharacteristicVerdict = shape([
  field("name", "name", "text"),
  field("chart", "chart", "struct", { optional: true, of: ControlChart }),
  field("mates", "mates", "structs", { of: Compatibility }),
  field("verdict", "verdict", "words", { words: ["accept", "rework", "reject"] }),
  field("accepted", "accepted", "uint", { end: U64 }),
  field("capability", "capability", "struct", { optional: true, of: Capability }),
  field("window_lower_mm", "windowLowerMm", "float", { optional: true }),
  field("window_upper_mm", "windowUpperMm", "float", { optional: true }),
]);
export const InspectPartReply = shape([
  field("lot", "lot", "text"),
  field("reasons", "reasons", "texts"),
  field("verdict", "verdict", "words", { words: ["accept", "rework", "reject"] }),
  field("cautions", "cautions", "texts"),
  field("characteristics", "characteristics", "structs", { of: CharacteristicVerdict }),
]);
export const SelfTestRequest = shape([]);
export const SelfTestReply = shape([
  field("ok", "ok", "bool"),
  field("detail", "detail", "text"),
]);
export const PlanSettings = shape([
  field("tail", "tail", "bytes", { optional: true }),
  field("chord_mm", "chordMm", "float", { optional: true }),
  field("start_mm", "startMm", "tuple", { optional: true, length: 3 }),
  field("accel_mm_s2", "accelMmS2", "float", { optional: true }),
  field("tool_w_per_s", "toolWPerS", "float", { optional: true }),
  field("feed_max_mm_min", "feedMaxMmMin", "float", { optional: true }),
  field("junction_deviation_mm", "junctionDeviationMm", "float", { optional: true }),
]);
export const PlanJobRequest = shape([
  field("run", "run", "bool"),
  field("seq", "seq", "uint", { end: U64 }),
  field("last", "last", "bool"),
  field("chunk", "chunk", "bytes"),
  field("settings", "settings", "struct", { of: PlanSettings }),
]);
export const PlanProgress = shape([
  field("lines", "lines", "uint", { end: U64 }),
], { done: false });
export const BoundingBox = shape([
  field("max", "max", "tuple", { length: 3 }),
  field("min", "min", "tuple", { length: 3 }),
]);
export const MoveCounts = shape([
  field("arc", "arc", "uint", { end: U64 }),
  field("rapid", "rapid", "uint", { end: U64 }),
  field("linear", "linear", "uint", { end: U64 }),
]);
export const PathLengths = shape([
  field("arc", "arc", "float"),
  field("rapid", "rapid", "float"),
  field("total", "total", "float"),
  field("linear", "linear", "float"),
]);
export const Problem = shape([
  field("code", "code", "text"),
  field("line", "line", "uint", { end: U64 }),
  field("message", "message", "text"),
]);
export const PlanReport = shape([
  field("lines", "lines", "uint", { end: U64 }),
  field("moves", "moves", "struct", { of: MoveCounts }),
  field("units", "units", "words", { words: ["inch", "mm"] }),
  field("driven", "driven", "uint", { end: U64 }),
  field("time_s", "timeS", "float"),
  field("bbox_mm", "bboxMm", "struct", { of: BoundingBox }),
  field("dialect", "dialect", "words", { words: ["grbl", "marlin", "rs274"] }),
  field("path_mm", "pathMm", "struct", { of: PathLengths }),
  field("complete", "complete", "bool"),
  field("problems", "problems", "structs", { of: Problem }),
  field("extruded_mm", "extrudedMm", "float"),
  field("problems_total", "problemsTotal", "uint", { end: U64 }),
], { done: true });
export const MotionMove = shape([
  field("moves", "moves", "tuples", { length: 4 }),
], { op: "move" });
export const MotionHeat = shape([
  field("heater", "heater", "text"),
  field("celsius", "celsius", "float"),
], { op: "heat" });
export const MotionTool = shape([
  field("watts", "watts", "float"),
], { op: "tool" });
export const MotionHome = shape([], { op: "home" });
export const MotionDwell = shape([
  field("ms", "ms", "uint", { end: U32 }),
], { op: "dwell" });
export const MotionStatus = shape([], { op: "status" });
export const MotionReply = shape([
  field("moves", "moves", "uint", { end: U64 }),
  field("position_mm", "positionMm", "tuple", { length: 3 }),
]);

/** The commands of the capability `motion` by `op`. */
export const COMMANDS = {
  move: MotionMove,
  heat: MotionHeat,
  tool: MotionTool,
  home: MotionHome,
  dwell: MotionDwell,
  status: MotionStatus,
};

/** Request and reply of each hook; `plan_job` has two replies. */
export const HOOKS = {
  assess_feedstock: [AssessFeedstockRequest, AssessFeedstockReply],
  bid: [BidRequest, BidReply],
  handle: [HandleRequest, HandleReply],
  inspect_part: [InspectPartRequest, InspectPartReply],
  plan_job: [PlanJobRequest, PlanReport],
  self_test: [SelfTestRequest, SelfTestReply],
};
