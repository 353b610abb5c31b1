"""node.toml: what the owner of a node decided about it."""

import hashlib
import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl.signing import VerifyKey

from host.core import toml
from host.core.errors import MalformedData, StateDamaged
from host.core.keys import parse_public
from host.core.limits import DEFAULT
from host.core.manifest import HookName, Name
from host.plugins.comparison import Comparison

FILE = "node.toml"
CLASSES = "ABCDEF"
NATS_SCHEME = "nats://"
_PARENT = re.compile(r"(wss?://[^\s/]+:\d{1,5}(/\S*)?|nats://[A-Za-z0-9_.-]+)\Z")
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/]+):(?P<port>\d{1,5})\Z")
_SOURCE = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?\Z")
_BROKER = re.compile(r"(nats|tls|wss?)://\S+\Z")
Text = Annotated[str, Meta(max_length=256)]
Share = Annotated[float, Meta(ge=0, le=1)]
AUDITED_PER_S_MAX = 2
"""What an auditor is sent and does not answer stays under way at its lead for two seconds, and a lead of 64 takes 256 messages at a time."""


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    owner: str
    generation: Annotated[int, Meta(ge=1, le=255)] = 1
    registry: str = ""
    sector: Annotated[str, Meta(max_length=64)] = ""


class _Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    authors: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    operators: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    announcements: bool | None = None
    metadata: Text = ""
    safety_capabilities: Annotated[tuple[HookName, ...], Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        if self.metadata and not _SOURCE.match(self.metadata):
            raise ValueError(f"trust.metadata: expected http://HOST:PORT/trust/metadata or https://…, found {self.metadata!r}")


class _Capabilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allowed: tuple[HookName, ...] = ()


class _Plugins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    native: tuple[str, ...] = ()


class Mesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node's place in a mesh; with an empty role it has none. `parents` are tried in turn; `agent_class` is as in the arrival kernel, A is 0."""

    role: Literal["", "agent", "lead", "coordinator", "orchestrator"] = ""
    parents: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()
    listen: Text = ""
    agent_class: Literal["A", "B", "C", "D", "E", "F"] = msgspec.field(default="E", name="class")
    heartbeat_s: Annotated[float, Meta(ge=0.1, le=3_600)] = 5.0
    children_max: Annotated[int, Meta(ge=1, le=DEFAULT.children_max)] = 64
    authorities: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    nats: Text = ""
    tls_certificate: Text = ""
    tls_key: Text = ""
    tls_authority: Text = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.role:
            self._check_parents()
            self._check_listen()
            if bool(self.tls_certificate) != bool(self.tls_key):
                raise ValueError("mesh.tls_certificate and mesh.tls_key go together: one of them is missing")
            if self.nats and not _BROKER.match(self.nats):
                raise ValueError(f"mesh.nats: expected the address of a NATS server, nats://HOST:PORT, found {self.nats!r}")

    @property
    def listens_on(self) -> tuple[str, int]:
        """Host and port. Only for a `listen` that is no NATS name."""
        found = _LISTEN.match(self.listen)
        assert found is not None, "it was checked when the file was read"
        return found["host"].strip("[]"), int(found["port"])

    def _check_parents(self) -> None:
        if self.role == "orchestrator" and self.parents:
            raise ValueError("mesh.parents: an orchestrator is the root and has none")
        if self.role != "orchestrator" and not self.parents:
            raise ValueError(f"mesh.parents: the role {self.role} needs one, ws://HOST:PORT or nats://NAME")
        for parent in self.parents:
            if not _PARENT.match(parent):
                raise ValueError(f"mesh.parents: expected ws://HOST:PORT, wss://HOST:PORT or nats://NAME, found {parent!r}")
            if parent.startswith(NATS_SCHEME) and not self.nats:
                raise ValueError(f"mesh.nats: {parent} is met at a NATS server; name it, nats://HOST:PORT")

    def _check_listen(self) -> None:
        if self.role == "agent":
            if self.listen:
                raise ValueError("mesh.listen: an agent has no children, so it does not listen")
            return
        if not self.listen:
            raise ValueError(f"mesh.listen: the role {self.role} needs one, such as 127.0.0.1:8480")
        if self.listen.startswith(NATS_SCHEME):
            if not self.nats:
                raise ValueError("mesh.nats: to listen as a NATS name needs a NATS server, nats://HOST:PORT")
            return
        found = _LISTEN.match(self.listen)
        if found is None or int(found["port"]) > 65_535:
            raise ValueError(f"mesh.listen: expected HOST:PORT or nats://NAME, found {self.listen!r}")
        if not (_is_loopback(self.listens_on[0]) or self.tls_certificate or self.insecure):
            raise ValueError(
                f"mesh.listen: {self.listen} can be reached from outside, and without TLS whoever is on the way reads what is sent (it is signed, "
                "not hidden); set tls_certificate and tls_key, or insecure = true"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Supply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How blobs reach this node, and its children through it. `parents` are asked before the registry; 0 bytes/s is no ceiling."""

    serve: Text = ""
    parents: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()
    cache_mib: Annotated[int, Meta(ge=16, le=1 << 20)] = 64
    down_bytes_s: Annotated[int, Meta(ge=0)] = 0
    up_bytes_s: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        for parent in self.parents:
            if not _SOURCE.match(parent):
                raise ValueError(f"supply.parents: expected http://HOST:PORT or https://HOST:PORT, found {parent!r}")
        found = _LISTEN.match(self.serve)
        if self.serve and (found is None or int(found["port"]) > 65_535):
            raise ValueError(f"supply.serve: expected HOST:PORT, found {self.serve!r}")

    @property
    def serves_on(self) -> tuple[str, int]:
        """Host and port. Only where `serve` is not empty."""
        found = _LISTEN.match(self.serve)
        assert found is not None, "it was checked when the file was read"
        return found["host"].strip("[]"), int(found["port"])


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of real calls is written down, with request and reply. None unless the owner says so: requests may be confidential."""

    sample: Share = 0.0
    skills: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    bytes_max: Annotated[int, Meta(ge=DEFAULT.call_record_bytes_max, le=DEFAULT.calls_file_bytes_max)] = 64 << 20


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of real calls goes to which auditors; and, for an auditor, which skills it audits and how far replies may lie apart."""

    sample: Share = 0.0
    skills: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    send_to: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    calls_per_s: Annotated[float, Meta(gt=0, le=AUDITED_PER_S_MAX)] = 1.0
    auditor: bool = False
    compare: Annotated[dict[Name, Comparison], Meta(max_length=64)] = {}

    def __post_init__(self) -> None:
        if bool(self.sample) != bool(self.send_to):
            raise ValueError("audit.sample and audit.send_to go together: one of them is missing")
        if self.auditor != bool(self.compare):
            raise ValueError("audit.auditor needs a table [audit.compare.SKILL] for each skill that it audits, and they need it")


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parsed file. Keys are texts `ed25519:…`, as in the file."""

    node: _Node
    trust: _Trust = _Trust()
    capabilities: _Capabilities = _Capabilities()
    plugins: _Plugins = _Plugins()
    mesh: Mesh = Mesh()
    supply: Supply = Supply()
    drivers: Annotated[dict[str, dict[str, Any]], Meta(max_length=16)] = {}
    record: Record = Record()
    audit: Audit = Audit()

    def __post_init__(self) -> None:
        if self.audit.auditor and self.mesh.role != "agent":
            raise ValueError(f"audit.auditor: an auditor is an agent of a mesh; this node's mesh.role is {self.mesh.role or 'empty'!r}")
        if self.audit.send_to and self.mesh.role in ("", "orchestrator"):
            raise ValueError(
                f"audit.send_to: only an agent, a lead or a coordinator can; this node's mesh.role is {self.mesh.role or 'empty'!r}"
            )
        for name in self.drivers:
            if name not in self.plugins.native:
                raise ValueError(f"drivers.{name}: plugins.native names no such plugin, but {', '.join(self.plugins.native) or 'none'}")
        if self.supply.serve and not (_is_loopback(self.supply.serves_on[0]) or self.mesh.tls_certificate or self.mesh.insecure):
            raise ValueError(
                f"supply.serve: {self.supply.serve} can be reached from outside, and without TLS whoever is on the way reads what is sent (it is verified, "
                "not hidden); set mesh.tls_certificate and mesh.tls_key, or mesh.insecure = true"
            )

    @property
    def owner(self) -> VerifyKey:
        return parse_public(self.node.owner, f"{FILE}: node.owner")

    @property
    def authors(self) -> tuple[VerifyKey, ...]:
        return tuple(parse_public(text, f"{FILE}: trust.authors") for text in self.trust.authors)

    @property
    def operators(self) -> tuple[VerifyKey, ...]:
        """Whose desired states and policies this node takes."""
        return tuple(parse_public(text, f"{FILE}: trust.operators") for text in self.trust.operators)

    @property
    def takes_announcements(self) -> bool:
        said = self.trust.announcements
        return not self.trust.operators if said is None else said

    @property
    def authorities(self) -> tuple[VerifyKey, ...]:
        """Whose certificates this node believes in the mesh."""
        named = tuple(parse_public(text, f"{FILE}: mesh.authorities") for text in self.mesh.authorities)
        return named or (self.owner,)


def load(state: Path) -> NodeConfig:
    """Raises StateDamaged that names the file and the field."""
    path = state / FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateDamaged(
            f"{path}: cannot be read: {error.strerror}; is this a node's state directory? `snapcount node init` makes one"
        ) from error
    try:
        return toml.decode(raw, NodeConfig, str(path))
    except MalformedData as error:
        raise StateDamaged(str(error)) from error


def digest(*parts: bytes) -> str:
    """The configuration's digest, for attestation: over the parts with their lengths."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{whole.hexdigest()}"


def template(
    name: str, owner: str, generation: int, registry: str, authors: tuple[str, ...], allowed: tuple[str, ...], native: tuple[str, ...],
    mesh: Mesh | None = None, *, sector: str = "", operators: tuple[str, ...] = (), metadata: str = "", safety_capabilities: tuple[str, ...] = (),
    announcements: bool | None = None, supply: Supply | None = None,
) -> str:  # fmt: skip
    """A commented node.toml."""

    def texts(values: tuple[str, ...]) -> str:
        return "[" + ", ".join(map(json.dumps, values)) + "]"

    place, reach = mesh or Mesh(), supply or Supply()
    announced = "# announcements = true " if announcements is None else f"announcements = {json.dumps(announcements)}"
    return f"""\
# What the owner of this node decided. No push changes this file.

[node]
name = "{name}"
generation = {generation}          # hardware generation; a bundle may name those it runs on
owner = "{owner}"
registry = {json.dumps(registry)}       # where skills come from; empty: from nowhere
sector = {json.dumps(sector)}               # the part of the fleet that it belongs to; roll-outs take from each

[trust]
authors = {texts(authors)}    # whose signature makes a skill acceptable
operators = {texts(operators)}              # whose desired states and policies this node takes
{announced}          # take what the registry announces; where it is not said: only without operators. What a desired state names is theirs alone
metadata = {json.dumps(metadata)}               # http://HOST:PORT/trust/metadata: the operators' approvals (TUF); empty: an author's signature is enough
safety_capabilities = {texts(safety_capabilities)}    # a skill that asks for one of these needs an approval in the safety lane

[capabilities]
allowed = {texts(allowed)}    # what skills may ask for at all

[plugins]
native = {texts(native)}    # drivers, by entry point of the group snapcount.plugins; the settings of each in a table [drivers.NAME]

[supply]
serve = {json.dumps(reach.serve)}                # HOST:PORT where this node serves bundles to its children; empty: it has none. TLS as for the mesh
parents = {texts(reach.parents)}              # http://HOST:PORT of nodes that serve, asked in turn before the registry
cache_mib = 64            # what a node that serves keeps for its children at most
down_bytes_s = 0          # ceilings in bytes per second; 0: none
up_bytes_s = 0

[record]
sample = 0.0              # the share of real calls, 0 to 1, that is written to calls.db with request and reply; requests may be confidential
skills = []               # only of these skills; empty: of all
bytes_max = 67108864      # the oldest go first

[audit]
sample = 0.0              # the share of real calls that is sent to auditors, with request and reply, for comparison with another lineage
send_to = []              # names of auditors, agents of the same fleet
skills = []               # only of these skills; empty: of all
calls_per_s = 1.0         # at most so many
auditor = false           # true: this node compares calls of others; it needs a table [audit.compare.SKILL] for each skill, as [compare] in skill.toml

[mesh]
role = {json.dumps(place.role)}                 # agent, lead, coordinator or orchestrator; empty: in no mesh. After a change: `snapcount node certify`
parents = {texts(place.parents)}              # ws://HOST:PORT or nats://NAME, tried in turn
listen = {json.dumps(place.listen)}               # of a tier: HOST:PORT or nats://NAME
class = {json.dumps(place.agent_class)}               # A edge, B serverless, C persistent, D gpu, E local, F human
heartbeat_s = {place.heartbeat_s:g}
children_max = {place.children_max}
authorities = {texts(place.authorities)}          # public keys of the owners whose certificates are believed; empty: this node's owner
nats = {json.dumps(place.nats)}                 # the NATS server for parents and names at nats://
tls_certificate = {json.dumps(place.tls_certificate)}      # PEM files, for wss://; relative to this directory
tls_key = {json.dumps(place.tls_key)}
tls_authority = {json.dumps(place.tls_authority)}        # who signed the certificates of wss:// parents; empty: those the system trusts
insecure = {json.dumps(place.insecure)}             # true: listen beyond this machine without TLS
"""
