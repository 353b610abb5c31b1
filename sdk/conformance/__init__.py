"""Runs the contract's own cases (sdk/contract/vectors) against a module: what it must answer, what it must refuse, and that it does both the same each time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from host.core import cbor
from host.core.errors import MalformedData, SkillRefused, SnapcountError, UsageError
from host.core.limits import DEFAULT
from host.plugins.contract import SHAPES, STREAMING
from sdk.conformance.cases import Case, CaseFile
from sdk.local import LocalSkill
from sdk.testbed import SeededRandom, StillClock

FOLDER = Path(__file__).resolve().parents[1] / "contract" / "vectors"
BAD_REQUEST = "bad_request"


@dataclass(frozen=True)
class Failure:
    """A case that did not end as the contract wants."""

    hook: str
    case: str
    about: str
    problem: str


@dataclass(frozen=True)
class Conformance:
    """What became of the cases: how many were run for each hook, and those that failed."""

    ran: dict[str, int]
    failures: tuple[Failure, ...]


def load() -> dict[str, CaseFile]:
    """The cases by hook. Raises MalformedData for a file that is not sound."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=CaseFile)
        except msgspec.DecodeError as error:
            raise MalformedData(f"{path}: {error}") from error
    return found


def written(file: CaseFile) -> bytes:
    """A file as it stands in the folder: one case a line, so that a change shows what it changed."""
    cases = ",\n".join("    " + msgspec.json.encode(case).decode() for case in file.cases)
    return f'{{\n  "hook": "{file.hook}",\n  "about": "{file.about}",\n  "cases": [\n{cases}\n  ]\n}}\n'.encode()


def run(data: bytes, what: str, files: dict[str, CaseFile] | None = None) -> Conformance:
    """Runs the cases of every hook that the module has, each on a host of its own. Raises what loading the module raises, UsageError where there are no cases."""
    hooks = LocalSkill(data, what).manifest.hooks
    chosen = {hook: file for hook, file in (load() if files is None else files).items() if hook in hooks}
    if not chosen:
        raise UsageError(f"{what}: there are no cases for its hooks: {', '.join(hooks)}")
    failures = [
        Failure(hook, case.name, case.about, problem) for hook, file in chosen.items() for case in file.cases if (problem := _problem(data, what, hook, case))
    ]  # fmt: skip
    return Conformance({hook: len(file.cases) for hook, file in chosen.items()}, tuple(failures))


def _problem(data: bytes, what: str, hook: str, case: Case) -> str:
    """Why the case failed; empty when it passed."""
    first, second = (_outcome(data, what, hook, case) for _ in range(2))
    kind, detail = first
    if first != second:
        return f"expected the same each time, got {_words(*first)} and then {_words(*second)}"
    if kind == "fault":
        return f"expected {_wanted(case)}, got no reply: {detail}"
    if case.expect == "answer" and kind == "reply":
        return _shape_problem(hook, case, detail)
    if case.expect == BAD_REQUEST and first != ("error", BAD_REQUEST):
        return f"expected {_wanted(case)}, got {_words(*first)}"
    return ""


def _outcome(data: bytes, what: str, hook: str, case: Case) -> tuple[str, Any]:
    skill = LocalSkill(data, what, clock=StillClock(), random=SeededRandom())
    with skill.loaded.instance() as instance:
        try:
            return "reply", instance.call(hook, bytes.fromhex(case.cbor))
        except SkillRefused as error:
            return "error", error.skill_code
        except SnapcountError as error:
            return "fault", str(error)


def _shape_problem(hook: str, case: Case, reply: bytes) -> str:
    shape = SHAPES[hook][1] if hook in SHAPES else STREAMING[hook][2 if case.value["last"] else 1]
    try:
        cbor.decode_struct(reply, shape, "reply", bytes_max=DEFAULT.reply_bytes_max)
    except SnapcountError as error:
        return f"expected a reply of the contract's shape: {error}"
    return ""


def _wanted(case: Case) -> str:
    return "the error reply bad_request" if case.expect == BAD_REQUEST else "a reply, or an error reply"


def _words(kind: str, detail: Any) -> str:
    return {"reply": "a reply", "error": f"the error reply {detail}", "fault": f"no reply ({detail})"}[kind]


def in_words(found: Conformance) -> list[str]:
    """The result as sentences."""
    lines = []
    for hook, ran in found.ran.items():
        failed = [failure for failure in found.failures if failure.hook == hook]
        lines += [f"{hook}: {failure.case} ({failure.about}): {failure.problem}." for failure in failed]
        lines.append(f"{hook}: {ran - len(failed)} of {ran} cases end as the contract wants.")
    return lines
