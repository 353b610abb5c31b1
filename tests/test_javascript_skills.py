"""Skills in JavaScript: from an empty folder to a compared bundle, what is refused and in which words, and that nothing of the building machine gets in."""

import json
import os
import random
import re
import shutil
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import wasmtime

import host
from host.core import cbor, keys, safety, wasm
from host.core.errors import FuelExhausted, GuestTrap, MemoryExceeded, ReplyInvalid, SkillRefused, UsageError
from host.plugins import contract
from host.plugins.contract import BidReply, HandleReply, HandleRequest, PlanSettings
from host.plugins.streaming import plan
from sdk import build as builds
from sdk import compare as comparing
from sdk import project, samples, scaffold, vectors
from sdk.bindings.described import shapes
from sdk.bindings.javascript import camel, typescript
from sdk.bindings.javascript import javascript as tables_of
from sdk.bindings.wit import LEFT_OUT
from sdk.demo.samples import BID
from sdk.local import WIDE_OPEN, LocalSkill, read_bundle
from sdk.testbed import NOW_MS, SeededRandom, StillClock
from sdk.toolchains import javascript, quickjs
from sdk.toolchains.process import BuildFailed
from skills import module_path

ROOT = Path(host.__file__).resolve().parents[1]
SOURCES = Path(__file__).resolve().parents[1] / "skills"
MANIFEST = """
[skill]
name = "{name}"
version = "1.0.0"
hooks = {hooks}
capabilities = {capabilities}
[limits]
fuel = 1000000000
deadline_ms = 5000
memory_bytes = 16777216
reply_bytes = 65536
[build]
lang = "javascript"
source = "src/main.js"
"""
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a project of one source; `build` it."""
    require("javascript")

    def made(source: str, *, hooks: tuple[str, ...] = ("bid",), capabilities: tuple[str, ...] = (), name: str = "trial") -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "src").mkdir()
        (folder / "src" / "main.js").write_text(source)
        (folder / "skill.toml").write_text(MANIFEST.format(name=name, hooks=list(hooks), capabilities=list(capabilities)))
        return folder

    return made


def built(folder: Path) -> bytes:
    return builds.build(project.load(folder)).read_bytes()


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# ---- What is made of the contract ------------------------------------------------------------


def test_every_field_of_the_contract_has_its_names_in_the_tables_and_its_type():
    described = [shape for shape in shapes() if shape.name not in LEFT_OUT]
    tables, types = tables_of(described), typescript(described)
    for shape in described:
        table = re.search(rf"^export const {shape.name} = shape\(\[(.*?)\](?:, {{.*?}})?\);$", tables, re.MULTILINE | re.DOTALL)
        declared = re.search(rf"^  export interface {shape.name} {{(.*?)^  }}$", types, re.MULTILINE | re.DOTALL)
        assert table
        assert declared
        fields = [member for member in shape.members if member.kind not in ("tag", "constant")]
        assert re.findall(r'field\("(\w+)", "(\w+)"', table[1]) == [(member.name, camel(member.name)) for member in fields]
        assert re.findall(r"^    (\w+)(\??):", declared[1], re.MULTILINE) == [
            (member.name, "?" if member.optional else "") for member in shape.members
        ]
    assert set(re.findall(r"^  (\w+): \[", tables, re.MULTILINE)) == contract.HOOKS


def test_names_are_those_that_the_compiler_gives_them():
    # What heck, which componentize-qjs takes names from, makes of those in skill.wit.
    assert [camel(name) for name in ("speed_m_s", "d10_um", "accel_mm_s2", "work_index_kwh_t", "id", "self_test")] == [
        "speedMS", "d10Um", "accelMmS2", "workIndexKwhT", "id", "selfTest",
    ]  # fmt: skip


# ---- Getting the compiler --------------------------------------------------------------------


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing in it but what a test puts there, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "snapcount" / "toolchains").iterdir())


def fake_npm(only: Path, native: bytes | None) -> None:
    """An npm that makes the files of the package, with this in its native part, or without one."""
    for tool in ("mkdir", "touch", "cp"):
        (only / tool).symlink_to(str(shutil.which(tool, path="/usr/bin:/bin")))
    folder = f"node_modules/@andreiltd/{'componentize-qjs-binding-linux-x64-gnu' if native is not None else 'other'}"
    (only / "native").write_bytes(native or b"")
    made = javascript.CLI
    script(
        only / "npm",
        f'test "$1 $2" = "ci --ignore-scripts" && mkdir -p {made.parent} {folder} && touch {made} && cp {only}/native {folder}/x.node',
    )
    script(only / "node", "echo v22.1.0")


def test_without_node_it_says_how_to_get_it(only: Path) -> None:
    with pytest.raises(UsageError, match=r"the JavaScript compiler needs Node\.js, which is missing: install Node\.js 20 or newer"):
        javascript.describe()


def test_an_old_node_is_named(only: Path) -> None:
    script(only / "node", "echo v18.19.0")
    with pytest.raises(UsageError, match=r"the JavaScript compiler needs Node\.js 20 or newer, found v18\.19\.0"):
        javascript.describe()


def test_without_npm_it_says_what_is_missing(only: Path) -> None:
    script(only / "node", "echo v22.1.0")
    with pytest.raises(UsageError, match=r"componentize-qjs 0\.4\.5 is missing: npm, which installs it, is missing too: install Node\.js"):
        javascript.describe()


def test_an_npm_that_fails_leaves_nothing_behind(only: Path, tmp_path: Path) -> None:
    script(only / "node", "echo v22.1.0")
    script(only / "npm", "echo 'npm error network is unreachable' >&2; exit 1")
    with pytest.raises(UsageError, match=r"could not install componentize-qjs .*network is unreachable; is there a network"):
        javascript.describe()
    assert kept(tmp_path) == []


def test_a_machine_that_the_package_has_no_program_for_is_told_so(only: Path, tmp_path: Path) -> None:
    fake_npm(only, None)
    with pytest.raises(BuildFailed, match="has no program for this machine; there are those for Linux on x86_64 and aarch64"):
        javascript.describe()
    assert kept(tmp_path) == []


def test_a_package_with_another_engine_inside_is_refused(only: Path, tmp_path: Path) -> None:
    fake_npm(only, b"ELF" + wasm.MAGIC + wasm.VERSION_1 + bytes(2_000_000))
    with pytest.raises(BuildFailed, match="has another JavaScript engine than the pinned one"):
        javascript.describe()
    assert kept(tmp_path) == []


def test_an_engine_that_was_changed_in_the_cache_is_not_built_in(only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(only / "node", "echo v22.1.0")
    spoiled = tmp_path / "cache" / "snapcount" / "toolchains" / f"componentize-qjs-{javascript.VERSION}"
    (spoiled / javascript.CLI).parent.mkdir(parents=True)
    (spoiled / javascript.CLI).touch()
    (spoiled / "quickjs-size.wasm").write_bytes(wasm.MAGIC + wasm.VERSION_1 + bytes(2_000_000))
    folder = scaffold.create(tmp_path, "spoiled", "javascript")
    with pytest.raises(BuildFailed, match=r"quickjs-size\.wasm is not the pinned JavaScript engine; remove \S+ and build again"):
        builds.compiled(project.load(folder))


def test_the_lock_file_names_the_pinned_version_by_digest_and_no_address() -> None:
    lock = (javascript.PINS / "package-lock.json").read_text()
    packages = json.loads(lock)["packages"]
    assert packages["node_modules/componentize-qjs"]["version"] == javascript.VERSION
    assert {f"node_modules/@andreiltd/componentize-qjs-binding-linux-{arch}-gnu" for arch in ("x64", "arm64")} <= set(packages)
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
    assert not any(package.get("hasInstallScript") for package in packages.values())
    assert "resolved" not in lock


# ---- The engine without what it would take from the machine ----------------------------------

WANTS_WASI = """
(module
  (import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (param i32)))
  (import "env" "memory" (memory 1))
  (import "env" "table" (table 1 10 funcref))
  (import "env" "kept" (func $kept (param i32) (result i32)))
  (import "env" "base" (global i32))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $ticks (result i64)))
  (import "wasi:random/insecure-seed@0.2.9" "insecure-seed" (func $seed (param i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "reset_adapter_state" (func $reset))
  (func (export "run") (call $now (i32.const 16)) (call $seed (i32.const 32)) (call $reset))
  (func (export "ticks") (result i64) (call $ticks))
  (func (export "exit") (call $exit (i32.const 0))))
"""


def test_the_engines_imports_of_wasi_become_functions_of_its_own_that_say_nothing_of_the_machine():
    made = quickjs.alone(bytes(wasmtime.wat2wasm(WANTS_WASI)))
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, made)
    imports = {imported.name or "": imported for imported in module.imports}
    assert {imported.module for imported in module.imports} == {"env"}
    assert set(imports) == {"memory", "table", "kept", "base", *(f"snapcount_{number}" for number in range(5))}
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    memory.write(store, b"\xff" * 64)
    table = wasmtime.Table(store, wasmtime.TableType(wasmtime.ValType.funcref(), wasmtime.Limits(1, 10)), None)
    base = wasmtime.Global(store, wasmtime.GlobalType(wasmtime.ValType.i32(), False), 0)
    exported: dict[str, wasmtime.Func] = {}

    def joined(name: str) -> Callable[..., Any]:
        return lambda *arguments: exported[name](store, *arguments)

    functions = [
        wasmtime.Func(store, imported.type, joined(imported.name or "")) if isinstance(imported.type, wasmtime.FuncType) else None
        for imported in module.imports
    ]
    others = {"memory": memory, "table": table, "base": base}
    instance = wasmtime.Instance(
        store, module, [function or others[imported.name or ""] for imported, function in zip(module.imports, functions, strict=True)]
    )
    exported |= {name: found for name, found in instance.exports(store).items() if isinstance(found, wasmtime.Func)}
    exported["run"](store)
    assert memory.read(store, 0, 64) == b"\xff" * 16 + bytes(32) + b"\xff" * 16, "time and seed are 0, and nothing beside them was written"
    assert exported["ticks"](store) == 0
    with pytest.raises(wasmtime.Trap, match="unreachable"):
        exported["snapcount_3"](store, 0)


# ---- What the compiler says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "componentize-qjs\nError: : Failed to evaluate user JavaScript module: Failed to declare JavaScript module: Error: invalid property name\n    at /src/lib/a.js:2:19\n",
            "src/lib/a.js:2:19: invalid property name",
        ),
        (
            "Error: : Failed to evaluate user JavaScript module: Failed to finish JavaScript module evaluation: Error: x is not defined\n"
            "    at fail (/node_modules/snapcount/failure.js:3:4)\n    at <anonymous> (/src/main.js:24:11)\n",
            "src/main.js:24:11: x is not defined",
        ),
        (
            "Error: : Failed to evaluate user JavaScript module: Failed to declare JavaScript module: Error: Error resolving module 'lodash' from '/src/main.js': not found\n",
            "src/main.js: imports lodash, which is no file of the skill's and not snapcount",
        ),
        ("Error: error while executing at wasm backtrace:\n  0: x\nCaused by:\n    wasm trap: call stack exhausted\n", "it cannot be run to its end: call stack exhausted"),
        ("nothing that is known\n", ""),
    ],
)  # fmt: skip
def test_the_compilers_error_becomes_one_line_with_its_place(output: str, line: str, tmp_path: Path) -> None:
    assert javascript.first_error(output, tmp_path) == line


# ---- From an empty folder to a signed bundle -------------------------------------------------


def snapcount(*arguments: object, cwd: Path, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "sdk.cli.main", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_a_new_skill_goes_through_every_command_as_it_stands(require: Callable[[str], None], tmp_path: Path) -> None:
    require("javascript")
    snapcount("skill", "new", "ore-sorter", "--lang", "javascript", cwd=tmp_path)
    folder = tmp_path / "ore-sorter"
    snapcount("skill", "build", cwd=folder)
    assert "the bundle in place is the same" in snapcount("skill", "build", "--verify", cwd=folder)
    assert " 0 failed" in snapcount("skill", "test", cwd=folder)
    snapcount("skill", "check", "ore-sorter.wasm", cwd=folder)
    assert "bid: 142 of 142 cases" in snapcount("skill", "conformance", cwd=folder)
    keys.create(folder / "author.key", bytes(range(32)))
    snapcount("skill", "sign", "--key", "author.key", cwd=folder)


@pytest.mark.slow
@pytest.mark.ci
def test_the_templates_bid_answers_within_the_slow_tiers_time(require: Callable[[str], None], tmp_path: Path) -> None:
    require("javascript")
    skill = LocalSkill(built(scaffold.create(tmp_path, "quick", "javascript")), "quick")
    medians = []
    for _ in range(10):
        times = []
        for _ in range(30):
            started = time.perf_counter_ns()
            skill.version.call("bid", BID)
            times.append(time.perf_counter_ns() - started)
        medians.append(statistics.median(times) / 1000)
    print(f"{min(medians):.0f} µs")  # the best of some medians: other tests run beside this one
    assert min(medians) <= 2_000


@pytest.mark.slow
@pytest.mark.ci
def test_a_component_imports_nothing_it_was_not_granted_and_exports_its_hooks_only(make: Make) -> None:
    source = "export function bid() {}\nexport function self_test() {}\n"
    for optimize in ("size", "speed"):
        folder = make(source, hooks=("bid", "self_test"), capabilities=("clock", "spindle"))
        described = folder / "skill.toml"
        described.write_text(described.read_text() + f'optimize = "{optimize}"\n')
        data = built(folder)
        config = wasmtime.Config()
        config.wasm_component_model = True
        engine = wasmtime.Engine(config)
        kind = wasmtime.component.Component(engine, data).type
        assert {name.split("@")[0] for name in kind.imports(engine)} <= {
            f"snapcount:skill/{name}" for name in ("types", "clock", "drivers")
        }
        assert set(kind.exports(engine)) == {"bid", "self-test"}
        assert not any(word in data for word in (b"wasi:clocks", b"wasi:random", b"wasi:filesystem", str(folder).encode()))


@pytest.mark.slow
@pytest.mark.ci
def test_the_example_agrees_with_the_other_lineage(require: Callable[[str], None], tmp_path: Path) -> None:
    require("javascript")
    for name in ("bounty-bidder-js", "bounty-bidder"):
        shutil.copytree(SOURCES / name, tmp_path / name, ignore=shutil.ignore_patterns("*.wasm"))
    own = project.load(tmp_path / "bounty-bidder-js")
    data = built(own.folder)
    for path, vector in vectors.load(own.vectors):
        assert not vectors.run(data, path, vector).problems, path.name
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    lineages = [comparing.Lineage("a", read_bundle(module_path("bounty-bidder"))), comparing.Lineage("b", data)]
    report = comparing.compare(lineages, vectors.load(own.vectors), own.compare, examples=500, seed=seed)
    assert [divergence.in_words for divergence in report.divergences] == []


# ---- What the compiler refuses ---------------------------------------------------------------

TEMPLATE = (scaffold.TEMPLATES / "javascript" / "src" / "main.js").read_text()
REFUSED = {
    "a word too many": (TEMPLATE.replace("const MS_PER_HOUR =", "const MS_PER_HOUR = ="), r"src/main\.js:5:21: unexpected token"),
    "a hook without a function": (
        TEMPLATE.replace("export function self_test", "function self_test"),
        r"src/main\.js: there is no exported function self_test for the hook self_test of skill\.toml; it exports bid",
    ),
    "a hook in camelCase": (TEMPLATE.replace("function self_test", "function selfTest"), r"src/main\.js:23: .*did you mean selfTest\?"),
    "a hook misspelt": (TEMPLATE.replace("function bid", "function bdi"), r"src/main\.js:11: .*did you mean bdi\?"),
    "a name that is not there": (TEMPLATE + "const odd = nowhere;\n", r"src/main\.js:26:13: nowhere is not defined"),
    "chance while it is built": (TEMPLATE + "const odd = Math.random();\n", r"src/main\.js:26:18: Math\.random\(\): .*take random\(size\)"),
    "the time while it is built": (TEMPLATE + "const odd = new Date();\n", r"src/main\.js:26:17: new Date\(\): .*take nowMs\(\)"),
    "a file outside": ('import "../../other.js";\n' + TEMPLATE, r"src/main\.js: imports \.\./\.\./other\.js, which is no file of the skill's"),
    "a package": ('import "lodash";\n' + TEMPLATE, r"src/main\.js: imports lodash, which is no file of the skill's"),
    "WASI": ('import clock from "wasi:clocks/wall-clock@0.2.0";\n' + TEMPLATE, r"imports wasi:clocks/wall-clock@0\.2\.0, which is no file"),
    "a capability behind the manifest's back": ('import it from "snapcount:skill/clock@1.0.0";\n' + TEMPLATE, r"imports snapcount:skill/clock@1\.0\.0"),
    "a name that the library does not have": ('import { nope } from "snapcount";\n' + TEMPLATE, "Could not find export 'nope' in module 'snapcount/index.js'"),
    "a promise that never ends": (TEMPLATE + "await new Promise(() => {});\n", "promise"),
    "an endless recursion": (TEMPLATE + "(function f() { return 1 + f(); })();\n", "call stack exhausted|stack overflow"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("case", REFUSED)
def test_sources_that_do_not_compile_are_refused_in_one_line_and_nothing_is_written(
    case: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    require("javascript")
    source, wanted = REFUSED[case]
    folder = scaffold.create(tmp_path, "broken", "javascript")
    (folder / "src" / "main.js").write_text(source)
    before = sorted(folder.rglob("*"))
    with pytest.raises(BuildFailed, match=wanted) as caught:
        builds.build(project.load(folder))
    line = str(caught.value)
    assert line.startswith("broken: does not compile: ")
    assert "\n" not in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.ci
def test_a_module_of_the_skills_own_is_bundled_and_its_error_names_it(make: Make) -> None:
    folder = make(
        'import { reason } from "./words/reason.js";\nexport const bid = ({ bounty }) => ({ cost: 0, finish_ms: 0, id: bounty.id, reason });\n'
    )
    (folder / "src" / "words").mkdir()
    (folder / "src" / "words" / "reason.js").write_text('export const reason = "from another file";\n')
    assert LocalSkill(built(folder), "two files").version.call("bid", BID).reason == "from another file"  # type: ignore[attr-defined]
    (folder / "src" / "words" / "reason.js").write_text("export const reason = ;\n")
    with pytest.raises(BuildFailed, match=r"src/words/reason\.js:1:23: "):
        builds.build(project.load(folder))


# ---- What a hook may answer ------------------------------------------------------------------

ANSWERS = """
import { Failure, fail, log, nowMs } from "snapcount";

const GIVEN = new Date(1e12);

export function bid({ bounty }) {
  const good = { cost: 1, finish_ms: 0, id: bounty.id, reason: "good" };
  const cases = {
    good: () => good,
    rounded: () => ({ ...good, reason: String(bounty.deadline_ms), finish_ms: 2 ** 63 }),
    absent: () => ({ ...good, price: undefined }),
    missing: () => ({ cost: 1, finish_ms: 0, id: "x" }),
    unknown: () => ({ ...good, finishMs: 3 }),
    text: () => ({ ...good, reason: 5 }),
    nan: () => ({ ...good, cost: NaN }),
    negative: () => ({ ...good, finish_ms: -1 }),
    fraction: () => ({ ...good, finish_ms: 1.5 }),
    large: () => ({ ...good, finish_ms: 2 ** 64 }),
    bigint: () => ({ ...good, finish_ms: 5n }),
    null: () => ({ ...good, price: null }),
    nothing: () => undefined,
    promise: async () => good,
    array: () => [good],
    long: () => ({ ...good, reason: "x".repeat(2000) }),
    throwing: () => bounty.place.x,
    thrown: () => { throw "overboard"; },
    failing: () => fail("bad_margin", "the margin is odd"),
    failure: () => { throw new Failure("bad_margin", "the margin is odd"); },
    code: () => fail("Bad margin", "x"),
    reserved: () => fail("trap", "x"),
    random: () => Math.random(),
    now: () => Date.now(),
    date: () => new Date(),
    called: () => Date(),
    given: () => ({ ...good, reason: `${GIVEN.toISOString()} ${new Date(2020, 1, 1).getTimezoneOffset()} ${GIVEN instanceof Date} ${Date.UTC(2020)}` }),
    clock: () => nowMs(),
    logging: () => log("info", "x"),
    console: () => console.log("x"),
    ambient: () => ({ ...good, reason: [typeof performance, typeof setTimeout, typeof fetch, typeof process, typeof require].join(" ") }),
    halves: () => ({ ...good, reason: "a\\ud800b" }),
    memory: () => { for (const kept = []; ; ) kept.push(new Uint8Array(1 << 20)); },
    endless: () => { for (;;); },
  };
  return cases[bounty.id]();
}
"""
FAULTS = {
    "missing": r"reply of bid: reason: this field is missing",
    "unknown": r"reply of bid: finishMs: there is no such field; the fields are id, cost, price, reason, finish_ms",
    "text": r"reply of bid: reason: expected a string, got 5",
    "nan": r"reply of bid: cost: expected a number, got NaN",
    "negative": r"reply of bid: finish_ms: expected a whole number from 0 to 2\^64 - 1, got -1",
    "fraction": r"reply of bid: finish_ms: expected a whole number .*, got 1\.5",
    "large": r"reply of bid: finish_ms: expected a whole number .*, got 18446744073709552000",
    "bigint": r"reply of bid: finish_ms: .*, got the BigInt 5",
    "null": r"reply of bid: price: expected a number, got null \(leave a field out that has no value\)",
    "nothing": r"reply of bid: expected an object with the fields id, .*, got nothing",
    "promise": r"reply of bid: expected an object .*, got a Promise \(a hook answers at once: it cannot be async\)",
    "array": r"reply of bid: expected an object .*, got an array of 1",
    "throwing": r"TypeError: cannot read property 'x' of undefined AT",
    "thrown": r"threw string: overboard",
    "code": r"TypeError: fail: expected a code .*, got Bad margin AT",
    "reserved": r"TypeError: fail: the code trap is kept",
    "random": r"Math\.random\(\): a skill has no random numbers of its own: .* AT",
    "now": r"Date\.now\(\): a skill has no clock of its own: take nowMs\(\)",
    "date": r"new Date\(\): a skill has no clock of its own",
    "called": r"Date\(\): a skill has no clock of its own",
    "clock": r"nowMs: the capability clock is not in skill\.toml; add it to `capabilities`",
    "logging": r"log: the capability log is not in skill\.toml",
    "console": r"log: the capability log is not in skill\.toml",
}  # fmt: skip


@pytest.fixture(scope="module")
def answering(make: Make) -> LocalSkill:
    return LocalSkill(built(make(ANSWERS, name="answers")), "answers")


def bid(skill: LocalSkill, case: str) -> BidReply:
    bounty = msgspec.structs.replace(BID.bounty, id=case, deadline_ms=(1 << 64) - 1)
    reply = skill.version.call("bid", msgspec.structs.replace(BID, bounty=bounty))
    assert isinstance(reply, BidReply)
    return reply


@pytest.mark.slow
@pytest.mark.ci
def test_a_reply_that_is_not_the_contracts_and_an_exception_are_faults_that_say_what_is_wrong(answering: LocalSkill) -> None:
    for case, wanted in FAULTS.items():
        line = ANSWERS[: ANSWERS.index(f"\n    {case}:") + 1].count("\n") + 1
        with pytest.raises(GuestTrap, match=wanted.replace("AT", rf"\(src/main\.js:{line}:\d+\)")) as caught:
            bid(answering, case)
        assert "\n" not in str(caught.value), case
    with pytest.raises(ReplyInvalid, match="reason"):
        bid(answering, "long")
    assert bid(answering, "good").reason == "good"


@pytest.mark.slow
@pytest.mark.ci
def test_a_failure_is_the_skills_own_error_reply(answering: LocalSkill) -> None:
    for case in ("failing", "failure"):
        with pytest.raises(SkillRefused, match="bad_margin: the margin is odd") as caught:
            bid(answering, case)
        assert caught.value.skill_code == "bad_margin"


@pytest.mark.slow
@pytest.mark.ci
def test_numbers_and_texts_come_and_go_as_far_as_javascript_has_them(answering: LocalSkill) -> None:
    rounded = bid(answering, "rounded")
    assert (rounded.reason, rounded.finish_ms) == ("18446744073709552000", 1 << 63)
    assert bid(answering, "absent").price is msgspec.UNSET
    assert bid(answering, "halves").reason == "a\ufffdb"
    assert bid(answering, "given").reason == "2001-09-09T01:46:40.000Z 0 true 1577836800000"
    assert bid(answering, "ambient").reason == " ".join(["undefined"] * 5)


@pytest.mark.slow
@pytest.mark.ci
def test_what_a_call_may_use_is_bounded(answering: LocalSkill) -> None:
    with pytest.raises(MemoryExceeded, match=r"out of memory \(src/main\.js:\d+:\d+\)"):
        bid(answering, "memory")
    with pytest.raises(FuelExhausted):
        bid(answering, "endless")


# ---- Every shape, both ways ------------------------------------------------------------------

# Keeps the request as it came, and answers with what the state holds.
ROUND = """
import { state, textOf, utf8 } from "snapcount";

function answer(request) {
  state.set("request", utf8(JSON.stringify(request)));
  return JSON.parse(textOf(state.get("reply")));
}

export { answer as assess_feedstock, answer as bid, answer as inspect_part };
"""
ROUND_HOOKS = ("assess_feedstock", "bid", "inspect_part")


@pytest.mark.slow
@pytest.mark.ci
def test_every_field_of_a_request_and_of_a_reply_comes_through(make: Make) -> None:
    skill = LocalSkill(built(make(ROUND, hooks=ROUND_HOOKS, capabilities=("state",), name="round")), "round")
    values = skill._state.values
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for hook in ROUND_HOOKS:
        asked, told = contract.SHAPES[hook]
        for _ in range(20):
            request, reply = sound(asked, rng), sound(told, rng)
            values[b"reply"] = json.dumps(samples.plain(reply)).encode()
            assert skill.version.call(hook, request) == reply
            assert msgspec.convert(json.loads(values[b"request"]), asked) == request


def sound(shape: Any, rng: random.Random) -> Any:
    """A value of the type, with whole numbers that JavaScript can hold."""
    while True:
        found = samples.sound(shape, samples.fresh(shape, rng))
        if found is not None and all(value <= 2**53 for value in integers(samples.plain(found))):
            return found


def integers(value: Any) -> Iterator[int]:
    match value:
        case bool():
            return
        case int():
            yield value
        case dict():
            for inner in value.values():
                yield from integers(inner)
        case list():
            for inner in value:
                yield from integers(inner)


# ---- The host's functions, messages and programs ---------------------------------------------

USER = """
import { Float, Failure, decode, encode, flags, log, motion, nowMs, random, state, textOf, utf8 } from "snapcount";

const nothing = new Uint8Array(0);
let lines = 0;

const TOPICS = {
  log: () => (log("warning", "größer"), {}),
  console: () => (console.error("a", { b: 1 }, new Error("c")), {}),
  level: () => log("loud", "x"),
  now: () => ({ detail: String(nowMs()) }),
  random: () => ({ payload: random(5) }),
  get: () => ({ payload: state.get("key") ?? utf8("nothing") }),
  set: (bytes) => ({ detail: String(state.set("key", bytes)) }),
  delete: () => (state.delete("key"), {}),
  flag: () => ({ detail: String(flags.isOn("fast_plan")) }),
  move: () => ({ detail: JSON.stringify(motion({ op: "move", moves: [[1, 2, 3, 10]] })) }),
  home: () => ({ detail: JSON.stringify(motion({ op: "home" })) }),
  odd: () => motion({ op: "fly" }),
  short: () => motion({ op: "move", moves: [[1, 2, 3]] }),
  caught: () => {
    try {
      motion({ op: "move", moves: [[1, 2, 9e9, 10]] });
    } catch (refused) {
      return { detail: `${refused instanceof Failure} ${refused.code}` };
    }
  },
  cbor: (bytes) => ({ payload: encode(decode(bytes)) }),
  sound: (bytes) => ({ detail: String(decode(bytes) !== undefined) }),
  floats: () => ({ payload: encode([new Float(600), 600, 1.5, -1, 1e300, { b: null, aa: true, a: undefined }]) }),
  text: (bytes) => ({ detail: textOf(bytes) ?? "none" }),
  echo: (_, request) => ({ detail: [request.at_ms, request.phase, request.priority, request.source, request.verb, request.weight].join(" ") }),
};

export function handle(request) {
  return { detail: "", handled: true, payload: nothing, state: "ready", ...TOPICS[request.topic](request.payload, request) };
}

export function plan_job({ chunk, last, seq, settings }) {
  lines += chunk.filter((byte) => byte === 10).length;
  if (!last) return { done: false, lines };
  const zero = [0, 0, 0];
  return {
    bbox_mm: { max: settings.start_mm ?? zero, min: zero }, complete: true, dialect: "grbl", done: true, driven: seq, extruded_mm: 0, lines,
    moves: { arc: 0, linear: 0, rapid: 0 }, path_mm: { arc: 0, linear: 0, rapid: 0, total: 0 },
    problems: [{ code: "none", line: 1, message: "tail" in settings ? "a tail" : "no tail" }], problems_total: 1, time_s: 0, units: "mm",
  };
}
"""


@pytest.fixture(scope="module")
def user_data(make: Make) -> bytes:
    return built(make(USER, hooks=("handle", "plan_job"), capabilities=("log", "clock", "random", "state", "flags", "motion"), name="user"))


@pytest.fixture
def user(user_data: bytes) -> LocalSkill:
    return LocalSkill(user_data, "user", clock=StillClock(), random=SeededRandom())


def told(skill: LocalSkill, topic: str, payload: bytes = b"", **more: Any) -> HandleReply:
    request = HandleRequest(
        at_ms=0, correlation=bytes(16), id=bytes(16), payload=payload, phase="act", priority=0, source="", topic=topic, verb="act", weight=0.0
    )  # fmt: skip
    reply = skill.version.call("handle", msgspec.structs.replace(request, **more))
    assert isinstance(reply, HandleReply)
    return reply


@pytest.mark.slow
@pytest.mark.ci
def test_the_hosts_functions_do_what_they_do_in_every_language(user: LocalSkill) -> None:
    told(user, "log")
    told(user, "console")
    assert user.logged == [("warning", "größer"), ("error", 'a {"b":1} Error: c (src/main.js:9:52)')]
    assert told(user, "now").detail == str(NOW_MS)
    assert told(user, "random").payload == SeededRandom().token(5)
    assert told(user, "get").payload == b"nothing"
    assert told(user, "set", b"kept").detail == "true"
    assert told(user, "get").payload == b"kept"
    told(user, "delete")
    assert told(user, "get").payload == b"nothing"
    assert told(user, "flag").detail == "false"
    assert (
        told(user, "echo", at_ms=NOW_MS, phase="prepare", priority=3, source="lead-1", weight=0.5).detail
        == f"{NOW_MS} prepare 3 lead-1 act 0.5"
    )
    with pytest.raises(GuestTrap, match=r"log: expected a level of debug, info, warning, error, got \"loud\""):
        told(user, "level")


@pytest.mark.slow
@pytest.mark.ci
def test_the_machine_answers_and_what_it_refuses_is_a_failure(user_data: bytes, user: LocalSkill) -> None:
    assert json.loads(told(user, "move").detail) == {"moves": 1, "position_mm": [1, 2, 3]}
    assert "position_mm" in json.loads(told(user, "home").detail)
    with pytest.raises(GuestTrap, match=r"motion\.op: expected one of move, heat, tool, home, dwell, status, got \"fly\""):
        told(user, "odd")
    with pytest.raises(GuestTrap, match=r"moves\[0\]: expected an array of 4 numbers, got an array of 3"):
        told(user, "short")
    tight = safety.parse_limits(WIDE_OPEN.replace(b"z = [-1e6, 1e6]", b"z = [0.0, 1.0]"), "limits")
    fenced = LocalSkill(user_data, "user", limits=tight)
    with pytest.raises(SkillRefused) as caught:
        told(fenced, "move")
    assert caught.value.skill_code == "unsafe_command"
    assert told(fenced, "caught").detail == "true unsafe_command"
    assert fenced.machine.moves == 0


@pytest.mark.slow
@pytest.mark.ci
def test_cbor_is_the_hosts(user: LocalSkill) -> None:
    values: list[Any] = [
        None, True, 0, 23, 24, 255, 256, 65535, 65536, 2**32, 2**53 - 1, -1, -24, -25, -(2**40), 0.5, 0.1, 1e300, -1.5, 3.4028234e38, float("inf"), "", "é\U0001f600",
        b"\x00\xff", [], [1, [2.5]], {}, {"b": 1, "a": 2, "aa": {"z": [None]}, "__proto__": 4},
    ]  # fmt: skip
    for value in values:
        data = cbor.encode(value)
        assert told(user, "cbor", data).payload == data, value
    assert told(user, "floats").payload == cbor.encode([600.0, 600, 1.5, -1, 1e300, {"b": None, "aa": True}])
    unsound = ("", "1805", "190005", "fb3ff8000000000000", "fa3fc00000", "5f4101ff", "a2616201616101", "a2616101616101", "a10101", "c001", "61ff", "8201", "0000", "f97e01", "f7", "9b00000000ffffffff")  # fmt: skip
    for text in unsound:
        assert told(user, "sound", bytes.fromhex(text)).detail == "false", text
    for raw in (b"caf\xc3\xa9 \xf0\x9f\x98\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82"):
        try:
            wanted = raw.decode()
        except UnicodeDecodeError:
            wanted = "none"
        assert told(user, "text", raw).detail == wanted


@pytest.mark.slow
@pytest.mark.ci
def test_a_program_comes_in_chunks_and_a_global_keeps_what_it_holds(user: LocalSkill) -> None:
    program = [b"%d\n" % number + b";" * 50_000 for number in range(40)]
    with user.loaded.instance() as instance:
        report = plan(instance, program, PlanSettings(start_mm=(1.0, 2.0, 3.0)), False, "user")
    assert (report.lines, report.bbox_mm.max, report.problems[0].message) == (40, (1.0, 2.0, 3.0), "no tail")


@pytest.mark.slow
@pytest.mark.ci
def test_the_same_calls_give_the_same_bytes_and_use_the_same_fuel(user_data: bytes) -> None:
    seen = set()
    for _ in range(3):
        fresh = LocalSkill(user_data, "user", clock=StillClock(), random=SeededRandom())
        request = HandleRequest(
            at_ms=0, correlation=bytes(16), id=bytes(16), payload=b"", phase="act", priority=0, source="", topic="random", verb="act", weight=0.0
        )  # fmt: skip
        with fresh.loaded.instance() as instance:
            seen.add((instance.call("handle", cbor.encode(request)), instance.fuel_used))
    assert len(seen) == 1
