"""What an OCI registry carries, as values: digests, names, references, manifests, and the layout of a bundle as an artifact.

Follows the OCI Distribution and Image Specifications 1.1. A bundle travels in the CNCF Wasm OCI artifact layout: an image manifest whose config is
`application/vnd.wasm.config.v0+json`, with one layer `application/wasm`, which is the bundle itself, never compressed.

Example: `parse_reference("registry.example:8470/skills/greeter:1.0.0")`.
"""

import hashlib
import re
from dataclasses import dataclass
from io import BufferedReader
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta

from host.core.errors import DigestMismatch, Incompatible, MalformedData, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
LISTS = (INDEX, DOCKER_LIST)
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST, *LISTS)
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
WASM_LAYER = "application/wasm"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
REF_NAME = "org.opencontainers.image.ref.name"

DIGEST = r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z"
# OCI Distribution Specification 1.1, "Pulling manifests". No component can be `.` or `..`, and none is empty.
REPOSITORY = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z"
REPOSITORY_CHARACTERS_MAX = 255
TAG = r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z"
HOST = r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?\Z"

_Digest = Annotated[str, Meta(pattern=DIGEST)]
_MediaType = Annotated[str, Meta(max_length=255)]


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Points to content. Unknown fields are passed over, as the Image Specification demands of every reader ("Considerations")."""

    media_type: _MediaType
    digest: _Digest
    size: Annotated[int, Meta(ge=0)]
    urls: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    artifact_type: _MediaType | None = None


class Document(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """An image manifest (config and layers) or an image index (manifests). Unknown fields are passed over."""

    schema_version: Annotated[int, Meta(ge=2, le=2)]
    media_type: _MediaType = ""
    artifact_type: _MediaType = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """What an image manifest is made of."""
        return (*((self.config,) if self.config else ()), *(self.layers or ()))

    @property
    def kind(self) -> str:
        """The artifact type by which referrers are filtered: the manifest's own, or else its config's media type."""
        return self.artifact_type or (self.config.media_type if self.config else "")


@dataclass(frozen=True)
class Local:
    """A manifest within one registry."""

    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def manifest(self) -> str:
        """What follows `/manifests/` in an address; a digest counts more than a tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Reference:
    """A manifest in a registry; `base` is `http://HOST:PORT` or `https://HOST:PORT`."""

    base: str
    local: Local

    def __str__(self) -> str:
        return f"{self.base.partition('://')[2]}/{self.local}"


@dataclass(frozen=True)
class Artifact:
    """A bundle as what is pushed: the layer is the bundle itself."""

    config: bytes
    manifest: bytes
    layer: str


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """`sha256:` or `sha512:` and hexadecimal digits."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def digest_of_stream(file: BufferedReader, algorithm: str = "sha256") -> str:
    """The digest of what is left of an open file, read in pieces."""
    return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def algorithm_of(digest: str) -> str:
    """`sha256` or `sha512`."""
    return digest.partition(":")[0]


def is_digest(text: str) -> bool:
    """Whether it is a digest that is understood here."""
    return re.match(DIGEST, text) is not None


def is_repository(text: str) -> bool:
    """Whether it is a repository's name."""
    return len(text) <= REPOSITORY_CHARACTERS_MAX and re.match(REPOSITORY, text) is not None


def is_tag(text: str) -> bool:
    """Whether it is a tag."""
    return re.match(TAG, text) is not None


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raises DigestMismatch unless the bytes have this digest."""
    found = digest_of(data, algorithm_of(digest))
    if found != digest:
        raise DigestMismatch(f"{what}: expected {digest}, the bytes have {found}; nothing was kept")


def parse_local(text: str) -> Local:
    """`REPOSITORY:TAG`, `REPOSITORY@DIGEST` or both. Raises UsageError."""
    named, _, digest = text.partition("@")
    repository, _, tag = named.partition(":")
    sound = is_repository(repository) and (tag or digest) and (not tag or is_tag(tag)) and (not digest or is_digest(digest))
    if not sound or text != str(local := Local(repository, tag, digest)):
        raise UsageError(f"expected REPOSITORY:TAG or REPOSITORY@sha256:…, found {safe(text)!r}")
    return local


def parse_reference(text: str) -> Reference:
    """`HOST[:PORT]/REPOSITORY:TAG` or `…@DIGEST`, with `oci://`, `http://` or `https://` or nothing before it.

    Without http or https, it is http for this machine's loopback and https for all others. Raises UsageError.
    """
    scheme, separator, rest = text.rpartition("://")
    host, slash, path = rest.partition("/")
    # Without a dot, a port or `localhost`, a first part may as well be that of a repository.
    named = slash and re.match(HOST, host) and ("." in host or ":" in host or host == "localhost")
    if (separator and scheme not in ("oci", "http", "https")) or not named:
        raise UsageError(f"expected HOST:PORT/REPOSITORY:TAG, with oci://, http:// or https:// or nothing before it, found {safe(text)!r}")
    if scheme in ("", "oci"):
        scheme = "http" if is_loopback(host) else "https"
    return Reference(f"{scheme}://{host}", parse_local(path))


def is_loopback(host: str) -> bool:
    """Whether HOST or HOST:PORT means this machine and no other."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host if host.count(":") > 1 else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def read_manifest(data: bytes, media_type: str, what: str) -> Document:
    """A manifest or an index of this media type. Raises TooLarge or MalformedData."""
    if len(data) > DEFAULT.oci_manifest_bytes_max:
        raise TooLarge(f"{what}: a manifest has at most {DEFAULT.oci_manifest_bytes_max} bytes, this one has {len(data)}")
    if media_type not in MANIFEST_TYPES:
        raise MalformedData(f"{what}: expected the media type of an OCI or Docker manifest or index, found {safe(media_type, 80)!r}")
    try:
        found = msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedData(f"{what}: not a manifest: {safe(str(error))}") from error
    if found.media_type not in ("", media_type):
        raise MalformedData(f"{what}: sent as {media_type}, but says of itself that it is {safe(found.media_type, 80)!r}")
    # A document that is both would be read in two ways by two clients.
    listed = media_type in LISTS
    parts = (found.manifests, None) if listed else (found.layers, found.config)
    others = (found.layers, found.config) if listed else (found.manifests, None)
    if parts[0] is None or (not listed and parts[1] is None) or any(part is not None for part in others):
        raise MalformedData(f"{what}: expected {'only manifests' if listed else 'a config and layers only'} in {media_type}")
    if len(parts[0]) > DEFAULT.oci_descriptors_max:
        raise TooLarge(f"{what}: at most {DEFAULT.oci_descriptors_max} descriptors, found {len(parts[0])}")
    return found


def wasm_layer(data: bytes, media_type: str, what: str) -> Descriptor:
    """The one layer of a bundle's manifest: uncompressed, by SHA-256, within the bound of a bundle. Raises UntrustedInput.

    The config is not looked at: what a bundle is stands in the bundle, and is signed.
    """
    if media_type in LISTS:
        raise Incompatible(f"{what}: is an index of several manifests; name the one that is meant by its digest")
    found = read_manifest(data, media_type, what)
    layers = found.layers or ()
    if len(layers) != 1 or layers[0].media_type != WASM_LAYER:
        kinds = ", ".join(safe(layer.media_type, 80) for layer in layers[:4]) or "none"
        raise Incompatible(f"{what}: expected exactly one layer, of {WASM_LAYER} and not compressed, found {kinds}")
    if algorithm_of(layers[0].digest) != "sha256":
        raise Incompatible(f"{what}: expected a layer named by SHA-256, found {layers[0].digest[:20]}…")
    if layers[0].size > DEFAULT.bundle_bytes_max:
        raise TooLarge(f"{what}: its layer has {layers[0].size} bytes, a bundle has at most {DEFAULT.bundle_bytes_max}")
    return layers[0]


class _WasmConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The config of the CNCF Wasm OCI artifact layout. A core module has no name of its own for `os` there; `wasip1` is what the layout says to take."""

    created: str
    architecture: str
    os: str
    layer_digests: tuple[str, ...]


def wasm_artifact(bundle: bytes, name: str, version: str) -> Artifact:
    """A bundle's config and manifest. The same bundle gives the same bytes on every machine, so `created` is the epoch."""
    layer = Descriptor(media_type=WASM_LAYER, digest=digest_of(bundle), size=len(bundle), annotations={TITLE: f"{name}.wasm"})
    config = msgspec.json.encode(
        _WasmConfig(created="1970-01-01T00:00:00Z", architecture="wasm", os="wasip1", layer_digests=(layer.digest,))
    )
    manifest = Document(
        schema_version=2, media_type=MANIFEST, layers=(layer,), annotations={TITLE: name, VERSION: version},
        config=Descriptor(media_type=WASM_CONFIG, digest=digest_of(config), size=len(config)),
    )  # fmt: skip
    return Artifact(config, msgspec.json.encode(manifest), layer.digest)


class _Problem(msgspec.Struct, frozen=True):
    code: str = "UNKNOWN"
    message: str = ""


class _Problems(msgspec.Struct, frozen=True):
    errors: Annotated[tuple[_Problem, ...], Meta(min_length=1)]


def read_problem(data: bytes) -> tuple[str, str]:
    """Code and message of the first error in a registry's answer, fit to be shown; `UNKNOWN` for an answer in another shape."""
    try:
        first = msgspec.json.decode(data, type=_Problems).errors[0]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "UNKNOWN", "without saying why"
    return safe(first.code, 40), safe(first.message)
