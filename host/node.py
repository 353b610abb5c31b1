"""A node: put together from its state directory. host/daemon.py runs it."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random as Dice
from typing import TYPE_CHECKING, Any

import msgspec
from nacl.signing import SigningKey

from host import config, identity, tls
from host.core import attestation, cbor, files, safety
from host.core.attestation import ActiveSkill, Measurement, Report
from host.core.capabilities import BUILT_IN, grant
from host.core.certificate import verify_chain
from host.core.clock import Clock, Random, SystemClock, SystemRandom
from host.core.commands import Home
from host.core.errors import Busy, CertificateInvalid, DeadlineExceeded, HostFault, Refused, SnapcountError, UsageError
from host.core.fleet import SkillState
from host.core.manifest import Manifest
from host.core.oci import parse_reference
from host.core.oci_auth import Credentials
from host.core.text import safe
from host.plugins.adapter import SkillVersion
from host.plugins.attended import Attended
from host.plugins.contract import SHAPES, HandleReply, HandleRequest, PlanReport, PlanSettings, Shape
from host.plugins.driver import Driver
from host.plugins.manager import PluginManager, gates
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import default_engine
from host.sandbox.imports import HostServices
from host.supply.client import RegistryClient
from host.supply.desired import Keeper
from host.supply.facts import NodeFacts, host_version
from host.supply.installer import Workshop
from host.supply.journal import Journal
from host.supply.line import SupplyLine, Terms
from host.supply.policies import PolicyStore
from host.supply.probation import Ended
from host.supply.store import SkillStore
from host.supply.trial import TrialInstaller
from host.supply.watcher import Reach

if TYPE_CHECKING:
    from host.supply.trust import TrustClient

CALLS_AT_ONCE = 4
CALLED = tuple(sorted(SHAPES.keys() - {"self_test"}))  # the node asks that one itself, when a skill comes in
CERTIFICATE_RENEWAL = "renew it with `snapcount node certify`"


def log_line(level: str, message: str) -> None:
    """One line on stderr, safe to print."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {level:7} {safe(message, 1000)}", file=sys.stderr, flush=True)


class Node:
    """One node. Made with `Node.open`; its hooks may be called from any thread. `machine` is held by what may move it."""

    def __init__(
        self, state: Path, measured: Measurement, clock: Clock, random: Random, log: Callable[[str, str], None], reach: Reach
    ) -> None:
        self.config = config.load(state)
        self.name = self.config.node.name
        self.generation = self.config.node.generation
        self.sector = self.config.node.sector
        self.key: SigningKey = identity.load_key(state)
        self.certificate = identity.load_certificate(state)
        self.measured, self.host_digest = measured, measured.digest
        self.clock, self.log = clock, log
        self._state, self.random = state, random
        self._config_digest = identity.config_digest(state)  # of what is in force, whatever is edited later
        self._started_ms = clock.monotonic_ms()
        self._check_certificate()
        files.sweep(state)
        self.journal = Journal(state / "journal.db")
        self.envelope = identity.load_envelope(state, self.config.owner, self.journal.refused)
        self.manager = PluginManager()
        self.manager.load_native(self.config.plugins.native)
        self.drivers: dict[str, Driver] = self.manager.drivers(self.config.drivers, self.envelope.limits)
        self._gates = gates(self.drivers, self.envelope, clock)
        self.allowed = frozenset(self.config.capabilities.allowed) & (BUILT_IN | frozenset(self.drivers))
        shop = Workshop(
            default_engine(), CompiledCache(state / "compiled", identity.load_cache_key(state, random)), SkillStore(state), self.journal, self.manager, clock
        )  # fmt: skip
        self._authority = tls.client(self.config.mesh, state)
        self.trust = self._trust_client(state)
        facts = NodeFacts(
            self.generation, self.allowed, self.config.authors, host_version(), self.trust.require if self.trust else lambda bundle: None
        )
        self.installer = TrialInstaller(shop, facts, self._services_for, reach)
        operators = self.config.operators
        self._keeper = Keeper(state, self.name, operators, clock, Dice(), log) if operators else None
        self._line: SupplyLine | None = None
        self.spread_policy: Callable[[bytes], object] = lambda document: None
        self.policies = PolicyStore(state, operators, clock, self.manager.police, log)
        self.manager.quarantine.on_anomaly = self.policies.shows
        self._store = shop.store
        self._engine = shop.engine
        self._stopping = threading.Event()
        self.attended = Attended(self.drivers, self._stopping.is_set)
        self._installing = asyncio.Lock()
        self.machine = asyncio.Lock()
        self._calls = ThreadPoolExecutor(CALLS_AT_ONCE, "snapcount-call")
        self.client = (
            RegistryClient(self.config.node.registry, self, log, self._keeper, announcements=self.config.takes_announcements)
            if self.config.node.registry
            else None
        )

    @classmethod
    def open(
        cls, state: Path, measured: Measurement, *, clock: Clock | None = None, random: Random | None = None,
        log: Callable[[str, str], None] = log_line, reach: Reach = lambda point: None,
    ) -> "Node":  # fmt: skip
        """Puts the node together and brings back its active skills. Raises SnapcountError when it cannot run at all."""
        node = cls(state, measured, clock or SystemClock(), random or SystemRandom(), log, reach)
        for problem in node.installer.restore():
            log("error", str(problem))
        return node

    def skills(self) -> list[SkillState]:
        return [SkillState(v.name, v.skill.manifest.version, v.digest) for v in self.manager.skills.values()]

    async def install(self, data: bytes, digest: str, *, probation_s: int = 0, downgrade: bool = False, again: bool = False) -> None:
        """Installs off the event loop, one bundle at a time (see Installer.install). Raises SnapcountError; then nothing has changed."""
        await self.refresh_trust()
        async with self._installing:
            await asyncio.to_thread(self.installer.install, data, digest, probation_s=probation_s, downgrade=downgrade, again=again)

    async def pull(self, reference: str, login: str = "") -> SkillState:
        """Fetches a bundle from any OCI registry and installs it, as its owner asks. Raises SnapcountError; then nothing has changed."""
        assert self._line is not None, "the node is not running"
        data, digest = await self._line.pull(parse_reference(reference), Credentials.parse(login) if login else None)
        await self.install(data, digest)
        await self._tell_registry()
        return next(skill for skill in self.skills() if skill.digest == digest)

    async def refresh_trust(self) -> None:
        """Asks for the operators' newest approvals, where this node goes by them. Without an answer, what is here counts until it expires."""
        if self.trust is not None:
            try:
                await self.trust.refresh()
            except SnapcountError as error:
                self.log("warning", f"trust metadata: {error}")

    def supply_line(self) -> SupplyLine:
        """Where its bundles come from, and its children's; the caller starts and stops it."""
        settings, registry = self.config.supply, self.config.node.registry
        terms = Terms(
            (*settings.parents, *([registry] if registry else [])), settings.serves_on if settings.serve else None, cache_mib=settings.cache_mib,
            down_bytes_s=settings.down_bytes_s, up_bytes_s=settings.up_bytes_s, authorization=identity.load_registry_login(self._state, registry),
            authority=self._authority,
        )  # fmt: skip
        self._line = SupplyLine(self._state, self._store, terms, self.log, tls.server(self.config.mesh, self._state))
        return self._line

    async def tick(self) -> list[Ended]:
        """What time brings, once a second or so: probations end, quarantine policies expire, and both are kept. The probations that have ended."""
        if self.envelope.tripped is not None:
            await asyncio.to_thread(self.attended.stop, f"safe mode: {self.envelope.tripped.reason}")
        await asyncio.to_thread(self._save_policies, self.policies.tick)
        if self._installing.locked():
            return []
        async with self._installing:
            ended = await asyncio.to_thread(self.installer.tick)
        for one in ended:
            went = f"is kept: {one.cause}" if one.state == "active" else f"went back to {one.now or 'none'}: {one.cause}"
            self.log("info" if one.state == "active" else "error", f"{one.name} {one.version}: its probation is over, it {went}")
        if ended and self.client is not None:
            await self.client.ended(ended)
        return ended

    def on_probation(self, name: str) -> bool:
        return self.installer.watching(name) is not None

    @property
    def flags(self) -> frozenset[str]:
        """The feature flags that its operators have switched on."""
        return self._keeper.flags if self._keeper else frozenset()

    def take_policy(self, document: bytes) -> bool:
        """Acts on a signed quarantine policy at once, on the event loop's thread; soon after, it is on disk. False for one that it has.

        Raises what PolicyStore.take does.
        """
        news = self.policies.take(document)
        if news:
            asyncio.get_running_loop().run_in_executor(None, self._save_policies, self.policies.save)
        return news

    async def roll_back(self, name: str) -> str:
        """Goes back to the version before the active one, and returns its number."""
        async with self._installing:
            version = await asyncio.to_thread(self.installer.roll_back, name)
        wish = self._keeper.wish(name) if self._keeper is not None else None
        if wish is not None and wish.digest != version.digest and self.client is not None:
            cause = f"the owner of this node went back to {version.skill.manifest.version}"
            await self.client.ended([Ended(name, wish.version, wish.digest, "rolled-back", cause, "", by_owner=True)])
        await self._tell_registry()
        return version.skill.manifest.version

    async def remove(self, name: str) -> None:
        """Takes a skill off this node. Raises UsageError when it is not active."""
        async with self._installing:
            await asyncio.to_thread(self.installer.remove, name)
        await self._tell_registry()

    def require_trials(self) -> None:
        """Raises Refused where operators decide what runs here: then nobody tries anything out."""
        if self.config.operators:
            raise Refused(
                f"{self.name}: its operators decide what runs here (trust.operators in node.toml), so it takes no version on trial"
            )

    async def try_out(self, name: str, data: bytes, digest: str) -> SkillVersion:
        """Takes a version on trial (host/supply/trial.py). Raises SnapcountError; then nothing has changed."""
        self.require_trials()
        await self.refresh_trust()
        async with self._installing:
            version = await asyncio.to_thread(self.installer.try_out, name, data, digest)
        await self._tell_registry()
        return version

    async def end_trial(self, name: str) -> None:
        """What ran before the trial runs again."""
        async with self._installing:
            await asyncio.to_thread(self.installer.end_trial, name)
        await self._tell_registry()

    async def take_off(self, name: str) -> None:
        """The owner takes a skill off, against what the operators want if need be: it stays off until they ask anew. Raises UsageError as `remove`."""
        wish = self._keeper.wish(name) if self._keeper is not None else None
        if wish is not None and self.client is not None and name in self.manager.skills:
            cause = "the owner of this node took it off"
            await self.client.ended([Ended(name, wish.version, wish.digest, "rolled-back", cause, "", by_owner=True)])
        await self.remove(name)

    async def drain(self) -> None:
        """Returns when no install is under way."""
        async with self._installing:
            return

    async def _tell_registry(self) -> None:
        if self.client is not None:
            await self.client.refresh()

    async def call(self, hook: str, request: Shape) -> Any:
        """Calls a hook on every plugin that has it, off the event loop. Raises UsageError where none has."""
        if not any(version.has(hook) for version in self.manager.skills.values()):
            raise UsageError(f"no active skill has the hook {hook}")
        return await self._off_loop(lambda: getattr(self.manager.hook, hook)(request=request))

    async def handle(self, request: HandleRequest) -> list[HandleReply]:
        """What the plugins make of a mesh message; empty where none has the hook."""
        replies: list[HandleReply] = await self._off_loop(lambda: self.manager.hook.handle(request=request))
        return replies

    async def plan(self, program: Iterable[bytes], settings: PlanSettings) -> PlanReport:
        """Reads a program without moving anything."""
        return await self._job(program, settings, run=False)

    async def run_job(self, program: Callable[[], Iterable[bytes]], settings: PlanSettings) -> PlanReport:
        """Reads a program, and drives the machine when all of it was understood. Raises Busy while another job runs."""
        if self.machine.locked():
            raise Busy(f"{self.name}: another job is running on its machine, or a message is moving it")
        async with self.machine:
            report = await self._job(program(), settings, run=False)
            if not report.complete:
                first = f"; the first: line {report.problems[0].line}: {report.problems[0].message}" if report.problems else ""
                raise UsageError(f"the program was not understood whole, so nothing was moved: {report.problems_total} problem(s){first}")
            self.envelope.require_box(report.bbox_mm.min, report.bbox_mm.max, "the program")
            self.attended.begin()
            try:
                return await self._job(self.attended.pieces(program()), settings, run=True)
            finally:  # whatever the skill says: the machine does what it was told, and says itself how that went
                await self._off_loop(self.attended.settle)

    async def operate(self, capability: str, action: str) -> dict[str, Any]:
        """What a person asks of a machine: `home`, through the safety envelope, or an action of the driver's own; its status after it.

        Raises UsageError for what it does not know, Busy for homing during a job, UnsafeCommand, MachineError.
        """
        if action != "home":
            return await asyncio.to_thread(self.attended.operate, capability, action)
        gate = self._gates.get(capability)
        if gate is None:
            raise UsageError(f"no machine offers {safe(capability, 64)!r} here; there is {', '.join(sorted(self._gates)) or 'none'}")
        if self.machine.locked():
            raise Busy(f"{self.name}: a job is running on its machine, or a message is moving it")
        async with self.machine:
            self.attended.clear(capability)
            self.attended.begin()
            try:
                await asyncio.to_thread(gate.ask, "a person", cbor.encode(Home()))
            finally:
                await asyncio.to_thread(self.attended.settle)
        return self.drivers[capability].status()

    def attest(self, nonce: bytes) -> bytes:
        """A signed report of what runs here (host/core/attestation.py)."""
        skills = tuple(ActiveSkill(s.name, s.version, s.digest) for s in sorted(self.skills(), key=lambda s: s.name))
        report = Report(
            node=self.name, key=bytes(self.key.verify_key).hex(), at_ms=self.clock.now_ms(), nonce=nonce, host=self.measured.digest,
            sealed=self.measured.sealed, config=self._config_digest, skills=skills,
        )  # fmt: skip
        return attestation.sign(report, self.key)

    def status(self) -> dict[str, Any]:
        """For people and `--json`."""
        tripped = self.envelope.tripped
        return {
            "node": self.name, "generation": self.generation, "key": bytes(self.key.verify_key).hex(), "pid": os.getpid(),
            "uptime_s": round((self.clock.monotonic_ms() - self._started_ms) / 1000, 1), "resident_bytes": resident_bytes(),
            "host": self.measured.digest, "sealed": self.measured.sealed,
            "registry": {"url": self.config.node.registry, "connected": bool(self.client and self.client.connected)},
            "supply": self._line.status() if self._line else None,
            "capabilities": sorted(self.allowed),
            "skills": [
                {"name": v.name, "version": v.skill.manifest.version, "digest": v.digest, "hooks": list(v.skill.manifest.hooks),
                 "calls": v.calls, "faults": v.faults, "call_us_p50": v.call_us_p50(), "path": v.skill.path, "probation": self._probation(v.name),
                 "trial": self.installer.on_trial(v.name) is not None, "quarantined": sorted(v.barred or ())}
                for v in self.manager.skills.values()
            ],
            "safe_mode": None if tripped is None else {"id": tripped.id, "at_ms": tripped.at_ms, "reason": tripped.reason},
            "limits": safety.as_dict(self.envelope.limits),
            "policies": self.policies.status(), "flags": sorted(self.flags), "desired_serial": self._keeper.serial if self._keeper else 0,
            "machines": {capability: driver.status() for capability, driver in self.drivers.items()},
            "audit": self.journal.audit(5), "installs": self.journal.installs(5),
        }  # fmt: skip

    def interrupt(self) -> None:
        """Ends what is running now, calls and jobs, with an error to each caller: for a node that stops."""
        self._stopping.set()
        self.installer.close_books()
        self._engine.interrupt()

    def close(self) -> None:
        self._calls.shutdown(wait=True, cancel_futures=True)
        self.attended.close()
        self._save_policies(self.policies.save)
        self.installer.stop()
        self.journal.close()

    def _save_policies(self, save: Callable[[], None]) -> None:
        try:
            save()
        except HostFault as error:  # they are in force; the next tick tries again
            self.log("error", f"quarantine policies: {error}")

    async def _job(self, program: Iterable[bytes], settings: PlanSettings, *, run: bool) -> PlanReport:
        report = await self._off_loop(lambda: self.manager.hook.plan_job(program=self._until_stopped(program), settings=settings, run=run))
        if report is None:
            raise UsageError("no active skill has the hook plan_job; push one, such as toolpath-planner")
        assert isinstance(report, PlanReport)
        return report

    def _until_stopped(self, program: Iterable[bytes]) -> Iterator[bytes]:
        for piece in program:
            if self._stopping.is_set():
                raise HostFault(f"{self.name}: the node is stopping, so the job was ended")
            yield piece

    async def _off_loop(self, call: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._calls, call)
        except DeadlineExceeded as error:
            if self._stopping.is_set():
                raise HostFault(f"{self.name}: the node is stopping, so the call was ended") from error
            raise

    def _services_for(self, manifest: Manifest) -> HostServices:
        label = f"{manifest.name} {manifest.version}"
        granted = grant(label, manifest.capabilities, self.allowed)
        return HostServices(
            label, granted, self.clock, self.random, log=lambda level, line: self.log(level, f"[{label}] {line}"),
            state=self.journal.state(manifest.name), ask=lambda capability, request: self._gates[capability].ask(label, request),
            flags=lambda: self.flags,
        )  # fmt: skip

    def _trust_client(self, state: Path) -> "TrustClient | None":
        if not self.config.trust.metadata:
            return None
        from host.supply.trust import TrustClient  # TUF's client takes a tenth of a second and memory

        return TrustClient(
            state / "trust",
            self.config.trust.metadata,
            self.clock,
            safety_capabilities=frozenset(self.config.trust.safety_capabilities),
            authority=self._authority,
        )

    def _probation(self, name: str) -> dict[str, Any] | None:
        watch = self.installer.watching(name)
        return None if watch is None else {"window_s": watch.window_s, "watched_s": watch.watched_ms // 1000, "previous": watch.previous}

    def _check_certificate(self) -> None:
        # A node that was cut off for weeks keeps working with an expired certificate; who needs a valid one will say so.
        if self.certificate:
            try:
                claims = verify_chain([self.certificate], [self.config.owner], self.clock.now_ms() // 1000)
            except CertificateInvalid as error:
                self.log("warning", f"{error}; {CERTIFICATE_RENEWAL}")
                return
            if claims.key != bytes(self.key.verify_key):
                raise CertificateInvalid(f"the certificate in {self._state} is for another key; {CERTIFICATE_RENEWAL}")


def resident_bytes() -> int:
    """This process's resident memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def request_of(hook: str, raw: bytes) -> Shape:
    """The typed request of a hook from JSON. Raises UsageError that names the field."""
    if hook not in CALLED:
        raise UsageError(f"there is no hook {safe(hook, 64)} to call this way; there are {', '.join(CALLED)}")
    try:
        return msgspec.json.decode(raw, type=SHAPES[hook][0])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"request for {hook}: {safe(str(error))}") from error
