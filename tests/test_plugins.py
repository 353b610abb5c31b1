"""Hooks, skills as plugins, the swap from version to version, and drivers behind their gate."""

import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
import wasmtime
from nacl.signing import SigningKey

from host.core import cbor
from host.core.capabilities import Grant
from host.core.commands import AnyCommand, Dwell, Home, Move
from host.core.errors import (
    Busy,
    GuestTrap,
    HostFault,
    MalformedData,
    ReplyInvalid,
    SkillRefused,
    SnapcountError,
    TooLarge,
    UnsafeCommand,
    UsageError,
)
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest, SkillLimits
from host.core.safety import SafetyEnvelope, parse_limits
from host.plugins import hookspecs, streaming
from host.plugins.adapter import SkillSlot, SkillVersion, require_known_hooks
from host.plugins.contract import (
    HOOKS,
    SHAPES,
    AssessFeedstockReply,
    AssessFeedstockRequest,
    BidderNode,
    BidReply,
    BidRequest,
    BoundingBox,
    Bounty,
    CharacteristicVerdict,
    Constituent,
    Costs,
    HandleReply,
    HandleRequest,
    InspectPartReply,
    InspectPartRequest,
    MotionReply,
    MoveCounts,
    Particles,
    PathLengths,
    PlanProgress,
    PlanReport,
    PlanSettings,
    Product,
    ProductAssessment,
    Quantity,
    SelfTestReply,
    SelfTestRequest,
)
from host.plugins.driver import DriverGate
from host.plugins.drivers.virtual_machine import VirtualMachine
from host.plugins.hookspecs import hookimpl
from host.plugins.manager import PluginManager, gates
from host.plugins.streaming import CHUNK_BYTES
from host.sandbox.engine import SkillEngine
from host.sandbox.imports import HostServices
from host.sandbox.skill import LoadedSkill
from sdk.demo.samples import PART

NAME = "probe"
POOL = 8
Q = Quantity(sigma=0.5, value=2.0)
BID = BidRequest(
    bounty=Bounty(deadline_ms=60_000, id="b1", position_m=(1.0, 2.0), reward=100.0, work_ms=1000),
    costs=Costs(fuel_unit=1.0, hour=30.0, wear=5.0),
    margin=0.2,
    node=BidderNode(fuel=5.0, fuel_per_hour=1.0, position_m=(0.0, 0.0), queue_ms=0, speed_m_s=1.0, wear=0.1, wear_per_hour=0.01),
)
LOT = AssessFeedstockRequest(
    assay=(Constituent(element="Li", fraction=Q),), lot="lot 7", mass_kg=Q, moisture=Q,
    particles=Particles(d10_um=1.0, d50_um=2.0, d80_um=3.0), work_index_kwh_t=Q,
    products=(Product(element="Li", grade=0.1, impurities=(), name="p", particle_um=75.0, recovery=Q),),
)  # fmt: skip
ASSESSED = AssessFeedstockReply(
    best="p", dry_mass_kg=Q, lot="lot 7", warnings=(),
    products=(ProductAssessment(confidence=1.0, energy_kwh_t=Q, name="p", reasons=(), suitable=True, yield_kg=Q),),
)  # fmt: skip
INSPECTED = InspectPartReply(
    cautions=(), characteristics=(CharacteristicVerdict(accepted=4, mates=(), name="journal", verdict="accept"),), lot=PART.lot, reasons=("fine",), verdict="accept"
)  # fmt: skip
REPORT = PlanReport(
    bbox_mm=BoundingBox(max=(1.0, 1.0, 0.0), min=(0.0, 0.0, 0.0)), complete=True, dialect="grbl", done=True, driven=0, extruded_mm=0.0,
    lines=2, moves=MoveCounts(arc=0, linear=2, rapid=0), path_mm=PathLengths(arc=0.0, linear=2.0, rapid=0.0, total=2.0), problems=(),
    problems_total=0, time_s=1.0, units="mm",
)  # fmt: skip
MESSAGE = HandleRequest(
    at_ms=1_700_000_000_500, correlation=b"c" * 16, id=b"i" * 16, payload=b"\x01", phase="prepare", priority=2, source="lead-1", topic="cell.start",
    verb="act", weight=0.5,
)  # fmt: skip
PROGRESS = PlanProgress(done=False, lines=1)


def offered(reason: str, finish_ms: int = 0) -> BidReply:
    return BidReply(cost=1.0, finish_ms=finish_ms, id="b1", reason=reason)


@contextmanager
def raising(kind: type[SnapcountError], *parts: str) -> Iterator[pytest.ExceptionInfo[SnapcountError]]:
    """Exactly `kind`, whose text is one printable line that has `parts`."""
    with pytest.raises(SnapcountError) as caught:
        yield caught
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert said.isprintable(), said
    for part in parts:
        assert part in said


def data(at: int, content: bytes) -> str:
    escaped = "".join(f"\\{byte:02x}" for byte in content)
    return f'(data (i32.const {at}) "{escaped}")'


def answering(reply: bytes, *, hook: str = "bid", body: str = "", extra: str = "") -> str:
    """A skill whose hook does `body` and then replies `reply`, which stands at 4096."""
    return f"""(module {extra} (memory (export "memory") 10) {data(4096, reply)}
      (global $calls (mut i32) (i32.const 0))
      (func (export "sc_alloc") (param i32) (result i32) i32.const 65536)
      (func (export "hook_{hook}") (param i32 i32) (result i64)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        {body} i64.const {4096 << 32 | len(reply)}))"""


# Writes the number of this call into the reply: `finish_ms` is one byte of its CBOR, here up to 23.
COUNTED = cbor.encode(offered("counted", 0))
COUNT_AT = next(at for at, (a, b) in enumerate(zip(COUNTED, cbor.encode(offered("counted", 1)), strict=True)) if a != b)
COUNT = f"(i32.store8 (i32.const {4096 + COUNT_AT}) (global.get $calls))"


@dataclass
class Shop:
    """Makes versions of skills; `ask` is what stands behind their import `call`."""

    engine: SkillEngine
    ask: Callable[[str, bytes], bytes] = lambda capability, request: b""

    def version(self, wat: str, *, hooks: str = "bid", number: str = "1.0.0", name: str = NAME, instance: str = "fresh", capabilities: str = "") -> SkillVersion:  # fmt: skip
        manifest = Manifest(
            name=name, version=number, hooks=tuple(hooks.split()), capabilities=tuple(capabilities.split()), instance=instance,  # type: ignore[arg-type]
            limits=SkillLimits(deadline_ms=20_000),
        )  # fmt: skip
        grant = Grant(frozenset(manifest.capabilities))

        def services() -> HostServices:
            world = Still()
            return HostServices(f"{name} {number}", grant, world, world, log=lambda level, line: None, ask=self._ask)

        module = wasmtime.Module(self.engine.engine, wasmtime.wat2wasm(wat))
        return SkillVersion(LoadedSkill(self.engine, module, manifest, grant, services()), f"sha256:{number}")

    def _ask(self, capability: str, request: bytes) -> bytes:
        return self.ask(capability, request)

    def saying(self, reason: str, *, instance: str = "fresh") -> SkillVersion:
        return self.version(answering(cbor.encode(offered(reason))), number=f"1.0.{int(reason.lstrip('v') or 0)}", instance=instance)


class Still:
    """A clock that stands still and a random source of zeros."""

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_ms(self) -> int:
        return 0

    def token(self, size: int) -> bytes:
        return bytes(size)


@pytest.fixture(scope="module")
def engine() -> SkillEngine:
    return SkillEngine(Limits(instances_max=POOL))


@pytest.fixture
def shop(engine: SkillEngine) -> Shop:
    return Shop(engine)


@pytest.fixture
def manager() -> PluginManager:
    return PluginManager()


class Native:
    """A native plugin that answers what it was made with, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    def _reply(self) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @hookimpl
    def bid(self, request: BidRequest) -> BidReply | None:
        assert request == BID
        return self._reply()  # type: ignore[no-any-return]

    @hookimpl
    def assess_feedstock(self, request: AssessFeedstockRequest) -> AssessFeedstockReply | None:
        assert request == LOT
        return self._reply()  # type: ignore[no-any-return]

    @hookimpl
    def inspect_part(self, request: InspectPartRequest) -> InspectPartReply | None:
        assert request == PART
        return self._reply()  # type: ignore[no-any-return]

    @hookimpl
    def handle(self, request: HandleRequest) -> HandleReply | None:
        assert request == MESSAGE
        return self._reply()  # type: ignore[no-any-return]

    @hookimpl
    def plan_job(self, program: Any, settings: PlanSettings, run: bool) -> PlanReport | None:
        return self._reply()  # type: ignore[no-any-return]


# ---- Every hook ---------------------------------------------------------------------------------

SPECS = {name: thing for name, thing in vars(hookspecs).items() if hasattr(thing, f"{hookspecs.PROJECT}_spec")}


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_is_documented_typed_and_tested(hook: str) -> None:
    spec = SPECS[hook]
    said = " ".join((inspect.getdoc(spec) or "").split())
    assert said.startswith("Called ")
    assert "None" in said
    assert "exception" in said.lower()
    assert set(get_type_hints(spec)) == {*inspect.signature(spec).parameters, "return"}
    assert "None" in str(inspect.signature(spec).return_annotation)
    assert callable(globals().get(f"test_hook_{hook}")), f"write test_hook_{hook}"
    firstresult = getattr(spec, f"{hookspecs.PROJECT}_spec")["firstresult"]
    assert firstresult == ("first answer wins" in said)


def test_a_skill_answers_every_hook_but_the_drivers_with_the_specs_own_parameters() -> None:
    assert set(SPECS) == HOOKS - {"self_test"} | {"offer_drivers"}
    for hook in set(SPECS) - {"offer_drivers"}:
        mine, wanted = (inspect.signature(thing).parameters for thing in (getattr(SkillSlot, hook), SPECS[hook]))
        assert [name for name in mine if name != "self"] == list(wanted)


def test_hook_bid(manager: PluginManager, shop: Shop) -> None:
    abstaining, native = Native(None), Native(offered("native"))
    manager.register(abstaining, "abstaining")
    manager.register(native, "native")
    manager.activate(shop.saying("v1"))
    assert sorted(reply.reason for reply in manager.hook.bid(request=BID)) == ["native", "v1"]
    assert (abstaining.asked, native.asked) == (1, 1)


def test_hook_assess_feedstock(manager: PluginManager, shop: Shop) -> None:
    last = Native(replace_best("native"))
    manager.register(last, "asked last")
    manager.activate(shop.version(answering(cbor.encode(ASSESSED), hook="assess_feedstock"), hooks="assess_feedstock"))
    abstaining = Native(None)
    manager.register(abstaining, "asked first")
    assert manager.hook.assess_feedstock(request=LOT) == ASSESSED
    assert (abstaining.asked, last.asked) == (1, 0)
    manager.deactivate(NAME)
    assert manager.hook.assess_feedstock(request=LOT).best == "native"


def replace_best(best: str) -> AssessFeedstockReply:
    return AssessFeedstockReply(best=best, dry_mass_kg=Q, lot="lot 7", products=ASSESSED.products, warnings=())


def test_hook_inspect_part(manager: PluginManager, shop: Shop) -> None:
    last = Native(msgspec.structs.replace(INSPECTED, lot="native"))
    manager.register(last, "asked last")
    manager.activate(shop.version(answering(cbor.encode(INSPECTED), hook="inspect_part"), hooks="inspect_part"))
    abstaining = Native(None)
    manager.register(abstaining, "asked first")
    assert manager.hook.inspect_part(request=PART) == INSPECTED
    assert (abstaining.asked, last.asked) == (1, 0)
    manager.deactivate(NAME)
    assert manager.hook.inspect_part(request=PART).lot == "native"


def answered(detail: str, *, handled: bool = True, state: Any = "ready", payload: bytes = b"") -> HandleReply:
    return HandleReply(detail=detail, handled=handled, payload=payload, state=state)


def handling(shop: Shop, reply: HandleReply, name: str, *, body: str = "") -> SkillVersion:
    return shop.version(answering(cbor.encode(reply), hook="handle", body=body), hooks="handle", name=name)


def test_hook_handle(manager: PluginManager, shop: Shop) -> None:
    abstaining, native = Native(None), Native(answered("native"))
    manager.register(abstaining, "abstaining")
    manager.register(native, "native")
    manager.activate(shop.saying("v1"))  # without the hook: not asked
    manager.activate(handling(shop, answered("taken", payload=b"\xa0"), "alpha"))
    manager.activate(handling(shop, answered("", handled=False), "beta"))
    replies = manager.hook.handle(request=MESSAGE)
    assert sorted(reply.detail for reply in replies if reply.handled) == ["native", "taken"]
    assert [reply.handled for reply in replies].count(False) == 1
    assert (abstaining.asked, native.asked) == (1, 1)


def test_a_skill_in_conflict_says_so_beside_one_that_is_ready(manager: PluginManager, shop: Shop) -> None:
    manager.activate(handling(shop, answered("ready"), "alpha"))
    manager.activate(handling(shop, answered("busy with another", state="conflict"), "beta"))
    replies = manager.hook.handle(request=MESSAGE)
    assert {reply.detail: reply.state for reply in replies} == {"ready": "ready", "busy with another": "conflict"}


def test_a_skill_that_traps_over_a_message_ends_the_question_and_the_next_message_is_served(manager: PluginManager, shop: Shop) -> None:
    asked_later = Native(answered("native"))
    manager.register(asked_later, "native")  # what came last is asked first
    manager.activate(handling(shop, answered(""), "broken", body="unreachable"))
    with raising(GuestTrap, "broken", "unreachable"):
        manager.hook.handle(request=MESSAGE)
    assert asked_later.asked == 0
    assert manager.skills["broken"].faults == 1
    manager.deactivate("broken")
    assert [reply.detail for reply in manager.hook.handle(request=MESSAGE)] == ["native"]


@pytest.mark.parametrize(
    "wrong",
    [{"payload": bytes(DEFAULT.reply_payload_bytes_max + 1)}, {"state": "transit"}, {"detail": "x" * 1025}, {"surplus": 1}],
    ids=list,
)
def test_a_reply_to_a_message_outside_the_bounds_is_invalid(shop: Shop, wrong: dict[str, Any]) -> None:
    good = cbor.decode(cbor.encode(answered("x")), "reply")
    version = shop.version(answering(cbor.encode(good | wrong), hook="handle"), hooks="handle")
    with raising(ReplyInvalid, NAME, "handle", next(iter(wrong))):
        version.call("handle", MESSAGE)


def test_a_message_and_a_reply_of_the_greatest_size_pass(shop: Shop) -> None:
    reply = answered("x" * 1024, payload=bytes(DEFAULT.reply_payload_bytes_max))
    version = shop.version(answering(cbor.encode(reply), hook="handle"), hooks="handle")
    request = msgspec.structs.replace(MESSAGE, payload=bytes(DEFAULT.payload_bytes_max), topic="t" * 64, source="s" * 64)
    assert version.call("handle", request) == reply


# The reply is progress to the first chunk, and the report, which stands at 8192, to the second.
PLANNER = answering(
    cbor.encode(PROGRESS), hook="plan_job",
    body=f"(if (i32.eq (global.get $calls) (i32.const 2)) (then (return (i64.const {8192 << 32 | len(cbor.encode(REPORT))}))))",
).removesuffix(")") + data(8192, cbor.encode(REPORT)) + ")"  # fmt: skip


def test_hook_plan_job(manager: PluginManager, shop: Shop) -> None:
    late = Native(REPORT)
    manager.register(late, "late")
    manager.activate(shop.version(PLANNER, hooks="plan_job"))
    program = [b"G0 X1\n", b"G1 Y1\n" * 40_000]
    for _ in range(2):  # each program gets an instance of its own
        assert manager.hook.plan_job(program=iter(program), settings=PlanSettings(), run=False) == REPORT
    assert late.asked == 0
    manager.activate(shop.saying("v2"))  # a version without the hook passes the job on
    assert manager.hook.plan_job(program=iter(program), settings=PlanSettings(), run=False) == REPORT
    assert late.asked == 1


def test_hook_offer_drivers(manager: PluginManager) -> None:
    manager.load_native(("virtual_machine",))
    manager.register(Offering(None), "offers nothing")
    manager.register(Offering([Machine("laser")]), "laser")
    assert {name: driver.capability for name, driver in manager.drivers().items()} == {"motion": "motion", "laser": "laser"}


def test_hook_self_test_is_asked_of_one_skill_and_one_without_it_passes(shop: Shop) -> None:
    good = shop.version(answering(cbor.encode(SelfTestReply(detail="3 of 3", ok=True)), hook="self_test"), hooks="self_test")
    assert good.self_test() == SelfTestReply(detail="3 of 3", ok=True)
    assert shop.saying("v1").self_test().ok
    assert "self_test" not in SPECS


def test_hooks_without_any_plugin_answer_nothing(manager: PluginManager) -> None:
    assert manager.hook.bid(request=BID) == []
    assert manager.hook.handle(request=MESSAGE) == []
    assert manager.hook.assess_feedstock(request=LOT) is None
    assert manager.drivers() == {}


@pytest.mark.parametrize("answer", [None, offered("native")])
def test_a_plugins_exception_reaches_the_caller_of_the_hook(manager: PluginManager, shop: Shop, answer: BidReply | None) -> None:
    manager.register(Native(answer), "answers")
    manager.register(Native(ZeroDivisionError("of the plugin")), "raises")
    manager.activate(shop.saying("v1"))
    with pytest.raises(ZeroDivisionError, match="of the plugin"):
        manager.hook.bid(request=BID)


def test_a_skills_error_reaches_the_caller_of_the_hook_and_the_next_call_is_served(manager: PluginManager, shop: Shop) -> None:
    manager.activate(shop.version(answering(b"", body="unreachable")))
    with raising(GuestTrap, NAME, "unreachable"):
        manager.hook.bid(request=BID)
    manager.activate(shop.saying("v2"))
    assert [reply.reason for reply in manager.hook.bid(request=BID)] == ["v2"]


def test_hooks_that_this_host_does_not_call_are_named() -> None:
    require_known_hooks(tuple(sorted(HOOKS)), NAME)
    with raising(UsageError, NAME, "fly, sing", "plan_job"):
        require_known_hooks(("bid", "sing", "fly"), NAME)


# ---- The adapter --------------------------------------------------------------------------------


@dataclass
class FakeInstance:
    """Replies from a list and remembers what it was sent."""

    replies: list[bytes]
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    faulted: bool = False
    closed: bool = False

    def call(self, hook: str, request: bytes) -> bytes:
        self.sent.append((hook, request))
        return self.replies.pop(0)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "FakeInstance":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


FAKED = Manifest(name=NAME, version="1.0.0", hooks=("bid", "self_test", "assess_feedstock", "inspect_part", "handle", "plan_job"))


@dataclass
class FakeSkill:
    """Gives out instances from a list."""

    instances: list[FakeInstance]
    manifest: Manifest = FAKED
    name: str = f"{NAME} 1.0.0"

    def instance(self) -> FakeInstance:
        return self.instances.pop(0)


def faked(*replies: bytes) -> tuple[SkillVersion, FakeInstance]:
    instance = FakeInstance(list(replies))
    return SkillVersion(FakeSkill([instance]), "sha256:0"), instance  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hook", "request_", "reply"),
    [
        ("bid", BID, offered("x")),
        ("assess_feedstock", LOT, ASSESSED),
        ("inspect_part", PART, INSPECTED),
        ("handle", MESSAGE, answered("x")),
        ("self_test", SelfTestRequest(), SelfTestReply(detail="", ok=False)),
    ],
)
def test_the_adapter_encodes_the_request_and_decodes_the_reply(hook: str, request_: Any, reply: Any) -> None:
    version, instance = faked(cbor.encode(reply))
    assert version.call(hook, request_) == reply
    [(called, sent)] = instance.sent
    assert called == hook
    assert cbor.decode_struct(sent, SHAPES[hook][0], "request") == request_
    assert instance.closed


GOOD = cbor.decode(cbor.encode(offered("x")), "reply")
SHAPELESS = {
    "no CBOR": b"\xff",
    "nothing": b"",
    "a byte after it": cbor.encode(GOOD) + b"\0",
    "two items": cbor.encode(GOOD) * 2,
    "a list": cbor.encode([1, 2]),
    "a field less": cbor.encode({key: value for key, value in GOOD.items() if key != "cost"}),
    "a field more": cbor.encode(GOOD | {"surplus": 1}),
    "text for a number": cbor.encode(GOOD | {"cost": "1"}),
    "null for a number": cbor.encode(GOOD | {"cost": None}),
    "a negative time": cbor.encode(GOOD | {"finish_ms": -1}),
    "a line too long": cbor.encode(GOOD | {"reason": "x" * 1025}),
    "another hook's reply": cbor.encode(ASSESSED),
    "keys out of order": b"\xa2\x61b\x01\x61a\x01",
    "a number not in its shortest form": b"\xa1\x61a\x18\x01",
    "control characters in a key": cbor.encode(GOOD | {"\x1b[31m\n": 1}),
}


@pytest.mark.parametrize("what", SHAPELESS)
def test_a_reply_of_another_shape_is_invalid_and_counted(what: str) -> None:
    version, instance = faked(SHAPELESS[what])
    with raising(ReplyInvalid, NAME, "bid"):
        version.call("bid", BID)
    assert (version.calls, version.faults, instance.closed) == (1, 1, True)


def test_a_real_skill_with_a_reply_of_another_shape_is_caught_too(shop: Shop) -> None:
    version = shop.version(answering(cbor.encode({"cost": 1})))
    with raising(ReplyInvalid, NAME):
        version.call("bid", BID)


def test_a_refusal_of_the_skill_passes_through(shop: Shop) -> None:
    refusal = cbor.encode({"code": "too_far", "message": "no"})
    body = f"(return (i64.const {4096 << 32 | 0x8000_0000 | len(refusal)}))"
    version = shop.version(answering(refusal, body=body))
    with raising(SkillRefused, NAME, "too_far"):
        version.call("bid", BID)
    assert (version.calls, version.faults) == (1, 1)


def finishes(version: SkillVersion, times: int) -> list[int]:
    return [version.call("bid", BID).finish_ms for _ in range(times)]  # type: ignore[attr-defined]


def test_fresh_instances_share_no_memory_and_a_persistent_one_keeps_its_own(shop: Shop) -> None:
    wat = answering(COUNTED, body=COUNT)
    assert finishes(shop.version(wat), 3) == [1, 1, 1]
    kept = shop.version(wat, instance="persistent")
    assert finishes(kept, 3) == [1, 2, 3]
    kept.close()
    assert finishes(kept, 1) == [1]
    kept.close()


def test_a_call_that_comes_after_the_close_of_a_persistent_skill_keeps_no_slot(shop: Shop) -> None:
    trap = "(if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))"
    closed_ones = [shop.version(answering(COUNTED, body=COUNT + trap), instance="persistent") for _ in range(2 * POOL)]
    for version in closed_ones:
        version.close()
        assert finishes(version, 2) == [1, 1]


def test_two_versions_of_one_module_share_no_memory(shop: Shop) -> None:
    one, two = (shop.version(answering(COUNTED, body=COUNT), instance="persistent") for _ in range(2))
    assert (finishes(one, 2), finishes(two, 1)) == ([1, 2], [1])
    one.close()
    two.close()


def test_a_persistent_instance_that_trapped_is_replaced(shop: Shop) -> None:
    trap = "(if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))"
    version = shop.version(answering(COUNTED, body=COUNT + trap), instance="persistent")
    assert finishes(version, 2) == [1, 2]
    for _ in range(2 * POOL):  # more often than there are slots
        with raising(GuestTrap):
            version.call("bid", BID)
        assert finishes(version, 2) == [1, 2]
    assert (version.calls, version.faults) == (2 + 6 * POOL, 2 * POOL)
    version.close()


ASKING = """(import "snapcount:host/1" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32))) """
ASK = "(drop (call $call (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 1) (i32.const 12288) (i32.const 4096)))"


def asking(reason: str) -> str:
    """A skill that asks the driver `motion` before it replies."""
    return answering(cbor.encode(offered(reason)), body=ASK, extra=ASKING).removesuffix(")") + data(0, b"motion") + ")"


@pytest.mark.parametrize("instance", ["fresh", "persistent"])
def test_a_driver_that_calls_the_skill_it_serves_does_not_wait_for_ever(shop: Shop, instance: str) -> None:
    version = shop.version(asking("v1"), capabilities="motion", instance=instance)
    seen: list[object] = []

    def ask(capability: str, request: bytes) -> bytes:
        if not seen:
            seen.append("asked")
            try:
                seen.append(version.call("bid", BID))
            except Busy as error:
                seen.append(type(error))
        return b""

    shop.ask = ask
    caller = threading.Thread(target=lambda: seen.append(version.call("bid", BID)), daemon=True)
    caller.start()
    caller.join(timeout=10)
    assert not caller.is_alive()
    inner: object = Busy if instance == "persistent" else offered("v1")
    assert seen == ["asked", inner, offered("v1")]
    version.close()


# ---- Swapping -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("instance", ["fresh", "persistent"])
def test_no_call_is_lost_or_sees_two_versions_while_fifty_versions_are_swapped(manager: PluginManager, shop: Shop, instance: str) -> None:
    versions = [shop.saying(f"v{number:02}", instance=instance) for number in range(51)]
    manager.activate(versions[0])
    stop, callers = threading.Event(), 3
    seen: list[list[str]] = [[] for _ in range(callers)]
    trouble: list[BaseException] = []

    def caller(own: list[str]) -> None:
        try:
            while not stop.is_set():
                [reply] = manager.hook.bid(request=BID)
                own.append(reply.reason)
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=caller, args=(own,)) for own in seen]
    for thread in threads:
        thread.start()
    for number, version in enumerate(versions[1:], start=1):
        so_far = sum(map(len, seen))
        while sum(map(len, seen)) < so_far + callers and not trouble:
            pass  # every version serves a few calls
        previous = manager.activate(version)
        assert previous is versions[number - 1]
        previous.close()
        [reply] = manager.hook.bid(request=BID)
        assert reply.reason == f"v{number:02}"  # a call that begins after the swap sees the new version
    stop.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    for own in seen:
        assert own == sorted(own)  # never back to an older one
    assert len(set(itertools.chain(*seen))) > 25
    assert sum(version.calls for version in versions) == sum(map(len, seen)) + 50
    assert sum(version.faults for version in versions) == 0
    versions[-1].close()


@pytest.mark.parametrize("instance", ["fresh", "persistent"])
def test_a_call_in_flight_finishes_on_the_version_it_began_with(manager: PluginManager, shop: Shop, instance: str) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(capability: str, request: bytes) -> bytes:
        inside.set()
        assert go_on.wait(timeout=10)
        return b""

    shop.ask = slow
    old = shop.version(asking("v1"), capabilities="motion", instance=instance)
    manager.activate(old)
    answers: list[list[BidReply]] = []
    caller = threading.Thread(target=lambda: answers.append(manager.hook.bid(request=BID)))
    caller.start()
    assert inside.wait(timeout=10)
    assert manager.activate(shop.saying("v2")) is old
    closer = threading.Thread(target=old.close)
    closer.start()
    assert [reply.reason for reply in manager.hook.bid(request=BID)] == ["v2"]
    go_on.set()
    caller.join(timeout=10)
    closer.join(timeout=10)
    assert [reply.reason for reply in answers[0]] == ["v1"]
    assert manager.skills[NAME].skill.manifest.version == "1.0.2"


def test_a_skill_that_is_taken_out_is_not_asked_any_more_and_can_come_back(manager: PluginManager, shop: Shop) -> None:
    version = shop.saying("v1")
    assert manager.activate(version) is None
    manager.deactivate(NAME)
    manager.deactivate(NAME)
    assert manager.hook.bid(request=BID) == []
    assert manager.skills == {}
    assert manager.activate(version) is None
    assert len(manager.hook.bid(request=BID)) == 1


def test_skills_of_other_names_are_asked_beside_each_other(manager: PluginManager, shop: Shop) -> None:
    for name in ("alpha", "beta"):
        manager.activate(shop.version(answering(cbor.encode(offered(name))), name=name))
    assert sorted(reply.reason for reply in manager.hook.bid(request=BID)) == ["alpha", "beta"]


# ---- Native plugins and their drivers --------------------------------------------------------------


ANSWER = MotionReply(moves=1, position_mm=(0.0, 0.0, 0.0))


@dataclass
class Machine:
    """A driver that remembers its commands, or fails as it was told to."""

    capability: str = "motion"
    home_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    failing: Exception | None = None
    inputs: Mapping[str, bool] | Exception = field(default_factory=dict)
    answer: Any = ANSWER
    did: list[AnyCommand] = field(default_factory=list)

    def interlocks(self) -> Mapping[str, bool]:
        if isinstance(self.inputs, Exception):
            raise self.inputs
        return self.inputs

    def execute(self, command: AnyCommand) -> Any:
        if self.failing is not None:
            raise self.failing
        self.did.append(command)
        return self.answer

    def status(self) -> dict[str, Any]:
        return {}


class Offering:
    def __init__(self, drivers: Any) -> None:
        self.drivers = drivers

    @hookimpl
    def offer_drivers(self) -> Any:
        if isinstance(self.drivers, Exception):
            raise self.drivers
        return self.drivers


def test_two_drivers_for_one_capability_keep_the_node_from_starting(manager: PluginManager) -> None:
    manager.register(Offering([Machine("motion")]), "mill")
    manager.register(Offering([Machine("laser"), Machine("motion")]), "printer")
    with raising(HostFault, "motion", "mill", "printer", "node.toml"):
        manager.drivers()


@pytest.mark.parametrize("trouble", [OSError("no such port\n\x1b[31m"), HostFault("the port is gone"), 7, [7]], ids=repr)
def test_a_plugin_whose_drivers_fail_to_start_is_named(manager: PluginManager, trouble: Any) -> None:
    manager.register(Offering([Machine("laser")]), "sound")
    manager.register(Offering(trouble), "broken")
    with raising(HostFault, "broken"):
        manager.drivers()


def test_an_entry_point_that_no_package_offers_is_the_callers_mistake(manager: PluginManager) -> None:
    with raising(UsageError, "no-such-plugin", "snapcount.plugins"):
        manager.load_native(("virtual_machine", "no-such-plugin"))


def test_a_native_plugin_is_found_by_its_entry_point_and_may_be_named_twice(manager: PluginManager) -> None:
    manager.load_native(("virtual_machine",))
    manager.load_native(("virtual_machine",))
    assert isinstance(manager.drivers()["motion"], VirtualMachine)


BROKEN = {
    "raises_at_import": "raise RuntimeError('first line\\nsecond line \\x1b[31m')",
    "has_an_unknown_hook": "import pluggy\n@pluggy.HookimplMarker('snapcount')\ndef fly(): pass\n",
    "has_a_wrong_parameter": "import pluggy\n@pluggy.HookimplMarker('snapcount')\ndef bid(wish): pass\n",
    "is_no_python": "def",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_native_plugin_that_cannot_be_loaded_is_named(
    manager: PluginManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"{name}_module.py").write_text(BROKEN[name])
    installed = tmp_path / f"{name}-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[snapcount.plugins]\n{name} = {name}_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with raising(HostFault, f"plugin {name}: could not be loaded"):
            manager.load_native((name,))
    finally:
        sys.modules.pop(f"{name}_module", None)


LIMITS = parse_limits(b"""
speed_mm_s = { max = 100.0 }
rate = { moves_per_s = 1000.0 }
[travel_mm]
x = [0.0, 300.0]
y = [0.0, 200.0]
z = [-5.0, 100.0]
[interlocks]
required = ["door"]
""", "safety.toml")  # fmt: skip


def gate(machine: Machine) -> DriverGate:
    envelope = SafetyEnvelope(LIMITS, SigningKey(b"o" * 32).verify_key, audit=lambda refusal: None)
    return gates({machine.capability: machine}, envelope, Still())[machine.capability]


def closed(**more: Any) -> Machine:
    return Machine(inputs={"door": True}, **more)


MOVE = Move(moves=((1.0, 2.0, 3.0, 50.0),))


def test_the_gate_hands_an_admitted_command_to_the_driver_and_its_answer_back() -> None:
    machine = closed()
    answer = gate(machine).ask(NAME, cbor.encode(MOVE))
    assert machine.did == [MOVE]
    assert cbor.decode_struct(answer, MotionReply, "answer") == machine.answer


UNREADABLE = {
    "nothing": b"",
    "no CBOR": b"\xff",
    "a list": cbor.encode(["move"]),
    "no op": cbor.encode({"moves": [[0.0, 0.0, 0.0, 1.0]]}),
    "an unknown op": cbor.encode({"op": "explode"}),
    "an op that is no text": cbor.encode({"op": 1}),
    "no moves": cbor.encode({"op": "move"}),
    "an empty list of moves": cbor.encode({"op": "move", "moves": []}),
    "257 moves": cbor.encode({"op": "move", "moves": [[0.0, 0.0, 0.0, 1.0]] * 257}),
    "a move of three numbers": cbor.encode({"op": "move", "moves": [[0.0, 0.0, 0.0]]}),
    "a move with text": cbor.encode({"op": "move", "moves": [[0.0, 0.0, "0", 1.0]]}),
    "a field more": cbor.encode({"op": "home", "fast": True}),
    "a negative wait": cbor.encode({"op": "dwell", "ms": -1}),
    "a wait of more than a day": cbor.encode({"op": "dwell", "ms": 86_400_001}),
    "a heater without a name": cbor.encode({"op": "heat", "heater": "", "celsius": 20.0}),
    "keys out of order": b"\xa2\x62op\x65dwell\x62ms\x01"[:1] + b"\x62op\x65dwell\x62ms\x01",
    "a byte after it": cbor.encode({"op": "home"}) + b"\0",
    "control characters": cbor.encode({"op": "\x1b[31m\n"}),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_command_of_another_shape_never_reaches_the_driver(what: str) -> None:
    machine = closed()
    with raising(MalformedData, "motion"):
        gate(machine).ask(NAME, UNREADABLE[what])
    assert machine.did == []


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 300.1, -0.1, 1e308])
def test_a_command_outside_the_envelope_never_reaches_the_driver(x: float) -> None:
    machine = closed()
    with raising(UnsafeCommand):
        gate(machine).ask(NAME, cbor.encode(Move(moves=((x, 0.0, 0.0, 1.0),))))
    assert machine.did == []


@pytest.mark.parametrize(
    "machine",
    [closed(failing=RuntimeError("boom\n\x1b[31m")), closed(answer=object()), Machine(inputs=OSError("the port\nis gone"))],
    ids=["execute raises", "its answer has no shape", "interlocks raise"],
)
def test_a_driver_that_breaks_is_a_fault_of_the_host(machine: Machine) -> None:
    with raising(HostFault, "the driver of motion failed"):
        gate(machine).ask(NAME, cbor.encode(MOVE))


def test_a_driver_whose_interlocks_cannot_be_read_is_given_no_command() -> None:
    machine = Machine(inputs=OSError("gone"))
    with raising(HostFault):
        gate(machine).ask(NAME, cbor.encode(MOVE))
    assert machine.did == []


def test_a_foreign_exception_of_a_driver_reaches_the_guest_as_an_error_reply(shop: Shop) -> None:
    # The guest sends the command of its data segment to the driver, and replies with the driver's answer as its own error reply.
    command = cbor.encode(Home())
    body = f"""(local $got i32)
      (local.set $got (call $call (i32.const 0) (i32.const 6) (i32.const 16) (i32.const {len(command)}) (i32.const 12288) (i32.const 4096)))
      (return (i64.or (i64.const {12288 << 32}) (i64.extend_i32_u (local.get $got))))"""
    wat = (
        answering(b"", extra=ASKING)
        .replace("(global.set", body.splitlines()[0] + "(global.set", 1)
        .replace(" i64.const", "\n".join(body.splitlines()[1:]) + " i64.const", 1)
    )
    wat = wat.removesuffix(")") + data(0, b"motion") + data(16, command) + ")"
    version = shop.version(wat, capabilities="motion")
    for machine, code in (
        (closed(failing=RuntimeError("boom")), "host_fault"),
        (Machine(inputs=RuntimeError("boom")), "host_fault"),
        (Machine(inputs={"door": False}), "safe_mode"),
    ):
        guarded = gate(machine)
        shop.ask = lambda capability, request, guarded=guarded: guarded.ask(NAME, request)  # type: ignore[misc]
        with raising(SkillRefused, NAME, code):
            version.call("bid", BID)


def test_the_gate_lets_one_command_through_at_a_time() -> None:
    inside, overlaps = threading.Lock(), []

    class Slow(Machine):
        def execute(self, command: AnyCommand) -> Any:
            overlaps.append(not inside.acquire(blocking=False))
            threading.Event().wait(0.002)
            inside.release()
            return self.answer

    guarded = gate(Slow(inputs={"door": True}))
    threads = [threading.Thread(target=guarded.ask, args=(NAME, cbor.encode(Dwell(ms=0)))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [False] * 10


# ---- The streaming hook ---------------------------------------------------------------------------


def planned(pieces: Any, *, replies: list[bytes] | None = None) -> tuple[PlanReport, list[dict[str, Any]]]:
    """Plans with a fake instance; the report, and the requests it was sent."""
    pieces = list(pieces)
    chunks = max(1, sum(-(-len(piece) // CHUNK_BYTES) for piece in pieces))
    version, instance = faked(*(replies or [cbor.encode(PROGRESS)] * (chunks - 1) + [cbor.encode(REPORT)]))
    report = version.plan(iter(pieces), PlanSettings(chord_mm=0.1), True)
    assert instance.closed
    assert instance.replies == []
    return report, [cbor.decode(sent, "request", bytes_max=DEFAULT.request_bytes_max) for _, sent in instance.sent]


PROGRAMS = {
    "nothing at all": ([], [0]),
    "empty pieces": ([b"", b""], [0]),
    "one byte": ([b"x"], [1]),
    "one chunk exactly": ([bytes(CHUNK_BYTES)], [CHUNK_BYTES]),
    "one byte more than a chunk": ([bytes(CHUNK_BYTES + 1)], [CHUNK_BYTES, 1]),
    "three chunks exactly": ([bytes(3 * CHUNK_BYTES)], [CHUNK_BYTES] * 3),
    "odd pieces": ([b"G0", b"", b" X1\n", bytes(CHUNK_BYTES + 7), b""], [2, 4, CHUNK_BYTES, 7]),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_is_cut_into_chunks_in_order_of_which_only_the_last_says_so(what: str) -> None:
    pieces, sizes = PROGRAMS[what]
    report, requests = planned(pieces)
    assert report == REPORT
    assert [len(request["chunk"]) for request in requests] == sizes
    assert b"".join(request["chunk"] for request in requests) == b"".join(pieces)
    assert [request["seq"] for request in requests] == list(range(len(sizes)))
    assert [request["last"] for request in requests] == [False] * (len(sizes) - 1) + [True]
    assert all(request["run"] is True and request["settings"] == {"chord_mm": 0.1} for request in requests)


def test_a_program_is_read_as_it_is_fed_and_not_before() -> None:
    version, instance = faked(*[cbor.encode(PROGRESS)] * 2, cbor.encode(REPORT))
    read: list[int] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            read.append(len(instance.sent))
            yield b"x"

    version.plan(pieces(), PlanSettings(), False)
    assert read == [0, 0, 1]  # one piece ahead, because the last must be known


def test_a_program_that_cannot_be_read_on_ends_the_job_and_frees_the_instance() -> None:
    version, instance = faked(cbor.encode(PROGRESS))

    def pieces() -> Iterator[bytes]:
        yield b"x"
        yield b"y"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        version.plan(pieces(), PlanSettings(), False)
    assert instance.closed
    assert (version.calls, version.faults) == (1, 1)


def test_an_endless_program_is_stopped_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "DEFAULT", replace(DEFAULT, program_bytes_max=10))
    version, instance = faked(*[cbor.encode(PROGRESS)] * 10)
    with raising(TooLarge, NAME, "10 bytes"):
        version.plan(itertools.repeat(b"xxx"), PlanSettings(), False)
    assert len(instance.sent) == 3


BAD_PLANS = {
    "a report before the end": [cbor.encode(REPORT), cbor.encode(REPORT)],
    "progress at the end": [cbor.encode(PROGRESS), cbor.encode(PROGRESS)],
    "progress that says it is done": [cbor.encode({"done": True, "lines": 1}), cbor.encode(REPORT)],
    "a report that says it is not done": [
        cbor.encode(PROGRESS),
        cbor.encode(cbor.decode(cbor.encode(REPORT), "report") | {"done": False}),
    ],
    "no CBOR": [b"\xff"],
    "300 kB of progress": [cbor.encode({"done": False, "lines": 1, "more": bytes(300_000)})],
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_a_planner_with_replies_of_another_shape_is_invalid(what: str) -> None:
    version, instance = faked(*BAD_PLANS[what])
    with raising(ReplyInvalid, NAME, "plan_job"):
        version.plan([b"x", b"y"], PlanSettings(), False)
    assert instance.closed


def test_every_program_gets_a_fresh_instance_even_of_a_persistent_skill(shop: Shop) -> None:
    version = shop.version(PLANNER, hooks="plan_job", instance="persistent")
    for _ in range(2):
        assert version.plan([b"one", b"two"], PlanSettings(), False) == REPORT
