"""Whom the node believes, whether others will believe it, and for how long."""

from collections.abc import Iterator

from host import identity
from host.core import safety
from host.core.certificate import ROTATION_S, VALIDITY_S, Claims, verify_chain
from host.core.errors import SnapcountError
from host.doctor.clock import day
from host.doctor.finding import Finding, Level
from host.doctor.subject import Subject

CHECK = "trust"
DAY_S = 86_400
TLS_DAYS_LOW = 14
ROOT_DAYS_LOW = 30
CERTIFY = "the owner renews it with `snapcount node certify`"


def check(subject: Subject) -> Iterator[Finding]:
    yield from _believed(subject)
    yield from _certificate(subject)
    yield from _safety(subject)
    yield from _tls(subject)
    yield from _approvals(subject)


def _believed(subject: Subject) -> Iterator[Finding]:
    trust = subject.settings.trust
    if not trust.authors:
        yield Finding(CHECK, "warn", "it trusts no author, so it can install nothing", "name one in trust.authors in node.toml")
    else:
        yield Finding(CHECK, "ok", f"it trusts {len(trust.authors)} author(s) and {len(trust.operators)} operator(s)")


def _certificate(subject: Subject) -> Iterator[Finding]:
    now_s = int(subject.probes.now_s())
    try:
        key = identity.load_key(subject.state)
        encoded = identity.load_certificate(subject.state)
        if not encoded:
            yield Finding(CHECK, "fail", "it has no certificate", CERTIFY)
            return
        claims = verify_chain([encoded], [subject.settings.owner], now_s)
    except (SnapcountError, OSError) as error:
        yield Finding(CHECK, "fail", str(error), CERTIFY)
        return
    mismatch = _mismatch(subject, claims, bytes(key.verify_key))
    if mismatch:
        yield Finding(CHECK, "fail", f"its certificate {mismatch}", CERTIFY)
        return
    left_s = claims.expires_s - now_s
    level: Level = "ok" if left_s > VALIDITY_S - ROTATION_S else "warn"
    days = f"{left_s // DAY_S} days left" if left_s > 0 else "only the skew of clocks left"
    yield Finding(CHECK, level, f"its certificate holds until {day(claims.expires_s)}, {days}", "" if level == "ok" else CERTIFY)


def _mismatch(subject: Subject, claims: Claims, key: bytes) -> str:
    settings = subject.settings
    if claims.key != key:
        return "is for another key than identity/node.key"
    if claims.subject != settings.node.name:
        return f"is for {claims.subject}, and node.toml names {settings.node.name}"
    if claims.generation != settings.node.generation:
        return f"says generation {claims.generation}, and node.toml says {settings.node.generation}"
    if subject.is_tier and settings.mesh.role not in claims.roles:
        return f"does not grant the role {settings.mesh.role} that node.toml gives it"
    return ""


def _safety(subject: Subject) -> Iterator[Finding]:
    state = subject.state
    try:
        text, signature = ((state / name).read_bytes() for name in (identity.SAFETY, identity.SAFETY_SIGNATURE))
        safety.verify_limits(text, signature, subject.settings.owner, str(state / identity.SAFETY))
    except (SnapcountError, OSError) as error:
        yield Finding(CHECK, "fail", f"its machine's limits do not hold: {error}", "the owner signs them with `snapcount node sign-safety`")
        return
    if (state / identity.TRIP).exists():
        yield Finding(CHECK, "warn", "safe mode is on: no machine of it moves", "find out why, then the owner runs `snapcount node reset`")
    else:
        yield Finding(CHECK, "ok", "its machine's limits are signed by its owner")


def _tls(subject: Subject) -> Iterator[Finding]:
    mesh = subject.settings.mesh
    if not mesh.tls_certificate:
        return
    from cryptography import x509

    path = subject.state / mesh.tls_certificate
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        (subject.state / mesh.tls_key).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a PEM certificate"
        yield Finding(
            CHECK, "fail", f"{getattr(error, 'filename', None) or path}: {reason}", "see mesh.tls_certificate and mesh.tls_key in node.toml"
        )
        return
    yield _expiry(
        str(path), certificate.not_valid_after_utc.timestamp(), subject.probes.now_s(), TLS_DAYS_LOW, "renew it where it came from"
    )


def _approvals(subject: Subject) -> Iterator[Finding]:
    trust, directory = subject.settings.trust, subject.state / "trust"
    if not (trust.metadata or directory.exists()):
        return
    from host.core.clock import SystemClock
    from host.supply.trust import TrustClient

    client = TrustClient(directory, trust.metadata, SystemClock())
    if not client.initialised:
        yield Finding(
            CHECK, "fail", "it was given no root of trust, so it takes no approval", "its owner takes one from the operators: docs/trust.md"
        )
        return
    try:
        expires = client.expires()
    except SnapcountError as error:
        yield Finding(CHECK, "fail", str(error), "remove that file; it comes again with the next refresh")
        return
    if not expires:
        yield Finding(CHECK, "warn", "it has not reached the trust repository yet", "see trust.metadata in node.toml")
    now_s = subject.probes.now_s()
    for role, moment in expires.items():
        # The short-lived ones are renewed by every refresh; only root needs people, who need time.
        low = ROOT_DAYS_LOW if role == "root" else 0
        do = "the operators renew root" if role == "root" else "reach the trust repository, or have the operators renew it"
        yield _expiry(f"trust metadata of {role}", moment.timestamp(), now_s, low, do)


def _expiry(what: str, expires_s: float, now_s: float, days_low: int, do: str) -> Finding:
    left_s = expires_s - now_s
    if left_s <= 0:
        return Finding(CHECK, "fail", f"{what}: expired on {day(expires_s)}", do)
    if left_s < days_low * DAY_S:
        return Finding(CHECK, "warn", f"{what}: expires on {day(expires_s)}", do)
    return Finding(CHECK, "ok", f"{what}: holds until {day(expires_s)}")
