"""The operator's trust folder: what is published, what waits for signatures, and the registry's own keys.

```
DIR/trust/metadata/   N.root.json, N.targets.json, N.safety.json, N.productivity.json, N.snapshot.json, timestamp.json
DIR/trust/pending/    ROLE.json: a change that waits for signatures; it may travel
DIR/trust/online/     *.key (0600): the keys of snapshot and timestamp
```
"""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey
from tuf.api.metadata import Metadata, Root, Targets

from host.core import files, keys
from host.core.errors import StateDamaged, UsageError
from registry.trust import pending
from registry.trust.pending import Pending
from registry.trust.roles import FOLDER, METADATA, OFFLINE, ROOT, TARGETS, TIMESTAMP
from registry.trust.signer import key_id


class TrustRepository:
    """Reads and writes the folder. Who changes something holds `lock` meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / FOLDER
        self.metadata = self.folder / METADATA
        self.online = self.folder / "online"

    def lock(self) -> AbstractContextManager[None]:
        """One process at a time; waits for the other."""
        return files.locked(self.folder, "trust metadata", ".lock")

    def path(self, role: str, version: int) -> Path:
        """Where this version of a role is published."""
        return self.metadata / (f"{role}.json" if role == TIMESTAMP else f"{version}.{role}.json")

    def newest(self, role: str) -> int:
        """The newest version there is; 0 for none."""
        found = self.current(role) if role == TIMESTAMP else None
        if found is not None:
            return int(found.signed.version)
        pattern = re.compile(rf"([1-9][0-9]{{0,9}})\.{role}\.json\Z")
        names = (pattern.match(path.name) for path in self.metadata.glob(f"*.{role}.json"))
        return max((int(match[1]) for match in names if match), default=0)

    def raw(self, role: str) -> bytes | None:
        """The bytes of the newest version, None where there is none."""
        version = 0 if role == TIMESTAMP else self.newest(role)
        path = self.path(role, version)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateDamaged(f"{path}: cannot be read: {error.strerror}") from error

    def current(self, role: str) -> Metadata[Any] | None:
        """The newest version, None where there is none."""
        raw = self.raw(role)
        if raw is None:
            return None
        try:
            return Metadata.from_bytes(raw)
        except Exception as error:
            raise StateDamaged(
                f"{self.metadata}: the newest {role} is not TUF metadata; bring it back from a copy of this folder"
            ) from error

    def root(self) -> Root:
        """The published root. Raises UsageError before the ceremony is done."""
        signed = self._published(ROOT)
        assert isinstance(signed, Root)
        return signed

    def targets(self) -> Targets:
        """The published targets, with the keys of the lanes."""
        signed = self._published(TARGETS)
        assert isinstance(signed, Targets)
        return signed

    def _published(self, role: str) -> Any:
        found = self.current(role)
        if found is None:
            raise UsageError(
                f"{self.folder}: no {role} is published here yet; `snapcount keys ceremony` begins, `snapcount keys status` says what is missing"
            )
        return found.signed

    def publish(self, role: str, metadata: Metadata[Any]) -> None:
        files.write_atomic(self.path(role, metadata.signed.version), metadata.to_bytes())

    def pending_path(self, role: str) -> Path:
        return self.folder / "pending" / f"{role}.json"

    def pending(self, role: str) -> Pending | None:
        path = self.pending_path(role)
        return pending.load(path) if path.exists() else None

    def all_pending(self) -> list[Pending]:
        return [found for role in OFFLINE if (found := self.pending(role)) is not None]

    def drop(self, role: str) -> None:
        """Forgets a pending change."""
        self.pending_path(role).unlink(missing_ok=True)

    def online_keys(self) -> dict[str, SigningKey]:
        """The registry's own keys, by TUF key id."""
        found = [keys.load(path) for path in sorted(self.online.glob("*.key"))]
        return {key_id(key.verify_key): key for key in found}
