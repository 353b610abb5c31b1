"""`snapcount node`: a node on this machine, for its owner."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli import doctor, node_questions, quarantine
from sdk.cli.output import Json, emit, say, working

if TYPE_CHECKING:
    from nacl.signing import SigningKey

app = typer.Typer(help="Set up, run and look after a node.", no_args_is_help=True)
app.command("policies", epilog=quarantine.POLICIES_EXAMPLE)(quarantine.policies)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)

State = typer.Option(Path("node"), "--state", help="The node's state directory.")
OwnerKey = typer.Option(Path("owner.key"), "--owner-key", help="The owner's private key.")
CAPABILITIES = "log,clock,random,state,flags,motion"


@app.command(
    epilog="Example: snapcount node init --state node-1 --name node-1 --owner-key owner.key --trust author.pub --registry http://127.0.0.1:8470  "
    "(in a mesh: --role lead --parent ws://127.0.0.1:8480 --listen 127.0.0.1:8481)"
)
def init(
    context: typer.Context,
    state: Path = State,
    name: str = typer.Option("node", help="Name of the node, unique in its fleet."),
    owner_key: Path = OwnerKey,
    generation: int = typer.Option(1, min=1, max=255, help="Hardware generation."),
    registry: str = typer.Option("", help="Address of the registry that it takes skills from."),
    trust: list[Path] = typer.Option([], "--trust", help="Public key (.pub) of an author to trust; repeat it."),
    allow: str = typer.Option(CAPABILITIES, help="Capabilities that skills may ask for, comma separated."),
    plugin: list[str] = typer.Option(["virtual_machine"], help="Native plugins (drivers) to load."),
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
    import msgspec

    from host import config, identity
    from host.core import keys, toml
    from host.core.clock import SystemClock, SystemRandom
    from host.core.errors import UsageError
    from host.core.manifest import Name
    from host.core.text import safe

    if node_questions.wanted(context):
        given = node_questions.Answers(
            state, name, owner_key, make_owner_key, generation, registry, trust, allow, role, parent, listen, nats, insecure
        )
        answers = node_questions.ask(context, given)
        state, name, owner_key, make_owner_key, generation, registry, trust, allow, role, parent, listen, nats, insecure = answers
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(f"a node's name is lower case letters, digits and single dashes, not {name!r}") from error
    if not owner_key.exists() and not make_owner_key:
        raise UsageError(f"{owner_key}: there is no owner's key; make one with `snapcount keys new owner`, or here with --make-owner-key")
    authors, operators = (tuple(keys.public_text(keys.load_public(path)) for path in paths) for paths in (trust, operator))
    allowed = tuple(part.strip() for part in allow.split(",") if part.strip())
    place = {
        "role": role, "parents": parent, "listen": listen, "class": agent_class, "heartbeat_s": heartbeat, "nats": nats, "insecure": insecure,
        "authorities": [keys.public_text(keys.load_public(path)) for path in authority],
    }  # fmt: skip
    try:
        mesh = msgspec.convert(place, config.Mesh)
        supply = msgspec.convert({"serve": serve, "parents": supply_parent}, config.Supply)
    except msgspec.ValidationError as error:
        raise UsageError(f"{safe(str(error))}; see `snapcount node init --help`") from error
    owner = keys.load(owner_key) if owner_key.exists() else _make_owner(owner_key)
    toml_text = config.template(
        name, keys.public_text(owner.verify_key), generation, registry, authors, allowed, tuple(plugin), mesh, sector=sector, operators=operators, metadata=trust_metadata,
        supply=supply,
    )  # fmt: skip
    toml.decode(toml_text.encode(), config.NodeConfig, config.FILE)  # a value that is not sound is refused before anything is made
    identity.create(state, toml_text, owner, SystemClock(), SystemRandom())
    key = keys.public_text(identity.load_key(state).verify_key)
    if as_json:
        emit({"state": str(state), "node": name, "key": key})
        return
    say(f"{state}: {name} is {key}")
    say(f"  {state / config.FILE}: what you decide; {state / identity.SAFETY}: what its machine may do, signed")
    if not authors:
        say("  it trusts no author yet: name one in [trust] before it can install anything")
    if role:
        say(f"  mesh: {role}{f' of {parent[0]}' if parent else ''}{f', listens on {listen}' if listen else ''}")
    say(f"start it with: snapcount node run --state {state}")


def _make_owner(path: Path) -> "SigningKey":
    import os
    import sys

    from host.core import keys

    path.parent.mkdir(parents=True, exist_ok=True)
    key = keys.create(path, os.urandom(keys.SEED_BYTES))
    # On stderr: standard output may be read by a program.
    print(f"{path}: the owner's private key; keep it away from the node, and keep it secret", file=sys.stderr)
    return key


@app.command(epilog="Example: snapcount node run --state node-1")
def run(
    state: Path = State,
    development: bool = typer.Option(False, "--development", help="Run from a source tree, whose files no installation vouches for."),
) -> None:
    """Run a node until it is told to stop (SIGTERM, Ctrl-C)."""
    from host import daemon

    daemon.run(state, development=development)


@app.command(epilog="Example: snapcount node status --state node-1")
def status(state: Path = State, as_json: bool = Json) -> None:
    """Show what a running node is and does."""
    from host.console import panel
    from host.console.client import NodeControl

    found = NodeControl(state).get("/v1/status")
    if as_json:
        emit(found)
    else:
        for line in panel.node_lines(found):
            say(line)


@app.command(epilog="Example: snapcount node attest --state node-1")
def attest(state: Path = State, as_json: bool = Json) -> None:
    """Ask a running node for a signed report of its host, configuration and skills, and verify it."""
    import os

    import msgspec

    from host import identity
    from host.console.client import NodeControl
    from host.core import attestation, keys

    nonce = os.urandom(16)
    signed = NodeControl(state).post_raw("/v1/attest", nonce)
    report = attestation.verify(signed, keys.load_public(state / identity.PUBLIC), nonce)
    if as_json:
        emit({**msgspec.to_builtins(report, builtin_types=(bytes,)), "nonce": nonce.hex(), "signed": signed.hex()})
        return
    say(f"{report.node} (ed25519:{report.key}) attests at {report.at_ms}:")
    say(f"  host    {report.host}{'' if report.sealed else ' (development tree, not sealed)'}")
    say(f"  config  {report.config}")
    for skill in report.skills:
        say(f"  skill   {skill.name} {skill.version} {skill.digest}")
    say("the signature is valid")


@app.command(epilog="Example: snapcount node call bid --state node-1 --input request.json")
def call(
    hook: str = typer.Argument(help="Name of the hook: bid, assess_feedstock, handle."),
    source: Path = typer.Option(..., "--input", help="The request as JSON, bytes in base64; - for standard input."),
    state: Path = State,
) -> None:
    """Call a hook on a running node, and print its answer as JSON."""
    import sys

    from host.console.client import NodeControl
    from host.core.errors import UsageError

    try:
        request = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from error
    emit(NodeControl(state).post(f"/v1/hooks/{hook}", request))


@app.command(epilog="Example: snapcount node send --to node-2 --topic cell.note --payload 'blade worn' --state node-1")
def send(
    to: list[str] = typer.Option(..., "--to", help="The agent, cluster or sector that it is for; repeat it."),
    topic: str = typer.Option(..., help="What it is about, such as cell.note."),
    verb: str = typer.Option("observe", help="observe, orient or record; a tier may also decide, act and sync."),
    payload: str = typer.Option("", "--payload", help="The payload, as text."),
    json_payload: str = typer.Option("", "--json-payload", help="The payload as JSON; skills read it as CBOR."),
    source: Path | None = typer.Option(None, "--input", help="A file with the payload; - for standard input."),
    priority: int = typer.Option(1, min=0, max=2, help="0 to 2; what is lower is dropped first."),
    ttl: float = typer.Option(60.0, help="How long it is worth delivering, in seconds."),
    state: Path = State,
    as_json: bool = Json,
) -> None:
    """Send a message from a running node to others of its mesh. Nobody answers it."""
    import base64
    import json

    from host.console.client import NodeControl
    from sdk.cli.fleet import read_payload

    letter = {
        "targets": to, "topic": topic, "verb": verb, "payload": base64.b64encode(read_payload(payload, json_payload, source)).decode(),
        "priority": priority, "ttl_ms": int(ttl * 1000),
    }  # fmt: skip
    answer = NodeControl(state).post("/v1/mesh/send", json.dumps(letter).encode())
    if as_json:
        emit(answer)
    else:
        say(f"{topic} for {', '.join(to)}: {'sent' if answer['connected'] else 'it goes when the parent is back'}, message {answer['id']}")


@app.command(epilog="Example: snapcount node pull registry.plant.example/skills/ore-sorter:1.2.0 --state node-1")
def pull(
    reference: str = typer.Argument(help="HOST[:PORT]/REPOSITORY:TAG or …@sha256:DIGEST, in any OCI registry."),
    state: Path = State,
    token: str = typer.Option("", "--token", help="NAME:SECRET for that registry.", envvar="SNAPCOUNT_TOKEN"),
    as_json: bool = Json,
) -> None:
    """Have a running node fetch a bundle from any OCI registry and install it, if it trusts who signed it."""
    import json

    from host.console.client import NodeControl

    with working(f"pulling {reference}"):
        found = NodeControl(state).post("/v1/pull", json.dumps({"reference": reference, "login": token}).encode())
    if as_json:
        emit(found)
    else:
        say(f"{found['name']} {found['version']} is active ({found['digest'][:19]}…)")


@app.command(epilog="Example: snapcount node rollback toolpath-planner --state node-1")
def rollback(name: str = typer.Argument(help="Name of the skill."), state: Path = State, as_json: bool = Json) -> None:
    """Go back to the version of a skill that was active before."""
    from host.console.client import NodeControl

    answer = NodeControl(state).post(f"/v1/rollback/{name}")
    if as_json:
        emit(answer)
    else:
        say(f"{name} {answer['version']} is active again")


@app.command(epilog="Example: snapcount node remove toolpath-planner --state node-1")
def remove(name: str = typer.Argument(help="Name of the skill."), state: Path = State) -> None:
    """Take a skill off a running node, with every version that is kept."""
    from host.console.client import NodeControl

    NodeControl(state).post(f"/v1/remove/{name}")
    say(f"{name}: removed; a registry that still announces it brings it back at the next connection")


@app.command(epilog="Example: snapcount node trip 'smoke' --state node-1")
def trip(reason: str = typer.Argument(help="Why."), state: Path = State) -> None:
    """Put a running node into safe mode: no machine of it moves until the owner resets it."""
    from host.console.client import NodeControl

    NodeControl(state).post("/v1/safety/trip", reason.encode())
    say(f"safe mode: {reason}; leave it with `snapcount node reset --state {state}`")


@app.command(epilog="Example: snapcount node reset --state node-1 --owner-key owner.key")
def reset(state: Path = State, owner_key: Path = OwnerKey) -> None:
    """Leave safe mode. Only the owner can, with a signature for this very trip."""
    from host.console.client import NodeControl
    from host.core import keys, safety

    control = NodeControl(state)
    tripped = control.get("/v1/status")["safe_mode"]
    if tripped is None:
        say("the node is not in safe mode")
        return
    control.post("/v1/safety/reset", safety.sign_reset(keys.load(owner_key), tripped["id"]))
    say(f"reset after: {tripped['reason']}")


@app.command("sign-safety", epilog="Example: snapcount node sign-safety --state node-1 --owner-key owner.key")
def sign_safety(state: Path = State, owner_key: Path = OwnerKey) -> None:
    """Sign a changed safety.toml. The node uses it from its next start on."""
    from host import identity
    from host.core import keys

    identity.sign_safety(state, keys.load(owner_key))
    say(f"{state / identity.SAFETY}: signed; restart the node")


@app.command(epilog="Example: snapcount node certify --state node-1 --owner-key owner.key")
def certify(state: Path = State, owner_key: Path = OwnerKey, as_json: bool = Json) -> None:
    """Issue a new certificate for a node; do it every 30 days."""
    from host import identity
    from host.core import keys
    from host.core.clock import SystemClock, SystemRandom

    claims = identity.certify(state, keys.load(owner_key), SystemClock(), SystemRandom())
    if as_json:
        emit({"node": claims.subject, "id": claims.id.hex(), "expires_s": claims.expires_s})
    else:
        say(f"{claims.subject}: certified until {claims.expires_s} (seconds since 1970), certificate {claims.id.hex()}")
