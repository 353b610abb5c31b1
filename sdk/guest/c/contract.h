/* The shapes of sdk/contract/skill.cddl as C structs. Units are part of the names. Each struct `T` has a table
 * `T_shape` in contract.c. */

#ifndef SC_CONTRACT_H
#define SC_CONTRACT_H

#include "shape.h"

/* ---- Every hook ---- */

typedef struct { sc_text code, message; } ErrorReply;
extern const sc_shape ErrorReply_shape;

typedef struct { uint8_t unused; } SelfTestRequest;
typedef struct { sc_text detail; bool ok; } SelfTestReply;
extern const sc_shape SelfTestRequest_shape, SelfTestReply_shape;

/* A measured value and its standard uncertainty (one sigma), in the unit of the member that holds it. */
typedef struct { double sigma, value; } Quantity;
/* mm, machine coordinates. */
typedef struct { double x, y, z; } Point;
/* Metres in the plane. */
typedef struct { double x, y; } Position;
extern const sc_shape Quantity_shape, Point_shape, Position_shape, sc_text_shape;

/* ---- plan_job ---- */

typedef struct {
    bool has_accel_mm_s2, has_chord_mm, has_feed_max_mm_min, has_junction_deviation_mm, has_start_mm, has_tail, has_tool_w_per_s;
    double accel_mm_s2, chord_mm, feed_max_mm_min, junction_deviation_mm, tool_w_per_s;
    Point start_mm;
    sc_bytes tail;
} PlanSettings;

typedef struct {
    sc_bytes chunk;
    bool last, run;
    uint64_t seq;
    PlanSettings settings;
} PlanJobRequest;

typedef struct { uint64_t lines; } PlanProgress;

enum { DIALECT_GRBL, DIALECT_MARLIN, DIALECT_RS274 };
enum { UNITS_INCH, UNITS_MM };

typedef struct { Point max, min; } BoundingBox;
typedef struct { uint64_t arc, linear, rapid; } MoveCounts;
typedef struct { double arc, linear, rapid, total; } PathLengths;
typedef struct { sc_text code; uint64_t line; sc_text message; } Problem;

typedef struct {
    BoundingBox bbox_mm;
    bool complete;
    uint32_t dialect;       /* DIALECT_… */
    uint64_t driven;
    double extruded_mm;
    uint64_t lines;
    MoveCounts moves;
    PathLengths path_mm;
    SC_LIST(Problem) problems;
    uint64_t problems_total;
    double time_s;
    uint32_t units;         /* UNITS_… */
} PlanReport;

/* Each reply but the last is progress; the last is the report. */
enum { PLAN_PROGRESS, PLAN_REPORT };
typedef struct {
    uint32_t which;         /* PLAN_… */
    PlanProgress progress;
    PlanReport report;
} PlanJobReply;
extern const sc_shape PlanJobRequest_shape, PlanJobReply_shape;

/* ---- assess_feedstock ---- */

typedef struct { sc_text element; Quantity fraction; } ElementAssay;
typedef struct { double d10_um, d50_um, d80_um; } Particles;
typedef struct { sc_text element; double fraction_max; } ImpurityCeiling;

typedef struct {
    sc_text element;
    double grade;
    SC_LIST(ImpurityCeiling) impurities;
    sc_text name;
    double particle_um;
    Quantity recovery;
} Product;

typedef struct {
    SC_LIST(ElementAssay) assay;
    sc_text lot;
    Quantity mass_kg, moisture;
    Particles particles;
    SC_LIST(Product) products;
    Quantity work_index_kwh_t;
} AssessFeedstockRequest;

typedef struct {
    double confidence;
    Quantity energy_kwh_t;
    sc_text name;
    sc_texts reasons;
    bool suitable;
    Quantity yield_kg;
} ProductVerdict;

typedef struct {
    sc_text best;
    Quantity dry_mass_kg;
    sc_text lot;
    SC_LIST(ProductVerdict) products;
    sc_texts warnings;
} AssessFeedstockReply;
extern const sc_shape AssessFeedstockRequest_shape, AssessFeedstockReply_shape;

/* ---- inspect_part ---- */

/* A size in mm; in lists. */
typedef double SizeMm;

typedef struct { double center_mm, range_mm; } ControlLines;

typedef struct {
    double clearance_max_mm, clearance_min_mm;  /* below 0 it is interference */
    uint64_t generation;
    double lower_mm, mean_mm;
    bool required;                              /* false: only stated, without effect on the verdict */
    double sigma_mm, upper_mm;
} Mate;

enum { FEATURE_EXTERNAL, FEATURE_INTERNAL };

typedef struct {
    bool has_established, has_lower_mm, has_upper_mm;
    ControlLines established;
    uint32_t feature;       /* FEATURE_… */
    double gauge_sigma_mm;
    SC_LIST(SizeMm) history_mm;
    double lower_mm;        /* limit deviations from nominal_mm */
    SC_LIST(Mate) mates;
    SC_LIST(SizeMm) measured_mm;
    sc_text name;
    double nominal_mm;
    bool rework;            /* material can still be removed */
    uint64_t subgroup;      /* 2 to 10 */
    double upper_mm;
} Characteristic;

typedef struct {
    SC_LIST(Characteristic) characteristics;
    double cpk_min;
    uint64_t generation;
    sc_text lot;
    uint64_t parts;
} InspectPartRequest;

enum { CHART_MEAN, CHART_RANGE };
enum { FIT_CLEARANCE, FIT_TRANSITION, FIT_INTERFERENCE };
enum { FITS_EVERY, FITS_MOST, FITS_MEASURED, FITS_NONE };
enum { VERDICT_ACCEPT, VERDICT_REWORK, VERDICT_REJECT };

typedef struct {
    uint32_t chart;         /* CHART_… */
    uint64_t point, rule;
} Signal;

typedef struct {
    double center_mm;
    bool established;
    double mean_lower_mm, mean_upper_mm;
    uint64_t points;
    double range_lower_mm, range_mm, range_upper_mm;
    SC_LIST(Signal) signals;    /* at most SIGNALS_MAX */
    uint64_t signals_total;
} ControlChart;

#define SIGNALS_MAX 64

typedef struct {
    bool has_cp, has_pp;
    double cp, cpk, cpk_lower, overall_sigma_mm, pp, ppk, sigma_mm;
    uint64_t values;
} Capability;

typedef struct {
    uint32_t fit, fits;     /* FIT_…, FITS_… */
    uint64_t generation;
    double measured_max_mm, measured_min_mm, statistical_max_mm, statistical_min_mm, worst_max_mm, worst_min_mm;
} Compatibility;

typedef struct {
    bool has_capability, has_chart, has_window_lower_mm, has_window_upper_mm;
    uint64_t accepted;
    Capability capability;
    ControlChart chart;
    SC_LIST(Compatibility) mates;
    sc_text name;
    uint32_t verdict;       /* VERDICT_… */
    double window_lower_mm, window_upper_mm;
} CharacteristicVerdict;

typedef struct {
    sc_texts cautions;
    SC_LIST(CharacteristicVerdict) characteristics;
    sc_text lot;
    sc_texts reasons;
    uint32_t verdict;       /* VERDICT_… */
} InspectPartReply;
extern const sc_shape InspectPartRequest_shape, InspectPartReply_shape;

/* ---- bid ---- */

typedef struct {
    uint64_t deadline_ms;
    sc_text id;
    Position position_m;
    double reward;
    uint64_t work_ms;
} Bounty;

typedef struct { double fuel_unit, hour, wear; } Costs;

typedef struct {
    double fuel, fuel_per_hour;
    Position position_m;
    uint64_t queue_ms;
    double speed_m_s, wear, wear_per_hour;
} BidNode;

typedef struct {
    Bounty bounty;
    Costs costs;
    double margin;
    BidNode node;
} BidRequest;

typedef struct {
    double cost;
    uint64_t finish_ms;
    sc_text id;
    bool has_price;         /* false: no bid */
    double price;
    sc_text reason;
} BidReply;
extern const sc_shape BidRequest_shape, BidReply_shape;

/* ---- handle ---- */

/* PHASE_PREPARE on arrival and PHASE_ACT at T, or, where there is no T, PHASE_ACT alone. */
enum { PHASE_PREPARE, PHASE_ACT };
/* VERB_DECIDE, VERB_ACT and VERB_SYNC come only from a tier above. */
enum { VERB_OBSERVE, VERB_ORIENT, VERB_DECIDE, VERB_ACT, VERB_RECORD, VERB_SYNC };
enum { STATE_READY, STATE_CONFLICT };

typedef struct {
    uint64_t at_ms;         /* the arrival time T, fleet time, Unix ms; 0: at once */
    sc_bytes correlation, id, payload;
    uint32_t phase;         /* PHASE_… */
    uint64_t priority;      /* 0 to 3 */
    sc_text source, topic;
    uint32_t verb;          /* VERB_… */
    double weight;
} HandleRequest;

typedef struct {
    sc_text detail;
    bool handled;           /* false: not for this skill, and the rest means nothing */
    sc_bytes payload;       /* goes back to the source */
    uint32_t state;         /* STATE_… */
} HandleReply;
extern const sc_shape HandleRequest_shape, HandleReply_shape;

/* ---- The capability `motion` ---- */

typedef struct { double x, y, z, feed_mm_s; } Move;
typedef struct { SC_LIST(Move) moves; } MotionMove;     /* 1 to MOTION_MOVES_MAX of them */
typedef struct { double celsius; sc_text heater; } MotionHeat;
typedef struct { double watts; } MotionTool;
typedef struct { uint8_t unused; } MotionHome;
typedef struct { uint64_t ms; } MotionDwell;
typedef struct { uint8_t unused; } MotionStatus;
typedef struct { uint64_t moves; Point position_mm; } MotionReply;
extern const sc_shape MotionMove_shape, MotionHeat_shape, MotionTool_shape, MotionHome_shape, MotionDwell_shape,
    MotionStatus_shape, MotionReply_shape;

#define MOTION_MOVES_MAX 256

/* ---- The capability `flags` ---- */

typedef struct { sc_text flag; } FlagRequest;
typedef struct { bool on; } FlagReply;
extern const sc_shape FlagRequest_shape, FlagReply_shape;

#endif
