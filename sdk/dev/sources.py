"""Notices that a skill's folder changed: by size and time of its files, looked at a few times a second. What a build makes is left out."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from host.core.errors import UsageError

FILES_MAX = 20_000
LEFT_OUT = frozenset(("node_modules", "__pycache__", "target", "zig-out", "build"))
OUTPUT = (".wasm", "~", ".swp", ".tmp")
SETTLED_S = 0.15
"""An editor writes a file in steps, and a checkout many: what changed within this time is waited for."""
SETTLING_S_MAX = 5.0


class Sources:
    """The files of one folder. `changed` compares with the last time that it was true, or asked first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self.state()

    def changed(self) -> bool:
        """Whether something is different since the last time. Waits until nothing changes any more."""
        now = self.state()
        if now == self._seen:
            return False
        until = time.monotonic() + SETTLING_S_MAX
        while time.monotonic() < until:
            time.sleep(SETTLED_S)
            before, now = now, self.state()
            if before == now:
                break
        self._seen = now
        return True

    def state(self) -> bytes:
        """A digest of names, sizes and times. Raises UsageError for a folder with more files than a skill has."""
        found = hashlib.sha256()
        for number, (path, entry) in enumerate(self._files()):
            if number >= FILES_MAX:
                raise UsageError(f"{self._folder}: more than {FILES_MAX} files; this looks like no skill's folder")
            found.update(f"{path}\0{entry.st_size}\0{entry.st_mtime_ns}\0{entry.st_ino}\n".encode(errors="surrogateescape"))
        return found.digest()

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder, folders, names in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or name.endswith(OUTPUT):
                    continue
                try:
                    path = Path(folder) / name
                    yield str(path), path.stat()
                except OSError:
                    continue  # it is being replaced; the next look sees what came of it
