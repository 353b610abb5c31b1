"""Our Ed25519 key files as TUF keys and signers."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.signing import SigningKey, VerifyKey
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from host.core import keys
from host.core.text import safe

NAME = "x-snapcount-name"


@dataclass(frozen=True)
class Holder:
    """A public key, and what people call whoever holds it."""

    name: str
    key: VerifyKey

    @classmethod
    def load(cls, path: Path) -> "Holder":
        """Of a `.pub` file; its name is the file's."""
        return cls(safe(path.stem, 64), keys.load_public(path))

    @property
    def public(self) -> str:
        """`ed25519:` and 64 hexadecimal digits."""
        return keys.public_text(self.key)

    @property
    def label(self) -> str:
        return f"{self.name} ({self.public[:20]}…)"

    def tuf_key(self) -> SSlibKey:
        """As it stands in metadata: the name is a signed remark, the key id does not depend on it."""
        made = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes(self.key)))
        made.unrecognized_fields = {NAME: self.name}
        return made


def key_id(key: VerifyKey) -> str:
    """TUF specification 1.0.31, section 4.2: the SHA-256 of the key's canonical form."""
    return Holder("", key).tuf_key().keyid


def holder_of(key: Key) -> Holder:
    """The inverse of `Holder.tuf_key`."""
    return Holder(safe(str(key.unrecognized_fields.get(NAME, "unnamed")), 64), VerifyKey(bytes.fromhex(key.keyval["public"])))


class PyNaClSigner(Signer):
    """Signs with libsodium. What it makes verifies as any TUF client verifies Ed25519."""

    SCHEME = "snapcount"

    def __init__(self, key: SigningKey, name: str = "") -> None:
        self._key = key
        self._public = Holder(name, key.verify_key).tuf_key()

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None) -> "PyNaClSigner":  # noqa: ARG003
        """`snapcount:PATH` names a key file. Raises ValueError where it is not the private half of `public_key`."""
        scheme, _, path = priv_key_uri.partition(":")
        if scheme != cls.SCHEME:
            raise ValueError(f"expected {cls.SCHEME}:PATH, found {safe(priv_key_uri)!r}")
        signer = cls(keys.load(Path(path)))
        if signer.public_key.keyid != public_key.keyid:
            raise ValueError(f"{path}: not the private half of the key {public_key.keyid[:12]}…")
        return signer

    @property
    def public_key(self) -> SSlibKey:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self._key.sign(payload).signature.hex())
