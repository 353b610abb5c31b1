"""What an operator reads of a mesh: the fleet's panel, and what came of an operation."""

import json
from collections.abc import Iterator
from typing import Any

from host.console import histogram
from host.core import cbor
from host.core.errors import MalformedData, TooLarge
from host.core.text import safe

CONFLICTS_SHOWN = 10


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """The panel of an orchestrator."""
    agents, impedance, sectors = status["agents"], status["impedance"], status["sectors"]
    others = ", ".join(f"{agents[name]:,} {name}" for name in ("degraded", "offline", "quarantined") if agents[name])
    yield f"{status['orchestrator']}"
    yield f"  agents     {agents['active']:,} active of {agents['total']:,}{f' ({others})' if others else ''}"
    yield f"  sectors    {status['sectors_healthy']} healthy of {len(sectors)}"
    for sector in sectors:
        if not sector["healthy"]:
            yield f"             {sector['name']}: {sector['ailment']}"
    flagged = ", ".join(f"{impedance[name]:,} {name}" for name in ("slow", "unstable", "spiking"))
    slowest = f"; slowest {impedance['slowest']}" if impedance["slowest"] else ""
    yield f"  impedance  mean {impedance['mean']:.0f}, p95 {impedance['p95']:.0f}, {impedance['trend_per_hour']:+.0f} an hour; {flagged}{slowest}"
    yield f"  lead time  {impedance['lead_ms']:.0f} ms"
    yield f"  conflicts  {status['conflicts_hour']:,} in the last hour"
    for raised in status["raised"][:CONFLICTS_SHOWN]:
        yield f"             {safe(raised['words'], 1000)}"
    yield f"  mode       {status['mode']}{': ' + ', '.join(status['frozen']) if status['frozen'] else ''}"
    last = status["last_cascade"]
    if last is None:
        yield "  cascade    none yet"
    else:
        yield f"  cascade    {last['topic']}: {last['outcome']}, {last['ready']:,} of {last['expected']:,} ready in {last['wall_ms']:.0f} ms, {last['strategy']}"
    if status["refused"]:
        yield f"  refused    {', '.join(f'{reason} {count:,}' for reason, count in status['refused'].items())}"


def result_lines(result: dict[str, Any], *, replies: bool = False) -> Iterator[str]:
    """What came of an operation; with `replies`, what each agent answered."""
    yield f"{result['outcome']}: {result['reason']}"
    counts = ", ".join(f"{result[name]:,} {what}" for name, what in (
        ("ready", "ready"), ("conflict", "in conflict"), ("transit", "in transit"), ("skipped", "skipped"), ("acted", "acted"), ("failed", "failed")))  # fmt: skip
    yield f"  {counts}; of {result['expected']:,} in {result['wall_ms']:.0f} ms, {result['messages']:,} messages"
    for chosen in result.get("delegated", ()):
        yield f"  given to {chosen['name']} (impedance {chosen['score']})"
    for step in result.get("steps", ()):
        yield f"  {step['target']}: {step['verdict']} in {step['wall_ms']:.0f} ms"
    if result["missing"]:
        more = f" and {result['missing_more']:,} more" if result["missing_more"] else ""
        yield f"  missing: {', '.join(map(safe, result['missing']))}{more}"
    yield from _conflict_lines(result)
    if replies:
        yield from _reply_lines(result)
    if result["outcome"] != "SUCCESS":
        yield f"  {result['recommendation']}"
    for name, title in (("ready_errors", "ready, before or after T"), ("acted_errors", "acted, before or after T")):
        if result["at_ms"] and any(result[name]):
            yield f"  {title}:"
            yield from (f"  {line}" for line in histogram.lines(result[name]))


def place_lines(mesh: dict[str, Any] | None) -> Iterator[str]:
    """One node's place in its mesh."""
    if mesh is None:
        return
    if "problem" in mesh:
        yield f"  mesh      {mesh['role']}, in no mesh: {safe(mesh['problem'])}"
        return
    link = "the root" if mesh["role"] == "orchestrator" else (f"child of {mesh['parent']}" if mesh["connected"] else "its parent is away")
    listening = f", listening on {mesh['listening']}" if mesh["listening"] else ""
    children = f", {mesh['children']['connected']} of {mesh['children']['known']} children connected" if "children" in mesh else ""
    queue = f", {mesh['queue']} messages wait" if mesh.get("queue") else ""
    yield f"  mesh      {mesh['role']}, {link}{listening}{children}{queue}"
    yield f"  clock     {mesh['clock']['offset_ms']:+.2f} ms to fleet time, ± {mesh['clock']['uncertainty_ms']:.2f} ms"
    if mesh["frozen"]:
        yield f"  frozen    by {mesh['frozen']['by']}: {safe(mesh['frozen']['reason']) or 'no reason given'}"
    if mesh["refused"]:
        yield f"  refusals  {', '.join(f'{reason} {count:,}' for reason, count in mesh['refused'].items())}"


def payload_text(payload: bytes) -> str:
    """A payload for people: as JSON where it is CBOR, as text where it is text, else in hexadecimal."""
    try:
        return json.dumps(cbor.decode(payload, "payload"), default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
    except (MalformedData, TooLarge):
        pass
    try:
        return safe(payload.decode(), 1000)
    except UnicodeDecodeError:
        return payload.hex()


def _conflict_lines(result: dict[str, Any]) -> Iterator[str]:
    conflicts = [reply for reply in result["replies"] if reply["state"] == -1]
    for reply in conflicts[:CONFLICTS_SHOWN]:
        yield f"  conflict at {reply['name']}: {safe(reply['code'])}{': ' + safe(reply['detail']) if reply['detail'] else ''}"
    if len(conflicts) > CONFLICTS_SHOWN:
        yield f"  and {len(conflicts) - CONFLICTS_SHOWN} more; --json has them"


def _reply_lines(result: dict[str, Any]) -> Iterator[str]:
    for reply in result["replies"]:
        if reply["state"] == 1:
            yield f"  {reply['name']}: {payload_text(bytes.fromhex(reply['payload'])) if reply['payload'] else safe(reply['detail'])}"
    if result["replies_dropped"]:
        yield f"  {result['replies_dropped']:,} more answers had no room in the report; ask fewer at a time"
