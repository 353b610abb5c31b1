"""The contract that guest authors read, sdk/contract/skill.cddl, against the structs that the host decodes into."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from host.core import cbor, commands
from host.core.commands import AnyCommand
from host.core.errors import MalformedData
from host.plugins import contract
from host.plugins.contract import HOOKS, SHAPES, STREAMING, MotionReply, PlanProgress, PlanReport, Shape

CDDL = Path(__file__).resolve().parents[1] / "sdk" / "contract" / "skill.cddl"
RULES = {
    "error-reply": contract.ErrorReply,
    "self-test-request": contract.SelfTestRequest,
    "self-test-reply": contract.SelfTestReply,
    "quantity": contract.Quantity,
    "plan-job-request": contract.PlanJobRequest,
    "plan-settings": contract.PlanSettings,
    "plan-progress": contract.PlanProgress,
    "plan-report": contract.PlanReport,
    "assess-feedstock-request": contract.AssessFeedstockRequest,
    "product": contract.Product,
    "assess-feedstock-reply": contract.AssessFeedstockReply,
    "bid-request": contract.BidRequest,
    "bid-reply": contract.BidReply,
    "handle-request": contract.HandleRequest,
    "handle-reply": contract.HandleReply,
    "motion-move": commands.Move,
    "motion-heat": commands.Heat,
    "motion-tool": commands.Tool,
    "motion-home": commands.Home,
    "motion-dwell": commands.Dwell,
    "motion-status": commands.Status,
    "motion-reply": contract.MotionReply,
}
NOT_MAPS = {"point", "motion-request"}  # an array, and the choice between the six commands

# ---- The subset of CDDL (RFC 8610) that the contract is written in --------------------------------


@dataclass(frozen=True)
class Field:
    optional: bool
    type: Any


@dataclass(frozen=True)
class Map:
    fields: dict[str, Field]


@dataclass(frozen=True)
class Array:
    """`items` are its positions, or one type that occurs `least` to `most` times."""

    items: tuple[Any, ...]
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Choice:
    of: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Name:
    """A rule or a type of the prelude, with the bounds of `.size`."""

    name: str
    size: tuple[int, int] | None = None


class Parser:
    """Recursive descent over tokens; anything outside the subset is an error, so that nothing is skipped over."""

    TOKENS = re.compile(r'"[^"]*"|[A-Za-z][\w-]*|\d+|\.size|\.\.|[={}\[\]():,?*/]')

    def __init__(self, text: str) -> None:
        bare = re.sub(r";.*", "", text)
        self.tokens = self.TOKENS.findall(bare)
        assert "".join(self.tokens) == re.sub(r"\s+", "", bare), "a character that the subset does not know"
        self.at = 0

    def rules(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.at < len(self.tokens):
            name = self.take()
            self.take("=")
            assert name not in found, name
            found[name] = self.type()
        return found

    def take(self, wanted: str | None = None) -> str:
        token = self.tokens[self.at]
        assert wanted in (None, token), f"expected {wanted}, found {token}"
        self.at += 1
        return str(token)

    def next_is(self, *wanted: str) -> bool:
        return tuple(self.tokens[self.at : self.at + len(wanted)]) == wanted

    def skip(self, token: str) -> bool:
        if self.next_is(token):
            self.at += 1
            return True
        return False

    def type(self) -> Any:
        options = [self.one()]
        while self.skip("/"):
            options.append(self.one())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def one(self) -> Any:
        if self.skip("{"):
            return self.map()
        if self.skip("["):
            return self.array()
        token = self.take()
        if token.startswith('"'):
            return token.strip('"')
        if token.isdigit():
            self.take("..")
            return Range(int(token), int(self.take()))
        return Name(token, self.size() if self.skip(".size") else None)

    def size(self) -> tuple[int, int]:
        self.take("(")
        least = int(self.take())
        self.take("..")
        most = int(self.take())
        self.take(")")
        return least, most

    def map(self) -> Map:
        fields: dict[str, Field] = {}
        while not self.skip("}"):
            optional = self.skip("?")
            key = self.take()
            self.take(":")
            assert key not in fields, key
            fields[key] = Field(optional, self.type())
            self.skip(",")
        return Map(fields)

    def array(self) -> Array:
        least = int(self.take()) if self.tokens[self.at].isdigit() else None
        if least is not None or self.next_is("*"):
            self.take("*")
            most = int(self.take()) if self.tokens[self.at].isdigit() else None
            if self.tokens[self.at + 1] != ":":
                item = self.type()
                self.take("]")
                return Array((item,), least or 0, most)
            return Array((Array(self.positions()),), least or 0, most)
        return Array(self.positions())

    def positions(self) -> tuple[Any, ...]:
        items = []
        while not self.skip("]"):
            self.take()
            self.take(":")
            items.append(self.type())
            self.skip(",")
        return tuple(items)


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    return Parser(CDDL.read_text()).rules()


# ---- Comparing ----------------------------------------------------------------------------------


def differences(rule: Any, host: inspect.Type, at: str, rules: dict[str, Any], seen: set[type]) -> Iterator[str]:
    """Where the CDDL says something else than the struct does, each as a line of words."""
    match rule, host:
        case Name(name=name), _ if name in rules:
            yield from differences(rules[name], host, at, rules, seen)
        case Map(fields=fields), inspect.StructType(cls=cls, fields=declared, tag_field=tag_field, tag=tag):
            seen.add(cls)
            if tag_field is not None and fields.get(tag_field) != Field(False, tag):
                yield f"{at}.{tag_field}: the CDDL says {fields.get(tag_field)}, the struct {tag!r}"
            stated = {key: field for key, field in fields.items() if key != tag_field}
            mine = {field.encode_name: field for field in declared}
            for key in sorted(stated.keys() ^ mine.keys()):
                yield f"{at}.{key}: only in the {'CDDL' if key in stated else 'struct'}"
            for key in stated.keys() & mine.keys():
                if stated[key].optional == mine[key].required:
                    yield f"{at}.{key}: may be absent in only one of the two"
                yield from differences(stated[key].type, _present(mine[key].type), f"{at}.{key}", rules, seen)
        case Array(items=items, least=None), inspect.TupleType(item_types=types):
            if len(items) != len(types):
                yield f"{at}: {len(items)} positions in the CDDL, {len(types)} in the struct"
            for index, (item, kind) in enumerate(zip(items, types, strict=False)):
                yield from differences(item, kind, f"{at}[{index}]", rules, seen)
        case Array(items=(item,), least=least, most=most), inspect.VarTupleType(item_type=kind, min_length=low, max_length=high):
            if least != (low or 0) or (most is not None and most != high):
                yield f"{at}: {least} to {most} items in the CDDL, {low} to {high} in the struct"
            yield from differences(item, kind, f"{at}[]", rules, seen)
        case Name(name="tstr", size=size), inspect.StrType(min_length=low, max_length=high):
            if size is not None and size != (low or 0, high):
                yield f"{at}: {size} in the CDDL, {low} to {high} in the struct"
        case Name(name="bstr", size=size), inspect.BytesType(min_length=low, max_length=high):
            if size is not None and size != (low or 0, high):
                yield f"{at}: {size} in the CDDL, {low} to {high} in the struct"
        case Name(name="uint"), inspect.IntType(ge=0, le=None):
            pass
        case Range(low=least, high=most), inspect.IntType(ge=low, le=high) if (least, most) == (low, high):
            pass
        case Name(name="float"), inspect.FloatType():
            pass
        case Name(name="bool" | "true" | "false"), inspect.BoolType():
            pass
        case Choice(of=options), inspect.LiteralType(values=values) if sorted(options) == sorted(values):
            pass
        case _:
            yield f"{at}: the CDDL says {rule}, the struct {host}"


def _present(kind: inspect.Type) -> inspect.Type:
    """The type of a field when it is there: `UNSET` stands for absent."""
    if isinstance(kind, inspect.UnionType):
        [only] = [part for part in kind.types if not isinstance(part, inspect.UnsetType)]
        return only
    return kind


def structs(module: Any, root: type) -> set[type]:
    return {thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, root) and thing is not root}


def test_every_rule_of_the_cddl_has_a_struct_and_every_struct_is_in_the_cddl(rules: dict[str, Any]) -> None:
    assert set(rules) == set(RULES) | NOT_MAPS
    seen: set[type] = set()
    for rule, struct in RULES.items():
        list(differences(rules[rule], inspect.type_info(struct), rule, rules, seen))
    assert structs(contract, Shape) | structs(commands, commands.Command) == seen


@pytest.mark.parametrize("rule", RULES)
def test_fields_types_optionality_and_bounds_agree(rules: dict[str, Any], rule: str) -> None:
    assert list(differences(rules[rule], inspect.type_info(RULES[rule]), rule, rules, set())) == []


def test_the_comparison_sees_every_kind_of_difference() -> None:
    class Inner(msgspec.Struct):
        x: float

    class Outer(msgspec.Struct, tag_field="op", tag="outer"):
        inner: Inner
        text: str
        numbers: tuple[int, ...]
        pair: tuple[float, float]
        extra: bool
        level: Annotated[int, msgspec.Meta(ge=0, le=4)]
        any: Annotated[int, msgspec.Meta(ge=0, le=4)]

    parsed = Parser(
        'r = { inner: { y: float }, ? text: tstr .size (1..9), numbers: [1*3 uint], pair: [x: float], more: "a" / "b", op: "r", level: 0..3, any: uint }'
    ).rules()
    found = sorted(line.split(":")[0].removeprefix("r.") for line in differences(parsed["r"], inspect.type_info(Outer), "r", parsed, set()))
    assert found == ["any", "extra", "inner.x", "inner.y", "level", "more", "numbers", "numbers[]", "op", "pair", "text", "text"]


def test_a_motion_request_is_one_of_the_hosts_commands(rules: dict[str, Any]) -> None:
    named = {RULES[option.name] for option in rules["motion-request"].of}
    assert named == set(get_args(AnyCommand))


def test_a_point_is_three_numbers(rules: dict[str, Any]) -> None:
    assert rules["point"] == Array((Name("float"),) * 3)


def test_every_hook_has_a_request_and_a_reply_in_the_cddl(rules: dict[str, Any]) -> None:
    for hook in HOOKS - set(STREAMING):
        request, reply = SHAPES[hook]
        assert RULES[f"{hook.replace('_', '-')}-request"] is request
        assert RULES[f"{hook.replace('_', '-')}-reply"] is reply
    assert {"plan_job": (RULES["plan-job-request"], RULES["plan-progress"], RULES["plan-report"])} == STREAMING


def test_maps_in_the_cddl_list_their_keys_in_alphabetical_order(rules: dict[str, Any]) -> None:
    for name in RULES:
        stated = list(rules[name].fields)
        assert stated == sorted(stated), name


# ---- Values through the encoder and back ----------------------------------------------------------

FIXED = {(PlanProgress, "done"): st.just(False), (PlanReport, "done"): st.just(True)}
UINT_MAX = (1 << 64) - 1


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            return st.fixed_dictionaries(
                {field.name: FIXED.get((cls, field.name), values(field.type)) for field in fields if field.required},
                optional={field.name: values(_present(field.type)) for field in fields if not field.required},
            ).map(lambda chosen: cls(**chosen))
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, UINT_MAX if high is None else high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or 80, 80))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=min(high or 300, 300))
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.TupleType(item_types=types):
            return st.tuples(*map(values, types))
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return st.lists(values(item), min_size=low or 0, max_size=min(high or 4, 4)).map(tuple)
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")


@pytest.mark.parametrize("struct", RULES.values(), ids=RULES)
def test_a_struct_survives_the_wire_and_has_one_encoding(struct: type) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(values(inspect.type_info(struct)))
    def survives(value: Any) -> None:
        sent = cbor.encode(value)
        came = cbor.decode_struct(sent, struct, "value")
        assert came == value
        assert cbor.encode(came) == sent
        assert cbor.encode(cbor.decode(sent, "value")) == sent

    survives()


@pytest.mark.parametrize("struct", RULES.values(), ids=RULES)
def test_a_field_more_or_one_less_is_refused_by_name(struct: type) -> None:
    example: dict[str, Any] = msgspec.to_builtins(EXAMPLES[struct], builtin_types=(bytes,))
    with pytest.raises(MalformedData, match="surplus"):
        cbor.decode_struct(cbor.encode(example | {"surplus": 1}), struct, "value")
    for field in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        if field.required:
            less = {key: item for key, item in example.items() if key != field.name}
            with pytest.raises(MalformedData, match=field.name):
                cbor.decode_struct(cbor.encode(less), struct, "value")


Q = contract.Quantity(sigma=0.5, value=2.0)
EXAMPLES: dict[type, Any] = {
    contract.ErrorReply: contract.ErrorReply(code="no", message=""),
    contract.SelfTestRequest: contract.SelfTestRequest(),
    contract.SelfTestReply: contract.SelfTestReply(detail="", ok=True),
    contract.Quantity: Q,
    contract.PlanJobRequest: contract.PlanJobRequest(chunk=b"G0", last=True, run=False, seq=0, settings=contract.PlanSettings()),
    contract.PlanSettings: contract.PlanSettings(),
    contract.PlanProgress: contract.PlanProgress(done=False, lines=1),
    contract.PlanReport: contract.PlanReport(
        bbox_mm=contract.BoundingBox(max=(1.0, 1.0, 1.0), min=(0.0, 0.0, 0.0)), complete=True, dialect="grbl", done=True, driven=0,
        extruded_mm=0.0, lines=1, moves=contract.MoveCounts(arc=0, linear=1, rapid=0),
        path_mm=contract.PathLengths(arc=0.0, linear=1.0, rapid=0.0, total=1.0), problems=(), problems_total=0, time_s=1.0, units="mm",
    ),
    contract.Product: (product := contract.Product(
        element="Li", grade=0.1, impurities=(contract.Impurity(element="Fe", fraction_max=0.1),), name="p", particle_um=75.0, recovery=Q,
    )),
    contract.AssessFeedstockRequest: contract.AssessFeedstockRequest(
        assay=(contract.Constituent(element="Li", fraction=Q),), lot="l", mass_kg=Q, moisture=Q,
        particles=contract.Particles(d10_um=1.0, d50_um=2.0, d80_um=3.0), products=(product,), work_index_kwh_t=Q,
    ),
    contract.AssessFeedstockReply: contract.AssessFeedstockReply(
        best="", dry_mass_kg=Q, lot="l", warnings=(),
        products=(contract.ProductAssessment(confidence=0.5, energy_kwh_t=Q, name="p", reasons=(), suitable=False, yield_kg=Q),),
    ),
    contract.BidRequest: contract.BidRequest(
        bounty=contract.Bounty(deadline_ms=1, id="b", position_m=(0.0, 0.0), reward=1.0, work_ms=1),
        costs=contract.Costs(fuel_unit=1.0, hour=1.0, wear=1.0), margin=0.2,
        node=contract.BidderNode(fuel=1.0, fuel_per_hour=1.0, position_m=(0.0, 0.0), queue_ms=0, speed_m_s=1.0, wear=0.0, wear_per_hour=0.0),
    ),
    contract.BidReply: contract.BidReply(cost=1.0, finish_ms=1, id="b", reason=""),
    contract.HandleRequest: contract.HandleRequest(
        at_ms=1, correlation=bytes(16), id=bytes(16), payload=b"x", phase="act", priority=3, source="n", topic="t", verb="act", weight=0.0,
    ),
    contract.HandleReply: contract.HandleReply(detail="d", handled=True, payload=b"x", state="ready"),
    commands.Move: commands.Move(moves=((0.0, 0.0, 0.0, 1.0),)),
    commands.Heat: commands.Heat(heater="bed", celsius=60.0),
    commands.Tool: commands.Tool(watts=1.0),
    commands.Home: commands.Home(),
    commands.Dwell: commands.Dwell(ms=1),
    commands.Status: commands.Status(),
    MotionReply: MotionReply(moves=0, position_mm=(0.0, 0.0, 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("struct", EXAMPLES, ids=lambda struct: struct.__name__)
def test_bounds_of_text_and_lists_are_enforced_at_the_edge(struct: type) -> None:
    example: dict[str, Any] = msgspec.to_builtins(EXAMPLES[struct], builtin_types=(bytes,))
    for field in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        bound = getattr(_present(field.type), "max_length", None)
        if bound is None or not example.get(field.name):
            continue
        one, least = example[field.name][:1], getattr(_present(field.type), "min_length", None)
        if least:
            with pytest.raises(MalformedData, match=f"length >= {least}.*{field.name}"):
                cbor.decode_struct(cbor.encode(example | {field.name: one * (least - 1)}), struct, "value")
        cbor.decode_struct(cbor.encode(example | {field.name: one * bound}), struct, "value", bytes_max=2 << 20)
        with pytest.raises(MalformedData, match=f"length <= {bound}.*{field.name}"):
            cbor.decode_struct(cbor.encode(example | {field.name: one * (bound + 1)}), struct, "value", bytes_max=2 << 20)


@pytest.mark.parametrize(("struct", "done"), [(PlanProgress, True), (PlanReport, False)])
def test_only_the_last_reply_of_a_plan_is_done(struct: type, done: bool) -> None:
    wrong = msgspec.to_builtins(EXAMPLES[struct]) | {"done": done}
    with pytest.raises(MalformedData, match="done"):
        cbor.decode_struct(cbor.encode(wrong), struct, "value")


WRONG = {
    "a priority of 4": {"priority": 4}, "a negative priority": {"priority": -1}, "a time before 1970": {"at_ms": -1}, "a time with a fraction": {"at_ms": 0.5},
    "another phase": {"phase": "cancel"}, "another verb": {"verb": "obey"}, "a negative weight": {"weight": -0.5}, "a payload of text": {"payload": "x"},
    "an id of text": {"id": "x" * 16}, "no topic": {"topic": ""},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_message_outside_the_bounds_of_handle_is_refused_by_name(what: str) -> None:
    example: dict[str, Any] = msgspec.to_builtins(EXAMPLES[contract.HandleRequest], builtin_types=(bytes,))
    with pytest.raises(MalformedData, match=next(iter(WRONG[what]))):
        cbor.decode_struct(cbor.encode(example | WRONG[what]), contract.HandleRequest, "value")


@pytest.mark.parametrize("wrong", [{"state": "transit"}, {"state": 1}, {"handled": 1}, {"payload": None}], ids=repr)
def test_a_reply_outside_the_bounds_of_handle_is_refused_by_name(wrong: dict[str, Any]) -> None:
    example: dict[str, Any] = msgspec.to_builtins(EXAMPLES[contract.HandleReply], builtin_types=(bytes,))
    with pytest.raises(MalformedData, match=next(iter(wrong))):
        cbor.decode_struct(cbor.encode(example | wrong), contract.HandleReply, "value")
