"""Builds dist/snapcount_VERSION_ARCH.deb: the host and all that it needs but Python, so that installing it needs no network.

It runs with Debian's own Python (`/usr/bin/python3`), for whose version the package then is, and needs the Debian packages gcc, python3-dev and
python3-venv. The same sources, date (SOURCE_DATE_EPOCH) and machine give the same bytes.
"""

import argparse
import csv
import gzip
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
SOURCES = ("host", "sdk", "registry", "cython_core", "skills", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
GENERATED = shutil.ignore_patterns("__pycache__", "*.so", "*.py[cod]")
EXTRAS = "grbl,nats"
HOME = Path("usr/lib/snapcount")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Which package has a library that a compiled extension asks for. The package libc6 has those that are not named here.
LIBC = re.compile(r"(libc|libm|libdl|libpthread|librt|libutil|ld-linux[\w-]*)\.so\.\d")
PACKAGES = {"libgcc_s.so.1": "libgcc-s1", "libstdc++.so.6": "libstdc++6", "libz.so.1": "zlib1g"}


def run(*command: object, **environment: str) -> str:
    # PYTHONPATH would bring in modules of whoever calls.
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    ended = subprocess.run(list(map(str, command)), env=inherited | environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        sys.exit(f"error: {Path(str(command[0])).name} ended with {ended.returncode}; what it said stands above")
    return ended.stdout


def require_tools() -> None:
    """Says in one line what is missing."""
    found = {"dpkg-deb": "dpkg", "gcc": "gcc", "objdump": "binutils"}
    missing = [package for tool, package in found.items() if shutil.which(tool) is None]
    if not Path("/usr/bin", PYTHON).exists():
        missing.append(f"{PYTHON} (the package runs /usr/bin/{PYTHON})")
    if not Path("/usr/include", PYTHON, "Python.h").exists():
        missing.append("python3-dev")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        missing.append("python3-venv")
    if missing:
        sys.exit(f"error: building the package needs {', '.join(missing)}: apt-get install them")


def source_date() -> int:
    """SOURCE_DATE_EPOCH, or the date of the last commit, or of the newest source file where there is no git."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        return int(given)
    if (PROJECT / ".git").exists() and shutil.which("git"):
        return int(run("git", "-C", PROJECT, "log", "-1", "--format=%ct"))
    return int(max((PROJECT / name).stat().st_mtime for name in SOURCES))


def build_wheels(scratch: Path) -> Path:
    """The project's wheel, compiled from a clean copy of the sources, and those of all its dependencies."""
    copy, wheels = scratch / "source", scratch / "wheels"
    copy.mkdir()
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, copy / name, ignore=GENERATED)
        else:
            shutil.copy2(PROJECT / name, copy / name)
    for made in (copy / "cython_core").glob("*.c"):
        made.unlink()
    run(sys.executable, "-m", "venv", scratch / "builder")
    # No debugging symbols: they are large, and hold the path of the scratch directory.
    run(
        scratch / "builder/bin/pip", "wheel", "--quiet", "--constraint", HERE.parent / "constraints.txt", "--wheel-dir", wheels, f"{copy}[{EXTRAS}]",
        CFLAGS=f"-g0 -ffile-prefix-map={copy}=.",
    )  # fmt: skip
    return wheels


def install(scratch: Path, root: Path, wheels: Path, version: str) -> None:
    """A virtual environment at its final place below `root`, without pip and without anything that names `root`."""
    home = root / HOME
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin/python3"
    run(
        scratch / "builder/bin/pip", "--python", python, "install", "--quiet", "--no-index", "--find-links", wheels, "--no-compile",
        "--no-warn-script-location", f"snapcount[{EXTRAS}]=={version}",
    )  # fmt: skip
    site = home / "lib" / PYTHON / "site-packages"
    require_pinned(site)
    for record in site.glob("*.dist-info/RECORD"):
        drop_scripts(record)
    shutil.rmtree(home / "bin")
    shutil.rmtree(home / "include", ignore_errors=True)
    (home / "bin").mkdir()
    python.symlink_to(f"/usr/bin/{PYTHON}")
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n")


def require_pinned(site: Path) -> None:
    """Every library has the version that the project names: what nothing pins could be another one tomorrow."""
    named = [line.partition("==") for line in (HERE.parent / "constraints.txt").read_text().splitlines() if "==" in line]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extra = [text for name in EXTRAS.split(",") for text in project["optional-dependencies"][name]]
    direct = [text.partition("==") for text in (*project["dependencies"], *extra)]
    pinned = {plain(name): version for name, _, version in (*named, *direct)}
    for folder in sorted(site.glob("*.dist-info")):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if name != "snapcount" and pinned.get(plain(name)) != version:
            sys.exit(f"error: packaging/constraints.txt: add {plain(name)}=={version}, or correct what stands there for it")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def drop_scripts(record: Path) -> None:
    """Takes the commands of a library out of its RECORD: they are not in the package."""
    rows = [row for row in csv.reader(record.read_text().splitlines()) if row and not row[0].startswith("../../../bin/")]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    record.write_text(out.getvalue())


def lay_out(root: Path, version: str, date: int) -> None:
    """What is in the package besides the environment."""
    for source, place, mode in (
        (HERE / "snapcount", "usr/lib/snapcount/bin/snapcount", 0o755),
        (HERE / "node.env", "etc/snapcount/node.env", 0o644),
        (HERE.parent / "systemd/snapcount-node@.service", "usr/lib/systemd/system/snapcount-node@.service", 0o644),
        (HERE / "copyright", "usr/share/doc/snapcount/copyright", 0o644),
        (PROJECT / "docs/install.md", "usr/share/doc/snapcount/install.md", 0o644),
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / place)
        (root / place).chmod(mode)
    (root / "usr/bin").mkdir()
    (root / "usr/bin/snapcount").symlink_to("../lib/snapcount/bin/snapcount")
    # The format of Debian Policy 4.4; what changed for a user is in the other file.
    day = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(date))
    entry = f"snapcount ({version}) unstable; urgency=medium\n\n  * Release {version}; see CHANGELOG.md.gz.\n\n -- {maintainer()}  {day}\n"
    for name, text in (("changelog.gz", entry), ("CHANGELOG.md.gz", (PROJECT / "CHANGELOG.md").read_text())):
        (root / "usr/share/doc/snapcount" / name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def maintainer() -> str:
    return str(re.findall(r"^Maintainer: (.*)$", (HERE / "control.in").read_text(), re.MULTILINE)[0])


def depends(root: Path) -> str:
    """What the compiled extensions ask the system for: the libraries' packages, and the newest version of glibc whose symbols they use."""
    needed: set[str] = set()
    glibc = (0, 0)
    for library in sorted(path for path in root.rglob("*.so*") if path.is_file()):
        said = run("objdump", "-p", library)
        needed.update(name for name in re.findall(r"^\s*NEEDED\s+(\S+)", said, re.MULTILINE) if not list(library.parents[1].rglob(name)))
        glibc = max([glibc, *((int(major), int(minor)) for major, minor in re.findall(r"\bGLIBC_(\d+)\.(\d+)", said))])
    packages = {f"libc6 (>= {glibc[0]}.{glibc[1]})", PYTHON, "adduser"}
    for name in needed:
        if not LIBC.fullmatch(name):
            packages.add(PACKAGES.get(name) or sys.exit(f"error: {name}: which Debian package has it? name it in {Path(__file__).name}"))
    return ", ".join(sorted(packages))


def files(root: Path) -> Iterator[Path]:
    return (
        path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink() and path.relative_to(root).parts[0] != "DEBIAN"
    )


def describe(root: Path, version: str, architecture: str) -> None:
    """The control files."""
    control = root / "DEBIAN"
    control.mkdir()
    facts = {
        "VERSION": version, "ARCHITECTURE": architecture, "DEPENDS": depends(root),
        "INSTALLED_KIB": str(sum(-(-path.stat().st_size // 1024) for path in files(root))),
    }  # fmt: skip
    (control / "control").write_text(re.sub(r"@(\w+)@", lambda found: facts[found[1]], (HERE / "control.in").read_text()))
    (control / "conffiles").write_text("/etc/snapcount/node.env\n")
    sums = (f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n" for path in files(root))
    (control / "md5sums").write_text("".join(sums))
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / name, control / name)
        (control / name).chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "dist", help="Where the package is written.")
    out = parser.parse_args().out
    require_tools()
    os.umask(0o022)
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    architecture, date = run("dpkg", "--print-architecture").strip(), source_date()
    with tempfile.TemporaryDirectory(prefix="snapcount-deb-") as folder:
        scratch, root = Path(folder), Path(folder, "root")
        root.mkdir(mode=0o755)
        install(scratch, root, build_wheels(scratch), version)
        lay_out(root, version, date)
        describe(root, version, architecture)
        out.mkdir(parents=True, exist_ok=True)
        package = out / f"snapcount_{version}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, package, SOURCE_DATE_EPOCH=str(date))
    print(package)


if __name__ == "__main__":
    main()
