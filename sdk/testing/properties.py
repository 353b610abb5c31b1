"""What holds for every skill, whatever it is asked: checked on requests that are made up, each failure shrunk to a small one."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from host.core import cbor
from host.core.errors import GuestTrap, SnapcountError, TooLarge
from host.core.limits import DEFAULT
from host.plugins.contract import SHAPES, STREAMING, PlanJobRequest
from sdk import samples
from sdk.shrinking import shrink
from sdk.testing import golden, scripts
from sdk.testing.check import Budget, Check, Finding
from sdk.testing.damage import BAD_REQUEST, Damaged, damaged
from sdk.testing.host import FakeHost, Job
from sdk.testing.scripts import Script

FINDINGS_MAX = 3
SHRINK_S = 2.0
SPLIT_BYTES_MAX = 64  # programs up to this size are cut after each byte as well
CODES_SHOWN = 4

Problem = Callable[[Script], str]
"""What is wrong with how a script ends, beginning with a word that two findings of one kind share; empty for nothing."""


def answers(host: FakeHost, hook: str, corpus: Sequence[Script], rng: random.Random, budget: Budget) -> Check:
    """Any request within the contract's bounds gets a valid reply, or an error reply with a sound code."""
    ended: Counter[str] = Counter()

    def problem(script: Script) -> str:
        outcome = script.ask(host)
        ended[outcome.code or outcome.kind] += 1
        return outcome.problem and f"{outcome.code or outcome.kind}: {outcome.problem}"

    tried, found = _hunt(problem, scripts.made_up(hook, corpus, rng, remembers=_remembers(host)), budget)
    errors = ", ".join(f"{count} {code}" for code, count in ended.most_common(CODES_SHOWN) if code != "reply")
    detail = f"{tried} tried, {ended['reply']} replies" + (f"; error replies: {errors}" if errors else "")
    findings = [_finding(said, script) for said, script in found]
    return Check(f"{hook}, made-up requests", "" if findings else detail, findings)  # making a failure smaller counts too


def splits(host: FakeHost, corpus: Sequence[Script], rng: random.Random, budget: Budget) -> Check:
    """A program gives the same report in whatever pieces it comes."""

    def problem(script: Script) -> str:
        job = script.request
        assert isinstance(job, Job)
        whole = b"".join(job.program)
        expected = replace(script, request=msgspec.structs.replace(job, program=(whole,))).ask(host)
        found = script.ask(host)
        same = found.same(expected)
        return "" if same else f"split: in {len(job.program)} pieces it gives {found.in_words}, and in one {expected.in_words}"

    made = (_in_bytes(script, rng) for script in scripts.made_up("plan_job", corpus, rng, remembers=False))
    tried, found = _hunt(problem, made, budget)
    findings = [_finding(said, script, **_of_the_whole(host, script)) for said, script in found]
    return Check("plan_job, programs in pieces", f"{tried} programs give the same report as in one piece", findings)


def _in_bytes(script: Script, rng: random.Random) -> Script:
    """Some small programs are cut after each byte."""
    job = script.request
    assert isinstance(job, Job)
    whole = b"".join(job.program)
    if not 0 < len(whole) <= SPLIT_BYTES_MAX or rng.random() < 0.5:
        return script
    return replace(script, request=msgspec.structs.replace(job, program=tuple(bytes([byte]) for byte in whole)))


def _of_the_whole(host: FakeHost, script: Script) -> dict[str, Any]:
    """How a vector ends that expects what the program gives in one piece."""
    assert isinstance(script.request, Job)
    whole = msgspec.structs.replace(script.request, program=(b"".join(script.request.program),))
    expected = replace(script, request=whole).ask(host)
    return {"error": {"code": expected.code}} if expected.kind == "error" else {"reply": golden.shown(expected.reply)}


def refuses(host: FakeHost, hook: str, corpus: Sequence[Script], rng: random.Random, budget: Budget) -> Check:
    """Bytes that are no request of the contract are answered with bad_request; what is only out of bounds, which no host sends, does not trap."""
    shape = SHAPES[hook][0] if hook in SHAPES else STREAMING[hook][0]
    known = [samples.plain(_as_chunk(one.request) if isinstance(one.request, Job) else one.request) for one in corpus]
    check, worst, refused = Check(f"{hook}, damaged requests"), dict[str, tuple[Damaged, str]](), 0
    for _ in budget.turns():
        made = samples.made_up(shape, known, rng)
        if made is None:
            continue
        one = damaged(shape, made[1], rng)
        problem = _of_damaged(host, hook, one)
        refused += one.ends == "refused"
        if problem and (problem not in worst or len(one.data) < len(worst[problem][0].data)):
            worst[problem] = (one, problem)
        check.detail = f"{refused} refused with {BAD_REQUEST}, and none trapped"
    for one, problem in list(worst.values())[:FINDINGS_MAX]:
        check.findings.append(Finding(f"{one.about}: {problem}; as bytes {one.data[:200].hex()}{'…' if len(one.data) > 200 else ''}"))
    return check


def _as_chunk(job: Job) -> PlanJobRequest:
    return PlanJobRequest(chunk=b"".join(job.program)[: 64 << 10], last=True, run=False, seq=0, settings=job.settings)


def _of_damaged(host: FakeHost, hook: str, one: Damaged) -> str:
    host.reset()
    try:
        outcome = host.raw(hook, one.data)
    except TooLarge:
        return ""
    if one.ends == "but_traps":
        return outcome.problem if outcome.code == GuestTrap.code else ""
    if one.ends == "refused" and (outcome.kind, outcome.code) != ("error", BAD_REQUEST):
        found = "a reply" if outcome.kind == "reply" else outcome.in_words
        return f"expected the error reply {BAD_REQUEST}, got {found}"
    if outcome.kind != "reply":
        return outcome.problem
    return _of_reply(hook, one.data, outcome.reply)


def _of_reply(hook: str, request: bytes, reply: bytes) -> str:
    try:
        if hook in SHAPES:
            shape = SHAPES[hook][1]
        else:
            shape = STREAMING[hook][2 if cbor.decode(request, "request", bytes_max=DEFAULT.request_bytes_max).get("last") else 1]
        cbor.decode_struct(reply, shape, "reply", bytes_max=DEFAULT.reply_bytes_max)
    except SnapcountError as error:
        return f"a reply that is not the contract's: {error}"
    return ""


def _remembers(host: FakeHost) -> bool:
    return host.manifest.instance == "persistent" or "state" in host.manifest.capabilities


def _hunt(problem: Problem, made: Iterator[Script], budget: Budget) -> tuple[int, list[tuple[str, Script]]]:
    """Tries made-up scripts: how many there were, and of each kind of problem the smallest script that was found to show it."""
    first: dict[str, Script] = {}
    tried = 0
    for _ in budget.turns():
        script = next(made)
        try:
            found = problem(script)
        except TooLarge:  # the host sends nothing that long
            continue
        tried += 1
        if found:
            first.setdefault(found.partition(":")[0], script)
        if len(first) >= FINDINGS_MAX:
            break
    shown = []
    for kind, script in first.items():
        smallest = _smallest(script, lambda candidate, kind=kind: problem(candidate).partition(":")[0] == kind)  # type: ignore[misc]  # bound now
        shown.append((problem(smallest).partition(": ")[2], smallest))
    return tried, shown


def _finding(said: str, script: Script, **ending: Any) -> Finding:
    vector = golden.described(script.hook, [*script.before, script.request], f"Found by `snapcount skill test`: {said}"[:1000])
    return Finding(said, vector | ending)


def _smallest(script: Script, shows: Callable[[Script], bool]) -> Script:
    """The script without what came before, where that is not needed, and with a request as small as it gets."""

    def still(candidate: Script | None) -> bool:
        try:
            return candidate is not None and shows(candidate)
        except TooLarge:
            return False

    for index in reversed(range(len(script.before))):
        shorter = replace(script, before=script.before[:index] + script.before[index + 1 :])
        script = shorter if still(shorter) else script
    small = shrink(scripts.plain(script), lambda request: still(scripts.with_plain(script, request)), seconds=SHRINK_S)
    return scripts.with_plain(script, small) or script
