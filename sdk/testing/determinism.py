"""Whether the same input, seed and state give the same output and the same fuel: on two hosts, and on both ways in which a host makes a call."""

from collections.abc import Callable, Sequence
from typing import Any

from sdk.testing.check import Budget, Check, Finding
from sdk.testing.host import FakeHost
from sdk.testing.outcome import outcome_of
from sdk.testing.scripts import Script

PLAIN = "on the plain call path"


def deterministic(make: Callable[[bool], FakeHost], scripts: Sequence[Script], budget: Budget) -> Check:
    """`make` makes a host, on the plain call path where it is told so. A persistent skill keeps its instance from one script to the next."""
    one, check = make(False), Check("determinism")
    others = [("on another host", make(False)), *([(PLAIN, make(True))] if one.loaded.path == "direct" else [])]
    compared = 0
    for number in budget.turns():
        if number >= len(scripts):
            break
        script = scripts[number]
        expected = _trace(one, script)
        compared += 1
        for where, other in others:
            problem = _difference(expected, _trace(other, script))
            if problem:
                check.findings.append(Finding(f"{script.hook}: {where}, {problem}"))
        if check.findings:
            break
    check.detail = f"{compared} calls give the same replies, fuel, logs and state {' and '.join(where for where, _ in others)}"
    for host in (one, *(other for _, other in others)):
        host.close()
    return check


def _trace(host: FakeHost, script: Script) -> dict[str, Any]:
    """Everything that a call did that can be seen, by name."""
    if host.manifest.instance == "fresh":
        host.reset()
    began, said = len(host.calls), len(host.logged)
    outcomes = [outcome_of(lambda request=request: host.ask(script.hook, request)) for request in (*script.before, script.request)]  # type: ignore[misc]
    calls = host.calls[began:]
    return {
        "the outcome": [(outcome.kind, outcome.code) for outcome in outcomes], "the reply": [call.reply for call in calls],
        "the fuel": [call.fuel for call in calls], "the host calls": [call.host_calls for call in calls], "the memory": [call.memory_bytes for call in calls],
        "what it logs": host.logged[said:], "its state": dict(host.state.values), "its commands": host.driver.status(),
    }  # fmt: skip


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    for name, value in expected.items():
        if found[name] != value:
            return f"{name} differs: {_short(value)} and then {_short(found[name])}"
    return ""


def _short(value: Any) -> str:
    return repr(value)[:120]
