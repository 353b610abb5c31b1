//! The shapes of sdk/contract/skill.cddl. Made by `python -m sdk.bindings` from the host's structs; fields stand in the order of the wire.

use crate::shape::constants;
use crate::{shape, words, Bytes};

constants! {
    /// A key that is always true.
    Yes = true;
    /// A key that is always false.
    No = false;
}

words! {
    pub enum Verb { Observe = "observe", Orient = "orient", Decide = "decide", Act = "act", Record = "record", Sync = "sync" }
    pub enum Phase { Prepare = "prepare", Act = "act" }
    pub enum HandleState { Ready = "ready", Conflict = "conflict" }
    pub enum Feature { External = "external", Internal = "internal" }
    pub enum Fit { Clearance = "clearance", Transition = "transition", Interference = "interference" }
    pub enum Fits { Every = "every", Most = "most", Measured = "measured", None = "none" }
    pub enum Chart { Mean = "mean", Range = "range" }
    pub enum Verdict { Accept = "accept", Rework = "rework", Reject = "reject" }
    pub enum Units { Inch = "inch", Mm = "mm" }
    pub enum Dialect { Grbl = "grbl", Marlin = "marlin", Rs274 = "rs274" }
    pub enum OpMove { Move = "move" }
    pub enum OpHeat { Heat = "heat" }
    pub enum OpTool { Tool = "tool" }
    pub enum OpHome { Home = "home" }
    pub enum OpDwell { Dwell = "dwell" }
    pub enum OpStatus { Status = "status" }
}

shape! {
    pub struct ErrorReply {
        /// lower_snake_case, for programs
        code: String [1, 64],
        /// for people
        message: String [0, 1024],
    }
    /// A measured value and its standard uncertainty, in the unit of the key that holds it.
    pub struct Quantity {
        sigma: f64 [0, f64::MAX],
        value: f64,
    }
    pub struct ElementAssay {
        element: String [0, 64],
        fraction: Quantity,
    }
    pub struct Particles {
        d10_um: f64 [0, f64::MAX],
        d50_um: f64 [0, f64::MAX],
        d80_um: f64 [0, f64::MAX],
    }
    pub struct ImpurityCeiling {
        element: String [0, 64],
        fraction_max: f64 [0, 1],
    }
    pub struct Product {
        name: String [0, 64],
        /// its mass fraction in the product
        grade: f64 [0, 1],
        /// the element that is sold
        element: String [0, 64],
        /// share of the element that reaches the product, 0..1
        recovery: Quantity,
        /// ceilings, mass fraction of the dry feed
        impurities: Vec<ImpurityCeiling>,
        /// 80 % passing size that the process needs
        particle_um: f64 [0, f64::MAX],
    }
    pub struct AssessFeedstockRequest {
        lot: String [0, 64],
        /// mass fraction of the dry solids, 0..1
        assay: Vec<ElementAssay> [1, 64],
        /// as received, water included
        mass_kg: Quantity,
        /// mass fraction of the mass as received, 0..1
        moisture: Quantity,
        products: Vec<Product> [1, 16],
        /// passing sizes, ascending
        particles: Particles,
        /// Bond work index of the dry solids
        work_index_kwh_t: Quantity,
    }
    pub struct ProductVerdict {
        name: String [0, 64],
        reasons: Vec<String>,
        suitable: bool,
        yield_kg: Quantity,
        confidence: f64 [0, 1],
        energy_kwh_t: Quantity,
    }
    pub struct AssessFeedstockReply {
        lot: String [0, 64],
        /// name of the most probable suitable product; empty for none
        best: String [0, 64],
        products: Vec<ProductVerdict> [1, 16],
        /// what is odd about the assay itself
        warnings: Vec<String>,
        dry_mass_kg: Quantity,
    }
    pub struct Bounty {
        id: String [0, 64],
        reward: f64,
        work_ms: u64,
        position_m: [f64; 2],
        deadline_ms: u64,
    }
    pub struct Costs {
        hour: f64,
        wear: f64,
        fuel_unit: f64,
    }
    pub struct BidNode {
        fuel: f64,
        wear: f64,
        queue_ms: u64,
        speed_m_s: f64,
        position_m: [f64; 2],
        fuel_per_hour: f64,
        wear_per_hour: f64,
    }
    pub struct BidRequest {
        node: BidNode,
        costs: Costs,
        bounty: Bounty,
        /// wanted profit over cost, 0.2 = 20 %
        margin: f64,
    }
    pub struct BidReply {
        id: String [0, 64],
        cost: f64,
        /// absent: no bid. Never below cost, never above the reward
        price: Option<f64>,
        reason: String [0, 1024],
        /// from now; 0 when there is no bid
        finish_ms: u64,
    }
    /// One mesh message, in one of its two phases. `at_ms` is the arrival time T in fleet time, Unix ms; 0 is at once.
    pub struct HandleRequest {
        /// of this message
        id: Bytes [16, 16],
        /// decide, act and sync come only from a tier above
        verb: Verb,
        /// the arrival time T, fleet time, Unix ms; 0: at once
        at_ms: u64,
        phase: Phase,
        /// as `cell.start`
        topic: String [1, 64],
        /// name of the node that sent it, verified
        source: String [0, 64],
        /// of the payload
        weight: f64 [0, f64::MAX],
        /// the topic says what is in it
        payload: Bytes [0, 65536],
        /// 3: what keeps the fleet in hand
        priority: u64 [0, 3],
        /// the same in every message of one conversation
        correlation: Bytes [16, 16],
    }
    /// What a skill makes of a message. With `handled` false the rest means nothing.
    pub struct HandleReply {
        /// ready: will act, or has acted
        state: HandleState,
        /// for people
        detail: String [0, 1024],
        /// false: not for this skill, whose other answers then mean nothing
        handled: bool,
        /// goes back to the source
        payload: Bytes [0, 16384],
    }
    /// The counterpart as one hardware generation makes it.
    pub struct Mate {
        /// mean of its sizes
        mean_mm: f64 [-100000, 100000],
        /// the counterpart's smallest size
        lower_mm: f64 [-100000, 100000],
        /// false: only stated, without effect on the verdict
        required: bool,
        /// standard deviation of its sizes
        sigma_mm: f64 [0, 100000],
        /// the counterpart's largest size
        upper_mm: f64 [-100000, 100000],
        /// the hardware generation that makes the counterpart, each once
        generation: u64,
        /// clearance is the internal size less the external one; below 0 it is interference
        clearance_max_mm: f64 [-100000, 100000],
        clearance_min_mm: f64 [-100000, 100000],
    }
    /// Centre lines of X̄ and R that were established earlier, from subgroups of the same size.
    pub struct ControlLines {
        /// centre line of the R chart
        range_mm: f64 [0, 100000],
        /// centre line of the X̄ chart
        center_mm: f64 [-100000, 100000],
    }
    /// One size of a part: what the drawing allows, what was measured, and what it has to mate with.
    pub struct Characteristic {
        name: String [0, 64],
        /// a characteristic with mates has both limits
        mates: Vec<Mate> [0, 8],
        /// material can still be removed
        rework: bool,
        /// external: removing material makes it smaller, as a shaft; internal: larger, as a bore
        feature: Feature,
        /// lower limit deviation from nominal_mm; absent: no limit on this side
        lower_mm: Option<f64> [-100000, 100000],
        /// so many consecutive values are a point of the charts; an incomplete last subgroup is not charted
        subgroup: u64 [2, 10],
        /// upper limit deviation from nominal_mm; absent: no limit on this side
        upper_mm: Option<f64> [-100000, 100000],
        /// the process so far, oldest first, one value a part
        history_mm: Vec<f64> [0, 1000] of [-100000, 100000],
        nominal_mm: f64 [-100000, 100000],
        /// absent: the lines are computed from what was measured
        established: Option<ControlLines>,
        /// the parts of this lot that were measured, one value a part; they come after history_mm
        measured_mm: Vec<f64> [1, 100] of [-100000, 100000],
        /// standard uncertainty of one measurement
        gauge_sigma_mm: f64 [0, 100000],
    }
    pub struct InspectPartRequest {
        /// the part or lot
        lot: String [0, 64],
        /// in the lot
        parts: u64 [1, 1000000],
        /// the Cpk that a lot needs whose parts were not all measured
        cpk_min: f64 [0, 10],
        /// the hardware generation that made the parts
        generation: u64,
        characteristics: Vec<Characteristic> [1, 16],
    }
    /// Clearance to the counterpart of one generation; below 0 it is interference.
    pub struct Compatibility {
        /// of the two tolerance intervals (ISO 286-1)
        fit: Fit,
        /// within the wanted clearance: by the worst case, statistically, the measured parts only, not even those
        fits: Fits,
        generation: u64,
        /// greatest clearance between the two tolerance intervals
        worst_max_mm: f64,
        worst_min_mm: f64,
        /// greatest clearance of the measured parts, guard band included
        measured_max_mm: f64,
        measured_min_mm: f64,
        /// mean clearance and three standard deviations (root sum of squares)
        statistical_max_mm: f64,
        statistical_min_mm: f64,
    }
    /// What the process makes beside what the drawing allows. Cp and Pp are absent with one limit only.
    pub struct Capability {
        /// of the spread within subgroups; absent with one limit
        cp: Option<f64>,
        /// of the overall standard deviation; absent with one limit
        pp: Option<f64>,
        cpk: f64,
        ppk: f64,
        /// that were charted
        values: u64,
        /// the mean range / d2
        sigma_mm: f64,
        /// lower 95 % confidence limit of cpk, one-sided
        cpk_lower: f64,
        /// standard deviation of all charted values
        overall_sigma_mm: f64,
    }
    /// A point of a chart that a rule holds for; of a pattern its last point.
    pub struct Signal {
        /// of L. S. Nelson (1984); the range chart has rule 1 only
        rule: u64 [1, 8],
        chart: Chart,
        /// 1 is the oldest; of a pattern, its last point
        point: u64,
    }
    /// The X̄ and R charts (ISO 7870-2): their lines, and where the rules see something.
    pub struct ControlChart {
        /// complete subgroups
        points: u64,
        /// the newest 64, in order of point, chart and rule
        signals: Vec<Signal> [0, 64],
        /// centre line of the R chart
        range_mm: f64,
        /// centre line of the X̄ chart
        center_mm: f64,
        /// the lines are those of the request
        established: bool,
        /// control limits of the X̄ chart
        mean_lower_mm: f64,
        mean_upper_mm: f64,
        signals_total: u64,
        /// control limits of the R chart
        range_lower_mm: f64,
        range_upper_mm: f64,
    }
    /// What was found for one characteristic. The window holds the measured sizes that are accepted, and those to rework to.
    pub struct CharacteristicVerdict {
        name: String [0, 64],
        /// absent below 2 complete subgroups, or below 1 with established lines
        chart: Option<ControlChart>,
        /// in the order of the request
        mates: Vec<Compatibility> [0, 8],
        verdict: Verdict,
        /// measured parts that lie in the window
        accepted: u64,
        /// absent without a chart, or without a spread
        capability: Option<Capability>,
        /// measured sizes from here on are accepted: conformity is proven, and it mates; absent: no limit on this side
        window_lower_mm: Option<f64>,
        /// measured sizes up to here; below window_lower_mm: no size is accepted
        window_upper_mm: Option<f64>,
    }
    pub struct InspectPartReply {
        lot: String [0, 64],
        /// one or more for each characteristic, in words with numbers
        reasons: Vec<String>,
        /// the worst of the characteristics
        verdict: Verdict,
        /// what weakens the statement, in words
        cautions: Vec<String>,
        /// in the order of the request
        characteristics: Vec<CharacteristicVerdict> [1, 16],
    }
    /// Nothing: a skill tests itself.
    pub struct SelfTestRequest {}
    pub struct SelfTestReply {
        ok: bool,
        detail: String [0, 1024],
    }
    /// What stands for a program's missing limits; see the CDDL for each.
    pub struct PlanSettings {
        /// the end of the program, where slicers write their configuration; may begin inside a line
        tail: Option<Bytes> [0, 65536],
        /// greatest distance of an arc's segments from the arc, when driven
        chord_mm: Option<f64>,
        /// where the machine stands when the program begins
        start_mm: Option<[f64; 3]>,
        /// acceleration until the program states its own (M204)
        accel_mm_s2: Option<f64>,
        /// watts for each unit of the S word of M3 and M4, when driven
        tool_w_per_s: Option<f64>,
        /// ceiling for every move, rapids included
        feed_max_mm_min: Option<f64>,
        /// used in place of the dialect's own cornering rule
        junction_deviation_mm: Option<f64>,
    }
    /// One chunk of a program.
    pub struct PlanJobRequest {
        run: bool,
        seq: u64,
        last: bool,
        chunk: Bytes [0, 1048576],
        settings: PlanSettings,
    }
    /// The reply to every chunk but the last.
    pub struct PlanProgress {
        done: No,
        lines: u64,
    }
    pub struct BoundingBox {
        max: [f64; 3],
        min: [f64; 3],
    }
    pub struct MoveCounts {
        arc: u64,
        rapid: u64,
        linear: u64,
    }
    pub struct PathLengths {
        arc: f64 [0, f64::MAX],
        rapid: f64 [0, f64::MAX],
        total: f64 [0, f64::MAX],
        linear: f64 [0, f64::MAX],
    }
    pub struct Problem {
        code: String [0, 64],
        line: u64,
        message: String [0, 1024],
    }
    /// What a whole program does; the last reply of `plan_job`.
    pub struct PlanReport {
        done: Yes,
        lines: u64,
        /// those with length
        moves: MoveCounts,
        /// what the program used for its first move
        units: Units,
        /// moves that the motion driver accepted; 0 unless `run`
        driven: u64,
        time_s: f64 [0, f64::MAX],
        bbox_mm: BoundingBox,
        dialect: Dialect,
        path_mm: PathLengths,
        /// false when anything in the program was not understood
        complete: bool,
        /// the first of them, in order of line
        problems: Vec<Problem> [0, 256],
        /// net length of filament fed; 0 for machines that cut
        extruded_mm: f64,
        problems_total: u64,
    }
    /// Straight moves, one after the other: x, y, z in mm and the speed in mm/s.
    pub struct MotionMove {
        op: OpMove,
        moves: Vec<[f64; 4]> [1, 256],
    }
    /// Sets a heater's target, in °C.
    pub struct MotionHeat {
        op: OpHeat,
        heater: String [1, 64],
        celsius: f64,
    }
    /// Sets the power of the spindle or laser, in watts; 0 is off.
    pub struct MotionTool {
        op: OpTool,
        watts: f64,
    }
    /// Moves every axis to its reference.
    pub struct MotionHome {
        op: OpHome,
    }
    /// Waits, in ms.
    pub struct MotionDwell {
        ms: u64 [0, 86400000],
        op: OpDwell,
    }
    /// Asks where the machine is. Changes nothing, so it passes in safe mode too.
    pub struct MotionStatus {
        op: OpStatus,
    }
    /// What the driver of `motion` answers.
    pub struct MotionReply {
        /// moves executed since the driver started
        moves: u64,
        position_mm: [f64; 3],
    }
    /// Asks for one flag by its name.
    pub struct FlagRequest {
        flag: String [0, 64],
    }
    /// A flag that nobody named is off.
    pub struct FlagReply {
        /// a flag that nobody named is off
        on: bool,
    }
}

/// The reply of `plan_job`: each but the last is progress, the last is the report.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanJobReply {
    Progress(PlanProgress),
    Report(PlanReport),
}

impl crate::Encode for PlanJobReply {
    fn encode(&self, out: &mut crate::Writer) {
        match self {
            PlanJobReply::Progress(progress) => progress.encode(out),
            PlanJobReply::Report(report) => report.encode(out),
        }
    }
}
