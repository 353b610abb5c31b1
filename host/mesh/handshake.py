"""How a link begins: the parent challenges, the child says who it is, the parent says who it is; each proves it by signing the other's nonce."""

from dataclasses import dataclass

from nacl.signing import SigningKey, VerifyKey

from host.core import cose
from host.core.certificate import Claims
from host.core.errors import MalformedData, UnknownSender
from host.mesh.frames import AAD, TIERS, Hello, Role, Welcome, typed
from host.mesh.trust import NODE, Trust, role_of


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a peer is. `chain` begins with its own certificate; `agent_class` is as in the arrival kernel."""

    name: str
    role: Role
    key: SigningKey
    chain: tuple[bytes, ...]
    agent_class: int = 0
    capabilities: tuple[str, ...] = ()


def open_hello(data: bytes, nonce: bytes, trust: Trust, parent: Role) -> tuple[Hello, Claims]:
    """The hello of a child, believed. Raises UntrustedInput of some kind.

    The key comes from the certificate inside, so the hello is decoded before it is verified; nothing of it is used before.
    """
    envelope = cose.parse(data, "hello")
    hello = typed(envelope.payload or b"", Hello)
    claims = trust.verify(hello.chain, "certificate in a hello")
    cose.verify(envelope, VerifyKey(claims.key), "hello", aad=AAD + nonce)
    if hello.nonce != nonce:
        raise MalformedData("hello: answers another challenge")
    _check(hello.name, hello.role, claims, "hello")
    # Agents have a lead, which sums them up; above it there are tiers only.
    if TIERS.index(hello.role) >= TIERS.index(parent) or (hello.role == "agent") != (parent == "lead"):
        raise UnknownSender(f"hello of {hello.name}: a {hello.role} cannot be the child of a {parent}")
    lacking = set(hello.capabilities) - set(claims.capabilities)
    if lacking:
        raise UnknownSender(f"hello of {hello.name}: offers {', '.join(sorted(lacking))}, which its certificate does not grant")
    return hello, claims


def open_welcome(data: bytes, mine: bytes, trust: Trust, child: Role) -> tuple[Welcome, Claims]:
    """The welcome of a parent, believed. Raises UntrustedInput of some kind."""
    envelope = cose.parse(data, "welcome")
    welcome = typed(envelope.payload or b"", Welcome)
    claims = trust.introduce(welcome.chain)
    cose.verify(envelope, VerifyKey(claims.key), "welcome", aad=AAD + mine)
    if welcome.mine != mine:
        raise MalformedData("welcome: answers another hello")
    _check(welcome.name, welcome.role, claims, "welcome")
    if TIERS.index(welcome.role) <= TIERS.index(child):
        raise UnknownSender(f"welcome of {welcome.name}: a {welcome.role} cannot be the parent of a {child}")
    return welcome, claims


def _check(name: str, role: Role, claims: Claims, what: str) -> None:
    if claims.subject != name:
        raise UnknownSender(f"{what} of {name}: its certificate is for {claims.subject}")
    if NODE not in claims.roles or TIERS.index(role) > TIERS.index(role_of(claims)):
        raise UnknownSender(f"{what} of {name}: its certificate does not allow the role {role}")
