"""Whether a fleet can take a version, computed before the first byte moves: who is meant, who is excluded and why, and what blocks it for all."""

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from host.core.errors import MalformedData
from host.core.manifest import Manifest, version_key
from host.core.text import safe
from registry.inventory import Known
from registry.negotiation import MAJORS_BEHIND_MAX, Agreed, major, negotiate
from registry.rollout_document import Release, Selection
from registry.selection import selects

ManifestOf = Callable[[str], Manifest | None]
"""The manifest of a bundle that the registry holds, by digest."""
NAMES_SHOWN = 5


class Excluded(msgspec.Struct, frozen=True):
    """A node that is meant but cannot take the version. `reason` is the same text for all nodes of one kind, so that they can be counted together."""

    node: str
    generation: int
    sector: str
    code: str
    reason: str


class Group(msgspec.Struct, frozen=True):
    """Excluded nodes of one reason; `names` are the first of them."""

    code: str
    reason: str
    nodes: int
    generations: tuple[int, ...]
    sectors: int
    names: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """`fleet` nodes are known, `selected` are meant, `eligible` can take it. What stands in `blocked` stops the roll-out for all."""

    name: str
    version: str
    digest: str
    fleet: int
    selected: int
    eligible: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    blocked: tuple[str, ...]
    messages: tuple[Agreed, ...]
    notes: tuple[str, ...]

    def groups(self) -> tuple[Group, ...]:
        """The excluded by reason, the largest group first."""
        kinds: dict[tuple[str, str], list[Excluded]] = {}
        for excluded in self.excluded:
            kinds.setdefault((excluded.code, excluded.reason), []).append(excluded)
        made = (
            Group(
                code, reason, len(nodes), tuple(sorted({n.generation for n in nodes})), len({n.sector for n in nodes}),
                tuple(n.node for n in nodes[:NAMES_SHOWN]),
            )
            for (code, reason), nodes in kinds.items()
        )  # fmt: skip
        return tuple(sorted(made, key=lambda group: (-group.nodes, group.reason)))

    def as_dict(self) -> dict[str, object]:
        """For JSON: counts and groups, not every node."""
        shown = {
            field: msgspec.to_builtins(getattr(self, field))
            for field in ("name", "version", "digest", "fleet", "selected", "blocked", "messages", "notes")
        }
        return shown | {
            "eligible": len(self.eligible), "excluded": len(self.excluded), "groups": [msgspec.to_builtins(group) for group in self.groups()],
            "possible": bool(self.eligible) and not self.blocked,
        }  # fmt: skip


def check(
    manifest: Manifest, digest: str, selection: Selection, fleet: Iterable[Known], manifest_of: ManifestOf, previous: Release | None = None
) -> Report:
    """`previous` is what a node goes back to where the registry does not hold what it runs."""
    nodes = sorted(fleet, key=lambda known: known.node)
    meant = [known for known in nodes if selects(selection, known.node, known.generation, known.sector, known.capabilities)]
    eligible: list[str] = []
    excluded: list[Excluded] = []
    holds: dict[str, bool] = {}
    for known in meant:
        problem = _first_problem(manifest, known) or _no_way_back(manifest, digest, known, manifest_of, previous, holds)
        if problem:
            excluded.append(Excluded(known.node, known.generation, known.sector, *problem))
        else:
            eligible.append(known.node)
    messages, blocked, notes = _negotiated(manifest, digest, nodes, manifest_of)
    if not eligible:
        blocked = (*blocked, "no node that is selected can take it")
    return Report(
        manifest.name, manifest.version, digest, len(nodes), len(meant), tuple(eligible), tuple(excluded), blocked, messages, notes
    )


def excludes(manifest: Manifest, digest: str, known: Known, manifest_of: ManifestOf, previous: Release | None) -> str:
    """Why this one node cannot take it; empty when it can."""
    problem = _first_problem(manifest, known) or _no_way_back(manifest, digest, known, manifest_of, previous, {})
    return problem[1] if problem else ""


def _first_problem(manifest: Manifest, known: Known) -> tuple[str, str] | None:
    """Code and reason of the first thing that this node lacks."""
    if not known.operated:
        return "operators", "its owner names no operators ([trust] in node.toml), so it takes no desired state"
    if manifest.generations and known.generation not in manifest.generations:
        runs_on = ", ".join(map(str, sorted(manifest.generations)))
        return "generation", f"generation {known.generation}: the bundle is for {runs_on}"
    if manifest.abi not in known.abi:
        offered = ", ".join(map(str, sorted(known.abi))) or "none"
        return "abi", f"the bundle needs ABI {manifest.abi}, the host has {offered}: update the host"
    if manifest.host_min is not msgspec.UNSET and not _at_least(known.host_version, manifest.host_min):
        return (
            "host",
            f"host {safe(known.host_version, 64) or 'of unknown version'}: {manifest.host_min} or newer is needed: update the host",
        )
    denied = sorted(set(manifest.capabilities) - set(known.capabilities))
    if denied:
        return "capability", f"its owner does not allow {', '.join(denied)}"
    lacking = sorted(set(manifest.features or ()) - set(known.features))
    if lacking:
        return "feature", f"its host does not have the feature {', '.join(lacking)}"
    return _version_problem(manifest, known)


def _version_problem(manifest: Manifest, known: Known) -> tuple[str, str] | None:
    runs = known.skills.get(manifest.name)
    if runs is None:
        return None
    version = runs[0]
    if version_key(version) > version_key(manifest.version):
        return "newer", f"runs {version}, which is newer than {manifest.version}"
    if major(manifest.version) - major(version) > MAJORS_BEHIND_MAX:
        step = major(version) + MAJORS_BEHIND_MAX
        return (
            "too-far-behind",
            f"runs {version}, more than {MAJORS_BEHIND_MAX} major versions behind {manifest.version}: bring it to {step}.x first",
        )
    return None


def _no_way_back(
    manifest: Manifest, digest: str, known: Known, manifest_of: ManifestOf, previous: Release | None, holds: dict[str, bool]
) -> tuple[str, str] | None:
    runs = known.skills.get(manifest.name)
    if runs is None or previous is not None or runs[1] == digest:
        return None
    if runs[1] not in holds:
        holds[runs[1]] = manifest_of(runs[1]) is not None
    if holds[runs[1]]:
        return None
    return "no-way-back", f"runs {runs[0]} {runs[1][:19]}…, which this registry does not hold, and the document names no previous version"


def _negotiated(
    manifest: Manifest, digest: str, nodes: Iterable[Known], manifest_of: ManifestOf
) -> tuple[tuple[Agreed, ...], tuple[str, ...], tuple[str, ...]]:
    """With every version that is active in the fleet while the roll-out runs: messages, what blocks, notes."""
    running = Counter(known.skills[manifest.name] for known in nodes if manifest.name in known.skills)
    beside: list[Manifest] = []
    notes: list[str] = []
    for (version, active), count in sorted(running.items()):
        if active == digest or major(manifest.version) - major(version) > MAJORS_BEHIND_MAX:
            continue
        held = manifest_of(active)
        if held is None:
            notes.append(f"{count} node(s) run {version}, whose manifest this registry does not hold: nothing was negotiated with it")
        else:
            beside.append(held)
    messages = negotiate(manifest, beside)
    blocked = tuple(
        f"message {m.name}: {manifest.version} has no version in common with {', '.join(m.without)}, which stays active beside it"
        for m in messages
        if m.without
    )
    notes += [
        f"message {m.name}: only {manifest.version} speaks it; it cannot be used until every node does" for m in messages if m.only_new
    ]
    return messages, blocked, tuple(notes)


def _at_least(version: str, minimum: str) -> bool:
    try:
        return version_key(version) >= version_key(minimum)
    except MalformedData:
        return False


def lines(report: Report) -> list[str]:
    """The report as people read it."""
    shown = [
        f"{report.name} {report.version}: {len(report.eligible)} of {report.selected} selected nodes can take it ({report.fleet} in the fleet)"
    ]
    shown += [f"BLOCKED: {reason}" for reason in report.blocked]
    for group in report.groups():
        generations = ", ".join(map(str, group.generations))
        more = f" and {group.nodes - len(group.names)} more" if group.nodes > len(group.names) else ""
        shown.append(f"excluded: {group.nodes} node(s) of generation {generations}: {group.reason} ({', '.join(group.names)}{more})")
    shown += [f"message {m.name}: all speak version {m.version}" for m in report.messages if m.version]
    shown += [f"note: {note}" for note in report.notes]
    return shown
