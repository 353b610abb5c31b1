"""The doctor: every check finds what is wrong, with a machine that says so; and the probes of the real machine answer."""

import contextlib
import dataclasses
import errno
import http.server
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

import host
from host import identity
from host.core.attestation import Measurement
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import HostAltered, HostFault, MachineError, NetworkError, UsageError
from host.doctor import Finding, SystemProbes, examine, system
from host.doctor.probes import Bounds, Device, Disk, Holder, HttpAnswer, Running
from host.plugins.drivers.grbl.settings import GrblSettings
from sdk.grbl_peer.firmware import Firmware
from sdk.grbl_peer.serve import Peer, PtyCable

ROOT = Path(host.__file__).resolve().parents[1]
NOW_S = 1_700_000_000.0
DAY_S = 86_400
GIB = 1 << 30
BOUNDS = Bounds(open_files=65_536, address_bytes=None, memory_bytes=4 * GIB, tasks=512, memory_controlled=True)
DISK = Disk(bytes_free=8 * GIB, files_free=100_000, device="sda1")
SELF = os.geteuid()


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@dataclass
class FakeProbes:
    """A machine on which all is well, but for what a test says. What is callable is called."""

    answers: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        well: dict[str, Any] = {
            "now_s": NOW_S, "built_s": NOW_S - 30 * DAY_S, "clock_synchronised": True, "running": None, "uid": SELF,
            "owner": lambda path: path.stat().st_uid, "user": lambda uid: "snapcount" if uid == SELF else f"user{uid}",
            "disk": DISK, "sync_s": 0.004, "bounds": BOUNDS, "http": HttpAnswer(200, NOW_S, NOW_S), "connect": None, "listen": None,
            "measure": Measurement("sha256:" + "ab" * 32, True, 156), "slow_path": None, "uncompiled": (), "compile": None, "tools": {},
            "require_serial": None, "device": Device(Path("/dev/ttyACM0"), True, "dialout", 0o660), "may_use": True, "holders": (),
            "controller": "Grbl 1.1h answers, state Idle",
        }  # fmt: skip
        answer = (well | self.answers)[name]
        return answer if callable(answer) else lambda *_: answer


class Patient:
    """A node's state directory, and what is found there."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def edit(self, old: str, new: str) -> None:
        path = self.state / "node.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def examine(self, *, offline: bool = False, deep: bool = False, **answers: Any) -> list[Finding]:
        return list(examine(self.state, FakeProbes(answers), offline=offline, deep=deep))

    def wrong(self, **answers: Any) -> list[Finding]:
        """What is not ok."""
        return [finding for finding in self.examine(**answers) if finding.level != "ok"]

    def the_one(self, **answers: Any) -> Finding:
        """The only thing that is not ok; it says what to do."""
        (finding,) = self.wrong(**answers)
        assert finding.do
        assert finding.line.isprintable()
        return finding


@pytest.fixture
def patient(tmp_path, make_state, clock) -> Patient:
    return Patient(make_state(tmp_path / "node", clock, registry="http://127.0.0.1:8470"))


def test_a_node_that_is_well_has_nothing_wrong_in_any_check(patient):
    found = patient.examine()
    assert [finding for finding in found if finding.level != "ok"] == []
    assert {finding.check for finding in found} == {
        "host", "config", "clock", "disk", "permissions", "limits", "trust", "toolchain", "network",
    }  # fmt: skip
    assert not any(finding.do for finding in found)


def test_offline_asks_nobody(patient):
    refuse = raises(AssertionError("it asked"))
    assert not [f for f in patient.examine(offline=True, http=refuse, connect=refuse, listen=refuse) if f.check == "network"]


# Host and configuration.


def test_an_altered_host_fails(patient):
    finding = patient.the_one(measure=raises(HostAltered("host/node.py: this file of the host was altered")))
    assert (finding.check, finding.level) == ("host", "fail")
    assert "host/node.py" in finding.found


def test_a_development_tree_is_worth_a_word(patient):
    assert patient.the_one(measure=Measurement("sha256:00", False, 9)).level == "warn"


def test_a_directory_without_a_node_and_a_damaged_node_toml_fail(patient, tmp_path):
    found = list(examine(tmp_path / "nowhere", FakeProbes()))
    assert [(f.check, f.level) for f in found] == [("host", "ok"), ("config", "fail")]
    assert "snapcount node init" in found[1].do
    patient.edit("generation = 1 ", "generation = 0 ")
    finding = patient.the_one()
    assert (finding.check, finding.level, finding.do) == ("config", "fail", "correct it")
    assert "generation" in finding.found


def test_a_key_in_node_toml_that_is_none_fails(patient):
    patient.edit("operators = []", 'operators = ["ed25519:xyz"]')
    assert "trust.operators" in patient.the_one().found


# Clock.


@pytest.mark.parametrize(
    ("answers", "level", "says"),
    [
        ({"built_s": NOW_S + DAY_S}, "fail", "before this host was made"),
        ({"built_s": NOW_S - 21 * 365 * DAY_S}, "fail", "20 years after"),
        ({"clock_synchronised": False}, "warn", "not synchronised"),
        ({"clock_synchronised": None}, "warn", "does not say"),
        ({"http": HttpAnswer(200, NOW_S - 301, NOW_S)}, "fail", "301 s ahead of the registry's"),
        ({"http": HttpAnswer(200, NOW_S + 9, NOW_S)}, "warn", "9 s behind the registry's"),
    ],
)
def test_a_clock_that_is_wrong_is_found(patient, answers, level, says):
    finding = patient.the_one(**answers)
    assert (finding.check, finding.level) == ("clock", level)
    assert says in finding.found


def test_a_clock_before_the_certificate_fails_with_it(patient):
    finding = patient.the_one(now_s=NOW_S - DAY_S, http=HttpAnswer(200, None, 0))
    assert (finding.check, finding.level) == ("trust", "fail")
    assert "is this clock right" in finding.found


# Disk.


@pytest.mark.parametrize(
    ("answers", "level", "says"),
    [
        ({"disk": dataclasses.replace(DISK, bytes_free=10 << 20)}, "fail", "10 MiB free"),
        ({"disk": dataclasses.replace(DISK, bytes_free=300 << 20)}, "warn", "300 MiB free"),
        ({"disk": dataclasses.replace(DISK, files_free=3)}, "fail", "inodes"),
        ({"sync_s": 2.5}, "warn", "2.5 s"),
        ({"sync_s": raises(OSError(errno.EROFS, "Read-only file system"))}, "fail", "Read-only file system"),
    ],
)
def test_a_disk_that_will_not_do_is_found(patient, answers, level, says):
    finding = patient.the_one(**answers)
    assert (finding.check, finding.level) == ("disk", level)
    assert says in finding.found


def test_an_sd_cards_wear_is_said_not_to_be_known(patient):
    found = patient.examine(disk=dataclasses.replace(DISK, device="mmcblk0p2", files_free=None))
    assert any("cannot be measured" in finding.found for finding in found)


# Permissions.


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("identity/node.key", 0o640, "can be read by others"),
        ("identity/cache.key", 0o604, "can be read by others"),
        ("safety", 0o777, "can be changed by others"),
        (".", 0o775, "can be changed by others"),
    ],
)
def test_modes_that_let_others_in_are_found(patient, name, mode, says):
    (patient.state / name).chmod(mode)
    found = [finding for finding in patient.wrong() if finding.check == "permissions"]
    assert [finding.level for finding in found] == ["fail"]
    assert says in found[0].found
    assert "chmod" in found[0].do


def test_whoever_is_neither_root_nor_the_nodes_user_is_told_so(patient):
    finding = patient.the_one(uid=4242)
    assert (finding.check, finding.level) == ("permissions", "fail")
    assert "you are user4242" in finding.found


def test_a_node_that_runs_as_another_user_or_as_root_is_found(patient):
    found = patient.wrong(running=Running(1, 4242), owner=7, uid=0)
    assert [(f.check, f.level) for f in found] == [("permissions", "fail")]
    assert "runs as user4242" in found[0].found
    assert patient.the_one(running=Running(1, 0), owner=7, uid=0).level == "warn"


def test_a_file_that_the_nodes_user_cannot_read_is_found(patient):
    certificate = patient.state / identity.CERTIFICATE
    certificate.chmod(0o600)
    finding = patient.the_one(owner=lambda path: 4242 if path == certificate else SELF)
    assert finding.level == "fail"
    assert f"chown snapcount {certificate}" in finding.do


def test_an_owners_key_on_the_node_is_worth_a_word(patient):
    (patient.state / "owner.key").write_text("secret")
    assert "keep owners' and authors' keys away" in patient.the_one().do


def test_a_state_directory_that_may_not_be_read_fails(patient):
    finding = patient.the_one(owner=raises(PermissionError(errno.EACCES, "Permission denied", "identity")))
    assert (finding.check, finding.found) == ("permissions", "identity: Permission denied")


# Limits.


@pytest.mark.parametrize(
    ("bounds", "level", "says"),
    [
        ({"open_files": 200}, "fail", "256 are needed"),
        ({"address_bytes": 8 * GIB}, "fail", "addresses are limited"),
        ({"memory_bytes": 128 << 20}, "fail", "128 MiB"),
        ({"memory_bytes": 400 << 20}, "warn", "400 MiB"),
        ({"tasks": 16}, "fail", "16 tasks"),
        ({"memory_controlled": False}, "warn", "MemoryMax="),
    ],
)
def test_limits_that_are_too_low_are_found(patient, bounds, level, says):
    finding = patient.the_one(bounds=dataclasses.replace(BOUNDS, **bounds))
    assert (finding.check, finding.level) == ("limits", level)
    assert says in finding.found


def test_a_tier_needs_a_file_for_each_child_and_its_limits_are_those_of_the_running_node(patient, owner):
    patient.edit('role = ""', 'role = "orchestrator"')
    patient.edit('listen = ""', 'listen = "127.0.0.1:8480"')
    patient.edit("children_max = 64", "children_max = 1000")
    identity.certify(patient.state, owner, Fixed(), SystemRandom())
    asked: list[int | None] = []

    def bounds(pid: int | None) -> Bounds:
        asked.append(pid)
        return dataclasses.replace(BOUNDS, open_files=1024)

    assert "2256 are needed" in patient.the_one(bounds=bounds, running=Running(77, 9), owner=9, uid=0).found
    assert "2256 are needed" in patient.the_one(bounds=bounds).found
    assert asked == [77, None]


def test_limits_that_cannot_be_read_fail(patient):
    assert patient.the_one(bounds=raises(PermissionError(errno.EACCES, "Permission denied"))).check == "limits"


# Trust.


class Fixed:
    """The clock that the certificates of these tests are made with."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self._now_s = now_s

    def now_ms(self) -> int:
        return int(self._now_s * 1000)

    def monotonic_ms(self) -> int:
        return 0


def test_no_author_is_worth_a_word(tmp_path, make_state, clock):
    finding = Patient(make_state(tmp_path / "n", clock, authors=())).the_one()
    assert (finding.check, finding.level) == ("trust", "warn")


@pytest.mark.parametrize(("days", "level", "says"), [(29, "ok", "8 days left"), (31, "warn", "6 days left"), (38, "fail", "expired")])
def test_a_certificate_is_renewed_in_time(patient, days, level, says):
    later = NOW_S + days * DAY_S
    (finding,) = [
        f for f in patient.examine(now_s=later, http=HttpAnswer(200, later, later)) if f.check == "trust" and "certificate" in f.found
    ]
    assert (finding.check, finding.level) == ("trust", level)
    assert says in finding.found
    assert ("snapcount node certify" in finding.do) == (level != "ok")


def test_a_node_without_a_certificate_or_with_a_damaged_one_fails(patient):
    (patient.state / identity.CERTIFICATE).write_bytes(b"\x00")
    assert patient.the_one().level == "fail"
    (patient.state / identity.CERTIFICATE).unlink()
    assert patient.the_one().found == "it has no certificate"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "node-01"', 'name = "node-02"', "node.toml names node-02"),
        ("generation = 1 ", "generation = 2 ", "node.toml says 2"),
        ('role = ""', 'role = "orchestrator"', "does not grant the role orchestrator"),
    ],
)
def test_a_certificate_that_says_other_than_node_toml_fails(patient, old, new, says):
    patient.edit(old, new)
    if "orchestrator" in new:
        patient.edit('listen = ""', 'listen = "127.0.0.1:8480"')
    finding = patient.the_one()
    assert (finding.check, finding.level) == ("trust", "fail")
    assert says in finding.found


def test_a_certificate_for_another_key_fails(patient, tmp_path, make_state, clock):
    other = make_state(tmp_path / "other", clock)
    (patient.state / identity.CERTIFICATE).write_bytes((other / identity.CERTIFICATE).read_bytes())
    assert "another key" in patient.the_one().found


def test_limits_of_the_machine_that_the_owner_did_not_sign_fail_and_safe_mode_is_said(patient):
    (patient.state / identity.TRIP).write_text("{}")
    assert "safe mode" in patient.the_one().found
    (patient.state / identity.TRIP).unlink()
    path = patient.state / identity.SAFETY
    path.write_bytes(path.read_bytes() + b"\n")
    finding = patient.the_one()
    assert (finding.check, finding.level) == ("trust", "fail")
    assert "sign-safety" in finding.do


def tls_certificate(expires_s: float) -> bytes:
    key, name = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-01")])
    expires = datetime.fromtimestamp(expires_s, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = builder.not_valid_before(expires - timedelta(days=365)).not_valid_after(expires).sign(key, None)
    from cryptography.hazmat.primitives.serialization import Encoding

    return made.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(("days", "levels"), [(100, []), (3, ["warn"]), (-1, ["fail"])])
def test_the_tls_certificate_is_looked_at_too(patient, days, levels):
    patient.edit('tls_certificate = ""', 'tls_certificate = "tls.pem"')
    patient.edit('tls_key = ""', 'tls_key = "tls.secret"')
    (patient.state / "tls.pem").write_bytes(tls_certificate(NOW_S + days * DAY_S))
    assert patient.the_one().found.endswith("tls.secret: No such file or directory")
    (patient.state / "tls.secret").touch()
    assert [finding.level for finding in patient.wrong()] == levels
    (patient.state / "tls.pem").write_text("no certificate")
    assert "not a PEM certificate" in patient.the_one().found


def test_approvals_need_a_root_and_metadata_that_has_not_expired(patient, tmp_path):
    patient.edit('metadata = ""', 'metadata = "http://127.0.0.1:8470/trust/metadata"')
    assert "no root of trust" in patient.the_one().found
    trust = patient.state / "trust"
    (trust / "metadata").mkdir(parents=True)
    (trust / "initial-root.json").write_text("{}")
    assert "has not reached the trust repository" in patient.the_one().found
    (trust / "metadata/timestamp.json").write_text("{}")
    assert patient.the_one().level == "fail"
    (trust / "metadata/timestamp.json").write_bytes(timestamp(NOW_S + DAY_S))
    assert patient.wrong() == []
    (trust / "metadata/timestamp.json").write_bytes(timestamp(NOW_S - DAY_S))
    finding = patient.the_one()
    assert finding.level == "fail"
    assert "trust metadata of timestamp: expired" in finding.found


def timestamp(expires_s: float) -> bytes:
    from tuf.api.metadata import Metadata, Timestamp

    return Metadata(Timestamp(expires=datetime.fromtimestamp(expires_s, UTC))).to_bytes()


# Toolchain.


@pytest.mark.parametrize(
    ("answers", "level", "says"),
    [
        ({"compile": raises(HostFault("a small skill: mprotect: Permission denied"))}, "fail", "mprotect"),
        ({"slow_path": "written for wasmtime 50.0.1, found 51.0.0"}, "warn", "51.0.0"),
        ({"uncompiled": ("strict", "arrival")}, "warn", "strict, arrival"),
    ],
)
def test_what_keeps_skills_from_running_or_makes_them_slow_is_found(patient, answers, level, says):
    finding = patient.the_one(**answers)
    assert (finding.check, finding.level) == ("toolchain", level)
    assert says in finding.found


def test_compilers_are_shown_and_none_is_no_fault(patient):
    assert any("ziglang 0.17.0" in finding.found for finding in patient.examine(tools={"ziglang": "0.17.0"}))


# Network.


def test_a_registry_that_is_not_there_fails_and_one_that_is_something_else_is_worth_a_word(patient):
    finding = patient.the_one(http=raises(NetworkError("http://127.0.0.1:8470/v2/: Connection refused")))
    assert (finding.check, finding.level) == ("network", "fail")
    assert patient.the_one(http=HttpAnswer(404, NOW_S, NOW_S)).level == "warn"
    assert patient.wrong(http=HttpAnswer(401, None, NOW_S)) == []


def test_parents_that_are_not_there_are_found_and_one_of_several_is_enough(patient):
    patient.edit('role = ""', 'role = "agent"')
    patient.edit("parents = []              # ws", 'parents = ["ws://a:1", "wss://b:2", "nats://root"] # ws')
    patient.edit('nats = ""', 'nats = "nats://c"')
    asked: list[tuple[str, int]] = []

    def connect(host: str, port: int) -> None:
        asked.append((host, port))
        if (host, port) != ("b", 2):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    assert [(f.level, f.found.partition(" ")[0]) for f in patient.wrong(connect=connect)] == [("warn", "nats://c"), ("warn", "ws://a:1")]
    assert asked == [("c", 4222), ("a", 1), ("b", 2)]
    last = patient.wrong(connect=raises(TimeoutError()))[-1]
    assert (last.level, last.check) == ("fail", "network")
    assert "none of those" in last.found


def test_parents_of_the_supply_are_asked_too(patient):
    patient.edit("parents = []              # http", 'parents = ["http://depot:8480"] # http')
    assert "http://depot:8480 cannot be reached" in patient.the_one(connect=raises(socket.gaierror(-2, "Name or service not known"))).found


def test_a_port_that_is_taken_fails_unless_it_is_the_running_node_that_took_it(patient, owner):
    patient.edit('role = ""', 'role = "orchestrator"')
    patient.edit('listen = ""', 'listen = "127.0.0.1:8480"')
    patient.edit('serve = ""', 'serve = "127.0.0.1:8481"')
    identity.certify(patient.state, owner, Fixed(), SystemRandom())
    taken = raises(OSError(errno.EADDRINUSE, "Address already in use"))
    found = patient.wrong(listen=taken)
    assert [(f.check, f.level) for f in found] == [("network", "fail")] * 2
    assert all("Address already in use" in f.found for f in found)
    assert patient.wrong(listen=taken, running=Running(1, 9), owner=9, uid=0) == []


# Machine.


@pytest.fixture
def miller(tmp_path, make_state, clock) -> Patient:
    """A node with a mill on a serial line."""
    patient = Patient(make_state(tmp_path / "miller", clock, registry="http://127.0.0.1:8470", native=("grbl",)))
    with (patient.state / "node.toml").open("a") as file:
        file.write('\n[drivers.grbl]\nport = "/dev/ttyACM0"\n')
    return patient


RUNNING = Running(4711, SELF)


def machine(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.check == "machine"]


def test_a_node_without_a_machine_on_a_serial_line_is_not_asked_for_one(patient):
    assert machine(patient.examine()) == []


def test_a_serial_line_that_is_there_and_free_is_well_and_nothing_was_opened(miller):
    refuse = raises(AssertionError("it opened the port"))
    (finding,) = machine(miller.examine(controller=refuse, connect=refuse))
    assert (finding.level, finding.found) == ("ok", "/dev/ttyACM0: is there, free, and may be used")
    (finding,) = machine(miller.examine(running=RUNNING, holders=(Holder(4711, "snapcount"),), controller=refuse, deep=True))
    assert finding.found == "/dev/ttyACM0: the running node holds it", "not even --deep asks a controller that a node drives"


@pytest.mark.parametrize(
    ("answers", "level", "says", "do"),
    [
        ({"require_serial": raises(UsageError("it needs pyserial: pip install 'snapcount[grbl]'"))}, "fail", "pip install 'snapcount[grbl]'", "docs/grbl.md"),
        ({"device": raises(FileNotFoundError(errno.ENOENT, "No such file or directory"))}, "fail", "/dev/ttyACM0: No such file", "plugged in and switched on"),
        ({"device": Device(Path("/dev/sda"), False, "disk", 0o660)}, "fail", "is no serial device", "drivers.grbl.port"),
        ({"may_use": False}, "fail", "snapcount may not use /dev/ttyACM0, which is of the group dialout, mode 0660", "usermod -aG dialout snapcount"),
        ({"may_use": False, "device": Device(Path("/dev/ttyACM0"), True, "root", 0o600)}, "fail", "group root, mode 0600", "udev rule"),
        ({"holders": (Holder(812, "ModemManager"),)}, "fail", "held by ModemManager, pid 812", "ID_MM_DEVICE_IGNORE"),
        ({"holders": (Holder(4711, "node"), Holder(99, "screen")), "running": RUNNING}, "fail", "held by screen, pid 99", "stop it"),
        ({"running": RUNNING}, "warn", "the running node does not hold /dev/ttyACM0", "machine status"),
    ],
)  # fmt: skip
def test_a_serial_line_that_cannot_be_used_is_found(miller, answers, level, says, do):
    (finding,) = machine(miller.examine(**answers))
    assert finding.level == level
    assert says in finding.found
    assert do in finding.do
    assert finding.line.isprintable()


def test_the_groups_asked_for_are_those_of_the_running_node(miller):
    asked = []
    miller.examine(
        running=RUNNING, holders=(Holder(4711, "node"),), may_use=lambda path, uid, pid: asked.append((str(path), uid, pid)) or True
    )
    miller.examine(may_use=lambda path, uid, pid: asked.append((str(path), uid, pid)) or True)
    assert asked == [("/dev/ttyACM0", SELF, 4711), ("/dev/ttyACM0", SELF, None)]


def test_a_line_behind_tcp_is_dialled_only_while_no_node_has_it(miller):
    miller.edit("/dev/ttyACM0", "socket://127.0.0.1:7777")
    asked = []
    (finding,) = machine(miller.examine(connect=lambda *peer: asked.append(peer)))
    assert (finding.level, asked) == ("ok", [("127.0.0.1", 7777)])
    refuse = raises(OSError(errno.ECONNREFUSED, "Connection refused"))
    (finding,) = machine(miller.examine(connect=refuse))
    assert (finding.level, "Connection refused" in finding.found) == ("fail", True)
    for quiet in ({"offline": True}, {"running": RUNNING}):
        assert [finding.level for finding in machine(miller.examine(connect=refuse, **quiet))] == ["ok"]


def test_deep_asks_the_controller_who_it_is(miller):
    (finding,) = machine(miller.examine(deep=True))
    assert finding.found == "/dev/ttyACM0: Grbl 1.1h answers, state Idle"
    (finding,) = machine(miller.examine(deep=True, controller=raises(MachineError("the controller says nothing"))))
    assert (finding.level, "says nothing" in finding.found) == ("fail", True)


def test_the_real_probes_of_a_device_open_nothing(tmp_path):
    probes = SystemProbes()
    master, slave = os.openpty()
    path = tmp_path / "mill"
    path.symlink_to(os.ttyname(slave))
    try:
        device = probes.device(path)
        assert (device.target, device.is_character) == (Path(os.ttyname(slave)), True)
        assert probes.may_use(path, os.geteuid(), None)
        assert probes.may_use(path, 0, None)
        assert os.getpid() in [holder.pid for holder in probes.holders(path)]
        os.fchmod(slave, 0o600)
        assert not probes.may_use(path, 3_999_999_999, None)
        os.fchmod(slave, 0o606)
        assert probes.may_use(path, 3_999_999_999, None)
        os.fchmod(slave, 0o060)
        os.fchown(slave, -1, os.getegid())
        assert probes.may_use(path, 3_999_999_999, os.getpid()), "by the groups of a process"
    finally:
        os.close(slave)
        os.close(master)
    with pytest.raises(OSError):
        probes.device(path)
    regular = tmp_path / "file"
    regular.write_text("")
    assert not probes.device(regular).is_character
    assert probes.holders(regular) == ()
    probes.require_serial()


@pytest.mark.slow
def test_the_real_probe_of_a_controller_says_who_answers(tmp_path, monkeypatch):
    with Peer(Firmware(), PtyCable(tmp_path / "mill")):
        said = SystemProbes().controller(GrblSettings(port=str(tmp_path / "mill"), needs_homing=False))
    assert said.startswith("Grbl 1.1")
    monkeypatch.setattr(system, "CONTROLLER_S", 0.2)
    with pytest.raises(MachineError, match="mill"):
        SystemProbes().controller(GrblSettings(port=str(tmp_path / "mill")))


# The real machine.


def test_what_a_stranger_says_cannot_forge_a_line():
    finding = Finding("network", "fail", "http://x\x1b[2J\n ok", "a\u202eb")
    assert finding.line.isprintable()
    assert finding.line == r"fail  network      http://x\x1b[2J\n ok; a\u202eb"


class Dated(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response_only(200 if self.path == "/v2/" else 418)
        self.send_header("Date", formatdate(1_700_000_000, usegmt=True) if self.path == "/v2/" else "yesterday")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Dated)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_real_probes_of_the_network(served):
    probes = SystemProbes()
    assert probes.http(f"{served}/v2/").date_s == 1_700_000_000
    answer = probes.http(f"{served}/tea")
    assert (answer.status, answer.date_s) == (418, None)
    port = int(served.rpartition(":")[2])
    probes.connect("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        probes.listen("127.0.0.1", port)
    probes.listen("127.0.0.1", 0)
    with pytest.raises(OSError):
        probes.connect("127.0.0.1", free_port())
    with pytest.raises(NetworkError, match="refused"):
        probes.http(f"http://127.0.0.1:{free_port()}/v2/")
    with pytest.raises(NetworkError):
        probes.http("http://[broken/")


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


def test_the_real_probes_of_this_machine(tmp_path):
    probes = SystemProbes()
    assert probes.clock_synchronised() in (True, False, None)
    assert 1_600_000_000 < probes.built_s() <= probes.now_s() == pytest.approx(time.time(), abs=5)
    disk = probes.disk(tmp_path)
    assert disk.bytes_free > 0
    assert 0 <= probes.sync_s(tmp_path) < 60
    assert list(tmp_path.iterdir()) == []
    mine, by_pid = probes.bounds(None), probes.bounds(os.getpid())
    assert mine == by_pid
    assert mine.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert mine.address_bytes in (None, resource.getrlimit(resource.RLIMIT_AS)[1])
    assert mine.memory_bytes > 1 << 20
    assert probes.owner(tmp_path) == probes.uid()
    assert probes.user(os.geteuid())
    assert probes.user(3_999_999_999) == "user 3999999999"
    assert probes.running(tmp_path) is None
    assert probes.uncompiled() == ()


@pytest.mark.slow
def test_the_real_toolchain_compiles_and_calls_a_skill(tmp_path):
    probes = SystemProbes()
    probes.compile(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError):
        probes.compile(tmp_path / "nowhere")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); import pathlib, sys; from host.doctor import SystemProbes\n"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", f"{limited}SystemProbes().compile(pathlib.Path(sys.argv[1]))", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "HostFault" in ended.stderr.splitlines()[-1]
    assert "mmap failed to reserve" in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    assert probes.slow_path() is None
    assert probes.measure().files > 0
    assert probes.tools().get("ziglang")


def doctor(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "doctor", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command_says_a_line_for_each_finding_and_its_exit_code_says_whether_one_failed(tmp_path, make_state):
    state = make_state(tmp_path / "node", SystemClock())
    well = doctor("--state", state, "--json", "--offline")
    report = json.loads(well.stdout)
    assert (well.returncode, report["failed"]) == (0, 0), report
    (state / "identity/node.key").chmod(0o644)
    ill = doctor("--state", state, "--offline")
    assert ill.returncode == 40
    assert ill.stderr == ""
    assert any(line.startswith("fail  permissions  ") and "chmod 600" in line for line in ill.stdout.splitlines())
    assert json.loads(doctor("--state", state, "--offline", "--json").stdout)["failed"] == 2
    assert doctor("--state", tmp_path / "nowhere").returncode == 40


@pytest.mark.slow
def test_the_doctor_finds_a_running_node(tmp_path, make_state):
    state = make_state(tmp_path / "node", SystemClock())
    command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "run", "--development", "--state", str(state)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while SystemProbes().running(state) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert SystemProbes().running(state) == Running(process.pid, os.geteuid())
        assert f"runs, pid {process.pid}" in doctor("--state", state).stdout
    finally:
        process.terminate()
        process.wait(30)
