"""What a check of `snapcount skill test` finds, and how long it may take."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that does not hold. `vector` is the smallest request that was found to show it, as a vector; empty where no vector can say it.

    `replays` is false where the vector alone does not show it, as when a fault has to be injected.
    """

    problem: str
    vector: dict[str, Any] = field(default_factory=dict)
    replays: bool = True


@dataclass
class Check:
    """One line of the report: what was checked, in words what was done, and what does not hold."""

    name: str
    detail: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """The name as a part of a file's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def problems(self) -> list[str]:
        return [finding.problem for finding in self.findings]


class Budget:
    """How many examples to try: so many, or as many as there is time for and `most` at most. The time decides where the examples end, never which they are."""

    def __init__(self, seconds: float, most: int, exactly: int | None = None) -> None:
        self._seconds, self._most, self._exactly = seconds, most, exactly
        self.seconds = seconds

    def turns(self) -> Iterator[int]:
        until = time.monotonic() + self._seconds
        for number in range(self._most if self._exactly is None else self._exactly):
            if self._exactly is None and number and time.monotonic() > until:
                return
            yield number
