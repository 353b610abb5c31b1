//! The shapes of sdk/contract/skill.cddl as Zig structs. Names and order follow that file; encoding sorts the keys.

const Bytes = @import("shape.zig").Bytes;

// ---- Every hook ----

/// Reply of any hook when bit 31 of its length is set, and of a driver that refuses.
pub const ErrorReply = struct {
    /// lower_snake_case, for programs; at most 64 bytes.
    code: []const u8,
    /// One line, for people; at most 1,024 bytes.
    message: []const u8,
};

pub const SelfTestRequest = struct {};
pub const SelfTestReply = struct {
    detail: []const u8,
    ok: bool,
};

/// A measured value and its standard uncertainty (one sigma), in the unit of the key that holds it.
pub const Quantity = struct {
    sigma: f64,
    value: f64,
};

/// x, y, z in mm, machine coordinates.
pub const Point = [3]f64;

// ---- plan_job ----

pub const PlanJobRequest = struct {
    chunk: Bytes,
    last: bool,
    run: bool,
    seq: u64,
    settings: PlanSettings,
};

pub const PlanSettings = struct {
    accel_mm_s2: ?f64 = null,
    chord_mm: ?f64 = null,
    feed_max_mm_min: ?f64 = null,
    junction_deviation_mm: ?f64 = null,
    start_mm: ?Point = null,
    /// The end of the program, at most 64 KiB; may begin inside a line.
    tail: ?Bytes = null,
    tool_w_per_s: ?f64 = null,
};

pub const PlanProgress = struct {
    done: bool = false,
    lines: u64,
};

pub const PlanReport = struct {
    bbox_mm: BoundingBox,
    complete: bool,
    dialect: Dialect,
    done: bool = true,
    driven: u64,
    extruded_mm: f64,
    lines: u64,
    moves: MoveCounts,
    path_mm: PathLengths,
    problems: []const Problem,
    problems_total: u64,
    time_s: f64,
    units: Units,
};

/// Each reply but the last is progress; the last is the report.
pub const PlanReply = union(enum) {
    progress: PlanProgress,
    report: PlanReport,
};

pub const BoundingBox = struct { max: Point, min: Point };
pub const Dialect = enum { grbl, marlin, rs274 };
pub const MoveCounts = struct { arc: u64, linear: u64, rapid: u64 };
pub const PathLengths = struct { arc: f64, linear: f64, rapid: f64, total: f64 };
pub const Problem = struct { code: []const u8, line: u64, message: []const u8 };
pub const Units = enum { inch, mm };

// ---- assess_feedstock ----

pub const AssessFeedstockRequest = struct {
    assay: []const ElementAssay,
    lot: []const u8,
    mass_kg: Quantity,
    moisture: Quantity,
    particles: Particles,
    products: []const Product,
    work_index_kwh_t: Quantity,
};

pub const ElementAssay = struct { element: []const u8, fraction: Quantity };
pub const Particles = struct { d10_um: f64, d50_um: f64, d80_um: f64 };

pub const Product = struct {
    element: []const u8,
    grade: f64,
    impurities: []const ImpurityCeiling,
    name: []const u8,
    particle_um: f64,
    recovery: Quantity,
};

pub const ImpurityCeiling = struct { element: []const u8, fraction_max: f64 };

pub const AssessFeedstockReply = struct {
    best: []const u8,
    dry_mass_kg: Quantity,
    lot: []const u8,
    products: []const ProductVerdict,
    warnings: []const []const u8,
};

pub const ProductVerdict = struct {
    confidence: f64,
    energy_kwh_t: Quantity,
    name: []const u8,
    reasons: []const []const u8,
    suitable: bool,
    yield_kg: Quantity,
};

// ---- inspect_part ----

pub const InspectPartRequest = struct {
    characteristics: []const Characteristic,
    cpk_min: f64,
    generation: u64,
    lot: []const u8,
    parts: u64,
};

/// Sizes and deviations in mm; the limits are deviations from the nominal size, null for none on that side.
pub const Characteristic = struct {
    established: ?ControlLines = null,
    feature: Feature,
    gauge_sigma_mm: f64,
    history_mm: []const f64,
    lower_mm: ?f64 = null,
    mates: []const Mate,
    measured_mm: []const f64,
    name: []const u8,
    nominal_mm: f64,
    /// Material can still be removed.
    rework: bool,
    /// 2 to 10.
    subgroup: u4,
    upper_mm: ?f64 = null,
};

pub const Feature = enum { external, internal };
pub const ControlLines = struct { center_mm: f64, range_mm: f64 };

pub const Mate = struct {
    /// Below 0 it is interference.
    clearance_max_mm: f64,
    clearance_min_mm: f64,
    generation: u64,
    lower_mm: f64,
    mean_mm: f64,
    /// False: only stated, without effect on the verdict.
    required: bool,
    sigma_mm: f64,
    upper_mm: f64,
};

pub const InspectPartReply = struct {
    cautions: []const []const u8,
    characteristics: []const CharacteristicVerdict,
    lot: []const u8,
    reasons: []const []const u8,
    verdict: Verdict,
};

pub const Verdict = enum { accept, rework, reject };

pub const CharacteristicVerdict = struct {
    accepted: u64,
    capability: ?Capability = null,
    chart: ?ControlChart = null,
    mates: []const Compatibility,
    name: []const u8,
    verdict: Verdict,
    window_lower_mm: ?f64 = null,
    window_upper_mm: ?f64 = null,
};

pub const Capability = struct {
    cp: ?f64 = null,
    cpk: f64,
    cpk_lower: f64,
    overall_sigma_mm: f64,
    pp: ?f64 = null,
    ppk: f64,
    sigma_mm: f64,
    values: u64,
};

/// The most signals of one chart.
pub const signals_max = 64;

pub const ControlChart = struct {
    center_mm: f64,
    established: bool,
    mean_lower_mm: f64,
    mean_upper_mm: f64,
    points: u64,
    range_lower_mm: f64,
    range_mm: f64,
    range_upper_mm: f64,
    /// At most `signals_max`.
    signals: []const Signal,
    signals_total: u64,
};

pub const Signal = struct { chart: Chart, point: u64, rule: u64 };
pub const Chart = enum { mean, range };

pub const Compatibility = struct {
    fit: Fit,
    fits: Fits,
    generation: u64,
    measured_max_mm: f64,
    measured_min_mm: f64,
    statistical_max_mm: f64,
    statistical_min_mm: f64,
    worst_max_mm: f64,
    worst_min_mm: f64,
};

pub const Fit = enum { clearance, transition, interference };
pub const Fits = enum { every, most, measured, none };

// ---- bid ----

pub const BidRequest = struct {
    bounty: Bounty,
    costs: Costs,
    margin: f64,
    node: BidNode,
};

pub const Bounty = struct {
    deadline_ms: u64,
    id: []const u8,
    position_m: [2]f64,
    reward: f64,
    work_ms: u64,
};

pub const Costs = struct { fuel_unit: f64, hour: f64, wear: f64 };

pub const BidNode = struct {
    fuel: f64,
    fuel_per_hour: f64,
    position_m: [2]f64,
    queue_ms: u64,
    speed_m_s: f64,
    wear: f64,
    wear_per_hour: f64,
};

pub const BidReply = struct {
    cost: f64,
    finish_ms: u64,
    id: []const u8,
    /// Null: no bid.
    price: ?f64 = null,
    reason: []const u8,
};

// ---- handle ----

/// The lengths of `correlation`, `id` and the others are the contract's: the host sends no other.
pub const HandleRequest = struct {
    /// The arrival time T, fleet time, Unix ms; 0: at once.
    at_ms: u64,
    correlation: Bytes,
    id: Bytes,
    payload: Bytes,
    phase: Phase,
    priority: u2,
    source: []const u8,
    topic: []const u8,
    verb: Verb,
    weight: f64,
};

/// `prepare` on arrival and `act` at T, or, where there is no T, `act` alone.
pub const Phase = enum { prepare, act };
/// `decide`, `act` and `sync` come only from a tier above.
pub const Verb = enum { observe, orient, decide, act, record, sync };

pub const HandleReply = struct {
    /// One line, for people; at most 1,024 bytes.
    detail: []const u8 = "",
    /// False: not for this skill, and the rest means nothing.
    handled: bool = true,
    /// Goes back to the source; at most 16,384 bytes.
    payload: Bytes = .{ .data = "" },
    state: HandleState = .ready,
};

pub const HandleState = enum { ready, conflict };

// ---- The capability `motion` ----

pub const MotionRequest = union(enum) {
    move: MotionMove,
    heat: MotionHeat,
    tool: MotionTool,
    home: MotionHome,
    dwell: MotionDwell,
    status: MotionStatus,
};

/// The most moves of one motion-move.
pub const motion_moves_max = 256;

pub const MotionMove = struct {
    /// x, y, z in mm and the feed in mm/s; 1 to `motion_moves_max` of them.
    moves: []const [4]f64,
    op: []const u8 = "move",
};
pub const MotionHeat = struct { celsius: f64, heater: []const u8, op: []const u8 = "heat" };
pub const MotionTool = struct { op: []const u8 = "tool", watts: f64 };
pub const MotionHome = struct { op: []const u8 = "home" };
pub const MotionDwell = struct { ms: u64, op: []const u8 = "dwell" };
pub const MotionStatus = struct { op: []const u8 = "status" };

pub const MotionReply = struct {
    moves: u64,
    position_mm: Point,
};

// ---- The capability `flags` ----

/// lower_snake_case, at most 64 bytes.
pub const FlagRequest = struct { flag: []const u8 };
/// A flag that nobody named is off.
pub const FlagReply = struct { on: bool };
