"""Measures what the calls of a skill need: fuel, time, memory, reply, host calls and log, on its vectors and on requests that are made up.

Its limits are lifted for that, so that what a call needs beyond them is seen too. sdk/suggestion.py makes limits of it.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from host.core.bundle import UnverifiedBundle
from host.core.errors import DeadlineExceeded, FuelExhausted, HostCallsExceeded, MemoryExceeded, SkillRefused, SnapcountError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, SkillLimits
from host.sandbox.imports import HostServices
from host.sandbox.skill import SkillInstance
from sdk import scripts
from sdk.local import LocalSkill
from sdk.project import Project
from sdk.scripts import Script, Step

SAMPLES_MAX = 2_000
MADE_UP, MADE_UP_REPEATS, SEED = 200, 3, 1
FUEL_LIFTED, DEADLINE_LIFTED_MS = 2_000_000_000, 10_000
"""As far as limits are lifted: a call that runs on without end is stopped, some time."""
LIFTED = SkillLimits(
    fuel=FUEL_LIFTED, deadline_ms=DEADLINE_LIFTED_MS, memory_bytes=DEFAULT.memory_bytes_max, reply_bytes=DEFAULT.reply_bytes_max,
    host_calls=DEFAULT.host_calls_max, log_bytes=DEFAULT.log_bytes_max,
)  # fmt: skip
BREACHES = (FuelExhausted, DeadlineExceeded, MemoryExceeded, HostCallsExceeded)


@dataclass
class Needs:
    """What the wasm calls of one script needed at most, and how long each took. `ended` is how the last one ended: empty for a reply of any kind."""

    name: str
    hook: str
    made_up: bool
    program_bytes: int = 0
    plays: int = 0
    fuel: int = 0
    memory_bytes: int = 0
    reply_bytes: int = 0
    host_calls: int = 0
    log_bytes: int = 0
    times_ns: list[int] = field(default_factory=list)
    totals_ns: list[int] = field(default_factory=list)
    ended: str = ""
    breached: bool = False

    @property
    def call_ns(self) -> float:
        """The median time of its longest wasm call."""
        per_play = max(1, len(self.times_ns) // max(self.plays, 1))
        calls = [self.times_ns[number::per_play] for number in range(per_play)]
        return max((statistics.median(times) for times in calls if times), default=0.0)


@dataclass(frozen=True)
class Measured:
    """A bundle's needs, script by script, beside the limits that it asks for."""

    asked: SkillLimits
    capabilities: tuple[str, ...]
    needs: tuple[Needs, ...]

    @property
    def sound(self) -> list[Needs]:
        """Those whose calls all ended with a reply: what a call needs that traps says nothing."""
        return [one for one in self.needs if not one.ended]

    @property
    def breached(self) -> list[Needs]:
        """Those that needed more than can be measured."""
        return [one for one in self.needs if one.breached]

    def worst(self, name: str) -> Needs | None:
        """The script that needed most of something."""
        return max(self.sound, key=lambda one: getattr(one, name), default=None)

    def times_us(self) -> dict[str, dict[str, float]]:
        """For each hook how long its wasm calls took in µs: the median, the 99th percentile and the longest."""
        found: dict[str, list[int]] = {}
        for one in self.sound:
            found.setdefault(one.hook, []).extend(one.times_ns)
        return {hook: _spread(times) for hook, times in found.items() if times}


def measure(
    data: bytes, written: Iterable[Script], seconds: float, *, examples: int = MADE_UP, step: Step = lambda share: None
) -> Measured:
    """Each script for `seconds`, then `examples` requests for each hook that are made up, a few times each. Raises what loading the module raises."""
    parsed = UnverifiedBundle.parse(data, "the bundle")
    manifest = parsed.manifest
    known = list(written)
    invented = list(scripts.made_up(manifest, known, examples, SEED))
    found = []
    for number, script in enumerate((*known, *invented)):
        found.append(_measure(data, script, 0.0 if script.made_up else seconds, MADE_UP_REPEATS if script.made_up else 1))
        step((number + 1) / (len(known) + len(invented)))
    return Measured(manifest.limits, manifest.capabilities, tuple(found))


def measure_all(data: bytes, project: Project, seconds: float) -> list[dict[str, Any]]:
    """One row for each vector, as `vector_rows` gives them. Raises MalformedData for a vector that does not fit the contract."""
    return vector_rows(measure(data, scripts.of_project(project), seconds, examples=0))


def vector_rows(found: Measured) -> list[dict[str, Any]]:
    """One row for each vector: median call time in µs, fuel and memory of a call, and their share of the limits asked for."""
    rows = []
    for one in found.needs:
        if one.made_up or one.ended:
            continue
        call_us = statistics.median(one.totals_ns) / 1000
        rows.append({
            "name": one.name, "calls": one.plays, "call_us": round(call_us, 2), "fuel": one.fuel, "fuel_share": one.fuel / found.asked.fuel,
            "memory_kib": one.memory_bytes >> 10, "memory_share": one.memory_bytes / found.asked.memory_bytes,
            "mb_per_s": round(one.program_bytes / call_us, 1) if one.program_bytes else None,
        })  # fmt: skip
    return rows


def _measure(data: bytes, script: Script, seconds: float, plays: int) -> Needs:
    skill = _Heard(data, script.name)
    needs = Needs(script.name, script.hook, script.made_up, len(script.program))
    until = time.perf_counter() + seconds
    while needs.plays < plays or (time.perf_counter() < until and needs.plays < SAMPLES_MAX):
        player = _Player(skill, needs, len(script.before))
        try:
            script.play(player, skill.loaded.name)
        except SkillRefused:
            pass  # an answer
        except SnapcountError as error:
            needs.ended, needs.breached = str(error), isinstance(error, BREACHES)
            break
        finally:
            player.close()
            needs.plays += 1
            needs.totals_ns.append(sum(needs.times_ns[-player.measured :]) if player.measured else 0)
    return needs


class _Heard(LocalSkill):
    """A skill with its limits lifted, which counts the bytes of its log as they come, before they are made safe to print."""

    @property
    def manifest(self) -> Manifest:
        return self._lifted

    @manifest.setter
    def manifest(self, found: Manifest) -> None:
        self._lifted = msgspec.structs.replace(found, limits=LIFTED)

    def _services(self) -> HostServices:
        made = super()._services()
        self.log_bytes, said = 0, made.log

        def log(level: int, line: bytes) -> None:
            self.log_bytes += len(line)
            said(level, line)

        made.log = log  # type: ignore[method-assign]
        return made


class _Player:
    """Gives out instances that note what each call needs, those of the calls before left out."""

    def __init__(self, skill: _Heard, needs: Needs, before: int) -> None:
        self._skill, self._needs, self._before = skill, needs, before
        self._made: list[SkillInstance] = []
        self.measured = 0

    def __call__(self) -> Any:
        if self._skill.manifest.instance == "fresh" or not self._made:
            self.close()
            self._made.append(self._skill.loaded.instance())
        return self

    def call(self, hook: str, request: bytes) -> bytes:
        """SkillInstance.call, with a note."""
        instance, counts = self._made[-1], self._before <= 0
        self._before -= 1
        logged, reply = self._skill.log_bytes, b""
        began = time.perf_counter_ns()
        try:
            reply = instance.call(hook, request)
        finally:
            if counts:
                self._note(instance, time.perf_counter_ns() - began, len(reply), self._skill.log_bytes - logged)
        return reply

    def _note(self, instance: SkillInstance, took_ns: int, reply: int, logged: int) -> None:
        needs = self._needs
        needs.times_ns.append(took_ns)
        self.measured += 1
        needs.fuel, needs.memory_bytes = max(needs.fuel, instance.fuel_used), max(needs.memory_bytes, instance.memory_bytes())
        needs.reply_bytes, needs.log_bytes = max(needs.reply_bytes, reply), max(needs.log_bytes, logged)
        needs.host_calls = max(needs.host_calls, instance.host_calls)

    def close(self) -> None:
        for instance in self._made:
            instance.close()
        self._made.clear()


def _spread(times_ns: list[int]) -> dict[str, float]:
    ordered = sorted(times_ns)
    return {
        "p50": round(statistics.median(ordered) / 1000, 2),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1000, 2),
        "max": round(ordered[-1] / 1000, 2),
    }


def endings(found: Measured) -> Counter[str]:
    """How calls ended that got no reply, and how often."""
    return Counter(one.ended for one in found.needs if one.ended)
