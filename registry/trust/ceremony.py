"""The first version of every role, and which keys may not stand in two of them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import combinations

from nacl.signing import SigningKey
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, Targets

from host.core import keys
from host.core.errors import UsageError
from host.core.lanes import LANES
from registry.trust.pending import asked_of
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME, OFFLINE, ONLINE, ROOT, ROOT_KEYS_MIN, TARGETS, THRESHOLDS, paths
from registry.trust.signer import Holder, key_id
from registry.trust.steps import Outcome, keep, waiting


def begin(repository: TrustRepository, holders: Mapping[str, Sequence[Holder]], now: datetime, seed: Callable[[int], bytes]) -> Outcome:
    """Four pending changes, one for each role that people sign, and new keys for snapshot and timestamp in the folder.

    `holders` has an entry for root, targets, safety and productivity; `seed` gives random bytes. Raises UsageError where these keys cannot
    keep the roles apart, or where the ceremony has begun before.
    """
    for role in OFFLINE:
        wanted = ROOT_KEYS_MIN if role == ROOT else THRESHOLDS[role]
        if len({bytes(holder.key) for holder in holders.get(role, ())}) < wanted:
            raise UsageError(f"{role}: {wanted} different keys are needed, {THRESHOLDS[role]} of which must sign")
    require_apart({role: {bytes(holder.key) for holder in held} for role, held in holders.items()})
    with repository.lock():
        if repository.newest(ROOT) or repository.pending(ROOT):
            raise UsageError(f"{repository.folder}: the ceremony has begun here already; `snapcount keys status` says what is missing")
        online = {role: [online_key(repository, role, seed)] for role in ONLINE}
        root, targets = _root({**holders, **online}, now), _targets(holders, now)
        keep(repository, ROOT, root, asked_of((root, ROOT)), "the first version")
        keep(repository, TARGETS, targets, asked_of((root, TARGETS)), "the first version")
        for lane in LANES:
            keep(repository, lane, Targets(expires=now + LIFETIME[lane]), asked_of((targets, lane)), "the first version, without approvals")
        return Outcome(waiting=waiting(repository))


def online_key(repository: TrustRepository, role: str, seed: Callable[[int], bytes]) -> Holder:
    """Makes one more key for snapshot or timestamp in the folder; it counts once root names it. The caller holds the lock."""
    repository.online.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = seed(keys.SEED_BYTES)
    name = f"{role}-{key_id(SigningKey(secret).verify_key)[:8]}"
    return Holder(role, keys.create(repository.online / f"{name}.key", secret).verify_key)


def require_apart(held: Mapping[str, set[bytes]]) -> None:
    """One stolen key must not reach further than its role: what signs alone signs nothing that takes two. Raises UsageError."""
    for one, other in combinations(held, 2):
        if held[one] & held[other] and 1 in (THRESHOLDS[one], THRESHOLDS[other]):
            raise UsageError(f"{one} and {other}: the same key cannot sign both; a key that signs alone is for one role only")


def _root(holders: Mapping[str, Sequence[Holder]], now: datetime) -> Root:
    roles = (ROOT, TARGETS, *ONLINE)
    root = Root(expires=now + LIFETIME[ROOT], roles={role: Role([], THRESHOLDS[role]) for role in roles})
    for role in roles:
        for holder in holders[role]:
            root.add_key(holder.tuf_key(), role)
    return root


def _targets(holders: Mapping[str, Sequence[Holder]], now: datetime) -> Targets:
    # Terminating: whatever this lane says of its paths is final, nobody else is asked.
    delegated: dict[str, DelegatedRole] = {lane: DelegatedRole(lane, [], THRESHOLDS[lane], True, paths(lane)) for lane in LANES}
    targets = Targets(expires=now + LIFETIME[TARGETS], delegations=Delegations({}, delegated))
    for lane in LANES:
        for holder in holders[lane]:
            targets.add_key(holder.tuf_key(), lane)
    return targets
