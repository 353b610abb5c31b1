/* The tables that describe the structs of contract.h. Entries are in the order of their encoded keys; see shape.h. */

#include "contract.h"

#define WORD(text) { text, sizeof text - 1 }

/* ---- Every hook ---- */

static const sc_field ERROR_REPLY[] = {
    SC_WITHIN(ErrorReply, code, 1, 64),
    SC_WITHIN(ErrorReply, message, 0, 1024),
};
SC_SHAPE(ErrorReply, MAP, ERROR_REPLY);

SC_SHAPE_EMPTY(SelfTestRequest);

static const sc_field SELF_TEST_REPLY[] = {
    SC_ANY(SelfTestReply, ok),
    SC_WITHIN(SelfTestReply, detail, 0, 1024),
};
SC_SHAPE(SelfTestReply, MAP, SELF_TEST_REPLY);

static const sc_field QUANTITY[] = {
    SC_NOT_NEGATIVE(Quantity, sigma),
    SC_ANY(Quantity, value),
};
SC_SHAPE(Quantity, MAP, QUANTITY);

static const sc_field POINT[] = { SC_ANY(Point, x), SC_ANY(Point, y), SC_ANY(Point, z) };
SC_SHAPE(Point, TUPLE, POINT);

static const sc_field POSITION[] = { SC_ANY(Position, x), SC_ANY(Position, y) };
SC_SHAPE(Position, TUPLE, POSITION);

static const sc_field TEXT[] = {{ .kind = SC_KIND_TEXT, .has_offset = SC_REQUIRED, .high = SC_UNBOUNDED }};
SC_SHAPE(sc_text, BARE, TEXT);

/* ---- plan_job ---- */

static const sc_field PLAN_SETTINGS[] = {
    { SC_NAMED(tail), .kind = SC_KIND_BYTES, .offset = offsetof(PlanSettings, tail),
      .has_offset = offsetof(PlanSettings, has_tail), .high = 65536 },
    SC_MAYBE(PlanSettings, chord_mm),
    SC_NESTED_MAYBE(PlanSettings, start_mm, Point),
    SC_MAYBE(PlanSettings, accel_mm_s2),
    SC_MAYBE(PlanSettings, tool_w_per_s),
    SC_MAYBE(PlanSettings, feed_max_mm_min),
    SC_MAYBE(PlanSettings, junction_deviation_mm),
};
static SC_SHAPE(PlanSettings, MAP, PLAN_SETTINGS);

static const sc_field PLAN_JOB_REQUEST[] = {
    SC_ANY(PlanJobRequest, run),
    SC_ANY(PlanJobRequest, seq),
    SC_ANY(PlanJobRequest, last),
    SC_WITHIN(PlanJobRequest, chunk, 0, 1048576),
    SC_NESTED(PlanJobRequest, settings, PlanSettings),
};
SC_SHAPE(PlanJobRequest, MAP, PLAN_JOB_REQUEST);

static const sc_field PLAN_PROGRESS_FIELDS[] = {
    SC_ALWAYS(done, FALSE),
    SC_ANY(PlanProgress, lines),
};
static SC_SHAPE(PlanProgress, MAP, PLAN_PROGRESS_FIELDS);

static const sc_field BOUNDING_BOX[] = {
    SC_NESTED(BoundingBox, max, Point),
    SC_NESTED(BoundingBox, min, Point),
};
static SC_SHAPE(BoundingBox, MAP, BOUNDING_BOX);

static const sc_field MOVE_COUNTS[] = {
    SC_ANY(MoveCounts, arc),
    SC_ANY(MoveCounts, rapid),
    SC_ANY(MoveCounts, linear),
};
static SC_SHAPE(MoveCounts, MAP, MOVE_COUNTS);

static const sc_field PATH_LENGTHS[] = {
    SC_ANY(PathLengths, arc),
    SC_ANY(PathLengths, rapid),
    SC_ANY(PathLengths, total),
    SC_ANY(PathLengths, linear),
};
static SC_SHAPE(PathLengths, MAP, PATH_LENGTHS);

static const sc_field PROBLEM[] = {
    SC_ANY(Problem, code),
    SC_ANY(Problem, line),
    SC_ANY(Problem, message),
};
static SC_SHAPE(Problem, MAP, PROBLEM);

/* In the order of DIALECT_… and UNITS_…. */
static const sc_text DIALECTS[] = { WORD("grbl"), WORD("marlin"), WORD("rs274") };
static const sc_text UNITS[] = { WORD("inch"), WORD("mm") };

static const sc_field PLAN_REPORT_FIELDS[] = {
    SC_ALWAYS(done, TRUE),
    SC_ANY(PlanReport, lines),
    SC_NESTED(PlanReport, moves, MoveCounts),
    SC_WORDS(PlanReport, units, UNITS),
    SC_ANY(PlanReport, driven),
    SC_ANY(PlanReport, time_s),
    SC_NESTED(PlanReport, bbox_mm, BoundingBox),
    SC_WORDS(PlanReport, dialect, DIALECTS),
    SC_NESTED(PlanReport, path_mm, PathLengths),
    SC_ANY(PlanReport, complete),
    SC_ITEMS(PlanReport, problems, Problem, 0, 256),
    SC_ANY(PlanReport, extruded_mm),
    SC_ANY(PlanReport, problems_total),
};
static SC_SHAPE(PlanReport, MAP, PLAN_REPORT_FIELDS);

/* In the order of PLAN_…. */
static const sc_field PLAN_JOB_REPLY[] = {
    SC_NESTED(PlanJobReply, progress, PlanProgress),
    SC_NESTED(PlanJobReply, report, PlanReport),
};
SC_SHAPE(PlanJobReply, CHOICE, PLAN_JOB_REPLY);

/* ---- assess_feedstock ---- */

static const sc_field ELEMENT_ASSAY[] = {
    SC_ANY(ElementAssay, element),
    SC_NESTED(ElementAssay, fraction, Quantity),
};
static SC_SHAPE(ElementAssay, MAP, ELEMENT_ASSAY);

static const sc_field PARTICLES[] = {
    SC_ANY(Particles, d10_um),
    SC_ANY(Particles, d50_um),
    SC_ANY(Particles, d80_um),
};
static SC_SHAPE(Particles, MAP, PARTICLES);

static const sc_field IMPURITY_CEILING[] = {
    SC_ANY(ImpurityCeiling, element),
    SC_ANY(ImpurityCeiling, fraction_max),
};
static SC_SHAPE(ImpurityCeiling, MAP, IMPURITY_CEILING);

static const sc_field PRODUCT[] = {
    SC_ANY(Product, name),
    SC_WITHIN(Product, grade, 0, 1),
    SC_ANY(Product, element),
    SC_NESTED(Product, recovery, Quantity),
    SC_ITEMS(Product, impurities, ImpurityCeiling, 0, SC_UNBOUNDED),
    SC_ANY(Product, particle_um),
};
static SC_SHAPE(Product, MAP, PRODUCT);

static const sc_field ASSESS_FEEDSTOCK_REQUEST[] = {
    SC_ANY(AssessFeedstockRequest, lot),
    SC_ITEMS(AssessFeedstockRequest, assay, ElementAssay, 1, 64),
    SC_NESTED(AssessFeedstockRequest, mass_kg, Quantity),
    SC_NESTED(AssessFeedstockRequest, moisture, Quantity),
    SC_ITEMS(AssessFeedstockRequest, products, Product, 1, 16),
    SC_NESTED(AssessFeedstockRequest, particles, Particles),
    SC_NESTED(AssessFeedstockRequest, work_index_kwh_t, Quantity),
};
SC_SHAPE(AssessFeedstockRequest, MAP, ASSESS_FEEDSTOCK_REQUEST);

static const sc_field PRODUCT_VERDICT[] = {
    SC_ANY(ProductVerdict, name),
    SC_ITEMS(ProductVerdict, reasons, sc_text, 0, SC_UNBOUNDED),
    SC_ANY(ProductVerdict, suitable),
    SC_NESTED(ProductVerdict, yield_kg, Quantity),
    SC_WITHIN(ProductVerdict, confidence, 0, 1),
    SC_NESTED(ProductVerdict, energy_kwh_t, Quantity),
};
static SC_SHAPE(ProductVerdict, MAP, PRODUCT_VERDICT);

static const sc_field ASSESS_FEEDSTOCK_REPLY[] = {
    SC_ANY(AssessFeedstockReply, lot),
    SC_ANY(AssessFeedstockReply, best),
    SC_ITEMS(AssessFeedstockReply, products, ProductVerdict, 1, 16),
    SC_ITEMS(AssessFeedstockReply, warnings, sc_text, 0, SC_UNBOUNDED),
    SC_NESTED(AssessFeedstockReply, dry_mass_kg, Quantity),
};
SC_SHAPE(AssessFeedstockReply, MAP, ASSESS_FEEDSTOCK_REPLY);

/* ---- inspect_part ---- */

#define SIZE_MM_MAX 100000.0
#define SC_SIZE(T, m) SC_WITHIN(T, m, -SIZE_MM_MAX, SIZE_MM_MAX)
#define SC_SPREAD(T, m) SC_WITHIN(T, m, 0, SIZE_MM_MAX)

static const sc_field SIZE_MM[] = {
    { .kind = SC_KIND_FLOAT, .has_offset = SC_REQUIRED, .low = -SIZE_MM_MAX, .high = SIZE_MM_MAX },
};
static SC_SHAPE(SizeMm, BARE, SIZE_MM);

static const sc_field CONTROL_LINES[] = {
    SC_SPREAD(ControlLines, range_mm),
    SC_SIZE(ControlLines, center_mm),
};
static SC_SHAPE(ControlLines, MAP, CONTROL_LINES);

static const sc_field MATE[] = {
    SC_SIZE(Mate, mean_mm),
    SC_SIZE(Mate, lower_mm),
    SC_ANY(Mate, required),
    SC_SPREAD(Mate, sigma_mm),
    SC_SIZE(Mate, upper_mm),
    SC_ANY(Mate, generation),
    SC_SIZE(Mate, clearance_max_mm),
    SC_SIZE(Mate, clearance_min_mm),
};
static SC_SHAPE(Mate, MAP, MATE);

/* In the order of FEATURE_…, CHART_…, FIT_…, FITS_… and VERDICT_…. */
static const sc_text FEATURES[] = { WORD("external"), WORD("internal") };
static const sc_text CHARTS[] = { WORD("mean"), WORD("range") };
static const sc_text FIT_WORDS[] = { WORD("clearance"), WORD("transition"), WORD("interference") };
static const sc_text FITS_WORDS[] = { WORD("every"), WORD("most"), WORD("measured"), WORD("none") };
static const sc_text VERDICTS[] = { WORD("accept"), WORD("rework"), WORD("reject") };

static const sc_field CHARACTERISTIC[] = {
    SC_WITHIN(Characteristic, name, 0, 64),
    SC_ITEMS(Characteristic, mates, Mate, 0, 8),
    SC_ANY(Characteristic, rework),
    SC_WORDS(Characteristic, feature, FEATURES),
    SC_MAYBE_WITHIN(Characteristic, lower_mm, -SIZE_MM_MAX, SIZE_MM_MAX),
    SC_WITHIN(Characteristic, subgroup, 2, 10),
    SC_MAYBE_WITHIN(Characteristic, upper_mm, -SIZE_MM_MAX, SIZE_MM_MAX),
    SC_ITEMS(Characteristic, history_mm, SizeMm, 0, 1000),
    SC_SIZE(Characteristic, nominal_mm),
    SC_NESTED_MAYBE(Characteristic, established, ControlLines),
    SC_ITEMS(Characteristic, measured_mm, SizeMm, 1, 100),
    SC_SPREAD(Characteristic, gauge_sigma_mm),
};
static SC_SHAPE(Characteristic, MAP, CHARACTERISTIC);

static const sc_field INSPECT_PART_REQUEST[] = {
    SC_WITHIN(InspectPartRequest, lot, 0, 64),
    SC_WITHIN(InspectPartRequest, parts, 1, 1000000),
    SC_WITHIN(InspectPartRequest, cpk_min, 0, 10),
    SC_ANY(InspectPartRequest, generation),
    SC_ITEMS(InspectPartRequest, characteristics, Characteristic, 1, 16),
};
SC_SHAPE(InspectPartRequest, MAP, INSPECT_PART_REQUEST);

static const sc_field SIGNAL[] = {
    SC_ANY(Signal, rule),
    SC_WORDS(Signal, chart, CHARTS),
    SC_ANY(Signal, point),
};
static SC_SHAPE(Signal, MAP, SIGNAL);

static const sc_field CONTROL_CHART[] = {
    SC_ANY(ControlChart, points),
    SC_ITEMS(ControlChart, signals, Signal, 0, SIGNALS_MAX),
    SC_ANY(ControlChart, range_mm),
    SC_ANY(ControlChart, center_mm),
    SC_ANY(ControlChart, established),
    SC_ANY(ControlChart, mean_lower_mm),
    SC_ANY(ControlChart, mean_upper_mm),
    SC_ANY(ControlChart, signals_total),
    SC_ANY(ControlChart, range_lower_mm),
    SC_ANY(ControlChart, range_upper_mm),
};
static SC_SHAPE(ControlChart, MAP, CONTROL_CHART);

static const sc_field CAPABILITY[] = {
    SC_MAYBE(Capability, cp),
    SC_MAYBE(Capability, pp),
    SC_ANY(Capability, cpk),
    SC_ANY(Capability, ppk),
    SC_ANY(Capability, values),
    SC_ANY(Capability, sigma_mm),
    SC_ANY(Capability, cpk_lower),
    SC_ANY(Capability, overall_sigma_mm),
};
static SC_SHAPE(Capability, MAP, CAPABILITY);

static const sc_field COMPATIBILITY[] = {
    SC_WORDS(Compatibility, fit, FIT_WORDS),
    SC_WORDS(Compatibility, fits, FITS_WORDS),
    SC_ANY(Compatibility, generation),
    SC_ANY(Compatibility, worst_max_mm),
    SC_ANY(Compatibility, worst_min_mm),
    SC_ANY(Compatibility, measured_max_mm),
    SC_ANY(Compatibility, measured_min_mm),
    SC_ANY(Compatibility, statistical_max_mm),
    SC_ANY(Compatibility, statistical_min_mm),
};
static SC_SHAPE(Compatibility, MAP, COMPATIBILITY);

static const sc_field CHARACTERISTIC_VERDICT[] = {
    SC_WITHIN(CharacteristicVerdict, name, 0, 64),
    SC_NESTED_MAYBE(CharacteristicVerdict, chart, ControlChart),
    SC_ITEMS(CharacteristicVerdict, mates, Compatibility, 0, 8),
    SC_WORDS(CharacteristicVerdict, verdict, VERDICTS),
    SC_ANY(CharacteristicVerdict, accepted),
    SC_NESTED_MAYBE(CharacteristicVerdict, capability, Capability),
    SC_MAYBE(CharacteristicVerdict, window_lower_mm),
    SC_MAYBE(CharacteristicVerdict, window_upper_mm),
};
static SC_SHAPE(CharacteristicVerdict, MAP, CHARACTERISTIC_VERDICT);

static const sc_field INSPECT_PART_REPLY[] = {
    SC_WITHIN(InspectPartReply, lot, 0, 64),
    SC_ITEMS(InspectPartReply, reasons, sc_text, 0, SC_UNBOUNDED),
    SC_WORDS(InspectPartReply, verdict, VERDICTS),
    SC_ITEMS(InspectPartReply, cautions, sc_text, 0, SC_UNBOUNDED),
    SC_ITEMS(InspectPartReply, characteristics, CharacteristicVerdict, 1, 16),
};
SC_SHAPE(InspectPartReply, MAP, INSPECT_PART_REPLY);

/* ---- bid ---- */

static const sc_field BOUNTY[] = {
    SC_ANY(Bounty, id),
    SC_ANY(Bounty, reward),
    SC_ANY(Bounty, work_ms),
    SC_NESTED(Bounty, position_m, Position),
    SC_ANY(Bounty, deadline_ms),
};
static SC_SHAPE(Bounty, MAP, BOUNTY);

static const sc_field COSTS[] = {
    SC_ANY(Costs, hour),
    SC_ANY(Costs, wear),
    SC_ANY(Costs, fuel_unit),
};
static SC_SHAPE(Costs, MAP, COSTS);

static const sc_field BID_NODE[] = {
    SC_ANY(BidNode, fuel),
    SC_ANY(BidNode, wear),
    SC_ANY(BidNode, queue_ms),
    SC_ANY(BidNode, speed_m_s),
    SC_NESTED(BidNode, position_m, Position),
    SC_ANY(BidNode, fuel_per_hour),
    SC_ANY(BidNode, wear_per_hour),
};
static SC_SHAPE(BidNode, MAP, BID_NODE);

static const sc_field BID_REQUEST[] = {
    SC_NESTED(BidRequest, node, BidNode),
    SC_NESTED(BidRequest, costs, Costs),
    SC_NESTED(BidRequest, bounty, Bounty),
    SC_ANY(BidRequest, margin),
};
SC_SHAPE(BidRequest, MAP, BID_REQUEST);

static const sc_field BID_REPLY[] = {
    SC_ANY(BidReply, id),
    SC_ANY(BidReply, cost),
    SC_MAYBE(BidReply, price),
    SC_ANY(BidReply, reason),
    SC_ANY(BidReply, finish_ms),
};
SC_SHAPE(BidReply, MAP, BID_REPLY);

/* ---- handle ---- */

/* In the order of PHASE_…, VERB_… and STATE_…. */
static const sc_text PHASES[] = { WORD("prepare"), WORD("act") };
static const sc_text VERBS[] = {
    WORD("observe"), WORD("orient"), WORD("decide"), WORD("act"), WORD("record"), WORD("sync"),
};
static const sc_text STATES[] = { WORD("ready"), WORD("conflict") };

static const sc_field HANDLE_REQUEST[] = {
    SC_WITHIN(HandleRequest, id, 16, 16),
    SC_WORDS(HandleRequest, verb, VERBS),
    SC_ANY(HandleRequest, at_ms),
    SC_WORDS(HandleRequest, phase, PHASES),
    SC_WITHIN(HandleRequest, topic, 1, 64),
    SC_WITHIN(HandleRequest, source, 0, 64),
    SC_NOT_NEGATIVE(HandleRequest, weight),
    SC_WITHIN(HandleRequest, payload, 0, 65536),
    SC_WITHIN(HandleRequest, priority, 0, 3),
    SC_WITHIN(HandleRequest, correlation, 16, 16),
};
SC_SHAPE(HandleRequest, MAP, HANDLE_REQUEST);

static const sc_field HANDLE_REPLY[] = {
    SC_WORDS(HandleReply, state, STATES),
    SC_WITHIN(HandleReply, detail, 0, 1024),
    SC_ANY(HandleReply, handled),
    SC_WITHIN(HandleReply, payload, 0, 16384),
};
SC_SHAPE(HandleReply, MAP, HANDLE_REPLY);

/* ---- The capability `motion` ---- */

static const sc_text OP_MOVE = WORD("move"), OP_HEAT = WORD("heat"), OP_TOOL = WORD("tool"), OP_HOME = WORD("home"),
    OP_DWELL = WORD("dwell"), OP_STATUS = WORD("status");

static const sc_field MOVE[] = { SC_ANY(Move, x), SC_ANY(Move, y), SC_ANY(Move, z), SC_ANY(Move, feed_mm_s) };
static SC_SHAPE(Move, TUPLE, MOVE);

static const sc_field MOTION_MOVE[] = {
    SC_LITERAL(op, OP_MOVE),
    SC_ITEMS(MotionMove, moves, Move, 1, MOTION_MOVES_MAX),
};
SC_SHAPE(MotionMove, MAP, MOTION_MOVE);

static const sc_field MOTION_HEAT[] = {
    SC_LITERAL(op, OP_HEAT),
    SC_ANY(MotionHeat, heater),
    SC_ANY(MotionHeat, celsius),
};
SC_SHAPE(MotionHeat, MAP, MOTION_HEAT);

static const sc_field MOTION_TOOL[] = {
    SC_LITERAL(op, OP_TOOL),
    SC_ANY(MotionTool, watts),
};
SC_SHAPE(MotionTool, MAP, MOTION_TOOL);

static const sc_field MOTION_HOME[] = { SC_LITERAL(op, OP_HOME) };
SC_SHAPE(MotionHome, MAP, MOTION_HOME);

static const sc_field MOTION_DWELL[] = {
    SC_ANY(MotionDwell, ms),
    SC_LITERAL(op, OP_DWELL),
};
SC_SHAPE(MotionDwell, MAP, MOTION_DWELL);

static const sc_field MOTION_STATUS[] = { SC_LITERAL(op, OP_STATUS) };
SC_SHAPE(MotionStatus, MAP, MOTION_STATUS);

static const sc_field MOTION_REPLY[] = {
    SC_ANY(MotionReply, moves),
    SC_NESTED(MotionReply, position_mm, Point),
};
SC_SHAPE(MotionReply, MAP, MOTION_REPLY);

/* ---- The capability `flags` ---- */

static const sc_field FLAG_REQUEST[] = { SC_WITHIN(FlagRequest, flag, 0, 64) };
SC_SHAPE(FlagRequest, MAP, FLAG_REQUEST);

static const sc_field FLAG_REPLY[] = { SC_ANY(FlagReply, on) };
SC_SHAPE(FlagReply, MAP, FLAG_REPLY);
