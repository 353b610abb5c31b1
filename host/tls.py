"""The TLS of a node, as its owner configured it under [mesh]: one certificate for whatever it serves, and one authority for all that it dials."""

import ssl
from collections.abc import Callable
from pathlib import Path

from host.config import Mesh
from host.core.errors import UsageError
from host.core.text import safe


def server(settings: Mesh, state: Path) -> ssl.SSLContext | None:
    """What this node shows those who dial it, for its mesh and for its blobs; None for no TLS."""
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    return _load(
        "tls_certificate and tls_key", context, lambda: context.load_cert_chain(state / settings.tls_certificate, state / settings.tls_key)
    )


def client(settings: Mesh, state: Path) -> ssl.SSLContext | None:
    """Whose certificates this node believes when it dials; None for those that the system does."""
    if not settings.tls_authority:
        return None
    context = ssl.create_default_context()
    return _load("tls_authority", context, lambda: context.load_verify_locations(state / settings.tls_authority))


def _load(field: str, context: ssl.SSLContext, load: Callable[[], None]) -> ssl.SSLContext:
    try:
        load()
    except OSError as error:  # ssl.SSLError too
        raise UsageError(f"mesh.{field}: cannot be used: {safe(error.strerror or str(error))}") from error
    return context
