"""What is known of the lines that a machine was given, and of how that ended."""

from dataclasses import dataclass
from typing import Any

from host.core.errors import MachineAlarm, MachineError
from host.plugins.drivers.grbl.codes import alarm_meaning, error_text
from host.plugins.drivers.grbl.protocol import Point
from host.plugins.drivers.grbl.stream import Line

SOFT_LIMIT = 2
NOT_RESUMED = "nothing is resumed by itself: `snapcount machine status` shows it, and a person decides"


@dataclass(frozen=True)
class Failure:
    """What ended the work. `machine_code` is the controller's number, 0 without one; `line` and `text` the line it belongs to, 0 and empty for none."""

    what: str
    alarm: bool = False
    machine_code: int = 0
    line: int = 0
    text: str = ""

    @classmethod
    def refused(cls, line: Line, code: int) -> "Failure":
        number = f"line {line.number} " if line.number else ""
        what = f"the controller refused {number}`{line.text}`: error:{code}, {error_text(code)}"
        return cls(what, machine_code=code, line=line.number, text=line.text)

    @classmethod
    def unanswered(cls, line: Line) -> "Failure":
        return cls(f"the controller rests, and has not answered `{line.text}`: an answer was lost", line=line.number, text=line.text)

    @classmethod
    def alarmed(cls, code: int, oldest: Line | None) -> "Failure":
        """A soft limit belongs to the oldest line in flight, which is the one being planned; other alarms come from the motion, or from outside."""
        meaning, line = alarm_meaning(code), oldest if code == SOFT_LIMIT and oldest is not None else Line("")
        at = f" at line {line.number} `{line.text}`" if line.number else ""
        need = "; it answers nothing but a reset: `snapcount machine reset`" if meaning.needs_reset else ""
        return cls(f"ALARM:{code}{at}: {meaning.text}{need}", True, code, line.number, line.text)

    def error(self, where: str) -> MachineError:
        kind = MachineAlarm if self.alarm else MachineError
        return kind(f"{self.what}{where}", machine_code=self.machine_code, line=self.line, text=self.text)


class Job:
    """Lines given to the driver, and acknowledged by the controller. A line that is acknowledged is planned, not done."""

    def __init__(self) -> None:
        self.given = 0
        self.acknowledged = 0
        self.last = ""

    def number(self, line: Line) -> Line:
        """The line with the job's next number."""
        self.given += 1
        return line._replace(number=self.given)

    def acknowledge(self, line: Line) -> None:
        if line.number:
            self.acknowledged, self.last = line.number, line.text

    def where(self, seen_mm: Point | None) -> str:
        """How far it came, as the end of an error's line."""
        if not self.given:
            return ""
        last = (
            f"line {self.acknowledged} of {self.given} was the last that it acknowledged"
            if self.acknowledged
            else "it acknowledged no line"
        )
        seen = "" if seen_mm is None else f"; last seen at ({', '.join(f'{value:.3f}' for value in seen_mm)}) mm, which is not certain"
        return f"; {last}, and acknowledged is not completed{seen}; {NOT_RESUMED}"

    def as_dict(self, state: str) -> dict[str, Any]:
        return {"state": state, "given": self.given, "acknowledged": self.acknowledged, "last_acknowledged": self.last}
