"""What an operator reads: a node's state, and the fleet's, as lines."""

from collections.abc import Iterator
from typing import Any

from host.console import mesh
from host.core.text import safe


def node_lines(status: dict[str, Any]) -> Iterator[str]:
    """The state of one node."""
    sealed = "sealed" if status["sealed"] else "development tree, not sealed"
    registry = status["registry"]
    link = "none" if not registry["url"] else f"{registry['url']} ({'connected' if registry['connected'] else 'not connected'})"
    yield f"{status['node']}  generation {status['generation']}, up {status['uptime_s']:.0f} s, {status['resident_bytes'] / 2**20:.1f} MiB, pid {status['pid']}"
    yield f"  key       ed25519:{status['key']}"
    yield f"  host      {status['host'][:19]}…, {sealed}"
    yield f"  registry  {link}"
    yield f"  allowed   {', '.join(status['capabilities']) or 'nothing'}"
    safe_mode = status["safe_mode"]
    yield f"  safety    {'in force' if safe_mode is None else 'SAFE MODE: ' + safe_mode['reason']}"
    yield from mesh.place_lines(status.get("mesh"))
    for name, machine in status["machines"].items():
        yield f"  {name:9} at {tuple(round(v, 3) for v in machine['position_mm'])} mm after {machine['moves']} moves, {machine['travelled_mm']:.1f} mm"
    for skill in status["skills"]:
        yield f"  skill     {skill['name']} {skill['version']} {skill['digest'][:19]}… {skill['calls']} calls, {skill['faults']} faults, {skill['path']} path"
    if not status["skills"]:
        yield "  skill     none yet; `snapcount fleet push BUNDLE` brings one"
    yield from _recording_lines(status.get("recording"))
    for row in status["audit"]:
        yield f"  refused   {row['skill']}: {row['command']}: {row['reason']}"


def _recording_lines(recording: dict[str, Any] | None) -> Iterator[str]:
    """What is done with its calls beside answering them."""
    if recording is None:
        return
    kept, record, sent, auditor = (recording[name] for name in ("journal", "record", "sent", "auditor"))
    if record is not None:
        lost = record["dropped"] + record["failed"]
        yield f"  recorded  {kept['kept']} calls kept, {kept['kept_bytes'] / 2**20:.1f} MiB; {record['taken']} taken since the start, {lost} lost"
    if sent is not None:
        yield f"  audited   {sent['taken']} calls taken for auditors, {sent['dropped'] + sent['too_large'] + sent['unfit']} not sent, {recording['away']} while away"
    if auditor is not None:
        skipped = sum(auditor["skipped"].values())
        yield f"  auditor   {auditor['compared']} calls compared, {auditor['conflicts']} in conflict, {skipped} skipped, {auditor['dropped']} dropped"


def fleet_lines(fleet: dict[str, Any]) -> Iterator[str]:
    """The nodes of a registry, and which of them run what was announced."""
    nodes = fleet["nodes"]
    connected = sum(row["connected"] for row in nodes)
    yield f"{connected} of {len(nodes)} nodes connected"
    for announced in fleet["announced"]:
        active = sum(row["connected"] and any(skill["digest"] == announced["digest"] for skill in row["skills"]) for row in nodes)
        yield f"  {announced['name']} {announced['version']} {announced['digest'][:19]}… active on {active} of {connected} connected"
    for row in nodes:
        skills = ", ".join(f"{skill['name']} {skill['version']}" for skill in row["skills"]) or "no skill"
        yield f"  {row['node']:20} generation {row['generation']}  {'connected' if row['connected'] else 'away':9}  {skills}"
        for report in row["progress"]:
            if report["state"] == "failed":
                yield f"      {report['name']} {report['version']} failed: {safe(report['message'])}"
