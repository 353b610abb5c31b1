"""What operators do with the trust folder: `snapcount keys ceremony | sign | submit | rotate | revoke | expire | drop | status` and
`snapcount registry approve | withdraw-approval | approvals | renew`. docs/trust.md has them in order."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sdk.cli.output import Json, emit, say

if TYPE_CHECKING:
    from registry.trust.repository import TrustRepository
    from registry.trust.steps import Outcome

Folder = typer.Option(Path("bundles"), "--dir", help="The registry's folder; trust metadata is kept in its folder trust.")
Key = typer.Option(..., "--key", help="Your private key (.key).")
LaneName = typer.Option(..., "--lane", help="safety (two signers) or productivity (one).")
RoleName = typer.Argument(help="root, targets, safety, productivity, snapshot or timestamp.")


def add_to_keys(app: typer.Typer) -> None:
    """Registers the commands of `snapcount keys`."""
    app.command(epilog="Example: snapcount keys ceremony --root anna.pub --root ben.pub --root carla.pub --safety dora.pub --safety emil.pub --productivity fay.pub")(ceremony)  # fmt: skip
    app.command(epilog="Example: snapcount keys sign root.json targets.json --key anna.key")(sign)
    app.command(epilog="Example: snapcount keys submit root.json --dir bundles")(submit)
    app.command(epilog="Example: snapcount keys rotate root --add dan.pub --remove anna")(rotate)
    app.command(epilog="Example: snapcount keys revoke fay --role productivity")(revoke)
    app.command(epilog="Example: snapcount keys expire safety --days 180")(expire)
    app.command(epilog="Example: snapcount keys drop targets")(drop)
    app.command(epilog="Example: snapcount keys status --dir bundles")(status)


def add_to_registry(app: typer.Typer) -> None:
    """Registers the commands of `snapcount registry`."""
    app.command(epilog="Example: snapcount registry approve dist/thermal.wasm --lane safety --key dora.key")(approve)
    app.command("withdraw-approval", epilog="Example: snapcount registry withdraw-approval thermal 1.2.0 --lane safety --key dora.key")(withdraw_approval)  # fmt: skip
    app.command(epilog="Example: snapcount registry approvals --dir bundles")(approvals)
    app.command(epilog="Example: snapcount registry renew --dir bundles")(renew)


def ceremony(
    root: list[Path] = typer.Option(..., "--root", help="Public key (.pub) of a root holder; three or more, two of whom sign."),
    safety: list[Path] = typer.Option(..., "--safety", help="Public key of a signer of the safety lane; two or more, two of whom sign."),
    productivity: list[Path] = typer.Option(
        ..., "--productivity", help="Public key of a signer of the productivity lane; each signs alone."
    ),
    targets: list[Path] = typer.Option(
        [], "--targets", help="Public key of who hands out the lanes, two of whom sign; by default those of root."
    ),
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Begin: make the first trust metadata, for the holders to sign each on their own machine."""
    import os

    from registry.trust import ceremony as steps
    from registry.trust.repository import TrustRepository
    from registry.trust.signer import Holder

    paths = {"root": root, "targets": targets or root, "safety": safety, "productivity": productivity}
    repository = TrustRepository(folder)
    outcome = steps.begin(repository, {role: [Holder.load(path) for path in named] for role, named in paths.items()}, _now(), os.urandom)
    _tell(repository, outcome, as_json)
    if not as_json:
        say("")
        say("What comes now:")
        say(f"1. Take the files of {repository.folder / 'pending'} to each holder (a stick, mail: they hold no secret).")
        say("2. Each holder, on their own machine: snapcount keys sign FILE --key NAME.key, and reads what it says first.")
        say(f"3. Bring the files back: snapcount keys submit FILE --dir {folder}. Copies that were signed apart are put together.")
        say("4. With enough signatures on all four, they are published. snapcount keys status says what is missing.")


def sign(
    file: list[Path] = typer.Argument(help="Pending changes, such as root.json."),
    key: Path = Key,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = Json,
) -> None:
    """Show what a pending change does, and sign it. Needs neither a network nor the registry's folder."""
    from host.core import keys
    from host.core.errors import UsageError
    from registry.trust import pending, steps

    signer = keys.load(key)
    missing: dict[str, list[str]] = {}
    for path in file:
        found = pending.load(path)
        if not as_json:
            say(f"{path}: {found.role} {found.version}, {found.about}")
            for line in found.changes(signer):
                say(f"  {line}")
        if not (yes or as_json or typer.confirm(f"Sign {path}?")):
            raise UsageError(f"{path}: not signed")
        missing[str(path)] = steps.sign(path, signer).missing()
    if as_json:
        emit({"missing": missing})
    for name, lines in missing.items():
        if not as_json:
            say(
                f"{name}: signed; "
                + (f"needs {'; and '.join(lines)}" if lines else "that was the last signature: take it back to the registry")
            )


def submit(file: list[Path] = typer.Argument(help="Files that came back signed."), folder: Path = Folder, as_json: bool = Json) -> None:
    """Take signed files back in, and publish what is complete."""
    from registry.trust import steps
    from registry.trust.repository import TrustRepository

    repository = TrustRepository(folder)
    _tell(repository, steps.submit(repository, file, _now()), as_json)


def rotate(
    role: str = RoleName,
    add: list[Path] = typer.Option([], "--add", help="Public key (.pub) of a new holder."),
    remove: list[str] = typer.Option([], "--remove", help="Name or public key of a holder that goes."),
    leave: bool = typer.Option(False, "--at-once", help="Put a lane out of force until it is signed anew, rather than wait for it."),
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Give a role other keys. Snapshot and timestamp get a new key of the registry's own."""
    import os

    from host.core.errors import UsageError
    from registry.trust import rotation
    from registry.trust.repository import TrustRepository
    from registry.trust.roles import ONLINE
    from registry.trust.signer import Holder

    repository = TrustRepository(folder)
    _require_role(role)
    if role in ONLINE:
        outcome = rotation.rotate_online(repository, role, _now(), os.urandom)
    elif add or remove:
        holders: list[Holder] = [Holder.load(path) for path in add]
        outcome = rotation.rotate(repository, role, holders, remove, _now(), leave=leave)
    else:
        raise UsageError(f"{role}: say with --add and --remove which keys come and go")
    _tell(repository, outcome, as_json)


def revoke(
    key: str = typer.Argument(help="Name of the holder, a public key ed25519:…, or its .pub file."),
    role: str = typer.Option("", "--role", help="From which role, where it stands in several."),
    leave: bool = typer.Option(False, "--at-once", help="Put a lane out of force until it is signed anew, rather than wait for it."),
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Take a key from its role: what it signs counts no more, and what it signed alone is signed anew by others."""
    from registry.trust import rotation
    from registry.trust.repository import TrustRepository
    from registry.trust.signer import Holder

    if role:
        _require_role(role)
    named = Holder.load(Path(key)).public if key.endswith(".pub") else key
    repository = TrustRepository(folder)
    _tell(repository, rotation.revoke(repository, named, _now(), role=role, leave=leave), as_json)


def expire(
    role: str = RoleName,
    days: float = typer.Option(..., "--days", help="From now on; 0 ends it at once."),
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Set when a role's metadata expires: later, before it runs out, or sooner."""
    from registry.trust import rotation
    from registry.trust.repository import TrustRepository

    _require_role(role)
    repository = TrustRepository(folder)
    _tell(repository, rotation.expire(repository, role, days, _now()), as_json)


def drop(role: str = RoleName, folder: Path = Folder) -> None:
    """Forget a change that waits, with the signatures it has."""
    from registry.trust import steps
    from registry.trust.repository import TrustRepository

    _require_role(role)
    steps.drop(TrustRepository(folder), role)
    say(f"{role}: the pending change is forgotten")


def status(folder: Path = Folder, as_json: bool = Json) -> None:
    """Show roles, keys, expiry, and what waits for whom."""
    _status(folder, as_json, lambda found: found)


def approve(
    bundle: Path = typer.Argument(help="The signed bundle (.wasm)."),
    lane: str = LaneName,
    key: Path = Key,
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Approve a bundle for every node, or add your signature to an approval that waits."""
    from host.core import keys
    from registry.trust import approvals as steps
    from registry.trust.repository import TrustRepository

    repository = TrustRepository(folder)
    outcome = steps.approve(repository, _lane(lane), bundle.read_bytes(), bundle.name, keys.load(key), _now())
    _tell(repository, outcome, as_json)


def withdraw_approval(
    name: str = typer.Argument(help="Name of the skill."),
    version: str = typer.Argument(help="Its version."),
    lane: str = LaneName,
    key: Path = Key,
    folder: Path = Folder,
    as_json: bool = Json,
) -> None:
    """Take an approval back. Nodes that run the skill go on; to stop them, push another version or a quarantine policy."""
    from host.core import keys
    from registry.trust import approvals as steps
    from registry.trust.repository import TrustRepository

    repository = TrustRepository(folder)
    _tell(repository, steps.withdraw(repository, _lane(lane), name, version, keys.load(key), _now()), as_json)


def approvals(folder: Path = Folder, as_json: bool = Json) -> None:
    """List what is approved in each lane, and what waits for whom."""
    from host.core.lanes import LANES

    def lanes_only(found: dict[str, Any]) -> dict[str, Any]:
        return {
            "roles": {role: row for role, row in found["roles"].items() if role in LANES},
            "pending": [waiting for waiting in found["pending"] if waiting["role"] in LANES],
        }

    _status(folder, as_json, lanes_only, names=True)


def renew(folder: Path = Folder, as_json: bool = Json) -> None:
    """Sign snapshot and timestamp anew where half of their time is over, and publish what is complete."""
    from registry.trust import steps
    from registry.trust.publishing import renew as renewed
    from registry.trust.repository import TrustRepository

    repository = TrustRepository(folder)
    published = renewed(folder, _now())
    _tell(repository, steps.Outcome(tuple(published), steps.waiting(repository)), as_json)


def _now() -> datetime:
    return datetime.now(UTC)


def _lane(name: str) -> Any:
    from host.core.errors import UsageError
    from host.core.lanes import LANES

    if name not in LANES:
        raise UsageError(f"expected one of the lanes {', '.join(LANES)}, found {name!r}")
    return name


def _require_role(name: str) -> None:
    from host.core.errors import UsageError
    from registry.trust.roles import ROLES

    if name not in ROLES:
        raise UsageError(f"expected one of the roles {', '.join(ROLES)}, found {name!r}")


def _tell(repository: "TrustRepository", outcome: "Outcome", as_json: bool) -> None:
    if as_json:
        emit({"published": list(outcome.published), "waiting": list(outcome.waiting), "folder": str(repository.folder)})
        return
    if outcome.published:
        say(f"published: {', '.join(outcome.published)}")
    for line in outcome.waiting:
        say(f"waits: {line}")
    if outcome.waiting:
        say(f"the files to sign are in {repository.folder / 'pending'}")
    if not outcome.published and not outcome.waiting:
        say("nothing to do")


def _status(folder: Path, as_json: bool, pick: Callable[[dict[str, Any]], dict[str, Any]], names: bool = False) -> None:
    from registry.trust import status as words
    from registry.trust.repository import TrustRepository

    found = pick(words.status(TrustRepository(folder), _now()))
    if as_json:
        emit(found)
        return
    for line in words.lines(found):
        say(line)
    for row in found["roles"].values() if names else ():
        for path in row["approvals"]:
            say(f"  {path}")
