"""The faults that `snapcount skill test` injects: those that a call can meet, found out by making it once without any."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from host.core.bundle import UnverifiedBundle
from host.core.capabilities import CLOCK, FEATURES, STATE
from host.core.errors import Incompatible, TooLarge
from host.core.manifest import Manifest, version_key
from host.supply.facts import host_version
from sdk.testing import golden
from sdk.testing.check import Budget, Check, Finding
from sdk.testing.faults import DAY_MS, ClockJump, DriverFails, DriverTimesOut, Fault, FuelCut, RefusedCommand, SafeMode, StateFull
from sdk.testing.host import FakeHost, require_loadable
from sdk.testing.outcome import outcome_of
from sdk.testing.scripts import Script
from sdk.testing.survival import ContractBroken, require_survives

FUEL_CUTS = 12
NTH_MAX = 4
FINDINGS_MAX = 3
GENERATION_MAX = 255


def survives(host: FakeHost, scripts: Sequence[Script], rng: random.Random, budget: Budget) -> Check:
    """Every call comes through every fault that it can meet. All kinds get their turn, also where time is short."""
    check, met = Check("faults"), Counter[str]()
    waiting = [(script, fault) for number, script in zip(budget.turns(), scripts, strict=False) for fault in faults_for(host, script)]
    rng.shuffle(waiting)
    waiting = _in_turns(waiting)
    for number in budget.turns():
        if number >= len(waiting) or len(check.findings) >= FINDINGS_MAX:
            break
        script, fault = waiting[number]
        met[type(fault).__name__] += 1
        try:
            require_survives(host, script.hook, script.request, fault, script.before)
        except ContractBroken as error:
            about = f"Found by `snapcount skill test`: {error}"[:1000]
            check.findings.append(Finding(str(error), golden.described(script.hook, [*script.before, script.request], about), False))
    check.detail = ", ".join(f"{count} × {_WORDS[name]}" for name, count in met.items())
    return check


_WORDS = {
    "FuelCut": "fuel cut", "RefusedCommand": "refused command", "DriverFails": "failing driver", "DriverTimesOut": "silent driver", "SafeMode": "in safe mode",
    "StateFull": "full state", "ClockJump": "jump of the clock",
}  # fmt: skip


def _in_turns(waiting: Sequence[tuple[Script, Fault]]) -> list[tuple[Script, Fault]]:
    """The first of each kind of fault, then the second of each, and so on."""
    kinds: dict[type, list[tuple[Script, Fault]]] = {}
    for script, fault in waiting:
        kinds.setdefault(type(fault), []).append((script, fault))
    return [pair for turn in zip_longest(*kinds.values()) for pair in turn if pair is not None]


def faults_for(host: FakeHost, script: Script) -> Iterator[Fault]:
    """The faults that a call can meet, by what it does without them; none for a call that goes wrong by itself."""
    try:
        script.prepare(host)
        calls, commands, writes, reads = len(host.calls), host.envelope.commands.seen, host.state.writes.seen, host.clock.reads
        if outcome_of(lambda: host.ask(script.hook, script.request)).problem:
            return
    except TooLarge:
        return
    fuel = max((call.fuel for call in host.calls[calls:]), default=0)
    yield from (FuelCut(units=fuel * cut // FUEL_CUTS) for cut in range(FUEL_CUTS))
    if host.envelope.commands.seen > commands:
        yield SafeMode()
        for nth in range(1, min(host.envelope.commands.seen - commands, NTH_MAX) + 1):
            yield from (RefusedCommand(nth), DriverFails(nth), DriverTimesOut(nth))
    if STATE in host.manifest.capabilities:
        yield from (StateFull(nth) for nth in range(1, min(host.state.writes.seen - writes, NTH_MAX) + 1))
    if CLOCK in host.manifest.capabilities:
        for at_read in range(min(host.clock.reads - reads, NTH_MAX) + 1):
            yield from (ClockJump(ms, at_read) for ms in (-DAY_MS, DAY_MS, -1))


def old_nodes(data: bytes, what: str) -> Check:
    """A node that is too old refuses the skill when it is loaded, with the reason, and one that is not takes it."""
    manifest = UnverifiedBundle.parse(data, what).manifest
    check = Check("old nodes")
    for about, generation, host, lacking in _too_old(manifest):
        try:
            require_loadable(manifest, generation, host, FEATURES - {lacking}, None)
        except Incompatible:
            continue
        check.findings.append(Finding(f"a node {about} takes it, though its manifest says otherwise"))
    check.detail = _bounds(manifest)
    return check


def _too_old(manifest: Manifest) -> Iterator[tuple[str, int | None, str | None, str]]:
    if manifest.generations:
        other = next((number for number in range(1, GENERATION_MAX + 1) if number not in manifest.generations), None)
        yield from [(f"of generation {other}", other, None, "")] if other else []
    if manifest.host_min and version_key("0.0.0") < version_key(manifest.host_min):
        yield "with host 0.0.0", None, "0.0.0", ""
    for feature in manifest.features or ():
        yield f"without the feature {feature}", None, host_version(), feature


def _bounds(manifest: Manifest) -> str:
    generations = ", ".join(map(str, manifest.generations))
    parts = [
        f"hardware generations {generations}" if generations else "every hardware generation",
        f"host {manifest.host_min} or newer" if manifest.host_min else "every host of ABI 1",
        *([f"with {', '.join(manifest.features)}"] if manifest.features else []),
    ]
    return f"it runs on {', '.join(parts)}; any other node refuses it at load"
