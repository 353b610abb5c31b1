"""The arrival kernel, compiled where that is possible, and by its readable reference elsewhere."""

try:
    from cython_core.arrival import ACTIVE, BASE, DEGRADED, LEARNED, OFFLINE, QUARANTINED, Schedule, Table
except ImportError:  # no compiled extensions for this Python: same rules, slower
    from cython_core.arrival_reference import (  # type: ignore[assignment]
        ACTIVE,
        BASE,
        DEGRADED,
        LEARNED,
        OFFLINE,
        QUARANTINED,
        Schedule,
        Table,
    )

__all__ = ["ACTIVE", "BASE", "DEGRADED", "LEARNED", "OFFLINE", "QUARANTINED", "Schedule", "Table"]
