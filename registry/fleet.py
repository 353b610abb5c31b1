"""The fleet as the registry sees it: one row for each node that has said hello, and what it last reported of each skill."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from nacl.signing import VerifyKey

from host.core import certificate
from host.core.errors import SignatureInvalid, TooLarge
from host.core.fleet import FromNode, Hello, Progress, SkillState
from host.core.limits import DEFAULT


@dataclass
class NodeRow:
    """One node. `skills` is what it runs, `progress` its last report for each digest."""

    hello: Hello
    key: VerifyKey
    connected: bool = True
    skills: dict[str, SkillState] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "node": self.hello.node, "generation": self.hello.generation, "host": self.hello.host, "connected": self.connected,
            "announcements": self.hello.announcements,
            "skills": [msgspec.to_builtins(skill) for skill in self.skills.values()],
            "progress": [msgspec.to_builtins(report) for report in self.progress.values()],
        }  # fmt: skip


class Fleet:
    """Checks who speaks. With authorities, a node needs a certificate by one of them; without, a name belongs to the key that took it first."""

    def __init__(self, authorities: tuple[VerifyKey, ...] = (), revoked: frozenset[bytes] = frozenset()) -> None:
        self.rows: dict[str, NodeRow] = {}
        self._authorities, self._revoked = authorities, revoked

    def hello(self, frame: Hello, key: VerifyKey, nonce: bytes, now_s: int) -> NodeRow:
        """A node's row. Raises SignatureInvalid or CertificateInvalid when it is not who it says."""
        if frame.nonce != nonce:
            raise SignatureInvalid(f"{frame.node}: answered another challenge than it was given")
        if self._authorities:
            what = f"certificate of {frame.node}"
            claims = certificate.verify_chain([frame.certificate], self._authorities, now_s, revoked=self._revoked, what=what)
            if (claims.subject, claims.key) != (frame.node, bytes(key)):
                raise SignatureInvalid(f"{frame.node}: its certificate is for {claims.subject}, or for another key")
            if "node" not in claims.roles or claims.generation != frame.generation:
                raise SignatureInvalid(f"{frame.node}: its certificate is not for a node of generation {frame.generation}")
        known = self.rows.get(frame.node)
        if known is not None and known.key != key:
            raise SignatureInvalid(f"{frame.node}: this name belongs to another key")
        if known is None and len(self.rows) >= 2 * DEFAULT.nodes_connected_max:
            raise TooLarge(
                f"{frame.node}: this registry knows {len(self.rows)} nodes, and takes no new names; restart it to forget those that left"
            )
        row = NodeRow(frame, key, skills={skill.name: skill for skill in frame.skills}, progress=known.progress if known else {})
        self.rows[frame.node] = row
        return row

    def report(self, row: NodeRow, frame: FromNode, key: VerifyKey) -> None:
        """Takes a report, or another hello on the same link. Raises SignatureInvalid when it is not by the node of this connection, TooLarge for one skill too many."""
        if key == row.key and isinstance(frame, Hello) and (frame.node, frame.nonce) == (row.hello.node, row.hello.nonce):
            # It says hello again: what it runs has changed by no push, but by its owner.
            row.skills = {skill.name: skill for skill in frame.skills}
            running = {skill.digest for skill in frame.skills}
            row.progress = {name: report for name, report in row.progress.items() if report.state != "active" or report.digest in running}
            return
        if not isinstance(frame, Progress) or key != row.key or frame.node != row.hello.node:
            raise SignatureInvalid(f"{row.hello.node}: a frame that is not this node's own report")
        if frame.name not in row.progress and len(row.progress) >= DEFAULT.announcements_max:
            raise TooLarge(f"{row.hello.node}: reports on more than {DEFAULT.announcements_max} skills")
        row.progress[frame.name] = frame
        if frame.state == "active":
            row.skills[frame.name] = SkillState(frame.name, frame.version, frame.digest)

    def wants(self, row: NodeRow, name: str, digest: str) -> bool:
        """Whether this node still has to be told of a bundle."""
        skill = row.skills.get(name)
        return skill is None or skill.digest != digest
