"""The Debian package: built, looked into, installed into a clean root without a network, run there, and taken away again.

Two kinds of root: `chroot` is a minimal Debian made with debootstrap; `dpkg --root` is an empty directory, for where nobody may change roots. A third test
boots the first one with the real systemd. They need root and the Debian packages debootstrap and systemd-container; in CI their absence is a failure.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

PROJECT = Path(__file__).resolve().parents[1]
BUILD = PROJECT / "packaging/deb/build.py"
EPOCH = "1767225600"
STATE = "/var/lib/snapcount/press-7"
BOOT_S_MAX = 300


def run(*command: object, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    ended = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def need(condition: object, what: str) -> None:
    """Skips, but fails in CI: there it must not go unnoticed."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {what}")


def build(out: Path) -> Path:
    need(shutil.which("dpkg-deb") and Path("/usr/bin/python3").exists(), "Debian")
    return Path(run("/usr/bin/python3", BUILD, "--out", out, SOURCE_DATE_EPOCH=EPOCH).strip().splitlines()[-1])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


def field(package: Path, name: str) -> str:
    return run("dpkg-deb", "--field", package, name).strip()


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, and its control files in DEBIAN."""
    folder = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--raw-extract", package, folder)
    return folder


def test_it_says_what_it_is_and_what_it_needs_and_that_is_no_python_library(package):
    assert package.name == f"snapcount_{field(package, 'Version')}_{field(package, 'Architecture')}.deb"
    depends = field(package, "Depends").split(", ")
    assert [one for one in depends if re.fullmatch(r"python3\.\d+", one)]
    assert [one for one in depends if re.fullmatch(r"libc6 \(>= 2\.\d+\)", one)]
    assert not [one for one in depends if one.startswith("python3-")]
    assert int(field(package, "Installed-Size")) > 10_000
    assert "starts nothing" in field(package, "Description")


def test_its_files_are_roots_in_their_places_and_nothing_else(package):
    rows = [line.split(None, 5) for line in run("dpkg-deb", "--contents", package).splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    assert not [row for row in rows if "s" in row[0] or (row[0][8] == "w" and row[0][0] != "l")], "set-uid, or writable by everybody"
    assert {row[3] for row in rows} == {"2026-01-01"}
    names = {row[5].partition(" -> ")[0].removeprefix("./") for row in rows}
    for wanted in (
        "usr/bin/snapcount", "usr/lib/systemd/system/snapcount-node@.service", "etc/snapcount/node.env", "usr/share/doc/snapcount/copyright",
        "usr/share/doc/snapcount/changelog.gz", "usr/share/doc/snapcount/install.md",
    ):  # fmt: skip
        assert wanted in names
    assert {name.split("/")[0] for name in names if name} == {"usr", "etc"}
    assert not [name for name in names if name.endswith((".pyc", ".key")) or "/ziglang/" in name or "/pip/" in name]
    assert [name for name in names if re.search(r"cython_core/direct\..*\.so$", name)]
    assert [name for name in names if name.endswith("skills/toolpath-planner/toolpath-planner.wasm")]


def test_its_files_are_those_that_its_sums_name_and_none_knows_where_it_was_built(unpacked):
    sums = dict(reversed(line.split("  ", 1)) for line in (unpacked / "DEBIAN/md5sums").read_text().splitlines())
    found = {
        str(path.relative_to(unpacked)): path.read_bytes()
        for path in unpacked.rglob("*")
        if path.is_file() and not path.is_symlink() and path.relative_to(unpacked).parts[0] != "DEBIAN"
    }
    assert {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in found.items()} == sums
    assert [name for name, data in found.items() if b"snapcount-deb-" in data] == []
    assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/snapcount/node.env\n"
    for script in ("postinst", "prerm", "postrm"):
        assert (unpacked / "DEBIAN" / script).stat().st_mode & 0o777 == 0o755
        run("sh", "-n", unpacked / "DEBIAN" / script)


def test_the_same_sources_and_date_give_the_same_bytes(package, tmp_path):
    assert build(tmp_path).read_bytes() == package.read_bytes()


class Clean:
    """A root in which nothing of the host is installed."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def run(self, script: str) -> str:
        """Runs a shell script in it, without a network. `$ROOT` is the root's own name."""
        if self.kind == "chroot":
            enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 ROOT= sh -euc "$1"'
            return run("unshare", "--mount", "--pid", "--fork", "--net", "sh", "-c", enter, self.path, script)
        return run("sh", "-euc", script, ROOT=str(self.path), PATH=f"{self.path}/commands:{os.environ['PATH']}")

    def stand_in(self) -> None:
        """Without another root, these commands mean what they would in it."""
        home, folder = self.path / "usr/lib/snapcount/bin", self.path / "commands"
        folder.mkdir()
        dpkg = f"{shutil.which('dpkg')} --root={self.path} --force-not-root --force-depends --force-script-chrootless"
        for name, command in (("dpkg", dpkg), ("snapcount", f"{home}/python3 -I {home}/snapcount")):
            (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def debian(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A minimal Debian of this release, with systemd."""
    need(os.geteuid() == 0 and shutil.which("debootstrap") and shutil.which("unshare"), "root, and the package debootstrap")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    need(release.get("ID") == "debian", "Debian")
    root = tmp_path_factory.mktemp("debian")
    root.chmod(0o755)  # it will be /, which every user may enter
    depends = [one.split()[0] for one in field(package, "Depends").split(", ")]
    wanted = ",".join([*depends, "systemd", "systemd-sysv", "dbus"])
    run("debootstrap", "--variant=minbase", f"--include={wanted}", release["VERSION_CODENAME"], root)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(params=["dpkg --root", "chroot"])
def clean(request: pytest.FixtureRequest, package: Path, tmp_path: Path) -> Clean:
    if request.param == "chroot":
        root = Clean(request.getfixturevalue("debian"), "chroot")
    else:
        root = Clean(tmp_path, "dpkg --root")
        root.stand_in()
        for folder in ("info", "updates", "triggers"):
            (tmp_path / "var/lib/dpkg" / folder).mkdir(parents=True)
        (tmp_path / "var/lib/dpkg/status").touch()
        (tmp_path / "tmp").mkdir()
    shutil.copy(package, root.path / "tmp/snapcount.deb")
    return root


INSTALL = """
dpkg --install "$ROOT/tmp/snapcount.deb" >&2
test ! -e "$ROOT/var/lib/snapcount"
snapcount --version
"""
RUN = f"""
snapcount node init --state "$ROOT{STATE}" --name press-7 --owner-key "$ROOT/tmp/owner.key" --make-owner-key >&2
snapcount node doctor --state "$ROOT{STATE}" --offline --json
snapcount node run --state "$ROOT{STATE}" >&2 &
for i in $(seq 100); do snapcount node status --state "$ROOT{STATE}" >&2 && break; sleep 0.2; done
snapcount node attest --state "$ROOT{STATE}" --json
kill $!
wait $!
"""
PLACES = '"$ROOT/usr/lib/snapcount" "$ROOT/etc/snapcount" "$ROOT/var/lib/snapcount"'
GO = f"""
dpkg --remove snapcount >&2
ls "$ROOT{STATE}/identity/node.key" "$ROOT/etc/snapcount/node.env"
test ! -e "$ROOT/usr/lib/snapcount"
dpkg --purge snapcount
for place in {PLACES}; do test ! -e "$place"; done
"""


def test_it_installs_without_a_network_runs_sealed_and_goes_away_without_a_trace(clean, package):
    assert clean.run(INSTALL).strip() == f"snapcount {field(package, 'Version')}"
    doctor, attested = (json.loads(line) for line in clean.run(RUN).splitlines())
    assert [finding for finding in doctor["findings"] if finding["level"] == "fail"] == []
    levels = {finding["check"]: finding["level"] for finding in doctor["findings"] if finding["check"] in ("host", "toolchain")}
    assert levels == {"host": "ok", "toolchain": "ok"}
    assert attested["sealed"] is True
    gone = clean.run(GO)
    assert f"removing the node press-7: its identity (ed25519:{attested['key']})" in gone
    assert "owners' and authors' keys that you keep elsewhere are still there" in gone


def test_a_host_file_that_was_altered_after_installation_is_found_and_no_node_runs(clean):
    clean.run(INSTALL)
    clean.run(f'snapcount node init --state "$ROOT{STATE}" --name press-7 --owner-key "$ROOT/tmp/owner.key" --make-owner-key')
    (altered,) = clean.path.glob("usr/lib/snapcount/lib/python3*/site-packages/host/core/safety.py")
    altered.write_text(altered.read_text() + "# mine\n")
    said = clean.run(
        f'snapcount node run --state "$ROOT{STATE}" 2>&1 || true; snapcount node doctor --state "$ROOT{STATE}" --offline || true'
    )
    assert "error: host/core/safety.py: this file of the host was altered" in said
    assert "fail  host" in said
    clean.run("dpkg --purge snapcount")


BOOTED = f"""#!/bin/bash
exec > /root/said 2>&1
set -eux
trap 'journalctl --unit snapcount-node@press-7 --no-pager' ERR
dpkg --install /root/snapcount.deb
systemctl list-units --all --plain 'snapcount-node@*' | grep -c snapcount-node@ || true
snapcount keys new author --dir /root
snapcount node init --state {STATE} --name press-7 --owner-key /root/owner.key --make-owner-key --trust /root/author.pub --registry http://127.0.0.1:8470
mkdir -p /etc/systemd/system/snapcount-node@.service.d
printf '[Service]\\nWatchdogSec=4\\nRestartSec=1\\n' > /etc/systemd/system/snapcount-node@.service.d/quick.conf
systemctl daemon-reload
systemctl start snapcount-node@ghost && systemctl is-active snapcount-node@ghost || echo "ghost: not started"
systemctl enable --now snapcount-node@press-7
echo "active: $(systemctl is-active snapcount-node@press-7) $(systemctl show -P StatusText snapcount-node@press-7)"
pid=$(systemctl show -P MainPID snapcount-node@press-7)
grep -E '^(NoNewPrivs|CapBnd|Seccomp):' /proc/$pid/status | tr -d '\\t' | tr '\\n' ' '
echo "state: $(stat -c '%U %a' {STATE}) key: $(stat -c '%U %a' {STATE}/identity/node.key)"
snapcount registry serve --dir /root/bundles --port 8470 &
for i in $(seq 100); do snapcount registry nodes | grep -q '^1 of 1' && break; sleep 0.2; done
snapcount skill sign /usr/lib/snapcount/lib/python3*/site-packages/skills/toolpath-planner/toolpath-planner.wasm --key /root/author.key --out /root/planner.wasm
snapcount fleet push /root/planner.wasm
printf 'G21\\nG90\\nG1 X20 F1200\\n' > /root/line.gcode
snapcount job run /root/line.gcode --state {STATE}
snapcount node doctor --state {STATE}
kill -STOP $pid
for i in $(seq 150); do test "$(systemctl show -P NRestarts snapcount-node@press-7)" = 1 && break; sleep 0.2; done
for i in $(seq 100); do snapcount node status --state {STATE} && break; sleep 0.2; done
journalctl --unit snapcount-node@press-7 --no-pager
echo "restarts: $(systemctl show -P NRestarts snapcount-node@press-7)"
dpkg --remove snapcount
systemctl is-active snapcount-node@press-7 || echo "stopped by removal"
dpkg --purge snapcount
echo "everything held"
"""
UNIT = "[Service]\nType=oneshot\nExecStart=/root/booted\nExecStopPost=/bin/systemctl --no-block poweroff\n"


def test_the_unit_runs_a_node_under_the_real_systemd_and_its_watchdog_restarts_one_that_hangs(debian, package):
    need(shutil.which("systemd-nspawn"), "the package systemd-container")
    shutil.copy(package, debian / "root/snapcount.deb")
    (debian / "root/booted").write_text(BOOTED)
    (debian / "root/booted").chmod(0o755)
    units = debian / "etc/systemd/system"
    (units / "booted.service").write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/booted.service").symlink_to("../booted.service")
    alone = [] if Path("/run/systemd/system").exists() else ["--keep-unit"]  # no systemd out here that could make a unit for it
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        *alone,
        "--private-network",
        "--console=pipe",
        "--boot",
        f"--directory={debian}",
    ]
    booted = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_S_MAX, check=False)
    report = debian / "root/said"
    assert report.exists(), f"it did not boot: {booted.stdout}\n{booted.stderr}"
    said = report.read_text()
    print(said)
    for wanted in (
        "ghost: not started",
        "active: active press-7: ready",
        "NoNewPrivs:1",
        "CapBnd:0000000000000000",
        "Seccomp:2",
        "state: snapcount 700 key: snapcount 600",
        "active on 1 of 1 nodes",
        "understood yes, all of it",
        "0 failed,",
        "Watchdog timeout",
        "restarts: 1",
        "stopped by removal",
        "snapcount: removing the node press-7",
        "everything held",
    ):
        assert wanted in said, wanted


def test_make_has_a_target_for_it():
    assert "packaging/deb/build.py" in run("make", "--dry-run", "--no-print-directory", "-C", PROJECT, "deb")
