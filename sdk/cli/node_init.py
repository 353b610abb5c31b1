"""`snapcount node init`: what an owner decides of a new node, and the node made of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli import node_questions
from sdk.cli.output import Json, emit, say, warn

if TYPE_CHECKING:
    from nacl.signing import SigningKey

    from host.config import Mesh, Supply

EXAMPLE = (
    "Example: snapcount node init --state node-1 --name node-1 --owner-key owner.key --trust author.pub --registry http://127.0.0.1:8470  "
    "(in a mesh: --role lead --parent ws://127.0.0.1:8480 --listen 127.0.0.1:8481)"
)
State = typer.Option(Path("node"), "--state", help="The node's state directory.")
OwnerKey = typer.Option(Path("owner.key"), "--owner-key", help="The owner's private key.")
CAPABILITIES = "log,clock,random,state,flags,motion"


@dataclass(frozen=True)
class Decisions:
    """The options of `init`, under their names."""

    state: Path
    name: str
    owner_key: Path
    generation: int
    registry: str
    trust: list[Path]
    allow: str
    plugin: list[str]
    role: str
    parent: list[str]
    listen: str
    agent_class: str
    heartbeat: float
    authority: list[Path]
    nats: str
    insecure: bool
    operator: list[Path]
    sector: str
    trust_metadata: str
    serve: str
    supply_parent: list[str]
    make_owner_key: bool

    def asked(self, context: typer.Context) -> "Decisions":
        """With what a person at a terminal answers, where there is one to ask. Raises typer.Abort when it is not to be."""
        if not node_questions.wanted(context):
            return self
        given = node_questions.Answers(**{field: getattr(self, field) for field in node_questions.Answers._fields})
        return replace(self, **node_questions.ask(context, given)._asdict())


def init(
    context: typer.Context,
    state: Path = State,
    name: str = typer.Option("node", help="Name of the node, unique in its fleet."),
    owner_key: Path = OwnerKey,
    generation: int = typer.Option(1, min=1, max=255, help="Hardware generation."),
    registry: str = typer.Option("", help="Address of the registry that it takes skills from."),
    trust: list[Path] = typer.Option([], "--trust", help="Public key (.pub) of an author to trust; repeat it."),
    allow: str = typer.Option(CAPABILITIES, help="Capabilities that skills may ask for, comma separated."),
    plugin: list[str] = typer.Option(["virtual_machine"], help="Native plugins (drivers) to load; an empty name for none."),
    role: str = typer.Option("", help="Its role in a mesh: agent, lead, coordinator or orchestrator."),
    parent: list[str] = typer.Option([], "--parent", help="Address of its parent in the mesh, ws://HOST:PORT or nats://NAME; repeat it."),
    listen: str = typer.Option("", help="Where a tier of the mesh listens for its children: HOST:PORT or nats://NAME."),
    agent_class: str = typer.Option("E", "--class", help="A edge, B serverless, C persistent, D gpu, E local, F human."),
    heartbeat: float = typer.Option(5.0, help="How often children of this tier report, in seconds."),
    authority: list[Path] = typer.Option(
        [], "--authority", help="Public key (.pub) of an owner whose nodes it believes; repeat it. Default: its own."
    ),
    nats: str = typer.Option("", help="The NATS server for nats:// addresses, nats://HOST:PORT."),
    insecure: bool = typer.Option(False, "--insecure", help="Let it listen beyond this machine without TLS."),
    operator: list[Path] = typer.Option(
        [],
        "--operator",
        help="Public key (.pub) of an operator whose desired states and policies it takes, such as the registry's own; repeat it.",
    ),
    sector: str = typer.Option("", help="The part of the fleet that it belongs to; roll-outs take some nodes of each first."),
    trust_metadata: str = typer.Option(
        "", help="Where the operators' approvals are, http://HOST:PORT/trust/metadata. Default: an author's word is enough."
    ),
    serve: str = typer.Option("", help="Where it serves bundles to its children: HOST:PORT."),
    supply_parent: list[str] = typer.Option(
        [], "--supply-parent", help="A node that serves, asked before the registry, http://HOST:PORT; repeat it."
    ),
    make_owner_key: bool = typer.Option(False, "--make-owner-key", help="Make the owner's key where --owner-key says, if there is none."),
    as_json: bool = Json,
) -> None:
    """Make a node: its identity, its certificate, a signed safety.toml and a commented node.toml. At a terminal, without options, it asks."""
    options = dict(locals())
    decided = Decisions(**{field: options[field] for field in Decisions.__dataclass_fields__}).asked(context)
    _tell(decided, _made(decided), as_json)


def _made(decided: Decisions) -> str:
    """Makes the node; its public key. What is not sound is refused before anything is made. Raises SnapcountError."""
    from host import config, identity
    from host.core import keys, toml
    from host.core.clock import SystemClock, SystemRandom
    from host.core.errors import UsageError

    _require_name(decided.name)
    if not decided.owner_key.exists() and not decided.make_owner_key:
        raise UsageError(
            f"{decided.owner_key}: there is no owner's key; make one with `snapcount keys new owner`, or here with --make-owner-key"
        )
    authors, operators = _public(decided.trust), _public(decided.operator)
    mesh, supply = _places(decided)
    owner = keys.load(decided.owner_key) if decided.owner_key.exists() else _make_owner(decided.owner_key)
    allowed = tuple(part.strip() for part in decided.allow.split(",") if part.strip())
    toml_text = config.template(
        decided.name, keys.public_text(owner.verify_key), decided.generation, decided.registry, authors, allowed, tuple(filter(None, decided.plugin)), mesh,
        sector=decided.sector, operators=operators, metadata=decided.trust_metadata, supply=supply,
    )  # fmt: skip
    toml.decode(toml_text.encode(), config.NodeConfig, config.FILE)
    identity.create(decided.state, toml_text, owner, SystemClock(), SystemRandom())
    return keys.public_text(identity.load_key(decided.state).verify_key)


def _require_name(name: str) -> None:
    import msgspec

    from host.core.errors import UsageError
    from host.core.manifest import Name

    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(f"a node's name is lower case letters, digits and single dashes, not {name!r}") from error


def _places(decided: Decisions) -> tuple["Mesh", "Supply"]:
    """Where it stands among the others. Raises UsageError."""
    import msgspec

    from host import config
    from host.core.errors import UsageError
    from host.core.text import safe

    mesh = {
        "role": decided.role, "parents": decided.parent, "listen": decided.listen, "class": decided.agent_class, "heartbeat_s": decided.heartbeat,
        "nats": decided.nats, "insecure": decided.insecure, "authorities": _public(decided.authority),
    }  # fmt: skip
    try:
        return msgspec.convert(mesh, config.Mesh), msgspec.convert(
            {"serve": decided.serve, "parents": decided.supply_parent}, config.Supply
        )
    except msgspec.ValidationError as error:
        raise UsageError(f"{safe(str(error))}; see `snapcount node init --help`") from error


def _public(paths: list[Path]) -> tuple[str, ...]:
    from host.core import keys

    return tuple(keys.public_text(keys.load_public(path)) for path in paths)


def _make_owner(path: Path) -> "SigningKey":
    import os

    from host.core import keys

    path.parent.mkdir(parents=True, exist_ok=True)
    key = keys.create(path, os.urandom(keys.SEED_BYTES))
    warn(f"{path}: the owner's private key; keep it away from the node, and keep it secret")  # not where a program reads
    return key


def _tell(decided: Decisions, key: str, as_json: bool) -> None:
    from host import config, identity

    state, role = decided.state, decided.role
    if as_json:
        emit({"state": str(state), "node": decided.name, "key": key})
        return
    say(f"{state}: {decided.name} is {key}")
    say(f"  {state / config.FILE}: what you decide; {state / identity.SAFETY}: what its machine may do, signed")
    if not decided.trust:
        say("  it trusts no author yet: name one in [trust] before it can install anything")
    if role:
        listens = f", listens on {decided.listen}" if decided.listen else ""
        say(f"  mesh: {role}{f' of {decided.parent[0]}' if decided.parent else ''}{listens}")
    say(f"start it with: snapcount node run --state {state}")
