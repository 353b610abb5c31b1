"""The peer's status report: what stands between < and >."""

from collections.abc import Iterable

from sdk.grbl_peer.parser import Modes, Point

OFFSET_EVERY = 10
"""In every so many reports the work offset stands, and in the one after it the overrides."""


def status_line(
    state: str,
    at_mm: Point,
    modes: Modes,
    *,
    unit_mm: float,
    work: bool,
    free: tuple[int, int] | None,
    moving: bool,
    pins: str,
    number: int,
) -> str:
    """One report. `work` reports the work position; `free` are planner blocks and receive bytes; `number` counts the reports since the start."""
    at = [(value - (origin if work else 0.0)) / unit_mm for value, origin in zip(at_mm, modes.offset_mm, strict=True)]
    fields = [state, f"{'WPos' if work else 'MPos'}:{_joined(at)}"]
    if free is not None:
        fields.append(f"Bf:{free[0]},{free[1]}")
    fields.append(f"FS:{modes.feed_mm_min / unit_mm if moving else 0:.0f},{modes.speed:.0f}")
    if pins:
        fields.append(f"Pn:{pins}")
    if number % OFFSET_EVERY == 0:
        fields.append(f"WCO:{_joined(value / unit_mm for value in modes.offset_mm)}")
    elif number % OFFSET_EVERY == 1:
        fields.append("Ov:100,100,100")
    return f"<{'|'.join(fields)}>"


def _joined(values: Iterable[float]) -> str:
    return ",".join(f"{value:.3f}" for value in values)
