"""A fleet on one machine: who is whose child, and everybody's key and certificate, all from one seed."""

import hashlib
from dataclasses import dataclass

from nacl.signing import SigningKey

from host.core.certificate import VALIDITY_S, Claims, issue
from host.core.errors import UsageError
from host.mesh.frames import Role
from host.mesh.handshake import Identity
from host.mesh.trust import NODE

CLUSTER_AGENTS, SECTOR_CLUSTERS = 30, 10
AGENTS_MAX = 200_000
GENERATIONS = 3
CAPABILITIES = ("log", "clock", "motion")
ORCHESTRATOR = "orchestrator"


@dataclass(frozen=True)
class Topology:
    """`agents` agents, 30 to a cluster, ten clusters to a sector. Every peer's key follows from the seed and its name: for trials, not for use."""

    agents: int
    seed: str = "snapcount"
    now_s: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.agents <= AGENTS_MAX:
            raise UsageError(f"a local fleet has 1 to {AGENTS_MAX} agents, not {self.agents}")

    @property
    def clusters(self) -> int:
        return -(-self.agents // CLUSTER_AGENTS)

    @property
    def sectors(self) -> int:
        return -(-self.clusters // SECTOR_CLUSTERS)

    def agent_name(self, agent: int) -> str:
        return f"agent-{agent:06d}"

    def cluster_name(self, cluster: int) -> str:
        return f"cluster-{cluster:05d}"

    def sector_name(self, sector: int) -> str:
        return f"sector-{sector:03d}"

    def cluster_of(self, agent: int) -> int:
        return agent // CLUSTER_AGENTS

    def sector_of(self, cluster: int) -> int:
        return cluster // SECTOR_CLUSTERS

    def agent_class(self, agent: int) -> int:
        """A to E in turn."""
        return agent % 5

    def key(self, name: str) -> SigningKey:
        return SigningKey(hashlib.sha256(f"{self.seed}/{name}".encode()).digest())

    @property
    def authority(self) -> SigningKey:
        return self.key("/authority")

    def identity(self, name: str, role: Role, agent_class: int = 0) -> Identity:
        key = self.key(name)
        roles = (NODE,) if role == "agent" else (NODE, role)
        generation = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") % GENERATIONS + 1
        claims = Claims(
            issuer="owner", subject=name, key=bytes(key.verify_key), roles=roles, generation=generation, capabilities=CAPABILITIES,
            not_before_s=self.now_s - 3_600, expires_s=self.now_s + VALIDITY_S, issued_s=self.now_s, id=hashlib.sha256(name.encode()).digest()[:16],
        )  # fmt: skip
        return Identity(name, role, key, (issue(self.authority, claims),), agent_class, CAPABILITIES)
