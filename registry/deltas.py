"""Makes deltas: for a bundle and those that nodes have of it, patches of which an author knows nothing.

A patch is a Zstandard frame (RFC 8878) with the older bundle as its dictionary; host/supply/delta.py applies it. It is a blob like any other, and the same bytes
every time it is made.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from host.core.desired import Patch
from host.core.errors import StateDamaged
from host.core.limits import DEFAULT

LEVEL = 19
WINDOW_LOG_MIN = 10
PATCHES_MAX = 8  # as many as a desired state names for one skill
CACHED_MAX = 4096
INDEXED_BYTES = 16 << 20


def make_patch(base: bytes, new: bytes) -> bytes:
    """What makes `new` of `base`. The window spans both, so that any byte of the base can be referred to from any of the new one."""
    # zstd indexes 8 bytes of a dictionary for each cell of its table: with its own choice, the last 16 MiB.
    reach = {"hash_log": (len(base) // 8).bit_length()} if len(base) > INDEXED_BYTES else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, **reach, source_size=len(new), window_log=max((len(base) + len(new)).bit_length(), WINDOW_LOG_MIN), enable_ldm=True, threads=0,
        write_content_size=True, write_checksum=False, write_dict_id=False,
    )  # fmt: skip
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new)


class DeltaMaker:
    """Makes patches once each. `path_of(digest)` is where a bundle is, `put(patch, bundle)` keeps a patch where
    the bundle with that digest is, for those who may pull it; both are called from a thread."""

    def __init__(self, path_of: Callable[[str], Path], put: Callable[[bytes, str], object]) -> None:
        self._path_of, self._put = path_of, put
        self._made: OrderedDict[tuple[str, str], Patch | None] = OrderedDict()
        self._making = threading.Lock()  # one at a time: it takes a core

    async def patches(self, old: Iterable[str], new: str) -> tuple[Patch, ...]:
        """As `make`, off the event loop."""
        return await asyncio.to_thread(self.make, old, new)

    def make(self, old: Iterable[str], new: str) -> tuple[Patch, ...]:
        """A patch from each of `old` (the digests that nodes have, the most common first) to `new` that is smaller than the whole; 8 at most.

        An old bundle that is not here any more has none. Raises StateDamaged where the new one is missing or altered, StorageFull.
        """
        found: list[Patch] = []
        for base in dict.fromkeys(old):
            if len(found) == PATCHES_MAX:
                break
            if base != new and (patch := self._patch(base, new)) is not None:
                found.append(patch)
        return tuple(found)

    @property
    def digests(self) -> frozenset[str]:
        """The patches that were made and may still be asked for: what a registry that cleans up leaves alone."""
        with self._making:
            return frozenset(patch.digest for patch in self._made.values() if patch is not None)

    def _patch(self, base: str, new: str) -> Patch | None:
        with self._making:
            known = self._made.get((base, new))
            if (base, new) not in self._made or (known is not None and not self._path_of(known.digest).exists()):
                known = self._made[base, new] = self._fresh(base, new)
                while len(self._made) > CACHED_MAX:
                    self._made.popitem(last=False)
            return known

    def _fresh(self, base: str, new: str) -> Patch | None:
        whole = self._read(new)
        try:
            data = make_patch(self._read(base), whole)
        except StateDamaged:  # no base, no patch: those nodes fetch the whole
            return None
        if len(data) >= len(whole):
            return None
        self._put(data, new)
        return Patch(base=base, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))

    def _read(self, digest: str) -> bytes:
        try:
            with self._path_of(digest).open("rb") as file:
                data = file.read(DEFAULT.bundle_bytes_max + 1)
        except OSError as error:
            raise StateDamaged(f"{digest[:19]}…: cannot be read: {error.strerror}") from error
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise StateDamaged(f"{digest[:19]}…: its bytes in this registry were altered; upload it again")
        return data
