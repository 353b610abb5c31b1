"""For a skill's own tests: a fake host, virtual time, a driver with a script, and faults to meet. docs/testing-skills.md is the guide.

`sdk.testing.strategies` makes Hypothesis strategies of the contract's types; it needs the extra `testing`.
"""

from sdk.testbed import SeededRandom, VirtualClock
from sdk.testing.faults import ClockJump, DriverFails, DriverTimesOut, Fault, FuelCut, RefusedCommand, SafeMode, StateFull
from sdk.testing.host import FakeHost, Job
from sdk.testing.outcome import Outcome
from sdk.testing.script import ScriptedDriver, ScriptMismatch, Step
from sdk.testing.survival import ContractBroken, require_survives

__all__ = [
    "ClockJump",
    "ContractBroken",
    "DriverFails",
    "DriverTimesOut",
    "FakeHost",
    "Fault",
    "FuelCut",
    "Job",
    "Outcome",
    "RefusedCommand",
    "SafeMode",
    "ScriptMismatch",
    "ScriptedDriver",
    "SeededRandom",
    "StateFull",
    "Step",
    "VirtualClock",
    "require_survives",
]
