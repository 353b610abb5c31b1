"""Whether the node's files belong to whom they should, and its secrets to nobody else."""

import stat
from collections.abc import Iterator
from pathlib import Path

from host import identity
from host.core.keys import PRIVATE_MODE
from host.doctor.finding import Finding
from host.doctor.subject import Subject

CHECK = "permissions"
ROOT = 0
SECRETS = (identity.KEY, identity.CACHE_KEY, identity.REGISTRY_LOGIN)


def check(subject: Subject) -> Iterator[Finding]:
    try:
        problems = [*_access(subject), *_modes(subject.state), *_owners(subject), *_strays(subject.state)]
    except OSError as error:
        yield Finding(CHECK, "fail", f"{error.filename or subject.state}: {error.strerror}", "run this as the node's user or as root")
        return
    yield from problems
    if not problems:
        owner = subject.probes.user(subject.probes.owner(subject.state))
        yield Finding(CHECK, "ok", f"all of it belongs to {owner}, and nobody else can read its keys")


def _access(subject: Subject) -> Iterator[Finding]:
    probes = subject.probes
    me, owner = probes.uid(), probes.owner(subject.state)
    if me not in (ROOT, owner):
        yield Finding(
            CHECK,
            "fail",
            f"{subject.state} belongs to {probes.user(owner)}, you are {probes.user(me)}",
            "run this as the node's user or as root",
        )
    if subject.running is not None and subject.running.uid not in (ROOT, owner):
        ran = probes.user(subject.running.uid)
        yield Finding(
            CHECK, "fail", f"the node runs as {ran}, its state belongs to {probes.user(owner)}", f"chown -R {ran} {subject.state}"
        )
    if subject.running is not None and subject.running.uid == ROOT:
        yield Finding(CHECK, "warn", "the node runs as root", "run it as a user of its own, such as snapcount-node@ does")


def _modes(state: Path) -> Iterator[Finding]:
    for path in (state, state / identity.KEY.parent, state / identity.SAFETY.parent):
        if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o022:
            yield Finding(CHECK, "fail", f"{path} can be changed by others (mode {mode:04o})", f"chmod go-w {path}")
    for path in (state / name for name in SECRETS):
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield Finding(
                CHECK,
                "fail",
                f"{path} can be read by others (mode {mode:04o}, expected {PRIVATE_MODE:04o})",
                f"chmod 600 {path}, and consider it stolen",
            )


def _owners(subject: Subject) -> Iterator[Finding]:
    # What root has renewed, such as a certificate, may be root's; the node only has to read it.
    owner = subject.probes.owner(subject.state)
    for path in sorted(subject.state.glob("*/*")):
        if path.parent.name in ("identity", "safety") and subject.probes.owner(path) != owner and not path.stat().st_mode & stat.S_IROTH:
            name = subject.probes.user(owner)
            yield Finding(CHECK, "fail", f"{path} belongs to another user than {name}, who cannot read it", f"chown {name} {path}")


def _strays(state: Path) -> Iterator[Finding]:
    known = {state / name for name in SECRETS}
    for path in sorted({*state.glob("*.key"), *(state / "identity").glob("*.key")} - known):
        yield Finding(
            CHECK, "warn", f"{path} is no key of the node's", "keep owners' and authors' keys away from it: whoever has the node has them"
        )
