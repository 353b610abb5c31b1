"""The quarantine policies that a registry hands on: kept in one file, so that a node that was away hears of them first. Each node judges them for itself."""

import asyncio
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from aiohttp import web
from nacl.signing import VerifyKey

from host.core import cbor, cose, files, quarantine
from host.core.clock import Clock
from host.core.errors import MalformedData, StateDamaged, TooLarge, UntrustedInput
from host.core.limits import DEFAULT
from host.core.quarantine import AnyPolicy, Disable, Lift
from registry import bodies
from registry.audit import Entry
from registry.tokens import Access

FILE = "policies.cbor"
BYTES_MAX = 2 * DEFAULT.policies_max * DEFAULT.policy_bytes_max
Record = Callable[[Entry], None]


class PolicyBook:
    """Policies that hold, and lifts of others. A lift takes the place of what it lifts."""

    def __init__(self, directory: Path, operators: Collection[VerifyKey], clock: Clock) -> None:
        self._path, self._operators, self._clock = directory / FILE, tuple(operators), clock
        self._writing = threading.Lock()
        self._held = self._load()

    def documents(self) -> tuple[bytes, ...]:
        """What every node is to be told, those that have expired left out."""
        now_ms = self._clock.now_ms()
        return tuple(document for document, policy in self._held.values() if not _expired(policy, now_ms))

    def policies(self) -> list[AnyPolicy]:
        return [policy for _, policy in self._held.values()]

    def take(self, document: bytes) -> AnyPolicy:
        """Keeps a signed policy. Raises SignatureInvalid, MalformedData, TooLarge where too many are kept already, StorageFull, HostFault."""
        policy = quarantine.verify(document, self._operators)
        with self._writing:
            now_ms = self._clock.now_ms()
            held = {id: kept for id, kept in self._held.items() if not _expired(kept[1], now_ms)}
            if isinstance(policy, Lift):
                held.pop(policy.lifts, None)
            if policy.id not in held and len(held) >= 2 * DEFAULT.policies_max:
                raise TooLarge(f"quarantine policy {policy.id}: {len(held)} are kept here; lift or let expire some first")
            held[policy.id] = (document, policy)
            files.write_atomic(self._path, cbor.encode([kept for kept, _ in held.values()]))
            self._held = held
        return policy

    def _load(self) -> dict[str, tuple[bytes, AnyPolicy]]:
        try:
            raw = self._path.read_bytes()
            documents = msgspec.convert(cbor.decode(raw, FILE, bytes_max=BYTES_MAX), list[bytes])
            found = ((document, quarantine.verify(document, self._operators)) for document in documents)
            return {policy.id: (document, policy) for document, policy in found}
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.ValidationError, UntrustedInput) as error:
            raise StateDamaged(
                f"{self._path}: not the policies that were kept here ({error}); move it away and send those that shall hold again"
            ) from error


class PolicyRoutes:
    """`POST /v1/policies` (signed document): 202 and `{"id", "nodes"}`; `GET /v1/policies`: those that hold. `spread` sends one on, `record` writes it down."""

    def __init__(self, book: PolicyBook, access: Access, spread: Callable[[bytes], int], record: Record) -> None:
        self._book, self._access, self._spread, self._record = book, access, spread, record

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/policies", self._post), web.get("/v1/policies", self._list)]

    async def _post(self, request: web.Request) -> web.Response:
        self._access.require(request, "push")
        document = await bodies.read(request, DEFAULT.policy_bytes_max, "a quarantine policy")
        # It is kept before it is sent: a node that is told after a restart must not be the only one that was not.
        policy = self._book.take(document)
        nodes = self._spread(document)
        await asyncio.to_thread(
            self._record, Entry("quarantine", cose.key_name(cose.parse(document, quarantine.WHAT).kid), _builtins(policy))
        )
        return web.json_response({"id": policy.id, "nodes": nodes}, status=202)

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "pull")
        return web.json_response({"policies": [_builtins(policy) for policy in self._book.policies()]})


def _expired(policy: AnyPolicy, now_ms: int) -> bool:
    return isinstance(policy, Disable) and bool(policy.expires_ms) and policy.expires_ms <= now_ms


def _builtins(policy: AnyPolicy) -> dict[str, object]:
    found = msgspec.to_builtins(policy)
    if not isinstance(found, dict):
        raise MalformedData("quarantine policy: expected a map")
    return found
