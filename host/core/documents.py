"""What operators sign: a struct as deterministic CBOR inside a COSE_Sign1 (RFC 9052, section 4.2), with a domain of its own as additional data.

The domain (`aad`) keeps a document of one kind from being taken for another. Only what `verify` returns is proven.
"""

from collections.abc import Collection
from typing import TypeVar

import msgspec
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import SignatureInvalid
from host.core.limits import DEFAULT

T = TypeVar("T", bound=msgspec.Struct)


def sign(document: msgspec.Struct, key: SigningKey, aad: bytes) -> bytes:
    """The document, signed; the signer's public key is its kid."""
    return cose.sign(key, cbor.encode(document), kid=bytes(key.verify_key), aad=aad)


def verify(
    data: bytes, shape: type[T], keys: Collection[VerifyKey], aad: bytes, what: str, *, bytes_max: int = DEFAULT.frame_bytes_max
) -> T:
    """Raises SignatureInvalid unless one of `keys` signed it, MalformedData for another shape or an unknown field, TooLarge."""
    message = cose.parse(data, what, bytes_max=bytes_max)
    key = next((known for known in keys if bytes(known) == message.kid), None)
    if key is None:
        raise SignatureInvalid(f"{what}: signed by {cose.key_name(message.kid)}, which is not trusted for it here")
    return cbor.decode_struct(cose.verify(message, key, what, aad=aad), shape, what, bytes_max=bytes_max)
