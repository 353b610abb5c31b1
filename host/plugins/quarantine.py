"""Quarantine on one node: which hooks of which versions may not be called, and what arms or ends that.

A version carries what is barred of it in `SkillVersion.barred`, which is None for nearly every version at nearly all times, so a call pays for one
comparison with None. It is decided anew when the policies change, when a version comes in, and when an anomaly shows; never in a call.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from host.core.errors import GuestError
from host.core.quarantine import ANY, Disable
from host.core.text import safe
from host.plugins.adapter import SkillVersion


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Quarantine:
    """The policies of one node, as its calls meet them. `on_anomaly` is told the id of a policy whose anomaly has just shown, and on which version."""

    def __init__(self, now_ms: Callable[[], int] = monotonic_ms) -> None:
        self.on_anomaly: Callable[[str, str], None] = lambda policy_id, version: None
        self.rebind: Callable[[], None] = lambda: None
        """Has every active version bound anew."""
        self._now_ms = now_ms
        self._policies: tuple[Disable, ...] = ()
        self._shown: frozenset[str] = frozenset()
        self._seen: dict[str, deque[int]] = {}
        self._counting = threading.Lock()

    def enforce(self, policies: Sequence[Disable], shown: Collection[str]) -> None:
        """Takes the place of all policies before. `shown` are the ids of those whose anomaly has shown already."""
        with self._counting:
            self._policies, self._shown = tuple(policies), frozenset(shown)
            armed = {policy.id for policy in policies if policy.anomaly is not None}
            self._seen = {policy_id: times for policy_id, times in self._seen.items() if policy_id in armed}

    def bind(self, version: SkillVersion) -> None:
        """Tells a version what is barred of it, and whether its errors are watched."""
        about = self._about(version)
        barred = {policy.hook: _line(version, policy) for policy in about if policy.anomaly is None or policy.id in self._shown}
        version.bar(barred or None)
        armed = any(policy.anomaly is not None and policy.id not in self._shown for policy in about)
        version.on_error = self._watch if armed else None

    def _about(self, version: SkillVersion) -> list[Disable]:
        number = version.skill.manifest.version
        return [policy for policy in self._policies if policy.names(version.name, number, version.digest)]

    def _watch(self, version: SkillVersion, hook: str, error: GuestError) -> None:
        """An error of a version that a policy is armed for. Called on the thread of the call, which holds no lock."""
        now_ms = self._now_ms()
        with self._counting:
            shows = [policy.id for policy in self._about(version) if self._shows(policy, hook, error, now_ms)]
            self._shown |= set(shows)
        if shows:
            self.rebind()
        for policy_id in shows:
            self.on_anomaly(policy_id, version.skill.name)

    def _shows(self, policy: Disable, hook: str, error: GuestError, now_ms: int) -> bool:
        anomaly = policy.anomaly
        if anomaly is None or policy.id in self._shown or error.code != anomaly.code or policy.hook not in (ANY, hook):
            return False
        times = self._seen.setdefault(policy.id, deque(maxlen=anomaly.count))
        times.append(now_ms)
        return len(times) == anomaly.count and now_ms - times[0] <= anomaly.within_s * 1000


def _line(version: SkillVersion, policy: Disable) -> str:
    what = version.skill.name if policy.hook == ANY else f"{version.skill.name}: {policy.hook}"
    because = f": {safe(policy.reason)}" if policy.reason else ""
    return f"{what} is disabled by the quarantine policy {policy.id}{because}; `snapcount fleet lift {policy.id}` ends that"
