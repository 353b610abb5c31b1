"""Attestation: what a node runs, measured by its immutable core and signed with its identity.

A report binds the digest of the host's files, of its configuration and of each active skill to a node, a time and the asker's nonce. It proves
what the node's key says, so it is worth as much as the node's kernel; a TPM quote would be the next step.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import HostAltered, SignatureInvalid

AAD = b"snapcount attestation 1"


class ActiveSkill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str
    digest: str


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`host` and `config` are SHA-256 digests; `sealed` is false for a development tree, whose files no installation recorded."""

    node: str
    key: str
    at_ms: int
    nonce: Annotated[bytes, Meta(max_length=64)]
    host: str
    sealed: bool
    config: str
    skills: tuple[ActiveSkill, ...]


@dataclass(frozen=True)
class Measurement:
    """The digest over all measured files, and whether they were compared with recorded digests."""

    digest: str
    sealed: bool
    files: int


def measure(recorded: Mapping[str, str | None], read: Callable[[str], bytes]) -> Measurement:
    """Hashes each file that `recorded` names, and compares it with its recorded SHA-256 (hexadecimal) where there is one.

    Raises HostAltered that names the first file, in order of name, which is missing or differs.
    """
    whole = hashlib.sha256()
    for name in sorted(recorded):
        try:
            digest = hashlib.sha256(read(name)).hexdigest()
        except OSError as error:
            raise HostAltered(f"{name}: this file of the host cannot be read: {error.strerror}; reinstall snapcount") from error
        expected = recorded[name]
        if expected is not None and digest != expected:
            raise HostAltered(
                f"{name}: this file of the host was altered: installed with sha256 {expected[:16]}…, found {digest[:16]}…; reinstall snapcount"
            )
        whole.update(f"{name}\0{digest}\n".encode())
    return Measurement(f"sha256:{whole.hexdigest()}", all(value is not None for value in recorded.values()), len(recorded))


def sign(report: Report, key: SigningKey) -> bytes:
    """A COSE_Sign1 with the report inside."""
    return cose.sign(key, cbor.encode(report), kid=bytes(key.verify_key), aad=AAD)


def verify(signed: bytes, key: VerifyKey, nonce: bytes) -> Report:
    """The report that `key` signed for `nonce`. Raises SignatureInvalid, MalformedData."""
    payload = cose.verify(cose.parse(signed, "attestation"), key, "attestation", aad=AAD)
    report = cbor.decode_struct(payload, Report, "attestation")
    if report.nonce != nonce:
        raise SignatureInvalid("attestation: made for another nonce than the one asked with (a replay?)")
    return report
