"""What is done with a node's calls beside answering them, where its owner wants it: records of a sample, a sample for auditors, and auditing itself.

Nothing of it is loaded on a node whose owner said nothing under [record] and [audit].
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.core.errors import SnapcountError
from host.meshlink import MeshLink
from host.node import Node

if TYPE_CHECKING:
    from host.auditing import Auditor, Sender
    from host.core.pace import Pace
    from host.plugins.adapter import SkillVersion
    from host.plugins.conflict import Conflict
    from host.plugins.observed import Call
    from host.supply.calls import CallJournal
    from host.supply.sampling import Sampler


class Recording:
    """One node's. Made before its mesh starts, on the event loop; `stop` ends it, from any thread."""

    def __init__(self, node: Node, state: Path, mesh: MeshLink) -> None:
        self._node, self._mesh, self._loop = node, mesh, asyncio.get_running_loop()
        self._journal: CallJournal | None = None
        self._removes: list[Callable[[], None]] = []
        self._recorder: Sampler | None = None
        self._sampler: Sampler | None = None
        self._sender: Sender | None = None
        self._auditor: Auditor | None = None
        self.away = 0
        """Calls and conflicts that could not be sent, because the mesh was away."""
        try:
            self._begin(state)
        except BaseException:
            self.stop()  # what began before goes on otherwise
            raise

    def _begin(self, state: Path) -> None:
        record, audit = self._node.config.record, self._node.config.audit
        if record.sample or audit.auditor:
            self._open(state, record.bytes_max)
        if record.sample:
            self._recorder = self._sample(record.sample, record.skills, self._write)
        if audit.sample:
            self._begin_sending()
        if audit.auditor:
            self._begin_auditing(state)

    def status(self) -> dict[str, Any]:
        """For people and `--json`."""
        sent = None if self._sampler is None or self._sender is None else self._sampler.status() | {"too_large": self._sender.too_large}
        return {
            "record": None if self._recorder is None else self._recorder.status(), "sent": sent, "away": self.away,
            "journal": None if self._journal is None else self._journal.status(), "auditor": None if self._auditor is None else self._auditor.status(), "observer_failures": self._node.manager.observers.failures,
        }  # fmt: skip

    def stop(self) -> None:
        """Takes no more calls, writes what waits, and closes."""
        for remove in self._removes:
            remove()
        for part in (self._recorder, self._sampler, self._auditor):
            if part is not None:
                part.stop()
        if self._journal is not None:
            self._journal.close()

    def _open(self, state: Path, bytes_max: int) -> None:
        from host.supply.calls import CallJournal

        self._journal = CallJournal(state, bytes_max, self._node.name)

    def _begin_sending(self) -> None:
        from host.auditing import Sender
        from host.core.pace import Pace

        audit = self._node.config.audit
        self._sender = Sender(self._node.name, self._send_record)
        self._sampler = self._sample(audit.sample, audit.skills, self._sender.take, Pace(audit.calls_per_s, time.monotonic))

    def _sample(
        self, sample: float, skills: tuple[str, ...], take: "Callable[[list[Call]], None]", pace: "Pace | None" = None
    ) -> "Sampler":
        from host.supply.sampling import Sampler

        sampler = Sampler(sample, skills, self._node.random, take, self._node.log, pace=pace, on_trial=self._on_trial)
        self._removes.append(self._node.manager.observe(sampler.told, sampler.wants))
        return sampler

    def _write(self, calls: "list[Call]") -> None:
        from host.plugins.record import encode

        assert self._journal is not None, "what records has a journal"
        encoded = []
        for call in calls:
            try:
                encoded.append(encode(self._node.name, call))
            except SnapcountError as error:
                self._node.log("warning", f"a call was not recorded: {error}")
        self._journal.add(encoded)

    def _begin_auditing(self, state: Path) -> None:
        from host.auditing import Auditor, loader
        from host.mesh.raised import AUDITED_CALL

        node = self._node
        assert self._journal is not None, "an auditor has a journal"
        self._auditor = Auditor(
            node.name, lambda: node.manager.skills, node.config.audit.compare, loader(state, node.random), self._journal, self._say, node.log,
            node.clock.now_ms, on_trial=self._on_trial,
        )  # fmt: skip
        self._mesh.takes[AUDITED_CALL] = self._auditor.take

    def _on_trial(self, version: "SkillVersion") -> bool:
        return self._node.installer.on_trial(version.name) is version

    # Onto the mesh, from threads of their own.

    def _send_record(self, data: bytes) -> None:
        from host.auditing import AUDITED_MS
        from host.mesh.raised import AUDITED_CALL

        letter = {"topic": AUDITED_CALL, "targets": self._node.config.audit.send_to, "payload": data, "priority": 0, "ttl_ms": AUDITED_MS}
        self._loop.call_soon_threadsafe(self._send, letter, True)

    def _say(self, conflict: "Conflict") -> None:
        from host.auditing import payload
        from host.mesh.raised import CONFLICT_RAISED, RAISED_MS

        letter = {"topic": CONFLICT_RAISED, "targets": (self._node.name,), "payload": payload(conflict), "priority": 2, "ttl_ms": RAISED_MS}
        self._loop.call_soon_threadsafe(self._send, letter, False)

    def _send(self, letter: dict[str, Any], only_now: bool) -> None:
        """On the event loop. What is to be sent only now is not kept for a parent that is away."""
        from host.mesh_routes import Letter, send

        peer = self._mesh.peer
        if peer is None or peer.uplink is None or (only_now and not peer.uplink.connected):
            self.away += 1
            return
        try:
            send(peer, Letter(verb="record", **letter))
        except SnapcountError as error:
            self.away += 1
            self._node.log("warning", f"{letter['topic']} was not sent: {error}")


def recording(node: Node, state: Path, mesh: MeshLink) -> Recording | None:
    """What the owner of this node wants done with its calls; None where that is nothing, or cannot be: a node does its work without."""
    if not (node.config.record.sample or node.config.audit.sample or node.config.audit.auditor):
        return None
    try:
        return Recording(node, state, mesh)
    except SnapcountError as error:
        node.log("error", f"{node.name}: no calls are recorded or audited: {error}")
        return None
