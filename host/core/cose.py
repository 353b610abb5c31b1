"""COSE_Sign1 with Ed25519 (RFC 9052, section 4.2; RFC 9053, section 2.2), strict, on cbor2 and PyNaCl."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor
from host.core.errors import MalformedData, SignatureInvalid, TooLarge
from host.core.limits import DEFAULT

ALG = 1  # header parameter `alg`, RFC 9052, section 3.1
KID = 4  # header parameter `kid`
EDDSA = -8  # RFC 9053, section 2.2
SIGNATURE_BYTES = 64
KID_BYTES_MAX = 64
_TAG_HEAD = b"\xd2"  # tag 18


@dataclass(frozen=True)
class Sign1:
    """A COSE_Sign1 as it came: decoded, nothing about it verified. `payload` is None when it is detached."""

    protected: bytes
    kid: bytes
    payload: bytes | None
    signature: bytes


def sign(key: SigningKey, payload: bytes, *, kid: bytes, detached: bool = False, aad: bytes = b"") -> bytes:
    """A tagged COSE_Sign1. `kid` goes into the protected header, so that it cannot be exchanged."""
    protected = cbor.encode({ALG: EDDSA, KID: kid})
    signature = key.sign(_to_be_signed(protected, aad, payload)).signature
    return _TAG_HEAD + cbor.encode([protected, {}, None if detached else payload, signature])


def parse(data: bytes, what: str, *, bytes_max: int = DEFAULT.frame_bytes_max) -> Sign1:
    """Reads a tagged or untagged COSE_Sign1. Raises MalformedData for any other shape, algorithm or header."""
    value = cbor.decode(data, what, bytes_max=bytes_max, tags=(cbor.TAG_COSE_SIGN1,))
    if getattr(value, "tag", None) == cbor.TAG_COSE_SIGN1:
        value = value.value
    match value:
        case [bytes(protected), Mapping() as unprotected, bytes() | None as payload, bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            return Sign1(protected, _key_id(protected, unprotected, what), payload, signature)
    raise MalformedData(f"{what}: not a COSE_Sign1 of [protected, unprotected, payload, 64-byte signature]")


def verify(message: Sign1, key: VerifyKey, what: str, *, payload: bytes | None = None, aad: bytes = b"") -> bytes:
    """Returns the payload that `key` signed. A detached payload is passed in. Raises SignatureInvalid."""
    if (payload is None) == (message.payload is None):
        raise SignatureInvalid(f"{what}: the payload must be either inside the signature or beside it, not both and not neither")
    signed = message.payload if payload is None else payload
    assert signed is not None
    try:
        key.verify(_to_be_signed(message.protected, aad, signed), message.signature)
    except (BadSignatureError, ValueError) as error:
        raise SignatureInvalid(f"{what}: the signature does not match key {key_name(bytes(key))}") from error
    return signed


def public_key(kid: bytes, what: str) -> VerifyKey:
    """The key that a message names. Raises MalformedData where those bytes are no Ed25519 key."""
    try:
        return VerifyKey(kid)
    except (ValueError, TypeError) as error:
        raise MalformedData(f"{what}: kid is not the 32 bytes of an Ed25519 public key") from error


def key_name(public: bytes) -> str:
    """A public key as people read it: `ed25519:` and 64 hexadecimal digits."""
    return f"ed25519:{public.hex()}"


def _to_be_signed(protected: bytes, aad: bytes, payload: bytes) -> bytes:
    # Sig_structure, RFC 9052, section 4.4.
    return cbor.encode(["Signature1", protected, aad, payload])


def _key_id(protected: bytes, unprotected: Mapping[Any, Any], what: str) -> bytes:
    try:
        inside = _protected_kid(protected)
    except (MalformedData, TooLarge) as error:
        raise type(error)(f"{what}: {error}") from error
    if set(unprotected) - {KID}:
        raise MalformedData(f"{what}: a header parameter other than alg and kid")
    if inside is not None and KID in unprotected:
        raise MalformedData(f"{what}: kid stands in both headers")  # RFC 9052, section 3
    kid = unprotected.get(KID, b"") if inside is None else inside
    if not isinstance(kid, bytes) or len(kid) > KID_BYTES_MAX:
        raise MalformedData(f"{what}: kid must be bytes, at most {KID_BYTES_MAX} of them")
    return kid


@lru_cache(maxsize=1024)  # a link's frames all have the same header
def _protected_kid(protected: bytes) -> Any:
    """The kid in a protected header, None where it has none."""
    header = cbor.decode(protected, "protected header", bytes_max=256)
    if not isinstance(header, dict) or header.get(ALG) != EDDSA:
        raise MalformedData("expected the algorithm EdDSA (-8) in the protected header")
    if set(header) - {ALG, KID}:
        raise MalformedData("a header parameter other than alg and kid")
    return header.get(KID)
