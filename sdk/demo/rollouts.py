"""The demo's roll-outs: a version that is wrong for one hardware generation is caught by its canaries and taken back; the next one reaches everybody."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from host.core.clock import SystemClock
from host.core.errors import SnapcountError
from registry import rollout_document
from registry.rollout_client import RolloutHttp
from registry.rollout_document import Rate, Rollout, Stage
from sdk.demo import warmer
from sdk.demo.fleet import LocalFleet
from sdk.demo.samples import BOUNTY

FIRST, BAD, FIXED = ("1.0.0", 150.0), ("1.1.0", 250.0), ("1.1.1", 180.0)
"""Versions, and where each moves: 250 mm is outside the machines of one generation."""
PROBATION_S, ROLLOUT_S_MAX, CALL_S = 3, 60.0, 0.05
STAGES = (
    Stage(name="canary", share=0.02, soak_s=1, min_sample=2, error_max=0.2),
    Stage(name="all", share=1.0, soak_s=0, min_sample=2, error_max=0.2),
)


def roll_out(fleet: LocalFleet, data: bytes, number: int, *, probation_s: int = PROBATION_S) -> dict[str, Any]:
    """Signs and starts a roll-out of a bundle, and follows it to its end."""
    http = RolloutHttp(fleet.url)
    kept = http.upload(data)
    document = Rollout(
        id=f"demo-{number}", name=kept["name"], version=kept["version"], digest=kept["digest"], size=kept["size"], issued_ms=SystemClock().now_ms(),
        stages=STAGES, rate=Rate(nodes_per_minute=1_000), probation_s=probation_s, answer_s=int(ROLLOUT_S_MAX),
    )  # fmt: skip
    http.start(rollout_document.sign(document, fleet.operator))
    return list(http.watch(document.id))[-1]


@contextmanager
def busy(fleet: LocalFleet) -> Iterator[None]:
    """Every node is asked for bids all the while: what nobody calls cannot show what is wrong with it."""
    stop = threading.Event()

    def work(name: str) -> None:
        control = fleet.control(name)
        while not stop.is_set():
            with suppress(SnapcountError):
                control.post("/v1/hooks/bid", BOUNTY)
            stop.wait(CALL_S)

    workers = [threading.Thread(target=work, args=(name,), daemon=True) for name in fleet.names]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def versions(fleet: LocalFleet) -> dict[str, str]:
    """What each node runs of the skill."""
    found = {name: {skill["name"]: skill["version"] for skill in fleet.status(name)["skills"]} for name in fleet.names}
    return {name: skills.get(warmer.NAME, "") for name, skills in found.items()}


def received(fleet: LocalFleet) -> int:
    """Bytes of bundles and patches that came to all nodes together."""
    return sum(fleet.status(name)["supply"]["bytes_received"] for name in fleet.names)


def settled(fleet: LocalFleet, version: str) -> bool:
    """Waits until every node runs this version."""
    until = time.monotonic() + ROLLOUT_S_MAX
    while set(versions(fleet).values()) != {version}:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
