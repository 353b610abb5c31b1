"""Whom a peer believes: certificates by its authorities, and the sources that were introduced with one."""

from collections.abc import Callable, Collection

from nacl.signing import VerifyKey

from host.core import certificate, cose
from host.core.certificate import Claims
from host.core.errors import CapabilityDenied, UnknownSender
from host.core.limits import DEFAULT
from host.core.text import safe
from host.mesh.frames import TIERS, Role
from host.mesh.message import COMMANDS, RESERVED, Message

NODE = "node"
"""The certificate role of every peer; a tier has its own role besides."""


class Trust:
    """Verifies chains, and remembers those that were sound: the last `sources_known_max` that were used. Agents cannot push a tier out."""

    def __init__(self, authorities: Collection[VerifyKey], now_s: Callable[[], int], revoked: Collection[bytes] = frozenset()) -> None:
        self._authorities, self._now_s, self._revoked = tuple(authorities), now_s, revoked
        self._known: dict[bytes, tuple[Claims, tuple[bytes, ...]]] = {}

    def verify(self, chain: tuple[bytes, ...], what: str) -> Claims:
        """The claims of a chain's first certificate. Raises CertificateInvalid, MalformedData."""
        return certificate.verify_chain(chain, self._authorities, self._now_s(), revoked=self._revoked, what=what)

    def introduce(self, chain: tuple[bytes, ...]) -> Claims:
        """Remembers a source. Raises CertificateInvalid, MalformedData."""
        claims = self.verify(chain, "certificate of a source")
        self._known.pop(claims.key, None)
        if len(self._known) >= DEFAULT.sources_known_max:
            del self._known[next((key for key, (known, _) in self._known.items() if role_of(known) == "agent"), next(iter(self._known)))]
        self._known[claims.key] = (claims, chain)
        return claims

    def knows(self, key: bytes) -> bool:
        return key in self._known

    def chain_of(self, key: bytes) -> tuple[bytes, ...] | None:
        """What to introduce a source with."""
        known = self._known.get(key)
        return None if known is None else known[1]

    def source(self, key: bytes) -> Claims:
        """Who has this key. Raises UnknownSender where nobody was introduced with it, or the certificate has expired since."""
        known = self._known.get(key)
        if known is None:
            raise UnknownSender(f"message: signed by {cose.key_name(key)}, whom no trusted certificate introduced here")
        claims = known[0]
        if self._now_s() > claims.expires_s + DEFAULT.clock_skew_s_max:
            del self._known[key]
            raise UnknownSender(f"message: the certificate of {claims.subject} has expired at {claims.expires_s}")
        self._known[key] = self._known.pop(key)
        return claims


def may_send(claims: Claims, message: Message) -> None:
    """What a source may say.

    Raises UnknownSender for another's name, or a command or a reserved topic by no tier, CapabilityDenied for a capability that it does not have.
    """
    if claims.subject != message.source:
        raise UnknownSender(f"message: names {safe(message.source, 64)} as its source, and is signed by {claims.subject}")
    if message.verb in COMMANDS and role_of(claims) == "agent":
        raise UnknownSender(f"message of {claims.subject}: an agent may not send the verb {message.verb}; only a tier commands")
    if message.topic.startswith(RESERVED) and role_of(claims) == "agent":
        raise UnknownSender(f"message of {claims.subject}: an agent may not use the topic {message.topic}; only a tier commands")
    lacking = sorted(set(message.capabilities) - set(claims.capabilities))
    if lacking:
        raise CapabilityDenied(f"message of {claims.subject}: asks for {', '.join(lacking)}, which its certificate does not grant")


def role_of(claims: Claims) -> Role:
    """The highest tier that a certificate allows."""
    for role in reversed(TIERS):
        if role in claims.roles:
            return role
    return "agent"
