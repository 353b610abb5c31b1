"""What the benchmarks share: medians of repeated runs, and one line of JSON."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 9


def median_ns(call: Callable[[], object], calls: int, rounds: int = ROUNDS) -> float:
    """The median over `rounds` of the mean time of `calls` calls, in ns; one round more warms up."""
    means = []
    for _ in range(rounds + 1):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        means.append((time.perf_counter_ns() - start) / calls)
    return statistics.median(means[1:])


def report(result: dict[str, Any]) -> None:
    """Prints a table for people and, with `--json`, one JSON object on the last line."""
    for key, value in result.items():
        print(f"{key:24} {value}")
    if "--json" in sys.argv:
        print(json.dumps(result))
