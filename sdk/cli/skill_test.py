"""`snapcount skill test`: everything that can be checked of a skill without a node."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, emit, progress, say

if TYPE_CHECKING:
    from sdk.project import Project
    from sdk.testing.check import Check
    from sdk.testing.suite import Report

EXAMPLE = "Example: snapcount skill test ore-sorter"
LINE_MAX = 4_000
Folder = typer.Argument(Path(), help="The skill's folder.", show_default="this folder")


def test(
    folder: Path = Folder,
    examples: int | None = typer.Option(
        None, min=1, help="How many requests to make up for each property.", show_default="500, or as many as a few seconds allow"
    ),
    seed: int | None = typer.Option(None, help="Makes the same requests as an earlier run.", show_default="at random"),
    faults: bool = typer.Option(True, help="Whether to cut fuel, refuse commands, fill the state and so on."),
    save: bool = typer.Option(False, "--save", help="Write the requests that were found to show a problem into vectors/."),
    update: bool = typer.Option(False, "--update", help="First write down what the skill answers now, into vectors that expect otherwise or nothing."),
    as_json: bool = Json,
) -> None:  # fmt: skip
    """Run a skill's self-test and vectors, then requests that are made up: properties, determinism, faults and limits."""
    import secrets

    from host.core.errors import UsageError
    from host.core.text import safe
    from sdk import project, vectors
    from sdk.local import read_bundle
    from sdk.testing.suite import Options, Suite

    loaded = project.load(folder)
    data = read_bundle(folder)
    changes = _updated(data, loaded) if update else {}
    found = vectors.load(loaded.vectors)
    options = Options(secrets.randbits(32) if seed is None else seed, examples, faults)
    suite = Suite(data, loaded.module.name, found, options)
    with progress("testing", len(found) + suite.more) as advance:
        report = suite.run(lambda done, check: advance(done, check.name))
    saved = _saved(report, loaded.vectors) if save else []
    if as_json:
        emit(_as_json(report) | {"updated": changes, "saved": saved})
    else:
        for line in _in_words(report, changes, saved):
            say(safe(line, LINE_MAX))  # much of it is what the skill said
    if report.failed:
        raise typer.Exit(1)
    if not found:
        raise UsageError(f"{loaded.vectors}: there are no vectors; a skill without a single one is not tested")


def _updated(data: bytes, loaded: "Project") -> dict[str, str]:
    """The diff of each vector that was written anew, by its file's name."""
    from sdk import vectors
    from sdk.testing import golden

    changes = {path.name: golden.update(data, path, vector) for path, vector in vectors.load(loaded.vectors)}
    return {name: change for name, change in changes.items() if change}


def _saved(report: "Report", folder: Path) -> list[str]:
    """Writes each request that shows a problem as a vector that expects nothing yet, and so fails for as long as there is no reply."""
    from sdk.testing import golden

    names = []
    for check in report.failed:
        for number, finding in enumerate(finding for finding in check.findings if finding.vector and finding.replays):
            name = f"found-{report.seed}-{check.slug}-{number}.json"
            golden.save(folder / name, finding.vector)
            names.append(name)
    return names


def _as_json(report: "Report") -> dict[str, object]:
    failed = {check.name: check.problems for check in report.failed}
    found = [finding.vector for check in report.failed for finding in check.findings if finding.vector]
    return {
        "passed": len(report.checks) - len(failed), "failed": failed, "seed": report.seed, "limits": report.limits, "found": found,
        "checks": {check.name: check.detail for check in report.checks},
    }  # fmt: skip


def _in_words(report: "Report", changes: dict[str, str], saved: list[str]) -> list[str]:
    lines = [line for change in changes.values() for line in change.splitlines()]
    lines += [line for check in report.checks for line in _of_check(check)]
    failed = len(report.failed)
    lines += [f"saved  {name}" for name in saved]
    return [*lines, f"{len(report.checks) - failed} passed, {failed} failed (--seed {report.seed} asks the same again)"]


def _of_check(check: "Check") -> list[str]:
    import json

    lines = [f"{'FAILED' if check.findings else 'ok':7}{check.name}{': ' if check.detail and not check.findings else ''}"]
    if not check.findings:
        return [lines[0] + check.detail]
    for finding in check.findings:
        lines.append(f"       {finding.problem}")
        if finding.vector:
            asked = {key: value for key, value in finding.vector.items() if key not in ("about", "hook")}
            lines.append(f"       asked: {json.dumps(asked, default=repr)}")
    return lines
