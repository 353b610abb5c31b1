"""Compares lineages: independent implementations of one contract, run on the same requests. Where they differ by more than the declared tolerance, the
smallest request that was found to show it is reported. What a request is made from: the shared vectors, changes of their requests, and the types alone.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from host.core.errors import SkillRefused, SnapcountError, UsageError
from host.plugins import comparison
from host.plugins.comparison import Comparison
from host.plugins.contract import SHAPES
from sdk import samples, vectors
from sdk.local import LocalSkill
from sdk.shrinking import shrink
from sdk.testbed import SeededRandom, StillClock
from sdk.vectors import Vector

NO_REPLY = comparison.OUTCOME


@dataclass(frozen=True)
class Lineage:
    """One implementation. `label` is how it is called in the report."""

    label: str
    data: bytes


@dataclass(frozen=True)
class Divergence:
    """A field in which lineages differ, and the smallest request that shows it; `found` is what each of them says there."""

    hook: str
    field: str
    odd: tuple[str, ...]  # the lineages that stand alone, if it can be told
    request: dict[str, Any]
    found: dict[str, Any]
    seen: int  # requests that showed a difference in this field

    @property
    def in_words(self) -> str:
        said = ", ".join(f"{label}: {_shown(value)}" for label, value in self.found.items())
        who = f"{', '.join(self.odd)} differs from the others" if self.odd else "they differ"
        return f"{self.hook}: {self.field}: {who} ({said}); seen in {self.seen} request(s)"


@dataclass
class Report:
    """What was run, and what differed, one for each field."""

    requests: int = 0
    seed: int = 0
    divergences: list[Divergence] = field(default_factory=list)


Outcome = tuple[str, Any]
"""`reply` with the reply as plain data, or `error` with the skill's code, or `fault` with the host's."""


class _Runner:
    """Runs requests on one lineage. A lineage without state is loaded once, any other anew for each request."""

    def __init__(self, lineage: Lineage) -> None:
        self.label, self._data = lineage.label, lineage.data
        self._kept = self._load()
        self.hooks = self._kept.manifest.hooks
        self._stateless = self._kept.manifest.instance == "fresh" and not self._kept.manifest.capabilities

    def _load(self) -> LocalSkill:
        return LocalSkill(self._data, self.label, clock=StillClock(), random=SeededRandom())

    def outcome(self, hook: str, request: Any) -> Outcome:
        skill = self._kept if self._stateless else self._load()
        return _outcome(lambda: msgspec.to_builtins(skill.version.call(hook, request), builtin_types=(bytes,)))

    def of_vector(self, path: Path, vector: Vector) -> Outcome:
        return _outcome(lambda: vectors.reply(self._load(), path, vector))


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return "reply", call()
    except SkillRefused as error:
        return "error", error.skill_code
    except SnapcountError as error:
        return "fault", error.code


def compare(lineages: Sequence[Lineage], shared: Sequence[tuple[Path, Vector]], rules: Comparison, *, examples: int, seed: int) -> Report:
    """Runs the vectors, then `examples` requests that are made up, on every lineage. Raises UsageError for fewer than two."""
    if len(lineages) < 2:
        raise UsageError(f"a comparison needs two lineages or more, got {len(lineages)}")
    if len({lineage.label for lineage in lineages}) < len(lineages):
        raise UsageError("a comparison needs different lineages; one of them was named twice")
    runners = [_Runner(lineage) for lineage in lineages]
    hooks = [hook for hook in runners[0].hooks if all(hook in runner.hooks for runner in runners)]
    if not hooks:
        raise UsageError("the lineages have no hook in common, so there is nothing to compare")
    report, rng = Report(seed=seed), random.Random(seed)
    hunt = _Hunt(runners, rules, report)
    for path, vector in shared:
        if vector.hook in hooks:
            hunt.vector(path, vector)
    for hook in (hook for hook in hooks if hook in SHAPES):
        for request in _made_up(hook, shared, rng, examples):
            hunt.request(hook, request)
    hunt.conclude()
    return report


def _made_up(hook: str, shared: Sequence[tuple[Path, Vector]], rng: random.Random, examples: int) -> Iterator[dict[str, Any]]:
    shape = SHAPES[hook][0]
    corpus = [
        samples.plain(request) for path, vector in shared if vector.hook == hook and not vector.error for request in vectors.requests(vector, path.name)
    ]  # fmt: skip
    if not msgspec.structs.fields(shape):
        return  # there is one request only, and the vectors have it
    for _ in range(examples):
        made = samples.made_up(shape, corpus, rng, samples.LONG)
        if made is not None:
            yield made[1]


def _typed(hook: str, request: dict[str, Any]) -> Any:
    return samples.sound(SHAPES[hook][0], request)


class _Hunt:
    """Keeps the first request for each field that differs, and shrinks it at the end."""

    def __init__(self, runners: list[_Runner], rules: Comparison, report: Report) -> None:
        self._runners, self._rules, self._report = runners, rules, report
        self._first: dict[tuple[str, str], dict[str, Any]] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._of_vectors: dict[tuple[str, str], tuple[str, dict[str, Outcome]]] = {}

    def request(self, hook: str, request: dict[str, Any]) -> None:
        self._report.requests += 1
        for where in self._differing(self._outcomes(hook, request)):
            self._first.setdefault((hook, where), request)
            self._seen[hook, where] += 1

    def vector(self, path: Path, vector: Vector) -> None:
        """A vector with requests before it, or a program, is reported by its name; the request of any other can shrink."""
        if vector.hook in SHAPES and not vector.before:
            self.request(vector.hook, samples.plain(vectors.requests(vector, path.name)[-1]))
            return
        self._report.requests += 1
        outcomes = {runner.label: runner.of_vector(path, vector) for runner in self._runners}
        for where in self._differing(outcomes):
            self._of_vectors.setdefault((vector.hook, where), (path.name, outcomes))
            self._seen[vector.hook, where] += 1

    def conclude(self) -> None:
        for (hook, where), request in self._first.items():

            def shows(candidate: dict[str, Any], hook: str = hook, where: str = where) -> bool:
                return _typed(hook, candidate) is not None and where in self._differing(self._outcomes(hook, candidate))

            smallest = shrink(request, shows)
            self._add(hook, where, smallest, self._outcomes(hook, smallest))
        for (hook, where), (name, outcomes) in self._of_vectors.items():
            self._add(hook, where, {"vector": name}, outcomes)

    def _add(self, hook: str, where: str, request: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
        alone = self._alone(where, outcomes)
        found = {label: outcome if where == NO_REPLY else _at(outcome[1], where.split(".")) for label, outcome in outcomes.items()}
        self._report.divergences.append(Divergence(hook, where, alone, request, found, self._seen[hook, where]))

    def _outcomes(self, hook: str, request: dict[str, Any]) -> dict[str, Outcome]:
        typed = _typed(hook, request)
        return {runner.label: runner.outcome(hook, typed) for runner in self._runners}

    def _differing(self, outcomes: dict[str, Outcome]) -> list[str]:
        """The fields in which any two differ, without indices, in the order of the reply."""
        labels = list(outcomes)
        pairs = [(one, other) for index, one in enumerate(labels) for other in labels[index + 1 :]]
        found = [where for one, other in pairs for where in differences(outcomes[one], outcomes[other], self._rules)]
        return list(dict.fromkeys(found))

    def _alone(self, where: str, outcomes: dict[str, Outcome]) -> tuple[str, ...]:
        """The one lineage that differs from all others, which agree."""
        for label in outcomes if len(outcomes) > 2 else ():
            others = {other: outcome for other, outcome in outcomes.items() if other != label}
            if where not in self._differing(others):
                return (label,)
        return ()


def differences(one: Outcome, other: Outcome, rules: Comparison) -> Iterator[str]:
    """The fields in which two outcomes differ by more than is allowed, as `products.yield_kg.sigma`; `(outcome)` where one is a reply and one is none."""
    if one[0] != other[0] or one[0] != "reply":
        if one != other:
            yield NO_REPLY
        return
    for found in comparison.differences(one[1], other[1], rules):
        yield found.field


def _at(value: Any, path: list[str]) -> Any:
    """What stands in a field, in each item of the lists on the way."""
    if isinstance(value, list | tuple):
        return [_at(item, path) for item in value]
    if path and isinstance(value, dict):
        return _at(value.get(path[0]), path[1:])
    return value


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:120]


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs; each request is written as in a vector."""
    return {"requests": report.requests, "seed": report.seed, "divergences": [_plain(divergence) for divergence in report.divergences]}


def _plain(divergence: Divergence) -> dict[str, Any]:
    made = {name: getattr(divergence, name) for name in ("hook", "field", "odd", "request", "found", "seen")}
    return msgspec.to_builtins(made)  # type: ignore[no-any-return]  # bytes become base64, as in a vector


def in_words(report: Report) -> list[str]:
    """The report for people: a line for each field that differs, and the request that shows it."""
    lines = []
    for divergence in report.divergences:
        lines += [divergence.in_words, f"  request: {msgspec.json.encode(divergence.request).decode()}"]
    many = len(report.divergences)
    result = f"they differ in {many} field(s)" if many else "they agree within the declared tolerances"
    return [*lines, f"{report.requests} requests, seed {report.seed}: {result}"]
