"""The contract's shapes of the hook `inspect_part`: a lot's measured sizes, and what a skill makes of them."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from host.plugins.shape import Line, Natural, Shape, ShortText, Size, Spread

Verdict = Literal["accept", "rework", "reject"]


class ControlLines(Shape, frozen=True):
    """Centre lines of X̄ and R that were established earlier, from subgroups of the same size."""

    center_mm: Size
    range_mm: Spread


class Mate(Shape, frozen=True):
    """The counterpart as one hardware generation makes it."""

    clearance_max_mm: Size
    clearance_min_mm: Size
    generation: Natural
    lower_mm: Size
    mean_mm: Size
    required: bool
    sigma_mm: Spread
    upper_mm: Size


class Characteristic(Shape, frozen=True):
    """One size of a part: what the drawing allows, what was measured, and what it has to mate with."""

    feature: Literal["external", "internal"]
    gauge_sigma_mm: Spread
    history_mm: Annotated[tuple[Size, ...], Meta(max_length=1000)]
    mates: Annotated[tuple[Mate, ...], Meta(max_length=8)]
    measured_mm: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=100)]
    name: ShortText
    nominal_mm: Size
    rework: bool
    subgroup: Annotated[int, Meta(ge=2, le=10)]
    established: ControlLines | UnsetType = UNSET
    lower_mm: Size | UnsetType = UNSET
    upper_mm: Size | UnsetType = UNSET


class InspectPartRequest(Shape, frozen=True):
    characteristics: Annotated[tuple[Characteristic, ...], Meta(min_length=1, max_length=16)]
    cpk_min: Annotated[float, Meta(ge=0, le=10)]
    generation: Natural
    lot: ShortText
    parts: Annotated[int, Meta(ge=1, le=1_000_000)]


class Signal(Shape, frozen=True):
    """A point of a chart that a rule holds for; of a pattern its last point."""

    chart: Literal["mean", "range"]
    point: Natural
    rule: Annotated[int, Meta(ge=1, le=8)]


class ControlChart(Shape, frozen=True):
    """The X̄ and R charts (ISO 7870-2): their lines, and where the rules see something."""

    center_mm: float
    established: bool
    mean_lower_mm: float
    mean_upper_mm: float
    points: Natural
    range_lower_mm: float
    range_mm: float
    range_upper_mm: float
    signals: Annotated[tuple[Signal, ...], Meta(max_length=64)]
    signals_total: Natural


class Capability(Shape, frozen=True):
    """What the process makes beside what the drawing allows. Cp and Pp are absent with one limit only."""

    cpk: float
    cpk_lower: float
    overall_sigma_mm: float
    ppk: float
    sigma_mm: float
    values: Natural
    cp: float | UnsetType = UNSET
    pp: float | UnsetType = UNSET


class Compatibility(Shape, frozen=True):
    """Clearance to the counterpart of one generation; below 0 it is interference."""

    fit: Literal["clearance", "transition", "interference"]
    fits: Literal["every", "most", "measured", "none"]
    generation: Natural
    measured_max_mm: float
    measured_min_mm: float
    statistical_max_mm: float
    statistical_min_mm: float
    worst_max_mm: float
    worst_min_mm: float


class CharacteristicVerdict(Shape, frozen=True):
    """What was found for one characteristic. The window holds the measured sizes that are accepted, and those to rework to."""

    accepted: Natural
    mates: Annotated[tuple[Compatibility, ...], Meta(max_length=8)]
    name: ShortText
    verdict: Verdict
    capability: Capability | UnsetType = UNSET
    chart: ControlChart | UnsetType = UNSET
    window_lower_mm: float | UnsetType = UNSET
    window_upper_mm: float | UnsetType = UNSET


class InspectPartReply(Shape, frozen=True):
    cautions: tuple[Line, ...]
    characteristics: Annotated[tuple[CharacteristicVerdict, ...], Meta(min_length=1, max_length=16)]
    lot: ShortText
    reasons: tuple[Line, ...]
    verdict: Verdict
