"""Takes a sample of the calls of a node, off their path: a call is put into a bounded queue, and a thread takes it from there.

What the queue has no room for is dropped and counted: a node is never slowed by who looks at what it does.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from host.core.clock import Random
from host.core.errors import SnapcountError
from host.core.limits import DEFAULT, Limits
from host.core.pace import Pace
from host.plugins.adapter import SkillVersion
from host.plugins.observed import Call
from host.plugins.record import recordable

DICE_BYTES = 4
PAUSE_S = 0.2
"""Between two batches: a card that is written to once for each call wears out."""
COMPLAIN_S = 60.0
SELF_TEST = "self_test"


class Sampler:
    """`wants` and `told` are for `PluginManager.observe`; `take` is given batches of calls, on the sampler's own thread.

    `sample` is a share, 0 to 1; `random` decides which calls. With `skills`, only theirs. A call of a persistent instance depends on those before it, so no
    replay of it alone can tell anything: it is not taken. Nor is one of a version `on_trial`: it is a developer's, and not the node's work.
    """

    def __init__(
        self, sample: float, skills: Collection[str], random: Random, take: Callable[[list[Call]], None], log: Callable[[str, str], None], *,
        pace: Pace | None = None, limits: Limits = DEFAULT, on_trial: Callable[[SkillVersion], bool] = lambda version: False,
    ) -> None:  # fmt: skip
        self._below, self._skills, self._random = round(sample * 256**DICE_BYTES), frozenset(skills), random
        self._take, self._log, self._pace, self._limits, self._on_trial = take, log, pace, limits, on_trial
        self._waiting: deque[Call] = deque()
        self._bytes = 0
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._complained_s = -COMPLAIN_S
        self.taken = self.dropped = self.unfit = self.failed = 0
        self._thread = threading.Thread(target=self._run, name="snapcount-calls", daemon=True)
        self._thread.start()

    def wants(self, version: SkillVersion, hook: str) -> bool:
        """Throws the dice for a call that is about to be made."""
        manifest = version.skill.manifest
        if hook == SELF_TEST or manifest.instance != "fresh" or (self._skills and manifest.name not in self._skills):
            return False
        if self._on_trial(version):
            return False
        return int.from_bytes(self._random.token(DICE_BYTES)) < self._below and (self._pace is None or self._pace.go())

    def told(self, call: Call) -> None:
        """Puts a call into the queue, or drops it."""
        if not recordable(call):
            self.unfit += 1
            return
        size = call.size
        with self._news:
            if len(self._waiting) >= self._limits.calls_waiting_max or self._bytes + size > self._limits.calls_waiting_bytes_max:
                self.dropped += 1
                return
            self._waiting.append(call)
            self._bytes += size
            self._news.notify()

    def stop(self, wait_s: float = 5.0) -> None:
        """Takes what still waits, and ends."""
        self._stopping.set()
        with self._news:
            self._news.notify()
        self._thread.join(wait_s)

    def status(self) -> dict[str, int]:
        """`unfit` are calls that no replay can tell anything of, or too large for a record; `dropped` those the queue had no room for."""
        return {name: getattr(self, name) for name in ("taken", "dropped", "unfit", "failed")}

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._stopping.is_set())
                batch = list(self._waiting)
                self._waiting.clear()
                self._bytes = 0
            if batch:
                self._give(batch)
            elif self._stopping.is_set():
                return
            self._stopping.wait(PAUSE_S)

    def _give(self, batch: list[Call]) -> None:
        try:
            self._take(batch)
            self.taken += len(batch)
        except Exception as error:  # a full disk, or a defect: it costs these, and the node goes on
            self.failed += len(batch)
            if time.monotonic() - self._complained_s >= COMPLAIN_S:
                self._complained_s = time.monotonic()
                said = str(error) if isinstance(error, SnapcountError) else repr(error)
                self._log("warning", f"{len(batch)} sampled call(s) were lost: {said}")
