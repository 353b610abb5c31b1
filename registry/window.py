"""Maintenance windows: whether one is open, and when it opens next. Times are Unix milliseconds, days and minutes are UTC."""

from registry.rollout_document import MINUTES_PER_DAY, Window

MINUTE_MS = 60_000
DAY_MS = MINUTES_PER_DAY * MINUTE_MS
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


def is_open(window: Window | None, now_ms: int) -> bool:
    """True without a window. Of one that goes over midnight, the day is that of its start."""
    if window is None:
        return True
    day, minute = _weekday(now_ms), now_ms % DAY_MS // MINUTE_MS
    if window.start_min < window.end_min:
        return day in window.days and window.start_min <= minute < window.end_min
    started_today = day in window.days and minute >= window.start_min
    return started_today or ((day - 1) % 7 in window.days and minute < window.end_min)


def opens_ms(window: Window | None, now_ms: int) -> int:
    """`now_ms` where it is open, else the next moment at which it opens."""
    if window is None or is_open(window, now_ms):
        return now_ms
    midnight_ms = now_ms - now_ms % DAY_MS
    starts = (midnight_ms + days * DAY_MS + window.start_min * MINUTE_MS for days in range(8))
    return next(start for start in starts if start > now_ms and _weekday(start) in window.days)


def _weekday(at_ms: int) -> int:
    return (at_ms // DAY_MS + EPOCH_WEEKDAY) % 7
