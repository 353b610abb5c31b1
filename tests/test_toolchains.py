"""Builds: which compiler is taken, what is said where one is missing, that nothing is half-written, and that the bytes are the same everywhere."""

import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from host.core.bundle import with_signature
from host.core.errors import Incompatible, MalformedModule, UsageError
from sdk import build as builds
from sdk import project, scaffold
from sdk.toolchains import COMPILERS, assemblyscript, process, rust
from sdk.toolchains.process import BuildFailed

EXTENSIONS = {"rust": "rs", "assemblyscript": "ts"}
SLOW_TO_BUILD = ("assemblyscript", "javascript", "python", "rust")


@pytest.fixture(
    scope="module", params=[pytest.param(lang, marks=[pytest.mark.ci] if lang in SLOW_TO_BUILD else []) for lang in sorted(COMPILERS)]
)
def lang(request: pytest.FixtureRequest, require: Callable[[str], None]) -> str:
    require(request.param)
    return str(request.param)


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# ---- What is built ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_skill_is_the_same_bytes_wherever_it_is_built(lang: str, tmp_path: Path) -> None:
    folder = scaffold.create(tmp_path, "ore-sorter", lang)
    built = builds.build(project.load(folder))
    built.write_bytes(with_signature(built.read_bytes(), SigningKey(b"s" * 32), "ore-sorter"))
    found = builds.verify(project.load(folder))
    assert found.problems == ()
    assert found.first == found.second == found.in_place


@pytest.mark.slow
def test_verify_tells_a_bundle_that_is_not_what_the_sources_give(tmp_path: Path) -> None:
    folder = scaffold.create(tmp_path, "ore-sorter", "c")
    builds.build(project.load(folder))
    source = folder / "src" / "main.c"
    source.write_text(source.read_text().replace("cost plus margin", "cost and margin"))
    (problem,) = builds.verify(project.load(folder)).problems
    assert "build it again" in problem


@pytest.mark.slow
def test_verify_tells_a_compiler_that_does_not_give_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scaffold.create(tmp_path, "ore-sorter", "c")
    compiled = builds.compiled
    count = iter(range(9))
    monkeypatch.setattr(builds, "compiled", lambda loaded, say: compiled(loaded, say) + bytes([0, 3, 1, next(count), 0]))
    (problem,) = builds.verify(project.load(folder)).problems
    assert "differ" in problem
    monkeypatch.setattr(builds, "compiled", lambda loaded, say: compiled(loaded, say) + str(folder).encode())
    assert any(str(folder) in problem for problem in builds.verify(project.load(folder)).problems)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(("lang_", "place"), [("rust", "src/main.rs:30:1"), ("assemblyscript", "src/main.ts(35,1)")])
def test_a_compiler_that_refuses_says_where_and_leaves_what_was_there(
    lang_: str, place: str, require: Callable[[str], None], tmp_path: Path
) -> None:
    require(lang_)
    folder = scaffold.create(tmp_path, "broken", lang_)
    built = builds.build(project.load(folder))
    before = built.read_bytes()
    source = folder / "src" / f"main.{EXTENSIONS[lang_]}"
    source.write_text(source.read_text() + "let 1 = ;\n")
    with pytest.raises(BuildFailed) as caught:
        builds.build(project.load(folder))
    assert str(caught.value).startswith(f"broken: does not compile: {place}")
    assert "\n" not in str(caught.value)
    assert caught.value.output.count("\n") > 1
    assert built.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".json") == sorted(
        ["README.md", "broken.wasm", "skill.toml", "src", "vectors"]
    )


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("lang_", sorted(EXTENSIONS))
def test_a_hook_that_the_sources_do_not_have_is_refused_by_name(lang_: str, require: Callable[[str], None], tmp_path: Path) -> None:
    require(lang_)
    folder = scaffold.create(tmp_path, "liar", lang_)
    described = folder / "skill.toml"
    described.write_text(described.read_text().replace('["bid", "self_test"]', '["bid", "self_test", "handle"]'))
    with pytest.raises((BuildFailed, MalformedModule), match="handle"):
        builds.build(project.load(folder))


@pytest.mark.slow
@pytest.mark.ci
def test_a_module_with_another_import_is_refused(require: Callable[[str], None], tmp_path: Path) -> None:
    require("rust")
    folder = scaffold.create(tmp_path, "wants-more", "rust")
    source = folder / "src" / "main.rs"
    source.write_text(
        source.read_text().replace("fn self_test", '#[link(wasm_import_module = "env")]\nextern "C" { fn gift() -> u32; }\n\nfn self_test', 1)
        .replace('"nothing to prepare".to_string()', "format!(\"{}\", unsafe { gift() })")
    )  # fmt: skip
    with pytest.raises(Incompatible, match=r"env\.gift"):
        builds.build(project.load(folder))


# ---- Rust ------------------------------------------------------------------------------------


def fake_rustc(path: Path, version: str, *, target: bool = True) -> Path:
    sysroot = path.parent / f"sysroot-{version}"
    library = sysroot / "lib" / "rustlib" / rust.TARGET / "lib"
    library.mkdir(parents=True, exist_ok=True)
    if target:
        (library / "libstd-0.rlib").touch()
    return script(path, f'case "$*" in *sysroot*) echo {sysroot} ;; *) echo "rustc {version} (abc 2026-01-01)" ;; esac')


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing in it but what a test puts there, and a shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RUSTC", raising=False)
    monkeypatch.setattr(rust, "SYSTEM_RUSTC", str(tmp_path / "absent"))
    return folder


def test_without_rustc_it_says_how_to_get_it(only: Path) -> None:
    with pytest.raises(UsageError, match="the Rust compiler is missing; get it: apt-get install rustc"):
        rust.find()


def test_a_rustc_without_the_target_is_named(only: Path) -> None:
    fake_rustc(only / "rustc", "1.95.0", target=False)
    with pytest.raises(UsageError, match=r"no target wasm32-unknown-unknown: \S+/rustc \(1\.95\.0\); get it: .*rustup target add"):
        rust.find()


def test_without_a_linker_it_says_how_to_get_one(only: Path) -> None:
    fake_rustc(only / "rustc", rust.VERSION)
    with pytest.raises(UsageError, match="apt-get install lld-14"):
        rust.find()


def test_the_pinned_rustc_goes_before_the_first_on_the_path(only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rustc(only / "rustc", "1.95.0")
    script(only / "lld-14", f'echo "Debian LLD {rust.LINKER_VERSION} (compatible with GNU linkers)"')
    assert (rust.find().version, rust.find().is_pinned) == ("1.95.0", False)
    pinned = fake_rustc(tmp_path / "usr" / "rustc", rust.VERSION)
    monkeypatch.setattr(rust, "SYSTEM_RUSTC", str(pinned))
    assert (rust.find().rustc, rust.find().is_pinned) == (pinned, True)
    monkeypatch.setenv("RUSTC", str(only / "rustc"))
    assert rust.find().version == "1.95.0"


def test_another_rustc_than_the_pinned_one_is_said(only: Path, tmp_path: Path) -> None:
    fake_rustc(only / "rustc", "1.95.0")
    script(only / "lld-14", 'echo "LLD 18.1.3"')
    said: list[str] = []
    folder = scaffold.create(tmp_path, "other", "rust")
    with pytest.raises(BuildFailed):  # the fake compiles nothing
        COMPILERS["rust"](project.load(folder), tmp_path / "scratch", said.append)
    assert said == [
        f"compiled with rustc 1.95.0 and LLD 18.1.3: the bytes differ from those of rustc {rust.VERSION} and LLD {rust.LINKER_VERSION}, which others get"
    ]


# ---- AssemblyScript --------------------------------------------------------------------------


def test_without_node_it_says_how_to_get_it(only: Path) -> None:
    with pytest.raises(UsageError, match=r"needs Node\.js, which is missing: install Node\.js 20 or newer"):
        assemblyscript.find(None, print)


def test_an_old_node_is_named(only: Path) -> None:
    script(only / "node", "echo v18.19.0")
    with pytest.raises(UsageError, match=r"Node\.js 20 or newer, found v18\.19\.0"):
        assemblyscript.find(None, print)


def test_without_npm_it_says_what_to_install(only: Path) -> None:
    script(only / "node", "echo v22.1.0")
    with pytest.raises(UsageError, match=f"npm install assemblyscript@{assemblyscript.VERSION}"):
        assemblyscript.find(None, print)


def test_an_npm_that_fails_leaves_nothing_behind(only: Path, tmp_path: Path) -> None:
    script(only / "node", "echo v22.1.0")
    script(only / "npm", "echo 'npm error network is unreachable' >&2; exit 1")
    with pytest.raises(UsageError, match="network is unreachable; is there a network"):
        assemblyscript.find(None, lambda line: None)
    assert list((tmp_path / "cache" / "snapcount" / "toolchains").iterdir()) == []


def test_npm_installs_the_locked_versions_once(only: Path, tmp_path: Path) -> None:
    script(only / "node", "echo v22.1.0")
    made = assemblyscript.ASC
    for tool in ("mkdir", "touch"):
        (only / tool).symlink_to(str(shutil.which(tool, path="/usr/bin:/bin")))
    script(only / "npm", f'test "$1 $2" = "ci --ignore-scripts" && mkdir -p {made.parent} && touch {made}')
    said: list[str] = []
    found = assemblyscript.find(None, said.append)
    assert found.is_file()
    assert (found.parents[3] / "package-lock.json").read_bytes() == (assemblyscript.PINS / "package-lock.json").read_bytes()
    (only / "npm").unlink()
    assert assemblyscript.find(None, said.append) == found
    assert len(said) == 1


def test_a_projects_own_compiler_goes_first_and_another_version_is_said(only: Path, tmp_path: Path) -> None:
    script(only / "node", "echo v22.1.0")
    own = tmp_path / assemblyscript.ASC
    own.parent.mkdir(parents=True)
    own.touch()
    (own.parents[1] / "package.json").write_text('{"version": "0.27.0"}')
    said: list[str] = []
    assert assemblyscript.find(tmp_path, said.append) == own
    assert "0.27.0" in said[0]


def test_the_lock_file_names_the_pinned_version_by_digest_and_no_address() -> None:
    import json

    lock = (assemblyscript.PINS / "package-lock.json").read_text()
    packages = json.loads(lock)["packages"]
    assert packages["node_modules/assemblyscript"]["version"] == assemblyscript.VERSION
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
    assert "resolved" not in lock
    assert assemblyscript.VERSION in (scaffold.TEMPLATES / "assemblyscript" / "package.json").read_text()


# ---- Running a compiler ----------------------------------------------------------------------


def test_a_compiler_that_takes_too_long_is_stopped_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMPILE_S_MAX", 0.2)
    slow = script(tmp_path / "slow", f"sleep 30 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(BuildFailed, match="took more than"):
        process.run([slow], tmp_path, "late", tmp_path / "made")
    pid = int((tmp_path / "pid").read_text())
    state, until = Path(f"/proc/{pid}/stat"), time.monotonic() + 10
    while state.exists() and state.read_text().split(") ")[1][0] not in "ZX":  # the kernel takes its time to end what was killed
        assert time.monotonic() < until, "what the compiler started still runs"
        time.sleep(0.01)


def test_a_compiler_that_ends_well_but_makes_nothing_has_failed(tmp_path: Path) -> None:
    quiet = script(tmp_path / "quiet", "exit 0")
    with pytest.raises(BuildFailed, match="the compiler ended with 0"):
        process.run([quiet], tmp_path, "empty", tmp_path / "made")
