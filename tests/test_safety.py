"""The safety envelope: what it refuses, what it lets through, and what it remembers."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host.core import cbor, cose, safety
from host.core.commands import AnyCommand, Dwell, Heat, Home, Move, Status, Tool
from host.core.errors import HostFault, MalformedData, SafeMode, SignatureInvalid, SnapcountError, StorageFull, UnsafeCommand
from host.core.safety import Rate, Refusal, SafeModeRule, SafetyEnvelope, SafetyLimits, Speed, Travel, Trip
from host.plugins.driver import DriverGate
from host.plugins.drivers.virtual_machine import VirtualMachine

FUZZ = settings(max_examples=300, deadline=None, print_blob=True)

OWNER = SigningKey(b"o" * 32)
STRANGER = SigningKey(b"s" * 32)
DEFAULTS = safety.parse_limits(safety.default_toml(), "safety.toml")
CLOSED = {"door": True}
NAN, INF = math.nan, math.inf
CENTRE = Move(((150.0, 150.0, 150.0, 100.0),))
OUTSIDE = Move(((-1.0, 0.0, 0.0, 1.0),))


class Bench:
    """An envelope with its audit and its trips written down."""

    def __init__(self, limits: SafetyLimits = DEFAULTS, tripped: Trip | None = None) -> None:
        self.audit: list[Refusal] = []
        self.trips: list[Trip | None] = []
        self.envelope = SafetyEnvelope(limits, OWNER.verify_key, audit=self.audit.append, on_trip=self.trips.append, tripped=tripped)

    def admit(self, command: AnyCommand, now_ms: int = 0, inputs: dict[str, Any] | None = None) -> None:
        before = len(self.audit)
        self.envelope.admit(command, CLOSED if inputs is None else inputs, now_ms, "drill")
        assert len(self.audit) == before, "what is admitted is not audited as refused"

    def refused(
        self, command: AnyCommand, now_ms: int = 0, inputs: dict[str, Any] | None = None, kind: type[UnsafeCommand] = UnsafeCommand
    ) -> str:
        before = len(self.audit)
        with pytest.raises(UnsafeCommand) as caught:
            self.envelope.admit(command, CLOSED if inputs is None else inputs, now_ms, "drill")
        assert type(caught.value) is kind
        message = str(caught.value)
        assert message.isprintable(), "one line"
        assert self.audit[before:] == [Refusal(now_ms, "drill", type(command).__name__.lower(), message)], "audited exactly once"
        return message


@pytest.fixture
def bench() -> Bench:
    return Bench()


def limits_with(**changes: Any) -> SafetyLimits:
    return msgspec.structs.replace(DEFAULTS, **changes)


def assert_names(caught: pytest.ExceptionInfo[SnapcountError], *names: str) -> None:
    assert str(caught.value).isprintable()
    assert all(name in str(caught.value) for name in names), str(caught.value)


# Travel and speed.


def test_every_corner_of_the_box_is_inside_and_a_step_beyond_is_not(bench: Bench) -> None:
    travel = DEFAULTS.travel_mm
    for x in travel.x:
        for y in travel.y:
            for z in travel.z:
                bench.admit(Move(((x, y, z, 1.0),)))
                for axis, value, (low, _) in (("x", x, travel.x), ("y", y, travel.y), ("z", z, travel.z)):
                    beyond = math.nextafter(value, -INF if value == low else INF)
                    point = {"x": x, "y": y, "z": z, axis: beyond}
                    assert bench.refused(Move(((point["x"], point["y"], point["z"], 1.0),))).startswith(f"{axis} = ")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [NAN, INF, -INF, -0.001, 300.001, 1e308, -1e308])
def test_a_coordinate_that_is_outside_or_not_finite_is_refused_and_the_axis_named(bench: Bench, axis: int, value: float) -> None:
    point = [150.0, 150.0, 150.0]
    point[axis] = value
    message = bench.refused(Move(((point[0], point[1], point[2], 10.0),)))
    assert message.startswith(f"{'xyz'[axis]} = ")
    assert "[0, 300] mm" in message


@pytest.mark.parametrize("speed", [NAN, INF, -INF, 0.0, -0.0, -1.0, 250.001, 1e308])
def test_a_speed_that_is_above_the_limit_not_finite_or_not_forwards_is_refused(bench: Bench, speed: float) -> None:
    assert "(0, 250] mm/s" in bench.refused(Move(((1.0, 1.0, 1.0, speed),)))


def test_the_speed_limit_itself_and_the_slowest_speed_are_admitted(bench: Bench) -> None:
    bench.admit(Move(((1.0, 1.0, 1.0, 250.0),)))
    bench.admit(Move(((1.0, 1.0, 1.0, 5e-324),)))


def test_a_command_is_refused_whole_for_its_last_point(bench: Bench) -> None:
    fine = (1.0, 1.0, 1.0, 1.0)
    assert bench.refused(Move((fine, fine, (1.0, 1.0, 301.0, 1.0)))).startswith("z = 301 mm")
    bench.admit(Move((fine, fine, fine)))


def test_a_box_of_one_point_admits_that_point_only() -> None:
    bench = Bench(limits_with(travel_mm=Travel((5.0, 5.0), (5.0, 5.0), (5.0, 5.0))))
    bench.admit(Move(((5.0, 5.0, 5.0, 1.0),)))
    bench.refused(Move(((5.0, 5.0, math.nextafter(5.0, 6.0), 1.0),)))


# Heat and power.


@pytest.mark.parametrize(("heater", "celsius"), [("nozzle", 260.0), ("nozzle", 0.0), ("bed", 110.0), ("bed", -40.0)])
def test_a_temperature_up_to_the_limit_is_admitted(bench: Bench, heater: str, celsius: float) -> None:
    bench.admit(Heat(heater, celsius))


@pytest.mark.parametrize("celsius", [math.nextafter(110.0, INF), 260.0, NAN, INF, -INF])
def test_a_temperature_above_the_limit_or_not_finite_is_refused(bench: Bench, celsius: float) -> None:
    assert bench.refused(Heat("bed", celsius)).startswith("temperature of bed: ")


@pytest.mark.parametrize("heater", ["chamber", "Nozzle", "nozzle ", "bed\n", "\x1b[2J\u202e"])
def test_a_heater_that_the_owner_did_not_name_is_refused_whatever_it_is_called(bench: Bench, heater: str) -> None:
    assert "the owner set no limit for it in safety.toml" in bench.refused(Heat(heater, 20.0))


@pytest.mark.parametrize("watts", [math.nextafter(500.0, INF), -1.0, -5e-324, NAN, INF, -INF])
def test_a_power_above_the_limit_below_zero_or_not_finite_is_refused(bench: Bench, watts: float) -> None:
    assert bench.refused(Tool(watts)).startswith("power of the tool: ")


def test_a_power_up_to_the_limit_is_admitted_and_none_where_the_owner_named_no_tool(bench: Bench) -> None:
    for watts in (0.0, 500.0):
        bench.admit(Tool(watts))
    toolless = Bench(limits_with(power_w={"laser": 5.0}))
    assert "the owner set no limit" in toolless.refused(Tool(0.0))


def test_homing_and_dwelling_need_no_limit_but_do_need_closed_interlocks(bench: Bench) -> None:
    bench.admit(Home())
    bench.admit(Dwell(1000))
    bench.refused(Home(), inputs={"door": False}, kind=SafeMode)


# Rate.


def rated(moves_per_s: float, burst: int) -> Bench:
    return Bench(limits_with(rate=Rate(moves_per_s, burst)))


def moves(count: int) -> Move:
    return Move(((1.0, 1.0, 1.0, 1.0),) * count)


def test_moves_above_the_burst_are_refused_and_come_back_with_time() -> None:
    bench = rated(10.0, 5)
    bench.admit(moves(5), 1000)
    assert bench.refused(moves(1), 1000) == "more than 10 moves per second (burst 5)"
    bench.refused(moves(1), 1099)
    bench.admit(moves(1), 1100)
    bench.refused(moves(1), 1100)
    bench.admit(moves(5), 10_000)
    bench.refused(moves(1), 10_000)


def test_a_command_of_more_moves_than_the_burst_is_never_admitted_and_takes_nothing() -> None:
    bench = rated(10.0, 5)
    bench.refused(moves(6), 0)
    bench.refused(moves(6), 1_000_000)
    bench.admit(moves(5), 1_000_000)


def test_a_refused_command_takes_nothing_from_the_rate() -> None:
    bench = rated(1.0, 1)
    bench.refused(OUTSIDE, 0)
    bench.admit(moves(1), 0)


def test_every_other_command_counts_as_one_move() -> None:
    bench = rated(1.0, 3)
    for command in (Home(), Heat("bed", 20.0), Tool(0.0)):
        bench.admit(command, 0)
    bench.refused(Dwell(1), 0)


def test_a_clock_set_back_gives_no_moves_and_takes_none_forever() -> None:
    bench = rated(10.0, 5)
    bench.admit(moves(5), 1_000_000)
    bench.refused(moves(1), 500_000)
    bench.refused(moves(1), 0)
    bench.admit(moves(1), 100)


def test_a_status_costs_nothing() -> None:
    bench = rated(1.0, 1)
    for _ in range(100):
        bench.admit(Status(), 0)
    bench.admit(moves(1), 0)


@FUZZ
@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 25)), max_size=40),
)
@pytest.mark.slow
def test_no_window_of_time_admits_more_than_the_rate_and_the_burst(per_s: int, burst: int, asks: list[tuple[int, int]]) -> None:
    bench = rated(float(per_s), burst)
    now, admitted = 0, []
    for wait_ms, count in asks:
        now += wait_ms
        try:
            bench.envelope.admit(moves(count), CLOSED, now, "drill")
            admitted.append((now, count))
        except UnsafeCommand:
            continue
    for first, (start, _) in enumerate(admitted):
        total = 0
        for at, count in admitted[first:]:
            total += count
            assert total <= burst + (at - start) * per_s / 1000 + 1e-6


# Interlocks and safe mode.


@pytest.mark.parametrize("inputs", [{"door": False}, {}, {"Door": True}, {"door": 1}, {"door": "closed"}, {"door": None}])
def test_an_interlock_that_is_not_surely_closed_trips_safe_mode(bench: Bench, inputs: dict[str, Any]) -> None:
    assert bench.refused(CENTRE, 77, inputs, SafeMode) == "interlock door is not closed: safe mode"
    assert bench.envelope.tripped is not None
    assert bench.envelope.tripped.at_ms == 77
    assert bench.trips == [bench.envelope.tripped]


def test_safe_mode_stays_when_the_door_is_closed_again(bench: Bench) -> None:
    bench.refused(CENTRE, 1, {"door": False}, SafeMode)
    for command in (CENTRE, Home(), Heat("bed", 20.0), Tool(0.0), Dwell(0), OUTSIDE):
        message = bench.refused(command, 10_000_000, CLOSED, SafeMode)
        assert message == "safe mode since 1: interlock door is not closed; the owner must reset it"
    bench.admit(Status())
    assert len(bench.trips) == 1, "a second trip keeps the first reason"


def test_a_status_passes_with_the_door_open_and_trips_nothing(bench: Bench) -> None:
    bench.admit(Status(), 0, {"door": False})
    assert bench.envelope.tripped is None


def test_too_many_refusals_in_a_row_trip_safe_mode_and_an_admitted_command_starts_the_count_again() -> None:
    bench = Bench(limits_with(safe_mode=SafeModeRule(3)))
    for _ in range(5):
        bench.refused(OUTSIDE)
        bench.refused(OUTSIDE)
        bench.admit(CENTRE)
    bench.refused(OUTSIDE, 1)
    bench.refused(OUTSIDE, 2)
    bench.admit(Status(), 3)
    bench.refused(OUTSIDE, 4)
    assert bench.envelope.tripped is not None
    assert bench.envelope.tripped.reason.startswith("3 commands refused in a row, the last: x = -1 mm")
    bench.refused(CENTRE, 5, kind=SafeMode)


def test_safe_mode_survives_a_restart() -> None:
    tripped = Trip("1-1-0", 1, "interlock door is not closed")
    bench = Bench(tripped=tripped)
    bench.refused(CENTRE, 9, kind=SafeMode)
    bench.envelope.reset(safety.sign_reset(OWNER, "1-1-0"))
    bench.admit(CENTRE)
    assert bench.trips == [None]


def test_the_owner_resets_the_very_trip(bench: Bench) -> None:
    bench.refused(CENTRE, 1, {"door": False}, SafeMode)
    assert bench.envelope.tripped is not None
    bench.envelope.reset(safety.sign_reset(OWNER, bench.envelope.tripped.id))
    assert bench.envelope.tripped is None
    assert bench.trips[-1] is None
    bench.admit(CENTRE, 2)


def test_a_reset_forgets_the_refusals_before_it() -> None:
    bench = Bench(limits_with(safe_mode=SafeModeRule(2)))
    bench.refused(OUTSIDE)
    bench.refused(OUTSIDE)
    assert bench.envelope.tripped is not None
    bench.envelope.reset(safety.sign_reset(OWNER, bench.envelope.tripped.id))
    bench.refused(OUTSIDE)
    bench.admit(CENTRE)


def still_tripped(bench: Bench, signed: bytes) -> str:
    before = bench.envelope.tripped
    with pytest.raises((SignatureInvalid, MalformedData)) as caught:
        bench.envelope.reset(signed)
    assert_names(caught, "safety reset")
    assert bench.envelope.tripped is before is not None
    assert bench.trips[-1] is not None
    return str(caught.value)


def test_a_reset_by_another_key_or_for_another_purpose_is_refused(bench: Bench) -> None:
    bench.refused(CENTRE, 1, {"door": False}, SafeMode)
    assert bench.envelope.tripped is not None
    trip = bench.envelope.tripped.id
    kid = bytes(OWNER.verify_key)
    body = cbor.encode({"reset": trip})
    assert "does not match key" in still_tripped(bench, safety.sign_reset(STRANGER, trip))
    still_tripped(bench, cose.sign(STRANGER, body, kid=kid, aad=safety.AAD_RESET))
    still_tripped(bench, cose.sign(OWNER, body, kid=kid, aad=safety.AAD_LIMITS))
    still_tripped(bench, cose.sign(OWNER, body, kid=kid))
    still_tripped(bench, cose.sign(OWNER, body, kid=kid, detached=True, aad=safety.AAD_RESET))
    still_tripped(bench, cose.sign(OWNER, cbor.encode({"reset": trip, "x": 1}), kid=kid, aad=safety.AAD_RESET))
    still_tripped(bench, b"")
    still_tripped(bench, body)


def test_a_reset_for_another_trip_names_the_trip_it_should_be_for(bench: Bench) -> None:
    bench.refused(CENTRE, 1, {"door": False}, SafeMode)
    assert bench.envelope.tripped is not None
    assert bench.envelope.tripped.id in still_tripped(bench, safety.sign_reset(OWNER, "1-1-deadbeef"))


def test_a_reset_is_worth_nothing_for_the_next_trip_even_at_the_same_time_for_the_same_reason(bench: Bench) -> None:
    bench.refused(CENTRE, 1, {"door": False}, SafeMode)
    assert bench.envelope.tripped is not None
    used = safety.sign_reset(OWNER, bench.envelope.tripped.id)
    bench.envelope.reset(used)
    for now_ms in (1, 2):
        bench.refused(CENTRE, now_ms, {"door": False}, SafeMode)
        assert "signed for another trip" in still_tripped(bench, used)
        bench.envelope.reset(safety.sign_reset(OWNER, bench.envelope.tripped.id if bench.envelope.tripped else ""))


def test_a_reset_without_a_trip_changes_nothing_but_must_still_be_the_owners(bench: Bench) -> None:
    bench.envelope.reset(safety.sign_reset(OWNER, "none"))
    with pytest.raises(SignatureInvalid):
        bench.envelope.reset(safety.sign_reset(STRANGER, "none"))
    assert bench.trips == []


def full_disk(_: object) -> None:
    raise StorageFull("journal.db: cannot be used: database or disk is full")


def test_an_audit_that_cannot_be_written_neither_admits_a_command_nor_keeps_safe_mode_away() -> None:
    envelope = SafetyEnvelope(limits_with(safe_mode=SafeModeRule(2)), OWNER.verify_key, audit=full_disk)
    for _ in range(2):
        with pytest.raises(StorageFull):
            envelope.admit(OUTSIDE, CLOSED, 0, "drill")
    assert envelope.tripped is not None
    opened = SafetyEnvelope(DEFAULTS, OWNER.verify_key, audit=full_disk)
    with pytest.raises(StorageFull):
        opened.admit(CENTRE, {}, 0, "drill")
    assert opened.tripped is not None


def test_a_trip_that_cannot_be_written_is_audited_and_holds() -> None:
    audit: list[Refusal] = []
    envelope = SafetyEnvelope(DEFAULTS, OWNER.verify_key, audit=audit.append, on_trip=full_disk)
    with pytest.raises(StorageFull):
        envelope.admit(CENTRE, {}, 0, "drill")
    assert len(audit) == 1
    with pytest.raises(SafeMode):
        envelope.admit(CENTRE, CLOSED, 0, "drill")


# The owner's limits.


def test_the_default_limits_parse_and_are_what_the_file_says() -> None:
    assert DEFAULTS.travel_mm == Travel((0.0, 300.0), (0.0, 300.0), (0.0, 300.0))
    assert (DEFAULTS.speed_mm_s, DEFAULTS.power_w, DEFAULTS.interlocks.required) == (Speed(250.0), {"tool": 500.0}, ("door",))
    assert safety.as_dict(DEFAULTS)["temperature_c"] == {"nozzle": 260.0, "bed": 110.0}


def test_limits_signed_by_the_owner_are_verified() -> None:
    toml = safety.default_toml()
    assert safety.verify_limits(toml, safety.sign_limits(OWNER, toml), OWNER.verify_key, "safety.toml") == DEFAULTS


def test_limits_altered_unsigned_or_signed_by_another_are_refused() -> None:
    toml = safety.default_toml()
    signature = safety.sign_limits(OWNER, toml)
    kid = bytes(OWNER.verify_key)
    for text, signed in (
        (toml.replace(b"250.0", b"950.0"), signature),
        (toml + b"\n", signature),
        (toml, safety.sign_limits(STRANGER, toml)),
        (toml, cose.sign(STRANGER, toml, kid=kid, detached=True, aad=safety.AAD_LIMITS)),
        (toml, cose.sign(OWNER, toml, kid=kid, detached=True, aad=safety.AAD_RESET)),
        (toml, cose.sign(OWNER, toml, kid=kid, aad=safety.AAD_LIMITS)),
        (toml, b""),
        (toml, signature[:-1]),
    ):
        with pytest.raises((SignatureInvalid, MalformedData)) as caught:
            safety.verify_limits(text, signed, OWNER.verify_key, "STATE/safety/safety.toml")
        assert_names(caught, "STATE/safety/safety.toml")


LIMITS = safety.default_toml().decode()


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ("", "travel_mm"),
        (LIMITS.replace("max = 250.0", ""), "speed_mm_s"),
        (LIMITS.replace("max = 250.0", "max = -1.0"), "speed_mm_s.max"),
        (LIMITS.replace("max = 250.0", "max = nan"), "speed_mm_s.max"),
        (LIMITS.replace("max = 250.0", "max = inf"), "finite"),
        (LIMITS.replace("max = 250.0", 'max = "250"'), "speed_mm_s.max"),
        (LIMITS.replace("max = 250.0", "max = 250.0\nmin = 1"), "min"),
        (LIMITS.replace("x = [0.0, 300.0]", "x = [300.0, 0.0]"), "travel_mm.x"),
        (LIMITS.replace("y = [0.0, 300.0]", "y = [nan, 300.0]"), "travel_mm.y"),
        (LIMITS.replace("z = [0.0, 300.0]", "z = [0.0, inf]"), "travel_mm.z"),
        (LIMITS.replace("z = [0.0, 300.0]", "z = [0.0]"), "travel_mm.z"),
        (LIMITS.replace("nozzle = 260.0", "nozzle = inf"), "finite"),
        (LIMITS.replace("nozzle = 260.0", "nozzle = -inf"), "finite"),
        (LIMITS.replace("bed = 110.0", "bed = nan"), "finite"),
        (LIMITS.replace("tool = 500.0", "tool = inf"), "finite"),
        (LIMITS.replace("tool = 500.0", "tool = -5.0"), "power_w"),
        (LIMITS.replace("moves_per_s = 2000000.0", "moves_per_s = 0.0"), "rate.moves_per_s"),
        (LIMITS.replace("moves_per_s = 2000000.0", "moves_per_s = inf"), "finite"),
        (LIMITS.replace("burst = 2000000", "burst = 0"), "rate.burst"),
        (LIMITS.replace("refusals = 100", "refusals = 0"), "safe_mode.refusals"),
        (LIMITS.replace('["door"]', '"door"'), "interlocks.required"),
        (LIMITS + "\n[extra]\n", "extra"),
        (LIMITS + '\n["\\u001b[2J\\n"]\n', "\\x1b[2J\\n"),
        ("not toml", "line 1"),
        ("x = " + "[" * 10_000, "safety.toml"),
        ("# " + "x" * (64 << 10), "at most 65536 bytes"),
    ],
)
def test_limits_that_are_not_sound_are_refused_by_signer_and_reader_and_the_field_named(toml: str, names: str) -> None:
    with pytest.raises(MalformedData) as caught:
        safety.parse_limits(toml.encode(), "safety.toml")
    assert_names(caught, "safety.toml: ", names)
    with pytest.raises(MalformedData):
        safety.sign_limits(OWNER, toml.encode())


def test_limits_that_are_not_text_are_refused() -> None:
    with pytest.raises(MalformedData) as caught:
        safety.parse_limits(b"\xff\xfe", "safety.toml")
    assert_names(caught, "safety.toml: ")


# The gate before a driver.


class Watched(VirtualMachine):
    """A virtual machine that writes down what reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[AnyCommand] = []

    def execute(self, command: AnyCommand) -> Any:
        self.reached.append(command)
        return super().execute(command)


@pytest.fixture
def machine() -> Watched:
    return Watched()


@pytest.fixture
def ask(machine: Watched, bench: Bench, clock: Any) -> Callable[[object], bytes]:
    gate = DriverGate(machine, bench.envelope, clock)
    return lambda command: gate.ask("drill", command if isinstance(command, bytes) else cbor.encode(command))


def test_an_admitted_command_reaches_the_driver_as_it_was_sent(machine: Watched, ask: Callable[[object], bytes]) -> None:
    reply = ask({"op": "move", "moves": [[10.0, 20, 30.5, 100.0]]})
    assert machine.reached == [Move(((10.0, 20.0, 30.5, 100.0),))]
    assert machine.position_mm == (10.0, 20.0, 30.5)
    assert cbor.decode(reply, "reply")["position_mm"] == [10.0, 20.0, 30.5]


@pytest.mark.parametrize(
    "command",
    [
        {"op": "move", "moves": [[10.0, 20.0, 30.0, 100.0], [10.0, 20.0, 301.0, 100.0]]},
        {"op": "move", "moves": [[NAN, 20.0, 30.0, 100.0]]},
        {"op": "move", "moves": [[10.0, 20.0, 30.0, INF]]},
        {"op": "heat", "heater": "nozzle", "celsius": 261.0},
        {"op": "heat", "heater": "nozzle", "celsius": -INF},
        {"op": "tool", "watts": NAN},
    ],
)
def test_a_refused_command_never_reaches_the_driver(
    machine: Watched, bench: Bench, ask: Callable[[object], bytes], command: object
) -> None:
    with pytest.raises(UnsafeCommand):
        ask(command)
    assert machine.reached == []
    assert (machine.position_mm, machine.temperature_c, machine.tool_w, list(machine.log)) == ((0.0, 0.0, 0.0), {}, 0.0, [])
    assert len(bench.audit) == 1


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (b"", "command for motion"),
        (b"\xff", "command for motion"),
        ([], "motion"),
        ({}, "op"),
        ({"op": "jump"}, "jump"),
        ({"op": "\x1b[2J\n"}, "motion"),
        ({"op": "move"}, "moves"),
        ({"op": "move", "moves": []}, "moves"),
        ({"op": "move", "moves": [[1.0, 2.0, 3.0]]}, "moves"),
        ({"op": "move", "moves": [[1.0, 2.0, 3.0, "4"]]}, "moves"),
        ({"op": "move", "moves": [[1.0, 2.0, 3.0, True]]}, "moves"),
        ({"op": "move", "moves": [[1.0, 2.0, 3.0, 4.0]] * 257}, "moves"),
        ({"op": "home", "axis": "x"}, "axis"),
        ({"op": "dwell", "ms": -1}, "ms"),
        ({"op": "dwell", "ms": 1.5}, "ms"),
        ({"op": "heat", "heater": "", "celsius": 1.0}, "heater"),
        ({"op": "heat", "heater": "x" * 65, "celsius": 1.0}, "heater"),
    ],
)
def test_what_is_no_command_is_malformed_and_reaches_nobody(
    machine: Watched, ask: Callable[[object], bytes], command: object, names: str
) -> None:
    with pytest.raises(MalformedData) as caught:
        ask(command)
    assert_names(caught, "command for motion", names)
    assert machine.reached == []


def test_an_opened_door_stops_the_machine_in_the_middle_of_a_job(machine: Watched, bench: Bench, ask: Callable[[object], bytes]) -> None:
    ask({"op": "move", "moves": [[1.0, 1.0, 1.0, 1.0]]})
    machine.inputs["door"] = False
    for _ in range(3):
        with pytest.raises(SafeMode):
            ask({"op": "move", "moves": [[2.0, 1.0, 1.0, 1.0]]})
    machine.inputs["door"] = True
    with pytest.raises(SafeMode):
        ask({"op": "home"})
    assert (machine.moves, machine.position_mm) == (1, (1.0, 1.0, 1.0))
    assert cbor.decode(ask({"op": "status"}), "reply")["moves"] == 1
    assert len(bench.audit) == 4


def test_a_driver_that_breaks_is_a_host_fault_of_one_line(bench: Bench, clock: Any) -> None:
    class Broken(VirtualMachine):
        def execute(self, command: AnyCommand) -> Any:
            raise RuntimeError("serial line\n\x1b[2Jcut")

    with pytest.raises(HostFault) as caught:
        DriverGate(Broken(), bench.envelope, clock).ask("drill", cbor.encode({"op": "home"}))
    assert_names(caught, "the driver of motion failed", "serial line")


# Properties.

NUMBER = st.one_of(st.floats(-500, 500), st.floats(), st.sampled_from([0.0, -0.0, 100.0, NAN, INF, -INF]))
RANGE = st.tuples(st.floats(-400, 400), st.floats(-400, 400)).map(lambda pair: (min(pair), max(pair)))
RANDOM_LIMITS = st.builds(
    lambda x, y, z, speed: limits_with(travel_mm=Travel(x, y, z), speed_mm_s=Speed(speed), rate=Rate(1e9, 1_000_000)),
    RANGE,
    RANGE,
    RANGE,
    st.floats(0, 500),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[SafetyLimits, Move]:
    """Limits and moves; half of the coordinates lie on or near an edge of the box, so that both verdicts are common."""
    limits = draw(RANDOM_LIMITS)
    box = limits.travel_mm

    def near(bounds: tuple[float, float]) -> st.SearchStrategy[float]:
        edges = [edge for bound in bounds for edge in (bound, math.nextafter(bound, -INF), math.nextafter(bound, INF))]
        return st.one_of(st.floats(*bounds), st.floats(*bounds), st.sampled_from(edges), NUMBER)

    point = st.tuples(near(box.x), near(box.y), near(box.z), near((0.0, limits.speed_mm_s.max)))
    return limits, Move(tuple(draw(st.lists(point, min_size=1, max_size=3))))


def is_safe(limits: SafetyLimits, move: tuple[float, float, float, float]) -> bool:
    box = limits.travel_mm
    inside = all(math.isfinite(v) and low <= v <= high for v, (low, high) in zip(move, (box.x, box.y, box.z), strict=False))
    return inside and math.isfinite(move[3]) and 0 < move[3] <= limits.speed_mm_s.max


@pytest.mark.slow
@settings(FUZZ, max_examples=500)
@given(cases())
@example((DEFAULTS, Move(((0.0, 0.0, 0.0, NAN),))))
def test_a_move_is_admitted_exactly_when_every_point_is_inside_the_box_and_no_speed_above_the_limit(
    case: tuple[SafetyLimits, Move],
) -> None:
    limits, move = case
    bench = Bench(limits)
    if all(is_safe(limits, one) for one in move.moves):
        bench.admit(move)
    else:
        bench.refused(move)


@pytest.mark.slow
@FUZZ
@given(cases())
def test_through_the_gate_the_machine_never_stands_outside_the_box(case: tuple[SafetyLimits, Move]) -> None:
    limits, move = case
    machine, bench = Watched(), Bench(limits)

    class Still:
        def now_ms(self) -> int:
            return 0

        monotonic_ms = now_ms

    try:
        DriverGate(machine, bench.envelope, Still()).ask("drill", cbor.encode({"op": "move", "moves": [list(one) for one in move.moves]}))
    except UnsafeCommand:
        assert machine.reached == []
    else:
        assert all(is_safe(limits, one) for command in machine.reached for one in command.moves)  # type: ignore[union-attr]
        assert machine.position_mm == move.moves[-1][:3]


def envelope_with(audit: list[Refusal], toml: str = "", **more: Any) -> safety.SafetyEnvelope:
    limits = safety.parse_limits(toml.encode() or safety.default_toml(), "safety.toml")
    return safety.SafetyEnvelope(limits, OWNER.verify_key, audit=audit.append, **more)


def test_homing_is_refused_where_it_would_leave_the_travel() -> None:
    audit: list[Refusal] = []
    envelope = envelope_with(audit, safety.default_toml().decode().replace("x = [0.0, 300.0]", "x = [100.0, 300.0]"))
    with pytest.raises(UnsafeCommand, match="homing goes to x = 0 mm"):
        envelope.admit(Home(), {"door": True}, 1, "skill")
    envelope.admit(Home(), {"door": True}, 1, "skill", home_mm=(100.0, 0.0, 0.0))
    assert [refusal.command for refusal in audit] == ["home"]


def test_a_plan_whose_box_leaves_the_travel_is_refused_before_anything_moves() -> None:
    envelope = envelope_with([])
    envelope.require_box((0.0, 0.0, 0.0), (300.0, 300.0, 300.0), "the program")
    for low, high in (((-0.1, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.0, 0.0, 0.0), (1.0, 1.0, 300.1))):
        with pytest.raises(UnsafeCommand, match="the program leaves the machine's limits, so nothing was moved"):
            envelope.require_box(low, high, "the program")


def test_the_rate_follows_a_time_that_never_jumps_where_one_is_given() -> None:
    toml = safety.default_toml().decode().replace("moves_per_s = 2000000.0", "moves_per_s = 1.0").replace("burst = 2000000", "burst = 1")
    envelope = envelope_with([], toml)
    move = Move(moves=((1.0, 1.0, 1.0, 10.0),))
    envelope.admit(move, {"door": True}, 0, "skill", rate_ms=0)
    with pytest.raises(UnsafeCommand, match="more than 1 moves per second"):
        envelope.admit(move, {"door": True}, 10_000_000, "skill", rate_ms=1)  # the wall clock stepped
    envelope.admit(move, {"door": True}, 0, "skill", rate_ms=1_001)


def test_a_reset_signed_for_one_node_is_worth_nothing_on_another() -> None:
    one, other = (envelope_with([], node=f"{name}-") for name in ("one", "other"))
    for envelope in (one, other):
        envelope.trip("smoke", 5)
    assert one.tripped is not None
    signed = safety.sign_reset(OWNER, one.tripped.id)
    with pytest.raises(SignatureInvalid, match="another trip"):
        other.reset(signed)
    one.reset(signed)
    assert one.tripped is None


def test_a_command_that_cannot_be_read_is_audited_too(clock: Any) -> None:
    audit: list[Refusal] = []
    gate = DriverGate(VirtualMachine(), envelope_with(audit), clock)
    with pytest.raises(MalformedData):
        gate.ask("skill", b"\xff")
    assert [(refusal.skill, refusal.command) for refusal in audit] == [("skill", "malformed")]
