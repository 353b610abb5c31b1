"""The command line, as a user meets it: real processes, real files."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import host
from host.core import keys
from host.core.bundle import UnverifiedBundle
from sdk.author import author_key
from sdk.cli.job import KEYS
from sdk.cli.main import app
from sdk.demo.gcode import vase

ROOT = Path(host.__file__).resolve().parents[1]  # where snapcount was imported from: the installation, or a tree on PYTHONPATH
HELP_S_MAX = 0.25
COMMANDS = {
    "skill": {"new", "build", "check", "test", "bench", "profile", "dev", "replay", "inspect", "sign", "compare", "conformance"},
    "keys": {"new", "show", "ceremony", "sign", "submit", "rotate", "revoke", "expire", "drop", "status"},
    "node": {
        "init", "run", "status", "attest", "call", "send", "rollback", "remove", "trip", "reset", "sign-safety", "certify", "doctor", "policies", "trust-root", "pull", "watch", "audit", "calls export",
    },
    "registry": {
        "serve", "nodes", "push", "pull", "delete", "export", "import", "gc", "approve", "approvals", "withdraw-approval", "renew", "audit verify", "audit head",
        "audit show", "token new", "token list", "token revoke",
    },
    "fleet": {
        "push", "withdraw", "status", "broadcast", "ask", "delegate", "freeze", "thaw", "isolate", "readmit", "forget", "quarantine", "lift", "flag", "flags",
    },
    "rollout": {"plan", "start", "status", "list", "pause", "resume", "abort", "retry", "approve", "simulate"},
    "trust": {"init", "refresh", "download"},
    "job": {"plan", "run"},
    "machine": {"status", "ask", "hold", "resume", "reset", "unlock", "home", "clear"},
    "mesh": {"run", "bench"},
    "demo": set(),
}  # fmt: skip


def snapcount(*arguments: object, cwd: Path | None = None, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more
    command = [sys.executable, "-P", "-m", "sdk.cli.main", *map(str, arguments)]
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended


def last_json(ended: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(ended.stdout.strip().splitlines()[-1])


def refused(*arguments: object, cwd: Path | None = None, code: int) -> str:
    """A command that fails as it should: one line on stderr, no traceback."""
    line = snapcount(*arguments, cwd=cwd, code=code).stderr.strip()
    assert "Traceback" not in line
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "author.key"
    keys.create(path, bytes(range(32)))
    return path


@pytest.fixture(scope="module", params=["zig", "c", "rust", "assemblyscript"])
def built(request: pytest.FixtureRequest, require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new skill, built."""
    require(request.param)
    parent = tmp_path_factory.mktemp("skills")
    snapcount("skill", "new", "ore-sorter", "--lang", request.param, cwd=parent)
    snapcount("skill", "build", cwd=parent / "ore-sorter")
    return parent / "ore-sorter"


def leaves(group: Any) -> Iterator[str]:
    """The commands below a group, those of groups in it with both names."""
    for name, command in getattr(group, "commands", {}).items():
        yield from (f"{name} {inner}" for inner in leaves(command)) if getattr(command, "commands", {}) else [name]


def test_the_commands_are_those_that_are_documented_and_each_has_help_with_an_example():
    root = typer.main.get_command(app)
    found = {name: set(leaves(command)) for name, command in root.commands.items()}
    assert found == COMMANDS
    runner = CliRunner()
    for group, names in COMMANDS.items():
        for path in [[group, *name.split()] for name in names] or [[group]]:
            result = runner.invoke(app, [*path, "--help"])
            assert result.exit_code == 0
            assert "Example: snapcount " + " ".join(path) in re.sub(r"\s+", " ", result.output), path


@pytest.mark.slow
def test_help_answers_in_a_quarter_of_a_second():
    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        snapcount("--help")
        best = min(best, time.perf_counter() - start)
    print(f"{best:.3f} s")
    assert best <= HELP_S_MAX


@pytest.mark.slow
def test_shell_completion_knows_the_commands():
    shown = snapcount("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert "complete" in shown


@pytest.mark.slow
def test_a_new_skill_builds_passes_its_tests_and_can_be_signed_as_it_stands(built, author):
    report = last_json(snapcount("skill", "test", "--examples", "50", "--json", cwd=built))
    assert report["failed"] == {}
    assert {"self-test", "01-an-hour-of-work", "bid, made-up requests", "determinism", "faults", "limits"} <= set(report["checks"])
    snapcount("skill", "sign", "--key", author, "--out", "signed.wasm", cwd=built)
    bundle = UnverifiedBundle.parse((built / "signed.wasm").read_bytes(), "signed.wasm")
    assert bundle.verify([keys.load(author).verify_key]).manifest.name == "ore-sorter"
    report = last_json(snapcount("skill", "inspect", "signed.wasm", "--json", cwd=built))
    assert report["signers"] == [keys.public_text(keys.load(author).verify_key)]


@pytest.mark.slow
def test_check_says_in_words_what_a_module_asks_for_and_would_be_refused(built):
    words = snapcount("skill", "check", cwd=built).stdout
    assert "imports nothing" in words
    assert "unsigned" in words
    report = last_json(
        snapcount("skill", "check", ROOT / "skills/toolpath-planner/toolpath-planner.wasm", "--allow", "log", "--json", code=20)
    )
    assert "asks for motion" in report["refused"][0]
    assert report["needs"]["call"] == "motion"


@pytest.mark.slow
def test_bench_shows_each_vector_beside_the_limits(built):
    rows = last_json(snapcount("skill", "bench", "--seconds", "0.05", "--json", cwd=built))["vectors"]
    assert len(rows) == 3
    for row in rows:
        assert 0 < row["fuel_share"] < 1
        assert row["call_us"] > 0


@pytest.mark.slow
def test_a_failing_vector_is_named_with_what_was_expected_and_found(built):
    wrong = json.loads((built / "vectors/01-an-hour-of-work.json").read_text())
    wrong["reply"]["price"] = 13.0
    path = built / "vectors" / "09-wrong.json"
    path.write_text(json.dumps(wrong))
    try:
        shown = snapcount("skill", "test", cwd=built, code=1).stdout
    finally:
        path.unlink()
    assert "FAILED 09-wrong" in shown
    assert "reply.price: expected 13.0, found 12.0" in shown


@pytest.mark.slow
def test_a_compiler_error_shows_what_the_compiler_said_and_writes_nothing(tmp_path):
    snapcount("skill", "new", "broken", "--lang", "c", cwd=tmp_path)
    source = tmp_path / "broken/src/main.c"
    source.write_text(source.read_text().replace("return SC_OK;", "return SC_OKAY;"))
    ended = snapcount("skill", "build", "broken", cwd=tmp_path, code=2)
    assert "error: broken: does not compile" in ended.stderr
    assert "main.c:" in ended.stderr
    assert not (tmp_path / "broken/broken.wasm").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../escape", "a/b", "", "Upper", "-dash", "under_score", "x" * 65])
def test_a_skill_name_that_is_a_path_or_no_name_is_refused(name, tmp_path):
    assert (
        "name" in refused("skill", "new", name, cwd=tmp_path, code=2)
        if not name.startswith("-")
        else snapcount("skill", "new", name, cwd=tmp_path, code=2)
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_without_a_project_and_a_bad_skill_toml_are_one_line_each(tmp_path):
    assert "skill.toml" in refused("skill", "build", tmp_path, code=2)
    (tmp_path / "skill.toml").write_text(
        '[skill]\nname = "x"\nversion = "1.0.0"\nhooks = ["bid"]\ncolour = "red"\n[build]\nlang = "zig"\nsource = "a.zig"\n'
    )
    assert "colour" in refused("skill", "test", tmp_path, code=20)
    (tmp_path / "skill.toml").write_text(
        '[skill]\nname = "x"\nversion = "1.0.0"\nhooks = ["bid"]\n[build]\nlang = "zig"\nsource = "../../etc/passwd"\n'
    )
    assert "leaves the project" in refused("skill", "build", tmp_path, code=20)


@pytest.mark.slow
def test_keys_are_made_once_and_shown(tmp_path):
    made = last_json(snapcount("keys", "new", "author", "--json", cwd=tmp_path))
    assert (tmp_path / "author.key").stat().st_mode & 0o777 == 0o600
    assert last_json(snapcount("keys", "show", "author.pub", "--json", cwd=tmp_path))["public"] == made["public"]
    assert "exists already" in refused("keys", "new", "author", cwd=tmp_path, code=2)
    assert "plain file name" in refused("keys", "new", "a/b", cwd=tmp_path, code=2)


def test_an_author_without_a_key_gets_one_at_the_first_signature_and_the_same_at_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    first = author_key(said.append)
    assert author_key(said.append) == first
    kept = tmp_path / "config" / "snapcount" / "author.key"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(said) == 1 and str(kept) in said[0]
    own = keys.create(tmp_path / "author.key", b"k" * 32)
    assert author_key(said.append) == own  # the one here comes first


@pytest.mark.slow
def test_job_plan_prints_the_report_as_json_on_the_last_line(tmp_path):
    (tmp_path / "vase.gcode").write_text(vase(2))
    report = last_json(snapcount("job", "plan", "vase.gcode", "--json", cwd=tmp_path))
    assert tuple(report) == KEYS
    assert report["complete"] is True
    assert report["units"] == "mm"
    assert report["bbox_mm"]["max"][2] == 80.0
    (tmp_path / "line.nc").write_text("G1 X20 F1200\n")
    assert last_json(snapcount("job", "plan", "line.nc", "--accel", "500", "--json", cwd=tmp_path))["time_s"] == pytest.approx(1.04)
    assert last_json(snapcount("job", "plan", "line.nc", "--accel", "500", "--feed-max", "600", "--json", cwd=tmp_path))[
        "time_s"
    ] == pytest.approx(2.02)
    assert "No such file" in refused("job", "plan", "missing.gcode", cwd=tmp_path, code=2)


@pytest.mark.slow
def test_commands_for_a_node_or_registry_that_does_not_run_say_how_to_start_one(tmp_path):
    assert "snapcount node run" in refused("node", "status", "--state", tmp_path, code=50)
    assert "snapcount registry serve" in refused("registry", "nodes", "--registry", "http://127.0.0.1:9", code=50)
    assert "http://HOST:PORT" in refused("registry", "nodes", "--registry", "ftp://x", code=2)


@pytest.mark.slow
def test_init_makes_a_node_with_a_commented_config_and_never_twice(tmp_path):
    snapcount("keys", "new", "owner", cwd=tmp_path)
    assert "there is no owner's key" in refused("node", "init", "--owner-key", "nobody.key", cwd=tmp_path, code=2)
    snapcount("node", "init", "--state", "n", "--name", "node-1", cwd=tmp_path)
    assert "# What the owner of this node decided" in (tmp_path / "n/node.toml").read_text()
    assert (tmp_path / "n/identity/node.key").stat().st_mode & 0o777 == 0o600
    assert "already" in refused("node", "init", "--state", "n", cwd=tmp_path, code=2)
    assert "not 'Node 1'" in refused("node", "init", "--state", "m", "--name", "Node 1", cwd=tmp_path, code=2)
