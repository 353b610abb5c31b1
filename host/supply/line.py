"""A node's supply line: where its bundles come from, and what its children get through it. One for all, so that what it learns of sources counts.

The node's parents are asked before its registry. A node that serves keeps what its children ask for, and fetches each blob once for all of them.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from host.core.desired import Wanted
from host.core.errors import NetworkError, StateDamaged
from host.core.oci import Reference
from host.core.oci_auth import Credentials
from host.core.text import safe
from host.supply.delta import BlobSource, obtain
from host.supply.fetch import Fetcher
from host.supply.partial import Partials
from host.supply.rate import RateLimit
from host.supply.store import SkillStore

if TYPE_CHECKING:
    from host.supply.relay import Relay
    from host.supply.relay_server import RelayServer

MIB = 1 << 20
Log = Callable[[str, str], None]


@dataclass(frozen=True)
class Terms:
    """What the owner decided: `sources` are base URLs, the preferred first; `serve` is host and port, or None; ceilings in bytes/s, 0 for none; for
    sources that want a login, the header's value in `authorization`; for certificates that the system does not know, `authority`."""

    sources: Sequence[str]
    serve: tuple[str, int] | None = None
    cache_mib: int = 64
    down_bytes_s: int = 0
    up_bytes_s: int = 0
    authorization: Mapping[str, str] = field(default_factory=dict)
    authority: ssl.SSLContext | None = None


class SupplyLine:
    """`start` and `stop` bracket it. `port` is where children are served, 0 where they are not."""

    def __init__(self, state: Path, store: SkillStore, terms: Terms, log: Log, tls: ssl.SSLContext | None = None) -> None:
        self._state, self._store, self._terms, self._log, self._tls = state, store, terms, log, tls
        self._session: aiohttp.ClientSession | None = None
        self._fetcher: Fetcher | None = None
        self._source: BlobSource | None = None
        self._relay: Relay | None = None
        self._server: RelayServer | None = None
        self.port = 0

    async def start(self) -> aiohttp.ClientSession:
        """Raises NetworkError for an address that cannot be had. The session is for whoever else speaks HTTP here."""
        session = self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._terms.authority or True))
        self._fetcher = fetcher = Fetcher(
            session,
            self._terms.sources,
            partials=Partials(self._state / "blobs" / "partial"),
            down=RateLimit(self._terms.down_bytes_s),
            report=self._report,
            authorization=self._terms.authorization,
        )
        self._source = fetcher
        if self._terms.serve is not None:
            await self._serve(fetcher, *self._terms.serve)
        return session

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
        if self._relay is not None:
            await self._relay.close()
        if self._session is not None:
            await self._session.close()

    def status(self) -> dict[str, int]:
        """For people and `--json`: bytes that came, and where children are served (port 0: nowhere)."""
        return {"bytes_received": self._fetcher.bytes_received if self._fetcher else 0, "serves_on": self.port}

    async def obtain(self, wanted: Wanted) -> bytes:
        """The bundle that is wanted, as a patch against what is here where that is smaller. Raises as `Fetcher.fetch`."""
        assert self._source is not None, "the line was not started"
        return await obtain(self._source, wanted, self._held)

    async def fetch(self, digest: str, size: int) -> bytes:
        """Raises as `Fetcher.fetch`."""
        assert self._source is not None, "the line was not started"
        return await self._source.fetch(digest, size)

    async def pull(self, reference: Reference, credentials: Credentials | None) -> tuple[bytes, str]:
        """A bundle from any OCI registry, and its digest. Raises UntrustedInput (OciRefused), NetworkError."""
        from host.supply import oci  # asked for by a person, if ever: an idle node does without

        assert self._session is not None, "the line was not started"
        found = await oci.resolve(self._session, reference, credentials)
        return await oci.fetch(self._session, reference, found, credentials), found.digest

    async def _serve(self, fetcher: Fetcher, host: str, port: int) -> None:
        from host.supply.cache import BlobCache  # a node without children does without
        from host.supply.relay import Relay
        from host.supply.relay_server import RelayServer

        cache = BlobCache(self._state / "relay", self._terms.cache_mib * MIB)
        self._relay = Relay(cache, fetcher, local=self._held, log=lambda problem: self._log("warning", f"relay: {problem}"))
        self._server = RelayServer(self._relay, up=RateLimit(self._terms.up_bytes_s))
        try:
            self.port = await self._server.start(host, port, self._tls)
        except OSError as error:
            raise NetworkError(f"supply: cannot serve on {host}:{port}: {error.strerror or error}; see [supply] in node.toml") from error
        self._source = self._relay
        self._log("info", f"serves bundles to its children on {host}:{self.port}")

    def _held(self, digest: str) -> bytes | None:
        try:
            return self._store.get(digest)
        except StateDamaged:  # not here, or not sound
            return None

    def _report(self, source: str, problem: str) -> None:
        self._log("warning", f"supply: {safe(problem, 400)}")
