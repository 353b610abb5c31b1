"""Node certificates: a CWT (RFC 8392) that binds a node's Ed25519 key to roles, a generation and capabilities.

The claims are those of RFC 8392 section 3.1 (`iss` 1, `sub` 2, `exp` 4, `nbf` 5, `iat` 6, `cti` 7) and `cnf` 8 (RFC 8747), whose value holds
the node's COSE_Key (RFC 9053, section 7.2: kty OKP 1, crv Ed25519 6). Snapcount's own claims have text keys. Rules of `verify_chain`:

- the last certificate of the chain is signed by a trusted authority, every other by the key of the one after it, which has the role `authority`;
- now is within [nbf − skew, exp + skew] of each;
- no `cti` of the chain is revoked;
- a certificate cannot grant roles that its issuer's certificate does not have.

Time is passed in, in seconds since 1970. Example: `verify_chain([node_cert], {authority}, now_s, revoked=frozenset())`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import CertificateInvalid, MalformedData, SignatureInvalid
from host.core.limits import DEFAULT
from host.core.text import safe

ISS, SUB, EXP, NBF, IAT, CTI, CNF = 1, 2, 4, 5, 6, 7, 8
COSE_KEY = 1
KTY, CRV, X = 1, -1, -2
OKP, ED25519 = 1, 6
ROLES, GENERATION, CAPABILITIES = "roles", "generation", "capabilities"
ROLE_AUTHORITY = "authority"

VALIDITY_S = 37 * 86_400  # rotation every 30 days, with a week of overlap
ROTATION_S = 30 * 86_400


@dataclass(frozen=True)
class Claims:
    """What a certificate says. Times in seconds since 1970; `key` is the subject's public key, 32 bytes."""

    issuer: str
    subject: str
    key: bytes
    roles: tuple[str, ...]
    generation: int
    capabilities: tuple[str, ...]
    not_before_s: int
    expires_s: int
    issued_s: int
    id: bytes


def issue(authority: SigningKey, claims: Claims) -> bytes:
    """Signs a certificate."""
    payload = {
        ISS: claims.issuer, SUB: claims.subject, EXP: claims.expires_s, NBF: claims.not_before_s, IAT: claims.issued_s,
        CTI: claims.id, CNF: {COSE_KEY: {KTY: OKP, CRV: ED25519, X: claims.key}},
        ROLES: list(claims.roles), GENERATION: claims.generation, CAPABILITIES: list(claims.capabilities),
    }  # fmt: skip
    return cose.sign(authority, cbor.encode(payload), kid=bytes(authority.verify_key))


def verify_chain(
    chain: Sequence[bytes],
    authorities: Collection[VerifyKey],
    now_s: int,
    *,
    revoked: Collection[bytes] = frozenset(),
    what: str = "certificate",
) -> Claims:
    """The verified claims of the first certificate. Raises CertificateInvalid, or MalformedData for bytes that are no certificate."""
    if not 1 <= len(chain) <= DEFAULT.chain_length_max:
        raise CertificateInvalid(f"{what}: expected a chain of 1 to {DEFAULT.chain_length_max} certificates, {len(chain)} came")
    signers: list[VerifyKey] = list(authorities)
    issuer: Claims | None = None
    for encoded in reversed(chain):
        claims = _verify_one(encoded, signers, now_s, revoked, what)
        if issuer is not None:
            _check_issuer(claims, issuer, what)
        issuer, signers = claims, [VerifyKey(claims.key)]
    assert issuer is not None
    return issuer


def _verify_one(encoded: bytes, signers: Collection[VerifyKey], now_s: int, revoked: Collection[bytes], what: str) -> Claims:
    message = cose.parse(encoded, what, bytes_max=DEFAULT.certificate_bytes_max)
    signer = next((key for key in signers if bytes(key) == message.kid), None)
    if signer is None:
        raise CertificateInvalid(f"{what}: signed by {cose.key_name(message.kid)}, which is no trusted authority")
    try:
        claims = _claims(cose.verify(message, signer, what), what)
    except SignatureInvalid as error:
        raise CertificateInvalid(str(error)) from error
    skew = DEFAULT.clock_skew_s_max
    if now_s < claims.not_before_s - skew:
        raise CertificateInvalid(
            f"{what} of {claims.subject}: valid from {claims.not_before_s}, now is {now_s} (seconds since 1970); is this clock right?"
        )
    if now_s > claims.expires_s + skew:
        raise CertificateInvalid(
            f"{what} of {claims.subject}: expired at {claims.expires_s}, now is {now_s} (seconds since 1970); renew it"
        )
    if claims.id in revoked:
        raise CertificateInvalid(f"{what} of {claims.subject}: revoked (id {claims.id.hex()})")
    return claims


def _check_issuer(claims: Claims, issuer: Claims, what: str) -> None:
    if ROLE_AUTHORITY not in issuer.roles:
        raise CertificateInvalid(f"{what} of {claims.subject}: its issuer {issuer.subject} has not the role {ROLE_AUTHORITY}")
    if claims.issuer != issuer.subject:
        raise CertificateInvalid(f"{what} of {claims.subject}: names the issuer {claims.issuer}, was signed by {issuer.subject}")
    wider = set(claims.roles) - set(issuer.roles)
    if wider:
        raise CertificateInvalid(f"{what} of {claims.subject}: has roles that its issuer cannot grant: {', '.join(sorted(wider))}")


def _claims(payload: bytes, what: str) -> Claims:
    value = cbor.decode(payload, what)
    if not isinstance(value, dict) or not all(isinstance(value.get(name), list) for name in (ROLES, CAPABILITIES)):
        raise MalformedData(f"{what}: expected a map of claims, with {ROLES} and {CAPABILITIES} as lists")
    try:
        key = _subject_key(value[CNF])
        claims = Claims(
            value[ISS], value[SUB], key, tuple(value[ROLES]), value[GENERATION], tuple(value[CAPABILITIES]),
            value[NBF], value[EXP], value[IAT], value[CTI],
        )  # fmt: skip
    except (LookupError, TypeError, ValueError) as error:
        raise MalformedData(f"{what}: a claim is missing or has the wrong type: {error}") from error
    texts = (claims.issuer, claims.subject, *claims.roles, *claims.capabilities)
    numbers = (claims.generation, claims.not_before_s, claims.expires_s, claims.issued_s)
    # A name with control characters, or of more than a line, could forge the errors and logs that it stands in.
    typed = all(isinstance(t, str) and safe(t) == t for t in texts) and all(type(n) is int for n in numbers)
    if not (typed and isinstance(claims.id, bytes)):
        raise MalformedData(f"{what}: a claim has the wrong type")
    return claims


def _subject_key(cnf: Any) -> bytes:
    key = cnf[COSE_KEY]
    if key[KTY] != OKP or key[CRV] != ED25519 or not isinstance(key[X], bytes) or len(key[X]) != 32:
        raise ValueError("cnf must hold an Ed25519 COSE_Key")
    return bytes(key[X])
