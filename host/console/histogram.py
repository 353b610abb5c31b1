"""Arrival errors as bars of text."""

from collections.abc import Iterator, Sequence

from host.mesh.frames import HISTOGRAM_MS

WIDTH = 40


def lines(counts: Sequence[int]) -> Iterator[str]:
    """One line for each bin of HISTOGRAM_MS, empty ones at the ends left out; nothing for no counts. The fullest bin is `WIDTH` characters."""
    filled = [number for number, count in enumerate(counts) if count]
    if not filled:
        return
    shown, fullest = range(filled[0], filled[-1] + 1), max(counts)
    digits = len(f"{fullest:,}")
    for number in shown:
        bar = "█" * round(WIDTH * counts[number] / fullest) or ("▏" if counts[number] else "")
        yield f"{_label(number):>16} ms  {counts[number]:>{digits},}  {bar}".rstrip()


def _label(number: int) -> str:
    if number == 0:
        return f"before {HISTOGRAM_MS[0]:+d}"
    if number == len(HISTOGRAM_MS):
        return f"from {HISTOGRAM_MS[-1]:+d}"
    return f"{_signed(HISTOGRAM_MS[number - 1])} … {_signed(HISTOGRAM_MS[number])}"


def _signed(edge_ms: int) -> str:
    return f"{edge_ms:+d}" if edge_ms else "0"
