"""Bundles: one `.wasm` file that carries its manifest and its author's signatures.

A signature is a custom section `snapcount.signature` at the end of the file, a detached COSE_Sign1 over the SHA-256 of all the bytes before that section.
Signers append: the second signature covers the first. Rules of `UnverifiedBundle.verify`:

- the file is a core module or a component, within the size bound of its kind, with exactly one manifest;
- all signature sections stand together at the end, at least one, at most eight;
- a signature by a key that is not trusted counts for nothing; a signature that claims a trusted key and does not verify is an error;
- at least `threshold` different trusted keys have signed.

Example: `UnverifiedBundle.parse(data, "x.wasm").verify([author_key])` is a `Bundle`, and only a `Bundle` can be installed.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from nacl.signing import SigningKey, VerifyKey

from host.core import cose, manifest, wasm
from host.core.errors import MalformedModule, SignatureInvalid, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import Manifest

SIGNATURE_SECTION = "snapcount.signature"
AAD = b"snapcount bundle 1"


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits, as OCI writes digests."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: `signers` are the trusted keys that signed `data`. Made by `UnverifiedBundle.verify` only."""

    data: bytes
    digest: str
    manifest: Manifest
    signers: tuple[bytes, ...]

    @property
    def content_digest(self) -> str:
        """The digest of the bytes before the first signature: the same however many signatures stand behind them."""
        signatures = [section for section in wasm.sections(self.data, self.label) if section.name == SIGNATURE_SECTION]
        return digest_of(self.data[: signatures[0].start])

    @property
    def label(self) -> str:
        return f"{self.manifest.name} {self.manifest.version}"


@dataclass(frozen=True)
class UnverifiedBundle:
    """A file that has the form of a bundle. Nothing in it is proven."""

    data: bytes
    what: str
    manifest: Manifest
    signatures: tuple[wasm.Section, ...]

    @classmethod
    def parse(cls, data: bytes, what: str) -> "UnverifiedBundle":
        """Raises TooLarge, MalformedModule or MalformedData."""
        if len(data) > DEFAULT.bundle_bytes_max:
            raise TooLarge(f"{what}: a bundle has at most {DEFAULT.bundle_bytes_max} bytes, this one has {len(data)}")
        sections = wasm.sections(data, what)
        if len(data) > DEFAULT.module_bytes_max and not wasm.is_component(data):
            raise TooLarge(f"{what}: a core module has at most {DEFAULT.module_bytes_max} bytes, this one has {len(data)}")
        manifests = [s for s in sections if s.name == manifest.SECTION]
        if len(manifests) != 1:
            raise MalformedModule(
                f"{what}: expected one section {manifest.SECTION}, found {len(manifests)}; was it made with `snapcount skill build`?"
            )
        signatures = tuple(s for s in sections if s.name == SIGNATURE_SECTION)
        if signatures and sections[-len(signatures) :] != list(signatures):
            raise MalformedModule(f"{what}: something stands after a signature")
        if len(signatures) > DEFAULT.signatures_max:
            raise TooLarge(f"{what}: at most {DEFAULT.signatures_max} signatures, found {len(signatures)}")
        return cls(data, what, manifest.decode(manifests[0].content, what), signatures)

    def verify(self, keys: Collection[VerifyKey], *, threshold: int = 1) -> Bundle:
        """Raises SignatureInvalid unless at least `threshold` of `keys` have signed."""
        if threshold < 1:
            raise UsageError(f"a threshold of {threshold} signatures would trust anybody; expected at least 1")
        if not self.signatures:
            raise SignatureInvalid(f"{self.what}: unsigned; sign it with `snapcount skill sign`")
        signers: list[bytes] = []
        strangers: list[bytes] = []
        for section in self.signatures:
            message = cose.parse(section.content, f"{self.what}: signature")
            key = next((k for k in keys if bytes(k) == message.kid), None)
            if key is None:
                strangers.append(message.kid)
                continue
            prefix = hashlib.sha256(self.data[: section.start]).digest()
            cose.verify(message, key, self.what, payload=prefix, aad=AAD)
            if message.kid not in signers:
                signers.append(message.kid)
        if len(signers) < threshold:
            raise SignatureInvalid(self._too_few(signers, strangers, threshold))
        return Bundle(self.data, digest_of(self.data), self.manifest, tuple(signers))

    def _too_few(self, signers: list[bytes], strangers: list[bytes], threshold: int) -> str:
        unknown = ", ".join(cose.key_name(kid) for kid in strangers)
        return f"{self.what}: {threshold} trusted signature(s) needed, {len(signers)} found" + (
            f"; signed by {unknown}, not trusted here" if unknown else ""
        )


def with_manifest(module: bytes, described: Manifest, what: str) -> bytes:
    """An unsigned bundle: the module, less any former manifest and signatures, with the manifest appended."""
    bare = wasm.without_custom(module, what, (manifest.SECTION, SIGNATURE_SECTION))
    return bare + wasm.custom_section(manifest.SECTION, described.encode())


def with_signature(data: bytes, key: SigningKey, what: str) -> bytes:
    """The bundle with one more signature. Raises SignatureInvalid where this key has signed already."""
    unverified = UnverifiedBundle.parse(data, what)
    kid = bytes(key.verify_key)
    if any(cose.parse(s.content, what).kid == kid for s in unverified.signatures):
        raise SignatureInvalid(f"{what}: {cose.key_name(kid)} has signed it already")
    signature = cose.sign(key, hashlib.sha256(data).digest(), kid=kid, detached=True, aad=AAD)
    return data + wasm.custom_section(SIGNATURE_SECTION, signature)
