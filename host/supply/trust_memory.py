"""What a node remembers of the trust metadata it has seen, beside the metadata: how late it was, and which versions they were.

A clock that is set back must not make expired metadata valid again, and a file lost in a power cut must not let an older one in. Rules:

- The time that counts is the later of the clock's and the highest remembered.
- At most the expiry of the timestamp at hand is remembered as time. So a clock that ran a year ahead for a minute makes what is here
  expire, and no more: the next timestamp that the repository signs is later, and is taken.
- The versions hold for as long as the keys of timestamp and snapshot stay: after their rotation the repository may count anew
  (TUF specification 1.0.31, section 5.3.11).
"""

import hashlib
from pathlib import Path

import msgspec
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from host.core import files
from host.core.errors import Replayed

FILE = "seen.json"


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    time_s: int = 0
    keys: str = ""
    timestamp: int = 0
    snapshot: int = 0


class TrustMemory:
    """One file beside the metadata. What cannot be read counts as never written: the metadata itself still refuses to go back."""

    def __init__(self, directory: Path, metadata: Path) -> None:
        self._path, self._metadata = directory / FILE, metadata
        try:
            self._seen = msgspec.json.decode(self._path.read_bytes(), type=_Seen)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            self._seen = _Seen()

    def now_s(self, clock_s: int) -> int:
        """The time that counts, in Unix seconds."""
        return max(clock_s, self._seen.time_s)

    def note_time(self, clock_s: int) -> None:
        """Remembers the clock's time, as far as the timestamp at hand reaches."""
        try:
            expires_s = int(Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json")).signed.expires.timestamp())
        except Exception:  # there is none yet, or it was damaged: nothing is at hand that could expire
            return
        self._keep(msgspec.structs.replace(self._seen, time_s=max(self._seen.time_s, min(clock_s, expires_s))))

    def note_versions(self) -> None:
        """Called when timestamp and snapshot have been verified. Raises Replayed where they are older than those seen before."""
        keys = self._key_set()
        timestamp = Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json")).signed.version
        snapshot = Metadata[Snapshot].from_file(str(self._metadata / "snapshot.json")).signed.version
        known = self._seen if self._seen.keys == keys else _Seen()
        for name, found, seen in (("timestamp", timestamp, known.timestamp), ("snapshot", snapshot, known.snapshot)):
            if found < seen:
                raise Replayed(
                    f"trust metadata: {name} version {found} is older than {seen}, which this node has seen; is the repository an old copy?"
                )
        self._keep(_Seen(self._seen.time_s, keys, timestamp, snapshot))

    def _key_set(self) -> str:
        """Which keys sign timestamp and snapshot, as one digest."""
        root = Metadata[Root].from_file(str(self._metadata / "root.json")).signed
        named = [(role, sorted(root.roles[role].keyids)) for role in (Timestamp.type, Snapshot.type)]
        return hashlib.sha256(msgspec.json.encode(named)).hexdigest()

    def _keep(self, seen: _Seen) -> None:
        if seen != self._seen:
            files.write_atomic(self._path, msgspec.json.encode(seen))
            self._seen = seen
