"""Agents that an operator takes out: isolated, nothing but control is sent to them; readmitted, all is as it was; forgotten, they are no longer expected."""

from collections.abc import Iterable

from host.core.errors import Busy
from host.mesh.children import Children
from host.mesh.gathering import Member
from host.mesh.impedance import ImpedanceRegistry
from host.mesh.membership import Membership

ISOLATE, READMIT, FORGET = "mesh.isolate", "mesh.readmit", "mesh.forget"
TOPICS = frozenset({ISOLATE, READMIT, FORGET})
ISOLATED_MAX = 1024


class Isolation:
    """Of one tier. `names` are those that are isolated, here or not: they outlive a restart."""

    def __init__(self, members: Membership, registry: ImpedanceRegistry, children: Children) -> None:
        self.names: dict[str, str] = {}
        self._members, self._registry, self._children = members, registry, children

    def obey(self, topic: str, targets: Iterable[str], reason: str) -> bool:
        """Does what an operator says of members of this tier; whether what is kept has changed. Raises Busy for one too many."""
        own = [member for name in targets if (member := self._members.above(name)) is not None and member.name == name]
        return sum(self._one(topic, member, reason) for member in own) > 0

    def came(self, member: Member) -> None:
        """It stays isolated when it comes back, or when this tier does."""
        if member.name in self.names:
            self._registry.quarantine(member.name, self.names[member.name])

    def _forget(self, member: Member) -> None:
        """One that is connected or isolated stays."""
        if member.name not in self._children.by_name and member.name not in self.names:
            self._registry.forget(member.name)
            self._members.forget(member)

    def _one(self, topic: str, member: Member, reason: str) -> bool:
        if topic == FORGET:
            self._forget(member)
            return False
        if topic == READMIT:
            self._registry.release(member.name)
            return self.names.pop(member.name, None) is not None
        if len(self.names) >= ISOLATED_MAX and member.name not in self.names:
            raise Busy(f"{member.name}: {len(self.names)} agents are isolated here, and no more are kept")
        self._registry.quarantine(member.name, reason)
        self.names[member.name] = reason
        return True
