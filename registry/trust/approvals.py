"""Approving a bundle in a lane, and taking an approval back.

A lane's metadata is one document, so one change of it waits at a time. An approval that is begun while another waits joins it, and whoever has
signed without it signs again.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from nacl.signing import SigningKey
from tuf.api.metadata import TargetFile, Targets

from host.core import cose
from host.core.bundle import Bundle, UnverifiedBundle
from host.core.desired import Lane
from host.core.errors import UsageError
from host.core.lanes import target_path
from registry.trust.pending import Pending, asked_of
from registry.trust.repository import TrustRepository
from registry.trust.roles import TARGETS
from registry.trust.steps import Outcome, advance, finish, keep


def approve(repository: TrustRepository, lane: Lane, data: bytes, what: str, key: SigningKey, now: datetime) -> Outcome:
    """Approves a bundle, or adds one more signature to an approval that waits. Raises UntrustedInput for what is no sound bundle, UsageError."""
    bundle = _bundle(data, what)
    path = target_path(lane, bundle.manifest.name, bundle.manifest.version)
    target = TargetFile.from_data(path, data, ["sha256"])
    target.unrecognized_fields = {"custom": {"name": bundle.manifest.name, "version": bundle.manifest.version}}

    def add(targets: Targets) -> None:
        known = targets.targets.get(path)
        if known is not None and known != target:
            raise UsageError(
                f"{bundle.label}: approved in the {lane} lane with other bytes; a version is never changed: give it a new number"
            )
        targets.targets[path] = target

    return _change(repository, lane, add, f"approve {bundle.label}", key, now)


def withdraw(repository: TrustRepository, lane: Lane, name: str, version: str, key: SigningKey, now: datetime) -> Outcome:
    """Takes an approval back: no node installs that bundle from then on, those that run it go on. Raises UsageError where there is none."""
    path = target_path(lane, name, version)
    published, waiting = repository.current(lane), repository.pending(lane)
    known = [published.signed] if published is not None else []
    if not any(path in signed.targets for signed in (*known, *([waiting.metadata.signed] if waiting else []))):
        raise UsageError(f"{name} {version}: not approved in the {lane} lane, and no approval of it waits")
    return _change(repository, lane, lambda targets: targets.targets.pop(path, None), f"withdraw {name} {version}", key, now)


def _change(
    repository: TrustRepository, lane: Lane, change: Callable[[Targets], Any], about: str, key: SigningKey, now: datetime
) -> Outcome:
    with repository.lock():
        repository.targets()
        former = repository.pending(lane)
        waiting = _with(repository, lane, change, about, now)
        try:
            signed = waiting.signed_with(key)
        except UsageError:
            if former is None:  # nobody who may has asked for it
                repository.drop(lane)
            else:
                former.save(repository.pending_path(lane))
            raise
        signed.save(repository.pending_path(lane))
        return finish(repository, now)


def _with(repository: TrustRepository, lane: Lane, change: Callable[[Targets], Any], about: str, now: datetime) -> Pending:
    """The pending change of the lane that has this in it: the one that waits where it has it already, a new one otherwise."""
    waiting = repository.pending(lane)
    found = repository.current(lane) if waiting is None else waiting.metadata
    assert found is not None, "where targets are published, so are the lanes"
    before = dict(found.signed.targets)
    change(found.signed)
    if found.signed.targets == before:
        if waiting is None:
            raise UsageError(f"{about}: this is in force already")
        return waiting
    if waiting is None:
        advance(repository, lane, found.signed, now)
    coming = repository.pending(TARGETS)  # those whom the targets to come name, where they are about to change
    asked = asked_of((repository.targets() if coming is None else coming.metadata.signed, lane))
    return keep(repository, lane, found.signed, asked, about if waiting is None else f"{waiting.about}; {about}")


def _bundle(data: bytes, what: str) -> Bundle:
    """A bundle whose every signature verifies, whoever made it: each node decides which authors it trusts."""
    unverified = UnverifiedBundle.parse(data, what)
    kids = [cose.parse(section.content, f"{what}: signature").kid for section in unverified.signatures]
    return unverified.verify([cose.public_key(kid, what) for kid in kids])
