"""Deltas: a patch is a Zstandard frame (RFC 8878) that was compressed with the base as its dictionary, so decompressing it with that base gives the whole.

A patch is a blob from outside like any other. What it makes is allocated only after its head announced exactly the size that was asked for, so nothing expands
beyond that, and is believed only by its digest. Anything that is wrong with it costs a fetch of the whole, and is reported.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Protocol

from host.core.desired import Wanted
from host.core.errors import DigestMismatch, MalformedData, SnapcountError, TooLarge
from host.core.limits import DEFAULT

# A window that spans the largest base and the largest bundle, rounded up to a power of two.
WINDOW_BYTES_MAX = 4 * DEFAULT.bundle_bytes_max


class BlobSource(Protocol):
    """What fetches blobs: a `Fetcher`, or a `Relay` where a node has children."""

    report: Callable[[str, str], None]

    async def fetch(self, digest: str, size: int | None = None) -> bytes: ...


def apply(base: bytes, patch: bytes, digest: str, size: int) -> bytes:
    """The `size` bytes with this digest, from a base and a patch against it. Needs `size` bytes of memory beyond its arguments.

    Raises TooLarge for another size than that, MalformedData for what is no patch against this base, DigestMismatch.
    """
    import zstandard  # with the first patch

    what = f"patch for {digest[:19]}…"
    if size > DEFAULT.bundle_bytes_max or len(base) > DEFAULT.bundle_bytes_max:
        raise TooLarge(f"{what}: at most {DEFAULT.bundle_bytes_max} bytes, {size} are announced against a base of {len(base)}")
    try:
        head = zstandard.get_frame_parameters(patch)
        if head.content_size != size:
            raise TooLarge(f"{what}: expected one that makes {size} bytes, its head does not say so")
        dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=WINDOW_BYTES_MAX)
        made = decompressor.decompress(patch, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedData(f"{what}: not a Zstandard frame against this base: {error}") from error
    found = f"sha256:{hashlib.sha256(made).hexdigest()}"
    if found != digest:
        raise DigestMismatch(f"{what}: it makes {found}")
    return made


async def obtain(source: BlobSource, wanted: Wanted, have: Callable[[str], bytes | None]) -> bytes:
    """The bundle that is wanted: by the smallest patch against a base that this node has, else whole. `have(digest)` is called from a thread.

    Raises as `Fetcher.fetch`; whatever is wrong with a patch is only reported.
    """
    for patch in sorted(wanted.patches, key=lambda patch: patch.size):
        if patch.size >= wanted.size:
            break
        base = await asyncio.to_thread(have, patch.base)
        if base is None:
            continue
        try:
            delta = await source.fetch(patch.digest, patch.size)
            return await asyncio.to_thread(apply, base, delta, wanted.digest, wanted.size)
        except SnapcountError as error:
            source.report(
                "", f"{wanted.name} {wanted.version}: the patch {patch.digest[:19]}… is of no use, so all of it is fetched: {error}"
            )
            break
    return await source.fetch(wanted.digest, wanted.size)
