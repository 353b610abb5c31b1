"""`snapcount fleet quarantine`, `snapcount fleet lift` and `snapcount node policies`: what a fleet's nodes may not call, from now on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sdk.cli.output import Json, emit, say, table

if TYPE_CHECKING:
    from host.core.quarantine import AnyPolicy

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
QUARANTINE_EXAMPLE = "Example: snapcount fleet quarantine ore-sorter --version '>=1.2.0 <1.2.4' --reason 'jams the belt' --key operator.key --state orchestrator"
LIFT_EXAMPLE = "Example: snapcount fleet lift q-5f0c2a9b41d7e836 --key operator.key --state orchestrator"
POLICIES_EXAMPLE = "Example: snapcount node policies --state node-1"

State = typer.Option(Path("orchestrator"), "--state", help="The orchestrator's state directory.", envvar="SNAPCOUNT_ORCHESTRATOR")
Key = typer.Option(..., "--key", help="Private key of an operator whom the nodes trust.")
Registry = typer.Option("", "--registry", help="Send it through this registry instead, http://HOST:PORT: to nodes that are in no mesh.")
Reason = typer.Option("", "--reason", help="Why; whoever calls the skill is told.")


def quarantine(
    skill: str = typer.Argument("*", help="Name of the skill; left out, --digest says which bundle."),
    version: str = typer.Option("*", "--version", help="Versions, as '>=1.2.0 <1.3.0'. Default: all."),
    digest: str = typer.Option("", "--digest", help="Only this bundle, sha256:…"),
    hook: str = typer.Option("*", "--hook", help="Only this hook. Default: all."),
    anomaly: str = typer.Option("", "--anomaly", help="Only on nodes where this error shows, as guest_trap or deadline_exceeded."),
    count: int = typer.Option(1, "--count", help="How often it must show."),
    within: int = typer.Option(60, "--within", help="Within how many seconds."),
    expires: str = typer.Option("", "--expires", help="For how long, as 90s, 30m, 12h or 7d. Default: until it is lifted."),
    reason: str = Reason,
    key: Path = Key,
    state: Path = State,
    registry: str = Registry,
    as_json: bool = Json,
) -> None:
    """Keep every node from calling a skill, ahead of all other traffic. Nodes that are away are told when they connect."""
    import secrets

    import msgspec

    from host.core.clock import SystemClock
    from host.core.errors import UsageError
    from host.core.quarantine import Disable
    from host.core.text import safe

    now_ms = SystemClock().now_ms()
    fields: dict[str, Any] = {
        "id": f"q-{secrets.token_hex(8)}", "issued_ms": now_ms, "reason": reason, "skill": skill, "versions": version, "digest": digest, "hook": hook,
        "anomaly": {"code": anomaly, "count": count, "within_s": within} if anomaly else None,
        "expires_ms": now_ms + 1000 * seconds(expires) if expires else 0, "action": "disable",
    }  # fmt: skip
    try:
        policy = msgspec.convert(fields, Disable)
    except msgspec.ValidationError as error:
        raise UsageError(f"quarantine: {safe(str(error))}") from error
    _send(policy, policy.id, key, state, registry, as_json)


def lift(
    policy_id: str = typer.Argument(metavar="ID", help="The policy, as `snapcount node policies` shows it."),
    reason: str = Reason,
    key: Path = Key,
    state: Path = State,
    registry: str = Registry,
    as_json: bool = Json,
) -> None:
    """End a quarantine policy on every node."""
    import secrets

    import msgspec

    from host.core.clock import SystemClock
    from host.core.errors import UsageError
    from host.core.quarantine import Lift

    fields = {
        "id": f"l-{secrets.token_hex(8)}",
        "issued_ms": SystemClock().now_ms(),
        "reason": reason,
        "lifts": policy_id,
        "action": "lift",
    }
    try:
        policy = msgspec.convert(fields, Lift)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a policy's id is lower case letters, digits and dashes, as `snapcount node policies` shows it: {error}"
        ) from error
    _send(policy, policy_id, key, state, registry, as_json)


def policies(
    state: Path = typer.Option(Path("node"), "--state", help="The node's state directory."),
    as_json: bool = Json,
) -> None:
    """Show the quarantine policies that a running node holds."""
    from host.console.client import NodeControl
    from host.core.text import safe

    found = NodeControl(state).get("/v1/status")["policies"]
    if as_json:
        emit({"policies": found})
        return
    if not found:
        say("no skill of this node is in quarantine")
        return
    rows = [
        (p["id"], "disabled" if p["in_force"] else "armed", _what(p), p["hook"], "until lifted" if not p["expires_ms"] else _day(p["expires_ms"]),
         safe(p["reason"], 60))
        for p in found
    ]  # fmt: skip
    table(("policy", "state", "what", "hook", "until", "reason"), rows)


def seconds(text: str) -> int:
    """`7d` in seconds. Raises UsageError."""
    from host.core.errors import UsageError

    number, unit = text[:-1], text[-1:]
    if unit not in UNITS_S or not number.isascii() or not number.isdigit() or not 0 < int(number) * UNITS_S[unit] <= 3_650 * UNITS_S["d"]:
        raise UsageError(f"--expires: expected a number and s, m, h or d, as 7d, at most 3650d, not {text!r}")
    return int(number) * UNITS_S[unit]


def _send(policy: "AnyPolicy", policy_id: str, key: Path, state: Path, registry: str, as_json: bool) -> None:
    import base64
    import json

    from host.console import mesh
    from host.console.client import NodeControl
    from host.core import keys
    from host.core import quarantine as policies_
    from host.core.errors import NetworkError

    signed = policies_.sign(policy, keys.load(key))
    if registry:
        from registry.client import RegistryHttp

        sent = RegistryHttp(registry).police(signed)
        if as_json:
            emit({"policy": policy_id, "nodes": sent["nodes"]})
        else:
            say(f"policy {policy_id}: sent to {sent['nodes']} connected node(s); others are told when they connect")
        return
    document = base64.b64encode(signed).decode()
    result = NodeControl(state).post("/v1/mesh/quarantine", json.dumps({"document": document}).encode())
    if as_json:
        emit(result | {"policy": policy_id})
    else:
        say(f"policy {policy_id}")
        for line in mesh.result_lines(result):
            say(line)
    if result["ready"] < result["expected"]:
        raise typer.Exit(NetworkError.exit_code)


def _what(policy: dict[str, Any]) -> str:
    anomaly = policy["anomaly"]
    when = f" once {anomaly['count']} × {anomaly['code']} in {anomaly['within_s']} s" if anomaly else ""
    return " ".join(part for part in (policy["skill"], policy["versions"], policy["digest"][:19]) if part and part != "*") + when


def _day(ms: int) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000))
