"""The boundary to python-tuf: what it raises, as errors of the one tree."""

from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api import exceptions as tuf

from host.core import files
from host.core.errors import (
    DigestMismatch,
    MalformedData,
    NetworkError,
    Replayed,
    SignatureInvalid,
    SnapcountError,
    TooLarge,
    TrustExpired,
)  # fmt: skip
from host.core.text import safe

# The first that fits counts: subclasses stand before their bases.
_KINDS: tuple[tuple[type[Exception], type[SnapcountError]], ...] = (
    (tuf.DownloadLengthMismatchError, TooLarge),
    (tuf.DownloadError, NetworkError),
    (tuf.ExpiredMetadataError, TrustExpired),
    (tuf.UnsignedMetadataError, SignatureInvalid),
    (tuf.BadVersionNumberError, Replayed),
    (tuf.LengthOrHashMismatchError, DigestMismatch),
)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns whatever tuf raises into an UntrustedInput, NetworkError, TrustExpired or HostFault of one line that starts with `what`."""
    try:
        yield
    except SnapcountError:
        raise
    except OSError as error:
        raise files.storage_error(error, what) from error
    except Exception as error:  # hostile metadata can end in any ValueError, TypeError or KeyError there
        kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), MalformedData)
        reason = safe(f"{error} ({error.__cause__})" if error.__cause__ else str(error) or type(error).__name__, 500)
        raise kind(f"{what}: {reason}") from error
