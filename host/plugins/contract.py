"""The typed side of ABI 1: one frozen struct for each shape in sdk/contract/skill.cddl, in the same order and with the same bounds.

Units are in the names. Commands for the capability `motion` stand in host/core/commands.py, because the safety envelope reads them; the shapes of
`inspect_part` stand in inspection.py, and what they all are made of in shape.py.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from host.core.limits import DEFAULT
from host.plugins.inspection import (
    Capability,
    Characteristic,
    CharacteristicVerdict,
    Compatibility,
    ControlChart,
    ControlLines,
    InspectPartReply,
    InspectPartRequest,
    Mate,
    Signal,
)  # fmt: skip
from host.plugins.shape import Fraction, Identity, Line, Natural, NotNegative, Shape, ShortText

__all__ = [  # what comes from elsewhere; all that stands below is public too
    "Capability", "Characteristic", "CharacteristicVerdict", "Compatibility", "ControlChart", "ControlLines", "InspectPartReply", "InspectPartRequest", "Mate",
    "Shape", "Signal",
]  # fmt: skip

Point = tuple[float, float, float]
Point2 = tuple[float, float]


class ErrorReply(Shape, frozen=True):
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Line


class SelfTestRequest(Shape, frozen=True):
    """Nothing: a skill tests itself."""


class SelfTestReply(Shape, frozen=True):
    detail: Line
    ok: bool


class Quantity(Shape, frozen=True):
    """A measured value and its standard uncertainty, in the unit of the key that holds it."""

    sigma: NotNegative
    value: float


class PlanSettings(Shape, frozen=True):
    """What stands for a program's missing limits; see the CDDL for each."""

    accel_mm_s2: float | UnsetType = UNSET
    chord_mm: float | UnsetType = UNSET
    feed_max_mm_min: float | UnsetType = UNSET
    junction_deviation_mm: float | UnsetType = UNSET
    start_mm: Point | UnsetType = UNSET
    tail: Annotated[bytes, Meta(max_length=DEFAULT.program_tail_bytes)] | UnsetType = UNSET
    tool_w_per_s: float | UnsetType = UNSET


class PlanJobRequest(Shape, frozen=True):
    """One chunk of a program."""

    chunk: Annotated[bytes, Meta(max_length=DEFAULT.chunk_bytes_max)]
    last: bool
    run: bool
    seq: Natural
    settings: PlanSettings


class PlanProgress(Shape, frozen=True):
    """The reply to every chunk but the last."""

    done: bool
    lines: Natural

    def __post_init__(self) -> None:
        if self.done:
            raise ValueError("expected `done` to be false before the last chunk")


class BoundingBox(Shape, frozen=True):
    max: Point
    min: Point


class MoveCounts(Shape, frozen=True):
    arc: Natural
    linear: Natural
    rapid: Natural


class PathLengths(Shape, frozen=True):
    arc: NotNegative
    linear: NotNegative
    rapid: NotNegative
    total: NotNegative


class Problem(Shape, frozen=True):
    code: ShortText
    line: Natural
    message: Line


class PlanReport(Shape, frozen=True):
    """What a whole program does; the last reply of `plan_job`."""

    bbox_mm: BoundingBox
    complete: bool
    dialect: Literal["grbl", "marlin", "rs274"]
    done: bool
    driven: Natural
    extruded_mm: float
    lines: Natural
    moves: MoveCounts
    path_mm: PathLengths
    problems: Annotated[tuple[Problem, ...], Meta(max_length=256)]
    problems_total: Natural
    time_s: NotNegative
    units: Literal["inch", "mm"]

    def __post_init__(self) -> None:
        if not self.done:
            raise ValueError("expected `done` to be true after the last chunk")


class Constituent(Shape, frozen=True):
    element: ShortText
    fraction: Quantity


class Particles(Shape, frozen=True):
    d10_um: NotNegative
    d50_um: NotNegative
    d80_um: NotNegative


class Impurity(Shape, frozen=True):
    element: ShortText
    fraction_max: Fraction


class Product(Shape, frozen=True):
    element: ShortText
    grade: Fraction
    impurities: tuple[Impurity, ...]
    name: ShortText
    particle_um: NotNegative
    recovery: Quantity


class AssessFeedstockRequest(Shape, frozen=True):
    assay: Annotated[tuple[Constituent, ...], Meta(min_length=1, max_length=64)]
    lot: ShortText
    mass_kg: Quantity
    moisture: Quantity
    particles: Particles
    products: Annotated[tuple[Product, ...], Meta(min_length=1, max_length=16)]
    work_index_kwh_t: Quantity


class ProductAssessment(Shape, frozen=True):
    confidence: Fraction
    energy_kwh_t: Quantity
    name: ShortText
    reasons: tuple[Line, ...]
    suitable: bool
    yield_kg: Quantity


class AssessFeedstockReply(Shape, frozen=True):
    best: ShortText
    dry_mass_kg: Quantity
    lot: ShortText
    products: Annotated[tuple[ProductAssessment, ...], Meta(min_length=1, max_length=16)]
    warnings: tuple[Line, ...]


class Bounty(Shape, frozen=True):
    deadline_ms: Natural
    id: ShortText
    position_m: Point2
    reward: float
    work_ms: Natural


class Costs(Shape, frozen=True):
    fuel_unit: float
    hour: float
    wear: float


class BidderNode(Shape, frozen=True):
    fuel: float
    fuel_per_hour: float
    position_m: Point2
    queue_ms: Natural
    speed_m_s: float
    wear: float
    wear_per_hour: float


class BidRequest(Shape, frozen=True):
    bounty: Bounty
    costs: Costs
    margin: float
    node: BidderNode


class BidReply(Shape, frozen=True):
    cost: float
    finish_ms: Natural
    id: ShortText
    reason: Line
    price: float | UnsetType = UNSET


class HandleRequest(Shape, frozen=True):
    """One mesh message, in one of its two phases. `at_ms` is the arrival time T in fleet time, Unix ms; 0 is at once."""

    at_ms: Natural
    correlation: Identity
    id: Identity
    payload: Annotated[bytes, Meta(max_length=DEFAULT.payload_bytes_max)]
    phase: Literal["prepare", "act"]
    priority: Annotated[int, Meta(ge=0, le=3)]
    source: ShortText
    topic: Annotated[str, Meta(min_length=1, max_length=64)]
    verb: Literal["observe", "orient", "decide", "act", "record", "sync"]
    weight: NotNegative


class HandleReply(Shape, frozen=True):
    """What a skill makes of a message. With `handled` false the rest means nothing."""

    detail: Line
    handled: bool
    payload: Annotated[bytes, Meta(max_length=DEFAULT.reply_payload_bytes_max)]
    state: Literal["ready", "conflict"]


class MotionReply(Shape, frozen=True):
    """What the driver of `motion` answers."""

    moves: Natural
    position_mm: Point


SHAPES: dict[str, tuple[type[Shape], type[Shape]]] = {
    "assess_feedstock": (AssessFeedstockRequest, AssessFeedstockReply),
    "bid": (BidRequest, BidReply),
    "handle": (HandleRequest, HandleReply),
    "inspect_part": (InspectPartRequest, InspectPartReply),
    "self_test": (SelfTestRequest, SelfTestReply),
}
"""Request and reply of each hook that is one wasm call. `plan_job` streams: see host/plugins/streaming.py."""

STREAMING = {"plan_job": (PlanJobRequest, PlanProgress, PlanReport)}
HOOKS = frozenset(SHAPES) | frozenset(STREAMING)
