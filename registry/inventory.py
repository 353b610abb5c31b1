"""The fleet as it is kept on disk: who there is, what each node runs and can run, and when it was last heard of. A restart forgets nobody who is away.

Who may speak for a node is checked before (registry/fleet.py). Writing is left to the caller's transaction, so that a thousand hellos are one commit: what a
kill loses of it, the next hello says again.
"""

import sqlite3

import msgspec

from host.core.errors import StateDamaged, TooLarge
from host.core.fleet import Hello, Progress
from host.core.limits import DEFAULT
from registry.database import Database

FORGOTTEN_MS = 90 * 86_400_000
ABI_MAX, SERIAL_MAX = 65_535, 1 << 53
"""CBOR carries larger integers than a database keeps; a node that sends them must not stop the others."""


class Known(msgspec.Struct, frozen=True):
    """One node. `skills` maps a skill's name to version and digest; `serial` is that of the desired state it said it holds."""

    node: str
    generation: int
    sector: str = ""
    key: bytes = b""
    host: str = ""
    host_version: str = ""
    abi: tuple[int, ...] = (1,)
    capabilities: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    skills: dict[str, tuple[str, str]] = {}
    serial: int = 0
    seen_ms: int = 0
    operated: bool = True


class Inventory:
    """`known` by name, and the names that are `online` now. After a start nobody is online until its hello."""

    def __init__(self, database: Database, nodes_max: int = DEFAULT.inventory_nodes_max) -> None:
        self._nodes_max = nodes_max
        self.known: dict[str, Known] = {}
        self.online: set[str] = set()
        self._dirty: dict[str, None] = {}
        decoder = msgspec.msgpack.Decoder(Known)
        try:
            with database.reading() as db:
                for (row,) in db.execute("SELECT row FROM inventory"):
                    known = decoder.decode(row)
                    self.known[known.node] = known
        except msgspec.DecodeError as error:
            raise StateDamaged(f"inventory: a row cannot be read ({error}); restore the database from a backup") from error

    def seen(self, hello: Hello, now_ms: int, key: bytes = b"") -> Known:
        """Takes a hello. Where there are too many nodes, a new one takes the place of one that has been away for 90 days; else raises TooLarge."""
        if hello.node not in self.known and len(self.known) >= self._nodes_max:
            self._make_room(hello.node, now_ms)
        return self._keep(Known(
            hello.node, hello.generation, hello.sector, key, hello.host, hello.host_version,
            tuple(abi for abi in hello.abi if 0 < abi <= ABI_MAX), hello.capabilities, hello.features,
            {skill.name: (skill.version, skill.digest) for skill in hello.skills}, min(hello.serial, SERIAL_MAX), now_ms,
            hello.operated,
        ), online=True)  # fmt: skip

    def report(self, progress: Progress, now_ms: int) -> Known | None:
        """Takes a report: a version that is active is what the node runs. None for a node that has not said hello."""
        known = self.known.get(progress.node)
        if known is None:
            return None
        skills = known.skills
        if progress.state == "active" and skills.get(progress.name) != (progress.version, progress.digest):
            skills = skills | {progress.name: (progress.version, progress.digest)}
        if skills is known.skills:
            return known
        return self._keep(msgspec.structs.replace(known, skills=skills, seen_ms=now_ms), online=progress.node in self.online)

    def gone(self, node: str, now_ms: int) -> None:
        """The node's link has ended."""
        known = self.known.get(node)
        self.online.discard(node)
        if known is not None:
            self._keep(msgspec.structs.replace(known, seen_ms=now_ms), online=False)

    def flush(self, db: sqlite3.Connection) -> None:
        """Writes what has changed since `flushed`."""
        encode = msgspec.msgpack.Encoder().encode
        rows = [(node, encode(self.known[node])) for node in self._dirty if node in self.known]
        db.executemany("INSERT OR REPLACE INTO inventory (node, row) VALUES (?, ?)", rows)
        db.executemany("DELETE FROM inventory WHERE node = ?", [(node,) for node in self._dirty if node not in self.known])

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to flush."""
        return bool(self._dirty)

    def flushed(self) -> None:
        """The caller has committed."""
        self._dirty.clear()

    def _make_room(self, node: str, now_ms: int) -> None:
        away = min((known for known in self.known.values() if known.node not in self.online), key=lambda known: known.seen_ms, default=None)
        if away is None or now_ms - away.seen_ms < FORGOTTEN_MS:
            raise TooLarge(f"{node}: this registry knows {len(self.known)} nodes, none of them away for long, and takes no new names")
        del self.known[away.node]
        self._dirty[away.node] = None

    def _keep(self, known: Known, *, online: bool) -> Known:
        self.known[known.node] = known
        self._dirty[known.node] = None
        if online:
            self.online.add(known.node)
        return known
