"""Puts in force what enough holders have signed, and keeps snapshot and timestamp fresh.

Rules of `settle`:

- a pending change counts when it is the next version and carries the signatures that the roles *as they would then be* ask for;
- a new root or targets is held back while a role below it would be left without enough signatures, until that role's own pending change is complete too;
  a lane may be left so on purpose (`Pending.leave`): nodes then take nothing from it, and all else goes on;
- files are written so that a client, and a kill, in between finds the old state or the new one: lanes and targets, snapshot, root, timestamp.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from host.core.errors import UsageError
from host.core.lanes import LANES
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME, OFFLINE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from registry.trust.signer import PyNaClSigner

State = dict[str, Metadata[Any] | None]
Publish = Callable[[str, Metadata[Any]], None]


def renew(directory: Path, now: datetime, online: Mapping[str, SigningKey] | None = None) -> list[str]:
    """For the registry's daemon, once an hour: publishes what is complete, and signs snapshot and timestamp anew when half of their time is over.

    `online` are the keys by TUF key id, by default those in the folder. Returns what was published, such as `timestamp 7`. Raises UsageError
    before the ceremony is done, and where the folder has not the keys.
    """
    repository = TrustRepository(directory)
    with repository.lock():
        repository.root()
        return settle(repository, now, repository.online_keys() if online is None else online)


def settle(repository: TrustRepository, now: datetime, online: Mapping[str, SigningKey]) -> list[str]:
    """Publishes all that can be. The caller holds the lock. Raises UsageError where a key for snapshot or timestamp is missing."""
    state: State = {role: repository.current(role) for role in OFFLINE}
    after = _after(repository, state)
    if any(found is None for found in after.values()):
        return []  # the ceremony is not done
    root = after[ROOT]
    assert root is not None
    signers = {role: _signer(root.signed, role, online) for role in (SNAPSHOT, TIMESTAMP)}
    changed = [role for role in OFFLINE if after[role] is not state[role]]
    done, publish = _publishing(repository)

    for role in (*LANES, TARGETS):
        if role in changed:
            publish(role, _some(after[role]))
    _renew_snapshot(repository, root.signed, signers[SNAPSHOT], now, publish)
    if ROOT in changed:
        publish(ROOT, root)
    _renew_timestamp(repository, root.signed, signers[TIMESTAMP], now, publish)
    for waiting in repository.all_pending():
        if waiting.version <= repository.newest(waiting.role):
            repository.drop(waiting.role)  # it is published, or another change was first: its signatures are of no use
    return done


def set_expiry(repository: TrustRepository, role: str, expires: datetime, online: Mapping[str, SigningKey], now: datetime) -> list[str]:
    """Signs snapshot or timestamp anew with this expiry, and what hangs on it. The caller holds the lock."""
    root = repository.root()
    done, publish = _publishing(repository)
    if role == SNAPSHOT:
        _renew_snapshot(repository, root, _signer(root, SNAPSHOT, online), now, publish, expires)
        _renew_timestamp(repository, root, _signer(root, TIMESTAMP, online), now, publish)
    else:
        _renew_timestamp(repository, root, _signer(root, TIMESTAMP, online), now, publish, expires)
    return done


def signed_by(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    """Whether enough of those whom the delegator names have signed."""
    return delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures).verified


def _after(repository: TrustRepository, state: State) -> State:
    """What would be published: every complete change, less those that would leave a role below them unsigned."""
    held: set[str] = set()
    while True:
        after = _with_complete(repository, state, held)
        blocked = _blocked(repository, state, after)
        if blocked is None:
            return after
        held.add(blocked)


def _with_complete(repository: TrustRepository, state: State, held: Collection[str]) -> State:
    after = dict(state)
    for role in OFFLINE:  # delegators first
        found = None if role in held else repository.pending(role)
        delegator = _delegator(role, after)
        if found is None or (delegator is None and role != ROOT):
            continue
        metadata, former = found.metadata, state[role]
        if metadata.signed.version != (1 if former is None else former.signed.version + 1):
            continue  # made for another version than the one that is published
        by = [delegator] if role != ROOT else [metadata.signed, *([former.signed] if former is not None else [])]
        if all(signed_by(one, role, metadata) for one in by if one is not None):
            after[role] = metadata
    return after


def _delegator(role: str, state: State) -> Root | Targets | None:
    above = state[ROOT if role == TARGETS else TARGETS] if role != ROOT else None
    return None if above is None else above.signed


def _blocked(repository: TrustRepository, state: State, after: State) -> str | None:
    """The changed role that must wait, for the one below it would not be signed as it asks."""
    for above, below in ((ROOT, TARGETS), *((TARGETS, lane) for lane in LANES)):
        delegator, role = after[above], after[below]
        if delegator is None or role is None or delegator is state[above] or signed_by(delegator.signed, below, role):
            continue
        waiting = repository.pending(above)
        if waiting is None or not waiting.leave:
            return above
    return None


def _publishing(repository: TrustRepository) -> tuple[list[str], Publish]:
    """What publishes, and the list of what it has published."""
    done: list[str] = []

    def publish(role: str, metadata: Metadata[Any]) -> None:
        repository.publish(role, metadata)
        done.append(f"{role} {metadata.signed.version}")

    return done, publish


def _signer(root: Root, role: str, online: Mapping[str, SigningKey]) -> PyNaClSigner:
    for keyid in root.roles[role].keyids:
        if keyid in online:
            return PyNaClSigner(online[keyid])
    raise UsageError(f"{role}: its key is not in this folder (trust/online); publish where the registry keeps it")


def _renew_snapshot(
    repository: TrustRepository, root: Root, signer: PyNaClSigner, now: datetime, publish: Publish, expires: datetime | None = None
) -> None:
    meta = {f"{role}.json": _meta(repository, role) for role in (TARGETS, *LANES)}
    former = repository.current(SNAPSHOT)
    due = expires is not None or former is None or former.signed.meta != meta or _stale(root, SNAPSHOT, former, now)
    if due:
        until = expires or now + LIFETIME[SNAPSHOT]
        _sign_on(SNAPSHOT, former, Snapshot(expires=until, meta=meta), signer, publish)


def _renew_timestamp(
    repository: TrustRepository, root: Root, signer: PyNaClSigner, now: datetime, publish: Publish, expires: datetime | None = None
) -> None:
    meta = _meta(repository, SNAPSHOT)
    former = repository.current(TIMESTAMP)
    due = expires is not None or former is None or former.signed.snapshot_meta != meta or _stale(root, TIMESTAMP, former, now)
    if due:
        until = expires or now + LIFETIME[TIMESTAMP]
        _sign_on(TIMESTAMP, former, Timestamp(expires=until, snapshot_meta=meta), signer, publish)


def _sign_on(role: str, former: Metadata[Any] | None, signed: Snapshot | Timestamp, signer: PyNaClSigner, publish: Publish) -> None:
    """Publishes it as the version after the former one."""
    signed.version = 1 if former is None else former.signed.version + 1
    metadata: Metadata[Any] = Metadata(signed)
    metadata.sign(signer)
    publish(role, metadata)


def _meta(repository: TrustRepository, role: str) -> MetaFile:
    raw = repository.raw(role)
    assert raw is not None, "settle has seen that all of them are there"
    return MetaFile.from_data(repository.newest(role), raw, ["sha256"])


def _stale(root: Root, role: str, metadata: Metadata[Any], now: datetime) -> bool:
    """Half of its time is over, or a key signed it that no longer may."""
    return bool(metadata.signed.expires - now < LIFETIME[role] / 2) or not signed_by(root, role, metadata)


def _some(metadata: Metadata[Any] | None) -> Metadata[Any]:
    assert metadata is not None
    return metadata
