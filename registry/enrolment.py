"""Which nodes a roll-out has, and what each of them goes back to: at its start, and when one says hello that did not belong to it before."""

from collections.abc import Collection, Iterable

from host.core.fleet import Digest
from registry.assignments import Assignments
from registry.compat import excludes
from registry.inventory import Known
from registry.releases import Releases
from registry.rollout_document import Release, Rollout
from registry.rollout_events import Enrol
from registry.rollout_turn import State
from registry.roster import Member
from registry.selection import selects


class Enrolment:
    """Makes members of nodes."""

    def __init__(self, releases: Releases, assignments: Assignments) -> None:
        self._releases, self._assignments = releases, assignments

    def begin(self, document: Rollout, nodes: Iterable[Known], online: Collection[str]) -> Enrol:
        """Those that were found eligible, as the roll-out begins."""
        asked = self._assignments.wanted_of(document.name)
        return self._enrol(document, ((known, known.node in asked, asked.get(known.node)) for known in nodes), online)

    def newcomers(self, state: State, said_hello: Iterable[Known], online: Collection[str]) -> Enrol | None:
        """Those of the nodes that belong to the roll-out from now on, None for nobody."""
        document = state.document
        held = self._releases.get(document.digest)
        new = [known for known in said_hello if known.node not in state.roster]
        if held is None or not new:
            return None
        fitting = [
            (known, *self._assignments.asked_of(known.node, document.name)) for known in new
            if selects(document.selection, known.node, known.generation, known.sector, known.capabilities)
            and not excludes(held.manifest, document.digest, known, self._releases.manifest, document.previous)
        ]  # fmt: skip
        return self._enrol(document, fitting, online) if fitting else None

    def _enrol(self, document: Rollout, nodes: Iterable[tuple[Known, bool, Release | None]], online: Collection[str]) -> Enrol:
        members: dict[str, Member] = {}
        releases: dict[str, Release] = {}
        for known, was_asked, asked in nodes:
            runs = known.skills.get(document.name, ("", ""))[1]
            # What it was asked to run says more than what it ran when it went away: that may have been rolled back since.
            # Unless that is this very version, which its owner declined.
            declined = asked is not None and asked.digest == document.digest != runs
            before = asked if was_asked and not declined else self._release(document, runs)
            if before is not None:
                releases.setdefault(before.digest, before)
            members[known.node] = Member(
                known.generation, known.sector, before.digest if before else "", known.node in online,
                phase="active" if runs == document.digest and known.node in online else "waiting", seen_ms=known.seen_ms,
            )  # fmt: skip
        return Enrol(members, releases)

    def _release(self, document: Rollout, digest: Digest) -> Release | None:
        if not digest:
            return None
        held = self._releases.get(digest)
        if held is None:
            return document.previous
        return Release(version=held.manifest.version, digest=digest, size=held.size, lane=document.lane)
