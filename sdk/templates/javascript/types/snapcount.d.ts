// What a skill in JavaScript imports from "snapcount". Made by `python -m sdk.bindings` from the host's structs and the comments of skill.cddl.

declare module "snapcount" {
  /** Ends the call with an error reply: `code` is lower_snake_case, for programs, `message` one line for people. */
  export function fail(code: string, message: string): never;

  /** What `fail` throws, and what a driver refused. */
  export class Failure extends Error {
    constructor(code: string, message: string);
    code: string;
  }

  /** Writes one line to the host's log (capability `log`). */
  export function log(level: "debug" | "info" | "warning" | "error", line: string): void;

  /** Unix time in milliseconds (capability `clock`). */
  export function nowMs(): number;

  /** So many random bytes (capability `random`). */
  export function random(size: number): Uint8Array;

  /** The skill's own keys and values, which outlive it (capability `state`). */
  export const state: {
    get(key: string): Uint8Array | undefined;
    /** False: the quota is full, or the value too long; nothing was stored. An empty value deletes the key. */
    set(key: string, value: Uint8Array): boolean;
    delete(key: string): void;
  };

  /** Behaviour that the node's operators switch on (capability `flags`). */
  export const flags: {
    /** A flag that nobody named, or that cannot be asked for, is off. */
    isOn(flag: string): boolean;
  };

  /** Gives the machine a command (capability `motion`). One that is refused throws a Failure. */
  export function motion(command: MotionCommand): MotionReply;

  /** Asks the driver of any other capability; request and reply are CBOR. An error reply throws a Failure. */
  export function ask(capability: string, request: Uint8Array): Uint8Array;

  /** A number that `encode` writes as a float although it is whole. */
  export class Float {
    constructor(value: number);
    value: number;
  }

  /** Deterministic CBOR of null, booleans, numbers, strings, bytes, arrays and plain objects. */
  export function encode(value: unknown): Uint8Array;

  /** What deterministic CBOR says; undefined for anything else. */
  export function decode(bytes: Uint8Array): unknown;

  /** The bytes of a text in UTF-8. */
  export function utf8(text: string): Uint8Array;

  /** The text of bytes in UTF-8; undefined for bytes that are none. */
  export function textOf(bytes: Uint8Array): string | undefined;

  export type Verb = "observe" | "orient" | "decide" | "act" | "record" | "sync";
  export type Phase = "prepare" | "act";
  export type HandleState = "ready" | "conflict";
  export type Feature = "external" | "internal";
  export type Fit = "clearance" | "transition" | "interference";
  export type Fits = "every" | "most" | "measured" | "none";
  export type Chart = "mean" | "range";
  export type Verdict = "accept" | "rework" | "reject";
  export type Units = "inch" | "mm";
  export type Dialect = "grbl" | "marlin" | "rs274";

  export interface ErrorReply {
    /** lower_snake_case, for programs */
    code: string;
    /** for people */
    message: string;
  }

  /** A measured value and its standard uncertainty, in the unit of the key that holds it. */
  export interface Quantity {
    sigma: number;
    value: number;
  }

  export interface ElementAssay {
    element: string;
    fraction: Quantity;
  }

  export interface Particles {
    d10_um: number;
    d50_um: number;
    d80_um: number;
  }

  export interface ImpurityCeiling {
    element: string;
    fraction_max: number;
  }

  export interface Product {
    name: string;
    /** its mass fraction in the product */
    grade: number;
    /** the element that is sold */
    element: string;
    /** share of the element that reaches the product, 0..1 */
    recovery: Quantity;
    /** ceilings, mass fraction of the dry feed */
    impurities: ImpurityCeiling[];
    /** 80 % passing size that the process needs */
    particle_um: number;
  }

  export interface AssessFeedstockRequest {
    lot: string;
    /** mass fraction of the dry solids, 0..1 */
    assay: ElementAssay[];
    /** as received, water included */
    mass_kg: Quantity;
    /** mass fraction of the mass as received, 0..1 */
    moisture: Quantity;
    products: Product[];
    /** passing sizes, ascending */
    particles: Particles;
    /** Bond work index of the dry solids */
    work_index_kwh_t: Quantity;
  }

  export interface ProductVerdict {
    name: string;
    reasons: string[];
    suitable: boolean;
    yield_kg: Quantity;
    confidence: number;
    energy_kwh_t: Quantity;
  }

  export interface AssessFeedstockReply {
    lot: string;
    /** name of the most probable suitable product; empty for none */
    best: string;
    products: ProductVerdict[];
    /** what is odd about the assay itself */
    warnings: string[];
    dry_mass_kg: Quantity;
  }

  export interface Bounty {
    id: string;
    reward: number;
    work_ms: number;
    position_m: [number, number];
    deadline_ms: number;
  }

  export interface Costs {
    hour: number;
    wear: number;
    fuel_unit: number;
  }

  export interface BidNode {
    fuel: number;
    wear: number;
    queue_ms: number;
    speed_m_s: number;
    position_m: [number, number];
    fuel_per_hour: number;
    wear_per_hour: number;
  }

  export interface BidRequest {
    node: BidNode;
    costs: Costs;
    bounty: Bounty;
    /** wanted profit over cost, 0.2 = 20 % */
    margin: number;
  }

  export interface BidReply {
    id: string;
    cost: number;
    /** absent: no bid. Never below cost, never above the reward */
    price?: number;
    reason: string;
    /** from now; 0 when there is no bid */
    finish_ms: number;
  }

  /** One mesh message, in one of its two phases. `at_ms` is the arrival time T in fleet time, Unix ms; 0 is at once. */
  export interface HandleRequest {
    /** of this message */
    id: Uint8Array;
    /** decide, act and sync come only from a tier above */
    verb: Verb;
    /** the arrival time T, fleet time, Unix ms; 0: at once */
    at_ms: number;
    phase: Phase;
    /** as `cell.start` */
    topic: string;
    /** name of the node that sent it, verified */
    source: string;
    /** of the payload */
    weight: number;
    /** the topic says what is in it */
    payload: Uint8Array;
    /** 3: what keeps the fleet in hand */
    priority: number;
    /** the same in every message of one conversation */
    correlation: Uint8Array;
  }

  /** What a skill makes of a message. With `handled` false the rest means nothing. */
  export interface HandleReply {
    /** ready: will act, or has acted */
    state: HandleState;
    /** for people */
    detail: string;
    /** false: not for this skill, whose other answers then mean nothing */
    handled: boolean;
    /** goes back to the source */
    payload: Uint8Array;
  }

  /** The counterpart as one hardware generation makes it. */
  export interface Mate {
    /** mean of its sizes */
    mean_mm: number;
    /** the counterpart's smallest size */
    lower_mm: number;
    /** false: only stated, without effect on the verdict */
    required: boolean;
    /** standard deviation of its sizes */
    sigma_mm: number;
    /** the counterpart's largest size */
    upper_mm: number;
    /** the hardware generation that makes the counterpart, each once */
    generation: number;
    /** clearance is the internal size less the external one; below 0 it is interference */
    clearance_max_mm: number;
    clearance_min_mm: number;
  }

  /** Centre lines of X̄ and R that were established earlier, from subgroups of the same size. */
  export interface ControlLines {
    /** centre line of the R chart */
    range_mm: number;
    /** centre line of the X̄ chart */
    center_mm: number;
  }

  /** One size of a part: what the drawing allows, what was measured, and what it has to mate with. */
  export interface Characteristic {
    name: string;
    /** a characteristic with mates has both limits */
    mates: Mate[];
    /** material can still be removed */
    rework: boolean;
    /** external: removing material makes it smaller, as a shaft; internal: larger, as a bore */
    feature: Feature;
    /** lower limit deviation from nominal_mm; absent: no limit on this side */
    lower_mm?: number;
    /** so many consecutive values are a point of the charts; an incomplete last subgroup is not charted */
    subgroup: number;
    /** upper limit deviation from nominal_mm; absent: no limit on this side */
    upper_mm?: number;
    /** the process so far, oldest first, one value a part */
    history_mm: number[];
    nominal_mm: number;
    /** absent: the lines are computed from what was measured */
    established?: ControlLines;
    /** the parts of this lot that were measured, one value a part; they come after history_mm */
    measured_mm: number[];
    /** standard uncertainty of one measurement */
    gauge_sigma_mm: number;
  }

  export interface InspectPartRequest {
    /** the part or lot */
    lot: string;
    /** in the lot */
    parts: number;
    /** the Cpk that a lot needs whose parts were not all measured */
    cpk_min: number;
    /** the hardware generation that made the parts */
    generation: number;
    characteristics: Characteristic[];
  }

  /** Clearance to the counterpart of one generation; below 0 it is interference. */
  export interface Compatibility {
    /** of the two tolerance intervals (ISO 286-1) */
    fit: Fit;
    /** within the wanted clearance: by the worst case, statistically, the measured parts only, not even those */
    fits: Fits;
    generation: number;
    /** greatest clearance between the two tolerance intervals */
    worst_max_mm: number;
    worst_min_mm: number;
    /** greatest clearance of the measured parts, guard band included */
    measured_max_mm: number;
    measured_min_mm: number;
    /** mean clearance and three standard deviations (root sum of squares) */
    statistical_max_mm: number;
    statistical_min_mm: number;
  }

  /** What the process makes beside what the drawing allows. Cp and Pp are absent with one limit only. */
  export interface Capability {
    /** of the spread within subgroups; absent with one limit */
    cp?: number;
    /** of the overall standard deviation; absent with one limit */
    pp?: number;
    cpk: number;
    ppk: number;
    /** that were charted */
    values: number;
    /** the mean range / d2 */
    sigma_mm: number;
    /** lower 95 % confidence limit of cpk, one-sided */
    cpk_lower: number;
    /** standard deviation of all charted values */
    overall_sigma_mm: number;
  }

  /** A point of a chart that a rule holds for; of a pattern its last point. */
  export interface Signal {
    /** of L. S. Nelson (1984); the range chart has rule 1 only */
    rule: number;
    chart: Chart;
    /** 1 is the oldest; of a pattern, its last point */
    point: number;
  }

  /** The X̄ and R charts (ISO 7870-2): their lines, and where the rules see something. */
  export interface ControlChart {
    /** complete subgroups */
    points: number;
    /** the newest 64, in order of point, chart and rule */
    signals: Signal[];
    /** centre line of the R chart */
    range_mm: number;
    /** centre line of the X̄ chart */
    center_mm: number;
    /** the lines are those of the request */
    established: boolean;
    /** control limits of the X̄ chart */
    mean_lower_mm: number;
    mean_upper_mm: number;
    signals_total: number;
    /** control limits of the R chart */
    range_lower_mm: number;
    range_upper_mm: number;
  }

  /** What was found for one characteristic. The window holds the measured sizes that are accepted, and those to rework to. */
  export interface CharacteristicVerdict {
    name: string;
    /** absent below 2 complete subgroups, or below 1 with established lines */
    chart?: ControlChart;
    /** in the order of the request */
    mates: Compatibility[];
    verdict: Verdict;
    /** measured parts that lie in the window */
    accepted: number;
    /** absent without a chart, or without a spread */
    capability?: Capability;
    /** measured sizes from here on are accepted: conformity is proven, and it mates; absent: no limit on this side */
    window_lower_mm?: number;
    /** measured sizes up to here; below window_lower_mm: no size is accepted */
    window_upper_mm?: number;
  }

  export interface InspectPartReply {
    lot: string;
    /** one or more for each characteristic, in words with numbers */
    reasons: string[];
    /** the worst of the characteristics */
    verdict: Verdict;
    /** what weakens the statement, in words */
    cautions: string[];
    /** in the order of the request */
    characteristics: CharacteristicVerdict[];
  }

  /** Nothing: a skill tests itself. */
  export interface SelfTestRequest {
  }

  export interface SelfTestReply {
    ok: boolean;
    detail: string;
  }

  /** What stands for a program's missing limits; see the CDDL for each. */
  export interface PlanSettings {
    /** the end of the program, where slicers write their configuration; may begin inside a line */
    tail?: Uint8Array;
    /** greatest distance of an arc's segments from the arc, when driven */
    chord_mm?: number;
    /** where the machine stands when the program begins */
    start_mm?: [number, number, number];
    /** acceleration until the program states its own (M204) */
    accel_mm_s2?: number;
    /** watts for each unit of the S word of M3 and M4, when driven */
    tool_w_per_s?: number;
    /** ceiling for every move, rapids included */
    feed_max_mm_min?: number;
    /** used in place of the dialect's own cornering rule */
    junction_deviation_mm?: number;
  }

  /** One chunk of a program. */
  export interface PlanJobRequest {
    run: boolean;
    seq: number;
    last: boolean;
    chunk: Uint8Array;
    settings: PlanSettings;
  }

  /** The reply to every chunk but the last. */
  export interface PlanProgress {
    done: false;
    lines: number;
  }

  export interface BoundingBox {
    max: [number, number, number];
    min: [number, number, number];
  }

  export interface MoveCounts {
    arc: number;
    rapid: number;
    linear: number;
  }

  export interface PathLengths {
    arc: number;
    rapid: number;
    total: number;
    linear: number;
  }

  export interface Problem {
    code: string;
    line: number;
    message: string;
  }

  /** What a whole program does; the last reply of `plan_job`. */
  export interface PlanReport {
    done: true;
    lines: number;
    /** those with length */
    moves: MoveCounts;
    /** what the program used for its first move */
    units: Units;
    /** moves that the motion driver accepted; 0 unless `run` */
    driven: number;
    time_s: number;
    bbox_mm: BoundingBox;
    dialect: Dialect;
    path_mm: PathLengths;
    /** false when anything in the program was not understood */
    complete: boolean;
    /** the first of them, in order of line */
    problems: Problem[];
    /** net length of filament fed; 0 for machines that cut */
    extruded_mm: number;
    problems_total: number;
  }

  /** Straight moves, one after the other: x, y, z in mm and the speed in mm/s. */
  export interface MotionMove {
    op: "move";
    moves: [number, number, number, number][];
  }

  /** Sets a heater's target, in °C. */
  export interface MotionHeat {
    op: "heat";
    heater: string;
    celsius: number;
  }

  /** Sets the power of the spindle or laser, in watts; 0 is off. */
  export interface MotionTool {
    op: "tool";
    watts: number;
  }

  /** Moves every axis to its reference. */
  export interface MotionHome {
    op: "home";
  }

  /** Waits, in ms. */
  export interface MotionDwell {
    ms: number;
    op: "dwell";
  }

  /** Asks where the machine is. Changes nothing, so it passes in safe mode too. */
  export interface MotionStatus {
    op: "status";
  }

  /** What the driver of `motion` answers. */
  export interface MotionReply {
    /** moves executed since the driver started */
    moves: number;
    position_mm: [number, number, number];
  }

  export type MotionCommand = MotionMove | MotionHeat | MotionTool | MotionHome | MotionDwell | MotionStatus;

  /** The reply of `plan_job`: each but the last is progress, the last is the report. */
  export type PlanJobReply = PlanProgress | PlanReport;
}
