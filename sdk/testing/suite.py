"""Everything that `snapcount skill test` checks: self-test, vectors, properties, determinism, faults, limits. The same seed makes the same requests up."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from host.core.errors import SnapcountError
from host.core.limits import DEFAULT
from host.core.manifest import SkillLimits
from host.plugins.contract import SHAPES, Shape
from sdk import vectors
from sdk.conformance.cases import TYPICAL
from sdk.testing import determinism, properties, resilience, scripts
from sdk.testing.check import Budget, Check, Finding
from sdk.testing.host import FakeHost, Job
from sdk.testing.scripts import Script
from sdk.testing.watched import Peaks
from sdk.vectors import Vector

EXAMPLES = 500
# Where a call takes long, the time decides: all hooks together, a hook without fields, determinism, faults.
PROPERTIES_S, SMALL_S, DETERMINISM_S, FAULTS_S = 4.0, 0.3, 1.0, 1.5
FAULTS_MAX = 1_000
COMPARED = 60
MADE_UP_COMPARED = 20
TIGHT = 0.9

Step = Callable[[int, Check], None]


@dataclass
class Report:
    """What was checked, and the most that any call used of what the manifest asks for."""

    seed: int
    checks: list[Check] = field(default_factory=list)
    limits: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.findings]


@dataclass(frozen=True)
class Options:
    """`examples` of each property, as many as there is time for where it is None; `faults` whether any are injected."""

    seed: int
    examples: int | None = None
    faults: bool = True


class Suite:
    """The checks of one bundle."""

    def __init__(self, data: bytes, what: str, found: Sequence[tuple[Path, Vector]], options: Options) -> None:
        self._data, self._what, self._found, self._options = data, what, found, options
        self._peaks = Peaks()
        self._host = FakeHost(data, peaks=self._peaks)
        self._manifest = self._host.manifest
        self._report = Report(options.seed)

    @property
    def more(self) -> int:
        """About how many checks there are besides the vectors, for a progress bar."""
        return 4 + 2 * self._options.faults + 2 * len(self._manifest.hooks)

    def run(self, step: Step = lambda done, check: None) -> Report:
        """Makes all checks; `step` is told how many are done, and of the last. Raises what loading the bundle raises."""

        def note(check: Check) -> None:
            self._report.checks.append(check)
            step(len(self._report.checks), check)

        note(self._self_test())
        for path, vector in self._found:
            note(self._vector(path, vector))
        known = scripts.of_vectors([(path, vector) for path, vector in self._found if not vector.limits], self._manifest.hooks)
        for hook in self._manifest.hooks:
            for check in self._of_hook(hook, [one for one in known if one.hook == hook]):
                note(check)
        note(determinism.deterministic(self._twin, self._compared(known), self._budget(DETERMINISM_S, COMPARED)))
        if self._options.faults:
            note(resilience.survives(self._host, self._compared(known), self._rng("faults"), self._budget(FAULTS_S, FAULTS_MAX)))
            note(resilience.old_nodes(self._data, self._what))
        note(self._limits())
        self._host.close()
        return self._report

    def _self_test(self) -> Check:
        try:
            result = self._host.version.self_test()
        except SnapcountError as error:
            return Check("self-test", findings=[Finding(str(error))])
        return Check("self-test", result.detail, [] if result.ok else [Finding(f"it says that it does not work: {result.detail}")])

    def _vector(self, path: Path, vector: Vector) -> Check:
        outcome = vectors.run(self._data, path, vector)
        return Check(outcome.name, "", [Finding(problem) for problem in outcome.problems])

    def _of_hook(self, hook: str, corpus: list[Script]) -> list[Check]:
        if hook in SHAPES and not msgspec.structs.fields(SHAPES[hook][0]):
            return [properties.refuses(self._host, hook, corpus, self._rng(hook, "damage"), self._budget(SMALL_S, EXAMPLES // 2))]
        corpus = corpus or _typical(hook)
        seconds = PROPERTIES_S / len(self._manifest.hooks)
        made = [properties.answers(self._host, hook, corpus, self._rng(hook), self._budget(seconds, EXAMPLES))]
        if hook == "plan_job":
            made.append(properties.splits(self._host, corpus, self._rng(hook, "splits"), self._budget(seconds, EXAMPLES // 2)))
        made.append(properties.refuses(self._host, hook, corpus, self._rng(hook, "damage"), self._budget(seconds / 3, EXAMPLES // 2)))
        return made

    def _compared(self, known: Sequence[Script]) -> list[Script]:
        """The vectors' requests, and some that are made up."""
        rng, made = self._rng("compared"), list(known)
        for hook in self._manifest.hooks:
            if hook in SHAPES and not msgspec.structs.fields(SHAPES[hook][0]):
                continue
            generator = scripts.made_up(hook, [one for one in known if one.hook == hook] or _typical(hook), rng, remembers=False)
            made += [next(generator) for _ in range(MADE_UP_COMPARED)]
        rng.shuffle(made)
        return made

    def _limits(self) -> Check:
        asked, used = self._manifest.limits, self._peaks
        granted = asked.capped(DEFAULT)
        self._report.limits = {name: {"used": getattr(used, name), "of": getattr(granted, name)} for name in _COUNTED}
        self._report.limits["deadline_ms"] = {"used": -(-used.took_ns // 1_000_000), "of": granted.deadline_ms}
        check = Check("limits", f"at most {_in_words(self._report.limits)}")
        lowered = [name for name in SkillLimits.__struct_fields__ if getattr(granted, name) < getattr(asked, name)]
        if lowered:
            check.findings.append(Finding(f"its manifest asks for more {', '.join(lowered)} than any host grants (host/core/limits.py)"))
        tight = [name for name, share in self._report.limits.items() if share["of"] and share["used"] > TIGHT * share["of"]]
        if tight:
            check.detail += f"; little room is left in {', '.join(tight)}"
        return check

    def _twin(self, force_plain: bool) -> FakeHost:
        return FakeHost(self._data, peaks=self._peaks, force_plain=force_plain)

    def _rng(self, *what: str) -> random.Random:
        return random.Random(f"{self._options.seed} {' '.join(what)}")

    def _budget(self, seconds: float, most: int) -> Budget:
        return Budget(seconds, most, self._options.examples)


_COUNTED = ("fuel", "memory_bytes", "reply_bytes", "host_calls", "log_bytes")


def _typical(hook: str) -> list[Script]:
    """A request to begin with, for a skill without a vector of the hook."""
    request: Any = TYPICAL.get(hook)
    if hook == "plan_job":
        return [Script(hook, Job(program=(request.chunk,), settings=request.settings))]
    return [Script(hook, request)] if isinstance(request, Shape) else []


def _in_words(limits: dict[str, dict[str, int]]) -> str:
    return ", ".join(
        f"{_NAMES[name]} {_share(used['used'], used['of'])}" for name, used in limits.items() if used["used"] or name == "fuel"
    )


_NAMES = {
    "fuel": "fuel", "memory_bytes": "memory", "reply_bytes": "reply", "host_calls": "host calls", "log_bytes": "log", "deadline_ms": "time in ms",
}  # fmt: skip


def _share(used: int, of: int) -> str:
    return f"{used} of {of} ({used / of:.0%})" if of else f"{used} of 0"
