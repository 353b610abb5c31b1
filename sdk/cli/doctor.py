"""`snapcount node doctor`: looks a node over and says what to do."""

from pathlib import Path

import typer

from sdk.cli.output import Json, emit, say

EXAMPLE = "Example: snapcount node doctor --state node-1"


def doctor(
    state: Path = typer.Option(Path("node"), "--state", help="The node's state directory."),
    offline: bool = typer.Option(False, "--offline", help="Ask no other machine."),
    deep: bool = typer.Option(
        False, "--deep", help="Ask a machine's controller who it is too. Opens its port, which may reset it: not while it moves."
    ),
    as_json: bool = Json,
) -> None:
    """Check a node, whether it runs or not: host, clock, disk, permissions, limits, trust, toolchain, machine, network. Exit code 40 when something fails."""
    from dataclasses import asdict

    from host.core.errors import HostFault
    from host.doctor import SystemProbes, examine

    findings = []
    for finding in examine(state, SystemProbes(), offline=offline, deep=deep):
        findings.append(finding)
        if not as_json:
            say(finding.line)
    failed = sum(finding.level == "fail" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    if as_json:
        emit({"state": str(state), "failed": failed, "warned": warned, "findings": [asdict(finding) for finding in findings]})
    else:
        say(f"{failed} failed, {warned} to look at, {len(findings) - failed - warned} ok")
    if failed:
        raise typer.Exit(HostFault.exit_code)
