"""A driver with a script: which commands are to come, in which order, and what it answers to each."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from host.core.commands import AnyCommand
from host.core.errors import MachineError, SnapcountError
from host.plugins.contract import MotionReply
from host.plugins.drivers.virtual_machine import VirtualMachine
from sdk.vectors import TOLERANCE, differences


class ScriptMismatch(AssertionError):
    """The skill gave other commands than the script. The message shows both, the script's lines with `-`, the skill's with `+`."""


@dataclass(frozen=True)
class Step:
    """One command that is expected; None takes any. It is obeyed and answered as a virtual machine does, or with `reply`, or fails with `error`.

    Numbers match within `tolerance`, relative (absolute below 1).
    """

    command: AnyCommand | None
    reply: MotionReply | None = None
    error: SnapcountError | None = None
    tolerance: float = TOLERANCE

    def fits(self, came: AnyCommand) -> bool:
        if self.command is None:
            return True
        return type(came) is type(self.command) and not differences(_plain(self.command), _plain(came), self.tolerance)


class ScriptedDriver(VirtualMachine):
    """Follows a script behind the real gate and envelope, so only what the envelope admits gets here. `came` has every command that did.

    A command that the script does not have next fails, and `FakeHost.call` then raises ScriptMismatch; `done` raises it where commands are missing.
    """

    def __init__(self, *steps: Step, capability: str = "motion") -> None:
        self.steps: Sequence[Step] = steps
        self.capability = capability
        self.reset()

    def reset(self) -> None:
        """At the beginning of the script, with a new machine."""
        super().__init__()
        self.came: list[AnyCommand] = []
        self.astray = False

    def execute(self, command: AnyCommand) -> MotionReply:
        number = len(self.came)
        self.came.append(command)
        if self.astray or number >= len(self.steps) or not self.steps[number].fits(command):
            self.astray = True
            raise MachineError("the test's script has another command here")
        step = self.steps[number]
        if step.error is not None:
            raise step.error
        reply = super().execute(command)
        return step.reply or reply

    def require_on_script(self) -> None:
        """Raises ScriptMismatch where a command came that the script does not have."""
        if self.astray:
            raise ScriptMismatch(self._difference("the skill gave other commands than the script:"))

    def done(self) -> None:
        """Raises ScriptMismatch unless every command of the script came, and no other."""
        self.require_on_script()
        if len(self.came) < len(self.steps):
            raise ScriptMismatch(self._difference(f"{len(self.steps) - len(self.came)} command(s) of the script did not come:"))

    def _difference(self, title: str) -> str:
        # A command that fits its step is shown as the step has it, so that a last digit is no difference.
        fits = [index < len(self.steps) and self.steps[index].fits(came) for index, came in enumerate(self.came)]
        came = [_words(self.steps[i].command if fits[i] else command) for i, command in enumerate(self.came)]
        lines = difflib.ndiff([_words(step.command) for step in self.steps], came)
        return "\n".join([title, *(f"  {line}" for line in lines if not line.startswith("?"))])


def _plain(command: AnyCommand) -> Any:
    return msgspec.json.decode(msgspec.json.encode(command))


def _words(command: AnyCommand | None) -> str:
    if command is None:
        return "any command"
    fields = ", ".join(f"{name}={getattr(command, name)!r}" for name in command.__struct_fields__)
    return f"{type(command).__name__}({fields})"
