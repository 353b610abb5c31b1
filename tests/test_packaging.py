"""What a user gets from the package index: a complete source distribution, and a wheel that needs no WebAssembly compiler."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path = ROOT) -> str:
    ended = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a copy of what git tracks, and unpacked."""
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no git checkout, so there is nothing to compare with")
    scratch = tmp_path_factory.mktemp("sdist")
    tree = scratch / "tree"
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
        (tree / name).chmod((ROOT / name).stat().st_mode)
    run(sys.executable, "-P", "-m", "build", "--sdist", "--no-isolation", "--outdir", scratch / "out", cwd=tree)
    (archive,) = (scratch / "out").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "unpacked", filter="data")
    (folder,) = (scratch / "unpacked").iterdir()
    return folder


def tracked() -> list[str]:
    return [name for name in run("git", "ls-files", "-co", "--exclude-standard").splitlines() if (ROOT / name).is_file()]


@pytest.mark.slow
def test_the_source_distribution_has_every_file_of_the_tree(unpacked):
    missing = [name for name in tracked() if not (unpacked / name).exists()]
    assert missing == []
    assert os.access(unpacked / ".ci" / "run", os.X_OK)


@pytest.mark.slow
@pytest.mark.ci
def test_a_wheel_from_the_source_distribution_has_the_extensions_and_the_skills_and_needs_no_guest_compiler(unpacked, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    ended = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (wheel,) = tmp_path.glob("snapcount-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for skill in ("toolpath-planner", "feedstock-assessor", "bounty-bidder", "cell-start"):
        assert f"skills/{skill}/{skill}.wasm" in names
    for wanted in (
        "sdk/contract/skill.cddl",
        "sdk/guest/zig/snapcount.zig",
        "sdk/guest/c/snapcount.h",
        "sdk/templates/zig/src/main.zig",
        "host/py.typed",
    ):
        assert wanted in names
    assert {f"sdk/templates/c/vectors/{name}" for name in ("01-an-hour-of-work.json", "02-no-time-left.json")} <= names
    for extension in ("direct", "strict", "encode"):
        assert any(name.startswith(f"cython_core/{extension}.") and name.endswith(".so") for name in names)
    assert not any(name.startswith("tests/") for name in names)
