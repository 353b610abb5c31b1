"""What every change has in common: it is made, it waits, it is signed, it comes back, and it is published once enough have signed.

Whoever's signature completes a change publishes it, where the registry's own keys are in the folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from nacl.signing import SigningKey
from tuf.api.metadata import Metadata

from host.core.errors import UsageError
from registry.trust import publishing
from registry.trust.pending import FORMAT, Asked, Pending, load
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME


@dataclass(frozen=True)
class Outcome:
    """What a step led to: what was published, such as `safety 4`, and for each change that still waits, in words, for whom."""

    published: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def sign(path: Path, key: SigningKey) -> Pending:
    """Adds a signature to a travelling file, on any machine."""
    signed = load(path).signed_with(key)
    signed.save(path)
    return signed


def submit(repository: TrustRepository, paths: Sequence[Path], now: datetime) -> Outcome:
    """Takes travelling files back in: their signatures join those that are here, or a change that was begun elsewhere is taken over."""
    with repository.lock():
        for came in [load(path) for path in paths]:
            known = repository.pending(came.role)
            newest = repository.newest(came.role)
            if known is None and came.version != newest + 1:
                raise UsageError(
                    f"{came.role}: that file is version {came.version}, version {newest} is published here; begin the change anew"
                )
            (known or came).merged(came).save(repository.pending_path(came.role))
        return finish(repository, now)


def drop(repository: TrustRepository, role: str) -> None:
    """Forgets a change that waits, with its signatures. Raises UsageError where there is none, or where it is the ceremony's."""
    with repository.lock():
        if repository.pending(role) is None:
            raise UsageError(f"{role}: no change waits")
        if not repository.newest(role):
            raise UsageError(f"{role}: this is its first version, which nothing can replace; to begin anew, remove {repository.folder}")
        repository.drop(role)


def finish(repository: TrustRepository, now: datetime) -> Outcome:
    """Publishes what is complete; in a copy of the folder, on a signer's machine, it waits. The caller holds the lock."""
    online = repository.online_keys()
    done = publishing.settle(repository, now, online) if online else []
    return Outcome(tuple(done), waiting(repository))


def waiting(repository: TrustRepository) -> tuple[str, ...]:
    """Every change that waits, in words."""
    return tuple(
        f"{found.role} {found.version} ({found.about}): " + ("; and ".join(found.missing()) or "complete, and not published yet")
        for found in repository.all_pending()
    )


def keep(repository: TrustRepository, role: str, signed: Any, asked: tuple[Asked, ...], about: str, *, leave: bool = False) -> Pending:
    """A new pending change, unsigned. `signed` is the Root or Targets to come."""
    former = repository.current(role)
    made = msgspec.convert(
        {
            "format": FORMAT, "role": role, "about": about[:300], "asked": [msgspec.to_builtins(group) for group in asked],
            "base": None if former is None else former.to_dict(), "next": Metadata(signed).to_dict(), "leave": leave,
        },
        Pending,
    )  # fmt: skip
    made.save(repository.pending_path(role))
    return made


def advance(repository: TrustRepository, role: str, signed: Any, now: datetime) -> None:
    """Makes `signed` the next version, with its full life before it."""
    signed.version = repository.newest(role) + 1
    signed.expires = now + LIFETIME[role]


def require_free(repository: TrustRepository, role: str) -> None:
    """Raises UsageError where a change of this role waits already."""
    if repository.pending(role) is not None:
        raise UsageError(f"{role}: a change waits for signatures already; finish it, or forget it with `snapcount keys drop {role}`")
