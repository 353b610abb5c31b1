"""What the SDK says of bad input, through the real command line: one clear line, the file and its line where there is one, and nothing half-written."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from wasmtime import wat2wasm

from host.core import keys, manifest, toml
from host.core.bundle import with_manifest
from host.core.errors import HostFault, MalformedData, StorageFull, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest
from sdk import inspection, manifest_words, project, scaffold

SOUND = """[skill]
name = "sorter"
version = "1.0.0"
hooks = ["bid", "self_test"]
capabilities = []

[build]
lang = "c"
source = "src/main.c"

[limits]
fuel = 1000000
"""


def snapcount(*arguments: object, cwd: Path, full_after: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own. With `full_after`, no file may grow beyond so many bytes, as on a disk that is full."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full_after, full_after))) if full_after is not None else None
    command = [sys.executable, "-m", "sdk.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=limit, check=False)


def said(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a command that failed as it should."""
    assert ended.returncode == code, ended.stdout + ended.stderr
    line = ended.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line and line.isprintable(), line
    return line.removeprefix("error: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that is sound but for what a test does to it."""
    path = tmp_path / "sorter"
    (path / "src").mkdir(parents=True)
    (path / "src" / "main.c").write_text((scaffold.TEMPLATES / "c/src/main.c").read_text().replace(scaffold.PLACE, "sorter"))
    (path / "skill.toml").write_text(SOUND)
    return path


# ---- skill.toml ------------------------------------------------------------------------------

INSTEAD = "capabilities = []"
WRONG: dict[str, tuple[str, str, str, int]] = {
    "an unknown field": (INSTEAD, 'colour = "red"', "skill: unknown field `colour`; there are name, version, hooks", 5),
    "an unknown table": ("[limits]", "[limit]", "unknown field `limit`; there are skill, build, limits", 11),
    "an unknown limit": ("fuel =", "fuel_max =", "limits: unknown field `fuel_max`; there are fuel, deadline_ms", 12),
    "no version": ('version = "1.0.0"', "", "skill: the field `version` is missing", 1),
    "a name that is a path": ('"sorter"', '"../sorter"', "skill.name: expected lower case letters, digits and single dashes, a letter first, got '../sorter'", 2),
    "a name that is a number": ('"sorter"', "3", "skill.name: expected a text, got a whole number", 2),
    "a version of two numbers": ('"1.0.0"', '"1.0"', "skill.version: expected a version as 1.0.0 or 1.0.0-rc.1, got '1.0'", 3),
    "no hook": ('["bid", "self_test"]', "[]", "skill.hooks: expected a list of length >= 1, got 0", 4),
    "a hook twice": ('["bid", "self_test"]', '["bid", "bid"]', "skill.hooks: names something twice: bid", 4),
    "a hook that there is not": ('["bid", "self_test"]', '["bid", "fly"]', "skill.hooks: there is no hook fly; there are assess_feedstock, bid, handle", 4),
    "hooks that are no list": ('["bid", "self_test"]', '"bid"', "skill.hooks: expected a list, got a text", 4),
    "a capability twice": (INSTEAD, 'capabilities = ["log", "clock", "log"]', "skill.capabilities: names something twice: log", 5),
    "a capability that is no name": (INSTEAD, 'capabilities = ["log", "Clock"]', "skill.capabilities.1: expected lower case letters, digits and underscores", 5),
    "a feature twice": (INSTEAD, 'features = ["flags", "flags"]', "skill.features: names something twice: flags", 5),
    "a generation twice": (INSTEAD, "generations = [2, 3, 2]", "skill.generations: names something twice: 2", 5),
    "a generation 0": (INSTEAD, "generations = [0]", "skill.generations.0: expected a whole number >= 1, got 0", 5),
    "an instance that there is not": (INSTEAD, 'instance = "eternal"', "skill.instance: expected one of fresh, persistent, got 'eternal'", 5),
    "a host that is no version": (INSTEAD, 'host_min = "soon"', "skill.host_min: expected a version as 1.0.0 or 1.0.0-rc.1, got 'soon'", 5),
    "messages upside down": (INSTEAD, 'messages = [{ name = "a.b", min = 3, max = 1 }]', "skill.messages.0: message a.b: min 3 is above max 1", 5),
    "a message twice": (INSTEAD, 'messages = [{ name = "a", min = 1, max = 1 }, { name = "a", min = 2, max = 2 }]', "skill.messages: names something twice: a", 5),
    "messages without a hook for them": (INSTEAD, 'messages = [{ name = "a.b", min = 1, max = 1 }]', "skill.messages: needs the hook handle", 5),
    "a lineage of two words": (INSTEAD, 'lineage = "A B"', "skill.lineage: expected lower case letters, digits and dashes, a letter first, got 'A B'", 5),
    "a description without end": (INSTEAD, f'description = "{"x" * 501}"', "skill.description: expected a text of length <= 500, got 501", 5),
    "no fuel": ("fuel = 1000000", "fuel = 0", "limits.fuel: expected a whole number >= 1, got 0", 12),
    "half a unit of fuel": ("fuel = 1000000", "fuel = 0.5", "limits.fuel: expected a whole number, got a number", 12),
    "more fuel than a host gives": ("fuel = 1000000", f"fuel = {DEFAULT.fuel_max + 1}", f"limits.fuel: a host gives at most {DEFAULT.fuel_max}, got {DEFAULT.fuel_max + 1}", 12),
    "a number beyond CBOR": ("fuel = 1000000", "fuel = 99999999999999999999", f"limits.fuel: a host gives at most {DEFAULT.fuel_max}, got 99999999999999999999", 12),
    "a longer deadline than a host gives": ("fuel = 1000000", "deadline_ms = 60001", "limits.deadline_ms: a host gives at most 60000, got 60001", 12),
    "a page of memory too little": ("fuel = 1000000", "memory_bytes = 65535", "limits.memory_bytes: expected a whole number >= 65536, got 65535", 12),
    "a language that there is not": ('"c"', '"cobol"', "build.lang: expected one of assemblyscript, c, ", 8),
    "a source that there is not": ("main.c", "other.c", "build.source: there is no file ", 9),
    "a source that is a folder": ("src/main.c", "src", "build.source: there is no file ", 9),
    "a source elsewhere": ("src/main.c", "../../etc/passwd", "build.source: leaves the project's folder: ../../etc/passwd", 9),
    "a source with a zero": ("src/main.c", "src/\\u0000main.c", "build.source: expected a path of printable characters, got 'src/\\x00main.c'", 9),
    "a tolerance above 1": ("[limits]", "[compare]\ndefault = { relative = 2 }\n[limits]", "compare.default.relative: expected a number <= 1.0, got 2", 12),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_skill_toml_that_is_not_sound_is_refused_by_its_field_and_line(what: str, folder: Path) -> None:
    old, new, problem, line = WRONG[what]
    assert old in SOUND
    path = folder / "skill.toml"
    path.write_text(SOUND.replace(old, new))
    with pytest.raises(MalformedData) as caught:
        project.load(folder)
    assert str(caught.value).startswith(f"{path}: {problem}"), caught.value
    assert str(caught.value).endswith(f"(at line {line})")
    assert str(caught.value).isprintable()


def test_a_streaming_hook_cannot_be_persistent(folder: Path) -> None:
    path = folder / "skill.toml"
    path.write_text(SOUND.replace('["bid", "self_test"]', '["plan_job", "self_test"]').replace(INSTEAD, 'instance = "persistent"'))
    with pytest.raises(MalformedData, match=r"skill\.instance: plan_job has a fresh instance for each program.*\(at line 5\)"):
        project.load(folder)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "the field `skill` is missing"), (b"[skill\n", "(at line 1, column"), (b'a = 1\na = 2\n', "(at line 2, column"), (b"\xff\xfe", "is not text in UTF-8, from byte 0 on"),
        (b"#" * (toml.BYTES_MAX + 1), "at most 65536 bytes, 65537 came"), (b"a = " + b"[" * 5_000, "nested too deeply"),
    ],
    ids=["nothing", "an open header", "a key twice", "not UTF-8", "too long", "too deep"],
)  # fmt: skip
def test_a_skill_toml_that_is_no_toml_is_refused_in_one_line(raw: bytes, problem: str, folder: Path) -> None:
    (folder / "skill.toml").write_bytes(raw)
    with pytest.raises(MalformedData) as caught:
        project.load(folder)
    assert str(caught.value).startswith(str(folder / "skill.toml"))
    assert problem in str(caught.value) and str(caught.value).isprintable()


def test_a_key_is_found_where_it_is_written_whichever_way_that_is() -> None:
    text = '[a]\nb.c = 1\n"d e" = 2\n\n[[f]]\ng = 1\n[[f]]\n# g = 0\ng = 2\n[a.h]\n  i = [\n 1,\n]\n'
    places = {("a", "b", "c"): 2, ("a", "d e"): 3, ("f", "0", "g"): 6, ("f", "1", "g"): 9, ("a", "h", "i", "0"): 11, ("a", "x"): 1}
    assert {path: toml.line_of(text, path) for path in places} == places
    assert toml.line_of(text, ()) is None
    assert toml.line_of(text, ("z",)) is None


def test_every_pattern_of_a_manifest_has_words_for_people() -> None:
    patterns = {
        value for name, value in vars(manifest).items() if isinstance(value, str) and value.startswith("^") and not name.startswith("_")
    }
    assert patterns == set(manifest.PATTERNS)


# ---- New projects ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../escape", "/abs", "a/b", "", ".", "..", "Upper", "under_score", "x" * 65, "a\nb", "ä"])
def test_a_name_that_is_a_path_or_no_name_makes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower case letters"):
        scaffold.create(tmp_path, name, "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lang", ["../guest", "/etc", ".", "", "cobol"])
def test_a_template_that_is_a_path_or_none_makes_nothing(lang: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no template for .*; there are .*assemblyscript, c, "):
        scaffold.create(tmp_path, "sorter", lang)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sorter").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        scaffold.create(tmp_path, "sorter", "c")
    assert list((tmp_path / "sorter").iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_leaves_no_part_of_a_new_project(tmp_path: Path) -> None:
    line = said(snapcount("skill", "new", "sorter", "--lang", "c", cwd=tmp_path, full_after=500), StorageFull.exit_code)
    assert line.startswith("sorter: cannot be made: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_really_full_and_one_that_is_read_only_leave_nothing(small_disk: Path) -> None:
    for number in range(15):
        (small_disk / f"full-{number}").write_bytes(bytes(4096))
    line = said(snapcount("skill", "new", "sorter", "--lang", "c", cwd=small_disk), StorageFull.exit_code)
    assert line == "sorter: cannot be made: No space left on device"
    assert sorted(path.name for path in small_disk.iterdir()) == sorted(f"full-{number}" for number in range(15))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = said(snapcount("skill", "new", "sorter", "--lang", "c", cwd=small_disk), HostFault.exit_code)
    assert line == "sorter: cannot be made: Read-only file system"


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_said_so() -> None:
    line = said(snapcount("skill", "new", "sorter", "--lang", "c", cwd=Path("/proc/self")), StorageFull.exit_code)
    assert line.startswith("sorter: cannot be made: ")


# ---- Builds ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build", "test", "sign", "inspect", "check", "conformance"])
def test_a_folder_without_a_project_is_one_line_for_every_command(command: str, tmp_path: Path) -> None:
    line = said(snapcount("skill", command, ".", cwd=tmp_path), UsageError.exit_code)
    assert line == "skill.toml: No such file or directory; a skill's folder has a skill.toml (make one with `snapcount skill new`)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_hooks_and_exports_that_do_not_fit_are_named_from_both_sides(folder: Path) -> None:
    path = folder / "skill.toml"
    path.write_text(SOUND.replace('["bid", "self_test"]', '["bid", "self_test", "handle"]'))
    missing = said(snapcount("skill", "build", folder, cwd=folder), 20)
    assert (
        missing
        == "sorter: the export hook_handle is missing, though the manifest lists the hook handle; it exports hook_bid, hook_self_test"
    )
    path.write_text(SOUND.replace('["bid", "self_test"]', '["self_test"]'))
    surplus = said(snapcount("skill", "build", folder, cwd=folder), 20)
    assert surplus.startswith("sorter: the module exports hook_bid, which the manifest does not list under hooks")
    assert sorted(left.name for left in folder.iterdir()) == ["skill.toml", "src"]


@pytest.mark.slow
def test_a_compiler_that_refuses_names_file_and_line_and_what_was_built_before_stays(folder: Path) -> None:
    assert snapcount("skill", "build", folder, cwd=folder).returncode == 0
    before = (folder / "sorter.wasm").read_bytes()
    source = folder / "src" / "main.c"
    source.write_text(source.read_text() + "int x = ;\n")
    ended = snapcount("skill", "build", folder, cwd=folder)
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == UsageError.exit_code
    assert last.startswith(f"error: sorter: does not compile: src/main.c:{len(source.read_text().splitlines())}:")
    assert (folder / "sorter.wasm").read_bytes() == before
    assert sorted(left.name for left in folder.iterdir()) == ["skill.toml", "sorter.wasm", "src"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_bundle_that_was_there_unsigned_or_signed(folder: Path) -> None:
    keys.create(folder.parent / "author.key", bytes(SigningKey(b"k" * 32)))
    assert snapcount("skill", "build", folder, cwd=folder).returncode == 0
    before = (folder / "sorter.wasm").read_bytes()
    line = said(
        snapcount("skill", "sign", folder, "--key", folder.parent / "author.key", cwd=folder, full_after=len(before)), StorageFull.exit_code
    )
    assert line.startswith("sorter.wasm: cannot be written to ")
    assert (folder / "sorter.wasm").read_bytes() == before
    assert sorted(left.name for left in folder.iterdir()) == ["skill.toml", "sorter.wasm", "src"]


# ---- Modules ---------------------------------------------------------------------------------

MEMORY = '(memory (export "memory") 1)'
ALLOC = '(func (export "sc_alloc") (param i32) (result i32) i32.const 8)'
HOOK = '(func (export "hook_bid") (param i32 i32) (result i64) i64.const 0)'
MODULES = {
    "no memory": (ALLOC + HOOK, "exports no memory named `memory`"),
    "no sc_alloc": (MEMORY + HOOK, "the export sc_alloc is missing"),
    "no hook": (MEMORY + ALLOC, "the export hook_bid is missing, though the manifest lists the hook bid; it exports no hook"),
    "a hook of another type": (MEMORY + ALLOC + HOOK.replace("i32 i32", "i32"), "export hook_bid: expected (i32, i32) -> (i64), found (i32) -> (i64)"),
    "WASI": (
        '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))' + MEMORY + ALLOC + HOOK,
        "a core module has no WASI: compile for a target without an operating system",
    ),
    "another import": ('(import "env" "abort" (func))' + MEMORY + ALLOC + HOOK, "imports env.abort, which this host does not offer"),
}  # fmt: skip


def bundle(fields: str) -> bytes:
    return with_manifest(bytes(wat2wasm(f"(module {fields})")), Manifest(name="sorter", version="1.0.0", hooks=("bid",)), "sorter")


@pytest.mark.parametrize("what", MODULES)
def test_a_module_that_no_node_would_run_is_told_why_in_words(what: str) -> None:
    fields, problem = MODULES[what]
    report = inspection.check(bundle(fields), "sorter", None, None)
    (refused,) = report["refused"]
    assert problem in refused
    words = inspection.in_words(report)
    assert f"A node would refuse it: {refused}" in words
    assert not any("imports nothing" in line for line in words), "nobody knows what a module imports that was not compiled"


@pytest.mark.slow
def test_a_module_that_is_none_is_one_line_for_every_command(tmp_path: Path) -> None:
    for content, problem in ((b"", "found nothing"), (b"(module)", "found 28 6d 6f 64"), (bundle(MEMORY + ALLOC + HOOK)[:60], "truncated")):
        (tmp_path / "m.wasm").write_bytes(content)
        for command in ("inspect", "check", "sign"):
            assert problem in said(snapcount("skill", command, "m.wasm", cwd=tmp_path), 20)
    assert [left.name for left in tmp_path.iterdir()] == ["m.wasm"]


# ---- A manifest in words ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "problem"),
    [({"host_min": "99.0.0"}, "needs host 99.0.0 or newer, this is host "), ({"features": ("flags", "warp")}, "needs the host features warp; host ")],
)  # fmt: skip
def test_check_says_that_this_host_is_too_old(needs: dict[str, Any], problem: str) -> None:
    described = Manifest(name="sorter", version="1.0.0", hooks=("bid",), **needs)
    data = with_manifest(bytes(wat2wasm(f"(module {MEMORY + ALLOC + HOOK})")), described, "sorter")
    (refused,) = inspection.check(data, "sorter", None, None)["refused"]
    assert problem in refused


def test_inspect_shows_a_manifest_in_words_and_no_values_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "m.wasm").write_bytes(bundle(MEMORY + ALLOC + HOOK))
    shown = inspection.describe((tmp_path / "m.wasm").read_bytes(), "m.wasm")["manifest"]
    rows = dict(manifest_words.rows(shown))
    assert rows["hooks"] == "bid"
    assert rows["capabilities"] == "none: it can compute, and that is all"
    assert (rows["fuel"], rows["memory"], rows["log"]) == ("at most 100,000,000 units", "at most 16 MiB", "at most 4 KiB")
    assert not any(mark in value for value in rows.values() for mark in "(){}[]'\"")


def test_what_a_manifest_needs_and_speaks_is_told_with_its_versions() -> None:
    described = {
        "name": "s", "version": "1.0.0", "hooks": ("bid", "handle"), "generations": (), "description": "", "host_min": "0.2.0", "instance": "persistent",
        "messages": ({"name": "a.b", "min": 1, "max": 1}, {"name": "c", "min": 2, "max": 4}),
    }  # fmt: skip
    assert manifest_words.rows(described) == [
        ("hooks", "bid, handle"), ("generations", "every one"), ("host", "0.2.0 or newer"), ("instance", "persistent: kept from call to call"),
        ("messages", "a.b version 1, c versions 2 to 4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(1 << 20, "bytes", "1 MiB"), (1536, "bytes", "1,536 bytes"), (2048, "bytes", "2 KiB"), (8, "", "8"), (1000, "ms", "1,000 ms")],
)
def test_an_amount_has_the_unit_in_which_it_is_whole(value: int, unit: str, words: str) -> None:
    assert manifest_words.amount(value, unit) == words
