"""Ed25519 keys as files: made here, readable by their owner only, and never written twice."""

import os
import stat
from pathlib import Path

from nacl.encoding import HexEncoder
from nacl.signing import SigningKey, VerifyKey

from host.core.cose import key_name
from host.core.errors import StateDamaged, UsageError
from host.core.files import storage_error

SEED_BYTES = 32
PRIVATE_MODE = 0o600


def create(path: Path, seed: bytes) -> SigningKey:
    """Writes a new key file with mode 0600 and, beside it, `NAME.pub`. Raises UsageError where one exists already, StorageFull, HostFault."""
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a key needs {SEED_BYTES} random bytes, {len(seed)} were given")
    key, public = SigningKey(seed), path.with_suffix(".pub")
    taken = public if public == path else next((place for place in (path, public) if os.path.lexists(place)), None)
    if taken is not None:
        raise UsageError(f"{taken} exists already or is to hold the public key; a key is never overwritten: choose another name")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; a key is never overwritten: choose another name") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        public.write_text(public_text(key.verify_key) + "\n")
    except OSError as error:
        path.unlink(missing_ok=True)
        public.unlink(missing_ok=True)
        raise storage_error(error, f"{path}: the key cannot be written") from error
    return key


def load(path: Path) -> SigningKey:
    """Reads a key file. Raises StateDamaged when others may read it, or when it is not 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(SEED_BYTES * 2 + 2)
    except OSError as error:
        raise StateDamaged(f"{path}: the key cannot be read: {error.strerror}") from error
    try:
        key = SigningKey(text.strip(), encoder=HexEncoder)
    except Exception as error:
        raise StateDamaged(f"{path}: not a private key file: expected {SEED_BYTES * 2} hexadecimal digits") from error
    if mode & 0o077:
        raise StateDamaged(
            f"{path}: a private key with mode {mode:04o} can be read by others; expected {PRIVATE_MODE:04o}: run chmod 600 and consider the key stolen"
        )
    return key


def public_text(key: VerifyKey) -> str:
    """`ed25519:` and 64 hexadecimal digits."""
    return key_name(bytes(key))


def parse_public(text: str, what: str) -> VerifyKey:
    """The inverse of `public_text`. Raises UsageError that says what came."""
    kind, _, digits = text.strip().partition(":")
    try:
        if kind == "ed25519":
            return VerifyKey(digits.encode(), encoder=HexEncoder)
    except Exception as error:
        raise UsageError(f"{what}: not a public key: expected ed25519: and 64 hexadecimal digits") from error
    # What was found is not shown: it may be a private key that was taken for the public one.
    raise UsageError(
        f"{what}: expected ed25519: and 64 hexadecimal digits, found {len(text.strip())} other characters (is it the .pub file?)"
    )


def load_public(path: Path) -> VerifyKey:
    """Reads a `.pub` file."""
    try:
        return parse_public(path.read_text(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: the public key cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a public key: it is not text") from error
