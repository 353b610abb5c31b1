"""A small G-code generator: a vase of stacked rounded squares, for demonstrations and tests."""

import math
from collections.abc import Iterator

CENTRE_MM = (150.0, 150.0)
HALF_MM = 40.0
CORNER_MM = 8.0
LAYER_MM = 0.2
WALL_POINTS = 40
FEED_MM_MIN = 3000
# Of each wall, the directions outward and along: bottom, right, top, left.
WALLS = (((0, -1), (1, 0)), ((1, 0), (0, 1)), ((0, 1), (-1, 0)), ((-1, 0), (0, -1)))
EXTRUSION_PER_MM = 0.0332  # 0.4 mm wide, 0.2 mm high, of 1.75 mm filament


def vase(layers: int) -> str:
    """Start-up, `layers` closed walls of 166 lines each with round corners (G3), and the end."""
    return "\n".join([*_start(), *(line for layer in range(layers) for line in _layer(layer)), *_end()]) + "\n"


def _start() -> list[str]:
    return [
        "; generated: a vase of rounded squares", "M104 S210 ; nozzle", "M140 S60 ; bed", "G21 ; mm", "G90", "M83 ; relative extrusion",
        "M201 X3000 Y3000 Z500 E5000", "M203 X200 Y200 Z12 E120", "M204 P1500 R1500 T2000", "M205 X8 Y8 Z0.4 E4.5", "G28", "M109 S210", "G92 E0",
    ]  # fmt: skip


def _end() -> list[str]:
    return ["G1 E-2 F2400", "G0 Z80 F720", "M104 S0", "M140 S0", "M84"]


def _layer(layer: int) -> Iterator[str]:
    half = HALF_MM + 8.0 * math.sin(layer / 12)
    x, y = _on_wall(0, half, 0.0)
    yield f";LAYER:{layer}"
    yield f"G0 X{x:.3f} Y{y:.3f} Z{LAYER_MM * (layer + 1):.3f} F9000"
    for side in range(4):
        yield from _side(side, half)


def _side(side: int, half: float) -> Iterator[str]:
    """One wall, and the round corner after it; the four go round anticlockwise."""
    extruded = 2 * (half - CORNER_MM) / WALL_POINTS * EXTRUSION_PER_MM
    for i in range(1, WALL_POINTS + 1):
        x, y = _on_wall(side, half, i / WALL_POINTS)
        yield f"G1 X{x:.3f} Y{y:.3f} E{extruded:.5f} F{FEED_MM_MIN}"
    x, y = _on_wall((side + 1) % 4, half, 0.0)
    (outward_x, outward_y), _ = WALLS[side]
    extruded = math.pi / 2 * CORNER_MM * EXTRUSION_PER_MM
    yield f"G3 X{x:.3f} Y{y:.3f} I{-outward_x * CORNER_MM:.3f} J{-outward_y * CORNER_MM:.3f} E{extruded:.5f}"


def _on_wall(side: int, half: float, share: float) -> tuple[float, float]:
    """The point at `share` (0..1) of the straight part of a wall."""
    (outward_x, outward_y), (along_x, along_y) = WALLS[side]
    run = (2 * share - 1) * (half - CORNER_MM)
    return CENTRE_MM[0] + outward_x * half + along_x * run, CENTRE_MM[1] + outward_y * half + along_y * run
