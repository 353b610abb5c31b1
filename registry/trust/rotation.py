"""Other keys for a role, and another expiry.

The keys of root, targets, snapshot and timestamp stand in root; those of the lanes stand in targets. A new root is signed by enough of the old
holders and enough of the new (TUF specification 1.0.31, section 6.1).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from tuf.api.metadata import Root, Targets

from host.core.errors import UsageError
from host.core.lanes import LANES
from host.core.text import safe
from registry.trust import publishing
from registry.trust.ceremony import online_key, require_apart
from registry.trust.pending import asked_of
from registry.trust.repository import TrustRepository
from registry.trust.roles import ONLINE, ROLES, ROOT, TARGETS
from registry.trust.signer import Holder, holder_of
from registry.trust.steps import Outcome, advance, finish, keep, require_free, waiting

DAYS_MAX = 3_650


def rotate(
    repository: TrustRepository, role: str, add: Sequence[Holder], remove: Sequence[str], now: datetime, *, leave: bool = False
) -> Outcome:
    """Gives a role other keys; `remove` names holders, or public keys as `ed25519:…`. Raises UsageError where too few would be left.

    Where a role below would no longer count as signed, its holders are asked to sign it anew, and both are published together. With `leave`
    a lane is not waited for: nodes take nothing from it until it is signed anew.
    """
    document = TARGETS if role in LANES else ROOT
    with repository.lock():
        signed = repository.targets() if document == TARGETS else repository.root()
        require_free(repository, document)
        _change(signed, role, add, remove)
        require_apart(_held(repository, signed))
        advance(repository, document, signed, now)
        by = [(repository.root(), document)] if document == TARGETS else [(repository.root(), ROOT), (signed, ROOT)]
        about = [f"{holder.name} in" for holder in add] + [f"{safe(name, 24)} out" for name in remove]
        keep(repository, document, signed, asked_of(*by), f"keys of {role}: {', '.join(about)}", leave=leave and document == TARGETS)
        _ask_below(repository, signed, now)
        return finish(repository, now)


def rotate_online(repository: TrustRepository, role: str, now: datetime, seed: Callable[[int], bytes]) -> Outcome:
    """A new key for snapshot or timestamp, made in the folder, in place of all that the role has."""
    with repository.lock():
        root = repository.root()
        require_free(repository, ROOT)
        former = [holder_of(root.get_key(keyid)).public for keyid in root.roles[role].keyids]
        made = online_key(repository, role, seed)
    return rotate(repository, role, [made], former, now)


def revoke(repository: TrustRepository, key: str, now: datetime, *, role: str = "", leave: bool = False) -> Outcome:
    """Takes a key (a holder's name or `ed25519:…`) from its role; where it stands in several, `role` says from which. Raises UsageError."""
    held = [name for name in ROLES if _found(_above(repository, name), name, key)]
    if not held:
        raise UsageError(f"{safe(key, 80)}: no role has such a key; `snapcount keys status` shows those that it may be")
    if role and role not in held:
        raise UsageError(f"{safe(key, 80)}: is no key of {role}; it is one of {', '.join(held)}")
    if not role and len(held) > 1:
        raise UsageError(f"{safe(key, 80)}: is a key of {', '.join(held)}; say from which with --role, one after the other")
    return rotate(repository, role or held[0], [], [key], now, leave=leave)


def expire(repository: TrustRepository, role: str, days: float, now: datetime) -> Outcome:
    """Sets when a role's metadata expires, in days from now: snapshot and timestamp at once, all others when their holders have signed."""
    if not 0 <= days <= DAYS_MAX:
        raise UsageError(f"expected 0 to {DAYS_MAX} days, found {days:g}")
    expires = now + timedelta(days=days)
    with repository.lock():
        repository.root()
        if role in ONLINE:
            done = publishing.set_expiry(repository, role, expires, repository.online_keys(), now)
            return Outcome(tuple(done), waiting(repository))
        require_free(repository, role)
        found = repository.current(role)
        assert found is not None, "where a root is published, so is every role"
        advance(repository, role, found.signed, now)
        found.signed.expires = expires
        keep(repository, role, found.signed, asked_of((_above(repository, role), role)), f"expires on {expires:%Y-%m-%d}")
        return Outcome(waiting=waiting(repository))


def _change(signed: Root | Targets, role: str, add: Sequence[Holder], remove: Sequence[str]) -> None:
    rule = signed.get_delegated_role(role)
    for name in remove:
        found = _found(signed, role, name)
        if len(found) != 1:
            which = "no such key" if not found else "several keys of that name; give it as ed25519:…"
            raise UsageError(f"{role}: {safe(name, 80)}: {which}; `snapcount keys status` shows them")
        signed.revoke_key(found[0], role)
    for holder in add:
        signed.add_key(holder.tuf_key(), role)
    if len(rule.keyids) < rule.threshold:
        raise UsageError(f"{role}: {len(rule.keyids)} keys would be left, and {rule.threshold} must sign; add another with --add")


def _found(signed: Root | Targets, role: str, key: str) -> list[str]:
    """The key ids in a role that a holder's name, or a public key, stands for."""
    held = {keyid: holder_of(signed.get_key(keyid)) for keyid in signed.get_delegated_role(role).keyids}
    return [keyid for keyid, holder in held.items() if key in (holder.name, holder.public)]


def _above(repository: TrustRepository, role: str) -> Root | Targets:
    return repository.targets() if role in LANES else repository.root()


def _held(repository: TrustRepository, changed: Root | Targets) -> dict[str, set[bytes]]:
    """Which public keys each role would have."""
    named: dict[str, set[bytes]] = {}
    for role in ROLES:
        above = changed if (role in LANES) == isinstance(changed, Targets) else _above(repository, role)
        named[role] = {bytes(holder_of(above.get_key(keyid)).key) for keyid in above.get_delegated_role(role).keyids}
    return named


def _ask_below(repository: TrustRepository, changed: Root | Targets, now: datetime) -> None:
    """Asks for a new signing of what would no longer count as signed; a change that waits there is asked of the new holders."""
    for role in (TARGETS,) if isinstance(changed, Root) else LANES:
        asked, former, found = asked_of((changed, role)), repository.pending(role), repository.current(role)
        assert found is not None, "where a root is published, so is every role"
        if former is not None:
            msgspec.structs.replace(former, asked=asked).save(repository.pending_path(role))
        elif not publishing.signed_by(changed, role, found):
            advance(repository, role, found.signed, now)
            keep(repository, role, found.signed, asked, "signed anew, by other keys")
