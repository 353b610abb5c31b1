"""What a request's path names, checked against the grammar of the OCI Distribution Specification 1.1 before anything else looks at it."""

from aiohttp import web

from host.core import oci
from host.core.text import safe
from registry.problem import refusal


def named(request: web.Request) -> str:
    """The repository of a request. Raises OciRefused for what is no name of one."""
    name = request.match_info["name"]
    if not oci.is_repository(name):
        raise refusal("NAME_INVALID", f"expected a repository's name such as skills/greeter, found {safe(name, 80)!r}")
    return name


def digested(request: web.Request) -> str:
    """The digest of a request's path. Raises OciRefused."""
    return checked_digest(request.match_info["digest"])


def checked_digest(digest: str) -> str:
    """The digest, if it is one. Raises OciRefused."""
    if not oci.is_digest(digest):
        raise refusal("DIGEST_INVALID", f"expected sha256: and 64, or sha512: and 128 hexadecimal digits, found {safe(digest, 80)!r}")
    return digest


def referred(request: web.Request) -> str:
    """The tag or digest of a request's path. Raises OciRefused."""
    reference = request.match_info["reference"]
    if ":" in reference:
        return checked_digest(reference)
    if not oci.is_tag(reference):
        raise refusal("MANIFEST_INVALID", f"expected a tag or a digest, found {safe(reference, 80)!r}")
    return reference
