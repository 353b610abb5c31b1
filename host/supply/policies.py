"""The quarantine policies that a node holds: taken when an operator signed them, in force at once, and on disk soon after.

Rules:

- a policy's id counts once. One that was lifted here, or has expired here, is `Replayed`; a lift that comes first keeps its policy from being taken;
- what is remembered of ended policies is bounded: the oldest are forgotten, and then whatever was issued before them counts as replayed;
- a policy expires by the node's clock. Because that may be set back, each policy has a time of its own that never runs backwards and advances at
  least as the node runs: it starts at what the clock says when it comes, but not before it was issued;
- an armed policy whose anomaly has shown stays in force over a restart;
- the documents that a child or a new peer must know are those in force, and the lifts.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from nacl.signing import VerifyKey

from host.core import cbor, files, quarantine
from host.core.clock import Clock
from host.core.errors import MalformedData, Replayed, SignatureInvalid, SnapcountError, TooLarge, Untimely
from host.core.limits import DEFAULT
from host.core.quarantine import Disable, Id, Lift, Ms

FOLDER, FILE = "policies", "held.cbor"
DOCUMENTS_BYTES_MAX = 96 << 10
"""All documents together: they fit into one welcome of the mesh."""
ENDED_MAX = 1024
KEEP_TIME_MS = 600_000
"""So often the policies' own time is written down while one of them can expire."""

Enforce = Callable[[Sequence[Disable], Collection[str]], None]
Document = Annotated[bytes, Meta(max_length=DEFAULT.policy_bytes_max)]


class _Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    issued_ms: Ms


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is on disk. `time_ms` is the policies' own time, by id; `shown` those whose anomaly has shown."""

    documents: Annotated[tuple[Document, ...], Meta(max_length=2 * DEFAULT.policies_max)]
    time_ms: dict[Id, Ms]
    shown: tuple[Id, ...]
    ended: Annotated[tuple[_Ended, ...], Meta(max_length=ENDED_MAX)]
    floor_ms: Ms


class _Held:
    """One policy in force, or armed."""

    __slots__ = ("document", "policy", "time_ms")

    def __init__(self, document: bytes, policy: Disable, time_ms: int) -> None:
        self.document, self.policy, self.time_ms = document, policy, time_ms


class PolicyStore:
    """`enforce` is handed every policy and the ids of those whose anomaly has shown, whenever that changes. Any thread may call."""

    def __init__(
        self, state: Path, operators: Collection[VerifyKey], clock: Clock, enforce: Enforce, log: Callable[[str, str], None]
    ) -> None:
        self._path, self._operators, self._clock = state / FOLDER / FILE, tuple(operators), clock
        self._enforce, self._log = enforce, log
        self._lock, self._saving = threading.RLock(), threading.Lock()
        self._held: dict[str, _Held] = {}
        self._lifts: dict[str, bytes] = {}
        self._shown: set[str] = set()
        self._ended: dict[str, int] = {}
        self._floor_ms = 0
        self._ticked_ms = self._kept_ms = clock.monotonic_ms()
        self._changed = False
        self._restore()
        self._tell()

    def take(self, document: bytes) -> bool:
        """Acts on a signed policy at once; False for one that was had before. `save` puts it on disk.

        Raises SignatureInvalid, MalformedData, TooLarge (also where so many are in force already), Untimely and Replayed.
        """
        policy = quarantine.verify(document, self._operators)
        with self._lock:
            news = self._lift(policy, document) if isinstance(policy, Lift) else self._disable(policy, document)
            if news:
                self._changed = True
                self._tell()
        if news:
            self._log("warning", f"quarantine policy {policy.id}: {in_words(policy)}")
        return news

    def tick(self) -> None:
        """What time brings: policies expire, and what changed is saved. Once a second or so. Raises StorageFull, HostFault; the next call tries again."""
        with self._lock:
            now_ms, elapsed_ms = self._clock.now_ms(), self._elapsed_ms()
            for held in self._held.values():
                held.time_ms = max(held.time_ms + elapsed_ms, now_ms)
            over = [held.policy for held in self._held.values() if held.policy.expires_ms and held.time_ms >= held.policy.expires_ms]
            for policy in over:
                self._end(policy.id, policy.issued_ms)
                self._log("warning", f"quarantine policy {policy.id}: it has expired")
            if over:
                self._tell()
            expiring = any(held.policy.expires_ms for held in self._held.values())
            if over or (expiring and self._ticked_ms - self._kept_ms >= KEEP_TIME_MS):
                self._changed = True
        self.save()

    def save(self) -> None:
        """Writes down what has changed. Raises StorageFull, HostFault; it is in force all the same."""
        with self._saving:
            with self._lock:
                if not self._changed:
                    return
                self._changed, data = False, cbor.encode(self._kept())
                self._kept_ms = self._ticked_ms
            try:
                files.write_atomic(self._path, data, 0o600)
            except SnapcountError:
                self._changed = True
                raise

    def documents(self) -> tuple[bytes, ...]:
        """What somebody who was away must be told: every policy in force or armed, and every lift that is kept."""
        with self._lock:
            return (*(held.document for held in self._held.values()), *self._lifts.values())

    def shows(self, policy_id: str, version: str) -> None:
        """An armed policy's anomaly has shown: it stays in force from now on, over restarts too."""
        with self._lock:
            self._shown.add(policy_id)
            self._changed = True
            self._tell()
        self._log("warning", f"quarantine policy {policy_id}: {version} has shown its anomaly, and is disabled")

    def status(self) -> list[dict[str, Any]]:
        """For people and `--json`."""
        with self._lock:
            return [
                msgspec.to_builtins(held.policy) | {"in_force": held.policy.anomaly is None or held.policy.id in self._shown}
                for held in self._held.values()
            ]

    # Inside, under the lock.

    def _disable(self, policy: Disable, document: bytes) -> bool:
        held = self._held.get(policy.id)
        if held is not None and held.policy == policy:
            return False
        if held is not None or policy.id in self._ended or policy.issued_ms <= self._floor_ms:
            ended = (
                "another policy has its id"
                if held is not None
                else "it was lifted or has expired here, or is older than what is remembered"
            )
            raise Replayed(f"quarantine policy {policy.id}: {ended}; issue a new one")
        now_ms = max(self._clock.now_ms(), policy.issued_ms)
        if policy.expires_ms and now_ms >= policy.expires_ms:
            raise Untimely(f"quarantine policy {policy.id}: expired {(now_ms - policy.expires_ms) // 1000} s ago by this node's clock")
        self._make_room(document)
        if len(self._held) >= DEFAULT.policies_max or self._bytes() + len(document) > DOCUMENTS_BYTES_MAX:
            raise TooLarge(
                f"quarantine policy {policy.id}: {len(self._held)} policies are held here, which is all that fit; lift some first"
            )
        self._held[policy.id] = _Held(document, policy, now_ms)
        return True

    def _lift(self, lift: Lift, document: bytes) -> bool:
        if lift.lifts in self._ended and lift.lifts not in self._held:
            return False
        self._end(lift.lifts, lift.issued_ms)
        self._make_room(document)
        if len(self._lifts) < DEFAULT.policies_max and self._bytes() + len(document) <= DOCUMENTS_BYTES_MAX:
            self._lifts[lift.lifts] = document
        return True

    def _end(self, policy_id: str, issued_ms: int) -> None:
        held = self._held.pop(policy_id, None)
        self._shown.discard(policy_id)
        self._ended[policy_id] = issued_ms if held is None else held.policy.issued_ms
        while len(self._ended) > ENDED_MAX:
            oldest = next(iter(self._ended))
            self._floor_ms = max(self._floor_ms, self._ended.pop(oldest))
            self._lifts.pop(oldest, None)

    def _make_room(self, document: bytes) -> None:
        """The oldest lifts make room: who missed one still holds a policy that somebody has to lift once more, and nothing runs that should not."""
        while self._lifts and (len(self._lifts) >= DEFAULT.policies_max or self._bytes() + len(document) > DOCUMENTS_BYTES_MAX):
            del self._lifts[next(iter(self._lifts))]

    def _bytes(self) -> int:
        return sum(map(len, self.documents()))

    def _elapsed_ms(self) -> int:
        before, self._ticked_ms = self._ticked_ms, self._clock.monotonic_ms()
        return max(self._ticked_ms - before, 0)

    def _tell(self) -> None:
        self._enforce([held.policy for held in self._held.values()], frozenset(self._shown))

    # On disk.

    def _kept(self) -> _Kept:
        return _Kept(
            documents=self.documents(), time_ms={policy_id: held.time_ms for policy_id, held in self._held.items()}, shown=tuple(sorted(self._shown)),
            ended=tuple(_Ended(policy_id, issued_ms) for policy_id, issued_ms in self._ended.items()), floor_ms=self._floor_ms,
        )  # fmt: skip

    def _restore(self) -> None:
        try:
            kept = cbor.decode_struct(self._path.read_bytes(), _Kept, str(self._path))
        except FileNotFoundError:
            return
        except (OSError, MalformedData, TooLarge) as error:
            # The registry and the mesh tell it all again; a node that did not start could not even be told.
            self._log("error", f"{self._path}: not the policies that were kept ({error}); this node waits to be told them again")
            return
        self._ended = {ended.id: ended.issued_ms for ended in kept.ended}
        self._floor_ms = kept.floor_ms
        for document in kept.documents:
            self._restore_one(document, kept.time_ms)
        self._shown = set(kept.shown) & self._held.keys()

    def _restore_one(self, document: bytes, time_ms: dict[str, int]) -> None:
        try:
            policy = quarantine.verify(document, self._operators)
        except (SignatureInvalid, MalformedData, TooLarge) as error:
            self._log("warning", f"a quarantine policy that was kept counts no more: {error}")
            return
        if isinstance(policy, Lift):
            self._lifts[policy.lifts] = document
        else:
            self._held[policy.id] = _Held(document, policy, max(time_ms.get(policy.id, 0), policy.issued_ms))


def in_words(policy: quarantine.AnyPolicy) -> str:
    """One line for people."""
    if isinstance(policy, Lift):
        return f"lifts {policy.lifts}"
    what = " ".join(part for part in (policy.skill, policy.versions, policy.digest[:19]) if part and part != quarantine.ANY)
    hook = "" if policy.hook == quarantine.ANY else f", hook {policy.hook}"
    when = "" if policy.anomaly is None else f" once {policy.anomaly.count} × {policy.anomaly.code} show within {policy.anomaly.within_s} s"
    return f"disables {what}{hook}{when}"
