"""The roles of the trust metadata: how many must sign, for how long it holds, and which lane covers which paths."""

from datetime import timedelta

from host.core.lanes import LANES

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
ONLINE = (SNAPSHOT, TIMESTAMP)  # signed by the registry itself
OFFLINE = (ROOT, TARGETS, *LANES)  # signed by people
ROLES = (*OFFLINE, *ONLINE)
ROOT_KEYS_MIN = 3
FOLDER, METADATA = "trust", "metadata"

# targets hands out the lanes, so it takes as many signatures as the safety lane: else one key could give that lane away.
THRESHOLDS = {ROOT: 2, TARGETS: 2, "safety": 2, "productivity": 1, SNAPSHOT: 1, TIMESTAMP: 1}

# How long a signature holds. What people sign lasts months; the timestamp says "this is still so", and its life is the longest
# time for which a node that is cut off, or kept in the dark, goes on taking approvals that it has.
LIFETIME = {
    ROOT: timedelta(days=365), TARGETS: timedelta(days=365), "safety": timedelta(days=180), "productivity": timedelta(days=90),
    SNAPSHOT: timedelta(days=14), TIMESTAMP: timedelta(days=7),
}  # fmt: skip


def paths(lane: str) -> list[str]:
    """The target paths of a lane, as TUF path patterns."""
    return [f"{lane}/*/*"]
