"""The node that is looked over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host import config
from host.config import NodeConfig
from host.core.errors import SnapcountError
from host.doctor.finding import Finding
from host.doctor.probes import Probes, Running

CHECK = "config"


@dataclass(frozen=True)
class Subject:
    """A state directory whose node.toml is sound, and the machine that it is on. `offline` asks no other; `deep` opens what it looks at."""

    state: Path
    settings: NodeConfig
    probes: Probes
    running: Running | None
    offline: bool = False
    deep: bool = False

    @property
    def is_tier(self) -> bool:
        """Whether other nodes connect to it."""
        return self.settings.mesh.role not in ("", "agent")


def load(state: Path, probes: Probes, *, offline: bool = False, deep: bool = False) -> Subject:
    """Raises SnapcountError where there is no node.toml that a node could run with, its keys included."""
    settings = config.load(state)
    _ = settings.owner, settings.authors, settings.operators, settings.authorities  # parsed when they are asked for
    return Subject(state, settings, probes, probes.running(state), offline, deep)


def check(state: Path, subject: Subject | SnapcountError) -> Iterator[Finding]:
    """Whether there is a node at all."""
    if isinstance(subject, SnapcountError):
        do = "correct it" if (state / config.FILE).exists() else f"make the node with `snapcount node init --state {state}`"
        yield Finding(CHECK, "fail", str(subject), do)
        return
    running = f"runs, pid {subject.running.pid}" if subject.running else "does not run"
    yield Finding(CHECK, "ok", f"{state}: {subject.settings.node.name}, generation {subject.settings.node.generation}, {running}")
