"""What an operator asks of the fleet: cascades, questions, delegations, freezes. Each ends in one result that says what came of it and what to do."""

from array import array
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from host.core.errors import Incompatible, UsageError
from host.core.limits import DEFAULT
from host.core.manifest import HookName
from host.mesh.children import Child
from host.mesh.fleetmap import FleetMap
from host.mesh.frames import Heartbeat, Reply
from host.mesh.freeze import FREEZE, THAW
from host.mesh.gathering import Gathering
from host.mesh.handshake import Identity
from host.mesh.isolation import FORGET, ISOLATE, READMIT
from host.mesh.message import CONTROL, EVERYONE, Routing, Target, Topic, Verb
from host.mesh.peer import World
from host.mesh.policing import QUARANTINE
from host.mesh.quorum import Decision, Tally, Thresholds, decide
from host.mesh.tier import TierPeer

SHARE = 0.98
MARGIN, MARGIN_MS = 1.05, 50.0
GRACE_MS = 500.0
REPLIES_BYTES = DEFAULT.replies_bytes_max
CascadeStrategy = Literal["wave", "parallel", "priority_first"]
Result = dict[str, Any]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cascade, or a question. `in_ms`: T is so far from now; None: as early as the fleet can be ready; 0: no arrival time, at once.

    `ready_min` is the share of those expected that must be READY; `timeout_ms` bounds a message without T.
    """

    topic: Topic
    verb: Verb = "act"
    routing: Routing = "broadcast"
    payload: Annotated[bytes, Meta(max_length=DEFAULT.payload_bytes_max)] = b""
    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=DEFAULT.targets_max)] = (EVERYONE,)
    first: Annotated[tuple[Target, ...], Meta(max_length=DEFAULT.targets_max)] = ()
    strategy: CascadeStrategy = "parallel"
    in_ms: Annotated[float, Meta(ge=0, le=86_400_000)] | None = None
    window_ms: Annotated[float, Meta(ge=0, le=1e6)] = 100.0
    timeout_ms: Annotated[float, Meta(ge=10, le=86_400_000)] = 10_000.0
    ready_min: Annotated[float, Meta(ge=0, le=1)] = 0.95
    weight: Annotated[float, Meta(ge=0, le=16)] = 0.0
    priority: Annotated[int, Meta(ge=0, le=CONTROL)] = 2
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=16)] = ()
    expected: Annotated[str, Meta(max_length=64)] = ""
    confirm: bool = False
    excluded: Annotated[tuple[Target, ...], Meta(max_length=DEFAULT.targets_max)] = ()
    correlation: Annotated[bytes, Meta(max_length=16)] = b""
    causation: Annotated[bytes, Meta(max_length=16)] = b""


Done = Callable[[Result], None]


class Orchestrator(TierPeer):
    """The root of the mesh: its clock is fleet time. `done` is called once for each operation, on the mesh's own thread."""

    def __init__(self, identity: Identity, world: World, *, heartbeat_ms: int = 5_000, children_max: int = 256) -> None:
        super().__init__(identity, world, heartbeat_ms=heartbeat_ms, children_max=children_max)
        self.map = FleetMap(identity.name, float(heartbeat_ms))
        self.last: Result | None = None
        """The last cascade's result."""

    def heartbeat(self, child: Child, frame: Heartbeat) -> None:
        super().heartbeat(child, frame)
        if frame.summaries:
            self.map.report(frame.summaries[0], frame.summaries[1:], self.clock.now_ms())

    def needed_ms(self, request: Request) -> float:
        """How far from now T must be for `SHARE` of the targets to be ready."""
        rows = sorted(member.row for member in self.resolve(request.targets, request.excluded))
        if not rows:
            return 0.0
        lead_ms = self.registry.table.quantile_lead_ms(SHARE, request.weight, array("I", rows), self.relay.estimator)
        gates_ms = 3 * self.relay.gate_ms if request.strategy == "wave" else 0.0
        return lead_ms * MARGIN + MARGIN_MS + gates_ms

    def broadcast(self, request: Request, done: Done) -> None:
        """A cascade. Raises UsageError for targets that do not exist, or a request that cannot be."""
        if request.strategy == "priority_first":
            self._first_then_rest(request, done)
        else:
            self._send(request, lambda result: done(self._remember(result)))

    def ask(self, request: Request, done: Done) -> None:
        """Scatter-gather: SUCCESS when at least `ready_min` answered in time, else PARTIAL."""
        self._send(msgspec.structs.replace(request, routing="scatter_gather", in_ms=0.0), done)

    def delegate(self, request: Request, capability: str, count: int, ceiling: float, done: Done) -> None:
        """Hands a task to the `count` best agents with a capability and a score of at most `ceiling`. Raises Incompatible when there are fewer."""
        best = self.map.best(capability, count, ceiling, self.clock.now_ms())
        if len(best) < count:
            raise Incompatible(f"{count} agents with {capability} and an impedance of at most {ceiling:g} wanted, {len(best)} found")
        names = tuple(one.name for one in best)
        chosen = msgspec.structs.replace(request, routing="direct", targets=names, capabilities=(capability,), in_ms=0.0)
        self._send(chosen, lambda result: done(result | {"delegated": [{"name": one.name, "score": round(one.score)} for one in best]}))

    def pipeline(self, request: Request, done: Done) -> None:
        """Asks the targets one after the other; each is given what the one before it answered. Stops at the first that does not answer."""
        self._step(msgspec.structs.replace(request, routing="pipeline", in_ms=0.0, correlation=self.author.identity()), 0, [], done)

    def freeze(self, targets: Sequence[str], reason: str, done: Done) -> None:
        """Freezes a cluster, a sector or, with `*`, all."""
        self._control(FREEZE, targets, reason, done)

    def thaw(self, targets: Sequence[str], done: Done) -> None:
        self._control(THAW, targets, "", done)

    def isolate(self, targets: Sequence[str], reason: str, done: Done) -> None:
        """Takes agents out: until they are readmitted, nothing but control is sent to them."""
        self._control(ISOLATE, targets, reason, done)

    def readmit(self, targets: Sequence[str], done: Done) -> None:
        self._control(READMIT, targets, "", done)

    def forget_agents(self, targets: Sequence[str], done: Done) -> None:
        """Expects agents no more that have gone for good. One that is connected, or isolated, is not forgotten."""
        self._control(FORGET, targets, "", done)

    def quarantine(self, document: bytes, done: Done) -> None:
        """Sends a signed quarantine policy, or the lift of one, to the whole fleet. Raises what this node itself refuses it for."""
        self.world.police(document)
        self._send(Request(topic=QUARANTINE, verb="sync", payload=document, priority=CONTROL, in_ms=0.0), done)

    def status(self) -> dict[str, Any]:
        """What the operator's panel shows."""
        now_ms = self.clock.now_ms()
        totals = self.map.totals(now_ms)
        sectors = [self.map.sector(name) for name in self.map.names()]
        frozen = sorted({part.name for sector in sectors for part in (sector.summary, *sector.clusters) if part.frozen})
        return {
            "orchestrator": self.identity.name,
            "agents": {"total": totals.agents, "active": totals.active, "degraded": totals.degraded, "offline": totals.offline, "quarantined": totals.quarantined},
            "sectors": [self._sector(name, now_ms) for name in self.map.names()], "sectors_healthy": self.map.sectors_healthy(now_ms),
            "impedance": {
                "mean": round(totals.mean, 1), "p95": round(totals.p95, 1), "trend_per_hour": round(self.map.trend(), 1), "slow": totals.slow,
                "unstable": totals.unstable, "spiking": totals.spiking, "lead_ms": round(totals.lead_ms, 1),
                "slowest": None if totals.slowest is None else totals.slowest.name,
            },
            "generations": list(totals.generations), "conflicts_hour": totals.conflicts_hour, "raised": self.raised.rows(),
            "mode": "frozen" if self.frozen else ("partly frozen" if frozen else "normal"), "frozen": frozen,
            "last_cascade": self.last, "refused": dict(sorted(self.complaints.counts.items())),
        }  # fmt: skip

    # Inside.

    def _sector(self, name: str, now_ms: float) -> dict[str, Any]:
        sector = self.map.sector(name)
        return {
            "name": name, "agents": sector.summary.agents, "active": sector.summary.active, "mean": round(sector.summary.mean, 1),
            "lead_ms": round(sector.summary.lead_ms, 1), "healthy": self.map.healthy(name, now_ms), "ailment": self.map.ailment(name, now_ms),
            "frozen": sector.summary.frozen,
            "clusters": [{"name": c.name, "agents": c.agents, "active": c.active, "frozen": c.frozen} for c in sector.clusters],
        }  # fmt: skip

    def _control(self, topic: str, targets: Sequence[str], reason: str, done: Done) -> None:
        request = Request(topic=topic, verb="sync", payload=reason.encode()[:300], targets=tuple(targets), priority=CONTROL, in_ms=0.0)
        self._send(request, done)

    def _send(self, request: Request, done: Done) -> None:
        now_ms = self.clock.now_ms()
        self._check_targets(request)
        in_ms = self.needed_ms(request) if request.in_ms is None else request.in_ms
        at_ms = now_ms + in_ms if in_ms else 0.0
        report_by_ms = at_ms + request.window_ms / 2 + max(GRACE_MS, 0.25 * in_ms) if at_ms else now_ms + request.timeout_ms
        fields: dict[str, Any] = {
            name: getattr(request, name)
            for name in (
                "topic",
                "verb",
                "routing",
                "targets",
                "excluded",
                "weight",
                "priority",
                "capabilities",
                "expected",
                "confirm",
                "window_ms",
            )
        }
        if request.correlation:
            fields["correlation"] = request.correlation
        message = self.author.message(
            now_ms, **fields, payload=request.payload, causation=request.causation, at_ms=at_ms, ttl_ms=int(report_by_ms - now_ms) + 1,
            strategy="wave" if request.strategy == "wave" else "parallel",
        )  # fmt: skip
        self.pass_on(message, report_by_ms, REPLIES_BYTES, lambda gathering: done(self._result(gathering, request, now_ms)))

    def _check_targets(self, request: Request) -> None:
        unknown = [
            name for name in (*request.targets, *request.first) if name != EVERYONE and name not in self.above and not self.resolve((name,))
        ]
        if unknown:
            raise UsageError(f"nobody here is called {', '.join(unknown[:5])}; `snapcount fleet status` shows the sectors and clusters")

    def _result(self, gathering: Gathering, request: Request, started_ms: float) -> Result:
        report = gathering.report()
        message, now_ms = gathering.message, self.clock.now_ms()
        tally = Tally(*(report[name] for name in ("expected", "ready", "transit", "conflict", "skipped")))
        decision = decide(tally, Thresholds(ready_min=request.ready_min), time_left=False)
        if gathering.stopped:
            decision = Decision("RETRY", gathering.stopped, "look at those tiers first; nothing reached an agent")
        return {
            "outcome": "SUCCESS" if decision.verdict == "PROCEED" else "PARTIAL", "verdict": decision.verdict, "reason": decision.reason,
            "recommendation": decision.recommendation, "topic": message.topic, "strategy": request.strategy, "routing": message.routing,
            "id": message.id.hex(), "correlation": message.correlation.hex(), "created_ms": started_ms, "at_ms": message.at_ms,
            "wall_ms": round(now_ms - started_ms, 3), "gate_ms": round(self.relay.gate_ms, 3) if gathering.gate_ms else 0.0,
            **{name: report[name] for name in (
                "expected", "ready", "transit", "conflict", "skipped", "acted", "failed", "missing_more", "replies_dropped", "messages")},
            "missing": list(report["missing"]), "replies": [_reply(reply) for reply in report["replies"]],
            "ready_errors": list(report["ready_errors"]), "acted_errors": list(report["acted_errors"]),
        }  # fmt: skip

    def _remember(self, result: Result) -> Result:
        self.last = {name: value for name, value in result.items() if name not in ("replies", "missing")}
        return result

    def _first_then_rest(self, request: Request, done: Done) -> None:
        """Who is named in `first` must be READY before anybody else is asked."""
        if not request.first:
            raise UsageError("the strategy priority_first needs to know who is first: a sector, a cluster or agents")
        first = msgspec.structs.replace(request, strategy="parallel", targets=request.first)
        rest = msgspec.structs.replace(request, strategy="parallel", excluded=(*request.excluded, *request.first)[: DEFAULT.targets_max])

        def then(result: Result) -> None:
            if result["verdict"] != "PROCEED":
                done(self._remember(result | {"strategy": request.strategy, "stage": "first"}))
                return
            chained = msgspec.structs.replace(rest, correlation=bytes.fromhex(result["correlation"]), causation=bytes.fromhex(result["id"]))
            self._send(chained, lambda second: done(self._remember(_both(result, second))))

        self._send(first, then)

    def _step(self, request: Request, at: int, steps: list[Result], done: Done) -> None:
        one = msgspec.structs.replace(request, targets=(request.targets[at],))

        def then(result: Result) -> None:
            steps.append(result)
            if result["verdict"] != "PROCEED" or at + 1 == len(request.targets):
                done(
                    result
                    | {
                        "steps": [
                            {"target": request.targets[i], "verdict": step["verdict"], "wall_ms": step["wall_ms"]}
                            for i, step in enumerate(steps)
                        ]
                    }
                )
                return
            payload = next((bytes.fromhex(reply["payload"]) for reply in result["replies"] if reply["payload"]), b"")
            self._step(msgspec.structs.replace(request, payload=payload, causation=bytes.fromhex(result["id"])), at + 1, steps, done)

        self._send(one, then)


def _reply(reply: Reply) -> dict[str, Any]:
    return {"name": reply.name, "state": reply.state, "code": reply.code, "detail": reply.detail, "payload": reply.payload.hex()}


def _both(first: Result, second: Result) -> Result:
    """One result of two stages."""
    summed = {name: first[name] + second[name] for name in first if isinstance(first[name], int) and name not in ("at_ms",)}
    lists = {name: first[name] + second[name] for name in ("missing", "replies")}
    errors = {
        name: [a + b for a, b in zip(first[name], second[name], strict=True)]
        if first[name] and second[name]
        else first[name] or second[name]
        for name in ("ready_errors", "acted_errors")
    }
    return second | summed | lists | errors | {"strategy": "priority_first", "wall_ms": round(first["wall_ms"] + second["wall_ms"], 3)}
