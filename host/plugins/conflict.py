"""A conflict between two lineages of a skill, as an auditor found it on a real call: kept in its journal, and sent up the mesh."""

from typing import Annotated

import msgspec
from msgspec import Meta

from host.core.manifest import HookName, Name
from host.core.text import safe

Short = Annotated[str, Meta(max_length=128)]
Value = Annotated[str, Meta(max_length=256)]
Natural = Annotated[int, Meta(ge=0, le=1 << 53)]
WORDS_CHARACTERS = 1000


class Conflict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A field in which an auditor's lineage answered otherwise than the node that a call came from.

    Of each pair the first is the node's, the second the auditor's. `record` is the id of the call's record, which the auditor keeps; `seen` counts the calls
    that showed this since the last time it was said, `others` the fields besides in which this call differs.
    """

    at_ms: Natural
    auditor: Name
    node: Name
    skill: Name
    hook: HookName
    field: Value
    versions: tuple[Short, Short]
    lineages: tuple[Short, Short]
    digests: tuple[Short, Short]
    values: tuple[Value, Value]
    record: Short
    seen: Natural
    others: Natural = 0

    @property
    def words(self) -> str:
        """One line for people."""
        theirs, ours = (
            f"{who} (lineage {self.lineages[i]}, {self.versions[i]}, {self.digests[i][:19]}…) says {self.values[i]}"
            for i, who in enumerate((self.node, self.auditor))
        )
        times = f"; seen {self.seen} times" if self.seen > 1 else ""
        fields = f"; {self.others} more field(s) differ" if self.others else ""
        return safe(f"{self.skill}: {self.hook}: {self.field}: {theirs}, {ours}{fields}; call {self.record}{times}", WORDS_CHARACTERS)
