"""Whether those whom the node asks can be reached, and those who ask it can reach it. A node works on without them; it gets nothing new."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from host.config import NATS_SCHEME
from host.core.errors import NetworkError
from host.core.limits import DEFAULT
from host.doctor.finding import Finding
from host.doctor.probes import HttpAnswer
from host.doctor.subject import Subject

CHECK = "network"
API = "/v2/"  # the OCI Distribution API's own question whether it is there (end-1)
CLOCK_RESOLUTION_S = 2  # a Date header has whole seconds, and the answer takes its time
DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443, "nats": 4222, "tls": 4222}


def check(subject: Subject) -> Iterator[Finding]:
    yield from _registry(subject)
    yield from _parents(subject)
    yield from _ports(subject)


def _registry(subject: Subject) -> Iterator[Finding]:
    url = subject.settings.node.registry.rstrip("/")
    if not url:
        yield Finding(CHECK, "ok", "no registry: skills come from nowhere, as node.toml says")
        return
    try:
        answer = subject.probes.http(f"{url}{API}")
    except NetworkError as error:
        yield Finding(CHECK, "fail", f"registry: {error}", "see that it runs, and that node.registry in node.toml names it")
        return
    if answer.status in (200, 401):
        yield Finding(CHECK, "ok", f"the registry {url} answers")
    else:
        yield Finding(
            CHECK, "warn", f"{url} answers {answer.status}, which no registry does", "see that node.registry in node.toml names it"
        )
    yield from _offset(answer)


def _offset(answer: HttpAnswer) -> Iterator[Finding]:
    if answer.date_s is None:
        return
    apart_s = answer.asked_s - answer.date_s
    shown = f"this clock is {abs(apart_s):.0f} s {'ahead of' if apart_s > 0 else 'behind'} the registry's"
    if abs(apart_s) > DEFAULT.clock_skew_s_max:
        yield Finding("clock", "fail", shown, f"certificates allow {DEFAULT.clock_skew_s_max} s: correct the one that is wrong")
    elif abs(apart_s) > DEFAULT.early_ms_max / 1000 + CLOCK_RESOLUTION_S:
        yield Finding(
            "clock",
            "warn",
            shown,
            f"messages from more than {DEFAULT.early_ms_max // 1000} s ahead are refused: correct the one that is wrong",
        )
    else:
        yield Finding("clock", "ok", "it agrees with the registry's")


def _parents(subject: Subject) -> Iterator[Finding]:
    mesh, supply = subject.settings.mesh, subject.settings.supply
    brokers = [mesh.nats] if mesh.nats else []
    dialled = brokers + [parent for parent in mesh.parents if mesh.role and not parent.startswith(NATS_SCHEME)]
    reached = 0
    for address in dialled:
        problem = _unreachable(subject, address)
        reached += not problem
        yield problem or Finding(CHECK, "ok", f"{address} takes connections")
    if dialled and not reached:
        yield Finding(
            CHECK, "fail", "none of those that this node dials in the mesh can be reached", "see mesh.parents and mesh.nats in node.toml"
        )
    for address in supply.parents:
        yield _unreachable(subject, address) or Finding(CHECK, "ok", f"{address} takes connections")


def _unreachable(subject: Subject, address: str) -> Finding | None:
    parts = urlsplit(address)
    try:
        subject.probes.connect(parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Finding(CHECK, "warn", f"{address} cannot be reached: {reason}", "see that it runs, and that no firewall is between")
    return None


def _ports(subject: Subject) -> Iterator[Finding]:
    mesh, supply = subject.settings.mesh, subject.settings.supply
    listened = [("mesh.listen", *mesh.listens_on)] if mesh.listen and not mesh.listen.startswith(NATS_SCHEME) and mesh.role else []
    listened += [("supply.serve", *supply.serves_on)] if supply.serve else []
    for name, host, port in listened:
        if subject.running is not None:
            yield Finding(CHECK, "ok", f"{name}: the running node listens on {host}:{port}")
            continue
        try:
            subject.probes.listen(host, port)
        except OSError as error:
            yield Finding(
                CHECK,
                "fail",
                f"{name}: {host}:{port} cannot be listened on: {error.strerror or error}",
                "free the port, or name another one",
            )
        else:
            yield Finding(CHECK, "ok", f"{name}: {host}:{port} is free")
