"""What a check found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

from host.core.text import safe

Level = Literal["ok", "warn", "fail"]
FOUND_CHARACTERS = 400


@dataclass(frozen=True)
class Finding:
    """`check` is the group that it belongs to; `do` is empty where there is nothing to do. Both texts are one printable line."""

    check: str
    level: Level
    found: str
    do: str = ""

    def __post_init__(self) -> None:
        for name in ("found", "do"):
            object.__setattr__(self, name, safe(getattr(self, name), FOUND_CHARACTERS))

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.level:4}  {self.check:11}  {self.found}{f'; {self.do}' if self.do else ''}"
