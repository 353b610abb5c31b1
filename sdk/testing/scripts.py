"""What `snapcount skill test` asks: the vectors' requests, and ones that are made up from them and from the contract's types."""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host.core.errors import MalformedData, UsageError
from host.plugins.contract import SHAPES
from sdk import samples, vectors
from sdk.samples import BOLD, MODEST
from sdk.testing import programs
from sdk.testing.host import FakeHost, Job, Request
from sdk.testing.outcome import Outcome, outcome_of
from sdk.vectors import Vector

BOLD_SHARE = 0.5
EARLIER_SHARE, EARLIER_MAX = 0.3, 3


@dataclass(frozen=True)
class Script:
    """A request, and those of the same hook that are made before it, on the same host."""

    hook: str
    request: Request
    before: tuple[Request, ...] = ()

    def ask(self, host: FakeHost) -> Outcome:
        """How the request ends on a host that is reset."""
        self.prepare(host)
        return outcome_of(lambda: host.ask(self.hook, self.request))

    def prepare(self, host: FakeHost) -> None:
        """Resets a host, and asks what comes before the request."""
        host.reset()
        for earlier in self.before:
            outcome_of(lambda earlier=earlier: host.ask(self.hook, earlier))  # type: ignore[misc]  # bound now


def of_vectors(found: Sequence[tuple[Path, Vector]], hooks: Sequence[str]) -> list[Script]:
    """The requests of vectors, those of the given hooks. A vector that is not sound is left out; running it says why."""
    made = []
    for path, vector in found:
        with suppress(MalformedData, UsageError):
            if vector.hook in hooks:
                made.append(_of_vector(path, vector))
    return made


def _of_vector(path: Path, vector: Vector) -> Script:
    if vector.hook == "plan_job":
        program = vectors.pieces(vectors.program_of(path, vector), vector.cuts)
        return Script("plan_job", Job(program=program, settings=vectors.settings_of(vector, path.name), run=vector.run))
    *before, request = vectors.requests(vector, path.name)
    return Script(vector.hook, request, tuple(before))


def made_up(hook: str, corpus: Sequence[Script], rng: random.Random, *, remembers: bool) -> Iterator[Script]:
    """Sound requests of a hook without end. A skill that `remembers` sometimes gets others before, in any order."""
    if hook == "plan_job":
        yield from (Script(hook, job) for job in programs.made_up([one.request for one in corpus if isinstance(one.request, Job)], rng))
        return
    shape = SHAPES[hook][0]
    known = [samples.plain(one.request) for one in corpus if isinstance(one.request, shape)]
    while True:
        made = samples.made_up(shape, known, rng, BOLD if rng.random() < BOLD_SHARE else MODEST)
        if made is None:
            continue
        at, request = made
        before = () if at is None else corpus[at].before
        if remembers and corpus and rng.random() < EARLIER_SHARE:
            before = (*before, *(rng.choice(corpus).request for _ in range(rng.randint(1, EARLIER_MAX))))
        typed = samples.sound(shape, request)
        assert typed is not None, "made_up gives sound requests only"
        yield Script(hook, typed, before)


def plain(script: Script) -> dict[str, Any]:
    """The request as plain data, for `sdk.shrinking`."""
    return programs.plain(script.request) if isinstance(script.request, Job) else samples.plain(script.request)


def with_plain(script: Script, request: dict[str, Any]) -> Script | None:
    """The script with another request; None where that is not sound."""
    typed = programs.job_of(request) if script.hook == "plan_job" else samples.sound(SHAPES[script.hook][0], request)
    return None if typed is None else replace(script, request=typed)
