"""A program of 5,000 lines to a Grbl 1.1 controller at a pseudo-terminal, through the safety envelope and the driver.

The controller is sdk/grbl_peer with its motion made so fast that the line is what is measured. `lines_per_s` is the driver's, by character counting;
`send_wait_lines_per_s` is that of the simplest sender, which waits for each answer before the next line, with the same lines in the same run.
`in_flight_peak` are the most bytes that were sent and not acknowledged (128 is the controller's buffer), by the driver and by the
controller. Every hundredth command is one that the envelope refuses: `refused_sent` of them reached the wire.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import serial
from common import report
from nacl.signing import SigningKey

from host.core import cbor, safety
from host.core.clock import SystemClock
from host.core.commands import Home, Move
from host.core.errors import UnsafeCommand
from host.core.safety import SafetyEnvelope
from host.plugins.driver import DriverGate
from host.plugins.drivers.grbl.machine import GrblMachine
from host.plugins.drivers.grbl.settings import read_settings
from sdk.grbl_peer.firmware import Firmware
from sdk.grbl_peer.serve import Peer, PtyCable

LINES, SEED, SPEED = 5_000, 41, 1e6
BATCH = 50
READY_S_MAX = 20.0
LIMITS = safety.parse_limits(
    b"travel_mm = {x = [0.0, 300.0], y = [0.0, 300.0], z = [0.0, 100.0]}\nspeed_mm_s = {max = 250.0}\n"
    b"rate = {moves_per_s = 1e9, burst = 1000000000}\nsafe_mode = {refusals = 1000}\n",
    "safety.toml",
)
OUTSIDE = cbor.encode(Move(((301.0, 1.0, 1.0, 100.0),)))
Target = tuple[float, float, float]


def program() -> list[Target]:
    """Targets in mm that make long and short lines, the same every time."""
    dice = random.Random(SEED)
    return [
        (round(dice.uniform(0, 300), dice.choice((0, 1, 3))), round(dice.uniform(0, 300), dice.choice((0, 3))), dice.choice((0.0, 5.125)))
        for _ in range(LINES)
    ]


def ready(machine: GrblMachine) -> None:
    ends = time.monotonic() + READY_S_MAX
    while machine.status()["link"] != "ready":
        assert time.monotonic() < ends, machine.status()
        time.sleep(0.01)


def driven(folder: Path) -> dict[str, Any]:
    wanted = program()
    with Peer(Firmware(speed=SPEED), PtyCable(folder / "mill")) as peer:
        machine = GrblMachine(read_settings({"port": peer.cable.url, "status_ms": 50}), LIMITS)
        gate = DriverGate(machine, SafetyEnvelope(LIMITS, SigningKey.generate().verify_key, audit=lambda refusal: None), SystemClock())
        ready(machine)
        gate.ask("bench", cbor.encode(Home()))
        while not machine.settle(0.2):
            pass
        machine.begin()
        refused = 0
        started = time.perf_counter()
        for start in range(0, LINES, BATCH):
            while not machine.wait_room(0.2):
                pass
            gate.ask("bench", cbor.encode(Move(tuple((*target, 250.0) for target in wanted[start : start + BATCH]))))
            try:
                gate.ask("bench", OUTSIDE)
            except UnsafeCommand:
                refused += 1
        while not machine.settle(0.2):
            pass
        took_s = time.perf_counter() - started
        status, firmware = machine.status(), peer.firmware
        machine.close()
    targets = [tuple(round(value, 3) for value in target) for target in firmware.targets]
    return {
        "lines": LINES, "acknowledged": status["job"]["acknowledged"], "in_order": targets == wanted, "lost_bytes": firmware.lost_bytes,
        "in_flight_peak": status["bytes_in_flight_peak"], "unanswered_peak": firmware.unanswered_peak, "refused": refused,
        "refused_sent": sum(max(target) > 300 for target in targets), "lines_per_s": round(LINES / took_s),
    }  # fmt: skip


def send_and_wait(folder: Path) -> float:
    """Lines a second of a sender that has one line under way at a time."""
    with Peer(Firmware(speed=SPEED), PtyCable(folder / "plain")) as peer, serial.Serial(peer.cable.url, timeout=5) as line:
        for command in (b"\n", b"$X\n"):
            line.write(command)
            while line.readline().strip() != b"ok":
                pass
        started = time.perf_counter()
        for x, y, z in program():
            line.write(f"G53G1X{x:g}Y{y:g}Z{z:g}F15000\n".encode())
            while not (answer := line.readline().strip()).startswith((b"ok", b"error")):
                assert answer or line.is_open, "the controller fell silent"
        return LINES / (time.perf_counter() - started)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = driven(Path(folder))
        report(found | {"send_wait_lines_per_s": round(send_and_wait(Path(folder)))})


if __name__ == "__main__":
    main()
