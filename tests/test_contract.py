"""The contract that guest authors read, sdk/contract/skill.cddl, against the structs that the host decodes into."""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from host.core import cbor, commands, flags
from host.core.commands import AnyCommand
from host.core.errors import MalformedData
from host.core.manifest import HOOK
from host.plugins import contract
from host.plugins.contract import HOOKS, SHAPES, STREAMING, InspectPartRequest, MotionReply, PlanProgress, PlanReport, Shape
from sdk.demo.samples import PART

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
    "inspect-part-request": contract.InspectPartRequest,
    "characteristic": contract.Characteristic,
    "control-lines": contract.ControlLines,
    "mate": contract.Mate,
    "inspect-part-reply": contract.InspectPartReply,
    "characteristic-verdict": contract.CharacteristicVerdict,
    "capability": contract.Capability,
    "control-chart": contract.ControlChart,
    "signal": contract.Signal,
    "compatibility": contract.Compatibility,
    "motion-move": commands.Move,
    "motion-heat": commands.Heat,
    "motion-tool": commands.Tool,
    "motion-home": commands.Home,
    "motion-dwell": commands.Dwell,
    "motion-status": commands.Status,
    "motion-reply": contract.MotionReply,
    "flag-request": flags.FlagRequest,
    "flag-reply": flags.FlagReply,
}
NOT_STRUCTS = {
    "name",
    "line",
    "non-negative",
    "share",
    "size",
    "spread",
    "point",
    "motion-request",
}  # what the rules are made of, and the choice between the six commands

# ---- The subset of CDDL (RFC 8610) that the contract is written in --------------------------------


@dataclass(frozen=True)
class Field:
    optional: bool
    type: Any


@dataclass(frozen=True)
class Map:
    fields: dict[str, Field]


@dataclass(frozen=True)
class Positions:
    """An array of so many items, each with its own type. Their names in the CDDL are not on the wire."""

    items: tuple[Any, ...]


@dataclass(frozen=True)
class Items:
    """An array of `least` to `most` items of one type."""

    item: Any
    least: int
    most: int | None


@dataclass(frozen=True)
class Text:
    """A text with the bounds of its length, or with a pattern that says all."""

    least: int = 0
    most: int | None = None
    pattern: str = ""


@dataclass(frozen=True)
class Bytes:
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Whole:
    low: int = 0
    high: int | None = None


@dataclass(frozen=True)
class Float:
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bool:
    only: bool | None = None


@dataclass(frozen=True)
class Words:
    of: frozenset[str]


@dataclass(frozen=True)
class Choice:
    of: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """A type that another rule describes."""

    name: str


PRELUDE = {"tstr": Text(), "bstr": Bytes(), "uint": Whole(), "float": Float(), "bool": Bool(), "true": Bool(True), "false": Bool(False)}


class Parser:
    """Recursive descent over tokens; anything outside the subset is an error, so that nothing is skipped over."""

    TOKENS = re.compile(r'"[^"]*"|[A-Za-z][\w-]*|-?\d+(?:\.\d+)?|\.(?:size|ge|le|and|regexp)\b|\.\.|[={}\[\]():,?*/]')

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
            assert name not in found | PRELUDE, name
            found[name] = self.type()
        return found

    def take(self, wanted: str | None = None) -> str:
        token = self.tokens[self.at]
        assert wanted in (None, token), f"expected {wanted}, found {token}"
        self.at += 1
        return str(token)

    def skip(self, token: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def type(self) -> Any:
        options = [self.bounded()]
        while self.skip("/"):
            options.append(self.bounded())
        if all(isinstance(option, Words) for option in options):
            words = [word for option in options for word in option.of]
            assert len(words) == len(set(words)), words
            return Words(frozenset(words))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def bounded(self) -> Any:
        """A type and its control operator, if it has one: each of them once, and only on the type that it is for."""
        found = self.one()
        if self.skip(".and"):
            other = self.one()
            assert isinstance(found, Float) and isinstance(other, Float) and found.high is None and other.low is None
            return Float(found.low, other.high)
        for operator, kinds in ((".size", (Text, Bytes)), (".ge", (Float,)), (".le", (Float,)), (".regexp", (Text,))):
            if self.skip(operator):
                assert isinstance(found, kinds) and found == type(found)(), f"{operator} on {found}"
                return self.control(operator, type(found))
        return found

    def control(self, operator: str, kind: Any) -> Any:
        match operator:
            case ".size" if self.skip("("):
                least, most = int(self.take()), int(self.take("..") and self.take())
                self.take(")")
                return kind(least, most)
            case ".size":
                exactly = int(self.take())
                return kind(exactly, exactly)
            case ".regexp":
                return kind(pattern=self.take().strip('"'))
            case ".ge":
                return kind(low=float(self.take()))
            case _:
                return kind(high=float(self.take()))

    def one(self) -> Any:
        if self.skip("{"):
            return self.map()
        if self.skip("["):
            return self.array()
        if self.skip("("):
            inner = self.type()
            self.take(")")
            return inner
        token = self.take()
        if token.startswith('"'):
            return Words(frozenset({token.strip('"')}))
        if token.isdigit():
            self.take("..")
            return Whole(int(token), int(self.take()))
        return PRELUDE.get(token) or Rule(token)

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

    def array(self) -> Any:
        least = int(self.take()) if self.tokens[self.at].isdigit() else None
        if least is not None or self.tokens[self.at] == "*":
            self.take("*")
            most = int(self.take()) if self.tokens[self.at].isdigit() else None
            item = self.type()
            self.take("]")
            return Items(item, least or 0, most)
        items = []
        while not self.skip("]"):
            self.take()
            self.take(":")
            items.append(self.type())
            self.skip(",")
        return Positions(tuple(items))


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    return Parser(CDDL.read_text()).rules()


# ---- The host's structs in the same words ---------------------------------------------------------


def described(kind: inspect.Type) -> Any:
    """What the CDDL should say of a type. Fails on a constraint that has no word here, so that none is left out."""
    if not isinstance(kind, inspect.StructType):
        assert [getattr(kind, bound, None) for bound in ("gt", "lt", "multiple_of")] == [None] * 3, (
            f"a bound that the subset does not know: {kind}"
        )
    match kind:
        case inspect.StructType(cls=cls, fields=fields, tag_field=tag_field, tag=tag, forbid_unknown_fields=closed):
            assert closed, f"{cls.__name__} takes keys that the CDDL does not name"
            found = {field.encode_name: Field(not field.required, _field(cls, field)) for field in fields}
            return Map(found | ({tag_field: Field(False, Words(frozenset({str(tag)})))} if tag_field else {}))
        case inspect.TupleType(item_types=types):
            return Positions(tuple(map(described, types)))
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return Items(described(item), low or 0, high)
        case inspect.StrType(min_length=low, max_length=high, pattern=None):
            return Text(low or 0, high)
        case inspect.StrType(min_length=None, max_length=int(high), pattern=str(pattern)):
            one, rest = re.fullmatch(r"\^(\[[^]]+\])(\[[^]]+\])\*\\Z", pattern).groups()  # type: ignore[union-attr]  # fails on any other pattern
            return Text(pattern=f"{one}{rest}{{0,{high - 1}}}")
        case inspect.BytesType(min_length=low, max_length=high):
            return Bytes(low or 0, high)
        case inspect.IntType(ge=int(low), le=high):
            return Whole(low, high)
        case inspect.FloatType(ge=low, le=high):
            return Float(low, high)
        case inspect.BoolType():
            return Bool()
        case inspect.LiteralType(values=values):
            return Words(frozenset(values))
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")


def _field(cls: type, field: inspect.Field) -> Any:
    no_other = (field.default, field.default_factory) == (msgspec.NODEFAULT, msgspec.NODEFAULT)  # which stands for UNSET too
    assert no_other, f"{cls.__name__}.{field.name}: what may be absent has no other value in its place"
    kind = described(_present(field.type))
    return Bool(_only(cls, field.name)) if kind == Bool() else kind


def _only(cls: type, field: str) -> bool | None:
    """The one value that a field may have: a struct's own check says so, and no type."""
    if cls not in EXAMPLES:
        return None
    example = msgspec.to_builtins(EXAMPLES[cls], builtin_types=(bytes,))
    taken = []
    for value in (False, True):
        with suppress(msgspec.ValidationError):
            msgspec.convert(example | {field: value}, cls)
            taken.append(value)
    return taken[0] if len(taken) == 1 else None


def _present(kind: inspect.Type) -> inspect.Type:
    """The type of a field when it is there: `UNSET` stands for absent."""
    if isinstance(kind, inspect.UnionType):
        [only] = [part for part in kind.types if not isinstance(part, inspect.UnsetType)]
        return only
    return kind


# ---- Comparing ----------------------------------------------------------------------------------


def differences(said: Any, host: Any, at: str, rules: dict[str, Any]) -> Iterator[str]:
    """Where the CDDL says something else than the host does, each as a line of words."""
    match said, host:
        case Rule(name=name), _:
            if name in rules:
                yield from differences(rules[name], host, at, rules)
            else:
                yield f"{at}: no rule {name}"
        case Map(fields=stated), Map(fields=declared):
            for key in sorted(stated.keys() ^ declared.keys()):
                yield f"{at}.{key}: only in the {'CDDL' if key in stated else 'struct'}"
            for key in sorted(stated.keys() & declared.keys()):
                if stated[key].optional != declared[key].optional:
                    yield f"{at}.{key}: may be absent in only one of the two"
                yield from differences(stated[key].type, declared[key].type, f"{at}.{key}", rules)
        case Positions(items=stated), Positions(items=declared) if len(stated) == len(declared):
            for index, (one, other) in enumerate(zip(stated, declared, strict=True)):
                yield from differences(one, other, f"{at}[{index}]", rules)
        case Items(item=one, least=least, most=most), Items(item=other, least=low, most=high):
            if (least, most) != (low, high):
                yield f"{at}: {least} to {most} items in the CDDL, {low} to {high} in the struct"
            yield from differences(one, other, f"{at}[]", rules)
        case _ if said != host:
            yield f"{at}: the CDDL says {said}, the struct {host}"


def drift(rules: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """All that the CDDL says otherwise than the host does. `host` has what RULES should say."""
    found = [f"{name}: no rule" for name in sorted((RULES.keys() | NOT_STRUCTS) - rules.keys())]
    found += [f"{name}: nothing of the host" for name in sorted(rules.keys() - RULES.keys() - NOT_STRUCTS)]
    for name in rules.keys() & RULES.keys():
        found += differences(rules[name], host[name], name, rules)
    choice = rules.get("motion-request")
    options = {getattr(option, "name", "") for option in choice.of} if isinstance(choice, Choice) else set()
    if {RULES.get(option) for option in options} != set(get_args(AnyCommand)):
        found.append(f"motion-request: the CDDL says {choice}")
    return found


@pytest.fixture(scope="module")
def host() -> dict[str, Any]:
    return {name: described(inspect.type_info(struct)) for name, struct in RULES.items()}


def reached(kind: Any) -> Iterator[type]:
    """The structs that a type is made of."""
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            yield cls
            for field in fields:
                yield from reached(_present(field.type))
        case inspect.VarTupleType(item_type=item):
            yield from reached(item)


def structs(module: Any, root: type) -> set[type]:
    return {thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, root) and thing is not root}


def test_every_struct_of_the_contract_is_in_the_cddl() -> None:
    seen = {cls for struct in RULES.values() for cls in reached(inspect.type_info(struct))}
    assert seen == structs(contract, Shape) | structs(commands, commands.Command) | {flags.FlagRequest, flags.FlagReply}


@pytest.mark.parametrize("rule", RULES)
def test_fields_types_optionality_and_bounds_agree(rules: dict[str, Any], host: dict[str, Any], rule: str) -> None:
    assert list(differences(rules[rule], host[rule], rule, rules)) == []


def test_nothing_else_of_the_cddl_differs_and_every_rule_is_used(rules: dict[str, Any], host: dict[str, Any]) -> None:
    assert drift(rules, host) == []
    used = set(re.findall(r"Rule\(name='([^']+)'\)", repr(rules)))
    assert NOT_STRUCTS - used == {"motion-request"}


def test_the_comparison_sees_every_kind_of_difference() -> None:
    class Inner(msgspec.Struct, forbid_unknown_fields=True):
        x: float

    class Outer(msgspec.Struct, tag_field="op", tag="outer", forbid_unknown_fields=True):
        inner: Inner
        text: str
        numbers: tuple[int, ...]
        pair: tuple[float, float]
        extra: bool
        level: Annotated[int, msgspec.Meta(ge=0, le=4)]
        any: Annotated[int, msgspec.Meta(ge=0, le=4)]
        share: Annotated[float, msgspec.Meta(ge=0, le=2)]

    with pytest.raises(AssertionError, match="so far"):
        described(inspect.type_info(Outer))  # a whole number without a bound: the contract has none
    Outer.__annotations__["numbers"] = tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    outer = msgspec.defstruct("Outer", list(Outer.__annotations__.items()), tag_field="op", tag="outer", forbid_unknown_fields=True)
    parsed = Parser(
        'r = { inner: { y: float }, ? text: tstr .size (1..9), numbers: [1*3 tstr], pair: [x: float], more: "a" / "b", op: "r", level: 0..3, any: uint, '
        "share: (float .ge 0.0) .and (float .le 1.0) }"
    ).rules()
    found = sorted(
        line.split(":")[0].removeprefix("r.") for line in differences(parsed["r"], described(inspect.type_info(outer)), "r", parsed)
    )
    assert found == ["any", "extra", "inner.x", "inner.y", "level", "more", "numbers", "numbers[]", "op", "pair", "share", "text", "text"]


UNSAID: dict[str, tuple[Any, dict[str, Any]]] = {
    "above 0": (Annotated[float, msgspec.Meta(gt=0)], {}), "an even number": (Annotated[int, msgspec.Meta(ge=0, multiple_of=2)], {}),
    "another pattern": (Annotated[str, msgspec.Meta(pattern="^a|b$", max_length=9)], {}), "a pattern without a length": (Annotated[str, msgspec.Meta(pattern=HOOK)], {}),
    "keys of anybody's": (bool, {"forbid_unknown_fields": False}), "a value in place of none": ((float, 1.0), {}),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSAID)
def test_a_constraint_of_a_struct_that_the_cddl_cannot_say_fails(what: str) -> None:
    kind, options = UNSAID[what]
    field = ("key", *kind) if isinstance(kind, tuple) else ("key", kind)
    struct = msgspec.defstruct("Odd", [field], **{"forbid_unknown_fields": True} | options)
    with pytest.raises((AssertionError, AttributeError)):
        described(inspect.type_info(struct))


def changed(tokens: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A rule's tokens with one change each that means something else: a bound, a name, an optional mark, a word, a type."""

    def with_(at: int, count: int, *instead: str) -> tuple[str, list[str]]:
        line = [*tokens[:at], *instead, *tokens[at + count :]]
        return " ".join(line[max(0, at - 6) : at + 6]), line

    inside: list[str] = []
    for at, token in enumerate(tokens):
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in "{[":
            inside.append(token)
        elif token in "}]":
            inside.pop()
        elif token.isdigit():
            yield with_(at, 1, str(int(token) + 1))
            if "*" in (following, tokens[at - 1]) and token != "0":
                yield with_(at, 1)
        elif re.fullmatch(r"-?\d+\.\d+", token):
            yield with_(at, 1, "0.5")
        elif token.startswith('"'):
            yield with_(at, 1, token[:-1] + 'x"')
        elif token == "?":
            yield with_(at, 1)
        elif token == "*" and not tokens[at - 1].isdigit():
            yield with_(at, 0, "1")
        elif token in (".size", ".and") and following == "(":
            yield with_(at, tokens.index(")", at) - at + 1)
        elif token.startswith(".") and token != "..":
            yield with_(at, 2)
        elif following == ":" and inside[-1] == "{":
            yield with_(at, 1, token + "s")
            if tokens[at - 1] != "?":
                yield with_(at, 0, "?")
        elif token[0].isalpha() and following not in (":", "="):
            for other in {*PRELUDE, "point"} - {token}:
                yield with_(at, 1, other)


@pytest.mark.slow
def test_a_change_of_any_bound_name_mark_word_or_type_in_the_cddl_is_seen(rules: dict[str, Any], host: dict[str, Any]) -> None:
    tokens = Parser(CDDL.read_text()).tokens
    starts = [at - 1 for at, token in enumerate(tokens) if token == "="]
    seen = 0
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        for about, mutant in changed(tokens[start:end]):
            try:
                other = rules | Parser(" ".join(mutant)).rules()
            except (AssertionError, IndexError, ValueError):
                continue  # it is no CDDL of the subset any more, which fails every test here
            assert drift(other, host), f"nobody noticed: {about}"
            seen += 1
    assert seen > 1_000


@pytest.mark.parametrize("struct", [pytest.param(struct, id=name) for name, struct in RULES.items()])
def test_a_change_of_any_field_of_a_struct_is_seen(rules: dict[str, Any], host: dict[str, Any], struct: type) -> None:
    name = next(name for name, other in RULES.items() if other is struct)
    fields = host[name].fields
    for key, field in fields.items():
        less = {other: kept for other, kept in fields.items() if other != key}
        for mutant in (
            less,
            less | {key + "s": field},
            fields | {key: Field(not field.optional, field.type)},
            fields | {key: Field(field.optional, None)},
        ):
            assert drift(rules, host | {name: Map(mutant)}), (name, key)
    assert drift(rules, host | {name: Map(fields | {"more": Field(False, Bool())})})


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
            return st.floats(low, high, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.StrType(pattern=str(pattern), max_length=high):
            return st.from_regex(pattern).filter(lambda text: len(text) <= (high or 80))
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


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_of_a_struct_is_finite_and_the_one_that_is_not_is_named(number: float) -> None:
    reply = msgspec.to_builtins(PART) | {"characteristics": [{"name": "bore", "target": {"sigma": number}}]}
    with pytest.raises(MalformedData, match=r"expected a finite number - at `\$\.characteristics\[0\]\.target\.sigma`"):
        cbor.decode_struct(cbor.encode(reply), InspectPartRequest, "request")
    looks_alike = {"at_ms": 0xF97E00, "x": b"\xf9\x7e\x00"}
    assert cbor.decode_struct(cbor.encode(looks_alike), dict, "map") == looks_alike


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
    contract.ControlLines: contract.ControlLines(center_mm=25.0, range_mm=0.01),
    contract.Mate: (mate := contract.Mate(
        clearance_max_mm=0.04, clearance_min_mm=0.0, generation=2, lower_mm=25.0, mean_mm=25.01, required=True, sigma_mm=0.003, upper_mm=25.021,
    )),
    contract.Characteristic: (characteristic := contract.Characteristic(
        feature="external", gauge_sigma_mm=0.001, history_mm=(24.99,), lower_mm=-0.02, mates=(mate,), measured_mm=(24.99, 24.985), name="journal",
        nominal_mm=25.0, rework=True, subgroup=2,
    )),
    contract.InspectPartRequest: contract.InspectPartRequest(characteristics=(characteristic,), cpk_min=1.33, generation=3, lot="l", parts=2),
    contract.Signal: (signal := contract.Signal(chart="mean", point=1, rule=1)),
    contract.ControlChart: contract.ControlChart(
        center_mm=25.0, established=False, mean_lower_mm=24.9, mean_upper_mm=25.1, points=1, range_lower_mm=0.0, range_mm=0.01, range_upper_mm=0.02,
        signals=(signal,), signals_total=1,
    ),
    contract.Capability: contract.Capability(cpk=1.0, cpk_lower=0.9, overall_sigma_mm=0.01, ppk=1.0, sigma_mm=0.01, values=50),
    contract.Compatibility: (compatibility := contract.Compatibility(
        fit="clearance", fits="every", generation=2, measured_max_mm=0.02, measured_min_mm=0.01, statistical_max_mm=0.02, statistical_min_mm=0.01,
        worst_max_mm=0.04, worst_min_mm=0.0,
    )),
    contract.CharacteristicVerdict: (found := contract.CharacteristicVerdict(accepted=2, mates=(compatibility,), name="journal", verdict="accept")),
    contract.InspectPartReply: contract.InspectPartReply(cautions=("c",), characteristics=(found,), lot="l", reasons=("r",), verdict="accept"),
    commands.Move: commands.Move(moves=((0.0, 0.0, 0.0, 1.0),)),
    commands.Heat: commands.Heat(heater="bed", celsius=60.0),
    commands.Tool: commands.Tool(watts=1.0),
    commands.Home: commands.Home(),
    commands.Dwell: commands.Dwell(ms=1),
    commands.Status: commands.Status(),
    MotionReply: MotionReply(moves=0, position_mm=(0.0, 0.0, 0.0)),
    flags.FlagRequest: flags.FlagRequest(flag="a"),
    flags.FlagReply: flags.FlagReply(on=True),
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
