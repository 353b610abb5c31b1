"""Python skills: built by the pinned compiler, the same bytes everywhere, and no less than skills of the fast tier: the same vectors, cases and errors."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from host.core import cbor, wasm
from host.core.bundle import UnverifiedBundle
from host.core.capabilities import COMPONENTS
from host.core.errors import GuestTrap, HostCallsExceeded, MemoryExceeded, ReplyInvalid, SkillRefused, UsageError
from host.plugins.contract import HandleReply, HandleRequest, PlanSettings, SelfTestReply
from sdk import build as builds
from sdk import compare, conformance, project, scaffold, vectors
from sdk.local import LocalSkill
from sdk.testbed import SeededRandom, StillClock
from sdk.toolchains import python, still
from sdk.toolchains.process import BuildFailed, cache_folder

SKILLS = Path(__file__).resolve().parents[1] / "skills"
MANIFEST = """
[skill]
name = "echo"
version = "1.0.0"
hooks = ["handle", "plan_job", "self_test"]
capabilities = ["clock", "flags", "log", "motion", "random", "state"]
[limits]
fuel = 2000000000
memory_bytes = 33554432
deadline_ms = 20000
log_bytes = 200
[build]
lang = "python"
source = "src/main.py"
"""
SOURCE = """
import random
import sys
import time

from helpers import spelled
from snapcount import (
    HandleReply, HandleRequest, HandleState, Phase, PlanJobRequest, PlanProgress, PlanReport, SelfTestReply, Verb,
    BoundingBox, Dialect, Failure, MoveCounts, PathLengths, Problem, Units, clock, fail, flags, log, motion, state,
)
from snapcount import random as entropy

print("while building")
lines = 0


def handle(r: HandleRequest) -> HandleReply:
    found = TOPICS.get(r.topic, TOPICS["echo"])(r)
    return found if not isinstance(found, str) else HandleReply(detail=found, handled=True, payload=r.payload, state=HandleState.READY)


def offered(r: HandleRequest) -> str:
    print("printed", len(r.payload))
    log.warning("careful")
    state.set("seen", (state.get("seen") or b"") + b"x")
    home = motion.home()
    moved = motion.move([(1.0, 2.0, 3.0, 4.0), (2.0, 2.0, 3.0, 4.0)])
    return f"{clock.now_ms()} {time.time()} {state.get('seen')} {state.get('none')} {flags.is_on('fast')} {home.position_mm} {moved.moves} {entropy.get_bytes(3).hex()}"


def unsafe(r: HandleRequest) -> str:
    try:
        motion.heat("nozzle", 9999.0)
    except Failure as failure:
        return f"{failure.code}: {failure}"
    return "heated"


def endless(r: HandleRequest) -> str:
    while True:
        log.info("again")


TOPICS = {
    "echo": lambda r: f"{r.at_ms} {spelled(r.phase)} {r.priority} {r.source} {spelled(r.verb)} {r.weight} {r.verb is Verb.ACT} {r.phase is Phase.ACT}",
    "offered": offered,
    "unsafe": unsafe,
    "fail": lambda r: fail("no_way", "because"),
    "zero": lambda r: str(1 // (len(r.payload) - len(r.payload))),
    "memory": lambda r: str(len(bytearray(1 << 26))),
    "recursion": lambda r: TOPICS["recursion"](r),
    "key": lambda r: {}["nothing such"],
    "exit": lambda r: sys.exit(3),
    "none": lambda r: None,
    "wide": lambda r: "x" * 1025,
    "big": lambda r: HandleReply(detail="", handled=True, payload=bytes(4_000_000), state=HandleState.READY),
    "chance": lambda r: f"{random.random()} {hash('abc')} {list({'a', 'b', 'c', 'd'})}",
    "file": lambda r: open("/etc/passwd").read(),
    "endless": endless,
}


def plan_job(request: PlanJobRequest) -> PlanProgress | PlanReport:
    global lines
    lines += request.chunk.count(b"\\n")
    if not request.last:
        return PlanProgress(lines=lines)
    return PlanReport(
        bbox_mm=BoundingBox(max=(0.0, 0.0, 0.0), min=(0.0, 0.0, 0.0)), complete=False, dialect=Dialect.GRBL, driven=0, extruded_mm=0.0, lines=lines,
        moves=MoveCounts(arc=0, linear=0, rapid=0), path_mm=PathLengths(arc=0.0, linear=0.0, rapid=0.0, total=0.0),
        problems=[Problem(code="tail", line=1, message=f"{request.settings.tail} {request.settings.start_mm}")], problems_total=1, time_s=0.0, units=Units.MM,
    )


def self_test() -> SelfTestReply:
    return SelfTestReply(detail="echoes", ok=True)
"""
MESSAGE = HandleRequest(
    at_ms=(1 << 64) - 1, correlation=bytes(range(16)), id=bytes(range(16, 32)), payload=b"\x00\xff", phase="prepare", priority=2, source="lead-ü",
    topic="echo", verb="act", weight=0.5,
)  # fmt: skip


def made(folder: Path, source: str, manifest: str = MANIFEST) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.py").write_text(source)
    (folder / "src" / "helpers.py").write_text("def spelled(word):\n    return word.name.lower()\n")
    (folder / "skill.toml").write_text(manifest)
    return folder


@pytest.fixture(scope="module")
def echo(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A skill that does whatever its topic says."""
    require("python")
    return builds.build(project.load(made(tmp_path_factory.mktemp("echo") / "p", SOURCE))).read_bytes()


@pytest.fixture(scope="module")
def template(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("python")
    folder = scaffold.create(tmp_path_factory.mktemp("template"), "ore-sorter", "python")
    builds.build(project.load(folder))
    return folder


def told(data: bytes, topic: str, **options: object) -> HandleReply:
    skill = LocalSkill(data, "echo", clock=StillClock(), random=SeededRandom(), **options)  # type: ignore[arg-type]
    return ask(skill, topic)


def ask(skill: LocalSkill, topic: str) -> HandleReply:
    reply = skill.version.call(
        "handle", HandleRequest(**{name: getattr(MESSAGE, name) for name in MESSAGE.__struct_fields__} | {"topic": topic})
    )
    assert isinstance(reply, HandleReply)
    return reply


# ---- Builds ----------------------------------------------------------------------------------


@pytest.mark.ci
def test_a_new_skill_is_a_component_with_the_feature_that_it_needs(template: Path) -> None:
    data = (template / "ore-sorter.wasm").read_bytes()
    assert wasm.is_component(data)
    assert UnverifiedBundle.parse(data, "ore-sorter").manifest.features == (COMPONENTS,)
    assert LocalSkill(data, "ore-sorter").version.self_test() == SelfTestReply(detail="nothing to prepare", ok=True)
    assert [outcome for outcome in vectors.run_all(data, template / "vectors") if outcome.problems] == []


@pytest.mark.ci
def test_two_builds_in_two_folders_give_the_bytes_of_the_first(template: Path) -> None:
    found = builds.verify(project.load(template))
    assert found.problems == ()
    assert found.first == found.second == found.in_place


@pytest.mark.ci
def test_the_contracts_own_cases_end_as_they_do_in_every_language(template: Path, echo: bytes) -> None:
    for data in ((template / "ore-sorter.wasm").read_bytes(), echo):
        assert conformance.run(data, "python").failures == ()


@pytest.mark.ci
def test_the_lineage_in_python_agrees_with_the_one_in_zig(require: Callable[[str], None], tmp_path: Path) -> None:
    require("python")
    folder = project.load(SKILLS / "bounty-bidder-py")
    ours = builds.build(folder, tmp_path / "ours.wasm").read_bytes()
    theirs = (SKILLS / "bounty-bidder" / "bounty-bidder.wasm").read_bytes()
    assert [outcome for outcome in vectors.run_all(ours, folder.vectors) if outcome.problems] == []
    lineages = [compare.Lineage("zig", theirs), compare.Lineage("python", ours)]
    report = compare.compare(lineages, vectors.load(folder.vectors), folder.compare, examples=200, seed=5)
    assert not report.divergences


def test_the_template_has_the_vectors_of_the_others() -> None:
    for path in (scaffold.TEMPLATES / "python" / "vectors").iterdir():
        assert path.read_bytes() == (scaffold.TEMPLATES / "zig" / "vectors" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def bid(:\n    pass\n", "src/main.py:1:9: error: invalid syntax"),
        ("x = 1\n", "src/main.py:1:1: error: there is no function handle for the hook handle of skill.toml"),
        ("def handle(r):\n\treturn 1\n        return 2\n", "src/main.py:3"),
        ("x = '\0'\n", "error: source code string cannot contain null bytes"),
    ],
)
def test_sources_that_cannot_be_right_are_refused_with_their_place_before_anything_is_compiled(
    source: str, says: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    require("python")
    folder = made(tmp_path / "p", source)
    with pytest.raises(BuildFailed) as caught:
        builds.build(project.load(folder))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not list(folder.glob("*.wasm"))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import nothing_such\nhandle = plan_job = self_test = print\n",
            "src/main.py:1: error: ModuleNotFoundError: No module named 'nothing_such'",
        ),
        (
            "from helpers import spelled\n\n1 / 0\nhandle = plan_job = self_test = print\n",
            "src/main.py:3: error: ZeroDivisionError: division by zero",
        ),
        ("from snapcount import drivers\nhandle = plan_job = self_test = print\n", "snapcount.drivers needs the capability of a driver"),
    ],
)
def test_what_fails_while_the_skill_is_imported_is_told_with_its_place(
    source: str, says: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    require("python")
    with pytest.raises(BuildFailed) as caught:
        builds.build(project.load(made(tmp_path / "p", source)))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_source_that_cannot_be_imported_by_its_name_is_refused(require: Callable[[str], None], tmp_path: Path) -> None:
    require("python")
    folder = made(tmp_path / "p", "", MANIFEST.replace("main.py", "snapcount.py"))
    (folder / "src" / "snapcount.py").write_text("")
    with pytest.raises(UsageError, match=r"snapcount\.py cannot be imported"):
        builds.build(project.load(folder))


def test_a_missing_compiler_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install componentize-py==0\.25\.1"):
        python.describe()


def test_another_version_of_the_compiler_is_refused(require: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    require("python")
    monkeypatch.setattr(python, "version", lambda name: "0.1.0")
    with pytest.raises(UsageError, match=r"found 0\.1\.0"):
        python.describe()


PROBE = """
import os, random, sys, time
def script():
    here = os.stat(sys.argv[1])
    print(time.time(), os.urandom(4).hex(), random.random(), here.st_mtime, here.st_ctime, os.listdir(sys.argv[1]), os.stat(sys.argv[1] + "/b").st_size)
    with os.scandir(sys.argv[1]) as entries:
        next(entries)
    print([entry.is_dir() for entry in os.scandir(sys.argv[1])], os.path.exists("/nothing/such"))
    return 7
"""


@pytest.mark.slow
def test_a_tool_in_a_world_without_time_sees_the_same_each_time(tmp_path: Path) -> None:
    said = []
    for number, names in enumerate(("abc", "cba")):
        folder = tmp_path / f"run{number}" / "files"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text("x" * 5)
            os.utime(folder / name, (number, number))
        (folder.parent / "probe.py").write_text(PROBE)
        environment = os.environ | {"PYTHONPATH": str(folder.parent), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(
            [sys.executable, "-P", still.__file__, "probe", str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode == still.NOT_ALLOWED:
            pytest.skip("this system does not let a process answer another's system calls")
        assert ended.returncode == 7, ended.stderr
        said.append(ended.stdout)
    assert said[0] == said[1]
    assert said[0].startswith(f"{float(still.EPOCH_S)} 5a5a5a5a ") and "['a', 'b', 'c'] 5" in said[0]


# ---- Calls -----------------------------------------------------------------------------------


@pytest.mark.ci
def test_a_hook_gets_what_the_host_sent_in_types_of_python(echo: bytes) -> None:
    reply = told(echo, "echo")
    assert reply.detail == "18446744073709551615 prepare 2 lead-ü act 0.5 True False"
    assert (reply.handled, reply.payload, reply.state) == (True, b"\x00\xff", "ready")


@pytest.mark.ci
def test_what_was_granted_is_there_and_counted(echo: bytes) -> None:
    skill = LocalSkill(echo, "echo", clock=StillClock(), random=SeededRandom())
    now = StillClock().now_ms()
    first, second = ask(skill, "offered").detail, ask(skill, "offered").detail
    assert first.startswith(f"{now} {now / 1000} b'x' None False (0.0, 0.0, 0.0) 2 ")
    assert " b'xx' " in second and first.split()[-1] != second.split()[-1]
    assert skill.logged == [("info", "printed 2"), ("warning", "careful")] * 2
    assert ask(skill, "unsafe").detail.startswith("unsafe_command: temperature of nozzle")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("topic", "kind", "says"),
    [
        ("fail", SkillRefused, "no_way: because"),
        ("zero", GuestTrap, "ZeroDivisionError: division by zero (main.py, line"),
        ("memory", MemoryExceeded, "MemoryError"),
        ("recursion", GuestTrap, "RecursionError"),
        ("exit", GuestTrap, "SystemExit: 3"),
        ("none", GuestTrap, "returned NoneType, not HandleReply"),
        ("key", GuestTrap, "KeyError: 'nothing such'"),
        ("file", GuestTrap, "trapped: unreachable"),
        ("wide", ReplyInvalid, "detail"),
        ("big", ReplyInvalid, ""),
        ("endless", HostCallsExceeded, "logged more than 200 bytes"),
    ],
)
def test_a_hook_that_fails_says_where_and_the_next_call_is_answered(echo: bytes, topic: str, kind: type[Exception], says: str) -> None:
    skill = LocalSkill(echo, "echo", clock=StillClock(), random=SeededRandom())
    with pytest.raises(kind) as caught:
        ask(skill, topic)
    assert type(caught.value) is kind and says in str(caught.value) and "\n" not in str(caught.value)
    assert ask(skill, "echo").handled


@pytest.mark.ci
def test_the_same_input_gives_the_same_output_and_fuel(echo: bytes) -> None:
    request = cbor.encode(HandleRequest(**{name: getattr(MESSAGE, name) for name in MESSAGE.__struct_fields__} | {"topic": "chance"}))
    seen = set()
    for _ in range(3):
        with LocalSkill(echo, "echo").loaded.instance() as instance:
            seen.add((instance.call("handle", request), instance.fuel_used))
    assert len(seen) == 1


@pytest.mark.ci
def test_a_program_goes_through_one_instance_chunk_by_chunk(echo: bytes) -> None:
    program = [b"G1 X1\n" * 60_000, b"G1 X2\n"]
    report = LocalSkill(echo, "echo").version.plan(program, PlanSettings(tail=b"end", start_mm=(1.0, 2.0, 3.0)), run=False)
    assert (report.lines, report.done, report.dialect, report.units) == (60_001, True, "grbl", "mm")
    assert report.problems[0].message == "b'end' (1.0, 2.0, 3.0)"


@pytest.mark.ci
def test_the_commands_go_from_nothing_to_a_signed_skill(require: Callable[[str], None], tmp_path: Path) -> None:
    require("python")
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache_folder().parent)}
    for arguments in (["new", "x", "--lang", "python"], ["build", "x"], ["test", "x"], ["check", "x"], ["inspect", "x"], ["sign", "x"]):
        command = [sys.executable, "-m", "sdk.cli.main", "skill", *arguments]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
