"""Quarantine policies: what a node's operators forbid its skills, signed, in a few hundred bytes. Pure: whether a policy applies, and for how long.

Rules:

- a policy names a skill, a digest or both; `*` alone, which would be every skill, is refused. Versions and a hook narrow it down;
- with an anomaly it is armed only, and disables what it names once that node has seen so many errors of that kind within so many seconds;
- its id is used once: a policy that was lifted, or has expired, is not taken again;
- it says what may not be *called*. There is no field for a limit, a command or a driver, so it can neither widen nor narrow the safety envelope, and the
  envelope never looks at it.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import documents
from host.core.errors import MalformedData
from host.core.fleet import DIGEST
from host.core.limits import DEFAULT
from host.core.manifest import HOOK, NAME, SEMVER, version_key

AAD = b"snapcount quarantine 1"
ANY = "*"
WHAT = "quarantine policy"
COMPARATORS_MAX = 4
_COMPARATOR = re.compile(r"(>=|<=|>|<|=?)(.+)\Z", re.DOTALL)

Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
Ms = Annotated[int, Meta(ge=0, le=1 << 53)]
# The errors of host/core/errors.py that are a skill's own doing.
AnomalyCode = Literal[
    "guest_trap", "fuel_exhausted", "deadline_exceeded", "memory_exceeded", "reply_invalid", "host_calls_exceeded", "skill_refused"
]  # fmt: skip


class Anomaly(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signature of something going wrong: `count` errors of one code within `within_s` seconds, on one node."""

    code: AnomalyCode
    count: Annotated[int, Meta(ge=1, le=1_000)] = 1
    within_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 60


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="action"):
    """The root of both kinds; `action` on the wire tells them apart."""

    id: Id
    issued_ms: Ms
    reason: Annotated[str, Meta(max_length=300)] = ""


class Disable(Policy, frozen=True, tag="disable"):
    """No call of what it names. `versions` is `*` or up to four comparators that all hold, as `>=1.2.0 <1.4.0`; `expires_ms` is Unix time, 0 until lifted."""

    skill: Annotated[str, Meta(pattern=rf"{NAME}|^\*\Z", max_length=64)] = ANY
    digest: Annotated[str, Meta(pattern=rf"{DIGEST}|^\Z")] = ""
    versions: Annotated[str, Meta(min_length=1, max_length=400)] = ANY
    hook: Annotated[str, Meta(pattern=rf"{HOOK}|^\*\Z", max_length=64)] = ANY
    anomaly: Anomaly | None = None
    expires_ms: Ms = 0

    def __post_init__(self) -> None:
        if self.skill == ANY and not self.digest:
            raise ValueError("expected a skill or a digest: a policy that names everything is refused")
        if self.expires_ms and self.expires_ms <= self.issued_ms:
            raise ValueError(f"expected `expires_ms` after `issued_ms`, {self.issued_ms}")
        comparators(self.versions)

    def names(self, skill: str, version: str, digest: str) -> bool:
        """Whether it is about this version of this skill."""
        return (
            self.skill in (ANY, skill)
            and self.digest in ("", digest)
            and all(_holds(operator, version, bound) for operator, bound in comparators(self.versions))
        )


class Lift(Policy, frozen=True, tag="lift"):
    """Ends the policy `lifts`, and keeps it from being taken where it has not come yet."""

    lifts: Id


AnyPolicy = Disable | Lift


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed: a tagged union stands in a field, for a document is one struct."""

    policy: AnyPolicy


def sign(policy: AnyPolicy, operator: SigningKey) -> bytes:
    return documents.sign(_Signed(policy), operator, AAD)


def verify(data: bytes, operators: Collection[VerifyKey]) -> AnyPolicy:
    """Raises SignatureInvalid, MalformedData, TooLarge. Whether it came before is for the node to check."""
    return documents.verify(data, _Signed, operators, AAD, WHAT, bytes_max=DEFAULT.policy_bytes_max).policy


@lru_cache(maxsize=512)
def comparators(versions: str) -> tuple[tuple[str, str], ...]:
    """The operators and versions of a range; none for `*`. Raises ValueError."""
    if versions == ANY:
        return ()
    parts = versions.split(" ")
    found = [match.groups() for part in parts if (match := _COMPARATOR.match(part)) and re.match(SEMVER, match[2])]
    if len(found) != len(parts) or len(parts) > COMPARATORS_MAX:
        raise ValueError(f"versions: expected * or up to {COMPARATORS_MAX} comparators such as '>=1.2.0 <1.4.0'")
    return tuple((operator or "=", bound) for operator, bound in found)


def _holds(operator: str, version: str, bound: str) -> bool:
    try:
        left, right = version_key(version), version_key(bound)
    except MalformedData:
        return False
    return {"=": left == right, ">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]
