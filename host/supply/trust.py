"""Which bundles the operators have approved, by TUF (specification 1.0.31), on python-tuf's client.

`require` lets a bundle through when all of this holds at that moment, with or without a network:

- the metadata at hand is signed as the root says, and none of it has expired;
- in one of the lanes a target `LANE/NAME/VERSION.wasm` names the bundle's SHA-256, length, name and version;
- a bundle that asks for a capability which the owner lists as `safety_capabilities` has that target in the safety lane.

It decides about installs only. What has been installed stays when metadata expires, and when an approval is withdrawn (docs/trust.md).
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from host.core import files
from host.core.bundle import Bundle
from host.core.clock import Clock
from host.core.desired import Lane
from host.core.errors import NotApproved, SnapcountError, StateDamaged, TooLarge, TrustExpired, UsageError
from host.core.lanes import LANES, SAFETY, target_path
from host.core.limits import DEFAULT
from host.core.text import safe
from host.supply.trust_errors import translated
from host.supply.trust_fetch import HttpFetcher, LocalFetcher
from host.supply.trust_memory import TrustMemory

ANCHOR = "initial-root.json"
METADATA = "metadata"
WHAT = "trust metadata"


def config() -> UpdaterConfig:
    """What a client of ours takes at most."""
    return UpdaterConfig(
        max_root_rotations=DEFAULT.trust_root_rotations_max,
        max_delegations=DEFAULT.trust_delegations_max,
        root_max_length=DEFAULT.trust_root_bytes_max,
        timestamp_max_length=DEFAULT.trust_timestamp_bytes_max,
        snapshot_max_length=DEFAULT.trust_snapshot_bytes_max,
        targets_max_length=DEFAULT.trust_targets_bytes_max,
    )


def check_root(data: bytes, what: str) -> None:
    """Raises UntrustedInput unless these bytes are a root that its own keys have signed, with enough of them."""
    if len(data) > DEFAULT.trust_root_bytes_max:
        raise TooLarge(f"{what}: a root has at most {DEFAULT.trust_root_bytes_max} bytes, this one has {len(data)}")
    with translated(what):
        root: Metadata[Root] = Metadata.from_bytes(data)
        if not isinstance(root.signed, Root):
            raise ValueError(f"expected the metadata of root, found that of {root.signed.type}")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)


class TrustClient:
    """The approvals that one node knows, in files below `directory` (STATE/trust). Its methods may be called from any thread.

    `require` reads files and checks signatures, about a millisecond for each kilobyte of lane: call it where blocking is allowed.
    """

    def __init__(
        self, directory: Path, metadata_url: str, clock: Clock, *, safety_capabilities: frozenset[str] = frozenset(),
        authority: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._authority = authority
        self._directory, self._url, self._clock = directory, metadata_url, clock
        self._safety_capabilities = safety_capabilities
        self._metadata = directory / METADATA
        self._memory = TrustMemory(directory, self._metadata)
        self._using = threading.Lock()

    @property
    def initialised(self) -> bool:
        """Whether there is a root to begin with."""
        return (self._directory / ANCHOR).exists()

    def init(self, root: bytes) -> None:
        """Takes the root that everything else is checked against; it must come from the operators by a way that is trusted.

        Raises UntrustedInput when it is not soundly signed, UsageError where there is another one already.
        """
        check_root(root, "root")
        if self.initialised and self._anchor() != root:
            raise UsageError(f"{self._directory / ANCHOR}: this node trusts another root already; to begin anew, remove {self._directory}")
        files.write_atomic(self._directory / ANCHOR, root)

    async def refresh(self) -> None:
        """Brings the metadata up to date, both lanes' too. Raises NetworkError, UntrustedInput, TrustExpired; then nothing unproven was kept."""
        fetcher = HttpFetcher(DEFAULT.trust_total_bytes_max, authority=self._authority)
        try:
            await asyncio.to_thread(self._refresh, fetcher)
        except asyncio.CancelledError:
            fetcher.stop()  # the thread ends within one wait
            raise

    def require(self, bundle: Bundle) -> Lane:
        """The lane in which the bundle is approved, by what is here. Raises NotApproved, TrustExpired, or UntrustedInput for damaged files."""
        needs_safety = sorted(self._safety_capabilities.intersection(bundle.manifest.capabilities))
        lanes: tuple[Lane, ...] = (SAFETY,) if needs_safety else LANES
        reasons: list[str] = []
        problem: SnapcountError | None = None
        with self._using, self._at_hand() as updater:
            for lane in lanes:
                try:
                    reason = _difference(self._target(updater, lane, bundle), lane, bundle)
                except SnapcountError as error:  # damage in one lane is not the other one's
                    problem, reason = error, str(error)
                if not reason:
                    return lane
                reasons.append(reason)
        because = f"; it asks for {', '.join(needs_safety)}, which only the safety lane may bring" if needs_safety else ""
        kind = NotApproved if problem is None else type(problem)
        raise kind(f"{bundle.label}: {'; '.join(reasons)}{because}") from problem

    def expires(self) -> dict[str, datetime]:
        """When each role's metadata at hand expires; empty before the first refresh. For people: nothing is decided by it."""
        found: dict[str, datetime] = {}
        for path in sorted(self._metadata.glob("*.json")):
            with translated(path.name):
                metadata: Metadata[Any] = Metadata.from_file(str(path))
                found[path.stem] = metadata.signed.expires
        return found

    def _refresh(self, fetcher: HttpFetcher) -> None:
        problems: list[SnapcountError] = []
        for leftover in self._metadata.glob("tmp*"):  # tuf's, where a kill came between writing and renaming
            leftover.unlink(missing_ok=True)
        with self._using, fetcher, self._updater(fetcher) as updater:
            for lane in LANES:
                try:
                    self._look_up(updater, f"{lane}/-/-")  # fetches the lane's own metadata, so that it is here when the network is not
                except SnapcountError as error:
                    problems.append(error)
        if problems:
            raise problems[0]

    @contextmanager
    def _at_hand(self) -> Iterator[Updater]:
        if not (self._metadata / "timestamp.json").exists():
            raise TrustExpired("nothing is known of approvals here: this node has not reached the trust repository yet")
        with self._updater(LocalFetcher(self._metadata)) as updater:
            yield updater

    @contextmanager
    def _updater(self, fetcher: FetcherInterface) -> Iterator[Updater]:
        """A client whose metadata, but for the lanes', is loaded and checked."""
        clock_s = self._clock.now_ms() // 1000
        root = self._anchor()
        try:
            with translated(WHAT):
                self._metadata.mkdir(parents=True, exist_ok=True)
                updater = Updater(str(self._metadata), self._url, fetcher=fetcher, config=config(), bootstrap=root)
                # tuf has no parameter for the time; this is what it compares every expiry with.
                updater._trusted_set.reference_time = datetime.fromtimestamp(self._memory.now_s(clock_s), UTC)
                updater.refresh()
                self._memory.note_versions()
        finally:
            self._memory.note_time(clock_s)
        yield updater

    def _anchor(self) -> bytes:
        try:
            return (self._directory / ANCHOR).read_bytes()
        except FileNotFoundError as error:
            raise NotApproved("this node was given no root of trust: its owner takes one from the operators, see docs/trust.md") from error
        except OSError as error:
            raise StateDamaged(f"{self._directory / ANCHOR}: cannot be read: {error.strerror}") from error

    def _target(self, updater: Updater, lane: Lane, bundle: Bundle) -> TargetFile | None:
        return self._look_up(updater, target_path(lane, bundle.manifest.name, bundle.manifest.version))

    def _look_up(self, updater: Updater, path: str) -> TargetFile | None:
        with translated(f"{WHAT} of the {path.partition('/')[0]} lane"):
            return updater.get_targetinfo(path)


def _difference(target: TargetFile | None, lane: Lane, bundle: Bundle) -> str:
    """Why this target does not approve the bundle; empty when it does."""
    if target is None:
        return f"not approved in the {lane} lane"
    digest = f"sha256:{target.hashes.get('sha256', '')}"
    if digest != bundle.digest or target.length != len(bundle.data):
        return f"approved in the {lane} lane with other bytes: expected {safe(digest[:19])}…, found {bundle.digest[:19]}…"
    named = target.custom if isinstance(target.custom, dict) else {}
    if (named.get("name"), named.get("version")) != (bundle.manifest.name, bundle.manifest.version):
        return f"approved in the {lane} lane as {safe(str(named.get('name')))} {safe(str(named.get('version')))}"
    return ""
