"""How a call ended, and whether the contract lets it end so."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from host.core import cbor
from host.core.errors import GuestError, SkillRefused, SnapcountError

CODE = re.compile(r"[a-z][a-z0-9_]*\Z")  # lower_snake_case, as skill.cddl has it


@dataclass(frozen=True)
class Outcome:
    """A `reply` of the contract's shape; an `error` reply with its `code`; or a `fault`: no reply, with the code of the host's error."""

    kind: Literal["reply", "error", "fault"]
    code: str = ""
    detail: str = ""
    reply: Any = None

    def same(self, other: "Outcome") -> bool:
        """Whether both are the same kind with the same code or, byte for byte, the same reply."""
        return (self.kind, self.code, cbor.encode(self.reply)) == (other.kind, other.code, cbor.encode(other.reply))

    @property
    def problem(self) -> str:
        """What is wrong with ending so; empty for a reply, and for an error reply with a code that programs can use."""
        if self.kind == "fault":
            return f"no reply: {self.detail}"
        if self.kind == "error" and not CODE.match(self.code):
            return f"an error reply whose code is {self.code!r}, not lower_snake_case"
        return ""

    @property
    def in_words(self) -> str:
        match self.kind:
            case "reply":
                return f"a reply, {msgspec.json.encode(self.reply).decode()[:120]}"
            case "error":
                return f"the error reply {self.code}"
            case _:
                return f"no reply ({self.detail})"


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """Makes a call. What is neither the skill's reply nor its fault is raised: a request that is too long, a host without a free instance."""
    try:
        return Outcome("reply", reply=call())
    except SnapcountError as error:
        return ended_with(error)


def ended_with(error: SnapcountError) -> Outcome:
    """The outcome of a call that raised."""
    if isinstance(error, SkillRefused):
        return Outcome("error", error.skill_code, str(error))
    if isinstance(error, GuestError):
        return Outcome("fault", error.code, str(error))
    raise error
