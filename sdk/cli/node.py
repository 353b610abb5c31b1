"""`snapcount node`: a node on this machine, for its owner."""

from pathlib import Path

import typer

from sdk.cli import doctor, node_calls, node_init, quarantine, watch
from sdk.cli.node_init import OwnerKey, State
from sdk.cli.output import Json, emit, say, tell, working

app = typer.Typer(help="Set up, run and look after a node.", no_args_is_help=True)
app.command("init", epilog=node_init.EXAMPLE)(node_init.init)
app.command("policies", epilog=quarantine.POLICIES_EXAMPLE)(quarantine.policies)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("audit", epilog=node_calls.AUDIT_EXAMPLE)(node_calls.audit)
app.add_typer(node_calls.app, name="calls")
app.command("watch", epilog=watch.EXAMPLE)(watch.watch)


@app.command(epilog="Example: snapcount node run --state node-1")
def run(
    state: Path = State,
    development: bool = typer.Option(False, "--development", help="Run from a source tree, whose files no installation vouches for."),
) -> None:
    """Run a node until it is told to stop (SIGTERM, Ctrl-C)."""
    import os
    import sys

    from host.core.errors import HostFault

    # The process becomes the node alone: what a command line takes stays behind. Nothing of the folder it was started in is imported.
    isolation = "-I" if sys.flags.isolated else "-P"
    arguments = [sys.executable, isolation, "-m", "host", str(state), *(["--development"] if development else [])]
    try:
        os.execv(sys.executable, arguments)
    except OSError as error:
        raise HostFault(f"{sys.executable}: cannot be started again as the node: {error.strerror}") from error


@app.command(epilog="Example: snapcount node status --state node-1")
def status(state: Path = State, as_json: bool = Json) -> None:
    """Show what a running node is and does."""
    from host.console import panel
    from host.console.client import NodeControl

    found = NodeControl(state).get("/v1/status")
    tell(found, as_json, panel.node_lines(found))


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
    hook: str = typer.Argument(help="Name of the hook: bid, assess_feedstock, inspect_part, handle."),
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
    tell(
        answer,
        as_json,
        [f"{topic} for {', '.join(to)}: {'sent' if answer['connected'] else 'it goes when the parent is back'}, message {answer['id']}"],
    )


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
    tell(found, as_json, [f"{found['name']} {found['version']} is active ({found['digest'][:19]}…)"])


@app.command(epilog="Example: snapcount node rollback toolpath-planner --state node-1")
def rollback(name: str = typer.Argument(help="Name of the skill."), state: Path = State, as_json: bool = Json) -> None:
    """Go back to the version of a skill that was active before."""
    from host.console.client import NodeControl

    answer = NodeControl(state).post(f"/v1/rollback/{name}")
    tell(answer, as_json, [f"{name} {answer['version']} is active again"])


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
    tell(
        {"node": claims.subject, "id": claims.id.hex(), "expires_s": claims.expires_s},
        as_json,
        [f"{claims.subject}: certified until {claims.expires_s} (seconds since 1970), certificate {claims.id.hex()}"],
    )
